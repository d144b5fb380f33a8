/* The noise "philox-1". Owns nothing. Any thread.
 *
 * Invariant: a number depends on (seed, stream, draw, element) alone, and every machine computes the same bits: integer
 * arithmetic, then double additions, multiplications and one division, each rounded once (no fused multiply-add: the
 * build says -ffp-contract=off), then a float square root, which IEEE 754 rounds correctly. No function of libm. Any
 * change of a constant or of the order of operations here is a new noise and needs a new name. */
#include "base/philox.h"

#include <math.h>
#include <string.h>

void dn_philox4x32(uint32_t out[4], const uint32_t counter[4], const uint32_t key[2])
{
    /* Multipliers and Weyl constants of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011. */
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = UINT64_C(0xD2511F53) * c0;
        uint64_t product1 = UINT64_C(0xCD9E8D57) * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The four words of block element / 4. A picture has far fewer than 2^34 elements, so the last counter word, which takes
 * what does not fit the first, is 0 in practice. */
static void words_of_block(uint32_t out[4], uint64_t block, uint64_t seed, dn_noise_stream stream, uint32_t draw)
{
    const uint32_t counter[4] = {(uint32_t)block, draw, (uint32_t)stream, (uint32_t)(block >> 32)};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    dn_philox4x32(out, counter, key);
}

/* Natural logarithm of u = (word + 1/2) / 2^32, in (0, 1). u = m * 2^e with m in [1/sqrt 2, sqrt 2), and
 * ln m = 2 atanh((m - 1) / (m + 1)) as its odd series: |s| <= 0.1716, so eleven terms leave less than 1e-17. */
static double log_of_word(uint32_t word)
{
    double u = ((double)word + 0.5) * 0x1p-32;
    uint64_t bits;
    memcpy(&bits, &u, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & UINT64_C(0x000FFFFFFFFFFFFF)) | UINT64_C(0x3FF0000000000000);
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double s = (m - 1.0) / (m + 1.0);
    double z = s * s;
    double series = 1.0 / 21.0;
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
    return 2.0 * s * series + (double)exponent * 0.69314718055994531;
}

/* Cosine and sine of the turn word / 2^32: reduced exactly, in integers, to within an eighth of a turn of a quarter, then
 * Taylor's series to x^16 and x^17 (at pi / 4 the rest is below 1e-18). */
static void turn_of_word(double *cosine, double *sine, uint32_t word)
{
    uint32_t quarter = (word + 0x20000000u) >> 30;
    uint32_t rest = word - (quarter << 30); /* mod 2^32: -2^29 .. 2^29 - 1 */
    double x = ((double)(rest ^ 0x80000000u) - 2147483648.0) * (6.283185307179586 * 0x1p-32);
    double z = x * x;
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
    const double quarters[4] = {c, -s, -c, s}; /* the cosine, 0 to 3 quarters on */
    *cosine = quarters[quarter & 3u];
    *sine = quarters[(quarter + 3u) & 3u];
}

/* Box and Muller, 1958: radius sqrt(-2 ln u) from the first word, angle from the second. */
static void normal_pair(float out[2], uint32_t radius_word, uint32_t angle_word)
{
    float radius = sqrtf((float)(-2.0 * log_of_word(radius_word)));
    double cosine, sine;
    turn_of_word(&cosine, &sine, angle_word);
    out[0] = radius * (float)cosine;
    out[1] = radius * (float)sine;
}

void dn_noise_normal(float *out, size_t count, size_t first, uint64_t seed, dn_noise_stream stream, uint32_t draw)
{
    for (size_t done = 0; done < count;) {
        size_t element = first + done, skip = element % 4;
        size_t taken = 4 - skip < count - done ? 4 - skip : count - done;
        uint32_t words[4];
        float normals[4];
        words_of_block(words, element / 4, seed, stream, draw);
        normal_pair(normals, words[0], words[1]);
        normal_pair(normals + 2, words[2], words[3]);
        memcpy(out + done, normals + skip, taken * sizeof *out);
        done += taken;
    }
}

void dn_noise_uniform(float *out, size_t count, size_t first, uint64_t seed, dn_noise_stream stream, uint32_t draw)
{
    for (size_t done = 0; done < count;) {
        size_t element = first + done;
        uint32_t words[4];
        words_of_block(words, element / 4, seed, stream, draw);
        for (size_t i = element % 4; i < 4 && done < count; i++, done++) {
            out[done] = (float)(words[i] >> 8) * 0x1p-24f;
        }
    }
}

uint32_t dn_noise_word(uint64_t seed, dn_noise_stream stream, uint32_t draw, uint64_t element)
{
    uint32_t words[4];
    words_of_block(words, element / 4, seed, stream, draw);
    return words[element % 4];
}
