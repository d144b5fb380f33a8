/* Workspaces: activations of the largest bucket, the scratch of products and norms, and for each bucket the block that its passes read and the flags
 * that they leave. One allocation on the card, one in pinned memory. One thread owns a workspace. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/state.h"

#define ALIGNMENT ((size_t)256) /* of everything on the card */

static size_t rounded(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* A lane asks for a row or two and has one program a tick: of a dozen operations, cut into 32 slices at most. What does not fit is launched
 * before the block. */
static uint32_t slices_of(uint32_t rows, bool background)
{
    return background ? 0 : rows < 4 ? 128 : rows * 32;
}

static uint32_t ops_of(uint32_t rows, bool background)
{
    return background ? 0 : rows < 8 ? 256 : rows * 32;
}

/* Where everything lies, from the start of each allocation. */
typedef struct layout {
    size_t arena, scratch; /* bytes */
    size_t block_at[DN_CUDA_BUCKETS_MAX], flags_at[DN_CUDA_BUCKETS_MAX]; /* in pinned memory; on the card behind arena and scratch */
    size_t block_bytes[DN_CUDA_BUCKETS_MAX];
    size_t pinned, memory; /* bytes in all */
} layout;

/* An empty block's header; `bytes` may be NULL. */
static dn_cuda_block block_of(uint32_t rows, bool background, size_t *bytes)
{
    dn_cuda_block block = {.rows_max = rows, .slices_max = slices_of(rows, background), .ops_max = ops_of(rows, background)};
    size_t at = (sizeof block + 15) / 16 * 16;
    block.rows_at = (uint32_t)at;
    at = (at + rows * sizeof(dn_cuda_row) + 15) / 16 * 16;
    block.slices_at = (uint32_t)at;
    at = (at + block.slices_max * sizeof(dn_cuda_slice) + 15) / 16 * 16;
    block.ops_at = (uint32_t)at;
    if (bytes)
        *bytes = (at + block.ops_max * sizeof(dn_cuda_op) + 15) / 16 * 16;
    return block;
}

static layout lay_out(const dn_cuda_form *form, const dn_cuda_buckets *buckets, bool background)
{
    layout l = {.arena = rounded((size_t)form->compiled->row_bytes * buckets->rows[buckets->count - 1])};
    for (uint32_t p = 0; p < form->compiled->product_count; p++) {
        for (uint32_t b = 0; b < buckets->count; b++) {
            size_t bytes = dn_cuda_product_workspace(form->products[p], b);
            l.scratch = bytes > l.scratch ? bytes : l.scratch;
        }
    }
    for (uint32_t s = 0; s < form->compiled->step_count; s++) {
        const dn_cuda_step *step = &form->compiled->steps[s];
        if (step->kind != DN_CUDA_STEP_GROUP_NORM)
            continue;
        const dn_cuda_slot_info *out = &form->compiled->slots[step->out[0]];
        uint64_t floats = dn_cuda_group_norm_scratch(buckets->rows[buckets->count - 1], out->h, out->w, out->c, step->node->groups);
        l.scratch = floats * sizeof(float) > l.scratch ? (size_t)floats * sizeof(float) : l.scratch;
    }
    l.scratch = rounded(l.scratch);
    for (uint32_t b = 0; b < buckets->count; b++) {
        (void)block_of(buckets->rows[b], background, &l.block_bytes[b]);
        l.block_at[b] = l.pinned;
        l.pinned += rounded(l.block_bytes[b]);
        l.flags_at[b] = l.pinned;
        l.pinned += rounded(buckets->rows[b] * sizeof(uint32_t));
    }
    l.memory = l.arena + l.scratch + l.pinned;
    return l;
}

static void buckets_of(dn_cuda_buckets *out, const dn_cuda_form *form, uint32_t rows)
{
    dn_cuda_buckets_make(out, rows, form->buckets.rows[form->buckets.count - 1]);
}

size_t dn_cuda_workspace_bytes(const dn_network *network, uint32_t rows, bool keep_values)
{
    union {
        const dn_network *in;
        dn_network *out;
    } cast = {.in = network}; /* its kept form is made on demand, under its lock */
    const dn_cuda_form *form = NULL;
    dn_cuda_buckets buckets;
    if (dn_cuda_form_of(&form, cast.out, keep_values, NULL) != DN_OK)
        return 0;
    buckets_of(&buckets, form, rows);
    return lay_out(form, &buckets, false).memory;
}

void dn_cuda_workspace_free(dn_workspace *workspace)
{
    if (!workspace)
        return;
    (void)cudaSetDevice(workspace->network->device->ordinal);
    for (uint32_t b = 0; b < workspace->buckets.count; b++) {
        if (workspace->seats[b].graph)
            (void)cudaGraphExecDestroy(workspace->seats[b].graph);
    }
    if (workspace->done)
        (void)cudaEventDestroy(workspace->done);
    if (workspace->capture)
        (void)cudaStreamDestroy(workspace->capture);
    if (workspace->pinned)
        (void)cudaFreeHost(workspace->pinned);
    if (workspace->memory)
        dn_cuda_release(workspace->network->device, workspace->memory);
    free(workspace);
}

static dn_status reserve(dn_workspace *w, const layout *l, dn_error *error)
{
    dn_device *device = w->network->device;
    dn_error cause = {0};
    size_t unused = 0, total = 0;
    dn_status status = dn_cuda_alloc(device, &w->memory, l->memory, &cause);
    if (status == DN_NO_MEMORY && cudaMemGetInfo(&unused, &total) == cudaSuccess)
        return dn_fail(error, status, "no memory on the GPU for activations of %u rows: %zu MB are wanted, %zu MB of its %zu MB are free",
                       w->rows_max, (l->memory + (1u << 20) - 1) >> 20, unused >> 20, total >> 20);
    if (status != DN_OK)
        return dn_fail(error, status, "%s", cause.message);
    status = dn_cuda_check(device, cudaMallocHost(&w->pinned, l->pinned), "reserving pinned memory for a workspace", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventCreateWithFlags(&w->done, cudaEventDisableTiming), "making an event", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaStreamCreateWithFlags(&w->capture, cudaStreamNonBlocking), "making a stream", error);
    return status;
}

static void seat_buckets(dn_workspace *w, const layout *l)
{
    unsigned char *pinned = w->pinned, *device = (unsigned char *)w->memory + l->arena + l->scratch;
    w->scratch = (unsigned char *)w->memory + l->arena;
    memset(pinned, 0, l->pinned);
    for (uint32_t b = 0; b < w->buckets.count; b++) {
        dn_cuda_seat *seat = &w->seats[b];
        seat->block = (dn_cuda_block *)(void *)(pinned + l->block_at[b]);
        seat->device_block = (dn_cuda_block *)(void *)(device + l->block_at[b]);
        seat->block_bytes = l->block_bytes[b];
        seat->finite = (uint32_t *)(void *)(pinned + l->flags_at[b]);
        seat->device_finite = (uint32_t *)(void *)(device + l->flags_at[b]);
        *seat->block = block_of(w->buckets.rows[b], w->background, NULL);
    }
}

/* DENOISED_CUDA_GRAPHS=0: every pass is enqueued step by step, for tests and debuggers. */
static bool graphs_wanted(void)
{
    const char *text = getenv("DENOISED_CUDA_GRAPHS");
    return !text || strcmp(text, "0") != 0;
}

dn_status dn_cuda_workspace_create(dn_workspace **out, dn_network *network, const dn_workspace_options *options, dn_error *error)
{
    if (options->rows_max == 0 || options->rows_max > DN_BATCH_ROWS_MAX)
        return dn_fail(error, DN_INVALID, "a workspace has 1 to %u rows, not %u", DN_BATCH_ROWS_MAX, options->rows_max);
    dn_status status = dn_cuda_enter(network->device, error);
    if (status != DN_OK)
        return status;
    dn_workspace *w = calloc(1, sizeof *w);
    if (!w)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a workspace");
    w->network = network;
    w->keep_values = options->keep_values;
    w->background = options->background;
    w->graphs = !options->keep_values && graphs_wanted();
    w->rows_max = options->rows_max;
    w->stream = options->background ? network->device->background : network->device->main;
    status = dn_cuda_form_of(&w->form, network, w->keep_values, error);
    if (status == DN_OK)
        buckets_of(&w->buckets, w->form, w->rows_max);
    if (status == DN_OK && w->keep_values && w->buckets.rows[w->buckets.count - 1] < w->rows_max)
        status = dn_fail(error, DN_UNSUPPORTED, "values of %u rows at once are too many for this network: at most %u", w->rows_max,
                         w->buckets.rows[w->buckets.count - 1]);
    if (status == DN_OK) {
        layout l = lay_out(w->form, &w->buckets, w->background);
        status = reserve(w, &l, error);
        if (status == DN_OK)
            seat_buckets(w, &l);
    }
    if (status == DN_OK && w->graphs)
        status = dn_cuda_measure(w, error);
    if (status == DN_OK)
        *out = w;
    else
        dn_cuda_workspace_free(w);
    return status;
}
