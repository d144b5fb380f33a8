/* Backward of group normalisation with its activation and modulation, and of layer normalisation with its modulation.
 *
 * With y = xhat * A + B per channel, A = weight (1 + scale), B = bias (1 + scale) + shift, d = d_out * act'(y), and the
 * channel sums S1 = sum d, S2 = sum d xhat:
 *   d_bias = S1 (1 + scale), d_weight = S2 (1 + scale), d_shift = S1, d_scale = weight S2 + bias S1,
 *   dx = (d A - mean_g(d A) - xhat mean_g(d A xhat)) / deviation, means over the group's pixels and channels. */

typedef struct norm {
    real *mean, *inverse; /* per channel, equal within a group */
    real *a, *b; /* per channel */
    real *s1, *s2; /* channel sums */
} norm;

/* Replaces channel sums by their group's sum times factor. */
static void spread_groups(real *sums, uint32_t channels, uint32_t groups, real factor)
{
    uint32_t per = channels / groups;
    for (uint32_t g = 0; g < groups; g++) {
        real total = 0;
        for (uint32_t c = g * per; c < (g + 1) * per; c++) {
            total += sums[c];
        }
        for (uint32_t c = g * per; c < (g + 1) * per; c++) {
            sums[c] = total * factor;
        }
    }
}

/* inverse[c] = sum over pixels of (x - mean)^2. */
INLINE void square_block(const step *s, const norm *n, size_t pixels, uint32_t first, uint32_t width)
{
    real sum[BLOCK] = {0}, mean[BLOCK];
    memcpy(mean, n->mean + first, width * sizeof *mean);
    for (size_t p = 0; p < pixels; p++) {
        const real *restrict x = s->in[0] + p * s->to.c + first;
        for (uint32_t c = 0; c < width; c++) {
            sum[c] += (x[c] - mean[c]) * (x[c] - mean[c]);
        }
    }
    memcpy(n->inverse + first, sum, width * sizeof *sum);
}

static void norm_statistics(step *s, const norm *n)
{
    uint32_t channels = s->to.c, groups = s->node->groups;
    size_t pixels = (size_t)s->to.h * s->to.w;
    real share = 1 / ((real)pixels * (real)(channels / groups));
    real *restrict mean = n->mean, *restrict inverse = n->inverse;
    memset(mean, 0, channels * sizeof *mean);
    add_pixels(mean, s->in[0], pixels, channels);
    spread_groups(mean, channels, groups, share);
    BY_BLOCKS(channels, square_block, s, n, pixels);
    spread_groups(inverse, channels, groups, share);
    for (uint32_t c = 0; c < channels; c++) {
        real weight = s->weight ? s->weight[c] : 1, bias = s->bias ? s->bias[c] : 0;
        inverse[c] = (real)(1.0 / sqrt((double)inverse[c] + (double)s->node->epsilon));
        n->a[c] = s->in[1] ? weight * (1 + s->in[1][c]) : weight;
        n->b[c] = s->in[1] ? bias * (1 + s->in[1][c]) + s->in[1][channels + c] : bias;
    }
}

/* y = xhat A + B. */
INLINE void value_block(const step *s, const norm *n, real *restrict y, size_t pixels, uint32_t first, uint32_t width)
{
    real mean[BLOCK], inverse[BLOCK], a[BLOCK], b[BLOCK];
    memcpy(mean, n->mean + first, width * sizeof *mean);
    memcpy(inverse, n->inverse + first, width * sizeof *inverse);
    memcpy(a, n->a + first, width * sizeof *a);
    memcpy(b, n->b + first, width * sizeof *b);
    for (size_t p = 0; p < pixels; p++) {
        const real *restrict x = s->in[0] + p * s->to.c + first;
        real *restrict line = y + p * s->to.c + first;
        for (uint32_t c = 0; c < width; c++) {
            line[c] = (x[c] - mean[c]) * inverse[c] * a[c] + b[c];
        }
    }
}

/* S1 and S2. */
INLINE void sum_block(const step *s, const norm *n, const real *restrict d, size_t pixels, uint32_t first, uint32_t width)
{
    real s1[BLOCK] = {0}, s2[BLOCK] = {0}, mean[BLOCK], inverse[BLOCK];
    memcpy(mean, n->mean + first, width * sizeof *mean);
    memcpy(inverse, n->inverse + first, width * sizeof *inverse);
    for (size_t p = 0; p < pixels; p++) {
        const real *restrict x = s->in[0] + p * s->to.c + first, *restrict line = d + p * s->to.c + first;
        for (uint32_t c = 0; c < width; c++) {
            s1[c] += line[c];
            s2[c] += line[c] * (x[c] - mean[c]) * inverse[c];
        }
    }
    memcpy(n->s1 + first, s1, width * sizeof *s1);
    memcpy(n->s2 + first, s2, width * sizeof *s2);
}

/* d = d_out * act'(xhat A + B), and its channel sums. */
static void norm_sums(step *s, const norm *n, real *restrict d)
{
    uint32_t channels = s->to.c;
    size_t pixels = (size_t)s->to.h * s->to.w;
    BY_BLOCKS(channels, value_block, s, n, d, pixels);
    activation_backward(s->node->activation, d, s->d_out, pixels * channels);
    BY_BLOCKS(channels, sum_block, s, n, d, pixels);
}

