/* The HTTP server (http.h): libmicrohttpd's callbacks, one request from its first byte to its log line.
 *
 * Order of a request: on_uri (made, raw target checked) -> on_request first call (gate, host, route, key) -> body -> handler,
 * perhaps several times around suspensions -> answer -> on_completed (logged, freed). */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "api/limits.h"
#include "base/clock.h"
#include "server/fault.h"
#include "server/http_internal.h"

static void make_id(char out[33])
{
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        memset(bytes, 0, sizeof bytes);
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
}

/* ---- The request's life */

static void *on_uri(void *payload, const char *uri, struct MHD_Connection *connection)
{
    http *server = payload;
    http_request *request = calloc(1, sizeof *request);
    api_problem problem;
    if (request == NULL) {
        return NULL;
    }
    request->server = server;
    request->application = server->options.application;
    request->connection = connection;
    request->began = dn_now_seconds();
    request->queued = MHD_YES;
    make_id(request->id);
    snprintf(request->client, sizeof request->client, "local");
    request->uri_refused = !gate_check_uri(uri, &problem);
    size_t path_bytes = strcspn(uri, "?");
    request->path = strndup(uri, path_bytes);
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    request->link = info == NULL ? NULL : info->socket_context;
    pthread_mutex_lock(&server->lock);
    request->next = server->requests;
    if (request->next != NULL) {
        request->next->prev = request;
    }
    server->requests = request;
    pthread_mutex_unlock(&server->lock);
    http_deadline(request, HTTP_HEADER_SECONDS);
    unsigned arguments = 0;
    for (const char *c = uri + path_bytes; *c != '\0' && arguments <= HTTP_ARGUMENTS_MAX; c++) {
        arguments += *c == '?' || *c == '&';
    }
    if (arguments > HTTP_ARGUMENTS_MAX) {
        http_refuse_mute(request);
    }
    return request;
}

void http_request_done(http_request *request)
{
    for (unsigned i = 0; i < request->header_count; i++) {
        free(request->header_value[i]);
    }
    free(request->path);
    free(request->segment_storage);
    free(request->body);
    free(request);
}

void http_request_end(http_request *request)
{
    http *server = request->server;
    if (request->state_free != NULL) {
        request->state_free(request->state);
    }
    http_let_go(request);
    pthread_mutex_lock(&server->lock);
    http_timer_clear(request);
    if (request->prev != NULL) {
        request->prev->next = request->next;
    } else {
        server->requests = request->next;
    }
    if (request->next != NULL) {
        request->next->prev = request->prev;
    }
    pthread_mutex_unlock(&server->lock);
    http_log_request(request);
    if (server->options.metrics != NULL) {
        metrics_request(server->options.metrics, request->route != NULL ? request->route->pattern : "none", request->method,
                        request->status, dn_now_seconds() - request->began);
    }
    http_request_done(request);
}

static void on_completed(void *payload, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode code)
{
    http_request *request = *context;
    (void)payload;
    (void)connection;
    (void)code;
    if (request == NULL) {
        return;
    }
    *context = NULL;
    http_waits(request, false);
    http_deadline(request, HTTP_IDLE_SECONDS);
    if (request->entered) {
        http_last_word(request);
    }
    http_request_end(request);
}

/* ---- Routing */

