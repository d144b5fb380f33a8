/* A disk in between: this program's own open, write, fsync, rename and so on take the place of the C library's, SQLite's calls included,
 * for every file below one folder. Each operation can be made to fail, and can be written down for disk_model.h, which says what a power
 * cut after any of them would leave.
 *
 * Include it first in a program of its own (it defines the functions), after #undef _FORTIFY_SOURCE. One mutex guards it all; any thread. */
#ifndef DN_TESTS_DISK_SHIM_H
#define DN_TESTS_DISK_SHIM_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DISK_FDS = 1024, DISK_PATH_BYTES = 200 };

typedef enum disk_kind {
    DISK_OPEN, /* of an existing file, or a folder: nothing is recorded */
    DISK_CREATE,
    DISK_WRITE,
    DISK_TRUNCATE,
    DISK_ALLOCATE,
    DISK_SYNC,
    DISK_SYNC_FOLDER,
    DISK_RENAME,
    DISK_UNLINK,
    DISK_MKDIR,
    DISK_KINDS,
    DISK_SYNC_FAILED = DISK_KINDS, /* recorded only */
    DISK_SYNC_FOLDER_FAILED
} disk_kind;

static const char *const disk_kind_names[DISK_KINDS] = {"open", "create",      "write",  "truncate", "allocate",
                                                        "sync", "folder-sync", "rename", "unlink",   "mkdir"};

typedef struct disk_entry {
    disk_kind kind;
    int node; /* of the file; of what a rename moves */
    char path[DISK_PATH_BYTES], to[DISK_PATH_BYTES]; /* from the root on */
    off_t offset; /* of a write; size of a truncate */
    unsigned char *bytes;
    size_t count;
} disk_entry;

static struct {
    pthread_mutex_t mutex;
    char root[DISK_PATH_BYTES]; /* "": nothing is watched */
    char open_path[DISK_FDS][DISK_PATH_BYTES]; /* absolute; "": not ours */
    int open_node[DISK_FDS];
    int nodes;
    /* recording */
    bool recording;
    disk_entry *entries;
    size_t count, room;
    /* names that exist: path -> node */
    struct disk_name {
        char path[DISK_PATH_BYTES];
        int node;
    } names[512];
    size_t name_count;
    /* failing */
    bool armed, sticky;
    unsigned kinds; /* bits of disk_kind that count */
    int code; /* errno */
    bool partial; /* a write puts half of its bytes first */
    long passed, fail_at, hits;
    disk_kind hit_kind;
    char hit_path[DISK_PATH_BYTES];
} disk = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/* ---- For the test */
static inline void disk_watch(const char *root)
{
    pthread_mutex_lock(&disk.mutex);
    snprintf(disk.root, sizeof disk.root, "%s", root);
    memset(disk.open_path, 0, sizeof disk.open_path);
    disk.name_count = 0;
    pthread_mutex_unlock(&disk.mutex);
}

/* The fail_at-th operation of these kinds from now on fails with code, and with `sticky` all after it. */
static inline void disk_fail(unsigned kinds, int code, long fail_at, bool sticky, bool partial)
{
    pthread_mutex_lock(&disk.mutex);
    disk.armed = fail_at > 0;
    disk.kinds = kinds;
    disk.code = code;
    disk.fail_at = fail_at;
    disk.sticky = sticky;
    disk.partial = partial;
    disk.passed = disk.hits = 0;
    disk.hit_path[0] = 0;
    pthread_mutex_unlock(&disk.mutex);
}

static inline void disk_record(bool on)
{
    pthread_mutex_lock(&disk.mutex);
    if (on) {
        for (size_t i = 0; i < disk.count; i++) {
            free(disk.entries[i].bytes);
        }
        disk.count = 0;
    }
    disk.recording = on;
    pthread_mutex_unlock(&disk.mutex);
}

static inline size_t disk_recorded(void)
{
    pthread_mutex_lock(&disk.mutex);
    size_t count = disk.count;
    pthread_mutex_unlock(&disk.mutex);
    return count;
}

