/* The plan: a network written once, as a list of fused nodes over values and weights.
 *
 * A model file builds a plan from its configuration; a back end compiles and runs it; training runs the same nodes
 * backward. A plan knows shapes and names and nothing of how a node is computed. It is immutable once built.
 *
 * Values are per row (per image): [H,W,C] in NHWC order, vectors are 1 x 1 x C. Nodes are in execution order and each
 * value is written by exactly one node (or is an input). Weights are named as in the checkpoint (diffusers' names). */
#ifndef DN_PLAN_PLAN_H
#define DN_PLAN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"

#define DN_NONE UINT32_MAX          /* no value, no weight */
#define DN_WEIGHT_PARTS_MAX 4

typedef uint32_t dn_value;          /* index into plan->values */
typedef uint32_t dn_weight;         /* index into plan->weights */

typedef struct dn_shape {
    uint32_t h, w, c;
} dn_shape;

typedef enum dn_activation { DN_ACT_NONE, DN_ACT_SILU, DN_ACT_GELU, DN_ACT_GELU_TANH, DN_ACT_RELU, DN_ACT_MISH } dn_activation;

typedef enum dn_node_kind {
    /* in[0]: the sample row as the caller gave it ([H,W,C] of the plan's input). out = a * in + b (center_input_sample: 2x-1). */
    DN_NODE_AFFINE,
    /* out[H',W',O] = (conv(in[0], weight[O,I,kh,kw]) + bias[O] + in[1][O] (per-row bias, optional) + in[2] (residual of
     * out's shape, optional)) * scale. Cross-correlation, zero padding, as torch's conv2d. */
    DN_NODE_CONV,
    /* out[h,w,O] = act((in[0] . weight[O,I]^T + bias[O] + in[1] (residual of out's shape, optional)) * scale), each pixel alone.
     * With in[2] (a vector; its elements gate_offset..gate_offset+O-1 are the gate g[O], of the row, one for all pixels), instead:
     * out = in[1] + g * act(in[0] . weight^T + bias), where in[1] is needed and scale is 1 (adaLN-Zero). */
    DN_NODE_LINEAR,
    /* out = act(groupnorm(in[0]) * weight[C] + bias[C]), then, if in[1] (vector 2C = scale, shift) is given:
     * act((groupnorm * weight + bias) * (1 + scale) + shift). Biased variance over (h, w, C/groups), eps inside the root. */
    DN_NODE_GROUP_NORM,
    /* out[h,w,:] = y * (1 + m[scale_offset..]) + m[shift_offset..], y = (in[0] - mean) / sqrt(variance + epsilon) over the C channels of
     * each pixel (biased variance), times weight[C] plus bias[C] where present. m = in[1], a vector of the row; DN_NONE: out = y. */
    DN_NODE_LAYER_NORM,
    /* out[h,w,C] = softmax(q k^T / sqrt(C/heads)) v over the h*w positions, per head. in[0] = [h,w,3C]: q, k, v stacked. */
    DN_NODE_ATTENTION,
    /* out[dim] = sinusoid of the row's time: e = exp(-ln(max_period) * i / (dim/2 - freq_shift)), cat[sin, cos], flipped to
     * [cos, sin] if flip_sin_to_cos. Computed in double, rounded once. No value inputs. */
    DN_NODE_TIME_EMBEDDING,
    /* The same sinusoid of the class numbers: out[dim] = sum over the row's condition of weight * sinusoid(class)
     * (class_embed_type "timestep"). */
    DN_NODE_CLASS_SINUSOID,
    /* out[2n] = cat[sin(a), cos(a)] (flipped: [cos, sin]), a = 2 pi f weight[n], f = log(time) with log_time, else time (time_embedding_type
     * "fourier"; weight = time_proj.weight). In double, rounded once. No value inputs. */
    DN_NODE_FOURIER_EMBEDDING,
    /* out[D] = weight[rows,D] at the row's time, a whole number below rows (time_embedding_type "learned"). No value inputs. */
    DN_NODE_TIME_TABLE,
    /* out[D] = sum over the row's condition of weight * table[class] (weight[rows,D]). No value inputs. */
    DN_NODE_CLASS_EMBEDDING,
    /* Nearest-neighbour doubling, or 2x2 averaging. */
    DN_NODE_UPSAMPLE_NEAREST2,
    DN_NODE_AVERAGE_POOL2,
    /* Doubling or halving through the separable filter f = [1,3,3,1] / 8, every channel alone, zero padding (NCSN++; upfirdn2d of
     * StyleGAN2). Up, gain 4: out[j] = 2 sum_k f[k] u[j - pad_top + k] along each axis, u[2i] = in[i], u[2i+1] = 0; down:
     * out[j] = sum_k f[k] in[2j - pad_top + k]. Sides: 2n + pad_top + pad_bottom - 3; (n + pad_top + pad_bottom - 4) / 2 + 1.
     * Pads (2,1) up and (1,1) down (diffusers' FirUpsample2D, FirDownsample2D, upsample_2d and downsample_2d without a
     * convolution: all that its U-Net blocks use) double and halve exactly. Other pads serve a convolution fused beside the
     * filter (EDM's fused_resample: up with (3,2) then a conv without padding; conv with padding 2, then down with (0,0)). */
    DN_NODE_UPSAMPLE_FIR2,
    DN_NODE_DOWNSAMPLE_FIR2,
    /* out = in[0] + table[h,w,C], the two-dimensional sincos position embedding of DiT: first half of the channels from the column
     * (x / position_scale), second half from the row, each [sin, cos] at frequencies 10000^(-i/(C/4)); in double, rounded once. */
    DN_NODE_POSITION,
    /* [h,w,p*p*C] to [h*p,w*p,C], p = kernel; channels of the input in the order (row in patch, column in patch, channel). */
    DN_NODE_UNPATCHIFY,
    /* out = in[0] / the row's time (UNet2DModel's output with fourier embedding). */
    DN_NODE_DIVIDE_BY_TIME,
    /* out = in[0] then in[1] along channels. */
    DN_NODE_CONCAT,
    /* out[C] = act(mean over h, w of in[0]). */
    DN_NODE_GLOBAL_POOL,
    /* out = act(in[0]) where nothing could take the activation in. */
    DN_NODE_ACTIVATION,
    DN_NODE_KINDS
} dn_node_kind;

