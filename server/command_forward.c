/* `denoised forward`: a network run on the tensors of a safetensors file, so that anyone can compare numbers with another
 * implementation, node by node where asked for. Owns what it reads until it returns. One thread. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/model_folder.h"
#include "format/safetensors.h"
#include "model/forward.h"
#include "server/commands.h"
#include "server/device_option.h"
#include "server/options.h"

#define ROWS_OF_A_PASS 16u
#define TRACE_BYTES_MAX (8ull << 30)

typedef struct forward_job {
    const char *model_path, *input_path, *output_path, *trace_path;
    device_option device;
    uint64_t threads;
    dn_model *model;
    dn_safetensors *input;
    uint32_t rows, height, width;
    float *samples, *times, *answers;
    uint32_t *classes;
    float **trace; /* [node_count] of [rows,C,H,W], NULL without --trace */
} forward_job;

static dn_status find_input(const dn_tensor_info **out, const forward_job *job, const char *name, uint32_t rank, dn_error *error)
{
    const dn_tensor_info *info = dn_safetensors_find(job->input, name);
    if (info == NULL)
        return dn_fail(error, DN_INVALID, "%s: %s: the tensor is missing", job->input_path, name);
    if (info->rank != rank)
        return dn_fail(error, DN_INVALID, "%s: %s: must have %u dimensions, not %u", job->input_path, name, rank, info->rank);
    *out = info;
    return DN_OK;
}

