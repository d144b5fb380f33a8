/* The worker's main loop: read frames, admit, tick, report; sleep when there is nothing to do.
 *
 * Invariant: the main thread alone touches batches and the socket; the loader and the encoder hand it finished things and wake
 * it by an eventfd. What it does not do: it never retries, never stores, never decides which job comes first. */
#include "server/worker.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/options.h"
#include "server/worker_internal.h"

dn_status worker_send(worker *w, const protocol_message *message, dn_error *error)
{
    w->last_sent = dn_now_seconds();
    return protocol_send(&w->pipe, message, error);
}

/* What was finished before goes out first: it is in the pipe. */
dn_status worker_device_lost(worker *w, const char *why, dn_error *error)
{
    const protocol_message m = {.type = PROTOCOL_LOST, .text = protocol_text(why)};
    const double until = dn_now_seconds() + WORKER_LAST_WORD_SECONDS;
    dn_status status = worker_send(w, &m, error);
    while (status == DN_OK && protocol_unsent(&w->pipe) && dn_now_seconds() < until) {
        struct pollfd fd = {.fd = w->pipe.fd, .events = POLLOUT};
        poll(&fd, 1, 100);
        status = protocol_flush(&w->pipe, error);
    }
    return dn_fail(error, DN_DEVICE_LOST, "%s", why);
}

static dn_status watch(worker *w, const protocol_message *m)
{
    worker_lane *lane = worker_find_lane(w, m->lane);
    if (lane)
        lane->watched = m->state != 0;
    return DN_OK;
}

static dn_status stored(worker *w, const protocol_message *m, dn_error *error)
{
    worker_lane *lane = worker_find_lane(w, m->lane);
    if (lane && lane->state != LANE_SENT)
        return dn_fail(error, DN_INVALID, "STORED for a lane whose image was not sent");
    if (lane)
        worker_release_lane(lane);
    fault_point("worker_lane_stored");
    return DN_OK;
}

static dn_status handle(worker *w, const protocol_message *m, dn_error *error)
{
    const protocol_message alive = {.type = PROTOCOL_ALIVE};
    switch (m->type) {
    case PROTOCOL_ADMIT:
        return worker_admit(w, m, error);
    case PROTOCOL_CANCEL:
        return worker_cancel(w, m->lane, error);
    case PROTOCOL_WATCH:
        return watch(w, m);
    case PROTOCOL_STORED:
        return stored(w, m, error);
    case PROTOCOL_DRAIN:
        return worker_drain(w, error);
    case PROTOCOL_PING:
        return worker_send(w, &alive, error);
    default:
        return dn_fail(error, DN_INVALID, "a message that only a worker sends (type %d)", (int)m->type);
    }
}

static dn_status read_frames(worker *w, dn_error *error)
{
    dn_status status = protocol_fill(&w->pipe, error);
    for (bool got = true; status == DN_OK && got;) {
        protocol_message m;
        status = protocol_receive(&w->pipe, &m, &got, error);
        if (status == DN_OK && got)
            status = handle(w, &m, error);
    }
    return status;
}

/* DRAINED is said once no lane computes or is being encoded. */
static dn_status say_drained(worker *w, dn_error *error)
{
    if (!w->draining || w->drained)
        return DN_OK;
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        if (w->lanes[i].state != LANE_FREE && w->lanes[i].state != LANE_SENT)
            return DN_OK;
    w->drained = true;
    const protocol_message m = {.type = PROTOCOL_DRAINED};
    return worker_send(w, &m, error);
}

static void wait_for_something(worker *w)
{
    struct pollfd fds[2] = {{.fd = w->pipe.fd, .events = POLLIN}, {.fd = w->wake_fd, .events = POLLIN}};
    if (protocol_unsent(&w->pipe))
        fds[0].events |= POLLOUT;
    const double idle = WORKER_ALIVE_SECONDS - (dn_now_seconds() - w->last_sent);
    const int timeout_ms = worker_has_work(w) || idle <= 0 ? 0 : (int)(idle * 1000) + 1;
    if (poll(fds, 2, timeout_ms) > 0 && fds[1].revents) {
        eventfd_t ignored;
        eventfd_read(w->wake_fd, &ignored);
    }
}

