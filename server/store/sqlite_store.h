/* Inside of the SQLite store: what its files share. Nobody outside server/store includes this.
 *
 * Threads: the writer thread owns `writer`, the ballast and everything under "writer thread" from the moment store_open returns
 * until store_close has joined it. Readers borrow a connection from the pool for one call. Every other field never changes after
 * store_open, or is atomic, or says which mutex guards it. */
#ifndef SERVER_STORE_SQLITE_STORE_H
#define SERVER_STORE_SQLITE_STORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/store/sql.h"
#include "server/store/store.h"
#include "server/urgency.h"

#define STORE_APPLICATION_ID 0x646e7364 /* "dnsd" in the database header */
#define STORE_AHEAD_NEAR 200 /* queued jobs that are counted from the front; a job further back is counted from the end */
#define STORE_GROUP_MAX 256 /* requests in one transaction */
#define STORE_QUEUE_MAX 1024 /* enqueues waiting for the writer; beyond: STORE_BUSY */
#define STORE_QUEUE_HARD_MAX 4096 /* everything else: results of running jobs are refused last */
#define STORE_READERS 3 /* read-only connections */
#define STORE_CRASHES_MAX 3 /* workers a job may take down alone */
#define STORE_DELAY_MS 1000ll /* before a job that crashed once is tried again; four times that after the next crash */
#define STORE_DELAY_MAX_MS (4 * STORE_DELAY_MS)
#define STORE_BOOTS_MAX 10 /* daemons that may die while it runs */
#define STORE_TOMBSTONE_MS (30ll * 24 * 3600 * 1000) /* an expired job answers 410 for so long, then 404 */
#define STORE_AGING_MS (1000 * URGENCY_AGING_SECONDS) /* waiting so long counts as one more priority */
#define STORE_DEADLINES_MAX 256 /* jobs that fail by one request */
#define STORE_RETENTION_JOBS_MAX 256 /* jobs expired or forgotten by one request */
#define STORE_BALLAST_BYTES (8 << 20) /* given back to let running jobs end on a full disk */
/* In denoised.lock: this folder has a database, and an empty one must not take the place of one that is missing. */
#define STORE_PRESENCE_MARK "This folder belongs to denoised, and has its database.\n"
#define STORE_CHECK_WAIT_BYTES (8 << 20) /* a database of this size is looked through before anything else is done (some 0.1 s) */
#define STORE_CHECK_WAIT_MS 500 /* a start on a larger one waits so long; the rest goes on beside the work */
#define STORE_PAGE_BYTES 4096
#define STORE_LEVELS (2 * API_PRIORITY_MAX + 1)

typedef struct store_reader {
    sql connection;
    bool busy; /* under readers_mutex */
} store_reader;

struct store {
    char *folder, *base_path, *database;
    store_options options; /* strings point into the fields above */
    char boot[33]; /* this boot's instance: owner of what it runs */
    int lock_fd;

    pthread_mutex_t queue_mutex; /* guards head .. closing */
    pthread_cond_t queue_filled;
    store_request *head, **tail;
    size_t queued;
    bool closing;
    pthread_t thread;
    bool threaded;
    atomic_bool stopped;

    sql writer; /* writer thread */
    uint64_t level_served[STORE_LEVELS]; /* writer thread: when each priority was last served, by claim number */
    uint64_t claims; /* writer thread */

    _Atomic int64_t space_checked_ms; /* monotonic; 0: never */
    atomic_bool space_low;

    pthread_mutex_t readers_mutex;
    pthread_cond_t reader_free;
    store_reader readers[STORE_READERS]; /* each belongs to the thread that set busy */

    sql keeper; /* the keeper's thread; sqlite3_interrupt from any */
    pthread_t keeper_thread;
    bool keeper_started;
    pthread_mutex_t keeper_mutex; /* guards damage, recovered, keeper_gone */
    pthread_cond_t keeper_told;
    char damage[200];
    bool recovered, keeper_gone;
    atomic_int soundness; /* store_soundness */
    atomic_bool keeper_leave, swept;
};

int64_t store_now(const store *s);

