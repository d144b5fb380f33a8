/* The training loop of a diffusion network; see train.h.
 *
 * Loss (Ho et al. 2020, eq. 14; v: Salimans & Ho 2022, appendix D): times uniform over the training table, x_t = alpha x0 +
 * sigma n, squared error of the network's answer against n, x0 or v = alpha n - sigma x0, by the scheduler's prediction. */
#include "train/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "diffusion/schedule.h"
#include "train/checkpoint.h"
#include "train/classifier_recipe.h"
#include "train/draw.h"
#include "train/export.h"
#include "train/shards.h"

#define PATH_BYTES 4096

typedef struct trainer {
    const dn_train_options *options;
    const dn_recipe *recipe;
    const dn_backend *backend;
    dn_device *device;
    dn_pool *pool;
    dn_model *model; /* its weights are the ones trained */
    dn_network *network;
    dn_training_schedule *schedule;
    dn_draw *draw;
    dn_shards *shards;
    dn_adamw *optimizer;
    dn_weights *average, *gradient;
    uint32_t *order; /* of the batch in progress, indices into the data set */
    uint64_t step; /* steps done */
    uint64_t first_step; /* of this process */
    double started, smooth_loss;
    char checkpoint[PATH_BYTES];
} trainer;

/* Hang et al. 2023 (min-SNR): min(SNR, g) in the loss of x0, divided by SNR for noise and by SNR + 1 for v. */
static double loss_weight(const trainer *t, double alpha2)
{
    double snr = alpha2 / (1 - alpha2), gamma = t->recipe->min_snr_gamma;
    if (gamma <= 0) {
        return 1;
    }
    double low = snr < gamma ? snr : gamma;
    switch (t->schedule->prediction) {
    case DN_PREDICT_EPSILON:
        return snr > 0 ? low / snr : 1;
    case DN_PREDICT_V:
        return low / (snr + 1);
    case DN_PREDICT_SAMPLE:
    case DN_PREDICT_FLOW:
        break;
    }
    return low;
}

static void choose_condition(const trainer *t, uint64_t g, uint32_t index, dn_example *example)
{
    uint32_t rows = t->model->class_rows;
    if (rows == 0) {
        return;
    }
    bool dropped = dn_draw_choice(t->recipe->seed, g, DN_CHOICE_DROP) < t->recipe->class_dropout;
    example->condition.count = 1;
    example->condition.classes[0] = dropped ? rows - 1 : t->options->dataset->labels[index];
    example->condition.weights[0] = 1;
}

/* Example i of the batch in progress: the noised picture and what the network should say. */
static void make_example(void *payload, uint32_t i, dn_example *example)
{
    const trainer *t = payload;
    const dn_dataset *data = t->options->dataset;
    uint64_t g = t->step * t->recipe->batch + i, seed = t->recipe->seed;
    size_t count = (size_t)data->channels * data->height * data->width;
    uint32_t time = (uint32_t)(dn_draw_choice(seed, g, DN_CHOICE_TIME) * t->schedule->timesteps);
    double alpha2 = t->schedule->alphas_cumprod[time];
    float alpha = (float)sqrt(alpha2), sigma = (float)sqrt(1 - alpha2);
    float *x = example->sample, *target = example->target;
    dn_draw_picture(x, data, t->order[i], t->recipe->flip && dn_draw_choice(seed, g, DN_CHOICE_FLIP) < 0.5);
    dn_draw_noise(target, count, seed, g);
    for (size_t k = 0; k < count; k++) {
        float x0 = x[k], noise = target[k];
        x[k] = alpha * x0 + sigma * noise;
        target[k] = t->schedule->prediction == DN_PREDICT_V ? alpha * noise - sigma * x0
                                                            : (t->schedule->prediction == DN_PREDICT_SAMPLE ? x0 : noise);
    }
    example->time = (float)time;
    example->weight = loss_weight(t, alpha2);
    choose_condition(t, g, t->order[i], example);
}

static dn_status check_shapes(const trainer *t, dn_error *error)
{
    const dn_dataset *data = t->options->dataset;
    const dn_model *m = t->model;
    if (data->count < 1 || data->width != m->width || data->height != m->height || data->channels != m->channels) {
        return dn_fail(error, DN_INVALID, "%s: the pictures are %ux%ux%u (count %u), the network wants %ux%ux%u", t->recipe->path,
                       data->channels, data->height, data->width, data->count, m->channels, m->height, m->width);
    }
    if (m->out_channels != m->channels) {
        return dn_fail(error, DN_UNSUPPORTED, "%s: networks that learn a variance are not trained here", t->recipe->path);
    }
    uint32_t names = t->recipe->class_names ? (uint32_t)cJSON_GetArraySize(t->recipe->class_names) : data->class_count;
    uint32_t needed = data->class_count + (t->recipe->class_dropout > 0 ? 1 : 0);
    if (m->class_rows > 0 && (m->class_rows < needed || names < data->class_count)) {
        return dn_fail(error, DN_INVALID, "%s: %u classes in the data need %u class rows and names, there are %u and %u", t->recipe->path,
                       data->class_count, needed, m->class_rows, names);
    }
    return DN_OK;
}