typedef struct dn_node {
    dn_node_kind kind;
    const char *name;            /* the diffusers module whose output this node's equals, or that module plus "+what" when fused */
    dn_value out;
    dn_value in[3];              /* DN_NONE where absent */
    dn_weight weight, bias;      /* DN_NONE where absent */
    dn_activation activation;
    float scale;                 /* conv, linear: after the sum; affine: a. 1 elsewhere */
    float shift;                 /* affine: b */
    uint32_t kernel, stride, pad_top, pad_left, pad_bottom, pad_right;   /* conv; kernel: unpatchify; pads: FIR */
    uint32_t groups;             /* group norm */
    float epsilon;               /* group norm, layer norm */
    uint32_t shift_offset, scale_offset;   /* layer norm: into in[1] */
    uint32_t gate_offset;        /* linear: into in[2] */
    float position_scale;        /* position */
    bool log_time;               /* fourier embedding */
    uint32_t heads;              /* attention */
    float freq_shift, max_period;/* time embedding */
    bool flip_sin_to_cos;
} dn_node;

typedef struct dn_value_info {
    dn_shape shape;
    uint32_t producer;           /* node index, or DN_NONE for the input */
    uint32_t last_use;           /* node index of the last reader; the output's is node_count */
} dn_value_info;

/* A weight is one tensor, or several stacked along dimension 0 (to_q, to_k, to_v). */
typedef struct dn_weight_info {
    uint32_t part_count;
    const char *parts[DN_WEIGHT_PARTS_MAX];   /* checkpoint names */
    uint32_t rank;                            /* 1, 2 or 4 */
    uint32_t dims[4];                         /* of the whole; parts have dims[0] / part_count */
    uint64_t count;
} dn_weight_info;

typedef struct dn_plan {
    dn_arena arena;
    dn_value input, output;      /* input: the sample [H,W,C]; output: [H,W,C'] or a vector */
    uint32_t class_rows;         /* rows of the class table; 0: the network takes no class */
    uint32_t time_rows;          /* rows of the time table: times are whole numbers below it; 0: any time */
    dn_node *nodes;
    uint32_t node_count, node_capacity;
    dn_value_info *values;
    uint32_t value_count, value_capacity;
    dn_weight_info *weights;
    uint32_t weight_count, weight_capacity;
} dn_plan;

/* Weights in float, in plan order and checkpoint layout (stacked parts contiguous). weights->data[w] has
 * plan->weights[w].count floats. One allocation, carved up. */
typedef struct dn_weights {
    uint32_t count;
    uint64_t total;              /* floats in all */
    float *storage;
    float **data;
} dn_weights;

dn_status dn_weights_create(dn_weights **out, const dn_plan *plan, dn_error *error);   /* zeroed */
void dn_weights_free(dn_weights *weights);
/* Gives the memory of weight w back before the others': its floats are lost. Different weights on any threads. */
void dn_weights_release(dn_weights *weights, const dn_plan *plan, uint32_t w);

static inline size_t dn_shape_count(dn_shape s)
{
    return (size_t)s.h * s.w * s.c;
}

/* ---- Building. A builder remembers its first failure, returns DN_NONE from then on, and reports it at the end, so a
 * model reads as straight-line code. Names are copied. */
typedef struct dn_plan_builder {
    dn_plan *plan;
    dn_error error;              /* status DN_OK while all is well */
} dn_plan_builder;

dn_status dn_plan_begin(dn_plan_builder *builder, dn_shape input, dn_error *error);
dn_status dn_plan_end(dn_plan **out, dn_plan_builder *builder, dn_value output, dn_error *error);   /* validates; consumes the builder */
void dn_plan_free(dn_plan *plan);

dn_shape dn_plan_shape(const dn_plan_builder *builder, dn_value value);

