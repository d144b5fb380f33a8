/* A model's description from JSON, and what can be asked of it. One allocation per class name, freed whole. Pure; any thread. */
#include "api/model_description.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_fields.h"
#include "api/limits.h"
#include "api/model_training.h"
#include "api/option_json.h"
#include "base/limits.h"
#include "diffusion/sampler.h"
#include "format/json.h"

#define MODEL_JSON_BYTES_MAX (64u << 20) /* 100,000 classes with long names */

bool api_model_name_valid(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t count = name ? strspn(name, allowed) : 0;
    return count >= 1 && count <= API_MODEL_NAME_BYTES_MAX && name[count] == '\0';
}

bool api_next_synonym(const char **rest, const char **name, size_t *bytes)
{
    const char *at = *rest + strspn(*rest, ", \t\r\n");
    size_t count = strcspn(at, ",");
    *rest = at + count;
    while (count && strchr(" \t\r\n", at[count - 1])) {
        count--;
    }
    *name = at;
    *bytes = count;
    return count > 0;
}

void api_model_free(api_model *model)
{
    if (!model) {
        return;
    }
    for (uint32_t i = 0; model->class_names && i < model->class_count; i++) {
        free(model->class_names[i]);
    }
    free(model->class_names);
    api_free_training(model);
    free(model);
}

/* The sampler's place in the table; 64 where it is not of it. */
static uint32_t place_of(const dn_sampler *sampler)
{
    uint32_t place = 0;
    while (place < 64 && dn_sampler_at(place) != sampler) {
        place++;
    }
    return place;
}

bool api_model_serves(const api_model *model, const dn_sampler *sampler)
{
    uint32_t place = sampler ? place_of(sampler) : 64;
    return place < 64 && (model->samplers >> place & 1u);
}

const dn_option_field *api_model_field(const api_model *model, dn_option_id id)
{
    for (uint32_t i = 0; i < model->field_count; i++) {
        if (model->fields[i].id == id) {
            return &model->fields[i];
        }
    }
    return NULL;
}

static bool read_name(const cJSON *object, const char *key, char *out, size_t capacity)
{
    return api_read_text(object, key, out, capacity) && out[0];
}

