/* Opening and closing the store: the folder, its lock, the database, what the last run left, readers and the writer thread.
 *
 * Invariant: one process at a time, by flock on denoised.lock; the descriptor is close-on-exec, so that a worker that outlives the
 * daemon does not keep it. The database file itself is never opened by anything but SQLite: closing any descriptor of it would drop
 * SQLite's own locks. Caller's thread. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/store/sqlite_store.h"

#define LOCK_PATIENCE_MS 1000
#define LOCK_PAUSE_MS 10
#define STORE_HEAP_BYTES (256ll << 20) /* all of SQLite's memory in this process */

char *store_path(const store *s, const char *folder, const char *name)
{
    size_t room = strlen(s->folder) + strlen(folder) + strlen(name) + 3;
    char *path = malloc(room);
    if (path) {
        snprintf(path, room, "%s/%s%s%s", s->folder, folder, folder[0] && name[0] ? "/" : "", name);
    }
    return path;
}

int64_t store_now(const store *s)
{
    return s->options.now_ms ? s->options.now_ms(s->options.now_payload) : dn_wall_ms();
}

bool store_stopped(const store *s)
{
    return atomic_load(&s->stopped);
}

static void log_message(void *unused, int code, const char *message)
{
    (void)unused;
    int primary = code & 0xff;
    /* Only at the start, which refuses with one line of its own; and the end of a check that nobody waits for. */
    bool told_elsewhere = primary == SQLITE_NOTADB || primary == SQLITE_INTERRUPT;
    if (primary != SQLITE_NOTICE && primary != SQLITE_SCHEMA && primary != SQLITE_CONSTRAINT && !told_elsewhere) {
        log_say(LOG_WARNING, "sqlite", "%.*s (%d)", (int)strcspn(message, "\n"), message, code);
    }
}

/* Settings of the library, for the whole process; refused harmlessly where it is in use already. */
static void configure(void)
{
    sqlite3_config(SQLITE_CONFIG_LOG, log_message, NULL);
    sqlite3_initialize();
    sqlite3_hard_heap_limit64(STORE_HEAP_BYTES);
}

/* The write-ahead log is shared memory between processes: it does not work across machines. */
static dn_status check_file_system(const char *folder, dn_error *error)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } network[] = {{0x6969, "NFS"},      {0x517b, "SMB"},        {0xff534d42, "CIFS"}, {0xfe534d42, "SMB2"}, {0x5346414f, "AFS"},
                   {0x00c36400, "Ceph"}, {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"}, {0x7461636f, "OCFS2"}};
    struct statfs fs;
    if (statfs(folder, &fs) != 0) {
        return dn_fail(error, DN_IO, "%s: %s", folder, strerror(errno));
    }
    for (size_t i = 0; i < sizeof network / sizeof network[0]; i++) {
        if ((uint32_t)fs.f_type == network[i].magic) {
            return dn_fail(error, DN_INVALID, "%s is on a network file system (%s): the database needs a local disk", folder,
                           network[i].name);
        }
    }
    return DN_OK;
}

static dn_status make_folders(const store *s, dn_error *error)
{
    static const char *const inside[] = {"", "images", "snapshots", "inputs"};
    dn_status status = DN_OK;
    for (size_t i = 0; status == DN_OK && i < sizeof inside / sizeof inside[0]; i++) {
        char *path = store_path(s, inside[i], "");
        status = path ? dn_make_folder(path, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
        free(path);
    }
    return status == DN_OK ? check_file_system(s->folder, error) : status;
}

/* A daemon that was killed while it started its worker leaves, for a moment, a child that has not come to exec and still holds all its
 * descriptors, the lock among them: its successor is patient. */
static bool lock_patiently(int fd)
{
    const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
    for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited += LOCK_PAUSE_MS) {
        if (waited >= LOCK_PATIENCE_MS) {
            return false;
        }
        nanosleep(&pause, NULL);
    }
    return true;
}

static dn_status take_lock(store *s, dn_error *error)
{
    char *path = store_path(s, "", "denoised.lock");
    if (!path) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    }
    dn_status status = DN_OK;
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) {
        status = dn_fail(error, DN_IO, "%s: %s", path, strerror(errno));
    } else if (!lock_patiently(s->lock_fd)) {
        status = dn_fail(error, DN_IO, "%s is in use by another denoised", s->folder);
    }
    free(path);
    return status;
}

/* The lock file says whether a database was ever made here: an empty one must not take the place of one that was lost. */
static dn_status check_presence(const store *s, dn_error *error)
{
    struct stat lock, database;
    bool had = fstat(s->lock_fd, &lock) == 0 && lock.st_size > 0;
    bool there = stat(s->database, &database) == 0, has = there && database.st_size > 0;
    if (there && !S_ISREG(database.st_mode)) {
        return dn_fail(error, DN_INVALID, "%s is not a file: restore a backup, or start with another folder", s->database);
    }
    if (had && !has) {
        return dn_fail(error, DN_INVALID,
                       "%s is missing or empty although this folder had one: restore a backup, or start with another folder", s->database);
    }
    return DN_OK;
}

