/* Writes a diffusers folder; see export.h. */
#include "train/export.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"

#define PATH_BYTES 4096

static dn_status write_json(const cJSON *json, const char *folder, const char *file, dn_error *error)
{
    char path[PATH_BYTES];
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path) {
        return dn_fail(error, DN_INVALID, "%.200s...: the path is too long", folder);
    }
    char *text = cJSON_Print(json);
    if (!text) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    dn_status status = dn_file_write(path, text, strlen(text), true, error);
    cJSON_free(text);
    return status;
}

static bool add_component(cJSON *index, const char *key, const char *class_name)
{
    const char *pair[2] = {"diffusers", class_name};
    return cJSON_AddItemToObject(index, key, cJSON_CreateStringArray(pair, 2));
}

static bool add_names(cJSON *index, const cJSON *names)
{
    cJSON *table = cJSON_AddObjectToObject(index, "id2label");
    int i = 0;
    for (const cJSON *name = names->child; table && name; name = name->next) {
        char key[16];
        snprintf(key, sizeof key, "%d", i++);
        if (!cJSON_AddStringToObject(table, key, name->valuestring)) {
            return false;
        }
    }
    return table != NULL;
}

static dn_status write_index(const dn_model *model, const dn_recipe *recipe, const char *folder, dn_error *error)
{
    const cJSON *scheduler = cJSON_GetObjectItemCaseSensitive(recipe->scheduler, "_class_name");
    cJSON *index = cJSON_CreateObject();
    bool made = index && cJSON_AddStringToObject(index, "_class_name", "DDPMPipeline") &&
                cJSON_AddStringToObject(index, "_diffusers_version", "0.31.0") &&
                add_component(index, "scheduler", cJSON_IsString(scheduler) ? scheduler->valuestring : "DDPMScheduler") &&
                add_component(index, "unet", model->architecture);
    made = made && (!recipe->class_names || add_names(index, recipe->class_names));
    made = made && (!recipe->defaults || cJSON_AddItemToObject(index, "denoised", cJSON_Duplicate(recipe->defaults, true)));
    dn_status status = made ? write_json(index, folder, "model_index.json", error)
                            : dn_fail(error, DN_NO_MEMORY, "%s: out of memory for model_index.json", folder);
    cJSON_Delete(index);
    return status;
}

dn_status dn_export_model(const dn_model *model, const dn_weights *weights, const dn_recipe *recipe, const char *folder, dn_error *error)
{
    char unet[PATH_BYTES], scheduler[PATH_BYTES];
    if (snprintf(unet, sizeof unet, "%s/unet", folder) >= (int)sizeof unet ||
        snprintf(scheduler, sizeof scheduler, "%s/scheduler", folder) >= (int)sizeof scheduler) {
        return dn_fail(error, DN_INVALID, "%.200s...: the path is too long", folder);
    }
    dn_model averaged = *model;
    averaged.weights = (dn_weights *)weights;
    dn_status status = dn_model_save(&averaged, recipe->unet, unet, recipe->dtype, error);
    if (status == DN_OK) {
        status = dn_make_folder(scheduler, error);
    }
    if (status == DN_OK) {
        status = write_json(recipe->scheduler, scheduler, "scheduler_config.json", error);
    }
    if (status == DN_OK) {
        status = write_json(recipe->json, folder, "recipe.json", error);
    }
    return status == DN_OK ? write_index(model, recipe, folder, error) : status;
}
