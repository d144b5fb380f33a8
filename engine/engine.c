/* The library's short way: a folder opened whole, given pictures brought to the network's space, specs in, pictures out, through one
 * running batch on the calling thread. */
#include "engine.h"

#include <stdlib.h>
#include <string.h>

#include "train/classifier_gradient.h"

#define DN_GENERATE_ROWS 16u /* enough to fill the cores; more only takes memory */

typedef struct dn_generation {
    dn_engine *engine;
    dn_batch *batch;
    dn_codec *codec; /* NULL: no pixels are wanted, or the network makes them itself */
    float *latents; /* [elements], on their way through the codec */
    const dn_lane_spec *specs;
    uint32_t n, admitted, finished;
    uint32_t steps_done, steps_total; /* of lanes that are gone; of all */
    uint8_t *pixels;
    float *floats;
} dn_generation;

static dn_status check_specs(dn_generation *g, dn_error *error)
{
    for (uint32_t i = 0; i < g->n; i++) {
        dn_status status = dn_lane_spec_check(g->engine, &g->specs[i], error);
        if (status != DN_OK)
            return status;
        g->steps_total += g->specs[i].steps;
    }
    return DN_OK;
}

/* Fills the batch's rows with lanes, in order. */
static dn_status admit_more(dn_generation *g, dn_error *error)
{
    dn_status status = DN_OK;
    while (status == DN_OK && g->admitted < g->n && dn_batch_lanes(g->batch) < DN_LANES_MAX) {
        const dn_lane_spec *spec = &g->specs[g->admitted];
        if (dn_batch_rows_wanted(g->batch) + dn_lane_spec_rows(g->engine, spec) > DN_GENERATE_ROWS)
            break;
        status = dn_batch_admit(g->batch, g->admitted, spec, error);
        g->admitted++;
    }
    return status;
}

static dn_status read_decoded(dn_generation *g, dn_lane_id id, uint8_t *out, dn_error *error)
{
    if (g->codec == NULL)
        return dn_batch_read_pixels(g->batch, id, out, error);
    dn_status status = dn_batch_read_floats(g->batch, id, g->latents, error);
    return status == DN_OK ? dn_codec_decode(g->codec, g->latents, out, error) : status;
}

static dn_status take_image(dn_generation *g, dn_lane_id id, dn_error *error)
{
    const dn_engine *engine = g->engine;
    size_t elements = dn_engine_elements(engine), bytes = (size_t)engine->image_width * engine->image_height * engine->image_channels;
    dn_status status = DN_OK;
    if (g->pixels != NULL)
        status = read_decoded(g, id, g->pixels + id * bytes, error);
    if (status == DN_OK && g->floats != NULL)
        status = dn_batch_read_floats(g->batch, id, g->floats + id * elements, error);
    (void)dn_batch_evict(g->batch, id);
    g->finished++;
    return status;
}

