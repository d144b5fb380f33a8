/* A classifier from a recipe: the model its "classifier" object describes, trained by classifier.c, in a component folder with the
 * recipe beside it. One thread calls. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "model/classifier.h"
#include "train/classifier_recipe.h"

#define PATH_BYTES 4096

static dn_status open_model(dn_model **out, const dn_recipe *recipe, dn_error *error)
{
    const cJSON *name = cJSON_GetObjectItemCaseSensitive(recipe->classifier, "_class_name");
    if (!cJSON_IsString(name) || strcmp(name->valuestring, DN_CLASSIFIER_CLASS) != 0) {
        return dn_fail(error, DN_INVALID, "%s: classifier._class_name: must be \"" DN_CLASSIFIER_CLASS "\"", recipe->path);
    }
    dn_status status = dn_model_from_config(out, recipe->classifier, recipe->path, error);
    if (status == DN_OK) {
        status = dn_weights_create(&(*out)->weights, (*out)->plan, error);
    }
    if (status == DN_OK) {
        dn_initialise((*out)->plan, (*out)->weights, recipe->seed, true);
    }
    return status;
}

/* NULL for a classifier of clean pictures. */
static dn_status open_noise(dn_training_schedule **out, const dn_recipe *recipe, dn_error *error)
{
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(recipe->classifier, "noise_aware"))) {
        return DN_OK;
    }
    dn_status status = dn_training_schedule_from_json(out, recipe->scheduler, recipe->path, error);
    if (status == DN_OK && !(*out)->alphas_cumprod) {
        status = dn_fail(error, DN_UNSUPPORTED, "%s: scheduler: a classifier is noised by a table of alpha-bar", recipe->path);
    }
    return status;
}

static dn_status save(const dn_model *model, const dn_recipe *recipe, const char *folder, dn_error *error)
{
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/recipe.json", folder) >= (int)sizeof path) {
        return dn_fail(error, DN_INVALID, "%.200s...: the path is too long", folder);
    }
    char *text = cJSON_Print(recipe->json);
    dn_status status = text ? DN_OK : dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    if (status == DN_OK) {
        status = dn_model_save(model, recipe->classifier, folder, recipe->dtype, error);
    }
    if (status == DN_OK) {
        status = dn_file_write(path, text, strlen(text), true, error);
    }
    cJSON_free(text);
    return status;
}

dn_status dn_train_classifier_recipe(const dn_train_options *options, dn_error *error)
{
    const dn_recipe *recipe = options->recipe;
    dn_model *model = NULL;
    dn_training_schedule *noise = NULL;
    dn_status status =
        options->resume ? dn_fail(error, DN_INVALID, "%s: the training of a classifier is not resumed", recipe->path) : DN_OK;
    if (status == DN_OK) {
        status = open_model(&model, recipe, error);
    }
    if (status == DN_OK) {
        status = open_noise(&noise, recipe, error);
    }
    if (status == DN_OK) {
        uint64_t epochs = recipe->images / options->dataset->count;
        const dn_classifier_options classifier = {.plan = model->plan,
                                                  .weights = model->weights,
                                                  .dataset = options->dataset,
                                                  .noise = noise,
                                                  .optimizer = recipe->optimizer,
                                                  .batch = recipe->batch,
                                                  .epochs = epochs ? (uint32_t)epochs : 1,
                                                  .flip = recipe->flip,
                                                  .seed = recipe->seed,
                                                  .threads = options->threads,
                                                  .isa = options->isa,
                                                  .cancel = options->cancel,
                                                  .progress = options->progress,
                                                  .payload = options->payload};
        status = dn_train_classifier(&classifier, error);
    }
    if (status == DN_OK) {
        status = save(model, recipe, options->output, error);
    }
    dn_training_schedule_free(noise);
    dn_model_free(model);
    return status;
}
