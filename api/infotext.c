/* See infotext.h. */
#include "api/infotext.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_fields.h"
#include "api/json_walk.h"
#include "api/png_metadata.h"
#include "api/text.h"
#include "format/json.h"

#define FIELDS_MIN 3 /* in the last line, or it belongs to the prompt: webui's rule */
#define NEGATIVE "Negative prompt:"
#define RECIPE_BYTES_MAX 131072
#define KEY_BYTES_MAX 100 /* what a longer one has beyond is left out */
#define NAME_BYTES (3 * KEY_BYTES_MAX + 8)

/* ---- The last line: `Key: value, Key: "quoted, value"` */

typedef struct piece {
    const char *at;
    size_t bytes;
} piece;

static bool in_key(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == ' ' || c == '-' || c == '/' || (unsigned char)c >= 0x80;
}

static piece trimmed(const char *at, const char *end)
{
    while (at < end && isspace((unsigned char)*at)) {
        at++;
    }
    while (end > at && isspace((unsigned char)end[-1])) {
        end--;
    }
    return (piece){at, (size_t)(end - at)};
}

/* Where a quoted value ends: behind the quote that a comma or the end follows; NULL: it is none. */
static const char *quoted_end(const char *at, const char *end)
{
    for (const char *c = at + 1; c < end; c++) {
        if (*c == '\\') {
            c++;
        } else if (*c == '"') {
            return c > at + 1 && (c + 1 == end || c[1] == ',') ? c + 1 : NULL;
        }
    }
    return NULL;
}

/* The next field of a line; advances *at; false: there is none. */
static bool next_field(const char **at, const char *end, piece *key, piece *value)
{
    const char *c = *at;
    for (;;) {
        const char *start = c;
        while (c < end && in_key(*c)) {
            c++;
        }
        *key = trimmed(start, c);
        if (c < end && *c == ':' && key->bytes > 1) {
            break;
        }
        if (c >= end) {
            return false;
        }
        c++;
    }
    for (c++; c < end && isspace((unsigned char)*c);) {
        c++;
    }
    const char *stop = c < end && *c == '"' ? quoted_end(c, end) : NULL;
    if (!stop) {
        stop = memchr(c, ',', (size_t)(end - c));
        stop = stop ? stop : end;
    }
    *value = (piece){c, (size_t)(stop - c)};
    *at = stop < end ? stop + 1 : end;
    return true;
}

static size_t count_fields(const char *at, const char *end)
{
    piece key, value;
    size_t count = 0;
    while (next_field(&at, end, &key, &value)) {
        count++;
    }
    return count;
}

/* ---- As JSON */

/* Owns nothing but its object; a failed allocation is remembered. */
typedef struct fields {
    cJSON *object;
    bool failed;
} fields;

/* As it will be read: bytes that are no UTF-8 become U+FFFD before names are compared, so that none comes twice. */
static void field_name(char out[NAME_BYTES], const char *key, const char *suffix)
{
    size_t used = 0;
    for (size_t bytes; *key; key += bytes ? bytes : 1) {
        bytes = api_utf8_bytes(key);
        memcpy(out + used, bytes ? key : "\xEF\xBF\xBD", bytes ? bytes : 3);
        used += bytes ? bytes : 3;
    }
    snprintf(out + used, NAME_BYTES - used, "%s", suffix);
}

/* key: of at most KEY_BYTES_MAX bytes. */
static void put(fields *f, const char *key, const char *suffix, piece value)
{
    char *text = malloc(value.bytes + 1);
    cJSON *item = NULL;
    if (text) {
        memcpy(text, value.at, value.bytes);
        text[value.bytes] = '\0';
        char name[NAME_BYTES];
        field_name(name, key, suffix);
        cJSON_DeleteItemFromObjectCaseSensitive(f->object, name); /* the last of a name counts */
        item = cJSON_AddStringToObject(f->object, name, text);
    }
    f->failed |= !item;
    free(text);
}

/* "32x64" to two fields, as webui has it. */
static bool put_size(fields *f, const char *key, piece value)
{
    const char *cross = memchr(value.at, 'x', value.bytes);
    const size_t first = cross ? (size_t)(cross - value.at) : 0, second = cross ? value.bytes - first - 1 : 0;
    if (!first || !second || strspn(value.at, "0123456789") != first || strspn(cross + 1, "0123456789") < second) {
        return false;
    }
    put(f, key, "-1", (piece){value.at, first});
    put(f, key, "-2", (piece){cross + 1, second});
    return true;
}

