/* The codec thread: one thread that reads input pictures and runs autoencoders, so that a tick never waits for either.
 *
 * Invariant: a task belongs to exactly one of the submitter, the waiting list, the thread, the done list, the taker. Decoding shares
 * the device with the ticks: the CPU's threads, or a GPU beside them, where what waits for the same decoder goes through it in one run,
 * whatever jobs it is of. What comes out depends on the task alone. The last few prepared pictures are kept, because a
 * job's images come one after another with the same ones, and an autoencoder takes seconds for each. */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "server/worker_internal.h"

void codec_task_free(codec_task *task)
{
    if (!task)
        return;
    free(task->latents);
    free(task->init);
    free(task->mask);
    free(task->pixels);
    free(task);
}

static void decode_alone(codec_task *task)
{
    task->status = task->pixels ? dn_codec_decode(task->codec, task->latents, task->pixels, &task->error)
                                : dn_fail(&task->error, DN_NO_MEMORY, "out of memory for a picture");
}

/* A list of tasks for the same decoder, DN_CODEC_ROWS_MAX at most. What fails together is tried one by one, so that each has its own end. */
static void decode(codec_task *tasks)
{
    const dn_codec_info *about = dn_codec_about(tasks->codec);
    const float *latents[DN_CODEC_ROWS_MAX];
    uint8_t *pixels[DN_CODEC_ROWS_MAX];
    uint32_t count = 0;
    bool whole = true;
    for (codec_task *task = tasks; task; task = task->next) {
        task->pixels = malloc((size_t)about->height * about->width * about->channels);
        whole &= task->pixels != NULL;
        latents[count] = task->latents;
        pixels[count++] = task->pixels;
    }
    const bool together = whole && count > 1;
    dn_error error;
    const dn_status status = together ? dn_codec_decode_many(tasks->codec, latents, pixels, count, &error) : DN_OK;
    for (codec_task *task = tasks; task; task = task->next) {
        task->status = status;
        if (status == DN_DEVICE_LOST)
            task->error = error;
        else if (!together || status != DN_OK)
            decode_alone(task);
    }
}

static size_t plane_of(const codec_task *task)
{
    const dn_codec_info *about = dn_codec_about(task->codec);
    return (size_t)about->latent_height * about->latent_width;
}

static float *copy_of(const float *floats, size_t count)
{
    float *copy = malloc(count * sizeof *copy);
    if (copy)
        memcpy(copy, floats, count * sizeof *copy);
    return copy;
}

static void forget(codec_kept *kept)
{
    free(kept->init);
    free(kept->mask);
    *kept = (codec_kept){0};
}

/* True: the task has copies of what was prepared for it before. */
static bool recall(worker_codec *codec, codec_task *task)
{
    const size_t plane = plane_of(task);
    for (size_t i = 0; i < CODEC_KEPT; i++) {
        codec_kept *kept = &codec->kept[i];
        if (kept->load != task->load || strcmp(kept->init_sha256, task->init_sha256) != 0 ||
            strcmp(kept->mask_sha256, task->mask_sha256) != 0)
            continue;
        task->init = copy_of(kept->init, plane * dn_codec_about(task->codec)->latent_channels);
        task->mask = kept->mask ? copy_of(kept->mask, plane) : NULL;
        kept->used = ++codec->uses;
        return task->init && (task->mask || !kept->mask);
    }
    return false;
}

/* In the place of the one used longest ago; without memory for it nothing is kept. */
static void keep(worker_codec *codec, const codec_task *task)
{
    codec_kept *kept = &codec->kept[0];
    for (size_t i = 1; i < CODEC_KEPT; i++)
        if (codec->kept[i].used < kept->used)
            kept = &codec->kept[i];
    forget(kept);
    const size_t plane = plane_of(task);
    kept->init = copy_of(task->init, plane * dn_codec_about(task->codec)->latent_channels);
    kept->mask = task->mask ? copy_of(task->mask, plane) : NULL;
    if (!kept->init || (task->mask && !kept->mask)) {
        forget(kept);
        return;
    }
    kept->load = task->load;
    kept->used = ++codec->uses;
    memcpy(kept->init_sha256, task->init_sha256, sizeof kept->init_sha256);
    memcpy(kept->mask_sha256, task->mask_sha256, sizeof kept->mask_sha256);
}

