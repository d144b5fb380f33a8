/* The worker's models: described at the start, loaded when a lane first wants them, put out of memory by least recent use when the
 * limit asks for room.
 *
 * Invariant: an engine is closed only while no lane of its model is anywhere in this process; what the loader has is nobody else's.
 * A model in use that must make room is held: its running lanes end, its waiting lanes wait, at most once in
 * WORKER_RESIDENCE_SECONDS, so that two models that do not fit together take turns. What a model takes is only known once it is in
 * memory: then the others make room for what was not foreseen. Main thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/worker_internal.h"

static dn_status say(worker *w, worker_model *model, protocol_model_state state, dn_error *error)
{
    protocol_message m = {.type = PROTOCOL_MODEL, .state = state, .text = protocol_text(model->name)};
    char *json = NULL;
    model->state = state;
    if (state == PROTOCOL_MODEL_FAILED)
        m.data = protocol_text(model->error.message);
    if (state == PROTOCOL_MODEL_READY || state == PROTOCOL_MODEL_UNLOADED) {
        json = api_model_to_json(model->description);
        if (!json)
            return dn_fail(error, DN_NO_MEMORY, "out of memory for the description of %s", model->name);
        m.data = protocol_text(json);
        m.rows = model->rows_max;
        m.seconds = tick_table_seconds(&model->table, 1);
        m.bytes = state == PROTOCOL_MODEL_READY ? model->bytes : 0;
    }
    const dn_status status = worker_send(w, &m, error);
    free(json);
    return status;
}

static dn_status submit(worker *w, worker_model *model, load_kind kind, dn_error *error)
{
    model->loading = true;
    return worker_loader_submit(&w->loader, kind, (unsigned)(model - w->models), model->name, model->folder, error);
}

/* The first model, or all with `preload`, are loaded at once; the others only described, which takes no time. */
dn_status worker_models_start(worker *w, dn_error *error)
{
    dn_status status = worker_loader_start(&w->loader, w->wake_fd, &w->options, error);
    for (unsigned i = 0; status == DN_OK && i < w->options.model_count; i++) {
        w->models[i] = (worker_model){
            .name = w->options.models[i].name, .folder = w->options.models[i].folder, .state = PROTOCOL_MODEL_UNLOADED, .rows_max = 2};
        if (i > 0 && !w->options.preload)
            status = submit(w, &w->models[i], LOAD_DESCRIPTION, error);
    }
    for (unsigned i = 0; status == DN_OK && i < w->options.model_count && (i == 0 || w->options.preload); i++) {
        status = say(w, &w->models[i], PROTOCOL_MODEL_LOADING, error);
        if (status == DN_OK)
            status = submit(w, &w->models[i], LOAD_ENGINE, error);
    }
    return status;
}

/* A lane that waits for a model is prepared anew for the next load of it, which may be of another folder by then. */
static void unprepare_lanes(worker *w, const worker_model *model)
{
    for (unsigned i = 0; i < WORKER_CREDIT; i++) {
        worker_lane *lane = &w->lanes[i];
        if (lane->state != LANE_WAITING || lane->model != model)
            continue;
        free(lane->init);
        free(lane->mask);
        lane->init = lane->mask = NULL;
        lane->prepared = false;
    }
}

static void close_engine(worker_model *model)
{
    dn_batch_free(model->batch);
    dn_codec_close(model->codec);
    dn_engine_close(model->engine);
    model->batch = NULL;
    model->codec = NULL;
    model->engine = NULL;
}

void worker_models_done(worker *w)
{
    for (unsigned i = 0; i < w->options.model_count; i++) {
        close_engine(&w->models[i]);
        api_model_free(w->models[i].description);
    }
    for (unsigned i = 0; i < w->old_description_count; i++)
        api_model_free(w->old_descriptions[i]);
}

/* The newest modification in the folder itself and of its index and configuration: enough to see that somebody mended it. */
static int64_t stamp_of(const char *folder)
{
    static const char *const files[] = {"", "/model_index.json", "/config.json", "/unet", "/transformer", "/vae"};
    int64_t newest = 0;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[4096];
        struct stat info;
        if (snprintf(path, sizeof path, "%s%s", folder, files[i]) < (int)sizeof path && stat(path, &info) == 0) {
            const int64_t at = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
            newest = at > newest ? at : newest;
        }
    }
    return newest;
}

