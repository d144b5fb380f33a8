/* Group norm and layer norm against their formulas in double: every way that a shape is cut, whatever may be fused to them. */
#include "tests/cuda/kernels_check.h"

#include "backend/cpu/reference.h"

typedef struct norm_case {
    tensor x, row_bias, modulation, gate, residual, sum, shift, scale, out;
    float *weight, *bias, *scratch;
    dn_cuda_group_norm_options group;
    float epsilon;
    bool in_place;
} norm_case;

static void release(norm_case *n)
{
    tensor *const all[] = {&n->x, &n->row_bias, &n->modulation, &n->gate, &n->residual, &n->sum, &n->shift, &n->scale, &n->out};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        tensor_free(all[i]);
    free(n->weight);
    free(n->bias);
    free(n->scratch);
    *n = (norm_case){0};
}

static float *draw_floats(uint32_t count, float middle)
{
    float *x = need(count * sizeof *x);
    for (uint32_t i = 0; i < count; i++)
        x[i] = middle + 0.5f * draw_float();
    return x;
}

/* ---- Group norm */
static int run_group_norm(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    norm_case *n = what;
    dn_cuda_group_norm_options o = n->group;
    size_t floats = (size_t)dn_cuda_group_norm_scratch(launch->rows, n->x.view.h, n->x.view.w, n->x.view.c, o.groups);
    free(n->scratch);
    n->scratch = floats ? need(floats * sizeof(float)) : NULL;
    o.scratch = n->scratch;
    o.in = view_from(&n->x, first);
    o.row_bias = view_from(&n->row_bias, first);
    o.modulation = view_from(&n->modulation, first);
    o.out = view_from(&n->out, first);
    o.weight = n->weight;
    o.bias = n->bias;
    return dn_cuda_group_norm(launch, &o);
}

/* One group of one row; the formula of plan.h. */
static void group_reference(const norm_case *n, uint32_t row, uint32_t group)
{
    dn_cuda_view s = n->x.view;
    uint32_t per = s.c / n->group.groups, first = group * per;
    size_t pixels = (size_t)s.h * s.w;
    double mean = 0.0, squares = 0.0, count = (double)pixels * per;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t p = 0; p < pixels; p++) {
            for (uint32_t c = first; c < first + per; c++) {
                double x = exact_at(&n->x, row, p)[c] + (n->row_bias.exact ? exact_at(&n->row_bias, row, 0)[c] : 0.0);
                mean += pass == 0 ? x / count : 0.0;
                squares += pass == 1 ? (x - mean) * (x - mean) : 0.0;
            }
        }
    }
    double inverse = 1.0 / sqrt(squares / count + (double)n->group.epsilon);
    for (size_t p = 0; p < pixels; p++) {
        for (uint32_t c = first; c < first + per; c++) {
            double y = exact_at(&n->x, row, p)[c] + (n->row_bias.exact ? exact_at(&n->row_bias, row, 0)[c] : 0.0) - mean;
            y = y * inverse * (n->weight ? (double)n->weight[c] : 1.0) + (n->bias ? (double)n->bias[c] : 0.0);
            if (n->modulation.exact)
                y = y * (1.0 + exact_at(&n->modulation, row, 0)[c]) + exact_at(&n->modulation, row, 0)[s.c + c];
            exact_at(&n->out, row, p)[c] = dn_reference_activation((dn_activation)n->group.activation, y);
        }
    }
}

static const char *in_place_group(norm_case *n, const trial *t)
{
    tensor kept = n->out, copy = tensor_like(&n->x);
    memcpy(copy.memory, n->x.memory, n->x.bytes);
    n->out = n->x;
    const char *why = trial_launch(t, 0, t->rows) == DN_CUDA_LAUNCH_OK ? NULL : "in place it was refused";
    for (uint32_t r = 0; r < t->rows && !why; r++) {
        for (size_t p = 0; p < (size_t)n->x.view.h * n->x.view.w && !why; p++) {
            if (memcmp(n->x.memory + tensor_at(&n->x, r, p, 0), kept.memory + tensor_at(&kept, r, p, 0),
                       n->x.view.c * size_of(n->x.type)) != 0)
                why = "in place it gives other bytes";
        }
    }
    n->out = kept;
    tensor_free(&copy);
    return why;
}

