/* Accepting jobs: one request brings one job or an array, all or nothing, under an optional idempotency key.
 *
 * Order of the checks: a key that is known answers before anything can refuse; then room on the disk, then the client's own
 * limit, then everybody's. Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996) inside each priority: a job's turn
 * is the later of its client's finish tag and the turn last claimed, and the finish tag moves on by its cost. So a client
 * with a thousand jobs waiting delays another's first by one job at most. A job with a deadline goes before those of its own client that
 * have a later one or none, in the first of their turns, and moves them all on by its cost: as if it had been sent before them. So
 * deadlines order a client's jobs, and cost no other client anything. Writer thread. */
#include <stdlib.h>
#include <string.h>

#include "server/fault.h"
#include "server/store/sqlite_store.h"

static bool allot_ids(store *s, store_request *r, size_t count)
{
    r->ids = calloc(count ? count : 1, sizeof *r->ids);
    if (!r->ids) {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory");
        return false;
    }
    r->id_count = count;
    return true;
}

/* STORE_OK: the key is new (or there is none). */
static store_result known_key(store *s, store_request *r)
{
    sqlite3_stmt *statement = r->key[0] ? sql_row(&s->writer, SQL_KEY_FIND, "tt", r->client, r->key) : NULL;
    if (!statement) {
        return STORE_OK;
    }
    store_result result = STORE_MISMATCH;
    const void *fingerprint = sqlite3_column_blob(statement, 0);
    if (fingerprint && sqlite3_column_bytes(statement, 0) == sizeof r->fingerprint &&
        memcmp(fingerprint, r->fingerprint, sizeof r->fingerprint) == 0) {
        const char *ids = sql_column(&s->writer, statement, 1);
        result = STORE_REPLAY;
        if (allot_ids(s, r, strlen(ids) / API_ID_BYTES)) {
            for (size_t i = 0; i < r->id_count; i++) {
                memcpy(r->ids[i], ids + i * API_ID_BYTES, API_ID_BYTES);
            }
        }
    }
    sql_end(statement);
    return result;
}

static store_result check_limits(store *s, const store_request *r)
{
    const store_options *o = &s->options;
    uint64_t pending = (uint64_t)sql_integer(&s->writer, SQL_PENDING, 0, "t", r->client);
    uint64_t most = o->client_jobs_max;
    if (r->pending_jobs_max && (!most || r->pending_jobs_max < most)) {
        most = r->pending_jobs_max;
    }
    if (most && pending + r->job_count > most) {
        return STORE_QUOTA;
    }
    uint64_t jobs = r->job_count, cost = 0;
    for (size_t i = 0; i < r->job_count; i++) {
        cost += r->jobs[i].cost;
    }
    sqlite3_stmt *statement = sql_row(&s->writer, SQL_QUEUED, "");
    if (statement) {
        jobs += (uint64_t)sqlite3_column_int64(statement, 0);
        cost += (uint64_t)sqlite3_column_int64(statement, 1);
    }
    sql_end(statement);
    bool full = (o->queue_jobs_max && jobs > o->queue_jobs_max) || (o->queue_cost_max && cost > o->queue_cost_max);
    return full ? STORE_QUEUE_FULL : STORE_OK;
}

static int64_t add_key(store *s, const store_request *r)
{
    if (!r->key[0]) {
        return 0;
    }
    char *ids = calloc(r->job_count + 1, API_ID_BYTES + 1);
    if (!ids) {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory");
        return 0;
    }
    for (size_t i = 0; i < r->job_count; i++) {
        memcpy(ids + i * API_ID_BYTES, r->jobs[i].id, API_ID_BYTES);
    }
    int64_t row =
        sql_integer(&s->writer, SQL_KEY_ADD, 0, "ttbt", r->client, r->key, (const void *)r->fingerprint, sizeof r->fingerprint, ids);
    free(ids);
    return row;
}

static void add_job(store *s, store_request *r, const store_enqueue_job *job, int64_t key, int64_t now)
{
    sql *c = &s->writer;
    int64_t priority = job->priority, cost = (int64_t)job->cost;
    int64_t turn = sql_integer(c, SQL_TURN, 0, "ti", r->client, priority);
    sql_run(c, SQL_TURN_SET, "tii", r->client, priority, turn + cost);
    int64_t deadline = job->deadline_ms ? now + job->deadline_ms : 0;
    int64_t overtaken = deadline ? sql_integer(c, SQL_OVERTAKEN, -1, "tii", r->client, priority, deadline) : -1;
    if (overtaken >= 0) {
        turn = overtaken;
        sql_run(c, SQL_OVERTAKE, "tiii", r->client, priority, turn, cost);
    }
    int64_t row = sql_integer(c, SQL_JOB_ADD, 0, "ttittiiiiiit", job->id, r->client, key, job->model, job->request_json, (int64_t)job->n,
                              cost, priority, turn, now, deadline, r->trace);
    int64_t ahead, cost_ahead;
    char trace[33];
    api_trace_id(trace, r->trace);
    store_ahead(c, priority, turn, row, &ahead, &cost_ahead);
    if (!c->code) {
        store_event_take(s, row, "queued", api_event_queued(job->id, ahead, trace), &r->event_seq);
    }
}

store_result store_do_enqueue(store *s, store_request *r)
{
    store_result result = known_key(s, r);
    if (result == STORE_OK && r->known_only) {
        result = STORE_QUOTA;
    }
    if (result == STORE_OK && store_space_low(s)) {
        result = STORE_SPACE;
    }
    if (result == STORE_OK) {
        result = check_limits(s, r);
    }
    if (result != STORE_OK || s->writer.code || !allot_ids(s, r, r->job_count)) {
        return result;
    }
    int64_t key = add_key(s, r), now = store_now(s);
    for (size_t i = 0; i < r->job_count && !s->writer.code; i++) {
        memcpy(r->ids[i], r->jobs[i].id, API_ID_BYTES);
        add_job(s, r, &r->jobs[i], key, now);
        fault_point("after_insert");
    }
    return STORE_OK;
}
