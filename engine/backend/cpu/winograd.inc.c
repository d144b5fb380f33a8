/* Winograd's F(2x2, 3x3) and F(4x4, 3x3): the transforms around the matrix products (Lavin and Gray, "Fast Algorithms for
 * Convolutional Neural Networks", section 4). A tile of side x side outputs comes from a patch of (side + 2)^2 inputs by
 * (side + 2)^2 products in place of 9 side^2.
 *
 * F(2x2) interpolates at 0, 1, -1 and infinity, F(4x4) at 0, +-a, +-b and infinity with a = sqrt(1/2) and b = sqrt(2) = 1 / a:
 * of the points that were tried they give the least error, less than half of that of the usual 0, +-1, +-2 (Barabasz et al.,
 * "Error Analysis and Improving the Accuracy of Winograd Convolution", 2018, say why). All factors 1 / N(point) of F(4x4) stand
 * in the output's transform, where they cost nothing.
 *
 * Invariant: channels are whole vectors; every output element is a fixed sequence of operations. Any thread. Included by
 * kernels.inc.c. */

#define PATCH_MAX 6
#define ROOT_HALF 0.70710678118654752f
#define ROOT_TWO 1.41421356237309505f

/* B^T d along one direction: side + 2 inputs to as many points. */
INLINE void input_line(vec *t, const vec *d, const int side)
{
    if (side == 2) {
        t[0] = d[0] - d[2];
        t[1] = d[1] + d[2];
        t[2] = d[2] - d[1];
        t[3] = d[1] - d[3];
        return;
    }
    const vec even_a = d[4] - 2.0f * d[2], odd_a = d[3] - 2.0f * d[1];
    const vec even_b = d[4] - 0.5f * d[2], odd_b = d[3] - 0.5f * d[1];
    t[0] = (d[0] + d[4]) - 2.5f * d[2];
    t[1] = even_a + ROOT_HALF * odd_a;
    t[2] = even_a - ROOT_HALF * odd_a;
    t[3] = even_b + ROOT_TWO * odd_b;
    t[4] = even_b - ROOT_TWO * odd_b;
    t[5] = (d[1] + d[5]) - 2.5f * d[3];
}

/* A^T m along one direction: side + 2 points to side outputs. F(4x4): N(+-a) = -3/2, N(+-b) = 6, and 2 at +-b, as weight_line says. */
INLINE void output_line(vec *y, const vec *m, const int side)
{
    if (side == 2) {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
        return;
    }
    const float at_a = -2.0f / 3.0f, at_b = 2.0f / 6.0f;
    const vec sum_a = m[1] + m[2], sum_b = m[3] + m[4], difference_a = m[1] - m[2], difference_b = m[3] - m[4];
    y[0] = m[0] + at_a * sum_a + at_b * sum_b;
    y[1] = (at_a * ROOT_HALF) * difference_a + (at_b * ROOT_TWO) * difference_b;
    y[2] = (at_a * 0.5f) * sum_a + (at_b * 2.0f) * sum_b;
    y[3] = m[5] + (at_a * 0.5f * ROOT_HALF) * difference_a + (at_b * 2.0f * ROOT_TWO) * difference_b;
}

/* G g along one direction: 3 weights to side + 2 points. F(4x4): points +-b at half their size, for the sake of fewer constants. */
INLINE void weight_line(vec *u, const vec *g, const int side)
{
    const vec even = g[0] + g[2];
    u[0] = g[0];
    u[side + 1] = g[2];
    if (side == 2) {
        u[1] = 0.5f * (even + g[1]);
        u[2] = 0.5f * (even - g[1]);
        return;
    }
    const vec even_a = g[0] + 0.5f * g[2], even_b = 0.5f * g[0] + g[2];
    u[1] = even_a + ROOT_HALF * g[1];
    u[2] = even_a - ROOT_HALF * g[1];
    u[3] = even_b + ROOT_HALF * g[1];
    u[4] = even_b - ROOT_HALF * g[1];
}

/* One point of G g. */
INLINE vec weight_point(const vec *g, const size_t point, const int side)
{
    vec u[PATCH_MAX];
    weight_line(u, g, side);
    return u[point];
}

/* The patch of one tile: where each pixel's channels are; outside the image, zeros. */
INLINE void find_patch(const float **patch, const dn_winograd *w, size_t index, const int side)
{
    const size_t tiles = w->tiles_y * w->tiles_x, row = index / tiles, tile = index % tiles;
    const size_t top = tile / w->tiles_x * side, left = tile % w->tiles_x * side; /* one past the pixel's own: the border is 1 */
    const float *image = w->in + row * w->height * w->width * w->channels_in;
    for (size_t i = 0; i < (size_t)side + 2; i++) {
        const size_t y = top + i;
        for (size_t j = 0; j < (size_t)side + 2; j++) {
            const size_t x = left + j;
            const bool inside = y > 0 && y <= w->height && x > 0 && x <= w->width;
            *patch++ = inside ? image + ((y - 1) * w->width + x - 1) * w->channels_in : w->zeros;
        }
    }
}

