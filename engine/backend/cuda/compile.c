/* The compiler's frame: it finds fusions, gives every node its steps in the plan's order, and then memory to what they read and write.
 *
 * Invariant: steps run in order, and each reads what earlier ones wrote. The rest lies in compile_fuse.c (which nodes share a step),
 * compile_products.c and compile_nodes.c (a node's steps), compile_pack.c (weights) and compile_memory.c (addresses). One thread. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "backend/cuda/compile_private.h"

/* At most so many of each a node: a product and its finish; a stack, what is finished later, a shift, a scale and a gate. */
#define NODE_STEPS_MAX 2u
#define NODE_SLOTS_MAX 5u
#define NODE_PACKS_MAX 2u

dn_cuda_step *dn_cuda_add_step(dn_cuda_compiler *c, dn_cuda_step_kind kind, const dn_node *node)
{
    assert(c->out->step_count < NODE_STEPS_MAX * c->plan->node_count + 2);
    dn_cuda_step *step = &c->out->steps[c->out->step_count++];
    *step = (dn_cuda_step){.kind = kind, .node = node, .weight = DN_NONE, .bias = DN_NONE, .product = DN_NONE};
    for (int i = 0; i < DN_CUDA_STEP_INPUTS; i++)
        step->in[i] = DN_NONE;
    step->out[0] = step->out[1] = DN_NONE;
    snprintf(step->name, sizeof step->name, "%.90s", node ? node->name : kind == DN_CUDA_STEP_GATHER ? "gather" : "scatter");
    return step;
}

static dn_cuda_slot append_slot(dn_cuda_compiler *c, const dn_cuda_slot_info *info)
{
    assert(c->out->slot_count < c->plan->value_count + NODE_SLOTS_MAX * c->plan->node_count);
    c->out->slots[c->out->slot_count] = *info;
    return c->out->slot_count++;
}

dn_cuda_slot dn_cuda_add_slot(dn_cuda_compiler *c, dn_shape shape)
{
    dn_cuda_slot_info info = {.h = shape.h, .w = shape.w, .c = shape.c, .pitch = dn_cuda_whole_units(shape.c), .value = DN_NONE};
    info.row_pitch = (uint64_t)shape.h * shape.w * info.pitch;
    info.base = c->out->slot_count;
    return append_slot(c, &info);
}

dn_cuda_slot dn_cuda_read(const dn_cuda_compiler *c, dn_value value)
{
    return value == DN_NONE ? DN_NONE : c->slots[value];
}

dn_cuda_slot dn_cuda_write(dn_cuda_compiler *c, dn_value value, bool whole)
{
    dn_cuda_slot slot = dn_cuda_add_slot(c, c->plan->values[value].shape);
    c->out->slots[slot].value = whole ? value : DN_NONE;
    c->slots[value] = slot;
    return slot;
}

dn_cuda_slot dn_cuda_add_part(dn_cuda_compiler *c, dn_cuda_slot vector, uint32_t first, uint32_t count)
{
    dn_cuda_slot_info info = c->out->slots[vector];
    assert(info.h == 1 && info.w == 1 && (uint64_t)first + count <= info.c);
    info.c = info.pitch = count;
    info.view_at += first;
    info.value = DN_NONE;
    return append_slot(c, &info);
}

/* The steps of one node; those of a stack all come with its first. */
static void compile_node(dn_cuda_compiler *c, uint32_t n)
{
    switch (c->plan->nodes[n].kind) {
    case DN_NODE_CONV:
        dn_cuda_compile_conv(c, n);
        break;
    case DN_NODE_LINEAR:
        if (!c->stack_follower[n])
            dn_cuda_compile_linear(c, n);
        break;
    case DN_NODE_ATTENTION:
        dn_cuda_compile_attention(c, n);
        break;
    case DN_NODE_GROUP_NORM:
        dn_cuda_compile_group_norm(c, n);
        break;
    case DN_NODE_LAYER_NORM:
        dn_cuda_compile_layer_norm(c, n);
        break;
    default:
        dn_cuda_compile_plain(c, n);
        break;
    }
}

