/* Backward runs in double against central differences of the plain reference, and the float backward of each instruction set
 * against the double one. Single-threaded. */
#ifndef DN_TESTS_GRADIENT_CHECK_H
#define DN_TESTS_GRADIENT_CHECK_H

#include "tests/test.h"

#include "backend/cpu/isa.h"
#include "backend/cpu/reference.h"
#include "train/backward.h"

#define ROWS 3
#define ISAS_MAX 8

typedef dn_value build_function(dn_plan_builder *b, dn_value input);

/* Everything one comparison needs; freed by done(). */
typedef struct fixture {
    dn_plan *plan;
    dn_packing *packing;
    double **weights, *samples, *pull; /* pull: d loss / d output, the loss being their product */
    double **table;
    dn_reference_row rows[ROWS];
    double *packed, *packed_gradient, *scratch, *gradient_memory, *input_gradient;
    double **weight_gradients;
} fixture;

static uint64_t draws;

/* Splitmix64's finaliser: enough for test data. */
static double uniform(void)
{
    uint64_t z = ++draws * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 4503599627370496.0 - 1.0;
}

static double *random_doubles(size_t count, double scale)
{
    double *out = malloc((count + 1) * sizeof *out);
    for (size_t i = 0; i < count; i++) {
        out[i] = scale * uniform();
    }
    return out;
}

static size_t count_of(const dn_plan *plan, dn_value value)
{
    return dn_shape_count(plan->values[value].shape);
}

static double loss(fixture *f)
{
    dn_error error;
    if (dn_reference_run_f64(f->plan, (const double *const *)f->weights, f->samples, f->rows, ROWS, f->table, &error) != DN_OK) {
        return NAN;
    }
    double sum = 0;
    for (size_t i = 0; i < ROWS * count_of(f->plan, f->plan->output); i++) {
        sum += f->pull[i] * f->table[f->plan->output][i];
    }
    return sum;
}

static double **weight_table(const dn_plan *plan, double scale)
{
    double **out = calloc(plan->weight_count + 1, sizeof *out);
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        out[w] = random_doubles(plan->weights[w].count, scale);
    }
    return out;
}

static int setup(fixture *f, build_function *build, dn_shape input, dn_error *error)
{
    dn_plan_builder builder;
    *f = (fixture){0};
    if (dn_plan_begin(&builder, input, error) != DN_OK) {
        return 0;
    }
    dn_value out = build(&builder, builder.plan->input);
    if (dn_plan_end(&f->plan, &builder, out, error) != DN_OK || dn_packing_create(&f->packing, f->plan, error) != DN_OK ||
        dn_reference_table_f64(&f->table, f->plan, ROWS, error) != DN_OK) {
        return 0;
    }
    f->weights = weight_table(f->plan, 0.7);
    f->weight_gradients = weight_table(f->plan, 0);
    f->samples = random_doubles(ROWS * dn_shape_count(input), 1.0);
    f->pull = random_doubles(ROWS * count_of(f->plan, f->plan->output), 1.0);
    f->rows[0] = (dn_reference_row){37.0, {1, {1}, {1.0f}}};
    f->rows[1] = (dn_reference_row){611.0, {2, {0, 2}, {0.25f, 0.75f}}};
    f->packed = random_doubles(f->packing->total, 0);
    f->packed_gradient = random_doubles(f->packing->total, 0);
    f->scratch = random_doubles(f->packing->scratch, 0);
    f->gradient_memory = random_doubles(ROWS * f->packing->row_gradients, 0);
    f->input_gradient = random_doubles(ROWS * dn_shape_count(input), 0);
    return 1;
}

static void done(fixture *f)
{
    for (uint32_t w = 0; f->plan && f->weights && w < f->plan->weight_count; w++) {
        free(f->weights[w]);
        free(f->weight_gradients[w]);
    }
    free(f->weights);
    free(f->weight_gradients);
    free(f->samples);
    free(f->pull);
    free(f->table);
    free(f->packed);
    free(f->packed_gradient);
    free(f->scratch);
    free(f->gradient_memory);
    free(f->input_gradient);
    dn_packing_free(f->packing);
    dn_plan_free(f->plan);
}

/* Backward of all rows together in double: fills weight_gradients and input_gradient. */
static void backward_double(fixture *f)
{
    const dn_backward_table_f64 *t = dn_backward_find_f64();
    uint32_t count = f->plan->value_count;
    const double **values = calloc((size_t)count * ROWS, sizeof *values);
    double **gradients = calloc((size_t)count * ROWS, sizeof *gradients), *next = f->gradient_memory;
    size_t out = count_of(f->plan, f->plan->output), in = count_of(f->plan, f->plan->input);
    dn_backward_f64 runs[ROWS];
    loss(f);
    t->pack(f->packing, (const double *const *)f->weights, f->packed);
    for (uint32_t r = 0; r < ROWS; r++) {
        const double **row_values = values + r * count;
        double **row_gradients = gradients + r * count;
        for (uint32_t v = 0; v < count; v++) {
            row_values[v] = f->table[v] + r * count_of(f->plan, v);
            row_gradients[v] = next;
            next += count_of(f->plan, v);
        }
        memcpy(row_gradients[f->plan->output], f->pull + r * out, out * sizeof(double));
        runs[r] = (dn_backward_f64){f->packing, f->packed, f->packed_gradient, row_values, row_gradients, &f->rows[r].condition,
                                    f->scratch, true,      f->rows[r].time};
    }
    t->rows(runs, ROWS);
    for (uint32_t r = 0; r < ROWS; r++) {
        memcpy(f->input_gradient + r * in, gradients[r * count + f->plan->input], in * sizeof(double));
    }
    t->unpack(f->packing, f->packed_gradient, f->weight_gradients);
    free(values);
    free(gradients);
}

