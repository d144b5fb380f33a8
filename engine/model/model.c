/* The table of architectures, and how a component folder becomes a model: configuration -> plan -> weights, and back.
 *
 * A dn_model owns its plan and weights and is immutable once opened: any thread may read it. */
#include "model/model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "format/json.h"
#include "model/classifier.h"
#include "model/unet2d.h"
#include "model/weights.h"

#define CONFIG_FILE "config.json"
#define WEIGHT_FILE "diffusion_pytorch_model.safetensors"
#define HASH_CHUNK_BYTES (1u << 20)
#define PATH_BYTES 4096

static const dn_architecture architectures[] = {
    {"UNet2DModel", dn_unet2d_build, NULL},
    {DN_CLASSIFIER_CLASS, dn_classifier_build, NULL},
};

const dn_architecture *dn_architecture_find(const char *class_name)
{
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++)
        if (strcmp(architectures[i].class_name, class_name) == 0)
            return &architectures[i];
    return NULL;
}

static dn_status join_path(char out[PATH_BYTES], const char *folder, const char *file, dn_error *error)
{
    int length = snprintf(out, PATH_BYTES, "%s/%s", folder, file);
    if (length < 0 || length >= PATH_BYTES)
        return dn_fail(error, DN_INVALID, "%.200s...: the path is longer than %d bytes", folder, PATH_BYTES - 1);
    return DN_OK;
}

static bool folder_has(const char *folder, const char *file)
{
    char path[PATH_BYTES];
    struct stat info;
    return join_path(path, folder, file, NULL) == DN_OK && stat(path, &info) == 0;
}

static dn_status build(dn_model **out, const dn_build_input *input, dn_error *error)
{
    const cJSON *config = input->config;
    const char *path = input->config_path;
    const cJSON *class_name = cJSON_GetObjectItemCaseSensitive(config, "_class_name");
    if (!cJSON_IsString(class_name))
        return dn_fail(error, DN_INVALID, "%s: _class_name: must name the network's class", path);
    const dn_architecture *architecture = dn_architecture_find(class_name->valuestring);
    if (architecture == NULL)
        return dn_fail(error, DN_UNSUPPORTED, "%s: _class_name: \"%.60s\" is not supported", path, class_name->valuestring);
    dn_model *model = calloc(1, sizeof *model);
    if (model == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    model->architecture = architecture->class_name;
    dn_status status = architecture->build(model, input, error);
    if (status != DN_OK) {
        dn_model_free(model);
        return status;
    }
    *out = model;
    return DN_OK;
}

dn_status dn_model_from_config(dn_model **out, const cJSON *config, const char *config_path, dn_error *error)
{
    return build(out, &(dn_build_input){.config = config, .config_path = config_path}, error);
}

/* Says what is there instead of the weight file that should be. */
static dn_status refuse_missing_weights(const char *folder, dn_error *error)
{
    if (folder_has(folder, WEIGHT_FILE ".index.json"))
        return dn_fail(error, DN_UNSUPPORTED,
                       "%s: weights split over several files (" WEIGHT_FILE ".index.json) are not supported; merge them", folder);
    if (folder_has(folder, "diffusion_pytorch_model.bin"))
        return dn_fail(error, DN_UNSUPPORTED, "%s: diffusion_pytorch_model.bin is not supported; convert it to " WEIGHT_FILE, folder);
    return dn_fail(error, DN_INVALID, "%s: there is no " WEIGHT_FILE, folder);
}

static dn_status hash_file(char out[DN_SHA256_HEX_BYTES], const char *path, dn_error *error)
{
    dn_status status = DN_OK;
    unsigned char *chunk = malloc(HASH_CHUNK_BYTES);
    FILE *file = fopen(path, "rbe");
    if (chunk == NULL || file == NULL) {
        status = chunk == NULL ? dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path)
                               : dn_fail(error, DN_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    dn_sha256 hash;
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256_init(&hash);
    for (size_t count; (count = fread(chunk, 1, HASH_CHUNK_BYTES, file)) > 0;)
        dn_sha256_update(&hash, chunk, count);
    if (ferror(file)) {
        status = dn_fail(error, DN_IO, "%s: %s", path, strerror(errno));
        goto done;
    }
    dn_sha256_final(&hash, digest);
    dn_sha256_hex(out, digest);
done:
    if (file != NULL)
        fclose(file);
    free(chunk);
    return status;
}

dn_status dn_model_open(dn_model **out, const char *folder, uint32_t height, uint32_t width, dn_error *error)
{
    char config_path[PATH_BYTES], weight_path[PATH_BYTES];
    cJSON *config = NULL;
    dn_model *model = NULL;
    dn_status status = join_path(config_path, folder, CONFIG_FILE, error);
    if (status == DN_OK)
        status = join_path(weight_path, folder, WEIGHT_FILE, error);
    if (status == DN_OK)
        status = dn_json_read_file(&config, config_path, DN_CONFIG_BYTES_MAX, error);
    if (status == DN_OK)
        status = build(&model, &(dn_build_input){config, config_path, height, width, NULL}, error);
    if (status != DN_OK)
        goto done;
    if (!folder_has(folder, WEIGHT_FILE)) {
        status = refuse_missing_weights(folder, error);
        goto done;
    }
    status = dn_weights_read(&model->weights, model->plan, weight_path, error);
    if (status == DN_OK)
        status = hash_file(model->weights_sha256, weight_path, error);
    if (status != DN_OK)
        goto done;
    *out = model;
    model = NULL;
done:
    cJSON_Delete(config);
    dn_model_free(model);
    return status;
}

void dn_model_free(dn_model *model)
{
    if (model == NULL)
        return;
    dn_weights_free(model->weights);
    dn_plan_free(model->plan);
    free(model->private_config);
    free(model);
}

dn_status dn_model_save(const dn_model *model, const cJSON *config, const char *folder, int dtype, dn_error *error)
{
    char config_path[PATH_BYTES], weight_path[PATH_BYTES];
    char *text = NULL;
    dn_status status = join_path(config_path, folder, CONFIG_FILE, error);
    if (status == DN_OK)
        status = join_path(weight_path, folder, WEIGHT_FILE, error);
    if (status == DN_OK && model->weights == NULL)
        status = dn_fail(error, DN_INVALID, "%s: the model has no weights to save", folder);
    if (status == DN_OK)
        status = dn_make_folder(folder, error);
    if (status == DN_OK)
        status = dn_weights_write(model->plan, model->weights, weight_path, dtype, error);
    if (status != DN_OK)
        goto done;
    text = cJSON_Print(config);
    if (text == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "%s: out of memory", config_path);
        goto done;
    }
    status = dn_file_write(config_path, text, strlen(text), true, error);
done:
    cJSON_free(text);
    return status;
}
