/* The fingerprint of a request body: what Idempotency-Key compares.
 *
 * Equal bodies in the sense of JSON have equal fingerprints: order of keys, blanks and escapes do not count, and numbers
 * count by value (2, 2.0 and 2e0 are one), but integers past 2^53 by their digits, so that neighbouring seeds stay apart.
 * Defaults are not filled in: leaving a field out is not the same as sending its default. Pure; any thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/generate_request.h"
#include "api/json_walk.h"
#include "base/sha256.h"
#include "format/json.h"

#define EXACT_DOUBLE 9007199254740992.0 /* 2^53 */

typedef struct pair {
    const cJSON *value;
    api_raw raw;
} pair;

static bool add_value(dn_sha256 *hash, const cJSON *value, api_raw raw);

/* A tag, a length and the bytes: no two different trees feed the hash the same bytes. */
static void add_bytes(dn_sha256 *hash, char tag, const char *bytes, size_t count)
{
    char head[32];
    int used = snprintf(head, sizeof head, "%c%zu:", tag, count);
    dn_sha256_update(hash, head, (size_t)used);
    dn_sha256_update(hash, bytes, count);
}

static void add_number(dn_sha256 *hash, double value, api_raw raw)
{
    char digits[32];
    if (fabs(value) >= EXACT_DOUBLE && api_raw_is_integer(raw)) {
        add_bytes(hash, 'n', raw.at, raw.bytes);
        return;
    }
    int used =
        snprintf(digits, sizeof digits, value == floor(value) && fabs(value) < EXACT_DOUBLE ? "%.0f" : "%.17g", value == 0 ? 0.0 : value);
    add_bytes(hash, 'n', digits, (size_t)used);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const pair *)a)->value->string, ((const pair *)b)->value->string);
}

static bool add_container(dn_sha256 *hash, const cJSON *container, api_raw raw)
{
    size_t count = 0;
    bool object = cJSON_IsObject(container), ok = true;
    for (const cJSON *child = container->child; child; child = child->next) {
        count++;
    }
    pair *pairs = calloc(count ? count : 1, sizeof *pairs);
    if (!pairs) {
        return false;
    }
    api_walk walk;
    api_walk_begin(&walk, raw);
    const cJSON *child = container->child;
    for (size_t i = 0; i < count && ok; i++, child = child->next) {
        pairs[i].value = child;
        ok = api_walk_next(&walk, &pairs[i].raw);
    }
    if (object && ok) {
        qsort(pairs, count, sizeof *pairs, by_key);
    }
    char head[32];
    int used = snprintf(head, sizeof head, "%c%zu:", object ? 'o' : 'a', count);
    dn_sha256_update(hash, head, (size_t)used);
    for (size_t i = 0; i < count && ok; i++) {
        if (object) {
            add_bytes(hash, 'k', pairs[i].value->string, strlen(pairs[i].value->string));
        }
        ok = add_value(hash, pairs[i].value, pairs[i].raw);
    }
    free(pairs);
    return ok;
}

/* Recursion is bounded by the scanner's depth limit. */
static bool add_value(dn_sha256 *hash, const cJSON *value, api_raw raw)
{
    if (cJSON_IsObject(value) || cJSON_IsArray(value)) {
        return add_container(hash, value, raw);
    }
    if (cJSON_IsString(value)) {
        add_bytes(hash, 's', value->valuestring, strlen(value->valuestring));
    } else if (cJSON_IsNumber(value)) {
        add_number(hash, value->valuedouble, raw);
    } else {
        add_bytes(hash, cJSON_IsNull(value) ? 'z' : cJSON_IsTrue(value) ? 't' : 'f', "", 0);
    }
    return true;
}

bool api_fingerprint(unsigned char out[32], const char *route, const char *body, size_t body_bytes)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_IMAGE_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    cJSON *tree = NULL;
    if (dn_json_parse(&tree, body, body_bytes, &limits, NULL, NULL) != DN_OK) {
        return false;
    }
    dn_sha256 hash;
    dn_sha256_init(&hash);
    add_bytes(&hash, 'r', route, strlen(route));
    bool ok = add_value(&hash, tree, (api_raw){body, body_bytes});
    if (ok) {
        dn_sha256_final(&hash, out);
    }
    cJSON_Delete(tree);
    return ok;
}
