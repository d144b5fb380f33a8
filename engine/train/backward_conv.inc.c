/* Backward of convolutions, and the products that linear layers share: two register-tiled products, no column matrices.
 *
 *   value gradients:   dX = dY (spread out by the stride, padded) correlated with the flipped weights
 *   weight gradients:  dW[tap] = sum over pixels of dY[p]^T X[p + tap]
 *
 * Channels are contiguous in every operand, so both stream vectors of input channels against single numbers of dY. */

/* out[y][x][n] += sum over taps, k of a[y][x + tap][k] * b[tap][k][n], or = when it is fresh. Strides count reals. */
typedef struct product {
    const real *a, *b;
    real *out;
    size_t rows, columns; /* pixels of out */
    size_t a_row, a_column; /* from one pixel of out to the next */
    size_t tap_row, tap_column; /* of a, from one tap to the next */
    ptrdiff_t b_tap; /* of b, from one tap to the next; negative walks the taps backwards */
    size_t b_k, out_pixel; /* rows of b; pixels of out */
    size_t kernel, depth, width; /* taps a side; k; n, a multiple of LANES */
    bool fresh;
} product;

INLINE void product_tile(const product *p, const real *a, const real *b, real *out, const int pixels, const int vectors)
{
    vec sum[TILE][2];
    const vec zero = {0};
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            sum[i][v] = p->fresh ? zero : *(const vec *)(out + (size_t)i * p->out_pixel + v * LANES);
        }
    }
    for (size_t ky = 0; ky < p->kernel; ky++) {
        for (size_t kx = 0; kx < p->kernel; kx++) {
            const real *ap = a + ky * p->tap_row + kx * p->tap_column;
            const real *bp = b + (ptrdiff_t)(ky * p->kernel + kx) * p->b_tap;
            for (size_t k = 0; k < p->depth; k++) {
                vec line[2];
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++) {
                    line[v] = *(const vec *)(bp + k * p->b_k + (size_t)(v * LANES));
                }
#pragma GCC unroll 8
                for (int i = 0; i < pixels; i++) {
                    real x = ap[(size_t)i * p->a_column + k];
#pragma GCC unroll 2
                    for (int v = 0; v < vectors; v++) {
                        sum[i][v] += x * line[v];
                    }
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < pixels; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            *(vec *)(out + (size_t)i * p->out_pixel + v * LANES) = sum[i][v];
        }
    }
}

INLINE void product_strip(const product *p, size_t n, const int vectors)
{
    for (size_t y = 0; y < p->rows; y++) {
        const real *a = p->a + y * p->a_row;
        real *out = p->out + y * p->columns * p->out_pixel + n;
        size_t x = 0;
        for (; x + TILE <= p->columns; x += TILE) {
            product_tile(p, a + x * p->a_column, p->b + n, out + x * p->out_pixel, TILE, vectors);
        }
        for (; x + 2 <= p->columns; x += 2) {
            product_tile(p, a + x * p->a_column, p->b + n, out + x * p->out_pixel, 2, vectors);
        }
        for (; x < p->columns; x++) {
            product_tile(p, a + x * p->a_column, p->b + n, out + x * p->out_pixel, 1, vectors);
        }
    }
}

static void run_product(const product *p)
{
    size_t n = 0;
    for (; n + 2 * (size_t)LANES <= p->width; n += 2 * (size_t)LANES) {
        product_strip(p, n, 2);
    }
    for (; n < p->width; n += (size_t)LANES) {
        product_strip(p, n, 1);
    }
}

/* w[tap][o][c] += sum over pixels of d[pixel][o] * x[pixel + tap][c]. */
typedef struct outer {
    const real *d, *x;
    real *w;
    size_t rows, columns, outputs; /* pixels and channels of d */
    size_t x_row, x_column; /* from one pixel of d to the next */
    size_t tap_row, tap_column;
    size_t kernel, width; /* taps a side; channels of x, a multiple of LANES; also the row of w */
} outer;

/* Accumulates `rows` rows of pixels from y on into one tile of outputs x vectors. */
INLINE void outer_tile(const outer *o, const real *d, const real *x, real *w, size_t rows, const int outputs, const int vectors)
{
    vec sum[TILE][2];
#pragma GCC unroll 8
    for (int i = 0; i < outputs; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            sum[i][v] = *(const vec *)(w + (size_t)i * o->width + v * LANES);
        }
    }
    for (size_t y = 0; y < rows; y++) {
        const real *dp = d + y * o->columns * o->outputs, *xp = x + y * o->x_row;
        for (size_t c = 0; c < o->columns; c++) {
            vec line[2];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++) {
                line[v] = *(const vec *)(xp + c * o->x_column + (size_t)(v * LANES));
            }
#pragma GCC unroll 8
            for (int i = 0; i < outputs; i++) {
                real g = dp[c * o->outputs + (size_t)i];
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++) {
                    sum[i][v] += g * line[v];
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < outputs; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            *(vec *)(w + (size_t)i * o->width + v * LANES) = sum[i][v];
        }
    }
}

INLINE void outer_strip(const outer *o, const real *d, const real *x, real *w, size_t rows, const int vectors)
{
    size_t i = 0;
    for (; i + TILE <= o->outputs; i += TILE) {
        outer_tile(o, d + i, x, w + i * o->width, rows, TILE, vectors);
    }
    for (; i < o->outputs; i++) {
        outer_tile(o, d + i, x, w + i * o->width, rows, 1, vectors);
    }
}

static void outer_tap(const outer *o, const real *d, const real *x, real *w, size_t rows)
{
    size_t c = 0;
    for (; c + 2 * (size_t)LANES <= o->width; c += 2 * (size_t)LANES) {
        outer_strip(o, d, x + c, w + c, rows, 2);
    }
    for (; c < o->width; c += (size_t)LANES) {
        outer_strip(o, d, x + c, w + c, rows, 1);
    }
}

