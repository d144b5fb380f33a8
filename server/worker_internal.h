/* The parts of a worker, for its own files only. Everything belongs to the main thread except where a comment says otherwise. */
#ifndef SERVER_WORKER_INTERNAL_H
#define SERVER_WORKER_INTERNAL_H

#include <pthread.h>

#include "api/model_description.h"
#include "batch/codec.h"
#include "engine.h"
#include "server/protocol.h"
#include "server/tick_table.h"
#include "server/worker.h"

/* ---- The encoder: threads that make PNGs and their hashes, begun in order. */
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
    pthread_t threads[WORKER_ENCODERS_MAX];
    unsigned thread_count; /* that run */
    int wake_fd; /* borrowed eventfd: written when something is done */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;
    encode_task *waiting, **waiting_tail, *done, **done_tail;
    unsigned depth; /* tasks in waiting */
    bool stop;
} worker_encoder;

dn_status worker_encoder_start(worker_encoder *encoder, int wake_fd, unsigned threads, dn_error *error);
void worker_encoder_stop(worker_encoder *encoder); /* tasks not begun are dropped */
void worker_encoder_submit(worker_encoder *encoder, encode_task *task); /* takes the task */
encode_task *worker_encoder_take(worker_encoder *encoder); /* a finished one, NULL: none; the caller owns it */
unsigned worker_encoder_depth(worker_encoder *encoder);
void encode_task_free(encode_task *task);

/* ---- The loader: a thread that reads model folders, in order. */
typedef enum load_kind { LOAD_DESCRIPTION, LOAD_ENGINE } load_kind;

typedef struct load_task {
    struct load_task *next;
    load_kind kind;
    unsigned model; /* index */
    const char *name, *folder; /* borrowed: live as long as the worker */
    /* out */
    dn_status status;
    dn_error error;
    api_model *description; /* owned until taken */
    dn_engine *engine; /* LOAD_ENGINE: likewise */
    dn_batch *batch;
    dn_codec *codec;
    uint32_t rows_limit; /* of its batch */
    uint64_t device_bytes; /* memory of a GPU; 0: the machine's */
    tick_table table;
    size_t bytes; /* of weights and workspaces; of a description the weights alone */
} load_task;

typedef struct worker_loader {
    pthread_t thread;
    bool started;
    int wake_fd; /* borrowed eventfd: written when something is done */
    unsigned threads, rows_max; /* read-only */
    const dn_backend *backend; /* likewise; NULL: the device's */
    bool checked; /* the thread's own: the device can be opened */
    uint64_t memory_limit; /* likewise */
    bool vae_tiling; /* likewise */
    dn_precision precision; /* likewise */
    const char *device; /* likewise */
    bool fast; /* likewise */
    const char *plan_cache; /* likewise */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;
    load_task *waiting, **waiting_tail, *done, **done_tail;
    bool busy, stop;
} worker_loader;

dn_status worker_loader_start(worker_loader *loader, int wake_fd, const worker_options *options, dn_error *error);
dn_status worker_loader_submit(worker_loader *loader, load_kind kind, unsigned model, const char *name, const char *folder,
                               dn_error *error);
load_task *worker_loader_take(worker_loader *loader); /* a finished one, NULL: none; the caller owns it */
void load_task_free(load_task *task); /* with all that was not taken out of it; accepts NULL */
/* False: a load is under way, which may take minutes; the thread goes on, and the process should end at once. */
bool worker_loader_stop(worker_loader *loader);

/* Fills the table with what ticks of 1, 2, 4, ... rows take, in the batch, which is empty before and after; stops where more rows
 * bring nothing, or when the time for it is over. */
dn_status worker_measure_ticks(tick_table *out, dn_batch *batch, uint32_t rows_limit, dn_error *error);

/* ---- The codec thread: input pictures to the network's space before a lane runs, latents to pixels after it. */
typedef enum codec_kind { CODEC_PREPARE, CODEC_DECODE } codec_kind;

