/* The dispatcher's thread, its inbox, and what other threads may call.
 *
 * Invariant: other threads only append to the inbox or set an atomic, and write the eventfd; the thread alone owns jobs, lanes and
 * the workers. Every store request of ours comes back through the inbox exactly once, in the order of commits, so that a claim is
 * always known here before a cancel that was committed after it. */
#include "server/dispatcher.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/dispatcher_internal.h"
#include "server/fault.h"

/* ---- Any thread */

static void wake(dispatcher *d)
{
    eventfd_write(d->event_fd, 1);
}

void dispatcher_post(dispatcher *d, pending *item)
{
    item->next = NULL;
    pthread_mutex_lock(&d->lock);
    *d->inbox_tail = item;
    d->inbox_tail = &item->next;
    wake(d); /* before another can take the last item, and the dispatcher is no more */
    pthread_mutex_unlock(&d->lock);
}

void dispatcher_store_done(store_request *request)
{
    pending *item = request->payload;
    dispatcher_post(item->d, item);
}

void dispatcher_kick(dispatcher *d)
{
    atomic_store(&d->kicked, true);
    wake(d);
}

void dispatcher_deadline(dispatcher *d, int64_t at_ms)
{
    int64_t next = atomic_load(&d->next_due_ms);
    while (at_ms < next && !atomic_compare_exchange_weak(&d->next_due_ms, &next, at_ms)) {
    }
    wake(d);
}

void dispatcher_cancel(dispatcher *d, const char *job_id)
{
    pending *item = calloc(1, sizeof *item);
    if (!item)
        return; /* The request is stored: the job ends as canceled with its last image. */
    item->d = d;
    item->kind = PENDING_CANCEL;
    snprintf(item->id, sizeof item->id, "%s", job_id);
    dispatcher_post(d, item);
}

/* Of the workers that are gone, why; of several, of the first that has a reason. */
static void say_no_worker(dispatcher *d, const char *model, char *reason, size_t reason_bytes)
{
    const char *why = "";
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->worker_count && !why[0]; i++)
        why = atomic_load(&d->workers[i].up) ? "" : d->workers[i].lost_why;
    snprintf(reason, reason_bytes, "the worker for %s is being started%s%s", model ? model : "(none)", why[0] ? " again: " : "", why);
    pthread_mutex_unlock(&d->lock);
}

/* up: some worker is; serves: one that has loaded what it had to. */
static void look_at_workers(dispatcher *d, bool *up, bool *serves)
{
    *up = *serves = false;
    for (unsigned i = 0; i < d->worker_count; i++) {
        worker_side *w = &d->workers[i];
        const bool there = atomic_load(&w->up);
        *up |= there;
        *serves |= there && atomic_load(&w->settled) && !atomic_load(&w->useless);
    }
}

bool dispatcher_worker_ready(dispatcher *d, char *reason, size_t reason_bytes)
{
    const char *name = models_name(d->options.models, 0);
    char cause[256] = "";
    bool up, serves;
    look_at_workers(d, &up, &serves); /* before the state: a model that failed in between is none that is ready */
    const model_state state = name ? models_state(d->options.models, name, cause, sizeof cause) : MODEL_FAILED;
    for (size_t i = 1; state == MODEL_READY && d->options.preload && i < models_count(d->options.models); i++)
        if (models_state(d->options.models, models_name(d->options.models, i), NULL, 0) == MODEL_LOADING)
            name = models_name(d->options.models, i); /* the one to be named */
    const bool ready = serves && state != MODEL_FAILED && !atomic_load(&d->draining);
    if (!reason || !reason_bytes)
        return ready;
    if (ready)
        reason[0] = 0;
    else if (atomic_load(&d->draining))
        snprintf(reason, reason_bytes, "draining");
    else if (state == MODEL_FAILED)
        snprintf(reason, reason_bytes, "model %s cannot be loaded: %s", name ? name : "(none)", cause);
    else if (up)
        snprintf(reason, reason_bytes, "model %s is being loaded", name);
    else
        say_no_worker(d, name, reason, reason_bytes);
    return ready;
}

void dispatcher_drain(dispatcher *d, double grace_seconds)
{
    atomic_store(&d->drain_deadline, dn_now_seconds() + grace_seconds);
    atomic_store(&d->draining, true);
    wake(d);
}

void dispatcher_hurry(dispatcher *d)
{
    atomic_store(&d->hurry, true);
    wake(d);
}

bool dispatcher_drained(dispatcher *d)
{
    return atomic_load(&d->drained);
}

/* ---- The thread */

