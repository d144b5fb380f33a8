/* Owns a descriptor only while one call runs. Invariant: a path that dn_file_write names holds its old bytes or all of
 * the new ones at every moment. Any thread; two writers of one path in one process must not run at once. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static dn_status io_failure(dn_error *error, const char *path, const char *what)
{
    return dn_fail(error, DN_IO, "%s: %s: %s", path, what, strerror(errno));
}

dn_status dn_file_open(int *fd, unsigned long long *size_bytes, const char *path, dn_error *error)
{
    /* O_NONBLOCK: opening a FIFO for reading would otherwise wait for a writer; it means nothing to a regular file. */
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (opened < 0) {
        return io_failure(error, path, "cannot open");
    }
    struct stat info;
    if (fstat(opened, &info) != 0) {
        dn_status status = io_failure(error, path, "cannot stat");
        close(opened);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        close(opened);
        return dn_fail(error, DN_INVALID, "%s: not a regular file", path);
    }
    *fd = opened;
    *size_bytes = (unsigned long long)info.st_size;
    return DN_OK;
}

/* Reads to the end of file, whatever size it had when it was opened: /proc says 0, a growing file too little. */
static dn_status read_all(unsigned char **buffer, size_t *used, size_t capacity, int fd, const char *path, size_t limit_bytes,
                          dn_error *error)
{
    for (;;) {
        if (*used > limit_bytes) {
            return dn_fail(error, DN_INVALID, "%s: larger than %zu bytes", path, limit_bytes);
        }
        if (*used == capacity) {
            size_t grown = capacity > limit_bytes / 2 ? limit_bytes + 1 : capacity * 2;
            unsigned char *larger = realloc(*buffer, grown + 1);
            if (!larger) {
                return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
            }
            *buffer = larger;
            capacity = grown;
        }
        ssize_t got = read(fd, *buffer + *used, capacity - *used);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return io_failure(error, path, "cannot read");
        }
        if (got == 0) {
            (*buffer)[*used] = '\0';
            return DN_OK;
        }
        *used += (size_t)got;
    }
}

dn_status dn_file_read(unsigned char **out, size_t *out_bytes, const char *path, size_t limit_bytes, dn_error *error)
{
    if (limit_bytes > SIZE_MAX / 2) {
        limit_bytes = SIZE_MAX / 2;
    }
    int fd = -1;
    unsigned long long size = 0;
    dn_status status = dn_file_open(&fd, &size, path, error);
    if (status != DN_OK) {
        return status;
    }
    unsigned char *buffer = NULL;
    size_t used = 0;
    if (size > limit_bytes) {
        status = dn_fail(error, DN_INVALID, "%s: %llu bytes, more than the %zu allowed", path, size, limit_bytes);
        goto done;
    }
    size_t capacity = (size_t)size + 1;
    buffer = malloc(capacity + 1);
    if (!buffer) {
        status = dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
        goto done;
    }
    status = read_all(&buffer, &used, capacity, fd, path, limit_bytes, error);
    if (status == DN_OK) {
        *out = buffer;
        *out_bytes = used;
        buffer = NULL;
    }
done:
    free(buffer);
    close(fd);
    return status;
}

static int write_fully(int fd, const unsigned char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t put = write(fd, bytes, count);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return -1;
        }
        bytes += put;
        count -= (size_t)put;
    }
    return 0;
}

/* The folder that PATH lies in. */
static void folder_of(char folder[PATH_MAX], const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t bytes = slash ? (size_t)(slash - path) : 0;
    if (slash == path) {
        bytes = 1;
    }
    snprintf(folder, PATH_MAX, "%.*s", slash ? (int)bytes : 1, slash ? path : ".");
}

static dn_status sync_folder_of(const char *path, dn_error *error)
{
    char folder[PATH_MAX];
    folder_of(folder, path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return io_failure(error, folder, "cannot open folder");
    }
    dn_status status = fsync(fd) == 0 ? DN_OK : io_failure(error, folder, "cannot sync folder");
    close(fd);
    return status;
}

/* Failures name the file that was wanted, not the temporary one. */
static dn_status write_parts_to(const char *temporary, const char *path, const dn_file_part *parts, size_t part_count, bool durable,
                                dn_error *error)
{
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return io_failure(error, path, "cannot create");
    }
    dn_status status = DN_OK;
    for (size_t i = 0; status == DN_OK && i < part_count; i++) {
        if (write_fully(fd, parts[i].bytes, parts[i].count) != 0) {
            status = io_failure(error, path, "cannot write");
        }
    }
    if (status == DN_OK && durable && fsync(fd) != 0) {
        status = io_failure(error, path, "cannot sync");
    }
    if (close(fd) != 0 && status == DN_OK) {
        status = io_failure(error, path, "cannot close");
    }
    return status;
}

