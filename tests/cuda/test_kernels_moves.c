/* What moves elements: the ends of a pass, doubling and halving, filters, patches, concatenation, the mean of a picture, packed weights. */
#include "tests/cuda/kernels_check.h"

#include "backend/cpu/reference.h"

#define ROUNDS 20
#define ROWS 3

typedef struct move_case {
    tensor in, more, out;
    uint32_t patch, pad_top, pad_left;
    bool up;
    dn_cuda_activation activation;
} move_case;

typedef void want_function(const move_case *m, uint32_t row, uint32_t y, uint32_t x, double *out);

static void release(move_case *m)
{
    tensor_free(&m->in);
    tensor_free(&m->more);
    tensor_free(&m->out);
}

/* An output of h x w x c, what is wanted in it, and all checks. Frees the case. */
static const char *check_move(move_case *m, uint32_t h, uint32_t w, uint32_t c, run_function *run, want_function *want)
{
    m->out = tensor_make(m->in.type, ROWS, h, w, c, m->in.view.pitch % 8 != 0 && draw(0, 1));
    for (uint32_t r = 0; r < ROWS; r++) {
        for (uint32_t p = 0; p < h * w; p++)
            want(m, r, p / w, p % w, exact_at(&m->out, r, p));
    }
    trial t = {.type = m->in.type, .rows = ROWS, .run = run, .what = m, .out = {&m->out}, .tolerance = tolerance_of(m->in.type)};
    const char *why = check_trial(&t);
    release(m);
    return why;
}

static const double *pixel_of(const tensor *t, uint32_t row, uint32_t y, uint32_t x)
{
    return exact_at(t, row, (size_t)y * t->view.w + x);
}

static move_case open_move(int round, uint32_t h, uint32_t w, uint32_t c)
{
    return (move_case){.in = tensor_input(round % 2 ? DN_CUDA_BF16 : DN_CUDA_F32, ROWS, h, w, c, round % 5 == 3)};
}

/* ---- Doubling and halving */
static int run_upsample(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    move_case *m = what;
    return dn_cuda_upsample_nearest2(launch, view_from(&m->in, first), view_from(&m->out, first));
}

static void want_upsample(const move_case *m, uint32_t row, uint32_t y, uint32_t x, double *out)
{
    memcpy(out, pixel_of(&m->in, row, y / 2, x / 2), m->in.view.c * sizeof *out);
}

static int run_pool(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    move_case *m = what;
    return dn_cuda_average_pool2(launch, view_from(&m->in, first), view_from(&m->out, first));
}

static void want_pool(const move_case *m, uint32_t row, uint32_t y, uint32_t x, double *out)
{
    for (uint32_t c = 0; c < m->in.view.c; c++) {
        out[c] = 0.0;
        for (uint32_t k = 0; k < 4; k++)
            out[c] += pixel_of(&m->in, row, 2 * y + k / 2, 2 * x + k % 2)[c] / 4.0;
    }
}

static void sizes_double_and_halve(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        uint32_t h, w, c;
        draw_shape(&h, &w, &c);
        move_case m = open_move(round, h, w, c);
        const char *why = check_move(&m, 2 * h, 2 * w, c, run_upsample, want_upsample);
        CHECK_MSG(!why, "round %d, up: %s", round, why);
        uint32_t odd = round % 3 == 2; /* a last column that nothing reads */
        m = open_move(round, 2 * h, 2 * w + odd, c);
        why = check_move(&m, h, w, c, run_pool, want_pool);
        CHECK_MSG(!why, "round %d, down: %s", round, why);
    }
}

/* ---- The FIR filter: what upfirdn2d does, written as plan.h says it: zeros between, pads, then taps. */
static int run_fir(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    move_case *m = what;
    return dn_cuda_fir2(launch, view_from(&m->in, first), m->up, m->pad_top, m->pad_left, view_from(&m->out, first));
}

/* Element j of the stuffed, padded line, or none. */
static int64_t stuffed(const move_case *m, int64_t j, uint32_t pad, uint32_t side)
{
    j -= pad;
    int64_t length = m->up ? 2 * (int64_t)side : side;
    if (j < 0 || j >= length || (m->up && j % 2 != 0))
        return -1;
    return m->up ? j / 2 : j;
}

