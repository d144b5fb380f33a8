/* The table of architectures, and how a component folder becomes a model: configuration -> plan -> weights, and back.
 *
 * A dn_model owns its plan and weights and is immutable once opened: any thread may read it. */
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "format/json.h"
#include "format/weight_files.h"
#include "model/autoencoder_kl.h"
#include "model/classifier.h"
#include "model/dit.h"
#include "model/edm_unet.h"
#include "model/guided_diffusion.h"
#include "model/unet2d.h"
#include "model/weights.h"

#define CONFIG_FILE "config.json"
#define WEIGHT_FILE "diffusion_pytorch_model.safetensors"
#define PATH_BYTES 4096

static const dn_architecture architectures[] = {
    {"UNet2DModel", dn_unet2d_build, NULL},
    {"DiTTransformer2DModel", dn_dit_build, NULL},
    {"Transformer2DModel", dn_dit_build, NULL}, /* the name before diffusers 0.29; with norm_type ada_norm_zero */
    {"DiT", dn_dit_original_build, dn_dit_original_recognise},
    {"SiT", dn_dit_original_build, dn_dit_original_recognise},
    {"REPA", dn_dit_original_build, dn_dit_original_recognise},
    {DN_GUIDED_DIFFUSION_CLASS, dn_guided_diffusion_build, dn_guided_diffusion_recognise},
    {DN_EDM_SONG_CLASS, dn_edm_build, NULL},
    {DN_EDM_DHARIWAL_CLASS, dn_edm_build, NULL},
    {"AutoencoderKL", dn_autoencoder_kl_build, NULL},
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

/* What a model is opened from. Owned until close_source. */
typedef struct source {
    cJSON *config;
    char config_path[PATH_BYTES]; /* the weight file's, where there is no configuration */
    dn_tensors *tensors;
} source;

static void close_source(source *from)
{
    cJSON_Delete(from->config);
    dn_tensors_close(from->tensors);
}

static cJSON *ask_architectures(const dn_tensors *tensors)
{
    cJSON *config = NULL;
    for (size_t i = 0; config == NULL && i < sizeof architectures / sizeof architectures[0]; i++)
        if (architectures[i].recognise != NULL)
            config = architectures[i].recognise(tensors);
    return config;
}

/* A training checkpoint holds several copies of the network, one dictionary each: its average is what samples well. */
static bool enter_dictionary(dn_tensors *tensors)
{
    static const char *const prefixes[] = {"ema.", "ema_model.", "model.", "module.", "state_dict.", "_orig_mod.", "net."};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (dn_tensors_enter(tensors, prefixes[i]))
            return true;
    return false;
}

/* Goes into the dictionaries of a training checkpoint until an architecture knows the tensors. */
static dn_status recognise(source *from, dn_error *error)
{
    int length = snprintf(from->config_path, PATH_BYTES, "%s", dn_tensors_path(from->tensors));
    if (length < 0 || length >= PATH_BYTES)
        return dn_fail(error, DN_INVALID, "%.200s...: the path is longer than %d bytes", from->config_path, PATH_BYTES - 1);
    const char *first = dn_tensors_count(from->tensors) > 0 ? dn_tensors_at(from->tensors, 0)->name : "none";
    do
        from->config = ask_architectures(from->tensors);
    while (from->config == NULL && enter_dictionary(from->tensors));
    if (from->config != NULL)
        return DN_OK;
    return dn_fail(error, DN_UNSUPPORTED, "%s: there is no " CONFIG_FILE ", and its tensors (%.100s, ...) are of no network known here",
                   dn_tensors_path(from->tensors), first);
}

/* NULL: the configuration names none that is known here. */
static const dn_architecture *architecture_of(const cJSON *config)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(config, "_class_name"));
    return name != NULL ? dn_architecture_find(name) : NULL;
}

/* The same where a configuration says what the network is: original formats may come with one. */
static void enter_as_configured(const source *from)
{
    const dn_architecture *architecture = architecture_of(from->config);
    bool known = architecture == NULL || architecture->recognise == NULL;
    while (!known) {
        cJSON *config = architecture->recognise(from->tensors);
        known = config != NULL || !enter_dictionary(from->tensors);
        cJSON_Delete(config);
    }
}

/* PATH/config.json, or the one beside the file PATH: what SiT's file means, only that can tell. Empty: there is none. */
static dn_status find_config(char out[PATH_BYTES], const char *path, dn_error *error)
{
    struct stat info;
    const char *slash = strrchr(path, '/');
    dn_status status;
    if (stat(path, &info) != 0 || S_ISDIR(info.st_mode)) {
        status = join_path(out, path, CONFIG_FILE, error);
    } else {
        int folder_bytes = slash != NULL ? (int)(slash - path) + 1 : 0;
        int length = snprintf(out, PATH_BYTES, "%.*s" CONFIG_FILE, folder_bytes, path);
        status = length > 0 && length < PATH_BYTES
                     ? DN_OK
                     : dn_fail(error, DN_INVALID, "%.200s...: the path is longer than %d bytes", path, PATH_BYTES - 1);
    }
    if (status == DN_OK && !dn_path_exists(out))
        out[0] = '\0';
    return status;
}

