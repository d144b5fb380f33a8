/* Rows that agree in time and condition share their vectors, and vectors are kept from run to run: none of it shows in a byte.
 * The witness is a workspace that keeps values, in which every row computes its own. */
#include "tests/engine/cpu_harness.h"

#include "backend/cpu/cpu.h"

#define CHANNELS 40
#define TIMES 6
#define CONDITIONS 5
#define KINDS (TIMES * CONDITIONS)
#define ROUNDS 30

static dn_error error;
static dn_plan *plan;
static dn_weights *weights;
static float *sample; /* every row's: what differs between them is time and condition */

static dn_value dense(dn_plan_builder *b, dn_value in, const char *module, uint32_t channels, dn_activation activation, dn_value residual)
{
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = &module;
    o.out_channels = channels;
    o.activation = activation;
    o.residual = residual;
    return dn_plan_linear(b, in, &o);
}

/* Every way in which a node of rows reads a condition's vector: a convolution's bias, both norms' modulation, a gate; and odd widths. */
static dn_plan *build_plan(void)
{
    dn_plan_builder b;
    dn_plan *built = NULL;
    if (dn_plan_begin(&b, (dn_shape){9, 7, 3}, &error) != DN_OK)
        return NULL;
    dn_value wave = dn_plan_time_embedding(&b, "time", 24, 0.0f, true, 10000.0f);
    dn_value label = dn_plan_class_embedding(&b, "class", 7, 36);
    dn_value t = dense(&b, dense(&b, wave, "first", 50, DN_ACT_SILU, DN_NONE), "second", 36, DN_ACT_NONE, label);
    dn_value c = dn_plan_activation(&b, t, "silu", DN_ACT_SILU);
    dn_conv_options in = DN_CONV_INIT;
    in.module = "in";
    in.out_channels = CHANNELS;
    in.row_bias = dense(&b, c, "bias", CHANNELS, DN_ACT_NONE, DN_NONE);
    dn_value x = dn_plan_conv(&b, b.plan->input, &in);
    x = dn_plan_group_norm(&b, x, "norm", NULL, 5, 1e-5f, dense(&b, c, "scale", 2 * CHANNELS, DN_ACT_NONE, DN_NONE), DN_ACT_SILU);
    dn_value m = dense(&b, c, "modulation", 3 * CHANNELS, DN_ACT_NONE, DN_NONE);
    dn_linear_options gated = DN_LINEAR_INIT;
    gated.modules = (const char *[]){"gated"};
    gated.out_channels = CHANNELS;
    gated.residual = x;
    gated.gate = m;
    gated.gate_offset = 2 * CHANNELS;
    x = dn_plan_linear(&b, dn_plan_layer_norm(&b, x, NULL, "layer norm", 1e-6f, m, 0, CHANNELS), &gated);
    in.module = "out";
    in.out_channels = 4;
    in.row_bias = dense(&b, t, "last", 4, DN_ACT_NONE, DN_NONE);
    return dn_plan_end(&built, &b, dn_plan_conv(&b, x, &in), &error) == DN_OK ? built : NULL;
}

/* Row `kind`: one of a few times and conditions, some of which differ in a weight alone or in a number of classes. */
static dn_row row_of(const harness *h, uint32_t kind, uint32_t slot)
{
    static const dn_condition conditions[CONDITIONS] = {
        {1, {2}, {1.0f}}, {1, {6}, {1.0f}}, {2, {2, 6}, {0.5f, 0.5f}}, {2, {2, 6}, {0.5f, 0.25f}}, {1, {2}, {0.5f}}};
    dn_row row = {.in = h->in, .in_scale = 1.0f, .out = h->out, .out_offset = slot * h->out_count};
    row.time = 11.0f * (float)(kind % TIMES) + (kind % TIMES == 5 ? 0.0001f : 0.0f);
    row.condition = conditions[kind / TIMES];
    row.condition.classes[7] = slot; /* past the count: means nothing */
    return row;
}

