/* Queued jobs whose deadline has passed: they fail where they wait. (Those that run are the dispatcher's business.) Writer thread. */
#include <stdio.h>
#include <stdlib.h>

#include "server/store/sqlite_store.h"

/* The next job that is too late, into *out, with its deadline; false: none, or an error of the connection. */
static bool next_late(store *s, int64_t now, store_job *out, int64_t *deadline)
{
    char id[API_ID_BYTES + 1] = "";
    sqlite3_stmt *statement = sql_row(&s->writer, SQL_DEADLINE_PAST, "i", now);
    if (statement) {
        snprintf(id, sizeof id, "%s", sql_column(statement, 0));
        *deadline = sqlite3_column_int64(statement, 1);
    }
    sql_end(statement);
    return id[0] && store_fetch(&s->writer, id, out);
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
    r->next_deadline_ms = sql_integer(&s->writer, SQL_DEADLINE_NEXT, 0, "");
    return STORE_OK;
}
