/* The backward run of some rows, written once for `real`. Includers define real, VECTOR_BYTES, TILE (pixels or channels a
 * register tile spans), RUN (the run's type) and EXPONENTIAL, and publish backward_rows, pack and unpack in a table.
 * Everything is static: one copy for each precision and instruction set. */
#include <math.h>
#include <string.h>

#include "train/backward.h"

#define LANES ((int)(VECTOR_BYTES / sizeof(real)))
#define INLINE static inline __attribute__((always_inline))
/* Loads and stores may be unaligned: rows of odd widths are not padded in memory. */
typedef real vec __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(real)), may_alias));

/* One node of the row: operands and their gradients resolved; absent or unwanted ones are NULL. */
typedef struct step {
    const RUN *run;
    const dn_node *node;
    dn_shape to, from; /* shapes of out and in[0] */
    const real *in[3];
    const real *d_out;
    real *d_in[3];
    const real *weight, *bias; /* packed */
    real *d_weight, *d_bias; /* packed */
    uint32_t stride; /* of a packed weight row */
    bool winograd; /* weight and d_weight are points */
    real *scratch; /* what is left of the run's scratch */
} step;

/* A slice of scratch for the rest of this node; packing.c counted the same slices. */
static real *take(step *s, size_t count)
{
    real *slice = s->scratch;
    s->scratch += (count + 63) / 64 * 64;
    return slice;
}

/* x becomes the activation's slope at x, times d. SiLU is everywhere in U-Nets: it alone is worth vector code. */
static void activation_backward(dn_activation activation, real *restrict x, const real *restrict d, size_t count)
{
    if (activation == DN_ACT_NONE) {
        memcpy(x, d, count * sizeof *x);
    } else if (activation == DN_ACT_SILU) {
        for (size_t i = 0; i < count; i++) {
            real sigmoid = 1 / (1 + EXPONENTIAL(-x[i]));
            x[i] = d[i] * sigmoid * (1 + x[i] * (1 - sigmoid));
        }
    } else {
        for (size_t i = 0; i < count; i++) {
            x[i] = d[i] * (real)dn_activation_slope(activation, (double)x[i]);
        }
    }
}

static void add_to(real *restrict out, const real *restrict in, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] += in[i];
    }
}

/* What adds up down the pixels goes by blocks of channels, whose sums stay in registers: f(first, width) for each, the width of whole blocks
 * being known when it is compiled. */
#define BLOCK ((uint32_t)(2 * LANES))
#define BY_BLOCKS(channels, f, ...)                                                                                                        \
    do {                                                                                                                                   \
        uint32_t first_ = 0;                                                                                                               \
        for (; first_ + BLOCK <= (channels); first_ += BLOCK)                                                                              \
            f(__VA_ARGS__, first_, BLOCK);                                                                                                 \
        if (first_ < (channels))                                                                                                           \
            f(__VA_ARGS__, first_, (channels)-first_);                                                                                     \
    } while (0)

INLINE void add_block(real *restrict out, const real *restrict in, size_t pixels, uint32_t channels, uint32_t first, uint32_t width)
{
    real sum[BLOCK];
    memcpy(sum, out + first, width * sizeof *sum);
    for (size_t p = 0; p < pixels; p++) {
        for (uint32_t c = 0; c < width; c++) {
            sum[c] += in[p * channels + first + c];
        }
    }
    memcpy(out + first, sum, width * sizeof *sum);
}

/* out[c] += sum over pixels of in[p][c]. */
static void add_pixels(real *restrict out, const real *restrict in, size_t pixels, uint32_t channels)
{
    BY_BLOCKS(channels, add_block, out, in, pixels, channels);
}

#include "train/backward_conv.inc.c"
#include "train/backward_linear.inc.c"
#include "train/backward_norm.inc.c"
#include "train/backward_attention.inc.c"
#include "train/backward_shape.inc.c"
#include "train/backward_embedding.inc.c"

static void (*const backward_kind[DN_NODE_KINDS])(step *) = {
    [DN_NODE_AFFINE] = backward_affine,
    [DN_NODE_CONV] = backward_conv,
    [DN_NODE_LINEAR] = backward_linear,
    [DN_NODE_GROUP_NORM] = backward_group_norm,
    [DN_NODE_ATTENTION] = backward_attention,
    [DN_NODE_LAYER_NORM] = backward_layer_norm,
    [DN_NODE_TIME_EMBEDDING] = NULL, /* nothing flows into a time or a class number */
    [DN_NODE_CLASS_SINUSOID] = NULL,
    [DN_NODE_FOURIER_EMBEDDING] = backward_fourier_embedding,
    [DN_NODE_TIME_TABLE] = backward_time_table,
    [DN_NODE_CLASS_EMBEDDING] = backward_class_embedding,
    [DN_NODE_UPSAMPLE_NEAREST2] = backward_upsample,
    [DN_NODE_AVERAGE_POOL2] = backward_average_pool,
    [DN_NODE_UPSAMPLE_FIR2] = backward_fir,
    [DN_NODE_DOWNSAMPLE_FIR2] = backward_fir,
    [DN_NODE_POSITION] = backward_position,
    [DN_NODE_UNPATCHIFY] = backward_unpatchify,
    [DN_NODE_DIVIDE_BY_TIME] = backward_divide_by_time,
    [DN_NODE_CONCAT] = backward_concat,
    [DN_NODE_GLOBAL_POOL] = backward_global_pool,
    [DN_NODE_ACTIVATION] = backward_activation,
};

