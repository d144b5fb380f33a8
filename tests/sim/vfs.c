/* SQLite's file layer on the simulated files: locks and the shared index of the log as between processes, sleep on the simulated clock.
 *
 * Invariant: a file's locks and shared memory live as long as the process that has it open; sim_vfs_forget is that process's end. A thread
 * may lose its turn in every write and sync, which SQLite calls without any lock of its own. */
#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum { REGIONS_MAX = 64, OPEN_MAX = 64 };

typedef struct vfs_file {
    sqlite3_file base;
    sim_file *file;
    int level; /* of xLock */
    uint16_t shm_shared, shm_exclusive; /* slots that this handle holds */
    bool remove_at_close;
    char path[64];
} vfs_file;

static vfs_file *opened[OPEN_MAX];
static void *regions[REGIONS_MAX]; /* of the one database there is */
static int region_bytes;

void sim_vfs_forget(void)
{
    for (int i = 0; i < REGIONS_MAX; i++) {
        free(regions[i]);
        regions[i] = NULL;
    }
    memset(opened, 0, sizeof opened);
}

static int result_of(int code, int otherwise)
{
    return !code ? SQLITE_OK : code == ENOSPC ? SQLITE_FULL : otherwise;
}

static int vfs_close(sqlite3_file *base)
{
    vfs_file *f = (vfs_file *)base;
    for (int i = 0; i < OPEN_MAX; i++)
        if (opened[i] == f)
            opened[i] = NULL;
    if (f->remove_at_close)
        sim_file_remove(f->path, false);
    return SQLITE_OK;
}

