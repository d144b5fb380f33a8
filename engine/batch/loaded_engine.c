/* Opens a model folder onto a device: networks compiled, schedule read, classes, defaults and build identity settled.
 *
 * An engine is immutable once open: any number of threads may read it. It owns everything it points to; the weights in
 * float are dropped as soon as the back end has packed them. */
#include <stdlib.h>
#include <string.h>

#include "backend/devices.h"
#include "batch/engine_private.h"
#include "diffusion/family.h"

void dn_engine_close(dn_engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->classifier.close != NULL)
        engine->classifier.close(engine->classifier.self);
    if (engine->guide != NULL)
        engine->backend->network_free(engine->guide);
    if (engine->network != NULL)
        engine->backend->network_free(engine->network);
    if (engine->device != NULL)
        engine->backend->device_close(engine->device);
    dn_training_schedule_free(engine->training);
    dn_model_free(engine->guide_model);
    dn_model_free(engine->model);
    free(engine->codec_path);
    dn_model_folder_free(engine->folder);
    free(engine);
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

static dn_status open_model(dn_model **out, const char *folder, bool described, dn_error *error)
{
    return described ? dn_model_describe(out, folder, 0, 0, error) : dn_model_open(out, folder, 0, 0, error);
}

/* What the network was trained on and how "model" samples it: the folder's scheduler says so, or the checkpoint's format does. */
static dn_status read_schedule(dn_engine *engine, dn_error *error)
{
    const dn_model_folder *folder = engine->folder;
    const dn_model *model = engine->model;
    const char *path = folder->scheduler_path != NULL ? folder->scheduler_path : folder->path;
    bool original = folder->scheduler == NULL && model->convention != DN_CONVENTION_DIFFUSERS;
    dn_status status = original ? dn_training_schedule_for_convention(&engine->training, model->convention, model->sigma_data,
                                                                      model->cosine_schedule, error)
                                : dn_training_schedule_from_json(&engine->training, folder->scheduler, path, error);
    if (status != DN_OK)
        return status;
    status = original ? dn_scheduler_config_for_convention(&engine->scheduler, model->convention, error)
                      : dn_scheduler_config_from_json(&engine->scheduler, folder->scheduler, path, error);
    if (status == DN_OK && original && model->clips_sample)
        engine->scheduler.clip_sample = true;
    if (status == DN_OK && original && engine->scheduler.variance == DN_VARIANCE_LEARNED_RANGE && model->out_channels == model->channels)
        engine->scheduler.variance = DN_VARIANCE_FIXED_LARGE; /* what such a network was trained with when it learned no variance */
    return status;
}

/* A guide that comes with a scheduler was trained as it says: as the model was, or its answers mean something else. */
static dn_status check_guide_training(const dn_engine *engine, const dn_model_folder *folder, dn_error *error)
{
    dn_training_schedule *training = NULL;
    if (folder->scheduler == NULL)
        return DN_OK;
    dn_status status = dn_training_schedule_from_json(&training, folder->scheduler, folder->scheduler_path, error);
    if (status != DN_OK)
        return status;
    const dn_training_schedule *own = engine->training;
    size_t bytes = training->timesteps * sizeof *training->alphas_cumprod;
    bool same = training->family == own->family && training->prediction == own->prediction && training->timesteps == own->timesteps;
    same = same && (training->alphas_cumprod == NULL || memcmp(training->alphas_cumprod, own->alphas_cumprod, bytes) == 0);
    dn_training_schedule_free(training);
    return same ? DN_OK
                : dn_fail(error, DN_INVALID, "%s: the guide was trained by another schedule or prediction: it cannot guide", folder->path);
}

/* Autoguidance wants a network of the same kind: the same samples, the same classes, the same training. */
static dn_status check_guide(const dn_engine *engine, dn_error *error)
{
    const dn_model *guide = engine->guide_model, *model = engine->model;
    bool fits = guide->width == model->width && guide->height == model->height && guide->channels == model->channels &&
                guide->class_rows == model->class_rows && guide->convention == model->convention &&
                (guide->out_channels == guide->channels || guide->out_channels == 2 * guide->channels);
    if (fits)
        return DN_OK;
    return dn_fail(error, DN_INVALID, "%s: the guide's samples, classes or format are not the model's: it cannot guide",
                   engine->folder->guide_path);
}

static dn_status open_guide(dn_engine *engine, bool described, dn_error *error)
{
    dn_model_folder *folder = NULL;
    dn_status status = dn_model_folder_open(&folder, engine->folder->guide_path, error);
    if (status == DN_OK)
        status = open_model(&engine->guide_model, folder->network_path, described, error);
    if (status == DN_OK)
        status = check_guide(engine, error);
    if (status == DN_OK)
        status = check_guide_training(engine, folder, error);
    dn_model_folder_free(folder);
    return status;
}