static dn_workspace *workspace_of(harness *h, dn_workspace_options options)
{
    dn_workspace *workspace = NULL;
    return h->backend->workspace_create(&workspace, h->network, &options, &error) == DN_OK ? workspace : NULL;
}

/* What each kind of row computes alone. */
static float *run_witness(harness *h)
{
    float *expected = malloc(KINDS * h->out_count * sizeof *expected);
    dn_workspace *workspace = workspace_of(h, (dn_workspace_options){.rows_max = 1, .keep_values = true, .inline_threads = true});
    for (uint32_t kind = 0; workspace && kind < KINDS; kind++) {
        dn_row row = row_of(h, kind, 0);
        if (h->backend->run(h->network, workspace, &row, 1, &error) != DN_OK)
            abort();
        h->backend->buffer_read(h->out, 0, expected + kind * h->out_count, h->out_count, NULL);
    }
    h->backend->workspace_free(workspace);
    return expected;
}

/* One run of drawn rows against the witness. */
static void check_mix(harness *h, dn_workspace *workspace, const float *expected, uint32_t rows_max, uint32_t kinds)
{
    dn_row rows[HARNESS_ROWS_MAX];
    uint32_t drawn[HARNESS_ROWS_MAX], count = draw(1, rows_max);
    float *got = malloc(h->out_count * sizeof *got);
    for (uint32_t i = 0; i < count; i++) {
        drawn[i] = draw(0, kinds - 1);
        rows[i] = row_of(h, drawn[i], i);
    }
    CHECK_OK(h->backend->run(h->network, workspace, rows, count, &error), error);
    for (uint32_t i = 0; i < count; i++) {
        h->backend->buffer_read(h->out, i * h->out_count, got, h->out_count, NULL);
        CHECK_MSG(memcmp(got, expected + drawn[i] * h->out_count, h->out_count * sizeof *got) == 0, "%s: row %u of %u, kind %u, differs",
                  h->backend->device_isa(h->device), i, count, drawn[i]);
    }
    free(got);
}

static const char *isa;

static void sharing_shows_nowhere(void)
{
    if (!harness_has(isa))
        SKIP("this CPU has no %s", isa);
    static const size_t bounds[] = {0, 1, 12 * 1024}; /* everything fits; one place a row; some */
    for (unsigned threads = 1; threads <= 2 && !test_failed; threads++) {
        harness h;
        CHECK(harness_open(&h, isa, threads, plan, weights));
        h.backend->buffer_write(h.in, 0, sample, h.in_count, NULL);
        float *expected = run_witness(&h);
        for (size_t b = 0; b < 3 && !test_failed; b++) {
            uint32_t rows_max = b == 1 ? 5 : HARNESS_ROWS_MAX;
            dn_workspace *workspace = workspace_of(&h, (dn_workspace_options){.rows_max = rows_max, .condition_bytes = bounds[b]});
            CHECK(workspace);
            for (uint32_t round = 0; round < (uint32_t)test_rounds(ROUNDS) && !test_failed; round++)
                check_mix(&h, workspace, expected, rows_max, round % 3 == 0 ? 3 : KINDS);
            h.backend->workspace_free(workspace);
        }
        free(expected);
        harness_close(&h);
    }
}

/* Hits and misses of a run of these kinds. */
static void run_kinds(harness *h, dn_workspace *workspace, const uint32_t *kinds, uint32_t count, uint64_t *hits, uint64_t *misses)
{
    dn_row rows[HARNESS_ROWS_MAX];
    uint64_t hits_before, misses_before;
    dn_cpu_condition_counts(workspace, &hits_before, &misses_before);
    for (uint32_t i = 0; i < count; i++)
        rows[i] = row_of(h, kinds[i], i);
    CHECK_OK(h->backend->run(h->network, workspace, rows, count, &error), error);
    dn_cpu_condition_counts(workspace, hits, misses);
    *hits -= hits_before;
    *misses -= misses_before;
}

