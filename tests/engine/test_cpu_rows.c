/* A row's bytes depend on that row alone: not on its company, its place, rows_max, threads, or how values are kept.
 * Also: what the back end refuses, and that an infinity in one row stays in that row. */
#include "tests/engine/cpu_harness.h"

#define ROWS 9

static dn_error error;

/* A transformer's block: modulated norm, gate, patches; then filters. */
static dn_value add_block(dn_plan_builder *b, dn_value in, dn_value embedding)
{
    dn_linear_options modulate = DN_LINEAR_INIT, gated = DN_LINEAR_INIT, patch = DN_LINEAR_INIT;
    modulate.modules = (const char *[]){"modulate"};
    modulate.out_channels = 3 * 48;
    dn_value m = dn_plan_linear(b, embedding, &modulate);
    gated.modules = (const char *[]){"gated"};
    gated.out_channels = 48;
    gated.activation = DN_ACT_GELU_TANH;
    gated.residual = dn_plan_position(b, in, "position", 1.0f);
    gated.gate = m;
    gated.gate_offset = 96;
    dn_value x = dn_plan_linear(b, dn_plan_layer_norm(b, gated.residual, NULL, "layer norm", 1e-6f, m, 0, 48), &gated);
    patch.modules = (const char *[]){"patch"};
    patch.out_channels = 4 * 48;
    x = dn_plan_unpatchify(b, dn_plan_linear(b, x, &patch), "patches", 2);
    return dn_plan_fir2(b, dn_plan_upsample_fir2(b, dn_plan_downsample_fir2(b, x, "halve"), "double"), "down", false, 1, 1);
}

/* A network with nearly every kind of node in it, small enough to run many times and large enough to be cut into tasks. */
static dn_plan *build_plan(void)
{
    dn_plan_builder b;
    dn_plan *plan = NULL;
    if (dn_plan_begin(&b, (dn_shape){18, 15, 3}, &error) != DN_OK)
        return NULL;
    dn_value t = dn_plan_time_embedding(&b, "time", 32, 0.0f, true, 10000.0f);
    t = dn_plan_concat(&b, t, dn_plan_fourier_embedding(&b, "frequencies", "fourier", 16, true, false), "times");
    t = dn_plan_concat(&b, t, dn_plan_class_sinusoid(&b, "class number", 11, 16, 0.0f, true, 10000.0f), "all");
    dn_value label = dn_plan_class_embedding(&b, "class", 11, 48);
    dn_linear_options time = DN_LINEAR_INIT;
    time.modules = (const char *[]){"time_linear"};
    time.out_channels = 48;
    time.residual = label;
    time.activation = DN_ACT_SILU;
    dn_value embedding = dn_plan_linear(&b, t, &time);
    dn_conv_options c = DN_CONV_INIT;
    c.module = "conv_in";
    c.out_channels = 48;
    c.row_bias = embedding;
    dn_value x = dn_plan_conv(&b, dn_plan_affine(&b, b.plan->input, "affine", 2.0f, -1.0f), &c);
    dn_value n = dn_plan_group_norm(&b, x, "norm", NULL, 6, 1e-5f, DN_NONE, DN_ACT_SILU);
    dn_linear_options qkv = DN_LINEAR_INIT;
    qkv.modules = (const char *[]){"q", "k", "v"};
    qkv.module_count = 3;
    qkv.out_channels = 144;
    dn_value a = dn_plan_attention(&b, dn_plan_linear(&b, n, &qkv), "attention", 4);
    a = add_block(&b, a, embedding);
    c.module = "down";
    c.stride = 2;
    c.row_bias = DN_NONE;
    dn_value down = dn_plan_average_pool2(&b, dn_plan_upsample_nearest2(&b, dn_plan_conv(&b, a, &c), "up"), "pool");
    c.module = "out";
    c.stride = 1;
    c.residual = down;
    dn_value y = dn_plan_conv(&b, dn_plan_activation(&b, dn_plan_concat(&b, down, down, "cat"), "gelu", DN_ACT_GELU), &c);
    y = dn_plan_divide_by_time(&b, y, "divided");
    return dn_plan_end(&plan, &b, y, &error) == DN_OK ? plan : NULL;
}