/* Rows of pixels go in blocks of about 128 pixels, so that both operands of a block stay in the first caches. */
static void run_outer(const outer *o)
{
    size_t block = o->columns >= 128 ? 1 : 128 / o->columns;
    for (size_t y = 0; y < o->rows; y += block) {
        size_t rows = y + block <= o->rows ? block : o->rows - y;
        for (size_t ky = 0; ky < o->kernel; ky++) {
            for (size_t kx = 0; kx < o->kernel; kx++) {
                outer_tap(o, o->d + y * o->columns * o->outputs, o->x + y * o->x_row + ky * o->tap_row + kx * o->tap_column,
                          o->w + (ky * o->kernel + kx) * o->outputs * o->width, rows);
            }
        }
    }
}

/* Copies [h][w][c] pictures into a zeroed [..][columns][wide] one at (top, left), every step-th pixel. */
static void embed(real *out, size_t columns, size_t wide, size_t top, size_t left, size_t every, const real *in, dn_shape shape)
{
    for (size_t y = 0; y < shape.h; y++) {
        real *line = out + ((top + y * every) * columns + left) * wide;
        const real *from = in + y * shape.w * shape.c;
        if (every == 1 && wide == shape.c) {
            memcpy(line, from, (size_t)shape.w * shape.c * sizeof *line);
            continue;
        }
        for (size_t x = 0; x < shape.w; x++) {
            memcpy(line + x * every * wide, from + x * shape.c, shape.c * sizeof *line);
        }
    }
}

/* d times the node's scale, in scratch unless the scale is 1. */
static const real *scaled(step *s, const real *d)
{
    if (s->node->scale == 1.0f) {
        return d;
    }
    size_t count = dn_shape_count(s->to);
    real *out = take(s, count);
    for (size_t i = 0; i < count; i++) {
        out[i] = d[i] * (real)s->node->scale;
    }
    return out;
}

static void conv_weights(step *s, const real *d)
{
    const dn_node *n = s->node;
    size_t h = (size_t)s->from.h + n->pad_top + n->pad_bottom, w = (size_t)s->from.w + n->pad_left + n->pad_right, wide = s->stride;
    const real *x = s->in[0];
    if (h != s->from.h || w != s->from.w || wide != s->from.c) {
        real *padded = take(s, h * w * wide);
        memset(padded, 0, h * w * wide * sizeof *padded);
        embed(padded, w, wide, n->pad_top, n->pad_left, 1, s->in[0], s->from);
        x = padded;
    }
    run_outer(&(outer){.d = d,
                       .x = x,
                       .w = s->d_weight,
                       .rows = s->to.h,
                       .columns = s->to.w,
                       .outputs = s->to.c,
                       .x_row = n->stride * w * wide,
                       .x_column = n->stride * wide,
                       .tap_row = w * wide,
                       .tap_column = wide,
                       .kernel = n->kernel,
                       .width = wide});
}

/* Where the padding is wider than the kernel reaches back, those pixels of dY meet nothing: pads are below the kernel. */
static void conv_values(step *s, const real *d)
{
    const dn_node *n = s->node;
    size_t h = (size_t)s->from.h + n->kernel - 1, w = (size_t)s->from.w + n->kernel - 1, outputs = s->to.c;
    size_t pixels = (size_t)s->from.h * s->from.w, taps = (size_t)n->kernel * n->kernel;
    if (n->kernel > 1 || n->stride > 1) {
        real *spread = take(s, h * w * outputs);
        memset(spread, 0, h * w * outputs * sizeof *spread);
        embed(spread, w, outputs, n->kernel - 1 - n->pad_top, n->kernel - 1 - n->pad_left, n->stride, d, s->to);
        d = spread;
    }
    real *out = s->d_in[0];
    if (s->stride != s->from.c) {
        out = take(s, pixels * s->stride);
        memset(out, 0, pixels * s->stride * sizeof *out);
    }
    run_product(&(product){.a = d,
                           .b = s->weight + (taps - 1) * outputs * s->stride,
                           .out = out,
                           .rows = s->from.h,
                           .columns = s->from.w,
                           .a_row = w * outputs,
                           .a_column = outputs,
                           .tap_row = w * outputs,
                           .tap_column = outputs,
                           .b_tap = -(ptrdiff_t)(outputs * s->stride),
                           .b_k = s->stride,
                           .out_pixel = s->stride,
                           .kernel = n->kernel,
                           .depth = outputs,
                           .width = s->stride});
    for (size_t p = 0; p < pixels && out != s->d_in[0]; p++) {
        add_to(s->d_in[0] + p * s->from.c, out + p * s->stride, s->from.c);
    }
}

/* The gradients of all that is added to the sums, from that of the sums; in: picture, row bias, residual. */
static void conv_additions(step *s, const real *d)
{
    size_t pixels = (size_t)s->to.h * s->to.w;
    if (s->d_bias) {
        add_pixels(s->d_bias, d, pixels, s->to.c);
    }
    if (s->d_in[1]) {
        add_pixels(s->d_in[1], d, pixels, s->to.c);
    }
    if (s->d_in[2]) {
        add_to(s->d_in[2], d, dn_shape_count(s->to));
    }
}

static void backward_conv(step *s)
{
    const real *d = scaled(s, s->d_out);
    conv_additions(s, d);
    if (s->d_weight) {
        conv_weights(s, d);
    }
    if (s->d_in[0]) {
        conv_values(s, d);
    }
}

#include "train/backward_winograd.inc.c"
