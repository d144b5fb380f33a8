/* HTTP as this daemon speaks it: libmicrohttpd behind a small face. Sockets, limits, gate, deadlines, request ids, the access
 * log and answers live here; what a route means does not.
 *
 * A handler is called when the request is complete (headers passed the gate, body read whole). It answers, or suspends and
 * is called again after http_resume or its deadline. It never blocks. Handlers of different requests run on several threads;
 * one request is on one thread at a time. */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <microhttpd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "api/problem.h"
#include "api/traceparent.h"
#include "base/error.h"
#include "server/auth.h"
#include "server/metrics.h"

#define HTTP_SEGMENTS_MAX 4
#define HTTP_HEADERS_MAX 12

typedef struct http http;
typedef struct http_request http_request;
typedef void http_handler(http_request *request);

typedef struct http_route {
    const char *method; /* GET serves HEAD too */
    const char *pattern; /* "/jobs/{}/images/{}": each {} is one segment */
    http_handler *handler;
    size_t body_bytes_max; /* 0: no body may come */
    unsigned scopes; /* a key must have one of them (AUTH_*); 0: no key is needed */
} http_route;

struct http_request {
    http *server;
    void *application; /* as given in http_options */
    struct MHD_Connection *connection;
    struct http_connection *link;
    const http_route *route;
    char id[33]; /* X-Request-Id */
    char method[16];
    char *path; /* raw, without base path and query */
    char *segment[HTTP_SEGMENTS_MAX]; /* what the {} matched */
    char *segment_storage;
    char trace[API_TRACE_BYTES]; /* of its traceparent (api/traceparent.h); "" none */
    unsigned traces; /* headers of that name */
    char client[65]; /* whose key it is; "local" without keys */
    auth_identity who; /* what that key may do, and how much */
    char *body; /* NUL terminated */
    size_t body_bytes, body_room;
    double began;
    /* A handler's own, kept across suspensions; released by state_free when the request is over. */
    void *state;
    void (*state_free)(void *state);
    /* Internal. */
    const char *header_name[HTTP_HEADERS_MAX];
    char *header_value[HTTP_HEADERS_MAX];
    unsigned header_count;
    bool gate_done, uri_refused, answered, deadline_passed, no_room;
    size_t held_bytes; /* of this request in the server's count */
    bool entered, held; /* counted in the server's `active`; suspended without a time limit. Of the request's thread. */
    int status;
    _Atomic uint64_t bytes_sent;
    atomic_bool streaming, revoked; /* it is an answer without an end; its key is no longer good, and the stream ends */
    atomic_bool gone; /* its client left while it was suspended: it was woken, and nobody reads the answer */
    _Atomic int suspended; /* RUNNING, SUSPENDED or PENDING: see http_clock.c */
    double wake_at; /* of the timer; 0: none; guarded by the server's lock, as its place in the clock's wheel */
    http_request *timer_next, **timer_link;
    enum MHD_Result queued;
    http_request *prev, *next; /* the server's list, guarded by its lock */
};

/* How refusals look below a path: the body of `problem` (malloc'd; NULL: no memory), its status and content type. It may add headers;
 * Retry-After and WWW-Authenticate are there already. */
typedef char *http_refusal(http_request *request, const api_problem *problem, int *status, const char **content_type);
typedef struct http_dialect {
    const char *prefix; /* "/v1/", below the base path */
    http_refusal *refusal;
    bool basic; /* its clients send a user and a password: the password may be the key */
} http_dialect;

