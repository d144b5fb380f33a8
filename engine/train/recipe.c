/* Reads and checks a recipe; see recipe.h for the keys. */
#include "train/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/config_reader.h"

#define IMAGES_MAX 4294967295.0 /* an image's number is a 32-bit draw of its noise */

static const char *const keys[] = {"unet",
                                   "classifier",
                                   "scheduler",
                                   "pad",
                                   "images",
                                   "batch",
                                   "learning_rate",
                                   "warmup_images",
                                   "decay",
                                   "betas",
                                   "epsilon",
                                   "weight_decay",
                                   "clip",
                                   "ema",
                                   "flip",
                                   "class_dropout",
                                   "seed",
                                   "min_snr_gamma",
                                   "init",
                                   "defaults",
                                   "dtype",
                                   "class_names",
                                   "save_every_images",
                                   "sample_every_images"};

static dn_status refuse_unknown(const cJSON *json, const char *path, dn_error *error)
{
    for (const cJSON *item = json->child; item; item = item->next) {
        size_t i = 0;
        while (i < sizeof keys / sizeof *keys && strcmp(keys[i], item->string) != 0) {
            i++;
        }
        if (i == sizeof keys / sizeof *keys) {
            return dn_fail(error, DN_INVALID, "%s: %.60s: a recipe has no such key", path, item->string);
        }
    }
    return DN_OK;
}

static uint64_t images(dn_config_reader *r, const char *key)
{
    double value = dn_config_number(r, key, 0, 0, IMAGES_MAX);
    if (value != (double)(uint64_t)value) {
        dn_config_fail(r, DN_INVALID, key, "must be a whole number");
    }
    return (uint64_t)value;
}

static const cJSON *object(dn_config_reader *r, const char *key, bool required)
{
    if (!required && dn_config_is_null(r, key)) {
        return NULL;
    }
    const cJSON *item = dn_config_item(r, key);
    if (!cJSON_IsObject(item)) {
        dn_config_fail(r, DN_INVALID, key, "must be an object");
        return NULL;
    }
    return item;
}

static void read_optimizer(dn_recipe *out, dn_config_reader *r)
{
    dn_adamw_options *o = &out->optimizer;
    *o = (dn_adamw_options){.beta1 = 0.9, .beta2 = 0.99, .total = (double)out->images};
    o->learning_rate = dn_config_number(r, "learning_rate", 1e-3, 0, 10);
    o->warmup = (double)images(r, "warmup_images");
    o->epsilon = dn_config_number(r, "epsilon", 1e-8, 1e-30, 1);
    o->weight_decay = dn_config_number(r, "weight_decay", 0, 0, 10);
    o->clip = dn_config_number(r, "clip", 1, 0, 1e9);
    const char *decay = dn_config_text(r, "decay", "cosine");
    o->cosine = strcmp(decay, "cosine") == 0;
    if (!o->cosine && strcmp(decay, "constant") != 0) {
        dn_config_fail(r, DN_INVALID, "decay", "must be \"cosine\" or \"constant\"");
    }
    const cJSON *betas = dn_config_item(r, "betas");
    if (!betas) {
        return;
    }
    const cJSON *first = cJSON_GetArrayItem(betas, 0), *second = cJSON_GetArrayItem(betas, 1);
    if (!cJSON_IsArray(betas) || cJSON_GetArraySize(betas) != 2 || !cJSON_IsNumber(first) || !cJSON_IsNumber(second) ||
        first->valuedouble < 0 || first->valuedouble >= 1 || second->valuedouble < 0 || second->valuedouble >= 1) {
        dn_config_fail(r, DN_INVALID, "betas", "must be two numbers from 0 to below 1");
        return;
    }
    o->beta1 = first->valuedouble;
    o->beta2 = second->valuedouble;
}

