/* 3x3 convolutions by Winograd's F(2x2, 3x3) and F(4x4, 3x3): tasks are runs of output tiles and groups of output channels;
 * each transforms its inputs into its scratch, multiplies once for each of the patch's positions, and transforms back.
 * 2.25 and 4 times fewer multiplications than the direct form.
 *
 * A weight's transform is 16/9 or 4 times as large as the weight. Where it is kept, it is read for every run of tiles; where
 * it is not, the nine taps are read and transformed in registers, once for every few tiles.
 * Invariant: which convolutions come here, and in which form, depends on their shape alone; tasks cut outputs only, never a
 * sum. Tasks run on the run's pool. */
#include <string.h>

#include "backend/cpu/winograd.h"

#define SCRATCH_FLOATS 98304u /* 384 KB for the transformed tiles: leaves the L2 cache room for weights */
#define TILES_MOST 112u /* tiles of a task: more save no weight traffic worth having */
#define TILES_LEAST 28u /* fewer would read a weight too often, whatever fits the scratch */
#define TILES_LEAST_WIDE 56u /* the same where a weight ... */
#define WIDE_WEIGHTS 1048576u /* ... has so many floats that no L2 cache holds it */
#define TILES_UNIT 14u /* rows of the largest microkernel */
#define TILES_MIN 14u /* fewer tiles than this leave the multiply-add units waiting for weights */

/* Rows and planes lie a cache line further apart than they need, so that the same element of many is not in the same cache set. */
#define ROW_GAP DN_CPU_LINE_FLOATS
#define PLANE_GAP DN_CPU_LINE_FLOATS

typedef struct winograd_job {
    const dn_cpu_run *run;
    dn_winograd_form form;
    dn_shape in, out;
    size_t positions;
    size_t tiles_y, tiles_x; /* of one image */
    size_t tiles, blocks; /* of all rows; runs of tiles */
    size_t panels, groups; /* of output channels; groups of panels */
} winograd_job;

/* Output channels whose products lie in the scratch at once: all of them, or a panel's. */
static size_t columns_at_once(const dn_cpu_kernels *kernels, dn_winograd_form form, size_t out)
{
    return form.kept ? out : dn_cpu_min(out, kernels->panel);
}

/* Tiles that one task takes at most: a multiple of the microkernel's rows. */
static size_t tiles_of_task(const dn_cpu_kernels *kernels, dn_winograd_form form, size_t in, size_t out)
{
    size_t positions = (form.side + 2) * (form.side + 2);
    size_t tiles = SCRATCH_FLOATS / (positions * (in + columns_at_once(kernels, form, out))) / TILES_UNIT * TILES_UNIT;
    size_t least = positions * in * out > WIDE_WEIGHTS ? TILES_LEAST_WIDE : TILES_LEAST;
    return dn_cpu_min(TILES_MOST, dn_cpu_max(least, tiles));
}

size_t dn_cpu_winograd_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node)
{
    dn_winograd_form form = dn_cpu_winograd_form(plan, node);
    size_t in = plan->values[node->in[0]].shape.c, out = plan->values[node->out].shape.c;
    size_t points = form.side + 2, tiles = tiles_of_task(kernels, form, in, out);
    return in + points * points * (tiles * (in + ROW_GAP + columns_at_once(kernels, form, out)) + PLANE_GAP);
}

/* What all positions' products have in common. */
static dn_gemm product(const dn_winograd *w)
{
    return (dn_gemm){
        .a_row = w->in_row,
        .out_row = w->columns,
        .scale = 1.0f,
        .lines = 1,
        .rows = w->count,
        .segments = 1,
        .k = w->channels_in,
        .n = w->columns,
    };
}

/* The kept weight: position by position, through all the task's panels. */
static void multiply_kept(const winograd_job *job, dn_winograd *w, size_t panel_first, size_t panel_end)
{
    const dn_cpu_kernels *kernels = job->run->kernels;
    size_t matrix = dn_cpu_packed_count(kernels, job->in.c, job->out.c);
    w->column = panel_first * kernels->panel;
    w->columns = dn_cpu_min(job->out.c, panel_end * kernels->panel) - w->column;
    w->out_plane = w->count * w->columns + PLANE_GAP;
    dn_gemm gemm = product(w);
    for (size_t p = 0; p < job->positions; p++) {
        gemm.a = w->transformed + p * w->count * w->in_row;
        gemm.b = job->run->compiled->packed + p * matrix + w->column * w->channels_in;
        gemm.after = p + 1 < job->positions ? gemm.b + matrix : NULL;
        gemm.out = w->products + p * w->out_plane;
        kernels->gemm(&gemm, 0, panel_end - panel_first);
    }
    kernels->winograd_output(w);
}