static void resolve(step *s, const RUN *run, const dn_node *node)
{
    const dn_packing *packing = run->packing;
    const dn_plan *plan = packing->plan;
    *s = (step){.run = run, .node = node, .to = plan->values[node->out].shape, .d_out = run->gradients[node->out], .scratch = run->scratch};
    for (int i = 0; i < 3; i++) {
        if (node->in[i] != DN_NONE) {
            s->in[i] = run->values[node->in[i]];
            s->d_in[i] = node->in[i] != plan->input || run->input_gradient ? run->gradients[node->in[i]] : NULL;
        }
    }
    if (node->in[0] != DN_NONE) {
        s->from = plan->values[node->in[0]].shape;
    }
    if (node->weight != DN_NONE) {
        s->weight = run->packed + packing->weights[node->weight].offset;
        s->d_weight = run->packed_gradient ? run->packed_gradient + packing->weights[node->weight].offset : NULL;
        s->stride = packing->weights[node->weight].stride;
        s->winograd = packing->weights[node->weight].winograd;
    }
    if (node->bias != DN_NONE) {
        s->bias = run->packed + packing->weights[node->bias].offset;
        s->d_bias = run->packed_gradient ? run->packed_gradient + packing->weights[node->bias].offset : NULL;
    }
}

static void backward_rows(const RUN *runs, uint32_t count)
{
    const dn_plan *plan = runs->packing->plan;
    for (uint32_t r = 0; r < count; r++) {
        for (uint32_t v = 0; v < plan->value_count; v++) {
            if (v != plan->output) {
                memset(runs[r].gradients[v], 0, dn_shape_count(plan->values[v].shape) * sizeof(real));
            }
        }
    }
    for (uint32_t n = plan->node_count; n-- > 0;) {
        step rows[DN_BACKWARD_ROWS] = {0};
        for (uint32_t r = 0; r < count; r++) {
            resolve(&rows[r], &runs[r], &plan->nodes[n]);
            rows[r].scratch = runs->scratch;
        }
        if (rows->winograd) {
            conv_winograd(rows, count);
            continue;
        }
        for (uint32_t r = 0; r < count && backward_kind[plan->nodes[n].kind]; r++) {
            backward_kind[plan->nodes[n].kind](&rows[r]);
        }
    }
}

/* [rows][columns][taps] of the checkpoint <-> [taps][rows][stride]. */
static void pack(const dn_packing *packing, const real *const *weights, real *packed)
{
    for (uint32_t w = 0; w < packing->plan->weight_count; w++) {
        const dn_packed_weight *p = &packing->weights[w];
        real *to = packed + p->offset;
        for (size_t i = 0; p->winograd && i < (size_t)p->rows * p->columns; i++) {
            pack_points(to + i, (size_t)p->rows * p->stride, weights[w] + 9 * i);
        }
        for (size_t t = 0; !p->winograd && t < p->taps; t++) {
            for (size_t r = 0; r < p->rows; r++) {
                for (size_t c = 0; c < p->columns; c++) {
                    to[(t * p->rows + r) * p->stride + c] = weights[w][(r * p->columns + c) * p->taps + t];
                }
            }
        }
    }
}

static void unpack(const dn_packing *packing, const real *packed, real *const *weights)
{
    for (uint32_t w = 0; w < packing->plan->weight_count; w++) {
        const dn_packed_weight *p = &packing->weights[w];
        const real *from = packed + p->offset;
        for (size_t i = 0; p->winograd && i < (size_t)p->rows * p->columns; i++) {
            unpack_points(weights[w] + 9 * i, from + i, (size_t)p->rows * p->stride);
        }
        for (size_t r = 0; !p->winograd && r < p->rows; r++) {
            for (size_t c = 0; c < p->columns; c++) {
                for (size_t t = 0; t < p->taps; t++) {
                    weights[w][(r * p->columns + c) * p->taps + t] = from[(t * p->rows + r) * p->stride + c];
                }
            }
        }
    }
}
