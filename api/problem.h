/* Refusals: one table of codes, one value, one JSON form (RFC 9457, application/problem+json). Pure. */
#ifndef API_PROBLEM_H
#define API_PROBLEM_H

#include <stdbool.h>
#include <stddef.h>

#define API_PROBLEM_CODES(X)                                                   \
    X(MALFORMED_HTTP, 400, "malformed-http", "Malformed HTTP request")          \
    X(MALFORMED_JSON, 400, "malformed-json", "Malformed JSON")                  \
    X(BAD_CURSOR, 400, "bad-cursor", "Bad cursor")                              \
    X(BAD_EVENT_ID, 400, "bad-event-id", "Bad event id")                        \
    X(UNAUTHORIZED, 401, "unauthorized", "Unauthorized")                        \
    X(FORBIDDEN, 403, "forbidden", "Forbidden")                                 \
    X(NOT_FOUND, 404, "not-found", "Not found")                                 \
    X(NOT_READY, 404, "not-ready", "Not ready")                                 \
    X(METHOD_NOT_ALLOWED, 405, "method-not-allowed", "Method not allowed")      \
    X(NOT_ACCEPTABLE, 406, "not-acceptable", "Not acceptable")                  \
    X(CANCELED, 409, "canceled", "Canceled")                                    \
    X(EXPIRED, 410, "expired", "Expired")                                       \
    X(TOO_LARGE, 413, "too-large", "Too large")                                 \
    X(UNSUPPORTED_MEDIA_TYPE, 415, "unsupported-media-type", "Unsupported media type") \
    X(WRONG_HOST, 421, "wrong-host", "Wrong host")                              \
    X(INVALID_FIELD, 422, "invalid-field", "Invalid field")                     \
    X(UNSUPPORTED_OPTION, 422, "unsupported-option", "Unsupported option")      \
    X(IDEMPOTENCY_MISMATCH, 422, "idempotency-mismatch", "Idempotency mismatch") \
    X(QUOTA, 429, "quota", "Quota exceeded")                                    \
    X(INTERNAL, 500, "internal", "Internal error")                              \
    X(JOB_FAILED, 500, "job-failed", "Job failed")                              \
    X(QUEUE_FULL, 503, "queue-full", "Queue full")                              \
    X(DRAINING, 503, "draining", "Draining")                                    \
    X(LOADING, 503, "loading", "Loading")                                       \
    X(OUTCOME_UNKNOWN, 503, "outcome-unknown", "Outcome unknown")               \
    X(STORAGE_FULL, 507, "storage-full", "Storage full")

typedef enum api_code {
    API_NONE = 0,
#define X(name, status, code, title) API_##name,
    API_PROBLEM_CODES(X)
#undef X
    API_CODE_COUNT
} api_code;

typedef struct api_problem {
    api_code code;               /* API_NONE: no problem */
    char detail[512];            /* one sentence; never holds a value the client sent */
    char field[128];             /* JSON Pointer, "" when none */
    bool has_offset;
    size_t offset;               /* byte where broken JSON went wrong */
    unsigned retry_after_seconds;/* 0: no Retry-After header */
} api_problem;

/* Fills *problem and returns false, so that a validator reads `return api_refuse(...)`. */
bool api_refuse(api_problem *problem, api_code code, const char *field, const char *format, ...) __attribute__((format(printf, 4, 5)));
int api_problem_status(api_code code);
const char *api_problem_code(api_code code);
/* malloc'd JSON text; NULL only when out of memory. */
char *api_problem_json(const api_problem *problem, const char *request_id);

#endif
