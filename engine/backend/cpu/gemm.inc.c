/* The matrix product of every instruction set: a microkernel of DN_TILE_ROWS x 2 vectors whose sums live in registers.
 *
 * Invariant: each output element is one chain of multiply-adds over its depth, in order, then one fixed epilogue, so a
 * row's bytes do not depend on which rows and columns are computed with it. Any thread. The including file defines
 * DN_LANES, DN_TILE_ROWS (4, 6, 8 or 14) and DN_GEMM_NAME; and DN_MULTIPLY_ADD where an element is more than a float. */
#include "backend/cpu/kernels.h"
#include "backend/cpu/vector.inc.h"
#include "backend/cpu/tile.inc.h"

#define PANEL_FLOATS PANEL
#define PANEL_EXTRA 0
#define LINE_FLOATS 16u /* of one cache line */
#ifndef DN_MULTIPLY_ADD
#define DN_MULTIPLY_ADD(sum, x, b) sum += (x) * (b)
#endif

#define MULTIPLY_ADD(i, p, o)                                                                                                              \
    if (mr > i) {                                                                                                                          \
        const float x = p[(o)*stride];                                                                                                     \
        DN_MULTIPLY_ADD(low##i, x, b_low);                                                                                                 \
        if (nv > 1)                                                                                                                        \
            DN_MULTIPLY_ADD(high##i, x, b_high);                                                                                           \
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
