/* Running what cuDNN planned: pointers to a plan's tensors, on a handle of the stream's own. The lock is held while a run is enqueued, since
 * handles and plans are not for several threads at a time. */
#include "backend/cuda/nvidia/private.h"

#include <math.h>
#include <string.h>

/* The stream's own handle; the one that was idle longest, if every one has a stream already. The lock is held. */
static dn_cudnn_lane *lane_of(dn_cuda_libraries *libraries, cudaStream_t stream, cudnnStatus_t *code)
{
    dn_cudnn_lane *best = NULL;
    for (uint32_t i = 0; i < DN_CUDNN_LANES; i++) {
        dn_cudnn_lane *lane = &libraries->lanes[i];
        if (lane->bound && lane->stream == stream) {
            best = lane;
            break;
        }
        if (!best || lane->used < best->used)
            best = lane;
    }
    /* Every time: a stream that came later may have the address of one that is gone. */
    *code = cudnnSetStream(best->handle, stream);
    best->stream = stream;
    best->bound = *code == CUDNN_STATUS_SUCCESS;
    best->used = ++libraries->runs;
    return best;
}

static dn_cudnn_descriptor variant_pack(dn_cudnn *set, const dn_cuda_product *product, const dn_cuda_operands *operands, float *scale)
{
    const dn_cuda_product_spec *spec = &product->spec;
    const char *in = operands->in;
    const size_t part = (size_t)spec->heads * spec->head_dim * (spec->type == DN_CUDA_BF16 ? 2 : 4);
    const int64_t attention[] = {DN_CUDNN_IN, DN_CUDNN_KEYS, DN_CUDNN_VALUES, DN_CUDNN_OUT, DN_CUDNN_SCALE};
    const void *attended[] = {in, in + part, in + 2 * part, operands->out, scale};
    int64_t uids[5] = {DN_CUDNN_IN, DN_CUDNN_WEIGHT, DN_CUDNN_OUT}, count = 3;
    const void *pointers[5] = {in, operands->weight, operands->out};
    if (spec->kind == DN_CUDA_SDPA) {
        count = 5;
        memcpy(uids, attention, sizeof attention);
        memcpy(pointers, attended, sizeof attended);
    } else {
        if (spec->residual) {
            uids[count] = DN_CUDNN_RESIDUAL;
            pointers[count++] = operands->residual;
        }
        if (spec->bias) {
            uids[count] = DN_CUDNN_BIAS;
            pointers[count++] = operands->bias;
        }
    }
    dn_cudnn_descriptor pack = dn_cudnn_make(set, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    dn_cudnn_set(set, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uids);
    dn_cudnn_set(set, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, pointers);
    dn_cudnn_set(set, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &operands->workspace);
    return dn_cudnn_finalize(set, pack, "a run's pointers");
}

dn_status dn_cudnn_run(const dn_cuda_product *product, uint32_t bucket, const dn_cuda_operands *operands, cudaStream_t stream,
                       dn_error *error)
{
    dn_cuda_libraries *libraries = product->libraries;
    float scale = product->spec.head_dim ? 1.0f / sqrtf((float)product->spec.head_dim) : 1.0f;
    dn_cudnn set = {0};
    dn_cudnn_descriptor pack = variant_pack(&set, product, operands, &scale);
    cudnnStatus_t code = CUDNN_STATUS_SUCCESS;
    if (pack) {
        pthread_mutex_lock(&libraries->lock);
        dn_cudnn_lane *lane = lane_of(libraries, stream, &code);
        if (code == CUDNN_STATUS_SUCCESS)
            code = cudnnBackendExecute(lane->handle, product->plans[bucket], pack);
        pthread_mutex_unlock(&libraries->lock);
    }
    dn_status status = set.error.status;
    if (status)
        dn_fail(error, status, "%s: %s", product->text, set.error.message);
    if (code != CUDNN_STATUS_SUCCESS) {
        char words[256] = "";
        cudnnGetLastErrorString(words, sizeof words);
        bool broken = CUDNN_STATUS_CATEGORY(code) == CUDNN_STATUS_EXECUTION_FAILED;
        status =
            dn_fail(error, broken ? DN_DEVICE_LOST : DN_INTERNAL, "%s: cuDNN: %s: %.255s", product->text, cudnnGetErrorString(code), words);
    }
    dn_cudnn_done(&set);
    return status;
}
