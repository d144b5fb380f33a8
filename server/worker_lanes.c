/* The worker's lanes: how they come and how they leave. How they enter a batch: worker_entry.c.
 *
 * Invariant: a lane is in its model's batch exactly while its state is RUNNING; it keeps its place (and its credit) until the
 * worker has said GONE or FAILED of it, or has heard STORED. Main thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/fault.h"
#include "server/worker_internal.h"

worker_lane *worker_find_lane(worker *w, uint64_t id)
{
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].state != LANE_FREE && w->lanes[i].id == id)
            return &w->lanes[i];
    return NULL;
}

void worker_release_lane(worker_lane *lane)
{
    free(lane->snapshot);
    free(lane->init);
    free(lane->mask);
    *lane = (worker_lane){.state = LANE_FREE};
}

dn_status worker_fail_lane(worker *w, worker_lane *lane, protocol_failure failure, const char *cause, dn_error *error)
{
    const protocol_message m = {.type = PROTOCOL_FAILED, .lane = lane->id, .state = failure, .text = protocol_text(cause)};
    if (lane->state == LANE_RUNNING)
        dn_batch_evict(lane->model->batch, lane->id);
    worker_release_lane(lane);
    return worker_send(w, &m, error);
}

static dn_status say_gone(worker *w, uint64_t id, dn_error *error)
{
    const protocol_message m = {.type = PROTOCOL_GONE, .lane = id};
    return worker_send(w, &m, error);
}

static dn_status say_failed(worker *w, uint64_t id, protocol_failure failure, const char *cause, dn_error *error)
{
    const protocol_message m = {.type = PROTOCOL_FAILED, .lane = id, .state = failure, .text = protocol_text(cause)};
    return worker_send(w, &m, error);
}

static worker_model *find_model(worker *w, const char *name)
{
    for (unsigned i = 0; i < w->options.model_count; i++)
        if (strcmp(w->models[i].name, name) == 0)
            return &w->models[i];
    return NULL;
}

/* A lane asked for beyond the credit, or under a number in use, means that the two sides disagree: that ends the connection. */
dn_status worker_admit(worker *w, const protocol_message *m, dn_error *error)
{
    worker_lane *lane = NULL;
    for (unsigned i = 0; i < WORKER_CREDIT && !lane; i++)
        if (w->lanes[i].state == LANE_FREE)
            lane = &w->lanes[i];
    if (!lane || worker_find_lane(w, m->lane))
        return dn_fail(error, DN_INVALID, "a lane beyond the credit of %u, or one that is here already", WORKER_CREDIT);
    if (w->draining)
        return say_gone(w, m->lane, error);
    api_request request;
    if (!api_request_from_json(&request, (const char *)m->text.bytes, m->text.count))
        return say_failed(w, m->lane, PROTOCOL_FAILED_ENGINE, "the stored request cannot be read", error);
    worker_model *model = find_model(w, request.model);
    if (!model || model->state == PROTOCOL_MODEL_FAILED)
        return say_failed(w, m->lane, PROTOCOL_FAILED_MODEL,
                          model && model->error.message[0] ? model->error.message : "the model is not loaded", error);
    fault_point("worker_lane_taken");
    *lane = (worker_lane){.state = LANE_WAITING,
                          .id = m->lane,
                          .order = w->next_order++,
                          .accepted = dn_now_seconds() - m->seconds,
                          .request = request,
                          .seed = request.seed + m->index,
                          .model = model};
    protocol_copy_text(lane->job, sizeof lane->job, m->name);
    if (m->data.count) {
        lane->snapshot = malloc(m->data.count);
        if (lane->snapshot) { /* Without memory for it the lane starts at step 0. */
            memcpy(lane->snapshot, m->data.bytes, m->data.count);
            lane->snapshot_bytes = m->data.count;
            lane->snapshot_steps = m->steps_done;
        }
    }
    return DN_OK;
}

/* Also answers for a lane that is not here (any more): the dispatcher waits for the word. */
dn_status worker_cancel(worker *w, uint64_t id, dn_error *error)
{
    worker_lane *lane = worker_find_lane(w, id);
    if (lane) {
        if (lane->state == LANE_RUNNING)
            dn_batch_evict(lane->model->batch, id);
        worker_release_lane(lane); /* A picture still being encoded finds no lane, and is dropped. */
    }
    return say_gone(w, id, error);
}

/* A snapshot that is too large for a frame, or for which there is no memory, is not worth a lane's life: it is left out. */
static dn_status send_snapshot(worker *w, const worker_lane *lane, uint32_t steps, const unsigned char *bytes, size_t count,
                               dn_error *error)
{
    if (count >= PROTOCOL_SNAPSHOT_BYTES_MAX || protocol_unsent(&w->pipe) >= PROTOCOL_FRAME_BYTES_MAX)
        return DN_OK;
    const protocol_message m = {
        .type = PROTOCOL_SNAPSHOT, .lane = lane->id, .steps_done = steps, .steps_total = lane->request.steps, .data = {bytes, count}};
    return worker_send(w, &m, error);
}

dn_status worker_snapshot_lane(worker *w, worker_lane *lane, dn_error *error)
{
    const double before = dn_now_seconds();
    lane->last_snapshot = before;
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_error why;
    dn_status status = dn_batch_snapshot(lane->model->batch, lane->id, &bytes, &count, &why);
    if (status != DN_OK)
        return status == DN_DEVICE_LOST ? worker_device_lost(w, why.message, error) : DN_OK;
    fault_point("worker_snapshot_made");
    status = send_snapshot(w, lane, lane->steps_done, bytes, count, error);
    free(bytes);
    w->snapshot_seconds += dn_now_seconds() - before;
    return status;
}

/* Everything that runs is put down as a snapshot and let go; pictures being encoded still go out before DRAINED. */
dn_status worker_drain(worker *w, dn_error *error)
{
    fault_point("worker_draining");
    w->draining = true;
    dn_status status = DN_OK;
    for (unsigned i = 0; status == DN_OK && i < WORKER_CREDIT; i++) {
        worker_lane *lane = &w->lanes[i];
        if (lane->state == LANE_RUNNING && lane->steps_done > 0)
            status = worker_snapshot_lane(w, lane, error);
        else if ((lane->state == LANE_WAITING || lane->state == LANE_PREPARING) && lane->snapshot)
            status = send_snapshot(w, lane, lane->snapshot_steps, lane->snapshot, lane->snapshot_bytes, error);
        if (status == DN_OK && (lane->state == LANE_RUNNING || lane->state == LANE_WAITING || lane->state == LANE_PREPARING))
            status = worker_cancel(w, lane->id, error);
    }
    return status;
}
