/* How many CPUs this process may really use: the affinity mask, cut down by the quota of its control group and of each
 * group above it (version 2, else version 1). Owns nothing. Any thread. */
#include "base/thread_pool.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"

#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP_PATH_BYTES_MAX 1024

/* Reads a small text file of the kernel. */
static bool read_line(char *out, size_t capacity, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t got = read(fd, out, capacity - 1);
    close(fd);
    if (got <= 0) {
        return false;
    }
    out[got] = '\0';
    return true;
}

/* CPUs that "quota / period" allows, rounded up, if fewer than `otherwise`. */
static unsigned cpus_of(long long quota_us, long long period_us, unsigned otherwise)
{
    if (quota_us <= 0 || period_us <= 0) {
        return otherwise;
    }
    long long cpus = (quota_us + period_us - 1) / period_us;
    return cpus < (long long)otherwise ? (unsigned)cpus : otherwise;
}

static unsigned limit_of_group(const char *group, unsigned cpus)
{
    char path[CGROUP_PATH_BYTES_MAX + 64], text[128];
    snprintf(path, sizeof path, CGROUP_ROOT "%s/cpu.max", group);
    long long quota_us = 0, period_us = 0;
    if (read_line(text, sizeof text, path) && sscanf(text, "%lld %lld", &quota_us, &period_us) == 2) {
        return cpus_of(quota_us, period_us, cpus); /* "max 100000" does not scan: no quota */
    }
    return cpus;
}

static unsigned limit_v2(unsigned cpus)
{
    char text[4096];
    if (!read_line(text, sizeof text, "/proc/self/cgroup")) {
        return cpus;
    }
    const char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
    if (!line) {
        return cpus;
    }
    line = strchr(line, '/');
    size_t bytes = line ? strcspn(line, "\n") : 0;
    if (bytes >= CGROUP_PATH_BYTES_MAX) {
        return cpus;
    }
    char group[CGROUP_PATH_BYTES_MAX];
    memcpy(group, line ? line : "", bytes);
    group[bytes] = '\0';
    for (;;) {
        cpus = limit_of_group(strcmp(group, "/") == 0 ? "" : group, cpus);
        char *slash = strrchr(group, '/');
        if (!slash || group[1] == '\0') {
            return cpus;
        }
        slash[slash == group ? 1 : 0] = '\0';
    }
}

static unsigned limit_v1(unsigned cpus)
{
    char quota[64], period[64];
    if (read_line(quota, sizeof quota, CGROUP_ROOT "/cpu/cpu.cfs_quota_us") &&
        read_line(period, sizeof period, CGROUP_ROOT "/cpu/cpu.cfs_period_us")) {
        return cpus_of(strtoll(quota, NULL, 10), strtoll(period, NULL, 10), cpus);
    }
    return cpus;
}

unsigned dn_available_cpus(void)
{
    cpu_set_t mask;
    long counted = sched_getaffinity(0, sizeof mask, &mask) == 0 ? CPU_COUNT(&mask) : sysconf(_SC_NPROCESSORS_ONLN);
    unsigned cpus = counted < 1 ? 1 : (unsigned)counted;
    cpus = limit_v1(limit_v2(cpus));
    return cpus > DN_THREADS_MAX ? DN_THREADS_MAX : cpus < 1 ? 1 : cpus;
}
