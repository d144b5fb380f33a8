/* Opens a model folder onto a device: network compiled, schedule read, class rule settled, defaults and build identity.
 *
 * An engine is immutable once open: any number of threads may read it. It owns everything it points to; the weights in
 * float are dropped as soon as the back end has packed them. */
#include "batch/loaded_engine.h"

#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/sha256.h"

#define DN_DEFAULT_STEPS 20u
#define DN_DEFAULT_SAMPLER "dpmpp_2m" /* where the folder says nothing */

void dn_engine_close(dn_engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->network != NULL)
        engine->backend->network_free(engine->network);
    if (engine->device != NULL)
        engine->backend->device_close(engine->device);
    dn_training_schedule_free(engine->training);
    dn_model_free(engine->model);
    dn_model_folder_free(engine->folder);
    free(engine);
}

/* Null class: one embedding row more than names: the last row; as many: none; no names: the last row. */
static dn_status settle_classes(dn_engine *engine, dn_error *error)
{
    uint32_t rows = engine->model->class_rows, names = engine->folder->class_count;
    engine->null_class = DN_NONE;
    if (names != 0 && names != rows && names + 1 != rows)
        return dn_fail(error, DN_INVALID, "%s: id2label has %u classes, but the network's class embedding has %u rows",
                       engine->folder->path, names, rows);
    if (rows != 0 && names != rows)
        engine->null_class = rows - 1;
    engine->class_count = engine->null_class == DN_NONE ? rows : rows - 1;
    return DN_OK;
}

static dn_status check_output(const dn_engine *engine, dn_error *error)
{
    const dn_model *model = engine->model;
    dn_shape answer = model->plan->values[model->plan->output].shape;
    if (answer.h != model->height || answer.w != model->width) /* a classifier's logits */
        return dn_fail(error, DN_UNSUPPORTED, "%s: a %s answers with no picture: it is no denoiser", engine->folder->path,
                       model->architecture);
    if (model->out_channels == model->channels || model->out_channels == 2 * model->channels)
        return DN_OK;
    return dn_fail(error, DN_UNSUPPORTED, "%s: a denoiser of %u channels must answer with %u or %u channels, not %u", engine->folder->path,
                   model->channels, model->channels, 2 * model->channels, model->out_channels);
}

static dn_status read_default_sampler(dn_engine *engine, const cJSON *defaults, dn_error *error)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(defaults, "sampler");
    bool folder_knows = engine->folder->scheduler != NULL && dn_sampler_for_scheduler(engine->scheduler.class_name) != NULL;
    const char *name = folder_knows ? "model" : DN_DEFAULT_SAMPLER;
    if (item != NULL && !cJSON_IsString(item))
        return dn_fail(error, DN_INVALID, "%s: denoised.sampler must be a string", engine->folder->path);
    if (item != NULL)
        name = item->valuestring;
    if (strcmp(name, "model") != 0 && dn_sampler_find(name) == NULL)
        return dn_fail(error, DN_INVALID, "%s: denoised.sampler \"%.40s\" is not known", engine->folder->path, name);
    snprintf(engine->default_sampler, sizeof engine->default_sampler, "%s", name);
    return DN_OK;
}

/* What a request that says nothing gets: model_index.json's "denoised" object, else the folder's scheduler. */
static dn_status read_defaults(dn_engine *engine, dn_error *error)
{
    const cJSON *defaults = engine->folder->defaults;
    const cJSON *steps = cJSON_GetObjectItemCaseSensitive(defaults, "steps");
    const cJSON *scale = cJSON_GetObjectItemCaseSensitive(defaults, "guidance_scale");
    engine->default_steps = DN_DEFAULT_STEPS;
    engine->default_guidance = 1.0;
    if (steps != NULL) {
        double value = cJSON_IsNumber(steps) ? steps->valuedouble : 0.0;
        if (!(value >= 1.0 && value <= DN_STEPS_MAX) || value != (double)(uint32_t)value)
            return dn_fail(error, DN_INVALID, "%s: denoised.steps must be an integer from 1 to %u", engine->folder->path, DN_STEPS_MAX);
        engine->default_steps = (uint32_t)value;
    }
    if (scale != NULL) {
        if (!cJSON_IsNumber(scale) || !(fabs(scale->valuedouble) <= DN_GUIDANCE_SCALE_MAX))
            return dn_fail(error, DN_INVALID, "%s: denoised.guidance_scale must be a number of at most %g", engine->folder->path,
                           DN_GUIDANCE_SCALE_MAX);
        engine->default_guidance = scale->valuedouble;
    }
    return read_default_sampler(engine, defaults, error);
}

/* Everything that may change an image's bytes for the same spec, and the PNG's too. */
static void settle_build(dn_engine *engine)
{
    char text[512];
    unsigned char digest[DN_SHA256_BYTES];
    int bytes = snprintf(text, sizeof text, "sources %s numerics %d %s %s libpng %s zlib %s", DN_SOURCES, DN_NUMERICS_VERSION,
                         engine->backend->name, engine->backend->device_isa(engine->device), png_get_libpng_ver(NULL), zlibVersion());
    dn_sha256_of(digest, text, (size_t)bytes);
    dn_sha256_hex(engine->build, digest);
    snprintf(engine->device_text, sizeof engine->device_text, "%s %s", engine->backend->name, engine->backend->device_isa(engine->device));
}

static dn_status open_files(dn_engine *engine, const char *folder, dn_error *error)
{
    dn_status status = dn_model_folder_open(&engine->folder, folder, error);
    if (status == DN_OK)
        status = dn_model_open(&engine->model, engine->folder->network_path, 0, 0, error);
    const char *path = status == DN_OK && engine->folder->scheduler_path != NULL ? engine->folder->scheduler_path : folder;
    if (status == DN_OK)
        status = dn_training_schedule_from_json(&engine->training, engine->folder->scheduler, path, error);
    if (status == DN_OK)
        status = dn_scheduler_config_from_json(&engine->scheduler, engine->folder->scheduler, path, error);
    if (status == DN_OK)
        status = settle_classes(engine, error);
    if (status == DN_OK)
        status = check_output(engine, error);
    if (status == DN_OK)
        status = read_defaults(engine, error);
    return status;
}

static dn_status open_device(dn_engine *engine, const dn_engine_options *options, dn_error *error)
{
    dn_device_options device = {.threads = options != NULL ? options->threads : 0, .isa = options != NULL ? options->isa : NULL};
    engine->backend = dn_backend_cpu();
    dn_status status = engine->backend->device_open(&engine->device, &device, error);
    if (status != DN_OK)
        return status;
    dn_network_options network = {.plan = engine->model->plan, .weights = engine->model->weights};
    status = engine->backend->network_create(&engine->network, engine->device, &network, error);
    dn_weights_free(engine->model->weights);
    engine->model->weights = NULL;
    return status;
}

dn_status dn_engine_open(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error)
{
    dn_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for an engine");
    dn_status status = open_files(engine, folder, error);
    if (status == DN_OK)
        status = open_device(engine, options, error);
    if (status != DN_OK) {
        dn_engine_close(engine);
        return status;
    }
    settle_build(engine);
    *out = engine;
    return DN_OK;
}

size_t dn_engine_elements(const dn_engine *engine)
{
    const dn_model *model = engine->model;
    return (size_t)model->channels * model->height * model->width;
}
