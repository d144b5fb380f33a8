/* Runs a network forward and backward for its velocity and the products with probes; see network_field.h. */
#include "evaluate/network_field.h"

#include <stdlib.h>
#include <string.h>

#include "diffusion/family.h"
#include "train/input_gradient.h"

struct dn_network_field {
    dn_network_field_options options;
    dn_network *network;
    dn_pool *pool;
    dn_input_gradient *gradient;
    dn_buffer *in, *out; /* one image; one product for each probe */
    dn_row *rows;
    dn_condition condition;
    size_t elements;
    /* of the call in progress */
    const float *probes;
    float *answer;
};

/* Row k pulls with probe k; the first one keeps the network's answer. A learned variance half is not pulled on. */
static void pull_probe(void *payload, uint32_t row, const float *output, float *pull, size_t count)
{
    const dn_network_field *f = payload;
    if (row == 0)
        memcpy(f->answer, output, f->elements * sizeof *output);
    memset(pull, 0, count * sizeof *pull);
    memcpy(pull, f->probes + row * f->elements, f->elements * sizeof *pull);
}

static dn_status run(void *self, double time, const float *x, const float *probes, uint32_t count, float *velocity, float *products,
                     dn_error *error)
{
    dn_network_field *f = self;
    const dn_backend *b = f->options.backend;
    dn_flow_velocity v = dn_flow_velocity_at(f->options.training, time);
    f->probes = probes;
    f->answer = velocity;
    dn_status status = b->buffer_write(f->in, 0, x, f->elements, error);
    for (uint32_t k = 0; k < count; k++)
        f->rows[k] = (dn_row){.in = f->in,
                              .in_scale = (float)v.in,
                              .time = (float)v.time,
                              .condition = f->condition,
                              .out = f->out,
                              .out_offset = k * f->elements};
    if (status == DN_OK)
        status = dn_input_gradient_run(f->gradient, f->rows, count, pull_probe, f, error);
    for (uint32_t k = 0; k < count && status == DN_OK; k++)
        if (!f->rows[k].finite)
            status = dn_fail(error, DN_NUMERIC, "the network's answer or its gradient holds NaN or infinity at t = %g", time);
    if (status == DN_OK)
        status = b->buffer_read(f->out, 0, products, count * f->elements, error);
    if (status != DN_OK)
        return status;
    for (size_t i = 0; i < f->elements; i++)
        velocity[i] = (float)(v.own * (double)x[i] + v.answer * (double)velocity[i]);
    for (size_t i = 0; i < count * f->elements; i++)
        products[i] = (float)(v.own * (double)probes[i] + v.answer * v.in * (double)products[i]);
    return DN_OK;
}

static dn_status create_parts(dn_network_field *f, dn_error *error)
{
    const dn_network_field_options *o = &f->options;
    const dn_network_options network = {.plan = o->model->plan, .weights = o->model->weights};
    dn_status status = o->backend->network_create(&f->network, o->device, &network, error);
    if (status == DN_OK)
        status = dn_pool_create(&f->pool, o->threads, error);
    const dn_input_gradient_options gradient = {.backend = o->backend,
                                                .device = o->device,
                                                .network = f->network,
                                                .plan = o->model->plan,
                                                .weights = o->model->weights,
                                                .pool = f->pool};
    if (status == DN_OK)
        status = dn_input_gradient_create(&f->gradient, &gradient, error);
    if (status == DN_OK)
        status = o->backend->buffer_create(&f->in, o->device, f->elements, error);
    if (status == DN_OK)
        status = o->backend->buffer_create(&f->out, o->device, f->elements * o->products_max, error);
    f->rows = calloc(o->products_max, sizeof *f->rows);
    if (status == DN_OK && f->rows == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "no memory for %u probes", o->products_max);
    return status;
}

dn_status dn_network_field_create(dn_network_field **out, const dn_network_field_options *options, dn_error *error)
{
    const dn_model *model = options->model;
    dn_network_field *f = calloc(1, sizeof *f);
    if (f == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a velocity field");
    f->options = *options;
    f->elements = (size_t)model->channels * model->height * model->width;
    dn_status status = create_parts(f, error);
    if (status != DN_OK) {
        dn_network_field_free(f);
        return status;
    }
    f->options.model = NULL;
    *out = f;
    return DN_OK;
}

void dn_network_field_free(dn_network_field *f)
{
    if (f == NULL)
        return;
    dn_input_gradient_free(f->gradient);
    dn_pool_free(f->pool);
    if (f->in != NULL)
        f->options.backend->buffer_free(f->in);
    if (f->out != NULL)
        f->options.backend->buffer_free(f->out);
    if (f->network != NULL)
        f->options.backend->network_free(f->network);
    free(f->rows);
    free(f);
}

dn_flow_field dn_network_field_of(dn_network_field *field, const dn_condition *condition)
{
    dn_flow_field flow = {.self = field, .elements = field->elements, .run = run};
    field->condition = condition != NULL ? *condition : (dn_condition){0};
    dn_flow_range(field->options.training, &flow.begin, &flow.end, &flow.deviation);
    return flow;
}
