/* Training of a classifier on the shards of shards.c; see train.h. */
#include "train/train.h"

#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/philox.h"
#include "train/draw.h"
#include "train/shards.h"

#define DN_NOISE_BLOCK 1024u /* normals drawn at once: a multiple of 4 */

typedef struct classifier {
    const dn_classifier_options *options;
    const dn_backend *backend;
    dn_device *device;
    dn_pool *pool;
    dn_network *network;
    dn_draw *draw;
    dn_shards *shards;
    dn_adamw *optimizer;
    dn_weights *gradient;
    uint32_t *order;
    uint64_t step;
} classifier;

/* Noises a picture to a random time of the table. */
static void add_noise(const classifier *c, uint64_t g, dn_example *example)
{
    const dn_training_schedule *noise = c->options->noise;
    dn_shape shape = c->options->plan->values[c->options->plan->input].shape;
    size_t count = dn_shape_count(shape);
    uint32_t time = (uint32_t)(dn_draw_choice(c->options->seed, g, DN_CHOICE_TIME) * noise->timesteps);
    float alpha = (float)sqrt(noise->alphas_cumprod[time]), sigma = (float)sqrt(1.0 - noise->alphas_cumprod[time]);
    float normals[DN_NOISE_BLOCK];
    for (size_t first = 0; first < count; first += DN_NOISE_BLOCK) {
        size_t block = count - first < DN_NOISE_BLOCK ? count - first : DN_NOISE_BLOCK;
        dn_noise_normal(normals, block, first, c->options->seed, DN_STREAM_TRAIN, (uint32_t)g);
        for (size_t i = 0; i < block; i++) {
            example->sample[first + i] = alpha * example->sample[first + i] + sigma * normals[i];
        }
    }
    example->time = (float)time;
}

static void make_example(void *payload, uint32_t i, dn_example *example)
{
    const classifier *c = payload;
    const dn_classifier_options *o = c->options;
    uint64_t g = c->step * o->batch + i;
    dn_draw_picture(example->sample, o->dataset, c->order[i], o->flip && dn_draw_choice(o->seed, g, DN_CHOICE_FLIP) < 0.5);
    if (o->noise) {
        add_noise(c, g, example);
    }
    example->label = o->dataset->labels[c->order[i]];
}

static dn_status check(const dn_classifier_options *o, dn_error *error)
{
    dn_shape in = o->plan->values[o->plan->input].shape, out = o->plan->values[o->plan->output].shape;
    const dn_dataset *data = o->dataset;
    if (in.h != data->height || in.w != data->width || in.c != data->channels || dn_shape_count(out) < data->class_count || o->batch < 1 ||
        data->count < 1) {
        return dn_fail(error, DN_INVALID,
                       "a classifier of %ux%ux%u pictures and %zu classes cannot learn %u pictures of %ux%ux%u, %u classes", in.c, in.h,
                       in.w, dn_shape_count(out), data->count, data->channels, data->height, data->width, data->class_count);
    }
    return DN_OK;
}

static dn_status open_classifier(classifier *c, dn_error *error)
{
    const dn_classifier_options *o = c->options;
    const dn_device_options device = {.threads = 1, .isa = o->isa};
    const dn_network_options network = {.plan = o->plan, .weights = o->weights};
    dn_adamw_options optimizer = o->optimizer;
    optimizer.total = (double)o->epochs * o->dataset->count;
    dn_status status = c->backend->device_open(&c->device, &device, error);
    if (status == DN_OK) {
        status = dn_pool_create(&c->pool, o->threads, error);
    }
    if (status == DN_OK) {
        status = c->backend->network_create(&c->network, c->device, &network, error);
    }
    if (status == DN_OK) {
        status = dn_draw_create(&c->draw, o->dataset, o->seed, error);
    }
    if (status == DN_OK) {
        status = dn_adamw_create(&c->optimizer, o->plan, &optimizer, error);
    }
    if (status == DN_OK) {
        status = dn_weights_create(&c->gradient, o->plan, error);
    }
    if (status == DN_OK && !(c->order = calloc(o->batch, sizeof *c->order))) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for the order of a batch");
    }
    const dn_shards_options shards = {.backend = c->backend,
                                      .device = c->device,
                                      .network = c->network,
                                      .plan = o->plan,
                                      .pool = c->pool,
                                      .source = make_example,
                                      .loss = dn_loss_cross_entropy,
                                      .payload = c};
    return status == DN_OK ? dn_shards_create(&c->shards, &shards, error) : status;
}

static dn_status run(classifier *c, dn_error *error)
{
    const dn_classifier_options *o = c->options;
    uint64_t steps = (uint64_t)o->epochs * o->dataset->count / o->batch;
    dn_train_progress p = {.images_total = steps * o->batch};
    double started = dn_now_seconds();
    for (; c->step < steps; c->step++) {
        if (o->cancel && *o->cancel) {
            return dn_fail(error, DN_CANCELLED, "stopped after step %llu", (unsigned long long)c->step);
        }
        uint64_t seen = c->step * o->batch;
        dn_draw_order(c->draw, seen, o->batch, c->order);
        dn_status status = dn_shards_gradient(c->shards, o->weights, o->batch, c->gradient, &p.loss, error);
        if (status == DN_OK) {
            status = dn_adamw_step(c->optimizer, c->pool, o->weights, c->gradient, c->step + 1, (double)seen, &p.gradient_norm, error);
        }
        if (status == DN_OK) {
            status = c->backend->network_update(c->network, o->weights, error);
        }
        if (status != DN_OK) {
            return status;
        }
        p.step = c->step + 1;
        p.images = p.step * o->batch;
        p.smooth_loss += (p.step < 100 ? 1.0 / (double)p.step : 0.01) * (p.loss - p.smooth_loss);
        p.learning_rate = dn_adamw_rate(&c->optimizer->options, (double)seen);
        p.images_per_second = (double)p.images / (dn_now_seconds() - started);
        p.seconds_left = (double)(p.images_total - p.images) / p.images_per_second;
        if (o->progress) {
            o->progress(o->payload, &p);
        }
    }
    return DN_OK;
}

dn_status dn_train_classifier(const dn_classifier_options *options, dn_error *error)
{
    classifier c = {.options = options, .backend = dn_backend_cpu()};
    dn_status status = check(options, error);
    if (status == DN_OK) {
        status = open_classifier(&c, error);
    }
    if (status == DN_OK) {
        status = run(&c, error);
    }
    dn_shards_free(c.shards);
    dn_weights_free(c.gradient);
    dn_adamw_free(c.optimizer);
    dn_draw_free(c.draw);
    free(c.order);
    if (c.network) {
        c.backend->network_free(c.network);
    }
    dn_pool_free(c.pool);
    if (c.device) {
        c.backend->device_close(c.device);
    }
    return status;
}