static dn_status prepare(worker_codec *codec, codec_task *task)
{
    const dn_codec_info *about = dn_codec_about(task->codec);
    const size_t plane = plane_of(task);
    uint8_t *picture = NULL, *mask = NULL;
    if (recall(codec, task))
        return DN_OK;
    free(task->init);
    free(task->mask);
    task->init = task->mask = NULL;
    dn_status status = worker_read_input(&picture, codec->folder, task->job, false, task->init_sha256, about, &task->error);
    if (status == DN_OK && task->mask_sha256[0])
        status = worker_read_input(&mask, codec->folder, task->job, true, task->mask_sha256, about, &task->error);
    if (status == DN_OK) {
        task->init = malloc(about->latent_channels * plane * sizeof *task->init);
        task->mask = mask ? malloc(plane * sizeof *task->mask) : NULL;
        if (!task->init || (mask && !task->mask))
            status = dn_fail(&task->error, DN_NO_MEMORY, "out of memory for an input picture");
    }
    if (status == DN_OK)
        status = dn_prepare_init(task->engine, task->codec, picture, mask, task->init, task->mask, &task->error);
    if (status == DN_OK)
        keep(codec, task);
    free(picture);
    free(mask);
    return status;
}

/* With the lock: the first that waits, and with a decode those that can share its run. */
static codec_task *take_waiting(worker_codec *codec)
{
    codec_task *first = codec->waiting, *last = first;
    codec->waiting = first->next;
    first->next = NULL;
    uint32_t more = first->kind == CODEC_DECODE ? dn_codec_rows(first->codec) - 1 : 0;
    for (codec_task **link = &codec->waiting; *link && more;) {
        codec_task *task = *link;
        if (task->kind != CODEC_DECODE || task->codec != first->codec) {
            link = &task->next;
            continue;
        }
        *link = task->next;
        task->next = NULL;
        last->next = task;
        last = task;
        more--;
    }
    codec->waiting_tail = &codec->waiting;
    while (*codec->waiting_tail)
        codec->waiting_tail = &(*codec->waiting_tail)->next;
    return first;
}

static void *codec_main(void *payload)
{
    worker_codec *codec = payload;
    pthread_mutex_lock(&codec->lock);
    for (;;) {
        while (!codec->waiting && !codec->stop)
            pthread_cond_wait(&codec->work, &codec->lock);
        if (codec->stop)
            break;
        codec_task *tasks = take_waiting(codec);
        pthread_mutex_unlock(&codec->lock);
        if (tasks->kind == CODEC_DECODE)
            decode(tasks);
        else
            tasks->status = prepare(codec, tasks);
        pthread_mutex_lock(&codec->lock);
        *codec->done_tail = tasks;
        while (*codec->done_tail)
            codec->done_tail = &(*codec->done_tail)->next;
        eventfd_write(codec->wake_fd, 1);
    }
    pthread_mutex_unlock(&codec->lock);
    return NULL;
}

dn_status worker_codec_start(worker_codec *codec, int wake_fd, const char *folder, dn_error *error)
{
    *codec = (worker_codec){.wake_fd = wake_fd, .folder = folder};
    codec->waiting_tail = &codec->waiting;
    codec->done_tail = &codec->done;
    pthread_mutex_init(&codec->lock, NULL);
    pthread_cond_init(&codec->work, NULL);
    const int failed = pthread_create(&codec->thread, NULL, codec_main, codec);
    if (failed)
        return dn_fail(error, DN_IO, "cannot start the codec's thread: %s", strerror(failed));
    codec->started = true;
    return DN_OK;
}

static void free_list(codec_task *task)
{
    while (task) {
        codec_task *next = task->next;
        codec_task_free(task);
        task = next;
    }
}

void worker_codec_stop(worker_codec *codec)
{
    if (!codec->started)
        return;
    pthread_mutex_lock(&codec->lock);
    codec->stop = true;
    pthread_cond_signal(&codec->work);
    pthread_mutex_unlock(&codec->lock);
    pthread_join(codec->thread, NULL);
    free_list(codec->waiting);
    free_list(codec->done);
    for (size_t i = 0; i < CODEC_KEPT; i++)
        forget(&codec->kept[i]);
    pthread_cond_destroy(&codec->work);
    pthread_mutex_destroy(&codec->lock);
    codec->started = false;
}

void worker_codec_submit(worker_codec *codec, codec_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&codec->lock);
    *codec->waiting_tail = task;
    codec->waiting_tail = &task->next;
    pthread_cond_signal(&codec->work);
    pthread_mutex_unlock(&codec->lock);
}

codec_task *worker_codec_take(worker_codec *codec)
{
    pthread_mutex_lock(&codec->lock);
    codec_task *task = codec->done;
    if (task) {
        codec->done = task->next;
        if (!codec->done)
            codec->done_tail = &codec->done;
        task->next = NULL;
    }
    pthread_mutex_unlock(&codec->lock);
    return task;
}