/* d loss / d x by the central difference of fourth order. */
static double slope(fixture *f, double *x)
{
    static const double steps[] = {-2, -1, 1, 2}, factors[] = {1, -8, 8, -1};
    double kept = *x, h = 1e-4, sum = 0;
    for (int i = 0; i < 4; i++) {
        *x = kept + steps[i] * h;
        sum += factors[i] * loss(f);
    }
    *x = kept;
    return sum / (12 * h);
}

/* The largest |difference - gradient| over up to `probes` elements, relative to the array's largest gradient. */
static double worst_difference(fixture *f, double *array, const double *gradient, size_t count, size_t probes)
{
    double worst = 0, top = 1e-3;
    for (size_t i = 0; i < count; i++) {
        top = fabs(gradient[i]) > top ? fabs(gradient[i]) : top;
    }
    size_t stride = count > probes ? count / probes + 1 : 1;
    for (size_t i = 0; i < count; i += stride) {
        double gap = fabs(slope(f, &array[i]) - gradient[i]) / top;
        worst = gap > worst ? gap : worst;
    }
    return worst;
}

static double worst_gradient(fixture *f, size_t probes)
{
    size_t in = ROWS * count_of(f->plan, f->plan->input);
    double worst = worst_difference(f, f->samples, f->input_gradient, in, probes);
    for (uint32_t w = 0; w < f->plan->weight_count; w++) {
        double gap = worst_difference(f, f->weights[w], f->weight_gradients[w], f->plan->weights[w].count, probes);
        worst = gap > worst ? gap : worst;
    }
    return worst;
}

static float *narrowed(const double *in, size_t count)
{
    float *out = aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64);
    for (size_t i = 0; i < count; i++) {
        out[i] = (float)in[i];
    }
    return out;
}

/* Runs the float backward of one instruction set over the double run's values; the worst packed difference. */
static double worst_float(fixture *f, const char *isa)
{
    const dn_packing *p = f->packing;
    const dn_backward_table_f32 *t = dn_backward_find_f32(isa);
    float *packed = narrowed(f->packed, p->total), *gradient = calloc(p->total + 1, sizeof *gradient);
    float *scratch = calloc(p->scratch + 1, sizeof *scratch), *memory = calloc(p->row_gradients + 1, sizeof *memory);
    uint32_t count = f->plan->value_count;
    float **values = calloc(count, sizeof *values), **gradients = calloc(count, sizeof *gradients);
    for (uint32_t r = 0; r < ROWS; r++) {
        float *next = memory;
        for (uint32_t v = 0; v < count; v++) {
            values[v] = narrowed(f->table[v] + r * count_of(f->plan, v), count_of(f->plan, v));
            gradients[v] = next;
            next += count_of(f->plan, v);
        }
        for (size_t i = 0; i < count_of(f->plan, f->plan->output); i++) {
            gradients[f->plan->output][i] = (float)f->pull[r * count_of(f->plan, f->plan->output) + i];
        }
        t->rows(&(dn_backward_f32){p, packed, gradient, (const float *const *)values, gradients, &f->rows[r].condition, scratch, true,
                                   f->rows[r].time},
                1);
        for (uint32_t v = 0; v < count; v++) {
            free(values[v]);
        }
    }
    double worst = 0;
    for (uint32_t w = 0; w < f->plan->weight_count; w++) {
        const dn_packed_weight *at = &p->weights[w];
        double top = 1e-3;
        for (size_t i = 0; i < (size_t)at->taps * at->rows * at->stride; i++) {
            double g = fabs(f->packed_gradient[at->offset + i]);
            top = g > top && i % at->stride < at->columns ? g : top;
        }
        for (size_t i = 0; i < (size_t)at->taps * at->rows * at->stride; i++) {
            double gap = fabs((double)gradient[at->offset + i] - f->packed_gradient[at->offset + i]) / top;
            worst = gap > worst && i % at->stride < at->columns ? gap : worst;
        }
    }
    free(packed);
    free(gradient);
    free(scratch);
    free(memory);
    free(values);
    free(gradients);
    return worst;
}

static void check_plan(build_function *build, dn_shape input, size_t probes)
{
    size_t isa_count = 0;
    const dn_cpu_isa *isas = dn_cpu_isas(&isa_count);
    fixture f;
    dn_error error = {0};
    if (!setup(&f, build, input, &error)) {
        done(&f);
        CHECK_MSG(0, "%s", error.message);
    }
    backward_double(&f);
    double worst = worst_gradient(&f, probes), worst_of[ISAS_MAX] = {0};
    for (size_t i = 0; i < isa_count; i++) {
        worst_of[i] = isas[i].runs() ? worst_float(&f, isas[i].kernels->isa) : 0;
    }
    done(&f);
    CHECK_MSG(worst < 1e-6, "gradient off by %g of its scale", worst);
    for (size_t i = 0; i < isa_count; i++) {
        CHECK_MSG(worst_of[i] < 3e-5, "%s gradient off by %g of its scale", isas[i].kernels->isa, worst_of[i]);
    }
}

#endif
