/* One model on two back ends, the CPU's and the CUDA one over the emulated GPU: the same rows through both. For tests of the latter.
 *
 * Rows differ in sample, scale, time and condition, as functions of their number alone. One thread. */
#ifndef DN_TESTS_CUDA_BACK_ENDS_H
#define DN_TESTS_CUDA_BACK_ENDS_H

#include "tests/test.h"

#include <sys/stat.h>

#include "backend/cuda/device.h"
#include "model/model.h"
#include "tests/cuda/emulator/emulator.h"
#include "tests/engine/made_weights.h"

#define ROWS_MAX 16u

static dn_error error;

/* A device with one network, one workspace and buffers for ROWS_MAX rows. */
typedef struct side {
    const dn_backend *backend;
    dn_device *device;
    dn_network *network;
    dn_workspace *workspace;
    dn_buffer *in, *out;
} side;

typedef struct pair {
    dn_model *model;
    size_t in_count, out_count; /* floats of a row */
    side cpu, gpu;
} pair;

/* A golden's model; one without stored weights is opened as a copy that has made ones. */
static inline dn_status open_golden(dn_model **out, const char *name, bool encoder)
{
    char folder[128], path[160], copy[64];
    snprintf(folder, sizeof folder, "tests/golden/%s", name);
    snprintf(path, sizeof path, "%s/tensors.json", folder);
    uint32_t size = strncmp(name, "vae_", 4) == 0 ? (encoder ? 16 : 4) : 0;
    if (access(path, R_OK) != 0)
        return encoder ? dn_model_open_part(out, folder, "encoder", size, size, &error) : dn_model_open(out, folder, size, size, &error);
    snprintf(copy, sizeof copy, "/tmp/denoised-cuda-%ld", (long)getpid());
    dn_status status = made_folder(copy, folder, &error);
    if (status == DN_OK)
        status = encoder ? dn_model_open_part(out, copy, "encoder", size, size, &error) : dn_model_open(out, copy, size, size, &error);
    made_folder_remove(copy);
    return status;
}

static inline void side_close(side *s)
{
    if (s->out)
        s->backend->buffer_free(s->out);
    if (s->in)
        s->backend->buffer_free(s->in);
    if (s->workspace)
        s->backend->workspace_free(s->workspace);
    if (s->network)
        s->backend->network_free(s->network);
    if (s->device)
        s->backend->device_close(s->device);
    *s = (side){0};
}

static inline dn_status side_open(side *s, const dn_backend *backend, const dn_plan *plan, const dn_weights *weights, dn_precision precision,
                                  const dn_workspace_options *options)
{
    dn_device_options device = {.threads = 2};
    dn_network_options network = {.plan = plan, .weights = weights, .precision = precision};
    *s = (side){.backend = backend};
    dn_status status = backend->device_open(&s->device, &device, &error);
    if (status == DN_OK)
        status = backend->network_create(&s->network, s->device, &network, &error);
    if (status == DN_OK)
        status = backend->workspace_create(&s->workspace, s->network, options, &error);
    if (status == DN_OK)
        status = backend->buffer_create(&s->in, s->device, ROWS_MAX * dn_shape_count(plan->values[plan->input].shape), &error);
    if (status == DN_OK)
        status = backend->buffer_create(&s->out, s->device, ROWS_MAX * dn_shape_count(plan->values[plan->output].shape), &error);
    return status;
}

/* Numbers as samples have them: sums of uniform ones, the same on every machine. */
static inline void fill_samples(float *out, size_t count, uint32_t row)
{
    for (size_t i = 0; i < count; i++) {
        float sum = 0.0f;
        for (uint32_t k = 0; k < 4; k++)
            sum += (float)(made_bits(row * 4 + k + 1, i) >> 8) / 16777216.0f - 0.5f;
        out[i] = 1.7f * sum;
    }
}