static bool read_count(const cJSON *object, const char *key, uint32_t minimum, uint32_t maximum, uint32_t *out)
{
    double value;
    if (!api_read_whole(object, key, minimum, maximum, &value)) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

/* The names of one class joined by ", ", malloc'd; NULL: not what it should be. */
static char *read_class_names(const cJSON *entry, uint32_t index)
{
    uint32_t stated;
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(entry, "names");
    if (!read_count(entry, "index", index, index, &stated) || !cJSON_IsArray(names)) {
        return NULL;
    }
    api_text text = API_TEXT_INIT;
    const cJSON *name;
    cJSON_ArrayForEach(name, names)
    {
        if (!cJSON_IsString(name) || text.length > DN_CLASS_NAME_BYTES_MAX) {
            free(api_text_take(&text));
            return NULL;
        }
        api_text_add(&text, text.length ? ", " : "");
        api_text_add(&text, name->valuestring);
    }
    return api_text_take(&text);
}

static bool read_classes(api_model *model, const cJSON *root)
{
    const cJSON *classes = cJSON_GetObjectItemCaseSensitive(root, "classes");
    if (!cJSON_IsArray(classes) || (uint32_t)cJSON_GetArraySize(classes) != model->class_count) {
        return false;
    }
    model->class_names = calloc(model->class_count ? model->class_count : 1, sizeof *model->class_names);
    if (!model->class_names) {
        return false;
    }
    const cJSON *entry = classes->child;
    for (uint32_t i = 0; i < model->class_count; i++, entry = entry->next) {
        model->class_names[i] = read_class_names(entry, i);
        if (!model->class_names[i]) {
            return false;
        }
    }
    return true;
}

static bool read_defaults(api_model *model, const cJSON *root)
{
    const cJSON *defaults = cJSON_GetObjectItemCaseSensitive(root, "defaults");
    const cJSON *guidance = cJSON_GetObjectItemCaseSensitive(defaults, "guidance_scale");
    if (!cJSON_IsNumber(guidance) || !(fabs(guidance->valuedouble) <= API_GUIDANCE_MAX)) {
        return false;
    }
    model->default_guidance = guidance->valuedouble;
    return read_name(defaults, "sampler", model->default_sampler, sizeof model->default_sampler) &&
           read_count(defaults, "steps", 1, API_STEPS_MAX, &model->default_steps);
}

/* "latent": null, or the shape of what the network denoises. */
static bool read_latent(api_model *model, const cJSON *root)
{
    const cJSON *latent = cJSON_GetObjectItemCaseSensitive(root, "latent");
    model->latent = !cJSON_IsNull(latent);
    return !model->latent || (read_count(latent, "width", 1, DN_IMAGE_SIDE_MAX, &model->latent_width) &&
                              read_count(latent, "height", 1, DN_IMAGE_SIDE_MAX, &model->latent_height) &&
                              read_count(latent, "channels", 1, DN_CHANNELS_MAX, &model->latent_channels));
}

/* Names of a table of this program: one that it does not know is another version's. */
static bool read_samplers(api_model *model, const cJSON *root)
{
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(root, "samplers"), *name;
    const cJSON *own = cJSON_GetObjectItemCaseSensitive(root, "model_sampler");
    if (!cJSON_IsArray(names)) {
        return false;
    }
    cJSON_ArrayForEach(name, names)
    {
        const dn_sampler *sampler = cJSON_IsString(name) ? dn_sampler_find(name->valuestring) : NULL;
        if (!sampler) {
            return false;
        }
        model->samplers |= UINT64_C(1) << place_of(sampler);
    }
    return cJSON_IsNull(own) ||
           (read_name(root, "model_sampler", model->model_sampler, sizeof model->model_sampler) && dn_sampler_find(model->model_sampler));
}

static bool read_guidance(api_model *model, const cJSON *root)
{
    const cJSON *guidance = cJSON_GetObjectItemCaseSensitive(root, "guidance");
    const cJSON *methods = cJSON_GetObjectItemCaseSensitive(root, "guidance_methods"), *method;
    const cJSON *null_class = cJSON_GetObjectItemCaseSensitive(root, "null_class");
    if (!cJSON_IsBool(guidance) || !cJSON_IsArray(methods)) {
        return false;
    }
    model->guidance = cJSON_IsTrue(guidance);
    cJSON_ArrayForEach(method, methods)
    {
        double choice = api_option_value(method, DN_OPT_GUIDANCE_METHOD);
        if (isnan(choice)) {
            return false;
        }
        model->guidance_methods |= 1u << (uint32_t)choice;
    }
    return cJSON_IsNull(null_class) || read_count(root, "null_class", 0, DN_CLASSES_MAX, &model->null_class);
}

static bool read_flag(const cJSON *root, const char *key, bool *out)
{
    const cJSON *flag = cJSON_GetObjectItemCaseSensitive(root, key);
    *out = cJSON_IsTrue(flag);
    return cJSON_IsBool(flag);
}

static bool read_fields(api_model *model, const cJSON *root)
{
    const cJSON *fields = cJSON_GetObjectItemCaseSensitive(root, "fields"), *field;
    if (!cJSON_IsArray(fields) || cJSON_GetArraySize(fields) > DN_OPT_COUNT) {
        return false;
    }
    cJSON_ArrayForEach(field, fields)
    {
        if (!api_read_option_field(&model->fields[model->field_count], field)) {
            return false;
        }
        model->field_count++;
    }
    return true;
}

/* One stored by a daemon that knew fp32 alone does not say it. */
static bool read_precision(api_model *model, const cJSON *root)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "precision"));
    dn_precision precision;
    dn_error error;
    if (cJSON_HasObjectItem(root, "precision") && !name) {
        return false;
    }
    if (dn_precision_parse(&precision, name, &error) != DN_OK) {
        return false;
    }
    if (precision == DN_PRECISION_AUTO)
        precision = DN_PRECISION_FP32; /* what a description that says none was written with */
    snprintf(model->precision, sizeof model->precision, "%s", dn_precision_name(precision));
    return true;
}

