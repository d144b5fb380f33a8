/* The nodes that map elements one by one: affine, activation, concat, position, division by the time.
 *
 * Invariant: each task writes a piece of one row's output, and an element knows nothing of the piece that it is in. Compiled without
 * fused multiply-add, so these agree on every instruction set. Tasks run on the run's pool. */
#include <string.h>

#include "backend/cpu/state.h"

#define PIECE_FLOATS 16384u /* of a row's output that a task writes, about: a few microseconds */

/* Every row's output cut into pieces of elements, or of pixels. */
typedef struct map_job {
    const dn_cpu_run *run;
    size_t count, pieces; /* of a row */
} map_job;

typedef struct piece {
    size_t row, first, end;
} piece;

static piece piece_of(const map_job *job, unsigned index)
{
    size_t row = index / job->pieces, place = index % job->pieces;
    return (piece){row, place * job->count / job->pieces, (place + 1) * job->count / job->pieces};
}

/* Runs `task` over the node's output, `count` items a row of `floats` floats each; work: operations for each float. */
static void map_rows(const dn_cpu_run *run, size_t count, size_t floats, double work, dn_pool_task *task)
{
    map_job job = {.run = run, .count = count, .pieces = (count * floats + PIECE_FLOATS - 1) / PIECE_FLOATS};
    job.pieces = dn_cpu_min(job.pieces, count);
    dn_cpu_parallel(run, work * dn_cpu_elements_of(run, run->node->out), run->row_count * job.pieces, task, &job);
}

static size_t elements_of_row(const dn_cpu_run *run)
{
    return dn_shape_count(dn_cpu_shape(run, run->node->out));
}

static void affine_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const map_job *job = payload;
    const dn_cpu_run *run = job->run;
    const piece p = piece_of(job, index);
    const float *in = dn_cpu_in_row(run, 0, p.row);
    float *out = dn_cpu_out_row(run, p.row);
    for (size_t i = p.first; i < p.end; i++)
        out[i] = run->node->scale * in[i] + run->node->shift;
}

void dn_cpu_affine(const dn_cpu_run *run)
{
    map_rows(run, elements_of_row(run), 1, DN_CPU_MOVE_WORK, affine_task);
}

static void activation_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const map_job *job = payload;
    const dn_cpu_run *run = job->run;
    const piece p = piece_of(job, index);
    run->kernels->activate(dn_cpu_out_row(run, p.row) + p.first, dn_cpu_in_row(run, 0, p.row) + p.first, p.end - p.first,
                           run->node->activation);
}

void dn_cpu_activation(const dn_cpu_run *run)
{
    map_rows(run, elements_of_row(run), 1, DN_CPU_MOVE_WORK, activation_task);
}

/* Task: some pixels of one row's image. */
static void concat_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const map_job *job = payload;
    const dn_cpu_run *run = job->run;
    const piece some = piece_of(job, index);
    size_t a = dn_cpu_shape(run, run->node->in[0]).c, b = dn_cpu_shape(run, run->node->in[1]).c;
    const float *first = dn_cpu_in_row(run, 0, some.row), *second = dn_cpu_in_row(run, 1, some.row);
    float *to = dn_cpu_out_row(run, some.row) + some.first * (a + b);
    for (size_t p = some.first; p < some.end; p++, to += a + b) {
        memcpy(to, first + p * a, a * sizeof *to);
        memcpy(to + a, second + p * b, b * sizeof *to);
    }
}

void dn_cpu_concat(const dn_cpu_run *run)
{
    dn_shape out = dn_cpu_shape(run, run->node->out);
    map_rows(run, (size_t)out.h * out.w, out.c, DN_CPU_MOVE_WORK, concat_task);
}

/* Task: a piece of one row's image, and of the table of places. */
static void position_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const map_job *job = payload;
    const dn_cpu_run *run = job->run;
    const piece p = piece_of(job, index);
    const float *in = dn_cpu_in_row(run, 0, p.row);
    float *out = dn_cpu_out_row(run, p.row);
    for (size_t i = p.first; i < p.end; i++)
        out[i] = in[i] + run->compiled->table[i];
}

void dn_cpu_position(const dn_cpu_run *run)
{
    map_rows(run, elements_of_row(run), 1, DN_CPU_MOVE_WORK, position_task);
}

static void divide_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const map_job *job = payload;
    const dn_cpu_run *run = job->run;
    const piece p = piece_of(job, index);
    float time = dn_cpu_row_of(run, p.row)->time;
    const float *in = dn_cpu_in_row(run, 0, p.row);
    float *out = dn_cpu_out_row(run, p.row);
    for (size_t i = p.first; i < p.end; i++)
        out[i] = in[i] / time;
}

void dn_cpu_divide_by_time(const dn_cpu_run *run)
{
    map_rows(run, elements_of_row(run), 1, DN_CPU_MOVE_WORK, divide_task);
}
