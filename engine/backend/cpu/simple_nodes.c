/* The nodes that move or map elements one by one: embeddings, affine, resampling, concat, activation.
 *
 * Invariant: each task writes one row's output (one line of it for resampling). Compiled without fused multiply-add,
 * so these agree on every instruction set. Tasks run on the run's pool. */
#include <string.h>

#include "backend/cpu/state.h"

static double elements_of(const dn_cpu_run *run, dn_value value)
{
    return (double)dn_shape_count(dn_cpu_shape(run, value)) * run->row_count;
}

static float *out_row(const dn_cpu_run *run, size_t row)
{
    return dn_cpu_out(run) + row * dn_shape_count(dn_cpu_shape(run, run->node->out));
}

static const float *in_row(const dn_cpu_run *run, int index, size_t row)
{
    return dn_cpu_in(run, index) + row * dn_shape_count(dn_cpu_shape(run, run->node->in[index]));
}

void dn_cpu_time_embedding(const dn_cpu_run *run)
{
    size_t half = dn_cpu_shape(run, run->node->out).c / 2;
    for (size_t r = 0; r < run->row_count; r++) {
        float *out = out_row(run, r);
        float *sines = run->node->flip_sin_to_cos ? out + half : out, *cosines = run->node->flip_sin_to_cos ? out : out + half;
        for (size_t i = 0; i < half; i++) {
            double sine, cosine;
            dn_cpu_sine_cosine((double)run->workspace->rows[run->row_first + r].time * run->compiled->frequency[i], &sine, &cosine);
            sines[i] = (float)sine;
            cosines[i] = (float)cosine;
        }
    }
}

void dn_cpu_class_embedding(const dn_cpu_run *run)
{
    size_t width = dn_cpu_shape(run, run->node->out).c;
    const float *table = dn_cpu_weight(run, run->node->weight);
    for (size_t r = 0; r < run->row_count; r++) {
        const dn_condition *condition = &run->workspace->rows[run->row_first + r].condition;
        float *out = out_row(run, r);
        for (size_t i = 0; i < width; i++) {
            float sum = 0.0f;
            for (uint32_t k = 0; k < condition->count; k++)
                sum += condition->weights[k] * table[condition->classes[k] * width + i];
            out[i] = sum;
        }
    }
}

static void affine_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    size_t count = dn_shape_count(dn_cpu_shape(run, run->node->out));
    const float *in = in_row(run, 0, index);
    float *out = out_row(run, index);
    for (size_t i = 0; i < count; i++)
        out[i] = run->node->scale * in[i] + run->node->shift;
}

void dn_cpu_affine(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, elements_of(run, run->node->out), run->row_count, affine_task, run);
}

static void activation_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    size_t count = dn_shape_count(dn_cpu_shape(run, run->node->out));
    run->kernels->activate(out_row(run, index), in_row(run, 0, index), count, run->node->activation);
}

void dn_cpu_activation(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, 20.0 * elements_of(run, run->node->out), run->row_count, activation_task, run);
}

/* Task: one line of one input image to two lines of the output. */
static void upsample_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    dn_shape in = dn_cpu_shape(run, run->node->in[0]);
    size_t line = (size_t)in.w * in.c;
    const float *from = dn_cpu_in(run, 0) + index * line;
    float *to = dn_cpu_out(run) + index * 4 * line;
    for (size_t x = 0; x < in.w; x++) {
        memcpy(to + 2 * x * in.c, from + x * in.c, in.c * sizeof *to);
        memcpy(to + (2 * x + 1) * in.c, from + x * in.c, in.c * sizeof *to);
    }
    memcpy(to + 2 * line, to, 2 * line * sizeof *to);
}

void dn_cpu_upsample_nearest2(const dn_cpu_run *run)
{
    size_t lines = dn_cpu_shape(run, run->node->in[0]).h * (size_t)run->row_count;
    dn_cpu_parallel(run, elements_of(run, run->node->out), lines, upsample_task, run);
}

/* Task: one row's image. */
static void average_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    dn_shape in = dn_cpu_shape(run, run->node->in[0]), out = dn_cpu_shape(run, run->node->out);
    size_t line = (size_t)in.w * in.c;
    float *to = out_row(run, index);
    for (size_t y = 0; y < out.h; y++) {
        for (size_t x = 0; x < out.w; x++, to += out.c) {
            const float *from = in_row(run, 0, index) + 2 * y * line + 2 * x * in.c;
            for (size_t c = 0; c < in.c; c++)
                to[c] = ((from[c] + from[in.c + c]) + (from[line + c] + from[line + in.c + c])) * 0.25f;
        }
    }
}

void dn_cpu_average_pool2(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, elements_of(run, run->node->in[0]), run->row_count, average_task, run);
}

/* Task: one row's image. */
static void concat_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    dn_shape a = dn_cpu_shape(run, run->node->in[0]), b = dn_cpu_shape(run, run->node->in[1]);
    const float *first = in_row(run, 0, index), *second = in_row(run, 1, index);
    float *to = out_row(run, index);
    for (size_t p = 0; p < (size_t)a.h * a.w; p++, to += a.c + b.c) {
        memcpy(to, first + p * a.c, a.c * sizeof *to);
        memcpy(to + a.c, second + p * b.c, b.c * sizeof *to);
    }
}

void dn_cpu_concat(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, elements_of(run, run->node->out), run->row_count, concat_task, run);
}
