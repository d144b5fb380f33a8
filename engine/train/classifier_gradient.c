/* A classifier run forward and backward for guidance; see classifier_gradient.h.
 *
 * Owns the model, its compiled network and a pool of its own (the device's may be busy with a decode). Called by the thread that
 * owns the batch, between its networks' runs. A row's bytes depend on that row alone. */
#include "train/classifier_gradient.h"

#include <stdlib.h>
#include <string.h>

#include "base/math64.h"
#include "model/classifier.h"
#include "train/input_gradient.h"

#define ROWS_OF_A_RUN 32u

typedef struct classifier {
    dn_model *model;
    const dn_backend *backend; /* the engine's */
    dn_network *network;
    dn_pool *pool;
    dn_input_gradient *gradient;
} classifier;

static void close_classifier(void *self)
{
    classifier *c = self;
    dn_input_gradient_free(c->gradient);
    dn_pool_free(c->pool);
    if (c->network != NULL)
        c->backend->network_free(c->network);
    dn_model_free(c->model);
    free(c);
}

/* d log softmax(output)[class] / d output = onehot(class) - softmax(output); in double, rounded once. */
static void pull_of(void *payload, uint32_t row, const float *output, float *pull, size_t count)
{
    const dn_row *rows = payload;
    uint32_t wanted = rows[row].condition.classes[0];
    double top = (double)output[0], total = 0.0;
    for (size_t i = 1; i < count; i++)
        top = (double)output[i] > top ? (double)output[i] : top;
    for (size_t i = 0; i < count; i++)
        total += dn_exp((double)output[i] - top);
    for (size_t i = 0; i < count; i++)
        pull[i] = (float)((i == wanted ? 1.0 : 0.0) - dn_exp((double)output[i] - top) / total);
}

/* The classifier's network takes no class: the rows it runs have none. */
static dn_status run(void *self, dn_row *rows, uint32_t row_count, dn_error *error)
{
    classifier *c = self;
    dn_status status = DN_OK;
    for (uint32_t first = 0; first < row_count && status == DN_OK; first += ROWS_OF_A_RUN) {
        dn_row plain[ROWS_OF_A_RUN];
        uint32_t count = row_count - first < ROWS_OF_A_RUN ? row_count - first : ROWS_OF_A_RUN;
        memcpy(plain, rows + first, count * sizeof *plain);
        for (uint32_t i = 0; i < count; i++)
            plain[i].condition.count = 0;
        status = dn_input_gradient_run(c->gradient, plain, count, pull_of, rows + first, error);
        for (uint32_t i = 0; i < count; i++)
            rows[first + i].finite = plain[i].finite;
    }
    return status;
}

/* It must know times, and see what the denoiser sees. */
static dn_status check(const dn_model *model, const dn_engine *engine, const char *folder, dn_error *error)
{
    const dn_model *denoiser = engine->model;
    if (strcmp(model->architecture, DN_CLASSIFIER_CLASS) != 0)
        return dn_fail(error, DN_INVALID, "%s: a %s guides nothing: a %s is needed", folder, model->architecture, DN_CLASSIFIER_CLASS);
    if (!dn_classifier_knows_noise(model->plan))
        return dn_fail(error, DN_INVALID, "%s: this classifier knows no noise (noise_aware): it cannot guide", folder);
    if (model->width != denoiser->width || model->height != denoiser->height || model->channels != denoiser->channels)
        return dn_fail(error, DN_INVALID, "%s: the classifier looks at %ux%ux%u, the denoiser makes %ux%ux%u", folder, model->width,
                       model->height, model->channels, denoiser->width, denoiser->height, denoiser->channels);
    if (engine->training->family != DN_FAMILY_VP)
        return dn_fail(error, DN_UNSUPPORTED, "%s: only variance-preserving models are guided by a classifier", folder);
    return DN_OK;
}

static dn_status open_machine(classifier *c, const dn_engine *engine, const dn_engine_options *options, dn_error *error)
{
    const dn_network_options network = {.plan = c->model->plan, .weights = c->model->weights};
    c->backend = engine->backend;
    dn_status status = engine->backend->network_create(&c->network, engine->device, &network, error);
    if (status == DN_OK)
        status = dn_pool_create(&c->pool, options->threads, error);
    const dn_input_gradient_options gradient = {.backend = engine->backend,
                                                .device = engine->device,
                                                .network = c->network,
                                                .plan = c->model->plan,
                                                .weights = c->model->weights,
                                                .pool = c->pool};
    if (status == DN_OK)
        status = dn_input_gradient_create(&c->gradient, &gradient, error);
    dn_weights_free(c->model->weights);
    c->model->weights = NULL;
    return status;
}

dn_status dn_classifier_gradient_open(dn_gradient *out, const char *folder, const dn_engine *engine, const dn_engine_options *options,
                                      dn_error *error)
{
    classifier *c = calloc(1, sizeof *c);
    if (c == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", folder);
    dn_status status =
        options->describe_only ? dn_model_describe(&c->model, folder, 0, 0, error) : dn_model_open(&c->model, folder, 0, 0, error);
    if (status == DN_OK)
        status = check(c->model, engine, folder, error);
    if (status == DN_OK && !options->describe_only)
        status = open_machine(c, engine, options, error);
    if (status != DN_OK) {
        close_classifier(c);
        return status;
    }
    *out = (dn_gradient){
        .self = c, .class_count = c->model->out_channels, .run = options->describe_only ? NULL : run, .close = close_classifier};
    memcpy(out->weights_sha256, c->model->weights_sha256, sizeof out->weights_sha256);
    return DN_OK;
}
