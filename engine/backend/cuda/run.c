/* Rows through a network: checked, packed into buckets, launched, waited for once. One thread owns a workspace; several may run at once.
 *
 * On the main stream the programs that wait ride in the first block and run before its rows are read. A background run waits for the main
 * stream instead, once what waits for its rows' buffers is enqueued there. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/state.h"

/* A row's buffers hold what it points to, and its time and classes are in the tables. */
static dn_status check_row(const dn_plan *plan, const dn_row *row, uint32_t index, dn_error *error)
{
    size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    if (row->in_offset > row->in->count || in > row->in->count - row->in_offset)
        return dn_fail(error, DN_INTERNAL, "row %u reads past its buffer", index);
    if (row->out_offset > row->out->count || out > row->out->count - row->out_offset)
        return dn_fail(error, DN_INTERNAL, "row %u writes past its buffer", index);
    uint32_t times = plan->time_rows;
    if (times && !(row->time >= 0.0f && row->time < (float)times && row->time == (float)(uint32_t)row->time))
        return dn_fail(error, DN_INVALID, "row %u: the time %g is none of the table's %u", index, (double)row->time, times);
    if (row->condition.count > DN_CONDITION_CLASSES_MAX || (row->condition.count == 0) != (plan->class_rows == 0))
        return dn_fail(error, DN_INVALID, "row %u: %u classes for a network with %u", index, row->condition.count, plan->class_rows);
    for (uint32_t i = 0; i < row->condition.count; i++) {
        if (row->condition.classes[i] >= plan->class_rows)
            return dn_fail(error, DN_INVALID, "row %u: class %u of %u", index, row->condition.classes[i], plan->class_rows);
    }
    return DN_OK;
}

/* A bucket's block: `count` rows, then copies of the first without addresses, so that what nobody wants is computed from sane numbers. */
static void fill_block(dn_cuda_block *block, const dn_row *rows, uint32_t count)
{
    dn_cuda_row *to = DN_CUDA_BLOCK_PART(dn_cuda_row, block, block->rows_at);
    for (uint32_t r = 0; r < block->rows_max; r++) {
        const dn_row *row = &rows[r < count ? r : 0];
        to[r] = (dn_cuda_row){.in_scale = row->in_scale, .time = row->time, .class_count = row->condition.count};
        memcpy(to[r].classes, row->condition.classes, sizeof to[r].classes);
        memcpy(to[r].weights, row->condition.weights, sizeof to[r].weights);
        if (r < count) {
            to[r].in = row->in->data + row->in_offset;
            to[r].out = row->out->data + row->out_offset;
        }
    }
    block->row_count = count;
    block->slice_count = 0;
}

/* What a background run reads is written by then. */
static dn_status follow_main(const dn_workspace *w, const dn_row *rows, uint32_t count, dn_error *error)
{
    dn_device *device = w->network->device;
    dn_status status = DN_OK;
    for (uint32_t r = 0; r < count && status == DN_OK; r++) {
        status = dn_cuda_pending_flush(device, rows[r].in, error);
        if (status == DN_OK && rows[r].out != rows[r].in)
            status = dn_cuda_pending_flush(device, rows[r].out, error);
    }
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventRecord(w->done, device->main), "waiting for the main stream", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaStreamWaitEvent(w->stream, w->done, 0), "waiting for the main stream", error);
    return status;
}

/* The rows' buckets, one launch each. */
static dn_status launch_packed(dn_workspace *w, const dn_row *rows, uint32_t count, const uint32_t *packed, uint32_t passes,
                               dn_error *error)
{
    dn_device *device = w->network->device;
    dn_status status = DN_OK;
    uint32_t first = 0;
    for (uint32_t p = 0; p < passes && status == DN_OK; p++) {
        dn_cuda_block *block = w->seats[packed[p]].block;
        uint32_t room = w->buckets.rows[packed[p]], taken = count - first < room ? count - first : room;
        fill_block(block, rows + first, taken);
        first += taken;
        if (w->background || p > 0) {
            status = dn_cuda_launch_bucket(w, packed[p], error);
            continue;
        }
        pthread_mutex_lock(&device->lock);
        status = dn_cuda_pending_take(device, block, error);
        if (status == DN_OK)
            status = dn_cuda_launch_bucket(w, packed[p], error);
        pthread_mutex_unlock(&device->lock);
    }
    return status;
}

