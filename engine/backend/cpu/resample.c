/* The nodes that double or halve an image, each channel alone, and the one that lays patches out as an image.
 *
 * Invariant: each task writes one image or some of its lines. Compiled without fused multiply-add, so these agree on every
 * instruction set. Tasks run on the run's pool. */
#include <string.h>

#include "backend/cpu/state.h"

#define FIR_TAPS 4

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
    dn_cpu_parallel(run, DN_CPU_MOVE_WORK * dn_cpu_elements_of(run, run->node->out), lines, upsample_task, run);
}

/* Task: one line of one output image. */
static void average_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    dn_shape in = dn_cpu_shape(run, run->node->in[0]), out = dn_cpu_shape(run, run->node->out);
    size_t line = (size_t)in.w * in.c, row = index / out.h, y = index % out.h;
    float *to = dn_cpu_out_row(run, row) + y * out.w * out.c;
    for (size_t x = 0; x < out.w; x++, to += out.c) {
        const float *from = dn_cpu_in_row(run, 0, row) + 2 * y * line + 2 * x * in.c;
        for (size_t c = 0; c < in.c; c++)
            to[c] = ((from[c] + from[in.c + c]) + (from[line + c] + from[line + in.c + c])) * 0.25f;
    }
}

void dn_cpu_average_pool2(const dn_cpu_run *run)
{
    size_t lines = dn_cpu_shape(run, run->node->out).h * (size_t)run->row_count;
    dn_cpu_parallel(run, DN_CPU_MOVE_WORK * dn_cpu_elements_of(run, run->node->in[0]), lines, average_task, run);
}

/* One axis of the filter: the inputs that output j is a sum of, with their factors. Returns how many. */
static size_t fir_taps(size_t at[FIR_TAPS], float factor[FIR_TAPS], bool up, size_t j, size_t before, size_t side)
{
    static const float taps[FIR_TAPS] = {0.125f, 0.375f, 0.375f, 0.125f};
    size_t count = 0;
    for (size_t k = 0; k < FIR_TAPS; k++) {
        size_t place = (up ? j : 2 * j) + k; /* counted from the border's edge */
        if (place < before || (up && (place - before) % 2))
            continue;
        size_t source = up ? (place - before) / 2 : place - before;
        if (source >= side)
            continue;
        at[count] = source;
        factor[count++] = up ? 2.0f * taps[k] : taps[k];
    }
    return count;
}

static void add_scaled(float *out, const float *in, size_t count, float factor)
{
    for (size_t i = 0; i < count; i++)
        out[i] += factor * in[i];
}

/* Task: one line of one output image. */
static void fir_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    const dn_node *node = run->node;
    bool up = node->kind == DN_NODE_UPSAMPLE_FIR2;
    dn_shape in = dn_cpu_shape(run, node->in[0]), out = dn_cpu_shape(run, node->out);
    size_t row = index / out.h, y = index % out.h;
    const float *image = dn_cpu_in_row(run, 0, row);
    float *to = dn_cpu_out_row(run, row) + y * out.w * out.c;
    size_t lines[FIR_TAPS] = {0}, columns[FIR_TAPS] = {0};
    float down[FIR_TAPS] = {0}, across[FIR_TAPS] = {0};
    size_t line_count = fir_taps(lines, down, up, y, node->pad_top, in.h);
    for (size_t x = 0; x < out.w; x++, to += out.c) {
        size_t column_count = fir_taps(columns, across, up, x, node->pad_left, in.w);
        memset(to, 0, out.c * sizeof *to);
        for (size_t i = 0; i < line_count; i++) {
            for (size_t j = 0; j < column_count; j++)
                add_scaled(to, image + (lines[i] * in.w + columns[j]) * in.c, in.c, down[i] * across[j]);
        }
    }
}

void dn_cpu_fir(const dn_cpu_run *run)
{
    size_t lines = dn_cpu_shape(run, run->node->out).h * (size_t)run->row_count;
    dn_cpu_parallel(run, 16.0 * dn_cpu_elements_of(run, run->node->out), lines, fir_task, run);
}

/* Task: one line of one output image. A patch's line of p pixels lies together in the input and in the output. */
static void unpatchify_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const dn_cpu_run *run = payload;
    dn_shape in = dn_cpu_shape(run, run->node->in[0]), out = dn_cpu_shape(run, run->node->out);
    size_t patch = run->node->kernel, piece = patch * out.c, row = index / out.h, y = index % out.h;
    const float *from = dn_cpu_in_row(run, 0, row) + y / patch * in.w * in.c + y % patch * piece;
    float *to = dn_cpu_out_row(run, row) + y * out.w * out.c;
    for (size_t x = 0; x < in.w; x++, to += piece)
        memcpy(to, from + x * in.c, piece * sizeof *to);
}

void dn_cpu_unpatchify(const dn_cpu_run *run)
{
    size_t lines = dn_cpu_shape(run, run->node->out).h * (size_t)run->row_count;
    dn_cpu_parallel(run, DN_CPU_MOVE_WORK * dn_cpu_elements_of(run, run->node->out), lines, unpatchify_task, run);
}
