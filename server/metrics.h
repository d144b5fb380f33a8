/* Counters, gauges and histograms in Prometheus' text form. Atomic; any thread. */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdint.h>

#include "base/error.h"

typedef struct metrics metrics;

typedef enum metrics_counter {
    METRIC_JOBS_ACCEPTED, METRIC_JOBS_SUCCEEDED, METRIC_JOBS_FAILED, METRIC_JOBS_CANCELED, METRIC_JOBS_REQUEUED, METRIC_IMAGES,
    METRIC_STEPS, METRIC_ROWS, METRIC_TICKS, METRIC_WORKER_RESTARTS, METRIC_LANES_RESUMED, METRIC_STEPS_REDONE, METRIC_LANES_SET_ASIDE,
    METRIC_WEBHOOKS_DELIVERED, METRIC_WEBHOOKS_FAILED, METRIC_WEBHOOKS_GIVEN_UP, METRIC_ACCEPT_PAUSES,
    METRIC_COUNTERS
} metrics_counter;
typedef enum metrics_histogram {
    METRIC_TICK_SECONDS, METRIC_TICK_ROWS, METRIC_QUEUE_WAIT_SECONDS, METRIC_ADMISSION_WAIT_SECONDS, METRIC_JOB_SECONDS, METRIC_COMMIT_SECONDS,
    METRIC_HISTOGRAMS
} metrics_histogram;
typedef enum metrics_gauge { METRIC_STREAMS, METRIC_LANES_RUNNING, METRIC_WORKERS, METRIC_GAUGES } metrics_gauge;

dn_status metrics_create(metrics **out, dn_error *error);
void metrics_free(metrics *m);
void metrics_add(metrics *m, metrics_counter counter, uint64_t amount);
void metrics_observe(metrics *m, metrics_histogram histogram, double value);
void metrics_set(metrics *m, metrics_gauge gauge, int64_t value);
void metrics_change(metrics *m, metrics_gauge gauge, int64_t by);
void metrics_request(metrics *m, const char *route, int status, double seconds);   /* denoised_http_requests_total{route,status} */
/* Text exposition; extra is appended (queue depth, jobs by state from the store). malloc'd. */
char *metrics_text(metrics *m, const char *extra);

#endif
