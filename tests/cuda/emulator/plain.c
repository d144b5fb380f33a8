/* plain.h: every product is a panel of rows times packed weights. A panel holds PANEL rows of k floats (a convolution's patches, an
 * attention's queries); weights are packed once a run into columns of LANES, so that the inner loop is one load and PANEL products of
 * vectors. Sums run over k in order, whatever the panel, so that a row never depends on its neighbours. */
#include "plain.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/spec.h"
#include "base/half.h"

#pragma GCC optimize("O3")

#define LANES 16u
#define PANEL 6u

typedef float lanes __attribute__((vector_size(32), aligned(4), may_alias));

static float widen(dn_cuda_type type, const void *values, uint64_t i)
{
    if (type == DN_CUDA_F32)
        return ((const float *)values)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)values)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void widen_row(dn_cuda_type type, const void *values, uint64_t at, uint32_t count, float *out)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = widen(type, values, at + i);
}

static void store(dn_cuda_type type, void *values, uint64_t i, float value)
{
    if (type == DN_CUDA_F32)
        ((float *)values)[i] = value;
    else
        ((uint16_t *)values)[i] = dn_f32_to_bf16(value);
}

static uint64_t columns(uint32_t n)
{
    return ((uint64_t)n + LANES - 1) / LANES;
}

/* [n][k] with elements `step` from k to k and `pitch` from n to n, to [n / LANES][k][LANES] floats, zeros past n. */
static void pack(dn_cuda_type type, const void *values, uint64_t at, uint64_t pitch, uint64_t step, uint32_t n, uint32_t k, float *out)
{
    for (uint64_t column = 0; column < columns(n); column++) {
        for (uint32_t lane = 0; lane < LANES; lane++) {
            uint64_t row = column * LANES + lane;
            float *to = out + column * k * LANES + lane;
            for (uint32_t i = 0; i < k; i++)
                to[(uint64_t)i * LANES] = row < n ? widen(type, values, at + row * pitch + i * step) : 0.0f;
        }
    }
}

/* sums[PANEL][LANES] = panel[PANEL][k] . column[k][LANES]. */
static inline __attribute__((always_inline)) void multiply_column(const float *panel, uint32_t k, const float *column, float *sums)
{
    lanes sum[PANEL][2] = {{{0}}};
    for (uint32_t i = 0; i < k; i++) {
        lanes low = *(const lanes *)(column + (size_t)i * LANES), high = *(const lanes *)(column + (size_t)i * LANES + LANES / 2);
#pragma GCC unroll 6
        for (uint32_t r = 0; r < PANEL; r++) {
            float value = panel[(size_t)r * k + i];
            sum[r][0] += value * low;
            sum[r][1] += value * high;
        }
    }
    for (uint32_t r = 0; r < PANEL; r++) {
        memcpy(sums + (size_t)r * LANES, &sum[r][0], sizeof sum[r][0]);
        memcpy(sums + (size_t)r * LANES + LANES / 2, &sum[r][1], sizeof sum[r][1]);
    }
}

static void multiply_plain(const float *panel, uint32_t k, const float *column, float *sums)
{
    multiply_column(panel, k, column, sums);
}

#ifdef __x86_64__
/* The same sums, without fused multiply-adds: the same bytes. */
__attribute__((target("avx2"))) static void multiply_avx2(const float *panel, uint32_t k, const float *column, float *sums)
{
    multiply_column(panel, k, column, sums);
}
#endif

/* sums[PANEL][n to the next LANES] = panel . weights packed. */
static void multiply(const float *panel, uint32_t k, const float *weights, uint32_t n, float *sums)
{
    void (*column)(const float *, uint32_t, const float *, float *) = multiply_plain;
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2"))
        column = multiply_avx2;
#endif
    float block[PANEL * LANES];
    uint64_t pitch = columns(n) * LANES;
    for (uint64_t c = 0; c < columns(n); c++) {
        column(panel, k, weights + c * k * LANES, block);
        for (uint32_t r = 0; r < PANEL; r++)
            memcpy(sums + r * pitch + c * LANES, block + (size_t)r * LANES, LANES * sizeof *block);
    }
}

static float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

/* One pixel's sums to its place: the residual first, then the scale, the bias, the activation, then the one rounding. */
static void finish(const dn_plain_run *run, const float *sums, uint64_t at)
{
    const dn_cuda_product_spec *spec = &run->spec;
    for (uint32_t i = 0; i < spec->n; i++) {
        float sum = sums[i];
        if (spec->residual)
            sum += widen(spec->type, run->operands.residual, at + i);
        if (spec->scale != 0.0f)
            sum *= spec->scale;
        if (spec->bias)
            sum += widen(spec->type, run->operands.bias, i);
        store(spec->type, run->operands.out, at + i, spec->gelu_tanh ? gelu_tanh(sum) : sum);
    }
}

/* The inputs of output pixel (y, x) of a row: [kernel][kernel][k], zeros outside. A matrix product is a 1 x 1 convolution. */
static void patch(const dn_plain_run *run, uint64_t row, uint32_t y, uint32_t x, float *out)
{
    const dn_cuda_product_spec *spec = &run->spec;
    uint32_t kernel = spec->kind == DN_CUDA_CONV ? spec->kernel : 1, stride = spec->kind == DN_CUDA_CONV ? spec->stride : 1;
    for (uint32_t i = 0; i < kernel; i++) {
        for (uint32_t j = 0; j < kernel; j++, out += spec->k) {
            int64_t from_y = (int64_t)y * stride + i - spec->pad_top, from_x = (int64_t)x * stride + j - spec->pad_left;
            if (from_y < 0 || from_x < 0 || from_y >= spec->h || from_x >= spec->w)
                memset(out, 0, spec->k * sizeof *out);
            else
                widen_row(spec->type, run->operands.in, row + (uint64_t)(from_y * spec->w + from_x) * spec->k, spec->k, out);
        }
    }
}

