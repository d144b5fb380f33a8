/* Reads the small JSON files of a model folder. Owns what it read until dn_model_folder_free. Component folders have fixed
 * names, so nothing in a file can point outside the folder. Keys that are not ours are ignored: diffusers adds some with
 * every release. Invariant of an open folder: network_path holds a config.json. One thread. */
#include "format/model_folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "format/json.h"

static char *join(const char *folder, const char *name)
{
    size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path) {
        snprintf(path, bytes, "%s/%s", folder, name);
    }
    return path;
}

static dn_status no_memory(const dn_model_folder *folder, dn_error *error)
{
    return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", folder->path);
}

void dn_model_folder_free(dn_model_folder *folder)
{
    if (!folder) {
        return;
    }
    for (uint32_t i = 0; i < folder->class_count && folder->class_names; i++) {
        free(folder->class_names[i]);
    }
    free(folder->class_names);
    cJSON_Delete(folder->scheduler);
    cJSON_Delete(folder->defaults);
    free(folder->scheduler_path);
    free(folder->classifier_path);
    free(folder->guide_path);
    free(folder->vae_path);
    free(folder->network_path);
    free(folder->pipeline_class);
    free(folder->base);
    free(folder->path);
    free(folder);
}

/* "0" to "99999" in the one way of writing it; otherwise UINT32_MAX. */
static uint32_t index_of(const char *key)
{
    size_t digits = strspn(key, "0123456789");
    if (digits == 0 || digits > 9 || key[digits] != '\0' || (key[0] == '0' && digits > 1)) {
        return UINT32_MAX;
    }
    return (uint32_t)strtoul(key, NULL, 10);
}

/* The keys of an object are distinct (the scanner saw to it), so n keys that are all below n are each one once. */
static dn_status read_names(dn_model_folder *folder, const cJSON *names, const char *file, dn_error *error)
{
    if (!cJSON_IsObject(names)) {
        return dn_fail(error, DN_INVALID, "%s: id2label is not an object", file);
    }
    uint32_t count = 0;
    const cJSON *name;
    cJSON_ArrayForEach(name, names)
    {
        count++;
    }
    if (count > DN_CLASSES_MAX) {
        return dn_fail(error, DN_INVALID, "%s: id2label has more than %u entries", file, DN_CLASSES_MAX);
    }
    if (count == 0) {
        return DN_OK;
    }
    folder->class_names = calloc(count, sizeof *folder->class_names);
    if (!folder->class_names) {
        return no_memory(folder, error);
    }
    folder->class_count = count;
    cJSON_ArrayForEach(name, names)
    {
        uint32_t index = index_of(name->string);
        if (index >= count) {
            return dn_fail(error, DN_INVALID, "%s: id2label: key \"%.40s\" is not an index from 0 to %u", file, name->string, count - 1);
        }
        if (!cJSON_IsString(name) || strlen(name->valuestring) > DN_CLASS_NAME_BYTES_MAX) {
            return dn_fail(error, DN_INVALID, "%s: id2label: entry %u is not a string of at most %u bytes", file, index,
                           DN_CLASS_NAME_BYTES_MAX);
        }
        folder->class_names[index] = strdup(name->valuestring);
        if (!folder->class_names[index]) {
            return no_memory(folder, error);
        }
    }
    return DN_OK;
}

/* Takes id2label and "denoised" out of model_index.json, or out of a bare component's config.json. */
static dn_status read_common(dn_model_folder *folder, cJSON *root, const char *file, dn_error *error)
{
    const cJSON *names = cJSON_GetObjectItemCaseSensitive(root, "id2label");
    if (names && !cJSON_IsNull(names)) {
        dn_status status = read_names(folder, names, file, error);
        if (status != DN_OK) {
            return status;
        }
    }
    const cJSON *defaults = cJSON_GetObjectItemCaseSensitive(root, "denoised");
    if (defaults && !cJSON_IsNull(defaults)) {
        if (!cJSON_IsObject(defaults)) {
            return dn_fail(error, DN_INVALID, "%s: \"denoised\" is not an object", file);
        }
        folder->defaults = cJSON_DetachItemFromObjectCaseSensitive(root, "denoised");
    }
    return DN_OK;
}