static dn_plan *plan;
static dn_weights *weights;
static float *samples;

/* Each row alone, on one thread, in a workspace of one row: what every other run must repeat. */
static void run_alone(harness *h, float *expected)
{
    dn_workspace *workspace = NULL;
    dn_workspace_options options = {.rows_max = 1, .inline_threads = true};
    CHECK_OK(h->backend->workspace_create(&workspace, h->network, &options, &error), error);
    for (uint32_t r = 0; r < ROWS; r++) {
        dn_row row = harness_row(h, r);
        CHECK_OK(h->backend->run(h->network, workspace, &row, 1, &error), error);
        CHECK(row.finite);
    }
    h->backend->buffer_read(h->out, 0, expected, ROWS * h->out_count, NULL);
    h->backend->workspace_free(workspace);
}

/* `count` rows from `first` on, last one first, in a workspace of rows_max. */
static void check_company(harness *h, const float *expected, uint32_t first, uint32_t count, const dn_workspace_options *options)
{
    dn_workspace *workspace = NULL;
    CHECK_OK(h->backend->workspace_create(&workspace, h->network, options, &error), error);
    dn_row rows[ROWS];
    for (uint32_t i = 0; i < count; i++)
        rows[i] = harness_row(h, (first + count - 1 - i) % ROWS);
    float *got = malloc(ROWS * h->out_count * sizeof *got);
    memset(got, 0xFF, ROWS * h->out_count * sizeof *got);
    h->backend->buffer_write(h->out, 0, got, ROWS * h->out_count, NULL);
    CHECK_OK(h->backend->run(h->network, workspace, rows, count, &error), error);
    h->backend->buffer_read(h->out, 0, got, ROWS * h->out_count, NULL);
    for (uint32_t i = 0; i < count; i++) {
        size_t offset = (first + i) % ROWS * h->out_count;
        CHECK_MSG(memcmp(got + offset, expected + offset, h->out_count * sizeof *got) == 0, "%s: row %u of %u differs",
                  h->backend->device_isa(h->device), (first + i) % ROWS, count);
    }
    free(got);
    h->backend->workspace_free(workspace);
}

static const char *isa;

static void rows_are_alone(void)
{
    float *expected = NULL;
    if (!harness_has(isa))
        SKIP("this CPU has no %s", isa);
    const uint32_t step = (uint32_t)(ROWS / test_rounds(ROWS));
    for (unsigned threads = 1; threads <= (unsigned)test_rounds(3) && !test_failed; threads++) {
        harness h;
        CHECK_MSG(harness_open(&h, isa, threads, plan, weights), "%s on %u threads does not open", isa, threads);
        h.backend->buffer_write(h.in, 0, samples, ROWS * h.in_count, NULL);
        if (!expected) {
            expected = malloc(ROWS * h.out_count * sizeof *expected);
            run_alone(&h, expected);
        }
        for (uint32_t count = 1; count <= ROWS && !test_failed; count += step) {
            dn_workspace_options options = {
                .rows_max = count + count % 3, .keep_values = count % 2, .inline_threads = threads == 3 && count == 5};
            check_company(&h, expected, count * 2, count, &options);
        }
        harness_close(&h);
    }
    free(expected);
}