static void mark_presence(const store *s)
{
    if (pwrite(s->lock_fd, STORE_PRESENCE_MARK, sizeof STORE_PRESENCE_MARK - 1, 0) > 0) {
        fsync(s->lock_fd);
    }
}

/* What the last run wrote and did not live to sync is read as committed now, and clients may be told of it: so it becomes durable first.
 * A sync alone would not do where an earlier one has failed, for the system takes what it could not write for written; the checkpoint
 * writes it anew. On a full disk it gets no further than the sync of the log, which is what most cases need. */
static dn_status make_durable(store *s, dn_error *error)
{
    sql *c = &s->writer;
    if (!sql_text(c, "PRAGMA wal_checkpoint(PASSIVE)") && (c->code & 0xff) != SQLITE_FULL) {
        return dn_fail(error, DN_IO, "%s: what the last run wrote cannot be made durable: %s", s->database, c->text);
    }
    sql_clear(c);
    return DN_OK;
}

static dn_status open_database(store *s, dn_error *error)
{
    dn_status status = sql_open(&s->writer, s->database, true, error);
    if (status != DN_OK) {
        return status;
    }
    if (s->options.db_bytes_max) {
        char text[64];
        uint64_t pages = s->options.db_bytes_max / STORE_PAGE_BYTES;
        snprintf(text, sizeof text, "PRAGMA max_page_count=%llu", (unsigned long long)(pages < INT32_MAX ? pages : INT32_MAX));
        sql_text(&s->writer, text);
    }
    status = store_migrate(s, error);
    if (status == DN_OK) {
        status = sql_prepare_all(&s->writer, s->database, error);
    }
    if (status == DN_OK) {
        mark_presence(s);
        fault_point("boot_marked");
        status = make_durable(s, error);
    }
    if (status == DN_OK) {
        status = store_recover(s, error);
    }
    for (size_t i = 0; status == DN_OK && i < STORE_READERS; i++) {
        status = sql_open(&s->readers[i].connection, s->database, false, error);
    }
    return status;
}

static dn_status name_boot(store *s, dn_error *error)
{
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) {
        return dn_fail(error, DN_IO, "no random numbers: %s", strerror(errno));
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        snprintf(s->boot + 2 * i, 3, "%02x", bytes[i]);
    }
    return DN_OK;
}

static store *create(const store_options *options)
{
    store *s = calloc(1, sizeof *s);
    if (!s) {
        return NULL;
    }
    s->lock_fd = -1;
    s->options = *options;
    s->folder = strdup(options->folder);
    s->base_path = strdup(options->base_path ? options->base_path : "");
    s->database = s->folder ? store_path(s, "", "denoised.db") : NULL;
    s->options.folder = s->folder;
    s->options.base_path = s->base_path;
    pthread_mutex_init(&s->queue_mutex, NULL);
    pthread_cond_init(&s->queue_filled, NULL);
    pthread_mutex_init(&s->readers_mutex, NULL);
    pthread_cond_init(&s->reader_free, NULL);
    store_keeper_init(s);
    if (!s->folder || !s->base_path || !s->database) {
        store_close(s);
        return NULL;
    }
    return s;
}

dn_status store_open(store **out, const store_options *options, dn_error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, configure);
    store *s = create(options);
    dn_status status = s ? name_boot(s, error) : dn_fail(error, DN_NO_MEMORY, "out of memory");
    if (status == DN_OK) {
        status = make_folders(s, error);
    }
    if (status == DN_OK) {
        status = take_lock(s, error);
    }
    if (status == DN_OK) {
        fault_point("boot_locked");
        status = check_presence(s, error);
    }
    if (status == DN_OK) {
        status = open_database(s, error);
    }
    if (status == DN_OK) {
        store_space_keep(s);
        status = store_writer_start(s, error);
    }
    if (status == DN_OK) {
        store_keeper_recovered(s);
    }
    if (status != DN_OK) {
        store_close(s);
        return status;
    }
    *out = s;
    return DN_OK;
}

void store_close(store *s)
{
    if (!s) {
        return;
    }
    store_writer_stop(s);
    store_keeper_stop(s);
    for (size_t i = 0; i < STORE_READERS; i++) {
        sql_close(&s->readers[i].connection);
    }
    sql_close(&s->writer);
    if (s->lock_fd >= 0) {
        close(s->lock_fd);
    }
    pthread_mutex_destroy(&s->queue_mutex);
    pthread_cond_destroy(&s->queue_filled);
    pthread_mutex_destroy(&s->readers_mutex);
    pthread_cond_destroy(&s->reader_free);
    free(s->database);
    free(s->base_path);
    free(s->folder);
    free(s);
}