static int vfs_read(sqlite3_file *base, void *out, int count, sqlite3_int64 offset)
{
    const sim_file *file = ((vfs_file *)base)->file;
    const size_t size = sim_file_size(file), from = (size_t)offset;
    const size_t there = from >= size ? 0 : size - from < (size_t)count ? size - from : (size_t)count;
    if (there)
        memcpy(out, sim_file_bytes(file) + from, there);
    memset((char *)out + there, 0, (size_t)count - there);
    return there == (size_t)count ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int vfs_write(sqlite3_file *base, const void *bytes, int count, sqlite3_int64 offset)
{
    return result_of(sim_file_write(((vfs_file *)base)->file, bytes, (size_t)count, (uint64_t)offset), SQLITE_IOERR_WRITE);
}

static int vfs_truncate(sqlite3_file *base, sqlite3_int64 size)
{
    return result_of(sim_file_truncate(((vfs_file *)base)->file, (uint64_t)size), SQLITE_IOERR_TRUNCATE);
}

static int vfs_sync(sqlite3_file *base, int flags)
{
    (void)flags;
    return result_of(sim_file_sync(((vfs_file *)base)->file), SQLITE_IOERR_FSYNC);
}

static int vfs_size(sqlite3_file *base, sqlite3_int64 *size)
{
    *size = (sqlite3_int64)sim_file_size(((vfs_file *)base)->file);
    return SQLITE_OK;
}

/* ---- Locks of the database file: SHARED by many, RESERVED by one, EXCLUSIVE by one alone */
static int vfs_lock(sqlite3_file *base, int level)
{
    vfs_file *f = (vfs_file *)base;
    for (int i = 0; i < OPEN_MAX; i++) {
        const vfs_file *other = opened[i];
        if (!other || other == f || other->file != f->file)
            continue;
        const bool clash = level == SQLITE_LOCK_SHARED      ? other->level >= SQLITE_LOCK_PENDING
                           : level == SQLITE_LOCK_EXCLUSIVE ? other->level >= SQLITE_LOCK_SHARED
                                                            : other->level >= SQLITE_LOCK_RESERVED;
        if (clash)
            return SQLITE_BUSY;
    }
    f->level = level > f->level ? level : f->level;
    return SQLITE_OK;
}

static int vfs_unlock(sqlite3_file *base, int level)
{
    vfs_file *f = (vfs_file *)base;
    f->level = level < f->level ? level : f->level;
    return SQLITE_OK;
}

static int vfs_reserved(sqlite3_file *base, int *held)
{
    const vfs_file *f = (vfs_file *)base;
    *held = 0;
    for (int i = 0; i < OPEN_MAX; i++)
        *held |= opened[i] && opened[i]->file == f->file && opened[i]->level >= SQLITE_LOCK_RESERVED;
    return SQLITE_OK;
}

/* ---- The index of the write-ahead log, shared by all connections */
static int vfs_shm_map(sqlite3_file *base, int region, int size, int extend, void volatile **out)
{
    (void)base;
    region_bytes = size;
    *out = NULL;
    if (region >= REGIONS_MAX)
        return SQLITE_IOERR_SHMMAP;
    if (!regions[region] && extend)
        regions[region] = calloc(1, (size_t)size);
    if (!regions[region] && extend)
        return SQLITE_NOMEM;
    *out = regions[region];
    return SQLITE_OK;
}

static int vfs_shm_lock(sqlite3_file *base, int offset, int count, int flags)
{
    vfs_file *f = (vfs_file *)base;
    const uint16_t mask = (uint16_t)(((1u << count) - 1) << offset);
    if (flags & SQLITE_SHM_UNLOCK) {
        f->shm_shared &= (uint16_t)~mask;
        f->shm_exclusive &= (uint16_t)~mask;
        return SQLITE_OK;
    }
    for (int i = 0; i < OPEN_MAX; i++) {
        const vfs_file *other = opened[i];
        if (!other || other == f || other->file != f->file)
            continue;
        if ((other->shm_exclusive & mask) || ((flags & SQLITE_SHM_EXCLUSIVE) && (other->shm_shared & mask)))
            return SQLITE_BUSY;
    }
    if (flags & SQLITE_SHM_EXCLUSIVE)
        f->shm_exclusive |= mask;
    else
        f->shm_shared |= mask;
    return SQLITE_OK;
}

static void vfs_shm_barrier(sqlite3_file *base)
{
    (void)base;
}

static int vfs_shm_unmap(sqlite3_file *base, int delete_it)
{
    vfs_file *f = (vfs_file *)base;
    f->shm_shared = f->shm_exclusive = 0;
    (void)delete_it; /* sim_vfs_forget, at the end of the process */
    return SQLITE_OK;
}

static int vfs_control(sqlite3_file *base, int op, void *argument)
{
    (void)base, (void)op, (void)argument;
    return SQLITE_NOTFOUND;
}

static int vfs_sector(sqlite3_file *base)
{
    (void)base;
    return 4096;
}

static int vfs_device(sqlite3_file *base)
{
    (void)base;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* as the library's own layer says of any disk */
}

static const sqlite3_io_methods methods = {.iVersion = 2,
                                           .xClose = vfs_close,
                                           .xRead = vfs_read,
                                           .xWrite = vfs_write,
                                           .xTruncate = vfs_truncate,
                                           .xSync = vfs_sync,
                                           .xFileSize = vfs_size,
                                           .xLock = vfs_lock,
                                           .xUnlock = vfs_unlock,
                                           .xCheckReservedLock = vfs_reserved,
                                           .xFileControl = vfs_control,
                                           .xSectorSize = vfs_sector,
                                           .xDeviceCharacteristics = vfs_device,
                                           .xShmMap = vfs_shm_map,
                                           .xShmLock = vfs_shm_lock,
                                           .xShmBarrier = vfs_shm_barrier,
                                           .xShmUnmap = vfs_shm_unmap};

/* ---- The layer itself */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out_flags)
{
    static unsigned temporary;
    (void)vfs;
    vfs_file *f = (vfs_file *)base;
    *f = (vfs_file){0};
    if (name)
        snprintf(f->path, sizeof f->path, "%s", name);
    else
        snprintf(f->path, sizeof f->path, "data/sqlite-%u", ++temporary);
    f->file = sim_file_find(f->path);
    if (!f->file && !(flags & SQLITE_OPEN_CREATE))
        return SQLITE_CANTOPEN;
    if (!f->file)
        f->file = sim_file_make(f->path);
    f->remove_at_close = flags & SQLITE_OPEN_DELETEONCLOSE;
    int slot = 0;
    while (slot < OPEN_MAX && opened[slot])
        slot++;
    if (slot == OPEN_MAX)
        return SQLITE_CANTOPEN;
    opened[slot] = f;
    base->pMethods = &methods;
    if (out_flags)
        *out_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int synced)
{
    (void)vfs;
    if (!sim_file_find(name))
        return SQLITE_IOERR_DELETE_NOENT;
    sim_file_remove(name, synced);
    return SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
    (void)vfs, (void)flags;
    const sim_file *file = sim_file_find(name);
    *out = file && (flags != SQLITE_ACCESS_EXISTS || sim_file_size(file) > 0);
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int room, char *out)
{
    (void)vfs;
    snprintf(out, (size_t)room, "%s", name);
    return SQLITE_OK;
}

static int vfs_randomness(sqlite3_vfs *vfs, int count, char *out)
{
    (void)vfs;
    for (int i = 0; i < count; i++)
        out[i] = (char)sim_random();
    return count;
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    sim_sleep(1e-6 * microseconds);
    return microseconds;
}

static int vfs_time(sqlite3_vfs *vfs, sqlite3_int64 *out)
{
    (void)vfs;
    *out = 210866760000000 + sim_wall_ms(); /* milliseconds of the Julian day's count */
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int count, char *out)
{
    (void)vfs, (void)count, (void)out;
    return 0;
}

void sim_vfs_register(void)
{
    static sqlite3_vfs vfs = {.iVersion = 2,
                              .szOsFile = sizeof(vfs_file),
                              .mxPathname = 160,
                              .zName = "sim",
                              .xOpen = vfs_open,
                              .xDelete = vfs_delete,
                              .xAccess = vfs_access,
                              .xFullPathname = vfs_full_path,
                              .xRandomness = vfs_randomness,
                              .xSleep = vfs_sleep,
                              .xCurrentTimeInt64 = vfs_time,
                              .xGetLastError = vfs_last_error};
    sqlite3_config(SQLITE_CONFIG_SINGLETHREAD); /* its own locks would see one thread and let every coroutine in */
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    sqlite3_initialize();
    sqlite3_vfs_register(&vfs, 1);
}