static dn_status open_weights(dn_tensors **out, const char *folder, dn_error *error)
{
    char *path = NULL;
    dn_status status = dn_weight_file_find(&path, folder, error);
    if (status == DN_OK)
        status = dn_tensors_open(out, path, error);
    free(path);
    return status;
}

static dn_status open_source(source *from, const char *folder, dn_error *error)
{
    dn_status status = find_config(from->config_path, folder, error);
    bool has_config = from->config_path[0] != '\0';
    if (status == DN_OK && has_config)
        status = dn_json_read_file(&from->config, from->config_path, DN_CONFIG_BYTES_MAX, error);
    if (status == DN_OK)
        status = open_weights(&from->tensors, folder, error);
    if (status == DN_OK && has_config)
        enter_as_configured(from);
    else if (status == DN_OK)
        status = recognise(from, error);
    return status;
}

/* The bytes are hashed, and a torch file's checksums checked, before any of them becomes a weight. */
static dn_status read_weights(dn_model *model, const dn_tensors *tensors, dn_error *error)
{
    dn_status status = dn_weights_check(model, tensors, error);
    if (status == DN_OK)
        status = dn_tensors_sha256(tensors, model->weights_sha256, error);
    if (status == DN_OK)
        status = dn_weights_read(&model->weights, model, tensors, error);
    return status == DN_OK ? dn_tensors_unchanged(tensors, error) : status;
}

dn_status dn_model_hash_weights(char out[65], const char *folder, dn_error *error)
{
    dn_tensors *tensors = NULL;
    dn_status status = open_weights(&tensors, folder, error);
    if (status == DN_OK)
        status = dn_tensors_sha256(tensors, out, error);
    dn_tensors_close(tensors);
    return status;
}

static dn_status hash_config(dn_model *model, const source *from, dn_error *error)
{
    unsigned char digest[DN_SHA256_BYTES];
    char *text = cJSON_PrintUnformatted(from->config);
    if (text == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", from->config_path);
    dn_sha256_of(digest, text, strlen(text));
    dn_sha256_hex(model->config_sha256, digest);
    cJSON_free(text);
    return DN_OK;
}

/* Where the weights cannot be opened, what the configuration says of itself comes first: a network that cannot be built has no use
 * for them. Formats whose configuration is completed from the tensors are not asked. */
static dn_status prefer_build_error(const dn_build_input *wanted, dn_status status, dn_error *error)
{
    const dn_architecture *architecture = architecture_of(wanted->config);
    if (wanted->config == NULL || (architecture != NULL && architecture->recognise != NULL))
        return status;
    dn_error reason = {DN_OK, ""};
    dn_model *model = NULL;
    dn_status built = build(&model, wanted, &reason);
    dn_model_free(model);
    return built == DN_OK ? status : dn_fail(error, built, "%s", reason.message);
}

/* wanted: part and size; the rest is filled here. */
static dn_status open_model(dn_model **out, const char *folder, dn_build_input wanted, bool with_weights, dn_error *error)
{
    source from = {0};
    dn_model *model = NULL;
    dn_status status = open_source(&from, folder, error);
    wanted.config = from.config;
    wanted.config_path = from.config_path;
    wanted.tensors = from.tensors;
    if (status == DN_OK)
        status = build(&model, &wanted, error);
    else
        status = prefer_build_error(&wanted, status, error);
    if (status == DN_OK)
        status = hash_config(model, &from, error);
    if (status == DN_OK)
        status = with_weights ? read_weights(model, from.tensors, error) : dn_weights_check(model, from.tensors, error);
    if (status == DN_OK) {
        *out = model;
        model = NULL;
    }
    dn_model_free(model);
    close_source(&from);
    return status;
}

dn_status dn_model_open(dn_model **out, const char *folder, uint32_t height, uint32_t width, dn_error *error)
{
    return open_model(out, folder, (dn_build_input){.height = height, .width = width}, true, error);
}

dn_status dn_model_open_part(dn_model **out, const char *folder, const char *part, uint32_t height, uint32_t width, dn_error *error)
{
    return open_model(out, folder, (dn_build_input){.height = height, .width = width, .part = part}, true, error);
}

dn_status dn_model_describe(dn_model **out, const char *folder, uint32_t height, uint32_t width, dn_error *error)
{
    return open_model(out, folder, (dn_build_input){.height = height, .width = width}, false, error);
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
    if (status == DN_OK && model->naming != NULL)
        status = dn_fail(error, DN_UNSUPPORTED, "%s: a %s keeps its tensors under names of its own format, which are not written", folder,
                         model->architecture);
    if (status == DN_OK)
        status = dn_make_folder(folder, error);
    if (status == DN_OK)
        status = dn_weights_write(model, weight_path, dtype, error);
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
