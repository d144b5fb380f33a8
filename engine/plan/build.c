/* Appending to a plan: values, weights and nodes, in arrays that grow inside the plan's arena.
 *
 * Invariant: after the first failure nothing is appended any more and every call returns DN_NONE. One thread. */
#include "plan/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"

uint32_t dn_build_fail(dn_plan_builder *builder, dn_status status, const char *format, ...)
{
    if (builder->error.status != DN_OK)
        return DN_NONE;
    char text[sizeof builder->error.message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dn_fail(&builder->error, status, "%s", text);
    return DN_NONE;
}

bool dn_build_has(dn_plan_builder *builder, dn_value value, const char *what)
{
    if (builder->error.status != DN_OK)
        return false;
    if (value < builder->plan->value_count)
        return true;
    dn_build_fail(builder, DN_INTERNAL, "%s: input does not exist", what);
    return false;
}

/* Room for one more element: doubles the array inside the arena (the old copy stays until the plan dies). */
static void *grow(dn_plan_builder *builder, void *array, uint32_t count, uint32_t *capacity, size_t size)
{
    if (count < *capacity)
        return array;
    uint32_t wanted = *capacity ? *capacity * 2 : 32;
    void *wider = dn_arena_alloc_array(&builder->plan->arena, wanted, size);
    if (!wider) {
        dn_build_fail(builder, DN_NO_MEMORY, "no memory for a plan");
        return NULL;
    }
    if (count)
        memcpy(wider, array, count * size);
    *capacity = wanted;
    return wider;
}

dn_value dn_build_value(dn_plan_builder *builder, dn_shape shape, uint32_t producer)
{
    dn_plan *plan = builder->plan;
    if (builder->error.status != DN_OK)
        return DN_NONE;
    if (shape.h == 0 || shape.w == 0 || shape.c == 0 || shape.h > DN_IMAGE_SIDE_MAX || shape.w > DN_IMAGE_SIDE_MAX ||
        shape.c > DN_PLAN_CHANNELS_MAX)
        return dn_build_fail(builder, DN_INVALID, "a value of %u x %u x %u is out of range", shape.h, shape.w, shape.c);
    dn_value_info *values = grow(builder, plan->values, plan->value_count, &plan->value_capacity, sizeof *values);
    if (!values)
        return DN_NONE;
    plan->values = values;
    values[plan->value_count] = (dn_value_info){.shape = shape, .producer = producer, .last_use = DN_NONE};
    return plan->value_count++;
}

dn_value dn_build_node(dn_plan_builder *builder, const dn_node *node, const char *name, dn_shape shape)
{
    dn_plan *plan = builder->plan;
    if (builder->error.status != DN_OK)
        return DN_NONE;
    if (plan->node_count >= DN_PLAN_NODES_MAX)
        return dn_build_fail(builder, DN_UNSUPPORTED, "%s: a plan has at most %u nodes", name, DN_PLAN_NODES_MAX);
    dn_node *nodes = grow(builder, plan->nodes, plan->node_count, &plan->node_capacity, sizeof *nodes);
    if (!nodes)
        return DN_NONE;
    plan->nodes = nodes;
    dn_value out = dn_build_value(builder, shape, plan->node_count);
    char *copy = dn_arena_strdup(&plan->arena, name);
    if (!copy)
        return dn_build_fail(builder, DN_NO_MEMORY, "no memory for a plan");
    if (out == DN_NONE)
        return DN_NONE;
    nodes[plan->node_count] = *node;
    nodes[plan->node_count].name = copy;
    nodes[plan->node_count].out = out;
    plan->node_count++;
    return out;
}

/* A weight that is already there under the same names, or DN_NONE. */
static dn_weight find_weight(const dn_plan *plan, const dn_weight_info *wanted)
{
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        const dn_weight_info *info = &plan->weights[w];
        bool same = info->part_count == wanted->part_count;
        for (uint32_t p = 0; same && p < info->part_count; p++)
            same = strcmp(info->parts[p], wanted->parts[p]) == 0;
        if (same)
            return w;
    }
    return DN_NONE;
}

