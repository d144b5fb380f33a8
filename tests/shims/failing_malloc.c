/* A library to be loaded before the daemon (LD_PRELOAD): lets chosen allocations of its process fail.
 *
 * The file named by FAILING_MALLOC is shared with the test: it arms the count, says from which call to which calls fail, and reads how
 * many there were and who asked first for what it did not get. Only `denoised serve` obeys; its worker inherits the library and
 * leaves it alone. Any thread. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct failing_control {
    atomic_long armed; /* set by the test */
    atomic_long from, to; /* calls that fail, from 1, both included */
    atomic_long calls, failed; /* since the test set them to 0 */
    _Atomic uintptr_t who; /* asked for the first one that failed: an address, less that of the program */
} failing_control;

static failing_control *control;
static uintptr_t program;

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void failing_malloc_begin(void);

static int is_daemon(void)
{
    char line[4096];
    const int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd >= 0 ? read(fd, line, sizeof line - 1) : 0;
    if (fd >= 0)
        close(fd);
    line[got > 0 ? got : 0] = 0;
    const size_t first = strlen(line) + 1;
    return (ssize_t)first < got && strcmp(line + first, "serve") == 0;
}

/* Where the program lies: the first address of its map. */
static uintptr_t program_start(void)
{
    char line[32] = "";
    const int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd >= 0 ? read(fd, line, sizeof line - 1) : 0;
    if (fd >= 0)
        close(fd);
    return got > 0 ? (uintptr_t)strtoull(line, NULL, 16) : 0;
}

__attribute__((constructor)) void failing_malloc_begin(void)
{
    const char *path = getenv("FAILING_MALLOC");
    const int fd = path && is_daemon() ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    program = program_start();
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED)
        control = shared;
}

static int fails(void *who)
{
    if (!control || !atomic_load(&control->armed))
        return 0;
    const long call = atomic_fetch_add(&control->calls, 1) + 1;
    if (call < atomic_load(&control->from) || call > atomic_load(&control->to))
        return 0;
    if (atomic_fetch_add(&control->failed, 1) == 0)
        atomic_store(&control->who, (uintptr_t)who - program);
    return 1;
}

void *malloc(size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(old, bytes);
}
