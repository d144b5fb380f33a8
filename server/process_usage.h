/* What a process of this machine uses, from /proc. Any thread. */
#ifndef SERVER_PROCESS_USAGE_H
#define SERVER_PROCESS_USAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct process_usage {
    uint64_t resident_bytes, virtual_bytes;
    double cpu_seconds; /* of all its threads, user and system */
    double start_seconds; /* Unix time */
    unsigned threads;
    unsigned open_fds, max_fds; /* of this process alone; 0: another's, or not known */
} process_usage;

/* pid 0: this process. False: there is no such process (any more), or /proc does not tell. */
bool process_usage_read(process_usage *out, pid_t pid);

#endif
