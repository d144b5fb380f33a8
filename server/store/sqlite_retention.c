/* Forgetting: results expire (rows of images and events, parameters), and a month later the tombstone goes, with its idempotency key.
 *
 * The rows go first; the names of the files are handed to the caller, who unlinks them after the commit. A crash between the two
 * leaves files that no row knows, which the next start sweeps. Writer thread. */
#include "server/store/sqlite_store.h"

void store_expire(store *s, store_request *r, int64_t row)
{
    sql *c = &s->writer;
    sqlite3_stmt *statement = sql_row(c, SQL_FILES_OF, "i", row);
    for (bool more = statement != NULL; more; more = sql_next(c, statement)) {
        if (!store_add_file(r, c, sql_column(c, statement, 0))) {
            break;
        }
    }
    sql_end(statement);
    sql_run(c, SQL_IMAGES_DROP, "i", row);
    sql_run(c, SQL_EVENTS_DROP, "i", row);
    sql_run(c, SQL_OUTBOX_DROP, "i", row);
    sql_run(c, SQL_EXPIRE, "ii", row, store_now(s));
}

/* The next job to expire: asked for by its client, too old, or too much in all. 0: none. */
static int64_t next_row(store *s, const store_request *r, int64_t now)
{
    sql *c = &s->writer;
    const int64_t untold = r->untold_stay;
    int64_t row = sql_integer(c, SQL_PURGE_NEXT, 0, "");
    if (row) {
        return row;
    }
    if (r->keep_ms > 0) {
        sqlite3_stmt *statement = sql_row(c, SQL_ENDED_OLDEST, "i", untold);
        if (statement && now - sqlite3_column_int64(statement, 1) >= r->keep_ms) {
            row = sqlite3_column_int64(statement, 0);
        }
        sql_end(statement);
        if (row) {
            return row;
        }
    }
    bool too_much = r->keep_bytes && (uint64_t)sql_integer(c, SQL_IMAGE_BYTES, 0, "") > r->keep_bytes;
    return too_much ? sql_integer(c, SQL_ENDED_WITH_IMAGES, 0, "i", untold) : 0;
}

static void forget_tombstones(store *s, store_request *r, int64_t now)
{
    sql *c = &s->writer;
    int64_t forgotten = 0;
    sqlite3_stmt *statement = sql_row(c, SQL_FORGET, "ii", now - STORE_TOMBSTONE_MS, (int64_t)STORE_RETENTION_JOBS_MAX);
    for (bool more = statement != NULL; more; more = sql_next(c, statement)) {
        sql_run(c, SQL_KEY_FORGET, "i", sqlite3_column_int64(statement, 0));
        forgotten++;
    }
    sql_end(statement);
    r->more |= forgotten == STORE_RETENTION_JOBS_MAX;
}

store_result store_do_retention(store *s, store_request *r)
{
    int64_t now = store_now(s), row = 0;
    int expired = 0;
    r->more = false;
    while (expired < STORE_RETENTION_JOBS_MAX && (row = next_row(s, r, now)) && !s->writer.code) {
        store_expire(s, r, row);
        expired++;
    }
    r->more = expired == STORE_RETENTION_JOBS_MAX;
    forget_tombstones(s, r, now);
    sql_run(&s->writer, SQL_CLIENTS_FORGET, "");
    return STORE_OK;
}
