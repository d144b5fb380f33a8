/* What the programs of `make gpu-test` share: how a result is told, the device under test, networks with random weights, rows and runs.
 *
 * A program prints one JSON object a line, which run.py collects: {"check", "ok", "detail"}, {"figure", "value", "unit", ...},
 * {"note": text} or {"skip": reason}. Its status is 0 unless a check failed (1) or its command line is wrong (64). Where there is no such device it says
 * so in a skip, and ends with 0. Everything is drawn from one small generator. Single-threaded. */
#ifndef DN_TESTS_GPU_H
#define DN_TESTS_GPU_H

#include <cjson/cJSON.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/devices.h"
#include "base/clock.h"
#include "format/json.h"
#include "model/model.h"

#define GPU_ROWS_MAX 128u
#define GPU_TABLE 65536u /* normals that weights and inputs are made of */

static int gpu_failed;

static inline void gpu_print(cJSON *line)
{
    char *text = cJSON_PrintUnformatted(line);
    printf("%s\n", text != NULL ? text : "{}");
    fflush(stdout);
    free(text);
    cJSON_Delete(line);
}

__attribute__((format(printf, 3, 4))) static inline bool gpu_check(const char *name, bool ok, const char *format, ...)
{
    char detail[600];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "check", name);
    cJSON_AddBoolToObject(line, "ok", ok);
    cJSON_AddStringToObject(line, "detail", detail);
    gpu_print(line);
    gpu_failed += !ok;
    return ok;
}

/* A line that more members may be added to before gpu_print. */
static inline cJSON *gpu_figure(const char *name, double value, const char *unit)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "figure", name);
    cJSON_AddNumberToObject(line, "value", value);
    cJSON_AddStringToObject(line, "unit", unit);
    return line;
}

/* What a reader of the results should know; it judges nothing. */
static inline void gpu_note(const char *text)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "note", text);
    gpu_print(line);
}

static inline void gpu_skip(const char *reason)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "skip", reason);
    gpu_print(line);
}

/* The value after an option of the command line; `usual` where it is not there. */
static inline const char *gpu_option(int argc, char **argv, const char *name, const char *usual)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return usual;
}

/* ---- A device, with a place for one network. */
typedef struct gpu_rig {
    const dn_backend *backend;
    dn_device *device;
    dn_network *network;
    dn_workspace *workspace;
    dn_buffer *in, *out; /* of GPU_ROWS_MAX rows at most */
    const dn_model *model;
    size_t in_count, out_count;
    uint32_t rows_max;
} gpu_rig;

static inline dn_status gpu_open(gpu_rig *rig, const char *name, const char *cache, dn_error *error)
{
    dn_device_choice choice;
    *rig = (gpu_rig){0};
    dn_status status = dn_device_choose(&choice, name, NULL, 0, error);
    if (status != DN_OK)
        return status;
    rig->backend = choice.backend;
    const dn_device_options options = {.index = choice.index, .cache = cache};
    return rig->backend->device_open(&rig->device, &options, error);
}

static inline void gpu_unload(gpu_rig *rig)
{
    if (rig->out != NULL)
        rig->backend->buffer_free(rig->out);
    if (rig->in != NULL)
        rig->backend->buffer_free(rig->in);
    if (rig->workspace != NULL)
        rig->backend->workspace_free(rig->workspace);
    if (rig->network != NULL)
        rig->backend->network_free(rig->network);
    rig->network = NULL;
    rig->workspace = NULL;
    rig->in = rig->out = NULL;
}

static inline void gpu_close(gpu_rig *rig)
{
    gpu_unload(rig);
    if (rig->device != NULL)
        rig->backend->device_close(rig->device);
    rig->device = NULL;
}

/* Network, workspace and buffers for rows_max rows of the model. */
static inline dn_status gpu_load(gpu_rig *rig, const dn_model *model, dn_precision precision, uint32_t rows_max, bool keep_values,
                                 dn_error *error)
{
    const dn_network_options network = {.plan = model->plan, .weights = model->weights, .precision = precision};
    const dn_workspace_options workspace = {.rows_max = rows_max, .keep_values = keep_values};
    rig->model = model;
    rig->rows_max = rows_max;
    rig->in_count = dn_shape_count(model->plan->values[model->plan->input].shape);
    rig->out_count = dn_shape_count(model->plan->values[model->plan->output].shape);
    dn_status status = rig->backend->precision_check(rig->device, precision, error);
    if (status == DN_OK)
        status = rig->backend->network_create(&rig->network, rig->device, &network, error);
    if (status == DN_OK)
        status = rig->backend->workspace_create(&rig->workspace, rig->network, &workspace, error);
    if (status == DN_OK)
        status = rig->backend->buffer_create(&rig->in, rig->device, rig->in_count * rows_max, error);
    if (status == DN_OK)
        status = rig->backend->buffer_create(&rig->out, rig->device, rig->out_count * rows_max, error);
    return status;
}

/* ---- Numbers. */
static inline const float *gpu_table(void)
{
    static float table[GPU_TABLE];
    if (table[0] == 0.0f)
        dn_noise_normal(table, GPU_TABLE, 0, 1, DN_STREAM_TRAIN, 0);
    return table;
}

/* Weights whose layers keep the variance of their inputs; gains of norms near one, biases small, none of them zero. */
static inline void gpu_fill_weights(dn_weights *weights, const dn_plan *plan)
{
    const float *table = gpu_table();
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        const dn_weight_info *info = &plan->weights[w];
        const char *part = info->parts[0];
        const bool gain = info->rank == 1 && strstr(part, "norm") != NULL && strstr(part, "weight") != NULL;
        const float scale = info->rank > 1 ? 1.0f / sqrtf((float)info->count / (float)info->dims[0]) : 0.1f;
        for (uint64_t i = 0; i < info->count; i++)
            weights->data[w][i] = (gain ? 1.0f : 0.0f) + scale * table[(i + 7919u * w) % GPU_TABLE];
    }
}

