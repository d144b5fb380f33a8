/* The system calls of the program, on simulated files, sockets, events and worker processes. Real descriptors pass through.
 *
 * Each does what its manual page says as far as the program can tell; what it may do at its worst (a short send, a full socket) it does by
 * chance. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "tests/sim/sim.h"
#include "tests/sim/wrapped.h"

enum { FDS_MAX = 128 };

static sim_fd fds[FDS_MAX];

void sim_fds_reset(void)
{
    for (int i = 0; i < FDS_MAX; i++) {
        free(fds[i].in);
        fds[i] = (sim_fd){0};
    }
}

sim_fd *sim_fd_at(int fd)
{
    const int i = fd - SIM_FD_BASE;
    return i >= 0 && i < FDS_MAX && fds[i].kind != FD_FREE ? &fds[i] : NULL;
}

int sim_fd_open(sim_kind kind)
{
    for (int i = 0; i < FDS_MAX; i++)
        if (fds[i].kind == FD_FREE) {
            fds[i] = (sim_fd){.kind = kind, .peer = -1};
            return SIM_FD_BASE + i;
        }
    errno = EMFILE;
    return -1;
}

int sim_fd_close(int fd)
{
    sim_fd *f = sim_fd_at(fd);
    if (!f) {
        errno = EBADF;
        return -1;
    }
    sim_fd *peer = f->kind == FD_SOCKET ? sim_fd_at(f->peer) : NULL;
    if (peer && peer->peer == fd)
        peer->peer = -1;
    free(f->in);
    *f = (sim_fd){0};
    return 0;
}

/* ---- Files */

static int fail(int code)
{
    errno = code;
    return -1;
}

static bool is_folder(const char *path)
{
    return strchr(path, '.') == NULL && !strstr(path, "ballast");
}

static int open_path(const char *path, int flags)
{
    const int fd = sim_fd_open(is_folder(path) ? FD_FOLDER : FD_FILE);
    sim_fd *f = sim_fd_at(fd);
    if (!f)
        return -1;
    size_t length = strlen(path);
    while (length > 1 && (path[length - 1] == '/' || (path[length - 1] == '.' && path[length - 2] == '/')))
        length--;
    snprintf(f->path, sizeof f->path, "%.*s", (int)length, path);
    if (f->kind == FD_FOLDER)
        return fd;
    f->file = sim_file_find(path);
    if ((!f->file && !(flags & O_CREAT)) || (f->file && (flags & O_EXCL))) {
        sim_fd_close(fd);
        return fail(f->file ? EEXIST : ENOENT);
    }
    if (!f->file)
        f->file = sim_file_make(path);
    if (flags & O_TRUNC)
        sim_file_truncate(f->file, 0);
    return fd;
}

static void join(char out[160], int folder, const char *name)
{
    const sim_fd *f = sim_fd_at(folder);
    if (name[0] == '.' && !name[1])
        snprintf(out, 160, "%s", f ? f->path : "");
    else
        snprintf(out, 160, "%s/%s", f ? f->path : "", name);
}

int __wrap_open(const char *path, int flags, ...)
{
    return open_path(path, flags);
}

int __wrap_openat(int folder, const char *name, int flags, ...)
{
    char path[160];
    join(path, folder, name);
    return open_path(path, flags);
}

int __wrap_close(int fd)
{
    return fd < SIM_FD_BASE ? __real_close(fd) : sim_fd_close(fd);
}

ssize_t __wrap_read(int fd, void *out, size_t count)
{
    sim_fd *f = sim_fd_at(fd);
    if (!f)
        return __real_read(fd, out, count);
    const size_t size = sim_file_size(f->file), left = f->offset < size ? size - (size_t)f->offset : 0;
    const size_t got = left < count ? left : count;
    if (got)
        memcpy(out, sim_file_bytes(f->file) + f->offset, got);
    f->offset += got;
    return (ssize_t)got;
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    const int code = sim_file_write(sim_fd_at(fd)->file, bytes, count, (uint64_t)offset);
    return code ? fail(code) : (ssize_t)count;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t count)
{
    sim_fd *f = sim_fd_at(fd);
    if (!f)
        return __real_write(fd, bytes, count);
    const int code = sim_file_write(f->file, bytes, count, f->offset);
    if (code) {
        sim_count_one(COUNT_FILE_ERRORS);
        return fail(code);
    }
    f->offset += count;
    return (ssize_t)count;
}