/* The same network's weights from a model folder; another network's are refused. */
static dn_status start_from(trainer *t, const char *folder, dn_error *error)
{
    char path[PATH_BYTES];
    dn_model *start = NULL;
    snprintf(path, sizeof path, "%.4000s/unet", folder);
    dn_status status = dn_model_open(&start, path, 0, 0, error);
    if (status != DN_OK) {
        return status;
    }
    const dn_plan *a = t->model->plan, *b = start->plan;
    bool same = a->weight_count == b->weight_count;
    for (uint32_t w = 0; same && w < a->weight_count; w++) {
        same = a->weights[w].count == b->weights[w].count && strcmp(a->weights[w].parts[0], b->weights[w].parts[0]) == 0;
    }
    for (uint32_t w = 0; same && w < a->weight_count; w++) {
        memcpy(t->model->weights->data[w], start->weights->data[w], a->weights[w].count * sizeof(float));
    }
    dn_model_free(start);
    return same ? DN_OK : dn_fail(error, DN_INVALID, "%s: not the network of %s", path, t->recipe->path);
}

static dn_checkpoint state_of(const trainer *t)
{
    return (dn_checkpoint){.plan = t->model->plan,
                           .weights = t->model->weights,
                           .average = t->average,
                           .first = t->optimizer->first,
                           .second = t->optimizer->second,
                           .recipe_hash = t->recipe->hash,
                           .step = t->step};
}

static dn_status start_weights(trainer *t, dn_error *error)
{
    if (t->options->resume) {
        dn_checkpoint state = state_of(t);
        dn_status status = dn_checkpoint_read(&state, t->checkpoint, error);
        t->step = state.step;
        return status;
    }
    if (t->recipe->init) {
        dn_status status = start_from(t, t->recipe->init, error);
        if (status != DN_OK) {
            return status;
        }
    } else {
        dn_initialise(t->model->plan, t->model->weights, t->recipe->seed, true);
    }
    for (uint32_t w = 0; w < t->model->plan->weight_count; w++) {
        memcpy(t->average->data[w], t->model->weights->data[w], t->model->plan->weights[w].count * sizeof(float));
    }
    return DN_OK;
}

static dn_status open_model(trainer *t, dn_error *error)
{
    const dn_recipe *r = t->recipe;
    dn_status status = dn_model_from_config(&t->model, r->unet, r->path, error);
    if (status == DN_OK) {
        status = check_shapes(t, error);
    }
    if (status == DN_OK) {
        status = dn_weights_create(&t->model->weights, t->model->plan, error);
    }
    if (status == DN_OK) {
        status = dn_weights_create(&t->average, t->model->plan, error);
    }
    if (status == DN_OK) {
        status = dn_weights_create(&t->gradient, t->model->plan, error);
    }
    if (status == DN_OK) {
        status = dn_adamw_create(&t->optimizer, t->model->plan, &r->optimizer, error);
    }
    if (status == DN_OK) {
        status = dn_training_schedule_from_json(&t->schedule, r->scheduler, r->path, error);
    }
    if (status == DN_OK && t->schedule->family != DN_FAMILY_VP) {
        status = dn_fail(error, DN_UNSUPPORTED, "%s: only variance-preserving schedules are trained here", r->path);
    }
    return status == DN_OK ? start_weights(t, error) : status;
}

static dn_status open_machine(trainer *t, dn_error *error)
{
    const dn_device_options device = {.threads = 1, .isa = t->options->isa};
    const dn_network_options network = {.plan = t->model->plan, .weights = t->model->weights};
    t->backend = dn_backend_cpu();
    dn_status status = t->backend->device_open(&t->device, &device, error);
    if (status == DN_OK) {
        status = dn_pool_create(&t->pool, t->options->threads, error);
    }
    if (status == DN_OK) {
        status = t->backend->network_create(&t->network, t->device, &network, error);
    }
    if (status == DN_OK) {
        status = dn_draw_create(&t->draw, t->options->dataset, t->recipe->seed, error);
    }
    if (status == DN_OK && !(t->order = calloc(t->recipe->batch, sizeof *t->order))) {
        status = dn_fail(error, DN_NO_MEMORY, "no memory for the order of a batch");
    }
    const dn_shards_options shards = {.backend = t->backend,
                                      .device = t->device,
                                      .network = t->network,
                                      .plan = t->model->plan,
                                      .pool = t->pool,
                                      .source = make_example,
                                      .loss = dn_loss_squared,
                                      .payload = t};
    return status == DN_OK ? dn_shards_create(&t->shards, &shards, error) : status;
}

