/* The peak of products in 16 bits: independent chains of the instruction that the kernels use, in registers. Include it once a program,
 * after fma_probe.h. */
#ifndef TESTS_BENCH_HALF_PROBE_H
#define TESTS_BENCH_HALF_PROBE_H

#if defined(__x86_64__)
#include <immintrin.h>

#define HALF_PROBE_CHAINS 14 /* two a cycle, each 6 cycles long, and some to spare */

__attribute__((target("avx512f,avx512bf16"), optimize("O3"))) static float half_probe_bf16(float seed)
{
    __m512 sum[HALF_PROBE_CHAINS];
    const __m512bh factor = _mm512_cvtne2ps_pbh(_mm512_set1_ps(seed), _mm512_set1_ps(-seed));
    for (int i = 0; i < HALF_PROBE_CHAINS; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (int loop = 0; loop < FMA_PROBE_LOOPS; loop++) {
        _Pragma("GCC unroll 14") for (int i = 0; i < HALF_PROBE_CHAINS; i++) sum[i] = _mm512_dpbf16_ps(sum[i], factor, factor);
    }
    float total = 0.0f;
    for (int i = 0; i < HALF_PROBE_CHAINS; i++)
        total += _mm512_reduce_add_ps(sum[i]);
    return total;
}

/* FLOPs of one call. The caller knows that the CPU has AVX512_BF16. */
static double half_probe_once(void)
{
    fma_probe_sink = half_probe_bf16(0x1p-10f);
    return 64.0 * HALF_PROBE_CHAINS * FMA_PROBE_LOOPS;
}
#else
/* Other machines have no such kernel to measure. */
static double half_probe_once(void)
{
    return 0.0;
}
#endif

#endif
