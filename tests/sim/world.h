/* What lives on the simulated machine: the daemon, its clients, trouble; and the oracle that looks at the database and says whether it
 * may look so. See README.md. */
#ifndef DN_TESTS_SIM_WORLD_H
#define DN_TESTS_SIM_WORLD_H

#include "server/dispatcher.h"
#include "server/hub.h"
#include "server/metrics.h"
#include "server/models.h"
#include "server/store/store.h"
#include "tests/sim/sim.h"

enum { SIM_MODELS_MAX = 3, SIM_JOBS_MAX = 256, SIM_LANES_MAX = 24, SIM_WORKERS_MAX = 3 };

/* What a seed decides before anything runs. */
typedef struct sim_plan {
    uint64_t seed;
    bool calm; /* no trouble at all: then everything must also be prompt */
    unsigned models, clients, operations, troubles;
    unsigned workers; /* devices, each with one */
    unsigned credit, rows; /* of each worker */
    double tick, snapshot_every, freeze;
    uint64_t queue_jobs_max, client_jobs_max, keep_bytes;
    int64_t keep_ms;
    bool keeps_short; /* results expire while we look */
    bool month_passed; /* rows may have been forgotten: counts of them say nothing */
    bool fresh; /* an empty disk, not one with an empty database on it */
    unsigned bad_model; /* cannot be loaded while trouble lasts; 0: none */
} sim_plan;
extern sim_plan plan;

/* ---- The daemon (daemon.c) */
typedef struct sim_daemon {
    store *store;
    hub *hub;
    models *models;
    metrics *metrics;
    dispatcher *dispatcher;
    unsigned life; /* counts starts */
    bool up, draining, stopping, opened, last; /* last: nothing comes after it */
    int status; /* of its exit */
} sim_daemon;
extern sim_daemon daemon_;
sim_thread *daemon_start(void);
void daemon_stop_now(void); /* the ghost's order: take everything down */
void daemon_term(double grace); /* SIGTERM; again: hurry */

/* ---- Clients (clients.c) and what they were told */
typedef enum sim_known { KNOWN_NOT, KNOWN_TRIED, KNOWN_ACCEPTED } sim_known;
typedef struct ledger_job {
    char id[27], client[16], key[16];
    char *request; /* as posted, malloc'd */
    uint64_t seed;
    uint32_t n, model;
    int priority;
    int64_t deadline_ms;
    bool poison, broken;
    sim_known known;
    unsigned life; /* in which it was posted */
    unsigned post; /* jobs of one post share this */
    bool canceled, cancel_told, purged; /* a cancel was sent; was answered; likewise with the files */
    bool seen_ended;
    unsigned seen_state;
} ledger_job;
extern ledger_job ledger[SIM_JOBS_MAX];
extern size_t ledger_count;
ledger_job *ledger_find(const char *id);
void ledger_reset(void);
void clients_start(void);
bool clients_over(void);
/* Inside the daemon: waits for one, and returns its life; true: it lived to answer; a write, waited for. */
unsigned client_enter(void);
bool client_leave(unsigned life);
store_result client_call(store_request *request);
void late_results(void); /* late.c: what an earlier claim's owner might still say */

/* ---- Trouble (trouble.c) */
typedef enum sim_end { END_OF_LIFE_NONE, END_OF_LIFE_KILL, END_OF_LIFE_POWER } sim_end;
void trouble_start(void);
bool trouble_over(void);
sim_end trouble_wants(void); /* and forgets it */
void trouble_forget(void);

/* ---- The oracle (oracle.c, audit.c): its own eyes on the database */
void oracle_reset(void);
bool oracle_open(void); /* false: there is nothing to look at now */
void oracle_close(void);
/* A running job's token; 0: it does not run, or cannot be seen now. */
int64_t oracle_running(const char *job);
bool oracle_has_image(const char *job, unsigned index, bool *known);
bool oracle_has_event(const char *job, int64_t seq, bool *known);
/* How many jobs of some other client go before this one, which is the first of its own; 0 where the question makes no sense. */
int64_t oracle_goes_before(const char *job);
typedef struct oracle_counts {
    int64_t succeeded, failed, canceled, images, pending;
} oracle_counts;
bool oracle_count(oracle_counts *out);
struct sqlite3;
struct sqlite3 *oracle_database(void);
void audit(bool final); /* everything that must hold at any moment; final: and what must hold at the end */
void audit_month_passed(void); /* what has expired by now may be forgotten */
bool audit_may_be_gone(const char *job);
void audit_reset(void);

#endif
