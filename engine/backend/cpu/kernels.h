/* The kernels that exist once for each instruction set, and the table through which they are called.
 *
 * Every kernel computes an output element by the same sequence of operations wherever the element lies in the call, so
 * callers may cut the work as they like. Kernels own no memory and may run on any thread. */
#ifndef DN_BACKEND_CPU_KERNELS_H
#define DN_BACKEND_CPU_KERNELS_H

#include <stddef.h>

#include "plan/plan.h"

/* out[line][i][j] = act((sum over s, k of A(line, i)[s][k] * B[s][k][j]  + bias[j] + row_bias[j] + residual[line][i][j]) * scale),
 * or with a gate residual[line][i][j] + gate[j] * act(sum + bias[j]); then there is a residual, no row_bias and no scale.
 *
 * A(line, i)[s] is the run of k floats at a + line * a_line + i * a_row + s * a_segment: one segment and one line make
 * an ordinary matrix product; a convolution has a segment for each row of its kernel and a line for each row of pixels.
 * Strides in floats. The sum runs over s and then k in one chain. B is packed by dn_cpu_pack. */
typedef struct dn_gemm {
    const float *a;
    size_t a_line, a_row, a_segment;
    const float *b;
    const float *after; /* the panel that the caller multiplies by next, asked for while the last of these is in use; or NULL */
    float *out;
    size_t out_line, out_row;
    const float *residual; /* NULL, or laid out as out with strides of its own */
    size_t residual_line, residual_row;
    const float *bias, *row_bias, *gate; /* n floats each, or NULL */
    float scale;
    dn_activation activation;
    size_t lines, rows, segments, k, n;
} dn_gemm;

/* A run of side x side output tiles of a 3x3 convolution with stride 1 and a border of 1: tiles first .. first + count - 1,
 * numbered through all rows' images. Channels are multiples of 16. A patch has (side + 2)^2 positions. */
typedef struct dn_winograd {
    const float *in; /* of all rows */
    float *out;
    const float *bias, *row_bias, *residual; /* NULL where absent; row_bias and residual of all rows */
    const float *zeros; /* channels_in of them */
    float scale;
    size_t side; /* 2 or 4 */
    size_t height, width, channels_in, channels_out;
    size_t tiles_y, tiles_x; /* of one image */
    size_t first, count;
    size_t column, columns; /* the output channels of products */
    size_t group; /* tiles whose transformed inputs lie together */
    size_t in_row; /* floats from one row of transformed to the next */
    size_t out_plane; /* floats from one position of products to the next */
    float *transformed; /* [count / group][positions][group] rows of channels_in; the last group may have fewer tiles */
    float *products; /* [positions][count][columns] */
} dn_winograd;

#define DN_ATTEND_KEYS 112u /* keys whose scores are held at once */

/* out[i] = sum over j of softmax(scale * queries[i] . keys[j]) * values[j] for `count` queries of one head; rows of depth floats,
 * strides in floats. */
typedef struct dn_attend {
    const float *queries, *keys, *values;
    float *out;
    size_t query_row, key_row, out_row; /* values lie as keys do */
    size_t count, positions, depth;
    float scale;
    float *scratch; /* dn_cpu_attend_scratch floats */
} dn_attend;

#define DN_CPU_PROBE_CHAINS 12

