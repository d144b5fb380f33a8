/* The element-wise and reducing kernels of every instruction set.
 *
 * Invariant: sums run in an order that depends on the image's shape alone: chunks of pixels in float, chunks in double.
 * Any thread. The including file defines DN_LANES, DN_TILE_ROWS, DN_GEMM_NAME, DN_KERNELS_NAME and DN_ISA_NAME. */
#include <math.h>

#include "backend/cpu/kernels.h"
#include "backend/cpu/vector.inc.h"
#include "backend/cpu/attention.inc.c"
#include "backend/cpu/winograd.inc.c"

/* Pixels summed in float before the sum goes to double: enough to be fast, few enough to lose nothing that matters. */
#define CHUNK_PIXELS 64u

/* The sum of one vector of channels over a chunk: four partial sums, added in a fixed order. */
INLINE vec chunk_sum(const float *x, size_t pixels, size_t stride, size_t lanes, vec mean, int power)
{
    vec part[4] = {{0}, {0}, {0}, {0}};
    for (size_t p = 0; p < pixels; p++) {
        vec d = load_some(x + p * stride, lanes) - mean;
        part[p % 4] += power == 2 ? d * d : d;
    }
    return (part[0] + part[1]) + (part[2] + part[3]);
}

/* The same over a whole chunk of full vectors: the common case, unrolled by four. */
INLINE vec whole_chunk_sum(const float *x, size_t stride, vec mean, int power)
{
    vec part[4] = {{0}, {0}, {0}, {0}};
    for (size_t p = 0; p < CHUNK_PIXELS; p += 4) {
        for (size_t q = 0; q < 4; q++) {
            vec d = load(x + (p + q) * stride) - mean;
            part[q] += power == 2 ? d * d : d;
        }
    }
    return (part[0] + part[1]) + (part[2] + part[3]);
}

/* Chunk after chunk through all channels, so that an image larger than the caches is read once, in order. */
static void channel_sums(double *sums, const float *x, size_t pixels, size_t stride, size_t channels, const float *mean, int power)
{
    for (size_t c = 0; c < channels; c++)
        sums[c] = 0.0;
    for (size_t p = 0; p < pixels; p += CHUNK_PIXELS) {
        const size_t count = pixels - p < CHUNK_PIXELS ? pixels - p : CHUNK_PIXELS;
        for (size_t c = 0; c < channels; c += DN_LANES) {
            const size_t lanes = channels - c < DN_LANES ? channels - c : DN_LANES;
            const vec center = mean ? load_some(mean + c, lanes) : splat(0.0f);
            const float *from = x + p * stride + c;
            vec sum;
            if (lanes < DN_LANES || count < CHUNK_PIXELS)
                sum = chunk_sum(from, count, stride, lanes, center, power);
            else if (power == 2)
                sum = whole_chunk_sum(from, stride, center, 2);
            else
                sum = whole_chunk_sum(from, stride, center, 1);
            float lane[DN_LANES];
            memcpy(lane, &sum, sizeof lane);
            for (size_t i = 0; i < lanes; i++)
                sums[c + i] += (double)lane[i];
        }
    }
}

INLINE void normalize_as(float *out, const float *x, size_t pixels, size_t stride, size_t channels, const float *mean, const float *gain,
                         const float *offset, const dn_activation activation)
{
    for (size_t first = 0; first < pixels; first += CHUNK_PIXELS) {
        const size_t end = pixels - first < CHUNK_PIXELS ? pixels : first + CHUNK_PIXELS;
        for (size_t c = 0; c < channels; c += DN_LANES) {
            const size_t lanes = channels - c;
            const vec m = load_some(mean + c, lanes), g = load_some(gain + c, lanes), o = load_some(offset + c, lanes);
            for (size_t p = first; p < end; p++) {
                const vec y = (load_some(x + p * stride + c, lanes) - m) * g + o;
                store_some(out + p * stride + c, activate(y, activation), lanes);
            }
        }
    }
}