static void want_fir(const move_case *m, uint32_t row, uint32_t y, uint32_t x, double *out)
{
    static const double taps[4] = {0.125, 0.375, 0.375, 0.125};
    uint32_t step = m->up ? 1 : 2;
    memset(out, 0, m->in.view.c * sizeof *out);
    for (uint32_t k = 0; k < 16; k++) {
        int64_t from_y = stuffed(m, (int64_t)step * y + k / 4, m->pad_top, m->in.view.h);
        int64_t from_x = stuffed(m, (int64_t)step * x + k % 4, m->pad_left, m->in.view.w);
        for (uint32_t c = 0; c < m->in.view.c && from_y >= 0 && from_x >= 0; c++)
            out[c] += (m->up ? 4.0 : 1.0) * taps[k / 4] * taps[k % 4] * pixel_of(&m->in, row, (uint32_t)from_y, (uint32_t)from_x)[c];
    }
}

static void filters_double_and_halve(void)
{
    /* before, after: as diffusers has them, and as a convolution beside the filter wants them. */
    static const uint32_t pads[][3] = {{1, 2, 1}, {0, 1, 1}, {1, 3, 2}, {0, 0, 0}, {0, 2, 2}, {1, 3, 3}};
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        uint32_t h, w, c;
        const uint32_t *pad = pads[round % 6];
        draw_shape(&h, &w, &c);
        h += 4, w += 4;
        move_case m = open_move(round, h, w, c);
        m.up = pad[0] != 0;
        m.pad_top = m.pad_left = pad[1];
        uint32_t out_h = m.up ? 2 * h + pad[1] + pad[2] - 3 : (h + pad[1] + pad[2] - 4) / 2 + 1;
        uint32_t out_w = m.up ? 2 * w + pad[1] + pad[2] - 3 : (w + pad[1] + pad[2] - 4) / 2 + 1;
        const char *why = check_move(&m, out_h, out_w, c, run_fir, want_fir);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

/* ---- Patches, concatenation, means */
static int run_unpatchify(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    move_case *m = what;
    return dn_cuda_unpatchify(launch, view_from(&m->in, first), m->patch, view_from(&m->out, first));
}

static void want_unpatchify(const move_case *m, uint32_t row, uint32_t y, uint32_t x, double *out)
{
    uint32_t p = m->patch, c = m->out.view.c;
    memcpy(out, pixel_of(&m->in, row, y / p, x / p) + (y % p * p + x % p) * c, c * sizeof *out);
}

static void patches_are_laid_out(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        uint32_t h, w, c, patch = 1 + (uint32_t)round % 4;
        draw_shape(&h, &w, &c);
        c = round % 3 ? c : 8;
        move_case m = open_move(round, h, w, patch * patch * c);
        m.patch = patch;
        const char *why = check_move(&m, h * patch, w * patch, c, run_unpatchify, want_unpatchify);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

static int run_concat(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    move_case *m = what;
    return dn_cuda_concat(launch, view_from(&m->in, first), view_from(&m->more, first), view_from(&m->out, first));
}

static void want_concat(const move_case *m, uint32_t row, uint32_t y, uint32_t x, double *out)
{
    memcpy(out, pixel_of(&m->in, row, y, x), m->in.view.c * sizeof *out);
    memcpy(out + m->in.view.c, pixel_of(&m->more, row, y, x), m->more.view.c * sizeof *out);
}

static void channels_are_joined(void)
{
    static const uint32_t second[] = {1, 8, 3, 72, 13, 64};
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        uint32_t h, w, c, other = second[round % 6];
        draw_shape(&h, &w, &c);
        move_case m = open_move(round, h, w, c);
        m.more = tensor_input(m.in.type, ROWS, h, w, other, round % 7 == 4);
        const char *why = check_move(&m, h, w, c + other, run_concat, want_concat);
        CHECK_MSG(!why, "round %d, %u and %u: %s", round, c, other, why);
    }
}

static int run_global_pool(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    move_case *m = what;
    return dn_cuda_global_pool(launch, view_from(&m->in, first), m->activation, view_from(&m->out, first));
}

static void want_global_pool(const move_case *m, uint32_t row, uint32_t y, uint32_t x, double *out)
{
    size_t pixels = (size_t)m->in.view.h * m->in.view.w;
    (void)y, (void)x;
    for (uint32_t c = 0; c < m->in.view.c; c++) {
        double sum = 0.0;
        for (size_t p = 0; p < pixels; p++)
            sum += exact_at(&m->in, row, p)[c];
        out[c] = dn_reference_activation((dn_activation)m->activation, sum / (double)pixels);
    }
}

static void pictures_have_means(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        uint32_t h, w, c;
        draw_shape(&h, &w, &c);
        move_case m = open_move(round, h, w, c);
        m.activation = (dn_cuda_activation)(round % 6);
        const char *why = check_move(&m, 1, 1, c, run_global_pool, want_global_pool);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

/* ---- The ends of a pass */
typedef struct ends_case {
    tensor value;
    float *in[ROWS], *out[ROWS];
    uint32_t *finite;
    unsigned char *block;
} ends_case;

static const float scales[ROWS] = {1.0f, 0.25f, -3.0f};

/* Rows from `first` on, of which `count` are wanted. */
static const dn_cuda_block *write_block(ends_case *e, uint32_t first, uint32_t count)
{
    free(e->block);
    e->block = need(sizeof(dn_cuda_block) + 16 + ROWS * sizeof(dn_cuda_row));
    dn_cuda_block *block = (dn_cuda_block *)(void *)e->block;
    *block = (dn_cuda_block){.row_count = count, .rows_max = ROWS, .rows_at = (sizeof(dn_cuda_block) + 15) / 16 * 16};
    dn_cuda_row *rows = DN_CUDA_BLOCK_PART(dn_cuda_row, block, block->rows_at);
    for (uint32_t r = first; r < first + count; r++) /* what nobody wants stays 0xFF: addresses that nothing may use */
        rows[r - first] = (dn_cuda_row){.in = e->in[r], .out = e->out[r], .in_scale = scales[r]};
    return block;
}

static ends_case open_ends(int round)
{
    uint32_t h, w, c;
    ends_case e = {0};
    draw_shape(&h, &w, &c);
    e.value = tensor_input(round % 2 ? DN_CUDA_BF16 : DN_CUDA_F32, ROWS, h, w, c, round % 5 == 3);
    e.finite = need(ROWS * sizeof *e.finite);
    for (uint32_t r = 0; r < ROWS; r++) {
        e.in[r] = need((size_t)h * w * c * sizeof(float));
        e.out[r] = need(((size_t)h * w * c + 8) * sizeof(float));
    }
    return e;
}

static void close_ends(ends_case *e)
{
    tensor_free(&e->value);
    free(e->finite);
    free(e->block);
    for (uint32_t r = 0; r < ROWS; r++) {
        free(e->in[r]);
        free(e->out[r]);
    }
}

static int run_gather(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    ends_case *e = what;
    return dn_cuda_gather(launch, write_block(e, first, ROWS - 1 > first ? ROWS - 1 - first : 0), view_from(&e->value, first));
}

/* The last row is one that nobody wants: zeros. */
static void planes_are_gathered(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        ends_case e = open_ends(round);
        dn_cuda_view s = e.value.view;
        size_t plane = (size_t)s.h * s.w;
        for (uint32_t r = 0; r < ROWS; r++) {
            for (size_t i = 0; i < plane * s.c; i++) {
                e.in[r][i] = draw_float();
                exact_at(&e.value, r, i % plane)[i / plane] = r < ROWS - 1 ? (double)scales[r] * (double)e.in[r][i] : 0.0;
            }
        }
        trial t = {.type = e.value.type, .rows = ROWS, .run = run_gather, .what = &e, .out = {&e.value}};
        t.tolerance = tolerance_of(e.value.type);
        const char *why = check_trial(&t);
        close_ends(&e);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

static int run_scatter(ends_case *e, uint32_t count, cuemu_order order)
{
    dn_cuda_launch launch = {.type = e->value.type, .rows = ROWS};
    cuemu_schedule(order);
    memset(e->finite, 0xFF, ROWS * sizeof *e->finite);
    int refused = dn_cuda_scatter(&launch, write_block(e, 0, count), e->value.view, e->finite);
    int failed = (int)cudaDeviceSynchronize();
    cuemu_schedule(CUEMU_FORWARD);
    return refused ? refused : failed;
}

/* NULL, or what is wrong with row r's plane and flag. */
static const char *check_scattered(const ends_case *e, uint32_t r, bool wanted, bool finite)
{
    dn_cuda_view s = e->value.view;
    size_t plane = (size_t)s.h * s.w, written = wanted ? plane * s.c : 0;
    if (e->finite[r] != finite)
        return "the flag is wrong";
    for (size_t i = 0; i < written; i++) {
        float value = (float)tensor_get(&e->value, r, i % plane, (uint32_t)(i / plane));
        if (memcmp(&e->out[r][i], &value, sizeof value) != 0 && !(isnan(value) && isnan(e->out[r][i])))
            return "an element is not what it was";
    }
    return is_ff((unsigned char *)(e->out[r] + written), (plane * s.c + 8 - written) * sizeof(float)) ? NULL : "it wrote more";
}

static void planes_are_scattered_and_faults_are_told(void)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        ends_case e = open_ends(round);
        dn_cuda_view s = e.value.view;
        uint32_t count = (uint32_t)round % (ROWS + 1), at = draw(0, ROWS - 1);
        tensor_put(&e.value, at, draw(0, s.h * s.w - 1), draw(0, s.c - 1), bad[round % 3]);
        const char *why = run_scatter(&e, count, (cuemu_order)(round % CUEMU_ORDERS)) ? "it was refused" : NULL;
        for (uint32_t r = 0; r < ROWS && !why; r++)
            why = check_scattered(&e, r, r < count, r >= count || r != at);
        close_ends(&e);
        CHECK_MSG(!why, "round %d: %s", round, why);
    }
}

/* ---- Packed weights */
static float packed_at(dn_cuda_type type, const void *packed, size_t i)
{
    return type == DN_CUDA_F32 ? ((const float *)packed)[i] : dn_bf16_to_f32(((const uint16_t *)packed)[i]);
}

static float rounded(dn_cuda_type type, float x)
{
    return type == DN_CUDA_F32 ? x : dn_bf16_to_f32(dn_f32_to_bf16(x));
}

/* o, i, kh, kw, o_pad, i_pad. */
static const char *try_filter(dn_cuda_type type, const uint32_t *f)
{
    dn_cuda_launch launch = {.type = type};
    size_t total = (size_t)f[4] * f[2] * f[3] * f[5];
    float *in = need((size_t)f[0] * f[1] * f[2] * f[3] * sizeof *in);
    unsigned char *out = need(total * size_of(type) + 16);
    const char *why = NULL;
    for (size_t i = 0; i < (size_t)f[0] * f[1] * f[2] * f[3]; i++)
        in[i] = draw_float();
    if (dn_cuda_pack_filter(&launch, in, f[0], f[1], f[2], f[3], f[4], f[5], out) || cudaDeviceSynchronize() != cudaSuccess)
        why = "it was refused";
    for (size_t n = 0; n < total && !why; n++) {
        size_t i = n % f[5], x = n / f[5] % f[3], y = n / f[5] / f[3] % f[2], o = n / f[5] / f[3] / f[2];
        float want = o < f[0] && i < f[1] ? rounded(type, in[((o * f[1] + i) * f[2] + y) * f[3] + x]) : 0.0f;
        float got = packed_at(type, out, n);
        why = memcmp(&got, &want, sizeof want) ? "an element is another" : NULL;
    }
    why = why || is_ff(out + total * size_of(type), 16) ? why : "it wrote behind its end";
    free(in);
    free(out);
    return why;
}

static void filters_are_packed(void)
{
    static const uint32_t filters[][6] = {
        {3, 5, 3, 3, 8, 8}, {8, 8, 1, 1, 8, 8}, {13, 72, 1, 1, 16, 72}, {1, 1, 3, 5, 8, 16}, {16, 4, 4, 4, 16, 8}};
    for (size_t f = 0; f < sizeof filters / sizeof filters[0]; f++) {
        const char *why = try_filter(DN_CUDA_F32, filters[f]);
        CHECK_MSG(!why, "filter %zu: %s", f, why);
        why = try_filter(DN_CUDA_BF16, filters[f]);
        CHECK_MSG(!why, "filter %zu in bfloat16: %s", f, why);
    }
}

static void vectors_are_packed(void)
{
    static const uint32_t counts[][2] = {{1, 8}, {5, 8}, {8, 8}, {1152, 1152}, {700, 1000}};
    for (size_t n = 0; n < 2 * sizeof counts / sizeof counts[0]; n++) {
        const uint32_t *count = counts[n / 2];
        dn_cuda_launch launch = {.type = n % 2 ? DN_CUDA_BF16 : DN_CUDA_F32};
        float *in = need(count[0] * sizeof *in);
        unsigned char *out = need(count[1] * size_of(launch.type) + 16);
        for (uint32_t i = 0; i < count[0]; i++)
            in[i] = draw_float();
        bool good = dn_cuda_pack_vector(&launch, in, count[0], count[1], out) == 0 && cudaDeviceSynchronize() == cudaSuccess;
        for (uint32_t i = 0; i < count[1]; i++) {
            float want = i < count[0] ? rounded(launch.type, in[i]) : 0.0f, got = packed_at(launch.type, out, i);
            good = good && memcmp(&got, &want, sizeof want) == 0;
        }
        good = good && is_ff(out + count[1] * size_of(launch.type), 16);
        free(in);
        free(out);
        CHECK_MSG(good, "vector of %u in %u", count[0], count[1]);
    }
}

int main(void)
{
    RUN(sizes_double_and_halve);
    RUN(filters_double_and_halve);
    RUN(patches_are_laid_out);
    RUN(channels_are_joined);
    RUN(pictures_have_means);
    RUN(planes_are_gathered);
    RUN(planes_are_scattered_and_faults_are_told);
    RUN(filters_are_packed);
    RUN(vectors_are_packed);
    return test_end();
}
