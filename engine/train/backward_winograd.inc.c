/* Backward of 3x3 convolutions of stride 1 through Winograd's F(2x2, 3x3) (Lavin and Gray, "Fast Algorithms for Convolutional
 * Neural Networks", section 4): 16 products for each 2x2 tile of outputs in place of 36.
 *
 * Forward, a tile is Y = A^T (U . V) A with U = G w G^T and V = B^T x B, summed over the input's channels. So, with E = A dY A^T:
 *   dU[point] = sum over tiles of E[point]^T V[point],   dw = G^T dU G once a batch (unpack),
 *   dV[point] = E[point] U[point],                       dx = B dV B^T, added where patches overlap.
 * Weights and their gradients are packed as U and dU: [16][O][I]. Sides are even and channels whole vectors. */

#define POINTS 4

/* The four transforms along one direction; each is applied to columns and then to rows. */
INLINE void input_to_points(vec *t, const vec *x)
{
    t[0] = x[0] - x[2];
    t[1] = x[1] + x[2];
    t[2] = x[2] - x[1];
    t[3] = x[1] - x[3];
}

INLINE void points_to_input(vec *x, const vec *t)
{
    x[0] = t[0];
    x[1] = t[1] - t[2] + t[3];
    x[2] = t[1] + t[2] - t[0];
    x[3] = -t[3];
}

INLINE void output_to_points(vec *t, const vec *y)
{
    t[0] = y[0];
    t[1] = y[0] + y[1];
    t[2] = y[0] - y[1];
    t[3] = -y[1];
}

static void weight_to_points(real *u, const real *w)
{
    u[0] = w[0];
    u[1] = ((w[0] + w[2]) + w[1]) / 2;
    u[2] = ((w[0] + w[2]) - w[1]) / 2;
    u[3] = w[2];
}

static void points_to_weight(real *w, const real *u)
{
    w[0] = u[0] + (u[1] + u[2]) / 2;
    w[1] = (u[1] - u[2]) / 2;
    w[2] = u[3] + (u[1] + u[2]) / 2;
}

/* Some lines of tiles, counted through all rows' pictures, and their points: [16][tiles][channels], planes a little apart so
 * that a tile's points do not all fall into the same sets of the first cache. */
typedef struct tiles {
    dn_shape shape; /* of a picture */
    size_t first, lines, across; /* of tiles */
    size_t plane;
    real *points;
} tiles;

static tiles cut_tiles(dn_shape shape, size_t first, size_t lines, real *points)
{
    size_t across = shape.w / 2;
    return (tiles){shape, first, lines, across, lines * across * shape.c + DN_PACK_CHANNELS, points};
}

/* Which row's picture a tile is of, and its line there. */
INLINE size_t row_of(const tiles *t, size_t tile, size_t *line)
{
    size_t lines = t->shape.h / 2, at = t->first + tile / t->across;
    *line = at % lines;
    return at / lines;
}

/* Where the pixels of a tile's patch lie in its picture; it begins a pixel above and left of the tile. SIZE_MAX outside. */
INLINE void find_patch(size_t patch[POINTS * POINTS], const tiles *t, size_t line, size_t tile)
{
    for (size_t i = 0; i < (size_t)POINTS * POINTS; i++) {
        size_t top = 2 * line + i / POINTS, left = 2 * (tile % t->across) + i % POINTS;
        bool inside = top >= 1 && top <= t->shape.h && left >= 1 && left <= t->shape.w;
        patch[i] = inside ? ((top - 1) * t->shape.w + left - 1) * t->shape.c : SIZE_MAX;
    }
}

