/* Runs a model over rows in passes of at most rows_max. Owns device, network, workspace and the two buffers that a pass reads
 * and writes. One thread. */
#include "model/forward.h"

#include <stdlib.h>

#include "backend/devices.h"

struct dn_forward {
    const dn_backend *backend;
    const dn_model *model;
    dn_device *device;
    dn_network *network;
    dn_workspace *workspace;
    dn_buffer *in, *out; /* [rows_max] samples and answers */
    dn_row *rows; /* [rows_max] */
    float *staging; /* one value, [H,W,C], on its way to [C,H,W] */
    uint32_t rows_max;
    size_t in_count, out_count; /* floats of one row */
};

static size_t largest_value(const dn_plan *plan)
{
    size_t largest = 1;
    for (uint32_t v = 0; v < plan->value_count; v++)
        if (dn_shape_count(plan->values[v].shape) > largest)
            largest = dn_shape_count(plan->values[v].shape);
    return largest;
}

dn_status dn_forward_open(dn_forward **out, const dn_model *model, const dn_forward_options *options, dn_error *error)
{
    if (model->weights == NULL || options->rows_max < 1 || options->rows_max > DN_BATCH_ROWS_MAX)
        return dn_fail(error, DN_INVALID, "a forward pass needs weights and 1 to %u rows", DN_BATCH_ROWS_MAX);
    dn_device_choice choice = {.backend = options->backend};
    dn_status status = choice.backend == NULL ? dn_device_choose(&choice, options->device, NULL, 0, error) : DN_OK;
    if (status != DN_OK)
        return status;
    dn_forward *f = calloc(1, sizeof *f);
    if (f == NULL)
        return dn_fail(error, DN_NO_MEMORY, "out of memory");
    f->backend = choice.backend;
    f->model = model;
    f->rows_max = options->rows_max;
    f->in_count = dn_shape_count(model->plan->values[model->plan->input].shape);
    f->out_count = dn_shape_count(model->plan->values[model->plan->output].shape);
    f->rows = calloc(f->rows_max, sizeof *f->rows);
    f->staging = calloc(largest_value(model->plan), sizeof *f->staging);
    if (f->rows == NULL || f->staging == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "out of memory");
        goto done;
    }
    dn_device_options device = {.threads = options->threads, .index = choice.index, .fast = options->fast, .cache = options->plan_cache};
    status = f->backend->device_open(&f->device, &device, error);
    if (status != DN_OK)
        goto done;
    dn_network_options network = {.plan = model->plan, .weights = model->weights, .precision = options->precision};
    if (network.precision == DN_PRECISION_AUTO)
        network.precision = f->backend->precision;
    status = f->backend->network_create(&f->network, f->device, &network, error);
    if (status != DN_OK)
        goto done;
    dn_workspace_options workspace = {.rows_max = f->rows_max, .keep_values = options->keep_values};
    status = f->backend->workspace_create(&f->workspace, f->network, &workspace, error);
    if (status == DN_OK)
        status = f->backend->buffer_create(&f->in, f->device, f->rows_max * f->in_count, error);
    if (status == DN_OK)
        status = f->backend->buffer_create(&f->out, f->device, f->rows_max * f->out_count, error);
    if (status != DN_OK)
        goto done;
    *out = f;
    f = NULL;
done:
    dn_forward_close(f);
    return status;
}

void dn_forward_close(dn_forward *f)
{
    if (f == NULL)
        return;
    if (f->out != NULL)
        f->backend->buffer_free(f->out);
    if (f->in != NULL)
        f->backend->buffer_free(f->in);
    if (f->workspace != NULL)
        f->backend->workspace_free(f->workspace);
    if (f->network != NULL)
        f->backend->network_free(f->network);
    if (f->device != NULL)
        f->backend->device_close(f->device);
    free(f->staging);
    free(f->rows);
    free(f);
}

static void fill_row(const dn_forward *f, dn_row *row, const dn_forward_rows *rows, uint32_t index, uint32_t slot)
{
    *row = (dn_row){.in = f->in,
                    .in_offset = slot * f->in_count,
                    .in_scale = 1.0f,
                    .time = rows->times ? rows->times[index] : 0.0f,
                    .out = f->out,
                    .out_offset = slot * f->out_count};
    if (rows->classes != NULL) {
        row->condition.count = 1;
        row->condition.classes[0] = rows->classes[index];
        row->condition.weights[0] = 1.0f;
    }
}

static dn_status check_rows(const dn_forward *f, const dn_forward_rows *rows, dn_error *error)
{
    uint32_t table = f->model->class_rows;
    if ((rows->classes != NULL) != (table > 0))
        return dn_fail(error, DN_INVALID, table ? "the network needs a class for each row" : "the network takes no classes");
    for (uint32_t i = 0; i < rows->count && table > 0; i++)
        if (rows->classes[i] >= table)
            return dn_fail(error, DN_INVALID, "class %u of row %u is not below %u, the rows of the class table", rows->classes[i], i,
                           table);
    return DN_OK;
}

static dn_status run_pass(dn_forward *f, const dn_forward_rows *rows, uint32_t first, uint32_t count, float *answers, dn_error *error)
{
    for (uint32_t i = 0; i < count; i++)
        fill_row(f, &f->rows[i], rows, first + i, i);
    dn_status status = f->backend->buffer_write(f->in, 0, rows->samples + first * f->in_count, count * f->in_count, error);
    if (status == DN_OK)
        status = f->backend->run(f->network, f->workspace, f->rows, count, error);
    for (uint32_t i = 0; i < count && status == DN_OK; i++)
        if (!f->rows[i].finite)
            status = dn_fail(error, DN_NUMERIC, "the network's answer for row %u has NaN or infinity", first + i);
    if (status == DN_OK && answers != NULL)
        status = f->backend->buffer_read(f->out, 0, answers + first * f->out_count, count * f->out_count, error);
    return status;
}

dn_status dn_forward_run(dn_forward *f, const dn_forward_rows *rows, float *answers, dn_forward_observer *observer, void *payload,
                         dn_error *error)
{
    dn_status status = check_rows(f, rows, error);
    for (uint32_t first = 0; first < rows->count && status == DN_OK; first += f->rows_max) {
        uint32_t count = rows->count - first < f->rows_max ? rows->count - first : f->rows_max;
        status = run_pass(f, rows, first, count, answers, error);
        if (status == DN_OK && observer != NULL)
            status = observer(payload, f, first, count, error);
    }
    return status;
}

dn_status dn_forward_value(dn_forward *f, dn_value value, uint32_t row, float *out, dn_error *error)
{
    dn_status status = f->backend->read_value(f->network, f->workspace, value, row, f->staging, error);
    if (status != DN_OK)
        return status;
    dn_shape shape = f->model->plan->values[value].shape;
    size_t pixels = (size_t)shape.h * shape.w;
    for (size_t p = 0; p < pixels; p++)
        for (uint32_t c = 0; c < shape.c; c++)
            out[c * pixels + p] = f->staging[p * shape.c + c];
    return DN_OK;
}
