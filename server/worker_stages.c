/* What happens to a lane before and after its batch: its input pictures are read, its latents become pixels, its pixels a PNG.
 *
 * Invariant: a lane that is being prepared or decoded keeps its model in memory and its place; a cancelled one is forgotten, and what
 * comes back for it is dropped. Main thread. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/worker_internal.h"

static bool latent(const worker_model *model)
{
    return !dn_codec_about(model->codec)->identity;
}

static dn_status fail(worker *w, worker_lane *lane, const dn_error *why, protocol_failure failure, dn_error *error)
{
    if (why->status == DN_DEVICE_LOST)
        return worker_device_lost(w, why->message, error);
    return worker_fail_lane(w, lane, why->status == DN_NO_MEMORY ? PROTOCOL_FAILED_MEMORY : failure, why->message, error);
}

static void submit(worker *w, const worker_lane *lane, codec_task *task)
{
    task->model = lane->model;
    task->load = lane->model->load;
    task->engine = lane->model->engine;
    task->codec = lane->model->codec;
    lane->model->coding++;
    worker_codec_submit(&w->codec, task);
}

/* ---- Before */

/* A lane that goes on from a snapshot carries its pictures in it, and is prepared all the same: the snapshot may not fit. */
dn_status worker_prepare_lane(worker *w, worker_lane *lane, dn_error *error)
{
    const api_request *r = &lane->request;
    lane->state = LANE_WAITING;
    if (!r->init_image.sha256[0]) {
        lane->prepared = true;
        return DN_OK;
    }
    codec_task *task = calloc(1, sizeof *task);
    if (!task)
        return worker_fail_lane(w, lane, PROTOCOL_FAILED_MEMORY, "out of memory for an input picture", error);
    *task = (codec_task){.kind = CODEC_PREPARE, .lane = lane->id};
    memcpy(task->job, lane->job, sizeof task->job);
    memcpy(task->init_sha256, r->init_image.sha256, sizeof task->init_sha256);
    memcpy(task->mask_sha256, r->mask_image.sha256, sizeof task->mask_sha256);
    lane->state = LANE_PREPARING;
    submit(w, lane, task);
    return DN_OK;
}

static dn_status take_prepared(worker *w, worker_lane *lane, codec_task *task, dn_error *error)
{
    if (lane->state != LANE_PREPARING)
        return DN_OK;
    if (task->status != DN_OK)
        return fail(w, lane, &task->error, task->status == DN_IO ? PROTOCOL_FAILED_ENGINE : PROTOCOL_FAILED_INPUT, error);
    lane->init = task->init;
    lane->mask = task->mask;
    task->init = task->mask = NULL;
    lane->prepared = true;
    lane->state = LANE_WAITING;
    return DN_OK;
}

/* ---- After */

static encode_task *encode_task_of(const worker_lane *lane, encode_kind kind, uint8_t *pixels, uint32_t width, uint32_t height)
{
    const api_model *model = lane->model->description;
    encode_task *task = calloc(1, sizeof *task);
    if (task)
        *task = (encode_task){.kind = kind,
                              .lane = lane->id,
                              .width = width,
                              .height = height,
                              .channels = model->channels,
                              .steps_done = lane->steps_done,
                              .steps_total = lane->steps_total,
                              .pixels = pixels,
                              .request = lane->request,
                              .seed = lane->seed,
                              .model = model};
    return task;
}

static dn_status encode(worker *w, worker_lane *lane, uint8_t *pixels, dn_error *error)
{
    const dn_codec_info *about = dn_codec_about(lane->model->codec);
    encode_task *task = encode_task_of(lane, ENCODE_IMAGE, pixels, about->width, about->height);
    if (!task) {
        free(pixels);
        return worker_fail_lane(w, lane, PROTOCOL_FAILED_MEMORY, "out of memory for a picture", error);
    }
    lane->state = LANE_ENCODING;
    worker_encoder_submit(&w->encoder, task);
    return DN_OK;
}

static size_t latent_count(const dn_codec_info *about)
{
    return (size_t)about->latent_channels * about->latent_height * about->latent_width;
}

