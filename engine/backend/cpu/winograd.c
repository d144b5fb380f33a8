/* 3x3 convolutions by Winograd's F(2x2, 3x3): tasks are runs of 2x2 output tiles; each transforms its inputs into its
 * scratch, multiplies 16 times, and transforms back. 2.25 times fewer multiplications than the direct form, and in float
 * as accurate (the transforms of F(2x2) hold only 0, 1 and 1/2; larger tiles lose a digit).
 *
 * Invariant: which convolutions come here depends on their shape alone. Tasks run on the run's pool. */
#include <string.h>

#include "backend/cpu/state.h"

#define SCRATCH_FLOATS 98304u /* 384 KB for the transformed tiles: leaves the L2 cache room for weights */
#define TILES_MAX 112u /* tiles of a task: more save no weight traffic worth having */
#define WIDE_WEIGHTS 1048576u /* floats of weight, past which no L2 cache holds it ... */
#define WIDE_TILES 56u /* ... and a task takes more tiles, since each reads it all from further away */
#define TILES_UNIT 14u /* rows of the largest microkernel */
#define TILES_MIN 8u /* fewer tiles than this leave the multiply-add units waiting for weights */
#define CHANNELS_MIN 32u /* with fewer, transforms cost more than multiplications saved */
#define POSITIONS 16u

bool dn_cpu_winograd_fits(const dn_plan *plan, const dn_node *node)
{
    if (node->kind != DN_NODE_CONV || node->kernel != 3 || node->stride != 1)
        return false;
    bool border = node->pad_top == 1 && node->pad_left == 1 && node->pad_bottom == 1 && node->pad_right == 1;
    uint32_t in = plan->values[node->in[0]].shape.c, out = plan->values[node->out].shape.c;
    return border && in >= CHANNELS_MIN && out >= CHANNELS_MIN && in % DN_CPU_LINE_FLOATS == 0 && out % DN_CPU_LINE_FLOATS == 0;
}

/* Tiles that one task takes at most: a multiple of the microkernel's rows that fits the scratch. */
static size_t tiles_of_task(size_t in, size_t out)
{
    if (POSITIONS * in * out >= WIDE_WEIGHTS)
        return WIDE_TILES;
    size_t tiles = dn_cpu_min(TILES_MAX, SCRATCH_FLOATS / (POSITIONS * (in + out)));
    return dn_cpu_max(TILES_UNIT, tiles / TILES_UNIT * TILES_UNIT);
}

size_t dn_cpu_winograd_scratch(const dn_plan *plan, const dn_node *node)
{
    size_t in = plan->values[node->in[0]].shape.c, out = plan->values[node->out].shape.c;
    return in + POSITIONS * tiles_of_task(in, out) * (in + out);
}

/* G g G^T of one 3x3 kernel, G = [1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1]. */
static void transform_kernel(float out[POSITIONS], const float *g)
{
    float half[4][3];
    for (int x = 0; x < 3; x++) {
        float sum = g[x] + g[6 + x];
        half[0][x] = g[x];
        half[1][x] = 0.5f * (sum + g[3 + x]);
        half[2][x] = 0.5f * (sum - g[3 + x]);
        half[3][x] = g[6 + x];
    }
    for (int y = 0; y < 4; y++) {
        float sum = half[y][0] + half[y][2];
        out[4 * y] = half[y][0];
        out[4 * y + 1] = 0.5f * (sum + half[y][1]);
        out[4 * y + 2] = 0.5f * (sum - half[y][1]);
        out[4 * y + 3] = half[y][2];
    }
}

size_t dn_cpu_winograd_packed_count(const dn_cpu_kernels *kernels, size_t inputs, size_t outputs)
{
    return POSITIONS * dn_cpu_packed_count(kernels, inputs, outputs);
}

