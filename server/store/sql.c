/* One SQLite connection: settings, statements prepared once, binding by format, first error kept. One thread at a time. */
#include "server/store/sql.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/fault.h"

#define SQL_BUSY_TIMEOUT_MS 5000 /* only command-line writers ever hold the lock beside the daemon */
#define SQL_VALUE_BYTES_MAX (1 << 20)
#define SQL_CHECKPOINT_PAGES 1000 /* of the write-ahead log, before it is copied into the database */

#define SQL_TEXT(name, text) [name] = text,
static const char *const TEXTS[SQL_COUNT] = {SQL_STATEMENTS(SQL_TEXT)};
#undef SQL_TEXT

void sql_fail(sql *c, int code, const char *text)
{
    if (!c->code) {
        c->code = code;
        snprintf(c->text, sizeof c->text, "%s", text);
    }
}

void sql_clear(sql *c)
{
    c->code = 0;
    c->text[0] = 0;
}

static void remember(sql *c)
{
    sql_fail(c, sqlite3_extended_errcode(c->db), sqlite3_errmsg(c->db));
}

bool sql_text(sql *c, const char *text)
{
    if (!c->code && sqlite3_exec(c->db, text, NULL, NULL, NULL) != SQLITE_OK) {
        remember(c);
    }
    return !c->code;
}

/* Whether the answer to this question of the journal's mode is "wal", to its end without an error. */
static bool answers_wal(sql *c, const char *question)
{
    sqlite3_stmt *statement = NULL;
    bool wal = sqlite3_prepare_v2(c->db, question, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW &&
               strcmp(sql_column(c, statement, 0), "wal") == 0;
    return sqlite3_finalize(statement) == SQLITE_OK && wal;
}

/* journal_mode answers with the mode that holds: a file system that cannot do WAL says something else. After an error of the disk it
 * has been seen to answer "wal" although the old mode holds: so it is asked again. */
dn_status sql_use_wal(sql *c, const char *path, dn_error *error)
{
    if (answers_wal(c, "PRAGMA journal_mode=WAL") && answers_wal(c, "PRAGMA journal_mode")) {
        return DN_OK;
    }
    return dn_fail(error, DN_IO, "%s: no write-ahead log can be kept: %s", path, sqlite3_errmsg(c->db));
}

static void limit(sqlite3 *db)
{
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
    sqlite3_limit(db, SQLITE_LIMIT_LENGTH, SQL_VALUE_BYTES_MAX);
    sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH, 100000);
    sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
    sqlite3_limit(db, SQLITE_LIMIT_VARIABLE_NUMBER, 32);
}

/* After a commit: what PRAGMA wal_autocheckpoint does, with a name before and behind it. A checkpoint that fails costs nothing: the next
 * commit tries again. */
