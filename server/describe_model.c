/* An engine as the service describes it: the worker tells the daemon so, and generate writes it into pictures. Any thread. */
#include "server/describe_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void describe_classes(api_model *model, const dn_model_folder *folder, uint32_t class_count)
{
    model->class_names = calloc(class_count ? class_count : 1, sizeof *model->class_names);
    for (uint32_t i = 0; model->class_names && i < class_count; i++) {
        model->class_names[i] = strdup(i < folder->class_count && folder->class_names[i] ? folder->class_names[i] : "");
        if (!model->class_names[i])
            return;
        model->class_count = i + 1;
    }
}

/* Which samplers can serve it, which one its folder asks for, how it may be guided and conditioned, and how it was trained. */
static dn_status describe_sampling(api_model *model, const dn_engine *engine, dn_error *error)
{
    const dn_sampler *sampler, *own = dn_sampler_for_scheduler(engine->scheduler.class_name);
    const dn_option_field *field;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++)
        if (dn_engine_serves(engine, sampler, NULL) == DN_OK)
            model->samplers |= UINT64_C(1) << i;
    if (own && dn_engine_serves(engine, own, NULL) == DN_OK)
        snprintf(model->model_sampler, sizeof model->model_sampler, "%s", own->name);
    for (uint32_t i = 0; (field = dn_engine_field_at(engine, i)) != NULL; i++)
        model->fields[model->field_count++] = *field;
    model->guidance_methods = engine->guidance_methods;
    model->guidance = engine->null_class != DN_NONE;
    model->null_class = model->guidance ? engine->null_class : 0;
    model->unconditional = model->guidance || engine->model->class_rows == 0;
    model->learned_variance = engine->model->out_channels != engine->model->channels;
    return api_model_set_training(model, engine->folder->scheduler, engine->model->convention, engine->model->sigma_data,
                                  engine->training->cosine, error);
}

/* Of the pictures, and of what the network denoises where a codec stands between. */
static void describe_shape(api_model *model, const dn_engine *engine)
{
    model->width = engine->image_width;
    model->height = engine->image_height;
    model->channels = engine->image_channels;
    model->latent = engine->codec_path != NULL;
    if (model->latent) {
        model->latent_width = engine->model->width;
        model->latent_height = engine->model->height;
        model->latent_channels = engine->model->channels;
    }
}

dn_status dn_describe_model(api_model **out, const char *name, const dn_engine *engine, dn_error *error)
{
    api_model *model = calloc(1, sizeof *model);
    if (!model)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the description of %s", name);
    snprintf(model->name, sizeof model->name, "%s", name);
    snprintf(model->architecture, sizeof model->architecture, "%s", engine->model->architecture);
    describe_shape(model, engine);
    snprintf(model->default_sampler, sizeof model->default_sampler, "%s", engine->default_sampler);
    model->default_steps = engine->default_steps;
    model->default_guidance = engine->default_guidance;
    snprintf(model->weights_sha256, sizeof model->weights_sha256, "%s", engine->model->weights_sha256);
    snprintf(model->device, sizeof model->device, "%s", engine->device_text);
    snprintf(model->precision, sizeof model->precision, "%s", dn_precision_name(engine->precision));
    snprintf(model->build, sizeof model->build, "%s", engine->build);
    snprintf(model->gpu, sizeof model->gpu, "%s", engine->gpu);
    snprintf(model->plan, sizeof model->plan, "%s", engine->plan);
    describe_classes(model, engine->folder, engine->class_count);
    if (model->class_count != engine->class_count) {
        api_model_free(model);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the classes of %s", name);
    }
    dn_status status = describe_sampling(model, engine, error);
    if (status != DN_OK) {
        api_model_free(model);
        return status;
    }
    *out = model;
    return DN_OK;
}