/* A daemon that knew no GPUs does not say these, and one on a CPU says null. */
static bool read_gpu(api_model *model, const cJSON *root)
{
    const cJSON *gpu = cJSON_GetObjectItemCaseSensitive(root, "gpu"), *plan = cJSON_GetObjectItemCaseSensitive(root, "plan");
    return (!gpu || cJSON_IsNull(gpu) || api_read_text(root, "gpu", model->gpu, sizeof model->gpu)) &&
           (!plan || cJSON_IsNull(plan) || api_read_text(root, "plan", model->plan, sizeof model->plan));
}

/* The name of the first part that is missing or wrong, NULL when all is well. */
static const char *read_model(api_model *model, const cJSON *root)
{
    if (!read_name(root, "name", model->name, sizeof model->name) || !api_model_name_valid(model->name)) {
        return "name";
    }
    if (!read_name(root, "architecture", model->architecture, sizeof model->architecture)) {
        return "architecture";
    }
    if (!read_count(root, "width", 1, DN_IMAGE_SIDE_MAX, &model->width) ||
        !read_count(root, "height", 1, DN_IMAGE_SIDE_MAX, &model->height) ||
        !read_count(root, "channels", 1, DN_CHANNELS_MAX, &model->channels)) {
        return "width, height or channels";
    }
    if (!read_latent(model, root)) {
        return "latent";
    }
    if (!read_guidance(model, root)) {
        return "guidance, guidance_methods or null_class";
    }
    if (!read_flag(root, "unconditional", &model->unconditional) || !read_flag(root, "learned_variance", &model->learned_variance)) {
        return "unconditional or learned_variance";
    }
    if (!api_read_training(model, root)) {
        return "training";
    }
    if (!read_fields(model, root)) {
        return "fields";
    }
    if (!read_samplers(model, root)) {
        return "samplers or model_sampler";
    }
    if (!read_count(root, "class_count", 0, DN_CLASSES_MAX, &model->class_count) || !read_classes(model, root)) {
        return "classes";
    }
    if (!read_defaults(model, root)) {
        return "defaults";
    }
    bool identity = api_read_text(root, "weights_sha256", model->weights_sha256, sizeof model->weights_sha256) &&
                    api_read_text(root, "device", model->device, sizeof model->device) &&
                    api_read_text(root, "build", model->build, sizeof model->build);
    return identity && read_precision(model, root) && read_gpu(model, root) ? NULL
                                                                            : "weights_sha256, device, precision, build, gpu or plan";
}

dn_status api_model_from_json(api_model **out, const char *json, size_t bytes, dn_error *error)
{
    const dn_json_limits limits = {.bytes_max = MODEL_JSON_BYTES_MAX};
    cJSON *root = NULL;
    api_model *model = NULL;
    const char *wrong = NULL;
    dn_status status = dn_json_parse(&root, json, bytes, &limits, NULL, error);
    if (status != DN_OK) {
        goto done;
    }
    model = calloc(1, sizeof *model);
    if (!model) {
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for a model description");
        goto done;
    }
    wrong = cJSON_IsObject(root) ? read_model(model, root) : "the object itself";
    if (wrong) {
        status = dn_fail(error, DN_INVALID, "model description: %s is missing or wrong", wrong);
        goto done;
    }
    *out = model;
    model = NULL;
done:
    api_model_free(model);
    cJSON_Delete(root);
    return status;
}
