/* Fuzz entry (libFuzzer's): any bytes as a PNG whose text somebody reads: the first byte says under which keyword; once as they are
 * and once with the checksums of their chunks put right. What is found must lie in the file and, if it is a recipe, be JSON or not. */
#include "tests/fuzz/fuzz.h"

#include <zlib.h>

#include "api/verification.h"
#include "base/limits.h"
#include "format/json.h"
#include "format/png_image.h"

/* A recipe that can be read becomes a request that is JSON, within a request's size, and says what the recipe says. */
static void ask_again(const char *text, size_t count)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_BYTES_MAX};
    bool no_memory = false;
    api_recipe recipe;
    dn_error error;
    if (!api_recipe_read(&recipe, text, count, &no_memory)) {
        REQUIRE(!no_memory);
        return;
    }
    api_verification found = {.verdict = API_VERDICT_CANNOT, .claimed = &recipe};
    char *body = api_recipe_body(&recipe, "model", "AAAA", NULL), *answer = api_verification_body(&found);
    REQUIRE(body != NULL && dn_json_scan(body, strlen(body), &limits, NULL, &error) == DN_OK);
    REQUIRE(answer != NULL && dn_json_scan(answer, strlen(answer), &limits, NULL, &error) == DN_OK);
    free(body);
    free(answer);
}

static void read_text(const uint8_t *data, size_t size, const char *key)
{
    dn_error error = {DN_OK, ""};
    char *text = NULL;
    dn_status status = dn_png_read_text(&text, data, size, key, &error);
    REQUIRE((status == DN_OK) == (text != NULL) && (status == DN_OK || error.message[0] != '\0'));
    if (text == NULL)
        return;
    const size_t count = strlen(text);
    REQUIRE(count <= 2 * size);
    const dn_json_limits limits = {.bytes_max = 65536};
    cJSON *root = NULL;
    if (dn_json_parse(&root, text, count, &limits, NULL, &error) == DN_OK)
        cJSON_Delete(root);
    ask_again(text, count);
    free(text);
}

static void mend_checksums(uint8_t *bytes, size_t size)
{
    for (size_t at = 8; at + 12 <= size;) {
        size_t count = (size_t)bytes[at] << 24 | (size_t)bytes[at + 1] << 16 | (size_t)bytes[at + 2] << 8 | bytes[at + 3];
        if (count > size - at - 12)
            return;
        uint32_t sum = (uint32_t)crc32(0, bytes + at + 4, (unsigned)count + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + count + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + count;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"parameters", "denoised", "Software", ""};
    if (size < 1)
        return 0;
    const char *key = keys[data[0] & 3];
    read_text(data + 1, size - 1, key);
    uint8_t *copy = malloc(size);
    REQUIRE(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    mend_checksums(copy, size - 1);
    read_text(copy, size - 1, key);
    free(copy);
    return 0;
}
