/* What the daemon offers whatever its models: GET /samplers from the engine's table, GET /capabilities from limits.h.
 * Pure; any thread; all text is malloc'd. */
#include <math.h>
#include <string.h>

#include "api/limits.h"
#include "api/text.h"
#include "api/views.h"
#include "diffusion/sampler.h"

/* NaN: no default of the sampler's own; null then. */
static void add_default(api_text *text, const dn_option_info *info, double value)
{
    api_text_add(text, ",\"default\":");
    if (isnan(value)) {
        api_text_add(text, "null");
    } else if (info->type == DN_TYPE_BOOLEAN) {
        api_text_bool(text, value > 0);
    } else if (info->type == DN_TYPE_CHOICE) {
        api_text_string(text, info->choices[(uint32_t)value]);
    } else {
        api_text_number(text, value);
    }
}

static void add_field(api_text *text, const dn_option_field *field)
{
    static const char *const types[] = {"number", "integer", "boolean", "choice"};
    const dn_option_info *info = dn_option_info_of(field->id);
    api_text_add(text, "{\"name\":");
    api_text_string(text, info->name);
    api_text_add(text, ",\"type\":");
    api_text_string(text, types[info->type]);
    if (info->type == DN_TYPE_CHOICE) {
        api_text_add(text, ",\"choices\":[");
        for (uint32_t i = (uint32_t)field->minimum; i <= (uint32_t)field->maximum; i++) {
            api_text_add(text, i > (uint32_t)field->minimum ? "," : "");
            api_text_string(text, info->choices[i]);
        }
        api_text_add(text, "]");
    } else if (info->type != DN_TYPE_BOOLEAN) {
        api_text_add(text, ",\"minimum\":");
        api_text_number(text, field->minimum);
        api_text_add(text, ",\"maximum\":");
        api_text_number(text, field->maximum);
    }
    add_default(text, info, field->standard);
    api_text_add(text, "}");
}

static void add_sampler(api_text *text, const dn_sampler *sampler)
{
    api_text_add(text, "{\"name\":");
    api_text_string(text, sampler->name);
    api_text_add(text, ",\"title\":");
    api_text_string(text, sampler->title);
    api_text_format(text, ",\"order\":%u,\"evaluations_per_step\":%u,\"stochastic\":", sampler->order, sampler->evaluations_per_step);
    api_text_bool(text, sampler->stochastic);
    api_text_add(text, ",\"adaptive\":");
    api_text_bool(text, sampler->adaptive);
    api_text_add(text, ",\"fields\":[");
    for (uint32_t i = 0; i < sampler->field_count; i++) {
        api_text_add(text, i ? "," : "");
        add_field(text, &sampler->fields[i]);
    }
    api_text_add(text, "]}");
}

char *api_samplers_body(void)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"samplers\":[");
    const dn_sampler *sampler;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        api_text_add(&text, i ? "," : "");
        add_sampler(&text, sampler);
    }
    api_text_add(&text, "]}");
    return api_text_take(&text);
}

/* Names on the wire carry the unit; the order is that of limits.h. */
static const struct {
    const char *name;
    double value;
} LIMITS[] = {
#define X(name, value) {name, value},
    API_LIMITS(X)
#undef X
};

char *api_capabilities_body(const char *version, const char *build)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"version\":");
    api_text_string(&text, version);
    api_text_add(&text, ",\"build\":");
    api_text_string(&text, build);
    api_text_add(&text, ",\"representations\":[\"application/json\",\"image/png\",\"text/event-stream\"],\"limits\":{");
    for (size_t i = 0; i < sizeof LIMITS / sizeof LIMITS[0]; i++) {
        api_text_format(&text, "%s\"%s\":", i ? "," : "", LIMITS[i].name);
        api_text_number(&text, LIMITS[i].value);
    }
    api_text_add(&text, "}}");
    return api_text_take(&text);
}
