/* Where every slot lies: which share one block of memory because a step overwrites its input, and a place for each block.
 *
 * Invariant: blocks that are alive at one step do not overlap. A block lives from the step that first writes it to the last that reads
 * one of its slots or a view of them; with keep_values for ever. Blocks are placed one after another, each in the smallest hole that
 * holds it: the largest first, or those of the most bytes times steps, whichever needs less (a packing problem: no order is always best). */
#include <stdlib.h>

#include "backend/cuda/compile_private.h"

typedef struct memory_block {
    uint64_t bytes, offset; /* a row's */
    uint32_t first, last; /* steps, inclusive */
    uint32_t index;
} memory_block;

typedef struct memory_plan {
    dn_cuda_compiler *c;
    uint32_t *last_use; /* [slot] that is no view: step */
    uint32_t *block_of; /* [slot] */
    memory_block *blocks;
    memory_block **order, **placed; /* [block_count] */
    uint32_t block_count;
} memory_plan;

static void find_last_uses(memory_plan *m)
{
    const dn_cuda_compiled *out = m->c->out;
    for (uint32_t s = 0; s < out->step_count; s++) {
        const dn_cuda_step *step = &out->steps[s];
        for (int i = 0; i < 2; i++)
            if (step->out[i] != DN_NONE)
                m->last_use[step->out[i]] = s;
        for (int i = 0; i < DN_CUDA_STEP_INPUTS; i++)
            if (step->in[i] != DN_NONE)
                m->last_use[out->slots[step->in[i]].base] = s;
    }
}

/* Whether output `which` of a step may lie on its input i: launch.h and libraries.h say so. These have one layout. */
static bool may_overwrite(const dn_cuda_step *step, int which, int i)
{
    switch (step->kind) {
    case DN_CUDA_STEP_FINISH:
        return i == 0 || i == 2;
    case DN_CUDA_STEP_PRODUCT:
        return i == 1;
    case DN_CUDA_STEP_LAYER_NORM:
        return which == 1 && i == 4;
    case DN_CUDA_STEP_GROUP_NORM:
    case DN_CUDA_STEP_AFFINE:
    case DN_CUDA_STEP_ACTIVATE:
    case DN_CUDA_STEP_POSITION:
    case DN_CUDA_STEP_DIVIDE_BY_TIME:
        return i == 0;
    default:
        return false;
    }
}

/* Whether input i of step s is read nowhere else in it, nor later, and may be lost. A view has no last use of its own: it stays. */
static bool is_spent(const memory_plan *m, uint32_t s, int i)
{
    const dn_cuda_compiled *out = m->c->out;
    const dn_cuda_step *step = &out->steps[s];
    dn_cuda_slot slot = step->in[i];
    if (m->last_use[slot] != s || (out->keep_values && out->slots[slot].value != DN_NONE))
        return false;
    for (int j = 0; j < DN_CUDA_STEP_INPUTS; j++)
        if (j != i && step->in[j] != DN_NONE && out->slots[step->in[j]].base == slot)
            return false;
    return true;
}

/* The block of an input that this output may overwrite; DN_NONE: it needs one of its own. */
static uint32_t inherited_block(const memory_plan *m, uint32_t s, int which)
{
    const dn_cuda_step *step = &m->c->out->steps[s];
    for (int i = 0; i < DN_CUDA_STEP_INPUTS; i++) {
        if (step->in[i] != DN_NONE && may_overwrite(step, which, i) && is_spent(m, s, i))
            return m->block_of[step->in[i]];
    }
    return DN_NONE;
}

static void add_to_block(memory_plan *m, uint32_t s, int which)
{
    const dn_cuda_compiled *out = m->c->out;
    dn_cuda_slot slot = out->steps[s].out[which];
    uint32_t block = inherited_block(m, s, which);
    if (block == DN_NONE) {
        block = m->block_count++;
        m->blocks[block] = (memory_block){.first = s, .index = block};
        m->blocks[block].bytes = dn_cuda_memory_units(out->slots[slot].row_pitch * dn_cuda_type_bytes(out->type));
    }
    m->block_of[slot] = block;
    m->blocks[block].last = out->keep_values ? out->step_count : m->last_use[slot];
}

