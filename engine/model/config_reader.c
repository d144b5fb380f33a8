/* The reader of config.json's keys. It owns nothing; the JSON tree belongs to its caller. One thread. */
#include "model/config_reader.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

dn_status dn_config_reader_init(dn_config_reader *reader, const cJSON *json, const char *path, dn_error *error)
{
    memset(reader, 0, sizeof *reader);
    reader->json = json;
    reader->path = path;
    if (!cJSON_IsObject(json))
        return dn_fail(error, DN_INVALID, "%s: the configuration must be a JSON object", path);
    return DN_OK;
}

const cJSON *dn_config_item(const dn_config_reader *reader, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(reader->json, key);
}

bool dn_config_is_null(const dn_config_reader *reader, const char *key)
{
    const cJSON *item = dn_config_item(reader, key);
    return item == NULL || cJSON_IsNull(item);
}

dn_activation dn_config_activation(dn_config_reader *reader)
{
    static const struct {
        const char *name;
        dn_activation activation;
    } table[] = {{"silu", DN_ACT_SILU}, {"swish", DN_ACT_SILU}, {"gelu", DN_ACT_GELU}, {"relu", DN_ACT_RELU}, {"mish", DN_ACT_MISH}};
    const char *name = dn_config_text(reader, "act_fn", "silu");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(name, table[i].name) == 0)
            return table[i].activation;
    dn_config_fail(reader, DN_UNSUPPORTED, "act_fn", "\"%.60s\" is not supported", name);
    return DN_ACT_SILU;
}

void dn_config_fail(dn_config_reader *reader, dn_status status, const char *key, const char *format, ...)
{
    if (reader->error.status != DN_OK)
        return;
    char reason[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    (void)dn_fail(&reader->error, status, "%s: %s: %s", reader->path, key, reason);
}

bool dn_config_bool(dn_config_reader *reader, const char *key, bool fallback)
{
    const cJSON *item = dn_config_item(reader, key);
    if (item == NULL)
        return fallback;
    if (!cJSON_IsBool(item)) {
        dn_config_fail(reader, DN_INVALID, key, "must be true or false");
        return fallback;
    }
    return cJSON_IsTrue(item);
}

double dn_config_number(dn_config_reader *reader, const char *key, double fallback, double low, double high)
{
    const cJSON *item = dn_config_item(reader, key);
    if (item == NULL)
        return fallback;
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= low && item->valuedouble <= high)) {
        dn_config_fail(reader, DN_INVALID, key, "must be a number from %g to %g", low, high);
        return fallback;
    }
    return item->valuedouble;
}

uint32_t dn_config_count(dn_config_reader *reader, const char *key, uint32_t fallback, uint32_t low, uint32_t high)
{
    const cJSON *item = dn_config_item(reader, key);
    if (item == NULL)
        return fallback;
    double value = cJSON_IsNumber(item) ? item->valuedouble : -1.0;
    if (!(value >= low && value <= high) || value != floor(value)) {
        dn_config_fail(reader, DN_INVALID, key, "must be a whole number from %u to %u", low, high);
        return fallback;
    }
    return (uint32_t)value;
}

const char *dn_config_text(dn_config_reader *reader, const char *key, const char *fallback)
{
    const cJSON *item = dn_config_item(reader, key);
    if (item == NULL)
        return fallback;
    if (!cJSON_IsString(item)) {
        dn_config_fail(reader, DN_INVALID, key, "must be a string");
        return fallback;
    }
    return item->valuestring;
}

dn_status dn_config_reader_end(const dn_config_reader *reader, dn_error *error)
{
    if (reader->error.status != DN_OK && error != NULL)
        *error = reader->error;
    return reader->error.status;
}
