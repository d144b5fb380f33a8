/* What the files of NVIDIA's libraries share: their handles, a product, and how a configuration is chosen. */
#ifndef DN_BACKEND_CUDA_NVIDIA_PRIVATE_H
#define DN_BACKEND_CUDA_NVIDIA_PRIVATE_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <pthread.h>

#include "backend/cuda/nvidia/cudnn_graph.h"
#include "backend/cuda/spec.h"

#define DN_CUDNN_VERSION_MIN 91300u                         /* attention as one operation, device properties */
#define DN_CUBLASLT_VERSION_MIN 130000u                     /* what the library is linked with */
#define DN_CUDA_GEMM_WORKSPACE_MAX ((size_t)32 << 20)       /* bytes */
#define DN_CUDA_CUDNN_WORKSPACE_MAX ((int64_t)64 << 20)     /* bytes, beside copies of input and output */
#define DN_CUDNN_LANES 4u
#define DN_CUDNN_BUILDERS 8u                                 /* threads that compile plans, each on a handle of its own */

/* A cuDNN handle and the stream it enqueues on. A handle stays with its stream, so that a run on one never waits for another's; plans are made
 * on others, for a handle is for one thread at a time. */
typedef struct dn_cudnn_lane {
    cudnnHandle_t handle;
    cudaStream_t stream;
    bool bound;
    uint64_t used; /* when, counted in runs */
} dn_cudnn_lane;

struct dn_cuda_libraries {
    int device;
    bool fast;
    char text[96];
    cublasLtHandle_t lt;     /* NULL: without a device */
    dn_cudnn properties;     /* without a device: owns the targets' properties */
    dn_cuda_pins *pins;
    pthread_mutex_t building; /* targets: held while a product is made */
    dn_cudnn_target targets[DN_CUDNN_BUILDERS];
    pthread_mutex_t lock;    /* lanes, runs: held while one product is enqueued on a handle */
    dn_cudnn_lane lanes[DN_CUDNN_LANES];
    uint64_t runs;
};

struct dn_cuda_product {
    dn_cuda_libraries *libraries;
    dn_cuda_product_spec spec;
    uint32_t bucket_count;
    uint32_t buckets[DN_CUDA_BUCKETS_MAX];
    size_t workspace[DN_CUDA_BUCKETS_MAX];
    dn_cuda_pin pins[DN_CUDA_BUCKETS_MAX];        /* equal, unless fast */
    cublasLtMatmulAlgo_t algos[DN_CUDA_BUCKETS_MAX];
    cublasComputeType_t sums[DN_CUDA_BUCKETS_MAX]; /* cuBLASLt: pedantic or not, of floats */
    dn_cudnn sets[DN_CUDA_BUCKETS_MAX];           /* cuDNN: each owns its graph and its plan */
    dn_cudnn_descriptor plans[DN_CUDA_BUCKETS_MAX];
    bool uneven;                                  /* one configuration for all, but its sums may depend on the batch */
    char text[DN_CUDA_PIN_NAME + 400];
};

/* Handles without a GPU, for plans alone: properties as JSON text (cuDNN's). Matrix products are refused, runs too. */
dn_status dn_cuda_libraries_open_deviceless(dn_cuda_libraries **out, const char *properties, bool fast, const char *cache, dn_error *error);

/* Fills pins, algos and workspace; the rest of the product is there. */
dn_status dn_cuda_gemm_create(dn_cuda_product *product, dn_error *error);
dn_status dn_cuda_gemm_run(const dn_cuda_product *product, uint32_t bucket, const dn_cuda_operands *operands, cudaStream_t stream,
                           dn_error *error);

/* Fills pins, sets, plans and workspace. */
dn_status dn_cudnn_create(dn_cuda_product *product, dn_error *error);
dn_status dn_cudnn_run(const dn_cuda_product *product, uint32_t bucket, const dn_cuda_operands *operands, cudaStream_t stream,
                       dn_error *error);

/* The operations of one batch as a graph; tensors' numbers are below. */
dn_cudnn_descriptor dn_cudnn_conv_graph(dn_cudnn *set, const dn_cuda_product_spec *spec, uint32_t rows);
dn_cudnn_descriptor dn_cudnn_sdpa_graph(dn_cudnn *set, const dn_cuda_product_spec *spec, uint32_t rows);
enum { DN_CUDNN_IN = 1, DN_CUDNN_KEYS, DN_CUDNN_VALUES, DN_CUDNN_SCALE, DN_CUDNN_WEIGHT, DN_CUDNN_RESIDUAL, DN_CUDNN_BIAS, DN_CUDNN_OUT };

/* "conv ... for 1,2,4": what the product's pin is kept under. only: one bucket's, or DN_CUDA_ALL_BUCKETS. */
void dn_cuda_pin_name(const dn_cuda_product *product, uint32_t only, char out[DN_CUDA_PIN_NAME]);
#define DN_CUDA_ALL_BUCKETS UINT32_MAX

#endif