static dn_status read_samples(forward_job *job, dn_error *error)
{
    const dn_tensor_info *sample = NULL;
    dn_status status = find_input(&sample, job, "sample", 4, error);
    if (status != DN_OK)
        return status;
    for (int i = 0; i < 4; i++)
        if (sample->dims[i] < 1 || sample->dims[i] > (i == 0 ? UINT32_MAX / 2 : DN_CHANNELS_MAX))
            return dn_fail(error, DN_INVALID, "%s: sample: dimension %d is out of range", job->input_path, i);
    job->rows = (uint32_t)sample->dims[0];
    job->height = (uint32_t)sample->dims[2];
    job->width = (uint32_t)sample->dims[3];
    job->samples = malloc(sample->count * sizeof *job->samples);
    if (job->samples == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: sample: out of memory", job->input_path);
    return dn_safetensors_read_f32(job->input, sample, job->samples, error);
}

/* [N] or a single value for all rows. */
static dn_status find_vector(const dn_tensor_info **out, const forward_job *job, const char *name, dn_error *error)
{
    const dn_tensor_info *info = dn_safetensors_find(job->input, name);
    if (info == NULL)
        return dn_fail(error, DN_INVALID, "%s: %s: the tensor is missing", job->input_path, name);
    if (info->rank > 1 || (info->count != job->rows && info->count != 1))
        return dn_fail(error, DN_INVALID, "%s: %s: must hold one value, or one for each of the %u samples", job->input_path, name,
                       job->rows);
    *out = info;
    return DN_OK;
}

static dn_status read_times(forward_job *job, dn_error *error)
{
    const dn_tensor_info *info = NULL;
    dn_status status = find_vector(&info, job, "timestep", error);
    if (status != DN_OK)
        return status;
    job->times = calloc(job->rows, sizeof *job->times);
    if (job->times == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: timestep: out of memory", job->input_path);
    status = dn_safetensors_read_f32(job->input, info, job->times, error);
    for (uint32_t i = 1; i < job->rows && info->count == 1; i++)
        job->times[i] = job->times[0];
    return status;
}

static dn_status read_classes(forward_job *job, dn_error *error)
{
    const dn_tensor_info *info = NULL;
    if (job->model->class_rows == 0)
        return dn_safetensors_find(job->input, "class_labels") == NULL
                   ? DN_OK
                   : dn_fail(error, DN_INVALID, "%s: class_labels: the network takes no classes", job->input_path);
    dn_status status = find_vector(&info, job, "class_labels", error);
    if (status != DN_OK)
        return status;
    int64_t *labels = calloc(job->rows, sizeof *labels);
    job->classes = calloc(job->rows, sizeof *job->classes);
    if (labels == NULL || job->classes == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "%s: class_labels: out of memory", job->input_path);
    else
        status = dn_safetensors_read_i64(job->input, info, labels, error);
    for (uint32_t i = 0; i < job->rows && status == DN_OK; i++) {
        int64_t label = labels[info->count == 1 ? 0 : i];
        if (label < 0 || label >= (int64_t)job->model->class_rows)
            status = dn_fail(error, DN_INVALID, "%s: class_labels: element %u is not from 0 to %u", job->input_path, i,
                             job->model->class_rows - 1);
        else
            job->classes[i] = (uint32_t)label;
    }
    free(labels);
    return status;
}

static dn_status open_model(forward_job *job, dn_error *error)
{
    dn_model_folder *folder = NULL;
    dn_status status = dn_model_folder_open(&folder, job->model_path, error);
    if (status == DN_OK)
        status = dn_model_open(&job->model, folder->network_path, job->height, job->width, error);
    dn_model_folder_free(folder);
    if (status == DN_OK && dn_safetensors_find(job->input, "sample")->dims[1] != job->model->channels)
        status = dn_fail(error, DN_INVALID, "%s: sample: has %llu channels, the network takes %u", job->input_path,
                         (unsigned long long)dn_safetensors_find(job->input, "sample")->dims[1], job->model->channels);
    return status;
}

static dn_status allocate_trace(forward_job *job, dn_error *error)
{
    const dn_plan *plan = job->model->plan;
    uint64_t bytes = 0;
    job->trace = calloc(plan->node_count, sizeof *job->trace);
    for (uint32_t n = 0; job->trace != NULL && n < plan->node_count; n++) {
        size_t count = dn_shape_count(plan->values[plan->nodes[n].out].shape) * job->rows;
        bytes += count * sizeof(float);
        if (bytes > TRACE_BYTES_MAX)
            return dn_fail(error, DN_NO_MEMORY, "%s: the trace would be larger than %llu bytes; give fewer samples", job->trace_path,
                           (unsigned long long)TRACE_BYTES_MAX);
        job->trace[n] = malloc(count * sizeof(float));
        if (job->trace[n] == NULL)
            return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", job->trace_path);
    }
    return job->trace != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "%s: out of memory", job->trace_path);
}

static dn_status keep_trace(void *payload, dn_forward *forward, uint32_t first, uint32_t count, dn_error *error)
{
    forward_job *job = payload;
    const dn_plan *plan = job->model->plan;
    for (uint32_t n = 0; n < plan->node_count; n++) {
        size_t elements = dn_shape_count(plan->values[plan->nodes[n].out].shape);
        for (uint32_t r = 0; r < count; r++) {
            dn_status status = dn_forward_value(forward, plan->nodes[n].out, r, job->trace[n] + (first + r) * elements, error);
            if (status != DN_OK)
                return status;
        }
    }
    return DN_OK;
}

/* The CPU, unless it is told otherwise: it is the reference that others are compared with. */
static dn_status settle_device(forward_job *job, dn_forward_options *out, dn_error *error)
{
    dn_engine_options wanted = {.threads = 0};
    dn_status status = device_option_settle(&job->device, &wanted, "forward", "cpu", error);
    out->precision = wanted.precision;
    out->device = wanted.device;
    out->fast = wanted.fast;
    out->plan_cache = wanted.plan_cache;
    return status;
}

static dn_status run(forward_job *job, dn_error *error)
{
    dn_forward *forward = NULL;
    bool trace = job->trace_path != NULL;
    size_t answer = dn_shape_count(job->model->plan->values[job->model->plan->output].shape);
    job->answers = malloc(job->rows * answer * sizeof *job->answers);
    dn_status status = job->answers != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "%s: out of memory", job->output_path);
    if (status == DN_OK && trace)
        status = allocate_trace(job, error);
    dn_forward_options options = {
        .threads = (unsigned)job->threads, .rows_max = job->rows < ROWS_OF_A_PASS ? job->rows : ROWS_OF_A_PASS, .keep_values = trace};
    if (status == DN_OK)
        status = settle_device(job, &options, error);
    if (status == DN_OK)
        status = dn_forward_open(&forward, job->model, &options, error);
    dn_forward_rows rows = {job->rows, job->samples, job->times, job->classes};
    if (status == DN_OK)
        status = dn_forward_run(forward, &rows, job->answers, trace ? keep_trace : NULL, job, error);
    dn_forward_close(forward);
    return status;
}

