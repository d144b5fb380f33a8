/* See option_json.h. Pure; any thread. */
#include "api/option_json.h"

#include <stdlib.h>
#include <string.h>

void api_add_option(api_text *text, dn_option_id id, double value)
{
    const dn_option_info *info = dn_option_info_of(id);
    api_text_format(text, ",\"%s\":", info->name);
    if (info->type == DN_TYPE_BOOLEAN) {
        api_text_bool(text, value != 0);
    } else if (info->type == DN_TYPE_CHOICE) {
        api_text_string(text, info->choices[(uint32_t)value]);
    } else {
        api_text_number(text, value);
    }
}

/* NaN: what the model's own folder or levels say; null then. */
static void add_default(api_text *text, const dn_option_field *field)
{
    if (isnan(field->standard)) {
        api_text_add(text, ",\"default\":null");
        return;
    }
    api_text value = API_TEXT_INIT;
    api_add_option(&value, field->id, field->standard);
    char *taken = api_text_take(&value);
    text->failed |= !taken;
    api_text_format(text, ",\"default\":%s", taken ? strchr(taken, ':') + 1 : "null");
    free(taken);
}

static void add_choices(api_text *text, const dn_option_field *field, uint32_t choices)
{
    bool first = true;
    api_text_add(text, ",\"choices\":[");
    for (uint32_t i = (uint32_t)field->minimum; i <= (uint32_t)field->maximum; i++) {
        if (choices >> i & 1u) {
            api_text_add(text, first ? "" : ",");
            api_text_string(text, dn_option_info_of(field->id)->choices[i]);
            first = false;
        }
    }
    api_text_add(text, "]");
}

void api_add_option_field(api_text *text, const dn_option_field *field, uint32_t choices)
{
    static const char *const types[] = {"number", "integer", "boolean", "choice"};
    const dn_option_info *info = dn_option_info_of(field->id);
    api_text_add(text, "{\"name\":");
    api_text_string(text, info->name);
    api_text_add(text, ",\"type\":");
    api_text_string(text, types[info->type]);
    if (info->type == DN_TYPE_CHOICE) {
        add_choices(text, field, choices);
    } else if (info->type != DN_TYPE_BOOLEAN) {
        api_text_add(text, ",\"minimum\":");
        api_text_number(text, field->minimum);
        api_text_add(text, ",\"maximum\":");
        api_text_number(text, field->maximum);
    }
    add_default(text, field);
    api_text_add(text, ",\"help\":");
    api_text_string(text, info->help);
    api_text_add(text, "}");
}

double api_option_value(const cJSON *value, dn_option_id id)
{
    double read = (double)NAN;
    switch (dn_option_info_of(id)->type) {
    case DN_TYPE_BOOLEAN:
        return cJSON_IsBool(value) ? cJSON_IsTrue(value) : read;
    case DN_TYPE_CHOICE:
        return cJSON_IsString(value) && dn_option_choice(id, value->valuestring, &read) ? read : (double)NAN;
    case DN_TYPE_INTEGER:
    case DN_TYPE_NUMBER:
        break;
    }
    return cJSON_IsNumber(value) ? value->valuedouble : read;
}

/* The first and the last word say the range. */
static bool read_choices(dn_option_field *out, const cJSON *object)
{
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(object, "choices");
    int count = cJSON_GetArraySize(choices);
    out->minimum = api_option_value(cJSON_GetArrayItem(choices, 0), out->id);
    out->maximum = api_option_value(cJSON_GetArrayItem(choices, count - 1), out->id);
    return count > 0 && out->minimum <= out->maximum;
}

bool api_read_option_field(dn_option_field *out, const cJSON *object)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(object, "name");
    const cJSON *standard = cJSON_GetObjectItemCaseSensitive(object, "default");
    if (!cJSON_IsString(name) || !dn_option_find(name->valuestring, &out->id)) {
        return false;
    }
    const dn_option_info *info = dn_option_info_of(out->id);
    out->minimum = info->minimum;
    out->maximum = info->maximum;
    if (info->type == DN_TYPE_CHOICE && !read_choices(out, object)) {
        return false;
    }
    if (info->type == DN_TYPE_NUMBER || info->type == DN_TYPE_INTEGER) {
        out->minimum = api_option_value(cJSON_GetObjectItemCaseSensitive(object, "minimum"), out->id);
        out->maximum = api_option_value(cJSON_GetObjectItemCaseSensitive(object, "maximum"), out->id);
    }
    out->standard = api_option_value(standard, out->id);
    bool within = out->minimum >= info->minimum && out->maximum <= info->maximum;
    return within && (cJSON_IsNull(standard) || dn_option_check(out, out->standard, NULL) == DN_OK);
}