static void norm_parameters(step *s, const norm *n)
{
    uint32_t channels = s->to.c;
    for (uint32_t c = 0; c < channels; c++) {
        real gain = s->in[1] ? 1 + s->in[1][c] : 1;
        if (s->d_weight) {
            s->d_weight[c] += n->s2[c] * gain;
        }
        if (s->d_bias) {
            s->d_bias[c] += n->s1[c] * gain;
        }
        if (s->d_in[1]) {
            s->d_in[1][c] += (s->weight ? s->weight[c] : 1) * n->s2[c] + (s->bias ? s->bias[c] : 0) * n->s1[c];
            s->d_in[1][channels + c] += n->s1[c];
        }
    }
}

static void backward_group_norm(step *s)
{
    uint32_t channels = s->to.c;
    size_t pixels = (size_t)s->to.h * s->to.w;
    norm n = {take(s, channels), take(s, channels), take(s, channels), take(s, channels), take(s, channels), take(s, channels)};
    real *d = take(s, dn_shape_count(s->to));
    norm_statistics(s, &n);
    norm_sums(s, &n, d);
    norm_parameters(s, &n);
    if (!s->d_in[0]) {
        return;
    }
    real share = 1 / ((real)pixels * (real)(channels / s->node->groups));
    for (uint32_t c = 0; c < channels; c++) {
        n.s1[c] *= n.a[c];
        n.s2[c] *= n.a[c];
    }
    spread_groups(n.s1, channels, s->node->groups, share);
    spread_groups(n.s2, channels, s->node->groups, share);
    const real *restrict mean = n.mean, *restrict inverse = n.inverse, *restrict a = n.a, *restrict s1 = n.s1, *restrict s2 = n.s2;
    for (size_t p = 0; p < pixels; p++) {
        const real *restrict x = s->in[0] + p * channels, *restrict line = d + p * channels;
        real *restrict out = s->d_in[0] + p * channels;
        for (uint32_t c = 0; c < channels; c++) {
            out[c] += (line[c] * a[c] - s1[c] - (x[c] - mean[c]) * inverse[c] * s2[c]) * inverse[c];
        }
    }
}

/* One pixel: xhat from x, d A and its two means taken off, times 1 / deviation, added to d_in; S1 and S2 grow. */
static void layer_pixel(const step *s, size_t pixel, const norm *n, real *restrict normal)
{
    uint32_t channels = s->to.c;
    const real *restrict x = s->in[0] + pixel * channels, *restrict d = s->d_out + pixel * channels;
    real mean = 0, variance = 0, first = 0, second = 0, share = 1 / (real)channels;
    for (uint32_t c = 0; c < channels; c++) {
        mean += x[c];
    }
    mean *= share;
    for (uint32_t c = 0; c < channels; c++) {
        variance += (x[c] - mean) * (x[c] - mean);
    }
    real inverse = (real)(1.0 / sqrt((double)(variance * share) + (double)s->node->epsilon));
    for (uint32_t c = 0; c < channels; c++) {
        normal[c] = (x[c] - mean) * inverse;
        n->s1[c] += d[c];
        n->s2[c] += d[c] * normal[c];
        first += d[c] * n->a[c];
        second += d[c] * n->a[c] * normal[c];
    }
    real *out = s->d_in[0] ? s->d_in[0] + pixel * channels : NULL;
    for (uint32_t c = 0; c < channels && out; c++) {
        out[c] += (d[c] * n->a[c] - first * share - normal[c] * second * share) * inverse;
    }
}

static void backward_layer_norm(step *s)
{
    uint32_t channels = s->to.c;
    const real *scale = s->in[1] ? s->in[1] + s->node->scale_offset : NULL;
    norm n = {.a = take(s, channels), .s1 = take(s, channels), .s2 = take(s, channels)};
    real *normal = take(s, channels);
    memset(n.s1, 0, channels * sizeof *n.s1);
    memset(n.s2, 0, channels * sizeof *n.s2);
    for (uint32_t c = 0; c < channels; c++) {
        n.a[c] = (s->weight ? s->weight[c] : 1) * (scale ? 1 + scale[c] : 1);
    }
    for (size_t p = 0; p < (size_t)s->to.h * s->to.w; p++) {
        layer_pixel(s, p, &n, normal);
    }
    for (uint32_t c = 0; c < channels; c++) {
        real gain = scale ? 1 + scale[c] : 1;
        if (s->d_weight) {
            s->d_weight[c] += n.s2[c] * gain;
        }
        if (s->d_bias) {
            s->d_bias[c] += n.s1[c] * gain;
        }
        if (s->d_in[1]) {
            s->d_in[1][s->node->scale_offset + c] += (s->weight ? s->weight[c] : 1) * n.s2[c] + (s->bias ? s->bias[c] : 0) * n.s1[c];
            s->d_in[1][s->node->shift_offset + c] += n.s1[c];
        }
    }
}
