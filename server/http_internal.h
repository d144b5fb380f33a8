/* What the files http*.c share: the server itself and its locks. */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include <pthread.h>

#include "server/http.h"

/* How long a client may take, all of them times the server's patience. */
#define HTTP_HEADER_SECONDS 10.0 /* a request's head, from its first byte or the connection's start */
#define HTTP_BODY_SECONDS 30.0
#define HTTP_IDLE_SECONDS 30.0 /* between requests of one connection */
#define HTTP_BLOCKED_SECONDS 30u /* a reader that takes nothing; what an answer may take besides its bytes */
#define HTTP_READ_BYTES_PER_SECOND 8192.0 /* the slowest reader of an answer that is let finish */
#define HTTP_CONNECTIONS_MAX 1536u /* and as many as there may be event streams */
#define HTTP_CONNECTIONS_FULL 1024u /* and the streams: from here on who waits for nothing of ours makes room (http_connections.c) */
#define HTTP_DESCRIPTORS_KEPT 256u /* for files and pipes, where the limit of open files is lower than all of these together */
#define HTTP_LIBRARY_CONNECTIONS (1u << 20) /* libmicrohttpd's own limit of each of its threads, never to be reached */
#define HTTP_ACCEPT_PAUSE_MS 100 /* between two tries to accept without descriptors */
#define HTTP_ACCEPT_FULL_MS 20 /* between two looks whether connections have gone */
#define HTTP_CONNECTION_BYTES 32768u /* request line and headers */
#define HTTP_STOP_SECONDS 5.0 /* at the end, for answers that are on their way */
#define HTTP_ARGUMENTS_MAX 64u /* of a query: libmicrohttpd keeps each in those bytes, and is mute when they do not fit */
#define HTTP_HELD_BYTES_MAX (512u << 20) /* large bodies and answers of all connections in memory */
#define HTTP_HELD_FREE_BYTES 65536u /* those that are always let in */
#define HTTP_STREAM_SEND_BYTES 16384 /* the kernel's buffer of a stream: a reader that stops is noticed, and costs no more */
#define HTTP_LOG_PATH_BYTES 256 /* of a path in the log */
#define HTTP_TICK_SECONDS 0.01 /* of the clock's wheel: how late a suspended request is woken */
#define HTTP_WHEEL_SLOTS 1024u
#define HTTP_CLOCK_TICKS 10u /* at most, between two looks for overdue connections */
#define HTTP_GONE_SECONDS 1.0 /* between two looks for clients that left */

struct http {
    struct MHD_Daemon *daemon;
    http_options options;
    int fd;
    bool unix_socket;
    char url[160];
    char *listen;
    char *base_path;
    pthread_t clock, accepter;
    bool clock_running, accepting;
    int accept_event; /* wakes the accepter, which then ends; -1: none */
    unsigned connections_max, connections_full; /* HTTP_CONNECTIONS_MAX and _FULL of this server */
    atomic_bool stopping;
    double patience;
    atomic_size_t held_bytes;
    pthread_mutex_t lock; /* guards the two lists, what their members say of waiting, and active */
    unsigned active; /* requests inside a handler, or suspended by one until something answers */
    pthread_cond_t clock_wake;
    http_connection *connections; /* the newest first */
    unsigned connection_count;
    unsigned handed; /* connections given to libmicrohttpd, and not in the list yet */
    http_request *requests;
    http_request *wheel[HTTP_WHEEL_SLOTS]; /* suspended requests by the tick of their wake_at */
    uint64_t wheel_tick; /* the last one that was gone through */
    struct pollfd *polled; /* of the clock: suspended requests, in the order of the list */
    size_t polled_room;
};

/* http_clock.c: one thread that ends deadlines: it shuts slow connections down and wakes suspended requests. */
dn_status http_clock_start(http *server, dn_error *error);
void http_clock_stop(http *server);
void http_deadline(http_request *request, double seconds); /* of its connection; <= 0: none */
/* The connection of a request went when it had been woken by what always answers. What was committed for a client that left takes its
 * course all the same: the handler is called as if the client were there, without a connection. It finds no headers and no query, its
 * answer goes nowhere, and it cannot sleep again. */
void http_last_word(http_request *request);
void http_timer_clear(http_request *request); /* under the lock: it is woken by nobody but its own */

/* http_accept.c: one thread that accepts connections, as many as there may be. */
void http_connections_bound(http *server); /* from the limit of open files */
dn_status http_accept_start(http *server, dn_error *error); /* when libmicrohttpd is there to take them */
void http_accept_stop(http *server); /* nothing is accepted any more; safe where it never started */

/* http_connections.c: who is connected, and who goes when it becomes crowded. */
void http_on_connection(void *server, struct MHD_Connection *connection, void **link, enum MHD_ConnectionNotificationCode code);
void http_waits(http_request *request, bool for_us); /* whether its connection waits for the daemon now, or for the client */
void http_make_room(http *server); /* under the lock */
void http_refuse_mute(http_request *request); /* answers by hand, and ends the connection */
bool http_hold(http_request *request, size_t bytes); /* counts bytes in memory until the request is over; false: there are too many */
void http_let_go(http_request *request);

/* http_log.c: its line in the log; the trace that its headers name. */
void http_log_request(const http_request *request);
void http_find_trace(http_request *request);

/* http.c: takes it out of the list, writes its line in the log, frees it. */
void http_request_end(http_request *request);

/* http_answer.c: the request's reserved headers and its one answer. */
void http_request_done(http_request *request); /* frees it */

/* http_origin.c: pages of other sites. */
bool http_check_origin(http_request *request); /* false: one of theirs that may not do this; refused and answered */
void http_origin_headers(const http_request *request, struct MHD_Response *response);
bool http_preflight(http_request *request, const char *methods); /* true: a preflight that is allowed; answered */

const http_dialect *http_dialect_of(const http_request *request); /* NULL: none */

/* http_key.c: fills in the request's client and what its key allows; false: refused and answered. */
bool http_check_key(http_request *request);

#endif
