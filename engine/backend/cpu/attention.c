/* Self-attention of each row and head: scores, softmax and answer by the same matrix product as everything else.
 *
 * Invariant: one head's keys and values are packed once a task and its queries go through in blocks; a query's answer
 * depends on its head alone. Tasks run on the run's pool. */
#include <math.h>

#include "backend/cpu/state.h"

#define QUERY_ROWS 56u /* queries whose scores are held at once */

/* One head's scratch, in floats. */
typedef struct layout {
    size_t keys, values, scores;
} layout;

static layout measure(const dn_cpu_kernels *kernels, size_t positions, size_t depth)
{
    return (layout){
        .keys = dn_cpu_round_up(dn_cpu_packed_count(kernels, depth, positions), DN_CPU_LINE_FLOATS),
        .values = dn_cpu_round_up(dn_cpu_packed_count(kernels, positions, depth), DN_CPU_LINE_FLOATS),
        .scores = QUERY_ROWS * positions,
    };
}

size_t dn_cpu_attention_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node)
{
    dn_shape out = plan->values[node->out].shape;
    layout l = measure(kernels, (size_t)out.h * out.w, out.c / node->heads);
    return l.keys + l.values + l.scores;
}

typedef struct attention_job {
    const dn_cpu_run *run;
    size_t positions, channels, depth, heads;
    size_t blocks; /* of queries, for each head */
} attention_job;

/* Keys as the [depth, positions] matrix that queries multiply, values as [positions, depth]. */
static void pack_head(const attention_job *job, const float *qkv, float *keys, float *values)
{
    size_t stride = 3 * job->channels;
    dn_pack key = {.src = qkv + job->channels,
                   .depth_stride = 1,
                   .column_stride = stride,
                   .depth = job->depth,
                   .n = job->positions,
                   .count = job->depth};
    dn_pack value = {.src = qkv + 2 * job->channels,
                     .depth_stride = stride,
                     .column_stride = 1,
                     .depth = job->positions,
                     .n = job->depth,
                     .count = job->positions};
    dn_cpu_pack(keys, job->run->kernels, &key);
    dn_cpu_pack(values, job->run->kernels, &value);
}

/* Queries first .. first + count - 1 of one head. */
static void attend(const attention_job *job, const float *qkv, float *out, size_t count, const float *keys, const float *values,
                   float *scores)
{
    const dn_cpu_kernels *kernels = job->run->kernels;
    dn_gemm score = {
        .a = qkv,
        .a_row = 3 * job->channels,
        .b = keys,
        .out = scores,
        .out_row = job->positions,
        .scale = (float)(1.0 / sqrt((double)job->depth)),
        .lines = 1,
        .segments = 1,
        .rows = count,
        .k = job->depth,
        .n = job->positions,
    };
    kernels->gemm(&score, 0, dn_cpu_panels(kernels, job->positions));
    kernels->softmax(scores, count, job->positions, job->positions);
    dn_gemm answer = {
        .a = scores,
        .a_row = job->positions,
        .b = values,
        .out = out,
        .out_row = job->channels,
        .scale = 1.0f,
        .lines = 1,
        .segments = 1,
        .rows = count,
        .k = job->positions,
        .n = job->depth,
    };
    kernels->gemm(&answer, 0, dn_cpu_panels(kernels, job->depth));
}

/* Task: some of the queries of one head of one row. */
static void attention_task(void *payload, unsigned index, unsigned worker)
{
    const attention_job *job = payload;
    const dn_cpu_run *run = job->run;
    size_t block = index % job->blocks, head = index / job->blocks % job->heads, row = index / job->blocks / job->heads;
    layout l = measure(run->kernels, job->positions, job->depth);
    float *keys = dn_cpu_scratch(run, worker), *values = keys + l.keys, *scores = values + l.values;
    const float *qkv = dn_cpu_in(run, 0) + row * job->positions * 3 * job->channels + head * job->depth;
    float *out = dn_cpu_out(run) + row * job->positions * job->channels + head * job->depth;
    pack_head(job, qkv, keys, values);
    size_t end = (block + 1) * job->positions / job->blocks;
    for (size_t first = block * job->positions / job->blocks; first < end; first += QUERY_ROWS)
        attend(job, qkv + first * 3 * job->channels, out + first * job->channels, dn_cpu_min(QUERY_ROWS, end - first), keys, values,
               scores);
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
        .blocks = 1,
    };
    size_t heads = job.heads * run->row_count, threads = dn_cpu_threads(run);
    if (threads > 1 && heads < 2 * threads)
        job.blocks = dn_cpu_min(job.positions, (2 * threads + heads - 1) / heads);
    double work = (double)(4 * job.depth + 20) * (double)job.positions * (double)job.positions * (double)heads;
    dn_cpu_parallel(run, work, heads * job.blocks, attention_task, &job);
}
