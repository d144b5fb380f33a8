/* Plans on random odd shapes, under every instruction set, against the plain reference in double.
 *
 * Before each run the workspace and the output are poisoned: a run whose rows are all NaN fills every value with NaN, so
 * a kernel that reads what it did not write, or leaves an element unwritten, gives NaN. Single-threaded callers. */
#ifndef DN_TESTS_NODE_CHECK_H
#define DN_TESTS_NODE_CHECK_H

#include "tests/engine/cpu_harness.h"

#include "backend/cpu/reference.h"

#define ROUNDS 12
#define ROWS 3
#define FLOAT_REFERENCE_ERROR_MAX 1e-5

typedef dn_value build_function(dn_plan_builder *builder, dn_value in);

static double *widen(const float *x, size_t count)
{
    double *wide = malloc((count ? count : 1) * sizeof *wide);
    for (size_t i = 0; wide && i < count; i++)
        wide[i] = (double)x[i];
    return wide;
}

/* The reference's values for the harness's rows. */
static double **reference_of(const harness *h, const dn_weights *weights, const float *samples)
{
    dn_shape s = h->plan->values[h->plan->input].shape;
    size_t pixels = (size_t)s.h * s.w;
    double **wide = calloc(weights->count + 1, sizeof *wide), **table = NULL;
    double *nhwc = malloc(h->in_count * ROWS * sizeof *nhwc);
    dn_reference_row rows[ROWS];
    for (uint32_t w = 0; w < weights->count; w++)
        wide[w] = widen(weights->data[w], h->plan->weights[w].count);
    for (uint32_t r = 0; r < ROWS; r++) {
        dn_row row = harness_row(h, r);
        rows[r] = (dn_reference_row){.time = (double)row.time, .condition = row.condition};
        for (size_t c = 0; c < s.c; c++) {
            for (size_t p = 0; p < pixels; p++)
                nhwc[r * h->in_count + p * s.c + c] = (double)(row.in_scale * samples[r * h->in_count + c * pixels + p]);
        }
    }
    if (dn_reference_table_f64(&table, h->plan, ROWS, NULL) == DN_OK)
        dn_reference_run_f64(h->plan, (const double *const *)wide, nhwc, rows, ROWS, table, NULL);
    for (uint32_t w = 0; w < weights->count; w++)
        free(wide[w]);
    free(wide);
    free(nhwc);
    return table;
}

/* The reference in float against the one in double, relative to each value's largest element; NaN when it does not run. */
static double float_reference_error(const harness *h, const dn_weights *weights, double *const *table)
{
    float **narrow = NULL, *nhwc = malloc(h->in_count * ROWS * sizeof *nhwc);
    dn_reference_row rows[ROWS];
    double worst = NAN;
    for (uint32_t r = 0; r < ROWS; r++) {
        dn_row row = harness_row(h, r);
        rows[r] = (dn_reference_row){.time = (double)row.time, .condition = row.condition};
    }
    for (size_t i = 0; i < h->in_count * ROWS; i++)
        nhwc[i] = (float)table[h->plan->input][i];
    if (dn_reference_table_f32(&narrow, h->plan, ROWS, NULL) == DN_OK &&
        dn_reference_run_f32(h->plan, (const float *const *)weights->data, nhwc, rows, ROWS, narrow, NULL) == DN_OK)
        worst = 0.0;
    for (dn_value v = 0; v < h->plan->value_count && !isnan(worst); v++) {
        size_t count = dn_shape_count(h->plan->values[v].shape) * ROWS;
        double largest = 1e-3, difference = 0.0;
        for (size_t i = 0; i < count; i++) {
            largest = fmax(largest, fabs(table[v][i]));
            difference = fmax(difference, fabs((double)narrow[v][i] - table[v][i]));
        }
        worst = fmax(worst, difference / largest);
    }
    free(narrow);
    free(nhwc);
    return worst;
}

/* Runs the rows poisoned first, then for real. */
static dn_status run_poisoned(const harness *h, dn_workspace *workspace, dn_error *error)
{
    dn_row rows[ROWS];
    for (uint32_t r = 0; r < ROWS; r++) {
        rows[r] = harness_row(h, r);
        rows[r].in_scale = NAN;
        if (h->plan->time_rows == 0)
            rows[r].time = NAN;
        rows[r].condition.weights[0] = NAN;
    }
    dn_status status = h->backend->run(h->network, workspace, rows, ROWS, error);
    for (uint32_t r = 0; r < ROWS && status == DN_OK; r++) {
        if (rows[r].finite)
            return dn_fail(error, DN_INTERNAL, "a row of NaN was called finite");
        rows[r] = harness_row(h, r);
    }
    if (status == DN_OK)
        status = h->backend->run(h->network, workspace, rows, ROWS, error);
    for (uint32_t r = 0; r < ROWS && status == DN_OK; r++) {
        if (!rows[r].finite)
            status = dn_fail(error, DN_NUMERIC, "NaN or infinity in row %u", r);
    }
    return status;
}