int __wrap_fsync(int fd)
{
    const sim_fd *f = sim_fd_at(fd);
    const int code = f->kind == FD_FOLDER ? sim_folder_sync(f->path) : sim_file_sync_bytes(f->file);
    if (code)
        sim_count_one(COUNT_FILE_ERRORS);
    return code ? fail(code) : 0;
}

static int tell(struct stat *out, const sim_file *file)
{
    *out = (struct stat){.st_mode = (file ? S_IFREG : S_IFDIR) | 0700, .st_size = file ? (off_t)sim_file_size(file) : 0};
    return 0;
}

int __wrap_fstat(int fd, struct stat *out)
{
    const sim_fd *f = sim_fd_at(fd);
    return f ? tell(out, f->file) : __real_fstat(fd, out);
}

int __wrap_stat(const char *path, struct stat *out)
{
    const sim_file *file = sim_file_find(path);
    if (!file && !is_folder(path))
        return fail(ENOENT);
    return tell(out, file);
}

int __wrap_statfs(const char *path, struct statfs *out)
{
    (void)path;
    *out = (struct statfs){.f_type = 0xef53};
    return 0;
}

int __wrap_statvfs(const char *path, struct statvfs *out)
{
    (void)path;
    *out = (struct statvfs){.f_frsize = 1, .f_bavail = sim_disk_free()};
    return 0;
}

int __wrap_flock(int fd, int operation)
{
    (void)fd, (void)operation;
    return 0; /* one daemon at a time is this world's rule */
}

int __wrap_posix_fallocate(int fd, off_t offset, off_t bytes)
{
    (void)offset;
    return sim_file_reserve(sim_fd_at(fd)->file, (uint64_t)bytes);
}

int __wrap_unlink(const char *path)
{
    sim_maybe_yield(20);
    if (!sim_file_find(path))
        return fail(ENOENT);
    sim_file_remove(path, false);
    return 0;
}

int __wrap_unlinkat(int folder, const char *name, int flags)
{
    (void)flags;
    char path[160];
    join(path, folder, name);
    if (strncmp(path, "data/images/", 12) == 0)
        sim_count_one(COUNT_LITTER_SWEPT);
    return __wrap_unlink(path);
}

int __wrap_rename(const char *from, const char *to)
{
    sim_maybe_yield(50);
    return sim_file_rename(from, to) ? 0 : fail(ENOENT);
}

int __wrap_renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    char one[160], other[160];
    join(one, from_folder, from);
    join(other, to_folder, to);
    return __wrap_rename(one, other);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    (void)path, (void)mode;
    return fail(EEXIST); /* every folder is there: what a name ends in tells what it is */
}

/* ---- Listings: the names as of the moment of opening */
typedef struct listing {
    int fd;
    size_t count, next;
    struct dirent entries[];
} listing;

typedef struct collected {
    size_t count;
    listing *into;
} collected;

static void collect(const char *name, sim_file *file, void *payload)
{
    (void)file;
    collected *c = payload;
    if (c->into)
        snprintf(c->into->entries[c->count].d_name, sizeof c->into->entries[0].d_name, "%s", name);
    c->count++;
}

DIR *__wrap_fdopendir(int fd)
{
    collected names = {0};
    sim_folder_each(sim_fd_at(fd)->path, collect, &names);
    listing *out = calloc(1, sizeof *out + (names.count + 1) * sizeof out->entries[0]);
    if (!out)
        return NULL;
    out->fd = fd;
    out->count = names.count;
    names = (collected){.into = out};
    sim_folder_each(sim_fd_at(fd)->path, collect, &names);
    return (DIR *)out;
}

DIR *__wrap_opendir(const char *path)
{
    const int fd = open_path(path, O_RDONLY);
    return fd < 0 ? NULL : __wrap_fdopendir(fd);
}

struct dirent *__wrap_readdir(DIR *listing_)
{
    listing *l = (listing *)listing_;
    return l->next < l->count ? &l->entries[l->next++] : NULL;
}

int __wrap_dirfd(DIR *listing_)
{
    return ((listing *)listing_)->fd;
}

int __wrap_closedir(DIR *listing_)
{
    sim_fd_close(((listing *)listing_)->fd);
    free(listing_);
    return 0;
}