static void normalize(float *out, const float *x, size_t pixels, size_t stride, size_t channels, const float *mean, const float *gain,
                      const float *offset, dn_activation activation)
{
    if (activation == DN_ACT_SILU)
        normalize_as(out, x, pixels, stride, channels, mean, gain, offset, DN_ACT_SILU);
    else if (activation == DN_ACT_NONE)
        normalize_as(out, x, pixels, stride, channels, mean, gain, offset, DN_ACT_NONE);
    else
        normalize_as(out, x, pixels, stride, channels, mean, gain, offset, activation);
}

/* The sum over a pixel's channels of x - mean (power 1) or of its square: four partial sums, then the rest. */
INLINE float pixel_sum(const float *x, size_t channels, float mean, const int power)
{
    vec part[4] = {{0}, {0}, {0}, {0}};
    size_t c = 0;
    for (; c + 4 * DN_LANES <= channels; c += 4 * DN_LANES) {
#pragma GCC unroll 4
        for (size_t q = 0; q < 4; q++) {
            const vec d = load(x + c + q * DN_LANES) - mean;
            part[q] += power == 2 ? d * d : d;
        }
    }
    for (; c < channels; c += DN_LANES) {
        const size_t lanes = channels - c;
        float rest[DN_LANES] = {0};
        store_some(rest, load_some(x + c, lanes) - mean, lanes); /* lanes past the end are zero again */
        const vec d = load(rest);
        part[0] += power == 2 ? d * d : d;
    }
    return sum_lanes((part[0] + part[1]) + (part[2] + part[3]));
}

static void layer_norm(float *out, const float *x, size_t pixels, size_t channels, const float *gain, const float *offset, float epsilon)
{
    const float share = 1.0f / (float)channels;
    for (size_t p = 0; p < pixels; p++, x += channels, out += channels) {
        const float mean = pixel_sum(x, channels, 0.0f, 1) * share;
        const float inverse = 1.0f / sqrtf(pixel_sum(x, channels, mean, 2) * share + epsilon);
        for (size_t c = 0; c < channels; c += DN_LANES) {
            const size_t lanes = channels - c;
            vec y = (load_some(x + c, lanes) - mean) * inverse;
            if (gain)
                y = y * load_some(gain + c, lanes) + load_some(offset + c, lanes);
            store_some(out + c, y, lanes);
        }
    }
}

static void activate_all(float *out, const float *x, size_t count, dn_activation activation)
{
    for (size_t i = 0; i < count; i += DN_LANES)
        store_some(out + i, activate(load_some(x + i, count - i), activation), count - i);
}

/* Sums that wait for nothing but themselves, all in registers. */
static float multiply_add_probe(float seed, unsigned loops)
{
    vec sum[DN_CPU_PROBE_CHAINS];
    const vec factor = splat(0.999f), term = splat(seed);
    for (int i = 0; i < DN_CPU_PROBE_CHAINS; i++)
        sum[i] = term + (float)i;
    for (unsigned loop = 0; loop < loops; loop++) {
#pragma GCC unroll 12
        for (int i = 0; i < DN_CPU_PROBE_CHAINS; i++)
            sum[i] = sum[i] * factor + term;
    }
    float total = 0.0f;
    for (int i = 0; i < DN_CPU_PROBE_CHAINS; i++)
        total += sum[i][0];
    return total;
}

const dn_cpu_kernels DN_KERNELS_NAME = {
    .isa = DN_ISA_NAME,
    .lanes = DN_LANES,
    .panel = 2 * DN_LANES,
    .tile_rows = DN_TILE_ROWS,
    .gemm = DN_GEMM_NAME,
    .channel_sums = channel_sums,
    .normalize = normalize,
    .layer_norm = layer_norm,
    .attend = attend,
    .activate = activate_all,
    .winograd_input = winograd_input,
    .winograd_output = winograd_output,
    .winograd_taps = winograd_taps,
    .tap_tiles = TAP_TILES,
    .multiply_add_probe = multiply_add_probe,
};
