/* How lanes enter their batches: anew or from a snapshot, when the policy and the rows allow; and how they make way for more urgent ones.
 *
 * Invariant: a lane enters only while its model is in memory, its pictures are prepared and the rows of its batch stay within the
 * model's; who else is in the batch has no influence on its bytes. Main thread. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "server/picture_file.h"
#include "server/urgency.h"
#include "server/worker_internal.h"

static uint32_t rows_running(const worker *w, const worker_model *model)
{
    uint32_t rows = 0;
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_RUNNING && w->lanes[i].model == model)
            rows += w->lanes[i].rows;
    return rows;
}

static uint32_t lanes_in_batches(const worker *w)
{
    uint32_t lanes = 0;
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        lanes += w->lanes[i].state == LANE_RUNNING;
    return lanes;
}

/* Into its batch from its snapshot, if it has one that fits; else from step 0. restored: from where. why: what was wrong with the snapshot. */
static dn_status put_into_batch(worker_lane *lane, const dn_lane_spec *spec, bool *restored, dn_error *why, dn_error *refused)
{
    *restored = false;
    if (lane->snapshot) {
        const dn_status status = dn_batch_restore(lane->model->batch, lane->id, lane->snapshot, lane->snapshot_bytes, why);
        *restored = status == DN_OK;
        if (status == DN_OK || status == DN_NO_MEMORY || status == DN_DEVICE_LOST) {
            *refused = *why;
            return status;
        }
    }
    return dn_batch_admit(lane->model->batch, lane->id, spec, refused);
}

/* Without memory for a lane it waits until another one leaves its batch, if there is one. */
static dn_status refuse(worker *w, worker_lane *lane, const dn_error *refused, dn_error *error)
{
    if (refused->status == DN_DEVICE_LOST)
        return worker_device_lost(w, refused->message, error);
    w->crowded = refused->status == DN_NO_MEMORY ? lanes_in_batches(w) : 0;
    if (w->crowded)
        return DN_OK;
    return worker_fail_lane(w, lane, refused->status == DN_NO_MEMORY ? PROTOCOL_FAILED_MEMORY : PROTOCOL_FAILED_ENGINE, refused->message,
                            error);
}

/* Puts a waiting lane into its batch. A snapshot of another build or other weights is refused: the lane starts at step 0. */
static dn_status enter(worker *w, worker_lane *lane, const dn_lane_spec *spec, dn_error *error)
{
    dn_error why = {.status = DN_OK, .message = ""}, refused;
    if (w->options.before_admit)
        w->options.before_admit(&lane->request, lane->seed);
    bool resumed;
    if (put_into_batch(lane, spec, &resumed, &why, &refused) != DN_OK)
        return refuse(w, lane, &refused, error);
    free(lane->snapshot);
    lane->snapshot = NULL;
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

static bool outranks(const worker_lane *lane, const worker_lane *other, double now)
{
    return urgency_outranks(lane->request.priority, now - lane->accepted, other->request.priority, now - other->accepted);
}

/* Which of two waiting lanes enters first: the more urgent one; among equals the one that came first. */
static bool before(const worker_lane *lane, const worker_lane *other, double now)
{
    const int own = urgency_of(lane->request.priority, now - lane->accepted);
    const int others = urgency_of(other->request.priority, now - other->accepted);
    return lane->request.priority == other->request.priority || own == others ? lane->order < other->order : own > others;
}

/* The waiting lane of a model that enters next; NULL: none waits. One set aside this moment may have its pictures to be prepared first. */
static worker_lane *first_waiting(worker *w, const worker_model *model, double now)
{
    worker_lane *first = NULL;
    for (unsigned i = 0; i < WORKER_CREDIT; i++) {
        worker_lane *lane = &w->lanes[i];
        if (lane->state == LANE_WAITING && lane->prepared && lane->model == model && (!first || before(lane, first, now)))
            first = lane;
    }
    return first;
}

/* ---- Making way */

/* Of the running lanes that this one outranks, the least urgent, and of those the one that came last. NULL: none. */
static worker_lane *least_urgent(worker *w, const worker_lane *lane, double now)
{
    worker_lane *least = NULL;
    for (unsigned i = 0; i < WORKER_CREDIT; i++) {
        worker_lane *other = &w->lanes[i];
        if (other->state == LANE_RUNNING && other->model == lane->model && outranks(lane, other, now) &&
            (!least || before(least, other, now)))
            least = other;
    }
    return least;
}

/* Out of the batch, but not out of this process: its snapshot waits here for a place, and goes on with the same bytes. Its pictures were
 * let go when it entered: they are prepared anew, since a spec with a strength or a mask is none without them. */
static dn_status set_aside(worker *w, worker_lane *lane, bool *done, dn_error *error)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_error why;
    const dn_status status = dn_batch_snapshot(lane->model->batch, lane->id, &bytes, &count, &why);
    *done = status == DN_OK;
    if (!*done)
        return status == DN_DEVICE_LOST ? worker_device_lost(w, why.message, error) : DN_OK;
    dn_batch_evict(lane->model->batch, lane->id);
    lane->snapshot = bytes;
    lane->snapshot_bytes = count;
    lane->snapshot_steps = lane->steps_done;
    lane->state = LANE_WAITING;
    lane->prepared = !lane->request.init_image.sha256[0];
    const protocol_message m = {.type = PROTOCOL_ASIDE, .lane = lane->id};
    return worker_send(w, &m, error);
}

