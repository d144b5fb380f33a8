/* Our own kernels, as host code starts them. Each enqueues on a stream and returns at once; DN_CUDA_LAUNCH_OK or CUDA's error number
 * (cudaError_t), of the launch alone. Each takes float and bfloat16 activations and computes in float (angles and sums of norms of registers
 * in double). What a row gets depends on that row alone: every reduction lies inside one row, cut by shape and never by the number of
 * rows; no atomics. Outputs are written whole, padding channels with zeros.
 *
 * The formulas are those of plan/plan.h; the reference is backend/cpu/reference.h. In-place use is allowed where a comment says so.
 * Compiled by nvcc into the library, and by g++ over the emulator's header for tests without a GPU. */
#ifndef DN_BACKEND_CUDA_KERNELS_LAUNCH_H
#define DN_BACKEND_CUDA_KERNELS_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/cuda/view.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DN_CUDA_LAUNCH_OK 0

/* Where and over how much: rows is the bucket's size. stream: a cudaStream_t. */
typedef struct dn_cuda_launch {
    void *stream;
    dn_cuda_type type;
    uint32_t rows;
} dn_cuda_launch;

/* ---- The ends of a pass. block: on the device. */
/* out[r] = in_scale * in of row r, [c][h][w] floats to [h][w][pitch]; rows from row_count on are zeros. */
int dn_cuda_gather(const dn_cuda_launch *launch, const dn_cuda_block *block, dn_cuda_view out);
/* Row r of in to its `out`, as floats [c][h][w]; finite[r] = 1, or 0 when an element is NaN or infinite. Rows from row_count on write
 * nothing but finite[r] = 1. */
int dn_cuda_scatter(const dn_cuda_launch *launch, const dn_cuda_block *block, dn_cuda_view in, uint32_t *finite);

/* ---- After a product, where its own epilogue cannot do it. y = x + bias + row_bias + (residual unless residual_last), times scale,
 * through the activation, times gate, + (residual where residual_last). NULL data: left out. out may be x or residual. */
typedef struct dn_cuda_finish_options {
    dn_cuda_view x, row_bias, residual, gate, out; /* row_bias, gate: vectors of out's channels */
    const void *bias;                              /* [c], of the launch's type */
    bool residual_last;
    float scale;
    dn_cuda_activation activation;
} dn_cuda_finish_options;
int dn_cuda_finish(const dn_cuda_launch *launch, const dn_cuda_finish_options *options);

/* ---- Norms. */
typedef struct dn_cuda_group_norm_options {
    dn_cuda_view in, row_bias, out; /* row_bias: a vector that is added to every pixel first (the time embedding); out may be in */
    const float *weight, *bias;     /* [c] */
    dn_cuda_view modulation;        /* a vector of 2c: scale, shift; NULL: none */
    uint32_t groups;
    float epsilon;
    dn_cuda_activation activation;
    float *scratch;                 /* as many floats as dn_cuda_group_norm_scratch says, 8-byte aligned; NULL: it says 0. Lost afterwards */
} dn_cuda_group_norm_options;
/* Floats of scratch for this many rows of [h][w][c]: 0 for small shapes, whose groups one thread block takes whole. */
uint64_t dn_cuda_group_norm_scratch(uint32_t rows, uint32_t h, uint32_t w, uint32_t c, uint32_t groups);
int dn_cuda_group_norm(const dn_cuda_launch *launch, const dn_cuda_group_norm_options *options);

/* out = layernorm(s) modulated, where s = in, or, with gate, s = residual + gate * in, which goes to `sum` (that may be residual). */
typedef struct dn_cuda_layer_norm_options {
    dn_cuda_view in, out;
    dn_cuda_view gate, residual, sum; /* NULL: none of the three. gate: a vector, gate_offset applied already */
    const float *weight, *bias;       /* [c]; NULL: none */
    dn_cuda_view shift, scale;        /* vectors of c, NULL: none; y * (1 + scale) + shift */
    float epsilon;
} dn_cuda_layer_norm_options;
int dn_cuda_layer_norm(const dn_cuda_launch *launch, const dn_cuda_layer_norm_options *options);

