/* The plans that the indexes of the SQLite store must serve. */
#include "server/store/sqlite_store.h"
#include "tests/store/store_harness.h"

static bool plan_says(sqlite3 *db, const char *text, const char *wanted, char *plan, size_t plan_bytes)
{
    char question[2048];
    sqlite3_stmt *statement = NULL;
    size_t used = 0;
    plan[0] = 0;
    snprintf(question, sizeof question, "EXPLAIN QUERY PLAN %s", text);
    bool fine = sqlite3_prepare_v2(db, question, -1, &statement, NULL) == SQLITE_OK;
    while (fine && sqlite3_step(statement) == SQLITE_ROW) {
        used += (size_t)snprintf(plan + used, plan_bytes - used, "%s; ", (const char *)sqlite3_column_text(statement, 3));
    }
    sqlite3_finalize(statement);
    return fine && strstr(plan, wanted) && !strstr(plan, "TEMP B-TREE");
}

#define SQL_TEXT(name, text) [name] = text,
static const char *const TEXTS[SQL_COUNT] = {SQL_STATEMENTS(SQL_TEXT)};

static void indexes_serve_the_queue(void)
{
    static const struct {
        sql_id id;
        const char *plan;
    } rows[] = {
        {SQL_HEAD, "USING INDEX job_ready (priority=?)"},
        {SQL_HEAD_MODEL, "job_ready_model (model=? AND priority=?)"},
        {SQL_BEFORE, "USING COVERING INDEX job_ready (priority=? AND turn<"},
        {SQL_FROM, "USING COVERING INDEX job_ready (priority=? AND turn>"},
        {SQL_STAGE, "job_delayed (run_at_ms"},
        {SQL_DELAYED_NEXT, "USING COVERING INDEX job_delayed"},
        {SQL_DELAYED_FROM, "USING COVERING INDEX job_delayed"},
        {SQL_LIST_CLIENT, "job_list (client=? AND created_ms<"},
        {SQL_PENDING, "USING COVERING INDEX job_pending (client=? AND state<?)"},
        {SQL_RUNNING_OTHERS, "job_running"},
        {SQL_ENDED_OLDEST, "USING INDEX job_ended"},
        {SQL_FORGET, "job_tombstone"},
        {SQL_PURGE_NEXT, "job_purge"},
        {SQL_KEY_FIND, "(client=? AND key=?)"},
        {SQL_EVENT_ADD, "SEARCH event USING PRIMARY KEY (job=?)"},
    };
    CHECK(fresh());
    close_store();
    char path[128], plan[512];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    sqlite3 *db = NULL;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    const char *missing = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !missing; i++) {
        bool sorted = rows[i].id == SQL_RUNNING_OTHERS; /* a handful of rows, sorted once at start */
        bool fine = plan_says(db, TEXTS[rows[i].id], rows[i].plan, plan, sizeof plan) || (sorted && strstr(plan, rows[i].plan));
        missing = fine ? NULL : rows[i].plan;
    }
    sqlite3_close(db);
    CHECK_MSG(!missing, "wanted %s, the plan is %.400s", missing ? missing : "", plan);
}

int main(void)
{
    RUN(indexes_serve_the_queue);
    end_store_tests();
    return test_end();
}
