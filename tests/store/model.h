/* A model of the queue: the simplest thing that could be right. An array of jobs, looked through from end to end for every question; no
 * file, no index, no thread. The random test (test_store_model) asks it and a store the same things. */
#ifndef DN_TESTS_STORE_MODEL_H
#define DN_TESTS_STORE_MODEL_H

#include "server/store/store.h"

#define MODEL_JOBS_MAX 6000
#define MODEL_IMAGES_MAX 4 /* n of a job */
#define MODEL_CLIENTS_MAX 4
#define MODEL_KEYS_MAX 4000
#define MODEL_CLAIMED_MAX 256

typedef struct model_job {
    char id[27];
    int client; /* number in `clients` of the model */
    int key; /* number of its idempotency key; -1: none */
    char model[8];
    int priority;
    int64_t cost, turn;
    uint32_t n, images_done;
    api_state state;
    bool there; /* false: forgotten */
    bool cancel_requested, purge, expired;
    int64_t token, created_ms, started_ms, finished_ms, expires_ms, deadline_ms, run_at_ms;
    uint32_t attempt, crashes, boots;
    char error_code[24];
    char files[MODEL_IMAGES_MAX][96]; /* "" not made */
    uint64_t bytes[MODEL_IMAGES_MAX];
    char events[256]; /* a letter for each, see model_event_letter */
} model_job;

typedef struct model_key {
    bool there;
    int client, first, count; /* its jobs */
    char name[8];
    unsigned char print;
} model_key;

typedef struct model {
    char clients[MODEL_CLIENTS_MAX][8];
    model_job jobs[MODEL_JOBS_MAX]; /* in order of acceptance */
    size_t job_count;
    model_key keys[MODEL_KEYS_MAX];
    size_t key_count;
    int64_t level_turn[21], client_turn[MODEL_CLIENTS_MAX][21];
    uint64_t served[21], claims; /* since the last restart */
    uint64_t queue_jobs_max, queue_cost_max, client_jobs_max;
    int64_t keep_ms;
} model;

typedef struct model_answer {
    store_result result;
    api_state state_after;
    bool job_ended;
    int64_t event_seq, next_due_ms;
    uint32_t staged;
    int first, id_count; /* enqueue: jobs */
    size_t claimed_count;
    struct {
        int job;
        int64_t token, event_seq;
        uint32_t attempt, done_count;
    } claimed[MODEL_CLAIMED_MAX];
    size_t file_count;
    uint64_t files; /* sum over their names of model_hash */
} model_answer;

/* What the store must answer to the request if it is the next one. */
void model_do(model *m, const store_request *r, int64_t now, model_answer *out);
void model_restart(model *m, int64_t now);
void model_clear(model *m); /* as new, but for its clients and limits */

int model_find(const model *m, const char *id); /* -1: no such job (any more) */
char model_event_letter(const char *name); /* of a milestone */
uint64_t model_hash(const char *text);
/* Place and cost before it of a queued job; false: it has none. */
bool model_place(const model *m, int job, int64_t *jobs, int64_t *cost);
void model_stats(const model *m, store_stats *out);

#endif