/* The weight's taps: panel by panel. */
static void multiply_taps(const winograd_job *job, dn_winograd *w, size_t panel_first, size_t panel_end)
{
    const dn_cpu_kernels *kernels = job->run->kernels;
    for (size_t panel = panel_first; panel < panel_end; panel++) {
        const float *taps = job->run->compiled->packed + panel * kernels->panel * 9 * w->channels_in;
        w->column = panel * kernels->panel;
        w->columns = dn_cpu_panel_width(kernels, job->out.c, panel);
        w->out_plane = w->count * w->columns + PLANE_GAP;
        kernels->winograd_taps(w, taps);
        kernels->winograd_output(w);
    }
}

/* Task: one run of tiles, and one group of panels. */
static void winograd_task(void *payload, unsigned index, unsigned worker)
{
    const winograd_job *job = payload;
    const dn_cpu_run *run = job->run;
    const size_t block = index / job->groups, group = index % job->groups;
    const size_t first = block * job->tiles / job->blocks, count = (block + 1) * job->tiles / job->blocks - first;
    const size_t panel_first = group * job->panels / job->groups, panel_end = (group + 1) * job->panels / job->groups;
    float *zeros = dn_cpu_scratch(run, worker);
    dn_winograd w = {
        .in = dn_cpu_in(run, 0),
        .out = dn_cpu_out(run),
        .bias = dn_cpu_weight(run, run->node->bias),
        .row_bias = dn_cpu_in(run, 1),
        .residual = dn_cpu_in(run, 2),
        .zeros = zeros,
        .scale = run->node->scale,
        .side = job->form.side,
        .height = job->out.h,
        .width = job->out.w,
        .channels_in = job->in.c,
        .channels_out = job->out.c,
        .tiles_y = job->tiles_y,
        .tiles_x = job->tiles_x,
        .first = first,
        .count = count,
        .group = job->form.kept ? count : run->kernels->tap_tiles,
        .in_row = job->in.c + ROW_GAP,
        .transformed = zeros + job->in.c,
    };
    w.products = w.transformed + job->positions * count * w.in_row;
    memset(zeros, 0, job->in.c * sizeof *zeros);
    run->kernels->winograd_input(&w);
    if (job->form.kept)
        multiply_kept(job, &w, panel_first, panel_end);
    else
        multiply_taps(job, &w, panel_first, panel_end);
}

void dn_cpu_winograd(const dn_cpu_run *run, dn_winograd_form form)
{
    winograd_job job = {.run = run, .form = form, .in = dn_cpu_shape(run, run->node->in[0]), .out = dn_cpu_shape(run, run->node->out)};
    job.positions = (form.side + 2) * (form.side + 2);
    job.tiles_y = (job.out.h + form.side - 1) / form.side;
    job.tiles_x = (job.out.w + form.side - 1) / form.side;
    job.tiles = job.tiles_y * job.tiles_x * run->row_count;
    job.panels = dn_cpu_panels(run->kernels, job.out.c);
    job.groups = 1;
    size_t most = tiles_of_task(run->kernels, form, job.in.c, job.out.c), wanted = 2 * dn_cpu_threads(run);
    job.blocks = (job.tiles + most - 1) / most;
    if (dn_cpu_threads(run) > 1 && job.blocks < wanted) {
        job.blocks = dn_cpu_max(job.blocks, dn_cpu_min(wanted, job.tiles / TILES_MIN));
        job.groups = dn_cpu_min(job.panels, (wanted + job.blocks - 1) / job.blocks);
    }
    double work = 2.0 * (double)job.positions * (double)job.tiles * job.in.c * job.out.c;
    dn_cpu_parallel(run, work, job.blocks * job.groups, winograd_task, &job);
}