/* offset: how far the values lie from zero, in their own spread: a variance from squares alone would be lost. */
static const char *try_group(dn_cuda_type type, uint32_t h, uint32_t w, uint32_t c, uint32_t groups, uint32_t rows, unsigned fused,
                             float offset)
{
    norm_case n = {
        .group = {.groups = groups, .epsilon = 1e-5f, .activation = (dn_cuda_activation)(fused % 3 == 2 ? fused % 6 : fused % 3)}};
    bool odd = fused % 8 == 7;
    n.x = tensor_make(type, rows, h, w, c, odd);
    n.out = tensor_make(type, rows, h, w, c, odd && fused % 16 == 7);
    tensor_fill(&n.x, offset, 1.0f);
    if (fused & 1u)
        n.row_bias = tensor_input(type, rows, 1, 1, c, fused % 4 == 3);
    if (fused & 2u)
        n.modulation = tensor_input(type, rows, 1, 1, 2 * c, false);
    if (fused % 5 != 0)
        n.weight = draw_floats(c, 1.0f);
    if (fused % 5 < 3)
        n.bias = draw_floats(c, 0.0f);
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t g = 0; g < groups; g++)
            group_reference(&n, r, g);
    }
    trial t = {.type = type, .rows = rows, .run = run_group_norm, .what = &n, .out = {&n.out}};
    t.tolerance = tolerance_of(type) * (type == DN_CUDA_F32 ? 2.0 + fabs((double)offset) : 1.0);
    const char *why = check_trial(&t);
    why = why ? why : in_place_group(&n, &t);
    release(&n);
    return why;
}

/* Height, width, channels, groups. */
static const uint32_t group_shapes[][4] = {
    {1, 1, 5, 5},  {3, 5, 5, 1}, {17, 2, 33, 11}, {8, 8, 64, 32},  {5, 7, 72, 8},   {2, 3, 1152, 32}, {33, 17, 80, 8}, {4, 4, 320, 32},
    {7, 3, 24, 3}, {1, 1, 8, 8}, {6, 6, 130, 13}, {3, 3, 2055, 1}, {2, 2, 2056, 1}, {5, 3, 1542, 3},  {16, 16, 40, 4},
};

static void group_norms_of_every_small_shape(void)
{
    for (size_t s = 0; s < sizeof group_shapes / sizeof group_shapes[0]; s++) {
        for (unsigned f = 0; f < 2; f++) {
            const uint32_t *shape = group_shapes[s];
            unsigned fused = (unsigned)(s * 7 + f * 3 + 1);
            const char *why =
                try_group(f ? DN_CUDA_BF16 : DN_CUDA_F32, shape[0], shape[1], shape[2], shape[3], 2 + s % 2, fused, s % 2 ? 8.0f : 0.5f);
            CHECK_MSG(!why, "%ux%u, %u channels in %u groups, %u: %s", shape[0], shape[1], shape[2], shape[3], fused, why);
        }
    }
}

static void group_norms_in_parts(void)
{
    static const uint32_t shapes[][4] = {{67, 66, 8, 2}, {40, 50, 40, 4}, {24, 24, 160, 32}, {41, 31, 60, 30}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const uint32_t *shape = shapes[s];
        CHECK(dn_cuda_group_norm_scratch(2, shape[0], shape[1], shape[2], shape[3]) > 0);
        const char *why =
            try_group(s % 2 ? DN_CUDA_BF16 : DN_CUDA_F32, shape[0], shape[1], shape[2], shape[3], 2, (unsigned)(5 * s + 2), 8.0f);
        CHECK_MSG(!why, "%ux%u, %u channels in %u groups: %s", shape[0], shape[1], shape[2], shape[3], why);
    }
}