static inline dn_status side_fill(side *s, const dn_plan *plan)
{
    size_t count = dn_shape_count(plan->values[plan->input].shape);
    float *samples = malloc(ROWS_MAX * count * sizeof *samples);
    if (!samples)
        abort();
    for (uint32_t r = 0; r < ROWS_MAX; r++)
        fill_samples(samples + r * count, count, r);
    dn_status status = s->backend->buffer_write(s->in, 0, samples, ROWS_MAX * count, &error);
    free(samples);
    return status;
}

/* Row number `number` of a side: a class, two, or three. */
static inline dn_row row_of(const side *s, const dn_plan *plan, uint32_t number)
{
    static const float times[] = {1.0f, 17.25f, 250.0f, 999.0f, 0.5f, 3.0f, 61.5f};
    uint32_t classes = plan->class_rows;
    dn_row row = {.in = s->in,
                  .in_offset = number * dn_shape_count(plan->values[plan->input].shape),
                  .in_scale = number % 3 == 0 ? 1.0f : 0.75f,
                  .time = plan->time_rows ? (float)(number * 5 % plan->time_rows) : times[number % 7],
                  .out = s->out,
                  .out_offset = number * dn_shape_count(plan->values[plan->output].shape)};
    if (classes == 0)
        return row;
    row.condition.count = 1 + number % 3;
    for (uint32_t i = 0; i < row.condition.count; i++) {
        row.condition.classes[i] = (number * 3 + i) % classes;
        row.condition.weights[i] = row.condition.count == 1 ? 1.0f : 0.7f - 0.5f * (float)i;
    }
    return row;
}

/* Rows first .. first + count - 1 in one run; their answers (may be NULL). */
static inline dn_status side_run(side *s, const dn_plan *plan, uint32_t first, uint32_t count, float *answers)
{
    dn_row rows[ROWS_MAX];
    size_t floats = dn_shape_count(plan->values[plan->output].shape);
    for (uint32_t r = 0; r < count; r++)
        rows[r] = row_of(s, plan, first + r);
    dn_status status = s->backend->run(s->network, s->workspace, rows, count, &error);
    for (uint32_t r = 0; r < count && status == DN_OK; r++) {
        if (!rows[r].finite)
            status = dn_fail(&error, DN_NUMERIC, "row %u is not finite", first + r);
    }
    return status == DN_OK && answers ? s->backend->buffer_read(s->out, first * floats, answers, count * floats, &error) : status;
}

static inline void pair_close(pair *p)
{
    side_close(&p->gpu);
    side_close(&p->cpu);
    dn_model_free(p->model);
    *p = (pair){0};
}

/* p->model is there. The CPU is always in float. */
static inline dn_status pair_open(pair *p, dn_precision precision, const dn_workspace_options *options)
{
    const dn_plan *plan = p->model->plan;
    p->in_count = dn_shape_count(plan->values[plan->input].shape);
    p->out_count = dn_shape_count(plan->values[plan->output].shape);
    dn_status status = side_open(&p->cpu, dn_backend_cpu(), plan, p->model->weights, DN_PRECISION_FP32, options);
    if (status == DN_OK)
        status = side_open(&p->gpu, dn_backend_cuda(), plan, p->model->weights, precision, options);
    if (status == DN_OK)
        status = side_fill(&p->cpu, plan);
    return status == DN_OK ? side_fill(&p->gpu, plan) : status;
}

/* Root mean square of the differences, of what is expected. */
static inline double mean_error(const float *got, const float *expected, size_t count)
{
    double sum = 0.0, difference = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)expected[i] * (double)expected[i];
        difference += ((double)got[i] - (double)expected[i]) * ((double)got[i] - (double)expected[i]);
    }
    return isfinite(difference) ? sqrt(difference / fmax(sum, 1e-30)) : (double)INFINITY;
}

/* The largest difference, of the largest that is expected. */
static inline double largest_error(const float *got, const float *expected, size_t count)
{
    double largest = 0.0, difference = 0.0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        difference = fmax(difference, fabs((double)got[i] - (double)expected[i]));
    }
    return isfinite(difference) ? difference / fmax(largest, 1e-30) : (double)INFINITY;
}

#endif
