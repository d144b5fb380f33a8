/* The matrix product of every instruction set: a microkernel of DN_TILE_ROWS x 2 vectors whose sums live in registers.
 *
 * Invariant: each output element is one chain of multiply-adds over its depth, in order, then one fixed epilogue, so a
 * row's bytes do not depend on which rows and columns are computed with it. Any thread. The including file defines
 * DN_LANES, DN_TILE_ROWS (4, 6, 8 or 14) and DN_GEMM_NAME; and DN_MULTIPLY_ADD where an element is more than a float. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vector.inc.h"

#define PANEL (2 * DN_LANES)
#define PANEL_FLOATS PANEL
#define PANEL_EXTRA 0
#define LINE_FLOATS 16u /* of one cache line */
#ifndef DN_MULTIPLY_ADD
#define DN_MULTIPLY_ADD(sum, x, b) sum += (x) * (b)
#endif

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
        DN_MULTIPLY_ADD(low##i, x, b_low);                                                                                                 \
        if (nv > 1)                                                                                                                        \
            DN_MULTIPLY_ADD(high##i, x, b_high);                                                                                           \
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

#include "backend/cpu/gemm_tiles.inc.c"
