/* Weights on their way to the card: from a checkpoint's floats, through pinned memory, to what products and kernels read.
 *
 * Two stages take turns: while one is copied and converted on the card, the other is filled. Each holds whole outputs of a filter. The
 * caller's thread alone; a stream of its own. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/state.h"
#include "plan/tables.h"

#define STAGE_BYTES ((size_t)16 << 20) /* at least one output of a filter, which is smaller than this by the limits on channels */

typedef struct stage {
    unsigned char *pinned;
    void *device;
    cudaEvent_t empty;
} stage;

typedef struct upload {
    dn_device *device;
    const dn_cuda_compiled *compiled;
    const dn_weights *weights;
    dn_weights *spent; /* NULL: they stay */
    uint32_t *users; /* [weight_count] packs that still need each */
    unsigned char *packed;
    size_t stage_bytes;
    stage stages[2];
    unsigned turn;
    cudaStream_t stream;
} upload;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* No more than the largest piece needs. */
static size_t stage_bytes(const dn_plan *plan, const dn_cuda_compiled *compiled)
{
    size_t most = 256;
    for (uint32_t w = 0; w < plan->weight_count; w++)
        most = larger(most, (size_t)plan->weights[w].count * sizeof(float));
    for (uint32_t p = 0; p < compiled->pack_count; p++) {
        if (compiled->packs[p].weight_count == 0)
            most = larger(most, (size_t)compiled->packs[p].bytes);
    }
    most = most < STAGE_BYTES ? most : STAGE_BYTES;
    for (uint32_t w = 0; w < plan->weight_count; w++)
        most = larger(most, (size_t)(plan->weights[w].count / plan->weights[w].dims[0]) * sizeof(float));
    return (most + 255) / 256 * 256;
}

static void close_upload(upload *u)
{
    if (u->stream)
        (void)cudaStreamSynchronize(u->stream);
    for (int s = 0; s < 2; s++) {
        if (u->stages[s].empty)
            (void)cudaEventDestroy(u->stages[s].empty);
        if (u->stages[s].pinned)
            (void)cudaFreeHost(u->stages[s].pinned);
        if (u->stages[s].device)
            dn_cuda_release(u->device, u->stages[s].device);
    }
    if (u->stream)
        (void)cudaStreamDestroy(u->stream);
    free(u->users);
}

static dn_status open_upload(upload *u, dn_error *error)
{
    const dn_plan *plan = u->compiled->plan;
    u->stage_bytes = stage_bytes(plan, u->compiled);
    u->users = calloc((size_t)plan->weight_count + 1, sizeof *u->users);
    if (!u->users)
        return dn_fail(error, DN_NO_MEMORY, "no memory for packing weights");
    for (uint32_t p = 0; p < u->compiled->pack_count; p++) {
        const dn_cuda_pack_info *pack = &u->compiled->packs[p];
        for (uint32_t w = 0; w < pack->weight_count; w++)
            u->users[pack->weights[w]]++;
    }
    dn_status status = dn_cuda_check(u->device, cudaStreamCreateWithFlags(&u->stream, cudaStreamNonBlocking), "making a stream", error);
    for (int s = 0; s < 2 && status == DN_OK; s++) {
        void *pinned = NULL;
        status = dn_cuda_check(u->device, cudaMallocHost(&pinned, u->stage_bytes), "reserving pinned memory for weights", error);
        u->stages[s].pinned = pinned;
        if (status == DN_OK)
            status = dn_cuda_alloc(u->device, &u->stages[s].device, u->stage_bytes, error);
        if (status == DN_OK)
            status =
                dn_cuda_check(u->device, cudaEventCreateWithFlags(&u->stages[s].empty, cudaEventDisableTiming), "making an event", error);
    }
    return status;
}

/* The next stage, when what it last held is no longer needed. */
static dn_status take_stage(upload *u, stage **out, dn_error *error)
{
    *out = &u->stages[u->turn];
    u->turn ^= 1u;
    return dn_cuda_check(u->device, cudaEventSynchronize((*out)->empty), "copying weights", error);
}

/* What was put into the stage goes to `to`: on the card, or straight to its place. */
static dn_status send(upload *u, stage *s, void *to, size_t bytes, dn_error *error)
{
    return dn_cuda_check(u->device, cudaMemcpyAsync(to, s->pinned, bytes, cudaMemcpyHostToDevice, u->stream), "copying weights", error);
}

static dn_status sent(upload *u, stage *s, dn_error *error)
{
    return dn_cuda_check(u->device, cudaEventRecord(s->empty, u->stream), "copying weights", error);
}

/* Host bytes as they are. */
static dn_status put_bytes(upload *u, const void *from, unsigned char *to, size_t bytes, dn_error *error)
{
    dn_status status = DN_OK;
    for (size_t done = 0; done < bytes && status == DN_OK;) {
        size_t count = bytes - done < u->stage_bytes ? bytes - done : u->stage_bytes;
        stage *s;
        status = take_stage(u, &s, error);
        if (status == DN_OK) {
            memcpy(s->pinned, (const unsigned char *)from + done, count);
            status = send(u, s, to + done, count, error);
        }
        if (status == DN_OK)
            status = sent(u, s, error);
        done += count;
    }
    return status;
}

