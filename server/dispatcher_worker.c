/* The worker process, seen from the daemon: started, watched, ended, started again.
 *
 * Invariant: at most one worker lives; nothing but its socket is inherited by it (every other descriptor is close-on-exec, the lock
 * of the data directory among them); when worker_lost returns, the process has been waited for. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/dispatcher_internal.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/process_usage.h"

enum { WORKER_FD = 3, FIXED_ARGUMENTS = 32 };

void worker_tell(dispatcher *d, const protocol_message *message)
{
    dn_error error;
    if (!d->pid || d->message_lost || protocol_send(&d->pipe, message, &error) == DN_OK)
        return;
    log_say(LOG_ERROR, "dispatcher", "%s", error.message);
    d->message_lost = true;
}

static void show(dispatcher *d, pid_t pid)
{
    pthread_mutex_lock(&d->lock);
    d->shown_pid = pid;
    d->shown_starts = d->starts;
    pthread_mutex_unlock(&d->lock);
}

void dispatcher_get_worker(dispatcher *d, dispatcher_worker *out)
{
    process_usage usage = {0};
    pthread_mutex_lock(&d->lock);
    const pid_t pid = d->shown_pid;
    const unsigned starts = d->shown_starts;
    if (pid)
        process_usage_read(&usage, pid);
    pthread_mutex_unlock(&d->lock);
    const char *state = !pid                          ? "gone"
                        : !atomic_load(&d->worker_up) ? "starting"
                        : atomic_load(&d->draining)   ? "draining"
                        : !atomic_load(&d->settled)   ? "loading"
                                                      : "ready";
    *out = (dispatcher_worker){.pid = pid,
                               .state = state,
                               .restarts = starts ? starts - 1 : 0,
                               .resident_bytes = usage.resident_bytes,
                               .cpu_seconds = usage.cpu_seconds};
}

/* ---- Starting */

typedef struct worker_arguments {
    char parent[16], threads[16], rows_max[16], snapshot_every[32], memory_limit[32];
    char *inputs; /* malloc'd */
    char **values; /* NULL-terminated; from FIXED_ARGUMENTS on, every second one is malloc'd */
    size_t count;
} worker_arguments;

static void arguments_done(worker_arguments *a)
{
    for (size_t i = FIXED_ARGUMENTS + 1; a->values && i < a->count; i += 2)
        free(a->values[i]);
    free(a->values);
    free(a->inputs);
}

static bool arguments_init(worker_arguments *a, const dispatcher *d)
{
    const dispatcher_options *o = &d->options;
    snprintf(a->parent, sizeof a->parent, "%d", (int)d->daemon);
    snprintf(a->threads, sizeof a->threads, "%u", o->threads);
    snprintf(a->rows_max, sizeof a->rows_max, "%u", o->rows_max);
    snprintf(a->snapshot_every, sizeof a->snapshot_every, "%g", o->snapshot_every_seconds > 0 ? o->snapshot_every_seconds : 5.0);
    snprintf(a->memory_limit, sizeof a->memory_limit, "%llu", (unsigned long long)o->memory_limit);
    const size_t count = models_count(o->models);
    a->count = 0;
    a->inputs = store_path(o->store, "inputs", "");
    if (!a->inputs)
        return false;
    a->values = calloc(FIXED_ARGUMENTS + 2 * count + 1, sizeof *a->values);
    if (!a->values)
        return false;
    char *const fixed[FIXED_ARGUMENTS] = {d->program,
                                          "worker",
                                          "--fd",
                                          "3",
                                          "--parent",
                                          a->parent,
                                          "--threads",
                                          a->threads,
                                          "--rows-max",
                                          a->rows_max,
                                          "--snapshot-every",
                                          a->snapshot_every,
                                          "--memory-limit",
                                          a->memory_limit,
                                          "--preload",
                                          o->preload ? "1" : "0",
                                          "--vae-tiling",
                                          o->vae_tiling ? "1" : "0",
                                          "--batching",
                                          (char *)batching_name(o->batching),
                                          "--precision",
                                          (char *)dn_precision_name(o->precision),
                                          "--device",
                                          (char *)(o->device_count ? o->devices[0] : "cpu"),
                                          "--fast",
                                          o->fast ? "1" : "0",
                                          "--plan-cache",
                                          (char *)(o->plan_cache ? o->plan_cache : ""),
                                          "--log-format",
                                          (char *)log_format_name(),
                                          "--inputs",
                                          a->inputs};
    memcpy(a->values, fixed, sizeof fixed);
    a->count = FIXED_ARGUMENTS;
    for (size_t i = 0; i < count; i++) {
        const char *name = models_name(o->models, i), *folder = models_folder(o->models, i);
        const size_t bytes = strlen(name) + strlen(folder) + 2;
        char *value = malloc(bytes);
        if (!value)
            return false;
        snprintf(value, bytes, "%s=%s", name, folder);
        a->values[a->count++] = "--model";
        a->values[a->count++] = value;
    }
    return true;
}

