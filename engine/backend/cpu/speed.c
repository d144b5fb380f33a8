/* Measures the multiply-add peak and the memory's speed, on one thread and on all. Owns its threads and memory until it returns; the
 * caller's thread is one of them. Best of a few rounds by wall time: a neighbour's share is not ours. */
#include "backend/cpu/speed.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/thread_pool.h"

#define ROUNDS 8
#define PROBE_LOOPS 200000u /* about 15 ms */
#define READ_WORDS (8u << 20) /* 64 MB a thread: past most last caches' share */
#define ALL_WORDS (64u << 20) /* 512 MB of all threads at most */

typedef struct measurement {
    const dn_cpu_kernels *kernels;
    uint64_t *memory; /* [threads][words]; NULL: multiply-adds */
    size_t words; /* a multiple of 8 */
    volatile uint64_t sink; /* of all threads, for nobody: whoever writes last */
    volatile float float_sink;
} measurement;

static uint64_t read_words(const uint64_t *words, size_t count)
{
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < count; i += 8)
        for (size_t k = 0; k < 8; k++)
            sum[k] ^= words[i + k];
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3] ^ sum[4] ^ sum[5] ^ sum[6] ^ sum[7];
}

/* Task: one thread's part. */
static void measure_part(void *payload, unsigned index, unsigned worker)
{
    measurement *m = payload;
    (void)worker;
    if (m->memory) {
        uint64_t sum = read_words(m->memory + index * m->words, m->words);
        if (index == 0)
            m->sink = sum;
    } else {
        float sum = m->kernels->multiply_add_probe(1.0f, PROBE_LOOPS);
        if (index == 0)
            m->float_sink = sum;
    }
}

/* Parts a second, `threads` of them at a time. */
static double best_rate(measurement *m, dn_pool *pool, unsigned threads)
{
    double best = 0.0;
    for (int round = 0; round < ROUNDS; round++) {
        double began = dn_now_seconds();
        dn_pool_run(pool, threads, measure_part, m);
        double rate = threads / (dn_now_seconds() - began);
        best = rate > best ? rate : best;
    }
    return best;
}

dn_status dn_cpu_measure(dn_cpu_speed *out, const dn_cpu_kernels *kernels, unsigned threads, dn_error *error)
{
    dn_pool *pool = NULL;
    measurement m = {.kernels = kernels};
    const double flops = 2.0 * DN_CPU_PROBE_CHAINS * PROBE_LOOPS * (double)kernels->lanes;
    dn_status status = dn_pool_create(&pool, threads, error);
    if (status != DN_OK)
        return status;
    threads = dn_pool_size(pool);
    dn_cpu_speed speed = {.core_flops = flops * best_rate(&m, NULL, 1)};
    speed.all_flops = flops * best_rate(&m, pool, threads);
    m.words = threads * READ_WORDS <= ALL_WORDS ? READ_WORDS : ALL_WORDS / threads / 8 * 8;
    m.memory = malloc(threads * m.words * sizeof *m.memory);
    if (m.memory) {
        const double bytes = 8.0 * (double)m.words;
        memset(m.memory, 1, threads * m.words * sizeof *m.memory);
        speed.core_bytes = bytes * best_rate(&m, NULL, 1);
        speed.all_bytes = bytes * best_rate(&m, pool, threads);
        *out = speed;
    } else {
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for %u times %zu MB to read", threads, m.words >> 17);
    }
    free(m.memory);
    dn_pool_free(pool);
    return status;
}
