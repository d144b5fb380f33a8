/* Counters, gauges and histograms in Prometheus' text form, and what was lately: the last values of each histogram, and the images of the
 * last minute. Any thread; recording never waits, but for requests, which have a lock for a moment. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdint.h>
#include <stdio.h>

#include "api/problem.h"
#include "base/error.h"

#define METRICS_RECENT 512 /* values of each histogram that quantiles are taken of */
#define METRICS_MINUTE 60u /* seconds that images are counted back */

typedef struct metrics metrics;

typedef enum metrics_counter {
    METRIC_JOBS_ACCEPTED, METRIC_JOBS_SUCCEEDED, METRIC_JOBS_FAILED, METRIC_JOBS_CANCELED, METRIC_JOBS_REQUEUED, METRIC_IMAGES,
    METRIC_STEPS, METRIC_ROWS, METRIC_TICKS, METRIC_WORKER_RESTARTS, METRIC_LANES_RESUMED, METRIC_STEPS_REDONE, METRIC_LANES_SET_ASIDE,
    METRIC_WEBHOOKS_DELIVERED, METRIC_WEBHOOKS_FAILED, METRIC_WEBHOOKS_GIVEN_UP, METRIC_ACCEPT_PAUSES, METRIC_STEPS_WASTED,
    METRIC_COUNTERS
} metrics_counter;
typedef enum metrics_histogram {
    METRIC_TICK_SECONDS, METRIC_TICK_ROWS, METRIC_QUEUE_WAIT_SECONDS, METRIC_ADMISSION_WAIT_SECONDS, METRIC_JOB_SECONDS, METRIC_COMMIT_SECONDS,
    METRIC_COMMIT_WRITES, METRIC_JOB_LATENCY_SECONDS, METRIC_HISTOGRAMS
} metrics_histogram;
typedef enum metrics_gauge { METRIC_STREAMS, METRIC_LANES_RUNNING, METRIC_WORKERS, METRIC_GAUGES } metrics_gauge;

dn_status metrics_create(metrics **out, dn_error *error);
void metrics_free(metrics *m);
void metrics_add(metrics *m, metrics_counter counter, uint64_t amount);
void metrics_observe(metrics *m, metrics_histogram histogram, double value);
void metrics_set(metrics *m, metrics_gauge gauge, int64_t value);
void metrics_change(metrics *m, metrics_gauge gauge, int64_t by);
/* An answered request: denoised_http_requests_total{route,method,status}, and its duration by route and method. route: a pattern that
 * lives as long as the program ("/jobs/{}"). */
void metrics_request(metrics *m, const char *route, const char *method, int status, double seconds);
/* denoised_http_refusals_total{code}. */
void metrics_refused(metrics *m, api_code code);

/* Of the last METRICS_RECENT values: a share of them, 0..1, is at most so large; their mean. NAN: there are none yet. */
double metrics_quantile(metrics *m, metrics_histogram histogram, double share);
double metrics_mean(metrics *m, metrics_histogram histogram);
/* Images stored in the last seconds (2..METRICS_MINUTE), a second. */
double metrics_images_per_second(metrics *m, unsigned seconds);

/* The parts of the text form, for numbers that are kept elsewhere. type: "counter", "gauge", ... */
void metrics_write_family(FILE *out, const char *name, const char *type, const char *help);
void metrics_write_label(FILE *out, const char *text); /* a label's value, escaped */
/* A family of one number. */
void metrics_write_gauge(FILE *out, const char *name, const char *help, double value);
void metrics_write_counter(FILE *out, const char *name, const char *help, double value);
/* Text exposition; extra is appended (queue depth, jobs by state from the store). malloc'd. */
char *metrics_text(metrics *m, const char *extra);

/* ---- For the files of metrics: requests by route, method and status (metrics_http.c). */
typedef struct metrics_http metrics_http;
metrics_http *metrics_http_create(void); /* NULL: out of memory */
void metrics_http_free(metrics_http *http);
void metrics_http_count(metrics_http *http, const char *route, const char *method, int status, double seconds);
void metrics_http_refused(metrics_http *http, api_code code);
void metrics_http_write(metrics_http *http, FILE *out);

#endif