static int spawn(pid_t *pid, const dispatcher *d, char **arguments, int fd)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    sigset_t none, standard;
    sigemptyset(&none);
    sigemptyset(&standard);
    sigaddset(&standard, SIGINT);
    sigaddset(&standard, SIGTERM);
    sigaddset(&standard, SIGHUP);
    sigaddset(&standard, SIGPIPE);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &standard);
    int failed = posix_spawn_file_actions_adddup2(&actions, fd, WORKER_FD);
    if (!failed)
        failed = posix_spawn(pid, d->program, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static void say_why(dispatcher *d, const char *text)
{
    pthread_mutex_lock(&d->lock);
    snprintf(d->lost_why, sizeof d->lost_why, "%s", text);
    pthread_mutex_unlock(&d->lock);
    log_say(LOG_ERROR, "dispatcher", "%s", text);
}

/* The next start: at once, but later and later for a worker that dies before it was of any use. */
static void plan_respawn(dispatcher *d, double now)
{
    if (!d->ever_ready)
        d->backoff = d->backoff > 0 ? 2 * d->backoff : 0.25;
    if (d->backoff > DISPATCHER_BACKOFF_MAX_SECONDS)
        d->backoff = DISPATCHER_BACKOFF_MAX_SECONDS;
    d->respawn_at = now + (d->ever_ready ? 0 : d->backoff);
}

void worker_start(dispatcher *d, double now)
{
    int pair[2] = {-1, -1};
    worker_arguments arguments = {0};
    pid_t pid = 0;
    d->ever_ready = false;
    int failed = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ? errno : 0;
    if (!failed && !arguments_init(&arguments, d))
        failed = ENOMEM;
    if (!failed)
        failed = spawn(&pid, d, arguments.values, pair[1]);
    arguments_done(&arguments);
    if (pair[1] >= 0)
        close(pair[1]);
    const int pid_fd = failed ? -1 : pidfd_open(pid, 0);
    if (failed || pid_fd < 0) {
        char why[160];
        snprintf(why, sizeof why, "cannot start a worker: %s", strerror(failed ? failed : errno));
        say_why(d, why);
        if (!failed) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
        }
        if (pair[0] >= 0)
            close(pair[0]);
        plan_respawn(d, now);
        return;
    }
    fault_point("worker_spawned");
    protocol_pipe_init(&d->pipe, pair[0]);
    d->pid = pid;
    d->pid_fd = pid_fd;
    d->started = d->last_heard = d->last_ping = d->last_checked = now;
    d->message_lost = false;
    d->slowest_tick = 0;
    if (d->starts++)
        metrics_add(d->options.metrics, METRIC_WORKER_RESTARTS, 1);
    show(d, pid);
}

/* ---- Ending */

static void forget_worker(dispatcher *d)
{
    protocol_pipe_done(&d->pipe);
    if (d->pid_fd >= 0)
        close(d->pid_fd);
    d->pid_fd = -1;
    d->pid = 0;
    d->hello = false;
    atomic_store(&d->worker_up, false);
    atomic_store(&d->settled, false);
    metrics_set(d->options.metrics, METRIC_WORKERS, 0);
    metrics_set(d->options.metrics, METRIC_LANES_RUNNING, 0);
    for (size_t i = 0; i < models_count(d->options.models); i++) {
        if (d->models[i].ready)
            models_set_state(d->options.models, models_name(d->options.models, i), i ? MODEL_UNLOADED : MODEL_LOADING, NULL);
        models_set_batch(d->options.models, models_name(d->options.models, i), NULL, 0);
        models_set_bytes(d->options.models, models_name(d->options.models, i), 0);
        d->models[i] = (worker_side_model){0};
    }
}

