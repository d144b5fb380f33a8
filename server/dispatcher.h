/* The dispatcher: the daemon's side of the workers, one for each device. One thread: claims jobs, feeds lanes to the worker processes,
 * hears their reports, writes image files and their rows, publishes progress, restarts a worker that died or froze.
 *
 * It owns the worker processes and the socket pairs; it never runs the engine. All lanes of one job may run on different workers. */
#ifndef SERVER_DISPATCHER_H
#define SERVER_DISPATCHER_H

#include <sys/types.h>

#include "backend/devices.h"
#include "base/precision.h"
#include "server/batching.h"
#include "server/hub.h"
#include "server/metrics.h"
#include "server/models.h"
#include "server/store/store.h"

typedef struct dispatcher dispatcher;

typedef struct dispatcher_options {
    const char *program;            /* path of denoised itself, for `denoised worker` (default /proc/self/exe) */
    const char *base_path;
    unsigned threads;               /* of each worker; 0: all */
    unsigned rows_max;              /* 0: chosen by the worker */
    batching batching;              /* when waiting images enter a running batch */
    double snapshot_every_seconds;  /* at least; 0: 5 */
    uint64_t memory_limit;          /* bytes of all models in memory, of each worker; 0: none */
    bool preload;                   /* every model at the start */
    bool vae_tiling;                /* large latents are decoded in tiles */
    dn_precision precision;         /* of the denoisers */
    const char *devices[DN_DEVICES_MAX]; /* names (backend/devices.h), borrowed: one worker process on each */
    unsigned device_count;          /* 0: one worker on the CPU */
    bool fast;                      /* dn_device_options.fast of every worker */
    const char *plan_cache;         /* folder of GPUs' plans that were found; NULL: none */
    bool device_fallback;           /* while no device can be opened, a worker on the CPU works off the queue (its bytes are others) */
    double freeze_seconds;          /* a worker silent for so long is replaced; 0: 30. Ten of its ticks are always allowed. */
    store *store;
    hub *hub;
    models *models;
    metrics *metrics;
} dispatcher_options;

dn_status dispatcher_start(dispatcher **out, const dispatcher_options *options, dn_error *error);
/* All calls below: any thread, never block. */
void dispatcher_kick(dispatcher *d);                            /* something was enqueued */
/* A job was enqueued that is of no use after this moment (wall-clock milliseconds). */
void dispatcher_deadline(dispatcher *d, int64_t at_ms);
void dispatcher_cancel(dispatcher *d, const char *job_id);      /* after the store committed cancel_requested */
/* Some worker is; reason: why none is. */
bool dispatcher_worker_ready(dispatcher *d, char *reason, size_t reason_bytes);
/* A worker, as an operator sees it. */
typedef struct dispatcher_worker {
    pid_t pid;                      /* 0: there is none at the moment */
    const char *state;              /* "starting", "loading", "ready", "draining", "gone" */
    const char *device;             /* its name: "cpu", "cuda:0" */
    unsigned restarts;              /* processes started after the first */
    uint64_t resident_bytes;
    double cpu_seconds;             /* of this one */
} dispatcher_worker;
unsigned dispatcher_worker_count(dispatcher *d);                /* at least 1; the one of device_fallback counts once it has been needed */
void dispatcher_get_worker(dispatcher *d, unsigned index, dispatcher_worker *out);
/* A queued job: n images, rows of each in a tick, cost and cost of what is before it in rows (api_request_cost). */
typedef struct dispatcher_question {
    const char *model;
    uint32_t n, rows;
    uint64_t cost, cost_ahead;
    int priority;
    double waited_seconds;
} dispatcher_question;
/* Seconds until it ends; < 0: not measured yet. */
double dispatcher_eta(dispatcher *d, const dispatcher_question *question);
/* Seconds that so many rows take in full batches; < 0: not measured yet. */
double dispatcher_queue_seconds(dispatcher *d, uint64_t cost);
/* Whether the file of that name in the folder of snapshots is one, whole. */
bool dispatcher_snapshot_whole(int folder_fd, const char *name);
/* Drain: no more claims. Finishes what runs within grace_seconds, then snapshots and requeues without spending an attempt.
 * hurry: snapshot at once. dispatcher_drained tells when it is over. */
void dispatcher_drain(dispatcher *d, double grace_seconds);
void dispatcher_hurry(dispatcher *d);
bool dispatcher_drained(dispatcher *d);
/* The line of the log about a job that has ended: in which state, with which error ("" none), after how many sampler steps. */
void job_log_ended(const store_job *job, const char *state, const char *error_code, uint64_t steps);
void dispatcher_stop(dispatcher *d);                            /* joins; the worker is gone afterwards */

#endif
