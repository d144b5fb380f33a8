/* The nodes that move or map elements: affine, activation, resampling, patches, joining, pooling.
 *
 * Invariant: as nodes.c. One thread. */
#include "plan/build.h"

#include "base/limits.h"

#define FIR_TAPS 4u

dn_value dn_plan_affine(dn_plan_builder *builder, dn_value in, const char *name, float a, float b)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_AFFINE, in);
    node.scale = a;
    node.shift = b;
    return dn_build_node(builder, &node, name, builder->plan->values[in].shape);
}

dn_value dn_plan_upsample_nearest2(dn_plan_builder *builder, dn_value in, const char *name)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape s = builder->plan->values[in].shape;
    dn_node node = dn_build_blank(DN_NODE_UPSAMPLE_NEAREST2, in);
    return dn_build_node(builder, &node, name, (dn_shape){2 * s.h, 2 * s.w, s.c});
}

/* An odd side drops its last line, as torch's avg_pool2d(2). */
dn_value dn_plan_average_pool2(dn_plan_builder *builder, dn_value in, const char *name)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape s = builder->plan->values[in].shape;
    dn_node node = dn_build_blank(DN_NODE_AVERAGE_POOL2, in);
    return dn_build_node(builder, &node, name, (dn_shape){s.h / 2, s.w / 2, s.c});
}

/* One side of a filtered image, or 0 when the filter does not fit. */
static uint32_t fir_side(uint32_t side, bool up, uint32_t before, uint32_t after)
{
    uint32_t padded = (up ? 2 * side : side) + before + after;
    if (padded < FIR_TAPS)
        return 0;
    return up ? padded - FIR_TAPS + 1 : (padded - FIR_TAPS) / 2 + 1;
}

dn_value dn_plan_fir2(dn_plan_builder *builder, dn_value in, const char *name, bool up, uint32_t before, uint32_t after)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    if (before >= FIR_TAPS || after >= FIR_TAPS)
        return dn_build_fail(builder, DN_INTERNAL, "%s: a filter of %u taps padded by %u and %u", name, FIR_TAPS, before, after);
    dn_shape s = builder->plan->values[in].shape;
    dn_node node = dn_build_blank(up ? DN_NODE_UPSAMPLE_FIR2 : DN_NODE_DOWNSAMPLE_FIR2, in);
    node.pad_top = node.pad_left = before;
    node.pad_bottom = node.pad_right = after;
    return dn_build_node(builder, &node, name, (dn_shape){fir_side(s.h, up, before, after), fir_side(s.w, up, before, after), s.c});
}

dn_value dn_plan_upsample_fir2(dn_plan_builder *builder, dn_value in, const char *name)
{
    return dn_plan_fir2(builder, in, name, true, 2, 1);
}

dn_value dn_plan_downsample_fir2(dn_plan_builder *builder, dn_value in, const char *name)
{
    return dn_plan_fir2(builder, in, name, false, 1, 1);
}

dn_value dn_plan_unpatchify(dn_plan_builder *builder, dn_value in, const char *name, uint32_t patch)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape s = builder->plan->values[in].shape;
    if (patch == 0 || patch > DN_IMAGE_SIDE_MAX || s.c % (patch * patch) || s.h > DN_IMAGE_SIDE_MAX / patch ||
        s.w > DN_IMAGE_SIDE_MAX / patch)
        return dn_build_fail(builder, DN_INVALID, "%s: %ux%ux%u is not made of patches of %u", name, s.h, s.w, s.c, patch);
    dn_node node = dn_build_blank(DN_NODE_UNPATCHIFY, in);
    node.kernel = patch;
    return dn_build_node(builder, &node, name, (dn_shape){s.h * patch, s.w * patch, s.c / (patch * patch)});
}

dn_value dn_plan_concat(dn_plan_builder *builder, dn_value first, dn_value second, const char *name)
{
    if (!dn_build_has(builder, first, name) || !dn_build_has(builder, second, name))
        return DN_NONE;
    dn_shape a = builder->plan->values[first].shape, b = builder->plan->values[second].shape;
    if (a.h != b.h || a.w != b.w)
        return dn_build_fail(builder, DN_INVALID, "%s: %ux%u cannot be joined to %ux%u", name, a.h, a.w, b.h, b.w);
    dn_node node = dn_build_blank(DN_NODE_CONCAT, first);
    node.in[1] = second;
    return dn_build_node(builder, &node, name, (dn_shape){a.h, a.w, a.c + b.c});
}

dn_value dn_plan_global_pool(dn_plan_builder *builder, dn_value in, const char *name, dn_activation activation)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_GLOBAL_POOL, in);
    node.activation = activation;
    return dn_build_node(builder, &node, name, (dn_shape){1, 1, builder->plan->values[in].shape.c});
}

dn_value dn_plan_activation(dn_plan_builder *builder, dn_value in, const char *name, dn_activation activation)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_ACTIVATION, in);
    node.activation = activation;
    return dn_build_node(builder, &node, name, builder->plan->values[in].shape);
}
