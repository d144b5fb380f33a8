/* Reading: any thread, on one of a few read-only connections borrowed for the call.
 *
 * Every statement is reset before the connection goes back: an open reader would keep the write-ahead log from being reset. */
#include <stdlib.h>
#include <string.h>

#include "server/store/sqlite_store.h"

/* A read transaction that could not be ended for want of memory sees what was true then: whoever has its connection next ends it, or has
 * no answer. */
static void leave_old_transaction(sql *c)
{
    if (!sqlite3_get_autocommit(c->db) && sqlite3_exec(c->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        sql_fail(c, SQLITE_NOMEM, "an earlier read could not be ended");
    }
}

sql *store_borrow(store *s)
{
    store_reader *found = NULL;
    pthread_mutex_lock(&s->readers_mutex);
    while (!found) {
        for (size_t i = 0; i < STORE_READERS && !found; i++) {
            found = s->readers[i].busy ? NULL : &s->readers[i];
        }
        if (!found) {
            pthread_cond_wait(&s->reader_free, &s->readers_mutex);
        }
    }
    found->busy = true;
    pthread_mutex_unlock(&s->readers_mutex);
    leave_old_transaction(&found->connection);
    return &found->connection;
}

bool store_give_back(store *s, sql *c)
{
    bool fine = !c->code;
    sql_clear(c);
    pthread_mutex_lock(&s->readers_mutex);
    for (size_t i = 0; i < STORE_READERS; i++) {
        if (&s->readers[i].connection == c) {
            s->readers[i].busy = false;
        }
    }
    pthread_cond_signal(&s->reader_free);
    pthread_mutex_unlock(&s->readers_mutex);
    return fine;
}

/* Several statements that must see one state. The end is a COMMIT even after an error: nothing was written. */
static void begin(sql *c)
{
    sql_run(c, SQL_BEGIN_READ, "");
}

static void end(sql *c)
{
    if (!sqlite3_get_autocommit(c->db)) {
        sqlite3_exec(c->db, "COMMIT", NULL, NULL, NULL);
    }
}

store_result store_get(store *s, const char *client, const char *id, store_job *out)
{
    sql *c = store_borrow(s);
    store_job job = {0};
    bool found = store_fetch(c, id, &job);
    if (!store_give_back(s, c)) {
        return STORE_UNKNOWN;
    }
    if (!found || (client && strcmp(client, job.client) != 0)) {
        store_job_done(&job);
        return STORE_NONE;
    }
    *out = job;
    return STORE_OK;
}

static size_t read_list(sql *c, sqlite3_stmt *statement, store_job *jobs, size_t room)
{
    size_t count = 0;
    for (bool more = statement != NULL; more && count < room; more = sql_next(c, statement)) {
        if (!store_read_job(c, statement, &jobs[count])) {
            break;
        }
        count++;
    }
    sql_end(statement);
    return count;
}

static void free_list(store_job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        store_job_done(&jobs[i]);
    }
    free(jobs);
}

store_result store_list(store *s, const char *client, const api_state *state, const char *model, const char *cursor, uint32_t limit,
                        store_job **out, size_t *count, char next_cursor[64])
{
    int64_t created = INT64_MAX, row = INT64_MAX, wanted = state ? (int64_t)*state : -1, rows = (int64_t)limit + 1;
    if (cursor && cursor[0] && !api_cursor_parse(cursor, &created, &row)) {
        return STORE_NONE;
    }
    store_job *jobs = calloc((size_t)rows, sizeof *jobs);
    if (!jobs) {
        return STORE_UNKNOWN;
    }
    sql *c = store_borrow(s);
    sqlite3_stmt *statement = client ? sql_row(c, SQL_LIST_CLIENT, "tiiiti", client, created, row, wanted, model, rows)
                                     : sql_row(c, SQL_LIST_ALL, "iiti", row, wanted, model, rows);
    size_t used = read_list(c, statement, jobs, (size_t)rows);
    if (!store_give_back(s, c)) {
        free_list(jobs, used);
        return STORE_UNKNOWN;
    }
    next_cursor[0] = 0;
    if (used > limit) {
        store_job_done(&jobs[--used]); /* it only told that there is more */
        if (used) {
            api_cursor_text(next_cursor, jobs[used - 1].created_ms, jobs[used - 1].row);
        }
    }
    *out = jobs;
    *count = used;
    return STORE_OK;
}

/* The job's row for what hangs on it. */
static store_result find_row(sql *c, const char *id, int64_t *row)
{
    store_job job;
    if (!store_fetch(c, id, &job)) {
        return STORE_NONE;
    }
    *row = job.row;
    store_result result = job.expired ? STORE_GONE : STORE_OK;
    store_job_done(&job);
    return result;
}

store_result store_images(store *s, const char *id, store_image **out, size_t *count)
{
    sql *c = store_borrow(s);
    begin(c);
    int64_t row = 0;
    store_result result = find_row(c, id, &row);
    if (result == STORE_OK) {
        store_read_images(c, row, out, count);
    }
    end(c);
    return store_give_back(s, c) ? result : STORE_UNKNOWN;
}

