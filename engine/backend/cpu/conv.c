/* Convolution and linear nodes, cut into tasks of the matrix product.
 *
 * A convolution needs no im2col: in NHWC the kw * C inputs under one row of the kernel lie together, so an output pixel
 * is kh runs of kw * C floats, and neighbouring pixels' runs overlap. A task copies the input lines it needs into its
 * scratch with their zero border; without padding it reads the input in place.
 * Invariant: tasks cut outputs only, never a sum. Tasks run on the run's pool. */
#include <string.h>

#include "backend/cpu/winograd.h"

#define BLOCK_PIXELS 112u /* output pixels of a task: several tiles for each pass over a weight panel */
#define SCRATCH_FLOATS_MAX 49152u /* 192 KB of bordered input: leaves the L2 cache room for weights */
#define GROUP_FLOATS 262144u /* 1 MB of a linear layer's weight: what a group of panels holds when the whole is larger */
#define TILE_PIXELS_MIN 8u /* fewer rows than this leave the multiply-add units waiting */
#define TASK_FLOPS 1e7 /* 40 microseconds of one core: smaller tasks balance nothing more */
#define TASKS_OF_A_THREAD 8u /* enough for threads to end together, also when a neighbour takes part of one */

typedef struct geometry {
    dn_shape in, out;
    size_t kernel, stride, top, left, bottom, right;
    size_t pitch; /* floats of one bordered input line */
} geometry;

static geometry measure(const dn_plan *plan, const dn_node *node)
{
    geometry g = {
        .in = plan->values[node->in[0]].shape,
        .out = plan->values[node->out].shape,
        .kernel = node->kernel,
        .stride = node->stride,
        .top = node->pad_top,
        .left = node->pad_left,
        .bottom = node->pad_bottom,
        .right = node->pad_right,
    };
    g.pitch = (g.in.w + g.left + g.right) * g.in.c;
    return g;
}

static bool bordered(const geometry *g)
{
    return (g->top | g->left | g->bottom | g->right) != 0;
}

static size_t input_lines(const geometry *g, size_t lines)
{
    return (lines - 1) * g->stride + g->kernel;
}

/* Most output lines that one task takes: about BLOCK_PIXELS pixels, within the scratch. */
static size_t block_lines(const geometry *g)
{
    size_t lines = dn_cpu_min(g->out.h, dn_cpu_max(1, BLOCK_PIXELS / g->out.w));
    while (lines > 1 && input_lines(g, lines) * g->pitch > SCRATCH_FLOATS_MAX)
        lines--;
    return lines;
}

size_t dn_cpu_conv_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node)
{
    if (dn_cpu_winograd_form(plan, node).side != 0)
        return dn_cpu_winograd_scratch(kernels, plan, node);
    geometry g = measure(plan, node);
    return bordered(&g) ? input_lines(&g, block_lines(&g)) * g.pitch : 0;
}

/* Copies `count` input lines from `first` (counted from the top border) with their borders into `to`. */
static void copy_bordered(float *to, const float *image, const geometry *g, size_t first, size_t count)
{
    size_t c = g->in.c, line = g->in.w * c;
    for (size_t y = first; y < first + count; y++, to += g->pitch) {
        if (y < g->top || y >= g->top + g->in.h) {
            memset(to, 0, g->pitch * sizeof *to);
            continue;
        }
        memset(to, 0, g->left * c * sizeof *to);
        memcpy(to + g->left * c, image + (y - g->top) * line, line * sizeof *to);
        memset(to + g->left * c + line, 0, g->right * c * sizeof *to);
    }
}

/* A node's outputs cut in two ways: blocks of lines or rows, and groups of panels. */
typedef struct cut {
    const dn_cpu_run *run;
    geometry g;
    size_t images, blocks, groups, panels; /* blocks of an image; linear without a gate: one image, of all rows */
    size_t rows; /* linear without a gate: pixels of all rows together; else: pixels of an image */
} cut;

/* Enough tasks for every thread to find one when another is late; more groups only where blocks are few. */
static void choose_groups(cut *c, size_t tasks_so_far, size_t columns)
{
    size_t wanted = 2 * dn_cpu_threads(c->run);
    c->panels = dn_cpu_panels(c->run->kernels, columns);
    c->groups = 1;
    if (dn_cpu_threads(c->run) > 1 && tasks_so_far < wanted)
        c->groups = dn_cpu_min(c->panels, (wanted + tasks_so_far - 1) / tasks_so_far);
}

