/* Facts about a model folder. Nothing is written anywhere; the engine is opened as the worker would open it. One thread. */
#include "server/inspect.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "format/tensors.h"
#include "format/weight_files.h"
#include "server/describe_model.h"
#include "server/worker_internal.h"

#define MEASURED_ROWS 8u
#define MEASURED_STEPS 4u /* more than are run, so that no lane ends */

/* ---- What is stored */

static dn_status read_stored(inspect_weights *out, const char *folder, dn_error *error)
{
    char *path = NULL;
    dn_tensors *tensors = NULL;
    dn_status status = dn_weight_file_find(&path, folder, error);
    if (status == DN_OK)
        status = dn_tensors_open(&tensors, path, error);
    if (status != DN_OK)
        goto done;
    out->shards = dn_tensors_shards(tensors);
    snprintf(out->path, sizeof out->path, "%s", path);
    out->tensors = (uint32_t)dn_tensors_count(tensors);
    for (size_t i = 0; i < dn_tensors_count(tensors); i++) {
        const dn_tensor_info *info = dn_tensors_at(tensors, i);
        out->numbers += info->count;
        out->bytes += info->bytes;
        out->numbers_of[info->dtype] += info->count;
    }
done:
    dn_tensors_close(tensors);
    free(path);
    return status;
}

/* ---- What it costs */

/* Seconds of a tick of so many rows: the second of two, since the first touches its memory for the first time. */
static dn_status measure(double *out, dn_engine *engine, uint32_t rows, dn_error *error)
{
    dn_batch *batch = NULL;
    dn_tick_report *report = malloc(sizeof *report);
    dn_lane_spec spec = {.guidance_scale = 1, .steps = MEASURED_STEPS, .has_class = engine->class_count > 0};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", engine->default_sampler);
    dn_status status = report ? dn_batch_create(&batch, engine, rows, error) : dn_fail(error, DN_NO_MEMORY, "out of memory for a tick");
    for (uint32_t i = 0; status == DN_OK && i < rows; i++) {
        spec.seed = i;
        status = dn_batch_admit(batch, i, &spec, error);
    }
    for (int i = 0; status == DN_OK && i < 2; i++)
        status = dn_batch_tick(batch, report, error);
    if (status == DN_OK)
        *out = report->seconds;
    dn_batch_free(batch);
    free(report);
    return status;
}

static dn_status measure_rows(inspect_facts *f, dn_error *error)
{
    double together = 0.0;
    dn_status status = measure(&f->row_seconds, f->engine, 1, error);
    f->rows = f->row_seconds * MEASURED_ROWS > WORKER_TICK_SECONDS ? 2 : MEASURED_ROWS;
    if (status == DN_OK)
        status = measure(&together, f->engine, f->rows, error);
    f->rows_seconds = together / f->rows;
    double fit = f->row_seconds > 0.0 ? floor(WORKER_TICK_SECONDS / f->row_seconds) : WORKER_ROWS_MAX;
    f->rows_max = fit < 2.0 ? 2 : fit > WORKER_ROWS_MAX ? WORKER_ROWS_MAX : (uint32_t)fit;
    f->measured = status == DN_OK;
    return status;
}

static dn_status measure_codec(inspect_facts *f, dn_error *error)
{
    dn_codec *codec = NULL;
    float *latents = calloc(dn_engine_elements(f->engine), sizeof *latents);
    uint8_t *pixels = malloc((size_t)f->engine->image_width * f->engine->image_height * f->engine->image_channels);
    dn_status status = latents && pixels ? dn_engine_codec_open(&codec, f->engine, false, error)
                                         : dn_fail(error, DN_NO_MEMORY, "out of memory for a picture");
    if (status == DN_OK) {
        double begun = dn_now_seconds();
        status = dn_codec_decode(codec, latents, pixels, error);
        f->decode_seconds = dn_now_seconds() - begun;
        f->codec = *dn_codec_about(codec);
        f->codec_bytes = dn_codec_bytes(codec);
    }
    dn_codec_close(codec);
    free(latents);
    free(pixels);
    return status;
}

/* Of a tick of so many rows, without the vectors that stay for the next. */
static size_t activation_bytes(const inspect_facts *f, uint32_t rows)
{
    return dn_engine_workspace_bytes(f->engine, rows) - dn_engine_condition_bytes(f->engine, rows);
}

static void count_memory(inspect_facts *f)
{
    f->packed_bytes = dn_engine_weight_bytes(f->engine);
    f->lane_bytes = dn_engine_lane_bytes(f->engine);
    if (f->engine->network == NULL)
        return;
    if (f->engine->backend->network_describe != NULL)
        f->engine->backend->network_describe(f->engine->network, f->form, sizeof f->form);
    size_t one = activation_bytes(f, 1), many = activation_bytes(f, 1 + MEASURED_ROWS);
    f->kept_bytes = dn_engine_condition_bytes(f->engine, 1);
    f->arena_bytes = one;
    f->row_bytes = (many - one) / MEASURED_ROWS;
}

dn_status inspect_gather(inspect_facts *out, const char *path, const dn_engine_options *options, dn_error *error)
{
    *out = (inspect_facts){.engine = NULL};
    dn_status status = dn_engine_open(&out->engine, path, options, error);
    if (status == DN_OK)
        status = dn_describe_model(&out->description, "model", out->engine, error);
    if (status == DN_OK)
        status = read_stored(&out->weights, out->engine->folder->network_path, error);
    if (status != DN_OK)
        return status;
    out->weights.needed = dn_plan_parameters(out->engine->model->plan);
    out->gflop = dn_plan_flops(out->engine->model->plan) * 1e-9;
    out->gflop_half = out->engine->backend->precision_flops(out->engine->model->plan, out->engine->precision) * 1e-9;
    out->has_codec = out->engine->codec_path != NULL;
    count_memory(out);
    bool worth = !options->describe_only && out->gflop <= INSPECT_GFLOP_MAX;
    if (worth)
        status = measure_rows(out, error);
    if (status == DN_OK && worth)
        out->tick_bytes = activation_bytes(out, out->rows_max);
    if (status == DN_OK && worth && out->has_codec)
        status = measure_codec(out, error);
    return status;
}

void inspect_done(inspect_facts *facts)
{
    api_model_free(facts->description);
    dn_engine_close(facts->engine);
}
