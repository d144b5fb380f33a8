/* What a worker says, and what follows from it: descriptions, ticks, previews, snapshots, images, ends of lanes.
 *
 * Invariant: a message about a lane that is no longer outstanding is ignored (it was cancelled meanwhile); a message that only this
 * side sends, or that breaks the protocol, ends the worker. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sha256.h"
#include "server/dispatcher_internal.h"
#include "server/fault.h"
#include "server/log.h"

static dn_status hear_hello(dispatcher *d, worker_side *w, const protocol_message *m, dn_error *error)
{
    if (m->state != PROTOCOL_VERSION)
        return dn_fail(error, DN_INVALID, "it speaks version %u of the protocol, not %u", m->state, PROTOCOL_VERSION);
    fault_point("worker_greeted");
    w->hello = true;
    w->credit = m->credit < WORKER_CREDIT ? m->credit : WORKER_CREDIT;
    atomic_store(&w->up, true);
    dispatcher_show_workers(d);
    return DN_OK;
}

/* The store keeps the description, so that requests can be validated while no worker is there to ask. */
static void keep_description(dispatcher *d, const char *name, protocol_bytes json)
{
    pending *item = dispatcher_pending(d, STORE_MODEL);
    if (!item)
        return;
    snprintf(item->request->model_name, sizeof item->request->model_name, "%s", name);
    item->request->model_json = strndup((const char *)json.bytes, json.count);
    dispatcher_submit(d, item);
}

/* Once said, it holds until the worker is gone: a model that comes back later makes nobody unready. */
static void settle(dispatcher *d, worker_side *w)
{
    const size_t count = d->options.preload ? models_count(d->options.models) : 1;
    size_t known = 0;
    while (known < count && (w->models[known].ready || w->models[known].failed))
        known++;
    atomic_store(&w->useless, w->models[0].failed); /* before it counts as settled */
    if (known == count)
        atomic_store(&w->settled, true);
}

/* Described: it takes lanes, which wait in the worker while it is loaded. */
static dn_status model_known(dispatcher *d, worker_side *w, size_t index, const protocol_message *m, dn_error *error)
{
    const char *name = models_name(d->options.models, index);
    api_model *model = NULL;
    const dn_status status = api_model_from_json(&model, (const char *)m->data.bytes, m->data.count, error);
    if (status != DN_OK)
        return status;
    if (strcmp(model->name, name) != 0) {
        api_model_free(model);
        return dn_fail(error, DN_INVALID, "it describes %s under another name", name);
    }
    if (models_describe(d->options.models, model))
        keep_description(d, name, m->data);
    worker_side_model *said = &w->models[index];
    *said = (worker_side_model){.told = true,
                                .state = m->state == PROTOCOL_MODEL_READY ? MODEL_READY : MODEL_UNLOADED,
                                .ready = true,
                                .rows_max = m->rows < 2 ? 2 : m->rows,
                                .bytes = m->bytes,
                                .batch_rows = m->state == PROTOCOL_MODEL_READY ? said->batch_rows : 0,
                                .described = models_lookup(d->options.models, name)};
    settle(d, w);
    w->ever_ready = true;
    dispatcher_look_again(d);
    return DN_OK;
}

/* models_count: a name that the worker was not given. */
static size_t index_named(const dispatcher *d, char name[65], const protocol_message *m)
{
    protocol_copy_text(name, 65, m->text);
    size_t index = 0;
    while (index < models_count(d->options.models) && strcmp(models_name(d->options.models, index), name) != 0)
        index++;
    return index;
}

static dn_status hear_table(dispatcher *d, worker_side *w, const protocol_message *m, dn_error *error)
{
    char name[65];
    tick_table table;
    const size_t index = index_named(d, name, m);
    if (index == models_count(d->options.models) || m->rows < 1 || m->rows > DN_BATCH_ROWS_MAX ||
        !tick_table_unpack(&table, m->data.bytes, m->data.count))
        return dn_fail(error, DN_INVALID, "what it says of ticks makes no sense");
    w->tables[index] = table;
    w->models[index].rows_max = m->rows < 2 ? 2 : m->rows;
    w->models[index].batch_rows = m->rows;
    dispatcher_forecast_table(d, w, index, &table, m->rows);
    dispatcher_show_model(d, index);
    return DN_OK;
}