/* At most the rows of the largest bucket. Nothing is under way when it returns, whatever it answers. */
static dn_status run_rows(dn_workspace *w, dn_row *rows, uint32_t count, dn_error *error)
{
    dn_device *device = w->network->device;
    uint32_t packed[DN_CUDA_BUCKETS_MAX];
    uint32_t passes = dn_cuda_buckets_pack(&w->buckets, count, packed);
    if (w->keep_values) { /* one pass: values stay where they are */
        passes = 1;
        packed[0] = 0;
        while (w->buckets.rows[packed[0]] < count)
            packed[0]++;
        w->ran_bucket = packed[0];
        w->ran_rows = count;
    }
    dn_status status = w->background ? follow_main(w, rows, count, error) : DN_OK;
    if (status == DN_OK)
        status = launch_packed(w, rows, count, packed, passes, error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventRecord(w->done, w->stream), "running rows", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaEventSynchronize(w->done), "running rows", error);
    else
        (void)cudaStreamSynchronize(w->stream);
    for (uint32_t p = 0, first = 0; p < passes && status == DN_OK; first += w->buckets.rows[packed[p++]]) {
        for (uint32_t r = 0; r < w->buckets.rows[packed[p]] && first + r < count; r++)
            rows[first + r].finite = w->seats[packed[p]].finite[r] != 0;
    }
    for (uint32_t r = 0; r < count && status == DN_OK; r++)
        rows[r].out->settled = true;
    return status;
}

dn_status dn_cuda_run(dn_network *network, dn_workspace *workspace, dn_row *rows, uint32_t row_count, dn_error *error)
{
    if (workspace->network != network || row_count == 0 || row_count > workspace->rows_max)
        return dn_fail(error, DN_INTERNAL, "%u rows in a workspace of %u", row_count, workspace->rows_max);
    dn_status status = DN_OK;
    for (uint32_t r = 0; r < row_count && status == DN_OK; r++)
        status = check_row(network->plan, &rows[r], r, error);
    if (status == DN_OK)
        status = dn_cuda_enter(network->device, error);
    uint32_t most = workspace->buckets.rows[workspace->buckets.count - 1];
    for (uint32_t first = 0; first < row_count && status == DN_OK; first += most)
        status = run_rows(workspace, rows + first, row_count - first < most ? row_count - first : most, error);
    return status;
}

/* A kept value, read as the bytes that it lies in. */
static dn_status copy_value(dn_workspace *w, const dn_cuda_view *view, uint32_t row, unsigned char *out, size_t bytes, dn_error *error)
{
    dn_device *device = w->network->device;
    size_t element = w->network->type == DN_CUDA_BF16 ? 2 : 4;
    const unsigned char *from = (const unsigned char *)view->data + row * view->row_pitch * element;
    dn_status status =
        dn_cuda_check(device, cudaMemcpyAsync(out, from, bytes, cudaMemcpyDeviceToHost, w->stream), "reading a value", error);
    return status == DN_OK ? dn_cuda_check(device, cudaStreamSynchronize(w->stream), "reading a value", error) : status;
}

static float widened(const unsigned char *from, dn_cuda_type type)
{
    float value;
    uint16_t half;
    uint32_t bits;
    if (type == DN_CUDA_F32) {
        memcpy(&value, from, sizeof value);
        return value;
    }
    memcpy(&half, from, sizeof half);
    bits = (uint32_t)half << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

dn_status dn_cuda_read_value(dn_network *network, dn_workspace *workspace, dn_value value, uint32_t row, float *out, dn_error *error)
{
    const dn_cuda_compiled *compiled = workspace->form->compiled;
    if (!workspace->keep_values || value >= network->plan->value_count || row >= workspace->ran_rows ||
        compiled->value_slots[value] == DN_NONE)
        return dn_fail(error, DN_INTERNAL, "no value %u of row %u is kept", value, row);
    dn_status status = dn_cuda_enter(network->device, error);
    if (status != DN_OK)
        return status;
    dn_cuda_view view = dn_cuda_slot_view(workspace, workspace->ran_bucket, compiled->value_slots[value]);
    size_t element = network->type == DN_CUDA_BF16 ? 2 : 4, pixels = (size_t)view.h * view.w, bytes = pixels * view.pitch * element;
    unsigned char *memory = malloc(bytes);
    if (!memory)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a value of %zu bytes", bytes);
    status = copy_value(workspace, &view, row, memory, bytes, error);
    for (size_t p = 0; p < pixels && status == DN_OK; p++) {
        for (uint32_t c = 0; c < view.c; c++)
            out[p * view.c + c] = widened(memory + (p * view.pitch + c) * element, network->type);
    }
    free(memory);
    return status;
}
