/* The steps of convolutions, linear nodes and attention: a product, and a finish where its epilogue cannot say the rest.
 *
 * A product's epilogue adds the residual, scales, adds the bias (packed times the scale), and, of linear nodes, takes GELU's tanh form.
 * With a row bias, a gate or another activation the product adds its bias alone and the finish does all that is left, in the node's order.
 * 1x1 convolutions of stride 1 without padding are matrix products. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda/compile_private.h"

static uint32_t find_product(dn_cuda_compiler *c, const dn_cuda_product_spec *spec)
{
    dn_cuda_compiled *out = c->out;
    for (uint32_t i = 0; i < out->product_count; i++)
        if (memcmp(&out->products[i], spec, sizeof *spec) == 0)
            return i;
    memcpy(&out->products[out->product_count], spec, sizeof *spec);
    return out->product_count++;
}

/* Zeros in every byte, so that equal specs compare equal. */
static void begin_spec(const dn_cuda_compiler *c, dn_cuda_product_spec *spec, dn_cuda_product_kind kind, const dn_cuda_slot_info *in)
{
    memset(spec, 0, sizeof *spec);
    spec->kind = kind;
    spec->type = c->out->type;
    spec->h = in->h;
    spec->w = in->w;
}

/* A matrix product over every pixel of `in`. */
static void gemm_spec(const dn_cuda_compiler *c, dn_cuda_product_spec *spec, dn_cuda_slot in, dn_cuda_slot out)
{
    const dn_cuda_slot_info *from = &c->out->slots[in], *to = &c->out->slots[out];
    begin_spec(c, spec, DN_CUDA_GEMM, from);
    spec->k = from->pitch;
    spec->n = to->pitch;
    spec->in_row_pitch = from->base == in ? 0 : (uint32_t)from->row_pitch;
}

static void conv_spec(const dn_cuda_compiler *c, dn_cuda_product_spec *spec, const dn_node *node, dn_cuda_slot in, dn_cuda_slot out)
{
    const dn_cuda_slot_info *from = &c->out->slots[in], *to = &c->out->slots[out];
    begin_spec(c, spec, DN_CUDA_CONV, from);
    spec->k = from->pitch;
    spec->n = to->pitch;
    spec->out_h = to->h;
    spec->out_w = to->w;
    spec->kernel = node->kernel;
    spec->stride = node->stride;
    spec->pad_top = node->pad_top;
    spec->pad_left = node->pad_left;
    spec->pad_bottom = node->pad_bottom;
    spec->pad_right = node->pad_right;
}

/* The spec's epilogue is what operands there are. */
static dn_cuda_step *add_product(dn_cuda_compiler *c, const dn_node *node, dn_cuda_product_spec *spec, float scale,
                                 const dn_cuda_step *operands)
{
    spec->scale = scale == 1.0f ? 0.0f : scale;
    spec->bias = operands->bias != DN_NONE;
    spec->residual = operands->in[1] != DN_NONE;
    dn_cuda_step *step = dn_cuda_add_step(c, DN_CUDA_STEP_PRODUCT, node);
    step->in[0] = operands->in[0];
    step->in[1] = operands->in[1];
    step->out[0] = operands->out[0];
    step->weight = operands->weight;
    step->bias = operands->bias;
    step->product = find_product(c, spec);
    return step;
}

/* What a node does to its sum beyond the bias. */
typedef struct rest {
    dn_cuda_slot row_bias, residual, gate; /* DN_NONE where absent */
    bool scaled, activated;
} rest;

static void add_finish(dn_cuda_compiler *c, const dn_node *node, dn_cuda_slot x, dn_cuda_slot out, const rest *left)
{
    dn_cuda_step *step = dn_cuda_add_step(c, DN_CUDA_STEP_FINISH, node);
    step->in[0] = x;
    step->in[1] = left->row_bias;
    step->in[2] = left->residual;
    step->in[3] = left->gate;
    step->out[0] = out;
    step->scaled = left->scaled;
    step->activated = left->activated;
    step->residual_last = left->gate != DN_NONE;
}