static void model_failed(dispatcher *d, worker_side *w, size_t index, const protocol_message *m)
{
    worker_side_model *said = &w->models[index];
    *said = (worker_side_model){.told = true, .state = MODEL_FAILED, .failed = true, .bytes = m->bytes};
    protocol_copy_text(said->cause, sizeof said->cause, m->data);
    settle(d, w);
    dispatcher_look_again(d);
    log_say(LOG_ERROR, "dispatcher", "model %s cannot be loaded%s%s: %s", models_name(d->options.models, index),
            d->options.device_count > 1 ? " on " : "", d->options.device_count > 1 ? w->device : "", said->cause);
}

static dn_status hear_model(dispatcher *d, worker_side *w, const protocol_message *m, dn_error *error)
{
    char name[65];
    dn_status status = DN_OK;
    const size_t index = index_named(d, name, m);
    if (index == models_count(d->options.models))
        return dn_fail(error, DN_INVALID, "it has a model that it was not given");
    worker_side_model *said = &w->models[index];
    switch (m->state) {
    case PROTOCOL_MODEL_LOADING:
        said->told = true;
        said->state = MODEL_LOADING;
        said->bytes = m->bytes;
        said->batch_rows = 0;
        break;
    case PROTOCOL_MODEL_READY:
    case PROTOCOL_MODEL_UNLOADED:
        status = model_known(d, w, index, m, error);
        break;
    case PROTOCOL_MODEL_FAILED:
        model_failed(d, w, index, m);
        break;
    default:
        return dn_fail(error, DN_INVALID, "a model is in state %u", m->state);
    }
    if (status == DN_OK)
        dispatcher_show_model(d, index);
    return status;
}

/* The worker is about to end. What it had goes on elsewhere, or on its successor. */
static void hear_lost(worker_side *w, const protocol_message *m)
{
    w->device_lost = true;
    protocol_copy_text(w->lost_by, sizeof w->lost_by, m->text);
}

static void set_steps(dispatcher *d, const outstanding_lane *out, uint32_t done, uint32_t total)
{
    job_lane *lane = &out->job->lanes[out->index];
    if (done > lane->steps_done)
        metrics_add(d->options.metrics, METRIC_STEPS, done - lane->steps_done);
    lane->steps_done = done;
    lane->steps_total = total;
    if (done >= total && lane->made_at <= 0)
        lane->made_at = dn_now_seconds();
    out->job->changed = true;
}

static void hear_tick(dispatcher *d, worker_side *w, const protocol_message *m)
{
    metrics *counted = d->options.metrics;
    metrics_add(counted, METRIC_TICKS, 1);
    metrics_add(counted, METRIC_ROWS, m->rows);
    metrics_observe(counted, METRIC_TICK_SECONDS, m->seconds);
    metrics_observe(counted, METRIC_TICK_ROWS, m->rows);
    dispatcher_note_tick(d, w, m);
    if (m->seconds > w->slowest_tick)
        w->slowest_tick = m->seconds;
    for (uint32_t i = 0; i < m->lane_count; i++) {
        const protocol_tick_lane tick = protocol_lane_at(m, i);
        const outstanding_lane *out = outstanding_find(w, tick.lane);
        if (out && out->job)
            set_steps(d, out, tick.steps_done, tick.steps_total);
    }
}

static void hear_admitted(dispatcher *d, worker_side *w, const protocol_message *m)
{
    const outstanding_lane *out = outstanding_find(w, m->lane);
    if (!out || !out->job)
        return;
    fault_point("lane_admitted");
    job_lane *lane = &out->job->lanes[out->index];
    lane->steps_done = m->steps_done;
    lane->entered = true;
    out->job->changed = true;
    dispatcher_note_admitted(d, out->job);
    out->job->admitted = true;
    if (m->steps_done && !lane->aside)
        metrics_add(d->options.metrics, METRIC_LANES_RESUMED, 1);
    dispatcher_note_redone(d, out->job->job.id, out->index, m->steps_done);
    const double waited = (double)(dn_wall_ms() - out->job->job.created_ms) / 1000;
    if (!m->steps_done && !lane->aside)
        metrics_observe(d->options.metrics, METRIC_ADMISSION_WAIT_SECONDS, waited > 0 ? waited : 0);
    lane->aside = false;
    if (m->text.count) {
        char why[256];
        protocol_copy_text(why, sizeof why, m->text);
        log_say(LOG_WARNING, "dispatcher", "image %u of job %s starts at step 0: %s", out->index, out->job->job.id, why);
    }
}

