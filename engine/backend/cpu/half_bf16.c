/* Products in bfloat16 for CPUs with AVX512_BF16: gemm.inc.c with an instruction that multiplies pairs and adds both products to a
 * float. Weights and rows are rounded to nearest even; the instruction takes numbers below 2^-126 as 0. Any thread. */
#include <immintrin.h>

#include "backend/cpu/half.h"
#include "base/half.h"

#define DN_LANES 16
#define DN_TILE_ROWS 14
#define DN_GEMM_NAME dn_cpu_gemm_bf16
#define DN_MULTIPLY_ADD(sum, x, b) sum = (vec)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)_mm512_set1_ps(x), (__m512bh)(b))
#include "backend/cpu/gemm.inc.c"

#define SLOT_DEPTH 2u

static void convert(float *to, size_t row_slots, const float *from, size_t rows, size_t depth)
{
    const size_t steps = (depth + SLOT_DEPTH - 1) / SLOT_DEPTH;
    for (size_t r = 0; r < rows; r++, to += row_slots, from += depth) {
        for (size_t s = 0; s < steps; s += DN_LANES) {
            const size_t at = SLOT_DEPTH * s, rest = depth - at;
            const vec low = load_some(from + at, rest);
            const vec high = rest > DN_LANES ? load_some(from + at + DN_LANES, rest - DN_LANES) : splat(0.0f);
            /* Whole lines: a row ends in as many. */
            store(to + s, (vec)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
        }
    }
}

static void pack(float *to, const float *weight, size_t depth)
{
    for (size_t j = 0; j < PANEL; j++, weight += depth) {
        for (size_t d = 0; d < depth; d += SLOT_DEPTH) {
            const uint32_t first = dn_f32_to_bf16(weight[d]), second = d + 1 < depth ? dn_f32_to_bf16(weight[d + 1]) : 0;
            const uint32_t slot = first | second << 16;
            memcpy(to + d / SLOT_DEPTH * PANEL + j, &slot, sizeof slot);
        }
    }
}

const dn_cpu_half dn_cpu_half_bf16 = {
    .precision = DN_PRECISION_BF16,
    .slot_depth = SLOT_DEPTH,
    .tile_rows = DN_TILE_ROWS,
    .panel = PANEL,
    .panel_slots = PANEL,
    .gemm = dn_cpu_gemm_bf16,
    .convert = convert,
    .pack = pack,
};