static bool weighted(const dn_plain_run *run)
{
    const dn_cuda_product_spec *spec = &run->spec;
    bool conv = spec->kind == DN_CUDA_CONV;
    uint32_t out_w = conv ? spec->out_w : spec->w, out_h = conv ? spec->out_h : spec->h;
    uint32_t k = spec->k * (conv ? spec->kernel * spec->kernel : 1);
    uint64_t pixels = (uint64_t)out_w * out_h, all = pixels * run->rows;
    float *weights = malloc(columns(spec->n) * LANES * k * sizeof *weights);
    float *panel = calloc((size_t)PANEL * k, sizeof *panel), *sums = malloc(PANEL * columns(spec->n) * LANES * sizeof *sums);
    if (weights && panel && sums) {
        pack(spec->type, run->operands.weight, 0, k, 1, spec->n, k, weights);
        for (uint64_t first = 0; first < all; first += PANEL) {
            uint32_t count = all - first < PANEL ? (uint32_t)(all - first) : PANEL;
            for (uint32_t r = 0; r < count; r++) {
                uint64_t row = (first + r) / pixels, pixel = (first + r) % pixels;
                patch(run, row * dn_cuda_product_in_pitch(spec), (uint32_t)(pixel / out_w), (uint32_t)(pixel % out_w),
                      panel + (size_t)r * k);
            }
            multiply(panel, k, weights, spec->n, sums);
            for (uint32_t r = 0; r < count; r++) {
                uint64_t row = (first + r) / pixels, pixel = (first + r) % pixels;
                finish(run, sums + r * columns(spec->n) * LANES, row * dn_cuda_product_out_pitch(spec) + pixel * spec->n);
            }
        }
    }
    bool done = weights && panel && sums;
    free(weights);
    free(panel);
    free(sums);
    return done;
}

static void softmax(float *scores, uint32_t count, float scale)
{
    float top = scores[0], total = 0.0f;
    for (uint32_t i = 1; i < count; i++)
        top = scores[i] > top ? scores[i] : top;
    for (uint32_t i = 0; i < count; i++) {
        scores[i] = expf((scores[i] - top) * scale);
        total += scores[i];
    }
    for (uint32_t i = 0; i < count; i++)
        scores[i] /= total;
}

typedef struct attention_scratch {
    float *keys, *values, *queries, *scores, *sums;
} attention_scratch;

/* One head of one row. `at`: its first query's element. */
static void attend(const dn_plain_run *run, const attention_scratch *scratch, uint64_t at, uint64_t out_at)
{
    const dn_cuda_product_spec *spec = &run->spec;
    uint32_t positions = spec->h * spec->w, dim = spec->head_dim, width = spec->heads * dim;
    uint64_t pitch = columns(positions) * LANES;
    const void *in = run->operands.in;
    pack(spec->type, in, at + width, spec->in_pitch, 1, positions, dim, scratch->keys);
    pack(spec->type, in, at + 2 * (uint64_t)width, 1, spec->in_pitch, dim, positions, scratch->values);
    for (uint32_t first = 0; first < positions; first += PANEL) {
        uint32_t count = positions - first < PANEL ? positions - first : PANEL;
        for (uint32_t r = 0; r < count; r++)
            widen_row(spec->type, in, at + (uint64_t)(first + r) * spec->in_pitch, dim, scratch->queries + (size_t)r * dim);
        multiply(scratch->queries, dim, scratch->keys, positions, scratch->sums);
        for (uint32_t r = 0; r < count; r++) {
            memcpy(scratch->scores + (size_t)r * positions, scratch->sums + r * pitch, positions * sizeof(float));
            softmax(scratch->scores + (size_t)r * positions, positions, 1.0f / sqrtf((float)dim));
        }
        multiply(scratch->scores, positions, scratch->values, dim, scratch->sums);
        for (uint32_t r = 0; r < count; r++) {
            for (uint32_t i = 0; i < dim; i++)
                store(spec->type, run->operands.out, out_at + (uint64_t)(first + r) * width + i,
                      scratch->sums[r * columns(dim) * LANES + i]);
        }
    }
}

static bool attention(const dn_plain_run *run)
{
    const dn_cuda_product_spec *spec = &run->spec;
    uint32_t positions = spec->h * spec->w, dim = spec->head_dim;
    uint64_t wide = columns(positions > dim ? positions : dim) * LANES;
    attention_scratch scratch = {
        .keys = malloc(columns(positions) * LANES * dim * sizeof(float)),
        .values = malloc(columns(dim) * LANES * positions * sizeof(float)),
        .queries = calloc((size_t)PANEL * dim, sizeof(float)),
        .scores = calloc((size_t)PANEL * positions, sizeof(float)),
        .sums = malloc(PANEL * wide * sizeof(float)),
    };
    bool done = scratch.keys && scratch.values && scratch.queries && scratch.scores && scratch.sums;
    for (uint32_t row = 0; done && row < run->rows; row++) {
        for (uint32_t head = 0; head < spec->heads; head++)
            attend(run, &scratch, row * dn_cuda_product_in_pitch(spec) + (uint64_t)head * dim,
                   row * dn_cuda_product_out_pitch(spec) + (uint64_t)head * dim);
    }
    free(scratch.keys);
    free(scratch.values);
    free(scratch.queries);
    free(scratch.scores);
    free(scratch.sums);
    return done;
}

bool dn_plain_product(const dn_plain_run *run)
{
    if (run->workspace)
        memset(run->operands.workspace, 0xFF, run->workspace);
    return run->spec.kind == DN_CUDA_SDPA ? attention(run) : weighted(run);
}
