/* The worker's ticks and what follows from them: reports, previews, snapshots, and finished pictures on their way to the encoder.
 *
 * Invariant: a lane leaves its batch in the same tick in which it ends; previews and tick reports are dropped when the socket is
 * full, pictures never. Main thread. */
#include <string.h>

#include "base/clock.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/urgency.h"
#include "server/worker_internal.h"

bool worker_has_work(const worker *w)
{
    for (unsigned i = 0; i < w->options.model_count; i++)
        if (w->models[i].batch && dn_batch_lanes(w->models[i].batch) > 0)
            return true;
    return false;
}

static bool snapshot_is_due(const worker *w, const worker_lane *lane, double now)
{
    return lane->steps_done > 0 && now - lane->last_snapshot >= w->options.snapshot_every_seconds &&
           w->snapshot_seconds <= WORKER_SNAPSHOT_SHARE * w->tick_seconds;
}

static dn_status send_report(worker *w, uint32_t lane_count, dn_error *error)
{
    const protocol_message m = {
        .type = PROTOCOL_TICK, .rows = w->report.rows, .seconds = w->report.seconds, .lanes = w->tick_lanes, .lane_count = lane_count};
    return protocol_unsent(&w->pipe) > PROTOCOL_DROP_BYTES ? DN_OK : worker_send(w, &m, error);
}

static dn_status follow_lane(worker *w, const dn_lane_report *report, double now, dn_error *error)
{
    worker_lane *lane = worker_find_lane(w, report->id);
    if (!lane || lane->state != LANE_RUNNING)
        return DN_OK;
    if (report->state == DN_LANE_FAILED && report->error.status == DN_DEVICE_LOST)
        return worker_device_lost(w, report->error.message, error);
    if (report->state == DN_LANE_FAILED)
        return worker_fail_lane(w, lane, report->error.status == DN_NO_MEMORY ? PROTOCOL_FAILED_MEMORY : PROTOCOL_FAILED_ENGINE,
                                report->error.message, error);
    if (report->state == DN_LANE_DONE)
        return worker_finish_lane(w, lane, error);
    worker_preview_lane(w, lane, now);
    return snapshot_is_due(w, lane, now) ? worker_snapshot_lane(w, lane, error) : DN_OK;
}

static dn_status fail_batch(worker *w, const worker_model *model, const dn_error *why, dn_error *error)
{
    dn_status status = DN_OK;
    for (unsigned i = 0; status == DN_OK && i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_RUNNING && w->lanes[i].model == model)
            status = worker_fail_lane(w, &w->lanes[i], why->status == DN_NO_MEMORY ? PROTOCOL_FAILED_MEMORY : PROTOCOL_FAILED_ENGINE,
                                      why->message, error);
    return status;
}

/* Lanes of a tick that stopped half-way cannot go on from there: the daemon sends them again, with their last snapshots. */
static dn_status give_batch_back(worker *w, const worker_model *model, dn_error *error)
{
    dn_status status = DN_OK;
    for (unsigned i = 0; status == DN_OK && i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_RUNNING && w->lanes[i].model == model)
            status = worker_cancel(w, w->lanes[i].id, error);
    return status;
}

/* A tick that fails as a whole takes its batch's lanes with it; the batch itself stays usable. For want of memory smaller ones are tried
 * before any lane fails. */
static dn_status tick_failed(worker *w, worker_model *model, const dn_error *why, dn_error *error)
{
    const uint32_t rows = dn_batch_rows_wanted(model->batch);
    if (why->status == DN_DEVICE_LOST)
        return worker_device_lost(w, why->message, error);
    if (why->status != DN_NO_MEMORY || dn_batch_lanes(model->batch) < 2 || model->rows_limit <= 2)
        return fail_batch(w, model, why, error);
    log_say(LOG_WARNING, "worker", "model %s: %s; its ticks become smaller", model->name, why->message);
    const dn_status status = worker_shrink_ticks(w, model, rows, error);
    return status == DN_OK ? give_batch_back(w, model, error) : status;
}

static dn_status tick_model(worker *w, worker_model *model, dn_error *error)
{
    dn_error why;
    if (dn_batch_tick(model->batch, &w->report, &why) != DN_OK)
        return tick_failed(w, model, &why, error);
    w->ticked = model;
    model->virtual_seconds += w->report.seconds;
    uint32_t count = 0;
    for (uint32_t i = 0; i < w->report.lane_count; i++) {
        const dn_lane_report *report = &w->report.lanes[i];
        worker_lane *lane = worker_find_lane(w, report->id);
        if (!lane)
            continue;
        lane->steps_done = report->steps_done;
        lane->steps_total = report->steps_total;
        lane->evaluations = report->evaluations;
        w->tick_lanes[count++] =
            (protocol_tick_lane){.lane = report->id, .steps_done = report->steps_done, .steps_total = report->steps_total};
    }
    dn_status status = send_report(w, count, error);
    const double now = dn_now_seconds();
    for (uint32_t i = 0; status == DN_OK && i < w->report.lane_count; i++)
        status = follow_lane(w, &w->report.lanes[i], now, error);
    return status;
}

