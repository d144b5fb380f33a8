/* Layer norm with modulation: each pixel's channels alone, then the row's scale and shift.
 *
 * Invariant: a pixel's bytes depend on that pixel and its row's modulation. Tasks run on the run's pool. */
#include "backend/cpu/state.h"

#define BLOCK_PIXELS 64u /* pixels of a task: folding the modulation is then a small part of it */

size_t dn_cpu_layer_norm_scratch(const dn_plan *plan, const dn_node *node)
{
    return 2 * dn_cpu_round_up(plan->values[node->in[0]].shape.c, DN_CPU_LINE_FLOATS);
}

typedef struct layer_job {
    const dn_cpu_run *run;
    size_t pixels, channels, blocks; /* of one row */
} layer_job;

/* y (1 + scale) + shift with y = x weight + bias, as one gain and offset. */
static void fold(const dn_cpu_run *run, size_t row, size_t channels, float *gain, float *offset)
{
    const float *weight = dn_cpu_weight(run, run->node->weight), *bias = dn_cpu_weight(run, run->node->bias);
    const float *modulation = dn_cpu_in_row(run, 1, row);
    const float *scale = modulation + run->node->scale_offset, *shift = modulation + run->node->shift_offset;
    for (size_t c = 0; c < channels; c++) {
        float factor = 1.0f + scale[c];
        gain[c] = weight ? weight[c] * factor : factor;
        offset[c] = bias ? bias[c] * factor + shift[c] : shift[c];
    }
}

/* Task: a block of pixels of one row. */
static void layer_task(void *payload, unsigned index, unsigned worker)
{
    const layer_job *job = payload;
    const dn_cpu_run *run = job->run;
    size_t row = index / job->blocks, block = index % job->blocks;
    size_t first = block * job->pixels / job->blocks, count = (block + 1) * job->pixels / job->blocks - first;
    const float *gain = dn_cpu_weight(run, run->node->weight), *offset = dn_cpu_weight(run, run->node->bias);
    if (run->node->in[1] != DN_NONE) {
        float *scratch = dn_cpu_scratch(run, worker);
        size_t room = dn_cpu_round_up(job->channels, DN_CPU_LINE_FLOATS);
        fold(run, row, job->channels, scratch, scratch + room);
        gain = scratch;
        offset = scratch + room;
    }
    size_t start = first * job->channels;
    run->kernels->layer_norm(dn_cpu_out_row(run, row) + start, dn_cpu_in_row(run, 0, row) + start, count, job->channels, gain, offset,
                             run->node->epsilon);
}

void dn_cpu_layer_norm(const dn_cpu_run *run)
{
    dn_shape shape = dn_cpu_shape(run, run->node->out);
    layer_job job = {.run = run, .pixels = (size_t)shape.h * shape.w, .channels = shape.c};
    job.blocks = (job.pixels + BLOCK_PIXELS - 1) / BLOCK_PIXELS;
    dn_cpu_parallel(run, 10.0 * dn_cpu_elements_of(run, run->node->out), run->row_count * job.blocks, layer_task, &job);
}
