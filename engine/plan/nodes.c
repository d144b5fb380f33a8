/* One function for each kind of node: checks its inputs' shapes, names its weights, appends it.
 *
 * Invariant: a node is appended only when its inputs, weights and output fit each other. One thread. */
#include "plan/build.h"

#include <stdio.h>

#include "base/limits.h"

/* Every optional field absent, every factor neutral. */
static dn_node blank(dn_node_kind kind, dn_value in)
{
    return (dn_node){.kind = kind, .in = {in, DN_NONE, DN_NONE}, .weight = DN_NONE, .bias = DN_NONE, .scale = 1.0f};
}

static bool same_shape(dn_shape a, dn_shape b)
{
    return a.h == b.h && a.w == b.w && a.c == b.c;
}

/* An optional input that must have the given shape when present; true when it is absent or right. */
static bool fits(dn_plan_builder *builder, dn_value value, dn_shape shape, const char *name, const char *role)
{
    if (value == DN_NONE)
        return true;
    if (!dn_build_has(builder, value, name))
        return false;
    dn_shape have = builder->plan->values[value].shape;
    if (same_shape(have, shape))
        return true;
    dn_build_fail(builder, DN_INTERNAL, "%s: the %s is %ux%ux%u, not %ux%ux%u", name, role, have.h, have.w, have.c, shape.h, shape.w,
                  shape.c);
    return false;
}

/* Weight MODULE.SUFFIX of several modules stacked along dimension 0. */
static dn_weight module_weight(dn_plan_builder *builder, const char *const *modules, uint32_t count, const char *suffix, uint32_t rank,
                               const uint32_t *dims)
{
    char names[DN_WEIGHT_PARTS_MAX][DN_TENSOR_NAME_BYTES_MAX];
    const char *parts[DN_WEIGHT_PARTS_MAX] = {0};
    for (uint32_t p = 0; p < count; p++) {
        int length = snprintf(names[p], sizeof names[p], "%s.%s", modules[p], suffix);
        if (length < 0 || (size_t)length >= sizeof names[p])
            return dn_build_fail(builder, DN_INVALID, "%.64s...: the name is too long", modules[p]);
        parts[p] = names[p];
    }
    return dn_plan_weight_stacked(builder, parts, count, rank, dims);
}

/* The output side of a convolution, or 0 when the kernel does not fit. */
static uint32_t conv_side(uint32_t side, uint32_t before, uint32_t after, uint32_t kernel, uint32_t stride)
{
    uint64_t padded = (uint64_t)side + before + after;
    return padded < kernel ? 0 : (uint32_t)((padded - kernel) / stride + 1);
}

dn_value dn_plan_conv(dn_plan_builder *builder, dn_value in, const dn_conv_options *options)
{
    const char *name = options->name ? options->name : options->module;
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    const dn_conv_options *o = options;
    uint32_t pad_most = o->pad_top | o->pad_left | o->pad_bottom | o->pad_right;
    if (o->kernel == 0 || o->kernel > 63 || o->stride == 0 || o->stride > 64 || pad_most > 63 || o->out_channels == 0)
        return dn_build_fail(builder, DN_INTERNAL, "%s: kernel, stride, padding or channels out of range", name);
    dn_shape from = builder->plan->values[in].shape;
    dn_shape to = {conv_side(from.h, o->pad_top, o->pad_bottom, o->kernel, o->stride),
                   conv_side(from.w, o->pad_left, o->pad_right, o->kernel, o->stride), o->out_channels};
    if (to.h == 0 || to.w == 0)
        return dn_build_fail(builder, DN_INVALID, "%s: a %ux%u image is too small for a kernel of %u", name, from.h, from.w, o->kernel);
    if (!fits(builder, o->row_bias, (dn_shape){1, 1, to.c}, name, "per-row bias") || !fits(builder, o->residual, to, name, "residual"))
        return DN_NONE;
    dn_node node = blank(DN_NODE_CONV, in);
    node.in[1] = o->row_bias;
    node.in[2] = o->residual;
    node.scale = o->scale;
    node.kernel = o->kernel;
    node.stride = o->stride;
    node.pad_top = o->pad_top;
    node.pad_left = o->pad_left;
    node.pad_bottom = o->pad_bottom;
    node.pad_right = o->pad_right;
    node.weight = module_weight(builder, &o->module, 1, "weight", 4, (uint32_t[]){to.c, from.c, o->kernel, o->kernel});
    if (!o->no_bias)
        node.bias = module_weight(builder, &o->module, 1, "bias", 1, (uint32_t[]){to.c});
    return dn_build_node(builder, &node, name, to);
}