static dn_status open_codec(dn_generation *g, dn_error *error)
{
    if (g->pixels == NULL || g->engine->codec_path == NULL)
        return DN_OK;
    g->latents = malloc(dn_engine_elements(g->engine) * sizeof *g->latents);
    if (g->latents == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for latents");
    return dn_engine_codec_open(&g->codec, g->engine, false, error);
}

/* Collects what a tick finished; *done counts all steps made so far. */
static dn_status collect(dn_generation *g, const dn_tick_report *report, uint32_t *done, dn_error *error)
{
    dn_status status = DN_OK;
    uint32_t running = 0;
    for (uint32_t i = 0; i < report->lane_count && status == DN_OK; i++) {
        const dn_lane_report *lane = &report->lanes[i];
        if (lane->state == DN_LANE_FAILED)
            return dn_fail(error, lane->error.status, "image %u: %s", (unsigned)lane->id, lane->error.message);
        if (lane->state == DN_LANE_RUNNING) {
            running += lane->steps_done;
            continue;
        }
        status = take_image(g, lane->id, error);
        g->steps_done += g->specs[lane->id].steps;
    }
    *done = g->steps_done + running;
    return status;
}

dn_status dn_engine_open(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error)
{
    static const dn_engine_options standard = {0};
    dn_engine *engine = NULL;
    dn_gradient classifier;
    dn_status status = dn_engine_load(&engine, folder, options, error);
    /* Gradients need the network's values, which lie on the card: a GPU's engine has no classifier. */
    if (status == DN_OK && engine->folder->classifier_path != NULL && engine->backend->host_values) {
        status = dn_classifier_gradient_open(&classifier, engine->folder->classifier_path, engine, options ? options : &standard, error);
        if (status == DN_OK)
            dn_engine_set_classifier(engine, classifier);
    }
    if (status != DN_OK) {
        dn_engine_close(engine);
        return status;
    }
    *out = engine;
    return DN_OK;
}

dn_status dn_engine_codec_open(dn_codec **out, const dn_engine *engine, bool preview, dn_error *error)
{
    const dn_model *model = engine->model;
    const dn_codec_options options = {.backend = engine->backend,
                                      .device = engine->device,
                                      .precision = engine->codec_precision,
                                      .channels = model->channels,
                                      .height = model->height,
                                      .width = model->width,
                                      .tiling = engine->vae_tiling,
                                      .preview = preview,
                                      .rows_max = engine->backend->host_values ? 1 : DN_CODEC_ROWS_MAX,
                                      .unit_range = engine->training->family == DN_FAMILY_VE};
    return dn_codec_open(out, engine->codec_path, &options, error);
}

/* out[y][x] = in[floor(y scale)][floor(x scale)]: torch's nearest interpolation. */
static void shrink_mask(float *out, const dn_engine *engine, const uint8_t *in)
{
    uint32_t h = engine->model->height, w = engine->model->width;
    for (uint32_t y = 0; y < h; y++)
        for (uint32_t x = 0; x < w; x++) {
            size_t row = (size_t)y * engine->image_height / h, column = (size_t)x * engine->image_width / w;
            out[(size_t)y * w + x] = in[row * engine->image_width + column] >= 128 ? 1.0f : 0.0f;
        }
}

dn_status dn_prepare_init(const dn_engine *engine, dn_codec *codec, const uint8_t *pixels, const uint8_t *mask_pixels, float *init,
                          float *mask, dn_error *error)
{
    if (mask_pixels != NULL)
        shrink_mask(mask, engine, mask_pixels);
    return dn_codec_encode(codec, pixels, 0, false, init, error);
}

dn_status dn_engine_prepare_init(const dn_engine *engine, const uint8_t *pixels, const uint8_t *mask_pixels, float *init, float *mask,
                                 dn_error *error)
{
    dn_codec *codec = NULL;
    dn_status status = dn_engine_codec_open(&codec, engine, false, error);
    if (status == DN_OK)
        status = dn_prepare_init(engine, codec, pixels, mask_pixels, init, mask, error);
    dn_codec_close(codec);
    return status;
}

dn_status dn_generate(dn_engine *engine, const dn_lane_spec *specs, uint32_t n, uint8_t *pixels, float *floats, dn_progress *progress,
                      void *payload, dn_error *error)
{
    dn_generation g = {.engine = engine, .specs = specs, .n = n, .pixels = pixels, .floats = floats};
    dn_tick_report report;
    uint32_t done = 0;
    dn_status status = check_specs(&g, error);
    if (status == DN_OK)
        status = dn_batch_create(&g.batch, engine, DN_GENERATE_ROWS, error);
    if (status == DN_OK)
        status = open_codec(&g, error);
    while (status == DN_OK && g.finished < n) {
        status = admit_more(&g, error);
        if (status == DN_OK)
            status = dn_batch_tick(g.batch, &report, error);
        if (status == DN_OK)
            status = collect(&g, &report, &done, error);
        if (status == DN_OK && progress != NULL && !progress(payload, done, g.steps_total))
            status = dn_fail(error, DN_CANCELLED, "cancelled after %u of %u steps", done, g.steps_total);
    }
    dn_codec_close(g.codec);
    free(g.latents);
    dn_batch_free(g.batch);
    return status;
}
