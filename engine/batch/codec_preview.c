/* Previews of latents: each pixel's latent channels through one linear map to the picture's channels.
 *
 * The map is fitted once, by least squares, from a decode of latents drawn from a fixed seed: patches of one normal value each,
 * which decode to patches of colour, so that the fit sees colours and not texture. Deterministic. Written at open, read by any
 * thread. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/pixel.h"
#include "base/philox.h"
#include "batch/codec_private.h"

#define PREVIEW_SEED UINT64_C(0x7072657669657773) /* "previews" */
#define PATCH_SIDE 4u /* latent pixels of one value */
#define RIDGE 1e-3 /* of the mean square of a latent, against a channel that the patches cannot tell apart */
#define CHANNELS_MAX 64u

typedef struct fit {
    const dn_codec *codec;
    uint32_t height, width, terms; /* latent pixels; latent channels and the constant */
    float *latents; /* [channels][height][width], scaled */
    float *picture; /* the decode of them */
    double matrix[CHANNELS_MAX + 1][CHANNELS_MAX + 1]; /* sums of feature products */
    double right[CHANNELS_MAX + 1]; /* sums of features times target, of one channel of the picture */
} fit;

static void draw_patches(fit *f)
{
    const uint32_t rows = (f->height + PATCH_SIDE - 1) / PATCH_SIDE, columns = (f->width + PATCH_SIDE - 1) / PATCH_SIDE;
    for (uint32_t c = 0; c + 1 < f->terms; c++)
        for (uint32_t y = 0; y < f->height; y++)
            for (uint32_t x = 0; x < f->width; x++)
                dn_noise_normal(&f->latents[((size_t)c * f->height + y) * f->width + x], 1,
                                ((size_t)c * rows + y / PATCH_SIDE) * columns + x / PATCH_SIDE, PREVIEW_SEED, DN_STREAM_PROBE, 0);
}

static double feature(const fit *f, uint32_t term, size_t pixel)
{
    return term + 1 == f->terms ? 1.0 : (double)f->latents[term * (size_t)f->height * f->width + pixel];
}

/* The picture's mean over the pixels of one latent pixel. */
static double target(const fit *f, uint32_t channel, size_t pixel)
{
    const uint32_t factor = 1u << (f->codec->config.levels - 1);
    const size_t y = pixel / f->width * factor, x = pixel % f->width * factor, line = (size_t)f->width * factor;
    double sum = 0.0;
    for (size_t dy = 0; dy < factor; dy++)
        for (size_t dx = 0; dx < factor; dx++)
            sum += (double)f->picture[((size_t)channel * f->height * factor + y + dy) * line + x + dx];
    return sum / ((double)factor * factor);
}

/* Solves the normal equations in place (Cholesky: the ridge makes them positive definite); the answer is f->right. */
static void solve(fit *f, double factor[CHANNELS_MAX + 1][CHANNELS_MAX + 1])
{
    const uint32_t n = f->terms;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < i; k++)
            f->right[i] -= factor[i][k] * f->right[k];
        f->right[i] /= factor[i][i];
    }
    for (uint32_t i = n; i-- > 0;) {
        for (uint32_t k = i + 1; k < n; k++)
            f->right[i] -= factor[k][i] * f->right[k];
        f->right[i] /= factor[i][i];
    }
}

/* The lower triangle of f->matrix becomes its Cholesky factor. */
static void factorise(fit *f)
{
    for (uint32_t i = 0; i < f->terms; i++) {
        for (uint32_t j = 0; j <= i; j++) {
            double sum = f->matrix[i][j];
            for (uint32_t k = 0; k < j; k++)
                sum -= f->matrix[i][k] * f->matrix[j][k];
            f->matrix[i][j] = i == j ? sqrt(sum) : sum / f->matrix[j][j];
        }
    }
}