dn_value dn_plan_linear(dn_plan_builder *builder, dn_value in, const dn_linear_options *options)
{
    if (builder->error.status != DN_OK)
        return DN_NONE;
    if (options->module_count == 0 || options->module_count > DN_WEIGHT_PARTS_MAX || options->out_channels == 0)
        return dn_build_fail(builder, DN_INTERNAL, "a linear node has 1 to %d modules", DN_WEIGHT_PARTS_MAX);
    const char *name = options->name ? options->name : options->modules[0];
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape from = builder->plan->values[in].shape;
    dn_shape to = {from.h, from.w, options->out_channels};
    if (!fits(builder, options->residual, to, name, "residual"))
        return DN_NONE;
    dn_node node = blank(DN_NODE_LINEAR, in);
    node.in[1] = options->residual;
    node.scale = options->scale;
    node.activation = options->activation;
    node.weight = module_weight(builder, options->modules, options->module_count, "weight", 2, (uint32_t[]){to.c, from.c});
    if (!options->no_bias)
        node.bias = module_weight(builder, options->modules, options->module_count, "bias", 1, (uint32_t[]){to.c});
    return dn_build_node(builder, &node, name, to);
}

dn_value dn_plan_group_norm(dn_plan_builder *builder, dn_value in, const char *module, const char *name, uint32_t groups, float epsilon,
                            dn_value modulation, dn_activation activation)
{
    if (!name)
        name = module;
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape shape = builder->plan->values[in].shape;
    if (groups == 0 || shape.c % groups)
        return dn_build_fail(builder, DN_INVALID, "%s: %u channels do not split into %u groups", name, shape.c, groups);
    if (!(epsilon > 0.0f))
        return dn_build_fail(builder, DN_INVALID, "%s: epsilon must be positive", name);
    if (!fits(builder, modulation, (dn_shape){1, 1, 2 * shape.c}, name, "scale and shift"))
        return DN_NONE;
    dn_node node = blank(DN_NODE_GROUP_NORM, in);
    node.in[1] = modulation;
    node.groups = groups;
    node.epsilon = epsilon;
    node.activation = activation;
    node.weight = module_weight(builder, &module, 1, "weight", 1, (uint32_t[]){shape.c});
    node.bias = module_weight(builder, &module, 1, "bias", 1, (uint32_t[]){shape.c});
    return dn_build_node(builder, &node, name, shape);
}

dn_value dn_plan_attention(dn_plan_builder *builder, dn_value qkv, const char *name, uint32_t heads)
{
    if (!dn_build_has(builder, qkv, name))
        return DN_NONE;
    dn_shape shape = builder->plan->values[qkv].shape;
    if (heads == 0 || shape.c % 3 || (shape.c / 3) % heads)
        return dn_build_fail(builder, DN_INVALID, "%s: %u stacked channels do not split into q, k, v of %u heads", name, shape.c, heads);
    dn_node node = blank(DN_NODE_ATTENTION, qkv);
    node.heads = heads;
    return dn_build_node(builder, &node, name, (dn_shape){shape.h, shape.w, shape.c / 3});
}