/* The latents leave the batch, and a snapshot of the finished lane says where a successor goes on: decoding may take seconds. */
static dn_status decode(worker *w, worker_lane *lane, dn_error *error)
{
    dn_error why;
    dn_status status = worker_snapshot_lane(w, lane, error);
    if (status != DN_OK)
        return status;
    codec_task *task = calloc(1, sizeof *task);
    float *latents = malloc(latent_count(dn_codec_about(lane->model->codec)) * sizeof *latents);
    status = task && latents ? dn_batch_read_floats(lane->model->batch, lane->id, latents, &why)
                             : dn_fail(&why, DN_NO_MEMORY, "out of memory for a picture");
    if (status != DN_OK) {
        free(task);
        free(latents);
        return fail(w, lane, &why, PROTOCOL_FAILED_ENGINE, error);
    }
    *task = (codec_task){.kind = CODEC_DECODE, .lane = lane->id, .latents = latents};
    dn_batch_evict(lane->model->batch, lane->id);
    lane->state = LANE_DECODING;
    submit(w, lane, task);
    return DN_OK;
}

dn_status worker_finish_lane(worker *w, worker_lane *lane, dn_error *error)
{
    if (latent(lane->model))
        return decode(w, lane, error);
    const dn_codec_info *about = dn_codec_about(lane->model->codec);
    dn_error why;
    uint8_t *pixels = malloc((size_t)about->width * about->height * about->channels);
    const dn_status status = pixels ? dn_batch_read_pixels(lane->model->batch, lane->id, pixels, &why)
                                    : dn_fail(&why, DN_NO_MEMORY, "out of memory for a picture");
    if (status != DN_OK) {
        free(pixels);
        return fail(w, lane, &why, PROTOCOL_FAILED_ENGINE, error);
    }
    dn_batch_evict(lane->model->batch, lane->id);
    return encode(w, lane, pixels, error);
}

static dn_status take_decoded(worker *w, worker_lane *lane, codec_task *task, dn_error *error)
{
    if (lane->state != LANE_DECODING)
        return DN_OK;
    if (task->status != DN_OK)
        return fail(w, lane, &task->error, PROTOCOL_FAILED_ENGINE, error);
    uint8_t *pixels = task->pixels;
    task->pixels = NULL;
    return encode(w, lane, pixels, error);
}

dn_status worker_take_coded(worker *w, dn_error *error)
{
    dn_status status = DN_OK;
    for (codec_task *task; status == DN_OK && (task = worker_codec_take(&w->codec)) != NULL;) {
        worker_lane *lane = worker_find_lane(w, task->lane);
        task->model->coding--;
        if (task->status == DN_DEVICE_LOST)
            status = worker_device_lost(w, task->error.message, error);
        else if (lane)
            status = task->kind == CODEC_PREPARE ? take_prepared(w, lane, task, error) : take_decoded(w, lane, task, error);
        codec_task_free(task);
    }
    return status;
}

/* ---- Meanwhile */

/* Pixels of the picture as it stands: of a latent model by the codec's linear map, on the latents' own grid. */
static bool look(const worker_lane *lane, uint8_t **out, uint32_t *width, uint32_t *height)
{
    const dn_codec_info *about = dn_codec_about(lane->model->codec);
    *width = about->identity ? about->width : about->latent_width;
    *height = about->identity ? about->height : about->latent_height;
    uint8_t *pixels = malloc((size_t)*width * *height * about->channels);
    float *latents = about->identity ? NULL : malloc(latent_count(about) * sizeof *latents);
    bool fine = pixels && (latents || about->identity);
    if (fine && about->identity)
        fine = dn_batch_read_pixels(lane->model->batch, lane->id, pixels, NULL) == DN_OK;
    else if (fine)
        fine = dn_batch_read_floats(lane->model->batch, lane->id, latents, NULL) == DN_OK &&
               dn_codec_preview(lane->model->codec, latents, pixels, NULL) == DN_OK;
    free(latents);
    if (fine)
        *out = pixels;
    else
        free(pixels);
    return fine;
}

/* Previews wait for nobody: none is made while the last ones have not gone out. */
void worker_preview_lane(worker *w, worker_lane *lane, double now)
{
    if (!lane->watched || now - lane->last_preview < WORKER_PREVIEW_SECONDS || protocol_unsent(&w->pipe) > PROTOCOL_DROP_BYTES ||
        worker_encoder_depth(&w->encoder) > 8)
        return;
    lane->last_preview = now;
    uint8_t *pixels = NULL;
    uint32_t width, height;
    if (!look(lane, &pixels, &width, &height))
        return;
    encode_task *task = encode_task_of(lane, ENCODE_PREVIEW, pixels, width, height);
    if (task)
        worker_encoder_submit(&w->encoder, task);
    else
        free(pixels);
}
