/* The loader: one thread that reads model folders, in order: a description alone, or the whole engine with its batch, measured.
 *
 * Invariant: a task belongs to exactly one of the submitter, the waiting list, the thread, the done list, the taker; nothing in it is
 * shared while the thread has it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "server/describe_model.h"
#include "server/worker_internal.h"

#define MEASURED_STEPS 4u /* more than are run, so that the lane does not end */

/* Seconds of a tick of one row: the second of two, since the first touches its memory for the first time. */
static dn_status measure_row(double *out, dn_engine *engine, dn_error *error)
{
    dn_batch *batch = NULL;
    dn_tick_report *report = malloc(sizeof *report);
    dn_lane_spec spec = {.seed = 1, .guidance_scale = 1, .steps = MEASURED_STEPS};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", engine->default_sampler);
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

static dn_status describe(load_task *task, dn_engine *engine)
{
    dn_status status = dn_describe_model(&task->description, task->name, engine, &task->error);
    if (status == DN_OK && task->description->channels != 1 && task->description->channels != 3)
        status =
            dn_fail(&task->error, DN_UNSUPPORTED, "%s makes %u channels: a picture has 1 or 3", task->folder, task->description->channels);
    return status;
}

static dn_status open_codec(load_task *task)
{
    return dn_engine_codec_open(&task->codec, task->engine, true, &task->error);
}

static dn_status run_task(const worker_loader *loader, load_task *task)
{
    const dn_engine_options options = {
        .threads = loader->threads, .vae_tiling = loader->vae_tiling, .describe_only = task->kind == LOAD_DESCRIPTION};
    dn_status status = dn_engine_open(&task->engine, task->folder, &options, &task->error);
    if (status == DN_OK)
        status = describe(task, task->engine);
    if (status != DN_OK)
        return status;
    task->bytes = dn_engine_weight_bytes(task->engine);
    if (task->kind == LOAD_DESCRIPTION) {
        dn_engine_close(task->engine);
        task->engine = NULL;
        return DN_OK;
    }
    status = open_codec(task);
    if (status == DN_OK)
        status = measure_row(&task->row_seconds, task->engine, &task->error);
    if (status != DN_OK)
        return status;
    task->rows_max = loader->rows_max ? loader->rows_max : rows_by_time(task->row_seconds);
    task->bytes += dn_engine_workspace_bytes(task->engine, task->rows_max) + task->rows_max * dn_engine_lane_bytes(task->engine) +
                   dn_codec_bytes(task->codec);
    return dn_batch_create(&task->batch, task->engine, task->rows_max, &task->error);
}

static void *loader_main(void *payload)
{
    worker_loader *loader = payload;
    pthread_mutex_lock(&loader->lock);
    for (;;) {
        while (!loader->waiting && !loader->stop)
            pthread_cond_wait(&loader->work, &loader->lock);
        if (loader->stop)
            break;
        load_task *task = loader->waiting;
        loader->waiting = task->next;
        if (!loader->waiting)
            loader->waiting_tail = &loader->waiting;
        task->next = NULL;
        loader->busy = true;
        pthread_mutex_unlock(&loader->lock);
        task->status = run_task(loader, task);
        pthread_mutex_lock(&loader->lock);
        loader->busy = false;
        *loader->done_tail = task;
        loader->done_tail = &task->next;
        eventfd_write(loader->wake_fd, 1);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

dn_status worker_loader_start(worker_loader *loader, int wake_fd, const worker_options *options, dn_error *error)
{
    *loader =
        (worker_loader){.wake_fd = wake_fd, .threads = options->threads, .rows_max = options->rows_max, .vae_tiling = options->vae_tiling};
    loader->waiting_tail = &loader->waiting;
    loader->done_tail = &loader->done;
    pthread_mutex_init(&loader->lock, NULL);
    pthread_cond_init(&loader->work, NULL);
    const int failed = pthread_create(&loader->thread, NULL, loader_main, loader);
    if (failed)
        return dn_fail(error, DN_IO, "cannot start the loader's thread: %s", strerror(failed));
    loader->started = true;
    return DN_OK;
}

dn_status worker_loader_submit(worker_loader *loader, load_kind kind, unsigned model, const char *name, const char *folder, dn_error *error)
{
    load_task *task = calloc(1, sizeof *task);
    if (!task)
        return dn_fail(error, DN_NO_MEMORY, "out of memory to load %s", name);
    *task = (load_task){.kind = kind, .model = model, .name = name, .folder = folder};
    pthread_mutex_lock(&loader->lock);
    *loader->waiting_tail = task;
    loader->waiting_tail = &task->next;
    pthread_cond_signal(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    return DN_OK;
}

load_task *worker_loader_take(worker_loader *loader)
{
    pthread_mutex_lock(&loader->lock);
    load_task *task = loader->done;
    if (task) {
        loader->done = task->next;
        if (!loader->done)
            loader->done_tail = &loader->done;
        task->next = NULL;
    }
    pthread_mutex_unlock(&loader->lock);
    return task;
}

void load_task_free(load_task *task)
{
    if (!task)
        return;
    dn_batch_free(task->batch);
    dn_codec_close(task->codec);
    dn_engine_close(task->engine);
    api_model_free(task->description);
    free(task);
}

static void free_list(load_task *task)
{
    while (task) {
        load_task *next = task->next;
        load_task_free(task);
        task = next;
    }
}

bool worker_loader_stop(worker_loader *loader)
{
    if (!loader->started)
        return true;
    pthread_mutex_lock(&loader->lock);
    loader->stop = true;
    const bool busy = loader->busy;
    pthread_cond_signal(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    if (busy) {
        pthread_detach(loader->thread);
        return false;
    }
    pthread_join(loader->thread, NULL);
    free_list(loader->waiting);
    free_list(loader->done);
    pthread_cond_destroy(&loader->work);
    pthread_mutex_destroy(&loader->lock);
    loader->started = false;
    return true;
}
