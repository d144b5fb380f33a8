/* Opens an autoencoder beside an engine, decodes latents to pixels and encodes pixels to latents.
 *
 * Invariant: options, info and the preview map never change after dn_codec_open; the stages are used by whoever holds the turn. */
#include "base/pixel.h"
#include "batch/codec_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOG_VARIANCE_MIN (-30.0f) /* DiagonalGaussianDistribution's clamp */
#define LOG_VARIANCE_MAX 20.0f
#define LARGEST_ACTIVATIONS 3u

static size_t latent_count(const dn_codec *codec)
{
    return (size_t)codec->info.latent_channels * codec->info.latent_height * codec->info.latent_width;
}

static uint32_t rows_of(const dn_codec_options *options)
{
    const uint32_t rows = options->rows_max > 1 ? options->rows_max : 1;
    return rows < DN_CODEC_ROWS_MAX ? rows : DN_CODEC_ROWS_MAX;
}

static size_t picture_count(const dn_codec *codec)
{
    return (size_t)codec->info.channels * codec->info.height * codec->info.width;
}

/* [C][plane] floats to [plane][C] bytes. */
static void round_picture(uint8_t *pixels, const float *picture, uint32_t channels, size_t plane, bool unit_range)
{
    for (size_t i = 0; i < plane; i++)
        for (uint32_t c = 0; c < channels; c++)
            pixels[i * channels + c] = dn_pixel(picture[c * plane + i], unit_range);
}

void dn_codec_close(dn_codec *codec)
{
    if (codec == NULL)
        return;
    dn_codec_stage_close(&codec->encoder);
    dn_codec_stage_close(&codec->decoder);
    pthread_mutex_destroy(&codec->turn);
    free(codec->preview);
    free(codec->staging);
    free(codec->folder);
    free(codec);
}

const dn_codec_info *dn_codec_about(const dn_codec *codec)
{
    return &codec->info;
}

uint32_t dn_codec_rows(const dn_codec *codec)
{
    return codec->decoder.rows > 1 ? codec->decoder.rows : 1;
}

size_t dn_codec_bytes(const dn_codec *codec)
{
    return atomic_load(&codec->bytes);
}

/* With the turn, or at open. */
static void note_bytes(dn_codec *codec)
{
    atomic_store(&codec->bytes, dn_codec_stage_bytes(&codec->decoder) + dn_codec_stage_bytes(&codec->encoder) +
                                    rows_of(&codec->options) * latent_count(codec) * sizeof(float));
}

static dn_status check_decoder(const dn_codec *codec, const dn_model *model, dn_error *error)
{
    if (strcmp(model->architecture, "AutoencoderKL") != 0)
        return dn_fail(error, DN_UNSUPPORTED, "%s: a %s is no autoencoder that is supported (AutoencoderKL is)", codec->folder,
                       model->architecture);
    if (model->channels != codec->options.channels)
        return dn_fail(error, DN_INVALID, "%s: latents of %u channels, but the denoiser makes %u", codec->folder, model->channels,
                       codec->options.channels);
    return DN_OK;
}

static void describe(dn_codec *codec, const dn_model *model)
{
    const uint32_t factor = 1u << (codec->config.levels - 1);
    codec->info.channels = codec->config.out_channels;
    codec->info.height = factor * codec->options.height;
    codec->info.width = factor * codec->options.width;
    memcpy(codec->info.weights_sha256, model->weights_sha256, sizeof codec->info.weights_sha256);
}

/* The decoder's model becomes one of a tile's size; its weights move over. */
static dn_status shrink_to_tile(dn_model **model, const dn_codec *codec, dn_error *error)
{
    const uint32_t side = dn_codec_tile_side(&codec->config);
    const uint32_t height = codec->options.height < side ? codec->options.height : side;
    const uint32_t width = codec->options.width < side ? codec->options.width : side;
    dn_model *tile = NULL;
    dn_status status = dn_autoencoder_kl_resize(&tile, *model, height, width, error);
    if (status == DN_OK) {
        tile->weights = (*model)->weights;
        (*model)->weights = NULL;
    }
    dn_model_free(*model);
    *model = tile;
    return status;
}

