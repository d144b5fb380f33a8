/* Values to wire bodies: jobs, images, lists, samplers, capabilities, events. Pure; all text is malloc'd. */
#ifndef API_VIEWS_H
#define API_VIEWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum api_state { API_STATE_QUEUED, API_STATE_RUNNING, API_STATE_SUCCEEDED, API_STATE_FAILED, API_STATE_CANCELED } api_state;

typedef struct api_image_view {
    uint32_t index;
    uint64_t seed;
    uint32_t width, height;
    uint64_t bytes;
    char sha256[65], pixels_sha256[65];
    char device[64], build[65];
    uint32_t evaluations;            /* of the network, guided ones counted once; 0: not known */
} api_image_view;

/* How it stands with telling a job's end to its webhook. */
typedef struct api_webhook_view {
    const char *state;               /* pending, delivered or failed */
    uint32_t tries;
    const char *error;               /* of the last try; NULL: none */
} api_webhook_view;

typedef struct api_job_view {
    char id[27];
    api_state state;
    bool cancel_requested;
    int64_t created_ms, started_ms, finished_ms, expires_ms;   /* 0: null */
    const char *request_json;        /* as made by api_request_json */
    bool adaptive;                   /* fraction and total null */
    uint64_t done, total;            /* sampler steps over all n */
    uint32_t images_done;
    uint32_t lane_rows;              /* network rows of one image in one tick; not shown */
    int64_t queue_position;          /* -1: null; 0 is next */
    double eta_seconds;              /* < 0: null */
    uint32_t attempt;
    const api_image_view *images;
    uint32_t image_count;
    const char *error_code, *error_detail;   /* NULL: no error */
    const api_webhook_view *webhook; /* NULL: not shown */
} api_job_view;

const char *api_state_name(api_state state);
bool api_state_parse(const char *name, api_state *out);
bool api_state_ended(api_state state);

/* base_path is "" or "/prefix": urls in bodies carry it. */
char *api_job_body(const api_job_view *job, const char *base_path);
char *api_image_body(const char *job_id, const api_image_view *image, const char *base_path);
char *api_list_body(const api_job_view *jobs, size_t count, const char *next_cursor, const char *base_path);   /* next_cursor NULL: null */
char *api_jobs_array_body(const api_job_view *jobs, size_t count, const char *base_path);                     /* {"jobs":[...]} answer to an array */
char *api_samplers_body(void);
/* What a daemon was told at its start, besides the limits that every daemon has. */
typedef struct api_capabilities {
    const char *version, *build;
    uint32_t streams_max;
    const char *dialects[4];         /* names, ended by NULL */
    bool auth_required, webhooks, cors;
} api_capabilities;
char *api_capabilities_body(const api_capabilities *about);

/* RFC 3339 UTC with milliseconds. */
void api_time_text(char out[32], int64_t ms);

/* Event payloads (the JSON after "data: "). */
char *api_event_queued(const char *job_id, int64_t queue_position, const char *trace_id); /* trace_id "": none */
char *api_event_started(uint32_t attempt, const char *device, uint64_t resumed_done);
char *api_event_image(const char *job_id, const api_image_view *image, const char *base_path);
char *api_event_requeued(const char *reason, uint32_t attempt);
char *api_event_ended(const api_job_view *job, const char *base_path);
char *api_event_position(int64_t queue_position, double eta_seconds);
char *api_event_progress(const api_job_view *job);
char *api_event_preview(uint32_t index, uint32_t done, uint32_t total, uint32_t width, uint32_t height, const unsigned char *png, size_t bytes);
/* One server-sent event; id < 0: none. */
char *api_sse(int64_t id, const char *event, const char *data);

/* Ids: 128 bits as 26 characters of RFC 4648 base32, lower case. */
void api_id_text(char out[27], const unsigned char bytes[16]);
bool api_id_valid(const char *id);

/* Cursor of GET /jobs: opaque, survives deletions: the creation key of the last row. */
void api_cursor_text(char out[64], int64_t created_ms, int64_t row);
bool api_cursor_parse(const char *text, int64_t *created_ms, int64_t *row);

/* Last-Event-ID: digits alone, 15 at most. */
bool api_event_id_parse(const char *text, int64_t *id);
/* "12.png" to 12: plain digits, no leading zero, no sign. */
bool api_image_name_parse(const char *name, uint32_t *index);

#endif
