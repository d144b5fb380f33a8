/* Group norm with scale, shift and activation in one node; global pooling, which needs the same channel sums.
 *
 * Invariant: statistics are sums over one image in an order given by its shape; a task owns whole groups.
 * Tasks run on the run's pool. */
#include <math.h>

#include "backend/cpu/state.h"

/* Task-owned arrays of `channels` floats and doubles, carved from a worker's scratch. */
typedef struct statistics {
    double *sums;
    float *mean, *gain, *offset;
} statistics;

static statistics carve(float *scratch, size_t channels)
{
    size_t room = dn_cpu_round_up(channels, DN_CPU_LINE_FLOATS);
    return (statistics){(double *)(void *)scratch, scratch + 2 * room, scratch + 3 * room, scratch + 4 * room};
}

size_t dn_cpu_group_norm_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node)
{
    (void)kernels;
    return 5 * dn_cpu_round_up(plan->values[node->in[0]].shape.c, DN_CPU_LINE_FLOATS);
}

typedef struct norm_job {
    const dn_cpu_run *run;
    dn_shape shape;
    size_t pixels;
    size_t slice_groups, slices; /* groups of a task; tasks of a row */
} norm_job;

/* Groups that fill whole vectors together, so that slices cut no vector: 16 channels or their multiple where possible. */
static size_t groups_of_slice(size_t channels, size_t groups)
{
    size_t width = channels / groups;
    for (size_t count = 1; count < groups; count++) {
        if (groups % count == 0 && count * width % DN_CPU_LINE_FLOATS == 0)
            return count;
    }
    return groups;
}

/* Every channel of a group gets the sum over the group, times `factor`. */
static void share_sums(double *sums, size_t channels, size_t width, double factor)
{
    for (size_t first = 0; first < channels; first += width) {
        double sum = 0.0;
        for (size_t c = first; c < first + width; c++)
            sum += sums[c];
        for (size_t c = first; c < first + width; c++)
            sums[c] = sum * factor;
    }
}

/* gain and offset of each channel: y = (x - mean) gain + offset, with the modulation multiplied in. */
static void fold(const norm_job *job, size_t row, size_t first, size_t channels, const statistics *s)
{
    const dn_cpu_run *run = job->run;
    const float *weight = dn_cpu_weight(run, run->node->weight) + first, *bias = dn_cpu_weight(run, run->node->bias) + first;
    const float *modulation = dn_cpu_in(run, 1);
    for (size_t c = 0; c < channels; c++) {
        double gain = (double)weight[c] / sqrt(s->sums[c] + (double)run->node->epsilon), offset = (double)bias[c];
        if (modulation) {
            const float *scale = modulation + row * 2 * job->shape.c + first, *shift = scale + job->shape.c;
            gain *= 1.0 + (double)scale[c];
            offset = offset * (1.0 + (double)scale[c]) + (double)shift[c];
        }
        s->gain[c] = (float)gain;
        s->offset[c] = (float)offset;
    }
}

/* Task: a slice of groups of one row. */
static void norm_task(void *payload, unsigned index, unsigned worker)
{
    const norm_job *job = payload;
    const dn_cpu_run *run = job->run;
    size_t row = index / job->slices, stride = job->shape.c, width = stride / run->node->groups;
    size_t channels = job->slice_groups * width, first = index % job->slices * channels;
    size_t start = row * dn_shape_count(job->shape) + first;
    const float *x = dn_cpu_in(run, 0) + start;
    float *out = dn_cpu_out(run) + start;
    statistics s = carve(dn_cpu_scratch(run, worker), channels);
    double factor = 1.0 / ((double)job->pixels * (double)width);
    run->kernels->channel_sums(s.sums, x, job->pixels, stride, channels, NULL, 1);
    share_sums(s.sums, channels, width, factor);
    for (size_t c = 0; c < channels; c++)
        s.mean[c] = (float)s.sums[c];
    run->kernels->channel_sums(s.sums, x, job->pixels, stride, channels, s.mean, 2);
    share_sums(s.sums, channels, width, factor);
    fold(job, row, first, channels, &s);
    run->kernels->normalize(out, x, job->pixels, stride, channels, s.mean, s.gain, s.offset, run->node->activation);
}

void dn_cpu_group_norm(const dn_cpu_run *run)
{
    dn_shape shape = dn_cpu_shape(run, run->node->out);
    norm_job job = {.run = run, .shape = shape, .pixels = (size_t)shape.h * shape.w};
    job.slice_groups = groups_of_slice(shape.c, run->node->groups);
    job.slices = run->node->groups / job.slice_groups;
    size_t wanted = dn_cpu_threads(run) > 1 ? 4 * dn_cpu_threads(run) : 1; /* wider slices read an image in fewer, longer runs */
    while (job.slices % 2 == 0 && job.slices * run->row_count > wanted) {
        job.slices /= 2;
        job.slice_groups *= 2;
    }
    double work = 30.0 * (double)dn_shape_count(shape) * run->row_count;
    dn_cpu_parallel(run, work, run->row_count * job.slices, norm_task, &job);
}

/* Task: one row's mean over its pixels. */
static void pool_task(void *payload, unsigned index, unsigned worker)
{
    const norm_job *job = payload;
    const dn_cpu_run *run = job->run;
    size_t channels = job->shape.c;
    statistics s = carve(dn_cpu_scratch(run, worker), channels);
    const float *x = dn_cpu_in(run, 0) + index * dn_shape_count(job->shape);
    float *out = dn_cpu_out(run) + index * channels;
    run->kernels->channel_sums(s.sums, x, job->pixels, channels, channels, NULL, 1);
    for (size_t c = 0; c < channels; c++)
        s.mean[c] = (float)(s.sums[c] / (double)job->pixels);
    run->kernels->activate(out, s.mean, channels, run->node->activation);
}

void dn_cpu_global_pool(const dn_cpu_run *run)
{
    dn_shape shape = dn_cpu_shape(run, run->node->in[0]);
    norm_job job = {.run = run, .shape = shape, .pixels = (size_t)shape.h * shape.w};
    double work = (double)dn_shape_count(shape) * run->row_count;
    dn_cpu_parallel(run, work, run->row_count, pool_task, &job);
}