static dn_status one_turn(worker *w, dn_error *error)
{
    wait_for_something(w);
    const double began = dn_now_seconds();
    w->ticked = NULL;
    dn_status status = read_frames(w, error);
    if (status == DN_OK)
        status = worker_take_coded(w, error); /* before lanes enter: a prepared one must not wait for the next wake-up */
    if (status == DN_OK)
        status = worker_manage_models(w, error);
    if (status == DN_OK)
        status = worker_enter_waiting(w, error);
    if (status == DN_OK)
        status = worker_tick(w, error);
    if (status == DN_OK)
        status = worker_send_encoded(w, error);
    if (status == DN_OK)
        status = say_drained(w, error);
    w->tick_seconds += w->ticked ? dn_now_seconds() - began : 0;
    if (status == DN_OK && w->ticked && w->report.rows > 0)
        status = worker_learn_tick(w, w->ticked, w->report.rows, dn_now_seconds() - began, error);
    const protocol_message alive = {.type = PROTOCOL_ALIVE};
    if (status == DN_OK && dn_now_seconds() - w->last_sent >= WORKER_ALIVE_SECONDS)
        status = worker_send(w, &alive, error);
    return status == DN_OK ? protocol_flush(&w->pipe, error) : status;
}

static dn_status serve(worker *w, dn_error *error)
{
    const protocol_message hello = {.type = PROTOCOL_HELLO, .state = PROTOCOL_VERSION, .credit = WORKER_CREDIT};
    fault_point("worker_started");
    dn_status status = worker_send(w, &hello, error);
    if (status == DN_OK)
        status = worker_models_start(w, error);
    while (status == DN_OK && !w->pipe.ended)
        status = one_turn(w, error);
    return w->pipe.ended ? DN_OK : status;
}

static void worker_free(worker *w)
{
    worker_codec_stop(&w->codec);
    worker_encoder_stop(&w->encoder);
    for (unsigned i = 0; i < WORKER_CREDIT; i++)
        worker_release_lane(&w->lanes[i]);
    worker_models_done(w);
    protocol_pipe_done(&w->pipe);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    free(w);
}

/* Beside a GPU the processor has time for several. */
static unsigned encoders_of(const worker_options *options)
{
    const unsigned cpus = dn_available_cpus();
    const bool cpu = !options->device || !options->device[0] || strcmp(options->device, "cpu") == 0;
    return cpu || cpus < 2 ? 1 : cpus < WORKER_ENCODERS_MAX ? cpus : WORKER_ENCODERS_MAX;
}

dn_status worker_run(const worker_options *options, dn_error *error)
{
    worker *w = calloc(1, sizeof *w);
    if (!w)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the worker");
    w->options = *options;
    protocol_pipe_init(&w->pipe, options->fd);
    w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    dn_status status = w->wake_fd < 0 ? dn_fail(error, DN_IO, "cannot make an eventfd: %s", strerror(errno)) : DN_OK;
    if (status == DN_OK)
        status = worker_encoder_start(&w->encoder, w->wake_fd, encoders_of(options), error);
    if (status == DN_OK)
        status = worker_codec_start(&w->codec, w->wake_fd, options->inputs, error);
    if (status == DN_OK)
        status = serve(w, error);
    if (status != DN_OK)
        log_say(LOG_ERROR, "worker", "%s", error->message);
    /* A load may take minutes, and nobody waits for its result any more; a lost device may never answer: the process goes at once. */
    if (status == DN_DEVICE_LOST || !worker_loader_stop(&w->loader))
        _exit(status == DN_OK ? 0 : dn_exit_status(status));
    worker_free(w);
    return status;
}