static void read_output(dn_recipe *out, dn_config_reader *r)
{
    static const dn_dtype types[] = {DN_F32, DN_F16, DN_BF16};
    const char *dtype = dn_config_text(r, "dtype", "F32");
    out->dtype = -1;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        out->dtype = strcmp(dtype, dn_dtype_name(types[i])) == 0 ? (int)types[i] : out->dtype;
    }
    if (out->dtype < 0) {
        dn_config_fail(r, DN_INVALID, "dtype", "must be \"F32\", \"F16\" or \"BF16\"");
    }
    out->save_every_images = images(r, "save_every_images");
    out->sample_every_images = images(r, "sample_every_images");
    out->defaults = object(r, "defaults", false);
    if (dn_config_is_null(r, "class_names")) {
        return;
    }
    out->class_names = dn_config_item(r, "class_names");
    bool names = cJSON_IsArray(out->class_names) && out->class_names->child;
    for (const cJSON *name = names ? out->class_names->child : NULL; name; name = name->next) {
        names = names && cJSON_IsString(name);
    }
    if (!names) {
        dn_config_fail(r, DN_INVALID, "class_names", "must be a list of strings");
    }
}

static void read_all(dn_recipe *out, dn_config_reader *r)
{
    out->classifier = object(r, "classifier", false);
    out->unet = object(r, "unet", out->classifier == NULL);
    if (out->classifier && out->unet) {
        dn_config_fail(r, DN_INVALID, "classifier", "stands instead of unet, not beside it");
    }
    out->scheduler = object(r, "scheduler", true);
    out->pad = dn_config_count(r, "pad", 0, 0, DN_IMAGE_SIDE_MAX);
    out->batch = dn_config_count(r, "batch", 64, 1, DN_TRAIN_BATCH_MAX);
    out->images = images(r, "images");
    if (out->images < out->batch) {
        dn_config_fail(r, DN_INVALID, "images", "must be given, and at least one batch");
    }
    out->ema = dn_config_number(r, "ema", 0.999, 0, 1);
    out->class_dropout = dn_config_number(r, "class_dropout", 0, 0, 1);
    out->flip = dn_config_bool(r, "flip", false);
    out->seed = (uint64_t)dn_config_number(r, "seed", 1, 0, 9007199254740992.0);
    out->min_snr_gamma = dn_config_is_null(r, "min_snr_gamma") ? 0 : dn_config_number(r, "min_snr_gamma", 0, 1e-6, 1e6);
    out->init = dn_config_is_null(r, "init") ? NULL : dn_config_text(r, "init", NULL);
    read_optimizer(out, r);
    read_output(out, r);
}

static dn_status hash(dn_recipe *out, dn_error *error)
{
    unsigned char digest[DN_SHA256_BYTES];
    char *text = cJSON_PrintUnformatted(out->json);
    if (!text) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", out->path);
    }
    dn_sha256_of(digest, text, strlen(text));
    dn_sha256_hex(out->hash, digest);
    cJSON_free(text);
    return DN_OK;
}

dn_status dn_recipe_from_json(dn_recipe **out, cJSON *json, const char *path, dn_error *error)
{
    dn_config_reader reader;
    dn_recipe *recipe = calloc(1, sizeof *recipe);
    if (!recipe) {
        cJSON_Delete(json);
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    recipe->json = json;
    recipe->path = path;
    dn_status status = dn_config_reader_init(&reader, json, path, error);
    if (status == DN_OK) {
        status = refuse_unknown(json, path, error);
    }
    if (status == DN_OK) {
        read_all(recipe, &reader);
        status = dn_config_reader_end(&reader, error);
    }
    if (status == DN_OK) {
        status = hash(recipe, error);
    }
    if (status != DN_OK) {
        dn_recipe_free(recipe);
        return status;
    }
    *out = recipe;
    return DN_OK;
}

dn_status dn_recipe_read(dn_recipe **out, const char *path, dn_error *error)
{
    cJSON *json = NULL;
    dn_status status = dn_json_read_file(&json, path, DN_CONFIG_BYTES_MAX, error);
    return status == DN_OK ? dn_recipe_from_json(out, json, path, error) : status;
}

void dn_recipe_free(dn_recipe *recipe)
{
    if (recipe) {
        cJSON_Delete(recipe->json);
        free(recipe);
    }
}
