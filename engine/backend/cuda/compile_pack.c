/* Which weights lie on the device in which layout, and where. What is asked for again is found again: a weight of two nodes is packed
 * once for each layout, and equal tables are one. */
#include <string.h>

#include "backend/cuda/compile_private.h"

static bool is_table(dn_cuda_pack_kind kind)
{
    return kind == DN_CUDA_PACK_FREQUENCIES || kind == DN_CUDA_PACK_POSITIONS;
}

/* Whether two nodes have the same table; they agree in `count`. */
static bool same_table(const dn_plan *plan, dn_cuda_pack_kind kind, const dn_node *a, const dn_node *b)
{
    if (kind == DN_CUDA_PACK_FREQUENCIES)
        return a->max_period == b->max_period && a->freq_shift == b->freq_shift;
    dn_shape x = plan->values[a->out].shape, y = plan->values[b->out].shape;
    return x.h == y.h && x.w == y.w && a->position_scale == b->position_scale;
}

static bool same_pack(const dn_plan *plan, const dn_cuda_pack_info *a, const dn_cuda_pack_info *b)
{
    if (a->kind != b->kind || a->scale != b->scale || a->count != b->count || a->weight_count != b->weight_count)
        return false;
    if (is_table(a->kind))
        return same_table(plan, a->kind, a->node, b->node);
    return memcmp(a->weights, b->weights, a->weight_count * sizeof *a->weights) == 0;
}

/* The pack like `wanted`, which is placed behind all others if there is none yet. Its list of weights is copied then. */
static dn_cuda_pack find_pack(dn_cuda_compiler *c, const dn_cuda_pack_info *wanted)
{
    dn_cuda_compiled *out = c->out;
    for (dn_cuda_pack p = 0; p < out->pack_count; p++)
        if (same_pack(c->plan, &out->packs[p], wanted))
            return p;
    dn_cuda_pack_info *pack = &out->packs[out->pack_count];
    *pack = *wanted;
    if (wanted->weight_count) {
        dn_weight *weights = dn_arena_alloc_array(&out->arena, wanted->weight_count, sizeof *weights);
        if (!weights) {
            c->status = dn_fail(c->error, DN_NO_MEMORY, "no memory to compile a plan");
            return DN_NONE;
        }
        memcpy(weights, wanted->weights, wanted->weight_count * sizeof *weights);
        pack->weights = weights;
    }
    pack->offset = out->packed_bytes;
    out->packed_bytes += dn_cuda_memory_units(pack->bytes);
    return out->pack_count++;
}

/* [o][i][kh][kw] of the whole; a matrix has one tap. */
static void shape_filter(const dn_cuda_compiler *c, dn_cuda_pack_info *pack)
{
    const dn_weight_info *first = &c->plan->weights[pack->weights[0]];
    pack->i = first->dims[1];
    pack->kh = first->rank == 4 ? first->dims[2] : 1;
    pack->kw = first->rank == 4 ? first->dims[3] : 1;
    for (uint32_t k = 0; k < pack->weight_count; k++)
        pack->o += c->plan->weights[pack->weights[k]].dims[0];
    pack->o_pad = dn_cuda_whole_units(pack->o);
    pack->i_pad = dn_cuda_whole_units(pack->i);
    pack->bytes = (uint64_t)pack->o_pad * pack->kh * pack->kw * pack->i_pad * dn_cuda_type_bytes(c->out->type);
}

static dn_cuda_pack add_pack(dn_cuda_compiler *c, dn_cuda_pack_kind kind, const dn_weight *weights, uint32_t weight_count, float scale)
{
    dn_cuda_pack_info pack = {.kind = kind, .weights = weights, .weight_count = weight_count, .scale = scale};
    for (uint32_t k = 0; k < weight_count; k++)
        pack.count += c->plan->weights[weights[k]].count;
    if (kind == DN_CUDA_PACK_FILTER) {
        shape_filter(c, &pack);
    } else if (kind == DN_CUDA_PACK_VECTOR) {
        pack.o_pad = dn_cuda_whole_units((uint32_t)pack.count);
        pack.bytes = (uint64_t)pack.o_pad * dn_cuda_type_bytes(c->out->type);
    } else {
        pack.bytes = pack.count * sizeof(float);
    }
    return find_pack(c, &pack);
}

dn_cuda_pack dn_cuda_add_pack(dn_cuda_compiler *c, dn_cuda_pack_kind kind, const dn_weight *weights, uint32_t weight_count)
{
    return add_pack(c, kind, weights, weight_count, 1.0f);
}

dn_cuda_pack dn_cuda_add_bias(dn_cuda_compiler *c, const dn_weight *biases, uint32_t count, float scale)
{
    return biases[0] == DN_NONE ? DN_NONE : add_pack(c, DN_CUDA_PACK_VECTOR, biases, count, scale);
}

dn_cuda_pack dn_cuda_add_weight(dn_cuda_compiler *c, dn_cuda_pack_kind kind, dn_weight weight)
{
    return weight == DN_NONE ? DN_NONE : dn_cuda_add_pack(c, kind, &weight, 1);
}

dn_cuda_pack dn_cuda_add_table(dn_cuda_compiler *c, dn_cuda_pack_kind kind, const dn_node *node)
{
    dn_shape shape = c->plan->values[node->out].shape;
    bool positions = kind == DN_CUDA_PACK_POSITIONS;
    dn_cuda_pack_info pack = {.kind = kind, .node = node, .scale = 1.0f, .count = positions ? dn_shape_count(shape) : shape.c / 2};
    pack.bytes = pack.count * (positions ? sizeof(float) : sizeof(double));
    return find_pack(c, &pack);
}
