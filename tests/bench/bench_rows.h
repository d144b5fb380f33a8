/* What benches of single kernels share: one thread's own clock, the best of many rounds, the multiply-add peak of the same core in the same
 * run, and a row of the answer. Include it once a program. */
#ifndef TESTS_BENCH_ROWS_H
#define TESTS_BENCH_ROWS_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "tests/bench/fma_probe.h"

static double seconds_per_row = 0.3;
static double peak; /* FLOP/s of one core, the best that was seen */

static inline void check(dn_status status, const dn_error *error)
{
    if (status == DN_OK)
        return;
    fprintf(stderr, "bench: %s\n", error->message);
    exit(1);
}

static inline double thread_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* lanes: fma_probe_lanes's. */
static inline void probe_peak(size_t lanes)
{
    for (int round = 0; round < 5; round++) {
        double start = thread_seconds();
        double rate = fma_probe_once(lanes) / (thread_seconds() - start);
        peak = rate > peak ? rate : peak;
    }
}

typedef void work_function(void *payload);

/* Seconds of the best round by that clock. */
static inline double best_time(work_function *work, void *payload, double (*clock_of)(void))
{
    double best = 1e30;
    work(payload);
    for (double end = dn_now_seconds() + seconds_per_row; dn_now_seconds() < end;) {
        double start = clock_of();
        work(payload);
        double took = clock_of() - start;
        best = took < best ? took : best;
    }
    return best;
}

static inline void print_flops(const char *name, double seconds, double flops)
{
    printf("%-46s %9.4f ms %8.1f GF/s %5.1f %% of peak\n", name, seconds * 1e3, flops / seconds * 1e-9, 100.0 * flops / seconds / peak);
    fflush(stdout);
}

/* Uniform in [-1, 1), the same every time; on a line of its own. */
static inline float *randoms(size_t count)
{
    float *x = aligned_alloc(64, (count + 15) / 16 * 64);
    if (!x)
        abort();
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    return x;
}

#endif
