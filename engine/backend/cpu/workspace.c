/* Activations in one allocation, and each worker's scratch.
 *
 * Invariant: two values of a region overlap only when one's last reader comes before the other's writer. One thread owns a workspace. */
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/state.h"
#include "base/limits.h"

/* One value's place in the arena, in floats. */
typedef struct placed {
    size_t offset, count;
    uint32_t first, last; /* nodes between which it is alive, inclusive */
} placed;

static size_t value_floats(const dn_plan *plan, dn_value value, uint32_t rows)
{
    return dn_cpu_round_up(dn_shape_count(plan->values[value].shape) * rows, DN_CPU_LINE_FLOATS);
}

static bool alive_together(const placed *a, const placed *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset at which `item` overlaps none of the others that are alive with it. */
static size_t lowest_free(const placed *items, size_t count, const placed *item)
{
    size_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < count; i++) {
            const placed *other = &items[i];
            if (alive_together(other, item) && offset < other->offset + other->count && other->offset < offset + item->count) {
                offset = other->offset + other->count;
                moved = true;
            }
        }
    }
    return offset;
}

/* Fills offsets (may be NULL) for every value and returns the arena's floats; SIZE_MAX when out of memory. */
static size_t plan_arena(const dn_plan *plan, uint32_t rows, bool keep_values, size_t *offsets)
{
    placed *items = calloc(plan->value_count, sizeof *items);
    if (!items)
        return SIZE_MAX;
    size_t total = 0;
    for (dn_value v = 0; v < plan->value_count; v++) {
        const dn_value_info *info = &plan->values[v];
        placed *item = &items[v];
        item->first = info->producer == DN_NONE ? 0 : info->producer;
        item->last = info->last_use;
        item->count = value_floats(plan, v, rows);
        item->offset = keep_values ? total : lowest_free(items, v, item);
        total = dn_cpu_max(total, item->offset + item->count);
        if (offsets)
            offsets[v] = item->offset;
    }
    free(items);
    return total;
}

static size_t node_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node)
{
    switch (node->kind) {
    case DN_NODE_CONV:
        return dn_cpu_conv_scratch(kernels, plan, node);
    case DN_NODE_ATTENTION:
        return dn_cpu_attention_scratch(kernels, plan, node);
    case DN_NODE_GROUP_NORM:
    case DN_NODE_GLOBAL_POOL:
        return dn_cpu_group_norm_scratch(kernels, plan, node);
    case DN_NODE_LAYER_NORM:
        return dn_cpu_layer_norm_scratch(plan, node);
    default:
        return 0;
    }
}

static size_t scratch_floats(const dn_network *network)
{
    size_t most = 0;
    for (uint32_t n = 0; n < network->plan->node_count; n++)
        most = dn_cpu_max(most, node_scratch(network->device->kernels, network->plan, &network->plan->nodes[n]));
    return dn_cpu_round_up(most, DN_CPU_LINE_FLOATS);
}

static uint32_t region_rows(uint32_t rows, bool keep_values)
{
    return keep_values || rows < DN_CPU_CHUNK_ROWS ? rows : DN_CPU_CHUNK_ROWS;
}

/* Chunks of rows are one for each thread at least, so fewer rows than threads all pass through the first region. */
static size_t regions(const dn_network *network, uint32_t rows, bool keep_values, unsigned threads)
{
    return keep_values || network->together || rows < threads ? 1 : threads;
}

size_t dn_cpu_condition_bytes(const dn_network *network, uint32_t rows)
{
    return dn_cpu_conditions_bytes(network, rows, 0);
}

size_t dn_cpu_workspace_bytes(const dn_network *network, uint32_t rows, bool keep_values)
{
    size_t region = plan_arena(network->plan, region_rows(rows, keep_values), keep_values, NULL);
    unsigned workers = dn_pool_size(network->device->pool);
    region = region == SIZE_MAX ? region : region + dn_cpu_half_row_floats(network) * region_rows(rows, keep_values);
    size_t count = regions(network, rows, keep_values, workers);
    size_t conditions = keep_values ? 0 : dn_cpu_condition_bytes(network, rows);
    return region == SIZE_MAX ? 0 : (region * count + scratch_floats(network) * workers) * sizeof(float) + conditions;
}

void dn_cpu_workspace_free(dn_workspace *workspace)
{
    if (!workspace)
        return;
    free(workspace->rows);
    free(workspace->arena);
    free(workspace->offsets);
    free(workspace->scratch);
    dn_cpu_conditions_free(workspace->conditions);
    free(workspace);
}

dn_status dn_cpu_workspace_create(dn_workspace **out, dn_network *network, const dn_workspace_options *options, dn_error *error)
{
    if (options->rows_max == 0 || options->rows_max > DN_BATCH_ROWS_MAX)
        return dn_fail(error, DN_INVALID, "a workspace has 1 to %u rows, not %u", DN_BATCH_ROWS_MAX, options->rows_max);
    dn_workspace *w = calloc(1, sizeof *w);
    if (!w)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a workspace");
    w->network = network;
    w->pool = options->inline_threads ? NULL : network->device->pool;
    w->keep_values = options->keep_values;
    w->rows_max = options->rows_max;
    w->region_rows = region_rows(options->rows_max, options->keep_values);
    w->scratch_floats = scratch_floats(network);
    w->rows = calloc(w->rows_max, sizeof *w->rows);
    w->offsets = calloc(network->plan->value_count, sizeof *w->offsets);
    w->region_floats = w->offsets ? plan_arena(network->plan, w->region_rows, w->keep_values, w->offsets) : SIZE_MAX;
    if (w->rows && w->region_floats != SIZE_MAX) {
        w->half_offset = w->region_floats;
        w->half_row_floats = dn_cpu_half_row_floats(network);
        w->region_floats += w->half_row_floats * w->region_rows;
        w->arena = dn_cpu_alloc(w->region_floats * regions(network, w->rows_max, w->keep_values, dn_pool_size(w->pool)));
        w->scratch = dn_cpu_alloc(w->scratch_floats * dn_pool_size(w->pool));
    }
    if (!w->arena || !w->scratch) {
        dn_cpu_workspace_free(w);
        return dn_fail(error, DN_NO_MEMORY, "no memory for activations of %u rows", options->rows_max);
    }
    dn_status status =
        w->keep_values ? DN_OK : dn_cpu_conditions_create(&w->conditions, network, w->rows_max, options->condition_bytes, error);
    if (status == DN_OK)
        *out = w;
    else
        dn_cpu_workspace_free(w);
    return status;
}

float *dn_cpu_value(const dn_workspace *workspace, dn_value value)
{
    return workspace->arena + workspace->offsets[value];
}
