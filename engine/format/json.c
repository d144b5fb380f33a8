/* JSON for the rest of the program, on top of the scanner (json_scan.c). Owns nothing between calls. Any thread. */
#include "format/json.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"

#define FILE_TOKENS_MAX 500000 /* a configuration with DN_CLASSES_MAX names has 200,000 */

dn_status dn_json_parse(cJSON **out, const char *bytes, size_t count, const dn_json_limits *limits, size_t *offset, dn_error *error)
{
    dn_status status = dn_json_scan(bytes, count, limits, offset, error);
    if (status != DN_OK) {
        return status;
    }
    cJSON *parsed = cJSON_ParseWithLength(bytes, count);
    if (!parsed) {
        if (offset) {
            *offset = 0;
        }
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    *out = parsed;
    return DN_OK;
}

/* Python writes infinite numbers as words. Replaces each -Infinity that stands outside a string by a number of the same
 * length; the strict scanner judges everything else. */
static void replace_infinities(char *text)
{
    static const char word[] = "-Infinity", number[] = "-1e000308";
    bool inside = false;
    for (; *text != '\0'; text++) {
        if (*text == '"') {
            inside = !inside;
        } else if (inside && *text == '\\' && text[1] != '\0') {
            text++;
        } else if (!inside && strncmp(text, word, sizeof word - 1) == 0) {
            memcpy(text, number, sizeof number - 1);
        }
    }
}

static dn_status read_file(cJSON **out, const char *path, size_t bytes_max, bool python, dn_error *error)
{
    unsigned char *bytes = NULL;
    size_t count = 0, offset = 0;
    dn_status status = dn_file_read(&bytes, &count, path, bytes_max, error);
    if (status != DN_OK) {
        return status;
    }
    if (python) {
        replace_infinities((char *)bytes);
    }
    dn_error reason = {0};
    dn_json_limits limits = {.bytes_max = bytes_max, .tokens_max = FILE_TOKENS_MAX};
    status = dn_json_parse(out, (const char *)bytes, count, &limits, &offset, &reason);
    if (status != DN_OK) {
        dn_fail(error, status, "%s: byte %zu: %s", path, offset, reason.message);
    }
    free(bytes);
    return status;
}

dn_status dn_json_read_file(cJSON **out, const char *path, size_t bytes_max, dn_error *error)
{
    return read_file(out, path, bytes_max, false, error);
}

dn_status dn_json_read_python_file(cJSON **out, const char *path, size_t bytes_max, dn_error *error)
{
    return read_file(out, path, bytes_max, true, error);
}
