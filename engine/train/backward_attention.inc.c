/* Backward of softmax attention, one head at a time, with the whole [pixels, pixels] table of probabilities in scratch.
 *
 *   P = softmax(Q K^T scale), O = P V:  dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(P dP)) scale,
 *   dQ = dS K, dK = dS^T Q.
 *
 * A head's slices are first copied to rows padded with zeros, so that all six products are run_product and run_outer. */

/* One head's copies and tables. dim and columns are rounded up to DN_PACK_CHANNELS; padding is zero. */
typedef struct head {
    size_t pixels, dim, wide, columns; /* wide: padded dim; columns: padded pixels */
    real *q, *k, *v, *d_out; /* [pixels][wide] */
    real *kt, *vt; /* [dim][columns] */
    real *p, *ds; /* [pixels][columns] */
    real *dq; /* [pixels][wide] */
    real *dk, *dv; /* [columns][wide] */
} head;

static void softmax(real *line, size_t count, real scale)
{
    real top = line[0], total = 0;
    for (size_t j = 1; j < count; j++) {
        top = line[j] > top ? line[j] : top;
    }
    for (size_t j = 0; j < count; j++) {
        line[j] = EXPONENTIAL((line[j] - top) * scale);
    }
    for (size_t j = 0; j < count; j++) {
        total += line[j];
    }
    for (size_t j = 0; j < count; j++) {
        line[j] /= total;
    }
}

static void copy_head(real *out, const head *h, const real *in, size_t row)
{
    memset(out, 0, h->pixels * h->wide * sizeof *out);
    for (size_t i = 0; i < h->pixels; i++) {
        memcpy(out + i * h->wide, in + i * row, h->dim * sizeof *out);
    }
}

static void transpose_head(real *out, const head *h, const real *in)
{
    memset(out, 0, h->dim * h->columns * sizeof *out);
    for (size_t c = 0; c < h->dim; c++) {
        for (size_t j = 0; j < h->pixels; j++) {
            out[c * h->columns + j] = in[j * h->wide + c];
        }
    }
}

/* out[i][n] += sum over k of a[i][k] b[k][n], i < pixels. */
static void head_product(const head *h, real *out, const real *a, size_t a_row, const real *b, size_t depth, size_t width)
{
    run_product(&(product){.a = a,
                           .b = b,
                           .out = out,
                           .rows = 1,
                           .columns = h->pixels,
                           .a_column = a_row,
                           .b_k = width,
                           .out_pixel = width,
                           .kernel = 1,
                           .depth = depth,
                           .width = width});
}

/* out[j][c] += sum over i of d[i][j] x[i][c]. */
static void head_outer(const head *h, real *out, const real *d, const real *x)
{
    run_outer(&(outer){.d = d,
                       .x = x,
                       .w = out,
                       .rows = 1,
                       .columns = h->pixels,
                       .outputs = h->columns,
                       .x_column = h->wide,
                       .kernel = 1,
                       .width = h->wide});
}

static void head_tables(const head *h)
{
    real scale = (real)(1.0 / sqrt((double)h->dim));
    transpose_head(h->kt, h, h->k);
    transpose_head(h->vt, h, h->v);
    memset(h->p, 0, h->pixels * h->columns * sizeof *h->p);
    memset(h->ds, 0, h->pixels * h->columns * sizeof *h->ds);
    head_product(h, h->p, h->q, h->wide, h->kt, h->dim, h->columns);
    head_product(h, h->ds, h->d_out, h->wide, h->vt, h->dim, h->columns);
    for (size_t i = 0; i < h->pixels; i++) {
        real *restrict p = h->p + i * h->columns, *restrict ds = h->ds + i * h->columns, dot = 0;
        softmax(p, h->pixels, scale);
        for (size_t j = 0; j < h->pixels; j++) {
            dot += p[j] * ds[j];
        }
        for (size_t j = 0; j < h->pixels; j++) {
            ds[j] = p[j] * (ds[j] - dot) * scale;
        }
    }
}

static void add_head(real *out, const head *h, const real *in, size_t row)
{
    for (size_t i = 0; i < h->pixels; i++) {
        add_to(out + i * row, in + i * h->wide, h->dim);
    }
}

static void backward_attention(step *s)
{
    size_t channels = s->to.c, pixels = (size_t)s->to.h * s->to.w, dim = channels / s->node->heads;
    size_t wide = dn_pack_round((uint32_t)dim), columns = dn_pack_round((uint32_t)pixels);
    if (!s->d_in[0]) {
        return;
    }
    head h = {.pixels = pixels, .dim = dim, .wide = wide, .columns = columns};
    h.q = take(s, pixels * wide);
    h.k = take(s, pixels * wide);
    h.v = take(s, pixels * wide);
    h.d_out = take(s, pixels * wide);
    h.kt = take(s, dim * columns);
    h.vt = take(s, dim * columns);
    h.p = take(s, pixels * columns);
    h.ds = take(s, pixels * columns);
    h.dq = take(s, pixels * wide);
    h.dk = take(s, columns * wide);
    h.dv = take(s, columns * wide);
    for (uint32_t i = 0; i < s->node->heads; i++) {
        const real *q = s->in[0] + i * dim;
        real *dq = s->d_in[0] + i * dim;
        copy_head(h.q, &h, q, 3 * channels);
        copy_head(h.k, &h, q + channels, 3 * channels);
        copy_head(h.v, &h, q + 2 * channels, 3 * channels);
        copy_head(h.d_out, &h, s->d_out + i * dim, channels);
        head_tables(&h);
        memset(h.dq, 0, pixels * wide * sizeof *h.dq);
        memset(h.dk, 0, columns * wide * sizeof *h.dk);
        memset(h.dv, 0, columns * wide * sizeof *h.dv);
        head_product(&h, h.dq, h.ds, columns, h.k, pixels, wide);
        head_outer(&h, h.dk, h.ds, h.q);
        head_outer(&h, h.dv, h.p, h.d_out);
        add_head(dq, &h, h.dq, 3 * channels);
        add_head(dq + channels, &h, h.dk, 3 * channels);
        add_head(dq + 2 * channels, &h, h.dv, 3 * channels);
    }
}