static void fit_map(fit *f, float *map)
{
    const size_t pixels = (size_t)f->height * f->width;
    for (uint32_t i = 0; i < f->terms; i++) {
        for (uint32_t j = 0; j <= i; j++)
            for (size_t p = 0; p < pixels; p++)
                f->matrix[i][j] += feature(f, i, p) * feature(f, j, p);
        f->matrix[i][i] += RIDGE * (double)pixels;
    }
    factorise(f);
    for (uint32_t c = 0; c < f->codec->info.channels; c++) {
        for (uint32_t i = 0; i < f->terms; i++) {
            f->right[i] = 0.0;
            for (size_t p = 0; p < pixels; p++)
                f->right[i] += feature(f, i, p) * target(f, c, p);
        }
        solve(f, f->matrix);
        for (uint32_t i = 0; i < f->terms; i++)
            map[(size_t)c * f->terms + i] = (float)f->right[i];
    }
}

/* Decodes the drawn latents with the codec's decoder stage, whatever its size. */
static dn_status decode_patches(fit *f, dn_error *error)
{
    const dn_codec *codec = f->codec;
    const dn_codec_stage *stage = &codec->decoder;
    const float factor = (float)(1.0 / codec->config.scaling_factor), shift = (float)codec->config.shift_factor;
    float *unscaled = malloc(stage->in_count * sizeof *unscaled);
    if (unscaled == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory to fit previews");
    for (size_t i = 0; i < stage->in_count; i++)
        unscaled[i] = factor * f->latents[i] + shift;
    dn_status status = dn_codec_stage_run(stage, unscaled, 1, "decoder", error);
    if (status == DN_OK)
        status = stage->backend->buffer_read(stage->out, 0, f->picture, stage->out_count, error);
    free(unscaled);
    return status;
}

dn_status dn_codec_fit_preview(dn_codec *codec, dn_error *error)
{
    const dn_model *model = codec->decoder.model;
    if (codec->info.latent_channels > CHANNELS_MAX)
        return dn_fail(error, DN_UNSUPPORTED, "%s: previews of %u latent channels are not supported (up to %u are)", codec->folder,
                       codec->info.latent_channels, CHANNELS_MAX);
    dn_status status = DN_OK;
    fit *f = calloc(1, sizeof *f);
    float *map = calloc((size_t)codec->info.channels * (codec->info.latent_channels + 1), sizeof *map);
    if (f != NULL) {
        *f = (fit){.codec = codec, .height = model->height, .width = model->width, .terms = codec->info.latent_channels + 1};
        f->latents = malloc(codec->decoder.in_count * sizeof *f->latents);
        f->picture = malloc(codec->decoder.out_count * sizeof *f->picture);
    }
    if (map == NULL || f == NULL || f->latents == NULL || f->picture == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory to fit previews");
        goto done;
    }
    draw_patches(f);
    status = decode_patches(f, error);
    if (status != DN_OK)
        goto done;
    fit_map(f, map);
    codec->preview = map;
    map = NULL;
done:
    if (f != NULL) {
        free(f->picture);
        free(f->latents);
    }
    free(f);
    free(map);
    return status;
}

dn_status dn_codec_preview(const dn_codec *codec, const float *latents, uint8_t *pixels, dn_error *error)
{
    const dn_codec_info *info = &codec->info;
    const size_t plane = (size_t)info->latent_height * info->latent_width;
    const uint32_t terms = info->latent_channels + 1;
    if (!info->identity && codec->preview == NULL)
        return dn_fail(error, DN_INTERNAL, "the codec was opened without previews");
    for (size_t p = 0; p < plane; p++) {
        for (uint32_t c = 0; c < info->channels; c++) {
            float value = info->identity ? latents[c * plane + p] : codec->preview[(size_t)c * terms + terms - 1];
            for (uint32_t k = 0; !info->identity && k + 1 < terms; k++)
                value += codec->preview[(size_t)c * terms + k] * latents[k * plane + p];
            pixels[p * info->channels + c] = dn_pixel(value, info->identity && codec->options.unit_range);
        }
    }
    return DN_OK;
}
