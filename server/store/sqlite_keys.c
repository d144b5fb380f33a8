/* API keys in the database: the daemon reads them, the command line writes them beside it in short transactions. Only hashes are kept;
 * a revoked key stays, so that its number is not given out again. Any thread, any process. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "server/store/sqlite_store.h"

static void read_key(sql *c, sqlite3_stmt *statement, store_key *out)
{
    *out = (store_key){.created_ms = sqlite3_column_int64(statement, 3),
                       .revoked_ms = sqlite3_column_int64(statement, 4),
                       .scopes = (unsigned)sqlite3_column_int(statement, 5),
                       .rate = sqlite3_column_double(statement, 6),
                       .pending_jobs = (uint64_t)sqlite3_column_int64(statement, 7),
                       .budget = sqlite3_column_double(statement, 8)};
    snprintf(out->number, sizeof out->number, "%s", sql_column(c, statement, 0));
    snprintf(out->client, sizeof out->client, "%s", sql_column(c, statement, 2));
    if (sqlite3_column_bytes(statement, 1) == (int)sizeof out->hash) {
        memcpy(out->hash, sqlite3_column_blob(statement, 1), sizeof out->hash);
    }
}

/* All keys, the oldest first. False: c->code says why. */
static bool read_keys(sql *c, store_key **out, size_t *count)
{
    store_key *keys = NULL;
    size_t used = 0;
    sqlite3_stmt *statement = sql_row(c, SQL_KEYS, "");
    for (bool more = statement != NULL; more; more = sql_next(c, statement)) {
        store_key *grown = realloc(keys, (used + 1) * sizeof *keys);
        if (!grown) {
            sql_fail(c, SQLITE_NOMEM, "out of memory");
            break;
        }
        keys = grown;
        read_key(c, statement, &keys[used++]);
    }
    sql_end(statement);
    if (c->code) {
        free(keys);
        return false;
    }
    *out = keys;
    *count = used;
    return true;
}

store_result store_keys(store *s, store_key **out, size_t *count)
{
    *out = NULL;
    *count = 0;
    sql *c = store_borrow(s);
    read_keys(c, out, count);
    return store_give_back(s, c) ? STORE_OK : STORE_UNKNOWN;
}

/* ---- The command line */

/* A data directory that no daemon has opened yet, or that an older one made, is brought to this version first. */
static dn_status prepare(const char *folder, dn_error *error)
{
    store *s = NULL;
    const store_options options = {.folder = folder, .base_path = ""};
    dn_status status = store_open(&s, &options, error);
    store_close(s);
    return status;
}

static int schema_of(sql *c)
{
    sqlite3_stmt *statement = NULL;
    int version = 0;
    if (sqlite3_prepare_v2(c->db, "PRAGMA user_version", -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        version = sqlite3_column_int(statement, 0);
    }
    sqlite3_finalize(statement);
    return version;
}

/* make: a folder without a database gets one. */
static dn_status open_beside(sql *c, const char *folder, bool make, char *path, size_t path_bytes, dn_error *error)
{
    struct stat info;
    snprintf(path, path_bytes, "%s/denoised.db", folder);
    const bool there = stat(path, &info) == 0;
    if (!there && !make) {
        return dn_fail(error, DN_IO, "%s: %s; --data names the folder of a daemon, and `denoised key add` begins one", path,
                       strerror(errno));
    }
    dn_status status = there ? DN_OK : prepare(folder, error);
    if (status == DN_OK) {
        status = sql_open(c, path, true, error);
    }
    if (status == DN_OK && schema_of(c) < store_schema_newest()) {
        sql_close(c);
        status = prepare(folder, error);
        if (status == DN_OK) {
            status = sql_open(c, path, true, error);
        }
    }
    if (status == DN_OK && schema_of(c) != store_schema_newest()) {
        sql_close(c);
        status = dn_fail(error, DN_INVALID, "%s was made by a newer denoised", path);
    }
    return status;
}

/* Closes; DN_IO with what went wrong since it was opened. */
static dn_status close_beside(sql *c, const char *path, dn_error *error)
{
    dn_status status = c->code ? dn_fail(error, DN_IO, "%s: %s", path, c->text) : DN_OK;
    sql_clear(c);
    if (!sqlite3_get_autocommit(c->db)) {
        sql_run(c, SQL_ROLLBACK, "");
    }
    sql_close(c);
    return status;
}

dn_status store_key_add(const char *folder, const store_key *key, dn_error *error)
{
    char path[4096];
    sql c = {.db = NULL};
    dn_status status = open_beside(&c, folder, true, path, sizeof path, error);
    if (status != DN_OK) {
        return status;
    }
    const int64_t scopes = key->scopes, pending = (int64_t)key->pending_jobs;
    char rate[32], budget[32];
    snprintf(rate, sizeof rate, "%.17g", key->rate);
    snprintf(budget, sizeof budget, "%.17g", key->budget);
    sql_run(&c, SQL_BEGIN, "");
    sql_run(&c, SQL_API_KEY_ADD, "tbtiitit", key->number, (const void *)key->hash, sizeof key->hash, key->client, dn_wall_ms(), scopes,
            rate, pending, budget);
    sql_run(&c, SQL_COMMIT, "");
    return close_beside(&c, path, error);
}

dn_status store_key_revoke(const char *folder, const char *number, bool *found, dn_error *error)
{
    char path[4096];
    sql c = {.db = NULL};
    dn_status status = open_beside(&c, folder, false, path, sizeof path, error);
    if (status != DN_OK) {
        return status;
    }
    sql_run(&c, SQL_BEGIN, "");
    *found = sql_integer(&c, SQL_API_KEY_REVOKE, 0, "ti", number, dn_wall_ms()) > 0;
    sql_run(&c, SQL_COMMIT, "");
    return close_beside(&c, path, error);
}

dn_status store_key_list(const char *folder, store_key **out, size_t *count, dn_error *error)
{
    char path[4096];
    sql c = {.db = NULL};
    *out = NULL;
    *count = 0;
    dn_status status = open_beside(&c, folder, false, path, sizeof path, error);
    if (status != DN_OK) {
        return status;
    }
    read_keys(&c, out, count);
    return close_beside(&c, path, error);
}
