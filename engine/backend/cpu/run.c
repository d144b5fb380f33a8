/* One forward pass: rows in (CHW to NHWC, scaled), every node in order, rows out (NHWC to CHW), each checked for NaN.
 *
 * Threads share the work in two ways. Where nodes are small, rows that divide evenly go in chunks, each through the whole network on one
 * thread: threads meet once a pass. The few rows left over, and all rows where nodes are large, go through the network together, every
 * node cut into tasks.
 * Invariant: a row's output depends on that row alone, so the way it takes does not show. The workspace's owner calls. */
#include <string.h>

#include "backend/cpu/state.h"

/* One row's sample into the input value. */
static void gather_row(const dn_cpu_run *run, uint32_t index)
{
    const dn_row *row = dn_cpu_row_of(run, index);
    dn_shape shape = run->plan->values[run->plan->input].shape;
    size_t pixels = (size_t)shape.h * shape.w;
    float *to = dn_cpu_rows_of(run, run->plan->input) + index * dn_shape_count(shape);
    const float *from = row->in->data + row->in_offset;
    for (size_t c = 0; c < shape.c; c++) {
        for (size_t p = 0; p < pixels; p++)
            to[p * shape.c + c] = row->in_scale * from[c * pixels + p];
    }
}

/* One row of the output value to where the caller wants it. */
static void scatter_row(const dn_cpu_run *run, uint32_t index)
{
    dn_row *row = &run->rows[index];
    dn_shape shape = run->plan->values[run->plan->output].shape;
    size_t pixels = (size_t)shape.h * shape.w;
    const float *from = dn_cpu_rows_of(run, run->plan->output) + index * dn_shape_count(shape);
    float *to = row->out->data + row->out_offset;
    const uint32_t exponent = 0x7F800000u; /* all ones in NaN and infinity only */
    uint32_t infinite = 0;
    for (size_t c = 0; c < shape.c; c++) {
        for (size_t p = 0; p < pixels; p++) {
            uint32_t bits;
            memcpy(&bits, &from[p * shape.c + c], sizeof bits);
            infinite |= (bits & exponent) == exponent;
            memcpy(&to[c * pixels + p], &bits, sizeof bits);
        }
    }
    row->finite = infinite == 0;
}

void dn_cpu_parallel(const dn_cpu_run *run, double work, size_t count, dn_pool_task *task, const void *payload)
{
    union {
        const void *in;
        void *out;
    } cast = {.in = payload}; /* the pool's payload is not const; tasks only read it */
    dn_pool_run(work < DN_CPU_PARALLEL_WORK_MIN ? NULL : run->pool, (unsigned)count, task, cast.out);
}

void dn_cpu_run_node(const dn_cpu_run *run)
{
    static void (*const functions[DN_NODE_KINDS])(const dn_cpu_run *) = {
        [DN_NODE_AFFINE] = dn_cpu_affine,
        [DN_NODE_CONV] = dn_cpu_conv,
        [DN_NODE_LINEAR] = dn_cpu_linear,
        [DN_NODE_GROUP_NORM] = dn_cpu_group_norm,
        [DN_NODE_ATTENTION] = dn_cpu_attention,
        [DN_NODE_TIME_EMBEDDING] = dn_cpu_time_embedding,
        [DN_NODE_CLASS_EMBEDDING] = dn_cpu_class_embedding,
        [DN_NODE_UPSAMPLE_NEAREST2] = dn_cpu_upsample_nearest2,
        [DN_NODE_AVERAGE_POOL2] = dn_cpu_average_pool2,
        [DN_NODE_CONCAT] = dn_cpu_concat,
        [DN_NODE_GLOBAL_POOL] = dn_cpu_global_pool,
        [DN_NODE_ACTIVATION] = dn_cpu_activation,
        [DN_NODE_LAYER_NORM] = dn_cpu_layer_norm,
        [DN_NODE_CLASS_SINUSOID] = dn_cpu_class_sinusoid,
        [DN_NODE_FOURIER_EMBEDDING] = dn_cpu_fourier_embedding,
        [DN_NODE_TIME_TABLE] = dn_cpu_time_table,
        [DN_NODE_UPSAMPLE_FIR2] = dn_cpu_fir,
        [DN_NODE_DOWNSAMPLE_FIR2] = dn_cpu_fir,
        [DN_NODE_POSITION] = dn_cpu_position,
        [DN_NODE_UNPATCHIFY] = dn_cpu_unpatchify,
        [DN_NODE_DIVIDE_BY_TIME] = dn_cpu_divide_by_time,
    };
    functions[run->node->kind](run);
}

/* Whether a table of so many rows has one for the time; without a table any time will do. */
static bool time_fits(uint32_t rows, float time)
{
    return rows == 0 || (time >= 0.0f && time < (float)rows && time == (float)(uint32_t)time);
}

