/* The clock of http: libmicrohttpd's time-out is one of inactivity, so a client that sends a byte a second would hold a
 * connection for ever, and a suspended connection never times out at all. This one thread ends both kinds of waiting. */
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "server/http_internal.h"

/* A wake that comes while the request runs is kept (PENDING), so that "nothing to do, so sleep" cannot miss it. */
enum { RUNNING = 0, SUSPENDED = 1, PENDING = 2 };

void http_deadline(http_request *request, double seconds)
{
    http *server = request->server;
    if (request->link == NULL) {
        return;
    }
    pthread_mutex_lock(&server->lock);
    request->link->deadline = seconds > 0.0 ? dn_now_seconds() + seconds * server->patience : 0.0;
    pthread_mutex_unlock(&server->lock);
}

/* Under the lock: closes what is overdue. shutdown() makes libmicrohttpd see the end; the descriptor stays its own. */
static void close_overdue(http *server, double now)
{
    for (http_connection *c = server->connections; c != NULL; c = c->next) {
        if (c->deadline > 0.0 && now > c->deadline && !c->closing) {
            c->closing = true;
            shutdown(c->fd, SHUT_RDWR);
        }
    }
}

/* ---- Timers: a wheel of ticks, since two thousand streams that look once a second would make a list be walked all the time. */

static void timer_set(http_request *request, double at)
{
    http *server = request->server;
    uint64_t tick = (uint64_t)ceil(at / HTTP_TICK_SECONDS);
    tick = tick > server->wheel_tick ? tick : server->wheel_tick + 1;
    http_request **slot = &server->wheel[tick % HTTP_WHEEL_SLOTS];
    http_timer_clear(request);
    request->wake_at = at;
    request->timer_next = *slot;
    request->timer_link = slot;
    if (*slot != NULL) {
        (*slot)->timer_link = &request->timer_next;
    }
    *slot = request;
}

void http_timer_clear(http_request *request)
{
    if (request->timer_link != NULL) {
        *request->timer_link = request->timer_next;
        if (request->timer_next != NULL) {
            request->timer_next->timer_link = request->timer_link;
        }
    }
    request->timer_next = NULL;
    request->timer_link = NULL;
    request->wake_at = 0.0;
}

/* Those of a slot that are due; the others come in a later round of the wheel. */
static void wake_slot(const http *server, uint64_t tick, double now)
{
    for (http_request *r = server->wheel[tick % HTTP_WHEEL_SLOTS], *next; r != NULL; r = next) {
        next = r->timer_next;
        if (r->wake_at <= now) {
            http_timer_clear(r);
            if (atomic_load(&r->suspended) == SUSPENDED) {
                r->deadline_passed = true;
                http_resume(r);
            }
        }
    }
}

/* Under the lock: wakes what is due. Returns for how many ticks the clock may sleep. */
static unsigned wake_due(http *server, double now)
{
    uint64_t tick = (uint64_t)(now / HTTP_TICK_SECONDS);
    if (tick - server->wheel_tick > HTTP_WHEEL_SLOTS) {
        server->wheel_tick = tick - HTTP_WHEEL_SLOTS; /* every slot once is all of them */
    }
    while (server->wheel_tick < tick) {
        wake_slot(server, ++server->wheel_tick, now);
    }
    unsigned pause = 1;
    while (pause < HTTP_CLOCK_TICKS && server->wheel[(tick + pause) % HTTP_WHEEL_SLOTS] == NULL) {
        pause++;
    }
    return pause;
}

static bool asleep(const http_request *r)
{
    return atomic_load(&r->suspended) == SUSPENDED && !r->held && r->link != NULL;
}

