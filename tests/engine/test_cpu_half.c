/* Products in 16 bits, in every precision that this CPU gains by: near the reference in double but not in float, the same bytes for a
 * row in any company, NaN and infinity kept, the layers that the table of shapes names and no others; and what is refused. */
#include "tests/engine/node_check.h"

#include "backend/cpu/half.h"

#define FP32_ERROR_MAX 1e-5 /* a product that is nearer than this to double was not made in 16 bits */
#define ROW_LAW_ROWS 7

/* Largest errors relative to the largest element that two products in a row may have; RMS errors of one are a third of it. */
static double tolerance_of(dn_precision precision)
{
    return precision == DN_PRECISION_BF16 ? 1e-2 : 5e-3;
}

/* The precisions to be tried here, in order from `precision`; DN_PRECISIONS: no more. */
static dn_precision next_precision(dn_precision precision)
{
    const dn_backend *backend = dn_backend_cpu();
    dn_device *device = NULL;
    if (!harness_has("avx512") || backend->device_open(&device, &(dn_device_options){.threads = 1, .isa = "avx512"}, &error) != DN_OK)
        return DN_PRECISIONS;
    while (precision < DN_PRECISIONS && (precision == DN_PRECISION_FP32 || backend->precision_check(device, precision, &error) != DN_OK))
        precision++;
    backend->device_close(device);
    return precision;
}

#define SKIP_WITHOUT_PRECISIONS()                                                                                                          \
    if (next_precision(DN_PRECISION_FP32) == DN_PRECISIONS)                                                                                \
    SKIP("this CPU gains by no 16-bit precision")

static dn_value linear(dn_plan_builder *b, dn_value in, const char *module, uint32_t columns, dn_linear_options options)
{
    options.modules = &module;
    options.out_channels = columns;
    return dn_plan_linear(b, in, &options);
}

/* Bias, residual, activation, scale; columns of one, two and three panels of any kind. */
static dn_value build_residual(dn_plan_builder *b, dn_value in)
{
    const uint32_t columns = 64 * draw(2, 5);
    dn_linear_options o = DN_LINEAR_INIT;
    o.no_bias = draw(0, 1) == 0;
    dn_value first = linear(b, in, "first", columns, o);
    o.activation = (dn_activation)draw(0, 5);
    o.no_bias = draw(0, 1) == 0;
    o.residual = draw(0, 1) ? first : DN_NONE;
    o.scale = draw(0, 1) ? 1.0f : 0.70710678f;
    return linear(b, first, "second", columns, o);
}

static dn_value build_gated(dn_plan_builder *b, dn_value in)
{
    const uint32_t columns = 64 * draw(2, 4);
    dn_linear_options o = DN_LINEAR_INIT;
    dn_value first = linear(b, in, "first", columns, o);
    o.residual = first;
    o.gate = dn_plan_class_embedding(b, "class", 11, 2 * columns + 16);
    o.gate_offset = 16;
    o.activation = draw(0, 1) ? DN_ACT_GELU_TANH : DN_ACT_NONE;
    return linear(b, first, "second", columns, o);
}

static dn_value build_pointwise(dn_plan_builder *b, dn_value in)
{
    dn_conv_options o = DN_CONV_INIT;
    o.kernel = 1;
    o.pad_top = o.pad_left = o.pad_bottom = o.pad_right = 0;
    o.module = "first";
    o.out_channels = 64 * draw(2, 5);
    o.row_bias = draw(0, 1) ? dn_plan_class_embedding(b, "class", 11, o.out_channels) : DN_NONE;
    dn_value first = dn_plan_conv(b, in, &o);
    o.module = "second";
    o.residual = first;
    o.row_bias = DN_NONE;
    o.scale = 0.5f;
    return dn_plan_conv(b, first, &o);
}

