/* The nodes that look at a row's time and condition: sinusoids, learned tables, random frequencies.
 *
 * Invariant: as nodes.c. One thread. */
#include "plan/build.h"

#include "base/limits.h"

/* Whether a sinusoid of `dim` channels exists; fails the builder otherwise. */
static bool sinusoid_fits(dn_plan_builder *builder, const char *name, uint32_t dim, float freq_shift, float max_period)
{
    if (dim >= 2 && dim % 2 == 0 && max_period > 0.0f && (float)(dim / 2) > freq_shift)
        return true;
    dn_build_fail(builder, DN_INVALID, "%s: %u channels with a frequency shift of %g", name, dim, (double)freq_shift);
    return false;
}

/* A plan has one number of classes, whoever looks at them. */
static bool classes_fit(dn_plan_builder *builder, const char *name, uint32_t rows)
{
    if (builder->error.status != DN_OK)
        return false;
    dn_plan *plan = builder->plan;
    if (rows == 0 || rows > DN_CLASSES_MAX + 1 || (plan->class_rows && plan->class_rows != rows)) {
        dn_build_fail(builder, DN_INVALID, "%s: a class table of %u rows", name, rows);
        return false;
    }
    plan->class_rows = rows;
    return true;
}

static dn_value add_sinusoid(dn_plan_builder *builder, dn_node_kind kind, const char *name, uint32_t dim, float freq_shift,
                             bool flip_sin_to_cos, float max_period)
{
    if (!sinusoid_fits(builder, name, dim, freq_shift, max_period))
        return DN_NONE;
    dn_node node = dn_build_blank(kind, DN_NONE);
    node.freq_shift = freq_shift;
    node.flip_sin_to_cos = flip_sin_to_cos;
    node.max_period = max_period;
    return dn_build_node(builder, &node, name, (dn_shape){1, 1, dim});
}

dn_value dn_plan_time_embedding(dn_plan_builder *builder, const char *name, uint32_t dim, float freq_shift, bool flip_sin_to_cos,
                                float max_period)
{
    return add_sinusoid(builder, DN_NODE_TIME_EMBEDDING, name, dim, freq_shift, flip_sin_to_cos, max_period);
}

dn_value dn_plan_class_sinusoid(dn_plan_builder *builder, const char *name, uint32_t class_rows, uint32_t dim, float freq_shift,
                                bool flip_sin_to_cos, float max_period)
{
    if (!classes_fit(builder, name, class_rows))
        return DN_NONE;
    return add_sinusoid(builder, DN_NODE_CLASS_SINUSOID, name, dim, freq_shift, flip_sin_to_cos, max_period);
}

dn_value dn_plan_class_embedding(dn_plan_builder *builder, const char *module, uint32_t rows, uint32_t dim)
{
    if (!classes_fit(builder, module, rows))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_CLASS_EMBEDDING, DN_NONE);
    node.weight = dn_build_module_weight(builder, &module, 1, "weight", 2, (uint32_t[]){rows, dim});
    return dn_build_node(builder, &node, module, (dn_shape){1, 1, dim});
}

dn_value dn_plan_fourier_embedding(dn_plan_builder *builder, const char *tensor, const char *name, uint32_t dim, bool log_time,
                                   bool flip_sin_to_cos)
{
    if (dim < 2 || dim % 2)
        return dn_build_fail(builder, DN_INVALID, "%s: %u channels are not sines and cosines", name, dim);
    dn_node node = dn_build_blank(DN_NODE_FOURIER_EMBEDDING, DN_NONE);
    node.log_time = log_time;
    node.flip_sin_to_cos = flip_sin_to_cos;
    node.weight = dn_plan_weight_stacked(builder, &tensor, 1, 1, (uint32_t[]){dim / 2});
    return dn_build_node(builder, &node, name, (dn_shape){1, 1, dim});
}

dn_value dn_plan_time_table(dn_plan_builder *builder, const char *module, uint32_t rows, uint32_t dim)
{
    if (builder->error.status != DN_OK)
        return DN_NONE;
    dn_plan *plan = builder->plan;
    if (rows == 0 || rows > DN_TRAIN_TIMESTEPS_MAX || (plan->time_rows && plan->time_rows != rows))
        return dn_build_fail(builder, DN_INVALID, "%s: a time table of %u rows", module, rows);
    dn_node node = dn_build_blank(DN_NODE_TIME_TABLE, DN_NONE);
    node.weight = dn_build_module_weight(builder, &module, 1, "weight", 2, (uint32_t[]){rows, dim});
    plan->time_rows = rows;
    return dn_build_node(builder, &node, module, (dn_shape){1, 1, dim});
}

dn_value dn_plan_position(dn_plan_builder *builder, dn_value in, const char *name, float position_scale)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_shape shape = builder->plan->values[in].shape;
    if (shape.c % 4 || !(position_scale > 0.0f))
        return dn_build_fail(builder, DN_INVALID, "%s: %u channels at a scale of %g", name, shape.c, (double)position_scale);
    dn_node node = dn_build_blank(DN_NODE_POSITION, in);
    node.position_scale = position_scale;
    return dn_build_node(builder, &node, name, shape);
}

dn_value dn_plan_divide_by_time(dn_plan_builder *builder, dn_value in, const char *name)
{
    if (!dn_build_has(builder, in, name))
        return DN_NONE;
    dn_node node = dn_build_blank(DN_NODE_DIVIDE_BY_TIME, in);
    return dn_build_node(builder, &node, name, builder->plan->values[in].shape);
}
