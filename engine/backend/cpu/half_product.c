/* A node's product in 16 bits: its rows are converted once, then tasks multiply blocks of them by groups of the weight's panels.
 *
 * Invariant: tasks cut outputs only, never a sum, and a row is converted by its own numbers alone. The converted rows lie behind the
 * values of the region that the run computes in, those of each row apart: several runs may share a region. Tasks run on the run's pool. */
#include "backend/cpu/half.h"

#define CONVERT_PIXELS 32u /* rows of the product that one task converts */
#define BLOCK_TILES 8u /* tiles of a task: several for each pass over a weight panel */
#define GROUP_SLOTS 262144u /* 1 MB of weight: what a group of panels holds when the whole is larger */

typedef struct half_job {
    const dn_cpu_run *run;
    const dn_cpu_half *half;
    size_t depth, columns, row_slots;
    size_t pixels; /* of all images */
    float *converted; /* [pixels][row_slots] */
    size_t images, rows; /* a product's images and their rows: one image of all rows where nothing belongs to an image alone */
    size_t conversions, blocks, groups, panels; /* blocks of an image */
} half_job;

size_t dn_cpu_half_row_floats(const dn_network *network)
{
    size_t most = 0;
    for (uint32_t n = 0; n < network->plan->node_count; n++) {
        const dn_cpu_half *half = network->nodes[n].half;
        if (!half)
            continue;
        dn_shape in = network->plan->values[network->plan->nodes[n].in[0]].shape;
        most = dn_cpu_max(most, (size_t)in.h * in.w * dn_cpu_half_row_slots(half, in.c));
    }
    return most;
}

/* Task: some rows to slots. */
static void convert_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const half_job *job = payload;
    size_t first = index * job->pixels / job->conversions, end = (index + 1) * job->pixels / job->conversions;
    job->half->convert(job->converted + first * job->row_slots, job->row_slots, dn_cpu_in(job->run, 0) + first * job->depth, end - first,
                       job->depth);
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
    size_t first = block * job->rows / job->blocks, count = (block + 1) * job->rows / job->blocks - first;
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
        .k = dn_cpu_half_steps(job->half, job->depth),
        .n = job->columns,
    };
    if (linear && dn_cpu_in(run, 2))
        gemm.gate = dn_cpu_in(run, 2) + image * dn_cpu_shape(run, node->in[2]).c + node->gate_offset;
    job->half->gemm(&gemm, group * job->panels / job->groups, (group + 1) * job->panels / job->groups);
}

/* Blocks of whole tiles, enough of them for every thread to find one when another is late, and groups that stay in a cache. */
static void cut_product(half_job *job)
{
    size_t tiles = (job->rows + job->half->tile_rows - 1) / job->half->tile_rows;
    size_t threads = dn_cpu_threads(job->run), wanted = threads > 1 ? 2 * threads : 1;
    job->panels = job->columns / job->half->panel;
    job->blocks = (tiles + BLOCK_TILES - 1) / BLOCK_TILES;
    if (job->blocks * job->images < wanted)
        job->blocks = dn_cpu_min(tiles, (wanted + job->images - 1) / job->images);
    size_t tasks = job->blocks * job->images;
    job->groups = tasks < wanted ? (wanted + tasks - 1) / tasks : 1;
    if (tasks > 1)
        job->groups = dn_cpu_max(job->groups, dn_cpu_half_packed_count(job->half, job->depth, job->columns) / GROUP_SLOTS);
    job->groups = dn_cpu_min(job->panels, job->groups);
}

void dn_cpu_half_product(const dn_cpu_run *run)
{
    const dn_node *node = run->node;
    dn_shape in = dn_cpu_shape(run, node->in[0]);
    half_job job = {.run = run, .half = run->compiled->half, .depth = in.c, .columns = dn_cpu_shape(run, node->out).c};
    bool by_image = node->kind == DN_NODE_LINEAR ? dn_cpu_in(run, 2) != NULL : dn_cpu_in(run, 1) != NULL;
    job.row_slots = dn_cpu_half_row_slots(job.half, job.depth);
    job.pixels = (size_t)in.h * in.w * run->row_count;
    job.images = by_image ? run->row_count : 1;
    job.rows = job.pixels / job.images;
    job.converted = run->region + run->workspace->half_offset + run->region_first * run->workspace->half_row_floats;
    job.conversions = (job.pixels + CONVERT_PIXELS - 1) / CONVERT_PIXELS;
    cut_product(&job);
    dn_cpu_parallel(run, 4.0 * (double)job.pixels * (double)job.depth, job.conversions, convert_task, &job);
    dn_cpu_parallel(run, 2.0 * (double)job.pixels * (double)job.depth * (double)job.columns, job.images * job.blocks * job.groups,
                    multiply_task, &job);
}