/* Matches path against pattern; each {} takes one non-empty segment. */
static bool match(const char *pattern, char *path, char *segment[HTTP_SEGMENTS_MAX])
{
    unsigned taken = 0;
    while (*pattern != '\0') {
        if (pattern[0] == '{' && pattern[1] == '}') {
            size_t length = strcspn(path, "/");
            if (length == 0 || taken == HTTP_SEGMENTS_MAX) {
                return false;
            }
            segment[taken++] = path;
            path += length;
            pattern += 2;
            if (*path == '/' && *pattern == '/') {
                *path++ = '\0';
                pattern++;
            } else if (*path != '\0' || *pattern != '\0') {
                return false;
            }
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *path == '\0';
}

static bool method_fits(const http_route *route, const char *method)
{
    return strcmp(route->method, method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

/* Finds the route, or answers 404, or 405 with Allow. */
static bool find_route(http_request *request)
{
    http *server = request->server;
    char allow[96] = "";
    size_t base = strlen(server->base_path);
    bool inside = strncmp(request->path, server->base_path, base) == 0 && request->path[base] == '/';
    for (const http_route *route = server->options.routes; inside && route->method != NULL; route++) {
        char *copy = strdup(request->path + base);
        char *segment[HTTP_SEGMENTS_MAX] = {0};
        if (copy != NULL && match(route->pattern, copy, segment)) {
            if (method_fits(route, request->method)) {
                request->route = route;
                request->segment_storage = copy;
                memcpy(request->segment, segment, sizeof segment);
                return true;
            }
            size_t used = strlen(allow);
            snprintf(allow + used, sizeof allow - used, "%s%s%s", used > 0 ? ", " : "", route->method,
                     strcmp(route->method, "GET") == 0 ? ", HEAD" : "");
        }
        free(copy);
    }
    if (allow[0] != '\0' && http_preflight(request, allow)) {
        return false;
    }
    if (base > 0 && strcmp(request->path, server->base_path) == 0 && method_fits(&(http_route){.method = "GET"}, request->method)) {
        http_add_header(request, "Location", "%s/", server->base_path); /* what the page names is found from there */
        http_answer_empty(request, 308);
    } else if (allow[0] != '\0') {
        http_add_header(request, "Allow", "%s", allow);
        http_refuse(request, API_METHOD_NOT_ALLOWED, "this resource does not take this method; see Allow");
    } else {
        http_refuse(request, API_NOT_FOUND, "there is nothing at this path");
    }
    return false;
}

/* Whether the request announces a body. */
static bool has_body(const http_request *request)
{
    const char *length = http_header(request, "Content-Length");
    return http_header(request, "Transfer-Encoding") != NULL || (length != NULL && strspn(length, "0") != strlen(length));
}

static bool refuse_and_close(http_request *request, const api_problem *problem)
{
    http_add_header(request, "Connection", "close");
    http_problem(request, problem);
    return false;
}

/* A handler that has asked for something that always answers (a write of the store) sleeps without a time limit, and what it asked for
 * points at the request: the server does not stop under it. False: the server stops, and begins nothing more. */
static bool enter_handler(http_request *request)
{
    http *server = request->server;
    pthread_mutex_lock(&server->lock);
    bool fine = request->state != NULL || !atomic_load(&server->stopping);
    server->active += fine && !request->entered;
    request->entered |= fine;
    request->held = false;
    pthread_mutex_unlock(&server->lock);
    return fine;
}

static void leave_handler(http_request *request)
{
    http *server = request->server;
    if (!request->held) {
        pthread_mutex_lock(&server->lock);
        server->active--;
        pthread_mutex_unlock(&server->lock);
        request->entered = false;
    }
}

static void run_handler(http_request *request)
{
    if (!enter_handler(request)) {
        http_add_header(request, "Connection", "close");
        http_refuse(request, API_DRAINING, "the daemon is stopping");
        return;
    }
    request->route->handler(request);
    leave_handler(request);
}

static void wait_for_handlers(http *server)
{
    const struct timespec pause = {.tv_nsec = 1000000L};
    for (;;) {
        pthread_mutex_lock(&server->lock);
        bool busy = server->active > 0;
        pthread_mutex_unlock(&server->lock);
        if (!busy) {
            return;
        }
        nanosleep(&pause, NULL);
    }
}

/* What has been answered goes out: a client that waited for its job hears where to look, instead of a connection that closes. Who does
 * not read, or never says the rest of its request, holds up the end for so long at most. */
static void wait_for_answers(http *server)
{
    const struct timespec pause = {.tv_nsec = 1000000L};
    const double until = dn_now_seconds() + HTTP_STOP_SECONDS;
    for (bool busy = true; busy && dn_now_seconds() < until;) {
        pthread_mutex_lock(&server->lock);
        busy = server->requests != NULL;
        pthread_mutex_unlock(&server->lock);
        if (busy) {
            nanosleep(&pause, NULL);
        }
    }
}

/* First call of a request: everything that can be said before its body. False: answered. Without a body the route waits for the
 * second call, because an answer queued in the first one ends the connection. */
static bool admit(http_request *request, const char *method, const char *version)
{
    http *server = request->server;
    api_problem problem = {0};
    if (!gate_check_method(method, &problem)) {
        return refuse_and_close(request, &problem);
    }
    snprintf(request->method, sizeof request->method, "%s", method);
    http_find_trace(request);
    if (request->uri_refused) {
        api_refuse(&problem, API_MALFORMED_HTTP, "", "the request target has a control character or a broken escape");
        return refuse_and_close(request, &problem);
    }
    /* The route's own limit is known only once it is found; until then the largest body of all is the bound. */
    if (!gate_check_headers(request->connection, version, API_BODY_IMAGE_BYTES_MAX, &problem) ||
        !gate_check_host(request->connection, server->options.allowed_hosts, server->unix_socket, &problem)) {
        return refuse_and_close(request, &problem);
    }
    http_deadline(request, HTTP_BODY_SECONDS);
    if (!has_body(request)) {
        return true;
    }
    if (!find_route(request) || !http_check_key(request)) {
        return false;
    }
    return gate_check_headers(request->connection, version, request->route->body_bytes_max, &problem) ||
           refuse_and_close(request, &problem);
}

static bool take_body(http_request *request, const char *data, size_t size)
{
    size_t limit = request->route->body_bytes_max;
    if (size > limit || request->body_bytes + size > limit) {
        return false;
    }
    if (request->body_bytes + size + 1 > request->body_room) {
        size_t room = request->body_room * 2 > request->body_bytes + size + 1 ? request->body_room * 2 : request->body_bytes + size + 1;
        char *grown = http_hold(request, room - request->body_room) ? realloc(request->body, room) : NULL;
        if (grown == NULL) {
            request->no_room = true;
            return false;
        }
        request->body = grown;
        request->body_room = room;
    }
    memcpy(request->body + request->body_bytes, data, size);
    request->body_bytes += size;
    request->body[request->body_bytes] = '\0';
    return true;
}

static enum MHD_Result on_request(void *payload, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *upload_data, size_t *upload_size, void **context)
{
    http_request *request = *context;
    (void)payload;
    (void)connection;
    (void)url;
    if (request == NULL || request->path == NULL) {
        return MHD_NO;
    }
    if (!request->gate_done) {
        request->gate_done = true;
        admit(request, method, version);
        return request->queued;
    }
    if (request->answered) {
        *upload_size = 0;
        return request->queued;
    }
    if (*upload_size > 0) {
        /* Too long in chunks: swallow the rest without keeping it, and say so at the end of the body. */
        if (request->body_bytes <= request->route->body_bytes_max && !take_body(request, upload_data, *upload_size)) {
            request->body_bytes = request->route->body_bytes_max + 1;
        }
        *upload_size = 0;
        return MHD_YES;
    }
    http_deadline(request, 0.0);
    http_waits(request, true);
    if (request->route == NULL && (!find_route(request) || !http_check_key(request))) {
        return request->queued;
    }
    if (request->body_bytes > request->route->body_bytes_max) {
        http_add_header(request, "Connection", "close");
        if (request->no_room) {
            http_add_header(request, "Retry-After", "5");
            http_refuse(request, API_QUEUE_FULL, "too many large requests are under way");
            return request->queued;
        }
        http_refuse(request, API_TOO_LARGE, "the body is larger than this request may carry");
        return request->queued;
    }
    if (request->body_bytes > 0 && request->state == NULL) {
        fault_point("http_body_read");
    }
    run_handler(request);
    return request->queued;
}

const char *http_header(const http_request *request, const char *name)
{
    return request->connection != NULL ? MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name) : NULL;
}

const char *http_query(const http_request *request, const char *name)
{
    return request->connection != NULL ? MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name) : NULL;
}

/* ---- The server's life */

static dn_status start_daemon(http *server, dn_error *error)
{
    unsigned threads = server->options.threads > 0 ? server->options.threads : 3;
    unsigned blocked_seconds = (unsigned)(HTTP_BLOCKED_SECONDS * server->patience + 0.999);
    server->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC | MHD_USE_NO_LISTEN_SOCKET, 0,
                                      NULL, NULL, on_request, server, MHD_OPTION_THREAD_POOL_SIZE, threads, MHD_OPTION_CONNECTION_LIMIT,
                                      threads * HTTP_LIBRARY_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, blocked_seconds,
                                      MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_CONNECTION_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, -1,
                                      MHD_OPTION_URI_LOG_CALLBACK, on_uri, server, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
                                      MHD_OPTION_NOTIFY_CONNECTION, http_on_connection, server, MHD_OPTION_END);
    return server->daemon != NULL ? DN_OK : dn_fail(error, DN_IO, "libmicrohttpd could not start");
}

dn_status http_start(http **out, const http_options *options, dn_error *error)
{
    http *server = calloc(1, sizeof *server);
    dn_status status = DN_OK;
    if (server == NULL) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    server->options = *options;
    server->fd = server->accept_event = -1;
    http_connections_bound(server);
    server->patience = options->patience > 0.0 ? options->patience : 1.0;
    pthread_mutex_init(&server->lock, NULL);
    server->listen = strdup(options->listen);
    server->base_path = strdup(options->base_path != NULL ? options->base_path : "");
    if (server->listen == NULL || server->base_path == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "out of memory");
        goto done;
    }
    server->unix_socket = strncmp(options->listen, "unix:", 5) == 0;
    status = listen_open(&server->fd, server->url, options->listen, options->socket_mode, error);
    if (status == DN_OK) {
        status = http_clock_start(server, error);
    }
    if (status == DN_OK) {
        status = start_daemon(server, error);
    }
    if (status == DN_OK) {
        status = http_accept_start(server, error);
    }
done:
    if (status != DN_OK) {
        http_stop(server);
        return status;
    }
    *out = server;
    return DN_OK;
}

const char *http_url(const http *server)
{
    return server->url;
}

bool http_stopping(const http *server)
{
    return atomic_load(&server->stopping);
}

void http_stop(http *server)
{
    if (server == NULL) {
        return;
    }
    atomic_store(&server->stopping, true);
    http_accept_stop(server);
    if (server->daemon != NULL) {
        http_wake_all(server);
        wait_for_handlers(server);
        wait_for_answers(server);
        MHD_stop_daemon(server->daemon);
    }
    http_clock_stop(server);
    listen_close(server->fd, server->listen != NULL ? server->listen : "");
    pthread_mutex_destroy(&server->lock);
    free(server->listen);
    free(server->base_path);
    free(server);
}
