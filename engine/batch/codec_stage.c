/* One network of an autoencoder on the device: compiled, with a workspace of one row and two buffers. It owns all of them. The
 * codec's turn guards a stage. */
#include "batch/codec_private.h"

#include <string.h>

void dn_codec_stage_close(dn_codec_stage *stage)
{
    if (stage->out != NULL)
        stage->backend->buffer_free(stage->out);
    if (stage->in != NULL)
        stage->backend->buffer_free(stage->in);
    if (stage->workspace != NULL)
        stage->backend->workspace_free(stage->workspace);
    if (stage->network != NULL)
        stage->backend->network_free(stage->network);
    dn_model_free(stage->model);
    memset(stage, 0, sizeof *stage);
}

dn_status dn_codec_stage_open(dn_codec_stage *out, const dn_codec_options *options, dn_model *model, const dn_weights *weights,
                              size_t spare, dn_error *error)
{
    const dn_plan *plan = model->plan;
    dn_codec_stage stage = {.backend = options->backend, .model = model, .spare = spare};
    stage.in_count = dn_shape_count(plan->values[plan->input].shape);
    stage.out_count = dn_shape_count(plan->values[plan->output].shape);
    const dn_network_options network = {.plan = plan, .weights = weights, .spent = weights == NULL ? model->weights : NULL};
    const dn_workspace_options workspace = {.rows_max = 1, .inline_threads = options->inline_threads};
    dn_status status = stage.backend->network_create(&stage.network, options->device, &network, error);
    if (status == DN_OK)
        status = stage.backend->workspace_create(&stage.workspace, stage.network, &workspace, error);
    if (status == DN_OK)
        status = stage.backend->buffer_create(&stage.in, options->device, stage.in_count, error);
    if (status == DN_OK)
        status = stage.backend->buffer_create(&stage.out, options->device, stage.out_count + spare, error);
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
    return weights + stage->backend->network_bytes(stage->network) + stage->backend->workspace_bytes(stage->network, 1, false) +
           (stage->in_count + stage->out_count + stage->spare) * sizeof(float);
}

dn_status dn_codec_stage_run(const dn_codec_stage *stage, const float *in, const char *what, dn_error *error)
{
    dn_row row = {.in = stage->in, .in_scale = 1.0f, .out = stage->out};
    dn_status status = stage->backend->buffer_write(stage->in, 0, in, stage->in_count, error);
    if (status == DN_OK)
        status = stage->backend->run(stage->network, stage->workspace, &row, 1, error);
    if (status == DN_OK && !row.finite)
        status = dn_fail(error, DN_NUMERIC, "the autoencoder's %s answered with NaN or infinity", what);
    return status;
}
