/* The writer thread: a bounded queue of requests, taken in groups, one transaction a group, each request in a savepoint of its own.
 *
 * Invariant: `done` is called exactly once for each submitted request, and with STORE_OK only after a COMMIT that returned. A disk
 * that is full is a clean refusal (nothing of the group was committed: each request is tried alone, running jobs with the ballast
 * given back). Any other failure of a transaction leaves the outcome unknown: the store stops for good, because after an
 * error of fsync a row may be on disk although COMMIT failed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/store/sqlite_store.h"

typedef store_result operation(store *s, store_request *r);

static operation *const OPERATIONS[] = {
    [STORE_ENQUEUE] = store_do_enqueue, [STORE_CLAIM] = store_do_claim,         [STORE_IMAGE] = store_do_image,
    [STORE_FAIL] = store_do_fail,       [STORE_CANCEL] = store_do_cancel,       [STORE_CANCELED_DONE] = store_do_canceled,
    [STORE_REQUEUE] = store_do_requeue, [STORE_PURGE] = store_do_purge,         [STORE_RETENTION] = store_do_retention,
    [STORE_MODEL] = store_do_model,     [STORE_DEADLINES] = store_do_deadlines, [STORE_DELIVERY] = store_do_delivery,
};

static void finish(store_request *r, store_result result, const char *detail)
{
    r->result = result;
    snprintf(r->detail, sizeof r->detail, "%s", detail);
    r->done(r);
}

/* One request inside the open transaction. false: the transaction is lost, and the connection's code says why. */
static bool attempt(store *s, store_request *r)
{
    sql *c = &s->writer;
    store_request_clear(r);
    if (!sql_run(c, SQL_SAVEPOINT, "")) {
        return false;
    }
    r->result = OPERATIONS[r->op](s, r);
    if ((c->code & 0xff) == SQLITE_CONSTRAINT) {
        /* A rule of the schema, not of the disk: this request alone is refused (an id drawn twice: another try has another). */
        snprintf(r->detail, sizeof r->detail, "%s", c->text);
        sql_clear(c);
        r->result = STORE_BUSY;
    }
    if (r->result != STORE_OK && !c->code) {
        sql_run(c, SQL_UNDO, "");
    }
    return sql_run(c, SQL_RELEASE, "");
}

/* The connection after a failure: out of the transaction, whether SQLite has left it by itself or not. Returns the code. */
static int roll_back(store *s, char text[200])
{
    sql *c = &s->writer;
    int code = c->code;
    memcpy(text, c->text, sizeof c->text);
    sql_clear(c);
    if (!sqlite3_get_autocommit(c->db)) {
        sql_run(c, SQL_ROLLBACK, "");
    }
    if (!sqlite3_get_autocommit(c->db)) {
        code = SQLITE_IOERR; /* not even that: nothing more can be trusted */
    }
    sql_clear(c);
    return code;
}

/* ---- Fault points of each operation, around the COMMIT that it shares with its group */

static void point_before(store_op op)
{
    switch (op) {
    case STORE_ENQUEUE:
        fault_point("before_commit");
        break;
    case STORE_CLAIM:
        fault_point("claim_before_commit");
        break;
    case STORE_IMAGE:
        fault_point("done_before_commit");
        break;
    case STORE_FAIL:
        fault_point("fail_before_commit");
        break;
    case STORE_CANCEL:
        fault_point("cancel_before_commit");
        break;
    case STORE_CANCELED_DONE:
        fault_point("canceled_before_commit");
        break;
    case STORE_REQUEUE:
        fault_point("requeue_before_commit");
        break;
    case STORE_PURGE:
        fault_point("purge_before_commit");
        break;
    case STORE_RETENTION:
        fault_point("retention_before_commit");
        break;
    case STORE_MODEL:
        fault_point("model_before_commit");
        break;
    default:
        break;
    }
}

static void point_after(store_op op)
{
    switch (op) {
    case STORE_ENQUEUE:
        fault_point("after_commit_before_reply");
        break;
    case STORE_CLAIM:
        fault_point("claim_after_commit");
        break;
    case STORE_IMAGE:
        fault_point("done_after_commit");
        break;
    case STORE_FAIL:
        fault_point("fail_after_commit");
        break;
    case STORE_CANCEL:
        fault_point("cancel_after_commit");
        break;
    case STORE_CANCELED_DONE:
        fault_point("canceled_after_commit");
        break;
    case STORE_REQUEUE:
        fault_point("requeue_after_commit");
        break;
    case STORE_PURGE:
        fault_point("purge_after_commit");
        break;
    case STORE_RETENTION:
        fault_point("retention_after_commit");
        break;
    case STORE_MODEL:
        fault_point("model_after_commit");
        break;
    default:
        break;
    }
}

static void point_each(const store_request *first, const store_request *end, void (*point)(store_op op))
{
    for (const store_request *r = first; r != end; r = r->next) {
        point(r->op);
    }
}

static void point_begin(store_op op)
{
    if (op == STORE_ENQUEUE) {
        fault_point("enqueue_before_begin");
    }
}