typedef struct codec_task {
    struct codec_task *next;
    codec_kind kind;
    uint64_t lane;
    struct worker_model *model; /* main thread; its codec stays while `coding` counts this task */
    uint64_t load; /* which of all loads made the engine: what was prepared for another is no use */
    const dn_engine *engine; /* with the codec: outlives the task */
    dn_codec *codec;
    char job[API_ID_BYTES + 1];
    char init_sha256[65], mask_sha256[65]; /* PREPARE: of the files; "" none */
    float *latents; /* DECODE: owned */
    /* out */
    dn_status status;
    dn_error error;
    float *init, *mask; /* PREPARE: owned */
    uint8_t *pixels; /* DECODE: owned */
} codec_task;

#define CODEC_KEPT 4 /* prepared pictures: the images of a job share theirs */

typedef struct codec_kept {
    uint64_t load, used; /* load 0: free; used: by order of use */
    char init_sha256[65], mask_sha256[65];
    float *init, *mask; /* owned; mask NULL: none */
} codec_kept;

typedef struct worker_codec {
    pthread_t thread;
    bool started;
    int wake_fd; /* borrowed eventfd */
    const char *folder; /* of input pictures */
    codec_kept kept[CODEC_KEPT]; /* the thread's own, with `uses` */
    uint64_t uses;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;
    codec_task *waiting, **waiting_tail, *done, **done_tail;
    bool stop;
} worker_codec;

dn_status worker_codec_start(worker_codec *codec, int wake_fd, const char *folder, dn_error *error);
void worker_codec_stop(worker_codec *codec); /* tasks not begun are dropped */
void worker_codec_submit(worker_codec *codec, codec_task *task); /* takes the task */
codec_task *worker_codec_take(worker_codec *codec); /* a finished one, NULL: none; the caller owns it */
void codec_task_free(codec_task *task);
/* A PNG of the folder to bytes [height][width][channels] as the codec wants them; DN_INVALID says what is wrong with it. */
dn_status worker_read_input(uint8_t **out, const char *folder, const char *job, bool mask, const char *sha256, const dn_codec_info *about,
                            dn_error *error);

/* ---- Models, as the main thread knows them. */
typedef struct worker_model {
    const char *name, *folder;
    protocol_model_state state; /* as last said to the daemon */
    uint64_t load; /* number of the load that made its engine */
    bool described, loading; /* loading: the loader has it */
    unsigned coding; /* tasks of the codec thread that use it */
    bool held; /* its waiting lanes do not enter: it is to make room for another model */
    dn_engine *engine; /* READY */
    dn_batch *batch;
    dn_codec *codec;
    api_model *description;
    uint32_t rows_max, rows_limit, rows_built; /* of a tick: by the table; that fit in memory; of its batch */
    tick_table table;
    double table_said, table_tried; /* when the daemon heard of it; when larger batches were last given a chance */
    size_t bytes; /* READY: in memory; else what it is expected to take */
    double last_used, ready_since, wanted_since; /* wanted_since: 0 while no lane waits for it */
    double failed_at;
    int64_t folder_stamp; /* of the folder that failed */
    double virtual_seconds; /* tick time had, for fair turns */
    dn_error error;
} worker_model;

/* PREPARING: its input pictures are read; DECODING: its latents become pixels; ENCODING: its pixels a PNG. */
typedef enum lane_state { LANE_FREE, LANE_PREPARING, LANE_WAITING, LANE_RUNNING, LANE_DECODING, LANE_ENCODING, LANE_SENT } lane_state;

