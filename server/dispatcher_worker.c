/* A worker process, seen from the daemon: started, watched, ended, started again.
 *
 * Invariant: at most one process lives for each worker; nothing but its socket is inherited by it (every other descriptor is close-on-exec, the lock
 * of the data directory among them). One that does not even end when it is killed, since its device does not answer, holds nobody up: its
 * successor waits for its end, the dispatcher does not. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
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

void worker_tell(worker_side *w, const protocol_message *message)
{
    dn_error error;
    if (!w->pid || w->message_lost || protocol_send(&w->pipe, message, &error) == DN_OK)
        return;
    log_say(LOG_ERROR, "dispatcher", "%s", error.message);
    w->message_lost = true;
}

static void show(dispatcher *d, worker_side *w, pid_t pid)
{
    pthread_mutex_lock(&d->lock);
    w->shown_pid = pid;
    w->shown_starts = w->starts;
    pthread_mutex_unlock(&d->lock);
}

unsigned dispatcher_worker_count(dispatcher *d)
{
    const worker_side *last = &d->workers[d->worker_count - 1];
    pthread_mutex_lock(&d->lock);
    const bool unused = last->spare && !last->shown_starts;
    pthread_mutex_unlock(&d->lock);
    return d->worker_count - unused;
}

void dispatcher_get_worker(dispatcher *d, unsigned index, dispatcher_worker *out)
{
    process_usage usage = {0};
    worker_side *w = &d->workers[index];
    pthread_mutex_lock(&d->lock);
    const pid_t pid = w->shown_pid;
    const unsigned starts = w->shown_starts;
    if (pid)
        process_usage_read(&usage, pid);
    pthread_mutex_unlock(&d->lock);
    const char *state = !pid                        ? "gone"
                        : !atomic_load(&w->up)      ? "starting"
                        : atomic_load(&d->draining) ? "draining"
                        : !atomic_load(&w->settled) ? "loading"
                                                    : "ready";
    *out = (dispatcher_worker){.pid = pid,
                               .state = state,
                               .device = w->device,
                               .restarts = starts ? starts - 1 : 0,
                               .resident_bytes = usage.resident_bytes,
                               .cpu_seconds = usage.cpu_seconds};
}

/* ---- All of them */

static dn_status init_worker(dispatcher *d, unsigned index, dn_error *error)
{
    const dispatcher_options *o = &d->options;
    worker_side *w = &d->workers[index];
    w->index = index;
    w->spare = o->device_count && index == o->device_count;
    w->device = index < o->device_count ? o->devices[index] : "cpu";
    w->pid_fd = -1;
    protocol_pipe_init(&w->pipe, -1);
    w->models = calloc(models_count(o->models) + 1, sizeof *w->models);
    w->tables = calloc(models_count(o->models) + 1, sizeof *w->tables);
    return w->models && w->tables ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory for the dispatcher");
}

dn_status workers_create(dispatcher *d, dn_error *error)
{
    const dispatcher_options *o = &d->options;
    d->worker_count = o->device_count ? o->device_count + o->device_fallback : 1;
    d->workers = calloc(d->worker_count, sizeof *d->workers);
    d->no_jobs_until = calloc(models_count(o->models) + 1, sizeof *d->no_jobs_until);
    dn_status status = d->workers && d->no_jobs_until ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory for the dispatcher");
    for (unsigned i = 0; status == DN_OK && i < d->worker_count; i++)
        status = init_worker(d, i, error);
    return status;
}