static int keep_log_short(void *unused, sqlite3 *db, const char *schema, int pages)
{
    (void)unused;
    if (pages >= SQL_CHECKPOINT_PAGES) {
        fault_point("checkpoint");
        sqlite3_wal_checkpoint_v2(db, schema, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
        fault_point("checkpoint_done");
    }
    return SQLITE_OK;
}

static dn_status open_with(sql *out, const char *path, int flags, bool writer, dn_error *error)
{
    /* Pages in memory: 4 MB for the writer, 1 MB for a reader. The queue's working set is its newest rows, and the daemon's memory must not
     * follow its history. */
    static const char settings[] = "PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON; PRAGMA temp_store=MEMORY;"
                                   "PRAGMA mmap_size=0; PRAGMA cache_size=-1000;";
    static const char durable[] = "PRAGMA synchronous=FULL; PRAGMA journal_size_limit=67108864; PRAGMA cache_size=-4000;";
    *out = (sql){0};
    if (sqlite3_open_v2(path, &out->db, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        dn_status status = dn_fail(error, DN_IO, "%s: %s", path, out->db ? sqlite3_errmsg(out->db) : "out of memory");
        sql_close(out);
        return status;
    }
    sqlite3_extended_result_codes(out->db, 1);
    sqlite3_busy_timeout(out->db, SQL_BUSY_TIMEOUT_MS);
    limit(out->db);
    if (!sql_text(out, settings) || (writer && !sql_text(out, durable))) {
        bool bad = (out->code & 0xff) == SQLITE_NOTADB || (out->code & 0xff) == SQLITE_CORRUPT;
        dn_status status = bad ? dn_fail(error, DN_INVALID, "%s is not a sound SQLite database (%s): restore a backup", path, out->text)
                               : dn_fail(error, DN_IO, "%s: %s", path, out->text);
        sql_close(out);
        return status;
    }
    if (writer) {
        sqlite3_wal_hook(out->db, keep_log_short, NULL);
    }
    return DN_OK;
}

dn_status sql_open(sql *out, const char *path, bool writer, dn_error *error)
{
    return open_with(out, path, writer ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY, writer, error);
}

dn_status sql_open_checker(sql *out, const char *path, dn_error *error)
{
    dn_status status = open_with(out, path, SQLITE_OPEN_READWRITE, false, error);
    if (status == DN_OK) {
        sqlite3_db_config(out->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, (int *)NULL);
        sql_text(out, "PRAGMA query_only=ON");
        return DN_OK;
    }
    return status == DN_IO ? sql_open(out, path, false, error) : status;
}

void sql_close(sql *c)
{
    for (int i = 0; i < SQL_COUNT; i++) {
        sqlite3_finalize(c->statements[i]);
        c->statements[i] = NULL;
    }
    sqlite3_close(c->db);
    c->db = NULL;
}

static sqlite3_stmt *prepared(sql *c, sql_id id)
{
    if (c->code) {
        return NULL;
    }
    if (!c->statements[id] && sqlite3_prepare_v3(c->db, TEXTS[id], -1, SQLITE_PREPARE_PERSISTENT, &c->statements[id], NULL) != SQLITE_OK) {
        remember(c);
    }
    return c->statements[id];
}

dn_status sql_prepare_all(sql *c, const char *path, dn_error *error)
{
    for (int id = 0; id < SQL_COUNT; id++) {
        if (prepared(c, (sql_id)id)) {
            continue;
        }
        const int code = c->code & 0xff;
        if (code == SQLITE_ERROR || code == SQLITE_CORRUPT) {
            return dn_fail(error, DN_INVALID, "%s: its schema is damaged (%s): restore a backup", path, c->text);
        }
        return dn_fail(error, code == SQLITE_NOMEM ? DN_NO_MEMORY : DN_IO, "%s: %s", path, c->text);
    }
    return DN_OK;
}

static bool bind(sql *c, sqlite3_stmt *statement, const char *format, va_list arguments)
{
    int rc = SQLITE_OK;
    for (int i = 1; format[i - 1] && rc == SQLITE_OK; i++) {
        if (format[i - 1] == 'i') {
            rc = sqlite3_bind_int64(statement, i, va_arg(arguments, int64_t));
        } else if (format[i - 1] == 't') {
            rc = sqlite3_bind_text(statement, i, va_arg(arguments, const char *), -1, SQLITE_STATIC);
        } else {
            const void *bytes = va_arg(arguments, const void *);
            size_t count = va_arg(arguments, size_t);
            rc = sqlite3_bind_blob64(statement, i, bytes, count, SQLITE_STATIC);
        }
    }
    if (rc != SQLITE_OK) {
        remember(c);
    }
    return rc == SQLITE_OK;
}

void sql_end(sqlite3_stmt *statement)
{
    if (statement) {
        sqlite3_reset(statement);
        sqlite3_clear_bindings(statement);
    }
}

bool sql_next(sql *c, sqlite3_stmt *statement)
{
    int rc = sqlite3_step(statement);
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) {
        remember(c);
    }
    return rc == SQLITE_ROW;
}

static sqlite3_stmt *first(sql *c, sql_id id, const char *format, va_list arguments)
{
    sqlite3_stmt *statement = prepared(c, id);
    if (!statement) {
        return NULL;
    }
    if (bind(c, statement, format, arguments) && sql_next(c, statement)) {
        return statement;
    }
    sql_end(statement);
    return NULL;
}

sqlite3_stmt *sql_row(sql *c, sql_id id, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    sqlite3_stmt *statement = first(c, id, format, arguments);
    va_end(arguments);
    return statement;
}

bool sql_run(sql *c, sql_id id, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    sql_end(first(c, id, format, arguments));
    va_end(arguments);
    return !c->code;
}

int64_t sql_integer(sql *c, sql_id id, int64_t otherwise, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    sqlite3_stmt *statement = first(c, id, format, arguments);
    va_end(arguments);
    int64_t value = otherwise;
    if (statement && sqlite3_column_type(statement, 0) != SQLITE_NULL) {
        value = sqlite3_column_int64(statement, 0);
    }
    sql_end(statement);
    return value;
}

const char *sql_column(sql *c, sqlite3_stmt *statement, int column)
{
    const bool null = sqlite3_column_type(statement, column) == SQLITE_NULL;
    const unsigned char *text = null ? NULL : sqlite3_column_text(statement, column);
    if (!null && !text) {
        sql_fail(c, SQLITE_NOMEM, "out of memory");
    }
    return text ? (const char *)text : "";
}

char *sql_column_copy(sql *c, sqlite3_stmt *statement, int column)
{
    if (sqlite3_column_type(statement, column) == SQLITE_NULL) {
        return NULL;
    }
    char *copy = strdup(sql_column(c, statement, column));
    if (!copy) {
        sql_fail(c, SQLITE_NOMEM, "out of memory");
    }
    return copy;
}
