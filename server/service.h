/* The service: what the routes share. Built by command_serve.c, alive as long as the HTTP server; its parts guard themselves. */
#ifndef SERVER_SERVICE_H
#define SERVER_SERVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/auth.h"
#include "server/dispatcher.h"
#include "server/http.h"
#include "server/hub.h"
#include "server/inputs.h"
#include "server/metrics.h"
#include "server/models.h"
#include "server/picture_hash.h"
#include "server/store/store.h"
#include "server/webhooks.h"

typedef struct service {
    store *store;
    hub *hub;
    models *models;
    metrics *metrics;
    dispatcher *dispatcher;
    inputs *inputs;
    auth *auth;
    webhooks *webhooks; /* NULL: there are none */
    picture_hasher *pictures;
    struct sdapi_calls *sdapi;
    const char *base_path;
    const char *public_url; /* how clients reach it, without the base path; "": nobody has said */
    const char *version, *build;
    const char *device_note; /* why models are on the CPU though there is a GPU's driver; "": they are not, or there is none */
    double started; /* monotonic */
    atomic_bool draining;
    atomic_uint streams, waits;
    atomic_uint stream_turn; /* counts streams, so that they take turns */
    unsigned streams_max;
    bool cors; /* pages of some other sites are let in */
    pthread_mutex_t stream_lock; /* guards the table below: open streams by client */
    struct stream_count {
        char client[65];
        unsigned count;
    } * stream_counts; /* streams_max of them */
} service;

/* The route table, ended by method NULL. Every handler's application pointer is the service. */
extern const http_route service_routes[];

/* server/job_view.c: a job as the wire shows it, from its row and what is live. The view borrows from `held`, which
 * job_view_done frees. */
typedef struct job_view {
    store_job job;
    store_image *images;
    size_t image_count;
    api_image_view *image_views;
    store_delivery_state delivery;
    api_webhook_view webhook;
    api_job_view view;
} job_view;
/* Takes over *job. STORE_GONE, STORE_NONE: retention has taken it since it was read; STORE_UNKNOWN: out of memory, or the store
 * cannot be read. */
store_result job_view_make(job_view *out, service *s, store_job *job);
void job_view_done(job_view *held);
/* GET of one job for a client; STORE_OK, STORE_NONE or STORE_GONE. */
store_result job_view_get(job_view *out, service *s, const char *client, const char *id);
unsigned job_retry_after(const job_view *held); /* whole seconds until polling makes sense, at least 1 */

/* Whose jobs a request may read: its client's, or everybody's (NULL). */
const char *route_reach(const http_request *request);

/* A query parameter that is 0 or 1; *out is `otherwise` when it is not given. False: it is something else; refused and answered. */
bool route_flag(http_request *request, const char *name, bool otherwise, bool *out);

/* Answers shared by routes. */
void route_missing(http_request *request, store_result result); /* 404, 410 or 503 */
void route_store_problem(service *s, const store_request *done, api_problem *problem); /* why a write was not STORE_OK */
void route_canceled(service *s, const store_request *done); /* a STORE_CANCEL was STORE_OK: tells the worker, or the streams */
void route_store_refusal(http_request *request, service *s, const store_request *done); /* the same, answered */
/* The JOB body, with Location, and Retry-After when it is 202. status 0: 200 when it shows a job that has ended, else 202. */
void route_job(http_request *request, int status, const char *id);
void route_png(http_request *request, job_view *held, uint32_t index);
/* The bytes of an image's file if it is what its row says, malloc'd, image->view.bytes of them; NULL: missing, damaged (logged) or no memory. */
unsigned char *route_image_bytes(service *s, const store_image *image);

/* server/stream_count.c: how many event streams are open. */
#define STREAMS_REFUSED "too many event streams are open"
api_code route_stream_refusal(service *s, const char *client); /* whether one more would be refused now; API_NONE: no */
api_code stream_enter(service *s, const char *client); /* API_NONE: it is counted until stream_leave */
void stream_leave(service *s, const char *client);

/* server/route_events.c: answers with the job's event stream from after_seq on. */
void route_stream(http_request *request, const char *job_id, int64_t after_seq, bool previews);

/* Waiting for jobs to end: one state for POST /generate and GET /jobs/{id}. */
typedef struct waiter {
    service *service;
    http_request *request;
    char (*ids)[27];
    size_t count;
    hub_subscription **subscriptions;
    bool *ended, counted;
    double until; /* monotonic */
} waiter;
/* False: too many wait already, or there is no memory; the caller answers at once, as it does when the time is up. */
bool waiter_begin(waiter *w, service *s, http_request *request, char (*ids)[27], size_t count, double seconds); /* borrows ids */
/* True: all ended, the time is up, the client left, or the server stops: answer now. False: the request has been suspended. */
bool waiter_over(waiter *w, bool *all_ended);
void waiter_done(waiter *w);

/* Handlers, by file. */
http_handler route_generate; /* route_generate.c */
http_handler route_verify; /* route_verify.c */
http_handler route_jobs_list, route_job_get, route_job_delete, route_job_image; /* route_jobs.c, route_images.c */
http_handler route_job_events; /* route_events.c */
http_handler route_root, route_page; /* route_page.c */
http_handler route_models, route_model, route_samplers, route_capabilities, route_openapi, route_healthz, route_readyz; /* route_info.c */
http_handler route_metrics, route_stats; /* route_stats.c */
http_handler route_openai_images, route_openai_models, route_openai_model; /* route_openai.c */
http_refusal route_openai_refusal; /* OpenAI's shape of every refusal below /v1/ */

/* The dialects by their paths, ended by prefix NULL. */
extern const http_dialect service_dialects[];

http_handler route_sdapi_txt2img, route_sdapi_img2img; /* route_sdapi.c */
http_handler route_sdapi_progress, route_sdapi_task, route_sdapi_interrupt, route_sdapi_skip; /* route_sdapi_progress.c */
http_handler route_sdapi_samplers, route_sdapi_schedulers, route_sdapi_models, route_sdapi_none, route_sdapi_embeddings, route_sdapi_scripts,
    route_sdapi_refresh, route_sdapi_flags, route_sdapi_memory, route_sdapi_options_get, route_sdapi_options_set,
    route_sdapi_png_info; /* route_sdapi_info.c */

#endif
