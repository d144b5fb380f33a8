/* Runs a batch forward and backward over the shards and adds their gradients in order; see shards.h. */
#include "train/shards.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "train/backward.h"
#include "train/order.h"

#define REDUCE_FLOATS 65536u /* of the packed gradient, one task */

/* What one shard owns; touched by one task at a time. */
typedef struct shard {
    dn_workspace *workspace;
    dn_buffer *in, *out;
    float *gradient; /* packed, the sum over this shard's pictures */
    float *memory; /* of row gradients, scratch and examples */
    float **gradients; /* per value, into memory */
    const float **values; /* per value, into the workspace */
    float *scratch, *sample, *target, *output, *d_output;
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

/* Carves the shard's memory: row gradients, scratch, sample, target, output and its gradient. */
static dn_status shard_memory(dn_shards *s, shard *one, dn_error *error)
{
    const dn_plan *plan = s->options.plan;
    size_t scratch = rounded(s->packing->scratch), in = rounded(s->in_count), out = rounded(s->out_count);
    one->memory = floats(s->packing->row_gradients + scratch + in + 3 * out);
    one->gradient = floats(s->packing->total);
    one->gradients = calloc(plan->value_count, sizeof *one->gradients);
    one->values = calloc(plan->value_count, sizeof *one->values);
    if (!one->memory || !one->gradient || !one->gradients || !one->values) {
        return dn_fail(error, DN_NO_MEMORY, "no memory for the gradients of %u shards", DN_SHARDS);
    }
    float *next = one->memory;
    for (uint32_t v = 0; v < plan->value_count; v++) {
        one->gradients[v] = next;
        next += rounded(dn_shape_count(plan->values[v].shape));
    }
    one->scratch = next;
    one->sample = one->scratch + scratch;
    one->target = one->sample + in;
    one->output = one->target + out;
    one->d_output = one->output + out;
    return DN_OK;
}

static dn_status shard_create(dn_shards *s, shard *one, dn_error *error)
{
    const dn_shards_options *o = &s->options;
    const dn_workspace_options options = {.rows_max = 1, .keep_values = true, .inline_threads = true};
    dn_status status = shard_memory(s, one, error);
    if (status == DN_OK) {
        status = o->backend->workspace_create(&one->workspace, o->network, &options, error);
    }
    if (status == DN_OK) {
        status = o->backend->buffer_create(&one->in, o->device, s->in_count, error);
    }
    if (status == DN_OK) {
        status = o->backend->buffer_create(&one->out, o->device, s->out_count, error);
    }
    return status;
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
        status = shard_create(s, &s->shards[i], error);
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
    for (uint32_t i = 0; i < DN_SHARDS; i++) {
        shard *one = &s->shards[i];
        if (one->workspace) {
            s->options.backend->workspace_free(one->workspace);
        }
        if (one->in) {
            s->options.backend->buffer_free(one->in);
        }
        if (one->out) {
            s->options.backend->buffer_free(one->out);
        }
        free(one->gradient);
        free(one->memory);
        free(one->gradients);
        free(one->values);
    }
    dn_packing_free(s->packing);
    free(s->packed);
    free(s);
}

/* One picture forward and backward into the shard's gradient. */
static dn_status run_example(dn_shards *s, shard *one, uint32_t index)
{
    const dn_backend *b = s->options.backend;
    const dn_plan *plan = s->options.plan;
    dn_example example = {.sample = one->sample, .target = one->target, .weight = 1};
    s->options.source(s->options.payload, index, &example);
    dn_status status = b->buffer_write(one->in, 0, one->sample, s->in_count, &one->error);
    if (status != DN_OK) {
        return status;
    }
    dn_row row = {.in = one->in, .in_scale = 1, .time = example.time, .condition = example.condition, .out = one->out};
    status = b->run(s->options.network, one->workspace, &row, 1, &one->error);
    if (status != DN_OK) {
        return status;
    }
    if (!row.finite) {
        return dn_fail(&one->error, DN_NUMERIC, "the network's answer is not finite");
    }
    status = b->buffer_read(one->out, 0, one->output, s->out_count, &one->error);
    if (status != DN_OK) {
        return status;
    }
    one->loss += s->options.loss(&example, one->output, one->d_output, s->out_count);
    dn_order_to_pixels(one->gradients[plan->output], one->d_output, plan->values[plan->output].shape);
    for (uint32_t v = 0; v < plan->value_count; v++) {
        one->values[v] = dn_cpu_value(one->workspace, v);
    }
    s->table->row(&(dn_backward_f32){.packing = s->packing,
                                     .packed = s->packed,
                                     .packed_gradient = one->gradient,
                                     .values = one->values,
                                     .gradients = one->gradients,
                                     .condition = &example.condition,
                                     .scratch = one->scratch,
                                     .time = (double)example.time});
    return DN_OK;
}

static void run_shard(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    dn_shards *s = payload;
    shard *one = &s->shards[index];
    uint32_t first = (uint32_t)((uint64_t)s->batch * index / DN_SHARDS), end = (uint32_t)((uint64_t)s->batch * (index + 1) / DN_SHARDS);
    memset(one->gradient, 0, s->packing->total * sizeof(float));
    one->loss = 0;
    one->error.status = DN_OK;
    for (uint32_t i = first; i < end && one->error.status == DN_OK; i++) {
        one->error.status = run_example(s, one, i);
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