/* Rows of channels follow [group of tiles][position][tile of the group]; the last group may hold fewer tiles. */
INLINE void transform_input(const dn_winograd *w, const int side)
{
    const int points = side + 2;
    for (size_t t = 0; t < w->count; t++) {
        const size_t group = t / w->group * w->group, tiles = w->count - group < w->group ? w->count - group : w->group;
        const size_t plane = tiles * w->in_row;
        const float *patch[PATCH_MAX * PATCH_MAX];
        find_patch(patch, w, w->first + t, side);
        float *to = w->transformed + (group * (size_t)(points * points) + t - group) * w->in_row;
        for (size_t c = 0; c < w->channels_in; c += DN_LANES) {
            vec half[PATCH_MAX][PATCH_MAX], d[PATCH_MAX], line[PATCH_MAX];
#pragma GCC unroll 6
            for (int x = 0; x < points; x++) {
#pragma GCC unroll 6
                for (int y = 0; y < points; y++)
                    d[y] = load(patch[points * y + x] + c);
                input_line(line, d, side);
#pragma GCC unroll 6
                for (int y = 0; y < points; y++)
                    half[y][x] = line[y];
            }
#pragma GCC unroll 6
            for (int y = 0; y < points; y++) {
                input_line(line, half[y], side);
#pragma GCC unroll 6
                for (int x = 0; x < points; x++)
                    store(to + (size_t)(points * y + x) * plane + c, line[x]);
            }
        }
    }
}

static void winograd_input(const dn_winograd *w)
{
    if (w->side == 2)
        transform_input(w, 2);
    else
        transform_input(w, 4);
}

/* One output pixel's vector: bias, per-row bias, residual, scale, as the matrix product's epilogue. */
INLINE void finish_pixel(const dn_winograd *w, size_t offset, vec sum, vec bias, vec row_bias)
{
    vec y = sum + bias;
    y += row_bias;
    if (w->residual)
        y += load(w->residual + offset);
    y *= w->scale;
    store(w->out + offset, y);
}

/* The outputs of one tile that lie inside the image: `lines` by `pixels` of them. */
INLINE void transform_tile(const dn_winograd *w, const float *from, const float *row_bias, size_t pixel, size_t lines, size_t pixels,
                           const int side)
{
    const int points = side + 2;
    for (size_t c = 0; c < w->columns; c += DN_LANES) {
        vec half[PATCH_MAX][PATCH_MAX], m[PATCH_MAX], y[PATCH_MAX];
        const size_t column = w->column + c;
        const vec bias = w->bias ? load(w->bias + column) : splat(0.0f), extra = row_bias ? load(row_bias + column) : splat(0.0f);
#pragma GCC unroll 6
        for (int j = 0; j < points; j++) {
#pragma GCC unroll 6
            for (int i = 0; i < points; i++)
                m[i] = load(from + (size_t)(points * i + j) * w->out_plane + c);
            output_line(y, m, side);
#pragma GCC unroll 4
            for (int i = 0; i < side; i++)
                half[i][j] = y[i];
        }
#pragma GCC unroll 4
        for (size_t i = 0; i < (size_t)side; i++) {
            if (i >= lines)
                break;
            output_line(y, half[i], side);
            const size_t offset = pixel + i * w->width * w->channels_out + column;
#pragma GCC unroll 4
            for (size_t j = 0; j < (size_t)side; j++) {
                if (j < pixels)
                    finish_pixel(w, offset + j * w->channels_out, y[j], bias, extra);
            }
        }
    }
}

INLINE void transform_output(const dn_winograd *w, const int side)
{
    const size_t tiles = w->tiles_y * w->tiles_x;
    for (size_t t = 0; t < w->count; t++) {
        const size_t row = (w->first + t) / tiles, tile = (w->first + t) % tiles;
        const size_t y = tile / w->tiles_x * side, x = tile % w->tiles_x * side;
        const size_t pixel = ((row * w->height + y) * w->width + x) * w->channels_out;
        const size_t lines = w->height - y, pixels = w->width - x;
        const float *row_bias = w->row_bias ? w->row_bias + row * w->channels_out : NULL;
        transform_tile(w, w->products + t * w->columns, row_bias, pixel, lines, pixels, side);
    }
}

static void winograd_output(const dn_winograd *w)
{
    if (w->side == 2)
        transform_output(w, 2);
    else
        transform_output(w, 4);
}

/* ---- Products with a weight that is transformed where it is used: F(4x4) of a few tiles. */

#define POINTS 6 /* of F(4x4) */
#define TAPS 9
#define BLOCK_INPUTS 32 /* whose taps stay in the L1 cache while lines of points and tiles pass over them */
#define TAP_TILES (DN_TILE_ROWS > 6 ? 4 : 2) /* POINTS sums of each lie in registers */
#define EACH_POINT(X) X(0) X(1) X(2) X(3) X(4) X(5)

