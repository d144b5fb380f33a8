/* Looking for damage in a data directory: what `denoised check` does. Reads only, on a connection of its own; any process, beside a
 * running daemon or without one. So a file may come or go while it looks: what seems missing is asked for once more. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sha256.h"
#include "server/store/sqlite_store.h"

#define AUDIT_BATCH 256 /* images looked at between two reads, so that no read lasts long beside a daemon */
#define AUDIT_LINES_MAX 100 /* of SQLite's own findings */

typedef struct audit {
    store_audit *out;
    const char *folder;
    sql c;
    uint64_t expected; /* images */
} audit;

static void tell(audit *a, bool damage, const char *what, const char *detail)
{
    a->out->damages += damage;
    if (a->out->found) {
        a->out->found(a->out->payload, damage, what, detail);
    }
}

static void progress(audit *a, const char *label, double share)
{
    if (a->out->progress) {
        a->out->progress(a->out->payload, label, share);
    }
}

/* One row of a question that is asked once: its number and its text. */
static int64_t ask(sql *c, const char *question, char *text, size_t text_bytes)
{
    sqlite3_stmt *statement = NULL;
    int64_t number = 0;
    if (text_bytes) {
        text[0] = 0;
    }
    if (!c->code && sqlite3_prepare_v2(c->db, question, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        number = sqlite3_column_int64(statement, 0);
        snprintf(text, text_bytes, "%s", sql_column(c, statement, 0));
    }
    int rc = sqlite3_finalize(statement);
    if (rc != SQLITE_OK) {
        sql_fail(c, rc, sqlite3_errmsg(c->db));
    }
    return number;
}

/* Every row is one thing that is wrong. */
static void findings(audit *a, const char *what, const char *question, const char *fine)
{
    sqlite3_stmt *statement = NULL;
    int lines = 0;
    if (!a->c.code && sqlite3_prepare_v2(a->c.db, question, -1, &statement, NULL) == SQLITE_OK) {
        while (lines < AUDIT_LINES_MAX && sqlite3_step(statement) == SQLITE_ROW) {
            const char *line = sql_column(&a->c, statement, 0);
            if (strcmp(line, fine) != 0) {
                tell(a, true, what, line);
                lines++;
            }
        }
    }
    int rc = sqlite3_finalize(statement);
    if (rc != SQLITE_OK && !a->c.code) {
        sql_fail(&a->c, rc, sqlite3_errmsg(a->c.db));
    }
}

/* ---- The database */
static void check_counts(audit *a)
{
    static const struct {
        const char *what, *question;
    } counts[] = {
        {"reference", "SELECT 'a row of '||\"table\"||' names a '||\"parent\"||' that is not there' FROM pragma_foreign_key_check"},
        {"count",
         "SELECT 'jobs in state '||t.state||', priority '||t.priority||' are counted as '||jobs||' and are '||coalesce(j.n,0) FROM total t"
         " LEFT JOIN (SELECT state,priority,count(*) n FROM job GROUP BY state,priority) j ON j.state=t.state AND j.priority=t.priority"
         " WHERE jobs!=coalesce(j.n,0)"},
        {"count", "SELECT 'images are counted as '||bytes||' bytes and are '||(SELECT coalesce(sum(bytes),0) FROM image) FROM image_total"
                  " WHERE bytes!=(SELECT coalesce(sum(bytes),0) FROM image)"},
        {"job", "SELECT 'job '||id||' has '||(SELECT count(*) FROM image WHERE job=row)||' image rows and counts '||images_done FROM job"
                " WHERE expired=0 AND images_done!=(SELECT count(*) FROM image WHERE job=row)"},
        {"job", "SELECT 'job '||id||' waits or runs and has no request' FROM job WHERE state<2 AND request IS NULL"},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        progress(a, "counts", (double)i / (sizeof counts / sizeof counts[0]));
        findings(a, counts[i].what, counts[i].question, "");
    }
}

static dn_status check_owner(audit *a, const char *path, dn_error *error)
{
    char text[64];
    int64_t application = ask(&a->c, "PRAGMA application_id", text, sizeof text);
    a->out->schema = (int)ask(&a->c, "PRAGMA user_version", text, sizeof text);
    if (a->c.code) {
        return dn_fail(error, (a->c.code & 0xff) == SQLITE_CORRUPT || (a->c.code & 0xff) == SQLITE_NOTADB ? DN_INVALID : DN_IO,
                       "%s: %s: restore a backup", path, a->c.text);
    }
    if (application != STORE_APPLICATION_ID) {
        return dn_fail(error, DN_INVALID, "%s was not made by denoised", path);
    }
    if (a->out->schema > store_schema_newest()) {
        return dn_fail(error, DN_INVALID, "%s was made by a newer denoised (schema %d, this one knows %d)", path, a->out->schema,
                       store_schema_newest());
    }
    if (a->out->schema < store_schema_newest()) {
        snprintf(text, sizeof text, "schema %d: the next start brings it to %d", a->out->schema, store_schema_newest());
        tell(a, false, "schema", text);
    }
    return DN_OK;
}

static void check_database(audit *a)
{
    char none[1];
    progress(a, "database", 0);
    findings(a, "database", "PRAGMA integrity_check(100)", "ok");
    if (!a->c.code && !a->out->damages) {
        check_counts(a);
        a->out->jobs = (uint64_t)ask(&a->c, "SELECT count(*) FROM job", none, 0);
        a->expected = (uint64_t)ask(&a->c, "SELECT count(*) FROM image", none, 0);
    }
    if (a->c.code) { /* so damaged that it cannot even be asked */
        tell(a, true, "database", a->c.text);
    }
}

/* ---- Files */
typedef struct image_row {
    int64_t job, number, bytes;
    char file[96], sha256[65];
} image_row;

static size_t read_batch(sql *c, image_row *rows, int64_t job, int64_t number)
{
    size_t count = 0;
    sqlite3_stmt *statement = sql_row(c, SQL_IMAGES_AFTER, "iii", job, number, (int64_t)AUDIT_BATCH);
    for (bool more = statement != NULL; more && count < AUDIT_BATCH; more = sql_next(c, statement), count++) {
        image_row *row = &rows[count];
        row->job = sqlite3_column_int64(statement, 0);
        row->number = sqlite3_column_int64(statement, 1);
        snprintf(row->file, sizeof row->file, "%s", sql_column(c, statement, 2));
        row->bytes = sqlite3_column_int64(statement, 3);
        snprintf(row->sha256, sizeof row->sha256, "%s", sql_column(c, statement, 4));
    }
    sql_end(statement);
    return count;
}

/* "" when the file is what its row says. */
static void judge_file(char verdict[160], int images_fd, const image_row *row)
{
    char piece[1 << 16], sha256[DN_SHA256_HEX_BYTES];
    unsigned char digest[DN_SHA256_BYTES];
    struct stat info;
    int fd = strchr(row->file, '/') ? -1 : openat(images_fd, row->file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    verdict[0] = 0;
    if (fd < 0) {
        snprintf(verdict, 160, "%s", errno == ENOENT ? "is missing" : strerror(errno));
        return;
    }
    dn_sha256 hash;
    dn_sha256_init(&hash);
    ssize_t got = 0;
    bool plain = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    while (plain && (got = read(fd, piece, sizeof piece)) > 0) {
        dn_sha256_update(&hash, piece, (size_t)got);
    }
    dn_sha256_final(&hash, digest);
    dn_sha256_hex(sha256, digest);
    if (!plain || got < 0) {
        snprintf(verdict, 160, "%s", plain ? strerror(errno) : "is not a plain file");
    } else if (info.st_size != row->bytes) {
        snprintf(verdict, 160, "has %lld bytes, not %lld", (long long)info.st_size, (long long)row->bytes);
    } else if (strcmp(sha256, row->sha256) != 0) {
        snprintf(verdict, 160, "has other bytes than its row says");
    }
    close(fd);
}

static int open_folder(const audit *a, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", a->folder, name);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void check_image(audit *a, int images_fd, const image_row *row)
{
    char verdict[160], text[320];
    judge_file(verdict, images_fd, row);
    /* Retention takes the row before the file: a file that has just gone has no row any more. */
    if (verdict[0] && sql_integer(&a->c, SQL_IMAGE_THERE, 0, "ii", row->job, row->number)) {
        snprintf(text, sizeof text, "images/%s %s", row->file, verdict);
        tell(a, true, "image", text);
    }
    a->out->images++;
    a->out->image_bytes += (uint64_t)row->bytes;
}

static void check_images(audit *a)
{
    image_row *rows = calloc(AUDIT_BATCH, sizeof *rows);
    int images_fd = open_folder(a, "images");
    if (images_fd < 0) {
        tell(a, a->expected > 0, "image", "the folder images is missing");
    }
    int64_t job = -1, number = -1;
    for (size_t count = AUDIT_BATCH; rows && images_fd >= 0 && count == AUDIT_BATCH && !a->c.code;) {
        count = read_batch(&a->c, rows, job, number);
        for (size_t i = 0; i < count; i++) {
            check_image(a, images_fd, &rows[i]);
            job = rows[i].job;
            number = rows[i].number;
        }
        progress(a, "images", a->expected ? (double)a->out->images / (double)a->expected : 1);
    }
    if (images_fd >= 0) {
        close(images_fd);
    }
    free(rows);
}

/* Pictures that jobs to come need. */
static void check_inputs(audit *a)
{
    char text[200];
    int fd = open_folder(a, "inputs");
    sqlite3_stmt *statement = sql_row(&a->c, SQL_INPUTS_NEEDED, "");
    for (bool more = statement != NULL; more; more = sql_next(&a->c, statement)) {
        const char *name = sql_column(&a->c, statement, 0);
        if (fd < 0 || faccessat(fd, name, R_OK, 0) != 0) {
            snprintf(text, sizeof text, "inputs/%s is missing, and its job still waits or runs", name);
            tell(a, true, "input", text);
        }
    }
    sql_end(statement);
    if (fd >= 0) {
        close(fd);
    }
}

typedef void entry_function(audit *a, int folder_fd, const char *name);

static void each_entry(audit *a, const char *folder, entry_function *function)
{
    int fd = open_folder(a, folder);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        if (entry->d_name[0] != '.') {
            function(a, dirfd(listing), entry->d_name);
        }
    }
    if (listing) {
        closedir(listing);
    } else if (fd >= 0) {
        close(fd);
    }
}

static void check_stray(audit *a, int folder_fd, const char *name)
{
    char text[320];
    (void)folder_fd;
    if (store_image_is_litter(&a->c, name)) {
        snprintf(text, sizeof text, "images/%.200s belongs to no row: the next start removes it", name);
        tell(a, false, "stray", text);
    }
}

static void check_snapshot(audit *a, int folder_fd, const char *name)
{
    char text[320];
    a->out->snapshots++;
    if (!strstr(name, ".tmp") && a->out->snapshot_whole && !a->out->snapshot_whole(folder_fd, name) &&
        faccessat(folder_fd, name, F_OK, 0) == 0) {
        snprintf(text, sizeof text, "snapshots/%.200s is no whole snapshot: its image starts over", name);
        tell(a, false, "snapshot", text);
    }
}

static void check_files(audit *a)
{
    char path[4096];
    check_images(a);
    check_inputs(a);
    progress(a, "files", 0);
    each_entry(a, "images", check_stray);
    each_entry(a, "snapshots", check_snapshot);
    snprintf(path, sizeof path, "%s/ballast", a->folder);
    if (access(path, F_OK) != 0) {
        tell(a, false, "ballast", "there is no ballast file: the disk is, or was, full");
    }
    if (a->c.code) {
        tell(a, true, "database", a->c.text);
    }
}

dn_status store_audit_folder(const char *folder, store_audit *out, dn_error *error)
{
    audit a = {.out = out, .folder = folder};
    char path[4096];
    struct stat info;
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    if (stat(path, &info) != 0) {
        return dn_fail(error, DN_INVALID, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode) || info.st_size == 0) {
        return dn_fail(error, DN_INVALID, "%s is %s: restore a backup", path, info.st_size ? "not a file" : "empty");
    }
    dn_status status = sql_open_checker(&a.c, path, error);
    if (status == DN_OK) {
        sql_text(&a.c, "PRAGMA automatic_index=OFF"); /* it would be told of in the log */
        status = check_owner(&a, path, error);
    }
    if (status == DN_OK) {
        check_database(&a);
    }
    if (status == DN_OK && !out->damages) {
        check_files(&a);
    }
    sql_close(&a.c);
    return status;
}
