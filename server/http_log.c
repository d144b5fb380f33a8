/* A request's line in the log, and the trace that it belongs to. The request's thread. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "server/http_internal.h"
#include "server/log.h"

/* What a client sent is no part of it but for the method and the path, without a query. */
void http_log_request(const http_request *request)
{
    char path[HTTP_LOG_PATH_BYTES + 1] = "-", trace[33];
    const char *method = request->method[0] != '\0' ? request->method : "-";
    const bool json = strcmp(log_format_name(), "json") == 0;
    log_line line;
    if (request->path != NULL && request->path[0] != '\0' && !request->uri_refused) {
        snprintf(path, sizeof path, "%s", request->path);
    }
    api_trace_id(trace, request->trace);
    if (json) {
        log_begin(&line, LOG_INFO, "http", "request");
        log_text(&line, "method", method);
        log_text(&line, "path", path);
        log_integer(&line, "status", request->status);
    } else {
        log_begin(&line, LOG_INFO, "http", "%s %s %d", method, path, request->status);
    }
    log_text(&line, "route", request->route != NULL ? request->route->pattern : NULL);
    log_integer(&line, "bytes", (long long)atomic_load(&request->bytes_sent));
    log_number(&line, "seconds", dn_now_seconds() - request->began);
    log_text(&line, "client", request->client);
    log_text(&line, "request_id", request->id);
    log_text(&line, "trace_id", trace);
    log_end(&line);
}

/* The trace that the request belongs to. Two headers say nothing, as the standard has it of one that is malformed. */
static enum MHD_Result look_for_trace(void *payload, enum MHD_ValueKind kind, const char *name, const char *value)
{
    http_request *request = payload;
    (void)kind;
    if (strcasecmp(name, "traceparent") == 0) {
        request->traces++;
        api_traceparent_read(request->trace, request->traces == 1 ? value : NULL);
    }
    return MHD_YES;
}

void http_find_trace(http_request *request)
{
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, look_for_trace, request);
}
