/* What the fuzz entries share: a check that stays on in every build, and files in memory for parsers that take paths. */
#ifndef DN_TESTS_FUZZ_FUZZ_H
#define DN_TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                               \
    do {                                                                                 \
        if (!(condition)) {                                                              \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);      \
            abort();                                                                     \
        }                                                                                \
    } while (0)

/* A folder of links to files in memory: nothing is written to a disk but the links, once. */
#define FUZZ_FILES_MAX 8
static char fuzz_folder[64];
static char fuzz_paths[FUZZ_FILES_MAX][160]; /* of links and sub-folders, in the order they were made */
static unsigned fuzz_path_count;

static inline void fuzz_remove_folder(void)
{
    while (fuzz_path_count > 0)
        remove(fuzz_paths[--fuzz_path_count]);
    remove(fuzz_folder);
}

static inline const char *fuzz_path(const char *name)
{
    if (fuzz_folder[0] == '\0') {
        snprintf(fuzz_folder, sizeof fuzz_folder, "/tmp/denoised-fuzz-%ld", (long)getpid());
        REQUIRE(mkdir(fuzz_folder, 0700) == 0);
        atexit(fuzz_remove_folder);
    }
    REQUIRE(fuzz_path_count < FUZZ_FILES_MAX);
    char *path = fuzz_paths[fuzz_path_count++];
    snprintf(path, sizeof fuzz_paths[0], "%s/%s", fuzz_folder, name);
    return path;
}

/* A file in memory by the name `name` in the folder; its descriptor. */
static inline int fuzz_file(const char **path, const char *name)
{
    char target[64];
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    REQUIRE(fd >= 0 && fchmod(fd, 0600) == 0);
    *path = fuzz_path(name);
    snprintf(target, sizeof target, "/proc/%ld/fd/%d", (long)getpid(), fd);
    REQUIRE(symlink(target, *path) == 0);
    return fd;
}

static inline void fuzz_put(int fd, const void *bytes, size_t count)
{
    REQUIRE(ftruncate(fd, (off_t)count) == 0 && pwrite(fd, bytes, count, 0) == (ssize_t)count);
}

#endif