/* Where nodes are large all threads go through every row together: as many rows as there are, in passes. */
static void rows_that_share_threads_are_alone(void)
{
    dn_plan_builder b;
    dn_plan *large = NULL;
    CHECK_OK(dn_plan_begin(&b, (dn_shape){25, 21, 640}, &error), error);
    dn_linear_options wide = DN_LINEAR_INIT;
    wide.modules = (const char *[]){"wide"};
    wide.out_channels = 1600;
    CHECK_OK(dn_plan_end(&large, &b, dn_plan_linear(&b, b.plan->input, &wide), &error), error);
    CHECK(dn_plan_flops(large) > 1e9);
    dn_weights *drawn = draw_weights(large);
    float *inputs = draw_floats(ROWS * dn_shape_count(large->values[large->input].shape)), *expected = NULL;
    for (unsigned threads = 1; threads <= 3 && !test_failed; threads += 2) {
        harness h;
        CHECK(harness_open(&h, NULL, threads, large, drawn));
        h.backend->buffer_write(h.in, 0, inputs, ROWS * h.in_count, NULL);
        if (!expected) {
            expected = malloc(ROWS * h.out_count * sizeof *expected);
            run_alone(&h, expected);
        } else {
            size_t bytes = h.backend->workspace_bytes(h.network, ROWS, false), row = (h.in_count + h.out_count) * sizeof(float);
            CHECK_MSG(bytes >= 4 * row && bytes < 8 * row, "%zu bytes, and a row takes %zu", bytes, row); /* one region for all threads */
        }
        check_company(&h, expected, 2, ROWS, &(dn_workspace_options){.rows_max = ROWS});
        check_company(&h, expected, 5, 3, &(dn_workspace_options){.rows_max = ROWS});
        harness_close(&h);
    }
    free(expected);
    free(inputs);
    dn_weights_free(drawn);
    dn_plan_free(large);
}

static void nan_stays_in_its_row(void)
{
    harness h;
    CHECK(harness_open(&h, NULL, 2, plan, weights));
    h.backend->buffer_write(h.in, 0, samples, ROWS * h.in_count, NULL);
    dn_workspace *workspace = NULL;
    dn_workspace_options options = {.rows_max = 3};
    CHECK_OK(h.backend->workspace_create(&workspace, h.network, &options, &error), error);
    dn_row rows[3] = {harness_row(&h, 0), harness_row(&h, 1), harness_row(&h, 2)};
    rows[1].in_scale = INFINITY;
    CHECK_OK(h.backend->run(h.network, workspace, rows, 3, &error), error);
    CHECK(rows[0].finite && !rows[1].finite && rows[2].finite);
    h.backend->workspace_free(workspace);
    harness_close(&h);
}

static void update_changes_the_network(void)
{
    harness h;
    CHECK(harness_open(&h, NULL, 1, plan, weights));
    h.backend->buffer_write(h.in, 0, samples, ROWS * h.in_count, NULL);
    dn_workspace *workspace = NULL;
    dn_workspace_options options = {.rows_max = 1};
    CHECK_OK(h.backend->workspace_create(&workspace, h.network, &options, &error), error);
    dn_row row = harness_row(&h, 0);
    float *before = malloc(h.out_count * sizeof *before), *after = malloc(h.out_count * sizeof *after);
    CHECK_OK(h.backend->run(h.network, workspace, &row, 1, &error), error);
    h.backend->buffer_read(h.out, 0, before, h.out_count, NULL);
    dn_weights *others = draw_weights(plan);
    CHECK_OK(h.backend->network_update(h.network, others, &error), error);
    CHECK_OK(h.backend->run(h.network, workspace, &row, 1, &error), error);
    h.backend->buffer_read(h.out, 0, after, h.out_count, NULL);
    CHECK(memcmp(before, after, h.out_count * sizeof *before) != 0);
    CHECK_OK(h.backend->network_update(h.network, weights, &error), error);
    CHECK_OK(h.backend->run(h.network, workspace, &row, 1, &error), error);
    h.backend->buffer_read(h.out, 0, after, h.out_count, NULL);
    CHECK(memcmp(before, after, h.out_count * sizeof *before) == 0);
    dn_weights_free(others);
    free(before);
    free(after);
    h.backend->workspace_free(workspace);
    harness_close(&h);
}