static void compile_nodes(dn_cuda_compiler *c)
{
    const dn_plan *plan = c->plan;
    dn_cuda_step *gather = dn_cuda_add_step(c, DN_CUDA_STEP_GATHER, NULL);
    gather->out[0] = dn_cuda_write(c, plan->input, true);
    for (uint32_t n = 0; n < plan->node_count && c->status == DN_OK; n++)
        compile_node(c, n);
    dn_cuda_step *scatter = dn_cuda_add_step(c, DN_CUDA_STEP_SCATTER, NULL);
    scatter->in[0] = dn_cuda_read(c, plan->output);
    for (dn_value v = 0; v < plan->value_count; v++) {
        dn_cuda_slot slot = c->slots[v];
        c->out->value_slots[v] = slot != DN_NONE && c->out->slots[slot].value == v ? slot : DN_NONE;
    }
}

static uint32_t *no_ones(dn_arena *arena, size_t count)
{
    uint32_t *list = dn_arena_alloc_array(arena, count + 1, sizeof *list);
    for (size_t i = 0; list && i < count; i++)
        list[i] = DN_NONE;
    return list;
}

static bool allocate(dn_cuda_compiler *c)
{
    const size_t nodes = c->plan->node_count, values = c->plan->value_count;
    dn_cuda_compiled *out = c->out;
    out->steps = dn_arena_alloc_array(&out->arena, NODE_STEPS_MAX * nodes + 2, sizeof *out->steps);
    out->slots = dn_arena_alloc_array(&out->arena, values + NODE_SLOTS_MAX * nodes, sizeof *out->slots);
    out->packs = dn_arena_alloc_array(&out->arena, NODE_PACKS_MAX * nodes, sizeof *out->packs);
    out->products = dn_arena_alloc_array(&out->arena, nodes, sizeof *out->products);
    out->value_slots = no_ones(&out->arena, values);
    c->slots = no_ones(&c->scratch, values);
    c->absorber = no_ones(&c->scratch, nodes);
    c->absorbed = no_ones(&c->scratch, nodes);
    c->stack_next = no_ones(&c->scratch, nodes);
    c->stack_follower = dn_arena_alloc_array(&c->scratch, nodes, sizeof *c->stack_follower);
    return out->steps && out->slots && out->packs && out->products && out->value_slots && c->slots && c->absorber && c->absorbed &&
           c->stack_next && c->stack_follower;
}

dn_status dn_cuda_compile(dn_cuda_compiled **out, const dn_plan *plan, const dn_cuda_compile_options *options, dn_error *error)
{
    dn_cuda_compiled *compiled = calloc(1, sizeof *compiled);
    if (!compiled)
        return dn_fail(error, DN_NO_MEMORY, "no memory to compile a plan");
    compiled->plan = plan;
    compiled->type = options->type;
    compiled->keep_values = options->keep_values;
    dn_arena_init(&compiled->arena, 0);
    dn_cuda_compiler c = {.plan = plan, .options = options, .out = compiled, .error = error, .status = DN_OK};
    dn_arena_init(&c.scratch, 0);
    if (!allocate(&c))
        c.status = dn_fail(error, DN_NO_MEMORY, "no memory to compile a plan of %u nodes", plan->node_count);
    if (c.status == DN_OK && !options->keep_values)
        dn_cuda_find_fusions(&c);
    if (c.status == DN_OK)
        compile_nodes(&c);
    if (c.status == DN_OK)
        dn_cuda_plan_memory(&c);
    dn_arena_done(&c.scratch);
    if (c.status == DN_OK)
        *out = compiled;
    else
        dn_cuda_compiled_free(compiled);
    return c.status;
}

void dn_cuda_compiled_free(dn_cuda_compiled *compiled)
{
    if (!compiled)
        return;
    dn_arena_done(&compiled->arena);
    free(compiled);
}
