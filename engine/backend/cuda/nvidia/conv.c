/* A convolution as cuDNN's graph: convolution, then + residual, then + bias, which is the order that its precompiled kernels know; any other
 * is compiled at run time. Activations NHWC, filters [n][kernel][kernel][k]. */
#include "backend/cuda/nvidia/private.h"

static dn_cudnn_descriptor nhwc(dn_cudnn *set, int64_t uid, cudnnDataType_t type, int64_t n, int64_t c, int64_t h, int64_t w)
{
    const int64_t dims[4] = {n, c, h, w}, strides[4] = {c * h * w, 1, c * w, c};
    return dn_cudnn_tensor(set, uid, type, dims, strides);
}

static dn_cudnn_descriptor convolution(dn_cudnn *set, const dn_cuda_product_spec *spec)
{
    dn_cudnn_descriptor how = dn_cudnn_make(set, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const int64_t spatial = 2, before[2] = {spec->pad_top, spec->pad_left}, after[2] = {spec->pad_bottom, spec->pad_right};
    const int64_t strides[2] = {spec->stride, spec->stride}, dilations[2] = {1, 1};
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    dn_cudnn_set(set, how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
    dn_cudnn_set(set, how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    dn_cudnn_set(set, how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    dn_cudnn_set(set, how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    dn_cudnn_set(set, how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    dn_cudnn_set(set, how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    dn_cudnn_set(set, how, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations);
    return dn_cudnn_finalize(set, how, "describing a convolution");
}

dn_cudnn_descriptor dn_cudnn_conv_graph(dn_cudnn *set, const dn_cuda_product_spec *spec, uint32_t rows)
{
    const cudnnDataType_t type = spec->type == DN_CUDA_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
    const double one = 1.0, zero = 0.0;
    const bool alone = !spec->residual && !spec->bias;
    dn_cudnn_descriptor in = nhwc(set, DN_CUDNN_IN, type, rows, spec->k, spec->h, spec->w);
    dn_cudnn_descriptor filter = nhwc(set, DN_CUDNN_WEIGHT, type, spec->n, spec->k, spec->kernel, spec->kernel);
    dn_cudnn_descriptor out = nhwc(set, DN_CUDNN_OUT, type, rows, spec->n, spec->out_h, spec->out_w);
    dn_cudnn_descriptor sum = alone ? out : nhwc(set, 0, type, rows, spec->n, spec->out_h, spec->out_w);
    dn_cudnn_descriptor how = convolution(set, spec), operations[3];
    int64_t count = 0;
    dn_cudnn_descriptor operation = dn_cudnn_make(set, CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &how);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &in);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &filter);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &sum);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_DOUBLE, 1, &one);
    dn_cudnn_set(set, operation, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_DOUBLE, 1, &zero);
    operations[count++] = dn_cudnn_finalize(set, operation, "a convolution");
    if (spec->residual) {
        dn_cudnn_descriptor residual = nhwc(set, DN_CUDNN_RESIDUAL, type, rows, spec->n, spec->out_h, spec->out_w);
        dn_cudnn_descriptor both = spec->bias ? nhwc(set, 0, type, rows, spec->n, spec->out_h, spec->out_w) : out;
        operations[count++] = dn_cudnn_add(set, spec->scale != 0.0f ? spec->scale : 1.0f, sum, residual, both);
        sum = both;
    }
    if (spec->bias) {
        dn_cudnn_descriptor bias = nhwc(set, DN_CUDNN_BIAS, type, 1, spec->n, 1, 1);
        operations[count++] = dn_cudnn_add(set, 1.0f, sum, bias, out);
    }
    return dn_cudnn_operations(set, operations, count);
}
