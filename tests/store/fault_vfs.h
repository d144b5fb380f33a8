/* A file layer for SQLite that fails on demand and can lose power: writes reach the real files, but a power cut leaves only what was
 * synced. Registered as the default before the store opens; everything else is passed on.
 *
 * Invariant: PATH.durable holds PATH as of its last successful sync. One mutex guards it all; any thread. */
#ifndef DN_TESTS_FAULT_VFS_H
#define DN_TESTS_FAULT_VFS_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FAULT_NONE, FAULT_WRITE_FULL, FAULT_WRITE_ERROR, FAULT_SYNC_ERROR };

static struct {
    pthread_mutex_t mutex;
    int kind;
    long count, fail_at; /* operations of that kind since fault_arm; which of them fails */
    bool sticky; /* and all after it */
    bool keep_durable; /* syncs are recorded */
    bool lying; /* a disk that says it has synced and has not */
    sqlite3_vfs *real, vfs;
    sqlite3_io_methods methods;
} fault = {.mutex = PTHREAD_MUTEX_INITIALIZER};

typedef struct fault_file {
    sqlite3_file base;
    char path[160];
    bool kept; /* the database or its log */
    sqlite3_file *real;
} fault_file;

#define REAL(file) (((fault_file *)(file))->real)
#define PASS(file, name, ...) REAL(file)->pMethods->name(REAL(file), __VA_ARGS__)
#define PASS_ALONE(file, name) REAL(file)->pMethods->name(REAL(file))

static bool fault_hits(int write)
{
    pthread_mutex_lock(&fault.mutex);
    bool ours = fault.kind != FAULT_NONE && write == (fault.kind != FAULT_SYNC_ERROR);
    fault.count += ours;
    bool hit = ours && (fault.count == fault.fail_at || (fault.sticky && fault.count > fault.fail_at));
    pthread_mutex_unlock(&fault.mutex);
    return hit;
}

static inline void fault_arm(int kind, long fail_at, bool sticky)
{
    pthread_mutex_lock(&fault.mutex);
    fault.kind = kind;
    fault.count = 0;
    fault.fail_at = fail_at;
    fault.sticky = sticky;
    pthread_mutex_unlock(&fault.mutex);
}

static bool fault_copy(const char *from, const char *to)
{
    static unsigned char buffer[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    bool fine = in && out;
    for (size_t count; fine && (count = fread(buffer, 1, sizeof buffer, in)) > 0;) {
        fine = fwrite(buffer, 1, count, out) == count;
    }
    if (in) {
        fclose(in);
    }
    return (!out || fclose(out) == 0) && fine;
}

static int fault_close(sqlite3_file *file)
{
    return PASS_ALONE(file, xClose);
}

static int fault_read(sqlite3_file *file, void *bytes, int count, sqlite3_int64 offset)
{
    return PASS(file, xRead, bytes, count, offset);
}

static int fault_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 offset)
{
    if (fault_hits(1)) {
        if (fault.kind == FAULT_WRITE_FULL && count > 512) {
            PASS(file, xWrite, bytes, count / 2, offset); /* a short write before the error, as a full disk makes it */
        }
        return fault.kind == FAULT_WRITE_FULL ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    }
    return PASS(file, xWrite, bytes, count, offset);
}

static int fault_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    return PASS(file, xTruncate, size);
}

static int fault_sync(sqlite3_file *file, int flags)
{
    (void)flags; /* the real sync is left out: these tests are about what SQLite asks for */
    fault_file *f = (fault_file *)file;
    if (fault_hits(0)) {
        return SQLITE_IOERR_FSYNC;
    }
    pthread_mutex_lock(&fault.mutex);
    if (f->kept && fault.keep_durable && !fault.lying) {
        char durable[180];
        snprintf(durable, sizeof durable, "%s.durable", f->path);
        fault_copy(f->path, durable);
    }
    pthread_mutex_unlock(&fault.mutex);
    return SQLITE_OK;
}

static int fault_size(sqlite3_file *file, sqlite3_int64 *size)
{
    return PASS(file, xFileSize, size);
}

static int fault_lock(sqlite3_file *file, int level)
{
    return PASS(file, xLock, level);
}

static int fault_unlock(sqlite3_file *file, int level)
{
    return PASS(file, xUnlock, level);
}

static int fault_reserved(sqlite3_file *file, int *held)
{
    return PASS(file, xCheckReservedLock, held);
}

static int fault_control(sqlite3_file *file, int op, void *argument)
{
    return PASS(file, xFileControl, op, argument);
}

static int fault_sector(sqlite3_file *file)
{
    return PASS_ALONE(file, xSectorSize);
}

static int fault_device(sqlite3_file *file)
{
    return PASS_ALONE(file, xDeviceCharacteristics);
}

static int fault_map(sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
    return PASS(file, xShmMap, region, size, extend, out);
}

static int fault_shm_lock(sqlite3_file *file, int offset, int count, int flags)
{
    return PASS(file, xShmLock, offset, count, flags);
}

static void fault_barrier(sqlite3_file *file)
{
    PASS_ALONE(file, xShmBarrier);
}

static int fault_unmap(sqlite3_file *file, int delete_it)
{
    return PASS(file, xShmUnmap, delete_it);
}

static int fault_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
    (void)vfs;
    fault_file *f = (fault_file *)file;
    f->real = (sqlite3_file *)(f + 1);
    f->kept = name && (flags & (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_WAL));
    snprintf(f->path, sizeof f->path, "%s", name ? name : "");
    int rc = fault.real->xOpen(fault.real, name, f->real, flags, out_flags);
    f->base.pMethods = f->real->pMethods ? &fault.methods : NULL;
    return rc;
}

static inline void fault_register(void)
{
    fault.real = sqlite3_vfs_find(NULL);
    fault.vfs = *fault.real;
    fault.vfs.zName = "fault";
    fault.vfs.szOsFile = (int)sizeof(fault_file) + fault.real->szOsFile;
    fault.vfs.xOpen = fault_open;
    fault.vfs.pNext = NULL;
    fault.methods = (sqlite3_io_methods){.iVersion = 2,
                                         .xClose = fault_close,
                                         .xRead = fault_read,
                                         .xWrite = fault_write,
                                         .xTruncate = fault_truncate,
                                         .xSync = fault_sync,
                                         .xFileSize = fault_size,
                                         .xLock = fault_lock,
                                         .xUnlock = fault_unlock,
                                         .xCheckReservedLock = fault_reserved,
                                         .xFileControl = fault_control,
                                         .xSectorSize = fault_sector,
                                         .xDeviceCharacteristics = fault_device,
                                         .xShmMap = fault_map,
                                         .xShmLock = fault_shm_lock,
                                         .xShmBarrier = fault_barrier,
                                         .xShmUnmap = fault_unmap};
    sqlite3_vfs_register(&fault.vfs, 1);
}

/* What a power cut at this moment leaves of the database in `from`, put into `to`. */
static inline bool fault_power_cut(const char *from, const char *to)
{
    static const char *const names[] = {"denoised.db", "denoised.db-wal"};
    char source[200], target[200];
    pthread_mutex_lock(&fault.mutex);
    bool fine = true;
    for (size_t i = 0; i < 2; i++) {
        snprintf(source, sizeof source, "%s/%s.durable", from, names[i]);
        snprintf(target, sizeof target, "%s/%s", to, names[i]);
        fine = fault_copy(source, target) && fine;
    }
    pthread_mutex_unlock(&fault.mutex);
    return fine;
}

#endif
