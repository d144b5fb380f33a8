/* The noise: published answers of the generator, pinned bits of the normals, slices, moments. */
#include <stdint.h>

#include "base/philox.h"
#include "tests/test.h"

#define SAMPLES 1000000

static float whole[SAMPLES];

/* Random123's kat_vectors, philox4x32-10. */
static void known_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint32_t out[4];
        dn_philox4x32(out, cases[i].counter, cases[i].key);
        CHECK_MSG(memcmp(out, cases[i].out, sizeof out) == 0, "case %zu: %08x %08x %08x %08x", i, out[0], out[1], out[2], out[3]);
    }
}

/* Box-Muller by libm in double from the same words: the float result is within rounding of it. */
static void normals_match_libm(void)
{
    for (uint64_t seed = 0; seed < 1000; seed++) {
        float normals[4];
        uint32_t w[4];
        dn_noise_normal(normals, 4, 4 * seed, seed * 77, DN_STREAM_STEP, (uint32_t)seed);
        for (uint32_t i = 0; i < 4; i++) {
            w[i] = dn_noise_word(seed * 77, DN_STREAM_STEP, (uint32_t)seed, 4 * seed + i);
        }
        for (int pair = 0; pair < 2; pair++) {
            double radius = sqrt(-2 * log(((double)w[2 * pair] + 0.5) * 0x1p-32));
            double angle = 2 * 3.14159265358979323846 * ((double)w[2 * pair + 1] * 0x1p-32);
            CHECK(fabs((double)normals[2 * pair] - radius * cos(angle)) <= 3e-7 * radius);
            CHECK(fabs((double)normals[2 * pair + 1] - radius * sin(angle)) <= 3e-7 * radius);
        }
    }
}

static void pinned_bits(void)
{
    static const struct {
        uint64_t seed;
        dn_noise_stream stream;
        uint32_t draw;
        size_t element;
        uint32_t bits;
    } pins[] = {
        {UINT64_C(0), DN_STREAM_START, 0, 0, 0x3f7dbb33}, /* 0.991137683 */
        {UINT64_C(0), DN_STREAM_START, 0, 1, 0xbf6cb6af}, /* -0.92466253 */
        {UINT64_C(0), DN_STREAM_START, 0, 2, 0xbf1e1b9e}, /* -0.617608905 */
        {UINT64_C(0), DN_STREAM_START, 0, 3, 0xbef6d1b1}, /* -0.482068568 */
        {UINT64_C(42), DN_STREAM_START, 0, 0, 0xbf785e5c}, /* -0.97018981 */
        {UINT64_C(42), DN_STREAM_STEP, 7, 3071, 0xbf839812}, /* -1.02807832 */
        {UINT64_C(18446744073709551615), DN_STREAM_INPAINT, 1000, 12345, 0x3ec7039a}, /* 0.388699353 */
        {UINT64_C(1234567890123456789), DN_STREAM_TRAIN, 4294967295, 777, 0xc001fd34}, /* -2.03107929 */
    };
    for (size_t i = 0; i < sizeof pins / sizeof pins[0]; i++) {
        float value;
        uint32_t bits;
        dn_noise_normal(&value, 1, pins[i].element, pins[i].seed, pins[i].stream, pins[i].draw);
        memcpy(&bits, &value, sizeof bits);
        CHECK_MSG(bits == pins[i].bits, "pin %zu: %08x (%g)", i, bits, (double)value);
    }
}

static void slices_equal_the_whole(void)
{
    float slice[40], uniform[40], uniform_slice[40];
    dn_noise_normal(whole, 2000, 0, 42, DN_STREAM_START, 3);
    dn_noise_uniform(uniform, 40, 0, 42, DN_STREAM_START, 3);
    for (size_t first = 0; first < 200; first++) {
        for (size_t count = 0; count <= 37; count++) {
            slice[count] = 99;
            dn_noise_normal(slice, count, first, 42, DN_STREAM_START, 3);
            CHECK(memcmp(slice, whole + first, count * sizeof slice[0]) == 0 && slice[count] == 99);
        }
    }
    for (size_t first = 0; first < 40; first++) {
        dn_noise_uniform(uniform_slice, 40 - first, first, 42, DN_STREAM_START, 3);
        CHECK(memcmp(uniform_slice, uniform + first, (40 - first) * sizeof uniform[0]) == 0);
        CHECK(uniform[first] == (float)(dn_noise_word(42, DN_STREAM_START, 3, first) >> 8) * 0x1p-24f);
    }
}

static void moments_are_normal(void)
{
    dn_noise_normal(whole, SAMPLES, 0, 7, DN_STREAM_START, 0);
    double mean = 0, second = 0, third = 0, fourth = 0, largest = 0, neighbours = 0;
    for (size_t i = 0; i < SAMPLES; i++) {
        double x = (double)whole[i];
        mean += x;
        second += x * x;
        third += x * x * x;
        fourth += x * x * x * x;
        largest = fabs(x) > largest ? fabs(x) : largest;
        neighbours += i > 0 ? x * (double)whole[i - 1] : 0;
    }
    mean /= SAMPLES;
    second /= SAMPLES;
    CHECK_MSG(fabs(mean) < 0.005, "mean %g", mean);
    CHECK_MSG(fabs(second - 1) < 0.007, "variance %g", second);
    CHECK_MSG(fabs(third / SAMPLES) < 0.02, "skewness %g", third / SAMPLES);
    CHECK_MSG(fabs(fourth / SAMPLES / second / second - 3) < 0.03, "kurtosis %g", fourth / SAMPLES);
    CHECK_MSG(fabs(neighbours / SAMPLES) < 0.005, "correlation of neighbours %g", neighbours / SAMPLES);
    CHECK_MSG(largest > 4.3 && largest < 6.8, "largest %g", largest);
}

static void uniforms_fill_their_interval(void)
{
    size_t bins[16] = {0};
    dn_noise_uniform(whole, SAMPLES, 0, 9, DN_STREAM_TRAIN, 5);
    for (size_t i = 0; i < SAMPLES; i++) {
        CHECK(whole[i] >= 0 && whole[i] < 1);
        bins[(size_t)(whole[i] * 16)]++;
    }
    double chi = 0, expected = SAMPLES / 16.0;
    for (int i = 0; i < 16; i++) {
        chi += ((double)bins[i] - expected) * ((double)bins[i] - expected) / expected;
    }
    CHECK_MSG(chi < 40, "chi squared %g over 15 degrees", chi);
}

static void everything_named_matters(void)
{
    float base, other;
    dn_noise_normal(&base, 1, 5, 1, DN_STREAM_START, 0);
    const uint64_t seeds[] = {2, UINT64_C(0x100000001)};
    for (size_t i = 0; i < 2; i++) {
        dn_noise_normal(&other, 1, 5, seeds[i], DN_STREAM_START, 0);
        CHECK(base != other);
    }
    dn_noise_normal(&other, 1, 5, 1, DN_STREAM_PROBE, 0);
    CHECK(base != other);
    dn_noise_normal(&other, 1, 5, 1, DN_STREAM_START, 1);
    CHECK(base != other);
    dn_noise_normal(&other, 1, 6, 1, DN_STREAM_START, 0);
    CHECK(base != other);
}

int main(void)
{
    RUN(known_answers);
    RUN(normals_match_libm);
    RUN(pinned_bits);
    RUN(slices_equal_the_whole);
    RUN(moments_are_normal);
    RUN(uniforms_fill_their_interval);
    RUN(everything_named_matters);
    return test_end();
}