static dn_plan *plan_of(build_function *build, dn_shape shape)
{
    dn_plan_builder b;
    dn_plan *plan = NULL;
    if (dn_plan_begin(&b, shape, &error) != DN_OK)
        return NULL;
    dn_value out = build(&b, b.plan->input);
    return dn_plan_end(&plan, &b, out, &error) == DN_OK ? plan : NULL;
}

/* Odd depths and odd numbers of pixels; poisoned workspaces. */
static void check_near_double(build_function *build)
{
    SKIP_WITHOUT_PRECISIONS();
    for (dn_precision p = next_precision(DN_PRECISION_FP32); p < DN_PRECISIONS; p = next_precision(p + 1)) {
        for (int round = 0; round < ROUNDS; round++) {
            const dn_shape shape = {draw(4, 11), draw(4, 11), draw(64, 333)};
            const char *where = "";
            dn_plan *plan = plan_of(build, shape);
            CHECK_MSG(plan, "%s", error.message);
            dn_weights *weights = draw_weights(plan);
            harness_precision = p;
            double worst = check_plan(plan, weights, "avx512", 1 + (unsigned)round % 3, &where);
            harness_precision = DN_PRECISION_FP32;
            dn_weights_free(weights);
            dn_plan_free(plan);
            CHECK_MSG(worst <= tolerance_of(p), "%s, %ux%ux%u, %s: error %g over %g %s", dn_precision_name(p), shape.h, shape.w, shape.c,
                      where, worst, tolerance_of(p), error.message);
            CHECK_MSG(worst > FP32_ERROR_MAX, "%s, %ux%ux%u: error %g: this was computed in float", dn_precision_name(p), shape.h, shape.w,
                      shape.c, worst);
        }
    }
}

static void linear_matches(void)
{
    check_near_double(build_residual);
}

static void gated_linear_matches(void)
{
    check_near_double(build_gated);
}

static void pointwise_convolution_matches(void)
{
    check_near_double(build_pointwise);
}

/* ---- One product's relative RMS error, at DiT's depths. */

static dn_value build_one(dn_plan_builder *b, dn_value in)
{
    return linear(b, in, "one", 128, (dn_linear_options)DN_LINEAR_INIT);
}

static double rms_error(dn_precision precision, uint32_t depth)
{
    dn_plan *plan = plan_of(build_one, (dn_shape){5, 7, depth});
    dn_weights *weights = plan ? draw_weights(plan) : NULL;
    dn_workspace *workspace = NULL;
    harness h;
    double error_squares = NAN, squares = 0.0;
    harness_precision = precision;
    if (!weights || !harness_open(&h, "avx512", 1, plan, weights))
        return NAN;
    harness_precision = DN_PRECISION_FP32;
    float *samples = draw_floats(h.in_count), *out = malloc(h.out_count * sizeof *out);
    dn_row row = harness_row(&h, 0);
    h.backend->buffer_write(h.in, 0, samples, h.in_count, &error);
    if (h.backend->workspace_create(&workspace, h.network, &(dn_workspace_options){.rows_max = 1}, &error) == DN_OK &&
        h.backend->run(h.network, workspace, &row, 1, &error) == DN_OK &&
        h.backend->buffer_read(h.out, 0, out, h.out_count, &error) == DN_OK)
        error_squares = 0.0;
    for (size_t o = 0; o < h.out_count; o++) {
        const size_t pixel = o % 35, column = o / 35;
        double expected = (double)weights->data[plan->nodes[0].bias][column];
        for (size_t k = 0; k < depth; k++)
            expected += (double)samples[k * 35 + pixel] * (double)weights->data[plan->nodes[0].weight][column * depth + k];
        error_squares += ((double)out[o] - expected) * ((double)out[o] - expected);
        squares += expected * expected;
    }
    free(samples);
    free(out);
    h.backend->workspace_free(workspace);
    harness_close(&h);
    dn_weights_free(weights);
    dn_plan_free(plan);
    return sqrt(error_squares / squares);
}

