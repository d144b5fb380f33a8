/* Runs a batch forward and backward over the shards and adds their gradients in order; see shards.h. */
#include "train/shards.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "train/backward.h"
#include "train/order.h"

#define REDUCE_FLOATS 65536u /* of the packed gradient, one task */

/* What a pool's thread runs a few pictures with; a shard in progress has one to itself. */
typedef struct runner {
    dn_workspace *workspace;
    dn_buffer *in, *out;
    float *memory; /* of row gradients, scratch and examples */
    float **gradients; /* [rows][values], into memory */
    const float **values; /* [rows][values], into the workspace */
    float *scratch, *samples, *targets, *outputs, *d_output; /* of the last, one row's */
} runner;

/* What one shard owns; touched by one task at a time. */
typedef struct shard {
    float *gradient; /* packed, the sum over this shard's pictures */
    double loss;
    dn_error error;
} shard;

struct dn_shards {
    dn_shards_options options;
    dn_packing *packing;
    const dn_backward_table_f32 *table;
    float *packed; /* the weights */
    uint32_t batch; /* of the call in progress */
    size_t in_count, out_count;
    unsigned runner_count;
    runner *runners; /* one for each thread of the pool */
    shard shards[DN_SHARDS];
};

double dn_loss_squared(const dn_example *example, const float *output, float *d, size_t count)
{
    double sum = 0;
    float factor = (float)(2 * example->weight / (double)count);
    for (size_t i = 0; i < count; i++) {
        float gap = output[i] - example->target[i];
        sum += (double)gap * (double)gap;
        d[i] = factor * gap;
    }
    return example->weight * sum / (double)count;
}

double dn_loss_cross_entropy(const dn_example *example, const float *output, float *d, size_t count)
{
    double top = (double)output[0];
    for (size_t i = 1; i < count; i++) {
        top = (double)output[i] > top ? (double)output[i] : top;
    }
    double total = exp((double)output[0] - top);
    for (size_t i = 1; i < count; i++) {
        total += exp((double)output[i] - top);
    }
    for (size_t i = 0; i < count; i++) {
        double p = exp((double)output[i] - top) / total;
        d[i] = (float)(example->weight * (p - (i == example->label ? 1.0 : 0.0)));
    }
    return example->weight * (log(total) + top - (double)output[example->label]);
}

static float *floats(size_t count)
{
    float *out = aligned_alloc(64, (count * sizeof(float) + 127) / 64 * 64);
    if (out) {
        memset(out, 0, count * sizeof(float));
    }
    return out;
}

static size_t rounded(size_t count)
{
    return (count + 63) / 64 * 64;
}

/* Carves a runner's memory: row gradients, scratch, samples, targets, outputs and the gradient of one. */
static dn_status runner_memory(const dn_shards *s, runner *one, dn_error *error)
{
    const dn_plan *plan = s->options.plan;
    size_t scratch = rounded(s->packing->scratch), in = rounded(s->in_count), out = rounded(s->out_count), rows = DN_BACKWARD_ROWS;
    one->memory = floats(rows * s->packing->row_gradients + scratch + rows * (in + 2 * out) + out);
    one->gradients = calloc(rows * plan->value_count, sizeof *one->gradients);
    one->values = calloc(rows * plan->value_count, sizeof *one->values);
    if (!one->memory || !one->gradients || !one->values) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for the gradients of %u rows", DN_BACKWARD_ROWS);
    }
    float *next = one->memory;
    for (size_t i = 0; i < rows * plan->value_count; i++) {
        one->gradients[i] = next;
        next += rounded(dn_shape_count(plan->values[i % plan->value_count].shape));
    }
    one->scratch = next;
    one->samples = one->scratch + scratch;
    one->targets = one->samples + rows * in;
    one->outputs = one->targets + rows * out;
    one->d_output = one->outputs + rows * out;
    return DN_OK;
}