/* A row's buffers hold what it points to, and its time and classes are in the tables. */
static dn_status check_row(const dn_plan *plan, const dn_row *row, uint32_t index, dn_error *error)
{
    size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    if (row->in_offset > row->in->count || in > row->in->count - row->in_offset)
        return dn_fail(error, DN_INTERNAL, "row %u reads past its buffer", index);
    if (row->out_offset > row->out->count || out > row->out->count - row->out_offset)
        return dn_fail(error, DN_INTERNAL, "row %u writes past its buffer", index);
    if (!time_fits(plan->time_rows, row->time))
        return dn_fail(error, DN_INVALID, "row %u: the time %g is none of the table's %u", index, (double)row->time, plan->time_rows);
    if (row->condition.count > DN_CONDITION_CLASSES_MAX || (row->condition.count == 0) != (plan->class_rows == 0))
        return dn_fail(error, DN_INVALID, "row %u: %u classes for a network with %u", index, row->condition.count, plan->class_rows);
    for (uint32_t i = 0; i < row->condition.count; i++) {
        if (row->condition.classes[i] >= plan->class_rows)
            return dn_fail(error, DN_INVALID, "row %u: class %u of %u", index, row->condition.classes[i], plan->class_rows);
    }
    return DN_OK;
}

/* One node for the run's rows, or its vectors where they are those of conditions. */
static void run_node(const dn_cpu_run *run, uint32_t index)
{
    dn_cpu_conditions *conditions = run->workspace->conditions;
    dn_cpu_part part = conditions ? run->workspace->network->conditioning.parts[index] : DN_CPU_PART_ROWS;
    if (part == DN_CPU_PART_ROWS)
        dn_cpu_run_node(run);
    else if (part == DN_CPU_PART_KEPT)
        dn_cpu_conditions_copy(conditions, run);
}

/* Rows first .. first + count - 1 in, through every node, and out. At most region_rows of them. */
static void run_network(const dn_workspace *workspace, dn_pool *pool, unsigned worker, uint32_t first, uint32_t count)
{
    const dn_network *network = workspace->network;
    dn_cpu_run run = {
        .workspace = workspace,
        .pool = pool,
        .worker = worker,
        .rows = workspace->rows + first,
        .row_count = count,
        .region = workspace->arena + (workspace->keep_values ? 0 : worker * workspace->region_floats),
        .offsets = workspace->offsets,
        .region_first = workspace->keep_values ? first : 0,
        .plan = network->plan,
        .kernels = network->device->kernels,
    };
    for (uint32_t r = 0; r < count; r++)
        gather_row(&run, r);
    for (uint32_t n = 0; n < network->plan->node_count; n++) {
        run.node = &network->plan->nodes[n];
        run.compiled = &network->nodes[n];
        run_node(&run, n);
    }
    for (uint32_t r = 0; r < count; r++)
        scatter_row(&run, r);
}

typedef struct chunk_job {
    const dn_workspace *workspace;
    uint32_t rows, chunks;
} chunk_job;

/* Task: a chunk of rows, on one thread from end to end. */
static void run_chunk(void *payload, unsigned index, unsigned worker)
{
    const chunk_job *job = payload;
    uint32_t first = index * job->rows / job->chunks, end = (index + 1) * job->rows / job->chunks;
    run_network(job->workspace, NULL, worker, first, end - first);
}

static void run_all_rows(const dn_workspace *workspace)
{
    uint32_t threads = dn_pool_size(workspace->pool), count = workspace->row_count;
    bool together = workspace->network->together && threads > 1;
    chunk_job job = {.workspace = workspace, .rows = together ? 0 : count - count % threads};
    job.chunks = threads * ((job.rows / threads + DN_CPU_CHUNK_ROWS - 1) / DN_CPU_CHUNK_ROWS);
    if (job.rows)
        dn_pool_run(workspace->pool, job.chunks, run_chunk, &job);
    if (job.rows == count)
        return;
    dn_pool_expect(workspace->pool);
    uint32_t left = count - job.rows, passes = (left + workspace->region_rows - 1) / workspace->region_rows;
    for (uint32_t p = 0; p < passes; p++) {
        uint32_t first = job.rows + p * left / passes, end = job.rows + (p + 1) * left / passes;
        run_network(workspace, workspace->pool, 0, first, end - first);
    }
    dn_pool_relax(workspace->pool);
}

dn_status dn_cpu_run_rows(dn_network *network, dn_workspace *workspace, dn_row *rows, uint32_t row_count, dn_error *error)
{
    if (workspace->network != network || row_count == 0 || row_count > workspace->rows_max)
        return dn_fail(error, DN_INTERNAL, "%u rows in a workspace of %u", row_count, workspace->rows_max);
    for (uint32_t r = 0; r < row_count; r++) {
        dn_status status = check_row(network->plan, &rows[r], r, error);
        if (status != DN_OK)
            return status;
    }
    memcpy(workspace->rows, rows, row_count * sizeof *rows);
    workspace->row_count = row_count;
    if (workspace->conditions)
        dn_cpu_conditions_prepare(workspace->conditions, workspace);
    run_all_rows(workspace);
    for (uint32_t r = 0; r < row_count; r++)
        rows[r].finite = workspace->rows[r].finite;
    return DN_OK;
}