static void products_have_small_errors(void)
{
    static const uint32_t depths[] = {64, 384, 1152, 4608};
    SKIP_WITHOUT_PRECISIONS();
    for (dn_precision p = next_precision(DN_PRECISION_FP32); p < DN_PRECISIONS; p = next_precision(p + 1)) {
        for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++) {
            double off = rms_error(p, depths[i]);
            CHECK_MSG(off <= 4e-3 && off > FP32_ERROR_MAX, "%s, depth %u: relative RMS error %g", dn_precision_name(p), depths[i], off);
        }
    }
}

/* ---- Floats whose pixels lie 4 KB apart are copied first, and nothing else is different. */

static dn_value build_wide(dn_plan_builder *b, dn_value in)
{
    dn_linear_options o = DN_LINEAR_INIT;
    dn_value first = linear(b, in, "first", 1024, o);
    o.residual = first;
    o.gate = dn_plan_class_embedding(b, "class", 11, 1024);
    return linear(b, linear(b, first, "second", 2048, (dn_linear_options)DN_LINEAR_INIT), "third", 1024, o);
}

static void colliding_rows_match(void)
{
    dn_plan *plan = plan_of(build_wide, (dn_shape){5, 7, 1024});
    CHECK(plan && dn_cpu_rows_collide(&(dn_cpu_kernels){.tile_rows = 14}, plan, &plan->nodes[0]));
    CHECK(!dn_cpu_rows_collide(&(dn_cpu_kernels){.tile_rows = 6}, plan, &plan->nodes[0]));
    dn_plan_free(plan);
    check_kind_rounds(build_wide, (dn_shape){4, 4, 1024}, (dn_shape){7, 6, 1024}, 2e-6, 3);
}

/* ---- A row alone, and in company. */

static dn_value build_chain(dn_plan_builder *b, dn_value in)
{
    dn_linear_options o = DN_LINEAR_INIT;
    dn_value x = linear(b, in, "in", 128, o);
    o.residual = x;
    o.gate = dn_plan_class_embedding(b, "class", 11, 128);
    x = linear(b, x, "gated", 128, o);
    o = (dn_linear_options)DN_LINEAR_INIT;
    o.activation = DN_ACT_GELU_TANH;
    return linear(b, x, "wide", 384, o);
}

typedef struct company {
    uint32_t rows_max, count;
    unsigned threads;
    bool keep_values, reversed;
} company;

/* The output of every row, computed in such company; NULL when something failed. */
static float *run_company(const dn_plan *plan, const dn_weights *weights, const float *samples, const company *c)
{
    harness h;
    dn_workspace *workspace = NULL;
    dn_workspace_options options = {.rows_max = c->rows_max, .keep_values = c->keep_values};
    float *out = NULL;
    if (harness_open(&h, "avx512", c->threads, plan, weights) &&
        h.backend->workspace_create(&workspace, h.network, &options, &error) == DN_OK) {
        dn_status status = h.backend->buffer_write(h.in, 0, samples, h.in_count * ROW_LAW_ROWS, &error);
        for (uint32_t first = 0; first < ROW_LAW_ROWS && status == DN_OK; first += c->count) {
            dn_row rows[ROW_LAW_ROWS];
            uint32_t count = ROW_LAW_ROWS - first < c->count ? ROW_LAW_ROWS - first : c->count;
            for (uint32_t r = 0; r < count; r++)
                rows[r] = harness_row(&h, c->reversed ? first + count - 1 - r : first + r);
            status = h.backend->run(h.network, workspace, rows, count, &error);
        }
        out = malloc(h.out_count * ROW_LAW_ROWS * sizeof *out);
        if (out && (status != DN_OK || h.backend->buffer_read(h.out, 0, out, h.out_count * ROW_LAW_ROWS, &error) != DN_OK)) {
            free(out);
            out = NULL;
        }
    }
    h.backend->workspace_free(workspace);
    harness_close(&h);
    return out;
}

