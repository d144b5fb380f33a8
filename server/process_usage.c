/* /proc/PID/stat, and for this process its descriptors (process_usage.h). */
#include "server/process_usage.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Seconds since 1970 at which the machine was started; 0: not known. */
static double boot_seconds(void)
{
    char line[256];
    unsigned long long seconds = 0;
    FILE *f = fopen("/proc/stat", "re");
    while (f && !seconds && fgets(line, sizeof line, f))
        if (sscanf(line, "btime %llu", &seconds) != 1)
            seconds = 0;
    if (f)
        fclose(f);
    return (double)seconds;
}

static unsigned open_fds(void)
{
    unsigned count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count > 3 ? count - 3 : 0; /* without ".", ".." and the folder itself */
}

bool process_usage_read(process_usage *out, pid_t pid)
{
    char path[64] = "/proc/self/stat", text[1024];
    *out = (process_usage){0};
    if (pid)
        snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    const size_t count = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[count] = 0;
    const char *rest = strrchr(text, ')'); /* the name before it may have blanks and brackets */
    unsigned long long user, system, start, virtual_bytes;
    long threads, pages;
    if (!rest || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %ld %*d %llu %llu %ld", &user,
                        &system, &threads, &start, &virtual_bytes, &pages) != 6)
        return false;
    const double ticks = (double)sysconf(_SC_CLK_TCK);
    out->resident_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
    out->virtual_bytes = virtual_bytes;
    out->cpu_seconds = (double)(user + system) / ticks;
    out->start_seconds = boot_seconds() + (double)start / ticks;
    out->threads = (unsigned)threads;
    struct rlimit limit;
    if (!pid) {
        out->open_fds = open_fds();
        out->max_fds = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? (unsigned)limit.rlim_cur : 0;
    }
    return true;
}
