/* The parts of the dispatcher, for its own files only. Everything belongs to the dispatcher's thread except where a comment
 * says otherwise.
 *
 * A job is ACTIVE until something ends it here: then its lanes are called back from the workers, and once none is out, one store
 * request says what became of it. A lane waits, is sent to one of the workers, is being stored, is done. */
#ifndef SERVER_DISPATCHER_INTERNAL_H
#define SERVER_DISPATCHER_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "api/generate_request.h"
#include "server/dispatcher.h"
#include "server/forecast.h"
#include "server/protocol.h"
#include "server/tick_table.h"
#include "server/worker.h"

#define DISPATCHER_FREEZE_SECONDS 30.0 /* silence after which a worker counts as frozen */
#define DISPATCHER_FREEZE_TICKS 10.0 /* ... but never before so many of its slowest ticks */
#define DISPATCHER_PING_SECONDS 5.0
#define DISPATCHER_PROGRESS_SECONDS 0.1 /* between two progress reports of a job */
#define DISPATCHER_WATCH_SECONDS 0.2 /* how soon a new watcher gets previews */
#define DISPATCHER_QUEUE_SECONDS 0.2 /* between two wake-ups of everybody who waits in the queue */
#define DISPATCHER_CLAIM_SECONDS 1.0 /* an empty queue is looked at again, if nobody says that it filled */
#define DISPATCHER_CLAIM_MAX 16u
#define DISPATCHER_DRAIN_SECONDS 10.0 /* a worker that cannot let go in this time is ended */
#define DISPATCHER_BURY_MS 1000 /* what a killed worker has to end in, before it is left to itself */
#define DISPATCHER_BACKOFF_SECONDS 0.25 /* before a worker that was of no use is started again; twice as long each time */
#define DISPATCHER_BACKOFF_MAX_SECONDS 5.0
#define DISPATCHER_DEVICE_LEAST_SECONDS 1.0 /* a worker that loses its device sooner was of no use */
#define DISPATCHER_HOPELESS_STARTS 3u /* starts in a row that came to nothing: nobody waits for that worker any more */
#define DISPATCHER_REFUSALS_MAX 60u /* times an image is offered to a full disk, one second apart */
#define SNAPSHOT_NAME_BYTES 64

/* ---- What comes in from other threads, and results on their way to the store. */
typedef enum pending_kind { PENDING_STORE, PENDING_CANCEL } pending_kind;

typedef struct pending {
    struct pending *next;
    dispatcher *d;
    pending_kind kind;
    char id[27];
    store_request *request; /* PENDING_STORE: owned */
    uint64_t lane; /* STORE_IMAGE: to be acknowledged */
    unsigned char *png; /* STORE_IMAGE: owned until the file is durable */
    size_t png_bytes;
    size_t claimed; /* STORE_CLAIM: so many of its jobs are here */
    unsigned refusals; /* times the disk was full */
    double due; /* when to try again */
} pending;

/* ---- The files thread: image and snapshot files, in order. */
typedef enum file_kind { FILE_IMAGE, FILE_SNAPSHOT, FILE_UNLINK_IMAGE, FILE_UNLINK_SNAPSHOT } file_kind;

typedef struct file_task {
    struct file_task *next;
    file_kind kind;
    char name[96];
    pending *image; /* FILE_IMAGE: goes on to the store, or back to the inbox when the disk refuses */
    unsigned char *bytes; /* FILE_SNAPSHOT: owned */
    size_t count;
    bool failed; /* FILE_IMAGE: written by the thread */
} file_task;

typedef struct files_thread {
    pthread_t thread;
    bool started;
    dispatcher *d;
    int images_fd, snapshots_fd; /* folders; read-only after start */
    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;
    file_task *head, **tail;
    bool stop;
} files_thread;

dn_status files_start(files_thread *files, dispatcher *d, dn_error *error);
void files_stop(files_thread *files); /* everything queued is done first */
void files_write_image(files_thread *files, pending *image); /* takes it */
void files_write_snapshot(files_thread *files, const char *name, unsigned char *bytes, size_t count); /* takes bytes */
void files_unlink(files_thread *files, file_kind kind, const char *name);

