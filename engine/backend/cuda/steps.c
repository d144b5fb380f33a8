/* A compiled plan's steps as launches and products on a stream, in order. Reads the workspace and changes nothing on the host. */
#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/state.h"

typedef struct context {
    const dn_cuda_pass *pass;
    const dn_cuda_step *step;
    dn_cuda_launch launch;
    const dn_cuda_block *block; /* on the device */
} context;

dn_cuda_view dn_cuda_slot_view(const dn_workspace *workspace, uint32_t bucket, dn_cuda_slot slot)
{
    dn_cuda_view view = {0};
    if (slot == DN_NONE)
        return view;
    const dn_cuda_compiled *compiled = workspace->form->compiled;
    const dn_cuda_slot_info *info = &compiled->slots[slot];
    uint64_t element = compiled->type == DN_CUDA_BF16 ? 2 : 4;
    view.data = (unsigned char *)workspace->memory + workspace->buckets.rows[bucket] * info->offset + info->view_at * element;
    view.h = info->h;
    view.w = info->w;
    view.c = info->c;
    view.pitch = info->pitch;
    view.row_pitch = info->row_pitch;
    return view;
}

static dn_cuda_view in(const context *c, uint32_t index)
{
    return dn_cuda_slot_view(c->pass->workspace, c->pass->bucket, c->step->in[index]);
}

static dn_cuda_view out(const context *c)
{
    return dn_cuda_slot_view(c->pass->workspace, c->pass->bucket, c->step->out[0]);
}

static const void *packed(const context *c, dn_cuda_pack pack)
{
    return pack == DN_NONE ? NULL : c->pass->workspace->form->packs[pack];
}

static const void *weight(const context *c)
{
    return packed(c, c->step->weight);
}

static dn_cuda_activation activation(const context *c)
{
    return (dn_cuda_activation)c->step->node->activation;
}

static int gather(const context *c)
{
    return dn_cuda_gather(&c->launch, c->block, out(c));
}

static int scatter(const context *c)
{
    return dn_cuda_scatter(&c->launch, c->block, in(c, 0), c->pass->workspace->seats[c->pass->bucket].device_finite);
}

static int finish(const context *c)
{
    const dn_cuda_step *step = c->step;
    dn_cuda_finish_options options = {
        .x = in(c, 0),
        .row_bias = in(c, 1),
        .residual = in(c, 2),
        .gate = in(c, 3),
        .out = out(c),
        .bias = packed(c, step->bias),
        .residual_last = step->residual_last,
        .scale = step->scaled ? step->node->scale : 1.0f,
        .activation = step->activated ? activation(c) : DN_CUDA_ACT_NONE,
    };
    return dn_cuda_finish(&c->launch, &options);
}

static int group_norm(const context *c)
{
    dn_cuda_group_norm_options options = {
        .in = in(c, 0),
        .row_bias = in(c, 2),
        .out = out(c),
        .weight = weight(c),
        .bias = packed(c, c->step->bias),
        .modulation = in(c, 1),
        .groups = c->step->node->groups,
        .epsilon = c->step->node->epsilon,
        .activation = activation(c),
        .scratch = c->pass->workspace->scratch,
    };
    return dn_cuda_group_norm(&c->launch, &options);
}

static int layer_norm(const context *c)
{
    dn_cuda_layer_norm_options options = {
        .in = in(c, 0),
        .out = out(c),
        .gate = in(c, 3),
        .residual = in(c, 4),
        .sum = dn_cuda_slot_view(c->pass->workspace, c->pass->bucket, c->step->out[1]),
        .weight = weight(c),
        .bias = packed(c, c->step->bias),
        .shift = in(c, 1),
        .scale = in(c, 2),
        .epsilon = c->step->node->epsilon,
    };
    return dn_cuda_layer_norm(&c->launch, &options);
}

static int attention(const context *c)
{
    return dn_cuda_attention(&c->launch, in(c, 0), out(c), c->step->node->heads);
}

static int time_embedding(const context *c)
{
    return dn_cuda_time_embedding(&c->launch, c->block, weight(c), c->step->node->flip_sin_to_cos, out(c));
}

static int class_sinusoid(const context *c)
{
    return dn_cuda_class_sinusoid(&c->launch, c->block, weight(c), c->step->node->flip_sin_to_cos, out(c));
}

static int fourier_embedding(const context *c)
{
    const dn_node *node = c->step->node;
    return dn_cuda_fourier_embedding(&c->launch, c->block, weight(c), node->log_time, node->flip_sin_to_cos, out(c));
}

static int time_table(const context *c)
{
    return dn_cuda_time_table(&c->launch, c->block, weight(c), c->pass->workspace->network->plan->time_rows, out(c));
}

static int class_embedding(const context *c)
{
    return dn_cuda_class_embedding(&c->launch, c->block, weight(c), c->pass->workspace->network->plan->class_rows, out(c));
}

