/* Backward of what moves or scales values: affine, resampling, filters, patches, concatenation, pooling, activation. */

static void backward_affine(step *s)
{
    size_t count = dn_shape_count(s->to);
    for (size_t i = 0; i < count && s->d_in[0]; i++) {
        s->d_in[0][i] += (real)s->node->scale * s->d_out[i];
    }
}

static void backward_upsample(step *s)
{
    for (size_t y = 0; y < s->to.h && s->d_in[0]; y++) {
        for (size_t x = 0; x < s->to.w; x++) {
            add_to(s->d_in[0] + (y / 2 * s->from.w + x / 2) * s->to.c, s->d_out + (y * s->to.w + x) * s->to.c, s->to.c);
        }
    }
}

static void backward_average_pool(step *s)
{
    size_t channels = s->to.c, line = (size_t)s->from.w * channels;
    for (size_t y = 0; y < s->to.h && s->d_in[0]; y++) {
        for (size_t x = 0; x < s->to.w; x++) {
            const real *restrict d = s->d_out + (y * s->to.w + x) * channels;
            real *restrict out = s->d_in[0] + 2 * y * line + 2 * x * channels;
            for (size_t c = 0; c < channels; c++) {
                real quarter = d[c] / 4;
                out[c] += quarter;
                out[channels + c] += quarter;
                out[line + c] += quarter;
                out[line + channels + c] += quarter;
            }
        }
    }
}

static void backward_concat(step *s)
{
    size_t first = s->from.c, second = s->to.c - s->from.c;
    for (size_t p = 0; p < (size_t)s->to.h * s->to.w; p++) {
        if (s->d_in[0]) {
            add_to(s->d_in[0] + p * first, s->d_out + p * s->to.c, first);
        }
        if (s->d_in[1]) {
            add_to(s->d_in[1] + p * second, s->d_out + p * s->to.c + first, second);
        }
    }
}

static void backward_global_pool(step *s)
{
    size_t pixels = (size_t)s->from.h * s->from.w, channels = s->to.c;
    if (!s->d_in[0]) {
        return;
    }
    real *mean = take(s, channels), share = 1 / (real)pixels;
    memset(mean, 0, channels * sizeof *mean);
    add_pixels(mean, s->in[0], pixels, s->to.c);
    for (size_t c = 0; c < channels; c++) {
        mean[c] *= share;
    }
    activation_backward(s->node->activation, mean, s->d_out, channels);
    for (size_t c = 0; c < channels; c++) {
        mean[c] *= share;
    }
    for (size_t p = 0; p < pixels; p++) {
        add_to(s->d_in[0] + p * channels, mean, channels);
    }
}

static void backward_activation(step *s)
{
    size_t count = dn_shape_count(s->to);
    for (size_t i = 0; i < count && s->d_in[0]; i++) {
        real x = s->in[0][i];
        activation_backward(s->node->activation, &x, s->d_out + i, 1);
        s->d_in[0][i] += x;
    }
}

/* One axis of the filter: the inputs that output j is a sum of, with their factors. Returns how many. */
static size_t fir_taps(size_t at[4], real factor[4], bool up, size_t j, size_t before, size_t side)
{
    static const real taps[4] = {(real)0.125, (real)0.375, (real)0.375, (real)0.125};
    size_t count = 0;
    for (size_t k = 0; k < 4; k++) {
        size_t place = (up ? j : 2 * j) + k; /* counted from the border's edge */
        if (place < before || (up && (place - before) % 2)) {
            continue;
        }
        size_t source = up ? (place - before) / 2 : place - before;
        if (source < side) {
            at[count] = source;
            factor[count++] = up ? 2 * taps[k] : taps[k];
        }
    }
    return count;
}

static void add_scaled(real *restrict out, const real *restrict in, size_t count, real factor)
{
    for (size_t i = 0; i < count; i++) {
        out[i] += factor * in[i];
    }
}

/* Every output pixel's gradient goes back to the pixels it was a sum of. */
static void backward_fir(step *s)
{
    bool up = s->node->kind == DN_NODE_UPSAMPLE_FIR2;
    for (size_t y = 0; y < s->to.h && s->d_in[0]; y++) {
        size_t lines[4] = {0}, columns[4] = {0};
        real down[4] = {0}, across[4] = {0};
        size_t line_count = fir_taps(lines, down, up, y, s->node->pad_top, s->from.h);
        for (size_t x = 0; x < s->to.w; x++) {
            const real *d = s->d_out + (y * s->to.w + x) * s->to.c;
            size_t column_count = fir_taps(columns, across, up, x, s->node->pad_left, s->from.w);
            for (size_t i = 0; i < line_count * column_count; i++) {
                size_t line = i / column_count, column = i % column_count;
                add_scaled(s->d_in[0] + (lines[line] * s->from.w + columns[column]) * s->to.c, d, s->to.c, down[line] * across[column]);
            }
        }
    }
}

static void backward_unpatchify(step *s)
{
    size_t patch = s->node->kernel, piece = patch * s->to.c;
    const real *d = s->d_out;
    for (size_t y = 0; y < s->to.h && s->d_in[0]; y++) {
        for (size_t x = 0; x < s->from.w; x++, d += piece) {
            add_to(s->d_in[0] + (y / patch * s->from.w + x) * s->from.c + y % patch * piece, d, piece);
        }
    }
}
