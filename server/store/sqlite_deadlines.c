/* What time alone does to queued jobs: those whose deadline has passed fail where they wait (those that run are the dispatcher's
 * business), and delayed ones come back when their moment has come.
 *
 * Delays are told in wall-clock time so that a restart keeps them; a clock that was set back must not make an hour of a second, so a
 * moment further away than any delay lasts has come too. Writer thread. */
#include <stdio.h>
#include <stdlib.h>

#include "server/store/sqlite_store.h"

/* The next job that is too late, into *out, with its deadline; false: none, or an error of the connection. */
static bool next_late(store *s, int64_t now, store_job *out, int64_t *deadline)
{
    char id[API_ID_BYTES + 1] = "";
    sqlite3_stmt *statement = sql_row(&s->writer, SQL_DEADLINE_PAST, "i", now);
    if (statement) {
        snprintf(id, sizeof id, "%s", sql_column(&s->writer, statement, 0));
        *deadline = sqlite3_column_int64(statement, 1);
    }
    sql_end(statement);
    return id[0] && store_fetch(&s->writer, id, out);
}

uint32_t store_stage(store *s, int64_t now)
{
    uint32_t staged = 0;
    sqlite3_stmt *statement = sql_row(&s->writer, SQL_STAGE, "ii", now, (int64_t)STORE_DELAY_MAX_MS);
    for (bool more = statement != NULL; more; more = sql_next(&s->writer, statement)) {
        staged++;
    }
    sql_end(statement);
    return staged;
}

int64_t store_next_due(store *s)
{
    const int64_t deadline = sql_integer(&s->writer, SQL_DEADLINE_NEXT, 0, ""), delay = sql_integer(&s->writer, SQL_DELAYED_NEXT, 0, "");
    return deadline && delay ? (deadline < delay ? deadline : delay) : deadline + delay;
}

store_result store_do_deadlines(store *s, store_request *r)
{
    int64_t now = store_now(s), deadline = 0;
    store_job job;
    r->claimed = calloc(STORE_DEADLINES_MAX, sizeof *r->claimed);
    if (!r->claimed) {
        sql_fail(&s->writer, SQLITE_NOMEM, "out of memory");
        return STORE_UNKNOWN;
    }
    while (r->claimed_count < STORE_DEADLINES_MAX && !s->writer.code && next_late(s, now, &job, &deadline)) {
        char detail[128];
        snprintf(detail, sizeof detail, "it still waited when its deadline_ms (%lld) had passed", (long long)(deadline - job.created_ms));
        store_claimed *late = &r->claimed[r->claimed_count++];
        late->job = job;
        store_finish(s, &job, API_STATE_FAILED, "deadline", detail, &late->event_seq);
    }
    r->staged = store_stage(s, now);
    r->next_due_ms = store_next_due(s);
    return STORE_OK;
}
