/* The files thread: image files durable before their rows, snapshots and removals in the order they were asked for.
 *
 * Invariant: an image goes on to the store only after its file was fsynced under a temporary name, renamed, and its folder
 * fsynced; one fsync of the folder serves all images of a turn. Snapshots are not fsynced: a power cut may cost steps, never a job. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "server/dispatcher_internal.h"
#include "server/fault.h"

static void image_step(dn_file_step step)
{
    switch (step) {
    case DN_FILE_WRITTEN:
        fault_point("png_tmp_written");
        break;
    case DN_FILE_SYNCED:
        fault_point("png_fsynced");
        break;
    case DN_FILE_RENAMED:
        fault_point("png_renamed");
        break;
    }
}

static void snapshot_step(dn_file_step step)
{
    switch (step) {
    case DN_FILE_WRITTEN:
        fault_point("snapshot_tmp_written");
        break;
    case DN_FILE_SYNCED: /* never of a snapshot */
        break;
    case DN_FILE_RENAMED:
        fault_point("snapshot_renamed");
        break;
    }
}

/* 0, or why not. On a full disk the ballast is given back, once: a picture that is made must not be lost for want of a few bytes. */
static int write_image(files_thread *files, const file_task *task)
{
    const pending *image = task->image;
    for (bool again = true;; again = false) {
        if (dn_file_write_at_steps(files->images_fd, task->name, image->png, image->png_bytes, true, image_step))
            return 0;
        const int code = errno;
        if (!again || code != ENOSPC || !store_release_ballast(files->d->options.store))
            return code;
    }
}

static void image_failed(file_task *task, int code)
{
    task->failed = true;
    task->image->request->result = STORE_SPACE;
    snprintf(task->image->request->detail, sizeof task->image->request->detail, "cannot write an image file: %s", strerror(code));
}

static void run_task(files_thread *files, file_task *task)
{
    int failed = 0;
    switch (task->kind) {
    case FILE_IMAGE:
        failed = write_image(files, task);
        if (failed)
            image_failed(task, failed);
        break;
    case FILE_SNAPSHOT:
        dn_file_write_at_steps(files->snapshots_fd, task->name, task->bytes, task->count, false, snapshot_step);
        break;
    case FILE_UNLINK_IMAGE:
        unlinkat(files->images_fd, task->name, 0);
        break;
    case FILE_UNLINK_SNAPSHOT:
        unlinkat(files->snapshots_fd, task->name, 0);
        fault_point("snapshot_unlinked");
        break;
    }
}

/* After the folder is durable: images go to the store, refused ones back to the dispatcher. */
static void hand_on(files_thread *files, file_task *task)
{
    if (task->kind == FILE_IMAGE && task->failed) {
        dispatcher_post(files->d, task->image);
    } else if (task->kind == FILE_IMAGE) {
        free(task->image->png);
        task->image->png = NULL;
        store_submit(files->d->options.store, task->image->request);
    }
    free(task->bytes);
    free(task);
}

static void run_turn(files_thread *files, file_task *tasks)
{
    bool images = false;
    for (file_task *task = tasks; task; task = task->next) {
        run_task(files, task);
        images |= task->kind == FILE_IMAGE && !task->failed;
    }
    if (images && fsync(files->images_fd) != 0) {
        const int code = errno;
        for (file_task *task = tasks; task; task = task->next)
            if (task->kind == FILE_IMAGE)
                image_failed(task, code);
    }
    if (images)
        fault_point("png_folder_fsynced");
    while (tasks) {
        file_task *task = tasks;
        tasks = task->next;
        hand_on(files, task);
    }
}

static void *files_main(void *payload)
{
    files_thread *files = payload;
    pthread_mutex_lock(&files->lock);
    while (files->head || !files->stop) {
        if (!files->head) {
            pthread_cond_wait(&files->work, &files->lock);
            continue;
        }
        file_task *tasks = files->head;
        files->head = NULL;
        files->tail = &files->head;
        pthread_mutex_unlock(&files->lock);
        run_turn(files, tasks);
        pthread_mutex_lock(&files->lock);
    }
    pthread_mutex_unlock(&files->lock);
    return NULL;
}

static dn_status open_folder(int *out, const store *s, const char *folder, dn_error *error)
{
    char *path = store_path(s, folder, "");
    if (!path)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for a path");
    dn_status status = dn_make_folder(path, error);
    const int fd = status == DN_OK ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (status == DN_OK && fd < 0)
        status = dn_fail(error, DN_IO, "cannot open %s: %s", path, strerror(errno));
    if (status == DN_OK)
        *out = fd;
    free(path);
    return status;
}

dn_status files_start(files_thread *files, dispatcher *d, dn_error *error)
{
    *files = (files_thread){.d = d, .images_fd = -1, .snapshots_fd = -1};
    files->tail = &files->head;
    pthread_mutex_init(&files->lock, NULL);
    pthread_cond_init(&files->work, NULL);
    dn_status status = open_folder(&files->images_fd, d->options.store, "images", error);
    if (status == DN_OK)
        status = open_folder(&files->snapshots_fd, d->options.store, "snapshots", error);
    if (status != DN_OK)
        return status;
    const int failed = pthread_create(&files->thread, NULL, files_main, files);
    if (failed)
        return dn_fail(error, DN_IO, "cannot start the files thread: %s", strerror(failed));
    files->started = true;
    return DN_OK;
}

void files_stop(files_thread *files)
{
    if (files->started) {
        pthread_mutex_lock(&files->lock);
        files->stop = true;
        pthread_cond_signal(&files->work);
        pthread_mutex_unlock(&files->lock);
        pthread_join(files->thread, NULL);
    }
    if (files->images_fd >= 0)
        close(files->images_fd);
    if (files->snapshots_fd >= 0)
        close(files->snapshots_fd);
    pthread_cond_destroy(&files->work);
    pthread_mutex_destroy(&files->lock);
    *files = (files_thread){.images_fd = -1, .snapshots_fd = -1};
}

static void push(files_thread *files, file_task *task)
{
    pthread_mutex_lock(&files->lock);
    *files->tail = task;
    files->tail = &task->next;
    pthread_cond_signal(&files->work);
    pthread_mutex_unlock(&files->lock);
}

static file_task *make_task(file_kind kind, const char *name)
{
    file_task *task = calloc(1, sizeof *task);
    if (task) {
        task->kind = kind;
        snprintf(task->name, sizeof task->name, "%s", name);
    }
    return task;
}

void files_write_image(files_thread *files, pending *image)
{
    file_task *task = make_task(FILE_IMAGE, image->request->image.file);
    if (task) {
        task->image = image;
        push(files, task);
        return;
    }
    image->request->result = STORE_BUSY;
    dispatcher_post(files->d, image);
}

void files_write_snapshot(files_thread *files, const char *name, unsigned char *bytes, size_t count)
{
    file_task *task = bytes ? make_task(FILE_SNAPSHOT, name) : NULL;
    if (!task) {
        free(bytes);
        return;
    }
    task->bytes = bytes;
    task->count = count;
    push(files, task);
}

void files_unlink(files_thread *files, file_kind kind, const char *name)
{
    file_task *task = make_task(kind, name);
    if (task)
        push(files, task); /* A file left over is swept at the next start. */
}