/* ---- What its ticks take */

/* Rows that were asked for are what they are, if there is memory for them; else the table says how many pay. */
static void choose_rows_max(const worker *w, worker_model *model)
{
    const uint32_t asked = w->options.rows_max < model->rows_limit ? w->options.rows_max : model->rows_limit;
    model->rows_max = w->options.rows_max ? asked : tick_table_rows_max(&model->table, model->rows_limit, WORKER_TICK_SECONDS);
}

/* The log's line: "model m is in memory: 32 MiB (12 of weights, 9 of activations, up to 8 of kept vectors), 16 rows a tick (1: 2.9,
 * 2: 3.0, ... ms)". */
static void say_table(const worker_model *model)
{
    char text[512];
    size_t used = 0;
    for (uint32_t rows = 1; rows <= DN_BATCH_ROWS_MAX && used < sizeof text - 32; rows++)
        if (model->table.seconds[rows] > 0)
            used +=
                (size_t)snprintf(text + used, sizeof text - used, "%s%u: %.3g", used ? ", " : "", rows, 1e3 * model->table.seconds[rows]);
    const size_t kept = dn_engine_condition_bytes(model->engine, model->rows_limit);
    const size_t activations = dn_engine_workspace_bytes(model->engine, model->rows_limit) - kept;
    log_say(LOG_INFO, "worker",
            "model %s is in memory: %zu MiB (%zu of weights, %zu of activations, up to %zu of kept vectors), %u rows a tick (%s ms)",
            model->name, model->bytes >> 20, dn_engine_weight_bytes(model->engine) >> 20, activations >> 20, kept >> 20, model->rows_max,
            used ? text : "");
}

static dn_status tell_table(worker *w, worker_model *model, double now, dn_error *error)
{
    unsigned char packed[DN_BATCH_ROWS_MAX * TICK_TABLE_PACKED_BYTES];
    const protocol_message m = {.type = PROTOCOL_TABLE,
                                .text = protocol_text(model->name),
                                .rows = model->rows_max,
                                .data = {packed, tick_table_pack(&model->table, packed)}};
    model->table_said = now;
    return worker_send(w, &m, error);
}

dn_status worker_shrink_ticks(worker *w, worker_model *model, uint32_t rows, dn_error *error)
{
    const double now = dn_now_seconds();
    const uint32_t most = rows < model->rows_max ? rows : model->rows_max;
    model->rows_limit = most / 2 > 2 ? most / 2 : 2;
    model->table_tried = now;
    choose_rows_max(w, model);
    return tell_table(w, model, now, error);
}

dn_status worker_learn_tick(worker *w, worker_model *model, uint32_t rows, double seconds, dn_error *error)
{
    const double now = dn_now_seconds();
    const bool drifted = tick_table_observe(&model->table, rows, seconds);
    if (!drifted && now - model->table_said < WORKER_TABLE_SECONDS)
        return DN_OK;
    if (now - model->table_tried >= WORKER_TRY_SECONDS) {
        model->table_tried = now;
        model->rows_limit = model->rows_built;
        tick_table_forget_above(&model->table, model->rows_max);
    }
    choose_rows_max(w, model);
    return protocol_unsent(&w->pipe) > PROTOCOL_DROP_BYTES ? DN_OK : tell_table(w, model, now, error);
}

/* Bytes of all models in memory: as many as were allowed, or most of a GPU's. 0: no limit. */
static uint64_t memory_limit(const worker *w)
{
    return w->options.memory_limit ? w->options.memory_limit : (uint64_t)(WORKER_DEVICE_LIMIT * (double)w->device_bytes);
}

static uint64_t resident_bytes(const worker *w)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < w->options.model_count; i++)
        if (w->models[i].engine || w->models[i].loading)
            bytes += w->models[i].bytes;
    return bytes;
}

/* ---- What the loader has finished */

static bool same_description(const api_model *a, const api_model *b)
{
    char *first = api_model_to_json(a), *second = api_model_to_json(b);
    const bool same = first && second && strcmp(first, second) == 0;
    free(first);
    free(second);
    return same;
}

