/* What the CUDA back end's host code and its kernels both see: views of activations, and the block of per-row data that a graph copies.
 *
 * Plain structs, compiled by gcc, by nvcc and by the emulator's g++. Activations are rows of [h][w][pitch] elements, bfloat16 or float;
 * channels from c to pitch are padding and always zero, so that products may run over them. */
#ifndef DN_BACKEND_CUDA_VIEW_H
#define DN_BACKEND_CUDA_VIEW_H

#include <stdint.h>

#define DN_CUDA_CHANNEL_UNIT 8u /* pitches are multiples of it: 16 bytes of bfloat16 */
#define DN_CUDA_CLASSES_MAX 8u  /* DN_CONDITION_CLASSES_MAX */
#define DN_CUDA_TERMS_MAX 8u    /* DN_OP_TERMS_MAX */

typedef enum dn_cuda_type { DN_CUDA_F32, DN_CUDA_BF16 } dn_cuda_type;

/* dn_activation's values, in the same order. */
typedef enum dn_cuda_activation {
    DN_CUDA_ACT_NONE,
    DN_CUDA_ACT_SILU,
    DN_CUDA_ACT_GELU,
    DN_CUDA_ACT_GELU_TANH,
    DN_CUDA_ACT_RELU,
    DN_CUDA_ACT_MISH
} dn_cuda_activation;

/* One value of every row of a run. data NULL: there is none. A vector has h = w = 1. */
typedef struct dn_cuda_view {
    void *data;         /* of row 0 */
    uint32_t h, w, c;
    uint32_t pitch;     /* elements from pixel to pixel; >= c */
    uint64_t row_pitch; /* elements from row to row; >= h * w * pitch */
} dn_cuda_view;

/* One row as a graph reads it: dn_row with device addresses. */
typedef struct dn_cuda_row {
    const float *in; /* [c][h][w] */
    float *out;      /* [c][h][w] */
    float in_scale, time;
    uint32_t class_count;
    uint32_t classes[DN_CUDA_CLASSES_MAX];
    float weights[DN_CUDA_CLASSES_MAX];
} dn_cuda_row;

/* dn_op on the device: the same kinds (dn_op_kind's numbers) and meaning. */
typedef struct dn_cuda_op {
    uint32_t kind, dst, terms;
    uint32_t src[DN_CUDA_TERMS_MAX];
    float coefficient[DN_CUDA_TERMS_MAX];
    float low, high, ratio;
    uint32_t stream, draw;
    uint64_t split, seed;
} dn_cuda_op;

/* Elements first .. first + count - 1 of one register program: the work of one thread block. Programs of elementwise operations are cut
 * into several; one that reduces (norms, quantiles, angles) is one slice, whole. */
typedef struct dn_cuda_slice {
    float *registers;  /* register r at registers + r * elements */
    double *scalars;   /* where its results go, in order; NULL: it has none */
    uint64_t elements; /* of one register */
    uint64_t first, count;
    uint32_t op_first, op_count; /* into the block's operations */
} dn_cuda_slice;

/* The block: this header, then rows_max rows, slices_max slices, ops_max operations, each at a multiple of 16 bytes. One lies in pinned
 * memory; a graph's first node copies it whole to the device. Slices run before the rows are read. */
typedef struct dn_cuda_block {
    uint32_t row_count;   /* rows that are wanted; a bucket may have more: those read zeros and write nothing */
    uint32_t slice_count; /* register programs that wait */
    uint32_t rows_max, slices_max, ops_max;
    uint32_t rows_at, slices_at, ops_at; /* bytes from the block's start */
} dn_cuda_block;

#ifdef __cplusplus
#define DN_CUDA_BLOCK_PART(type, block, at) (reinterpret_cast<type *>(reinterpret_cast<unsigned char *>(block) + (at)))
#else
#define DN_CUDA_BLOCK_PART(type, block, at) ((type *)(void *)((unsigned char *)(block) + (at)))
#endif

#endif
