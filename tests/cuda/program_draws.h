/* Operations of register programs by chance, for tests that compare the emulated GPU's with the CPU's. */
#ifndef DN_TESTS_CUDA_PROGRAM_DRAWS_H
#define DN_TESTS_CUDA_PROGRAM_DRAWS_H

#include "tests/cuda/device_check.h"

#define KINDS ((uint32_t)DN_OP_EXP_SCALE + 1)

/* The kinds whose bytes are the CPU's. Quantiles are exact, so thresholds are too. */
static inline bool kind_is_bitwise(uint32_t kind)
{
    return kind == DN_OP_LINEAR || kind == DN_OP_NOISE || kind == DN_OP_CLIP || kind == DN_OP_THRESHOLD || kind == DN_OP_SELECT ||
           kind == DN_OP_BLEND || kind == DN_OP_ACCEPT || kind == DN_OP_EXP_SCALE;
}

static inline bool kind_gives_scalar(uint32_t kind)
{
    return kind == DN_OP_NORM || kind == DN_OP_ERROR_NORM;
}

static inline dn_op draw_op(uint32_t kind, uint32_t registers, size_t elements)
{
    dn_op op = {.kind = (dn_op_kind)kind, .dst = chance(0, registers - 1), .terms = chance(1, DN_OP_TERMS_MAX)};
    for (uint32_t t = 0; t < DN_OP_TERMS_MAX; t++) {
        op.src[t] = chance(0, registers - 1);
        op.coefficient[t] = chance_float();
    }
    op.low = -1.5f * fabsf(chance_float());
    op.high = 1.5f * fabsf(chance_float());
    op.ratio = fabsf(chance_float());
    op.split = chance(0, (uint32_t)elements + 1);
    op.seed = ((uint64_t)chance(0, UINT32_MAX - 1) << 32) | chance(0, UINT32_MAX - 1);
    op.stream = (dn_noise_stream)chance(0, 5);
    op.draw = chance(0, 100000);
    switch (kind) {
    case DN_OP_THRESHOLD:
        op.high = 1.0f + 2.0f * op.high;
        break;
    case DN_OP_ERROR_NORM:
        op.low = 0.01f - op.low;
        break;
    case DN_OP_PROJECT:
        op.low = chance(0, 1) ? 0.0f : -10.0f * op.low;
        break;
    case DN_OP_LANGEVIN:
        op.low = -0.1f * op.low;
        break;
    default:
        break;
    }
    return op;
}

#endif