static void keep_description(worker *w, worker_model *model, load_task *task)
{
    if (model->description && same_description(model->description, task->description))
        return; /* The task frees its own. */
    if (model->description) {
        if (w->old_description_count < WORKER_OLD_DESCRIPTIONS_MAX)
            w->old_descriptions[w->old_description_count++] = model->description;
        /* Beyond that one is leaked, a few kilobytes each: a picture being encoded may still name it. */
    }
    model->description = task->description;
    model->described = true;
    task->description = NULL;
}

/* The model first: where another worker has it, the daemon sends the lanes there. */
static dn_status take_failure(worker *w, worker_model *model, const load_task *task, dn_error *error)
{
    model->error = task->error;
    model->failed_at = dn_now_seconds();
    model->folder_stamp = stamp_of(model->folder);
    dn_status status = say(w, model, PROTOCOL_MODEL_FAILED, error);
    for (unsigned i = 0; status == DN_OK && i < WORKER_CREDIT; i++)
        if (w->lanes[i].state == LANE_WAITING && w->lanes[i].model == model)
            status = worker_fail_lane(w, &w->lanes[i], PROTOCOL_FAILED_MODEL, model->error.message, error);
    return status;
}

/* A load for which there was no memory beside the other models: it is tried again once one of them has made room. False: there is none. */
static bool wait_for_room(worker *w, worker_model *model, load_task *task)
{
    const uint64_t limit = memory_limit(w), resident = resident_bytes(w);
    if (!limit || !resident || !task->description)
        return false;
    keep_description(w, model, task);
    model->bytes = limit > resident ? limit - resident + 1 : 1;
    log_say(LOG_WARNING, "worker", "model %s waits for room: %s", model->name, task->error.message);
    return true;
}

static dn_status take_loaded(worker *w, load_task *task, dn_error *error)
{
    worker_model *model = &w->models[task->model];
    model->loading = false;
    if (task->status == DN_DEVICE_LOST)
        return worker_device_lost(w, task->error.message, error);
    const bool retry = model->state == PROTOCOL_MODEL_FAILED;
    if (task->status != DN_OK && retry) { /* nothing new to say */
        model->failed_at = dn_now_seconds();
        model->folder_stamp = stamp_of(model->folder);
        return DN_OK;
    }
    const uint64_t limit = w->options.memory_limit;
    if (task->status == DN_OK && task->kind == LOAD_ENGINE && limit && task->bytes > limit)
        task->status = dn_fail(&task->error, DN_NO_MEMORY, "it takes %zu MiB of memory, and --memory-limit is %llu MiB", task->bytes >> 20,
                               (unsigned long long)(limit >> 20));
    if (task->status == DN_NO_MEMORY && task->kind == LOAD_ENGINE && wait_for_room(w, model, task))
        return say(w, model, PROTOCOL_MODEL_UNLOADED, error);
    if (task->status != DN_OK)
        return take_failure(w, model, task, error);
    keep_description(w, model, task);
    model->bytes = task->bytes;
    if (task->kind == LOAD_DESCRIPTION)
        return say(w, model, PROTOCOL_MODEL_UNLOADED, error);
    model->load = ++w->loads;
    model->engine = task->engine;
    model->batch = task->batch;
    model->codec = task->codec;
    task->engine = NULL;
    task->batch = NULL;
    task->codec = NULL;
    model->rows_limit = model->rows_built = task->rows_limit;
    w->device_bytes = task->device_bytes;
    model->table = task->table;
    model->ready_since = model->last_used = model->table_tried = dn_now_seconds();
    choose_rows_max(w, model);
    say_table(model);
    fault_point("worker_model_loaded");
    const dn_status status = say(w, model, PROTOCOL_MODEL_READY, error);
    return status == DN_OK ? tell_table(w, model, model->ready_since, error) : status;
}

/* ---- Room */

static bool in_use(const worker *w, const worker_model *model)
{
    if (model->coding)
        return true;
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].model == model && w->lanes[i].state != LANE_FREE && w->lanes[i].state != LANE_WAITING &&
            w->lanes[i].state != LANE_SENT)
            return true;
    return false;
}

static bool wanted(const worker *w, const worker_model *model)
{
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].model == model && w->lanes[i].state == LANE_WAITING)
            return true;
    return false;
}