static void a_row_has_the_same_bytes_in_any_company(void)
{
    static const company companies[] = {{1, 1, 1, false, false}, {7, 7, 1, false, false}, {7, 7, 2, false, true}, {5, 5, 3, false, false},
                                        {7, 3, 2, false, true},  {1, 1, 3, false, false}, {7, 7, 2, true, false}};
    SKIP_WITHOUT_PRECISIONS();
    for (dn_precision p = next_precision(DN_PRECISION_FP32); p < DN_PRECISIONS; p = next_precision(p + 1)) {
        dn_plan *plan = plan_of(build_chain, (dn_shape){17, 13, 99});
        dn_weights *weights = draw_weights(plan);
        size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
        float *samples = draw_floats(in * ROW_LAW_ROWS), *alone = NULL;
        harness_precision = p;
        for (size_t i = 0; i < sizeof companies / sizeof companies[0]; i++) {
            float *got = run_company(plan, weights, samples, &companies[i]);
            bool same = got && (!alone || memcmp(alone, got, out * ROW_LAW_ROWS * sizeof *got) == 0);
            if (!alone)
                alone = got;
            else
                free(got);
            if (!same)
                harness_precision = DN_PRECISION_FP32;
            CHECK_MSG(same, "%s, company %zu: %s", dn_precision_name(p), i, got ? "other bytes" : error.message);
        }
        harness_precision = DN_PRECISION_FP32;
        free(alone);
        free(samples);
        dn_weights_free(weights);
        dn_plan_free(plan);
    }
}

/* ---- A number that is none stays one; large and small ones do not become so. */

static bool finite_with(const harness *h, dn_workspace *workspace, float factor, float planted)
{
    float *samples = draw_floats(h->in_count);
    dn_row row = harness_row(h, 0);
    for (size_t i = 0; i < h->in_count; i++)
        samples[i] *= factor;
    samples[h->in_count / 2] = planted;
    h->backend->buffer_write(h->in, 0, samples, h->in_count, &error);
    free(samples);
    return h->backend->run(h->network, workspace, &row, 1, &error) == DN_OK && row.finite;
}

static void only_what_is_not_finite_is_reported_so(void)
{
    static const float fine[] = {0.0f, 1.0f, 65504.0f, 1e6f, 1e20f, 1e-20f, 1e-40f};
    SKIP_WITHOUT_PRECISIONS();
    for (dn_precision p = next_precision(DN_PRECISION_FP32); p < DN_PRECISIONS; p = next_precision(p + 1)) {
        dn_plan *plan = plan_of(build_one, (dn_shape){4, 5, 100});
        dn_weights *weights = draw_weights(plan);
        dn_workspace *workspace = NULL;
        harness h;
        harness_precision = p;
        bool open = harness_open(&h, "avx512", 1, plan, weights);
        harness_precision = DN_PRECISION_FP32;
        CHECK(open && h.backend->workspace_create(&workspace, h.network, &(dn_workspace_options){.rows_max = 1}, &error) == DN_OK);
        for (size_t i = 0; i < sizeof fine / sizeof fine[0]; i++) {
            CHECK_MSG(finite_with(&h, workspace, fine[i], 0.0f), "%s: samples of %g", dn_precision_name(p), (double)fine[i]);
            CHECK_MSG(finite_with(&h, workspace, 1.0f, fine[i]), "%s: one sample of %g", dn_precision_name(p), (double)fine[i]);
        }
        CHECK_MSG(!finite_with(&h, workspace, 1.0f, NAN), "%s: NaN", dn_precision_name(p));
        CHECK_MSG(!finite_with(&h, workspace, 1.0f, INFINITY), "%s: infinity", dn_precision_name(p));
        CHECK_MSG(!finite_with(&h, workspace, 1.0f, -INFINITY), "%s: minus infinity", dn_precision_name(p));
        h.backend->workspace_free(workspace);
        harness_close(&h);
        dn_weights_free(weights);
        dn_plan_free(plan);
    }
}

/* ---- The table of shapes. */

