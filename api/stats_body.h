/* The body of GET /stats: what the daemon does, for its operator. Pure. */
#ifndef API_STATS_BODY_H
#define API_STATS_BODY_H

#include <stddef.h>
#include <stdint.h>

/* The last times of something, in milliseconds: half of them took at most p50, ... NAN: there are none yet. */
typedef struct api_quantiles {
    double p50, p90, p99;
} api_quantiles;

typedef struct api_worker_stats {
    long pid;                       /* 0: none */
    const char *state, *device;
    unsigned restarts;
    uint64_t resident_bytes;
} api_worker_stats;

typedef struct api_model_stats {
    const char *name, *state;
    uint64_t bytes;                 /* of the worker's memory; 0: it is not there */
} api_model_stats;

typedef struct api_stats {
    double uptime_seconds;
    const char *version, *build;
    uint64_t queued, running, cost; /* cost: evaluations of what is queued */
    uint64_t succeeded, failed, canceled; /* jobs in the store */
    double images_10s, images_60s;  /* a second, over the last 10 and 60 */
    double rows_per_tick;           /* mean of the last ticks; NAN: none yet */
    api_quantiles tick, latency, wait, commit;
    const api_worker_stats *workers;
    size_t worker_count;
    const api_model_stats *models;
    size_t model_count;
    unsigned streams;
    uint64_t resident_bytes;        /* of the daemon, without its worker */
    uint64_t wal_bytes, free_bytes;
} api_stats;

char *api_stats_body(const api_stats *stats); /* malloc'd; NULL: out of memory */

#endif
