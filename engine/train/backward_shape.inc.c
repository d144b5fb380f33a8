/* Backward of what moves or scales values: affine, class table, resampling, concatenation, pooling, activation. */

static void backward_affine(step *s)
{
    size_t count = dn_shape_count(s->to);
    for (size_t i = 0; i < count && s->d_in[0]; i++) {
        s->d_in[0][i] += (real)s->node->scale * s->d_out[i];
    }
}

static void backward_class_embedding(step *s)
{
    const dn_condition *condition = s->run->condition;
    for (uint32_t i = 0; condition && i < condition->count; i++) {
        real *line = s->d_weight + (size_t)condition->classes[i] * s->to.c;
        for (uint32_t c = 0; c < s->to.c; c++) {
            line[c] += (real)condition->weights[i] * s->d_out[c];
        }
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