/* Blocks of about `most` out of `total` lines, but enough of them that `others` times as many feed every thread. */
static size_t choose_blocks(const dn_cpu_run *run, size_t total, size_t most, size_t others)
{
    size_t blocks = (total + most - 1) / most;
    size_t wanted = (2 * dn_cpu_threads(run) + others - 1) / others;
    if (dn_cpu_threads(run) > 1 && blocks < wanted)
        blocks = dn_cpu_max(blocks, dn_cpu_min(wanted, total));
    return blocks;
}

/* Where block `index` of the pixels begins: at a whole tile of the microkernel where blocks hold several. */
static size_t block_begin(const cut *c, size_t index)
{
    size_t unit = c->rows / c->blocks >= 2 * c->run->kernels->tile_rows ? c->run->kernels->tile_rows : 1;
    return dn_cpu_min(c->rows, dn_cpu_round_up(index * c->rows / c->blocks, unit));
}

/* Pixels are cut into blocks that stay in a cache, and columns into groups until there are tasks enough: to cut columns costs
 * nothing, while few pixels leave the multiply-add units waiting. A weight past the caches' size is cut further where several blocks
 * pass over it. */
static void cut_pixels(cut *c, double work)
{
    size_t threads = dn_cpu_threads(c->run), least = threads > 1 ? 2 * threads : 1, wanted = least;
    if (threads > 1)
        wanted = dn_cpu_max(least, dn_cpu_min(TASKS_OF_A_THREAD * threads, (size_t)(work / TASK_FLOPS)));
    c->panels = dn_cpu_panels(c->run->kernels, c->g.out.c);
    c->blocks = (c->rows + BLOCK_PIXELS - 1) / BLOCK_PIXELS;
    size_t pieces = c->images * c->blocks, floats = c->panels * c->run->kernels->panel * c->g.in.c;
    c->groups = dn_cpu_min(c->panels, (wanted + pieces - 1) / pieces);
    if (pieces * c->groups < least)
        c->blocks = dn_cpu_min((least + c->images * c->groups - 1) / (c->images * c->groups), dn_cpu_max(1, c->rows / TILE_PIXELS_MIN));
    if (c->images * c->blocks > 1)
        c->groups = dn_cpu_min(c->panels, dn_cpu_max(c->groups, floats / GROUP_FLOATS));
}

/* What every product of a node has in common. */
static dn_gemm product(const dn_cpu_run *run, size_t columns)
{
    return (dn_gemm){
        .b = run->compiled->packed,
        .bias = dn_cpu_weight(run, run->node->bias),
        .scale = run->node->scale,
        .activation = run->node->activation,
        .lines = 1,
        .segments = 1,
        .out_row = columns,
        .residual_row = columns,
        .n = columns,
    };
}

static void multiply_group(const cut *c, const dn_gemm *gemm, size_t group)
{
    c->run->kernels->gemm(gemm, group * c->panels / c->groups, (group + 1) * c->panels / c->groups);
}

/* Task: a block of lines of one row's image, and a group of panels. */
static void conv_task(void *payload, unsigned index, unsigned worker)
{
    const cut *c = payload;
    const dn_cpu_run *run = c->run;
    const geometry *g = &c->g;
    size_t group = index % c->groups, block = index / c->groups % c->blocks, row = index / c->groups / c->blocks;
    size_t first = block * g->out.h / c->blocks, lines = (block + 1) * g->out.h / c->blocks - first;
    const float *image = dn_cpu_in(run, 0) + row * dn_shape_count(g->in);
    dn_gemm gemm = product(run, g->out.c);
    if (bordered(g)) {
        float *scratch = dn_cpu_scratch(run, worker);
        copy_bordered(scratch, image, g, first * g->stride, input_lines(g, lines));
        gemm.a = scratch;
    } else {
        gemm.a = image + first * g->stride * g->pitch;
    }
    gemm.a_row = g->stride * g->in.c;
    gemm.a_line = g->stride * g->pitch;
    gemm.a_segment = g->pitch;
    gemm.segments = g->kernel;
    gemm.k = g->kernel * g->in.c;
    gemm.lines = lines;
    gemm.rows = g->out.w;
    gemm.out_line = gemm.residual_line = (size_t)g->out.w * g->out.c;
    size_t offset = row * dn_shape_count(g->out) + first * gemm.out_line;
    gemm.out = dn_cpu_out(run) + offset;
    gemm.row_bias = dn_cpu_in(run, 1) ? dn_cpu_in(run, 1) + row * g->out.c : NULL;
    gemm.residual = dn_cpu_in(run, 2) ? dn_cpu_in(run, 2) + offset : NULL;
    multiply_group(c, &gemm, group);
}

