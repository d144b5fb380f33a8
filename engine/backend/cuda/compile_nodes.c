/* The steps of norms, with what they do for the node before, and of every node that is one step. */
#include <stdio.h>

#include "backend/cuda/compile_private.h"

void dn_cuda_compile_group_norm(dn_cuda_compiler *c, uint32_t n)
{
    const dn_node *node = &c->plan->nodes[n];
    dn_cuda_step *step = dn_cuda_add_step(c, DN_CUDA_STEP_GROUP_NORM, node);
    step->in[0] = dn_cuda_read(c, node->in[0]);
    step->in[1] = dn_cuda_read(c, node->in[1]);
    if (c->absorbed[n] != DN_NONE)
        step->in[2] = dn_cuda_read(c, c->plan->nodes[c->absorbed[n]].in[1]);
    step->out[0] = dn_cuda_write(c, node->out, true);
    step->weight = dn_cuda_add_weight(c, DN_CUDA_PACK_FLOATS, node->weight);
    step->bias = dn_cuda_add_weight(c, DN_CUDA_PACK_FLOATS, node->bias);
}

/* The gate, residual and sum of the linear node before; in[0] is its product. */
static void finish_gated(dn_cuda_compiler *c, dn_cuda_step *step, const dn_node *linear)
{
    step->in[3] = dn_cuda_add_part(c, dn_cuda_read(c, linear->in[2]), linear->gate_offset, c->plan->values[linear->out].shape.c);
    step->in[4] = dn_cuda_read(c, linear->in[1]);
    step->out[1] = dn_cuda_write(c, linear->out, true);
    snprintf(step->name, sizeof step->name, "%.45s, %.45s", linear->name, step->node->name);
}

void dn_cuda_compile_layer_norm(dn_cuda_compiler *c, uint32_t n)
{
    const dn_node *node = &c->plan->nodes[n];
    const uint32_t channels = c->plan->values[node->out].shape.c;
    dn_cuda_step *step = dn_cuda_add_step(c, DN_CUDA_STEP_LAYER_NORM, node);
    step->in[0] = dn_cuda_read(c, node->in[0]);
    if (node->in[1] != DN_NONE) {
        dn_cuda_slot modulation = dn_cuda_read(c, node->in[1]);
        step->in[1] = dn_cuda_add_part(c, modulation, node->shift_offset, channels);
        step->in[2] = dn_cuda_add_part(c, modulation, node->scale_offset, channels);
    }
    if (c->absorbed[n] != DN_NONE)
        finish_gated(c, step, &c->plan->nodes[c->absorbed[n]]);
    step->out[0] = dn_cuda_write(c, node->out, true);
    step->weight = dn_cuda_add_weight(c, DN_CUDA_PACK_FLOATS, node->weight);
    step->bias = dn_cuda_add_weight(c, DN_CUDA_PACK_FLOATS, node->bias);
}

static const dn_cuda_step_kind plain_kinds[DN_NODE_KINDS] = {
    [DN_NODE_AFFINE] = DN_CUDA_STEP_AFFINE,
    [DN_NODE_TIME_EMBEDDING] = DN_CUDA_STEP_TIME_EMBEDDING,
    [DN_NODE_CLASS_SINUSOID] = DN_CUDA_STEP_CLASS_SINUSOID,
    [DN_NODE_FOURIER_EMBEDDING] = DN_CUDA_STEP_FOURIER_EMBEDDING,
    [DN_NODE_TIME_TABLE] = DN_CUDA_STEP_TIME_TABLE,
    [DN_NODE_CLASS_EMBEDDING] = DN_CUDA_STEP_CLASS_EMBEDDING,
    [DN_NODE_UPSAMPLE_NEAREST2] = DN_CUDA_STEP_UPSAMPLE_NEAREST2,
    [DN_NODE_AVERAGE_POOL2] = DN_CUDA_STEP_AVERAGE_POOL2,
    [DN_NODE_UPSAMPLE_FIR2] = DN_CUDA_STEP_FIR2,
    [DN_NODE_DOWNSAMPLE_FIR2] = DN_CUDA_STEP_FIR2,
    [DN_NODE_POSITION] = DN_CUDA_STEP_POSITION,
    [DN_NODE_UNPATCHIFY] = DN_CUDA_STEP_UNPATCHIFY,
    [DN_NODE_DIVIDE_BY_TIME] = DN_CUDA_STEP_DIVIDE_BY_TIME,
    [DN_NODE_CONCAT] = DN_CUDA_STEP_CONCAT,
    [DN_NODE_GLOBAL_POOL] = DN_CUDA_STEP_GLOBAL_POOL,
    [DN_NODE_ACTIVATION] = DN_CUDA_STEP_ACTIVATE,
};

void dn_cuda_compile_plain(dn_cuda_compiler *c, uint32_t n)
{
    const dn_node *node = &c->plan->nodes[n];
    dn_cuda_step *step = dn_cuda_add_step(c, plain_kinds[node->kind], node);
    step->in[0] = dn_cuda_read(c, node->in[0]);
    step->in[1] = dn_cuda_read(c, node->in[1]);
    step->out[0] = dn_cuda_write(c, node->out, true);
    switch (node->kind) {
    case DN_NODE_TIME_EMBEDDING:
    case DN_NODE_CLASS_SINUSOID:
        step->weight = dn_cuda_add_table(c, DN_CUDA_PACK_FREQUENCIES, node);
        break;
    case DN_NODE_POSITION:
        step->weight = dn_cuda_add_table(c, DN_CUDA_PACK_POSITIONS, node);
        break;
    default:
        step->weight = dn_cuda_add_weight(c, DN_CUDA_PACK_FLOATS, node->weight);
        break;
    }
}