/* ---- Snapshot files (dispatcher_snapshots.c) */
void snapshot_name(char out[SNAPSHOT_NAME_BYTES], const char *job_id, uint32_t index);
/* A whole file's bytes, malloc'd; NULL: out of memory. */
unsigned char *snapshot_wrap(const char *job_id, uint32_t index, uint32_t steps, protocol_bytes payload, size_t *out_bytes);
/* The payload of a file that is whole and of this lane, malloc'd; NULL: none. */
unsigned char *snapshot_read(int folder_fd, const char *job_id, uint32_t index, uint32_t *steps, size_t *out_bytes);
bool snapshot_exists(int folder_fd, const char *job_id, uint32_t index); /* whole or not */
void snapshot_sweep(dispatcher *d); /* at start: files of jobs that no longer run or wait */
uint64_t snapshot_resumed_done(void *payload, const store_job *job); /* store_request.resumed_done; payload: a pending */

/* ---- Jobs */
typedef enum lane_place { PLACE_WAITING, PLACE_SENT, PLACE_STORING, PLACE_DONE } lane_place;

typedef struct job_lane {
    lane_place place;
    bool entered; /* it is in its batch */
    bool watched, aside; /* aside: it made way for a more urgent one, in the worker */
    uint32_t steps_done, steps_total;
    uint32_t played; /* its place in the forecast; UINT32_MAX: none */
    double made_at; /* when its last tick was heard of; 0: not yet */
    struct worker_side *worker; /* while SENT: who has it */
    uint64_t number; /* while SENT or STORING: the worker's name for it; no two workers have the same */
} job_lane;

typedef enum job_end { END_NONE, END_CANCELED, END_FAILED, END_REQUEUED, END_DROPPED } job_end;

typedef struct running_job {
    struct running_job *next; /* in order of claim, but for those that outrank others */
    store_job job;
    api_request request;
    bool readable; /* the stored request was understood: *request is it */
    const api_model *model;
    size_t model_index;
    uint32_t n, rows; /* rows: of one lane in one tick, as far as can be told from here */
    job_lane *lanes;
    uint32_t steps_made; /* of a lane, at most: image-to-image leaves out the first ones */
    double evaluations_a_step;
    unsigned group; /* > 0: suspected of having ended a worker; runs only with its group */
    job_end end;
    bool end_submitted;
    char error_code[24], error_detail[512], reason[24];
    bool crashed_alone;
    double last_progress, last_watch;
    double ends_at; /* as foreseen; < 0: not known */
    bool had_room, admitted; /* had_room: it was claimed at once, and nothing was before it: no queue, no load */
    bool changed; /* progress not yet published */
} running_job;

typedef struct outstanding_lane {
    uint64_t number;
    running_job *job; /* NULL: the job is gone; only the acknowledgement is due */
    uint32_t index;
} outstanding_lane;

/* What a worker says of a model. */
typedef struct worker_side_model {
    bool told; /* anything: the next two hold */
    model_state state;
    char cause[256]; /* FAILED */
    bool ready, failed; /* ready: it takes lanes, whether it is in memory or not */
    uint32_t rows_max;
    uint32_t batch_rows; /* the same while it is in memory and has a table of ticks; else 0 */
    uint64_t bytes;
    const api_model *described; /* of the registry */
} worker_side_model;

/* One worker: its process, and what it says of itself. Several differ in their device alone. */
typedef struct worker_side {
    unsigned index; /* its name: "worker 0" */
    const char *device;
    bool spare; /* on the CPU, and only while none of the others can be started */
    bool retiring; /* the spare one, now that another is there: it ends what it has */
    pid_t pid; /* 0: none */
    int pid_fd;
    pid_t dying; /* a process that was killed and has not ended: one that waits for its device may take its time. 0: none */
    protocol_pipe pipe;
    bool hello, ever_ready, let_go; /* let_go: it holds no lanes, as a drain asks */
    bool message_lost; /* one to the worker could not be sent: the two sides no longer agree */
    bool device_lost; /* lost_by is what it said of it */
    char lost_by[256]; /* how the last process ended: "signal 9" */
    uint32_t credit;
    double started, last_heard, last_ping, last_checked, respawn_at, backoff;
    double slowest_tick;
    double died_at; /* when a process of it last ended by itself, or was silent for too long; 0: never */
    unsigned starts, failures; /* failures: starts in a row that came to nothing */
    worker_side_model *models; /* [models_count] */
    tick_table *tables; /* [models_count]: what it says of ticks; kept over its processes */
    outstanding_lane outstanding[WORKER_CREDIT];
    uint32_t outstanding_count;
    atomic_bool up;
    atomic_bool settled; /* the default model, with preload every one, has been loaded or has failed since the process started */
    atomic_bool useless; /* the default model has failed there */
    pid_t shown_pid; /* with the dispatcher's lock, as the next two: until it is waited for, so that the number is nobody else's; 0: none */
    unsigned shown_starts;
    char lost_why[384]; /* why there is no process; "": there has been no reason yet */
} worker_side;

