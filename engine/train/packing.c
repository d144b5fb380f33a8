/* Computes where each weight lies in the packed array and how much scratch the widest node needs; see packing.h. */
#include "train/packing.h"

#include <stdlib.h>

static void place(dn_packing *packing, dn_weight weight, uint32_t taps, uint32_t rows, uint32_t columns, bool padded)
{
    dn_packed_weight *w = &packing->weights[weight];
    w->taps = taps;
    w->rows = rows;
    w->columns = columns;
    w->stride = padded ? dn_pack_round(columns) : columns;
}

/* Kernels of 3x3 over pictures with even sides, whole vectors of channels and tiles enough. */
static bool goes_through_winograd(const dn_plan *plan, const dn_node *node)
{
    dn_shape from = plan->values[node->in[0]].shape, to = plan->values[node->out].shape;
    bool plain = node->kernel == 3 && node->stride == 1 && node->pad_top == 1 && node->pad_left == 1 && from.h == to.h && from.w == to.w;
    return plain && to.h % 2 == 0 && to.w % 2 == 0 && from.c % DN_PACK_CHANNELS == 0 && to.c % DN_PACK_CHANNELS == 0;
}

static void place_node(dn_packing *packing, const dn_node *node)
{
    if (node->weight == DN_NONE) {
        return;
    }
    const dn_weight_info *info = &packing->plan->weights[node->weight];
    if (node->kind == DN_NODE_CONV) {
        bool winograd = goes_through_winograd(packing->plan, node);
        place(packing, node->weight, winograd ? 16 : info->dims[2] * info->dims[3], info->dims[0], info->dims[1], true);
        packing->weights[node->weight].winograd = winograd;
    } else if (node->kind == DN_NODE_LINEAR) {
        place(packing, node->weight, 1, info->dims[0], (uint32_t)(info->count / info->dims[0]), true);
    }
}

static uint64_t rounded(uint64_t count)
{
    return (count + 63) / 64 * 64;
}

/* Must cover every take() of backward_*.inc.c; each slice is rounded up there too. */
static uint64_t scratch_of(const dn_plan *plan, const dn_node *node)
{
    if (node->in[0] == DN_NONE) {
        return 0;
    }
    dn_shape from = plan->values[node->in[0]].shape, to = plan->values[node->out].shape;
    uint64_t pixels = (uint64_t)from.h * from.w, wide = dn_pack_round(from.c);
    switch (node->kind) {
    case DN_NODE_CONV: {
        if (goes_through_winograd(plan, node)) {
            uint64_t tiles = (uint64_t)dn_pack_tile_lines(to) * (to.w / 2);
            return rounded(from.c) + rounded(16 * (tiles * from.c + DN_PACK_CHANNELS)) + rounded(16 * (tiles * to.c + DN_PACK_CHANNELS)) +
                   DN_BACKWARD_ROWS * rounded(dn_shape_count(to));
        }
        uint64_t h = (uint64_t)from.h + node->pad_top + node->pad_bottom, w = (uint64_t)from.w + node->pad_left + node->pad_right;
        uint64_t dilated = ((uint64_t)from.h + node->kernel - 1) * ((uint64_t)from.w + node->kernel - 1) * to.c;
        return rounded(h * w * wide) + rounded(dilated) + rounded(dn_shape_count(to)) + rounded(pixels * wide);
    }
    case DN_NODE_LINEAR:
        return 2 * rounded(pixels * wide) + 2 * rounded(dn_shape_count(to));
    case DN_NODE_LAYER_NORM:
        return 4 * rounded(to.c);
    case DN_NODE_GROUP_NORM:
        return rounded(dn_shape_count(to)) + 8 * rounded(to.c);
    case DN_NODE_ATTENTION: {
        uint64_t dim = to.c / node->heads, head = dn_pack_round((uint32_t)dim), columns = dn_pack_round((uint32_t)pixels);
        return 5 * rounded(pixels * head) + 2 * rounded(dim * columns) + 2 * rounded(pixels * columns) + 2 * rounded(columns * head);
    }
    case DN_NODE_GLOBAL_POOL:
        return 2 * rounded(to.c);
    default:
        return 0;
    }
}

dn_status dn_packing_create(dn_packing **out, const dn_plan *plan, dn_error *error)
{
    dn_packing *packing = calloc(1, sizeof *packing);
    dn_packed_weight *weights = calloc(plan->weight_count ? plan->weight_count : 1, sizeof *weights);
    if (!packing || !weights) {
        free(packing);
        free(weights);
        return dn_fail(error, DN_NO_MEMORY, "no memory for the layout of %u weights", plan->weight_count);
    }
    packing->plan = plan;
    packing->weights = weights;
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        place(packing, w, 1, 1, (uint32_t)plan->weights[w].count, false);
    }
    for (uint32_t n = 0; n < plan->node_count; n++) {
        place_node(packing, &plan->nodes[n]);
        uint64_t need = scratch_of(plan, &plan->nodes[n]);
        packing->scratch = need > packing->scratch ? need : packing->scratch;
    }
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        weights[w].offset = packing->total;
        packing->total += rounded((uint64_t)weights[w].taps * weights[w].rows * weights[w].stride);
    }
    for (uint32_t v = 0; v < plan->value_count; v++) {
        packing->row_gradients += rounded(dn_shape_count(plan->values[v].shape));
    }
    *out = packing;
    return DN_OK;
}

void dn_packing_free(dn_packing *packing)
{
    if (packing) {
        free(packing->weights);
        free(packing);
    }
}