/* The size of the pictures, and where the autoencoder is that makes them. */
static dn_status read_codec(dn_engine *engine, bool described, dn_error *error)
{
    const char *vae = engine->folder->vae_path;
    engine->image_width = engine->model->width;
    engine->image_height = engine->model->height;
    engine->image_channels = engine->model->channels;
    if (vae == NULL)
        return DN_OK;
    dn_model *decoder = NULL;
    dn_status status = dn_model_describe(&decoder, vae, engine->model->height, engine->model->width, error);
    if (status != DN_OK)
        return status;
    dn_shape picture = decoder->plan->values[decoder->plan->output].shape;
    if (strcmp(decoder->architecture, "AutoencoderKL") != 0)
        status =
            dn_fail(error, DN_UNSUPPORTED, "%s: a %s is no autoencoder that is supported (AutoencoderKL is)", vae, decoder->architecture);
    else if (decoder->channels != engine->model->channels)
        status = dn_fail(error, DN_INVALID, "%s: the autoencoder's latents have %u channels, the denoiser's %u", vae, decoder->channels,
                         engine->model->channels);
    engine->image_width = picture.w;
    engine->image_height = picture.h;
    engine->image_channels = picture.c;
    memcpy(engine->codec_config_sha256, decoder->config_sha256, sizeof engine->codec_config_sha256);
    dn_model_free(decoder);
    if (status == DN_OK && !described)
        status = dn_model_hash_weights(engine->codec_sha256, vae, error);
    if (status == DN_OK && (engine->codec_path = strdup(vae)) == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "%s: out of memory", vae);
    return status;
}

static dn_status open_files(dn_engine *engine, const char *folder, bool described, dn_error *error)
{
    dn_status status = dn_model_folder_open(&engine->folder, folder, error);
    if (status == DN_OK)
        status = open_model(&engine->model, engine->folder->network_path, described, error);
    if (status == DN_OK)
        status = read_schedule(engine, error);
    if (status == DN_OK)
        status = check_output(engine, error);
    if (status == DN_OK)
        status = dn_engine_settle_classes(engine, error);
    if (status == DN_OK && engine->folder->guide_path != NULL)
        status = open_guide(engine, described, error);
    if (status == DN_OK)
        status = read_codec(engine, described, error);
    if (status == DN_OK)
        status = dn_engine_settle_defaults(engine, error);
    return status;
}

/* Packs the weights and lets the floats go. */
static dn_status compile(dn_network **out, const dn_engine *engine, dn_model *model, dn_error *error)
{
    dn_network_options network = {.plan = model->plan, .spent = model->weights, .precision = engine->precision};
    dn_status status = engine->backend->network_create(out, engine->device, &network, error);
    dn_weights_free(model->weights);
    model->weights = NULL;
    return status;
}

static dn_status open_device(dn_engine *engine, const dn_engine_options *options, dn_error *error)
{
    dn_device_choice choice = {.backend = options->backend};
    dn_status status = choice.backend == NULL ? dn_device_choose(&choice, options->device, NULL, 0, error) : DN_OK;
    if (status != DN_OK)
        return status;
    const dn_device_options device = {
        .threads = options->threads, .isa = options->isa, .index = choice.index, .fast = options->fast, .cache = options->plan_cache};
    engine->backend = choice.backend;
    engine->fast = options->fast && !engine->backend->host_values;
    status = engine->backend->device_open(&engine->device, &device, error);
    if (engine->precision == DN_PRECISION_AUTO)
        engine->precision = engine->backend->precision;
    engine->codec_precision = engine->backend->host_values ? DN_PRECISION_FP32 : engine->precision;
    if (status == DN_OK)
        status = engine->backend->precision_check(engine->device, engine->precision, error);
    if (status != DN_OK || options->describe_only)
        return status;
    status = compile(&engine->network, engine, engine->model, error);
    return status == DN_OK && engine->guide_model != NULL ? compile(&engine->guide, engine, engine->guide_model, error) : status;
}

dn_status dn_engine_load(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error)
{
    static const dn_engine_options standard = {0};
    if (options == NULL)
        options = &standard;
    dn_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for an engine");
    engine->vae_tiling = options->vae_tiling;
    engine->precision = options->precision;
    dn_status status = open_files(engine, folder, options->describe_only, error);
    if (status == DN_OK)
        status = open_device(engine, options, error);
    if (status == DN_OK)
        status = dn_engine_settle_build(engine, options->describe_only, error);
    if (status != DN_OK) {
        dn_engine_close(engine);
        return status;
    }
    dn_engine_settle_fields(engine);
    *out = engine;
    return DN_OK;
}