typedef struct worker_lane {
    lane_state state;
    uint64_t id, order; /* order: of arrival */
    double accepted; /* when its job was, by this process's clock */
    api_request request;
    uint64_t seed;
    worker_model *model;
    uint32_t rows, steps_done, steps_total, evaluations;
    bool watched;
    double last_preview, last_snapshot;
    unsigned char *snapshot; /* to continue from, while it waits */
    size_t snapshot_bytes;
    uint32_t snapshot_steps; /* where it stood */
    char job[API_ID_BYTES + 1];
    bool prepared; /* or there is nothing to prepare */
    float *init, *mask; /* owned: input pictures in the network's space, until the lane has entered its batch */
} worker_lane;

typedef struct worker {
    worker_options options;
    protocol_pipe pipe;
    int wake_fd;
    worker_encoder encoder;
    worker_codec codec;
    worker_loader loader;
    worker_model models[WORKER_MODELS_MAX];
    api_model *old_descriptions[WORKER_OLD_DESCRIPTIONS_MAX]; /* pictures being encoded may still name them */
    unsigned old_description_count;
    worker_lane lanes[WORKER_CREDIT];
    uint64_t next_order, loads;
    double virtual_now; /* the time had of the model that ticked last: turns begin there */
    worker_model *ticked; /* in this turn; NULL: none */
    uint64_t device_bytes; /* memory of a GPU; 0: the machine's, or not known yet */
    uint32_t crowded; /* > 0: with so many lanes in batches there was no memory for another */
    double last_sent, last_retry, tick_seconds, snapshot_seconds; /* tick_seconds: of turns that had a tick, whole */
    bool draining, drained;
    dn_tick_report report;
    protocol_tick_lane tick_lanes[DN_LANES_MAX];
} worker;

/* worker_models.c */
dn_status worker_models_start(worker *w, dn_error *error);
void worker_models_done(worker *w);
/* Takes what the loader has finished, loads what lanes wait for, makes room; says what has changed. */
dn_status worker_manage_models(worker *w, dn_error *error);
/* There was no memory for a tick of so many rows: the model's are smaller from now on, for a while. */
dn_status worker_shrink_ticks(worker *w, worker_model *model, uint32_t rows, dn_error *error);
/* A turn with a tick of these rows took so long; tells the daemon what has become of the table, now and then. */
dn_status worker_learn_tick(worker *w, worker_model *model, uint32_t rows, double seconds, dn_error *error);

/* worker_lanes.c. Functions that send return what the pipe says; those that ask the device, DN_DEVICE_LOST where it is. */
worker_lane *worker_find_lane(worker *w, uint64_t id);
void worker_release_lane(worker_lane *lane);
dn_status worker_admit(worker *w, const protocol_message *m, dn_error *error);
dn_status worker_cancel(worker *w, uint64_t id, dn_error *error); /* also: the lane goes back, and the daemon may send it again */
dn_status worker_drain(worker *w, dn_error *error);
dn_status worker_enter_waiting(worker *w, dn_error *error);
dn_status worker_fail_lane(worker *w, worker_lane *lane, protocol_failure failure, const char *cause, dn_error *error);
dn_status worker_snapshot_lane(worker *w, worker_lane *lane, dn_error *error);

/* worker_tick.c */
bool worker_has_work(const worker *w);
dn_status worker_tick(worker *w, dn_error *error);
dn_status worker_send_encoded(worker *w, dn_error *error);

/* worker_stages.c: what happens to a lane before and after its batch. */
dn_status worker_prepare_lane(worker *w, worker_lane *lane, dn_error *error); /* to WAITING, or to PREPARING */
dn_status worker_finish_lane(worker *w, worker_lane *lane, dn_error *error); /* its image is made */
void worker_preview_lane(worker *w, worker_lane *lane, double now);
dn_status worker_take_coded(worker *w, dn_error *error); /* what the codec thread has finished */

/* worker.c */
dn_status worker_send(worker *w, const protocol_message *message, dn_error *error);
/* Whatever answered DN_DEVICE_LOST: tells the daemon why, and answers so too, which ends the process. */
dn_status worker_device_lost(worker *w, const char *why, dn_error *error);

#endif