/* Whether a product's epilogue (libraries.h) scales as the node does: a convolution's only with a residual. A spec has no 0. */
static bool says_scale(const dn_node *node, dn_cuda_slot residual)
{
    return node->scale == 1.0f || (node->scale != 0.0f && (node->kind == DN_NODE_LINEAR || residual != DN_NONE));
}

void dn_cuda_compile_conv(dn_cuda_compiler *c, uint32_t n)
{
    const dn_node *node = &c->plan->nodes[n];
    bool absorbed = c->absorber[n] != DN_NONE;
    rest left = {.row_bias = absorbed ? DN_NONE : dn_cuda_read(c, node->in[1]),
                 .residual = dn_cuda_read(c, node->in[2]),
                 .gate = DN_NONE,
                 .scaled = node->scale != 1.0f};
    bool finish = left.row_bias != DN_NONE || !says_scale(node, left.residual);
    bool pointwise = node->kernel == 1 && node->stride == 1 && !(node->pad_top | node->pad_left | node->pad_bottom | node->pad_right);
    float scale = finish ? 1.0f : node->scale;
    dn_cuda_step operands = {.in = {dn_cuda_read(c, node->in[0]), finish ? DN_NONE : left.residual}};
    operands.out[0] = finish ? dn_cuda_add_slot(c, c->plan->values[node->out].shape) : dn_cuda_write(c, node->out, !absorbed);
    operands.weight = dn_cuda_add_weight(c, DN_CUDA_PACK_FILTER, node->weight);
    operands.bias = dn_cuda_add_bias(c, &node->bias, 1, scale);
    dn_cuda_product_spec spec;
    if (pointwise)
        gemm_spec(c, &spec, operands.in[0], operands.out[0]);
    else
        conv_spec(c, &spec, node, operands.in[0], operands.out[0]);
    add_product(c, node, &spec, scale, &operands);
    if (finish)
        add_finish(c, node, operands.out[0], dn_cuda_write(c, node->out, true), &left);
}

/* The nodes of a stack that begins with node n; 1: it stands alone. */
static uint32_t stack_nodes(const dn_cuda_compiler *c, uint32_t n)
{
    uint32_t count = 0;
    for (uint32_t i = n; i != DN_NONE; i = c->stack_next[i])
        count++;
    return count;
}

/* Weights and biases of a stack, one node's after another's; all have a bias, or none. */
static void pack_stack(dn_cuda_compiler *c, uint32_t n, uint32_t count, float scale, dn_cuda_step *operands)
{
    const dn_node *nodes = c->plan->nodes;
    dn_weight *weights = dn_arena_alloc_array(&c->scratch, 2 * (size_t)count, sizeof *weights);
    if (!weights) {
        c->status = dn_fail(c->error, DN_NO_MEMORY, "no memory to compile a plan");
        return;
    }
    dn_weight *biases = weights + count;
    for (uint32_t k = 0, i = n; k < count; k++, i = c->stack_next[i]) {
        weights[k] = nodes[i].weight;
        biases[k] = nodes[i].bias;
    }
    operands->weight = dn_cuda_add_pack(c, DN_CUDA_PACK_FILTER, weights, count);
    operands->bias = dn_cuda_add_bias(c, biases, count, scale);
}

/* Memory for the answers of a stack, of which each node's value is a part. */
static dn_cuda_slot write_stack(dn_cuda_compiler *c, uint32_t n)
{
    const dn_plan *plan = c->plan;
    uint32_t channels = 0, first = 0;
    for (uint32_t i = n; i != DN_NONE; i = c->stack_next[i])
        channels += plan->values[plan->nodes[i].out].shape.c;
    dn_cuda_slot whole = dn_cuda_add_slot(c, (dn_shape){1, 1, channels});
    for (uint32_t i = n; i != DN_NONE; i = c->stack_next[i]) {
        dn_value value = plan->nodes[i].out;
        c->slots[value] = dn_cuda_add_part(c, whole, first, plan->values[value].shape.c);
        c->out->slots[c->slots[value]].value = value;
        first += plan->values[value].shape.c;
    }
    return whole;
}