static dn_status runner_create(const dn_shards *s, runner *one, dn_error *error)
{
    const dn_shards_options *o = &s->options;
    const dn_workspace_options options = {.rows_max = DN_BACKWARD_ROWS, .keep_values = true, .inline_threads = true};
    dn_status status = runner_memory(s, one, error);
    if (status == DN_OK) {
        status = o->backend->workspace_create(&one->workspace, o->network, &options, error);
    }
    if (status == DN_OK) {
        status = o->backend->buffer_create(&one->in, o->device, DN_BACKWARD_ROWS * rounded(s->in_count), error);
    }
    if (status == DN_OK) {
        status = o->backend->buffer_create(&one->out, o->device, DN_BACKWARD_ROWS * rounded(s->out_count), error);
    }
    return status;
}

static void runner_free(const dn_shards *s, runner *one)
{
    if (one->workspace) {
        s->options.backend->workspace_free(one->workspace);
    }
    if (one->in) {
        s->options.backend->buffer_free(one->in);
    }
    if (one->out) {
        s->options.backend->buffer_free(one->out);
    }
    free(one->memory);
    free(one->gradients);
    free(one->values);
}

dn_status dn_shards_create(dn_shards **out, const dn_shards_options *options, dn_error *error)
{
    dn_shards *s = calloc(1, sizeof *s);
    if (!s) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for %u shards", DN_SHARDS);
    }
    s->options = *options;
    s->in_count = dn_shape_count(options->plan->values[options->plan->input].shape);
    s->out_count = dn_shape_count(options->plan->values[options->plan->output].shape);
    s->table = dn_backward_find_f32(options->backend->device_isa(options->device));
    dn_status status = dn_packing_create(&s->packing, options->plan, error);
    if (status == DN_OK && !(s->packed = floats(s->packing->total))) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for packed weights");
    }
    for (uint32_t i = 0; status == DN_OK && i < DN_SHARDS; i++) {
        s->shards[i].gradient = floats(s->packing->total);
        if (!s->shards[i].gradient) {
            status = dn_fail(error, DN_NO_MEMORY, "no memory for the gradients of %u shards", DN_SHARDS);
        }
    }
    s->runner_count = dn_pool_size(options->pool);
    s->runners = calloc(s->runner_count, sizeof *s->runners);
    if (status == DN_OK && !s->runners) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for %u threads", s->runner_count);
    }
    for (unsigned i = 0; status == DN_OK && i < s->runner_count; i++) {
        status = runner_create(s, &s->runners[i], error);
    }
    if (status != DN_OK) {
        dn_shards_free(s);
        return status;
    }
    *out = s;
    return DN_OK;
}

void dn_shards_free(dn_shards *s)
{
    if (!s) {
        return;
    }
    for (unsigned i = 0; s->runners && i < s->runner_count; i++) {
        runner_free(s, &s->runners[i]);
    }
    free(s->runners);
    for (uint32_t i = 0; i < DN_SHARDS; i++) {
        free(s->shards[i].gradient);
    }
    dn_packing_free(s->packing);
    free(s->packed);
    free(s);
}

/* Pictures first .. first + count - 1 of the batch forward: their examples and what the network says of them. */
static dn_status run_forward(const dn_shards *s, runner *r, uint32_t first, uint32_t count, dn_example *examples, dn_error *error)
{
    const dn_backend *b = s->options.backend;
    size_t in = rounded(s->in_count), out = rounded(s->out_count);
    dn_row rows[DN_BACKWARD_ROWS];
    for (uint32_t i = 0; i < count; i++) {
        examples[i] = (dn_example){.sample = r->samples + i * in, .target = r->targets + i * out, .weight = 1};
        s->options.source(s->options.payload, first + i, &examples[i]);
        rows[i] = (dn_row){.in = r->in,
                           .in_offset = i * in,
                           .in_scale = 1,
                           .time = examples[i].time,
                           .condition = examples[i].condition,
                           .out = r->out,
                           .out_offset = i * out};
    }
    dn_status status = b->buffer_write(r->in, 0, r->samples, count * in, error);
    if (status == DN_OK) {
        status = b->run(s->options.network, r->workspace, rows, count, error);
    }
    for (uint32_t i = 0; i < count && status == DN_OK; i++) {
        if (!rows[i].finite) {
            status = dn_fail(error, DN_NUMERIC, "the network's answer is not finite");
        }
    }
    return status == DN_OK ? b->buffer_read(r->out, 0, r->outputs, count * out, error) : status;
}