pending *dispatcher_pending(dispatcher *d, store_op op)
{
    pending *item = calloc(1, sizeof *item);
    if (!item)
        return NULL;
    item->d = d;
    item->kind = PENDING_STORE;
    item->request = store_request_create(op, dispatcher_store_done, item);
    if (item->request)
        return item;
    free(item);
    return NULL;
}

void dispatcher_submit(dispatcher *d, pending *item)
{
    d->store_pending++;
    store_submit(d->options.store, item->request);
}

static void cancel_job(dispatcher *d, const char *id)
{
    running_job *job = job_find(d, id, 0);
    if (job && job->end == END_NONE)
        job_end_with(d, job, END_CANCELED, NULL, NULL);
}

static void read_inbox(dispatcher *d)
{
    pthread_mutex_lock(&d->lock);
    pending *item = d->inbox;
    d->inbox = NULL;
    d->inbox_tail = &d->inbox;
    pthread_mutex_unlock(&d->lock);
    while (item) {
        pending *next = item->next;
        if (item->kind == PENDING_CANCEL) {
            cancel_job(d, item->id);
            free(item);
        } else {
            d->store_pending--;
            dispatcher_result(d, item);
        }
        item = next;
    }
}

static void requeue_all(dispatcher *d, bool untouched_only)
{
    for (running_job *job = d->jobs, *next; job; job = next) {
        next = job->next; /* Ending one job removes no other. */
        if (job->end != END_NONE || (untouched_only && job_count_lanes(job, PLACE_WAITING) < job->n))
            continue;
        job_end_with(d, job, END_REQUEUED, "shutdown", NULL);
    }
}

static void tell_drain(dispatcher *d, double now)
{
    const protocol_message m = {.type = PROTOCOL_DRAIN};
    fault_point("drain_told");
    d->drain_sent = true;
    d->drain_sent_at = now;
    for (unsigned i = 0; i < d->worker_count; i++)
        worker_tell(&d->workers[i], &m);
}

static void drain(dispatcher *d, double now)
{
    requeue_all(d, true);
    const bool time_is_up = atomic_load(&d->hurry) || now >= atomic_load(&d->drain_deadline);
    if (time_is_up && !d->drain_sent)
        tell_drain(d, now);
    bool held = !d->drain_sent;
    for (unsigned i = 0; d->drain_sent && i < d->worker_count; i++) {
        worker_side *w = &d->workers[i];
        if (w->pid && !w->let_go && now - d->drain_sent_at > DISPATCHER_DRAIN_SECONDS)
            worker_lost(d, w, "did not let go in time", false);
        held |= w->pid && !w->let_go;
    }
    if (!held)
        requeue_all(d, false);
    if (!d->jobs && !d->store_pending && !d->deferred)
        atomic_store(&d->drained, true);
}

/* A store that has stopped takes nothing more; what runs is recovered at the next start. */
static void give_up(dispatcher *d)
{
    while (d->jobs)
        job_remove(d, d->jobs, false);
    atomic_store(&d->drained, true);
}

static void announce_queue(dispatcher *d, double now)
{
    if (!d->queue_moved || now - d->last_queue_moved < DISPATCHER_QUEUE_SECONDS)
        return;
    d->queue_moved = false;
    d->last_queue_moved = now;
    hub_queue_moved(d->options.hub);
}

static int timeout_ms(const dispatcher *d, double now)
{
    double wait = 1.0;
    if (d->jobs || d->deferred || d->queue_moved || atomic_load(&d->draining))
        wait = 0.05;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const worker_side *w = &d->workers[i];
        if (!w->pid && !w->dying && !w->spare && w->respawn_at - now < wait)
            wait = w->respawn_at > now ? w->respawn_at - now : 0;
    }
    const int64_t deadline = dispatcher_next_deadline(d), wall = dn_wall_ms();
    if (deadline < wall + 1000 && (double)(deadline - wall) / 1000 < wait)
        wait = deadline > wall ? (double)(deadline - wall) / 1000 : 0;
    return (int)(wait * 1000) + 1;
}

static void wait_for_something(dispatcher *d)
{
    struct pollfd fds[1 + 2 * (DN_DEVICES_MAX + 1)] = {{.fd = d->event_fd, .events = POLLIN}};
    nfds_t count = 1;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const worker_side *w = &d->workers[i];
        const short events = w->pid && protocol_unsent(&w->pipe) ? POLLIN | POLLOUT : POLLIN;
        fds[count++] = (struct pollfd){.fd = w->pid ? w->pipe.fd : -1, .events = events};
        fds[count++] = (struct pollfd){.fd = w->pid ? w->pid_fd : -1, .events = POLLIN};
    }
    if (poll(fds, count, timeout_ms(d, dn_now_seconds())) > 0 && fds[0].revents) {
        eventfd_t ignored;
        eventfd_read(d->event_fd, &ignored);
    }
}