/* What a whole decode takes, by its largest activation alone: how a picture is decoded must not depend on threads or back ends.
 * (Three of them: input, residual and output; measured 2.9 for the autoencoder of Stable Diffusion.) */
static bool needs_too_much(const dn_codec *codec, const dn_plan *plan)
{
    const size_t limit = codec->options.workspace_bytes_max > 0 ? codec->options.workspace_bytes_max : (size_t)DN_CODEC_WORKSPACE_BYTES_MAX;
    size_t largest = 0;
    for (uint32_t v = 0; v < plan->value_count; v++)
        if (dn_shape_count(plan->values[v].shape) > largest)
            largest = dn_shape_count(plan->values[v].shape);
    return LARGEST_ACTIVATIONS * largest * sizeof(float) > limit;
}

/* Takes the model: the stage of the whole latent, or of a tile where tiling is asked for or memory is short. */
static dn_status open_decoder_stage(dn_codec *codec, dn_model *model, dn_error *error)
{
    const dn_codec_options *o = &codec->options;
    const uint32_t side = dn_codec_tile_side(&codec->config);
    const bool can_tile = side > 0 && (o->height > side || o->width > side);
    dn_status status = DN_OK;
    codec->info.tiled = can_tile && (o->tiling || needs_too_much(codec, model->plan));
    if (codec->info.tiled)
        status = shrink_to_tile(&model, codec, error);
    const bool keep = codec->info.tiled && dn_codec_tiles_uneven(&codec->config, o->height, o->width);
    if (status == DN_OK)
        status = dn_codec_stage_open(&codec->decoder, o, model, keep ? model->weights : NULL, codec->info.tiled ? 1 : rows_of(o), 0, error);
    if (status == DN_OK && !keep) {
        dn_weights_free(model->weights);
        model->weights = NULL;
    }
    return status;
}

static dn_status open_decoder(dn_codec *codec, dn_error *error)
{
    const dn_codec_options *o = &codec->options;
    dn_model *model = NULL;
    dn_status status = dn_model_open_part(&model, codec->folder, DN_AUTOENCODER_DECODER, o->height, o->width, error);
    if (status == DN_OK)
        status = check_decoder(codec, model, error);
    if (status != DN_OK) {
        dn_model_free(model);
        return status;
    }
    codec->config = *(const dn_autoencoder_kl_config *)model->private_config;
    describe(codec, model);
    status = open_decoder_stage(codec, model, error);
    if (status == DN_OK)
        note_bytes(codec);
    return status;
}