/* Images are [N,C,H,W], vectors [N,C]. */
static dn_status add_tensor(dn_safetensors_writer *writer, const char *name, uint32_t rows, dn_shape shape, const float *values,
                            dn_error *error)
{
    uint64_t dims[4] = {rows, shape.c, shape.h, shape.w};
    return dn_safetensors_writer_add_f32(writer, name, DN_F32, shape.h == 1 && shape.w == 1 ? 2 : 4, dims, values, error);
}

static dn_status save_answers(const forward_job *job, dn_error *error)
{
    const dn_plan *plan = job->model->plan;
    dn_safetensors_writer *writer = NULL;
    dn_status status = dn_safetensors_writer_create(&writer, error);
    dn_shape shape = plan->values[plan->output].shape;
    uint64_t dims[4] = {job->rows, shape.c, shape.h, shape.w};
    if (status == DN_OK)
        status = dn_safetensors_writer_add_f32(writer, "sample", DN_F32, 4, dims, job->answers, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, job->output_path, false, error);
    dn_safetensors_writer_free(writer);
    return status;
}

static dn_status save_trace(const forward_job *job, dn_error *error)
{
    const dn_plan *plan = job->model->plan;
    dn_safetensors_writer *writer = NULL;
    dn_status status = dn_safetensors_writer_create(&writer, error);
    for (uint32_t n = 0; n < plan->node_count && status == DN_OK; n++)
        status = add_tensor(writer, plan->nodes[n].name, job->rows, plan->values[plan->nodes[n].out].shape, job->trace[n], error);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, job->trace_path, false, error);
    dn_safetensors_writer_free(writer);
    return status;
}

static void free_job(forward_job *job)
{
    for (uint32_t n = 0; job->trace != NULL && n < job->model->plan->node_count; n++)
        free(job->trace[n]);
    free(job->trace);
    free(job->samples);
    free(job->times);
    free(job->classes);
    free(job->answers);
    dn_safetensors_close(job->input);
    dn_model_free(job->model);
}

int dn_command_forward(int argc, char **argv)
{
    forward_job job = {0};
    const dn_option options[] = {
        DN_NEEDED_OPTION("model", "DIR", job.model_path, "a pipeline or component folder"),
        DN_NEEDED_OPTION("input", "FILE", job.input_path, "safetensors: sample, timestep, class_labels"),
        DN_NEEDED_OPTION("output", "FILE", job.output_path, "safetensors: sample, the network's answer"),
        DN_TEXT_OPTION("trace", "FILE", job.trace_path, "safetensors: every node's output, by module name"),
        DN_DEVICE_OPTIONS(job.device, "cpu"),
        DN_COUNT_OPTION("threads", job.threads, 0, DN_THREADS_MAX, "0, the default: all available"),
    };
    const dn_command_line line = {.command = "forward",
                                  .operands = "",
                                  .summary = "Runs a network once on tensors: sample [N,C,H,W], timestep [N], class_labels [N] -> sample.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0]};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status != DN_OPTIONS_GO_ON)
        return status;

    dn_error error = {DN_OK, ""};
    dn_status result = dn_file_check_target(job.output_path, &error);
    if (result == DN_OK && job.trace_path != NULL)
        result = dn_file_check_target(job.trace_path, &error);
    if (result == DN_OK)
        result = dn_safetensors_open(&job.input, job.input_path, &error);
    if (result == DN_OK)
        result = read_samples(&job, &error);
    if (result == DN_OK)
        result = read_times(&job, &error);
    if (result == DN_OK)
        result = open_model(&job, &error);
    if (result == DN_OK)
        result = read_classes(&job, &error);
    if (result == DN_OK)
        result = run(&job, &error);
    if (result == DN_OK)
        result = save_answers(&job, &error);
    if (result == DN_OK && job.trace_path != NULL)
        result = save_trace(&job, &error);
    free_job(&job);
    return result == DN_OK ? DN_EXIT_OK : dn_command_failed("forward", &error);
}