/* The running lane of a model that has the highest priority, and waits for longest; NULL: none runs. */
static const worker_lane *most_urgent(const worker *w, const worker_model *model)
{
    const worker_lane *most = NULL;
    for (unsigned i = 0; i < WORKER_CREDIT; i++) {
        const worker_lane *lane = &w->lanes[i];
        if (lane->state == LANE_RUNNING && lane->model == model &&
            (!most || lane->request.priority > most->request.priority ||
             (lane->request.priority == most->request.priority && lane->accepted < most->accepted)))
            most = lane;
    }
    return most;
}

/* Whether this model ticks rather than the other: it has the more urgent lane, or, where neither has, has had less time. */
static bool ticks_before(const worker *w, const worker_model *model, const worker_model *other, double now)
{
    const worker_lane *own = most_urgent(w, model), *others = most_urgent(w, other);
    if (!own || !others)
        return own != NULL;
    const double waited = now - own->accepted, others_waited = now - others->accepted;
    if (urgency_outranks(own->request.priority, waited, others->request.priority, others_waited))
        return true;
    return !urgency_outranks(others->request.priority, others_waited, own->request.priority, waited) &&
           model->virtual_seconds < other->virtual_seconds;
}

/* One tick of one batch: of the models that have lanes, the one with the most urgent lane, else the one that has had the least time. A
 * model that comes back from a pause starts level with the others, so that nobody saves time up. */
dn_status worker_tick(worker *w, dn_error *error)
{
    worker_model *next = NULL;
    const double now = dn_now_seconds();
    for (unsigned i = 0; i < w->options.model_count; i++) {
        worker_model *model = &w->models[i];
        if (!model->batch || dn_batch_lanes(model->batch) == 0) {
            model->virtual_seconds = 0;
            continue;
        }
        if (model->virtual_seconds < w->virtual_now)
            model->virtual_seconds = w->virtual_now;
        if (!next || ticks_before(w, model, next, now))
            next = model;
    }
    if (!next)
        return DN_OK;
    fault_point("step_k");
    if (w->options.before_tick)
        w->options.before_tick();
    if (next->virtual_seconds > w->virtual_now)
        w->virtual_now = next->virtual_seconds;
    return tick_model(w, next, error);
}

static dn_status send_preview(worker *w, const encode_task *task, dn_error *error)
{
    const worker_lane *lane = worker_find_lane(w, task->lane);
    if (task->status != DN_OK || !lane || lane->state == LANE_SENT || !lane->watched || protocol_unsent(&w->pipe) > PROTOCOL_DROP_BYTES ||
        task->png_bytes > PROTOCOL_DROP_BYTES)
        return DN_OK;
    const protocol_message m = {.type = PROTOCOL_PREVIEW,
                                .lane = task->lane,
                                .steps_done = task->steps_done,
                                .steps_total = task->steps_total,
                                .width = task->width,
                                .height = task->height,
                                .data = {task->png, task->png_bytes}};
    return worker_send(w, &m, error);
}

static dn_status send_image(worker *w, const encode_task *task, dn_error *error)
{
    worker_lane *lane = worker_find_lane(w, task->lane);
    if (!lane || lane->state != LANE_ENCODING)
        return DN_OK;
    if (task->status != DN_OK)
        return worker_fail_lane(w, lane, task->status == DN_NO_MEMORY ? PROTOCOL_FAILED_MEMORY : PROTOCOL_FAILED_ENGINE,
                                task->error.message, error);
    if (task->png_bytes + 256 > PROTOCOL_FRAME_BYTES_MAX)
        return worker_fail_lane(w, lane, PROTOCOL_FAILED_ENGINE, "the PNG is larger than 64 MiB", error);
    protocol_message m = {.type = PROTOCOL_IMAGE,
                          .lane = task->lane,
                          .steps_done = lane->evaluations,
                          .width = task->width,
                          .height = task->height,
                          .data = {task->png, task->png_bytes}};
    memcpy(m.sha256, task->sha256, 32);
    memcpy(m.pixels_sha256, task->pixels_sha256, 32);
    fault_point("worker_png_made");
    lane->state = LANE_SENT;
    return worker_send(w, &m, error);
}

dn_status worker_send_encoded(worker *w, dn_error *error)
{
    dn_status status = DN_OK;
    for (encode_task *task; status == DN_OK && (task = worker_encoder_take(&w->encoder));) {
        status = task->kind == ENCODE_IMAGE ? send_image(w, task, error) : send_preview(w, task, error);
        encode_task_free(task);
    }
    return status;
}