/* Of the models in memory, the least recently used that is idle; else, of those that have had their time, the least recently loaded,
 * which is held until it is idle. NULL: none yet. */
static worker_model *choose_victim(worker *w, double now)
{
    worker_model *idle = NULL, *busy = NULL;
    for (unsigned i = 0; i < w->options.model_count; i++) {
        worker_model *model = &w->models[i];
        if (!model->engine)
            continue;
        if (!in_use(w, model) && (!wanted(w, model) || model->held || now - model->ready_since >= WORKER_RESIDENCE_SECONDS)) {
            if (!idle || model->last_used < idle->last_used)
                idle = model;
        } else if (now - model->ready_since >= WORKER_RESIDENCE_SECONDS && (!busy || model->ready_since < busy->ready_since)) {
            busy = model;
        }
    }
    if (!idle && busy)
        busy->held = true;
    return idle;
}

/* Puts models out of memory until `more` bytes fit. False: there is no room yet. */
static bool make_room(worker *w, uint64_t more, const char *reason, double now, dn_status *status, dn_error *error)
{
    const uint64_t limit = memory_limit(w);
    while (limit && resident_bytes(w) + more > limit) {
        worker_model *victim = choose_victim(w, now);
        if (!victim)
            return resident_bytes(w) == 0; /* the load itself will tell */
        unprepare_lanes(w, victim);
        close_engine(victim);
        victim->held = false;
        log_say(LOG_INFO, "worker", "model %s makes room for %s", victim->name, reason);
        *status = say(w, victim, PROTOCOL_MODEL_UNLOADED, error);
        if (*status != DN_OK)
            return false;
    }
    return true;
}

/* One model at a time is loaded: the one that lanes have waited for longest. */
static dn_status load_wanted(worker *w, double now, dn_error *error)
{
    worker_model *first = NULL;
    bool loads = false;
    for (unsigned i = 0; i < w->options.model_count; i++) {
        worker_model *model = &w->models[i];
        const bool waits = !model->engine && model->state != PROTOCOL_MODEL_FAILED && wanted(w, model);
        loads |= model->loading && model->state == PROTOCOL_MODEL_LOADING;
        model->wanted_since = !waits ? 0 : model->wanted_since > 0 ? model->wanted_since : now;
        if (waits && !model->loading && (!first || model->wanted_since < first->wanted_since))
            first = model;
    }
    dn_status status = DN_OK;
    const bool fits = make_room(w, 0, "what is in memory", now, &status, error);
    for (unsigned i = 0; !first && fits && i < w->options.model_count; i++)
        w->models[i].held = false;
    if (!first || loads || status != DN_OK || !fits || !make_room(w, first->bytes, first->name, now, &status, error))
        return status;
    status = say(w, first, PROTOCOL_MODEL_LOADING, error);
    return status == DN_OK ? submit(w, first, LOAD_ENGINE, error) : status;
}

/* A model that failed is looked at again when its folder has changed, or after a while. */
static dn_status retry_failed(worker *w, double now, dn_error *error)
{
    dn_status status = DN_OK;
    if (now - w->last_retry < WORKER_ALIVE_SECONDS)
        return DN_OK;
    w->last_retry = now;
    for (unsigned i = 0; status == DN_OK && i < w->options.model_count; i++) {
        worker_model *model = &w->models[i];
        if (model->state == PROTOCOL_MODEL_FAILED && !model->loading &&
            (now - model->failed_at >= WORKER_RETRY_SECONDS || stamp_of(model->folder) != model->folder_stamp))
            status = submit(w, model, LOAD_DESCRIPTION, error);
    }
    return status;
}

dn_status worker_manage_models(worker *w, dn_error *error)
{
    dn_status status = DN_OK;
    const double now = dn_now_seconds();
    for (load_task *task; status == DN_OK && (task = worker_loader_take(&w->loader)) != NULL;) {
        status = take_loaded(w, task, error);
        load_task_free(task);
    }
    for (unsigned i = 0; i < w->options.model_count; i++)
        if (w->models[i].engine && in_use(w, &w->models[i]))
            w->models[i].last_used = now;
    if (status == DN_OK)
        status = load_wanted(w, now, error);
    return status == DN_OK ? retry_failed(w, now, error) : status;
}