/* How far an image had come when its worker was lost. */
#define DISPATCHER_REACHED_MAX 512u
typedef struct reached_lane {
    char job[27];
    uint32_t index, steps; /* steps: 0 once it is known how many were made again */
} reached_lane;

/* What came of a model lately, fading; and what its images need beside ticks. Kept over workers. */
typedef struct arrivals {
    double since, last; /* the first, 0: none yet; as of when the next three are */
    double images, evaluations, rows; /* sums over images */
    double any_evaluations, any_rows; /* of the average image, however long ago */
    double head_seconds, tail_seconds;
    double ticked; /* as of when the next two are */
    double took, expected; /* seconds of ticks lately, fading; and what the table said of them */
} arrivals;

struct dispatcher {
    dispatcher_options options; /* read-only after start */
    char *program;
    pthread_t thread;
    int event_fd; /* read-only after start */
    pid_t daemon;
    files_thread files;

    pthread_mutex_t lock; /* the next two, and what is shown of workers */
    pending *inbox, **inbox_tail;

    atomic_bool kicked, stop, hurry, drained, store_gone;
    atomic_bool draining;
    _Atomic double drain_deadline; /* monotonic */
    _Atomic int64_t next_due_ms; /* deadlines and ends of delays of queued jobs, wall clock; INT64_MAX: none known. 0 at the start: to be asked */
    pthread_mutex_t forecast_lock; /* *known, for others than the dispatcher's thread */
    forecast *known, *played; /* one block; played: the thread's own */
    arrivals *arrivals; /* [models_count] */
    double forecast_at;

    worker_side *workers; /* [worker_count]; the last may be the spare one */
    unsigned worker_count;
    worker_side *trial; /* on which suspects run, a group alone; NULL: there are none */
    bool drain_sent;
    double drain_sent_at;
    _Atomic double freeze_seconds; /* of the options; tests change it for the one worker that they freeze */
    double *no_jobs_until; /* [models_count]: no job waited for it when it was last asked for: until then nobody asks, but after a word of new ones */
    reached_lane reached[DISPATCHER_REACHED_MAX]; /* the newest overwrite the oldest */
    uint64_t reached_count;

    /* jobs */
    running_job *jobs;
    uint64_t next_number;
    unsigned next_group;
    unsigned store_pending; /* results on their way, the files thread included */
    pending *deferred;
    bool claiming, claim_again;
    bool claim_urgent; /* something was enqueued: it may be worth a place that others have */
    double next_claim, rows_per_job;
    const char *claim_models[WORKER_MODELS_MAX + 1];
    char **strangers; /* models of queued jobs that are not configured, NULL-terminated; NULL: none, or dealt with */
    bool queue_moved, asking_deadlines;
    double last_queue_moved;
};

/* dispatcher.c: the inbox (any thread), and the store */
void dispatcher_post(dispatcher *d, pending *item);
pending *dispatcher_pending(dispatcher *d, store_op op); /* with its request; NULL: out of memory */
void dispatcher_submit(dispatcher *d, pending *item);
void dispatcher_store_done(store_request *request); /* the done() of every request of ours */

/* dispatcher_results.c */
void dispatcher_result(dispatcher *d, pending *item);
void dispatcher_retry_deferred(dispatcher *d, double now);

/* dispatcher_claim.c */
void dispatcher_claim(dispatcher *d, double now);
bool dispatcher_claimed(dispatcher *d, pending *item); /* false: out of memory for one of its jobs; to be called again */
void dispatcher_look_again(dispatcher *d); /* something may wait that did not: claims ask at once */
void dispatcher_staged(dispatcher *d, const store_request *request); /* delayed jobs may be claimed again */
void dispatcher_find_strangers(dispatcher *d); /* at start, and when jobs come back that were out of sight */
void dispatcher_forget_strangers(dispatcher *d);

