/* The worker's models: a loader thread opens them one after another, first model first, while the main thread already serves.
 *
 * Invariant: a model's fields belong to the loader while `loaded` says LOADING and to the main thread ever after; the loader
 * never touches a batch once it has handed it over. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/describe_model.h"
#include "server/worker_internal.h"

/* Seconds of a tick of one row: the second of two, since the first touches its memory for the first time. */
static dn_status measure_row(double *out, dn_engine *engine, dn_error *error)
{
    dn_batch *batch = NULL;
    dn_tick_report *report = malloc(sizeof *report);
    dn_lane_spec spec = {.seed = 1, .guidance_scale = 1, .steps = 4, .sampler = "ddim"};
    spec.has_class = engine->class_count > 0;
    dn_status status = report ? dn_batch_create(&batch, engine, 1, error) : dn_fail(error, DN_NO_MEMORY, "out of memory for a tick");
    if (status == DN_OK)
        status = dn_batch_admit(batch, 1, &spec, error);
    for (int i = 0; status == DN_OK && i < 2; i++)
        status = dn_batch_tick(batch, report, error);
    if (status == DN_OK)
        *out = report->seconds;
    dn_batch_free(batch);
    free(report);
    return status;
}

/* As many rows as a tick may take by time, at least a guided lane's two: rows cost alike, and a batch of them is never dearer
 * than one after another. */
static uint32_t rows_by_time(double row_seconds)
{
    const double rows = row_seconds > 0 ? floor(WORKER_TICK_SECONDS / row_seconds) : WORKER_ROWS_MAX;
    return rows < 2 ? 2 : rows > WORKER_ROWS_MAX ? WORKER_ROWS_MAX : (uint32_t)rows;
}

static dn_status load(worker *w, worker_model *model)
{
    const dn_engine_options options = {.threads = w->options.threads};
    dn_status status = dn_engine_open(&model->engine, model->folder, &options, &model->error);
    if (status == DN_OK)
        status = dn_describe_model(&model->description, model->name, model->engine, &model->error);
    if (status == DN_OK && model->description->channels != 1 && model->description->channels != 3)
        status = dn_fail(&model->error, DN_UNSUPPORTED, "%s makes %u channels: a picture has 1 or 3", model->folder,
                         model->description->channels);
    if (status == DN_OK)
        status = measure_row(&model->row_seconds, model->engine, &model->error);
    if (status != DN_OK)
        return status;
    model->rows_max = w->options.rows_max ? w->options.rows_max : rows_by_time(model->row_seconds);
    return dn_batch_create(&model->batch, model->engine, model->rows_max, &model->error);
}

static void *loader_main(void *payload)
{
    worker *w = payload;
    for (unsigned i = 0; i < w->options.model_count && !atomic_load(&w->loader_stop); i++) {
        const dn_status status = load(w, &w->models[i]);
        atomic_store(&w->models[i].loaded, status == DN_OK ? PROTOCOL_MODEL_READY : PROTOCOL_MODEL_FAILED);
        eventfd_write(w->wake_fd, 1);
    }
    return NULL;
}

dn_status worker_loader_start(worker *w, dn_error *error)
{
    for (unsigned i = 0; i < w->options.model_count; i++) {
        w->models[i].name = w->options.models[i].name;
        w->models[i].folder = w->options.models[i].folder;
        atomic_store(&w->models[i].loaded, PROTOCOL_MODEL_LOADING);
    }
    const int failed = pthread_create(&w->loader, NULL, loader_main, w);
    return failed ? dn_fail(error, DN_IO, "cannot start the loader's thread: %s", strerror(failed)) : DN_OK;
}

void worker_models_done(worker *w)
{
    for (unsigned i = 0; i < w->options.model_count; i++) {
        dn_batch_free(w->models[i].batch);
        dn_engine_close(w->models[i].engine);
        api_model_free(w->models[i].description);
    }
}

static dn_status announce(worker *w, const worker_model *model, protocol_model_state state, dn_error *error)
{
    protocol_message m = {.type = PROTOCOL_MODEL, .state = state, .text = protocol_text(model->name)};
    char *json = NULL;
    if (state == PROTOCOL_MODEL_FAILED)
        m.data = protocol_text(model->error.message);
    if (state == PROTOCOL_MODEL_READY) {
        json = api_model_to_json(model->description);
        if (!json)
            return dn_fail(error, DN_NO_MEMORY, "out of memory for the description of %s", model->name);
        m.data = protocol_text(json);
        m.rows = model->rows_max;
        m.seconds = model->row_seconds;
    }
    const dn_status status = worker_send(w, &m, error);
    free(json);
    return status;
}

/* Says what has changed since the last call: the model being loaded, and those that are ready or have failed. */
dn_status worker_announce_models(worker *w, dn_error *error)
{
    dn_status status = DN_OK;
    for (unsigned i = 0; status == DN_OK && i < w->options.model_count; i++) {
        worker_model *model = &w->models[i];
        const protocol_model_state loaded = (protocol_model_state)atomic_load(&model->loaded);
        if (model->announced)
            continue;
        if (w->announced_loading <= i) {
            w->announced_loading = i + 1;
            status = announce(w, model, PROTOCOL_MODEL_LOADING, error);
        }
        if (loaded == PROTOCOL_MODEL_LOADING)
            break;
        if (status == DN_OK) {
            model->announced = true;
            status = announce(w, model, loaded, error);
        }
    }
    return status;
}