static void refuses_what_it_cannot_do(void)
{
    dn_device *device = NULL;
    dn_device_options odd = {.isa = "avx9000"};
    CHECK(dn_backend_cpu()->device_open(&device, &odd, &error) == DN_INVALID && strstr(error.message, "avx9000"));
    harness h;
    CHECK(harness_open(&h, NULL, 1, plan, weights));
    dn_workspace *workspace = NULL;
    dn_workspace_options none = {0}, one = {.rows_max = 1};
    CHECK(h.backend->workspace_create(&workspace, h.network, &none, &error) == DN_INVALID);
    CHECK_OK(h.backend->workspace_create(&workspace, h.network, &one, &error), error);
    dn_row rows[2] = {harness_row(&h, 0), harness_row(&h, 1)};
    CHECK(h.backend->run(h.network, workspace, rows, 2, &error) == DN_INTERNAL);
    rows[0].condition.classes[0] = 11;
    CHECK(h.backend->run(h.network, workspace, rows, 1, &error) == DN_INVALID && strstr(error.message, "class 11 of 11"));
    rows[0].condition.count = 0;
    CHECK(h.backend->run(h.network, workspace, rows, 1, &error) == DN_INVALID);
    rows[1].out_offset = HARNESS_ROWS_MAX * h.out_count;
    CHECK(h.backend->run(h.network, workspace, rows + 1, 1, &error) == DN_INTERNAL);
    h.backend->workspace_free(workspace);
    harness_close(&h);
}

/* A table of times has no row between two of its rows. */
static void refuses_times_outside_the_table(void)
{
    dn_plan_builder b;
    dn_plan *table = NULL;
    harness h;
    dn_workspace *workspace = NULL;
    dn_workspace_options one = {.rows_max = 1};
    CHECK_OK(dn_plan_begin(&b, (dn_shape){1, 1, 1}, &error), error);
    CHECK_OK(dn_plan_end(&table, &b, dn_plan_time_table(&b, "times", 10, 4), &error), error);
    dn_weights *drawn = draw_weights(table);
    CHECK(harness_open(&h, NULL, 1, table, drawn));
    CHECK_OK(h.backend->workspace_create(&workspace, h.network, &one, &error), error);
    static const float bad[] = {-1.0f, 0.5f, 10.0f, NAN, INFINITY};
    dn_row row = harness_row(&h, 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        row.time = bad[i];
        CHECK(h.backend->run(h.network, workspace, &row, 1, &error) == DN_INVALID && strstr(error.message, "table's 10"));
    }
    row.time = 9.0f;
    float got[4];
    CHECK_OK(h.backend->run(h.network, workspace, &row, 1, &error), error);
    h.backend->buffer_read(h.out, 0, got, 4, NULL);
    CHECK(memcmp(got, drawn->data[0] + 36, sizeof got) == 0);
    h.backend->workspace_free(workspace);
    harness_close(&h);
    dn_weights_free(drawn);
    dn_plan_free(table);
}

/* Reuse must save most of the activations' memory in a deep network. */
static void arena_reuses_memory(void)
{
    harness h;
    CHECK(harness_open(&h, NULL, 1, plan, weights));
    size_t kept = h.backend->workspace_bytes(h.network, 8, true), reused = h.backend->workspace_bytes(h.network, 8, false);
    CHECK_MSG(reused < kept && reused > 0, "%zu of %zu bytes", reused, kept);
    harness_close(&h);
}

int main(void)
{
    plan = build_plan();
    weights = plan ? draw_weights(plan) : NULL;
    samples = plan ? draw_floats(ROWS * dn_shape_count(plan->values[plan->input].shape)) : NULL;
    if (!samples) {
        printf("FAIL build_plan: %s\n", error.message);
        return 1;
    }
    RUN(every_instruction_set_is_compiled);
    for (size_t i = 0; i < HARNESS_ISAS; i++) {
        char label[64];
        isa = harness_isas[i];
        snprintf(label, sizeof label, "rows_are_alone_%s", isa);
        if (harness_kernels(isa))
            test_run(label, rows_are_alone);
    }
    RUN(rows_that_share_threads_are_alone);
    RUN(nan_stays_in_its_row);
    RUN(update_changes_the_network);
    RUN(refuses_what_it_cannot_do);
    RUN(refuses_times_outside_the_table);
    RUN(arena_reuses_memory);
    free(samples);
    dn_weights_free(weights);
    dn_plan_free(plan);
    return test_end();
}