dn_value dn_plan_time_embedding(dn_plan_builder *builder, const char *name, uint32_t dim, float freq_shift, bool flip_sin_to_cos,
                                float max_period)
{
    if (dim < 2 || dim % 2 || !(max_period > 0.0f) || !((float)(dim / 2) > freq_shift))
        return dn_build_fail(builder, DN_INVALID, "%s: %u channels with a frequency shift of %g", name, dim, (double)freq_shift);
    dn_node node = blank(DN_NODE_TIME_EMBEDDING, DN_NONE);
    node.freq_shift = freq_shift;
    node.flip_sin_to_cos = flip_sin_to_cos;
    node.max_period = max_period;
    return dn_build_node(builder, &node, name, (dn_shape){1, 1, dim});
}

dn_value dn_plan_class_embedding(dn_plan_builder *builder, const char *module, uint32_t rows, uint32_t dim)
{
    if (builder->error.status != DN_OK)
        return DN_NONE;
    dn_plan *plan = builder->plan;
    if (rows == 0 || rows > DN_CLASSES_MAX + 1 || (plan->class_rows && plan->class_rows != rows))
        return dn_build_fail(builder, DN_INVALID, "%s: a class table of %u rows", module, rows);
    dn_node node = blank(DN_NODE_CLASS_EMBEDDING, DN_NONE);
    node.weight = module_weight(builder, &module, 1, "weight", 2, (uint32_t[]){rows, dim});
    plan->class_rows = rows;
    return dn_build_node(builder, &node, module, (dn_shape){1, 1, dim});
}

dn_value dn_plan_affine(dn_plan_builder *builder, dn_value in, const char *name, float a, float b)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_node node = blank(DN_NODE_AFFINE, in);
    node.scale = a;
    node.shift = b;
    return dn_build_node(builder, &node, name, builder->plan->values[in].shape);
}

dn_value dn_plan_upsample_nearest2(dn_plan_builder *builder, dn_value in, const char *name)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape s = builder->plan->values[in].shape;
    dn_node node = blank(DN_NODE_UPSAMPLE_NEAREST2, in);
    return dn_build_node(builder, &node, name, (dn_shape){2 * s.h, 2 * s.w, s.c});
}

/* An odd side drops its last line, as torch's avg_pool2d(2). */
dn_value dn_plan_average_pool2(dn_plan_builder *builder, dn_value in, const char *name)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape s = builder->plan->values[in].shape;
    dn_node node = blank(DN_NODE_AVERAGE_POOL2, in);
    return dn_build_node(builder, &node, name, (dn_shape){s.h / 2, s.w / 2, s.c});
}

dn_value dn_plan_concat(dn_plan_builder *builder, dn_value first, dn_value second, const char *name)
{
    if (!dn_build_has(builder, first, name) || !dn_build_has(builder, second, name))
        return DN_NONE;
    dn_shape a = builder->plan->values[first].shape, b = builder->plan->values[second].shape;
    if (a.h != b.h || a.w != b.w)
        return dn_build_fail(builder, DN_INVALID, "%s: %ux%u cannot be joined to %ux%u", name, a.h, a.w, b.h, b.w);
    dn_node node = blank(DN_NODE_CONCAT, first);
    node.in[1] = second;
    return dn_build_node(builder, &node, name, (dn_shape){a.h, a.w, a.c + b.c});
}

dn_value dn_plan_global_pool(dn_plan_builder *builder, dn_value in, const char *name, dn_activation activation)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_node node = blank(DN_NODE_GLOBAL_POOL, in);
    node.activation = activation;
    return dn_build_node(builder, &node, name, (dn_shape){1, 1, builder->plan->values[in].shape.c});
}

dn_value dn_plan_activation(dn_plan_builder *builder, dn_value in, const char *name, dn_activation activation)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_node node = blank(DN_NODE_ACTIVATION, in);
    node.activation = activation;
    return dn_build_node(builder, &node, name, builder->plan->values[in].shape);
}
