/* The nodes that look at a row's time and condition: vectors of a few hundred floats, computed on the calling thread.
 *
 * Invariant: in double and rounded once, by our own exp, log and sine without fused multiply-add, so that these agree on every
 * instruction set. */
#include <math.h>
#include <string.h>

#include "backend/cpu/state.h"

/* Where sines and cosines go. */
typedef struct waves {
    float *sines, *cosines;
    size_t half;
} waves;

static waves waves_of(const dn_cpu_run *run, size_t row)
{
    size_t half = dn_cpu_shape(run, run->node->out).c / 2;
    float *out = dn_cpu_out_row(run, row);
    bool flip = run->node->flip_sin_to_cos;
    return (waves){.sines = flip ? out + half : out, .cosines = flip ? out : out + half, .half = half};
}

void dn_cpu_time_embedding(const dn_cpu_run *run)
{
    for (size_t r = 0; r < run->row_count; r++) {
        waves to = waves_of(run, r);
        for (size_t i = 0; i < to.half; i++) {
            double sine, cosine;
            dn_sine_cosine((double)dn_cpu_row_of(run, r)->time * run->compiled->frequency[i], &sine, &cosine);
            to.sines[i] = (float)sine;
            to.cosines[i] = (float)cosine;
        }
    }
}

void dn_cpu_class_sinusoid(const dn_cpu_run *run)
{
    for (size_t r = 0; r < run->row_count; r++) {
        const dn_condition *condition = &dn_cpu_row_of(run, r)->condition;
        waves to = waves_of(run, r);
        for (size_t i = 0; i < to.half; i++) {
            double sines = 0.0, cosines = 0.0;
            for (uint32_t k = 0; k < condition->count; k++) {
                double sine, cosine;
                dn_sine_cosine((double)condition->classes[k] * run->compiled->frequency[i], &sine, &cosine);
                sines += (double)condition->weights[k] * sine;
                cosines += (double)condition->weights[k] * cosine;
            }
            to.sines[i] = (float)sines;
            to.cosines[i] = (float)cosines;
        }
    }
}

/* A time of zero or less has no logarithm: its row is NaN, and says so. */
void dn_cpu_fourier_embedding(const dn_cpu_run *run)
{
    const double turn = 6.28318530717958647693;
    const float *weight = dn_cpu_weight(run, run->node->weight);
    for (size_t r = 0; r < run->row_count; r++) {
        double f = (double)dn_cpu_row_of(run, r)->time;
        if (run->node->log_time)
            f = f > 0.0 ? dn_log(f) : (double)NAN;
        waves to = waves_of(run, r);
        for (size_t i = 0; i < to.half; i++) {
            double sine, cosine;
            dn_sine_cosine(turn * f * (double)weight[i], &sine, &cosine);
            to.sines[i] = (float)sine;
            to.cosines[i] = (float)cosine;
        }
    }
}

void dn_cpu_time_table(const dn_cpu_run *run)
{
    size_t width = dn_cpu_shape(run, run->node->out).c;
    const float *table = dn_cpu_weight(run, run->node->weight);
    for (size_t r = 0; r < run->row_count; r++)
        memcpy(dn_cpu_out_row(run, r), table + (size_t)dn_cpu_row_of(run, r)->time * width, width * sizeof *table);
}

void dn_cpu_class_embedding(const dn_cpu_run *run)
{
    size_t width = dn_cpu_shape(run, run->node->out).c;
    const float *table = dn_cpu_weight(run, run->node->weight);
    for (size_t r = 0; r < run->row_count; r++) {
        const dn_condition *condition = &dn_cpu_row_of(run, r)->condition;
        float *out = dn_cpu_out_row(run, r);
        for (size_t i = 0; i < width; i++) {
            float sum = 0.0f;
            for (uint32_t k = 0; k < condition->count; k++)
                sum += condition->weights[k] * table[condition->classes[k] * width + i];
            out[i] = sum;
        }
    }
}