static void put_fields(fields *f, const char *at, const char *end)
{
    piece key, value;
    while (next_field(&at, end, &key, &value)) {
        char name[KEY_BYTES_MAX + 1];
        const size_t bytes = key.bytes < sizeof name - 1 ? key.bytes : sizeof name - 1;
        memcpy(name, key.at, bytes);
        name[bytes] = '\0';
        if (value.bytes > 2 && value.at[0] == '"' && value.at[value.bytes - 1] == '"') {
            char *inside = malloc(value.bytes);
            f->failed |= !inside;
            if (inside) {
                put(f, name, "", (piece){inside, dn_json_unescape(inside, value.at + 1, value.bytes - 2)});
            }
            free(inside);
        } else if (!put_size(f, name, value)) {
            put(f, name, "", trimmed(value.at, value.at + value.bytes));
        }
    }
}

/* The lines before the last: the prompt, and from "Negative prompt:" on what is not wanted. */
static void put_prompts(fields *f, const char *at, const char *end)
{
    api_text wanted = API_TEXT_INIT, unwanted = API_TEXT_INIT;
    api_text *into = &wanted;
    while (at < end) {
        const char *line_end = memchr(at, '\n', (size_t)(end - at));
        line_end = line_end ? line_end : end;
        piece line = trimmed(at, line_end);
        if (line.bytes >= strlen(NEGATIVE) && strncmp(line.at, NEGATIVE, strlen(NEGATIVE)) == 0) {
            into = &unwanted;
            line = trimmed(line.at + strlen(NEGATIVE), line.at + line.bytes);
        }
        api_text_add(into, into->length ? "\n" : "");
        api_text_bytes(into, line.at, line.bytes);
        at = line_end < end ? line_end + 1 : end;
    }
    api_text *both[2] = {&wanted, &unwanted};
    for (int i = 0; i < 2; i++) {
        char *text = api_text_take(both[i]);
        f->failed |= !text;
        put(f, i ? "Negative prompt" : "Prompt", "", (piece){text ? text : "", text ? strlen(text) : 0});
        free(text);
    }
}

static char *as_json(const fields *f)
{
    api_text text = API_TEXT_INIT;
    text.failed = f->failed;
    api_text_add(&text, "{");
    for (const cJSON *item = f->object ? f->object->child : NULL; item; item = item->next) {
        api_text_add(&text, text.length > 1 ? "," : "");
        api_text_string(&text, item->string);
        api_text_add(&text, ":");
        api_text_string(&text, item->valuestring);
    }
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_infotext_fields(const char *infotext)
{
    const piece whole = trimmed(infotext, infotext + strlen(infotext));
    const char *end = whole.at + whole.bytes, *last = end;
    fields f = {cJSON_CreateObject(), false};
    f.failed = !f.object;
    while (last > whole.at && last[-1] != '\n') {
        last--;
    }
    if (whole.bytes) {
        const bool told = count_fields(last, end) >= FIELDS_MIN;
        put_prompts(&f, whole.at, told ? last : end);
        put(&f, "Schedule type", "", (piece){"Automatic", 9});
        put_fields(&f, told ? last : end, end);
    }
    char *json = as_json(&f);
    cJSON_Delete(f.object);
    return json;
}

/* ---- Of a recipe */

static bool read_recipe(const cJSON *root, api_model *model)
{
    double width, height;
    if (!api_read_whole(root, "width", 1, UINT32_MAX, &width) || !api_read_whole(root, "height", 1, UINT32_MAX, &height) ||
        !api_read_text(root, "weights_sha256", model->weights_sha256, sizeof model->weights_sha256)) {
        return false;
    }
    model->width = (uint32_t)width;
    model->height = (uint32_t)height;
    return true;
}

char *api_infotext_of_recipe(const char *recipe)
{
    const dn_json_limits limits = {.bytes_max = RECIPE_BYTES_MAX};
    const size_t bytes = strlen(recipe);
    api_request *request = calloc(1, sizeof *request);
    api_model *model = calloc(1, sizeof *model);
    cJSON *root = NULL;
    char *text = NULL;
    api_walk walk;
    api_raw raw;
    if (!request || !model || dn_json_parse(&root, recipe, bytes, &limits, NULL, NULL) != DN_OK || !cJSON_IsObject(root) ||
        !read_recipe(root, model)) {
        goto done;
    }
    api_walk_begin(&walk, (api_raw){recipe, bytes});
    for (const cJSON *child = root->child; child && api_walk_next(&walk, &raw); child = child->next) {
        if (strcmp(child->string, "request") == 0 && api_request_from_json(request, raw.at, raw.bytes)) {
            memcpy(model->name, request->model, sizeof model->name);
            text = api_infotext(request, model, request->seed);
            break;
        }
    }
done:
    cJSON_Delete(root);
    free(model);
    free(request);
    return text;
}