void workers_free(dispatcher *d)
{
    for (unsigned i = 0; d->workers && i < d->worker_count; i++) {
        protocol_pipe_done(&d->workers[i].pipe);
        free(d->workers[i].models);
        free(d->workers[i].tables);
    }
    free(d->workers);
    free(d->no_jobs_until);
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

static bool arguments_init(worker_arguments *a, const dispatcher *d, const worker_side *w)
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
                                          (char *)w->device,
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

static void say_why(dispatcher *d, worker_side *w, const char *text)
{
    pthread_mutex_lock(&d->lock);
    snprintf(w->lost_why, sizeof w->lost_why, "%s", text);
    pthread_mutex_unlock(&d->lock);
    log_say(LOG_ERROR, "dispatcher", "%s", text);
}

/* The next start: at once, but later and later for a worker that dies before it was of any use. */
static void plan_respawn(dispatcher *d, worker_side *w, double now)
{
    const bool useful = w->ever_ready && !(w->device_lost && now - w->started < DISPATCHER_DEVICE_LEAST_SECONDS);
    w->failures = useful ? 0 : w->failures + 1;
    w->backoff = useful ? 0 : w->backoff > 0 ? fmin(2 * w->backoff, DISPATCHER_BACKOFF_MAX_SECONDS) : DISPATCHER_BACKOFF_SECONDS;
    w->respawn_at = now + w->backoff;
    w->ever_ready = false;
    for (size_t i = 0; i < models_count(d->options.models); i++)
        dispatcher_show_model(d, i); /* one that only this worker could still have loaded may have failed now */
}

static void worker_start(dispatcher *d, worker_side *w, double now)
{
    int pair[2] = {-1, -1};
    worker_arguments arguments = {0};
    pid_t pid = 0;
    w->ever_ready = false;
    int failed = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) ? errno : 0;
    if (!failed && !arguments_init(&arguments, d, w))
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
        say_why(d, w, why);
        if (!failed) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
        }
        if (pair[0] >= 0)
            close(pair[0]);
        plan_respawn(d, w, now);
        return;
    }
    fault_point("worker_spawned");
    protocol_pipe_init(&w->pipe, pair[0]);
    w->pid = pid;
    w->pid_fd = pid_fd;
    w->started = w->last_heard = w->last_ping = w->last_checked = now;
    w->message_lost = w->device_lost = w->let_go = w->retiring = false;
    w->slowest_tick = 0;
    if (w->starts++)
        metrics_add(d->options.metrics, METRIC_WORKER_RESTARTS, 1);
    show(d, w, pid);
}

/* ---- Ending */

static void forget_models(dispatcher *d, worker_side *w)
{
    models *all = d->options.models;
    for (size_t i = 0; i < models_count(all); i++) {
        const bool took = w->models[i].ready;
        w->models[i] = (worker_side_model){0};
        if (!dispatcher_show_model(d, i) && took)
            models_set_state(all, models_name(all, i), i ? MODEL_UNLOADED : MODEL_LOADING, NULL);
    }
}

static void forget_worker(dispatcher *d, worker_side *w)
{
    protocol_pipe_done(&w->pipe);
    if (w->pid_fd >= 0)
        close(w->pid_fd);
    w->pid_fd = -1;
    w->pid = 0;
    w->hello = false;
    atomic_store(&w->up, false);
    atomic_store(&w->settled, false);
    atomic_store(&w->useless, false);
    forget_models(d, w);
}

static void take_lanes_back(dispatcher *d, worker_side *w)
{
    w->outstanding_count = 0;
    for (running_job *job = d->jobs; job; job = job->next)
        for (uint32_t i = 0; i < job->n; i++)
            if (job->lanes[i].place == PLACE_SENT && job->lanes[i].worker == w) {
                job->lanes[i].place = PLACE_WAITING;
                job->lanes[i].steps_done = 0;
                job->changed = true;
            }
    for (running_job *job = d->jobs; job; job = job->next)
        job->had_room = false;
    dispatcher_show_workers(d);
}

/* " on cuda:1"; nothing of the CPU. */
static void say_where(char *out, size_t out_bytes, const worker_side *w)
{
    const bool named = strcmp(w->device, "cpu") != 0;
    snprintf(out, out_bytes, "%s%s", named ? " on " : "", named ? w->device : "");
}

/* Ends the process; false: it is still ending. */
static bool bury(worker_side *w, int *status)
{
    struct pollfd fd = {.fd = w->pid_fd, .events = POLLIN};
    kill(w->pid, SIGKILL);
    const bool ended = poll(&fd, 1, DISPATCHER_BURY_MS) > 0;
    while (ended && waitpid(w->pid, status, 0) < 0 && errno == EINTR) {
    }
    w->dying = ended ? 0 : w->pid;
    return ended;
}

