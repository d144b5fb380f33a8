/* The nodes that map elements one by one: affine, activation, concat, position, division by the time.
 *
 * Invariant: each task writes one row's output. Compiled without fused multiply-add,
 * so these agree on every instruction set. Tasks run on the run's pool. */
#include <string.h>

#include "backend/cpu/state.h"

static void affine_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    size_t count = dn_shape_count(dn_cpu_shape(run, run->node->out));
    const float *in = dn_cpu_in_row(run, 0, index);
    float *out = dn_cpu_out_row(run, index);
    for (size_t i = 0; i < count; i++)
        out[i] = run->node->scale * in[i] + run->node->shift;
}

void dn_cpu_affine(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, dn_cpu_elements_of(run, run->node->out), run->row_count, affine_task, run);
}

static void activation_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    size_t count = dn_shape_count(dn_cpu_shape(run, run->node->out));
    run->kernels->activate(dn_cpu_out_row(run, index), dn_cpu_in_row(run, 0, index), count, run->node->activation);
}

void dn_cpu_activation(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, 20.0 * dn_cpu_elements_of(run, run->node->out), run->row_count, activation_task, run);
}

/* Task: one row's image. */
static void concat_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    dn_shape a = dn_cpu_shape(run, run->node->in[0]), b = dn_cpu_shape(run, run->node->in[1]);
    const float *first = dn_cpu_in_row(run, 0, index), *second = dn_cpu_in_row(run, 1, index);
    float *to = dn_cpu_out_row(run, index);
    for (size_t p = 0; p < (size_t)a.h * a.w; p++, to += a.c + b.c) {
        memcpy(to, first + p * a.c, a.c * sizeof *to);
        memcpy(to + a.c, second + p * b.c, b.c * sizeof *to);
    }
}

void dn_cpu_concat(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, dn_cpu_elements_of(run, run->node->out), run->row_count, concat_task, run);
}

/* Task: one row's image, and the table of places. */
static void position_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    size_t count = dn_shape_count(dn_cpu_shape(run, run->node->out));
    const float *in = dn_cpu_in_row(run, 0, index);
    float *out = dn_cpu_out_row(run, index);
    for (size_t i = 0; i < count; i++)
        out[i] = in[i] + run->compiled->table[i];
}

void dn_cpu_position(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, dn_cpu_elements_of(run, run->node->out), run->row_count, position_task, run);
}

static void divide_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    size_t count = dn_shape_count(dn_cpu_shape(run, run->node->out));
    float time = dn_cpu_row_of(run, index)->time;
    const float *in = dn_cpu_in_row(run, 0, index);
    float *out = dn_cpu_out_row(run, index);
    for (size_t i = 0; i < count; i++)
        out[i] = in[i] / time;
}

void dn_cpu_divide_by_time(const dn_cpu_run *run)
{
    dn_cpu_parallel(run, dn_cpu_elements_of(run, run->node->out), run->row_count, divide_task, run);
}
