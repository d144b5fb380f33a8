/* How a model was trained, so that the daemon can try a sampler with its options and steps without the model: the same schedule as the
 * engine reads from the folder. Pure; any thread. */
#include "api/model_training.h"

#include <stdlib.h>
#include <string.h>

#include "diffusion/family.h"
#include "model/model.h"

void api_free_training(api_model *model)
{
    dn_training_schedule_free(model->training);
    cJSON_free(model->scheduler_json);
    model->training = NULL;
    model->scheduler_json = NULL;
}

/* As the engine does it when it opens the folder. */
dn_status api_model_set_training(api_model *model, const cJSON *scheduler, uint32_t convention, double sigma_data, bool cosine,
                                 dn_error *error)
{
    bool original = !scheduler && convention != DN_CONVENTION_DIFFUSERS;
    dn_convention kind = (dn_convention)convention;
    model->convention = convention;
    model->sigma_data = sigma_data;
    model->cosine = cosine;
    dn_status status = original ? dn_training_schedule_for_convention(&model->training, kind, sigma_data, cosine, error)
                                : dn_training_schedule_from_json(&model->training, scheduler, "scheduler", error);
    if (status == DN_OK) {
        status = original ? dn_scheduler_config_for_convention(&model->scheduler, kind, error)
                          : dn_scheduler_config_from_json(&model->scheduler, scheduler, "scheduler", error);
    }
    if (status != DN_OK) {
        return status;
    }
    if (original && model->scheduler.variance == DN_VARIANCE_LEARNED_RANGE && !model->learned_variance) {
        model->scheduler.variance = DN_VARIANCE_FIXED_LARGE;
    }
    model->scheduler_json = scheduler ? cJSON_PrintUnformatted(scheduler) : NULL;
    return scheduler && !model->scheduler_json ? dn_fail(error, DN_NO_MEMORY, "out of memory for a model description") : DN_OK;
}

void api_add_training(api_text *text, const api_model *model)
{
    if (!model->training) {
        return;
    }
    api_text_format(text, ",\"training\":{\"convention\":%u,\"sigma_data\":", model->convention);
    api_text_number(text, model->sigma_data);
    api_text_add(text, ",\"cosine\":");
    api_text_bool(text, model->cosine);
    api_text_add(text, ",\"scheduler\":");
    api_text_add(text, model->scheduler_json ? model->scheduler_json : "null");
    api_text_add(text, "}");
}

bool api_read_training(api_model *model, const cJSON *root)
{
    const cJSON *training = cJSON_GetObjectItemCaseSensitive(root, "training");
    const cJSON *convention = cJSON_GetObjectItemCaseSensitive(training, "convention");
    const cJSON *sigma_data = cJSON_GetObjectItemCaseSensitive(training, "sigma_data");
    const cJSON *cosine = cJSON_GetObjectItemCaseSensitive(training, "cosine");
    const cJSON *scheduler = cJSON_GetObjectItemCaseSensitive(training, "scheduler");
    if (!training) {
        return true;
    }
    if (!cJSON_IsNumber(convention) || !(convention->valuedouble >= 0 && convention->valuedouble <= DN_CONVENTION_EDM) ||
        !cJSON_IsNumber(sigma_data) || !cJSON_IsBool(cosine) || !(cJSON_IsNull(scheduler) || cJSON_IsObject(scheduler))) {
        return false;
    }
    return api_model_set_training(model, cJSON_IsNull(scheduler) ? NULL : scheduler, (uint32_t)convention->valuedouble,
                                  sigma_data->valuedouble, cJSON_IsTrue(cosine), NULL) == DN_OK;
}