/* ---- Under the mutex */
static bool disk_ours(const char *path)
{
    size_t length = strlen(disk.root);
    return length && strncmp(path, disk.root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static const char *disk_inside(const char *path)
{
    const char *rest = path + strlen(disk.root);
    return *rest == '/' ? rest + 1 : rest;
}

/* The absolute path of a name at a folder's descriptor; false: not ours. */
static bool disk_locate(char out[DISK_PATH_BYTES], int folder, const char *path)
{
    int wanted;
    if (path[0] == '/') {
        wanted = snprintf(out, DISK_PATH_BYTES, "%s", path);
    } else {
        bool known = folder >= 0 && folder < DISK_FDS && disk.open_path[folder][0];
        wanted = known ? snprintf(out, DISK_PATH_BYTES, "%s/%s", disk.open_path[folder], path) : 0;
    }
    return wanted > 0 && wanted < DISK_PATH_BYTES && disk_ours(out);
}

static struct disk_name *disk_name_of(const char *inside)
{
    for (size_t i = 0; i < disk.name_count; i++) {
        if (strcmp(disk.names[i].path, inside) == 0) {
            return &disk.names[i];
        }
    }
    return NULL;
}

static int disk_node_of(const char *inside, bool *fresh)
{
    struct disk_name *name = disk_name_of(inside);
    *fresh = !name;
    if (!name) {
        if (disk.name_count == sizeof disk.names / sizeof disk.names[0]) {
            abort();
        }
        name = &disk.names[disk.name_count++];
        snprintf(name->path, sizeof name->path, "%s", inside);
        name->node = disk.nodes++;
    }
    return name->node;
}

static void disk_name_drop(const char *inside)
{
    struct disk_name *name = disk_name_of(inside);
    if (name) {
        *name = disk.names[--disk.name_count];
    }
}

static void disk_note(disk_kind kind, int node, const char *path, const char *to, off_t offset, const void *bytes, size_t count)
{
    if (!disk.recording) {
        return;
    }
    if (disk.count == disk.room) {
        disk.room = disk.room ? 2 * disk.room : 1024;
        disk.entries = realloc(disk.entries, disk.room * sizeof *disk.entries);
    }
    disk_entry *entry = &disk.entries[disk.count++];
    *entry = (disk_entry){.kind = kind, .node = node, .offset = offset, .count = count};
    snprintf(entry->path, sizeof entry->path, "%s", path ? disk_inside(path) : "");
    snprintf(entry->to, sizeof entry->to, "%s", to ? disk_inside(to) : "");
    if (bytes) {
        entry->bytes = malloc(count + 1);
        memcpy(entry->bytes, bytes, count);
    }
}

/* Whether this operation is to fail; then errno is set. */
static bool disk_hits(disk_kind kind, const char *path)
{
    if (!disk.armed || !(disk.kinds & 1u << kind)) {
        return false;
    }
    disk.passed++;
    bool hit = disk.passed == disk.fail_at || (disk.sticky && disk.passed > disk.fail_at);
    if (hit && disk.hits++ == 0) {
        disk.hit_kind = kind;
        snprintf(disk.hit_path, sizeof disk.hit_path, "%s", disk_inside(path));
    }
    errno = hit ? disk.code : errno;
    return hit;
}

static const char *disk_path_of(int fd)
{
    return fd >= 0 && fd < DISK_FDS && disk.open_path[fd][0] ? disk.open_path[fd] : NULL;
}

/* ---- In place of the C library's */
static int disk_open(int folder, const char *path, int flags, unsigned mode)
{
    char full[DISK_PATH_BYTES];
    pthread_mutex_lock(&disk.mutex);
    if (!disk_locate(full, folder, path)) {
        pthread_mutex_unlock(&disk.mutex);
        return (int)syscall(SYS_openat, folder, path, flags, mode);
    }
    struct stat info;
    bool there = lstat(full, &info) == 0, fresh = false;
    bool creates = (flags & O_CREAT) && !there;
    int fd = disk_hits(creates ? DISK_CREATE : DISK_OPEN, full) ? -1 : (int)syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= DISK_FDS) {
        abort();
    }
    if (fd >= 0) {
        snprintf(disk.open_path[fd], sizeof disk.open_path[fd], "%s", full);
        disk.open_node[fd] = disk_node_of(disk_inside(full), &fresh);
        if (creates) {
            disk_note(DISK_CREATE, disk.open_node[fd], full, NULL, 0, NULL, 0);
        } else if (flags & O_TRUNC) {
            disk_note(DISK_TRUNCATE, disk.open_node[fd], full, NULL, 0, NULL, 0);
        }
    }
    pthread_mutex_unlock(&disk.mutex);
    return fd;
}

static unsigned disk_mode(int flags, va_list list)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(list, unsigned) : 0;
}

#define DISK_OPEN_WITH(FOLDER)                                                                                                             \
    va_list list;                                                                                                                          \
    va_start(list, flags);                                                                                                                 \
    unsigned mode = disk_mode(flags, list);                                                                                                \
    va_end(list);                                                                                                                          \
    return disk_open(FOLDER, path, flags, mode)

int open(const char *path, int flags, ...)
{
    DISK_OPEN_WITH(AT_FDCWD);
}

int open64(const char *path, int flags, ...)
{
    DISK_OPEN_WITH(AT_FDCWD);
}

int openat(int folder, const char *path, int flags, ...)
{
    DISK_OPEN_WITH(folder);
}

int openat64(int folder, const char *path, int flags, ...)
{
    DISK_OPEN_WITH(folder);
}

