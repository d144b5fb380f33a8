/* What the tests of the SQLite store itself share: the calls of the contract suite on the SQLite adapter, and its folder. */
#ifndef DN_TESTS_STORE_HARNESS_H
#define DN_TESTS_STORE_HARNESS_H

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/store/adapter_sqlite.h"
#include "tests/store/contract.h"

/* The folder of the last test goes; a new empty one comes. */
static inline void new_folder(void)
{
    new_place();
}

static inline void make_file(const char *inside, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s/%s", folder, inside, name);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0) {
        close(fd);
    }
}

/* One integer out of the database, on a connection of the test's own (the store must be closed, or the read is of another process's view). */
static inline int64_t ask_database(const char *question)
{
    char path[128];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    int64_t value = -1;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK &&
        sqlite3_prepare_v2(db, question, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        value = sqlite3_column_int64(statement, 0);
    }
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return value;
}

#endif
