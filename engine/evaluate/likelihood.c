/* Integrates a picture and the trace of its flow together; see likelihood.h. One thread. */
#include "evaluate/likelihood.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/philox.h"
#include "diffusion/dormand_prince.h"

#define FIRST_STEP 0.05 /* of the range */
#define STEP_MIN 1e-9
#define EVALUATIONS_MAX 6000u
#define TWO_PI 6.28318530717958647692

/* The state is the picture and one number for each trace: its integral over the elements, divided by their number. */
typedef struct flow {
    const dn_flow_field *field;
    const dn_likelihood_options *options;
    size_t elements, size; /* size: elements + traces */
    uint32_t probes, traces; /* exact: as many probes as elements, one trace */
    double *state, *stage, *slope[DN_RK45_STAGES];
    float *x, *velocity, *probe, *product;
    uint32_t evaluations;
} flow;

static void flow_free(flow *f)
{
    free(f->state);
    free(f->stage);
    for (int i = 0; i < DN_RK45_STAGES; i++)
        free(f->slope[i]);
    free(f->x);
    free(f->velocity);
    free(f->probe);
    free(f->product);
}

static dn_status flow_create(flow *f, const dn_flow_field *field, const dn_likelihood_options *options, dn_error *error)
{
    bool exact = options->probes == 0;
    *f = (flow){.field = field, .options = options, .elements = field->elements};
    if (options->probes > DN_PROBES_MAX)
        return dn_fail(error, DN_INVALID, "probes must be an integer from 0 to %u", DN_PROBES_MAX);
    if (exact && f->elements > DN_EXACT_TRACE_ELEMENTS_MAX)
        return dn_fail(error, DN_INVALID, "the exact trace is for at most %u elements", DN_EXACT_TRACE_ELEMENTS_MAX);
    f->probes = exact ? (uint32_t)f->elements : options->probes;
    f->traces = exact ? 1 : options->probes;
    f->size = f->elements + f->traces;
    f->state = calloc(f->size, sizeof *f->state);
    f->stage = calloc(f->size, sizeof *f->stage);
    bool enough = f->state != NULL && f->stage != NULL;
    for (int i = 0; i < DN_RK45_STAGES; i++) {
        f->slope[i] = calloc(f->size, sizeof *f->slope[i]);
        enough = enough && f->slope[i] != NULL;
    }
    f->x = calloc(f->elements, sizeof *f->x);
    f->velocity = calloc(f->elements, sizeof *f->velocity);
    f->probe = calloc(f->elements * f->probes, sizeof *f->probe);
    f->product = calloc(f->elements * f->probes, sizeof *f->product);
    enough = enough && f->x != NULL && f->velocity != NULL && f->probe != NULL && f->product != NULL;
    return enough ? DN_OK : dn_fail(error, DN_NO_MEMORY, "no memory for %u probes of %zu elements", f->probes, f->elements);
}

/* Rademacher's signs, or the unit vectors. Draw 0 of the stream is dequantisation's. */
static void fill_probes(flow *f)
{
    for (uint32_t k = 0; k < f->probes; k++) {
        float *probe = f->probe + k * f->elements;
        if (f->options->probes == 0) {
            probe[k] = 1.0f;
            continue;
        }
        dn_noise_uniform(probe, f->elements, 0, f->options->seed, DN_STREAM_PROBE, 1 + k);
        for (size_t i = 0; i < f->elements; i++)
            probe[i] = probe[i] < 0.5f ? -1.0f : 1.0f;
    }
}

static dn_status slope_at(flow *f, double time, const double *state, double *slope, dn_error *error)
{
    for (size_t i = 0; i < f->elements; i++)
        f->x[i] = (float)state[i];
    dn_status status = f->field->run(f->field->self, time, f->x, f->probe, f->probes, f->velocity, f->product, error);
    if (status != DN_OK)
        return status;
    f->evaluations++;
    for (size_t i = 0; i < f->elements; i++)
        slope[i] = (double)f->velocity[i];
    memset(slope + f->elements, 0, f->traces * sizeof *slope);
    for (uint32_t k = 0; k < f->probes; k++) {
        const float *probe = f->probe + k * f->elements, *product = f->product + k * f->elements;
        double sum = 0.0;
        for (size_t i = 0; i < f->elements; i++)
            sum += (double)probe[i] * (double)product[i];
        slope[f->elements + (f->traces == 1 ? 0 : k)] += sum / (double)f->elements;
    }
    return DN_OK;
}

/* stage = state + length * sum of weight[j] slope[j]. */
static void put_together(flow *f, double length, const double *weight, int slopes)
{
    for (size_t i = 0; i < f->size; i++) {
        double sum = 0.0;
        for (int j = 0; j < slopes; j++)
            sum += weight[j] * f->slope[j][i];
        f->stage[i] = f->state[i] + length * sum;
    }
}