static void hear_aside(dispatcher *d, worker_side *w, const protocol_message *m)
{
    const outstanding_lane *out = outstanding_find(w, m->lane);
    metrics_add(d->options.metrics, METRIC_LANES_SET_ASIDE, 1);
    if (!out || !out->job)
        return;
    out->job->lanes[out->index].aside = true;
    out->job->lanes[out->index].entered = false;
}

static void hear_snapshot(dispatcher *d, worker_side *w, const protocol_message *m)
{
    const outstanding_lane *out = outstanding_find(w, m->lane);
    if (!out || !out->job || out->job->lanes[out->index].place != PLACE_SENT)
        return;
    char name[SNAPSHOT_NAME_BYTES];
    snapshot_name(name, out->job->job.id, out->index);
    size_t count = 0;
    unsigned char *file = snapshot_wrap(out->job->job.id, out->index, m->steps_done, m->data, &count);
    files_write_snapshot(&d->files, name, file, count);
}

static void fill_image(store_request *request, const running_job *job, const outstanding_lane *out, const worker_side *w,
                       const protocol_message *m)
{
    const api_model *made_by = w->models[job->model_index].described; /* devices, and so builds, differ between workers */
    snprintf(request->id, sizeof request->id, "%s", job->job.id);
    request->token = job->job.token;
    request->image.index = out->index;
    snprintf(request->image.file, sizeof request->image.file, "%s-%u-%lld.png", job->job.id, out->index, (long long)job->job.token);
    api_image_view *view = &request->image.view;
    view->index = out->index;
    view->seed = job->request.seed + out->index;
    view->width = m->width;
    view->height = m->height;
    view->bytes = m->data.count;
    view->evaluations = m->steps_done;
    dn_sha256_hex(view->sha256, m->sha256);
    dn_sha256_hex(view->pixels_sha256, m->pixels_sha256);
    if (made_by) {
        memcpy(view->device, made_by->device, sizeof view->device);
        memcpy(view->build, made_by->build, sizeof view->build);
    }
}

/* To the files thread, then the store; an image nobody wants any more is only acknowledged. One that is not what the worker hashed ends
 * the worker: nothing that it says can be believed. */
static dn_status hear_image(dispatcher *d, worker_side *w, const protocol_message *m, dn_error *error)
{
    outstanding_lane *out = outstanding_find(w, m->lane);
    unsigned char hash[32];
    if (!out)
        return DN_OK;
    dn_sha256_of(hash, m->data.bytes, m->data.count);
    if (memcmp(hash, m->sha256, sizeof hash) != 0)
        return dn_fail(error, DN_INVALID, "an image came damaged");
    running_job *job = out->job;
    const bool wanted = job && (job->end == END_NONE || job->end == END_REQUEUED);
    pending *item = wanted ? dispatcher_pending(d, STORE_IMAGE) : NULL;
    unsigned char *png = item ? malloc(m->data.count ? m->data.count : 1) : NULL;
    if (job)
        job->lanes[out->index].place = png ? PLACE_STORING : PLACE_WAITING;
    if (!png) { /* Not wanted, or no memory: then the lane is made again. */
        if (item)
            store_request_free(item->request);
        free(item);
        dispatcher_acknowledge(d, m->lane);
        return DN_OK;
    }
    fault_point("image_heard");
    fill_image(item->request, job, out, w, m);
    item->request->base_path = d->options.base_path;
    item->lane = m->lane;
    memcpy(png, m->data.bytes, m->data.count);
    item->png = png;
    item->png_bytes = m->data.count;
    job->lanes[out->index].steps_done = job->lanes[out->index].steps_total;
    d->store_pending++;
    files_write_image(&d->files, item);
    return DN_OK;
}

static void hear_preview(dispatcher *d, worker_side *w, const protocol_message *m)
{
    const outstanding_lane *out = outstanding_find(w, m->lane);
    if (out && out->job && out->job->end == END_NONE)
        hub_preview(d->options.hub, out->job->job.id, out->index, m->steps_done, m->steps_total, m->width, m->height, m->data.bytes,
                    m->data.count);
}

/* The worker holds nothing of this lane any more. */
static running_job *lane_came_back(worker_side *w, uint64_t number)
{
    outstanding_lane *out = outstanding_find(w, number);
    running_job *job = out ? out->job : NULL;
    if (job && job->lanes[out->index].place == PLACE_SENT)
        job->lanes[out->index].place = PLACE_WAITING;
    if (out)
        outstanding_remove(w, out);
    return job;
}

static void hear_gone(dispatcher *d, worker_side *w, const protocol_message *m)
{
    running_job *job = lane_came_back(w, m->lane);
    if (job)
        job_try_end(d, job);
}

