/* Attention as cuDNN's one operation: queries, keys and values where the product before it left them, side by side in rows of in_pitch;
 * the scale is passed by value. */
#include "backend/cuda/nvidia/private.h"

dn_cudnn_descriptor dn_cudnn_sdpa_graph(dn_cudnn *set, const dn_cuda_product_spec *spec, uint32_t rows)
{
    const cudnnDataType_t type = spec->type == DN_CUDA_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const int64_t positions = (int64_t)spec->h * spec->w, width = (int64_t)spec->heads * spec->head_dim;
    const int64_t dims[4] = {rows, spec->heads, positions, spec->head_dim};
    const int64_t in_strides[4] = {positions * spec->in_pitch, spec->head_dim, spec->in_pitch, 1};
    const int64_t out_strides[4] = {positions * width, spec->head_dim, width, 1};
    dn_cudnn_descriptor queries = dn_cudnn_tensor(set, DN_CUDNN_IN, type, dims, in_strides);
    dn_cudnn_descriptor keys = dn_cudnn_tensor(set, DN_CUDNN_KEYS, type, dims, in_strides);
    dn_cudnn_descriptor values = dn_cudnn_tensor(set, DN_CUDNN_VALUES, type, dims, in_strides);
    dn_cudnn_descriptor out = dn_cudnn_tensor(set, DN_CUDNN_OUT, type, dims, out_strides);
    dn_cudnn_descriptor scale = dn_cudnn_scalar(set, DN_CUDNN_SCALE);
    dn_cudnn_descriptor operation = dn_cudnn_make(set, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &queries);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &keys);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &values);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &out);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &scale);
    operation = dn_cudnn_finalize(set, operation, "an attention");
    return dn_cudnn_operations(set, &operation, 1);
}