static void close_trainer(trainer *t)
{
    dn_shards_free(t->shards);
    dn_draw_free(t->draw);
    free(t->order);
    if (t->network) {
        t->backend->network_free(t->network);
    }
    dn_pool_free(t->pool);
    if (t->device) {
        t->backend->device_close(t->device);
    }
    dn_training_schedule_free(t->schedule);
    dn_adamw_free(t->optimizer);
    dn_weights_free(t->average);
    dn_weights_free(t->gradient);
    dn_model_free(t->model);
}

static dn_status one_step(trainer *t, dn_train_progress *p, dn_error *error)
{
    uint64_t seen = t->step * t->recipe->batch;
    dn_draw_order(t->draw, seen, t->recipe->batch, t->order);
    dn_status status = dn_shards_gradient(t->shards, t->model->weights, t->recipe->batch, t->gradient, &p->loss, error);
    if (status == DN_OK) {
        status = dn_adamw_step(t->optimizer, t->pool, t->model->weights, t->gradient, t->step + 1, (double)seen, &p->gradient_norm, error);
    }
    if (status != DN_OK) {
        return status;
    }
    dn_average_step(t->pool, t->model->plan, t->average, t->model->weights, t->recipe->ema, t->step);
    status = t->backend->network_update(t->network, t->model->weights, error);
    t->step++;
    p->step = t->step;
    p->images = t->step * t->recipe->batch;
    p->learning_rate = dn_adamw_rate(&t->recipe->optimizer, (double)seen);
    return status;
}

/* Whether the count of images passed a multiple of `every` in the last step. */
static bool comes_round(const trainer *t, uint64_t every)
{
    uint64_t batch = t->recipe->batch;
    return every > 0 && t->step * batch / every != (t->step - 1) * batch / every;
}

static dn_status save(const trainer *t, dn_error *error)
{
    dn_checkpoint state = state_of(t);
    dn_status status = dn_checkpoint_write(&state, t->checkpoint, error);
    return status == DN_OK ? dn_export_model(t->model, t->average, t->recipe, t->options->output, error) : status;
}

static void report(trainer *t, dn_train_progress *p)
{
    uint64_t done = t->step - t->first_step;
    double share = done < 100 ? 1.0 / (double)done : 0.01;
    t->smooth_loss += share * (p->loss - t->smooth_loss);
    p->smooth_loss = t->smooth_loss;
    p->images_total = t->recipe->images;
    p->images_per_second = (double)(done * t->recipe->batch) / (dn_now_seconds() - t->started);
    p->seconds_left = p->images < p->images_total ? (double)(p->images_total - p->images) / p->images_per_second : 0;
    if (t->options->progress) {
        t->options->progress(t->options->payload, p);
    }
}

static dn_status loop(trainer *t, dn_error *error)
{
    const dn_train_options *o = t->options;
    uint64_t steps = t->recipe->images / t->recipe->batch;
    bool stopped = false;
    t->first_step = t->step;
    t->started = dn_now_seconds();
    if (t->step >= steps) { /* resumed at its end: the process may have died between checkpoint and model */
        return dn_export_model(t->model, t->average, t->recipe, o->output, error);
    }
    while (t->step < steps && !stopped) {
        dn_train_progress p = {0};
        dn_status status = one_step(t, &p, error);
        if (status != DN_OK) {
            return status;
        }
        stopped = (o->cancel && *o->cancel) || (o->steps_max && t->step - t->first_step >= o->steps_max && t->step < steps);
        p.samples_due = comes_round(t, t->recipe->sample_every_images);
        p.saved = stopped || t->step == steps || p.samples_due || comes_round(t, t->recipe->save_every_images);
        if (p.saved && (status = save(t, error)) != DN_OK) {
            return status;
        }
        report(t, &p);
    }
    return stopped ? dn_fail(error, DN_CANCELLED, "stopped after step %llu; go on with --resume", (unsigned long long)t->step) : DN_OK;
}

/* Hours of work lie in a checkpoint: a new run never starts over one. */
static dn_status refuse_overwriting(const trainer *t, dn_error *error)
{
    char path[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/state.safetensors", t->checkpoint);
    if (!t->options->resume && access(path, F_OK) == 0) {
        return dn_fail(error, DN_INVALID, "%s: a run is kept there; resume it, or choose another output", t->options->output);
    }
    return DN_OK;
}

dn_status dn_train(const dn_train_options *options, dn_error *error)
{
    trainer t = {.options = options, .recipe = options->recipe};
    if (options->recipe->classifier) {
        return dn_train_classifier_recipe(options, error);
    }
    if (snprintf(t.checkpoint, sizeof t.checkpoint, "%s/checkpoint", options->output) >= (int)sizeof t.checkpoint) {
        return dn_fail(error, DN_INVALID, "%.200s...: the path is too long", options->output);
    }
    dn_status status = refuse_overwriting(&t, error);
    if (status == DN_OK) {
        status = dn_make_folder(options->output, error);
    }
    if (status == DN_OK) {
        status = open_model(&t, error);
    }
    if (status == DN_OK) {
        status = open_machine(&t, error);
    }
    if (status == DN_OK) {
        status = loop(&t, error);
    }
    close_trainer(&t);
    return status;
}