/* As large as an autoencoder's: the parts are as many as there may be, and their size grows. */
static void a_group_norm_of_the_most_parts(void)
{
    CHECK(dn_cuda_group_norm_scratch(1, 512, 512, 128, 32) == 2 * 32 * 128);
    CHECK(dn_cuda_group_norm_scratch(3, 512, 512, 128, 32) == 3 * 2 * 32 * 128);
    CHECK(dn_cuda_group_norm_scratch(64, 8, 8, 1280, 32) == 0);
    norm_case n = {.group = {.groups = 4, .epsilon = 1e-6f, .activation = DN_CUDA_ACT_SILU}};
    n.x = tensor_make(DN_CUDA_F32, 1, 512, 530, 8, false);
    n.out = tensor_make(DN_CUDA_F32, 1, 512, 530, 8, false);
    tensor_fill(&n.x, 3.0f, 1.0f);
    for (uint32_t g = 0; g < 4; g++)
        group_reference(&n, 0, g);
    trial t = {.type = DN_CUDA_F32, .rows = 1, .run = run_group_norm, .what = &n, .out = {&n.out}, .tolerance = 1e-5};
    memset(n.out.memory, 0xFF, n.out.bytes);
    int refused = trial_launch(&t, 0, 1);
    const char *why = check_values(&n.out, t.tolerance);
    release(&n);
    CHECK(refused == DN_CUDA_LAUNCH_OK);
    CHECK_MSG(!why, "%s", why);
}

static void group_norms_that_cannot_be_are_refused(void)
{
    dn_cuda_launch launch = {.type = DN_CUDA_F32, .rows = 1};
    dn_cuda_view view = {.data = &launch, .h = 1, .w = 1, .c = 9, .pitch = 16, .row_pitch = 16};
    dn_cuda_group_norm_options options = {.in = view, .out = view, .groups = 2};
    CHECK(dn_cuda_group_norm(&launch, &options) != DN_CUDA_LAUNCH_OK);
    options.in.h = options.out.h = options.in.w = options.out.w = 600;
    options.groups = 3;
    CHECK(dn_cuda_group_norm(&launch, &options) != DN_CUDA_LAUNCH_OK); /* no scratch */
}

/* ---- Layer norm */
static int run_layer_norm(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    norm_case *n = what;
    dn_cuda_layer_norm_options o = {.weight = n->weight, .bias = n->bias, .epsilon = n->epsilon};
    o.in = view_from(&n->x, first);
    o.out = view_from(&n->out, first);
    o.gate = view_from(&n->gate, first);
    o.residual = view_from(&n->residual, first);
    o.sum = view_from(n->in_place ? &n->residual : &n->sum, first);
    o.shift = view_from(&n->shift, first);
    o.scale = view_from(&n->scale, first);
    return dn_cuda_layer_norm(launch, &o);
}

static void layer_reference(const norm_case *n, uint32_t r, size_t p)
{
    uint32_t c = n->x.view.c;
    const double *x = exact_at(&n->x, r, p);
    double *out = exact_at(&n->out, r, p), mean = 0.0, squares = 0.0;
    for (uint32_t i = 0; i < c; i++) {
        out[i] = n->gate.exact ? exact_at(&n->residual, r, p)[i] + exact_at(&n->gate, r, 0)[i] * x[i] : x[i];
        if (n->gate.exact)
            exact_at(&n->sum, r, p)[i] = out[i];
        mean += out[i] / c;
    }
    for (uint32_t i = 0; i < c; i++)
        squares += (out[i] - mean) * (out[i] - mean);
    double inverse = 1.0 / sqrt(squares / c + (double)n->epsilon);
    for (uint32_t i = 0; i < c; i++) {
        double y = (out[i] - mean) * inverse * (n->weight ? (double)n->weight[i] : 1.0) + (n->bias ? (double)n->bias[i] : 0.0);
        out[i] = y * (n->scale.exact ? 1.0 + exact_at(&n->scale, r, 0)[i] : 1.0) + (n->shift.exact ? exact_at(&n->shift, r, 0)[i] : 0.0);
    }
}

