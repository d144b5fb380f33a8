/* What this machine could do at most, measured in passing: the figures that a network's speed stands beside. */
#ifndef DN_BACKEND_CPU_SPEED_H
#define DN_BACKEND_CPU_SPEED_H

#include "backend/cpu/kernels.h"
#include "base/error.h"

typedef struct dn_cpu_speed {
    double core_flops, all_flops; /* a second, multiply-adds counted as two, by one thread and by all together */
    double core_bytes, all_bytes; /* a second, read from memory */
} dn_cpu_speed;

/* Takes about a second, and 64 MB a thread. Other work on the machine shows in it. */
dn_status dn_cpu_measure(dn_cpu_speed *out, const dn_cpu_kernels *kernels, unsigned threads, dn_error *error);

#endif
