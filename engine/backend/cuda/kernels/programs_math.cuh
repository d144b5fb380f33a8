/* What register programs and embeddings compute with: the noise "philox-1" and base/math64.h on the device, the same bits as on the CPU.
 *
 * Invariant: base/philox.c's and base/math64.c's operations in the same order, each rounded once. Every file that includes this is compiled
 * without fused multiply-add (-fmad=false), and divisions and square roots are IEEE's. No table is indexed by a value: that would be memory. */
#ifndef DN_BACKEND_CUDA_KERNELS_PROGRAMS_MATH_CUH
#define DN_BACKEND_CUDA_KERNELS_PROGRAMS_MATH_CUH

#include "backend/cuda/kernels/kernel.cuh"

struct dn_quad {
    float at[4];
};

struct dn_words {
    uint32_t at[4];
};

/* Philox4x32-10 of one block of four elements. */
__device__ __forceinline__ dn_words dn_philox(uint64_t block, uint64_t seed, uint32_t stream, uint32_t draw)
{
    uint32_t c0 = static_cast<uint32_t>(block), c1 = draw, c2 = stream, c3 = static_cast<uint32_t>(block >> 32);
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = UINT64_C(0xD2511F53) * c0, product1 = UINT64_C(0xCD9E8D57) * c2;
        c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(product1);
        c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(product0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return dn_words{{c0, c1, c2, c3}};
}

/* ln((word + 1/2) / 2^32). */
__device__ __forceinline__ double dn_log_of_word(uint32_t word)
{
    double u = (static_cast<double>(word) + 0.5) * 0x1p-32;
    uint64_t bits = static_cast<uint64_t>(__double_as_longlong(u));
    int exponent = static_cast<int>(bits >> 52) - 1023;
    double m = __longlong_as_double(static_cast<long long>((bits & UINT64_C(0x000FFFFFFFFFFFFF)) | UINT64_C(0x3FF0000000000000)));
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double s = (m - 1.0) / (m + 1.0), z = s * s, series = 1.0 / 21.0;
    series = series * z + 1.0 / 19.0;
    series = series * z + 1.0 / 17.0;
    series = series * z + 1.0 / 15.0;
    series = series * z + 1.0 / 13.0;
    series = series * z + 1.0 / 11.0;
    series = series * z + 1.0 / 9.0;
    series = series * z + 1.0 / 7.0;
    series = series * z + 1.0 / 5.0;
    series = series * z + 1.0 / 3.0;
    series = series * z + 1.0;
    return 2.0 * s * series + static_cast<double>(exponent) * 0.69314718055994531;
}

/* Cosine and sine of the turn word / 2^32. */
__device__ __forceinline__ void dn_turn_of_word(uint32_t word, double *cosine, double *sine)
{
    uint32_t quarter = (word + 0x20000000u) >> 30, rest = word - (quarter << 30);
    double x = (static_cast<double>(rest ^ 0x80000000u) - 2147483648.0) * (6.283185307179586 * 0x1p-32), z = x * x;
    double c = 1.0 / 20922789888000.0;
    c = c * z - 1.0 / 87178291200.0;
    c = c * z + 1.0 / 479001600.0;
    c = c * z - 1.0 / 3628800.0;
    c = c * z + 1.0 / 40320.0;
    c = c * z - 1.0 / 720.0;
    c = c * z + 1.0 / 24.0;
    c = c * z - 0.5;
    c = c * z + 1.0;
    double s = 1.0 / 355687428096000.0;
    s = s * z - 1.0 / 1307674368000.0;
    s = s * z + 1.0 / 6227020800.0;
    s = s * z - 1.0 / 39916800.0;
    s = s * z + 1.0 / 362880.0;
    s = s * z - 1.0 / 5040.0;
    s = s * z + 1.0 / 120.0;
    s = s * z - 1.0 / 6.0;
    s = s * z + 1.0;
    s = s * x;
    double along = quarter & 1u ? s : c, across = quarter & 1u ? c : s;
    *cosine = ((quarter + 1u) & 2u) ? -along : along;
    *sine = quarter & 2u ? -across : across;
}

__device__ __forceinline__ void dn_normal_pair(float *out, uint32_t radius_word, uint32_t angle_word)
{
    float radius = __fsqrt_rn(static_cast<float>(-2.0 * dn_log_of_word(radius_word)));
    double cosine, sine;
    dn_turn_of_word(angle_word, &cosine, &sine);
    out[0] = radius * static_cast<float>(cosine);
    out[1] = radius * static_cast<float>(sine);
}

/* The standard normals of elements 4 block to 4 block + 3. */
__device__ __forceinline__ dn_quad dn_normals(uint64_t block, uint64_t seed, uint32_t stream, uint32_t draw)
{
    dn_words words = dn_philox(block, seed, stream, draw);
    dn_quad out;
    dn_normal_pair(out.at, words.at[0], words.at[1]);
    dn_normal_pair(out.at + 2, words.at[2], words.at[3]);
    return out;
}

constexpr double dn_rounder = 6755399441055744.0; /* 1.5 * 2^52 */

/* dn_exp. */
__device__ __forceinline__ double dn_exp64(double x)
{
    if (!(x > -708.0))
        return isnan(x) ? x : 0.0;
    if (x > 709.0)
        return __longlong_as_double(0x7FF0000000000000ll);
    double n = (x * 1.4426950408889634 + dn_rounder) - dn_rounder;
    double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double sum = 1.0;
    for (int k = 14; k > 0; k--)
        sum = 1.0 + sum * r / k;
    return sum * __longlong_as_double(static_cast<long long>(static_cast<int>(n) + 1023) << 52);
}

/* dn_log: x positive and normal. */
__device__ __forceinline__ double dn_log64(double x)
{
    uint64_t bits = static_cast<uint64_t>(__double_as_longlong(x));
    int n = static_cast<int>(bits >> 52) - 1023;
    double m = __longlong_as_double(static_cast<long long>((bits & UINT64_C(0x000FFFFFFFFFFFFF)) | UINT64_C(0x3FF0000000000000)));
    if (m > 1.4142135623730951) {
        m *= 0.5;
        n++;
    }
    double s = (m - 1.0) / (m + 1.0), square = s * s, sum = 0.0;
    DN_UNROLL for (int k = 25; k > 0; k -= 2)
        sum = sum * square + 1.0 / k;
    return 2.0 * s * sum + n * 6.93147180559945309417e-01;
}

/* dn_sine_cosine. */
__device__ __forceinline__ void dn_sine_cosine64(double x, double *sine, double *cosine)
{
    double n = (x * 0.63661977236758134308 + dn_rounder) - dn_rounder;
    double r = ((x - n * 1.57079632673412561417e+00) - n * 6.07710050630396597660e-11) - n * 2.02226624879595063154e-21;
    double square = r * r, s = 1.0, c = 1.0;
    for (int k = 18; k > 0; k -= 2) {
        s = 1.0 - s * square / (k * (k + 1));
        c = 1.0 - c * square / (k * (k - 1));
    }
    s *= r;
    int quarter = static_cast<int>(static_cast<long long>(n) & 3);
    double along = quarter & 1 ? c : s, across = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -along : along;
    *cosine = (quarter + 1) & 2 ? -across : across;
}

/* dn_acos. */
__device__ __forceinline__ double dn_acos64(double x)
{
    double magnitude = x < 0.0 ? -x : x, true_sine = sqrt((1.0 - x) * (1.0 + x));
    double angle = 1.5707288 + magnitude * (-0.2121144 + magnitude * (0.0742610 - 0.0187293 * magnitude));
    angle *= sqrt(1.0 - magnitude);
    if (x < 0.0)
        angle = 3.14159265358979323846 - angle;
    for (int i = 0; i < 2; i++) {
        double sine, cosine;
        dn_sine_cosine64(angle, &sine, &cosine);
        angle += true_sine * cosine - x * sine;
    }
    return angle;
}

#endif