/* Largest difference of any value from the reference, relative to that value's largest element. */
static double worst_error(const harness *h, dn_workspace *workspace, double *const *table, const char **where)
{
    double worst = 0.0;
    for (dn_value v = 0; v < h->plan->value_count; v++) {
        size_t count = dn_shape_count(h->plan->values[v].shape);
        float *got = malloc(count * sizeof *got);
        double largest = 1e-3, difference = 0.0;
        for (uint32_t r = 0; r < ROWS; r++) {
            h->backend->read_value(h->network, workspace, v, r, got, NULL);
            for (size_t i = 0; i < count; i++) {
                double expected = table[v][r * count + i], off = fabs((double)got[i] - expected);
                largest = fmax(largest, fabs(expected));
                difference = off <= difference ? difference : off; /* NaN is taken */
            }
        }
        free(got);
        if (!(difference / largest <= worst)) {
            worst = difference / largest;
            *where = h->plan->values[v].producer == DN_NONE ? "input" : h->plan->nodes[h->plan->values[v].producer].name;
        }
    }
    return worst;
}

static dn_error error;

/* Runs one plan on one instruction set that the CPU has; returns the worst error, NAN when something failed. */
static double check_plan(const dn_plan *plan, const dn_weights *weights, const char *isa, unsigned threads, const char **where)
{
    harness h;
    if (!harness_open(&h, isa, threads, plan, weights)) {
        harness_close(&h);
        *where = "opening";
        return NAN;
    }
    float *samples = draw_floats(h.in_count * ROWS);
    h.backend->buffer_write(h.in, 0, samples, h.in_count * ROWS, NULL);
    dn_workspace *workspace = NULL, *reused = NULL;
    dn_workspace_options keep = {.rows_max = ROWS + 1, .keep_values = true}, reuse = {.rows_max = ROWS};
    double worst = NAN;
    if (h.backend->workspace_create(&workspace, h.network, &keep, &error) == DN_OK &&
        h.backend->workspace_create(&reused, h.network, &reuse, &error) == DN_OK && run_poisoned(&h, workspace, &error) == DN_OK) {
        double **table = reference_of(&h, weights, samples);
        worst = worst_error(&h, workspace, table, where);
        if (!(float_reference_error(&h, weights, table) <= FLOAT_REFERENCE_ERROR_MAX)) {
            *where = "reference in float";
            worst = NAN;
        }
        free(table);
        size_t count = h.out_count * ROWS;
        float *kept = malloc(count * sizeof *kept), *again = malloc(count * sizeof *again);
        h.backend->buffer_read(h.out, 0, kept, count, NULL);
        if (run_poisoned(&h, reused, &error) != DN_OK)
            worst = NAN;
        h.backend->buffer_read(h.out, 0, again, count, NULL);
        if (memcmp(kept, again, count * sizeof *kept) != 0) {
            *where = "reused arena";
            worst = NAN;
        }
        free(kept);
        free(again);
    }
    h.backend->workspace_free(workspace);
    h.backend->workspace_free(reused);
    harness_close(&h);
    free(samples);
    return worst;
}

static inline void check_kind_rounds(build_function *build, dn_shape least, dn_shape most, double tolerance, int rounds)
{
    for (int round = 0; round < rounds; round++) {
        dn_shape shape = {draw(least.h, most.h), draw(least.w, most.w), draw(least.c, most.c)};
        dn_plan_builder builder;
        dn_plan *plan = NULL;
        CHECK_OK(dn_plan_begin(&builder, shape, &error), error);
        dn_value out = build(&builder, builder.plan->input);
        CHECK_OK(dn_plan_end(&plan, &builder, out, &error), error);
        dn_weights *weights = draw_weights(plan);
        for (size_t i = 0; i < HARNESS_ISAS; i++) {
            if (!harness_has(harness_isas[i]))
                continue;
            const char *where = "";
            error.message[0] = 0;
            double worst = check_plan(plan, weights, harness_isas[i], 1 + (unsigned)round % 3, &where);
            CHECK_MSG(worst <= tolerance, "%s, %ux%ux%u, %s: error %g over %g %s", harness_isas[i], shape.h, shape.w, shape.c, where, worst,
                      tolerance, error.message);
        }
        dn_weights_free(weights);
        dn_plan_free(plan);
    }
}

static inline void check_kind(build_function *build, dn_shape least, dn_shape most, double tolerance)
{
    check_kind_rounds(build, least, most, tolerance, test_rounds(ROUNDS));
}

#endif