/* The same pictures forward and backward into the shard's gradient. */
static dn_status run_examples(const dn_shards *s, shard *one, runner *r, uint32_t first, uint32_t count)
{
    const dn_plan *plan = s->options.plan;
    dn_example examples[DN_BACKWARD_ROWS];
    dn_backward_f32 runs[DN_BACKWARD_ROWS];
    dn_status status = run_forward(s, r, first, count, examples, &one->error);
    if (status != DN_OK) {
        return status;
    }
    for (uint32_t i = 0; i < count; i++) {
        const float **values = r->values + i * plan->value_count;
        float **gradients = r->gradients + i * plan->value_count;
        one->loss += s->options.loss(&examples[i], r->outputs + i * rounded(s->out_count), r->d_output, s->out_count);
        dn_order_to_pixels(gradients[plan->output], r->d_output, plan->values[plan->output].shape);
        for (uint32_t v = 0; v < plan->value_count; v++) {
            values[v] = dn_cpu_value(r->workspace, v) + i * dn_shape_count(plan->values[v].shape);
        }
        runs[i] = (dn_backward_f32){.packing = s->packing,
                                    .packed = s->packed,
                                    .packed_gradient = one->gradient,
                                    .values = values,
                                    .gradients = gradients,
                                    .condition = &examples[i].condition,
                                    .scratch = r->scratch,
                                    .time = (double)examples[i].time};
    }
    s->table->rows(runs, count);
    return DN_OK;
}

/* A few pictures at a time, cut by the shard's pictures alone. */
static void run_shard(void *payload, unsigned index, unsigned worker)
{
    dn_shards *s = payload;
    shard *one = &s->shards[index];
    uint32_t first = (uint32_t)((uint64_t)s->batch * index / DN_SHARDS), end = (uint32_t)((uint64_t)s->batch * (index + 1) / DN_SHARDS);
    memset(one->gradient, 0, s->packing->total * sizeof(float));
    one->loss = 0;
    one->error.status = DN_OK;
    for (uint32_t i = first; i < end && one->error.status == DN_OK; i += DN_BACKWARD_ROWS) {
        uint32_t count = end - i < DN_BACKWARD_ROWS ? end - i : DN_BACKWARD_ROWS;
        one->error.status = run_examples(s, one, &s->runners[worker], i, count);
    }
}

/* Adds the shards, in order, into shard 0's gradient. */
static void reduce(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    dn_shards *s = payload;
    size_t first = (size_t)index * REDUCE_FLOATS, end = first + REDUCE_FLOATS;
    end = end > s->packing->total ? s->packing->total : end;
    float share = 1.0f / (float)s->batch;
    float *restrict sum = s->shards[0].gradient;
    for (uint32_t k = 1; k < DN_SHARDS; k++) {
        const float *restrict other = s->shards[k].gradient;
        for (size_t i = first; i < end; i++) {
            sum[i] += other[i];
        }
    }
    for (size_t i = first; i < end; i++) {
        sum[i] *= share;
    }
}

dn_status dn_shards_gradient(dn_shards *s, const dn_weights *weights, uint32_t batch, dn_weights *gradient, double *loss, dn_error *error)
{
    double total = 0;
    s->batch = batch;
    s->table->pack(s->packing, (const float *const *)weights->data, s->packed);
    dn_pool_run(s->options.pool, DN_SHARDS, run_shard, s);
    for (uint32_t i = 0; i < DN_SHARDS; i++) {
        if (s->shards[i].error.status != DN_OK) {
            return dn_fail(error, s->shards[i].error.status, "%s", s->shards[i].error.message);
        }
        total += s->shards[i].loss;
    }
    dn_pool_run(s->options.pool, (unsigned)((s->packing->total + REDUCE_FLOATS - 1) / REDUCE_FLOATS), reduce, s);
    s->table->unpack(s->packing, s->shards[0].gradient, gradient->data);
    *loss = total / batch;
    return DN_OK;
}
