/* Claiming jobs: which comes next, and making it ours with a new fencing token.
 *
 * Inside a priority the turn decides (sqlite_enqueue.c), then the order of acceptance: the index job_ready holds that order.
 * Between priorities the first job of each is compared by an aged priority: its own, plus one for every STORE_AGING_MS it has
 * waited, at most the highest there is. Equals take turns (the one served longest ago first), so a flood of urgent jobs leaves
 * every second place to those that have waited their way up: nobody starves, and an urgent job waits for one of them at most. The
 * order thus needs no rewriting of rows while they wait. Writer thread. */
#include <stdlib.h>

#include "server/store/sqlite_store.h"

typedef struct head {
    int priority;
    int64_t row, turn, created_ms;
} head;

static void read_head(sqlite3_stmt *statement, int priority, head *best)
{
    if (statement) {
        head found = {priority, sqlite3_column_int64(statement, 0), sqlite3_column_int64(statement, 1), sqlite3_column_int64(statement, 2)};
        bool earlier = found.turn < best->turn || (found.turn == best->turn && found.row < best->row);
        if (!best->row || earlier) {
            *best = found;
        }
    }
    sql_end(statement);
}

/* The job of this priority that is next; row 0: none for these models. */
static head head_of(store *s, const store_request *r, int priority)
{
    head best = {0};
    if (!r->models) {
        read_head(sql_row(&s->writer, SQL_HEAD, "i", (int64_t)priority), priority, &best);
        return best;
    }
    for (const char *const *model = r->models; *model; model++) {
        read_head(sql_row(&s->writer, SQL_HEAD_MODEL, "it", (int64_t)priority, *model), priority, &best);
    }
    return best;
}

static int64_t aged_priority(const head *h, int64_t now)
{
    int64_t waited = now > h->created_ms ? now - h->created_ms : 0; /* a clock set back ages nobody */
    int64_t aged = h->priority + waited / STORE_AGING_MS;
    return aged < API_PRIORITY_MAX ? aged : API_PRIORITY_MAX;
}

static head next_job(store *s, const store_request *r, int64_t now)
{
    head best = {0};
    int priorities[STORE_LEVELS];
    size_t count = 0;
    sqlite3_stmt *statement = sql_row(&s->writer, SQL_LEVELS, "");
    for (bool more = statement != NULL; more && count < STORE_LEVELS; more = sql_next(&s->writer, statement)) {
        int priority = sqlite3_column_int(statement, 0);
        if (priority >= (int)r->levels_left_out - API_PRIORITY_MAX) {
            priorities[count++] = priority;
        }
    }
    sql_end(statement);
    for (size_t i = 0; i < count; i++) {
        head candidate = head_of(s, r, priorities[i]);
        if (!candidate.row) {
            continue;
        }
        int64_t aged = aged_priority(&candidate, now), best_aged = aged_priority(&best, now);
        uint64_t served = s->level_served[candidate.priority + API_PRIORITY_MAX];
        bool longer_ago = served < s->level_served[best.priority + API_PRIORITY_MAX];
        if (!best.row || aged > best_aged || (aged == best_aged && longer_ago)) {
            best = candidate;
        }
    }
    return best;
}

static bool read_done_indices(store *s, store_claimed *claimed)
{
    claimed->done_indices = calloc(claimed->job.n, sizeof *claimed->done_indices);
    if (!claimed->done_indices) {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory");
        return false;
    }
    sqlite3_stmt *statement = sql_row(&s->writer, SQL_IMAGE_NUMBERS, "i", claimed->job.row);
    for (bool more = statement != NULL; more && claimed->done_count < claimed->job.n; more = sql_next(&s->writer, statement)) {
        claimed->done_indices[claimed->done_count++] = (uint32_t)sqlite3_column_int(statement, 0);
    }
    sql_end(statement);
    return !s->writer.code;
}

static bool claim(store *s, store_request *r, const head *next, int64_t now)
{
    sql *c = &s->writer;
    store_claimed *claimed = &r->claimed[r->claimed_count];
    sqlite3_stmt *statement = sql_row(c, SQL_CLAIM, "iti", next->row, s->boot, now);
    bool read = statement && store_read_job(c, statement, &claimed->job);
    sql_end(statement);
    if (!read) {
        return false;
    }
    r->claimed_count++;
    s->level_served[next->priority + API_PRIORITY_MAX] = ++s->claims;
    sql_run(c, SQL_LEVEL_TURN, "ii", (int64_t)next->priority, next->turn);
    api_job_view view;
    store_job_view(&claimed->job, NULL, 0, &view);
    uint64_t resumed = view.done + (r->resumed_done ? r->resumed_done(r->payload, &claimed->job) : 0);
    store_event_take(s, next->row, "started", api_event_started(claimed->job.attempt, r->device, resumed), &r->event_seq);
    claimed->event_seq = r->event_seq;
    return read_done_indices(s, claimed);
}

store_result store_do_claim(store *s, store_request *r)
{
    int64_t now = store_now(s);
    r->claimed = calloc(r->claim_max ? r->claim_max : 1, sizeof *r->claimed);
    if (!r->claimed) {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory");
        return STORE_UNKNOWN;
    }
    r->staged = store_stage(s, now);
    while (r->claimed_count < r->claim_max && !s->writer.code) {
        head next = next_job(s, r, now);
        if (!next.row || !claim(s, r, &next, now)) {
            break;
        }
    }
    return STORE_OK;
}
