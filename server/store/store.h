/* The store: the durable queue, jobs, images, events. An interface; SQLite is its first implementation (store/sqlite_*.c).
 *
 * Writes go through one writer thread with group commit: a caller fills a request, submits it, and `done` is called on the
 * writer thread after COMMIT (or its failure). So a 202 means the job is on disk. Reads are synchronous on a few read-only
 * connections, any thread. Times are wall-clock milliseconds. Text in results is malloc'd and freed by the *_done functions.
 *
 * A failed COMMIT is not "no": the result is STORE_UNKNOWN, the store stops writing for good (store_stopped) and the process
 * ends with exit 75, to be restarted clean. */
#ifndef SERVER_STORE_STORE_H
#define SERVER_STORE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/limits.h"
#include "api/traceparent.h"
#include "api/views.h"
#include "base/error.h"

typedef struct store store;

typedef enum store_result {
    STORE_OK,
    STORE_REPLAY,        /* enqueue: key known, same fingerprint: ids of the first time are returned */
    STORE_MISMATCH,      /* enqueue: key known, other fingerprint */
    STORE_QUEUE_FULL,    /* enqueue: everybody's limit */
    STORE_QUOTA,         /* enqueue: this client's limit */
    STORE_NONE,          /* no such row, or not this client's */
    STORE_GONE,          /* retention has taken it */
    STORE_STALE,         /* fencing token or state no longer fits: discard what you have */
    STORE_ENDED,         /* cancel: the job had ended already; nothing changed */
    STORE_SPACE,         /* disk full: refused cleanly, nothing changed */
    STORE_BUSY,          /* writer queue full: try again */
    STORE_UNKNOWN        /* COMMIT failed or the store has stopped: outcome not known */
} store_result;

typedef struct store_job {
    int64_t row;                    /* internal key, never shown */
    char id[27];
    char client[65];
    api_state state;
    bool cancel_requested, expired; /* expired: retention deleted images and parameters */
    int priority;
    uint64_t cost;
    int64_t created_ms, started_ms, finished_ms, expires_ms;
    int64_t run_at_ms;              /* queued, but not to be claimed before; 0: at once */
    uint32_t attempt;               /* shown; a job spends one only when it crashed its worker alone */
    uint32_t crashes, boots;        /* poison limits: 3 and 10 */
    int64_t token;                  /* fencing token of the present claim */
    uint32_t n, images_done;
    char model[65];
    char *request_json;
    char trace[API_TRACE_BYTES];    /* that it belongs to (api/traceparent.h); "" none */
    char error_code[24];            /* "" none */
    char *error_detail;
} store_job;

typedef struct store_image {
    uint32_t index;
    api_image_view view;
    char file[96];                  /* name inside the images folder */
} store_image;

typedef struct store_event {
    int64_t seq;                    /* per job, from 1 */
    char name[16];                  /* "queued", "started", ... */
    char *data;                     /* JSON, replayed verbatim */
} store_event;

void store_job_done(store_job *job);
/* A job as the wire shows it; progress is what is durable (whole images). Borrows job and images; live progress, queue position
 * and ETA are the caller's to fill in. The milestones that end a job are made with the same function. */
void store_job_view(const store_job *job, const api_image_view *images, size_t count, api_job_view *out);
void store_images_free(store_image *images, size_t count);
void store_events_free(store_event *events, size_t count);

/* ---- Writing */
typedef enum store_op {
    STORE_ENQUEUE, STORE_CLAIM, STORE_IMAGE, STORE_FAIL, STORE_CANCEL, STORE_CANCELED_DONE, STORE_REQUEUE, STORE_PURGE,
    STORE_RETENTION, STORE_MODEL, STORE_DEADLINES, STORE_DELIVERY
} store_op;

typedef struct store_enqueue_job {
    char id[27];
    char model[65];
    int priority;
    uint64_t cost;
    uint32_t n;
    int64_t deadline_ms;            /* from now; 0: none */
    char *request_json;             /* freed by store_request_free */
} store_enqueue_job;

typedef struct store_claimed {      /* one claimed job; the "started" event is in the same transaction */
    store_job job;
    uint32_t *done_indices;         /* images that already exist (crash between two of them): do not make them again */
    uint32_t done_count;
    int64_t event_seq;              /* of its "started" event */
} store_claimed;

