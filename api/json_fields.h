/* Members of JSON that this program wrote itself (stored requests, model descriptions), read back strictly. */
#ifndef API_JSON_FIELDS_H
#define API_JSON_FIELDS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>

/* A string that fits capacity with its NUL. */
bool api_read_text(const cJSON *object, const char *key, char *out, size_t capacity);
/* A whole number within [minimum, maximum], all within 2^53. */
bool api_read_whole(const cJSON *object, const char *key, double minimum, double maximum, double *out);

#endif
