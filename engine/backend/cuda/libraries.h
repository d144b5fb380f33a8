/* Products that NVIDIA's libraries compute: matrix products by cuBLASLt, convolutions and attention by cuDNN.
 *
 * A product is made once for a shape and every batch size (bucket) that it will run with. By default one configuration serves them all, so
 * that a row's bytes do not depend on what shares its batch: no split-K, no atomics, float sums, no TF32. `fast` lets each bucket have its
 * best. An emulated library with the same functions (tests/cuda/emulator) computes them plainly on the CPU. Immutable once made; any thread
 * may run one on its own stream, with a workspace of its own. */
#ifndef DN_BACKEND_CUDA_LIBRARIES_H
#define DN_BACKEND_CUDA_LIBRARIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cuda/view.h"
#include "base/error.h"

#define DN_CUDA_BUCKETS_MAX 16u

typedef struct dn_cuda_libraries dn_cuda_libraries; /* handles, one set per device */
typedef struct dn_cuda_product dn_cuda_product;

typedef struct dn_cuda_libraries_options {
    int device;
    bool fast;              /* every bucket its best configuration: bytes may differ between batch sizes */
    const char *cache;      /* folder of plans found before, made if missing; NULL: none. What it says is checked, and never trusted further */
} dn_cuda_libraries_options;

dn_status dn_cuda_libraries_open(dn_cuda_libraries **out, const dn_cuda_libraries_options *options, dn_error *error);
void dn_cuda_libraries_close(dn_cuda_libraries *libraries); /* NULL too */
/* Writes what was found since the last time to the cache, as closing does: after a network's products are made. */
void dn_cuda_libraries_save(dn_cuda_libraries *libraries);
/* "cuDNN 9.19.0, cuBLASLt 13.1.0". */
const char *dn_cuda_libraries_describe(const dn_cuda_libraries *libraries);

typedef enum dn_cuda_product_kind { DN_CUDA_GEMM, DN_CUDA_CONV, DN_CUDA_SDPA } dn_cuda_product_kind;

/* What is computed, apart from the batch. Two equal specs (memcmp of zeroed structs) may share a product. */
typedef struct dn_cuda_product_spec {
    dn_cuda_product_kind kind;
    dn_cuda_type type;      /* of operands and result; sums, biases and scores in float */
    /* GEMM: out[pixels][n] = act(in[pixels][k] . weight[n][k]^T + bias[n] (+ residual[pixels][n] before the activation)), for each row's
     * pixels = h * w. n, k: multiples of DN_CUDA_CHANNEL_UNIT.
     * CONV: NHWC in [h][w][k], weight [n][kernel][kernel][k], out [out_h][out_w][n] = conv + residual + bias.
     * SDPA: in [h * w][in_pitch] with q, k, v one after another, each heads * head_dim; out [h * w][heads * head_dim], scale 1/sqrt(head_dim). */
    uint32_t h, w, k, n, out_h, out_w;
    uint32_t kernel, stride, pad_top, pad_left, pad_bottom, pad_right;
    uint32_t heads, head_dim, in_pitch;
    uint32_t in_row_pitch, out_row_pitch; /* GEMM of vectors (h = w = 1): elements from row to row where rows lie apart; 0: packed */
    float scale; /* GEMM, and CONV with a residual: sum and residual times it, before the bias (which is packed times it); 0: as they are */
    bool bias, residual, gelu_tanh;
} dn_cuda_product_spec;

#define DN_CUDA_HEAD_DIM_MAX 512u
/* Whether an attention of this shape is worth asking the library for (dn_cuda_compile_options.takes_sdpa): by shape alone. A card may still
 * have none: then dn_cuda_product_create answers DN_UNSUPPORTED, and the plan is compiled again without. */
bool dn_cuda_takes_sdpa(const dn_cuda_product_spec *spec);
/* The largest batch that a product can be made for: no tensor may pass 2^31 - 1 elements. */
uint32_t dn_cuda_product_rows_max(const dn_cuda_product_spec *spec);

/* DN_UNSUPPORTED: the library has nothing for it (the caller has kernels of its own, or refuses the model). */
dn_status dn_cuda_product_create(dn_cuda_product **out, dn_cuda_libraries *libraries, const dn_cuda_product_spec *spec,
                                 const uint32_t *buckets, uint32_t bucket_count, dn_error *error);
void dn_cuda_product_free(dn_cuda_product *product); /* NULL too */
size_t dn_cuda_product_workspace(const dn_cuda_product *product, uint32_t bucket); /* bytes that its run with this bucket (an index) needs */
/* One line that says which configurations were pinned: part of a network's plan hash. "gemm m x 1152 x 4608 bf16: algo 66 tile 20 ...". */
const char *dn_cuda_product_describe(const dn_cuda_product *product);

typedef struct dn_cuda_operands {
    const void *in, *weight, *residual; /* residual may be out, and lies as out does. All pointers at multiples of 16 bytes */
    const void *bias;                   /* [n], of the spec's type */
    void *out, *workspace;
} dn_cuda_operands;
/* bucket: an index into the buckets of its creation. Enqueues; may be captured into a graph, but not the first run of a product: that one
 * may load its kernels, which CUDA does not do while it captures. */
dn_status dn_cuda_product_run(const dn_cuda_product *product, uint32_t bucket, const dn_cuda_operands *operands, void *stream, dn_error *error);

#endif