dn_status dn_codec_open(dn_codec **out, const char *folder, const dn_codec_options *options, dn_error *error)
{
    dn_codec *codec = calloc(1, sizeof *codec);
    if (codec == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a codec");
    pthread_mutex_init(&codec->turn, NULL);
    codec->options = *options;
    codec->info = (dn_codec_info){.latent_channels = options->channels,
                                  .latent_height = options->height,
                                  .latent_width = options->width,
                                  .channels = options->channels,
                                  .height = options->height,
                                  .width = options->width,
                                  .identity = folder == NULL};
    dn_status status = DN_OK;
    if (folder != NULL) {
        codec->folder = strdup(folder);
        codec->staging = malloc(rows_of(options) * latent_count(codec) * sizeof *codec->staging);
        if (codec->folder == NULL || codec->staging == NULL)
            status = dn_fail(error, DN_NO_MEMORY, "%s: no memory for a codec", folder);
        if (status == DN_OK)
            status = open_decoder(codec, error);
        if (status == DN_OK && options->preview)
            status = dn_codec_fit_preview(codec, error);
    }
    if (status == DN_OK)
        *out = codec;
    else
        dn_codec_close(codec);
    return status;
}

/* With the turn: latents as the autoencoder means them, in place `row` of the staging. */
static void stage_latents(dn_codec *codec, uint32_t row, const float *latents)
{
    const float factor = (float)(1.0 / codec->config.scaling_factor), shift = (float)codec->config.shift_factor;
    float *to = codec->staging + row * latent_count(codec);
    for (size_t i = 0; i < latent_count(codec); i++)
        to[i] = factor * latents[i] + shift;
}

/* With the turn. */
static dn_status decode_locked(dn_codec *codec, const float *latents, float *picture, dn_error *error)
{
    stage_latents(codec, 0, latents);
    if (codec->info.tiled)
        return dn_codec_decode_tiles(codec, picture, error);
    dn_status status = dn_codec_stage_run(&codec->decoder, codec->staging, 1, "decoder", error);
    return status == DN_OK ? codec->options.backend->buffer_read(codec->decoder.out, 0, picture, picture_count(codec), error) : status;
}

dn_status dn_codec_decode_floats(dn_codec *codec, const float *latents, float *picture, dn_error *error)
{
    if (codec->info.identity) {
        memcpy(picture, latents, picture_count(codec) * sizeof *picture);
        return DN_OK;
    }
    pthread_mutex_lock(&codec->turn);
    dn_status status = decode_locked(codec, latents, picture, error);
    pthread_mutex_unlock(&codec->turn);
    return status;
}

/* With the turn: no more of them than the decoder has rows. */
static dn_status decode_rows(dn_codec *codec, const float *const *latents, uint8_t *const *pixels, uint32_t rows, dn_error *error)
{
    const dn_codec_stage *stage = &codec->decoder;
    for (uint32_t r = 0; r < rows; r++)
        stage_latents(codec, r, latents[r]);
    dn_status status = dn_codec_stage_run(stage, codec->staging, rows, "decoder", error);
    for (uint32_t r = 0; r < rows && status == DN_OK; r++)
        status = stage->backend->buffer_read_pixels(stage->out, r * stage->out_count, codec->info.channels,
                                                    (size_t)codec->info.height * codec->info.width, false, pixels[r], error);
    return status;
}

/* Tiles are put together in floats, and rounded here. */
static dn_status decode_tiled(dn_codec *codec, const float *latents, uint8_t *pixels, dn_error *error)
{
    float *picture = malloc(picture_count(codec) * sizeof *picture);
    if (picture == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a picture of %ux%u", codec->info.width, codec->info.height);
    dn_status status = dn_codec_decode_floats(codec, latents, picture, error);
    if (status == DN_OK)
        round_picture(pixels, picture, codec->info.channels, (size_t)codec->info.height * codec->info.width, false);
    free(picture);
    return status;
}

dn_status dn_codec_decode(dn_codec *codec, const float *latents, uint8_t *pixels, dn_error *error)
{
    const size_t plane = (size_t)codec->info.height * codec->info.width;
    if (codec->info.identity) {
        round_picture(pixels, latents, codec->info.channels, plane, codec->options.unit_range);
        return DN_OK;
    }
    if (codec->info.tiled)
        return decode_tiled(codec, latents, pixels, error);
    pthread_mutex_lock(&codec->turn);
    dn_status status = decode_rows(codec, &latents, &pixels, 1, error);
    pthread_mutex_unlock(&codec->turn);
    return status;
}

dn_status dn_codec_decode_many(dn_codec *codec, const float *const *latents, uint8_t *const *pixels, uint32_t count, dn_error *error)
{
    const bool alone = codec->info.identity || codec->info.tiled;
    dn_status status = DN_OK;
    for (uint32_t done = 0, rows; done < count && status == DN_OK; done += rows) {
        const uint32_t left = count - done;
        rows = alone ? 1 : left < codec->decoder.rows ? left : codec->decoder.rows;
        if (alone) {
            status = dn_codec_decode(codec, latents[done], pixels[done], error);
            continue;
        }
        pthread_mutex_lock(&codec->turn);
        status = decode_rows(codec, latents + done, pixels + done, rows, error);
        pthread_mutex_unlock(&codec->turn);
    }
    return status;
}

/* The encoder's output buffer holds its answer, mean and log-variance, as two registers; a third is for the noise. */
static dn_status open_encoder(dn_codec *codec, dn_error *error)
{
    if (codec->encoder.backend != NULL)
        return DN_OK;
    if (codec->config.in_channels != codec->config.out_channels)
        return dn_fail(error, DN_UNSUPPORTED, "%s: it reads pictures of %u channels and writes %u", codec->folder,
                       codec->config.in_channels, codec->config.out_channels);
    dn_model *model = NULL;
    dn_status status = dn_model_open_part(&model, codec->folder, DN_AUTOENCODER_ENCODER, codec->info.height, codec->info.width, error);
    if (status == DN_OK)
        status = dn_codec_stage_open(&codec->encoder, &codec->options, model, NULL, 1, latent_count(codec), error);
    if (status == DN_OK) {
        dn_weights_free(model->weights);
        model->weights = NULL;
        note_bytes(codec);
    }
    return status;
}

/* mean + exp(log-variance / 2) * normal, in the mean's register. */
static dn_status draw_sample(const dn_codec *codec, uint64_t seed, dn_error *error)
{
    enum { MEAN, LOG_VARIANCE, NOISE };
    const dn_op ops[] = {
        {.kind = DN_OP_CLIP, .dst = LOG_VARIANCE, .terms = 1, .src = {LOG_VARIANCE}, .low = LOG_VARIANCE_MIN, .high = LOG_VARIANCE_MAX},
        {.kind = DN_OP_NOISE, .dst = NOISE, .seed = seed, .stream = DN_STREAM_ENCODE},
        {.kind = DN_OP_EXP_SCALE, .dst = NOISE, .terms = 2, .src = {LOG_VARIANCE, NOISE}, .ratio = 0.5f},
        {.kind = DN_OP_LINEAR, .dst = MEAN, .terms = 2, .src = {MEAN, NOISE}, .coefficient = {1.0f, 1.0f}},
    };
    const dn_program program = {
        .registers = codec->encoder.out, .elements = latent_count(codec), .ops = ops, .op_count = sizeof ops / sizeof ops[0]};
    return codec->options.backend->execute(codec->options.device, &program, 1, error);
}

/* With the turn. */
static dn_status encode_locked(dn_codec *codec, const float *picture, uint64_t seed, bool sample, float *latents, dn_error *error)
{
    const float factor = (float)codec->config.scaling_factor, shift = (float)codec->config.shift_factor;
    dn_status status = open_encoder(codec, error);
    if (status == DN_OK)
        status = dn_codec_stage_run(&codec->encoder, picture, 1, "encoder", error);
    if (status == DN_OK && sample)
        status = draw_sample(codec, seed, error);
    if (status == DN_OK)
        status = codec->options.backend->buffer_read(codec->encoder.out, 0, latents, latent_count(codec), error);
    for (size_t i = 0; status == DN_OK && i < latent_count(codec); i++)
        latents[i] = factor * (latents[i] - shift);
    return status;
}

dn_status dn_codec_encode(dn_codec *codec, const uint8_t *pixels, uint64_t seed, bool sample, float *latents, dn_error *error)
{
    const uint32_t channels = codec->info.channels;
    const size_t plane = (size_t)codec->info.height * codec->info.width;
    float *picture = codec->info.identity ? latents : malloc(picture_count(codec) * sizeof *picture);
    if (picture == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a picture of %ux%u", codec->info.width, codec->info.height);
    for (size_t i = 0; i < plane; i++)
        for (uint32_t c = 0; c < channels; c++)
            picture[c * plane + i] = dn_pixel_to_signed(pixels[i * channels + c]);
    for (size_t i = 0; codec->info.identity && codec->options.unit_range && i < picture_count(codec); i++)
        picture[i] = 0.5f * picture[i] + 0.5f;
    if (codec->info.identity)
        return DN_OK;
    pthread_mutex_lock(&codec->turn);
    dn_status status = encode_locked(codec, picture, seed, sample, latents, error);
    pthread_mutex_unlock(&codec->turn);
    free(picture);
    return status;
}