static void scale_floats(float *values, uint64_t count, float scale)
{
    for (uint64_t i = 0; scale != 1.0f && i < count; i++)
        values[i] *= scale;
}

/* Floats [o][i][kh][kw], or a vector's, converted on the card; `pad` outputs or elements of zeros behind the last. */
static dn_status put_converted(upload *u, const dn_cuda_pack_info *pack, const float *from, uint64_t outputs, uint64_t pad,
                               unsigned char *to, dn_error *error)
{
    bool filter = pack->kind == DN_CUDA_PACK_FILTER;
    uint64_t element = u->compiled->type == DN_CUDA_BF16 ? 2 : 4;
    uint64_t depth = filter ? (uint64_t)pack->i * pack->kh * pack->kw : 1,
             depth_out = filter ? (uint64_t)pack->i_pad * pack->kh * pack->kw : 1;
    uint64_t per_stage = u->stage_bytes / (depth * sizeof(float));
    dn_cuda_launch launch = {.stream = u->stream, .type = u->compiled->type};
    dn_status status = DN_OK;
    for (uint64_t done = 0; done < outputs && status == DN_OK;) {
        uint64_t count = outputs - done < per_stage ? outputs - done : per_stage;
        uint64_t padded = count + (done + count == outputs ? pad : 0);
        stage *s;
        status = take_stage(u, &s, error);
        if (status != DN_OK)
            break;
        memcpy(s->pinned, from + done * depth, count * depth * sizeof(float));
        scale_floats((float *)(void *)s->pinned, count * depth, pack->scale);
        status = send(u, s, s->device, count * depth * sizeof(float), error);
        if (status != DN_OK)
            break;
        unsigned char *out = to + done * depth_out * element;
        int code = filter ? dn_cuda_pack_filter(&launch, s->device, (uint32_t)count, pack->i, pack->kh, pack->kw, (uint32_t)padded,
                                                pack->i_pad, out)
                          : dn_cuda_pack_vector(&launch, s->device, count, padded, out);
        status = dn_cuda_check(u->device, (cudaError_t)code, "packing weights", error);
        if (status == DN_OK)
            status = sent(u, s, error);
        done += count;
    }
    return status;
}

/* What a node computes of itself: frequencies or positions. */
static dn_status put_table(upload *u, const dn_cuda_pack_info *pack, unsigned char *to, dn_error *error)
{
    void *table = malloc((size_t)pack->bytes);
    if (!table)
        return dn_fail(error, DN_NO_MEMORY, "no memory for packing weights");
    if (pack->kind == DN_CUDA_PACK_FREQUENCIES)
        dn_plan_frequencies(pack->node, 2 * (uint32_t)pack->count, table);
    else
        dn_plan_positions(u->compiled->plan, pack->node, table);
    dn_status status = put_bytes(u, table, to, (size_t)pack->bytes, error);
    free(table);
    return status;
}

static void let_go(upload *u, dn_weight weight)
{
    if (--u->users[weight] == 0 && u->spent)
        dn_weights_release(u->spent, u->compiled->plan, weight);
}

static dn_status put_pack(upload *u, const dn_cuda_pack_info *pack, dn_error *error)
{
    unsigned char *to = u->packed + pack->offset;
    if (pack->weight_count == 0)
        return put_table(u, pack, to, error);
    const dn_plan *plan = u->compiled->plan;
    uint64_t element = u->compiled->type == DN_CUDA_BF16 ? 2 : 4;
    uint64_t left = pack->kind == DN_CUDA_PACK_FILTER ? pack->o_pad : pack->kind == DN_CUDA_PACK_VECTOR ? pack->o_pad : pack->count;
    dn_status status = DN_OK;
    for (uint32_t w = 0; w < pack->weight_count && status == DN_OK; w++) {
        const dn_weight_info *info = &plan->weights[pack->weights[w]];
        const float *from = u->weights->data[pack->weights[w]];
        uint64_t outputs = pack->kind == DN_CUDA_PACK_FILTER ? info->dims[0] : info->count;
        uint64_t pad = w + 1 == pack->weight_count ? left - outputs : 0;
        if (pack->kind == DN_CUDA_PACK_FLOATS) {
            status = put_bytes(u, from, to, (size_t)info->count * sizeof(float), error);
            to += info->count * sizeof(float);
        } else {
            status = put_converted(u, pack, from, outputs, pad, to, error);
            to += outputs * element * (pack->kind == DN_CUDA_PACK_FILTER ? (uint64_t)pack->kh * pack->kw * pack->i_pad : 1);
        }
        left -= outputs;
        let_go(u, pack->weights[w]);
    }
    return status;
}

dn_status dn_cuda_weights_upload(dn_device *device, const dn_cuda_compiled *compiled, const dn_weights *weights, dn_weights *spent,
                                 void *packed, dn_error *error)
{
    if (weights->count != compiled->plan->weight_count)
        return dn_fail(error, DN_INTERNAL, "%u weights for a plan of %u", weights->count, compiled->plan->weight_count);
    upload u = {.device = device, .compiled = compiled, .weights = weights, .spent = spent, .packed = packed};
    dn_status status = open_upload(&u, error);
    for (uint32_t p = 0; p < compiled->pack_count && status == DN_OK; p++)
        status = put_pack(&u, &compiled->packs[p], error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaStreamSynchronize(u.stream), "copying weights", error);
    close_upload(&u);
    return status;
}
