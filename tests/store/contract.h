/* The contract suite: what every store must do, whatever it is made of. The cases (contract_*.c) call store.h and what is declared here,
 * nothing else, so that another implementation needs only another adapter. What is particular to one implementation (files, plans,
 * migrations, faults) has tests of its own.
 *
 * One thread, except where a case says otherwise. open_store on the same place again is a restart: what ran comes back. */
#ifndef DN_TESTS_STORE_CONTRACT_H
#define DN_TESTS_STORE_CONTRACT_H

#include "server/store/store.h"
#include "tests/test.h"

#define DAY_MS (24ll * 3600 * 1000)
#define CONTRACT_BEGAN_MS 1700000000000ll
#define NOBODY "aaaaaaaaaaaaaaaaaaaaaaaaaa" /* an id that no job has */
#define REQUEST_JSON                                                                                                                       \
    "{\"model\":\"m\",\"class_label\":null,\"class_name\":null,\"guidance_scale\":1.0,\"steps\":20,\"sampler\":\"ddim\","                  \
    "\"seed\":\"18446744073709551615\",\"n\":1,\"priority\":0}"

/* An implementation under test. Adapters stand in files of their own (adapter_NAME.c). */
typedef struct store_adapter {
    const char *name;
    bool (*create)(store_options *options); /* a new and empty place; fills in what open needs to find it */
    dn_status (*open)(store **out, const store_options *options, dn_error *error);
    void (*destroy)(void); /* the place goes; nothing has it open. None there: nothing happens. */
} store_adapter;
extern const store_adapter ADAPTER_SQLITE;

/* ---- A group of cases: each contract_NAME.c has a table, and CONTRACT_GROUP at its end. */
typedef struct contract_case {
    const char *name;
    test_function *run;
} contract_case;
#define CASE(function)                                                                                                                     \
    {                                                                                                                                      \
#function, function                                                                                                                \
    }

/* Runs the cases of the table in this file (only: the one of that name; NULL: all); how many failed. */
#define CONTRACT_GROUP(function, table)                                                                                                    \
    int function(const char *only)                                                                                                         \
    {                                                                                                                                      \
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {                                                                      \
            if (!only || strcmp(only, table[i].name) == 0) {                                                                               \
                test_run(table[i].name, table[i].run);                                                                                     \
            }                                                                                                                              \
        }                                                                                                                                  \
        return test_failures;                                                                                                              \
    }
int contract_enqueue(const char *only);
int contract_claim(const char *only);
int contract_run(const char *only);
int contract_states(const char *only);
int contract_delay(const char *only);
int contract_deadlines(const char *only);
int contract_lists(const char *only);
int contract_forget(const char *only);
int contract_restart(const char *only);
int contract_memory(const char *only);
int contract_outbox(const char *only);

/* ---- The store under test */
extern store *st;
extern store_options options; /* for the next open_store; fresh sets them */
extern int64_t clock_ms; /* what the store takes for the time */
extern dn_error error; /* of the last open_store */

void use_adapter(const store_adapter *which); /* SQLite's, if not called */
bool fresh(void); /* an empty store in a new place, open */
void new_place(void); /* the same, not opened yet */
dn_status open_store(void); /* closes it first, if it is open */
void close_store(void);
void end_store_tests(void); /* the last place goes */

/* ---- One-line calls */
typedef struct spec {
    const char *client, *model, *key;
    int priority;
    uint64_t cost;
    uint32_t n, jobs;
    unsigned char print;
    int64_t deadline_ms;
} spec;

typedef struct claim {
    char id[27];
    int64_t token;
    uint32_t attempt, done_count, n;
} claim;

typedef struct outcome {
    store_result result;
    bool ended;
    api_state state;
    int64_t seq;
    size_t files;
} outcome;

void make_id(char out[27]); /* ids count up in base 32: distinct, valid, in order */
void reset_ids(void); /* from the first one again */
store_request *enqueue_request(spec p);
store_result enqueue(char id[27], spec p); /* the first id comes out */
int64_t position(const char *id); /* a queued job's place; -1: none */
store_result cost_before(const char *id, uint64_t *cost);
size_t claim_jobs(claim *out, uint32_t max, const char *const *models); /* up to max (at most 64); how many came */
claim claim_one(void); /* id "none": nothing there */
store_request *job_request(store_op op, const char *id, int64_t token);
store_request *image_request(const char *id, int64_t token, uint32_t index, const char *suffix);
outcome finish_call(store_request *r); /* calls and frees */
outcome put_image(const char *id, int64_t token, uint32_t index);
outcome fail_job(const char *id, int64_t token);
outcome cancel_job(const char *client, const char *id);
outcome canceled_done(const char *id, int64_t token);
outcome purge_job(const char *client, const char *id);
outcome requeue_job(const char *id, int64_t token, const char *reason, bool crashed);
outcome retain(int64_t keep_ms, uint64_t keep_bytes);
store_job job_of(const char *id); /* without its text, which is enough for most checks; state -1: not found */
const char *milestones(const char *id); /* their names, comma separated; "!" after one out of order; valid until the next call */
bool file_exists(const char *inside, const char *name); /* of the data directory */

#endif
