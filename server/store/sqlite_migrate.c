/* The schema: migrations/sqlite/NNNN_name.sql, built into the program, applied at start in a transaction each.
 *
 * PRAGMA user_version is the number of the last one applied. Before each migration of a database that has content a copy is kept
 * beside it (backup/denoised-schema-N.db): restoring it is the way back. A newer schema, another program's file and a damaged file
 * are refused, untouched. Runs in store_open, before any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "server/fault.h"
#include "server/store/sqlite_store.h"

/* The file's bytes and a NUL, under the given symbol. The path is relative to the repository root, where the compiler runs. */
#define EMBED(symbol, path)                                                                                                                \
    __asm__(".pushsection .rodata\n"                                                                                                       \
            ".global " #symbol "\n" #symbol ":\n"                                                                                          \
            ".incbin \"" path "\"\n"                                                                                                       \
            ".byte 0\n"                                                                                                                    \
            ".popsection\n")

EMBED(store_migration_1, "migrations/sqlite/0001_initial.sql");
EMBED(store_migration_2, "migrations/sqlite/0002_keys_and_outbox.sql");
EMBED(store_migration_3, "migrations/sqlite/0003_evaluations.sql");
EMBED(store_migration_4, "migrations/sqlite/0004_deadline.sql");
EMBED(store_migration_5, "migrations/sqlite/0005_delay.sql");
EMBED(store_migration_6, "migrations/sqlite/0006_key_limits.sql");
EMBED(store_migration_7, "migrations/sqlite/0007_trace_and_metrics_scope.sql");

static const char *const MIGRATIONS[] = {store_migration_1, store_migration_2, store_migration_3, store_migration_4,
                                         store_migration_5, store_migration_6, store_migration_7};

int store_schema_newest(void)
{
    return (int)(sizeof MIGRATIONS / sizeof MIGRATIONS[0]);
}

const char *store_migration(int version)
{
    return MIGRATIONS[version - 1];
}

/* The first column of a statement that has one row; text "" and number 0 when it has none. */
static int ask(sql *c, const char *question, char *text, size_t text_bytes)
{
    sqlite3_stmt *statement = NULL;
    int number = 0;
    text[0] = 0;
    if (sqlite3_prepare_v2(c->db, question, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        number = sqlite3_column_int(statement, 0);
        snprintf(text, text_bytes, "%s", sql_column(c, statement, 0));
    }
    int rc = sqlite3_finalize(statement);
    if (rc != SQLITE_OK) {
        sql_fail(c, rc, sqlite3_errmsg(c->db));
    }
    return number;
}

static dn_status check_owner(store *s, int version, dn_error *error)
{
    char text[32];
    int application = ask(&s->writer, "PRAGMA application_id", text, sizeof text);
    int tables = ask(&s->writer, "SELECT count(*) FROM sqlite_schema", text, sizeof text);
    if (s->writer.code) {
        return dn_fail(error, DN_INVALID, "%s is damaged (%s): restore a backup", s->database, s->writer.text);
    }
    bool ours = version ? application == STORE_APPLICATION_ID : tables == 0;
    if (!ours) {
        return dn_fail(error, DN_INVALID, "%s was not made by denoised", s->database);
    }
    if (version > store_schema_newest()) {
        return dn_fail(error, DN_INVALID, "%s was made by a newer denoised (schema %d, this one knows %d)", s->database, version,
                       store_schema_newest());
    }
    return DN_OK;
}

static dn_status keep_copy(store *s, int version, dn_error *error)
{
    char name[64];
    snprintf(name, sizeof name, "denoised-schema-%d.db", version);
    char *folder = store_path(s, "backup", ""), *path = store_path(s, "backup", name);
    dn_status status = folder && path ? dn_make_folder(folder, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
    if (status == DN_OK) {
        status = store_copy_database(s->writer.db, path, error);
    }
    free(folder);
    free(path);
    return status;
}

static dn_status apply(store *s, int version, dn_error *error)
{
    char marks[96];
    sql *c = &s->writer;
    snprintf(marks, sizeof marks, "PRAGMA application_id=%d; PRAGMA user_version=%d;", STORE_APPLICATION_ID, version);
    bool applied = sql_run(c, SQL_BEGIN, "") && sql_text(c, store_migration(version)) && sql_text(c, marks);
    fault_point("migrate_step");
    if (applied && sql_run(c, SQL_COMMIT, "")) {
        fault_point("migrate_after_commit");
        return DN_OK;
    }
    dn_status status = dn_fail(error, DN_IO, "%s: migration %d failed: %s", s->database, version, c->text);
    sql_clear(c);
    if (!sqlite3_get_autocommit(c->db)) {
        sql_run(c, SQL_ROLLBACK, "");
    }
    return status;
}

dn_status store_migrate(store *s, dn_error *error)
{
    char text[32];
    int version = ask(&s->writer, "PRAGMA user_version", text, sizeof text);
    dn_status status = check_owner(s, version, error);
    ask(&s->writer, "PRAGMA journal_mode", text, sizeof text);
    /* A restored backup (without a log), what is about to be changed and what is small are looked through to the end first. */
    char pages[32];
    int64_t bytes = (int64_t)ask(&s->writer, "PRAGMA page_count", pages, sizeof pages) * STORE_PAGE_BYTES;
    bool small = bytes <= STORE_CHECK_WAIT_BYTES && s->options.check_wait_ms == 0;
    bool patient = strcmp(text, "wal") != 0 || version < store_schema_newest() || small;
    if (status == DN_OK) {
        status = sql_use_wal(&s->writer, s->database, error);
    }
    if (status == DN_OK) {
        status = store_keeper_start(s, patient, error);
    }
    for (int next = version + 1; status == DN_OK && next <= store_schema_newest(); next++) {
        if (version > 0) {
            status = keep_copy(s, next - 1, error);
            fault_point("migrate_copy_kept");
        }
        if (status == DN_OK) {
            status = apply(s, next, error);
        }
    }
    return status;
}