/* Sets lanes aside until this one fits, if there are enough that it outranks; *rows: of those that run. */
static dn_status make_way(worker *w, const worker_lane *lane, uint32_t *rows, double now, dn_error *error)
{
    uint32_t staying = 0;
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_RUNNING && w->lanes[i].model == lane->model && !outranks(lane, &w->lanes[i], now))
            staying += w->lanes[i].rows;
    if (staying && staying + lane->rows > lane->model->rows_max)
        return DN_OK;
    dn_status status = DN_OK;
    for (bool done = true; status == DN_OK && done && *rows && *rows + lane->rows > lane->model->rows_max;) {
        worker_lane *least = least_urgent(w, lane, now);
        if (!least)
            break;
        const uint32_t freed = least->rows;
        status = set_aside(w, least, &done, error);
        *rows -= done ? freed : 0;
    }
    return status;
}

/* By urgency, then by arrival, as rows allow; a lane that needs more rows than are free or can be made so holds up those behind it, or
 * it would wait for ever. lanes: that may enter at most. */
static dn_status enter_model(worker *w, worker_model *model, uint32_t lanes, dn_error *error)
{
    const double now = dn_now_seconds();
    uint32_t rows = rows_running(w, model);
    dn_status status = DN_OK;
    if (w->crowded && lanes_in_batches(w) < w->crowded)
        w->crowded = 0;
    while (status == DN_OK && lanes > 0 && !w->crowded) {
        worker_lane *first = first_waiting(w, model, now);
        if (!first || dn_batch_lanes(model->batch) >= DN_LANES_MAX)
            return DN_OK;
        const dn_lane_spec spec = picture_spec(&first->request, first->seed, first->init, first->mask);
        dn_error why;
        if (dn_lane_spec_check(model->engine, &spec, &why) != DN_OK) {
            status = worker_fail_lane(w, first, PROTOCOL_FAILED_ENGINE, why.message, error);
            continue;
        }
        first->rows = dn_lane_spec_rows(model->engine, &spec);
        if (rows && rows + first->rows > model->rows_max)
            status = make_way(w, first, &rows, now, error);
        if (status != DN_OK || (rows && rows + first->rows > model->rows_max))
            return status;
        rows += first->rows;
        lanes--;
        status = enter(w, first, &spec, error);
    }
    return status;
}

static dn_status prepare_waiting(worker *w, const worker_model *model, dn_error *error)
{
    dn_status status = DN_OK;
    for (unsigned i = 0; status == DN_OK && i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_WAITING && w->lanes[i].model == model && !w->lanes[i].prepared)
            status = worker_prepare_lane(w, &w->lanes[i], error);
    return status;
}

/* The next batch of a policy that lets nobody enter a running one: of the model whose lane came first, once nothing runs. */
static dn_status enter_next(worker *w, uint32_t lanes, dn_error *error)
{
    const worker_lane *first = NULL;
    for (unsigned i = 0; i < WORKER_CREDIT; i++) {
        const worker_lane *lane = &w->lanes[i];
        if (lane->state == LANE_RUNNING)
            return DN_OK;
        if (lane->state == LANE_WAITING && lane->model->engine && !lane->model->held && (!first || lane->order < first->order))
            first = lane;
    }
    return first ? enter_model(w, first->model, lanes, error) : DN_OK;
}

dn_status worker_enter_waiting(worker *w, dn_error *error)
{
    dn_status status = DN_OK;
    const batching policy = w->options.batching;
    for (unsigned i = 0; status == DN_OK && i < w->options.model_count; i++) {
        worker_model *model = &w->models[i];
        if (!model->engine || model->held)
            continue;
        status = prepare_waiting(w, model, error);
        if (status == DN_OK && policy == BATCHING_CONTINUOUS)
            status = enter_model(w, model, DN_LANES_MAX, error);
    }
    return status == DN_OK && policy != BATCHING_CONTINUOUS ? enter_next(w, policy == BATCHING_SINGLE ? 1 : DN_LANES_MAX, error) : status;
}