void worker_lost(dispatcher *d, worker_side *w, const char *why, bool blame)
{
    int status = 0;
    char text[sizeof w->lost_why], where[32], end[24];
    show(d, w, 0);
    if (bury(w, &status))
        snprintf(end, sizeof end, "%s %d", WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    else
        snprintf(end, sizeof end, "it does not end");
    if (!w->device_lost)
        snprintf(w->lost_by, sizeof w->lost_by, "%s", end);
    say_where(where, sizeof where, w);
    snprintf(text, sizeof text, "worker %d%s is gone (%s): %.255s", (int)w->pid, where, end, w->device_lost ? w->lost_by : why);
    say_why(d, w, text);
    forget_worker(d, w);
    for (const running_job *job = d->jobs; job; job = job->next)
        dispatcher_note_reached(d, job, w);
    if (blame) {
        w->died_at = dn_now_seconds();
        dispatcher_suspect(d, w);
    }
    take_lanes_back(d, w);
    plan_respawn(d, w, dn_now_seconds());
}

/* The worker leaves by itself when its socket closes; one that does not within two seconds is ended. */
void worker_stop(dispatcher *d, worker_side *w)
{
    if (!w->pid)
        return;
    show(d, w, 0);
    protocol_pipe_done(&w->pipe);
    struct pollfd fd = {.fd = w->pid_fd, .events = POLLIN};
    int status;
    poll(&fd, 1, 2000);
    if (!bury(w, &status))
        log_say(LOG_ERROR, "dispatcher", "worker %d was killed and does not end: it is left behind", (int)w->pid);
    forget_worker(d, w);
    take_lanes_back(d, w);
}

/* ---- Watching */

static bool exited(const worker_side *w)
{
    struct pollfd fd = {.fd = w->pid_fd, .events = POLLIN};
    return poll(&fd, 1, 0) > 0;
}

/* Only silence that was listened to counts: a machine or container that was paused as a whole comes back with a daemon that finds its
 * worker silent for long, before that one has had a chance to speak. */
static void check_silence(dispatcher *d, worker_side *w, double now)
{
    const double unheard = now - w->last_checked - DISPATCHER_PING_SECONDS / 5;
    if (unheard > 0)
        w->last_heard = w->last_heard + unheard < now ? w->last_heard + unheard : now;
    w->last_checked = now;
    const double least = atomic_load(&d->freeze_seconds);
    const double ticks = DISPATCHER_FREEZE_TICKS * w->slowest_tick;
    if (now - w->last_heard > (ticks > least ? ticks : least)) {
        worker_lost(d, w, "it has been silent for too long", true);
        return;
    }
    if (now - w->last_heard > DISPATCHER_PING_SECONDS && now - w->last_ping > DISPATCHER_PING_SECONDS) {
        const protocol_message m = {.type = PROTOCOL_PING};
        w->last_ping = now;
        worker_tell(w, &m);
    }
}

/* Whether the process should be there: the spare one only while every other worker has failed to start again and again. */
static bool is_due(const dispatcher *d, const worker_side *w, double now)
{
    if (w->dying)
        return false;
    for (unsigned i = 0; w->spare && i < d->worker_count; i++)
        if (!d->workers[i].spare && !worker_hopeless(&d->workers[i]))
            return false;
    return now >= w->respawn_at && !d->drain_sent && !atomic_load(&d->drained);
}

static void start_when_due(dispatcher *d, worker_side *w, double now)
{
    if (!is_due(d, w, now))
        return;
    if (w->spare)
        log_say(LOG_WARNING, "dispatcher",
                "no device can be used (%.160s): a worker on the CPU works off the queue, and its pictures have other bytes",
                d->workers[0].lost_why);
    worker_start(d, w, now);
}

/* The spare worker goes when another can do its work, and what it has is done. */
static void retire(dispatcher *d, worker_side *w)
{
    for (unsigned i = 0; !w->retiring && i < d->worker_count; i++) {
        worker_side *other = &d->workers[i];
        w->retiring = !other->spare && atomic_load(&other->settled) && !atomic_load(&other->useless);
        if (w->retiring)
            log_say(LOG_INFO, "dispatcher", "%s is there again: the worker on the CPU ends what it has, and goes", other->device);
    }
    if (w->retiring && !w->outstanding_count) {
        worker_stop(d, w);
        w->failures = 0;
        w->respawn_at = w->backoff = 0;
    }
}

/* Hears the worker, and starts one where there is none. What a dying worker said last is heard before its death counts. */
void worker_check(dispatcher *d, worker_side *w, double now)
{
    if (w->dying && waitpid(w->dying, NULL, WNOHANG) == w->dying)
        w->dying = 0;
    if (!w->pid) {
        start_when_due(d, w, now);
        return;
    }
    dn_error error;
    const bool dead = exited(w);
    dn_status status = dispatcher_read_frames(d, w, &error);
    while (dead && status == DN_OK && !w->pipe.ended)
        status = dispatcher_read_frames(d, w, &error);
    if (status == DN_OK && !w->pipe.ended)
        status = protocol_flush(&w->pipe, &error);
    if (status != DN_OK && !dead && !w->pipe.ended)
        worker_lost(d, w, error.message, status != DN_NO_MEMORY); /* want of memory here is no fault of anybody there */
    else if (w->message_lost && !dead && !w->pipe.ended)
        worker_lost(d, w, "a message to it was lost", false);
    else if (dead || w->pipe.ended)
        worker_lost(d, w, "it ended by itself", true);
    else
        check_silence(d, w, dn_now_seconds());
    if (w->pid && w->spare)
        retire(d, w);
}
