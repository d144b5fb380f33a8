/* Room on the disk: a gate that refuses new jobs before it is full, and a ballast file that lets running ones end when it is.
 *
 * On a full disk SQLite can neither delete nor checkpoint; a few megabytes given back make the same connection write again. The
 * gate is measured at most a few times a second. Any thread; the ballast comes back on the writer thread alone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "server/fault.h"
#include "server/store/sqlite_store.h"

#define SPACE_CHECK_MS 200

static uint64_t free_bytes(const store *s)
{
    struct statvfs fs;
    if (statvfs(s->folder, &fs) != 0) {
        return UINT64_MAX; /* the gate is a courtesy: without a figure the write itself decides */
    }
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

static uint64_t file_bytes(const store *s, const char *name)
{
    struct stat info;
    char *path = store_path(s, "", name);
    const bool found = path && stat(path, &info) == 0;
    free(path);
    return found ? (uint64_t)info.st_size : 0;
}

void store_get_disk(const store *s, store_disk *out)
{
    const uint64_t room = free_bytes(s);
    *out = (store_disk){.database_bytes = file_bytes(s, "denoised.db"),
                        .wal_bytes = file_bytes(s, "denoised.db-wal"),
                        .free_bytes = room == UINT64_MAX ? 0 : room};
}

bool store_space_low(store *s)
{
    int64_t now = (int64_t)(dn_now_seconds() * 1000) + 1;
    int64_t checked = atomic_load(&s->space_checked_ms);
    if ((!checked || now - checked >= SPACE_CHECK_MS) && atomic_compare_exchange_strong(&s->space_checked_ms, &checked, now)) {
        atomic_store(&s->space_low, free_bytes(s) < s->options.space_min_bytes);
    }
    return atomic_load(&s->space_low);
}

bool store_release_ballast(store *s)
{
    char *path = store_path(s, "", "ballast");
    bool given = path && unlink(path) == 0;
    free(path);
    atomic_store(&s->space_checked_ms, 0);
    return given;
}

/* Under another name until it is whole: a daemon that is killed here must not leave a file without length in the ballast's place. */
static void make_ballast(const char *path, const char *unfinished)
{
    int fd = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    fault_point("ballast_begun");
    bool whole = fd >= 0 && posix_fallocate(fd, 0, STORE_BALLAST_BYTES) == 0;
    if (fd >= 0) {
        close(fd);
    }
    if (!whole || rename(unfinished, path) != 0) {
        unlink(unfinished);
    }
}

void store_space_keep(store *s)
{
    char *path = store_path(s, "", "ballast"), *unfinished = store_path(s, "", "ballast.tmp");
    struct stat info;
    bool there = !path || !unfinished || (stat(path, &info) == 0 && info.st_size >= STORE_BALLAST_BYTES);
    if (!there) {
        unlink(unfinished);
    }
    /* Twice its size must be free, so that a nearly full disk does not trade ballast to and fro. */
    if (!there && free_bytes(s) / 2 >= s->options.space_min_bytes / 2 + STORE_BALLAST_BYTES) {
        make_ballast(path, unfinished);
    }
    free(path);
    free(unfinished);
}
