/* What http.c, http_answer.c and http_clock.c share: the server itself and its locks. */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include <pthread.h>

#include "server/http.h"

#define HTTP_HEADER_SECONDS 10.0 /* a request's head, from its first byte or the connection's start */
#define HTTP_BODY_SECONDS 30.0
#define HTTP_IDLE_SECONDS 75.0 /* between requests of one connection */
#define HTTP_BLOCKED_SECONDS 30u /* a reader that takes nothing */
#define HTTP_CONNECTIONS_MAX 1536u /* and as many as there may be event streams */
#define HTTP_CONNECTION_BYTES 32768u /* request line and headers */
#define HTTP_STOP_SECONDS 1.0 /* at the end, for answers that are on their way */
#define HTTP_CLOCK_MS 100
#define HTTP_GONE_TICKS 10 /* of the clock, between two looks for clients that left */

struct http {
    struct MHD_Daemon *daemon;
    http_options options;
    int fd;
    bool unix_socket;
    char url[160];
    char *listen;
    char *base_path;
    pthread_t clock;
    bool clock_running;
    atomic_bool stopping;
    pthread_mutex_t lock; /* guards the two lists, deadlines, wake_at and active */
    unsigned active; /* requests inside a handler, or suspended by one until something answers */
    pthread_cond_t clock_wake;
    http_connection *connections;
    http_request *requests;
    struct pollfd *polled; /* of the clock: suspended requests, in the order of the list */
    size_t polled_room;
};

/* http_clock.c: one thread that ends deadlines: it shuts slow connections down and wakes suspended requests. */
dn_status http_clock_start(http *server, dn_error *error);
void http_clock_stop(http *server);
void http_deadline(http_request *request, double seconds); /* of its connection; <= 0: none */

/* http_answer.c: the request's reserved headers and its one answer. */
void http_request_done(http_request *request); /* frees it */

/* http_key.c: fills in the request's client and what its key allows; false: refused and answered. */
bool http_check_key(http_request *request);

#endif
