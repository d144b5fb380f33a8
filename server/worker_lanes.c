/* The worker's lanes: how they come, wait for room, enter a batch (anew or from a snapshot), and leave.
 *
 * Invariant: a lane is in its model's batch exactly while its state is RUNNING; it keeps its place (and its credit) until the
 * worker has said GONE or FAILED of it, or has heard STORED. Main thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
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
    *lane = (worker_lane){.state = LANE_WAITING,
                          .id = m->lane,
                          .order = w->next_order++,
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

static dn_lane_spec spec_of(const worker_lane *lane)
{
    const api_request *r = &lane->request;
    dn_lane_spec spec = {.seed = lane->seed,
                         .has_class = r->has_class,
                         .class_index = r->class_index,
                         .has_negative = r->has_negative,
                         .negative_class = r->negative.index,
                         .guidance_scale = r->guidance_scale,
                         .steps = r->steps,
                         .options = r->options,
                         .has_variation = r->has_variation,
                         .variation_seed = r->variation_seed,
                         .init = lane->init,
                         .mask = lane->mask};
    spec.mixture.count = r->mixture_count;
    for (uint32_t i = 0; i < r->mixture_count; i++) {
        spec.mixture.classes[i] = r->mixture[i].label.index;
        spec.mixture.weights[i] = (float)r->mixture[i].weight;
    }
    snprintf(spec.sampler, sizeof spec.sampler, "%s", r->sampler);
    return spec;
}

static uint32_t rows_running(const worker *w, const worker_model *model)
{
    uint32_t rows = 0;
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_RUNNING && w->lanes[i].model == model)
            rows += w->lanes[i].rows;
    return rows;
}

/* Puts a waiting lane into its batch. A snapshot of another build or other weights is refused: the lane starts at step 0. */
static dn_status enter(worker *w, worker_lane *lane, const dn_lane_spec *spec, dn_error *error)
{
    dn_error why = {.status = DN_OK, .message = ""};
    if (w->options.before_admit)
        w->options.before_admit(&lane->request, lane->seed);
    bool resumed = false;
    if (lane->snapshot)
        resumed = dn_batch_restore(lane->model->batch, lane->id, lane->snapshot, lane->snapshot_bytes, &why) == DN_OK;
    free(lane->snapshot);
    lane->snapshot = NULL;
    dn_error refused;
    if (!resumed && dn_batch_admit(lane->model->batch, lane->id, spec, &refused) != DN_OK)
        return worker_fail_lane(w, lane, refused.status == DN_NO_MEMORY ? PROTOCOL_FAILED_MEMORY : PROTOCOL_FAILED_ENGINE, refused.message,
                                error);
    free(lane->init);
    free(lane->mask);
    lane->init = lane->mask = NULL;
    lane->state = LANE_RUNNING;
    lane->steps_done = resumed ? lane->snapshot_steps : 0;
    lane->last_snapshot = dn_now_seconds();
    const protocol_message m = {.type = PROTOCOL_ADMITTED,
                                .lane = lane->id,
                                .steps_done = lane->steps_done,
                                .steps_total = lane->request.steps,
                                .text = protocol_text(why.message)};
    return worker_send(w, &m, error);
}

/* First come, first served within a model, as rows allow; a lane that needs more rows than are free holds up those behind it,
 * or it would wait for ever. */
static dn_status enter_model(worker *w, worker_model *model, dn_error *error)
{
    uint32_t rows = rows_running(w, model);
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_WAITING && w->lanes[i].model == model && !w->lanes[i].prepared) {
            const dn_status status = worker_prepare_lane(w, &w->lanes[i], error);
            if (status != DN_OK)
                return status;
        }
    for (;;) {
        worker_lane *first = NULL;
        for (unsigned i = 0; i < WORKER_CREDIT; i++) {
            worker_lane *lane = &w->lanes[i];
            if (lane->state == LANE_WAITING && lane->model == model && (!first || lane->order < first->order))
                first = lane;
        }
        if (!first || dn_batch_lanes(model->batch) >= DN_LANES_MAX)
            return DN_OK;
        const dn_lane_spec spec = spec_of(first);
        dn_error why;
        dn_status status;
        if (dn_lane_spec_check(model->engine, &spec, &why) != DN_OK) {
            status = worker_fail_lane(w, first, PROTOCOL_FAILED_ENGINE, why.message, error);
        } else {
            first->rows = dn_lane_spec_rows(model->engine, &spec);
            if (rows && rows + first->rows > model->rows_max)
                return DN_OK;
            rows += first->rows;
            status = enter(w, first, &spec, error);
        }
        if (status != DN_OK)
            return status;
    }
}

dn_status worker_enter_waiting(worker *w, dn_error *error)
{
    dn_status status = DN_OK;
    for (unsigned i = 0; status == DN_OK && i < w->options.model_count; i++)
        if (w->models[i].engine && !w->models[i].held)
            status = enter_model(w, &w->models[i], error);
    return status;
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
dn_status worker_snapshot_lane(worker *w, worker_lane *lane, dn_error *error)
{
    const double before = dn_now_seconds();
    lane->last_snapshot = before;
    unsigned char *bytes = NULL;
    size_t count = 0;
    if (dn_batch_snapshot(lane->model->batch, lane->id, &bytes, &count, NULL) != DN_OK)
        return DN_OK;
    dn_status status = DN_OK;
    if (count < PROTOCOL_SNAPSHOT_BYTES_MAX && protocol_unsent(&w->pipe) < PROTOCOL_FRAME_BYTES_MAX) {
        const protocol_message m = {.type = PROTOCOL_SNAPSHOT,
                                    .lane = lane->id,
                                    .steps_done = lane->steps_done,
                                    .steps_total = lane->steps_total,
                                    .data = {bytes, count}};
        status = worker_send(w, &m, error);
    }
    free(bytes);
    w->snapshot_seconds += dn_now_seconds() - before;
    return status;
}

/* Everything that runs is put down as a snapshot and let go; pictures being encoded still go out before DRAINED. */
dn_status worker_drain(worker *w, dn_error *error)
{
    w->draining = true;
    dn_status status = DN_OK;
    for (unsigned i = 0; status == DN_OK && i < WORKER_CREDIT; i++) {
        worker_lane *lane = &w->lanes[i];
        if (lane->state == LANE_RUNNING && lane->steps_done > 0)
            status = worker_snapshot_lane(w, lane, error);
        if (status == DN_OK && (lane->state == LANE_RUNNING || lane->state == LANE_WAITING || lane->state == LANE_PREPARING))
            status = worker_cancel(w, lane->id, error);
    }
    return status;
}
