/* The inputs thread: pictures durable before the rows that name them. One turn writes what has gathered, with one fsync of the folder.
 *
 * Invariant: an enqueue goes to the store only after every file it needs was fsynced under a temporary name, renamed, and the folder
 * fsynced; a task belongs to the submitter, the list or the thread. Any thread may submit. */
#include "server/inputs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "server/fault.h"

enum { TURN_TASKS = 64 };

typedef struct input_file {
    char name[INPUT_NAME_BYTES];
    unsigned char *bytes; /* NULL: to be removed */
    size_t count;
} input_file;

typedef struct input_task {
    struct input_task *next;
    store_request *enqueue; /* NULL: files to be removed */
    size_t file_count;
    input_file files[];
} input_task;

struct inputs {
    store *store;
    int folder_fd;
    pthread_t thread;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;
    input_task *head, **tail;
    bool stop;
};

void input_name(char out[INPUT_NAME_BYTES], const char *job_id, bool mask)
{
    snprintf(out, INPUT_NAME_BYTES, "%.26s-%s.png", job_id, mask ? "mask" : "init");
}

static void free_task(input_task *task)
{
    for (size_t i = 0; i < task->file_count; i++)
        free(task->files[i].bytes);
    free(task);
}

static void remove_files(const inputs *in, const input_task *task)
{
    for (size_t i = 0; i < task->file_count; i++)
        unlinkat(in->folder_fd, task->files[i].name, 0);
}

static void input_step(dn_file_step step)
{
    switch (step) {
    case DN_FILE_WRITTEN:
        fault_point("input_tmp_written");
        break;
    case DN_FILE_SYNCED:
        fault_point("input_fsynced");
        break;
    case DN_FILE_RENAMED:
        fault_point("input_renamed");
        break;
    }
}

/* 0, or the errno of the first file that could not be written. */
static int write_files(const inputs *in, const input_task *task)
{
    for (size_t i = 0; i < task->file_count; i++) {
        const input_file *file = &task->files[i];
        if (!dn_file_write_at_steps(in->folder_fd, file->name, file->bytes, file->count, true, input_step))
            return errno ? errno : EIO;
    }
    return 0;
}

static void finish(inputs *in, input_task *task, int code)
{
    if (code == 0) {
        store_submit(in->store, task->enqueue);
    } else {
        store_request *enqueue = task->enqueue;
        remove_files(in, task);
        enqueue->result = code == ENOSPC || code == EDQUOT ? STORE_SPACE : STORE_UNKNOWN;
        snprintf(enqueue->detail, sizeof enqueue->detail, "cannot write an input picture: %s", strerror(code));
        enqueue->done(enqueue);
    }
    free_task(task);
}

/* Up to TURN_TASKS of the list; the rest. */
static input_task *run_turn(inputs *in, input_task *tasks)
{
    bool written = false;
    int codes[TURN_TASKS], used = 0;
    input_task *turn[TURN_TASKS];
    for (input_task *task; used < TURN_TASKS && (task = tasks) != NULL;) {
        tasks = task->next;
        if (!task->enqueue) {
            remove_files(in, task);
            free_task(task);
            continue;
        }
        codes[used] = write_files(in, task);
        written |= codes[used] == 0;
        turn[used++] = task;
    }
    const int code = written && fsync(in->folder_fd) != 0 ? errno : 0;
    for (int i = 0; i < used; i++)
        finish(in, turn[i], codes[i] ? codes[i] : code);
    return tasks;
}

static void *inputs_main(void *payload)
{
    inputs *in = payload;
    pthread_mutex_lock(&in->lock);
    while (in->head || !in->stop) {
        if (!in->head) {
            pthread_cond_wait(&in->work, &in->lock);
            continue;
        }
        input_task *tasks = in->head;
        in->head = NULL;
        in->tail = &in->head;
        pthread_mutex_unlock(&in->lock);
        while (tasks)
            tasks = run_turn(in, tasks);
        pthread_mutex_lock(&in->lock);
    }
    pthread_mutex_unlock(&in->lock);
    return NULL;
}

dn_status inputs_start(inputs **out, store *s, dn_error *error)
{
    inputs *in = calloc(1, sizeof *in);
    char *path = store_path(s, "inputs", "");
    dn_status status = in && path ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory for input pictures");
    if (status == DN_OK && (in->folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        status = dn_fail(error, DN_IO, "cannot open %s: %s", path, strerror(errno));
    free(path);
    if (status != DN_OK) {
        free(in);
        return status;
    }
    in->store = s;
    in->tail = &in->head;
    pthread_mutex_init(&in->lock, NULL);
    pthread_cond_init(&in->work, NULL);
    const int failed = pthread_create(&in->thread, NULL, inputs_main, in);
    if (failed) {
        close(in->folder_fd);
        free(in);
        return dn_fail(error, DN_IO, "cannot start the inputs thread: %s", strerror(failed));
    }
    *out = in;
    return DN_OK;
}

void inputs_stop(inputs *in)
{
    if (!in)
        return;
    pthread_mutex_lock(&in->lock);
    in->stop = true;
    pthread_cond_signal(&in->work);
    pthread_mutex_unlock(&in->lock);
    pthread_join(in->thread, NULL);
    close(in->folder_fd);
    pthread_cond_destroy(&in->work);
    pthread_mutex_destroy(&in->lock);
    free(in);
}

static void push(inputs *in, input_task *task)
{
    pthread_mutex_lock(&in->lock);
    *in->tail = task;
    in->tail = &task->next;
    pthread_cond_signal(&in->work);
    pthread_mutex_unlock(&in->lock);
}

static bool add_file(input_task *task, const api_input_image *image, const char *job_id, bool mask)
{
    if (!image->bytes)
        return true;
    input_file *file = &task->files[task->file_count];
    input_name(file->name, job_id, mask);
    file->count = (size_t)image->byte_count;
    file->bytes = malloc(file->count ? file->count : 1);
    if (!file->bytes)
        return false;
    memcpy(file->bytes, image->bytes, file->count);
    task->file_count++;
    return true;
}

void inputs_submit(inputs *in, store_request *enqueue, const api_request *jobs)
{
    input_task *task = calloc(1, sizeof *task + 2 * enqueue->job_count * sizeof task->files[0]);
    bool fine = task != NULL;
    for (size_t i = 0; fine && i < enqueue->job_count; i++)
        fine = add_file(task, &jobs[i].init_image, enqueue->jobs[i].id, false) &&
               add_file(task, &jobs[i].mask_image, enqueue->jobs[i].id, true);
    if (fine && task->file_count) {
        task->enqueue = enqueue;
        push(in, task);
        return;
    }
    if (task)
        free_task(task);
    if (fine) {
        store_submit(in->store, enqueue);
        return;
    }
    enqueue->result = STORE_BUSY;
    snprintf(enqueue->detail, sizeof enqueue->detail, "out of memory for input pictures");
    enqueue->done(enqueue);
}

void inputs_discard(inputs *in, const store_request *enqueue)
{
    input_task *task = calloc(1, sizeof *task + 2 * enqueue->job_count * sizeof task->files[0]);
    if (!task)
        return; /* Swept at the next start. */
    for (size_t i = 0; i < enqueue->job_count; i++)
        for (int mask = 0; mask < 2; mask++)
            input_name(task->files[task->file_count++].name, enqueue->jobs[i].id, mask);
    push(in, task);
}