/* `count` pixels from `first` of all rows together (of image `row`, with a gate or in a convolution), without their columns. */
static dn_gemm pixel_product(const cut *c, size_t row, size_t first, size_t count)
{
    const dn_cpu_run *run = c->run;
    bool linear = run->node->kind == DN_NODE_LINEAR;
    size_t columns = c->g.out.c, depth = c->g.in.c, pixel = row * c->rows + first;
    const float *residual = dn_cpu_in(run, linear ? 1 : 2), *row_bias = linear ? NULL : dn_cpu_in(run, 1);
    dn_gemm gemm = product(run, columns);
    gemm.a = dn_cpu_in(run, 0) + pixel * depth;
    gemm.a_row = depth;
    gemm.k = depth;
    gemm.rows = count;
    gemm.out = dn_cpu_out(run) + pixel * columns;
    gemm.row_bias = row_bias ? row_bias + row * columns : NULL;
    gemm.residual = residual ? residual + pixel * columns : NULL;
    if (linear && dn_cpu_in(run, 2))
        gemm.gate = dn_cpu_in(run, 2) + row * dn_cpu_shape(run, run->node->in[2]).c + run->node->gate_offset;
    return gemm;
}

/* Task: a block of pixels (of one image for a 1x1 convolution or a gate, of all rows together for a linear node) and a group.
 * Tasks of one group follow each other, so that a large weight comes from memory once, whoever takes them. */
static void pixel_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const cut *c = payload;
    size_t block = index % c->blocks, row = index / c->blocks % c->images, group = index / c->blocks / c->images;
    size_t first = block_begin(c, block), count = block_begin(c, block + 1) - first;
    dn_gemm gemm = pixel_product(c, row, first, count);
    multiply_group(c, &gemm, group);
}

static double work_of(const cut *c, size_t pixels, size_t depth)
{
    return 2.0 * (double)pixels * (double)depth * c->g.out.c;
}

void dn_cpu_conv(const dn_cpu_run *run)
{
    dn_winograd_form form = dn_cpu_winograd_form(run->plan, run->node);
    if (form.side != 0) {
        dn_cpu_winograd(run, form);
        return;
    }
    if (run->compiled->half || run->compiled->apart) {
        dn_cpu_half_product(run);
        return;
    }
    cut c = {.run = run, .g = measure(run->plan, run->node)};
    const geometry *g = &c.g;
    size_t row_count = run->row_count;
    c.images = row_count;
    c.rows = (size_t)g->out.h * g->out.w;
    double work = work_of(&c, row_count * c.rows, g->kernel * g->kernel * g->in.c);
    bool pointwise = g->kernel == 1 && g->stride == 1 && !bordered(g);
    if (pointwise) {
        cut_pixels(&c, work);
    } else {
        c.blocks = choose_blocks(run, g->out.h, block_lines(g), row_count);
        choose_groups(&c, row_count * c.blocks, g->out.c);
    }
    dn_cpu_parallel(run, work, row_count * c.blocks * c.groups, pointwise ? pixel_task : conv_task, &c);
}

void dn_cpu_linear_panels(const dn_cpu_run *run, unsigned worker, size_t first, size_t end)
{
    (void)worker;
    cut c = {.run = run, .images = 1};
    c.g.in = dn_cpu_shape(run, run->node->in[0]);
    c.g.out = dn_cpu_shape(run, run->node->out);
    c.rows = (size_t)c.g.out.h * c.g.out.w * run->row_count;
    dn_gemm gemm = pixel_product(&c, 0, 0, c.rows);
    run->kernels->gemm(&gemm, first, end);
}

void dn_cpu_linear(const dn_cpu_run *run)
{
    if (run->compiled->half || run->compiled->apart) {
        dn_cpu_half_product(run);
        return;
    }
    cut c = {.run = run};
    c.g.in = dn_cpu_shape(run, run->node->in[0]);
    c.g.out = dn_cpu_shape(run, run->node->out);
    c.images = dn_cpu_in(run, 2) ? run->row_count : 1;
    c.rows = (size_t)c.g.out.h * c.g.out.w * (run->row_count / c.images);
    double work = work_of(&c, c.images * c.rows, c.g.in.c);
    cut_pixels(&c, work);
    dn_cpu_parallel(run, work, c.images * c.blocks * c.groups, pixel_task, &c);
}