/* A model of CONFIG.json ("PATH" or "PATH@SIDE": another sample_size) with random weights. */
static inline dn_status gpu_model(dn_model **out, const char *spec, dn_error *error)
{
    char path[512];
    cJSON *config = NULL;
    snprintf(path, sizeof path, "%s", spec);
    char *side = strrchr(path, '@');
    if (side != NULL)
        *side++ = '\0';
    dn_status status = dn_json_read_file(&config, path, DN_CONFIG_BYTES_MAX, error);
    if (status == DN_OK && side != NULL)
        cJSON_ReplaceItemInObjectCaseSensitive(config, "sample_size", cJSON_CreateNumber(atoi(side)));
    if (status == DN_OK)
        status = dn_model_from_config(out, config, path, error);
    cJSON_Delete(config);
    if (status == DN_OK && (status = dn_weights_create(&(*out)->weights, (*out)->plan, error)) == DN_OK)
        gpu_fill_weights((*out)->weights, (*out)->plan);
    if (status != DN_OK && *out != NULL) {
        dn_model_free(*out);
        *out = NULL;
    }
    return status;
}

/* "dit_xl_2@64" of "tests/bench/models/dit_xl_2.json@64"; a golden folder's config.json by the folder's name. */
static inline const char *gpu_model_name(const char *spec)
{
    static char name[96];
    char path[512];
    snprintf(path, sizeof path, "%s", spec);
    char *side = strrchr(path, '@'), *dot = strstr(path, ".json");
    if (dot != NULL)
        *dot = '\0';
    char *last = strrchr(path, '/');
    if (last != NULL && strcmp(last, "/config") == 0) {
        *last = '\0';
        last = strrchr(path, '/');
    }
    snprintf(name, sizeof name, "%.60s%s%.20s", last != NULL ? last + 1 : path, side != NULL ? "@" : "", side != NULL ? side + 1 : "");
    return name;
}

/* The sample of row r, the same on every device: written at slot `slot` of the rig's input. */
static inline dn_status gpu_write_sample(gpu_rig *rig, uint32_t slot, uint32_t r, dn_error *error)
{
    float *sample = malloc(rig->in_count * sizeof *sample);
    if (sample == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a sample");
    dn_noise_normal(sample, rig->in_count, 0, 1000u + r, DN_STREAM_START, 0);
    dn_status status = rig->backend->buffer_write(rig->in, slot * rig->in_count, sample, rig->in_count, error);
    free(sample);
    return status;
}

/* Row r, in slot `slot`: a time, a scale and a condition of its own. */
static inline dn_row gpu_row(const gpu_rig *rig, uint32_t slot, uint32_t r)
{
    const dn_plan *plan = rig->model->plan;
    dn_row row = {.in = rig->in, .in_offset = slot * rig->in_count, .in_scale = 1.0f - 0.003f * (float)r, .out = rig->out};
    row.out_offset = slot * rig->out_count;
    row.time = plan->time_rows > 0 ? (float)((37 * r + 5) % plan->time_rows) : 1.0f + 7.25f * (float)r;
    if (plan->class_rows > 0) {
        row.condition.count = 1 + r % 2;
        for (uint32_t i = 0; i < row.condition.count; i++) {
            row.condition.classes[i] = (3 * r + i) % plan->class_rows;
            row.condition.weights[i] = row.condition.count == 1 ? 1.0f : i ? 0.25f : 0.75f;
        }
    }
    return row;
}

/* Runs rows first .. first + count - 1, row first + i in slot (i + shift) % count, and reads what each gave to out + i * out_count. */
static inline dn_status gpu_run(gpu_rig *rig, uint32_t first, uint32_t count, uint32_t shift, float *out, dn_error *error)
{
    dn_row rows[GPU_ROWS_MAX];
    dn_status status = DN_OK;
    for (uint32_t i = 0; status == DN_OK && i < count; i++) {
        const uint32_t slot = (i + shift) % count;
        status = gpu_write_sample(rig, slot, first + i, error);
        rows[slot] = gpu_row(rig, slot, first + i);
    }
    if (status == DN_OK)
        status = rig->backend->run(rig->network, rig->workspace, rows, count, error);
    for (uint32_t i = 0; status == DN_OK && i < count; i++)
        status = rig->backend->buffer_read(rig->out, (i + shift) % count * rig->out_count, out + i * rig->out_count, rig->out_count, error);
    return status;
}

/* ---- How far apart. */
typedef struct gpu_distance {
    double rms, largest; /* of the differences, over the reference's */
    bool finite;
} gpu_distance;

static inline gpu_distance gpu_compare(const float *got, const float *want, size_t count)
{
    double squares = 0.0, wanted = 0.0, most = 0.0, highest = 0.0;
    bool finite = true;
    for (size_t i = 0; i < count; i++) {
        const double d = (double)got[i] - (double)want[i];
        finite = finite && isfinite(got[i]) && isfinite(want[i]);
        squares += d * d;
        wanted += (double)want[i] * (double)want[i];
        most = fmax(most, fabs(d));
        highest = fmax(highest, fabs((double)want[i]));
    }
    return (gpu_distance){wanted > 0.0 ? sqrt(squares / wanted) : sqrt(squares), highest > 0.0 ? most / highest : most, finite};
}

#endif