typedef struct store_request {
    store_op op;
    void (*done)(struct store_request *request);   /* on the writer thread, after the outcome is known; must not block */
    void *payload;
    store_result result;
    char detail[256];               /* a sentence for the log when result is SPACE, UNKNOWN or BUSY */
    /* in */
    char client[65];
    char id[27];                    /* job (all but enqueue, claim, retention, model) */
    int64_t token;
    /* STORE_ENQUEUE: all jobs or none. In: jobs, key ("" none), fingerprint. Out: ids[]. */
    store_enqueue_job *jobs;
    size_t job_count;
    char key[API_KEY_BYTES_MAX + 1];
    bool known_only;                /* a key that is known is answered; anything new is STORE_QUOTA */
    uint64_t pending_jobs_max;      /* of this client, where it is fewer than the store's own limit; 0: that one */
    unsigned char fingerprint[32];
    char trace[API_TRACE_BYTES];    /* "" none */
    char (*ids)[27];                /* malloc'd: new or replayed ids, id_count of them */
    size_t id_count;
    /* STORE_CLAIM: up to claim_max queued jobs, best priority (aged), then turn, then age; models: only these (NULL-terminated; NULL: any).
     * OK with claimed_count 0 when nothing waits. A delayed job is claimed from its moment on. */
    uint32_t claim_max;
    const char *const *models;
    uint32_t levels_left_out;       /* so many of the lowest priorities are left out */
    const char *device;             /* for the "started" event */
    uint64_t (*resumed_done)(void *payload, const store_job *job);   /* steps that snapshots save it, for that event; NULL: none. Writer thread. */
    store_claimed *claimed;         /* malloc'd, claimed_count */
    size_t claimed_count;
    /* STORE_IMAGE: inserts the image and its event; the last one ends the job in the same transaction (job_ended). Exactly once per (job, index).
     * The same file again is OK and changes nothing (event_seq 0): do not unlink it. When a cancel was committed before the last image, the
     * job ends as canceled and keeps its images (state_after). */
    store_image image;
    const char *base_path;          /* for urls in the image event */
    bool job_ended;                 /* out */
    /* STORE_FAIL: ends the job as failed (as canceled if that was asked for before: state_after). */
    char error_code[24];
    char error_detail[512];
    /* STORE_CANCEL: api_state after the call in state_after; running jobs get cancel_requested. STORE_CANCELED_DONE: the worker let go.
     * client "" here and in STORE_PURGE: any. */
    api_state state_after;
    /* STORE_REQUEUE: back to the queue, in its old turn. reason for the event, error_detail for a job that ends here; crashed_alone spends an
     * attempt and counts towards the poison limit: the job is delayed, 1 s after its first crash and 4 s after the next (next_due_ms).
     * job_ended and state_after tell when it ended instead (canceled, or failed with code "crashed"; "device-lost" if that is the reason). */
    char reason[24];
    bool crashed_alone;
    /* STORE_PURGE, STORE_RETENTION: out: files of the data directory ("images/NAME", "inputs/NAME") to unlink after the commit. Purging a
     * running job asks it to cancel and lets
     * the first retention after its end take the files (state_after). Retention takes a bounded number of jobs: again while `more`. */
    char **files;
    char *job_body;                 /* of a purge that took the results: the job as it was until then, malloc'd; NULL: it has yet to end */
    size_t file_count;
    int64_t keep_ms;                /* retention by age of the end; 0: no such limit */
    uint64_t keep_bytes;            /* and by image bytes in all, oldest first; 0: no such limit */
    bool untold_stay;               /* neither takes a job whose webhook is still to be told of its end: somebody is there to tell it */
    bool more;                      /* out */
    /* STORE_MODEL */
    char model_name[65];
    char *model_json;
    /* STORE_DEADLINES: what time alone does to queued jobs. Those whose deadline has passed fail, a bounded number of them: claimed[] has
     * their ids, n and last events. Delayed ones whose moment has come have a place in the queue again. */
    int64_t next_due_ms;            /* out, of STORE_REQUEUE too: the next deadline or end of a delay of a queued job; 0: none */
    uint32_t staged;                /* out, of STORE_CLAIM too: jobs whose delay was found to be over */
    /* STORE_DELIVERY: how a try to deliver a row of the outbox went. error_detail: why it failed. */
    int64_t delivery_row;
    bool delivered;
    int64_t next_try_ms;            /* when it failed: 0: that was the last */
    /* out, for every op that made events: the last milestone's seq of the job named in id */
    int64_t event_seq;
    struct store_request *next;     /* the store's own link while queued */
} store_request;