static void vectors_are_shared_kept_and_give_way(void)
{
    harness h;
    uint64_t hits, misses;
    CHECK(harness_open(&h, NULL, 1, plan, weights));
    dn_workspace *workspace = workspace_of(&h, (dn_workspace_options){.rows_max = 3, .condition_bytes = 1});
    CHECK(workspace);
    run_kinds(&h, workspace, (const uint32_t[]){4, 9, 4}, 3, &hits, &misses);
    CHECK(hits == 1 && misses == 2); /* shared in one run */
    run_kinds(&h, workspace, (const uint32_t[]){9, 1}, 2, &hits, &misses);
    CHECK(hits == 1 && misses == 1); /* kept; now 4, 9 and 1 fill the three places */
    run_kinds(&h, workspace, (const uint32_t[]){20, 4}, 2, &hits, &misses);
    CHECK(hits == 0 && misses == 2); /* 4 was the oldest and gave way to 20; then the oldest is 9 or 1 */
    run_kinds(&h, workspace, (const uint32_t[]){20, 4}, 2, &hits, &misses);
    CHECK(hits == 2 && misses == 0);
    h.backend->workspace_free(workspace);
    workspace = workspace_of(&h, (dn_workspace_options){.rows_max = 3, .keep_values = true});
    CHECK(workspace);
    run_kinds(&h, workspace, (const uint32_t[]){4, 4}, 2, &hits, &misses);
    CHECK(hits == 0 && misses == 0);
    h.backend->workspace_free(workspace);
    harness_close(&h);
}

static void new_weights_leave_no_old_vectors(void)
{
    harness h;
    CHECK(harness_open(&h, NULL, 2, plan, weights));
    h.backend->buffer_write(h.in, 0, sample, h.in_count, NULL);
    dn_workspace *workspace = workspace_of(&h, (dn_workspace_options){.rows_max = 5});
    float *expected = run_witness(&h);
    CHECK(workspace);
    for (int round = 0; round < 6; round++)
        check_mix(&h, workspace, expected, 5, 4);
    free(expected);
    dn_weights *others = draw_weights(plan);
    CHECK_OK(h.backend->network_update(h.network, others, &error), error);
    expected = run_witness(&h);
    for (int round = 0; round < 6; round++)
        check_mix(&h, workspace, expected, 5, 4);
    free(expected);
    dn_weights_free(others);
    h.backend->workspace_free(workspace);
    harness_close(&h);
}

static void memory_is_counted(void)
{
    harness h;
    CHECK(harness_open(&h, NULL, 1, plan, weights));
    size_t four = h.backend->workspace_bytes(h.network, 4, false), kept = 4 * (4 + 2 * CHANNELS + CHANNELS + 3 * CHANNELS);
    CHECK_MSG(four >= 1024 * kept, "%zu bytes, and 1024 conditions take %zu", four, 1024 * kept);
    harness_close(&h);
}

int main(void)
{
    plan = build_plan();
    weights = plan ? draw_weights(plan) : NULL;
    sample = plan ? draw_floats(dn_shape_count(plan->values[plan->input].shape)) : NULL;
    if (!sample) {
        printf("FAIL build_plan: %s\n", error.message);
        return 1;
    }
    RUN(every_instruction_set_is_compiled);
    for (size_t i = 0; i < HARNESS_ISAS; i++) {
        char label[64];
        isa = harness_isas[i];
        snprintf(label, sizeof label, "sharing_shows_nowhere_%s", isa);
        if (harness_kernels(isa))
            test_run(label, sharing_shows_nowhere);
    }
    RUN(vectors_are_shared_kept_and_give_way);
    RUN(new_weights_leave_no_old_vectors);
    RUN(memory_is_counted);
    free(sample);
    dn_weights_free(weights);
    dn_plan_free(plan);
    return test_end();
}
