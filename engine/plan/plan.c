/* A plan's life: growing it node by node, checking it whole, its costs, its end.
 *
 * Invariant: every node's inputs exist before it, and its shapes and weights fit each other; a plan handed out by
 * dn_plan_end never changes. One thread builds; any number read. */
#include "plan/plan.h"

#include <stdlib.h>
#include <string.h>

#include "plan/build.h"

dn_status dn_plan_begin(dn_plan_builder *builder, dn_shape input, dn_error *error)
{
    *builder = (dn_plan_builder){0};
    dn_plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a plan");
    dn_arena_init(&plan->arena, 0);
    builder->plan = plan;
    plan->input = dn_build_value(builder, input, DN_NONE);
    plan->output = DN_NONE;
    if (builder->error.status != DN_OK) {
        dn_status status = dn_fail(error, builder->error.status, "%s", builder->error.message);
        dn_plan_free(plan);
        builder->plan = NULL;
        return status;
    }
    return DN_OK;
}

/* Each reader moves its inputs' last use forward; the output outlives every node. */
static void find_last_uses(dn_plan *plan)
{
    for (uint32_t v = 0; v < plan->value_count; v++)
        plan->values[v].last_use = plan->values[v].producer == DN_NONE ? 0 : plan->values[v].producer;
    for (uint32_t n = 0; n < plan->node_count; n++) {
        for (int i = 0; i < 3; i++) {
            dn_value in = plan->nodes[n].in[i];
            if (in != DN_NONE)
                plan->values[in].last_use = n;
        }
    }
    plan->values[plan->output].last_use = plan->node_count;
}

dn_status dn_plan_end(dn_plan **out, dn_plan_builder *builder, dn_value output, dn_error *error)
{
    dn_plan *plan = builder->plan;
    builder->plan = NULL;
    if (!plan)
        return dn_fail(error, DN_INTERNAL, "a plan was ended without being begun");
    if (builder->error.status != DN_OK) {
        dn_plan_free(plan);
        return dn_fail(error, builder->error.status, "%s", builder->error.message);
    }
    if (output >= plan->value_count || plan->values[output].producer == DN_NONE) {
        dn_plan_free(plan);
        return dn_fail(error, DN_INTERNAL, "a plan's output must be written by one of its nodes");
    }
    plan->output = output;
    find_last_uses(plan);
    *out = plan;
    return DN_OK;
}

void dn_plan_free(dn_plan *plan)
{
    if (!plan)
        return;
    dn_arena_done(&plan->arena);
    free(plan);
}

dn_shape dn_plan_shape(const dn_plan_builder *builder, dn_value value)
{
    if (builder->error.status != DN_OK || !builder->plan || value >= builder->plan->value_count)
        return (dn_shape){0, 0, 0};
    return builder->plan->values[value].shape;
}

double dn_plan_node_flops(const dn_plan *plan, uint32_t index)
{
    const dn_node *node = &plan->nodes[index];
    dn_shape out = plan->values[node->out].shape;
    double pixels = (double)out.h * out.w;
    switch (node->kind) {
    case DN_NODE_CONV:
    case DN_NODE_LINEAR:
        return 2.0 * pixels * (double)plan->weights[node->weight].count;
    case DN_NODE_ATTENTION: /* q k^T and p v, over all heads together */
        return 4.0 * pixels * pixels * out.c;
    default:
        return 0.0;
    }
}

double dn_plan_flops(const dn_plan *plan)
{
    double sum = 0.0;
    for (uint32_t n = 0; n < plan->node_count; n++)
        sum += dn_plan_node_flops(plan, n);
    return sum;
}

uint64_t dn_plan_parameters(const dn_plan *plan)
{
    uint64_t sum = 0;
    for (uint32_t w = 0; w < plan->weight_count; w++)
        sum += plan->weights[w].count;
    return sum;
}
