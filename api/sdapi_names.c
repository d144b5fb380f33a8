/* See sdapi_names.h. Immutable tables; any thread. */
#include "api/sdapi_names.h"

#include <string.h>
#include <strings.h>

#include "api/text.h"

#define ALIASES_MAX 2

/* What has a name of its own there. */
static const struct {
    const char *sampler, *name, *aliases[ALIASES_MAX];
} NAMES[] = {
    {"euler_ancestral", "Euler a", {"k_euler_a", "k_euler_ancestral"}},
    {"euler", "Euler", {"k_euler", NULL}},
    {"lms", "LMS", {"k_lms", NULL}},
    {"heun", "Heun", {"k_heun", NULL}},
    {"kdpm2", "DPM2", {"k_dpm_2", NULL}},
    {"kdpm2_ancestral", "DPM2 a", {"k_dpm_2_a", NULL}},
    {"dpmpp_2m", "DPM++ 2M", {"k_dpmpp_2m", NULL}},
    {"dpmpp_sde", "DPM++ SDE", {"k_dpmpp_sde", NULL}},
    {"dpmpp_2m_sde", "DPM++ 2M SDE", {"k_dpmpp_2m_sde", NULL}},
    {"dpmpp_2s", "DPM++ 2S", {NULL, NULL}},
    {"dpmpp_3m", "DPM++ 3M", {NULL, NULL}},
    {"lcm", "LCM", {"k_lcm", NULL}},
};

/* "uniform" is webui's word for timesteps that are evenly spaced over the whole table, "sgm_uniform" for those that leave out its end. */
static const api_sdapi_scheduler SCHEDULERS[] = {
    {"automatic", "Automatic", NULL, -1, NULL, NULL},
    {"uniform", "Uniform", NULL, -1, "timestep_spacing", "linspace"},
    {"karras", "Karras", NULL, 7, "sigma_schedule", "karras"},
    {"exponential", "Exponential", NULL, -1, "sigma_schedule", "exponential"},
    {"sgm_uniform", "SGM Uniform", "SGMUniform", -1, "timestep_spacing", "trailing"},
    {"beta", "Beta", NULL, -1, "sigma_schedule", "beta"},
    {"lu", "Lu", NULL, -1, "sigma_schedule", "lu"},
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

const api_sdapi_scheduler *api_sdapi_scheduler_at(size_t index)
{
    return index < COUNT(SCHEDULERS) ? &SCHEDULERS[index] : NULL;
}

const api_sdapi_scheduler *api_sdapi_find_scheduler(const char *text)
{
    for (size_t i = 0; i < COUNT(SCHEDULERS); i++) {
        const api_sdapi_scheduler *s = &SCHEDULERS[i];
        if (strcasecmp(text, s->name) == 0 || strcasecmp(text, s->label) == 0 || (s->alias && strcasecmp(text, s->alias) == 0)) {
            return s;
        }
    }
    return NULL;
}

static const char *const *aliases_of(const dn_sampler *sampler, const char **name)
{
    static const char *const none[ALIASES_MAX] = {NULL, NULL};
    *name = sampler->title;
    for (size_t i = 0; i < COUNT(NAMES); i++) {
        if (strcmp(NAMES[i].sampler, sampler->name) == 0) {
            *name = NAMES[i].name;
            return NAMES[i].aliases;
        }
    }
    return none;
}

const char *api_sdapi_sampler_name(const dn_sampler *sampler)
{
    const char *name;
    aliases_of(sampler, &name);
    return name;
}

static bool is_called(const dn_sampler *sampler, const char *text, size_t bytes)
{
    const char *name;
    const char *const *aliases = aliases_of(sampler, &name);
    const char *all[3 + ALIASES_MAX] = {name, sampler->name, sampler->title, aliases[0], aliases[1]};
    for (size_t i = 0; i < COUNT(all); i++) {
        if (all[i] && strlen(all[i]) == bytes && strncasecmp(all[i], text, bytes) == 0) {
            return true;
        }
    }
    return false;
}

static const dn_sampler *find_exactly(const char *text, size_t bytes)
{
    const dn_sampler *sampler;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        if (is_called(sampler, text, bytes)) {
            return sampler;
        }
    }
    return NULL;
}

const dn_sampler *api_sdapi_find_sampler(const char *text, const api_sdapi_scheduler **scheduler)
{
    const size_t bytes = strlen(text);
    const dn_sampler *sampler = find_exactly(text, bytes);
    for (size_t i = 0; !sampler && i < COUNT(SCHEDULERS); i++) {
        const char *ends[3] = {SCHEDULERS[i].label, SCHEDULERS[i].name, SCHEDULERS[i].alias};
        for (size_t k = 0; !sampler && k < COUNT(ends) && ends[k]; k++) {
            const size_t end = strlen(ends[k]);
            if (bytes > end + 1 && text[bytes - end - 1] == ' ' && strcasecmp(text + bytes - end, ends[k]) == 0 &&
                (sampler = find_exactly(text, bytes - end - 1)) != NULL) {
                *scheduler = &SCHEDULERS[i];
            }
        }
    }
    return sampler;
}

static void add_strings(api_text *text, const char *const *strings, size_t count)
{
    bool any = false;
    api_text_add(text, "[");
    for (size_t i = 0; i < count; i++) {
        if (strings[i]) {
            api_text_add(text, any ? "," : "");
            api_text_string(text, strings[i]);
            any = true;
        }
    }
    api_text_add(text, "]");
}

char *api_sdapi_samplers_body(const api_model *model)
{
    api_text text = API_TEXT_INIT;
    const dn_sampler *sampler;
    bool any = false;
    api_text_add(&text, "[");
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        if (sampler->inverts || (model && !api_model_serves(model, sampler))) {
            continue;
        }
        const char *name;
        const char *const *own = aliases_of(sampler, &name);
        const char *aliases[1 + ALIASES_MAX] = {sampler->name, own[0], own[1]};
        api_text_add(&text, any ? ",{\"name\":" : "{\"name\":");
        api_text_string(&text, name);
        api_text_add(&text, ",\"aliases\":");
        add_strings(&text, aliases, COUNT(aliases));
        api_text_add(&text, ",\"options\":{}}");
        any = true;
    }
    api_text_add(&text, "]");
    return api_text_take(&text);
}

char *api_sdapi_schedulers_body(void)
{
    api_text text = API_TEXT_INIT;
    for (size_t i = 0; i < COUNT(SCHEDULERS); i++) {
        const api_sdapi_scheduler *s = &SCHEDULERS[i];
        api_text_add(&text, i ? ",{\"name\":" : "[{\"name\":");
        api_text_string(&text, s->name);
        api_text_add(&text, ",\"label\":");
        api_text_string(&text, s->label);
        api_text_add(&text, ",\"aliases\":");
        if (s->alias) {
            add_strings(&text, &s->alias, 1);
        } else {
            api_text_add(&text, "null");
        }
        api_text_add(&text, ",\"default_rho\":");
        api_text_real(&text, s->rho);
        const bool of_table = s->option && strcmp(s->option, "timestep_spacing") == 0;
        api_text_format(&text, ",\"need_inner_model\":%s}", of_table ? "true" : "false");
    }
    api_text_add(&text, "]");
    return api_text_take(&text);
}