/* V = B^T x B. zeros: a pixel of them. */
static void transform_patches(const tiles *t, const step *rows, const real *zeros)
{
    for (size_t tile = 0; tile < t->lines * t->across; tile++) {
        size_t place[POINTS * POINTS], line_of_tile;
        const real *patch[POINTS * POINTS], *picture = rows[row_of(t, tile, &line_of_tile)].in[0];
        find_patch(place, t, line_of_tile, tile);
        for (size_t i = 0; i < (size_t)POINTS * POINTS; i++) {
            patch[i] = place[i] == SIZE_MAX ? zeros : picture + place[i];
        }
        real *to = t->points + tile * t->shape.c;
        for (size_t c = 0; c < t->shape.c; c += (size_t)LANES) {
            vec half[POINTS][POINTS], line[POINTS], point[POINTS];
#pragma GCC unroll 4
            for (int x = 0; x < POINTS; x++) {
#pragma GCC unroll 4
                for (int y = 0; y < POINTS; y++) {
                    line[y] = *(const vec *)(patch[y * POINTS + x] + c);
                }
                input_to_points(point, line);
#pragma GCC unroll 4
                for (int y = 0; y < POINTS; y++) {
                    half[y][x] = point[y];
                }
            }
#pragma GCC unroll 4
            for (int y = 0; y < POINTS; y++) {
                input_to_points(point, half[y]);
#pragma GCC unroll 4
                for (int x = 0; x < POINTS; x++) {
                    *(vec *)(to + (size_t)(y * POINTS + x) * t->plane + c) = point[x];
                }
            }
        }
    }
}

/* E = A dY A^T. */
static void transform_outputs(const tiles *t, const real *const *d)
{
    size_t channels = t->shape.c, line = (size_t)t->shape.w * channels;
    for (size_t tile = 0; tile < t->lines * t->across; tile++) {
        size_t line_of_tile, row = row_of(t, tile, &line_of_tile);
        const real *from = d[row] + 2 * line_of_tile * line + 2 * (tile % t->across) * channels;
        real *to = t->points + tile * channels;
        for (size_t c = 0; c < channels; c += (size_t)LANES) {
            vec half[2][POINTS];
#pragma GCC unroll 2
            for (size_t x = 0; x < 2; x++) {
                const vec pair[2] = {*(const vec *)(from + x * channels + c), *(const vec *)(from + line + x * channels + c)};
                output_to_points(half[x], pair);
            }
#pragma GCC unroll 4
            for (int y = 0; y < POINTS; y++) {
                const vec pair[2] = {half[0][y], half[1][y]};
                vec point[POINTS];
                output_to_points(point, pair);
#pragma GCC unroll 4
                for (int x = 0; x < POINTS; x++) {
                    *(vec *)(to + (size_t)(y * POINTS + x) * t->plane + c) = point[x];
                }
            }
        }
    }
}

/* dx += B dV B^T. */
static void add_patches(const tiles *t, step *rows)
{
    for (size_t tile = 0; tile < t->lines * t->across; tile++) {
        size_t patch[POINTS * POINTS], line_of_tile;
        real *picture = rows[row_of(t, tile, &line_of_tile)].d_in[0];
        find_patch(patch, t, line_of_tile, tile);
        const real *from = t->points + tile * t->shape.c;
        for (size_t c = 0; c < t->shape.c; c += (size_t)LANES) {
            vec half[POINTS][POINTS], line[POINTS], point[POINTS];
#pragma GCC unroll 4
            for (int y = 0; y < POINTS; y++) {
#pragma GCC unroll 4
                for (int x = 0; x < POINTS; x++) {
                    point[x] = *(const vec *)(from + (size_t)(y * POINTS + x) * t->plane + c);
                }
                points_to_input(line, point);
#pragma GCC unroll 4
                for (int x = 0; x < POINTS; x++) {
                    half[x][y] = line[x];
                }
            }
#pragma GCC unroll 4
            for (int x = 0; x < POINTS; x++) {
                points_to_input(line, half[x]);
#pragma GCC unroll 4
                for (int y = 0; y < POINTS; y++) {
                    if (patch[y * POINTS + x] != SIZE_MAX) {
                        *(vec *)(picture + patch[y * POINTS + x] + c) += line[y];
                    }
                }
            }
        }
    }
}

