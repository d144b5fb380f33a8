/* Training a judge: the classifier's configuration, random weights, the trainer's classifier entry, and the folder it is kept in.
 * Owns nothing beyond a call. */
#include "evaluate/judge_training.h"

#include "format/safetensors.h"
#include "model/classifier.h"

/* Measured on the test split of Fashion-MNIST: 91.4 % after 6 epochs. */
#define BATCH 64u
#define LEARNING_RATE 2e-3
#define WARMUP_IMAGES 4000.0
#define WEIGHT_DECAY 0.05
#define CLIP 1.0

dn_status dn_judge_train(dn_judge **out, const dn_judge_training *training, const char *folder, dn_error *error)
{
    const dn_dataset *data = training->dataset;
    dn_model *model = NULL;
    cJSON *config = dn_classifier_config(data->height, data->width, data->channels, data->class_count);
    dn_status status = config != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "out of memory");
    if (status == DN_OK)
        status = dn_model_from_config(&model, config, "the classifier", error);
    if (status == DN_OK)
        status = dn_weights_create(&model->weights, model->plan, error);
    if (status != DN_OK)
        goto done;
    dn_initialise(model->plan, model->weights, training->seed, true);
    dn_classifier_options options = {.plan = model->plan,
                                     .weights = model->weights,
                                     .dataset = data,
                                     .optimizer = {.learning_rate = LEARNING_RATE,
                                                   .warmup = WARMUP_IMAGES,
                                                   .cosine = true,
                                                   .beta1 = 0.9,
                                                   .beta2 = 0.99,
                                                   .epsilon = 1e-8,
                                                   .weight_decay = WEIGHT_DECAY,
                                                   .clip = CLIP},
                                     .batch = BATCH,
                                     .epochs = training->epochs,
                                     .flip = training->flip,
                                     .seed = training->seed,
                                     .threads = training->threads,
                                     .cancel = training->cancel,
                                     .progress = training->progress,
                                     .payload = training->payload};
    status = dn_train_classifier(&options, error);
    if (status == DN_OK && folder != NULL)
        status = dn_model_save(model, config, folder, DN_F32, error);
    if (status == DN_OK)
        status = dn_judge_from_model(out, model, training->threads, error);
    if (status == DN_OK)
        model = NULL;
done:
    cJSON_Delete(config);
    dn_model_free(model);
    return status;
}
