/* The thread that accepts connections and gives them to libmicrohttpd.
 *
 * The library could do that itself, but (0.9.75, and newer ones) it then waits busily while there are no descriptors, keeps a lock for ever
 * when a worker of its pool is at its connection limit, and ends the process when it is told to accept no more while somebody connects
 * (MHD_quiesce_daemon and its epoll threads both remove the listening socket; who comes second panics). Here a connection that cannot be
 * had waits in the kernel's queue, and so do those above the limit. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http_internal.h"
#include "server/log.h"

/* Waits until the event is there, or for so long. */
static void pause_for(const http *server, int milliseconds)
{
    struct pollfd fd = {.fd = server->accept_event, .events = POLLIN};
    poll(&fd, 1, milliseconds);
}

/* Takes a place for a connection that is to come. */
static bool take_place(http *server)
{
    pthread_mutex_lock(&server->lock);
    const bool free = server->connection_count + server->handed < server->connections_max;
    server->handed += free;
    pthread_mutex_unlock(&server->lock);
    return free;
}

static void give_place_back(http *server)
{
    pthread_mutex_lock(&server->lock);
    server->handed -= server->handed > 0;
    pthread_mutex_unlock(&server->lock);
}

/* What was handed over is in the list within milliseconds, but for connections that the library had no memory for, of which it says
 * nothing: after a second of waiting they are forgotten. */
static void wait_for_place(http *server, unsigned *waited_ms)
{
    pause_for(server, HTTP_ACCEPT_FULL_MS);
    *waited_ms += HTTP_ACCEPT_FULL_MS;
    if (*waited_ms >= 1000) {
        *waited_ms = 0;
        pthread_mutex_lock(&server->lock);
        server->handed = 0;
        pthread_mutex_unlock(&server->lock);
    }
}

/* No descriptor, or no memory in the kernel: said once for each time that it begins. */
static void wait_for_descriptors(http *server, int failed, bool *said)
{
    if (!*said) {
        log_say(LOG_ERROR, "http", "cannot accept connections (%s): they wait; raise the limit of open files", strerror(failed));
        *said = true;
    }
    if (server->options.metrics != NULL) {
        metrics_add(server->options.metrics, METRIC_ACCEPT_PAUSES, 1);
    }
    pause_for(server, HTTP_ACCEPT_PAUSE_MS);
}

/* Takes what has come. */
static void accept_all(http *server, bool *said)
{
    unsigned waited_ms = 0;
    while (!atomic_load(&server->stopping)) {
        struct sockaddr_storage address = {0};
        socklen_t size = sizeof address;
        if (!take_place(server)) {
            wait_for_place(server, &waited_ms);
            continue;
        }
        const int fd = accept4(server->fd, (struct sockaddr *)&address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        const int failed = fd >= 0 ? 0 : errno;
        if (failed != 0 || MHD_add_connection(server->daemon, fd, (struct sockaddr *)&address, size) != MHD_YES) {
            give_place_back(server); /* the library has closed what it cannot have */
        }
        *said &= failed != 0;
        if (failed == EAGAIN || failed == EWOULDBLOCK) {
            return;
        }
        if (failed != 0 && failed != EINTR && failed != ECONNABORTED) {
            wait_for_descriptors(server, failed, said);
        }
    }
}

static void *accept_main(void *payload)
{
    http *server = payload;
    bool said = false;
    while (!atomic_load(&server->stopping)) {
        struct pollfd fds[2] = {{.fd = server->fd, .events = POLLIN}, {.fd = server->accept_event, .events = POLLIN}};
        if (poll(fds, 2, -1) > 0 && fds[0].revents != 0) {
            accept_all(server, &said);
        }
    }
    return NULL;
}

void http_connections_bound(http *server)
{
    struct rlimit limit;
    server->connections_max = HTTP_CONNECTIONS_MAX + server->options.streams_max;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < server->connections_max + HTTP_DESCRIPTORS_KEPT) {
        const unsigned open = (unsigned)limit.rlim_cur;
        server->connections_max = open > 2 * HTTP_DESCRIPTORS_KEPT ? open - HTTP_DESCRIPTORS_KEPT : open / 2 + 1;
    }
    const unsigned slack = HTTP_CONNECTIONS_MAX - HTTP_CONNECTIONS_FULL;
    server->connections_full = server->connections_max > 2 * slack ? server->connections_max - slack : server->connections_max / 2;
}

dn_status http_accept_start(http *server, dn_error *error)
{
    server->accept_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->accept_event < 0 || fcntl(server->fd, F_SETFL, O_NONBLOCK) != 0) {
        return dn_fail(error, DN_IO, "cannot prepare to accept connections: %s", strerror(errno));
    }
    const int failed = pthread_create(&server->accepter, NULL, accept_main, server);
    if (failed != 0) {
        return dn_fail(error, DN_NO_MEMORY, "cannot start a thread: %s", strerror(failed));
    }
    server->accepting = true;
    return DN_OK;
}

void http_accept_stop(http *server)
{
    if (server->accepting) {
        eventfd_write(server->accept_event, 1);
        pthread_join(server->accepter, NULL);
        server->accepting = false;
    }
    if (server->accept_event >= 0) {
        close(server->accept_event);
        server->accept_event = -1;
    }
}