/* Rank, dimensions and the product of them, checked; false after failing the builder. */
static bool measure_weight(dn_plan_builder *builder, dn_weight_info *info, uint32_t rank, const uint32_t *dims)
{
    const char *name = info->parts[0];
    if (rank != 1 && rank != 2 && rank != 4) {
        dn_build_fail(builder, DN_INTERNAL, "weight %s: rank %u is none of 1, 2, 4", name, rank);
        return false;
    }
    info->rank = rank;
    info->count = 1;
    for (uint32_t d = 0; d < rank; d++) {
        info->dims[d] = dims[d];
        if (dims[d] == 0 || info->count > DN_WEIGHT_BYTES_MAX / sizeof(float) / dims[d]) {
            dn_build_fail(builder, DN_INVALID, "weight %s: dimension %u of %u is out of range", name, d, dims[d]);
            return false;
        }
        info->count *= dims[d];
    }
    if (dims[0] % info->part_count) {
        dn_build_fail(builder, DN_INTERNAL, "weight %s: %u rows do not split into %u parts", name, dims[0], info->part_count);
        return false;
    }
    return true;
}

dn_weight dn_plan_weight_stacked(dn_plan_builder *builder, const char *const *tensors, uint32_t part_count, uint32_t rank,
                                 const uint32_t *dims)
{
    dn_plan *plan = builder->plan;
    if (builder->error.status != DN_OK)
        return DN_NONE;
    if (part_count == 0 || part_count > DN_WEIGHT_PARTS_MAX)
        return dn_build_fail(builder, DN_INTERNAL, "a weight has 1 to %d parts, not %u", DN_WEIGHT_PARTS_MAX, part_count);
    dn_weight_info info = {.part_count = part_count};
    for (uint32_t p = 0; p < part_count; p++)
        info.parts[p] = tensors[p];
    if (!measure_weight(builder, &info, rank, dims))
        return DN_NONE;
    dn_weight found = find_weight(plan, &info);
    if (found != DN_NONE) {
        const dn_weight_info *old = &plan->weights[found];
        if (old->rank != info.rank || memcmp(old->dims, info.dims, sizeof info.dims) != 0)
            return dn_build_fail(builder, DN_INTERNAL, "weight %s is used with two shapes", tensors[0]);
        return found;
    }
    dn_weight_info *weights = grow(builder, plan->weights, plan->weight_count, &plan->weight_capacity, sizeof *weights);
    if (!weights)
        return DN_NONE;
    plan->weights = weights;
    for (uint32_t p = 0; p < part_count; p++) {
        info.parts[p] = dn_arena_strdup(&plan->arena, tensors[p]);
        if (!info.parts[p])
            return dn_build_fail(builder, DN_NO_MEMORY, "no memory for a plan");
    }
    weights[plan->weight_count] = info;
    return plan->weight_count++;
}

/* Every optional field absent, every factor neutral. */
dn_node dn_build_blank(dn_node_kind kind, dn_value in)
{
    return (dn_node){.kind = kind, .in = {in, DN_NONE, DN_NONE}, .weight = DN_NONE, .bias = DN_NONE, .scale = 1.0f};
}

static bool same_shape(dn_shape a, dn_shape b)
{
    return a.h == b.h && a.w == b.w && a.c == b.c;
}

/* An optional input that must have the given shape when present; true when it is absent or right. */
bool dn_build_fits(dn_plan_builder *builder, dn_value value, dn_shape shape, const char *name, const char *role)
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

bool dn_build_holds(dn_plan_builder *builder, dn_value vector, uint32_t offset, uint32_t count, const char *name, const char *role)
{
    if (!dn_build_has(builder, vector, name))
        return false;
    dn_shape have = builder->plan->values[vector].shape;
    if (have.h == 1 && have.w == 1 && offset <= have.c && count <= have.c - offset)
        return true;
    dn_build_fail(builder, DN_INTERNAL, "%s: no %s of %u at %u in a value of %ux%ux%u", name, role, count, offset, have.h, have.w, have.c);
    return false;
}

/* Weight MODULE.SUFFIX of several modules stacked along dimension 0. */
dn_weight dn_build_module_weight(dn_plan_builder *builder, const char *const *modules, uint32_t count, const char *suffix, uint32_t rank,
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