/* What one call multiplies: BLOCK_INPUTS inputs or fewer, one vector of outputs, one line of points, up to TAP_TILES tiles. */
typedef struct tap_block {
    const float *taps; /* [count][9] vectors */
    const float *ahead; /* what is asked for meanwhile, ahead_step floats a step */
    size_t ahead_step;
    const float *rows; /* of transformed, [position][tile], `stride` apart */
    size_t stride;
    float *sums; /* [position][tile] vectors, plane and row floats apart */
    size_t plane, row;
    size_t count;
    bool first; /* whether sums begin here */
} tap_block;

INLINE void multiply_points(const tap_block *b, const size_t line, const int tiles)
{
    vec sum[POINTS][TAP_TILES];
    const float *taps = b->taps, *ahead = b->ahead, *row[POINTS * TAP_TILES / 3];
    const size_t stride = b->stride;
#pragma GCC unroll 6
    for (int p = 0; p < POINTS; p++) {
#pragma GCC unroll 4
        for (int t = 0; t < tiles; t++)
            sum[p][t] = b->first ? splat(0.0f) : load(b->sums + (size_t)p * b->plane + (size_t)t * b->row);
    }
#pragma GCC unroll 8
    for (int r = 0; r < POINTS * tiles / 3; r++)
        row[r] = b->rows + 3 * (size_t)r * stride;
    for (size_t c = b->count; c > 0; c--) {
        vec column[3], u[POINTS];
        __builtin_prefetch(ahead, 0, 2);
        __builtin_prefetch(ahead + DN_LANES, 0, 2);
#pragma GCC unroll 3
        for (size_t x = 0; x < 3; x++) {
            const vec g[3] = {load(taps + x * DN_LANES), load(taps + (3 + x) * DN_LANES), load(taps + (6 + x) * DN_LANES)};
            column[x] = weight_point(g, line, 4);
        }
        weight_line(u, column, 4);
#pragma GCC unroll 6
        for (int p = 0; p < POINTS; p++) {
#pragma GCC unroll 4
            for (int t = 0; t < tiles; t++) {
                const int r = p * tiles + t;
                sum[p][t] += row[r / 3][(size_t)(r % 3) * stride] * u[p];
            }
        }
        taps += TAPS * DN_LANES;
        ahead += b->ahead_step;
#pragma GCC unroll 8
        for (int r = 0; r < POINTS * tiles / 3; r++)
            row[r]++;
    }
#pragma GCC unroll 6
    for (int p = 0; p < POINTS; p++) {
#pragma GCC unroll 4
        for (int t = 0; t < tiles; t++)
            store(b->sums + (size_t)p * b->plane + (size_t)t * b->row, sum[p][t]);
    }
}

#define DEFINE_POINTS(line, tiles)                                                                                                         \
    static void multiply_line_##line##_##tiles(const tap_block *b)                                                                         \
    {                                                                                                                                      \
        multiply_points(b, line, tiles < TAP_TILES ? tiles : TAP_TILES);                                                                   \
    }
#define DEFINE_LINE(line) DEFINE_POINTS(line, 1) DEFINE_POINTS(line, 2) DEFINE_POINTS(line, 3) DEFINE_POINTS(line, 4)
#define NAME_LINE(line) {multiply_line_##line##_1, multiply_line_##line##_2, multiply_line_##line##_3, multiply_line_##line##_4},
EACH_POINT(DEFINE_LINE)
typedef void points_function(const tap_block *block);
static points_function *const line_functions[POINTS][4] = {EACH_POINT(NAME_LINE)};

/* Inputs first .. first + count - 1 and one vector of outputs from `column`, through all tiles and lines of points. */
static void multiply_tap_block(const dn_winograd *w, const float *taps, size_t column, size_t first, size_t count)
{
    tap_block b = {.taps = taps, .stride = w->in_row, .plane = w->out_plane, .row = w->columns, .count = count, .first = first == 0};
    for (size_t t = 0; t < w->count; t += TAP_TILES) {
        const size_t tiles = w->count - t < TAP_TILES ? w->count - t : TAP_TILES;
        for (size_t line = 0; line < POINTS; line++) {
            const size_t asked = 2 * line * count * DN_LANES; /* what lines before have asked for */
            const bool asks = t == 0 && asked < TAPS * count * DN_LANES;
            b.ahead = asks ? taps + TAPS * count * DN_LANES + asked : taps;
            b.ahead_step = asks ? 2 * DN_LANES : 0;
            b.rows = w->transformed + (t * POINTS + line * tiles) * POINTS * w->in_row + first;
            b.sums = w->products + line * POINTS * w->out_plane + t * w->columns + column;
            line_functions[line][tiles - 1](&b);
        }
    }
}

static void winograd_taps(const dn_winograd *w, const float *taps)
{
    for (size_t column = 0; column < w->columns; column += DN_LANES) {
        for (size_t first = 0; first < w->channels_in; first += BLOCK_INPUTS) {
            const size_t rest = w->channels_in - first, count = rest < BLOCK_INPUTS ? rest : BLOCK_INPUTS;
            multiply_tap_block(w, taps, column, first, count);
            taps += TAPS * count * DN_LANES;
        }
    }
}
