/* The matrix product of every instruction set: a microkernel of DN_TILE_ROWS x 2 vectors whose sums live in registers.
 *
 * Invariant: each output element is one chain of multiply-adds over its depth, in order, then one fixed epilogue, so a
 * row's bytes do not depend on which rows and columns are computed with it. Any thread. The including file defines
 * DN_LANES, DN_TILE_ROWS (4, 6, 8 or 14) and DN_GEMM_NAME. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vector.inc.h"

#define PANEL (2 * DN_LANES)
#define LINE_FLOATS 16u /* of one cache line */

/* Rows are reached from every third row's pointer, as base, base + stride and base + 2 * stride: x86 addresses these
 * directly, so 14 rows need 5 pointers. */
#define EACH_ROW_4(X) X(0, p0, 0) X(1, p0, 1) X(2, p0, 2) X(3, p3, 0)
#define EACH_ROW_6(X) EACH_ROW_4(X) X(4, p3, 1) X(5, p3, 2)
#define EACH_ROW_8(X) EACH_ROW_6(X) X(6, p6, 0) X(7, p6, 1)
#define EACH_ROW_14(X)                                                                                                                     \
    EACH_ROW_8(X)                                                                                                                          \
    X(8, p6, 2) X(9, p9, 0) X(10, p9, 1) X(11, p9, 2) X(12, p12, 0) X(13, p12, 1)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define EACH_ROW JOIN(EACH_ROW_, DN_TILE_ROWS)

#define DECLARE_SUMS(i, p, o) vec low##i = {0}, high##i = {0};
#define MULTIPLY_ADD(i, p, o)                                                                                                              \
    if (mr > i) {                                                                                                                          \
        const float x = p[(o)*stride];                                                                                                     \
        low##i += x * b_low;                                                                                                               \
        if (nv > 1)                                                                                                                        \
            high##i += x * b_high;                                                                                                         \
    }