static void take_lanes_back(dispatcher *d)
{
    d->outstanding_count = 0;
    for (running_job *job = d->jobs; job; job = job->next) {
        job->had_room = false;
        for (uint32_t i = 0; i < job->n; i++)
            if (job->lanes[i].place == PLACE_SENT) {
                job->lanes[i].place = PLACE_WAITING;
                job->lanes[i].steps_done = 0;
                job->changed = true;
            }
    }
}

void worker_lost(dispatcher *d, const char *why, bool blame)
{
    int status = 0;
    char text[192];
    show(d, 0);
    kill(d->pid, SIGKILL);
    while (waitpid(d->pid, &status, 0) < 0 && errno == EINTR) {
    }
    snprintf(d->lost_by, sizeof d->lost_by, "%s %d", WIFSIGNALED(status) ? "signal" : "status",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    snprintf(text, sizeof text, "worker %d is gone (%s): %s", (int)d->pid, d->lost_by, why);
    say_why(d, text);
    forget_worker(d);
    for (const running_job *job = d->jobs; job; job = job->next)
        dispatcher_note_reached(d, job);
    if (blame)
        dispatcher_suspect(d);
    take_lanes_back(d);
    plan_respawn(d, dn_now_seconds());
}

/* The worker leaves by itself when its socket closes; one that does not within two seconds is ended. */
void worker_stop(dispatcher *d)
{
    if (!d->pid)
        return;
    show(d, 0);
    protocol_pipe_done(&d->pipe);
    struct pollfd fd = {.fd = d->pid_fd, .events = POLLIN};
    if (poll(&fd, 1, 2000) <= 0)
        kill(d->pid, SIGKILL);
    while (waitpid(d->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    forget_worker(d);
    take_lanes_back(d);
}

/* ---- Watching */

static bool exited(const dispatcher *d)
{
    struct pollfd fd = {.fd = d->pid_fd, .events = POLLIN};
    return poll(&fd, 1, 0) > 0;
}

/* Only silence that was listened to counts: a machine or container that was paused as a whole comes back with a daemon that finds its
 * worker silent for long, before that one has had a chance to speak. */
static void check_silence(dispatcher *d, double now)
{
    const double unheard = now - d->last_checked - DISPATCHER_PING_SECONDS / 5;
    if (unheard > 0)
        d->last_heard = d->last_heard + unheard < now ? d->last_heard + unheard : now;
    d->last_checked = now;
    const double least = atomic_load(&d->freeze_seconds);
    const double ticks = DISPATCHER_FREEZE_TICKS * d->slowest_tick;
    if (now - d->last_heard > (ticks > least ? ticks : least)) {
        worker_lost(d, "it has been silent for too long", true);
        return;
    }
    if (now - d->last_heard > DISPATCHER_PING_SECONDS && now - d->last_ping > DISPATCHER_PING_SECONDS) {
        const protocol_message m = {.type = PROTOCOL_PING};
        d->last_ping = now;
        worker_tell(d, &m);
    }
}

/* Hears the worker, and starts one where there is none. What a dying worker said last is heard before its death counts. */
void worker_check(dispatcher *d, double now)
{
    if (!d->pid) {
        if (now >= d->respawn_at && !atomic_load(&d->drained))
            worker_start(d, now);
        return;
    }
    dn_error error;
    const bool dead = exited(d);
    dn_status status = dispatcher_read_frames(d, &error);
    while (dead && status == DN_OK && !d->pipe.ended)
        status = dispatcher_read_frames(d, &error);
    if (status == DN_OK && !d->pipe.ended)
        status = protocol_flush(&d->pipe, &error);
    if (status != DN_OK && !dead && !d->pipe.ended)
        worker_lost(d, error.message, status != DN_NO_MEMORY); /* want of memory here is no fault of anybody there */
    else if (d->message_lost && !dead && !d->pipe.ended)
        worker_lost(d, "a message to it was lost", false);
    else if (dead || d->pipe.ended)
        worker_lost(d, "it ended by itself", true);
    else
        check_silence(d, dn_now_seconds());
}