static bool fits(uint32_t kernel, uint32_t stride, uint32_t side, uint32_t in, uint32_t out)
{
    dn_plan_builder b;
    dn_plan *plan = NULL;
    dn_value last;
    if (dn_plan_begin(&b, (dn_shape){side, side, in}, &error) != DN_OK)
        return false;
    if (kernel == 0) {
        last = linear(&b, b.plan->input, "linear", out, (dn_linear_options)DN_LINEAR_INIT);
    } else {
        dn_conv_options o = DN_CONV_INIT;
        o.module = "conv";
        o.kernel = kernel;
        o.stride = stride;
        o.out_channels = out;
        o.pad_top = o.pad_left = o.pad_bottom = o.pad_right = kernel / 2;
        last = dn_plan_conv(&b, b.plan->input, &o);
    }
    if (dn_plan_end(&plan, &b, last, &error) != DN_OK)
        return false;
    bool answer = dn_cpu_half_fits(plan, &plan->nodes[0]);
    dn_plan_free(plan);
    return answer;
}

static void the_table_of_shapes_is_kept(void)
{
    CHECK(fits(0, 1, 16, 384, 1152) && fits(0, 1, 4, 64, 128) && fits(1, 1, 8, 256, 192));
    CHECK(!fits(0, 1, 1, 1152, 6912)); /* a vector */
    CHECK(!fits(0, 1, 3, 384, 384) && !fits(0, 1, 16, 63, 384) && !fits(0, 1, 16, 384, 64) && !fits(0, 1, 16, 384, 160));
    CHECK(!fits(3, 1, 16, 128, 128) && !fits(1, 2, 16, 128, 128));
}

/* ---- Refusals. */

static void what_the_cpu_lacks_is_refused(void)
{
    static const char *const below[] = {"sse2", "avx2", "neon", "generic"};
    const dn_backend *backend = dn_backend_cpu();
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++) {
        dn_device *device = NULL;
        if (!harness_has(below[i]))
            continue;
        CHECK_OK(backend->device_open(&device, &(dn_device_options){.threads = 1, .isa = below[i]}, &error), error);
        dn_status bf16 = backend->precision_check(device, DN_PRECISION_BF16, &error);
        bool told = strstr(error.message, "AVX512_BF16") && strstr(error.message, below[i]) && strstr(error.message, "--precision fp32");
        dn_status fp16 = backend->precision_check(device, DN_PRECISION_FP16, &error);
        dn_status fp32 = backend->precision_check(device, DN_PRECISION_FP32, &error);
        backend->device_close(device);
        CHECK_MSG(bf16 == DN_UNSUPPORTED && fp16 == DN_UNSUPPORTED && fp32 == DN_OK && told, "%s", below[i]);
    }
}

static void names_are_read_strictly(void)
{
    dn_precision precision = DN_PRECISION_BF16;
    CHECK(dn_precision_parse(&precision, NULL, &error) == DN_OK && precision == DN_PRECISION_AUTO);
    for (int i = 0; i < DN_PRECISIONS; i++)
        CHECK(dn_precision_parse(&precision, dn_precision_name((dn_precision)i), &error) == DN_OK && precision == (dn_precision)i);
    CHECK(dn_precision_parse(&precision, "FP16", &error) == DN_INVALID && strstr(error.message, "fp32, fp16, bf16"));
    CHECK(dn_precision_parse(&precision, "bf16 ", &error) == DN_INVALID);
}

int main(void)
{
    RUN(linear_matches);
    RUN(gated_linear_matches);
    RUN(pointwise_convolution_matches);
    RUN(products_have_small_errors);
    RUN(colliding_rows_match);
    RUN(a_row_has_the_same_bytes_in_any_company);
    RUN(only_what_is_not_finite_is_reported_so);
    RUN(the_table_of_shapes_is_kept);
    RUN(what_the_cpu_lacks_is_refused);
    RUN(names_are_read_strictly);
    return test_end();
}
