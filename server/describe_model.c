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

/* Which samplers can serve it, which one its folder asks for, and how it may be guided. */
static void describe_sampling(api_model *model, const dn_engine *engine)
{
    const dn_sampler *sampler, *own = dn_sampler_for_scheduler(engine->scheduler.class_name);
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++)
        if (sampler->families >> engine->training->family & 1u)
            model->samplers |= UINT64_C(1) << i;
    if (own)
        snprintf(model->model_sampler, sizeof model->model_sampler, "%s", own->name);
    if (engine->null_class != DN_NONE)
        model->guidance_methods = 1u << DN_GUIDE_CFG;
}

dn_status dn_describe_model(api_model **out, const char *name, const dn_engine *engine, dn_error *error)
{
    api_model *model = calloc(1, sizeof *model);
    if (!model)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the description of %s", name);
    snprintf(model->name, sizeof model->name, "%s", name);
    snprintf(model->architecture, sizeof model->architecture, "%s", engine->model->architecture);
    model->width = engine->model->width;
    model->height = engine->model->height;
    model->channels = engine->model->channels;
    model->guidance = engine->null_class != DN_NONE;
    model->null_class = model->guidance ? engine->null_class : 0;
    describe_sampling(model, engine);
    snprintf(model->default_sampler, sizeof model->default_sampler, "%s", engine->default_sampler);
    model->default_steps = engine->default_steps;
    model->default_guidance = engine->default_guidance;
    snprintf(model->weights_sha256, sizeof model->weights_sha256, "%s", engine->model->weights_sha256);
    snprintf(model->device, sizeof model->device, "%s", engine->device_text);
    snprintf(model->build, sizeof model->build, "%s", engine->build);
    describe_classes(model, engine->folder, engine->class_count);
    if (model->class_count != engine->class_count) {
        api_model_free(model);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the classes of %s", name);
    }
    *out = model;
    return DN_OK;
}