void dn_cpu_winograd_pack(float *packed, const dn_cpu_kernels *kernels, const float *weight, size_t inputs, size_t outputs)
{
    size_t matrix = dn_cpu_packed_count(kernels, inputs, outputs);
    for (size_t panel = 0; panel < dn_cpu_panels(kernels, outputs); panel++) {
        size_t column = panel * kernels->panel, width = dn_cpu_panel_width(kernels, outputs, panel);
        for (size_t i = 0; i < inputs; i++) {
            float *to = packed + column * inputs + i * width;
            for (size_t j = 0; j < width; j++) {
                float position[POSITIONS];
                transform_kernel(position, weight + ((column + j) * inputs + i) * 9);
                for (size_t p = 0; p < POSITIONS; p++)
                    to[p * matrix + j] = position[p];
            }
        }
    }
}

typedef struct winograd_job {
    const dn_cpu_run *run;
    dn_shape in, out;
    size_t tiles_y, tiles_x; /* of one image */
    size_t tiles, blocks; /* of all rows */
} winograd_job;

static void multiply_positions(const winograd_job *job, const dn_winograd *w)
{
    const dn_cpu_kernels *kernels = job->run->kernels;
    size_t matrix = dn_cpu_packed_count(kernels, w->channels_in, w->channels_out);
    for (size_t p = 0; p < POSITIONS; p++) {
        dn_gemm gemm = {
            .a = w->transformed + p * w->count * w->channels_in,
            .a_row = w->channels_in,
            .b = job->run->compiled->packed + p * matrix,
            .out = w->products + p * w->count * w->channels_out,
            .out_row = w->channels_out,
            .scale = 1.0f,
            .lines = 1,
            .rows = w->count,
            .segments = 1,
            .k = w->channels_in,
            .n = w->channels_out,
        };
        kernels->gemm(&gemm, 0, dn_cpu_panels(kernels, w->channels_out));
    }
}

/* Task: one block of tiles. */
static void winograd_task(void *payload, unsigned index, unsigned worker)
{
    const winograd_job *job = payload;
    const dn_cpu_run *run = job->run;
    float *zeros = dn_cpu_scratch(run, worker);
    size_t first = index * job->tiles / job->blocks, count = (index + 1) * job->tiles / job->blocks - first;
    dn_winograd w = {
        .in = dn_cpu_in(run, 0),
        .out = dn_cpu_out(run),
        .bias = dn_cpu_weight(run, run->node->bias),
        .row_bias = dn_cpu_in(run, 1),
        .residual = dn_cpu_in(run, 2),
        .zeros = zeros,
        .scale = run->node->scale,
        .height = job->out.h,
        .width = job->out.w,
        .channels_in = job->in.c,
        .channels_out = job->out.c,
        .tiles_y = job->tiles_y,
        .tiles_x = job->tiles_x,
        .first = first,
        .count = count,
        .transformed = zeros + job->in.c,
        .products = zeros + job->in.c + POSITIONS * count * job->in.c,
    };
    memset(zeros, 0, job->in.c * sizeof *zeros);
    run->kernels->winograd_input(&w);
    multiply_positions(job, &w);
    run->kernels->winograd_output(&w);
}

void dn_cpu_winograd(const dn_cpu_run *run)
{
    winograd_job job = {.run = run, .in = dn_cpu_shape(run, run->node->in[0]), .out = dn_cpu_shape(run, run->node->out)};
    job.tiles_y = (job.out.h + 1) / 2;
    job.tiles_x = (job.out.w + 1) / 2;
    job.tiles = job.tiles_y * job.tiles_x * run->row_count;
    size_t most = tiles_of_task(job.in.c, job.out.c), wanted = 2 * dn_cpu_threads(run);
    job.blocks = (job.tiles + most - 1) / most;
    if (dn_cpu_threads(run) > 1 && job.blocks < wanted)
        job.blocks = dn_cpu_max(job.blocks, dn_cpu_min(wanted, dn_cpu_max(1, job.tiles / TILES_MIN)));
    double work = 2.0 * POSITIONS * (double)job.tiles * job.in.c * job.out.c;
    dn_cpu_parallel(run, work, job.blocks, winograd_task, &job);
}
