/* The worker's encoder: threads that turn pixels into PNG files and hashes, so that a tick never waits for zlib.
 *
 * Invariant: a task belongs to exactly one of the submitter, the waiting list, a thread, the done list, the taker. Tasks are begun in the
 * order of submission; with several threads they may end in another. */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/picture_file.h"
#include "server/worker_internal.h"

void encode_task_free(encode_task *task)
{
    if (!task)
        return;
    free(task->pixels);
    free(task->png);
    free(task);
}

/* Averages boxes of pixels so that no side is longer than a preview's may be. */
static void shrink(encode_task *task)
{
    const uint32_t longest = task->width > task->height ? task->width : task->height;
    const uint32_t factor = (longest + WORKER_PREVIEW_SIDE_MAX - 1) / WORKER_PREVIEW_SIDE_MAX;
    if (factor <= 1)
        return;
    const uint32_t width = task->width / factor, height = task->height / factor;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            for (uint32_t c = 0; c < task->channels; c++) {
                uint32_t sum = 0;
                for (uint32_t i = 0; i < factor * factor; i++) {
                    const size_t row = y * factor + i / factor, column = x * factor + i % factor;
                    sum += task->pixels[(row * task->width + column) * task->channels + c];
                }
                /* The write never passes the reads that are still to come: its index is at most theirs. */
                task->pixels[((size_t)y * width + x) * task->channels + c] = (uint8_t)(sum / (factor * factor));
            }
    task->width = width;
    task->height = height;
}

static void encode_image(encode_task *task)
{
    picture_file made = {.png = NULL};
    task->status = picture_file_make(&made, &task->request, task->model, task->seed, task->pixels, &task->error);
    task->png = made.png;
    task->png_bytes = made.png_bytes;
    memcpy(task->sha256, made.sha256, sizeof task->sha256);
    memcpy(task->pixels_sha256, made.pixels_sha256, sizeof task->pixels_sha256);
}

static void encode(encode_task *task)
{
    if (task->kind == ENCODE_IMAGE) {
        encode_image(task);
        return;
    }
    shrink(task);
    task->status =
        dn_png_encode(&task->png, &task->png_bytes, task->pixels, task->width, task->height, task->channels, NULL, 0, &task->error);
}

static void *encoder_main(void *payload)
{
    worker_encoder *encoder = payload;
    pthread_mutex_lock(&encoder->lock);
    for (;;) {
        while (!encoder->waiting && !encoder->stop)
            pthread_cond_wait(&encoder->work, &encoder->lock);
        if (encoder->stop)
            break;
        encode_task *task = encoder->waiting;
        encoder->waiting = task->next;
        if (!encoder->waiting)
            encoder->waiting_tail = &encoder->waiting;
        task->next = NULL;
        encoder->depth--;
        pthread_mutex_unlock(&encoder->lock);
        encode(task);
        pthread_mutex_lock(&encoder->lock);
        *encoder->done_tail = task;
        encoder->done_tail = &task->next;
        eventfd_write(encoder->wake_fd, 1);
    }
    pthread_mutex_unlock(&encoder->lock);
    return NULL;
}

dn_status worker_encoder_start(worker_encoder *encoder, int wake_fd, unsigned threads, dn_error *error)
{
    *encoder = (worker_encoder){.wake_fd = wake_fd};
    encoder->waiting_tail = &encoder->waiting;
    encoder->done_tail = &encoder->done;
    pthread_mutex_init(&encoder->lock, NULL);
    pthread_cond_init(&encoder->work, NULL);
    for (unsigned i = 0; i < threads; i++) {
        const int failed = pthread_create(&encoder->threads[i], NULL, encoder_main, encoder);
        if (failed && i == 0)
            return dn_fail(error, DN_IO, "cannot start the encoder's thread: %s", strerror(failed));
        if (failed)
            break; /* fewer do the same */
        encoder->thread_count++;
    }
    return DN_OK;
}

static void free_list(encode_task *task)
{
    while (task) {
        encode_task *next = task->next;
        encode_task_free(task);
        task = next;
    }
}

void worker_encoder_stop(worker_encoder *encoder)
{
    if (!encoder->thread_count)
        return;
    pthread_mutex_lock(&encoder->lock);
    encoder->stop = true;
    pthread_cond_broadcast(&encoder->work);
    pthread_mutex_unlock(&encoder->lock);
    for (unsigned i = 0; i < encoder->thread_count; i++)
        pthread_join(encoder->threads[i], NULL);
    free_list(encoder->waiting);
    free_list(encoder->done);
    pthread_cond_destroy(&encoder->work);
    pthread_mutex_destroy(&encoder->lock);
    encoder->thread_count = 0;
}

void worker_encoder_submit(worker_encoder *encoder, encode_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&encoder->lock);
    *encoder->waiting_tail = task;
    encoder->waiting_tail = &task->next;
    encoder->depth++;
    pthread_cond_signal(&encoder->work);
    pthread_mutex_unlock(&encoder->lock);
}

encode_task *worker_encoder_take(worker_encoder *encoder)
{
    pthread_mutex_lock(&encoder->lock);
    encode_task *task = encoder->done;
    if (task) {
        encoder->done = task->next;
        if (!encoder->done)
            encoder->done_tail = &encoder->done;
        task->next = NULL;
    }
    pthread_mutex_unlock(&encoder->lock);
    return task;
}

unsigned worker_encoder_depth(worker_encoder *encoder)
{
    pthread_mutex_lock(&encoder->lock);
    const unsigned depth = encoder->depth;
    pthread_mutex_unlock(&encoder->lock);
    return depth;
}
