/* A training recipe: one strict JSON file that says everything a training run depends on.
 *
 * Keys (default): "unet" (required: the object of unet/config.json), "scheduler" (required: the object of
 * scheduler_config.json), "pad" (0: pictures as stored; else the side to pad to), "images" (required: pictures seen in
 * all), "batch" (64), "learning_rate" (1e-3), "warmup_images" (0), "decay" ("cosine" | "constant"), "betas" ([0.9, 0.99]),
 * "epsilon" (1e-8), "weight_decay" (0), "clip" (1.0; 0: off), "ema" (0.999), "class_dropout" (0), "flip" (false), "seed" (1),
 * "min_snr_gamma" (null), "init" (null: from random weights, else a model folder), "save_every_images" (0: only at the end),
 * "sample_every_images" (0: never), "class_names" (null), "dtype" ("F32" | "F16" | "BF16"), "defaults" (null: the
 * "denoised" object of model_index.json). "classifier" (the object of a DenoisedClassifier's config.json) stands instead of
 * "unet" in the recipe of a classifier, which "scheduler" noises the pictures of when it is noise_aware. An unknown key is
 * refused by name. Immutable once read. */
#ifndef DN_TRAIN_RECIPE_H
#define DN_TRAIN_RECIPE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"
#include "train/optimizer.h"

#define DN_TRAIN_BATCH_MAX 4096u

typedef struct dn_recipe {
    cJSON *json; /* owns every string and object below */
    const char *path; /* of the file, for messages; borrowed from the caller of dn_recipe_read */
    const cJSON *unet, *classifier; /* one of them, the other NULL */
    const cJSON *scheduler, *class_names, *defaults;
    uint32_t pad, batch;
    uint64_t images, save_every_images, sample_every_images;
    dn_adamw_options optimizer;
    double ema, class_dropout;
    double min_snr_gamma; /* 0: off */
    bool flip;
    uint64_t seed;
    const char *init; /* NULL: random weights */
    int dtype; /* dn_dtype of the exported weights */
    char hash[DN_SHA256_HEX_BYTES]; /* of the recipe's meaning (its JSON without whitespace) */
} dn_recipe;

dn_status dn_recipe_read(dn_recipe **out, const char *path, dn_error *error);
dn_status dn_recipe_from_json(dn_recipe **out, cJSON *json, const char *path, dn_error *error); /* consumes json, even on failure */
void dn_recipe_free(dn_recipe *recipe);

#endif