/* A component of a pipeline is ["library", "Class"]; [null, null] says that there is none. */
static bool names_component(const cJSON *root, const char *key)
{
    const cJSON *pair = cJSON_GetObjectItemCaseSensitive(root, key);
    return cJSON_IsArray(pair) && cJSON_GetArraySize(pair) == 2 && cJSON_IsString(cJSON_GetArrayItem(pair, 1));
}

/* Components between network and picture that are not read: without them latents would be shown as pixels. */
static dn_status refuse_components(const cJSON *root, const char *file, dn_error *error)
{
    static const char *const keys[] = {"vqvae", "movq", "vqmodel", "text_encoder", "prior", "image_encoder"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        if (names_component(root, keys[i])) {
            const cJSON *pair = cJSON_GetObjectItemCaseSensitive(root, keys[i]);
            return dn_fail(error, DN_UNSUPPORTED, "%s: \"%s\": a component of class %.60s is not supported", file, keys[i],
                           cJSON_GetArrayItem(pair, 1)->valuestring);
        }
    }
    return DN_OK;
}

/* PATH/name/file, or PATH/file where there is no such folder: the first pipelines of the hub lie flat, and diffusers loads them so. */
static char *find_component(const dn_model_folder *folder, const char *name, const char *file, bool whole_path)
{
    char *place = join(folder->path, name), *inside = place ? join(place, file) : NULL, *flat = join(folder->path, file);
    char *found = NULL;
    if (place && inside && flat && !dn_path_exists(place) && dn_path_exists(flat)) {
        found = whole_path ? strdup(flat) : strdup(folder->path);
    } else if (place && inside && flat) {
        found = whole_path ? strdup(inside) : strdup(place);
    }
    free(flat);
    free(inside);
    free(place);
    return found;
}

static dn_status read_pipeline(dn_model_folder *folder, cJSON *root, const char *file, dn_error *error)
{
    const cJSON *class_name = cJSON_GetObjectItemCaseSensitive(root, "_class_name");
    if (!cJSON_IsString(class_name)) {
        return dn_fail(error, DN_INVALID, "%s: _class_name is missing or not a string", file);
    }
    bool has_unet = names_component(root, "unet"), has_transformer = names_component(root, "transformer");
    if (has_unet == has_transformer) {
        return dn_fail(error, DN_UNSUPPORTED, "%s: %s has %s (one of \"unet\" and \"transformer\" is needed)", file,
                       class_name->valuestring, has_unet ? "two denoisers" : "no denoiser");
    }
    dn_status status = refuse_components(root, file, error);
    if (status != DN_OK) {
        return status;
    }
    folder->pipeline_class = strdup(class_name->valuestring);
    folder->network_path = find_component(folder, has_unet ? "unet" : "transformer", "config.json", false);
    folder->scheduler_path = find_component(folder, "scheduler", "scheduler_config.json", true);
    if (!folder->pipeline_class || !folder->network_path || !folder->scheduler_path) {
        return no_memory(folder, error);
    }
    if (names_component(root, "vae")) {
        folder->vae_path = join(folder->path, "vae");
        if (!folder->vae_path) {
            return no_memory(folder, error);
        }
    }
    return read_common(folder, root, file, error);
}

/* A bare component: its schedule, if any, lies beside it. root: its config.json; NULL: it has none. */
static dn_status read_bare(dn_model_folder *folder, cJSON *root, const char *file, dn_error *error)
{
    const char *const places[] = {"scheduler_config.json", "scheduler/scheduler_config.json"};
    folder->network_path = strdup(folder->path);
    if (!folder->network_path) {
        return no_memory(folder, error);
    }
    for (size_t i = 0; i < 2 && !folder->scheduler_path; i++) {
        char *path = join(folder->base, places[i]);
        if (!path) {
            return no_memory(folder, error);
        }
        if (dn_path_exists(path)) {
            folder->scheduler_path = path;
        } else {
            free(path);
        }
    }
    return root ? read_common(folder, root, file, error) : DN_OK;
}

