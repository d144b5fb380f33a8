/* Who is connected. Every connection is in one list, the newest first; it waits either for the daemon (its request is complete: a handler,
 * a wait, a stream) or for its client (a head, a body, a reader, the next request). When it becomes crowded those that have waited longest
 * for their clients are closed, so that whoever holds connections without using them locks nobody out. The others have limits of their
 * own: the streams that there may be and 1,024 waits, which leave HTTP_CONNECTIONS_MAX - HTTP_CONNECTIONS_FULL places. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "server/http_internal.h"

/* A peer that vanished without a word acknowledges nothing: what was sent to it must not be repeated for a quarter of an hour. */
static void bound_silence(const http *server, int fd)
{
    unsigned milliseconds = (unsigned)(1e3 * HTTP_BLOCKED_SECONDS * server->patience);
    if (!server->unix_socket) {
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
    }
}

static void connected(http *server, struct MHD_Connection *connection, void **socket_context)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    http_connection *link = calloc(1, sizeof *link);
    if (link == NULL || info == NULL) {
        free(link);
        return; /* unknown to us, and counted as one that has not begun */
    }
    link->fd = info->connect_fd;
    link->since = dn_now_seconds();
    link->deadline = link->since + HTTP_HEADER_SECONDS * server->patience;
    bound_silence(server, link->fd);
    pthread_mutex_lock(&server->lock);
    link->next = server->connections;
    if (link->next != NULL) {
        link->next->prev = link;
    }
    server->connections = link;
    server->handed -= server->handed > 0;
    if (++server->connection_count > server->connections_full) {
        pthread_cond_signal(&server->clock_wake);
    }
    pthread_mutex_unlock(&server->lock);
    *socket_context = link;
}

static void disconnected(http *server, http_connection *link)
{
    pthread_mutex_lock(&server->lock);
    if (link->prev != NULL) {
        link->prev->next = link->next;
    } else {
        server->connections = link->next;
    }
    if (link->next != NULL) {
        link->next->prev = link->prev;
    }
    server->connection_count--;
    pthread_mutex_unlock(&server->lock);
    free(link);
}

void http_on_connection(void *payload, struct MHD_Connection *connection, void **socket_context, enum MHD_ConnectionNotificationCode code)
{
    http *server = payload;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        connected(server, connection, socket_context);
    } else if (*socket_context != NULL) {
        disconnected(server, *socket_context);
        *socket_context = NULL;
    }
}

void http_waits(http_request *request, bool for_us)
{
    if (request->link == NULL) {
        return;
    }
    pthread_mutex_lock(&request->server->lock);
    request->link->waits_for_us = for_us;
    request->link->since = dn_now_seconds();
    pthread_mutex_unlock(&request->server->lock);
}

void http_make_room(http *server)
{
    unsigned open = 0;
    for (const http_connection *c = server->connections; c != NULL; c = c->next) {
        open += !c->closing;
    }
    for (; open > server->connections_full; open--) {
        http_connection *oldest = NULL;
        for (http_connection *c = server->connections; c != NULL; c = c->next) {
            if (!c->closing && !c->waits_for_us && (oldest == NULL || c->since < oldest->since)) {
                oldest = c;
            }
        }
        if (oldest == NULL) {
            return;
        }
        oldest->closing = true;
        shutdown(oldest->fd, SHUT_RDWR);
    }
}

void http_refuse_mute(http_request *request)
{
    api_problem problem = {0};
    char head[320];
    request->status = api_problem_status(API_MALFORMED_HTTP);
    api_refuse(&problem, API_MALFORMED_HTTP, "", "the request target has more than %u arguments", HTTP_ARGUMENTS_MAX);
    char *body = api_problem_json(&problem, request->id);
    if (body != NULL && request->link != NULL) {
        int length =
            snprintf(head, sizeof head,
                     "HTTP/1.1 %d Bad Request\r\nX-Request-Id: %s\r\nContent-Type: application/problem+json\r\n"
                     "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
                     request->status, request->id, strlen(body));
        send(request->link->fd, head, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT | MSG_MORE);
        send(request->link->fd, body, strlen(body), MSG_NOSIGNAL | MSG_DONTWAIT);
        shutdown(request->link->fd, SHUT_RDWR);
    }
    free(body);
}

bool http_hold(http_request *request, size_t bytes)
{
    http *server = request->server;
    size_t before = atomic_fetch_add(&server->held_bytes, bytes);
    if (request->held_bytes + bytes > HTTP_HELD_FREE_BYTES && before + bytes > HTTP_HELD_BYTES_MAX) {
        atomic_fetch_sub(&server->held_bytes, bytes);
        return false;
    }
    request->held_bytes += bytes;
    return true;
}

void http_let_go(http_request *request)
{
    atomic_fetch_sub(&request->server->held_bytes, request->held_bytes);
    request->held_bytes = 0;
}
