/* Backward of softmax attention, one head at a time, with the whole [pixels, pixels] table of probabilities in scratch.
 *
 *   P = softmax(Q K^T scale), O = P V:  dV = P^T dO, dP = dO V^T, dS = P (dP - rowsum(P dP)),
 *   dQ = dS K scale, dK = dS^T Q scale.  K and V are transposed first, so that every inner loop runs along memory. */

/* out[j] = sum over c of line[c] * table[c][j], j < pixels: one row of a product with a transposed table. */
static void row_times(real *restrict out, const real *restrict line, const real *restrict table, size_t dim, size_t pixels)
{
    memset(out, 0, pixels * sizeof *out);
    for (size_t c = 0; c < dim; c++) {
        for (size_t j = 0; j < pixels; j++) {
            out[j] += line[c] * table[c * pixels + j];
        }
    }
}

static void add_scaled(real *restrict out, const real *restrict in, real factor, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] += factor * in[i];
    }
}

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

/* q, dq: this head's slices of a [pixels][3C] tensor; k and v follow at +C and +2C. */
static void attention_head(step *s, const real *q, real *dq, const real *d_out, real *probability, real *slope, real *kt, real *vt)
{
    size_t channels = s->to.c, dim = channels / s->node->heads, pixels = (size_t)s->to.h * s->to.w, row = 3 * channels;
    real scale = (real)(1.0 / sqrt((double)dim));
    for (size_t j = 0; j < pixels; j++) {
        for (size_t c = 0; c < dim; c++) {
            kt[c * pixels + j] = q[j * row + channels + c];
            vt[c * pixels + j] = q[j * row + 2 * channels + c];
        }
    }
    for (size_t i = 0; i < pixels; i++) {
        real *p = probability + i * pixels, *ds = slope + i * pixels, dot = 0;
        row_times(p, q + i * row, kt, dim, pixels);
        softmax(p, pixels, scale);
        row_times(ds, d_out + i * channels, vt, dim, pixels);
        for (size_t j = 0; j < pixels; j++) {
            dot += p[j] * ds[j];
        }
        for (size_t j = 0; j < pixels; j++) {
            ds[j] = p[j] * (ds[j] - dot) * scale;
        }
    }
    for (size_t i = 0; i < pixels; i++) {
        for (size_t j = 0; j < pixels; j++) {
            add_scaled(dq + i * row, q + j * row + channels, slope[i * pixels + j], dim);
            add_scaled(dq + j * row + channels, q + i * row, slope[i * pixels + j], dim);
            add_scaled(dq + j * row + 2 * channels, d_out + i * channels, probability[i * pixels + j], dim);
        }
    }
}

static void backward_attention(step *s)
{
    size_t channels = s->to.c, dim = channels / s->node->heads, pixels = (size_t)s->to.h * s->to.w;
    if (!s->d_in[0]) {
        return;
    }
    real *probability = take(s, pixels * pixels), *slope = take(s, pixels * pixels);
    real *kt = take(s, pixels * dim), *vt = take(s, pixels * dim);
    for (uint32_t head = 0; head < s->node->heads; head++) {
        attention_head(s, s->in[0] + head * dim, s->d_in[0] + head * dim, s->d_out + head * dim, probability, slope, kt, vt);
    }
}