static int affine(const context *c)
{
    return dn_cuda_affine(&c->launch, in(c, 0), c->step->node->scale, c->step->node->shift, out(c));
}

static int activate(const context *c)
{
    return dn_cuda_activate(&c->launch, in(c, 0), activation(c), out(c));
}

static int upsample_nearest2(const context *c)
{
    return dn_cuda_upsample_nearest2(&c->launch, in(c, 0), out(c));
}

static int average_pool2(const context *c)
{
    return dn_cuda_average_pool2(&c->launch, in(c, 0), out(c));
}

static int fir2(const context *c)
{
    const dn_node *node = c->step->node;
    return dn_cuda_fir2(&c->launch, in(c, 0), node->kind == DN_NODE_UPSAMPLE_FIR2, node->pad_top, node->pad_left, out(c));
}

static int position(const context *c)
{
    return dn_cuda_position(&c->launch, in(c, 0), weight(c), out(c));
}

static int unpatchify(const context *c)
{
    return dn_cuda_unpatchify(&c->launch, in(c, 0), c->step->node->kernel, out(c));
}

static int divide_by_time(const context *c)
{
    return dn_cuda_divide_by_time(&c->launch, c->block, in(c, 0), out(c));
}

static int concat(const context *c)
{
    return dn_cuda_concat(&c->launch, in(c, 0), in(c, 1), out(c));
}

static int global_pool(const context *c)
{
    return dn_cuda_global_pool(&c->launch, in(c, 0), activation(c), out(c));
}

static dn_status product(const context *c, dn_error *error)
{
    const dn_workspace *workspace = c->pass->workspace;
    dn_cuda_operands operands = {
        .in = in(c, 0).data,
        .weight = weight(c),
        .residual = in(c, 1).data,
        .bias = packed(c, c->step->bias),
        .out = out(c).data,
        .workspace = workspace->scratch,
    };
    const dn_cuda_product *made = workspace->form->products[c->step->product];
    dn_status status = dn_cuda_product_run(made, c->pass->bucket, &operands, c->pass->stream, error);
    if (status == DN_DEVICE_LOST) /* the device is told what CUDA says of it, if it says anything */
        (void)dn_cuda_check(workspace->network->device, cudaPeekAtLastError(), c->step->name, NULL);
    return status;
}

dn_status dn_cuda_steps(const dn_cuda_pass *pass, dn_error *error)
{
    static int (*const functions[DN_CUDA_STEP_KINDS])(const context *) = {
        [DN_CUDA_STEP_GATHER] = gather,
        [DN_CUDA_STEP_SCATTER] = scatter,
        [DN_CUDA_STEP_FINISH] = finish,
        [DN_CUDA_STEP_GROUP_NORM] = group_norm,
        [DN_CUDA_STEP_LAYER_NORM] = layer_norm,
        [DN_CUDA_STEP_ATTENTION] = attention,
        [DN_CUDA_STEP_TIME_EMBEDDING] = time_embedding,
        [DN_CUDA_STEP_CLASS_SINUSOID] = class_sinusoid,
        [DN_CUDA_STEP_FOURIER_EMBEDDING] = fourier_embedding,
        [DN_CUDA_STEP_TIME_TABLE] = time_table,
        [DN_CUDA_STEP_CLASS_EMBEDDING] = class_embedding,
        [DN_CUDA_STEP_AFFINE] = affine,
        [DN_CUDA_STEP_ACTIVATE] = activate,
        [DN_CUDA_STEP_UPSAMPLE_NEAREST2] = upsample_nearest2,
        [DN_CUDA_STEP_AVERAGE_POOL2] = average_pool2,
        [DN_CUDA_STEP_FIR2] = fir2,
        [DN_CUDA_STEP_POSITION] = position,
        [DN_CUDA_STEP_UNPATCHIFY] = unpatchify,
        [DN_CUDA_STEP_DIVIDE_BY_TIME] = divide_by_time,
        [DN_CUDA_STEP_CONCAT] = concat,
        [DN_CUDA_STEP_GLOBAL_POOL] = global_pool,
    };
    const dn_workspace *workspace = pass->workspace;
    const dn_cuda_compiled *compiled = workspace->form->compiled;
    context c = {
        .pass = pass,
        .launch = {.stream = pass->stream, .type = compiled->type, .rows = workspace->buckets.rows[pass->bucket]},
        .block = workspace->seats[pass->bucket].device_block,
    };
    dn_status status = DN_OK;
    for (uint32_t s = 0; s < compiled->step_count && status == DN_OK; s++) {
        c.step = &compiled->steps[s];
        if (c.step->kind == DN_CUDA_STEP_PRODUCT)
            status = product(&c, error);
        else
            status = dn_cuda_check(workspace->network->device, (cudaError_t)functions[c.step->kind](&c), c.step->name, error);
    }
    return status;
}
