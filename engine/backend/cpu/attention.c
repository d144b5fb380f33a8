/* Self-attention of each row and head, in tasks of whole panels of queries.
 *
 * Invariant: a query's answer depends on its head alone, so the cut into tasks does not show. Tasks run on the run's pool. */
#include <math.h>
#include <string.h>

#include "backend/cpu/state.h"

/* From so many positions on a task copies its head's keys and values together: read in place they would lie a page apart. */
#define COPIED_POSITIONS 128u

static size_t copied_floats(size_t positions, size_t depth)
{
    return positions < COPIED_POSITIONS ? 0 : 2 * positions * depth;
}

size_t dn_cpu_attention_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node)
{
    dn_shape out = plan->values[node->out].shape;
    size_t depth = out.c / node->heads;
    return dn_cpu_attend_scratch(kernels, depth) + copied_floats((size_t)out.h * out.w, depth);
}

typedef struct attention_job {
    const dn_cpu_run *run;
    size_t positions, channels, depth, heads;
    size_t panels, blocks; /* of queries, for each head: panels go in blocks */
} attention_job;

#define ROWS_AHEAD 12u /* that far ahead rows are asked for: pieces of some hundred bytes a page apart are nothing that a CPU foresees */

static void ask_for(const float *x, size_t count)
{
    for (size_t i = 0; i < count; i += DN_CPU_LINE_FLOATS)
        __builtin_prefetch(x + i);
    __builtin_prefetch(x + count - 1);
}

/* Keys and values from their rows of 3 C floats to rows of `depth` floats. */
static void copy_head(const attention_job *job, const float *keys, float *copy)
{
    size_t stride = 3 * job->channels;
    float *values = copy + job->positions * job->depth;
    for (size_t i = 0; i < job->positions; i++) {
        if (i + ROWS_AHEAD < job->positions) {
            ask_for(keys + (i + ROWS_AHEAD) * stride, job->depth);
            ask_for(keys + (i + ROWS_AHEAD) * stride + job->channels, job->depth);
        }
        memcpy(copy + i * job->depth, keys + i * stride, job->depth * sizeof *copy);
        memcpy(values + i * job->depth, keys + i * stride + job->channels, job->depth * sizeof *copy);
    }
}

/* Task: some of the queries of one head of one row. */
static void attention_task(void *payload, unsigned index, unsigned worker)
{
    const attention_job *job = payload;
    const dn_cpu_run *run = job->run;
    size_t block = index % job->blocks, head = index / job->blocks % job->heads, row = index / job->blocks / job->heads;
    size_t panel = run->kernels->panel, channels = job->channels;
    size_t first = block * job->panels / job->blocks * panel;
    size_t end = dn_cpu_min((block + 1) * job->panels / job->blocks * panel, job->positions);
    const float *qkv = dn_cpu_in(run, 0) + row * job->positions * 3 * channels + head * job->depth;
    dn_attend attend = {
        .queries = qkv + first * 3 * channels,
        .keys = qkv + channels,
        .values = qkv + 2 * channels,
        .out = dn_cpu_out(run) + (row * job->positions + first) * channels + head * job->depth,
        .query_row = 3 * channels,
        .key_row = 3 * channels,
        .out_row = channels,
        .count = end - first,
        .positions = job->positions,
        .depth = job->depth,
        .scale = (float)(1.0 / sqrt((double)job->depth)),
        .scratch = dn_cpu_scratch(run, worker),
    };
    if (copied_floats(job->positions, job->depth)) {
        float *copy = attend.scratch + dn_cpu_attend_scratch(run->kernels, job->depth);
        copy_head(job, attend.keys, copy);
        attend.keys = copy;
        attend.values = copy + job->positions * job->depth;
        attend.key_row = job->depth;
    }
    run->kernels->attend(&attend);
}

void dn_cpu_attention(const dn_cpu_run *run)
{
    dn_shape out = dn_cpu_shape(run, run->node->out);
    attention_job job = {
        .run = run,
        .positions = (size_t)out.h * out.w,
        .channels = out.c,
        .depth = out.c / run->node->heads,
        .heads = run->node->heads,
        .panels = dn_cpu_panels(run->kernels, (size_t)out.h * out.w),
        .blocks = 1,
    };
    size_t heads = job.heads * run->row_count, threads = dn_cpu_threads(run);
    if (threads > 1 && heads < 2 * threads)
        job.blocks = dn_cpu_min(job.panels, (2 * threads + heads - 1) / heads);
    double work = (double)(4 * job.depth + 20) * (double)job.positions * (double)job.positions * (double)heads;
    dn_cpu_parallel(run, work, heads * job.blocks, attention_task, &job);
}