/* One weight of several tensors stacked along dimension 0 (or of one). tensors: whole names in the checkpoint. */
dn_weight dn_plan_weight_stacked(dn_plan_builder *builder, const char *const *tensors, uint32_t part_count, uint32_t rank, const uint32_t *dims);

typedef struct dn_conv_options {
    const char *module;          /* weights MODULE.weight [O,I,k,k] and MODULE.bias */
    const char *name;            /* trace name; NULL: module */
    uint32_t out_channels, kernel, stride;
    uint32_t pad_top, pad_left, pad_bottom, pad_right;
    bool no_bias;
    dn_value row_bias, residual; /* DN_NONE where absent: use DN_CONV_INIT */
    float scale;
} dn_conv_options;
#define DN_CONV_INIT                                                                                                                       \
    {.kernel = 3, .stride = 1, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1, .row_bias = DN_NONE, .residual = DN_NONE,     \
     .scale = 1.0f}
dn_value dn_plan_conv(dn_plan_builder *builder, dn_value in, const dn_conv_options *options);

typedef struct dn_linear_options {
    const char *const *modules;  /* 1..4 modules, outputs stacked; weights MODULE.weight [O/n,I] and MODULE.bias */
    uint32_t module_count;
    const char *name;            /* trace name; NULL: modules[0] */
    uint32_t out_channels;       /* in all */
    bool no_bias;
    dn_value residual;
    dn_value gate;               /* DN_NONE: none; else gate_offset into it, and a residual is needed */
    uint32_t gate_offset;
    float scale;
    dn_activation activation;
} dn_linear_options;
#define DN_LINEAR_INIT {.module_count = 1, .residual = DN_NONE, .gate = DN_NONE, .scale = 1.0f, .activation = DN_ACT_NONE}
dn_value dn_plan_linear(dn_plan_builder *builder, dn_value in, const dn_linear_options *options);

dn_value dn_plan_group_norm(dn_plan_builder *builder, dn_value in, const char *module, const char *name, uint32_t groups, float epsilon,
                            dn_value modulation, dn_activation activation);
/* module: NULL for a norm without weights. modulation: DN_NONE or a vector. */
dn_value dn_plan_layer_norm(dn_plan_builder *builder, dn_value in, const char *module, const char *name, float epsilon, dn_value modulation,
                            uint32_t shift_offset, uint32_t scale_offset);
dn_value dn_plan_attention(dn_plan_builder *builder, dn_value qkv, const char *name, uint32_t heads);
dn_value dn_plan_time_embedding(dn_plan_builder *builder, const char *name, uint32_t dim, float freq_shift, bool flip_sin_to_cos, float max_period);
dn_value dn_plan_class_embedding(dn_plan_builder *builder, const char *module, uint32_t rows, uint32_t dim);
dn_value dn_plan_class_sinusoid(dn_plan_builder *builder, const char *name, uint32_t class_rows, uint32_t dim, float freq_shift,
                                bool flip_sin_to_cos, float max_period);
/* tensor: the whole name of the frequencies [dim/2], e.g. "time_proj.weight". */
dn_value dn_plan_fourier_embedding(dn_plan_builder *builder, const char *tensor, const char *name, uint32_t dim, bool log_time,
                                   bool flip_sin_to_cos);
dn_value dn_plan_time_table(dn_plan_builder *builder, const char *module, uint32_t rows, uint32_t dim);
dn_value dn_plan_upsample_fir2(dn_plan_builder *builder, dn_value in, const char *name);
dn_value dn_plan_downsample_fir2(dn_plan_builder *builder, dn_value in, const char *name);
/* The same with other pads, each below 4. */
dn_value dn_plan_fir2(dn_plan_builder *builder, dn_value in, const char *name, bool up, uint32_t before, uint32_t after);
dn_value dn_plan_position(dn_plan_builder *builder, dn_value in, const char *name, float position_scale);
dn_value dn_plan_unpatchify(dn_plan_builder *builder, dn_value in, const char *name, uint32_t patch);
dn_value dn_plan_divide_by_time(dn_plan_builder *builder, dn_value in, const char *name);
dn_value dn_plan_affine(dn_plan_builder *builder, dn_value in, const char *name, float a, float b);
dn_value dn_plan_upsample_nearest2(dn_plan_builder *builder, dn_value in, const char *name);
dn_value dn_plan_average_pool2(dn_plan_builder *builder, dn_value in, const char *name);
dn_value dn_plan_concat(dn_plan_builder *builder, dn_value first, dn_value second, const char *name);
dn_value dn_plan_global_pool(dn_plan_builder *builder, dn_value in, const char *name, dn_activation activation);
dn_value dn_plan_activation(dn_plan_builder *builder, dn_value in, const char *name, dn_activation activation);

/* Multiply-adds times two of one row's forward pass (conv, linear, attention products). */
double dn_plan_flops(const dn_plan *plan);
double dn_plan_node_flops(const dn_plan *plan, uint32_t node);
uint64_t dn_plan_parameters(const dn_plan *plan);

#endif
