/* Winograd's F(2x2, 3x3): the transforms around the matrix products (Lavin and Gray, "Fast Algorithms for Convolutional
 * Neural Networks", section 4.1). A 2x2 tile of outputs comes from a 4x4 patch of inputs by 16 products in place of 36.
 *
 * Invariant: channels are whole vectors; every output element is a fixed sequence of additions. Any thread. Included by
 * kernels.inc.c. */

/* B^T d along one direction. */
INLINE void input_line(vec *t, vec a, vec b, vec c, vec d)
{
    t[0] = a - c;
    t[1] = b + c;
    t[2] = c - b;
    t[3] = b - d;
}

/* The 4x4 patch of one tile: where each pixel's channels are; outside the image, zeros. */
INLINE void find_patch(const float *patch[16], const dn_winograd *w, const float *image, size_t tile_y, size_t tile_x)
{
    for (size_t i = 0; i < 16; i++) {
        const size_t y = 2 * tile_y + i / 4, x = 2 * tile_x + i % 4; /* one past the pixel's own: the border is 1 */
        const bool inside = y > 0 && y <= w->height && x > 0 && x <= w->width;
        patch[i] = inside ? image + ((y - 1) * w->width + x - 1) * w->channels_in : w->zeros;
    }
}

static void winograd_input(const dn_winograd *w)
{
    const size_t tiles = w->tiles_y * w->tiles_x, plane = w->count * w->channels_in;
    for (size_t t = 0; t < w->count; t++) {
        const size_t row = (w->first + t) / tiles, tile = (w->first + t) % tiles;
        const float *patch[16];
        find_patch(patch, w, w->in + row * w->height * w->width * w->channels_in, tile / w->tiles_x, tile % w->tiles_x);
        float *to = w->transformed + t * w->channels_in;
        for (size_t c = 0; c < w->channels_in; c += DN_LANES) {
            vec column[4][4], line[4];
            for (int x = 0; x < 4; x++) {
                input_line(line, load(patch[x] + c), load(patch[4 + x] + c), load(patch[8 + x] + c), load(patch[12 + x] + c));
                for (int y = 0; y < 4; y++)
                    column[y][x] = line[y];
            }
            for (size_t y = 0; y < 4; y++) {
                input_line(line, column[y][0], column[y][1], column[y][2], column[y][3]);
                for (size_t x = 0; x < 4; x++)
                    store(to + (4 * y + x) * plane + c, line[x]);
            }
        }
    }
}

/* One output pixel's vector: bias, per-row bias, residual, scale, activation, as the matrix product's epilogue. */
INLINE void finish_pixel(const dn_winograd *w, size_t offset, vec sum, vec bias, vec row_bias)
{
    vec y = sum + bias;
    y += row_bias;
    if (w->residual)
        y += load(w->residual + offset);
    y *= w->scale;
    store(w->out + offset, y);
}

static void winograd_output(const dn_winograd *w)
{
    const size_t tiles = w->tiles_y * w->tiles_x, plane = w->count * w->channels_out;
    for (size_t t = 0; t < w->count; t++) {
        const size_t row = (w->first + t) / tiles, tile = (w->first + t) % tiles;
        const size_t y = 2 * (tile / w->tiles_x), x = 2 * (tile % w->tiles_x), line = w->width * w->channels_out;
        const size_t pixel = (row * w->height + y) * line + x * w->channels_out;
        const bool below = y + 1 < w->height, beside = x + 1 < w->width;
        const float *from = w->products + t * w->channels_out;
        const float *row_bias = w->row_bias ? w->row_bias + row * w->channels_out : NULL;
        for (size_t c = 0; c < w->channels_out; c += DN_LANES) {
            vec top[4], bottom[4];
            for (size_t i = 0; i < 4; i++) {
                const vec a = load(from + i * plane + c), b = load(from + (4 + i) * plane + c);
                const vec d = load(from + (8 + i) * plane + c), e = load(from + (12 + i) * plane + c);
                top[i] = a + b + d;
                bottom[i] = b - d - e;
            }
            const vec bias = w->bias ? load(w->bias + c) : splat(0.0f), extra = row_bias ? load(row_bias + c) : splat(0.0f);
            finish_pixel(w, pixel + c, top[0] + top[1] + top[2], bias, extra);
            if (beside)
                finish_pixel(w, pixel + w->channels_out + c, top[1] - top[2] - top[3], bias, extra);
            if (below)
                finish_pixel(w, pixel + line + c, bottom[0] + bottom[1] + bottom[2], bias, extra);
            if (below && beside)
                finish_pixel(w, pixel + line + w->channels_out + c, bottom[1] - bottom[2] - bottom[3], bias, extra);
        }
    }
}
