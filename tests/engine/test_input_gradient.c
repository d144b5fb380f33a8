/* The gradient by a network's input: against central differences of the reference in double, alone and in company, on one
 * thread and on several; and that what is not finite is said. */
#include "tests/engine/cpu_harness.h"

#include "backend/cpu/reference.h"
#include "train/input_gradient.h"

#define ROWS 5
#define PROBES 40

static dn_error error;
static dn_plan *plan;
static dn_weights *weights;
static float *samples, *pulls;

/* A small network with a time, a class, a norm, a filter and attention. */
static dn_plan *build_plan(void)
{
    static const char *const qkv[] = {"q", "k", "v"}, *const enter[] = {"enter"}, *const leave[] = {"leave"};
    dn_plan_builder b;
    dn_plan *out = NULL;
    if (dn_plan_begin(&b, (dn_shape){6, 4, 3}, &error) != DN_OK)
        return NULL;
    dn_linear_options in = DN_LINEAR_INIT, stacked = DN_LINEAR_INIT, last = DN_LINEAR_INIT;
    dn_value time = dn_plan_time_embedding(&b, "time", 24, 0.0f, true, 10000.0f);
    dn_value both = dn_plan_concat(&b, time, dn_plan_class_embedding(&b, "class", 11, 24), "both");
    in.modules = enter;
    in.out_channels = 24;
    in.activation = DN_ACT_SILU;
    dn_value x = dn_plan_linear(&b, b.plan->input, &in);
    stacked.modules = qkv;
    stacked.module_count = 3;
    stacked.out_channels = 72;
    dn_value n = dn_plan_layer_norm(&b, x, NULL, "norm", 1e-6f, both, 0, 24);
    dn_value a = dn_plan_attention(&b, dn_plan_linear(&b, n, &stacked), "attention", 2);
    last.modules = leave;
    last.out_channels = 24;
    last.residual = x;
    last.gate = both;
    last.gate_offset = 12;
    x = dn_plan_upsample_fir2(&b, dn_plan_downsample_fir2(&b, dn_plan_linear(&b, a, &last), "down"), "up");
    return dn_plan_end(&out, &b, x, &error) == DN_OK ? out : NULL;
}

static void given_pull(void *payload, uint32_t row, const float *output, float *pull, size_t count)
{
    (void)output;
    const uint32_t *first = payload;
    memcpy(pull, pulls + (*first + row) * count, count * sizeof *pull);
}

/* Gradients of rows first .. first + count - 1 into `got`, whose other rows stay. */
static void run_rows(harness *h, dn_pool *pool, uint32_t first, uint32_t count, float *got)
{
    dn_input_gradient *gradient = NULL;
    dn_input_gradient_options options = {h->backend, h->device, h->network, plan, weights, pool};
    CHECK_OK(dn_input_gradient_create(&gradient, &options, &error), error);
    dn_row rows[ROWS];
    dn_buffer *out = NULL;
    CHECK_OK(h->backend->buffer_create(&out, h->device, ROWS * h->in_count, &error), error);
    for (uint32_t r = 0; r < count; r++) {
        rows[r] = harness_row(h, first + r);
        rows[r].out = out;
        rows[r].out_offset = (first + r) * h->in_count;
    }
    CHECK_OK(dn_input_gradient_run(gradient, rows, count, given_pull, &first, &error), error);
    for (uint32_t r = 0; r < count; r++)
        CHECK(rows[r].finite);
    h->backend->buffer_read(out, first * h->in_count, got + first * h->in_count, count * h->in_count, NULL);
    h->backend->buffer_free(out);
    dn_input_gradient_free(gradient);
}

/* pull . network(nhwc) of one row by the reference. */
static double pulled(double *const *wide, const double *nhwc, const dn_row *row, const float *pull, double **table)
{
    dn_reference_row given = {.time = (double)row->time, .condition = row->condition};
    if (dn_reference_run_f64(plan, (const double *const *)wide, nhwc, &given, 1, table, &error) != DN_OK)
        return NAN;
    dn_shape s = plan->values[plan->output].shape;
    size_t pixels = (size_t)s.h * s.w;
    double sum = 0.0;
    for (size_t i = 0; i < pixels * s.c; i++)
        sum += (double)pull[i % s.c * pixels + i / s.c] * table[plan->output][i];
    return sum;
}

