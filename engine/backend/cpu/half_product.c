/* A node's product whose rows are laid out anew first: converted to 16 bits, or as floats a little further apart. Then tasks multiply
 * blocks of rows by groups of the weight's panels.
 *
 * Invariant: tasks cut outputs only, never a sum, and a row is converted by its own numbers alone. The converted rows lie behind the
 * values of the region that the run computes in, those of each row apart: several runs may share a region. Tasks run on the run's pool. */
#include "backend/cpu/half.h"

#include <string.h>

#define CONVERT_PIXELS 32u /* rows of the product that one task converts */
#define BLOCK_TILES 8u /* tiles of a task: several for each pass over a weight panel */
#define TASKS_OF_A_THREAD 8u /* enough for threads to end together, also when a neighbour takes part of one */
#define TASK_FLOPS 1e7 /* smaller tasks balance nothing more */
#define GROUP_SLOTS 262144u /* 1 MB of weight: what a group of panels holds when the whole is larger */

typedef struct half_job {
    const dn_cpu_run *run;
    const dn_cpu_half *half; /* NULL: in float */
    void (*gemm)(const dn_gemm *gemm, size_t panel_first, size_t panel_end);
    size_t panel, tile_rows, steps; /* columns of a panel, rows of the microkernel, steps of the sum */
    size_t depth, columns, row_slots;
    size_t pixels; /* of all images */
    float *converted; /* [pixels][row_slots] */
    size_t images, rows; /* a product's images and their rows: one image of all rows where nothing belongs to an image alone */
    size_t conversions, blocks, groups, panels; /* blocks of an image */
} half_job;

/* Floats from one converted row to the next: never a power of two. */
static size_t row_slots(const dn_cpu_half *half, size_t depth)
{
    return half ? dn_cpu_half_row_slots(half, depth) : depth + DN_CPU_LINE_FLOATS;
}

size_t dn_cpu_half_row_floats(const dn_network *network)
{
    size_t most = 0;
    for (uint32_t n = 0; n < network->plan->node_count; n++) {
        if (!network->nodes[n].half && !network->nodes[n].apart)
            continue;
        dn_shape in = network->plan->values[network->plan->nodes[n].in[0]].shape;
        most = dn_cpu_max(most, (size_t)in.h * in.w * row_slots(network->nodes[n].half, in.c));
    }
    return most;
}

/* Task: some rows to slots, or copied. */
static void convert_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const half_job *job = payload;
    size_t first = index * job->pixels / job->conversions, end = (index + 1) * job->pixels / job->conversions;
    const float *from = dn_cpu_in(job->run, 0);
    if (job->half)
        job->half->convert(job->converted + first * job->row_slots, job->row_slots, from + first * job->depth, end - first, job->depth);
    for (size_t row = first; row < end && !job->half; row++)
        memcpy(job->converted + row * job->row_slots, from + row * job->depth, job->depth * sizeof *from);
}

/* Where a block begins: at a whole tile. */
static size_t block_begin(const half_job *job, size_t index)
{
    size_t tiles = (job->rows + job->tile_rows - 1) / job->tile_rows;
    return dn_cpu_min(job->rows, index * tiles / job->blocks * job->tile_rows);
}

/* Task: a block of rows by a group of panels. Tasks of one group follow each other, so that a large weight comes from memory once. */
static void multiply_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const half_job *job = payload;
    const dn_cpu_run *run = job->run;
    const dn_node *node = run->node;
    bool linear = node->kind == DN_NODE_LINEAR;
    size_t block = index % job->blocks, image = index / job->blocks % job->images, group = index / job->blocks / job->images;
    size_t first = block_begin(job, block), count = block_begin(job, block + 1) - first;
    size_t pixel = image * job->rows + first;
    const float *residual = dn_cpu_in(run, linear ? 1 : 2), *row_bias = linear ? NULL : dn_cpu_in(run, 1);
    dn_gemm gemm = {
        .a = job->converted + pixel * job->row_slots,
        .a_row = job->row_slots,
        .b = run->compiled->packed,
        .out = dn_cpu_out(run) + pixel * job->columns,
        .out_row = job->columns,
        .residual = residual ? residual + pixel * job->columns : NULL,
        .residual_row = job->columns,
        .bias = dn_cpu_weight(run, node->bias),
        .row_bias = row_bias ? row_bias + image * job->columns : NULL,
        .scale = node->scale,
        .activation = node->activation,
        .lines = 1,
        .rows = count,
        .segments = 1,
        .k = job->steps,
        .n = job->columns,
    };
    if (linear && dn_cpu_in(run, 2))
        gemm.gate = dn_cpu_in(run, 2) + image * dn_cpu_shape(run, node->in[2]).c + node->gate_offset;
    job->gemm(&gemm, group * job->panels / job->groups, (group + 1) * job->panels / job->groups);
}

/* Blocks of whole tiles, and groups of columns until there are tasks enough: to cut columns costs nothing. A weight past the caches'
 * size is cut further where several blocks pass over it. */
static void cut_product(half_job *job, double work)
{
    size_t tiles = (job->rows + job->tile_rows - 1) / job->tile_rows, threads = dn_cpu_threads(job->run), wanted = 1;
    if (threads > 1)
        wanted = dn_cpu_max(2 * threads, dn_cpu_min(TASKS_OF_A_THREAD * threads, (size_t)(work / TASK_FLOPS)));
    job->panels = (job->columns + job->panel - 1) / job->panel;
    job->blocks = (tiles + BLOCK_TILES - 1) / BLOCK_TILES;
    size_t pieces = job->images * job->blocks;
    job->groups = dn_cpu_min(job->panels, (wanted + pieces - 1) / pieces);
    if (pieces * job->groups < wanted)
        job->blocks = dn_cpu_min(tiles, (wanted + job->images * job->groups - 1) / (job->images * job->groups));
    if (job->images * job->blocks > 1)
        job->groups = dn_cpu_min(job->panels, dn_cpu_max(job->groups, job->columns * job->steps / GROUP_SLOTS));
}

static half_job describe(const dn_cpu_run *run)
{
    const dn_cpu_half *half = run->compiled->half;
    dn_shape in = dn_cpu_shape(run, run->node->in[0]);
    half_job job = {.run = run, .half = half, .depth = in.c, .columns = dn_cpu_shape(run, run->node->out).c};
    job.gemm = half ? half->gemm : run->kernels->gemm;
    job.panel = half ? half->panel : run->kernels->panel;
    job.tile_rows = half ? half->tile_rows : run->kernels->tile_rows;
    job.steps = half ? dn_cpu_half_steps(half, job.depth) : job.depth;
    job.row_slots = row_slots(half, job.depth);
    job.pixels = (size_t)in.h * in.w * run->row_count;
    return job;
}

void dn_cpu_half_product(const dn_cpu_run *run)
{
    half_job job = describe(run);
    bool by_image = run->node->kind == DN_NODE_LINEAR ? dn_cpu_in(run, 2) != NULL : dn_cpu_in(run, 1) != NULL;
    job.images = by_image ? run->row_count : 1;
    job.rows = job.pixels / job.images;
    job.converted = run->region + run->workspace->half_offset + run->region_first * run->workspace->half_row_floats;
    job.conversions = (job.pixels + CONVERT_PIXELS - 1) / CONVERT_PIXELS;
    double elements = (double)job.pixels * (double)job.depth, work = 2.0 * elements * (double)job.columns;
    cut_product(&job, work);
    dn_cpu_parallel(run, elements, job.conversions, convert_task, &job);
    dn_cpu_parallel(run, work, job.images * job.blocks * job.groups, multiply_task, &job);
}