/* What a fortified call of the same becomes. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int folder, const char *path, int flags);

int __open_2(const char *path, int flags)
{
    return disk_open(AT_FDCWD, path, flags, 0);
}

int __open64_2(const char *path, int flags)
{
    return disk_open(AT_FDCWD, path, flags, 0);
}

int __openat_2(int folder, const char *path, int flags)
{
    return disk_open(folder, path, flags, 0);
}

int close(int fd)
{
    pthread_mutex_lock(&disk.mutex);
    if (fd >= 0 && fd < DISK_FDS) {
        disk.open_path[fd][0] = 0;
    }
    int result = (int)syscall(SYS_close, fd);
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

static ssize_t disk_write(int fd, const void *bytes, size_t count, off_t offset)
{
    pthread_mutex_lock(&disk.mutex);
    const char *path = disk_path_of(fd);
    if (!path) { /* a pipe may make it wait */
        pthread_mutex_unlock(&disk.mutex);
        return syscall(offset >= 0 ? SYS_pwrite64 : SYS_write, fd, bytes, count, offset);
    }
    off_t at = offset >= 0 ? offset : lseek(fd, 0, SEEK_CUR);
    bool hit = disk_hits(DISK_WRITE, path);
    size_t wanted = hit ? (disk.partial ? count / 2 : 0) : count;
    int code = errno;
    ssize_t put = !hit || wanted ? syscall(offset >= 0 ? SYS_pwrite64 : SYS_write, fd, bytes, wanted, offset) : -1;
    if (put > 0) {
        disk_note(DISK_WRITE, disk.open_node[fd], path, NULL, at, bytes, (size_t)put);
    }
    if (hit && !wanted) {
        errno = code;
    }
    pthread_mutex_unlock(&disk.mutex);
    return put;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    return disk_write(fd, bytes, count, -1);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return disk_write(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset)
{
    return disk_write(fd, bytes, count, offset);
}

static int disk_truncate(int fd, off_t size)
{
    pthread_mutex_lock(&disk.mutex);
    const char *path = disk_path_of(fd);
    int result = path && disk_hits(DISK_TRUNCATE, path) ? -1 : (int)syscall(SYS_ftruncate, fd, size);
    if (path && result == 0) {
        disk_note(DISK_TRUNCATE, disk.open_node[fd], path, NULL, size, NULL, 0);
    }
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

int ftruncate(int fd, off_t size)
{
    return disk_truncate(fd, size);
}

int ftruncate64(int fd, off_t size)
{
    return disk_truncate(fd, size);
}

/* Room is not really taken: thousands of folders have their ballast here. */
int posix_fallocate(int fd, off_t offset, off_t length)
{
    pthread_mutex_lock(&disk.mutex);
    const char *path = disk_path_of(fd);
    bool hit = path && disk_hits(DISK_ALLOCATE, path);
    int result = hit ? disk.code : syscall(SYS_ftruncate, fd, offset + length) == 0 ? 0 : errno;
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

/* The real sync is left out: these tests are about what is asked for. */
static int disk_sync(int fd)
{
    struct stat info;
    pthread_mutex_lock(&disk.mutex);
    const char *path = disk_path_of(fd);
    int result = 0;
    if (!path) {
        result = (int)syscall(SYS_fsync, fd);
    } else {
        bool folder = fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
        disk_kind kind = folder ? DISK_SYNC_FOLDER : DISK_SYNC;
        result = disk_hits(kind, path) ? -1 : 0;
        int code = errno;
        disk_note(result == 0 ? kind : folder ? DISK_SYNC_FOLDER_FAILED : DISK_SYNC_FAILED, disk.open_node[fd], path, NULL, 0, NULL, 0);
        errno = code;
    }
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

int fsync(int fd)
{
    return disk_sync(fd);
}

int fdatasync(int fd)
{
    return disk_sync(fd);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    char old[DISK_PATH_BYTES], new[DISK_PATH_BYTES];
    bool fresh;
    pthread_mutex_lock(&disk.mutex);
    bool ours = disk_locate(old, from_folder, from) && disk_locate(new, to_folder, to);
    int result = ours && disk_hits(DISK_RENAME, old) ? -1 : (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
    if (ours && result == 0) {
        int node = disk_node_of(disk_inside(old), &fresh);
        disk_name_drop(disk_inside(new));
        struct disk_name *name = disk_name_of(disk_inside(old));
        snprintf(name->path, sizeof name->path, "%s", disk_inside(new));
        disk_note(DISK_RENAME, node, old, new, 0, NULL, 0);
    }
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int folder, const char *path, int flags)
{
    char full[DISK_PATH_BYTES];
    pthread_mutex_lock(&disk.mutex);
    bool ours = disk_locate(full, folder, path);
    int result = ours && disk_hits(DISK_UNLINK, full) ? -1 : (int)syscall(SYS_unlinkat, folder, path, flags);
    if (ours && result == 0) {
        disk_name_drop(disk_inside(full));
        disk_note(DISK_UNLINK, -1, full, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode)
{
    char full[DISK_PATH_BYTES];
    pthread_mutex_lock(&disk.mutex);
    bool ours = disk_locate(full, AT_FDCWD, path);
    int result = ours && disk_hits(DISK_MKDIR, full) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (ours && result == 0) {
        disk_note(DISK_MKDIR, -1, full, NULL, 0, NULL, 0);
    }
    pthread_mutex_unlock(&disk.mutex);
    return result;
}

#endif