/* zeroed; the caller owns it until submit, the store until done(), then the caller again. */
store_request *store_request_create(store_op op, void (*done)(store_request *), void *payload);
void store_request_free(store_request *request);
/* Never blocks. STORE_BUSY and STORE_UNKNOWN (stopped) are delivered through done() too, on the calling thread. */
void store_submit(store *s, store_request *request);
/* Submits and waits: for tests, the command line and boot. `done` is replaced. */
store_result store_call(store *s, store_request *request);

/* ---- Reading (any thread). GONE: retention has taken it (store_get says so by `expired`); UNKNOWN: the database cannot be read. */
store_result store_get(store *s, const char *client, const char *id, store_job *out);      /* NONE: unknown or another client's; client NULL: any */
store_result store_list(store *s, const char *client, const api_state *state, const char *model, const char *cursor, uint32_t limit, store_job **out,
                        size_t *count, char next_cursor[64]);                              /* next_cursor "" at the end; NONE: bad cursor */
store_result store_images(store *s, const char *id, store_image **out, size_t *count);
store_result store_events(store *s, const char *id, int64_t after_seq, store_event **out, size_t *count);
/* Queued jobs that would be claimed before it (0: it is next), and their cost; NONE: not queued, or delayed. Delayed jobs count for
 * nobody: when they come again is not known. */
store_result store_queue_place(store *s, const char *id, int64_t *jobs_ahead, uint64_t *cost_ahead);
typedef struct store_stats {
    uint64_t jobs[5];               /* by api_state */
    uint64_t queued_cost;
    uint64_t image_bytes;
    uint64_t outbox;                /* webhooks that are still to be told */
} store_stats;
store_result store_get_stats(store *s, store_stats *out);
/* Files: 0 where the file system does not tell. Any thread, no lock. */
typedef struct store_disk {
    uint64_t database_bytes, wal_bytes, free_bytes;
} store_disk;
void store_get_disk(const store *s, store_disk *out);
/* Removes the input pictures of jobs that have ended: nothing reads them any more, and they count against no limit. */
void store_drop_inputs(store *s);
/* Models that queued jobs name, each once; NULL-terminated, each malloc'd like the list; NULL: it cannot be read. */
char **store_queued_models(store *s);
/* The outbox: what is to be delivered about jobs that have ended; a row is written in the transaction that ends its job, and goes
 * when the job expires. Rows whose time has come, the oldest first, at most `limit`: *out malloc'd, with what it holds freed by
 * store_deliveries_free. */
typedef struct store_delivery {
    int64_t row;
    char id[27];
    char trace[API_TRACE_BYTES];    /* of the job; "" none */
    char *url, *event, *data;       /* of the job's last milestone: its name and its JSON */
    uint32_t attempt;               /* tries before this one */
    int64_t finished_ms;
} store_delivery;
store_result store_deliveries(store *s, uint32_t limit, store_delivery **out, size_t *count);
void store_deliveries_free(store_delivery *deliveries, size_t count);
/* How the delivery about a job stands; NONE: nothing is to be delivered about it, or it has not ended. */
typedef struct store_delivery_state {
    uint32_t attempts;
    bool delivered, given_up;
    char error[256];                /* of the last try that failed; "" none */
} store_delivery_state;
store_result store_delivery_of(store *s, const char *id, store_delivery_state *out);
/* Model descriptions kept from earlier runs. *json malloc'd. */
store_result store_model(store *s, const char *name, char **json);