#define STORE_SUMS(i, p, o)                                                                                                                \
    if (mr > i) {                                                                                                                          \
        store(sums + (i)*sums_row, low##i);                                                                                                \
        if (nv > 1)                                                                                                                        \
            store(sums + (i)*sums_row + DN_LANES, high##i);                                                                                \
    }

/* Where the next panel is asked for while this one is multiplied by: a line at every step of the sum, so that a weight too
 * large for the caches is there when it is due (5 to 9 % faster then). step: floats, 0 to ask for nothing new. */
typedef struct fetch {
    const float *at;
    size_t step;
} fetch;

/* sums[mr][nv vectors] of mr rows at `a` against one panel of nv vectors. mr and nv are constants where inlined. */
INLINE void multiply(float *sums, size_t sums_row, const dn_gemm *g, const float *a, const float *b, fetch ahead, const int mr,
                     const int nv)
{
    EACH_ROW(DECLARE_SUMS)
    const size_t stride = g->a_row;
    for (size_t s = 0; s < g->segments; s++, a += g->a_segment) {
        const float *p0 = a, *p3 = a + 3 * stride, *p6 = a + 6 * stride, *p9 = a + 9 * stride, *p12 = a + 12 * stride;
        for (size_t k = g->k; k > 0; k--) {
            __builtin_prefetch(ahead.at, 0, 2);
            const vec b_low = load(b);
            const vec b_high = nv > 1 ? load(b + DN_LANES) : b_low;
            EACH_ROW(MULTIPLY_ADD)
            b += nv * DN_LANES;
            p0++, p3++, p6++, p9++, p12++, ahead.at += ahead.step;
        }
    }
    EACH_ROW(STORE_SUMS)
}

typedef void multiply_function(float *sums, size_t sums_row, const dn_gemm *g, const float *a, const float *b, fetch ahead);

#define DEFINE_MULTIPLY(i, p, o)                                                                                                           \
    static void multiply_##i##_wide(float *sums, size_t sums_row, const dn_gemm *g, const float *a, const float *b, fetch ahead)           \
    {                                                                                                                                      \
        multiply(sums, sums_row, g, a, b, ahead, i + 1, 2);                                                                                \
    }                                                                                                                                      \
    static void multiply_##i##_narrow(float *sums, size_t sums_row, const dn_gemm *g, const float *a, const float *b, fetch ahead)         \
    {                                                                                                                                      \
        multiply(sums, sums_row, g, a, b, ahead, i + 1, 1);                                                                                \
    }
EACH_ROW(DEFINE_MULTIPLY)
#define NAME_WIDE(i, p, o) multiply_##i##_wide,
#define NAME_NARROW(i, p, o) multiply_##i##_narrow,
static multiply_function *const multiply_wide[] = {EACH_ROW(NAME_WIDE)};
static multiply_function *const multiply_narrow[] = {EACH_ROW(NAME_NARROW)};

/* Where one tile's outputs go: columns `column` .. `column + width - 1`. */
typedef struct tile_target {
    float *out;
    const float *residual;
    size_t column, width;
} tile_target;

/* Bias, per-row bias, residual, scale and activation, in this order, from the tile to the output. */
static void finish(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target)
{
    for (size_t j = 0; j < target->width; j += DN_LANES) {
        const size_t lanes = target->width - j, column = target->column + j;
        const vec bias = g->bias ? load_some(g->bias + column, lanes) : splat(0.0f);
        const vec row_bias = g->row_bias ? load_some(g->row_bias + column, lanes) : splat(0.0f);
        for (size_t i = 0; i < rows; i++) {
            vec y = load(tile + i * PANEL + j) + bias;
            y += row_bias;
            if (g->residual)
                y += load_some(target->residual + i * g->residual_row + column, lanes);
            y *= g->scale;
            store_some(target->out + i * g->out_row + column, activate(y, g->activation), lanes);
        }
    }
}

/* Bias and activation, then the gate, then the residual. */
static void finish_gated(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target)
{
    for (size_t j = 0; j < target->width; j += DN_LANES) {
        const size_t lanes = target->width - j, column = target->column + j;
        const vec bias = g->bias ? load_some(g->bias + column, lanes) : splat(0.0f);
        const vec gate = load_some(g->gate + column, lanes);
        for (size_t i = 0; i < rows; i++) {
            const vec y = activate(load(tile + i * PANEL + j) + bias, g->activation);
            const vec residual = load_some(target->residual + i * g->residual_row + column, lanes);
            store_some(target->out + i * g->out_row + column, residual + gate * y, lanes);
        }
    }
}

/* Whole vectors, scaled and nothing else: attention's scores. Zero is added as finish adds it. */
static void finish_scaled(const dn_gemm *g, const float *tile, size_t rows, const tile_target *target)
{
    for (size_t i = 0; i < rows; i++, tile += PANEL) {
        float *out = target->out + i * g->out_row + target->column;
        for (size_t j = 0; j < target->width; j += DN_LANES)
            store(out + j, (load(tile + j) + 0.0f) * g->scale);
    }
}

/* Nothing to add and whole vectors to write. With a scale of 1 sums go straight to the output. */
static bool is_plain(const dn_gemm *g, size_t width)
{
    return !g->bias && !g->row_bias && !g->residual && !g->gate && g->activation == DN_ACT_NONE && width % DN_LANES == 0;
}

/* One line's rows, cut into tiles as even as possible, against one panel; the first tiles fetch the panel at `next`. A single
 * tile waits for memory as it is, and fetches nothing more. */
static void multiply_line(const dn_gemm *g, size_t line, const float *b, const float *next, size_t column, size_t width)
{
    float tile[DN_TILE_ROWS * PANEL] __attribute__((aligned(64)));
    const size_t tiles = (g->rows + DN_TILE_ROWS - 1) / DN_TILE_ROWS;
    multiply_function *const *table = width <= DN_LANES ? multiply_narrow : multiply_wide;
    const bool plain = is_plain(g, width);
    const size_t depth = g->segments * g->k;
    for (size_t t = 0; t < tiles; t++) {
        const size_t first = t * g->rows / tiles, count = (t + 1) * g->rows / tiles - first;
        const float *a = g->a + line * g->a_line + first * g->a_row;
        const bool fetches = tiles > 1 && t * LINE_FLOATS < PANEL;
        const fetch ahead = {fetches ? next + t * LINE_FLOATS * depth : b, fetches ? LINE_FLOATS : 0};
        const tile_target target = {
            .out = g->out + line * g->out_line + first * g->out_row,
            .residual = g->residual ? g->residual + line * g->residual_line + first * g->residual_row : NULL,
            .column = column,
            .width = width,
        };
        if (plain && g->scale == 1.0f) {
            table[count - 1](target.out + column, g->out_row, g, a, b, ahead);
        } else {
            table[count - 1](tile, PANEL, g, a, b, ahead);
            if (plain)
                finish_scaled(g, tile, count, &target);
            else if (g->gate)
                finish_gated(g, tile, count, &target);
            else
                finish(g, tile, count, &target);
        }
    }
}

void DN_GEMM_NAME(const dn_gemm *g, size_t panel_first, size_t panel_end)
{
    for (size_t panel = panel_first; panel < panel_end; panel++) {
        const size_t column = panel * PANEL;
        const size_t width = g->n - column < PANEL ? g->n - column : PANEL;
        const float *b = g->b + column * g->segments * g->k;
        const float *next = panel + 1 < panel_end ? b + PANEL * g->segments * g->k : b;
        for (size_t line = 0; line < g->lines; line++)
            multiply_line(g, line, b, line == 0 ? next : b, column, width);
    }
}
