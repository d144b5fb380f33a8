/* See json_fields.h. Pure; any thread. */
#include "api/json_fields.h"

#include <math.h>
#include <string.h>

bool api_read_text(const cJSON *object, const char *key, char *out, size_t capacity)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    size_t bytes = cJSON_IsString(value) ? strlen(value->valuestring) : capacity;
    if (bytes >= capacity) {
        return false;
    }
    memcpy(out, value->valuestring, bytes + 1);
    return true;
}

bool api_read_whole(const cJSON *object, const char *key, double minimum, double maximum, double *out)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(value) || value->valuedouble != floor(value->valuedouble) || value->valuedouble < minimum ||
        value->valuedouble > maximum) {
        return false;
    }
    *out = value->valuedouble;
    return true;
}
