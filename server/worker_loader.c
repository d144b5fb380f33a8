/* The loader: one thread that reads model folders, in order: a description alone, or the whole engine with its batch, measured.
 *
 * Invariant: a task belongs to exactly one of the submitter, the waiting list, the thread, the done list, the taker; nothing in it is
 * shared while the thread has it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/devices.h"
#include "base/thread_pool.h"
#include "server/describe_model.h"
#include "server/worker_internal.h"

/* Bytes that one model's workspace and lanes may take: a share of what the device has; at most what --memory-limit leaves. */
static double room_of(const worker_loader *loader, const load_task *task)
{
    const dn_backend *backend = task->engine->backend;
    size_t unused = 0;
    double room = WORKER_MEMORY_SHARE * (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (backend->device_memory && backend->device_memory(task->engine->device, &unused))
        room = WORKER_DEVICE_SHARE * (double)unused;
    if (loader->memory_limit)
        room = fmin(room, (double)loader->memory_limit - (double)task->bytes - (double)dn_codec_bytes(task->codec));
    return room;
}

/* Rows of the largest batch: as many as are of use to so many threads, or to a GPU, and as memory allows; at least a guided lane's two. */
static uint32_t rows_limit_of(const worker_loader *loader, const load_task *task)
{
    const unsigned threads = loader->threads ? loader->threads : dn_available_cpus();
    uint32_t rows = WORKER_ROWS_A_THREAD * threads > WORKER_ROWS_MAX ? WORKER_ROWS_A_THREAD * threads : WORKER_ROWS_MAX;
    rows = rows > DN_BATCH_ROWS_MAX || task->device_bytes ? DN_BATCH_ROWS_MAX : rows;
    const double room = room_of(loader, task);
    const size_t lane = dn_engine_lane_bytes(task->engine);
    while (rows > 2 && (double)dn_engine_workspace_bytes(task->engine, rows) + (double)(rows * lane) > room)
        rows--;
    return rows;
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

/* Once a process: a GPU that cannot be opened is lost, not the model that was to be loaded on it. */
static dn_status check_device(worker_loader *loader, dn_error *error)
{
    dn_device_choice choice;
    dn_device *device = NULL;
    dn_error why;
    if (loader->checked || loader->backend || !loader->device || !loader->device[0] || strcmp(loader->device, "cpu") == 0)
        return DN_OK;
    dn_status status = dn_device_choose(&choice, loader->device, NULL, 0, &why);
    const dn_device_options options = {.threads = 1, .index = choice.index};
    if (status == DN_OK)
        status = choice.backend->device_open(&device, &options, &why);
    if (status != DN_OK)
        return dn_fail(error, DN_DEVICE_LOST, "%s", why.message);
    choice.backend->device_close(device);
    loader->checked = true;
    return DN_OK;
}

/* With half as many rows, and half again, where there is no memory for all. */
static dn_status make_batch(load_task *task)
{
    dn_status status = dn_batch_create(&task->batch, task->engine, task->rows_limit, &task->error);
    while (status == DN_NO_MEMORY && task->rows_limit > 2) {
        task->rows_limit = task->rows_limit / 2 > 2 ? task->rows_limit / 2 : 2;
        status = dn_batch_create(&task->batch, task->engine, task->rows_limit, &task->error);
    }
    return status;
}

static dn_status run_task(worker_loader *loader, load_task *task)
{
    const dn_engine_options options = {.threads = loader->threads,
                                       .device = loader->device,
                                       .backend = loader->backend,
                                       .fast = loader->fast,
                                       .plan_cache = loader->plan_cache,
                                       .precision = loader->precision,
                                       .vae_tiling = loader->vae_tiling,
                                       .describe_only = task->kind == LOAD_DESCRIPTION};
    dn_status status = check_device(loader, &task->error);
    if (status == DN_OK)
        status = dn_engine_open(&task->engine, task->folder, &options, &task->error);
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
    if (task->engine->backend->device_memory)
        task->device_bytes = task->engine->backend->device_memory(task->engine->device, NULL);
    status = open_codec(task);
    if (status != DN_OK)
        return status;
    task->rows_limit = loader->rows_max ? loader->rows_max : rows_limit_of(loader, task);
    status = make_batch(task);
    task->bytes += dn_engine_workspace_bytes(task->engine, task->rows_limit) + task->rows_limit * dn_engine_lane_bytes(task->engine) +
                   dn_codec_bytes(task->codec);
    const dn_error why = task->error;
    if (status == DN_NO_MEMORY && task->device_bytes)
        return dn_fail(&task->error, DN_NO_MEMORY, "it takes %zu MiB with a batch of 2 rows, and the GPU has %llu MiB in all: %.200s",
                       task->bytes >> 20, (unsigned long long)(task->device_bytes >> 20), why.message);
    return status == DN_OK ? worker_measure_ticks(&task->table, task->batch, task->rows_limit, &task->error) : status;
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
    *loader = (worker_loader){.wake_fd = wake_fd,
                              .threads = options->threads,
                              .rows_max = options->rows_max,
                              .memory_limit = options->memory_limit,
                              .vae_tiling = options->vae_tiling,
                              .precision = options->precision,
                              .device = options->device,
                              .backend = options->backend,
                              .fast = options->fast,
                              .plan_cache = options->plan_cache};
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
