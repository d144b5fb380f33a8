/* One forward pass: rows in (CHW to NHWC, scaled), every node in order, rows out (NHWC to CHW), each checked for NaN.
 *
 * Invariant: a row's output depends on that row alone. The workspace's owner calls; nodes use its pool. */
#include <string.h>

#include "backend/cpu/state.h"

typedef struct row_job {
    dn_workspace *workspace;
    dn_row *rows;
} row_job;

/* Task: one row's sample into the input value. */
static void gather_row(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const row_job *job = payload;
    const dn_row *row = &job->rows[index];
    const dn_plan *plan = job->workspace->network->plan;
    dn_shape shape = plan->values[plan->input].shape;
    size_t pixels = (size_t)shape.h * shape.w;
    float *to = job->workspace->values[plan->input] + index * dn_shape_count(shape);
    const float *from = row->in->data + row->in_offset;
    for (size_t c = 0; c < shape.c; c++) {
        for (size_t p = 0; p < pixels; p++)
            to[p * shape.c + c] = row->in_scale * from[c * pixels + p];
    }
}

/* Task: one row of the output value to where the caller wants it. */
static void scatter_row(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const row_job *job = payload;
    dn_row *row = &job->rows[index];
    const dn_plan *plan = job->workspace->network->plan;
    dn_shape shape = plan->values[plan->output].shape;
    size_t pixels = (size_t)shape.h * shape.w;
    const float *from = job->workspace->values[plan->output] + index * dn_shape_count(shape);
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
    dn_pool_run(work < DN_CPU_PARALLEL_WORK_MIN ? NULL : run->workspace->pool, (unsigned)count, task, cast.out);
}

static void run_node(const dn_cpu_run *run)
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
    };
    functions[run->node->kind](run);
}

/* A row's buffers hold what it points to, and its classes are in the table. */
static dn_status check_row(const dn_plan *plan, const dn_row *row, uint32_t index, dn_error *error)
{
    size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    if (row->in_offset > row->in->count || in > row->in->count - row->in_offset)
        return dn_fail(error, DN_INTERNAL, "row %u reads past its buffer", index);
    if (row->out_offset > row->out->count || out > row->out->count - row->out_offset)
        return dn_fail(error, DN_INTERNAL, "row %u writes past its buffer", index);
    if (row->condition.count > DN_CONDITION_CLASSES_MAX || (row->condition.count == 0) != (plan->class_rows == 0))
        return dn_fail(error, DN_INVALID, "row %u: %u classes for a network with %u", index, row->condition.count, plan->class_rows);
    for (uint32_t i = 0; i < row->condition.count; i++) {
        if (row->condition.classes[i] >= plan->class_rows)
            return dn_fail(error, DN_INVALID, "row %u: class %u of %u", index, row->condition.classes[i], plan->class_rows);
    }
    return DN_OK;
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
    row_job job = {.workspace = workspace, .rows = rows};
    dn_pool_run(workspace->pool, row_count, gather_row, &job);
    for (uint32_t n = 0; n < network->plan->node_count; n++) {
        dn_cpu_run run = {
            .workspace = workspace,
            .plan = network->plan,
            .node = &network->plan->nodes[n],
            .compiled = &network->nodes[n],
            .kernels = network->device->kernels,
        };
        run_node(&run);
    }
    dn_pool_run(workspace->pool, row_count, scatter_row, &job);
    return DN_OK;
}