static void hear_failed(dispatcher *d, worker_side *w, const protocol_message *m)
{
    running_job *job = lane_came_back(w, m->lane);
    if (!job)
        return;
    if (job->end == END_NONE && m->state == PROTOCOL_FAILED_MODEL && !dispatcher_model_failed(d, job->model_index))
        return; /* it waits for a worker that can load the model */
    char cause[512];
    protocol_copy_text(cause, sizeof cause, m->text);
    const char *code = m->state == PROTOCOL_FAILED_MODEL    ? "model-load"
                       : m->state == PROTOCOL_FAILED_MEMORY ? "out-of-memory"
                       : m->state == PROTOCOL_FAILED_INPUT  ? "bad-input-image"
                                                            : "engine";
    if (job->end == END_NONE)
        job_end_with(d, job, END_FAILED, code, cause);
    else
        job_try_end(d, job);
}

static dn_status hear(dispatcher *d, worker_side *w, const protocol_message *m, dn_error *error)
{
    switch (m->type) {
    case PROTOCOL_HELLO:
        return hear_hello(d, w, m, error);
    case PROTOCOL_MODEL:
        return hear_model(d, w, m, error);
    case PROTOCOL_TABLE:
        return hear_table(d, w, m, error);
    case PROTOCOL_ADMITTED:
        hear_admitted(d, w, m);
        return DN_OK;
    case PROTOCOL_ASIDE:
        hear_aside(d, w, m);
        return DN_OK;
    case PROTOCOL_TICK:
        hear_tick(d, w, m);
        return DN_OK;
    case PROTOCOL_PREVIEW:
        hear_preview(d, w, m);
        return DN_OK;
    case PROTOCOL_SNAPSHOT:
        hear_snapshot(d, w, m);
        return DN_OK;
    case PROTOCOL_IMAGE:
        return hear_image(d, w, m, error);
    case PROTOCOL_GONE:
        hear_gone(d, w, m);
        return DN_OK;
    case PROTOCOL_FAILED:
        hear_failed(d, w, m);
        return DN_OK;
    case PROTOCOL_DRAINED:
        w->let_go = true;
        return DN_OK;
    case PROTOCOL_LOST:
        hear_lost(w, m);
        return DN_OK;
    case PROTOCOL_ALIVE:
        return DN_OK;
    default:
        return dn_fail(error, DN_INVALID, "it sent a message that only a daemon sends (type %d)", (int)m->type);
    }
}

dn_status dispatcher_read_frames(dispatcher *d, worker_side *w, dn_error *error)
{
    dn_status status = protocol_fill(&w->pipe, error);
    for (bool got = true; status == DN_OK && got;) {
        protocol_message m;
        status = protocol_receive(&w->pipe, &m, &got, error);
        if (status != DN_OK || !got)
            break;
        w->last_heard = dn_now_seconds();
        status = hear(d, w, &m, error);
    }
    dispatcher_show_workers(d);
    return status;
}

/* ---- Progress */

/* Previews cost the worker time: they are asked for only while somebody watches. */
static void watch(dispatcher *d, running_job *job, double now)
{
    if (now - job->last_watch < DISPATCHER_WATCH_SECONDS)
        return;
    job->last_watch = now;
    const bool wanted = hub_previews_wanted(d->options.hub, job->job.id);
    for (uint32_t i = 0; i < job->n; i++) {
        job_lane *lane = &job->lanes[i];
        if (lane->place != PLACE_SENT || lane->watched == wanted)
            continue;
        lane->watched = wanted;
        const protocol_message m = {.type = PROTOCOL_WATCH, .lane = lane->number, .state = wanted};
        worker_tell(lane->worker, &m);
    }
}

void dispatcher_publish_progress(dispatcher *d, double now)
{
    for (running_job *job = d->jobs; job; job = job->next) {
        if (job->end != END_NONE)
            continue;
        watch(d, job, now);
        if (!job->changed || now - job->last_progress < DISPATCHER_PROGRESS_SECONDS)
            continue;
        uint64_t done = 0, total = 0;
        for (uint32_t i = 0; i < job->n; i++) {
            done += job->lanes[i].steps_done;
            total += job->lanes[i].steps_total;
        }
        job->changed = false;
        job->last_progress = now;
        hub_progress(d->options.hub, job->job.id, done, total, job_count_lanes(job, PLACE_DONE),
                     job->ends_at < 0     ? -1
                     : job->ends_at > now ? job->ends_at - now
                                          : 0);
    }
}
