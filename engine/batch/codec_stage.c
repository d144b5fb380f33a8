/* One network of an autoencoder on the device: compiled, with a workspace and two buffers. It owns all of them. The
 * codec's turn guards a stage. */
#include "batch/codec_private.h"

#include <string.h>

static void free_room(dn_codec_stage *stage)
{
    if (stage->out != NULL)
        stage->backend->buffer_free(stage->out);
    if (stage->in != NULL)
        stage->backend->buffer_free(stage->in);
    if (stage->workspace != NULL)
        stage->backend->workspace_free(stage->workspace);
    stage->out = NULL;
    stage->in = NULL;
    stage->workspace = NULL;
}

void dn_codec_stage_close(dn_codec_stage *stage)
{
    free_room(stage);
    if (stage->network != NULL)
        stage->backend->network_free(stage->network);
    dn_model_free(stage->model);
    memset(stage, 0, sizeof *stage);
}

/* A workspace and buffers for so many rows, all or none of them. */
static dn_status make_room(dn_codec_stage *stage, const dn_codec_options *options, uint32_t rows, dn_error *error)
{
    const dn_workspace_options workspace = {.rows_max = rows, .inline_threads = options->inline_threads, .background = true};
    dn_status status = stage->backend->workspace_create(&stage->workspace, stage->network, &workspace, error);
    if (status == DN_OK)
        status = stage->backend->buffer_create(&stage->in, options->device, rows * stage->in_count, error);
    if (status == DN_OK)
        status = stage->backend->buffer_create(&stage->out, options->device, rows * stage->out_count + stage->spare, error);
    stage->rows = rows;
    if (status != DN_OK)
        free_room(stage);
    return status;
}

dn_status dn_codec_stage_open(dn_codec_stage *out, const dn_codec_options *options, dn_model *model, const dn_weights *weights,
                              uint32_t rows, size_t spare, dn_error *error)
{
    const dn_plan *plan = model->plan;
    dn_codec_stage stage = {.backend = options->backend, .model = model, .spare = spare};
    stage.in_count = dn_shape_count(plan->values[plan->input].shape);
    stage.out_count = dn_shape_count(plan->values[plan->output].shape);
    /* Always for as many rows: what a product is pinned to may not depend on how many pictures this codec decodes at once. */
    const dn_network_options network = {.plan = plan,
                                        .weights = weights,
                                        .spent = weights == NULL ? model->weights : NULL,
                                        .precision = options->precision,
                                        .rows_max = DN_CODEC_ROWS_MAX};
    dn_status status = stage.backend->network_create(&stage.network, options->device, &network, error);
    if (status == DN_OK)
        status = make_room(&stage, options, rows, error);
    for (; status == DN_NO_MEMORY && stage.network != NULL && rows > 1; rows /= 2)
        status = make_room(&stage, options, rows / 2, error);
    if (status == DN_OK)
        *out = stage;
    else
        dn_codec_stage_close(&stage);
    return status;
}

size_t dn_codec_stage_bytes(const dn_codec_stage *stage)
{
    if (stage->backend == NULL)
        return 0;
    size_t weights = stage->model->weights != NULL ? (size_t)stage->model->weights->total * sizeof(float) : 0;
    return weights + stage->backend->network_bytes(stage->network) + stage->backend->workspace_bytes(stage->network, stage->rows, false) +
           (stage->rows * (stage->in_count + stage->out_count) + stage->spare) * sizeof(float);
}

dn_status dn_codec_stage_run(const dn_codec_stage *stage, const float *in, uint32_t rows, const char *what, dn_error *error)
{
    dn_row row[DN_CODEC_ROWS_MAX];
    for (uint32_t r = 0; r < rows; r++)
        row[r] = (dn_row){
            .in = stage->in, .in_offset = r * stage->in_count, .in_scale = 1.0f, .out = stage->out, .out_offset = r * stage->out_count};
    dn_status status = stage->backend->buffer_write(stage->in, 0, in, rows * stage->in_count, error);
    if (status == DN_OK)
        status = stage->backend->run(stage->network, stage->workspace, row, rows, error);
    for (uint32_t r = 0; r < rows && status == DN_OK; r++)
        if (!row[r].finite)
            status = dn_fail(error, DN_NUMERIC, "the autoencoder's %s answered with NaN or infinity", what);
    return status;
}
