/* Which nodes share a step: three rules, each about what else reads the value between.
 *
 * 1. A convolution's row bias is added by the group norm after it, where nothing else reads the convolution and would miss it.
 * 2. A gated linear node is finished by the layer norm that reads it first; the sum is written too, for later readers.
 * 3. Linear nodes that read one vector are one product over their weights, one after another; each node's value is a view of it. */
#include "backend/cuda/compile_private.h"

typedef struct value_readers {
    uint32_t first; /* node; DN_NONE: none */
    uint32_t count; /* inputs of nodes */
    bool packed; /* some reader takes no view */
} value_readers;

/* Readers that take a vector whose rows lie apart. */
static bool takes_view(const dn_node *node, int input)
{
    switch (node->kind) {
    case DN_NODE_CONV:
    case DN_NODE_GROUP_NORM:
    case DN_NODE_LAYER_NORM:
        return input == 1;
    case DN_NODE_LINEAR:
        return input != 1;
    default:
        return false;
    }
}

static value_readers *find_readers(dn_cuda_compiler *c)
{
    const dn_plan *plan = c->plan;
    value_readers *readers = dn_arena_alloc_array(&c->scratch, plan->value_count, sizeof *readers);
    for (dn_value v = 0; readers && v < plan->value_count; v++)
        readers[v].first = DN_NONE;
    for (uint32_t n = 0; readers && n < plan->node_count; n++) {
        for (int i = 0; i < 3; i++) {
            dn_value v = plan->nodes[n].in[i];
            if (v == DN_NONE)
                continue;
            if (readers[v].count++ == 0)
                readers[v].first = n;
            readers[v].packed |= !takes_view(&plan->nodes[n], i);
        }
    }
    return readers;
}

static void absorb(dn_cuda_compiler *c, uint32_t node, uint32_t norm)
{
    c->absorber[node] = norm;
    c->absorbed[norm] = node;
}

/* The first reader of a node's value, where it is a norm of that kind over it, and is not modulated by it. */
static const dn_node *norm_after(const dn_cuda_compiler *c, const value_readers *readers, const dn_node *node, dn_node_kind kind)
{
    uint32_t first = readers[node->out].first;
    if (first == DN_NONE)
        return NULL;
    const dn_node *norm = &c->plan->nodes[first];
    return norm->kind == kind && norm->in[1] != node->out ? norm : NULL;
}

static void find_row_bias(dn_cuda_compiler *c, const value_readers *readers, uint32_t n)
{
    const dn_node *conv = &c->plan->nodes[n];
    bool alone = readers[conv->out].count == 1 && conv->out != c->plan->output;
    if (conv->in[1] == DN_NONE || conv->scale != 1.0f || !alone)
        return;
    const dn_node *norm = norm_after(c, readers, conv, DN_NODE_GROUP_NORM);
    if (norm)
        absorb(c, n, (uint32_t)(norm - c->plan->nodes));
}

/* What a product's own epilogue cannot say stands between it and a norm. */
static void find_gate(dn_cuda_compiler *c, const value_readers *readers, uint32_t n)
{
    const dn_node *linear = &c->plan->nodes[n];
    bool said = linear->activation == DN_ACT_NONE || linear->activation == DN_ACT_GELU_TANH;
    const dn_node *norm = linear->in[2] != DN_NONE && said ? norm_after(c, readers, linear, DN_NODE_LAYER_NORM) : NULL;
    if (norm)
        absorb(c, n, (uint32_t)(norm - c->plan->nodes));
}

/* Whether a linear node may be part of a stack: its part begins and ends at whole units. */
static bool stacks(const dn_cuda_compiler *c, const value_readers *readers, const dn_node *node)
{
    if (node->kind != DN_NODE_LINEAR || node->in[1] != DN_NONE || readers[node->out].packed)
        return false;
    dn_shape shape = c->plan->values[node->out].shape;
    return shape.h == 1 && shape.w == 1 && shape.c % DN_CUDA_CHANNEL_UNIT == 0;
}

static bool alike(const dn_node *a, const dn_node *b)
{
    return a->in[0] == b->in[0] && a->activation == b->activation && a->scale == b->scale && (a->bias == DN_NONE) == (b->bias == DN_NONE);
}

static void find_stack(dn_cuda_compiler *c, const value_readers *readers, uint32_t n)
{
    const dn_plan *plan = c->plan;
    if (c->stack_follower[n] || !stacks(c, readers, &plan->nodes[n]))
        return;
    for (uint32_t last = n, i = n + 1; i < plan->node_count; i++) {
        if (!stacks(c, readers, &plan->nodes[i]) || !alike(&plan->nodes[n], &plan->nodes[i]))
            continue;
        c->stack_next[last] = i;
        c->stack_follower[i] = true;
        last = i;
    }
}

void dn_cuda_find_fusions(dn_cuda_compiler *c)
{
    const value_readers *readers = find_readers(c);
    if (!readers) {
        c->status = dn_fail(c->error, DN_NO_MEMORY, "no memory to compile a plan");
        return;
    }
    for (uint32_t n = 0; n < c->plan->node_count; n++) {
        if (c->plan->nodes[n].kind == DN_NODE_CONV)
            find_row_bias(c, readers, n);
        if (c->plan->nodes[n].kind == DN_NODE_LINEAR)
            find_gate(c, readers, n);
        find_stack(c, readers, n);
    }
}
