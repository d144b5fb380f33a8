/* Products in 16 bits: how their operands lie, and the kernels that multiply them.
 *
 * Converted rows and packed weights are counted in slots of 32 bits, which take the place of floats in a dn_gemm: a slot of bf16 holds
 * two neighbours along the sum, a slot of fp16 the same number twice (so that one 32-bit broadcast fills a vector). Sums leave the
 * kernels in float and go through the same epilogue as everywhere. */
#ifndef DN_BACKEND_CPU_HALF_H
#define DN_BACKEND_CPU_HALF_H

#include "backend/cpu/state.h"

typedef struct dn_cpu_half {
    dn_precision precision;
    size_t slot_depth; /* of the sum, that one slot holds: bf16 2, fp16 1 */
    size_t tile_rows; /* of the microkernel */
    size_t panel; /* columns; the matrix has whole panels alone */
    size_t panel_slots; /* of one step of the sum: what the columns of a panel take */
    size_t panel_extra; /* slots behind a panel's last step: fp16 keeps the columns' scales there */
    size_t row_extra; /* slots behind a converted row: fp16 keeps the row's scale there */
    void (*gemm)(const dn_gemm *gemm, size_t panel_first, size_t panel_end);
    /* Rows of `depth` floats to slots, row_slots apart (dn_cpu_half_row_slots). A row's slots depend on that row alone. */
    void (*convert)(float *to, size_t row_slots, const float *from, size_t rows, size_t depth);
    /* One panel of a weight [outputs][depth], its columns (outputs) first; whole panels. */
    void (*pack)(float *to, const float *weight, size_t depth);
} dn_cpu_half;

extern const dn_cpu_half dn_cpu_half_bf16, dn_cpu_half_fp16;

void dn_cpu_gemm_bf16(const dn_gemm *gemm, size_t panel_first, size_t panel_end);
void dn_cpu_gemm_fp16(const dn_gemm *gemm, size_t panel_first, size_t panel_end);

/* NULL: fp32, or a precision that precision_check refuses. */
const dn_cpu_half *dn_cpu_half_of(const dn_device *device, dn_precision precision);

static inline size_t dn_cpu_half_steps(const dn_cpu_half *half, size_t depth)
{
    return (depth + half->slot_depth - 1) / half->slot_depth;
}

/* Slots of a packed [depth, outputs] matrix. */
static inline size_t dn_cpu_half_packed_count(const dn_cpu_half *half, size_t depth, size_t outputs)
{
    return outputs / half->panel * (dn_cpu_half_steps(half, depth) * half->panel_slots + half->panel_extra);
}

/* Whole cache lines, and an odd number of them: rows that lie a power of two apart would fight for the same cache sets. */
static inline size_t dn_cpu_half_row_slots(const dn_cpu_half *half, size_t depth)
{
    size_t lines = (dn_cpu_half_steps(half, depth) + half->row_extra + DN_CPU_LINE_FLOATS - 1) / DN_CPU_LINE_FLOATS;
    return (lines | 1) * DN_CPU_LINE_FLOATS;
}

void dn_cpu_half_pack(float *packed, const dn_cpu_half *half, const float *weight, size_t depth, size_t outputs);

#endif