typedef struct http_options {
    const char *listen; /* "127.0.0.1:8080", "[::1]:8080", "unix:/path" */
    unsigned socket_mode; /* of a Unix socket */
    const char *base_path; /* "" or "/prefix" */
    const char *const *allowed_hosts; /* besides loopback names; NULL-terminated; "*" allows all */
    const char *const *cors_origins; /* pages of these may read answers and do things; NULL-terminated, NULL: none; "*" is all while no
                                        key is needed */
    const char *public_url; /* how clients reach the server, whose own pages are no other site's; NULL or "": not known */
    const http_route *routes; /* ends with method NULL */
    const http_dialect *dialects; /* ends with prefix NULL; paths below none of them have application/problem+json. NULL: there are none */
    void *application;
    auth *auth; /* NULL or not required: every client is "local" */
    metrics *metrics;
    unsigned threads; /* of libmicrohttpd; 0: 3 */
    unsigned streams_max; /* answers that may stay open for long, which leave the other connections theirs */
    double patience; /* times the time limits of slow clients; 0: 1 */
} http_options;

/* DN_IO "address in use" when the port is taken (exit 75), DN_INVALID for a bad listen value (exit 78). */
dn_status http_start(http **out, const http_options *options, dn_error *error);
const char *http_url(const http *server); /* "http://127.0.0.1:41231" or "unix:/path" */
void http_stop(http *server); /* begins no more handlers, ends those under way, closes every connection */
bool http_stopping(const http *server);
void http_wake_all(http *server); /* every request suspended with a deadline is called again */

/* ---- Reading a request */
const char *http_header(const http_request *request, const char *name); /* NULL: absent */
const char *http_query(const http_request *request, const char *name); /* decoded; NULL: absent */

/* ---- Suspending. Call http_suspend FIRST, then start what will resume: resume may come before the handler returns.
 * seconds < 0: something that always answers will resume it (a write of the store): nothing else does, and http_stop waits for it.
 * After a deadline request->deadline_passed is true in the next call; request->gone within a second or so after the client has left. */
void http_suspend(http_request *request, double seconds);
void http_resume(http_request *request); /* any thread, any time before the request's state_free; spurious calls are harmless */

/* ---- Answering (once) */
void http_add_header(http_request *request, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Takes ownership of malloc'd bytes. */
void http_answer(http_request *request, int status, const char *content_type, char *bytes, size_t count);
void http_answer_json(http_request *request, int status, char *json); /* NULL json: 500 */
void http_answer_constant(http_request *request, int status, const char *content_type, const char *bytes, size_t count);
void http_answer_file(http_request *request, const char *content_type, int fd, uint64_t size); /* takes the descriptor */
void http_answer_empty(http_request *request, int status);
void http_problem(http_request *request, const api_problem *problem); /* in the shape of the dialect that the path belongs to */
void http_refuse(http_request *request, api_code code, const char *detail);
/* A stream: the reader fills up to `room` bytes; 0: nothing now, it has called http_suspend; -1: the end. */
typedef ssize_t http_reader(http_request *request, void *payload, char *out, size_t room);
void http_answer_stream(http_request *request, int status, const char *content_type, http_reader *reader, void *payload);

/* ---- For http's own files */
typedef struct http_connection {
    int fd;
    /* Guarded by the server's lock. */
    double deadline; /* monotonic; 0: none */
    double since; /* it waits for its client since then */
    bool waits_for_us, closing;
    struct http_connection *prev, *next;
} http_connection;

/* server/gate.c: what libmicrohttpd lets through and we do not. False with *problem filled (and the connection to be closed). */
bool gate_check_method(const char *method, api_problem *problem);
bool gate_check_uri(const char *raw_uri, api_problem *problem);
bool gate_check_headers(struct MHD_Connection *connection, const char *version, size_t body_bytes_max, api_problem *problem);
bool gate_check_host(struct MHD_Connection *connection, const char *const *allowed_hosts, bool unix_socket, api_problem *problem);

/* server/listen.c */
dn_status listen_open(int *fd, char url[160], const char *listen, unsigned socket_mode, dn_error *error);
#define LISTEN_FORM "--listen must be ADDRESS:PORT, [IPv6]:PORT or unix:PATH"
bool listen_is_well_formed(const char *listen); /* else it is refused with LISTEN_FORM */
bool listen_is_loopback(const char *listen); /* loopback address or Unix socket */
void listen_close(int fd, const char *listen); /* removes the socket file that listen_open made; fd < 0: nothing */

#endif