static bool make_room(http *server, size_t count)
{
    if (count > server->polled_room) {
        struct pollfd *grown = realloc(server->polled, 2 * count * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        server->polled = grown;
        server->polled_room = 2 * count;
    }
    return true;
}

/* Under the lock: wakes the suspended requests whose client has closed. libmicrohttpd does not look at a suspended connection, so that
 * without this a client that waits, gives up and comes again would hold a connection for every try until the wait is over. A client
 * that only closed its own direction is taken for one that left, as proxies do. */
static void wake_gone(http *server)
{
    size_t count = 0;
    for (http_request *r = server->requests; r != NULL; r = r->next) {
        if (asleep(r) && make_room(server, count + 1)) {
            server->polled[count++] = (struct pollfd){.fd = r->link->fd, .events = POLLRDHUP};
        }
    }
    if (count == 0 || poll(server->polled, count, 0) <= 0) {
        return;
    }
    /* The list is the same, for the lock is held, but some may have been woken meanwhile: they are found by their descriptor. */
    size_t at = 0;
    for (http_request *r = server->requests; r != NULL && at < count; r = r->next) {
        if (r->link == NULL || r->link->fd != server->polled[at].fd) {
            continue;
        }
        if (server->polled[at++].revents != 0 && asleep(r)) {
            atomic_store(&r->gone, true);
            http_resume(r);
        }
    }
}

/* Under the lock, which it lets go while it looks at the keys: ends the streams whose key has been revoked since they were opened. */
static void end_revoked(http *server)
{
    bool streams = false;
    for (const http_request *r = server->requests; r != NULL && !streams; r = r->next) {
        streams = atomic_load(&r->streaming);
    }
    if (!streams || server->options.auth == NULL) {
        return;
    }
    pthread_mutex_unlock(&server->lock);
    auth_look(server->options.auth);
    pthread_mutex_lock(&server->lock);
    for (http_request *r = server->requests; r != NULL; r = r->next) {
        if (atomic_load(&r->streaming) && !atomic_load(&r->revoked) && !auth_holds(server->options.auth, &r->who)) {
            atomic_store(&r->revoked, true);
            http_resume(r);
        }
    }
}

static void *clock_main(void *payload)
{
    http *server = payload;
    double gone_at = 0.0, overdue_at = 0.0;
    pthread_mutex_lock(&server->lock);
    while (!atomic_load(&server->stopping)) {
        double now = dn_now_seconds();
        if (now >= overdue_at) {
            overdue_at = now + HTTP_TICK_SECONDS * HTTP_CLOCK_TICKS;
            close_overdue(server, now);
            http_make_room(server);
        }
        unsigned pause = wake_due(server, now);
        if (now >= gone_at) {
            gone_at = now + HTTP_GONE_SECONDS;
            wake_gone(server);
            end_revoked(server);
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)(1e9 * HTTP_TICK_SECONDS) * pause;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_nsec -= 1000000000L;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&server->clock_wake, &server->lock, &until);
    }
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

dn_status http_clock_start(http *server, dn_error *error)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&server->clock_wake, &attributes);
    pthread_condattr_destroy(&attributes);
    if (pthread_create(&server->clock, NULL, clock_main, server) != 0) {
        return dn_fail(error, DN_NO_MEMORY, "cannot start a thread");
    }
    server->clock_running = true;
    return DN_OK;
}

void http_clock_stop(http *server)
{
    if (server->clock_running) {
        pthread_mutex_lock(&server->lock);
        pthread_cond_signal(&server->clock_wake);
        pthread_mutex_unlock(&server->lock);
        pthread_join(server->clock, NULL);
        server->clock_running = false;
        free(server->polled);
    }
}

void http_suspend(http_request *request, double seconds)
{
    http *server = request->server;
    int expected = RUNNING;
    if (request->connection == NULL) {
        return; /* nobody waits any more: see http_last_word */
    }
    MHD_suspend_connection(request->connection);
    pthread_mutex_lock(&server->lock);
    request->deadline_passed = false;
    request->held = seconds < 0.0;
    if (seconds >= 0.0) {
        timer_set(request, dn_now_seconds() + seconds);
    } else {
        http_timer_clear(request);
    }
    bool asleep = request->held;
    if (asleep) {
        atomic_store(&request->suspended, SUSPENDED); /* whatever woke it before knew nothing of what it now waits for */
    } else {
        asleep = !atomic_load(&server->stopping) && atomic_compare_exchange_strong(&request->suspended, &expected, SUSPENDED);
    }
    if (!asleep) {
        http_timer_clear(request);
        atomic_store(&request->suspended, RUNNING);
    }
    pthread_mutex_unlock(&server->lock);
    if (!asleep) {
        MHD_resume_connection(request->connection);
    }
}

void http_last_word(http_request *request)
{
    http *server = request->server;
    pthread_mutex_lock(&server->lock);
    request->connection = NULL;
    request->link = NULL;
    pthread_mutex_unlock(&server->lock);
    atomic_store(&request->gone, true);
    request->held = false;
    request->route->handler(request);
    pthread_mutex_lock(&server->lock);
    server->active--;
    pthread_mutex_unlock(&server->lock);
    request->entered = false;
}

/* libmicrohttpd ends no connection that is suspended (it does not look at it), so that between the two lines that wake one nothing can
 * happen to the request. */
void http_resume(http_request *request)
{
    int seen = SUSPENDED;
    if (atomic_compare_exchange_strong(&request->suspended, &seen, RUNNING)) {
        MHD_resume_connection(request->connection);
    } else if (seen == RUNNING && !atomic_compare_exchange_strong(&request->suspended, &seen, PENDING) && seen == SUSPENDED) {
        /* It went to sleep between the two looks. */
        http_resume(request);
    }
}

void http_wake_all(http *server)
{
    pthread_mutex_lock(&server->lock);
    for (http_request *r = server->requests; r != NULL; r = r->next) {
        if (!r->held) {
            http_resume(r);
        }
    }
    pthread_mutex_unlock(&server->lock);
}
