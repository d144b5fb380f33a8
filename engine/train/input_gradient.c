/* Runs rows forward and backward to the input, each on one of the pool's threads; see input_gradient.h.
 *
 * Invariant: a worker's memory is touched by the one task it runs. Tasks run on the options' pool. */
#include "train/input_gradient.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "train/backward.h"
#include "train/order.h"

/* What one thread owns. */
typedef struct worker {
    dn_workspace *workspace; /* of one row, all values kept */
    dn_buffer *out;
    float *memory; /* what the pointers below point into */
    float **gradients; /* per value */
    const float **values; /* per value, into the workspace */
    float *scratch, *output, *pull, *sample;
} worker;

struct dn_input_gradient {
    dn_input_gradient_options options;
    dn_packing *packing;
    const dn_backward_table_f32 *table;
    float *packed; /* the weights */
    size_t in_count, out_count;
    worker *workers;
    unsigned worker_count;
};

static size_t rounded(size_t count)
{
    return (count + 63) / 64 * 64;
}

static float *floats(size_t count)
{
    float *out = aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64);
    if (out) {
        memset(out, 0, count * sizeof(float));
    }
    return out;
}

/* Carves a worker's memory: row gradients, scratch, output, pull, sample. */
static dn_status worker_create(const dn_input_gradient *g, worker *w, dn_error *error)
{
    const dn_input_gradient_options *o = &g->options;
    const dn_plan *plan = o->plan;
    const dn_workspace_options options = {.rows_max = 1, .keep_values = true, .inline_threads = true};
    size_t scratch = rounded(g->packing->scratch), in = rounded(g->in_count), out = rounded(g->out_count);
    w->memory = floats(g->packing->row_gradients + scratch + in + 2 * out);
    w->gradients = calloc(plan->value_count, sizeof *w->gradients);
    w->values = calloc(plan->value_count, sizeof *w->values);
    if (!w->memory || !w->gradients || !w->values) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for the gradients of one row");
    }
    dn_status status = o->backend->workspace_create(&w->workspace, o->network, &options, error);
    if (status == DN_OK) {
        status = o->backend->buffer_create(&w->out, o->device, g->out_count, error);
    }
    float *next = w->memory;
    for (uint32_t v = 0; v < plan->value_count; v++) {
        w->gradients[v] = next;
        next += rounded(dn_shape_count(plan->values[v].shape));
        w->values[v] = status == DN_OK ? dn_cpu_value(w->workspace, v) : NULL;
    }
    w->scratch = next;
    w->output = w->scratch + scratch;
    w->pull = w->output + out;
    w->sample = w->pull + out;
    return status;
}

dn_status dn_input_gradient_create(dn_input_gradient **out, const dn_input_gradient_options *options, dn_error *error)
{
    dn_input_gradient *g = calloc(1, sizeof *g);
    if (!g) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for an input gradient");
    }
    g->options = *options;
    g->in_count = dn_shape_count(options->plan->values[options->plan->input].shape);
    g->out_count = dn_shape_count(options->plan->values[options->plan->output].shape);
    g->table = dn_backward_find_f32(options->backend->device_isa(options->device));
    g->worker_count = dn_pool_size(options->pool);
    g->workers = calloc(g->worker_count, sizeof *g->workers);
    dn_status status = dn_packing_create(&g->packing, options->plan, error);
    if (status == DN_OK && (!g->workers || !(g->packed = floats(g->packing->total)))) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for packed weights");
    }
    for (unsigned i = 0; status == DN_OK && i < g->worker_count; i++) {
        status = worker_create(g, &g->workers[i], error);
    }
    if (status != DN_OK) {
        dn_input_gradient_free(g);
        return status;
    }
    g->table->pack(g->packing, (const float *const *)options->weights->data, g->packed);
    *out = g;
    return DN_OK;
}

void dn_input_gradient_free(dn_input_gradient *g)
{
    if (!g) {
        return;
    }
    for (unsigned i = 0; g->workers && i < g->worker_count; i++) {
        worker *w = &g->workers[i];
        if (w->workspace) {
            g->options.backend->workspace_free(w->workspace);
        }
        if (w->out) {
            g->options.backend->buffer_free(w->out);
        }
        free(w->memory);
        free(w->gradients);
        free(w->values);
    }
    free(g->workers);
    dn_packing_free(g->packing);
    free(g->packed);
    free(g);
}

typedef struct run_job {
    dn_input_gradient *gradient;
    dn_row *rows;
    dn_pull_function *pull;
    void *payload;
    dn_error *errors; /* one for each row */
} run_job;

static bool all_finite(const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(x[i])) {
            return false;
        }
    }
    return true;
}

static dn_status run_row(const run_job *job, worker *w, uint32_t index, dn_error *error)
{
    const dn_input_gradient *g = job->gradient;
    const dn_backend *b = g->options.backend;
    const dn_plan *plan = g->options.plan;
    dn_row *row = &job->rows[index], forward = *row;
    forward.out = w->out;
    forward.out_offset = 0;
    dn_status status = b->run(g->options.network, w->workspace, &forward, 1, error);
    if (status == DN_OK) {
        status = b->buffer_read(w->out, 0, w->output, g->out_count, error);
    }
    if (status != DN_OK) {
        return status;
    }
    job->pull(job->payload, index, w->output, w->pull, g->out_count);
    dn_order_to_pixels(w->gradients[plan->output], w->pull, plan->values[plan->output].shape);
    g->table->rows(&(dn_backward_f32){.packing = g->packing,
                                      .packed = g->packed,
                                      .values = w->values,
                                      .gradients = w->gradients,
                                      .condition = &row->condition,
                                      .scratch = w->scratch,
                                      .input_gradient = true,
                                      .time = (double)row->time},
                   1);
    dn_order_from_pixels(w->sample, w->gradients[plan->input], plan->values[plan->input].shape);
    row->finite = forward.finite && all_finite(w->sample, g->in_count);
    return b->buffer_write(row->out, row->out_offset, w->sample, g->in_count, error);
}

static void run_task(void *payload, unsigned index, unsigned worker_index)
{
    const run_job *job = payload;
    dn_error *error = &job->errors[index];
    error->status = run_row(job, &job->gradient->workers[worker_index], index, error);
}

dn_status dn_input_gradient_run(dn_input_gradient *gradient, dn_row *rows, uint32_t row_count, dn_pull_function *pull, void *payload,
                                dn_error *error)
{
    run_job job = {.gradient = gradient, .rows = rows, .pull = pull, .payload = payload};
    job.errors = calloc(row_count ? row_count : 1, sizeof *job.errors);
    if (!job.errors) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for %u rows", row_count);
    }
    dn_pool_run(gradient->options.pool, row_count, run_task, &job);
    dn_status status = DN_OK;
    for (uint32_t r = 0; r < row_count && status == DN_OK; r++) {
        if (job.errors[r].status != DN_OK) {
            status = dn_fail(error, job.errors[r].status, "%s", job.errors[r].message);
        }
    }
    free(job.errors);
    return status;
}