/* sqlite_job.c: rows to values, events, and the end of a job. All on the writer's connection unless they take a connection. */
bool store_read_job(sql *c, sqlite3_stmt *statement, store_job *out); /* the row stays current; false: no memory */
bool store_read_images(sql *c, int64_t row, store_image **out, size_t *count);
bool store_fetch(sql *c, const char *id, store_job *out); /* false: none, or c->code */
/* What would be claimed before the queued job at (priority, turn, row), in jobs and in cost. */
void store_ahead(sql *c, int64_t priority, int64_t turn, int64_t row, int64_t *jobs, int64_t *cost);
/* The job with its images, as `write` puts it; malloc'd. NULL: no memory, or c->code. */
typedef char *store_job_writer(const api_job_view *view, const char *base_path);
char *store_job_text(store *s, const store_job *job, store_job_writer *write);
void store_event_take(store *s, int64_t row, const char *name, char *data, int64_t *seq); /* frees data; NULL data: no memory */
bool store_finish(store *s, const store_job *job, api_state state, const char *code, const char *detail, int64_t *seq);
/* The end of a job that stops running without having made everything: canceled when that was asked for, else failed. */
bool store_give_up(store *s, const store_job *job, const char *code, const char *detail, int64_t *seq);
/* Back to the queue in its old turn (delayed when it crashed its worker), or ended when it was canceled or has struck too often; cause: of
 * the crash, "" where none is known. */
bool store_requeue(store *s, const store_job *job, const char *reason, const char *cause, bool crashed, bool boot, int64_t *seq);

/* sqlite_deadlines.c: delayed jobs whose moment has come are ready from now on; how many they were. */
uint32_t store_stage(store *s, int64_t now);
int64_t store_next_due(store *s); /* when time next changes something for a queued job; 0: never */

/* sqlite_outbox.c: what is to be delivered about a job that has just ended, if it asked for that. */
void store_outbox_add(store *s, const store_job *ended);

/* Takes an ended job's images, events and parameters; adds the names of its files to r. */
void store_expire(store *s, store_request *r, int64_t row);

/* One function for each operation, on the writer thread inside a transaction and a savepoint. A result other than STORE_OK, or an
 * error of the connection, undoes what it wrote. */
store_result store_do_enqueue(store *s, store_request *r);
store_result store_do_claim(store *s, store_request *r);
store_result store_do_image(store *s, store_request *r);
store_result store_do_fail(store *s, store_request *r);
store_result store_do_cancel(store *s, store_request *r);
store_result store_do_canceled(store *s, store_request *r);
store_result store_do_requeue(store *s, store_request *r);
store_result store_do_purge(store *s, store_request *r);
store_result store_do_retention(store *s, store_request *r);
store_result store_do_model(store *s, store_request *r);
store_result store_do_deadlines(store *s, store_request *r);
store_result store_do_delivery(store *s, store_request *r);

void store_request_clear(store_request *r); /* frees what an attempt put out, before another */
bool store_add_file(store_request *r, sql *c, const char *name);

/* sqlite_inputs.c: files of jobs that have ended go; strays: those of no job too. */
void store_sweep_inputs(store *s, sql *c, bool strays);

/* sqlite_read.c: a read-only connection for a while, any thread; it waits for one. False: something failed while it was out. */
sql *store_borrow(store *s);
bool store_give_back(store *s, sql *c);

/* sqlite_writer.c */
dn_status store_writer_start(store *s, dn_error *error);
void store_writer_stop(store *s);

/* sqlite_space.c */
void store_space_keep(store *s); /* writer thread, between groups: the ballast comes back */

/* sqlite_migrate.c */
dn_status store_migrate(store *s, dn_error *error);
int store_schema_newest(void);
const char *store_migration(int version); /* SQL of 1..newest */
extern const char store_migration_1[], store_migration_2[], store_migration_3[], store_migration_4[], store_migration_5[],
    store_migration_6[], store_migration_7[]; /* the files */

/* sqlite_keeper.c */
void store_keeper_init(store *s);
/* Looks through the database on a thread of its own, and waits for the verdict: to the end if patient, else as long as the options say. */
dn_status store_keeper_start(store *s, bool patient, dn_error *error);
void store_keeper_recovered(store *s); /* the last run's jobs have been taken up: image files may be swept */
bool store_image_is_litter(sql *c, const char *name); /* a file of the folder images that no row names, and none is about to */
void store_keeper_stop(store *s); /* ends the check if it still runs */

/* sqlite_recover.c: before the writer thread starts. */
dn_status store_recover(store *s, dn_error *error);

/* sqlite_backup.c: a consistent copy of an open database, by way of a temporary name. */
dn_status store_copy_database(sqlite3 *from, const char *path, dn_error *error);

#endif
