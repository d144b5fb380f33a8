/* Finds the part of a plan that depends on a row's time and condition alone.
 *
 * Invariant: a node belongs to it when it makes a vector and reads no value, or only values of the part; so nothing in it sees a pixel,
 * or needs room for rows laid out anew. Owner's thread. */
#include <stdlib.h>

#include "backend/cpu/conditions.h"
#include "backend/cpu/state.h"

/* Whether the node makes a vector, and every value that it reads is one of a condition. Nodes without inputs read the row's time or
 * classes. */
static bool reads_conditions_alone(const dn_cpu_conditioning *c, const dn_plan *plan, const dn_node *node)
{
    dn_shape shape = plan->values[node->out].shape;
    if (shape.h != 1 || shape.w != 1)
        return false;
    for (int i = 0; i < 3; i++) {
        if (node->in[i] == DN_NONE)
            continue;
        uint32_t producer = plan->values[node->in[i]].producer;
        if (producer == DN_NONE || c->parts[producer] == DN_CPU_PART_ROWS)
            return false;
    }
    return true;
}

/* One more than the deepest level that the node reads. */
static uint32_t level_of(const uint32_t *levels, const dn_plan *plan, const dn_node *node)
{
    uint32_t level = 0;
    for (int i = 0; i < 3; i++) {
        if (node->in[i] != DN_NONE && levels[plan->values[node->in[i]].producer] >= level)
            level = levels[plan->values[node->in[i]].producer] + 1;
    }
    return level;
}

/* What rows read, and the plan's output, is kept. */
static void mark_kept(dn_cpu_conditioning *c, const dn_plan *plan)
{
    for (uint32_t n = 0; n < plan->node_count; n++) {
        for (int i = 0; c->parts[n] == DN_CPU_PART_ROWS && i < 3; i++) {
            uint32_t producer = plan->nodes[n].in[i] == DN_NONE ? DN_NONE : plan->values[plan->nodes[n].in[i]].producer;
            if (producer != DN_NONE && c->parts[producer] == DN_CPU_PART_INNER)
                c->parts[producer] = DN_CPU_PART_KEPT;
        }
    }
    uint32_t last = plan->values[plan->output].producer;
    if (c->parts[last] == DN_CPU_PART_INNER)
        c->parts[last] = DN_CPU_PART_KEPT;
}

static void measure(dn_cpu_conditioning *c, const dn_plan *plan)
{
    for (uint32_t n = 0; n < plan->node_count; n++) {
        size_t floats = dn_cpu_round_up(dn_shape_count(plan->values[plan->nodes[n].out].shape), DN_CPU_LINE_FLOATS);
        if (c->parts[n] != DN_CPU_PART_ROWS)
            c->pass_floats += floats;
        if (c->parts[n] != DN_CPU_PART_KEPT)
            continue;
        c->kept_at[n] = c->kept_floats;
        c->kept_floats += floats;
    }
}

static void sort_levels(dn_cpu_conditioning *c, const dn_plan *plan, const uint32_t *levels)
{
    for (uint32_t level = 0; level < c->level_count; level++) {
        for (uint32_t n = 0; n < plan->node_count; n++) {
            if (c->parts[n] != DN_CPU_PART_ROWS && levels[n] == level)
                c->nodes[c->node_count++] = n;
        }
        c->level_ends[level] = c->node_count;
    }
}

dn_status dn_cpu_conditioning_find(dn_cpu_conditioning *out, const dn_plan *plan, dn_error *error)
{
    dn_status status = DN_OK;
    dn_cpu_conditioning c = {.parts = calloc(plan->node_count, sizeof *c.parts)};
    uint32_t *levels = calloc(plan->node_count, sizeof *levels);
    c.nodes = calloc(plan->node_count, sizeof *c.nodes);
    c.level_ends = calloc(plan->node_count, sizeof *c.level_ends);
    c.kept_at = calloc(plan->node_count, sizeof *c.kept_at);
    if (!c.parts || !levels || !c.nodes || !c.level_ends || !c.kept_at) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for a network");
        dn_cpu_conditioning_done(&c);
        goto done;
    }
    for (uint32_t n = 0; n < plan->node_count; n++) {
        const dn_node *node = &plan->nodes[n];
        if (!reads_conditions_alone(&c, plan, node))
            continue;
        c.parts[n] = DN_CPU_PART_INNER;
        levels[n] = level_of(levels, plan, node);
        if (levels[n] >= c.level_count)
            c.level_count = levels[n] + 1;
    }
    mark_kept(&c, plan);
    measure(&c, plan);
    sort_levels(&c, plan, levels);
    *out = c;
done:
    free(levels);
    return status;
}

void dn_cpu_conditioning_done(dn_cpu_conditioning *conditioning)
{
    free(conditioning->parts);
    free(conditioning->nodes);
    free(conditioning->level_ends);
    free(conditioning->kept_at);
}
