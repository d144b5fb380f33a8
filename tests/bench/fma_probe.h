/* The multiply-add peak of this machine's cores: independent chains of multiply-adds in registers, in the widest vectors that
 * the kernels use. The floor that measurements stand beside. Include it once a program. */
#ifndef TESTS_BENCH_FMA_PROBE_H
#define TESTS_BENCH_FMA_PROBE_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define FMA_PROBE_LOOPS 20000
#define FMA_PROBE_CHAINS 12
#define FMA_PROBE_THREADS_MAX 64
#if defined(__x86_64__)
#define FMA_PROBE_FLAGS(flags) target(flags),
#else
#define FMA_PROBE_FLAGS(flags)
#endif
#define DEFINE_FMA_PROBE(name, lanes, flags)                                                                                               \
    __attribute__((FMA_PROBE_FLAGS(flags) optimize("O3", "fp-contract=fast"))) static float name(float seed)                               \
    {                                                                                                                                      \
        typedef float v __attribute__((vector_size(4 * lanes)));                                                                           \
        v sum[FMA_PROBE_CHAINS], factor = (v){0} + 0.999f, term = (v){0} + seed;                                                           \
        for (int i = 0; i < FMA_PROBE_CHAINS; i++)                                                                                         \
            sum[i] = term + (float)i;                                                                                                      \
        for (int loop = 0; loop < FMA_PROBE_LOOPS; loop++) {                                                                               \
            _Pragma("GCC unroll 12") for (int i = 0; i < FMA_PROBE_CHAINS; i++) sum[i] = sum[i] * factor + term;                           \
        }                                                                                                                                  \
        float total = 0.0f;                                                                                                                \
        for (int i = 0; i < FMA_PROBE_CHAINS; i++)                                                                                         \
            total += sum[i][0];                                                                                                            \
        return total;                                                                                                                      \
    }
DEFINE_FMA_PROBE(fma_probe_sse2, 4, "sse2")
DEFINE_FMA_PROBE(fma_probe_avx2, 8, "avx2,fma")
DEFINE_FMA_PROBE(fma_probe_avx512, 16, "avx512f,fma")

static volatile float fma_probe_sink;

/* Floats in a vector of an instruction set. */
static inline size_t fma_probe_lanes(const char *isa)
{
    return strcmp(isa, "avx512") == 0 ? 16 : strcmp(isa, "avx2") == 0 ? 8 : 4;
}

/* FLOPs of one call of the probe for vectors of so many floats. */
static double fma_probe_once(size_t lanes)
{
    fma_probe_sink = lanes == 16 ? fma_probe_avx512(1.0f) : lanes == 8 ? fma_probe_avx2(1.0f) : fma_probe_sse2(1.0f);
    return 2.0 * FMA_PROBE_CHAINS * FMA_PROBE_LOOPS * (double)lanes;
}

typedef struct fma_probe_thread {
    pthread_t thread;
    pthread_barrier_t *start;
    size_t lanes;
    double seconds, flops;
} fma_probe_thread;

static double fma_probe_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *fma_probe_main(void *payload)
{
    fma_probe_thread *self = payload;
    const double seconds = self->seconds;
    pthread_barrier_wait(self->start);
    double began = fma_probe_now();
    while (self->seconds = fma_probe_now() - began, self->seconds < seconds)
        self->flops += fma_probe_once(self->lanes);
    return NULL;
}

/* FLOP/s of so many threads together for so long, by the wall's clock: neighbours on the machine show in it. */
static double fma_probe_all(size_t lanes, unsigned threads, double seconds)
{
    fma_probe_thread thread[FMA_PROBE_THREADS_MAX];
    pthread_barrier_t start;
    double rate = 0.0;
    threads = threads < 1 ? 1 : threads > FMA_PROBE_THREADS_MAX ? FMA_PROBE_THREADS_MAX : threads;
    pthread_barrier_init(&start, NULL, threads);
    for (unsigned i = 0; i < threads; i++) {
        thread[i] = (fma_probe_thread){.start = &start, .lanes = lanes, .seconds = seconds};
        if (pthread_create(&thread[i].thread, NULL, fma_probe_main, &thread[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(thread[i].thread, NULL);
        rate += thread[i].flops / thread[i].seconds;
    }
    pthread_barrier_destroy(&start);
    return rate;
}

#endif