/* Mean of squares of a part's error in tolerances, rooted. */
static double error_of(const flow *f, double length, size_t first, size_t count)
{
    double squares = 0.0;
    for (size_t i = first; i < first + count; i++) {
        double off = 0.0, size = fmax(fabs(f->state[i]), fabs(f->stage[i]));
        for (int j = 0; j < DN_RK45_STAGES; j++)
            off += dn_rk45_error[j] * f->slope[j][i];
        off *= length / (f->options->atol + f->options->rtol * size);
        squares += off * off;
    }
    return sqrt(squares / (double)count);
}

/* One step from `time`, left in `stage`; slope[0] is known. */
static dn_status try_step(flow *f, double time, double length, double *norm, dn_error *error)
{
    for (int i = 1; i < DN_RK45_STAGES; i++) {
        put_together(f, length, dn_rk45_weight[i], i);
        dn_status status = slope_at(f, time + dn_rk45_node[i] * length, f->stage, f->slope[i], error);
        if (status != DN_OK)
            return status;
    }
    *norm = fmax(error_of(f, length, 0, f->elements), error_of(f, length, f->elements, f->traces));
    return DN_OK;
}

/* From the picture (t = end of the field) to noise (t = begin). */
static dn_status integrate(flow *f, dn_error *error)
{
    double time = f->field->end, until = f->field->begin, length = FIRST_STEP * (until - time), norm = 0.0;
    int refused = 0;
    dn_status status = slope_at(f, time, f->state, f->slope[0], error);
    while (status == DN_OK && time < until - STEP_MIN) {
        if (length < STEP_MIN || f->evaluations > EVALUATIONS_MAX)
            return dn_fail(error, DN_NUMERIC, "the tolerances of the likelihood are not reached: raise rtol or atol");
        length = fmin(length, until - time);
        status = try_step(f, time, length, &norm, error);
        if (status != DN_OK)
            break;
        double factor = dn_rk45_factor(norm, refused || !(norm <= 1.0));
        refused = !(norm <= 1.0);
        if (!refused) {
            double *last = f->slope[DN_RK45_STAGES - 1], *before = f->state;
            time += length;
            f->slope[DN_RK45_STAGES - 1] = f->slope[0];
            f->slope[0] = last;
            f->state = f->stage;
            f->stage = before;
        }
        length *= factor;
    }
    return status;
}

/* log p = log N(x at begin; 0, deviation^2) + integral of the trace + elements log(1 - end): from x to x / (1 - end). */
static void sum_up(dn_likelihood *out, const flow *f)
{
    double deviation = f->field->deviation, count = (double)f->elements, squares = 0.0, mean = 0.0, spread = 0.0;
    for (size_t i = 0; i < f->elements; i++)
        squares += f->state[i] * f->state[i];
    for (uint32_t k = 0; k < f->traces; k++)
        mean += f->state[f->elements + k] / f->traces;
    for (uint32_t k = 0; k < f->traces; k++)
        spread += pow(f->state[f->elements + k] - mean, 2.0);
    out->log_density = -0.5 * squares / (deviation * deviation) - 0.5 * count * log(TWO_PI * deviation * deviation) +
                       count * (mean + log(1.0 - f->field->end));
    out->probe_deviation = f->traces > 1 ? count * sqrt(spread / (f->traces - 1)) : 0.0;
    out->evaluations = f->evaluations;
}

dn_status dn_log_density(dn_likelihood *out, const dn_flow_field *field, const float *x, const dn_likelihood_options *options,
                         dn_error *error)
{
    flow f;
    dn_status status = flow_create(&f, field, options, error);
    if (status == DN_OK) {
        fill_probes(&f);
        for (size_t i = 0; i < f.elements; i++)
            f.state[i] = (1.0 - field->end) * (double)x[i];
        status = integrate(&f, error);
    }
    if (status == DN_OK)
        sum_up(out, &f);
    flow_free(&f);
    return status;
}

void dn_dequantise(float *x, const uint8_t *pixels, uint32_t height, uint32_t width, uint32_t channels, uint64_t seed)
{
    size_t area = (size_t)height * width;
    dn_noise_uniform(x, area * channels, 0, seed, DN_STREAM_PROBE, 0);
    for (uint32_t c = 0; c < channels; c++)
        for (size_t i = 0; i < area; i++)
            x[c * area + i] = (float)(((double)pixels[i * channels + c] + (double)x[c * area + i] - 0.5) / 127.5 - 1.0);
}

double dn_bits_per_dimension(double log_density, size_t elements)
{
    return -log_density / ((double)elements * log(2.0)) + log2(127.5);
}