/* dU += E^T V. */
static void winograd_weights(step *s, const tiles *e, const tiles *v)
{
    for (size_t p = 0; p < (size_t)POINTS * POINTS; p++) {
        run_outer(&(outer){.d = e->points + p * e->plane,
                           .x = v->points + p * v->plane,
                           .w = s->d_weight + p * s->to.c * s->from.c,
                           .rows = 1,
                           .columns = e->lines * e->across,
                           .outputs = s->to.c,
                           .x_column = s->from.c,
                           .kernel = 1,
                           .width = s->from.c});
    }
}

/* dV = E U, in the place of V. */
static void winograd_values(step *s, const tiles *e, const tiles *v)
{
    for (size_t p = 0; p < (size_t)POINTS * POINTS; p++) {
        run_product(&(product){.a = e->points + p * e->plane,
                               .b = s->weight + p * s->to.c * s->from.c,
                               .out = v->points + p * v->plane,
                               .rows = 1,
                               .columns = e->lines * e->across,
                               .a_column = s->to.c,
                               .b_k = s->from.c,
                               .out_pixel = s->from.c,
                               .kernel = 1,
                               .depth = s->to.c,
                               .width = s->from.c,
                               .fresh = true});
    }
    add_patches(v, s);
}

static void conv_winograd(step *rows, uint32_t count)
{
    step *s = rows;
    size_t lines = (size_t)s->to.h / 2 * count, most = dn_pack_tile_lines(s->to), room = (size_t)POINTS * POINTS;
    const real *d[DN_BACKWARD_ROWS];
    for (uint32_t r = 0; r < count; r++) {
        rows[r].scratch = rows[r ? r - 1 : 0].scratch;
        d[r] = scaled(&rows[r], rows[r].d_out);
        conv_additions(&rows[r], d[r]);
    }
    s->scratch = rows[count - 1].scratch;
    real *zeros = take(s, s->from.c);
    real *outputs = take(s, room * cut_tiles(s->to, 0, most, NULL).plane),
         *inputs = take(s, room * cut_tiles(s->from, 0, most, NULL).plane);
    memset(zeros, 0, s->from.c * sizeof *zeros);
    for (size_t first = 0; first < lines; first += most) {
        size_t some = first + most <= lines ? most : lines - first;
        tiles e = cut_tiles(s->to, first, some, outputs), v = cut_tiles(s->from, first, some, inputs);
        transform_outputs(&e, d);
        if (s->d_weight) {
            transform_patches(&v, rows, zeros);
            winograd_weights(s, &e, &v);
        }
        if (s->d_in[0]) {
            winograd_values(s, &e, &v);
        }
    }
}

/* One weight's nine taps, which lie together, to its sixteen points, which lie `plane` apart; and the gradient back. */
static void pack_points(real *points, size_t plane, const real *taps)
{
    real half[POINTS][3], line[POINTS];
    for (size_t x = 0; x < 3; x++) {
        const real column[3] = {taps[x], taps[3 + x], taps[6 + x]};
        weight_to_points(line, column);
        for (size_t y = 0; y < POINTS; y++) {
            half[y][x] = line[y];
        }
    }
    for (size_t y = 0; y < POINTS; y++) {
        weight_to_points(line, half[y]);
        for (size_t x = 0; x < POINTS; x++) {
            points[(y * POINTS + x) * plane] = line[x];
        }
    }
}

static void unpack_points(real *taps, const real *points, size_t plane)
{
    real half[3][POINTS], line[3];
    for (size_t x = 0; x < POINTS; x++) {
        const real column[POINTS] = {points[x * plane], points[(POINTS + x) * plane], points[(2 * POINTS + x) * plane],
                                     points[(3 * POINTS + x) * plane]};
        points_to_weight(line, column);
        for (size_t y = 0; y < 3; y++) {
            half[y][x] = line[y];
        }
    }
    for (size_t y = 0; y < 3; y++) {
        points_to_weight(taps + 3 * y, half[y]);
    }
}