/* The worst of some elements' differences, relative to the row's largest gradient; got: the row's, in a lane's order. */
static double worst_of_row(const harness *h, uint32_t r, double *const *wide, const float *got)
{
    double **table = NULL, worst = 0.0, largest = 1e-3, *nhwc = malloc(h->in_count * sizeof *nhwc);
    dn_row row = harness_row(h, r);
    dn_shape s = plan->values[plan->input].shape;
    size_t pixels = (size_t)s.h * s.w;
    if (dn_reference_table_f64(&table, plan, 1, NULL) != DN_OK)
        worst = NAN;
    for (size_t i = 0; i < h->in_count; i++) {
        nhwc[i] = (double)(row.in_scale * samples[r * h->in_count + i % s.c * pixels + i / s.c]);
        largest = fmax(largest, fabs((double)got[i]));
    }
    for (size_t i = 0; i < h->in_count && table; i += h->in_count / PROBES + 1) {
        double kept = nhwc[i], step = 1e-5;
        nhwc[i] = kept + step;
        double up = pulled(wide, nhwc, &row, pulls + r * h->out_count, table);
        nhwc[i] = kept - step;
        double down = pulled(wide, nhwc, &row, pulls + r * h->out_count, table);
        nhwc[i] = kept;
        double gap = fabs((up - down) / (2 * step) - (double)got[i % s.c * pixels + i / s.c]) / largest;
        worst = gap <= worst ? worst : gap;
    }
    free(table);
    free(nhwc);
    return worst;
}

static void matches_differences(void)
{
    double **wide = calloc(weights->count + 1, sizeof *wide);
    for (uint32_t w = 0; w < weights->count; w++) {
        wide[w] = malloc(plan->weights[w].count * sizeof **wide);
        for (uint64_t i = 0; i < plan->weights[w].count; i++)
            wide[w][i] = (double)weights->data[w][i];
    }
    for (size_t k = 0; k < HARNESS_ISAS && !test_failed; k++) {
        harness h;
        if (!harness_has(harness_isas[k]))
            continue;
        CHECK(harness_open(&h, harness_isas[k], 1, plan, weights));
        h.backend->buffer_write(h.in, 0, samples, ROWS * h.in_count, NULL);
        float *got = calloc(ROWS * h.in_count, sizeof *got);
        run_rows(&h, NULL, 0, ROWS, got);
        for (uint32_t r = 0; r < ROWS && !test_failed; r++) {
            double worst = worst_of_row(&h, r, wide, got + r * h.in_count);
            CHECK_MSG(worst < 2e-5, "%s row %u: off by %g", harness_isas[k], r, worst);
        }
        free(got);
        harness_close(&h);
    }
    for (uint32_t w = 0; w < weights->count; w++)
        free(wide[w]);
    free(wide);
}

static void rows_are_alone(void)
{
    harness h;
    dn_pool *pool = NULL;
    CHECK(harness_open(&h, NULL, 2, plan, weights));
    CHECK_OK(dn_pool_create(&pool, 3, &error), error);
    h.backend->buffer_write(h.in, 0, samples, ROWS * h.in_count, NULL);
    float *alone = calloc(ROWS * h.in_count, sizeof *alone), *together = calloc(ROWS * h.in_count, sizeof *together);
    for (uint32_t r = 0; r < ROWS && !test_failed; r++)
        run_rows(&h, NULL, r, 1, alone);
    run_rows(&h, pool, 0, ROWS, together);
    CHECK(memcmp(alone, together, ROWS * h.in_count * sizeof *alone) == 0);
    free(alone);
    free(together);
    dn_pool_free(pool);
    harness_close(&h);
}

/* A row may ask for its gradient in place of its sample; a row of infinities is told apart from its neighbour. */
static void tells_what_is_not_finite(void)
{
    harness h;
    dn_input_gradient *gradient = NULL;
    uint32_t first = 0;
    CHECK(harness_open(&h, NULL, 1, plan, weights));
    h.backend->buffer_write(h.in, 0, samples, ROWS * h.in_count, NULL);
    dn_input_gradient_options options = {h.backend, h.device, h.network, plan, weights, NULL};
    CHECK_OK(dn_input_gradient_create(&gradient, &options, &error), error);
    dn_row rows[2] = {harness_row(&h, 0), harness_row(&h, 1)};
    rows[0].in_scale = INFINITY;
    for (int i = 0; i < 2; i++) {
        rows[i].out = h.in;
        rows[i].out_offset = rows[i].in_offset;
    }
    CHECK_OK(dn_input_gradient_run(gradient, rows, 2, given_pull, &first, &error), error);
    CHECK(!rows[0].finite && rows[1].finite);
    rows[0].condition.classes[0] = 11;
    CHECK(dn_input_gradient_run(gradient, rows, 2, given_pull, &first, &error) == DN_INVALID && strstr(error.message, "class 11"));
    dn_input_gradient_free(gradient);
    harness_close(&h);
}

int main(void)
{
    plan = build_plan();
    weights = plan ? draw_weights(plan) : NULL;
    if (!weights) {
        printf("FAIL build_plan: %s\n", error.message);
        return 1;
    }
    samples = draw_floats(ROWS * dn_shape_count(plan->values[plan->input].shape));
    pulls = draw_floats(ROWS * dn_shape_count(plan->values[plan->output].shape));
    RUN(matches_differences);
    RUN(rows_are_alone);
    RUN(tells_what_is_not_finite);
    free(samples);
    free(pulls);
    dn_weights_free(weights);
    dn_plan_free(plan);
    return test_end();
}
