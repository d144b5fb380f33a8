/* A consistent copy of a database that others may be writing, by SQLite's online backup, and of the images and input pictures it names.
 *
 * The database is copied first: an image that it names was there at that moment, and images never change, so a link is as good as a copy
 * where both folders share a file system. It gets its name last: until then the copy is a folder that says it has lost its database, and
 * no daemon takes it for a whole one, however the backup was cut short. Any thread, any process: nothing here needs the lock on the data directory. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "server/fault.h"
#include "server/store/sqlite_store.h"

#define BACKUP_IMAGE_BYTES_MAX (256u << 20)

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
    fault_point("database_copy_unnamed");
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

/* "A/B" or "A/B/C", malloc'd. */
static char *join(const char *a, const char *b, const char *c)
{
    size_t room = strlen(a) + strlen(b) + strlen(c) + 3;
    char *path = malloc(room);
    if (path) {
        snprintf(path, room, "%s/%s%s%s", a, b, c[0] ? "/" : "", c);
    }
    return path;
}

static dn_status copy_image(const char *from, const char *to, bool *missing, dn_error *error)
{
    if (link(from, to) == 0) {
        return DN_OK;
    }
    if (access(from, F_OK) != 0 && errno == ENOENT) {
        *missing = true;
        return DN_OK;
    }
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_status status = dn_file_read(&bytes, &count, from, BACKUP_IMAGE_BYTES_MAX, error);
    if (status == DN_OK) {
        status = dn_file_write(to, bytes, count, true, error);
    }
    free(bytes);
    return status;
}

static dn_status copy_images(sql *copy, const char *folder, const char *destination, size_t *images, size_t *missing, dn_error *error)
{
    dn_status status = DN_OK;
    sqlite3_stmt *statement = sql_row(copy, SQL_IMAGE_FILES, "");
    for (bool more = statement != NULL; more && status == DN_OK; more = sql_next(copy, statement)) {
        bool gone = false;
        char *from = join(folder, "images", sql_column(copy, statement, 0)),
             *to = join(destination, "images", sql_column(copy, statement, 0));
        status = from && to ? copy_image(from, to, &gone, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
        fault_point("backup_mid");
        *images += status == DN_OK && !gone;
        *missing += gone;
        free(from);
        free(to);
    }
    sql_end(statement);
    if (status == DN_OK && copy->code) {
        status = dn_fail(error, DN_IO, "%s: the copy cannot be read: %s", destination, copy->text);
    }
    return status;
}

/* Input pictures of the jobs that wait or run in the copy. They go first: once such a job has ended, its own are removed. */
static dn_status copy_inputs(sql *copy, const char *folder, const char *destination, dn_error *error)
{
    dn_status status = DN_OK;
    char *path = join(folder, "inputs", "");
    DIR *listing = path ? opendir(path) : NULL;
    for (struct dirent *entry; listing && status == DN_OK && (entry = readdir(listing));) {
        char id[API_ID_BYTES + 1] = "";
        size_t length = strlen(entry->d_name);
        memcpy(id, entry->d_name, length < API_ID_BYTES ? length : API_ID_BYTES);
        if (!api_id_valid(id) || strstr(entry->d_name, ".tmp") ||
            sql_integer(copy, SQL_JOB_STATE, API_STATE_CANCELED, "t", id) > API_STATE_RUNNING) {
            continue;
        }
        bool gone = false;
        char *from = join(folder, "inputs", entry->d_name), *to = join(destination, "inputs", entry->d_name);
        status = from && to ? copy_image(from, to, &gone, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
        free(from);
        free(to);
    }
    if (listing) {
        closedir(listing);
    }
    free(path);
    return status;
}

/* What a data directory's lock file says of itself. */
static dn_status mark(const char *destination, dn_error *error)
{
    char *path = join(destination, "denoised.lock", "");
    dn_status status = path ? dn_file_write(path, STORE_PRESENCE_MARK, sizeof STORE_PRESENCE_MARK - 1, true, error)
                            : dn_fail(error, DN_NO_MEMORY, "out of memory");
    free(path);
    return status;
}

/* A backup goes where nothing is: it must never replace another, or a data directory in use. */
static dn_status make_destination(const char *destination, dn_error *error)
{
    char *images = join(destination, "images", ""), *inputs = join(destination, "inputs", "");
    dn_status status = images && inputs ? dn_make_folder(destination, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
    DIR *listing = status == DN_OK ? opendir(destination) : NULL;
    if (status == DN_OK && !listing) {
        status = dn_fail(error, DN_IO, "%s: %s", destination, strerror(errno));
    }
    for (struct dirent *entry; listing && status == DN_OK && (entry = readdir(listing));) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            status = dn_fail(error, DN_INVALID, "%s is not empty", destination);
        }
    }
    if (listing) {
        closedir(listing);
    }
    if (status == DN_OK) {
        status = dn_make_folder(images, error);
    }
    if (status == DN_OK) {
        status = dn_make_folder(inputs, error);
    }
    if (status == DN_OK) {
        status = mark(destination, error);
    }
    free(images);
    free(inputs);
    return status;
}

/* Names durable, the database's last of all. */
static dn_status finish(const char *destination, const char *copied, const char *target, dn_error *error)
{
    static const char *const folders[] = {"images", "inputs", ""};
    dn_status status = DN_OK;
    for (size_t i = 0; status == DN_OK && i < sizeof folders / sizeof folders[0]; i++) {
        if (!folders[i][0] && rename(copied, target) != 0) {
            return dn_fail(error, DN_IO, "%s: the backup could not be given its name: %s", target, strerror(errno));
        }
        char *path = join(destination, folders[i], "");
        int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        if (fd < 0 || fsync(fd) != 0) {
            status = dn_fail(error, DN_IO, "%s: %s", path ? path : destination, path ? strerror(errno) : "out of memory");
        }
        if (fd >= 0) {
            close(fd);
        }
        free(path);
    }
    return status;
}

static dn_status copy_files(const char *database, const char *folder, const char *destination, size_t *images, size_t *missing,
                            dn_error *error)
{
    sql copy = {0};
    dn_status status = sql_open(&copy, database, false, error);
    if (status == DN_OK) {
        status = copy_inputs(&copy, folder, destination, error);
    }
    if (status == DN_OK) {
        status = copy_images(&copy, folder, destination, images, missing, error);
    }
    sql_close(&copy);
    return status;
}

dn_status store_backup(const char *folder, const char *destination, size_t *images, size_t *missing, dn_error *error)
{
    sql from = {0};
    char *source = join(folder, "denoised.db", ""), *target = join(destination, "denoised.db", ""),
         *unnamed = join(destination, "denoised.db.copied", "");
    size_t copied = 0, gone = 0;
    dn_status status = source && target && unnamed ? sql_open(&from, source, false, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
    if (status == DN_OK) {
        status = make_destination(destination, error);
    }
    if (status == DN_OK) {
        status = store_copy_database(from.db, unnamed, error);
    }
    fault_point("backup_database_copied");
    sql_close(&from);
    if (status == DN_OK) {
        status = copy_files(unnamed, folder, destination, &copied, &gone, error);
    }
    if (status == DN_OK) {
        status = finish(destination, unnamed, target, error);
    }
    free(source);
    free(target);
    free(unnamed);
    if (status == DN_OK) {
        *images = copied;
        *missing = gone;
    }
    return status;
}