/* ---- Lifetime */
typedef struct store_options {
    const char *folder;             /* data directory: denoised.db, denoised.lock, images/, snapshots/, inputs/ */
    const char *base_path;
    uint64_t queue_jobs_max, queue_cost_max, client_jobs_max;   /* 0: no such limit */
    uint64_t db_bytes_max;          /* 0: no such limit */
    uint64_t space_min_bytes;       /* free space under which enqueue answers STORE_SPACE */
    int64_t check_wait_ms;          /* how long a start waits for the check of the database; 0: as long as a small one takes; < 0: not at all */
    int64_t keep_ms;                /* how long results are meant to stay: expires_at of jobs that end; 0: not told */
    int64_t (*now_ms)(void *payload);   /* NULL: wall clock; tests inject */
    void *now_payload;
    /* After each COMMIT that returned: what it took, and how many requests it was for. On the writer thread; NULL: nobody asks. */
    void (*committed)(void *payload, double seconds, size_t requests);
    void *committed_payload;
} store_options;

/* Takes the lock (second daemon: DN_IO, "in use"), applies migrations (a backup is made before each), refuses a newer or
 * corrupt database (DN_INVALID), recovers: jobs running under another boot go back to the queue with boots + 1, attempts given back. */
dn_status store_open(store **out, const store_options *options, dn_error *error);
void store_close(store *s);         /* drains the writer queue first */
bool store_stopped(const store *s);
/* What is known of the database as a whole. It is looked through after every start, a large one beside the work; when it turns out to be
 * damaged, or to be unreadable, the store stops writing. */
typedef enum store_soundness { STORE_CHECKING, STORE_SOUND, STORE_DAMAGED, STORE_UNREADABLE } store_soundness;
store_soundness store_sound(const store *s);
bool store_swept(const store *s);   /* image files that no row knows have been removed since the start */
bool store_space_low(store *s);     /* the free-space gate */
/* Gives the ballast back to a full disk, so that a running job can write its images; true: there was some. Any thread. */
bool store_release_ballast(store *s);
/* A copy of a data directory that may be in use: its database as of one moment, and every image that it names. The result is a data
 * directory itself. destination must be new or empty. *missing counts images that retention took meanwhile. Any process. */
dn_status store_backup(const char *folder, const char *destination, size_t *images, size_t *missing, dn_error *error);
/* Looks at everything in a data directory that may be in use, and changes nothing: the database page by page, its counts, that each image
 * row has its file with the right bytes, the inputs of jobs to come, snapshots, files of no row. DN_INVALID: there is no database
 * that could be looked at (missing, not one, newer); DN_IO: it could not be looked at. */
typedef struct store_audit {
    /* What is wrong (damage), or only worth knowing. */
    void (*found)(void *payload, bool damage, const char *what, const char *detail);
    void (*progress)(void *payload, const char *label, double share);
    bool (*snapshot_whole)(int folder_fd, const char *name);
    void *payload;
    int schema;                     /* out, as all below */
    uint64_t jobs, images, image_bytes, snapshots, damages;
} store_audit;
dn_status store_audit_folder(const char *folder, store_audit *audit, dn_error *error);
/* ---- API keys: the SHA-256 of each, whose it is, what it may do and how much. */
enum { STORE_SCOPE_SUBMIT = 1, STORE_SCOPE_READ = 2, STORE_SCOPE_READ_ALL = 4, STORE_SCOPE_ADMIN = 8, STORE_SCOPE_METRICS = 16 };
typedef struct store_key {
    char number[17];                /* shown, and part of the key */
    unsigned char hash[32];         /* of the whole key */
    char client[65];                /* several keys may be one client's */
    unsigned scopes;
    double rate;                    /* requests a second; 0: no such limit */
    uint64_t pending_jobs;          /* 0: as many as any client */
    double budget;                  /* megapixel-steps an hour; 0: no such limit */
    int64_t created_ms, revoked_ms; /* revoked_ms 0: it is good */
} store_key;
/* All of them, revoked ones too, the oldest first; malloc'd. Any thread. */
store_result store_keys(store *s, store_key **out, size_t *count);
/* Beside a daemon or not, any process: short transactions of their own. A folder without a database gets one by add, and is DN_IO for the
 * others. DN_IO: another try may do. found: there was such a key, and it was good. */
dn_status store_key_add(const char *folder, const store_key *key, dn_error *error);
dn_status store_key_revoke(const char *folder, const char *number, bool *found, dn_error *error);
dn_status store_key_list(const char *folder, store_key **out, size_t *count, dn_error *error);
/* The path of a file of the data directory ("images/NAME"), malloc'd. */
char *store_path(const store *s, const char *folder, const char *name);

#endif
