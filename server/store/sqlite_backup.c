/* A consistent copy of a database that others may be writing, by SQLite's online backup. Any thread with a connection of its own. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/store/sqlite_store.h"

static int copy_pages(sqlite3 *from, sqlite3 *to)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    if (!backup) {
        return sqlite3_errcode(to);
    }
    sqlite3_backup_step(backup, -1); /* one read transaction: a consistent picture; the writer goes on in the log */
    return sqlite3_backup_finish(backup);
}

/* The copy must not need a log beside it: one file is what people move about. */
static int make_single_file(sqlite3 *db)
{
    return sqlite3_exec(db, "PRAGMA journal_mode=DELETE", NULL, NULL, NULL);
}

dn_status store_copy_database(sqlite3 *from, const char *path, dn_error *error)
{
    size_t room = strlen(path) + 8;
    char *temporary = malloc(room);
    if (!temporary) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    snprintf(temporary, room, "%s.tmp", path);
    unlink(temporary);
    dn_status status = DN_OK;
    sqlite3 *to = NULL;
    int rc = sqlite3_open_v2(temporary, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    if (rc == SQLITE_OK) {
        rc = copy_pages(from, to);
    }
    if (rc == SQLITE_OK) {
        rc = make_single_file(to);
    }
    if (rc != SQLITE_OK) {
        status = dn_fail(error, DN_IO, "%s: the backup failed: %s", path, to ? sqlite3_errmsg(to) : "out of memory");
    }
    sqlite3_close(to);
    if (status == DN_OK && rename(temporary, path) != 0) {
        status = dn_fail(error, DN_IO, "%s: the backup could not be given its name: %s", path, strerror(errno));
    }
    if (status != DN_OK) {
        unlink(temporary);
    }
    free(temporary);
    return status;
}