static void tell_committed(const store *s, const store_request *first, const store_request *end, double seconds)
{
    size_t requests = 0;
    for (const store_request *r = first; r != end; r = r->next) {
        requests++;
    }
    if (s->options.committed) {
        s->options.committed(s->options.committed_payload, seconds, requests);
    }
}

/* All requests from first to (not including) end in one transaction; 0 after COMMIT, else the code that ended it. */
static int transaction(store *s, store_request *first, const store_request *end, char text[200])
{
    point_each(first, end, point_begin);
    bool fine = sql_run(&s->writer, SQL_BEGIN, "");
    for (store_request *r = first; fine && r != end; r = r->next) {
        fine = attempt(s, r);
    }
    point_each(first, end, point_before);
    const double began = dn_now_seconds();
    fine = fine && sql_run(&s->writer, SQL_COMMIT, "");
    if (!fine) {
        return roll_back(s, text);
    }
    tell_committed(s, first, end, dn_now_seconds() - began);
    point_each(first, end, point_after);
    return 0;
}

static bool is_refusal(int code)
{
    int primary = code & 0xff;
    return primary == SQLITE_FULL || primary == SQLITE_NOMEM || primary == SQLITE_BUSY;
}

static void stop(store *s, const char *text)
{
    if (!atomic_exchange(&s->stopped, true)) {
        log_say(LOG_ERROR, "store", "writing has stopped, the outcome of the last transaction is not known: %s", text);
    }
}

/* After a refused group: each request in a transaction of its own, so that one large one does not refuse the rest. */
static void alone(store *s, store_request *r)
{
    char text[200] = "";
    int code = atomic_load(&s->stopped) ? SQLITE_IOERR : transaction(s, r, r->next, text);
    if ((code & 0xff) == SQLITE_FULL && r->op != STORE_ENQUEUE && store_release_ballast(s)) {
        code = transaction(s, r, r->next, text);
    }
    if (!code) {
        return;
    }
    store_request_clear(r);
    snprintf(r->detail, sizeof r->detail, "%s", text);
    r->result = (code & 0xff) == SQLITE_FULL ? STORE_SPACE : STORE_BUSY;
    if (!is_refusal(code)) {
        stop(s, text);
        r->result = STORE_UNKNOWN;
    }
}

static void handle(store *s, store_request *group)
{
    char text[200] = "";
    int code = atomic_load(&s->stopped) ? SQLITE_IOERR : transaction(s, group, NULL, text);
    if (code && is_refusal(code)) {
        for (store_request *r = group; r; r = r->next) {
            alone(s, r);
        }
    } else if (code) {
        stop(s, text);
        for (store_request *r = group; r; r = r->next) {
            store_request_clear(r);
            snprintf(r->detail, sizeof r->detail, "%s", text);
            r->result = STORE_UNKNOWN;
        }
    }
    for (store_request *r = group, *next; r; r = next) {
        next = r->next; /* done may free it */
        r->next = NULL;
        r->done(r);
    }
}

/* Waits for work; takes at most a group, in the order of submission. NULL: closing and nothing left. */
static store_request *take(store *s)
{
    pthread_mutex_lock(&s->queue_mutex);
    while (!s->head && !s->closing) {
        pthread_cond_wait(&s->queue_filled, &s->queue_mutex);
    }
    store_request *group = s->head;
    store_request **link = &s->head;
    for (size_t i = 0; i < STORE_GROUP_MAX && *link; i++) {
        link = &(*link)->next;
        s->queued--;
    }
    if (group) {
        store_request *rest = *link;
        *link = NULL;
        s->head = rest;
        if (!rest) {
            s->tail = &s->head;
        }
    }
    pthread_mutex_unlock(&s->queue_mutex);
    return group;
}

static void *run(void *payload)
{
    store *s = payload;
    for (store_request *group; (group = take(s));) {
        handle(s, group);
        store_space_keep(s);
    }
    return NULL;
}

void store_submit(store *s, store_request *r)
{
    size_t limit = r->op == STORE_ENQUEUE ? STORE_QUEUE_MAX : STORE_QUEUE_HARD_MAX;
    r->next = NULL;
    if (atomic_load(&s->stopped)) {
        finish(r, STORE_UNKNOWN, "the store has stopped");
        return;
    }
    pthread_mutex_lock(&s->queue_mutex);
    bool taken = !s->closing && s->queued < limit;
    if (taken) {
        *s->tail = r;
        s->tail = &r->next;
        s->queued++;
        pthread_cond_signal(&s->queue_filled);
    }
    pthread_mutex_unlock(&s->queue_mutex);
    if (!taken) {
        finish(r, STORE_BUSY, "the writer's queue is full");
    }
}

dn_status store_writer_start(store *s, dn_error *error)
{
    s->tail = &s->head;
    s->threaded = pthread_create(&s->thread, NULL, run, s) == 0;
    return s->threaded ? DN_OK : dn_fail(error, DN_IO, "the store's writer thread could not be started");
}

void store_writer_stop(store *s)
{
    if (!s->threaded) {
        return;
    }
    pthread_mutex_lock(&s->queue_mutex);
    s->closing = true;
    pthread_cond_signal(&s->queue_filled);
    pthread_mutex_unlock(&s->queue_mutex);
    pthread_join(s->thread, NULL);
    s->threaded = false;
}
