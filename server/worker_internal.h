/* The parts of a worker, for its own files only. Everything belongs to the main thread except where a comment says otherwise. */
#ifndef SERVER_WORKER_INTERNAL_H
#define SERVER_WORKER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "api/model_description.h"
#include "engine.h"
#include "server/protocol.h"
#include "server/worker.h"

/* ---- The encoder: a thread that makes PNGs and their hashes, in order. */
typedef enum encode_kind { ENCODE_IMAGE, ENCODE_PREVIEW } encode_kind;

typedef struct encode_task {
    struct encode_task *next;
    encode_kind kind;
    uint64_t lane;
    uint32_t width, height, channels, steps_done, steps_total;
    uint8_t *pixels; /* [height][width][channels], owned */
    api_request request;
    uint64_t seed;
    const api_model *model; /* borrowed: lives as long as the worker */
    /* out */
    dn_status status;
    dn_error error;
    unsigned char *png; /* owned */
    size_t png_bytes;
    unsigned char sha256[32], pixels_sha256[32];
} encode_task;

typedef struct worker_encoder {
    pthread_t thread;
    bool started;
    int wake_fd; /* borrowed eventfd: written when something is done */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;
    encode_task *waiting, **waiting_tail, *done, **done_tail;
    unsigned depth; /* tasks in waiting */
    bool stop;
} worker_encoder;

dn_status worker_encoder_start(worker_encoder *encoder, int wake_fd, dn_error *error);
void worker_encoder_stop(worker_encoder *encoder); /* tasks not begun are dropped */
void worker_encoder_submit(worker_encoder *encoder, encode_task *task); /* takes the task */
encode_task *worker_encoder_take(worker_encoder *encoder); /* a finished one, NULL: none; the caller owns it */
unsigned worker_encoder_depth(worker_encoder *encoder);
void encode_task_free(encode_task *task);

/* ---- Models: opened one after another by the loader thread. */
typedef struct worker_model {
    const char *name, *folder;
    atomic_int loaded; /* protocol_model_state; the fields below belong to the loader until it leaves LOADING */
    bool announced; /* main thread: READY or FAILED has been said */
    dn_engine *engine;
    dn_batch *batch;
    api_model *description;
    uint32_t rows_max;
    double row_seconds;
    dn_error error;
} worker_model;

typedef enum lane_state { LANE_FREE, LANE_WAITING, LANE_RUNNING, LANE_ENCODING, LANE_SENT } lane_state;

typedef struct worker_lane {
    lane_state state;
    uint64_t id, order; /* order: of arrival */
    api_request request;
    uint64_t seed;
    worker_model *model;
    uint32_t rows, steps_done, steps_total;
    bool watched;
    double last_preview, last_snapshot;
    unsigned char *snapshot; /* to continue from, until it is admitted */
    size_t snapshot_bytes;
    uint32_t snapshot_steps; /* where it stood */
} worker_lane;

typedef struct worker {
    worker_options options;
    protocol_pipe pipe;
    int wake_fd;
    worker_encoder encoder;
    pthread_t loader;
    atomic_bool loader_stop;
    worker_model models[WORKER_MODELS_MAX];
    unsigned announced_loading; /* models of which LOADING has been said */
    worker_lane lanes[WORKER_CREDIT];
    uint64_t next_order;
    double last_sent, tick_seconds, snapshot_seconds;
    bool draining, drained;
    dn_tick_report report;
    protocol_tick_lane tick_lanes[DN_LANES_MAX];
} worker;

/* worker_models.c */
dn_status worker_loader_start(worker *w, dn_error *error);
void worker_models_done(worker *w);
dn_status worker_announce_models(worker *w, dn_error *error);

/* worker_lanes.c. Functions that send return what the pipe says. */
worker_lane *worker_find_lane(worker *w, uint64_t id);
void worker_release_lane(worker_lane *lane);
dn_status worker_admit(worker *w, const protocol_message *m, dn_error *error);
dn_status worker_cancel(worker *w, uint64_t id, dn_error *error);
dn_status worker_drain(worker *w, dn_error *error);
dn_status worker_enter_waiting(worker *w, dn_error *error);
dn_status worker_fail_lane(worker *w, worker_lane *lane, protocol_failure failure, const char *cause, dn_error *error);
dn_status worker_snapshot_lane(worker *w, worker_lane *lane, dn_error *error);

/* worker_tick.c */
bool worker_has_work(const worker *w);
dn_status worker_tick(worker *w, dn_error *error);
dn_status worker_send_encoded(worker *w, dn_error *error);

/* worker.c */
dn_status worker_send(worker *w, const protocol_message *message, dn_error *error);

#endif