static bool read_event(sql *c, sqlite3_stmt *statement, store_event **events, size_t *count)
{
    store_event *grown = realloc(*events, (*count + 1) * sizeof *grown);
    if (!grown) {
        sql_fail(c, SQLITE_NOMEM, "out of memory");
        return false;
    }
    *events = grown;
    store_event *event = &grown[*count];
    *event = (store_event){.seq = sqlite3_column_int64(statement, 0), .data = sql_column_copy(c, statement, 2)};
    strncat(event->name, sql_column(c, statement, 1), sizeof event->name - 1);
    (*count)++;
    return !c->code;
}

store_result store_events(store *s, const char *id, int64_t after_seq, store_event **out, size_t *count)
{
    store_event *events = NULL;
    size_t used = 0;
    sql *c = store_borrow(s);
    begin(c);
    int64_t row = 0;
    store_result result = find_row(c, id, &row);
    sqlite3_stmt *statement = result == STORE_OK ? sql_row(c, SQL_EVENTS, "ii", row, after_seq) : NULL;
    for (bool more = statement != NULL; more && read_event(c, statement, &events, &used); more = sql_next(c, statement)) {
    }
    sql_end(statement);
    end(c);
    if (!store_give_back(s, c)) {
        result = STORE_UNKNOWN;
    }
    if (result != STORE_OK) {
        store_events_free(events, used);
        return result;
    }
    *out = events;
    *count = used;
    return STORE_OK;
}

/* Aging is left out: a place in the queue is a guess. */
store_result store_queue_place(store *s, const char *id, int64_t *jobs_ahead, uint64_t *cost_ahead)
{
    int64_t jobs = 0, cost = 0;
    sql *c = store_borrow(s);
    begin(c);
    sqlite3_stmt *place = sql_row(c, SQL_QUEUE_PLACE, "t", id);
    bool queued = place != NULL;
    if (queued) {
        int64_t priority = sqlite3_column_int64(place, 0), turn = sqlite3_column_int64(place, 1), row = sqlite3_column_int64(place, 2);
        sql_end(place);
        store_ahead(c, priority, turn, row, &jobs, &cost);
    }
    end(c);
    if (!store_give_back(s, c)) {
        return STORE_UNKNOWN;
    }
    *jobs_ahead = jobs;
    *cost_ahead = (uint64_t)cost;
    return queued ? STORE_OK : STORE_NONE;
}

store_result store_get_stats(store *s, store_stats *out)
{
    store_stats stats = {0};
    sql *c = store_borrow(s);
    begin(c);
    sqlite3_stmt *statement = sql_row(c, SQL_TOTALS, "");
    for (bool more = statement != NULL; more; more = sql_next(c, statement)) {
        int state = sqlite3_column_int(statement, 0);
        stats.jobs[state] = (uint64_t)sqlite3_column_int64(statement, 1);
        if (state == API_STATE_QUEUED) {
            stats.queued_cost = (uint64_t)sqlite3_column_int64(statement, 2);
        }
    }
    sql_end(statement);
    stats.image_bytes = (uint64_t)sql_integer(c, SQL_IMAGE_BYTES, 0, "");
    stats.outbox = (uint64_t)sql_integer(c, SQL_OUTBOX_LEFT, 0, "");
    end(c);
    if (!store_give_back(s, c)) {
        return STORE_UNKNOWN;
    }
    *out = stats;
    return STORE_OK;
}

void store_drop_inputs(store *s)
{
    sql *c = store_borrow(s);
    store_sweep_inputs(s, c, false);
    store_give_back(s, c);
}

char **store_queued_models(store *s)
{
    size_t count = 0;
    char **names = calloc(1, sizeof *names);
    if (!names) {
        return NULL;
    }
    sql *c = store_borrow(s);
    sqlite3_stmt *statement = sql_row(c, SQL_QUEUED_MODELS, "");
    for (bool more = statement != NULL; more; more = sql_next(c, statement)) {
        char **grown = realloc(names, (count + 2) * sizeof *names);
        char *name = grown ? sql_column_copy(c, statement, 0) : NULL;
        names = grown ? grown : names;
        if (!name) {
            break;
        }
        names[count++] = name;
        names[count] = NULL;
    }
    sql_end(statement);
    if (!store_give_back(s, c)) {
        for (size_t i = 0; i < count; i++) {
            free(names[i]);
        }
        free(names);
        return NULL;
    }
    return names;
}

store_result store_model(store *s, const char *name, char **json)
{
    sql *c = store_borrow(s);
    sqlite3_stmt *statement = sql_row(c, SQL_MODEL_GET, "t", name);
    char *copy = statement ? sql_column_copy(c, statement, 0) : NULL;
    sql_end(statement);
    if (!store_give_back(s, c)) {
        free(copy);
        return STORE_UNKNOWN;
    }
    if (!copy) {
        return STORE_NONE;
    }
    *json = copy;
    return STORE_OK;
}