static dn_status read_object(cJSON **out, const char *file, dn_error *error)
{
    cJSON *root = NULL;
    dn_status status = dn_json_read_python_file(&root, file, DN_CONFIG_BYTES_MAX, error);
    if (status == DN_OK && !cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return dn_fail(error, DN_INVALID, "%s: not an object", file);
    }
    if (status == DN_OK) {
        *out = root;
    }
    return status;
}

static dn_status read_scheduler(dn_model_folder *folder, dn_error *error)
{
    return folder->scheduler_path ? read_object(&folder->scheduler, folder->scheduler_path, error) : DN_OK;
}

/* A component of a pipeline must have its config.json; what lies bare may be an original checkpoint, which has none. */
static dn_status check_component(const dn_model_folder *folder, const char *component, dn_error *error)
{
    if (!folder->pipeline_class || !component) {
        return DN_OK;
    }
    char *config = join(component, "config.json");
    if (!config) {
        return no_memory(folder, error);
    }
    dn_status status = dn_path_exists(config) ? DN_OK : dn_fail(error, DN_IO, "%s: %s", config, strerror(ENOENT));
    free(config);
    return status;
}

/* BASE/name where it is there. */
static dn_status find_part(char **out, const dn_model_folder *folder, const char *name, dn_error *error)
{
    char *path = join(folder->base, name);
    if (!path) {
        return no_memory(folder, error);
    }
    if (dn_path_exists(path)) {
        *out = path;
    } else {
        free(path);
    }
    return DN_OK;
}

static dn_status find_parts(dn_model_folder *folder, dn_error *error)
{
    dn_status status = folder->vae_path ? DN_OK : find_part(&folder->vae_path, folder, "vae", error);
    if (status == DN_OK) {
        status = find_part(&folder->guide_path, folder, "guide", error);
    }
    return status == DN_OK ? find_part(&folder->classifier_path, folder, "classifier", error) : status;
}

/* Reads the folder's own file: model_index.json, or config.json where there is none, or neither. */
static dn_status read_root(dn_model_folder *folder, dn_error *error)
{
    char *index = join(folder->path, "model_index.json"), *config = join(folder->base, "config.json");
    cJSON *root = NULL;
    dn_status status;
    if (!index || !config) {
        status = no_memory(folder, error);
    } else if (dn_path_exists(index)) {
        status = read_object(&root, index, error);
        if (status == DN_OK) {
            status = read_pipeline(folder, root, index, error);
        }
    } else if (dn_path_exists(folder->path) && dn_path_exists(config)) {
        status = read_object(&root, config, error);
        if (status == DN_OK) {
            status = read_bare(folder, root, config, error);
        }
    } else if (dn_path_exists(folder->path)) {
        status = read_bare(folder, NULL, folder->path, error);
    } else {
        status = dn_fail(error, DN_IO, "%s: no such folder", folder->path);
    }
    cJSON_Delete(root);
    free(config);
    free(index);
    return status;
}

/* PATH itself, or the folder of the file PATH; malloc'd. */
static char *base_of(const char *path)
{
    struct stat info;
    const char *slash = strrchr(path, '/');
    if (stat(path, &info) != 0 || S_ISDIR(info.st_mode)) {
        return strdup(path);
    }
    return slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
}

dn_status dn_model_folder_open(dn_model_folder **out, const char *path, dn_error *error)
{
    dn_model_folder *folder = calloc(1, sizeof *folder);
    if (!folder || !(folder->path = strdup(path)) || !(folder->base = base_of(path))) {
        dn_model_folder_free(folder);
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    dn_status status = read_root(folder, error);
    if (status == DN_OK) {
        status = check_component(folder, folder->network_path, error);
    }
    if (status == DN_OK) {
        status = check_component(folder, folder->vae_path, error);
    }
    if (status == DN_OK) {
        status = find_parts(folder, error);
    }
    if (status == DN_OK) {
        status = read_scheduler(folder, error);
    }
    if (status == DN_OK) {
        *out = folder;
        folder = NULL;
    }
    dn_model_folder_free(folder);
    return status;
}
