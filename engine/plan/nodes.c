/* The nodes that compute: convolution, linear, norms, attention. Each function checks its inputs' shapes, names its weights and
 * appends the node.
 *
 * Invariant: a node is appended only when its inputs, weights and output fit each other. One thread. */
#include "plan/build.h"

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
    if (!dn_build_fits(builder, o->row_bias, (dn_shape){1, 1, to.c}, name, "per-row bias") ||
        !dn_build_fits(builder, o->residual, to, name, "residual"))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_CONV, in);
    node.in[1] = o->row_bias;
    node.in[2] = o->residual;
    node.scale = o->scale;
    node.kernel = o->kernel;
    node.stride = o->stride;
    node.pad_top = o->pad_top;
    node.pad_left = o->pad_left;
    node.pad_bottom = o->pad_bottom;
    node.pad_right = o->pad_right;
    node.weight = dn_build_module_weight(builder, &o->module, 1, "weight", 4, (uint32_t[]){to.c, from.c, o->kernel, o->kernel});
    if (!o->no_bias)
        node.bias = dn_build_module_weight(builder, &o->module, 1, "bias", 1, (uint32_t[]){to.c});
    return dn_build_node(builder, &node, name, to);
}

/* A gate scales what is added to a residual, and nothing scales it again. */
static bool gate_fits(dn_plan_builder *builder, const dn_linear_options *options, uint32_t channels, const char *name)
{
    if (options->gate == DN_NONE)
        return true;
    if (!dn_build_holds(builder, options->gate, options->gate_offset, channels, name, "gate"))
        return false;
    if (options->residual != DN_NONE && options->scale == 1.0f)
        return true;
    dn_build_fail(builder, DN_INTERNAL, "%s: a gate needs a residual and a scale of 1", name);
    return false;
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
    if (!dn_build_fits(builder, options->residual, to, name, "residual") || !gate_fits(builder, options, to.c, name))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_LINEAR, in);
    node.in[1] = options->residual;
    node.in[2] = options->gate;
    node.gate_offset = options->gate_offset;
    node.scale = options->scale;
    node.activation = options->activation;
    node.weight = dn_build_module_weight(builder, options->modules, options->module_count, "weight", 2, (uint32_t[]){to.c, from.c});
    if (!options->no_bias)
        node.bias = dn_build_module_weight(builder, options->modules, options->module_count, "bias", 1, (uint32_t[]){to.c});
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
    if (!dn_build_fits(builder, modulation, (dn_shape){1, 1, 2 * shape.c}, name, "scale and shift"))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_GROUP_NORM, in);
    node.in[1] = modulation;
    node.groups = groups;
    node.epsilon = epsilon;
    node.activation = activation;
    node.weight = dn_build_module_weight(builder, &module, 1, "weight", 1, (uint32_t[]){shape.c});
    node.bias = dn_build_module_weight(builder, &module, 1, "bias", 1, (uint32_t[]){shape.c});
    return dn_build_node(builder, &node, name, shape);
}

dn_value dn_plan_layer_norm(dn_plan_builder *builder, dn_value in, const char *module, const char *name, float epsilon, dn_value modulation,
                            uint32_t shift_offset, uint32_t scale_offset)
{
    if (!name)
        name = module ? module : "layer norm";
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape shape = builder->plan->values[in].shape;
    if (!(epsilon > 0.0f))
        return dn_build_fail(builder, DN_INVALID, "%s: epsilon must be positive", name);
    if (modulation != DN_NONE && (!dn_build_holds(builder, modulation, shift_offset, shape.c, name, "shift") ||
                                  !dn_build_holds(builder, modulation, scale_offset, shape.c, name, "scale")))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_LAYER_NORM, in);
    node.in[1] = modulation;
    node.epsilon = epsilon;
    node.shift_offset = shift_offset;
    node.scale_offset = scale_offset;
    if (module) {
        node.weight = dn_build_module_weight(builder, &module, 1, "weight", 1, (uint32_t[]){shape.c});
        node.bias = dn_build_module_weight(builder, &module, 1, "bias", 1, (uint32_t[]){shape.c});
    }
    return dn_build_node(builder, &node, name, shape);
}

dn_value dn_plan_attention(dn_plan_builder *builder, dn_value qkv, const char *name, uint32_t heads)
{
    if (!dn_build_has(builder, qkv, name))
        return DN_NONE;
    dn_shape shape = builder->plan->values[qkv].shape;
    if (heads == 0 || shape.c % 3 || (shape.c / 3) % heads)
        return dn_build_fail(builder, DN_INVALID, "%s: %u stacked channels do not split into q, k, v of %u heads", name, shape.c, heads);
    dn_node node = dn_build_blank(DN_NODE_ATTENTION, qkv);
    node.heads = heads;
    return dn_build_node(builder, &node, name, (dn_shape){shape.h, shape.w, shape.c / 3});
}