static void find_blocks(memory_plan *m)
{
    for (uint32_t s = 0; s < m->c->out->step_count; s++)
        for (int which = 0; which < 2; which++)
            if (m->c->out->steps[s].out[which] != DN_NONE)
                add_to_block(m, s, which);
}

/* Equal ones in the order of their steps. */
static int larger_first(double a, double b, const memory_block *x, const memory_block *y)
{
    if (a != b)
        return a > b ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int by_bytes(const void *x, const void *y)
{
    const memory_block *a = *(memory_block *const *)x, *b = *(memory_block *const *)y;
    return larger_first((double)a->bytes, (double)b->bytes, a, b);
}

static int by_bytes_and_life(const void *x, const void *y)
{
    const memory_block *a = *(memory_block *const *)x, *b = *(memory_block *const *)y;
    return larger_first((double)a->bytes * (a->last - a->first + 1), (double)b->bytes * (b->last - b->first + 1), a, b);
}

/* The smallest hole between the blocks that live with it, or what lies behind them all. placed: by offset. */
static uint64_t best_hole(memory_block *const *placed, uint32_t count, const memory_block *block)
{
    uint64_t end = 0, best = UINT64_MAX, where = 0;
    for (uint32_t i = 0; i < count; i++) {
        const memory_block *other = placed[i];
        if (other->last < block->first || block->last < other->first)
            continue;
        if (other->offset >= end + block->bytes && other->offset - end < best) {
            best = other->offset - end;
            where = end;
        }
        if (other->offset + other->bytes > end)
            end = other->offset + other->bytes;
    }
    return best == UINT64_MAX ? end : where;
}

/* Places every block in this order; returns the bytes that it takes. */
static uint64_t place(memory_plan *m, int (*compare)(const void *, const void *))
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < m->block_count; i++)
        m->order[i] = &m->blocks[i];
    qsort(m->order, m->block_count, sizeof *m->order, compare);
    for (uint32_t i = 0; i < m->block_count; i++) {
        memory_block *block = m->order[i];
        block->offset = best_hole(m->placed, i, block);
        uint32_t at = i;
        for (; at > 0 && m->placed[at - 1]->offset > block->offset; at--)
            m->placed[at] = m->placed[at - 1];
        m->placed[at] = block;
        if (block->offset + block->bytes > total)
            total = block->offset + block->bytes;
    }
    return total;
}

void dn_cuda_plan_memory(dn_cuda_compiler *c)
{
    dn_cuda_compiled *out = c->out;
    const size_t count = (size_t)out->slot_count + 1;
    memory_plan m = {.c = c};
    m.last_use = dn_arena_alloc_array(&c->scratch, count, sizeof *m.last_use);
    m.block_of = dn_arena_alloc_array(&c->scratch, count, sizeof *m.block_of);
    m.blocks = dn_arena_alloc_array(&c->scratch, count, sizeof *m.blocks);
    m.order = dn_arena_alloc_array(&c->scratch, count, sizeof *m.order);
    m.placed = dn_arena_alloc_array(&c->scratch, count, sizeof *m.placed);
    if (!m.last_use || !m.block_of || !m.blocks || !m.order || !m.placed) {
        c->status = dn_fail(c->error, DN_NO_MEMORY, "no memory to compile a plan");
        return;
    }
    find_last_uses(&m);
    find_blocks(&m);
    uint64_t by_life = place(&m, by_bytes_and_life);
    out->row_bytes = place(&m, by_bytes);
    if (by_life < out->row_bytes)
        out->row_bytes = place(&m, by_bytes_and_life);
    for (dn_cuda_slot s = 0; s < out->slot_count; s++)
        out->slots[s].offset = m.blocks[m.block_of[out->slots[s].base]].offset;
}
