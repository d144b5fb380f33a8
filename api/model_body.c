/* A model's description as JSON: what the store keeps, and the wire's MODEL. Pure; any thread. */
#include <stdlib.h>
#include <string.h>

#include "api/limits.h"
#include "api/model_training.h"
#include "api/option_json.h"
#include "api/view_parts.h"
#include "diffusion/sampler.h"

void api_add_gpu(api_text *text, const char *gpu, const char *plan)
{
    api_text_add(text, ",\"gpu\":");
    api_text_string(text, gpu[0] ? gpu : NULL);
    api_text_add(text, ",\"plan\":");
    api_text_string(text, plan[0] ? plan : NULL);
}

static void add_classes(api_text *text, const api_model *model)
{
    api_text_add(text, ",\"classes\":[");
    for (uint32_t i = 0; i < model->class_count; i++) {
        api_text_format(text, "%s{\"index\":%u,\"names\":[", i ? "," : "", i);
        const char *rest = model->class_names[i], *name;
        size_t bytes;
        for (bool first = true; api_next_synonym(&rest, &name, &bytes); first = false) {
            char *copy = strndup(name, bytes);
            text->failed |= !copy;
            api_text_add(text, first ? "" : ",");
            api_text_string(text, copy);
            free(copy);
        }
        api_text_add(text, "]}");
    }
    api_text_add(text, "]");
}

static void add_samplers(api_text *text, const api_model *model)
{
    const dn_sampler *sampler;
    const char *between = "";
    api_text_add(text, ",\"samplers\":[");
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        if (model->samplers >> i & 1u) {
            api_text_add(text, between);
            api_text_string(text, sampler->name);
            between = ",";
        }
    }
    api_text_add(text, "],\"model_sampler\":");
    api_text_string(text, model->model_sampler[0] ? model->model_sampler : NULL);
}

static void add_guidance(api_text *text, const api_model *model)
{
    const char *const *words = dn_option_info_of(DN_OPT_GUIDANCE_METHOD)->choices, *between = "";
    api_text_add(text, ",\"guidance\":");
    api_text_bool(text, model->guidance);
    api_text_add(text, ",\"guidance_methods\":[");
    for (uint32_t i = 0; words[i]; i++) {
        if (model->guidance_methods >> i & 1u) {
            api_text_add(text, between);
            api_text_string(text, words[i]);
            between = ",";
        }
    }
    api_text_add(text, "],\"null_class\":");
    if (model->guidance) {
        api_text_format(text, "%u", model->null_class);
    } else {
        api_text_add(text, "null");
    }
}

static void add_fields(api_text *text, const api_model *model)
{
    api_text_add(text, ",\"fields\":[");
    for (uint32_t i = 0; i < model->field_count; i++) {
        bool method = model->fields[i].id == DN_OPT_GUIDANCE_METHOD;
        api_text_add(text, i ? "," : "");
        api_add_option_field(text, &model->fields[i], method ? model->guidance_methods : API_ALL_CHOICES);
    }
    api_text_add(text, "]");
}

static void add_shape(api_text *text, const api_model *model)
{
    api_text_format(text, ",\"width\":%u,\"height\":%u,\"channels\":%u,\"latent\":", model->width, model->height, model->channels);
    if (model->latent) {
        api_text_format(text, "{\"width\":%u,\"height\":%u,\"channels\":%u}", model->latent_width, model->latent_height,
                        model->latent_channels);
    } else {
        api_text_add(text, "null");
    }
}

static void add_limits(api_text *text, const api_model *model)
{
    double reach = model->guidance_methods ? API_GUIDANCE_MAX : 1;
    api_text_format(text, ",\"limits\":{\"steps\":[1,%d],\"guidance_scale\":[%g,%g],\"n\":[1,%d]}", API_STEPS_MAX,
                    model->guidance_methods ? -reach : reach, reach, API_N_MAX);
}

/* Everything after the name, without the closing brace. */
static void add_model(api_text *text, const api_model *model, bool with_classes)
{
    api_text_add(text, "\"architecture\":");
    api_text_string(text, model->architecture);
    add_shape(text, model);
    api_text_add(text, ",\"learned_variance\":");
    api_text_bool(text, model->learned_variance);
    api_text_add(text, ",\"unconditional\":");
    api_text_bool(text, model->unconditional);
    add_guidance(text, model);
    api_text_format(text, ",\"class_count\":%u", model->class_count);
    if (with_classes) {
        add_classes(text, model);
    }
    add_samplers(text, model);
    add_fields(text, model);
    api_text_add(text, ",\"defaults\":{\"sampler\":");
    api_text_string(text, model->default_sampler);
    api_text_format(text, ",\"steps\":%u,\"guidance_scale\":", model->default_steps);
    api_text_real(text, model->default_guidance);
    api_text_add(text, "}");
    add_limits(text, model);
    api_text_add(text, ",\"weights_sha256\":");
    api_text_string(text, model->weights_sha256);
    api_text_add(text, ",\"device\":");
    api_text_string(text, model->device);
    api_text_add(text, ",\"precision\":");
    api_text_string(text, model->precision);
    api_text_add(text, ",\"build\":");
    api_text_string(text, model->build);
    api_add_gpu(text, model->gpu, model->plan);
}

char *api_model_to_json(const api_model *model)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"name\":");
    api_text_string(&text, model->name);
    api_text_add(&text, ",");
    add_model(&text, model, true);
    api_add_training(&text, model);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

static void add_batch(api_text *text, const api_batch *batch)
{
    if (!batch) {
        api_text_add(text, ",\"batch\":null");
        return;
    }
    api_text_format(text, ",\"batch\":{\"rows_max\":%u,\"tick_ms\":[", batch->rows_max);
    for (uint32_t i = 0; i < batch->count; i++)
        api_text_format(text, "%s[%u,%.3f]", i ? "," : "", batch->rows[i], batch->milliseconds[i]);
    api_text_add(text, "]}");
}

char *api_model_body(const api_model *model, const char *name, const char *state, const char *error, bool with_classes,
                     const api_batch *batch)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"name\":");
    api_text_string(&text, name);
    api_text_add(&text, ",\"state\":");
    api_text_string(&text, state);
    api_text_add(&text, ",\"error\":");
    api_text_string(&text, error && error[0] ? error : NULL);
    if (model) {
        api_text_add(&text, ",");
        add_model(&text, model, with_classes);
    }
    add_batch(&text, batch);
    api_text_add(&text, "}");
    return api_text_take(&text);
}