/* The sum where the residual was: both outputs as they were apart. */
static const char *in_place_layer(norm_case *n, const trial *t)
{
    tensor before = tensor_like(&n->out);
    memcpy(before.memory, n->out.memory, n->out.bytes);
    n->in_place = true;
    memset(n->out.memory, 0xFF, n->out.bytes);
    const char *why = trial_launch(t, 0, t->rows) == DN_CUDA_LAUNCH_OK ? NULL : "in place it was refused";
    why = why || !memcmp(before.memory, n->out.memory, n->out.bytes) ? why : "in place it gives other bytes";
    for (uint32_t r = 0; r < t->rows && !why; r++) {
        for (size_t p = 0; p < (size_t)n->x.view.h * n->x.view.w && !why; p++) {
            if (memcmp(n->residual.memory + tensor_at(&n->residual, r, p, 0), n->sum.memory + tensor_at(&n->sum, r, p, 0),
                       n->x.view.c * size_of(n->x.type)) != 0)
                why = "in place the sum has other bytes";
        }
    }
    tensor_free(&before);
    return why;
}

static const char *try_layer(dn_cuda_type type, uint32_t h, uint32_t w, uint32_t c, unsigned fused)
{
    const uint32_t rows = 3;
    norm_case n = {.epsilon = 1e-6f};
    bool odd = fused % 8 == 7;
    n.x = tensor_input(type, rows, h, w, c, odd);
    n.out = tensor_make(type, rows, h, w, c, false);
    if (fused & 1u) {
        n.gate = tensor_input(type, rows, 1, 1, c, fused % 4 == 3);
        n.residual = tensor_input(type, rows, h, w, c, false);
        n.sum = tensor_make(type, rows, h, w, c, false);
    }
    if (fused & 2u) {
        n.weight = draw_floats(c, 1.0f);
        n.bias = draw_floats(c, 0.0f);
    }
    if (fused & 4u) {
        n.shift = tensor_input(type, rows, 1, 1, c, false);
        n.scale = tensor_input(type, rows, 1, 1, c, odd);
    }
    for (uint32_t r = 0; r < rows; r++) {
        for (size_t p = 0; p < (size_t)h * w; p++)
            layer_reference(&n, r, p);
    }
    trial t = {.type = type, .rows = rows, .run = run_layer_norm, .what = &n, .out = {&n.out, n.gate.exact ? &n.sum : NULL}};
    t.tolerance = tolerance_of(type);
    const char *why = check_trial(&t);
    why = why || !n.gate.exact ? why : in_place_layer(&n, &t);
    release(&n);
    return why;
}

static void layer_norms_of_every_width(void)
{
    static const uint32_t widths[] = {3, 5, 8, 33, 72, 256, 257, 384, 768, 1000, 1152, 1536, 1800, 2048, 2049, 2305};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        for (unsigned f = 0; f < 2; f++) {
            unsigned fused = (unsigned)(i * 3 + f * 5);
            const char *why = try_layer(f ? DN_CUDA_BF16 : DN_CUDA_F32, (uint32_t)i % 4 + 1, (uint32_t)i % 3 + 1, widths[i], fused);
            CHECK_MSG(!why, "%u channels, %u: %s", widths[i], fused, why);
        }
    }
}

static void layer_norms_fused_in_every_way(void)
{
    for (unsigned fused = 0; fused < 8; fused++) {
        const char *why = try_layer(fused % 2 ? DN_CUDA_F32 : DN_CUDA_BF16, 3, 11, 72, fused);
        CHECK_MSG(!why, "%u: %s", fused, why);
        why = try_layer(DN_CUDA_BF16, 2, 2, 1152, fused);
        CHECK_MSG(!why, "DiT-XL, %u: %s", fused, why);
    }
}

int main(void)
{
    RUN(group_norms_of_every_small_shape);
    RUN(group_norms_in_parts);
    RUN(a_group_norm_of_the_most_parts);
    RUN(group_norms_that_cannot_be_are_refused);
    RUN(layer_norms_of_every_width);
    RUN(layer_norms_fused_in_every_way);
    return test_end();
}