static dn_cuda_slot gate_of(dn_cuda_compiler *c, const dn_node *node)
{
    if (node->in[2] == DN_NONE)
        return DN_NONE;
    return dn_cuda_add_part(c, dn_cuda_read(c, node->in[2]), node->gate_offset, c->plan->values[node->out].shape.c);
}

/* With a gate the residual comes after the activation, so it is never the product's. An activation is behind the scale. */
void dn_cuda_compile_linear(dn_cuda_compiler *c, uint32_t n)
{
    const dn_node *node = &c->plan->nodes[n];
    const uint32_t count = stack_nodes(c, n);
    bool absorbed = c->absorber[n] != DN_NONE, gated = node->in[2] != DN_NONE;
    bool plain = node->activation == DN_ACT_NONE, gelu = node->activation == DN_ACT_GELU_TANH;
    rest left = {.row_bias = DN_NONE, .residual = dn_cuda_read(c, node->in[1]), .scaled = node->scale != 1.0f};
    bool said = says_scale(node, left.residual) && (plain || gelu); /* by the epilogue */
    bool finish = !absorbed && (gated || !said);
    left.activated = !plain && !said;
    left.gate = finish ? gate_of(c, node) : DN_NONE;
    float scale = finish ? 1.0f : node->scale;
    dn_cuda_step operands = {.in = {dn_cuda_read(c, node->in[0]), finish || absorbed ? DN_NONE : left.residual}};
    dn_cuda_slot answer = count > 1 ? write_stack(c, n) : dn_cuda_write(c, node->out, !absorbed);
    const dn_cuda_slot_info *to = &c->out->slots[answer];
    operands.out[0] = finish ? dn_cuda_add_slot(c, (dn_shape){to->h, to->w, to->c}) : answer;
    pack_stack(c, n, count, scale, &operands);
    if (c->status != DN_OK)
        return;
    dn_cuda_product_spec spec;
    gemm_spec(c, &spec, operands.in[0], operands.out[0]);
    spec.gelu_tanh = gelu && said;
    dn_cuda_step *product = add_product(c, node, &spec, scale, &operands);
    if (finish)
        add_finish(c, node, operands.out[0], answer, &left);
    for (dn_cuda_step *step = product; count > 1 && step < c->out->steps + c->out->step_count; step++)
        snprintf(step->name, sizeof step->name, "%.70s and %u more", node->name, count - 1);
}

void dn_cuda_compile_attention(dn_cuda_compiler *c, uint32_t n)
{
    const dn_node *node = &c->plan->nodes[n];
    dn_cuda_slot in = dn_cuda_read(c, node->in[0]), out = dn_cuda_write(c, node->out, true);
    const dn_cuda_slot_info *to = &c->out->slots[out];
    dn_cuda_product_spec spec;
    begin_spec(c, &spec, DN_CUDA_SDPA, &c->out->slots[in]);
    spec.heads = node->heads;
    spec.head_dim = to->c / node->heads;
    spec.in_pitch = c->out->slots[in].pitch;
    bool taken = to->pitch == to->c && c->options->takes_sdpa && c->options->takes_sdpa(&spec);
    if (!taken && spec.head_dim > DN_CUDA_OWN_HEAD_DIM_MAX) {
        c->status = dn_fail(c->error, DN_UNSUPPORTED, "%s: heads of %u channels: this back end's attention takes up to %u", node->name,
                            spec.head_dim, DN_CUDA_OWN_HEAD_DIM_MAX);
        return;
    }
    dn_cuda_step *step = dn_cuda_add_step(c, taken ? DN_CUDA_STEP_PRODUCT : DN_CUDA_STEP_ATTENTION, node);
    step->in[0] = in;
    step->out[0] = out;
    if (taken)
        step->product = find_product(c, &spec);
}