static void one_turn(dispatcher *d)
{
    wait_for_something(d);
    read_inbox(d);
    const double now = dn_now_seconds();
    for (unsigned i = 0; i < d->worker_count; i++)
        worker_check(d, &d->workers[i], now);
    if (atomic_load(&d->store_gone)) {
        give_up(d);
        return;
    }
    dispatcher_retry_deferred(d, now);
    dispatcher_check_deadlines(d);
    if (atomic_load(&d->draining))
        drain(d, now);
    else
        dispatcher_claim(d, now);
    dispatcher_feed(d);
    dispatcher_forecast_update(d, now);
    dispatcher_publish_progress(d, now);
    announce_queue(d, now);
}

/* After stop: no workers any more, and nothing of ours left with the files thread or the store. */
static void wind_up(dispatcher *d)
{
    for (unsigned i = 0; i < d->worker_count; i++)
        worker_stop(d, &d->workers[i]);
    while (d->store_pending) {
        struct pollfd fd = {.fd = d->event_fd, .events = POLLIN};
        poll(&fd, 1, 100);
        eventfd_t ignored;
        eventfd_read(d->event_fd, &ignored);
        read_inbox(d);
    }
    files_stop(&d->files);
}

static void *dispatcher_main(void *payload)
{
    dispatcher *d = payload;
    snapshot_sweep(d);
    while (!atomic_load(&d->stop))
        one_turn(d);
    wind_up(d);
    return NULL;
}

/* ---- Start and stop */

/* What the store remembers of models, so that requests can be validated before the worker has spoken. */
static void remember_models(dispatcher *d)
{
    for (size_t i = 0; i < models_count(d->options.models); i++) {
        const char *name = models_name(d->options.models, i);
        char *json = NULL;
        api_model *model = NULL;
        if (!models_lookup(d->options.models, name) && store_model(d->options.store, name, &json) == STORE_OK && json &&
            api_model_from_json(&model, json, strlen(json), NULL) == DN_OK && strcmp(model->name, name) == 0) {
            models_describe(d->options.models, model);
            model = NULL;
        }
        api_model_free(model);
        free(json);
    }
}

static void dispatcher_free(dispatcher *d)
{
    while (d->deferred) {
        pending *item = d->deferred;
        d->deferred = item->next;
        store_request_free(item->request);
        free(item->png);
        free(item);
    }
    while (d->inbox) {
        pending *item = d->inbox;
        d->inbox = item->next;
        store_request_free(item->request);
        free(item);
    }
    while (d->jobs)
        job_remove(d, d->jobs, false);
    dispatcher_forget_strangers(d);
    if (d->event_fd >= 0)
        close(d->event_fd);
    pthread_mutex_destroy(&d->lock);
    workers_free(d);
    dispatcher_forecast_done(d);
    free(d->program);
    free(d);
}

dn_status dispatcher_start(dispatcher **out, const dispatcher_options *options, dn_error *error)
{
    dispatcher *d = calloc(1, sizeof *d);
    if (!d)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the dispatcher");
    d->options = *options;
    d->daemon = getpid();
    d->rows_per_job = 8;
    atomic_store(&d->freeze_seconds, options->freeze_seconds > 0 ? options->freeze_seconds : DISPATCHER_FREEZE_SECONDS);
    d->files.images_fd = d->files.snapshots_fd = -1;
    d->inbox_tail = &d->inbox;
    pthread_mutex_init(&d->lock, NULL);
    pthread_mutex_init(&d->forecast_lock, NULL);
    d->program = strdup(options->program ? options->program : "/proc/self/exe");
    d->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    dn_status status = workers_create(d, error);
    if (status == DN_OK && !d->program)
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for the dispatcher");
    else if (status == DN_OK && d->event_fd < 0)
        status = dn_fail(error, DN_IO, "cannot make an eventfd: %s", strerror(errno));
    if (status == DN_OK)
        status = dispatcher_forecast_start(d, error);
    if (status == DN_OK) {
        remember_models(d);
        dispatcher_find_strangers(d);
        status = files_start(&d->files, d, error);
    }
    const int failed = status == DN_OK ? pthread_create(&d->thread, NULL, dispatcher_main, d) : 0;
    if (failed)
        status = dn_fail(error, DN_IO, "cannot start the dispatcher's thread: %s", strerror(failed));
    if (status != DN_OK) {
        files_stop(&d->files);
        dispatcher_free(d);
        return status;
    }
    *out = d;
    return DN_OK;
}

void dispatcher_stop(dispatcher *d)
{
    if (!d)
        return;
    atomic_store(&d->stop, true);
    wake(d);
    pthread_join(d->thread, NULL);
    dispatcher_free(d);
}
