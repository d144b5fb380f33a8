/* A model's description from and to JSON. A description is one allocation per name and freed whole. Pure; any thread. */
#include "api/model_description.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/json_fields.h"
#include "api/limits.h"
#include "api/text.h"
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
    free(model);
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

/* The name of the first part that is missing or wrong, NULL when all is well. */
static const char *read_model(api_model *model, const cJSON *root)
{
    const cJSON *guidance = cJSON_GetObjectItemCaseSensitive(root, "guidance");
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
    if (!cJSON_IsBool(guidance)) {
        return "guidance";
    }
    model->guidance = cJSON_IsTrue(guidance);
    if (!read_count(root, "class_count", 0, DN_CLASSES_MAX, &model->class_count) || !read_classes(model, root)) {
        return "classes";
    }
    if (!read_defaults(model, root)) {
        return "defaults";
    }
    bool identity = api_read_text(root, "weights_sha256", model->weights_sha256, sizeof model->weights_sha256) &&
                    api_read_text(root, "device", model->device, sizeof model->device) &&
                    api_read_text(root, "build", model->build, sizeof model->build);
    return identity ? NULL : "weights_sha256, device or build";
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

static void add_classes(api_text *text, const api_model *model)
{
    api_text_add(text, "\"classes\":[");
    for (uint32_t i = 0; i < model->class_count; i++) {
        api_text_format(text, "%s{\"index\":%u,\"names\":[", i ? "," : "", i);
        const char *rest = model->class_names[i], *name;
        size_t bytes;
        for (bool first = true; api_next_synonym(&rest, &name, &bytes); first = false) {
            char *copy = strndup(name, bytes);
            text->failed |= !copy;
            api_text_add(text, first ? "" : ",");
            api_text_string(text, copy);
            free(copy);
        }
        api_text_add(text, "]}");
    }
    api_text_add(text, "],");
}

static void add_samplers(api_text *text)
{
    const dn_sampler *sampler;
    api_text_add(text, "\"samplers\":[");
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        api_text_add(text, i ? "," : "");
        api_text_string(text, sampler->name);
    }
    api_text_add(text, "],");
}

/* Everything after the name, without the closing brace. */
static void add_model(api_text *text, const api_model *model, bool with_classes)
{
    double reach = model->guidance ? API_GUIDANCE_MAX : 1;
    api_text_add(text, "\"architecture\":");
    api_text_string(text, model->architecture);
    api_text_format(text, ",\"width\":%u,\"height\":%u,\"channels\":%u,\"guidance\":", model->width, model->height, model->channels);
    api_text_bool(text, model->guidance);
    api_text_format(text, ",\"class_count\":%u,", model->class_count);
    if (with_classes) {
        add_classes(text, model);
    }
    add_samplers(text);
    api_text_add(text, "\"defaults\":{\"sampler\":");
    api_text_string(text, model->default_sampler);
    api_text_format(text, ",\"steps\":%u,\"guidance_scale\":", model->default_steps);
    api_text_real(text, model->default_guidance);
    api_text_format(text, "},\"limits\":{\"steps\":[1,%d],\"guidance_scale\":[%g,%g],\"n\":[1,%d]},\"weights_sha256\":", API_STEPS_MAX,
                    model->guidance ? -reach : reach, reach, API_N_MAX);
    api_text_string(text, model->weights_sha256);
    api_text_add(text, ",\"device\":");
    api_text_string(text, model->device);
    api_text_add(text, ",\"build\":");
    api_text_string(text, model->build);
}

char *api_model_to_json(const api_model *model)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"name\":");
    api_text_string(&text, model->name);
    api_text_add(&text, ",");
    add_model(&text, model, true);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_model_body(const api_model *model, const char *name, const char *state, const char *error, bool with_classes)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"name\":");
    api_text_string(&text, name);
    api_text_add(&text, ",\"state\":");
    api_text_string(&text, state);
    api_text_add(&text, ",\"error\":");
    api_text_string(&text, error && error[0] ? error : NULL);
    if (model) {
        api_text_add(&text, ",");
        add_model(&text, model, with_classes);
    }
    api_text_add(&text, "}");
    return api_text_take(&text);
}