/* Packed B: panels of `panel` columns, [segments * k][panel]; the last panel is `lanes` wide when that is enough. */
typedef struct dn_cpu_kernels {
    const char *isa;
    size_t lanes, panel; /* panel = 2 * lanes */
    size_t tile_rows; /* of the largest microkernel: fewer leave the multiply-add units waiting */

    /* Columns of panels panel_first .. panel_end - 1. */
    void (*gemm)(const dn_gemm *gemm, size_t panel_first, size_t panel_end);

    /* sums[c] = sum over the pixels of x - mean[c] (power 1) or of its square (power 2); mean may be NULL. */
    void (*channel_sums)(double *sums, const float *x, size_t pixels, size_t stride, size_t channels, const float *mean, int power);
    /* out = act((x - mean[c]) * gain[c] + offset[c]) */
    void (*normalize)(float *out, const float *x, size_t pixels, size_t stride, size_t channels, const float *mean, const float *gain,
                      const float *offset, dn_activation activation);
    /* Each pixel's channels: out = (x - mean) / sqrt(variance + epsilon), then * gain[c] + offset[c] (both NULL: neither). */
    void (*layer_norm)(float *out, const float *x, size_t pixels, size_t channels, const float *gain, const float *offset, float epsilon);
    void (*attend)(const dn_attend *attend);
    void (*activate)(float *out, const float *x, size_t count, dn_activation activation);
    void (*winograd_input)(const dn_winograd *w); /* in -> transformed */
    void (*winograd_output)(const dn_winograd *w); /* products -> out */
    /* transformed -> products of F(4x4) with one panel's taps, [columns / lanes][channels_in][9][lanes]; transformed in groups of
     * tap_tiles. */
    void (*winograd_taps)(const dn_winograd *w, const float *taps);
    size_t tap_tiles;
    /* Computes nothing of use, as fast as the core multiplies and adds: 2 * DN_CPU_PROBE_CHAINS * lanes operations a loop. */
    float (*multiply_add_probe)(float seed, unsigned loops);
} dn_cpu_kernels;

/* Those of the machine that the program is compiled for exist: isa.h lists them. */
extern const dn_cpu_kernels dn_cpu_kernels_sse2, dn_cpu_kernels_avx2, dn_cpu_kernels_avx512, dn_cpu_kernels_neon, dn_cpu_kernels_generic;

void dn_cpu_gemm_sse2(const dn_gemm *gemm, size_t panel_first, size_t panel_end);
void dn_cpu_gemm_avx2(const dn_gemm *gemm, size_t panel_first, size_t panel_end);
void dn_cpu_gemm_avx512(const dn_gemm *gemm, size_t panel_first, size_t panel_end);
void dn_cpu_gemm_neon(const dn_gemm *gemm, size_t panel_first, size_t panel_end);
void dn_cpu_gemm_generic(const dn_gemm *gemm, size_t panel_first, size_t panel_end);

static inline size_t dn_cpu_panels(const dn_cpu_kernels *kernels, size_t n)
{
    return (n + kernels->panel - 1) / kernels->panel;
}

/* Width of a panel in floats: the last one may be half. */
static inline size_t dn_cpu_panel_width(const dn_cpu_kernels *kernels, size_t n, size_t panel)
{
    return n - panel * kernels->panel <= kernels->lanes ? kernels->lanes : kernels->panel;
}

/* Queries, scores and answers of one panel of queries. */
static inline size_t dn_cpu_attend_scratch(const dn_cpu_kernels *kernels, size_t depth)
{
    return (2 * depth + DN_ATTEND_KEYS) * kernels->panel;
}

/* Floats of a packed [depth, n] matrix; depth = segments * k. */
static inline size_t dn_cpu_packed_count(const dn_cpu_kernels *kernels, size_t depth, size_t n)
{
    size_t panels = dn_cpu_panels(kernels, n);
    return depth * ((panels - 1) * kernels->panel + dn_cpu_panel_width(kernels, n, panels - 1));
}

/* Packs B[d][j] = src[d * depth_stride + j * column_stride] into rows first, first + step, ... of a packed [depth, n]
 * matrix: count rows from src. Columns past n are zero. */
typedef struct dn_pack {
    const float *src;
    size_t depth_stride, column_stride;
    size_t depth, n; /* of the packed matrix */
    size_t first, count; /* rows written: first .. first + count - 1 */
} dn_pack;
void dn_cpu_pack(float *dst, const dn_cpu_kernels *kernels, const dn_pack *pack);

#endif
