/* Answers: every one carries the request id and the security headers, is made once, and is counted for the access log. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "server/http_internal.h"

static const char *const fixed_headers[][2] = {
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Resource-Policy", "same-origin"},
};

void http_add_header(http_request *request, const char *name, const char *format, ...)
{
    va_list arguments;
    char *value = NULL;
    if (request->header_count == HTTP_HEADERS_MAX) {
        return;
    }
    va_start(arguments, format);
    int made = vasprintf(&value, format, arguments);
    va_end(arguments);
    if (made >= 0) {
        request->header_name[request->header_count] = name;
        request->header_value[request->header_count++] = value;
    }
}

static void send_response(http_request *request, int status, const char *content_type, struct MHD_Response *response)
{
    if (response == NULL) {
        request->queued = MHD_NO;
        return;
    }
    MHD_add_response_header(response, "X-Request-Id", request->id);
    for (size_t i = 0; i < sizeof fixed_headers / sizeof fixed_headers[0]; i++) {
        MHD_add_response_header(response, fixed_headers[i][0], fixed_headers[i][1]);
    }
    http_origin_headers(request, response);
    if (content_type != NULL) {
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, content_type);
    }
    bool cache_told = false;
    for (unsigned i = 0; i < request->header_count; i++) {
        MHD_add_response_header(response, request->header_name[i], request->header_value[i]);
        cache_told |= strcmp(request->header_name[i], "Cache-Control") == 0;
    }
    if (!cache_told) {
        MHD_add_response_header(response, "Cache-Control", "no-store");
    }
    request->status = status;
    request->answered = true;
    http_waits(request, false);
    http_deadline(request, HTTP_BLOCKED_SECONDS + (double)atomic_load(&request->bytes_sent) / HTTP_READ_BYTES_PER_SECOND);
    if (request->connection != NULL) {
        request->queued = MHD_queue_response(request->connection, (unsigned)status, response);
    }
    MHD_destroy_response(response);
}

void http_answer(http_request *request, int status, const char *content_type, char *bytes, size_t count)
{
    if (!http_hold(request, count)) {
        free(bytes);
        http_add_header(request, "Retry-After", "5");
        http_refuse(request, API_QUEUE_FULL, "too many large answers are under way");
        return;
    }
    atomic_store(&request->bytes_sent, count);
    struct MHD_Response *response = MHD_create_response_from_buffer(count, bytes, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        free(bytes);
    }
    send_response(request, status, content_type, response);
}

void http_answer_json(http_request *request, int status, char *json)
{
    if (json == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    http_answer(request, status, "application/json", json, strlen(json));
}

void http_answer_constant(http_request *request, int status, const char *content_type, const char *bytes, size_t count)
{
    /* libmicrohttpd takes a plain pointer but does not write through it in persistent mode. */
    union {
        const char *from;
        void *to;
    } both = {.from = bytes};
    atomic_store(&request->bytes_sent, count);
    send_response(request, status, content_type, MHD_create_response_from_buffer(count, both.to, MHD_RESPMEM_PERSISTENT));
}

void http_answer_file(http_request *request, const char *content_type, int fd, uint64_t size)
{
    atomic_store(&request->bytes_sent, size);
    send_response(request, 200, content_type, MHD_create_response_from_fd64(size, fd));
}

void http_answer_empty(http_request *request, int status)
{
    http_answer_constant(request, status, NULL, "", 0);
}

/* application/problem+json, as everywhere where no dialect is spoken. */
static char *native_refusal(http_request *request, const api_problem *problem, int *status, const char **content_type)
{
    *status = api_problem_status(problem->code);
    *content_type = "application/problem+json";
    return api_problem_json(problem, request->id);
}

const http_dialect *http_dialect_of(const http_request *request)
{
    const http *server = request->server;
    const size_t base = strlen(server->base_path);
    const bool inside = request->path != NULL && strncmp(request->path, server->base_path, base) == 0;
    for (const http_dialect *d = server->options.dialects; inside && d != NULL && d->prefix != NULL; d++) {
        if (strncmp(request->path + base, d->prefix, strlen(d->prefix)) == 0) {
            return d;
        }
    }
    return NULL;
}

void http_problem(http_request *request, const api_problem *problem)
{
    int status = 500;
    const char *content_type = NULL;
    const http_dialect *dialect = http_dialect_of(request);
    if (problem->retry_after_seconds > 0) {
        http_add_header(request, "Retry-After", "%u", problem->retry_after_seconds);
    }
    if (problem->code == API_UNAUTHORIZED) {
        http_add_header(request, "WWW-Authenticate", "%sBearer realm=\"denoised\"",
                        dialect != NULL && dialect->basic ? "Basic realm=\"denoised\", " : "");
    }
    char *json = (dialect != NULL ? dialect->refusal : native_refusal)(request, problem, &status, &content_type);
    if (request->server->options.metrics != NULL) {
        metrics_refused(request->server->options.metrics, problem->code);
    }
    if (json == NULL) {
        request->queued = MHD_NO;
        return;
    }
    http_answer(request, status, content_type, json, strlen(json));
}

void http_refuse(http_request *request, api_code code, const char *detail)
{
    api_problem problem = {0};
    api_refuse(&problem, code, "", "%s", detail);
    http_problem(request, &problem);
}

typedef struct stream {
    http_request *request;
    http_reader *reader;
    void *payload;
    bool silent; /* at the server's end: it has nothing more to say */
} stream;

static ssize_t read_stream(void *payload, uint64_t position, char *out, size_t room)
{
    stream *s = payload;
    (void)position;
    /* At the end a stream still says what it has not said: what became of its job, above all. */
    const bool stopping = atomic_load(&s->request->server->stopping);
    const bool over = (stopping && s->silent) || atomic_load(&s->request->revoked);
    ssize_t count = over ? -1 : s->reader(s->request, s->payload, out, room);
    s->silent = stopping && count == 0; /* http_suspend wakes it at once then */
    if (count > 0) {
        atomic_fetch_add(&s->request->bytes_sent, (uint64_t)count);
    }
    /* What it was given is out of our hands when the reader is called again: until then the client has time. */
    http_deadline(s->request, count == 0 ? 0.0 : HTTP_BLOCKED_SECONDS);
    return count < 0 ? MHD_CONTENT_READER_END_OF_STREAM : count;
}

void http_answer_stream(http_request *request, int status, const char *content_type, http_reader *reader, void *payload)
{
    stream *s = malloc(sizeof *s);
    if (s == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    *s = (stream){.request = request, .reader = reader, .payload = payload};
    if (request->link != NULL) {
        int bytes = HTTP_STREAM_SEND_BYTES;
        setsockopt(request->link->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    }
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 16384, read_stream, s, free);
    if (response == NULL) {
        free(s);
    }
    send_response(request, status, content_type, response);
    http_waits(request, true);
    atomic_store(&request->streaming, true);
}
