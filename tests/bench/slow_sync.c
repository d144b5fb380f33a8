/* Makes every fsync and fdatasync of a process take SLOW_SYNC_US microseconds longer: a disk as slow as one likes, on any machine.
 * A shared object for LD_PRELOAD; bench_durability.py builds it. */
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int slowly(const char *name, int fd)
{
    int (*real)(int) = NULL;
    *(void **)&real = dlsym(RTLD_NEXT, name);
    const char *text = getenv("SLOW_SYNC_US");
    const int result = real(fd);
    usleep(text != NULL ? (useconds_t)strtoul(text, NULL, 10) : 0);
    return result;
}

int fsync(int fd)
{
    return slowly("fsync", fd);
}

int fdatasync(int fd)
{
    return slowly("fdatasync", fd);
}
