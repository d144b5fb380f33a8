/* See picture_hash.h. */
#include "server/log.h"
#include "server/picture_hash.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/limits.h"
#include "base/clock.h"
#include "base/sha256.h"
#include "server/input_picture.h"
#include "server/options.h"
#include "server/worker.h"

#define DECODE_SECONDS 120.0 /* milliseconds on a machine that has time; then the process is ended */

struct picture_hasher {
    pthread_t thread;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;
    picture_task *head, **tail;
    bool stop;
};

/* ---- The daemon's side */

static bool write_all(int fd, const unsigned char *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        ssize_t wrote = write(fd, bytes + done, count - done);
        if (wrote <= 0 && errno != EINTR) {
            return false;
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return lseek(fd, 0, SEEK_SET) == 0;
}

static int spawn_process(pid_t *pid, const char *shape, int png, int answer)
{
    char program[] = "/proc/self/exe", name[] = "worker", flag[] = "--picture", copy[48];
    snprintf(copy, sizeof copy, "%s", shape);
    char *const arguments[] = {program, name, flag, copy, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, standard;
    sigemptyset(&none);
    sigfillset(&standard);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &standard);
    int failed = posix_spawn_file_actions_adddup2(&actions, png, 0);
    if (failed == 0) {
        failed = posix_spawn_file_actions_adddup2(&actions, answer, 1);
    }
    if (failed == 0) {
        failed = posix_spawn(pid, program, &actions, &attributes, arguments, environ);
    }
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

/* What it prints, until it closes its end or the time is up. */
static size_t read_answer(int fd, char *out, size_t room)
{
    const double until = dn_now_seconds() + DECODE_SECONDS;
    size_t used = 0;
    for (double left = DECODE_SECONDS; left > 0.0 && used + 1 < room; left = until - dn_now_seconds()) {
        struct pollfd waiting = {.fd = fd, .events = POLLIN};
        int ready = poll(&waiting, 1, (int)(1e3 * left) + 1);
        ssize_t count = ready > 0 ? read(fd, out + used, room - used - 1) : 0;
        if (ready > 0 && count <= 0 && errno != EINTR) {
            break;
        }
        used += count > 0 ? (size_t)count : 0;
        if (ready > 0 && count == 0) {
            break;
        }
    }
    out[used] = '\0';
    return used;
}

static void run_task(picture_task *task)
{
    char shape[48], answer[80];
    int ends[2] = {-1, -1}, status = 0;
    pid_t pid = -1;
    task->sha256[0] = '\0';
    snprintf(shape, sizeof shape, "%ux%ux%u", task->width, task->height, task->channels);
    int png = memfd_create("picture", MFD_CLOEXEC);
    if (png >= 0 && write_all(png, task->png, task->bytes) && pipe2(ends, O_CLOEXEC) == 0 &&
        spawn_process(&pid, shape, png, ends[1]) == 0) {
        close(ends[1]);
        ends[1] = -1;
        size_t count = read_answer(ends[0], answer, sizeof answer);
        kill(pid, SIGKILL); /* it has said all that it will say */
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        if (count == sizeof task->sha256 && answer[count - 1] == '\n' && strspn(answer, "0123456789abcdef") == count - 1) {
            memcpy(task->sha256, answer, count - 1);
            task->sha256[count - 1] = '\0';
        }
    } else {
        log_say(LOG_ERROR, "http", "a picture cannot be looked at: %s", strerror(errno));
    }
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0) {
            close(ends[i]);
        }
    }
    if (png >= 0) {
        close(png);
    }
}

static void *hasher_main(void *payload)
{
    picture_hasher *hasher = payload;
    pthread_mutex_lock(&hasher->lock);
    while (hasher->head || !hasher->stop) {
        picture_task *task = hasher->head;
        if (task == NULL) {
            pthread_cond_wait(&hasher->work, &hasher->lock);
            continue;
        }
        hasher->head = task->next;
        if (hasher->head == NULL) {
            hasher->tail = &hasher->head;
        }
        pthread_mutex_unlock(&hasher->lock);
        run_task(task);
        task->done(task->payload);
        pthread_mutex_lock(&hasher->lock);
    }
    pthread_mutex_unlock(&hasher->lock);
    return NULL;
}

dn_status picture_hasher_start(picture_hasher **out, dn_error *error)
{
    picture_hasher *hasher = calloc(1, sizeof *hasher);
    if (hasher == NULL) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    hasher->tail = &hasher->head;
    pthread_mutex_init(&hasher->lock, NULL);
    pthread_cond_init(&hasher->work, NULL);
    int failed = pthread_create(&hasher->thread, NULL, hasher_main, hasher);
    if (failed) {
        pthread_cond_destroy(&hasher->work);
        pthread_mutex_destroy(&hasher->lock);
        free(hasher);
        return dn_fail(error, DN_IO, "cannot start the thread for pictures: %s", strerror(failed));
    }
    *out = hasher;
    return DN_OK;
}

void picture_hasher_stop(picture_hasher *hasher)
{
    if (hasher == NULL) {
        return;
    }
    pthread_mutex_lock(&hasher->lock);
    hasher->stop = true;
    pthread_cond_signal(&hasher->work);
    pthread_mutex_unlock(&hasher->lock);
    pthread_join(hasher->thread, NULL);
    pthread_cond_destroy(&hasher->work);
    pthread_mutex_destroy(&hasher->lock);
    free(hasher);
}

void picture_hasher_submit(picture_hasher *hasher, picture_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&hasher->lock);
    *hasher->tail = task;
    hasher->tail = &task->next;
    pthread_cond_signal(&hasher->work);
    pthread_mutex_unlock(&hasher->lock);
}

/* ---- The process */

int picture_hash_main(const char *shape)
{
    static unsigned char png[API_BODY_IMAGE_BYTES_MAX + 1];
    unsigned width = 0, height = 0, channels = 0;
    char hash[DN_SHA256_HEX_BYTES];
    dn_error error;
    worker_confine();
    size_t bytes = fread(png, 1, sizeof png, stdin);
    if (sscanf(shape, "%ux%ux%u", &width, &height, &channels) != 3 || bytes == sizeof png ||
        input_picture_hash(hash, png, bytes, width, height, channels, &error) != DN_OK) {
        return DN_EXIT_DATA;
    }
    puts(hash);
    return DN_EXIT_OK;
}
