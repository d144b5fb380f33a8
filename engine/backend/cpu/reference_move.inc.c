/* The plain reference of the nodes that move elements or filter each channel alone. Included by reference.inc.c. */

static void run_upsample(const work *w)
{
    for (uint32_t y = 0; y < w->to.h; y++) {
        for (uint32_t x = 0; x < w->to.w; x++) {
            memcpy(w->out + ((size_t)y * w->to.w + x) * w->to.c, w->in[0] + ((size_t)(y / 2) * w->from.w + x / 2) * w->to.c,
                   w->to.c * sizeof *w->out);
        }
    }
}

static void run_average_pool(const work *w)
{
    size_t line = (size_t)w->from.w * w->from.c;
    for (uint32_t y = 0; y < w->to.h; y++) {
        for (uint32_t x = 0; x < w->to.w; x++) {
            const real *from = w->in[0] + 2 * (size_t)y * line + 2 * (size_t)x * w->from.c;
            for (uint32_t c = 0; c < w->to.c; c++) {
                real sum = from[c] + from[w->from.c + c] + from[line + c] + from[line + w->from.c + c];
                w->out[((size_t)y * w->to.w + x) * w->to.c + c] = sum / 4;
            }
        }
    }
}

static void run_concat(const work *w)
{
    uint32_t first = w->from.c, second = w->to.c - w->from.c;
    for (size_t p = 0; p < (size_t)w->to.h * w->to.w; p++) {
        memcpy(w->out + p * w->to.c, w->in[0] + p * first, first * sizeof *w->out);
        memcpy(w->out + p * w->to.c + first, w->in[1] + p * second, second * sizeof *w->out);
    }
}

/* One axis of the filter: the input that tap k of output j reads, or -1 where it reads a zero. */
static int64_t fir_source(bool up, uint32_t j, uint32_t k, uint32_t before, uint32_t side)
{
    int64_t at = (int64_t)(up ? j : 2 * j) - before + k;
    if (at < 0 || (up && at % 2 != 0)) {
        return -1;
    }
    at = up ? at / 2 : at;
    return at < side ? at : -1;
}

static void run_fir(const work *w)
{
    static const real taps[4] = {(real)0.125, (real)0.375, (real)0.375, (real)0.125};
    bool up = w->node->kind == DN_NODE_UPSAMPLE_FIR2;
    for (size_t i = 0; i < dn_shape_count(w->to); i++) {
        uint32_t c = (uint32_t)(i % w->to.c), x = (uint32_t)(i / w->to.c % w->to.w), y = (uint32_t)(i / w->to.c / w->to.w);
        real sum = 0;
        for (uint32_t k = 0; k < 16; k++) {
            int64_t from_y = fir_source(up, y, k / 4, w->node->pad_top, w->from.h);
            int64_t from_x = fir_source(up, x, k % 4, w->node->pad_left, w->from.w);
            if (from_y >= 0 && from_x >= 0) {
                sum += taps[k / 4] * taps[k % 4] * w->in[0][((size_t)from_y * w->from.w + (size_t)from_x) * w->from.c + c];
            }
        }
        w->out[i] = up ? 4 * sum : sum;
    }
}

static void run_unpatchify(const work *w)
{
    uint32_t p = w->node->kernel;
    for (size_t i = 0; i < dn_shape_count(w->to); i++) {
        size_t c = i % w->to.c, x = i / w->to.c % w->to.w, y = i / w->to.c / w->to.w;
        size_t pixel = y / p * w->from.w + x / p, channel = (y % p * p + x % p) * w->to.c + c;
        w->out[i] = w->in[0][pixel * w->from.c + channel];
    }
}