/* dispatcher_forecast.c */
dn_status dispatcher_forecast_start(dispatcher *d, dn_error *error);
void dispatcher_forecast_done(dispatcher *d);
void dispatcher_forecast_table(dispatcher *d, const worker_side *w, size_t model, const tick_table *table, uint32_t rows_max);
void dispatcher_forecast_update(dispatcher *d, double now);
void dispatcher_note_tick(dispatcher *d, worker_side *w, const protocol_message *tick);
void dispatcher_note_arrival(dispatcher *d, const running_job *job);
void dispatcher_note_admitted(dispatcher *d, const running_job *job);
void dispatcher_note_stored(dispatcher *d, const running_job *job, uint32_t index);

/* dispatcher_deadlines.c */
void dispatcher_check_deadlines(dispatcher *d);
void dispatcher_deadlines_passed(dispatcher *d, const store_request *request);
int64_t dispatcher_next_deadline(const dispatcher *d); /* of all jobs, wall-clock milliseconds; INT64_MAX: none */

/* dispatcher_jobs.c */
running_job *job_find(dispatcher *d, const char *id, int64_t token); /* token 0: any */
int64_t job_deadline_ms(const running_job *job); /* wall clock; INT64_MAX: none */
double job_waited(const running_job *job); /* seconds since it was accepted */
uint32_t job_steps_left(const running_job *job, const job_lane *lane); /* at most */
uint32_t job_count_lanes(const running_job *job, lane_place place);
void job_end_with(dispatcher *d, running_job *job, job_end end, const char *code_or_reason, const char *detail);
void job_try_end(dispatcher *d, running_job *job);
void job_remove(dispatcher *d, running_job *job, bool ended);
uint64_t job_steps_done(const running_job *job); /* of all its lanes */
bool job_is_at(const running_job *job, const worker_side *w); /* it has lanes there */
outstanding_lane *outstanding_find(worker_side *w, uint64_t number);
void outstanding_remove(worker_side *w, outstanding_lane *lane);
void dispatcher_acknowledge(dispatcher *d, uint64_t number);

/* dispatcher_log.c: lines of the log about jobs (job_log_ended: dispatcher.h) */
void job_log_started(const running_job *job);
void job_log_requeued(const running_job *job);

/* dispatcher_feed.c */
unsigned dispatcher_group(const dispatcher *d); /* of suspects whose turn it is; 0: nobody is suspected */
void dispatcher_choose_trial(dispatcher *d); /* where suspects run, if there are any */
void dispatcher_feed(dispatcher *d);
void dispatcher_suspect(dispatcher *d, worker_side *w); /* it died: who did it? */

/* dispatcher_workers.c: what all workers together can do */
bool worker_takes(const worker_side *w, size_t model); /* it computes lanes of the model, or will in a moment */
bool worker_hopeless(const worker_side *w); /* nobody waits for it */
bool worker_reserved(const dispatcher *d, const worker_side *w); /* for suspects: nothing else goes there */
uint32_t worker_ahead(uint32_t rows_max); /* rows that a worker may have beyond those of a tick */
bool dispatcher_takes(const dispatcher *d, size_t model); /* some worker does */
bool dispatcher_model_failed(const dispatcher *d, size_t model); /* no worker will ever take it as things are */
bool dispatcher_any_ready(const dispatcher *d); /* some model can be computed with */
double dispatcher_row_seconds(const dispatcher *d, size_t model, uint32_t rows); /* of a tick where it is fastest; 0: not known */
bool dispatcher_show_model(dispatcher *d, size_t model); /* tells the registry what workers say of it; false: none says anything */
void dispatcher_show_workers(dispatcher *d); /* gauges */

/* dispatcher_frames.c */
dn_status dispatcher_read_frames(dispatcher *d, worker_side *w, dn_error *error);
void dispatcher_publish_progress(dispatcher *d, double now);

/* dispatcher_redone.c: steps that are made twice */
void dispatcher_note_reached(dispatcher *d, const running_job *job, const worker_side *w); /* it is lost: of the lanes that it had */
void dispatcher_note_redone(dispatcher *d, const char *job_id, uint32_t index, uint32_t resumed_at); /* it entered a batch there */

/* dispatcher_worker.c */
dn_status workers_create(dispatcher *d, dn_error *error);
void workers_free(dispatcher *d);
void worker_lost(dispatcher *d, worker_side *w, const char *why, bool blame); /* ends the process if it still runs */
void worker_check(dispatcher *d, worker_side *w, double now);
void worker_stop(dispatcher *d, worker_side *w);
void worker_tell(worker_side *w, const protocol_message *message); /* a broken pipe is noticed by the next read */

#endif
