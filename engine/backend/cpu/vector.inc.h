/* Vectors of DN_LANES floats, the same source for every instruction set (GCC vector extensions).
 *
 * The including file defines DN_LANES. Nothing here calls libm: the polynomials are ours, so that a result depends on the
 * instruction set alone and not on the C library. Included only by files compiled with that set's flags. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "plan/plan.h"

#define VEC_BYTES (4 * DN_LANES)
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(VEC_BYTES)));
typedef int32_t ivec __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t uvec __attribute__((vector_size(VEC_BYTES)));
typedef float vec_unaligned __attribute__((vector_size(VEC_BYTES), aligned(4), may_alias));

INLINE vec load(const float *p)
{
    return *(const vec_unaligned *)p;
}

INLINE void store(float *p, vec v)
{
    *(vec_unaligned *)p = v;
}

/* The first `count` lanes (all of them from DN_LANES up); the others are zero. */
INLINE vec load_some(const float *p, size_t count)
{
    if (count >= DN_LANES)
        return load(p);
    vec v = {0};
    memcpy(&v, p, count * sizeof(float));
    return v;
}

INLINE void store_some(float *p, vec v, size_t count)
{
    if (count >= DN_LANES)
        store(p, v);
    else
        memcpy(p, &v, count * sizeof(float));
}

INLINE vec splat(float x)
{
    return (vec){0} + x;
}

/* mask ? a : b, lane by lane; mask lanes are all ones or all zeros. */
INLINE vec choose(ivec mask, vec a, vec b)
{
    return (vec)(((ivec)a & mask) | ((ivec)b & ~mask));
}

/* a > b ? a : b, and a < b ? a : b: b where either is NaN. x86 has an instruction for each that no expression of vectors becomes. */
#if defined(__AVX512F__)
INLINE vec larger(vec a, vec b)
{
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
}

INLINE vec smaller(vec a, vec b)
{
    return (vec)_mm512_min_ps((__m512)a, (__m512)b);
}
#elif defined(__AVX2__)
INLINE vec larger(vec a, vec b)
{
    return (vec)_mm256_max_ps((__m256)a, (__m256)b);
}

INLINE vec smaller(vec a, vec b)
{
    return (vec)_mm256_min_ps((__m256)a, (__m256)b);
}
#else
INLINE vec larger(vec a, vec b)
{
    return choose(a > b, a, b);
}

INLINE vec smaller(vec a, vec b)
{
    return choose(a < b, a, b);
}
#endif

/* Bounds that let a NaN through. */
INLINE vec at_most(vec x, float bound)
{
    return smaller(splat(bound), x);
}

INLINE vec at_least(vec x, float bound)
{
    return larger(splat(bound), x);
}

/* Lane i of the result is lane i + distance (wrapping) of v; distance is a constant where inlined. */
INLINE vec rotate_lanes(vec v, const int distance)
{
    ivec index = {0};
#pragma GCC unroll 16
    for (int i = 0; i < DN_LANES; i++)
        index[i] = (i + distance) % DN_LANES;
    return __builtin_shuffle(v, index);
}

/* Reductions by halves: lane i with lane i + 8, then + 4, + 2, + 1. */
INLINE float sum_lanes(vec v)
{
    if (DN_LANES > 8)
        v += rotate_lanes(v, 8);
    if (DN_LANES > 4)
        v += rotate_lanes(v, 4);
    v += rotate_lanes(v, 2);
    v += rotate_lanes(v, 1);
    return v[0];
}

/* e^x within 2 ulp for x inside [-87.33, 88.37], where 2^n is a normal number; NaN stays NaN.
 * n = round(x / ln 2) by the 1.5 * 2^23 trick, r = x - n ln 2 in two pieces, polynomial of Cephes' expf. */
INLINE vec exp_inside(vec x)
{
    vec shifted = x * 1.44269504088896341f + 12582912.0f;
    vec n = shifted - 12582912.0f;
    vec r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vec power = (vec)(((uvec)shifted + 127u) << 23);
    return p * power;
}

/* The same for every x, which is held inside these bounds. */
INLINE vec exp_vec(vec x)
{
    return exp_inside(at_least(at_most(x, 88.37f), -87.33f));
}

/* 2^x within 2e-7 of itself for x that is not above 0; under 2^-126 it stays there. 127 is added with the rounding, so that the
 * low bits of `shifted` are the exponent. The polynomial is the one of degree 5 with least relative error on [-1/2, 1/2]. */
INLINE vec exp2_of_negative(vec x)
{
    x = at_least(x, -126.0f);
    vec shifted = x + 12583039.0f;
    vec r = x - (shifted - 12583039.0f);
    vec p = r * 1.3264727253e-3f + 9.6715127858e-3f;
    p = p * r + 5.5507337445e-2f;
    p = p * r + 2.4022242083e-1f;
    p = p * r + 6.9314697760e-1f;
    p = p * r + 1.0f;
    return p * (vec)((uvec)shifted << 23);
}

/* x / (1 + e^-x). */
INLINE vec silu_vec(vec x)
{
    return x / (1.0f + exp_vec(-x));
}

/* erf by Abramowitz and Stegun 7.1.26 (absolute error 1.5e-7). */
INLINE vec erf_vec(vec x)
{
    ivec negative = x < splat(0.0f);
    vec magnitude = choose(negative, -x, x);
    vec t = 1.0f / (1.0f + 0.3275911f * magnitude);
    vec p = 1.061405429f * t + -1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t + -0.284496736f;
    p = p * t + 0.254829592f;
    vec y = 1.0f - p * t * exp_vec(-(magnitude * magnitude));
    return choose(negative, -y, y);
}

INLINE vec gelu_vec(vec x)
{
    return 0.5f * x * (1.0f + erf_vec(x * 0.70710678118654752f));
}

/* 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
INLINE vec gelu_tanh_vec(vec x)
{
    vec u = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exp_vec(-2.0f * u));
}

/* x tanh(ln(1 + e^x)) = x (e^2 + 2e) / (e^2 + 2e + 2), e = e^x; the ratio is 1 in float long before x = 20. */
INLINE vec mish_vec(vec x)
{
    vec e = exp_vec(at_most(x, 20.0f));
    vec q = e * (e + 2.0f);
    return x * (q / (q + 2.0f));
}

INLINE vec activate(vec x, dn_activation activation)
{
    switch (activation) {
    case DN_ACT_SILU:
        return silu_vec(x);
    case DN_ACT_GELU:
        return gelu_vec(x);
    case DN_ACT_GELU_TANH:
        return gelu_tanh_vec(x);
    case DN_ACT_RELU:
        return choose(x < splat(0.0f), splat(0.0f), x);
    case DN_ACT_MISH:
        return mish_vec(x);
    case DN_ACT_NONE:
        break;
    }
    return x;
}
