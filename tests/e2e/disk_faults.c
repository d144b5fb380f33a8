/* A library to be loaded before a real daemon (LD_PRELOAD): its disk fails as the file named by DISK_FAULTS says, and is sound while that
 * file is not there. One line each, CALL PART NUMBER. CALL is write, sync, rename, create (with an errno), read (with the milliseconds that
 * each takes longer) or statfs (with the kind of file system to tell); PART is a part of the path. Compiled by disk_test.py; any thread. */
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* The number of the line that speaks of this call on this path; 0: none. By system calls alone: this is called inside of open. */
static int fault_of(const char *call, const char *path)
{
    const char *control = getenv("DISK_FAULTS");
    char text[1024];
    int fd = control ? (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0) : -1;
    ssize_t got = fd >= 0 ? syscall(SYS_read, fd, text, sizeof text - 1) : 0;
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
    text[got > 0 ? got : 0] = 0;
    for (char *line = text, *rest; *line; line = rest) {
        char name[16], part[256];
        int number;
        rest = strchr(line, '\n');
        rest = rest ? rest + 1 : line + strlen(line);
        if (sscanf(line, "%15s %255s %d", name, part, &number) == 3 && strcmp(name, call) == 0 && strstr(path, part)) {
            return number;
        }
    }
    return 0;
}

static int fault_at(const char *call, int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return path[0] == '/' ? fault_of(call, path) : 0;
}

static ssize_t faulty_write(int fd, const void *bytes, size_t count, off_t offset)
{
    int code = fault_at("write", fd);
    if (code) {
        errno = code;
        return -1;
    }
    return syscall(offset >= 0 ? SYS_pwrite64 : SYS_write, fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    return faulty_write(fd, bytes, count, -1);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return faulty_write(fd, bytes, count, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t offset)
{
    return faulty_write(fd, bytes, count, offset);
}

static ssize_t slow_read(int fd, void *bytes, size_t count, off_t offset)
{
    int ms = fault_at("read", fd);
    if (ms) {
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L}, NULL);
    }
    return syscall(SYS_pread64, fd, bytes, count, offset);
}

ssize_t pread(int fd, void *bytes, size_t count, off_t offset)
{
    return slow_read(fd, bytes, count, offset);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t offset)
{
    return slow_read(fd, bytes, count, offset);
}

static int faulty_sync(int fd, long call)
{
    int code = fault_at("sync", fd);
    if (code) {
        errno = code;
        return -1;
    }
    return (int)syscall(call, fd);
}

int fsync(int fd)
{
    return faulty_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return faulty_sync(fd, SYS_fdatasync);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    int code = fault_of("rename", to);
    if (code) {
        errno = code;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, 0);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    unsigned mode = flags & O_CREAT ? va_arg(list, unsigned) : 0;
    va_end(list);
    int code = flags & O_CREAT ? fault_of("create", path) : 0;
    if (code) {
        errno = code;
        return -1;
    }
    return (int)syscall(SYS_openat, folder, path, flags, mode);
}

int statfs(const char *path, struct statfs *out)
{
    int kind = fault_of("statfs", path);
    int result = (int)syscall(SYS_statfs, path, out);
    if (result == 0 && kind) {
        out->f_type = kind;
    }
    return result;
}
