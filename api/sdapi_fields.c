/* See sdapi_fields.h. Pure; any thread. */
#include "api/sdapi_fields.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum field_type { STRING, INTEGER, NUMBER, BOOLEAN, LIST, DICTIONARY } field_type;
typedef enum field_rule { USED, FREE, OFF } field_rule;
enum { NEITHER = 0, TEXT = 1, IMAGE = 2, BOTH = 3 };

static const struct {
    const char *name, *standard;
    field_type type;
    unsigned shown;
    field_rule rule;
} FIELDS[API_SDAPI_FIELD_COUNT] = {
#define X(name, type, standard, shown, rule) {#name, standard, type, shown, rule},
    API_SDAPI_FIELDS(X)
#undef X
};

const char *api_sdapi_field_name(api_sdapi_field field)
{
    return FIELDS[field].name;
}

static bool refuse(api_sdapi_refusal *refusal, const char *kind, const char *name, const char *rule)
{
    char pointer[72];
    snprintf(pointer, sizeof pointer, "/%.64s", name);
    refusal->kind = kind;
    return api_refuse(&refusal->problem, API_INVALID_FIELD, pointer, "%.64s %s", name, rule);
}

bool api_sdapi_refuse(api_sdapi_refusal *refusal, api_sdapi_field field, const char *rule)
{
    return refuse(refusal, "value_error", FIELDS[field].name, rule);
}

/* Whether JSON is of a type, as far as it can be told from a value alone: 20.0 is a whole number to clients that know no other. */
static bool is_of(field_type type, const cJSON *value)
{
    switch (type) {
    case STRING:
        return cJSON_IsString(value);
    case INTEGER:
        return cJSON_IsNumber(value) && value->valuedouble == floor(value->valuedouble);
    case NUMBER:
        return cJSON_IsNumber(value);
    case BOOLEAN:
        return cJSON_IsBool(value) || (cJSON_IsNumber(value) && (value->valuedouble == 0 || value->valuedouble == 1));
    case LIST:
        return cJSON_IsArray(value);
    default:
        return cJSON_IsObject(value);
    }
}

static bool refuse_type(api_sdapi_refusal *refusal, size_t field)
{
    static const struct {
        const char *kind, *rule;
    } rows[] = {
        [STRING] = {"type_error.str", "must be a string"},   [INTEGER] = {"type_error.integer", "must be a whole number"},
        [NUMBER] = {"type_error.float", "must be a number"}, [BOOLEAN] = {"value_error.strictbool", "must be true or false"},
        [LIST] = {"type_error.list", "must be a list"},      [DICTIONARY] = {"type_error.dict", "must be an object"},
    };
    return refuse(refusal, rows[FIELDS[field].type].kind, FIELDS[field].name, rows[FIELDS[field].type].rule);
}

static bool is_off(const cJSON *value)
{
    return cJSON_IsFalse(value) || (cJSON_IsNumber(value) && value->valuedouble <= 0) ||
           (cJSON_IsString(value) && value->valuestring[0] == '\0') ||
           ((cJSON_IsArray(value) || cJSON_IsObject(value)) && value->child == NULL);
}

static bool refuse_unknown(api_sdapi_refusal *refusal, const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    static const char later[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
    const size_t count = strspn(name, later);
    if (count < 1 || count > 64 || name[count] || !strchr(letters, name[0])) {
        refusal->kind = "value_error.extra";
        return api_refuse(&refusal->problem, API_INVALID_FIELD, "", "the body has a field that is not known");
    }
    return refuse(refusal, "value_error.extra", name, "is not a field of txt2img or img2img");
}

bool api_sdapi_collect(api_sdapi_value values[API_SDAPI_FIELD_COUNT], const cJSON *object, api_raw raw, api_sdapi_refusal *refusal)
{
    api_walk walk;
    api_walk_begin(&walk, raw);
    for (const cJSON *child = object->child; child; child = child->next) {
        size_t field = 0;
        while (field < API_SDAPI_FIELD_COUNT && strcmp(FIELDS[field].name, child->string) != 0) {
            field++;
        }
        if (field == API_SDAPI_FIELD_COUNT) {
            return refuse_unknown(refusal, child->string);
        }
        if (!api_walk_next(&walk, &values[field].raw)) {
            refusal->kind = NULL;
            return api_refuse(&refusal->problem, API_INTERNAL, "", "the body could not be walked");
        }
        if (cJSON_IsNull(child)) {
            continue;
        }
        if (!is_of(FIELDS[field].type, child)) {
            return refuse_type(refusal, field);
        }
        if (FIELDS[field].rule == OFF && !is_off(child)) {
            return refuse(refusal, "value_error", FIELDS[field].name, "must be off: this program does not do it");
        }
        values[field].value = child;
    }
    return true;
}

static void add_parameter(api_text *text, size_t field, const api_sdapi_value *value)
{
    api_text_format(text, "%s\"%s\":", text->length > 1 ? "," : "", FIELDS[field].name);
    if (value->raw.bytes) {
        api_text_bytes(text, value->raw.at, value->raw.bytes);
    } else {
        api_text_add(text, FIELDS[field].standard);
    }
}

void api_sdapi_add_parameters(api_text *text, const api_sdapi_value values[API_SDAPI_FIELD_COUNT], bool img2img, unsigned width,
                              unsigned height)
{
    const unsigned route = img2img ? IMAGE : TEXT;
    const cJSON *include = values[API_SDAPI_include_init_images].value;
    const bool pictures = include && (cJSON_IsTrue(include) || include->valuedouble == 1);
    api_text_add(text, "{");
    for (size_t i = 0; i < API_SDAPI_FIELD_COUNT; i++) {
        const bool picture = i == API_SDAPI_init_images || i == API_SDAPI_mask;
        const unsigned size = i == API_SDAPI_width ? width : i == API_SDAPI_height ? height : 0;
        if (!(FIELDS[i].shown & route)) {
            continue;
        }
        if (picture && !pictures) {
            api_text_format(text, ",\"%s\":null", FIELDS[i].name);
        } else if (size && !values[i].value) {
            api_text_format(text, ",\"%s\":%u", FIELDS[i].name, size);
        } else if (img2img && i == API_SDAPI_denoising_strength && !values[i].value) {
            api_text_format(text, ",\"%s\":%g", FIELDS[i].name, API_SDAPI_STRENGTH);
        } else {
            add_parameter(text, i, &values[i]);
        }
    }
    api_text_add(text, "}");
}