/* A rename puts a plain file in place of whatever stands there: of a device (as root, /dev/null itself), a pipe or a link too. */
static dn_status check_replaceable(const char *path, dn_error *error)
{
    struct stat info;
    if (lstat(path, &info) != 0 || S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) {
        return DN_OK; /* the rename refuses a folder by itself */
    }
    return dn_fail(error, DN_INVALID, "%s: exists and is not a plain file", path);
}

dn_status dn_file_check_target(const char *path, dn_error *error)
{
    char folder[PATH_MAX];
    dn_status status = check_replaceable(path, error);
    folder_of(folder, path);
    if (status == DN_OK && access(folder, W_OK | X_OK) != 0) {
        status = io_failure(error, path, "cannot be written");
    }
    return status;
}

dn_status dn_file_write_parts(const char *path, const dn_file_part *parts, size_t part_count, bool durable, dn_error *error)
{
    char temporary[PATH_MAX];
    int wanted = snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    if (wanted < 0 || (size_t)wanted >= sizeof temporary) {
        return dn_fail(error, DN_INVALID, "%.100s...: path too long", path);
    }
    dn_status status = check_replaceable(path, error);
    if (status != DN_OK) {
        return status;
    }
    status = write_parts_to(temporary, path, parts, part_count, durable, error);
    if (status == DN_OK && rename(temporary, path) != 0) {
        status = io_failure(error, path, "cannot rename into place");
    }
    if (status != DN_OK) {
        unlink(temporary);
        return status;
    }
    return durable ? sync_folder_of(path, error) : DN_OK;
}

dn_status dn_file_write(const char *path, const void *bytes, size_t count, bool durable, dn_error *error)
{
    dn_file_part part = {.bytes = bytes, .count = count};
    return dn_file_write_parts(path, &part, 1, durable, error);
}

static dn_status make_one_folder(const char *path, dn_error *error)
{
    if (mkdir(path, 0755) == 0) {
        return DN_OK;
    }
    struct stat info;
    if (errno == EEXIST && stat(path, &info) == 0) {
        return S_ISDIR(info.st_mode) ? DN_OK : dn_fail(error, DN_INVALID, "%s: exists and is not a folder", path);
    }
    return io_failure(error, path, "cannot make folder");
}

dn_status dn_make_folder(const char *path, dn_error *error)
{
    char prefix[PATH_MAX];
    size_t bytes = strlen(path);
    if (bytes == 0 || bytes >= sizeof prefix) {
        return dn_fail(error, DN_INVALID, "%.100s: not a usable path", path);
    }
    memcpy(prefix, path, bytes + 1);
    for (size_t i = 1; i < bytes; i++) {
        if (prefix[i] != '/') {
            continue;
        }
        prefix[i] = '\0';
        dn_status status = make_one_folder(prefix, error);
        prefix[i] = '/';
        if (status != DN_OK) {
            return status;
        }
    }
    return make_one_folder(prefix, error);
}

bool dn_path_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

static bool write_all(int fd, const unsigned char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(fd, bytes, count);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written <= 0) {
            return false;
        }
        bytes += written;
        count -= (size_t)written;
    }
    return true;
}

bool dn_file_write_at_steps(int folder_fd, const char *name, const void *bytes, size_t count, bool synced, dn_file_passed *passed)
{
    char temporary[NAME_MAX + 1];
    int wanted = snprintf(temporary, sizeof temporary, "%s.tmp", name);
    if (wanted < 0 || (size_t)wanted >= sizeof temporary) {
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = openat(folder_fd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (fd < 0) {
        return false;
    }
    bool written = write_all(fd, bytes, count);
    if (written) {
        passed(DN_FILE_WRITTEN);
    }
    if (written && synced) {
        written = fsync(fd) == 0;
        passed(DN_FILE_SYNCED);
    }
    written = close(fd) == 0 && written;
    written = written && renameat(folder_fd, temporary, folder_fd, name) == 0;
    if (!written) {
        int saved = errno;
        unlinkat(folder_fd, temporary, 0);
        errno = saved;
        return false;
    }
    passed(DN_FILE_RENAMED);
    return true;
}

static void no_matter(dn_file_step step)
{
    (void)step;
}

bool dn_file_write_at(int folder_fd, const char *name, const void *bytes, size_t count, bool synced)
{
    return dn_file_write_at_steps(folder_fd, name, bytes, count, synced, no_matter);
}
