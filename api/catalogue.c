/* What the daemon offers whatever its models: GET /samplers from the engine's table, GET /capabilities from limits.h.
 * Pure; any thread; all text is malloc'd. */
#include <string.h>

#include "api/limits.h"
#include "api/option_json.h"
#include "api/text.h"
#include "api/views.h"
#include "diffusion/sampler.h"

/* How the networks that it serves were trained, in the order of dn_family. */
static void add_families(api_text *text, uint32_t families)
{
    static const char *const names[] = {[DN_FAMILY_VP] = "vp", [DN_FAMILY_EDM] = "edm", [DN_FAMILY_FLOW] = "flow", [DN_FAMILY_VE] = "ve"};
    const char *between = "";
    api_text_add(text, ",\"trainings\":[");
    for (uint32_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (families >> i & 1u) {
            api_text_add(text, between);
            api_text_string(text, names[i]);
            between = ",";
        }
    }
    api_text_add(text, "]");
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
    api_text_add(text, ",\"needs_init_image\":");
    api_text_bool(text, sampler->inverts);
    api_text_add(text, ",\"cfg_pp\":");
    api_text_bool(text, sampler->renoises);
    add_families(text, sampler->families);
    api_text_add(text, ",\"scheduler_class\":");
    api_text_string(text, sampler->scheduler_class);
    api_text_add(text, ",\"source\":");
    api_text_string(text, sampler->source);
    api_text_add(text, ",\"fields\":[");
    for (uint32_t i = 0; i < sampler->field_count; i++) {
        api_text_add(text, i ? "," : "");
        api_add_option_field(text, &sampler->fields[i], API_ALL_CHOICES);
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

char *api_capabilities_body(const api_capabilities *about)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"version\":");
    api_text_string(&text, about->version);
    api_text_add(&text, ",\"build\":");
    api_text_string(&text, about->build);
    api_text_add(&text, ",\"representations\":[\"application/json\",\"image/png\",\"text/event-stream\"],\"dialects\":[");
    for (size_t i = 0; i < sizeof about->dialects / sizeof about->dialects[0] && about->dialects[i] != NULL; i++) {
        api_text_add(&text, i > 0 ? "," : "");
        api_text_string(&text, about->dialects[i]);
    }
    api_text_format(&text, "],\"auth_required\":%s,\"webhooks\":%s,\"cors\":%s,\"limits\":{", about->auth_required ? "true" : "false",
                    about->webhooks ? "true" : "false", about->cors ? "true" : "false");
    for (size_t i = 0; i < sizeof LIMITS / sizeof LIMITS[0]; i++) {
        api_text_format(&text, "%s\"%s\":", i ? "," : "", LIMITS[i].name);
        api_text_number(&text, strcmp(LIMITS[i].name, "streams_max") == 0 ? about->streams_max : LIMITS[i].value);
    }
    api_text_add(&text, "}}");
    return api_text_take(&text);
}