/* ---- Attention of our own: float, and shapes that cuDNN does not take. qkv: [h][w][3c] of out's c. Two passes over the keys; any c / heads
 * up to 512, any number of positions. */
int dn_cuda_attention(const dn_cuda_launch *launch, dn_cuda_view qkv, dn_cuda_view out, uint32_t heads);

/* ---- Embeddings: out is a vector of each row. frequencies: doubles [out.c / 2] on the device. */
int dn_cuda_time_embedding(const dn_cuda_launch *launch, const dn_cuda_block *block, const double *frequencies, bool flip, dn_cuda_view out);
int dn_cuda_class_sinusoid(const dn_cuda_launch *launch, const dn_cuda_block *block, const double *frequencies, bool flip, dn_cuda_view out);
/* weight: floats [out.c / 2]. */
int dn_cuda_fourier_embedding(const dn_cuda_launch *launch, const dn_cuda_block *block, const float *weight, bool log_time, bool flip,
                              dn_cuda_view out);
/* table: floats [table_rows][out.c]. Rows beyond row_count read row 0. */
int dn_cuda_time_table(const dn_cuda_launch *launch, const dn_cuda_block *block, const float *table, uint32_t table_rows, dn_cuda_view out);
int dn_cuda_class_embedding(const dn_cuda_launch *launch, const dn_cuda_block *block, const float *table, uint32_t table_rows,
                            dn_cuda_view out);

/* ---- Moving and small nodes. */
int dn_cuda_affine(const dn_cuda_launch *launch, dn_cuda_view in, float a, float b, dn_cuda_view out);      /* out may be in */
int dn_cuda_activate(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_activation activation, dn_cuda_view out); /* out may be in */
int dn_cuda_upsample_nearest2(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_view out);
int dn_cuda_average_pool2(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_view out);
int dn_cuda_fir2(const dn_cuda_launch *launch, dn_cuda_view in, bool up, uint32_t pad_top, uint32_t pad_left, dn_cuda_view out);
int dn_cuda_position(const dn_cuda_launch *launch, dn_cuda_view in, const float *table, dn_cuda_view out); /* table [h][w][c]; out may be in */
int dn_cuda_unpatchify(const dn_cuda_launch *launch, dn_cuda_view in, uint32_t patch, dn_cuda_view out);
int dn_cuda_divide_by_time(const dn_cuda_launch *launch, const dn_cuda_block *block, dn_cuda_view in, dn_cuda_view out); /* out may be in */
int dn_cuda_concat(const dn_cuda_launch *launch, dn_cuda_view first, dn_cuda_view second, dn_cuda_view out);
int dn_cuda_global_pool(const dn_cuda_launch *launch, dn_cuda_view in, dn_cuda_activation activation, dn_cuda_view out);

/* ---- Weights: a checkpoint's floats, on the device, to what products read: zeros where padded. launch->type is out's; rows is not read. */
/* [o][i][kh][kw] to [o_pad][kh][kw][i_pad]. kh = kw = 1: a matrix [o][i] to [o_pad][i_pad]. */
int dn_cuda_pack_filter(const dn_cuda_launch *launch, const float *in, uint32_t o, uint32_t i, uint32_t kh, uint32_t kw, uint32_t o_pad,
                        uint32_t i_pad, void *out);
/* Floats to `type`, count of them, then zeros up to padded. */
int dn_cuda_pack_vector(const dn_cuda_launch *launch, const float *in, uint64_t count, uint64_t padded, void *out);

/* ---- Register programs: the block's slices, at most slices_max (a graph's grid is fixed; blocks past slice_count do nothing). Noise equals
 * base/philox.h bit for bit; LINEAR, CLIP, SELECT, BLEND, NOISE and EXP_SCALE equal the CPU's bit for bit; those that sum over registers to
 * rounding of their double sums. */
int dn_cuda_programs(void *stream, const dn_cuda_block *block, uint32_t slices_max);

/* ---- Pixels: floats [c][plane] to bytes [plane][c], as dn_pixel rounds them (half to even, NaN black). */
int dn_cuda_pixels(void *stream, const float *in, uint32_t c, uint64_t plane, bool unit_range, uint8_t *out);

#ifdef __cplusplus
}
#endif

#endif
