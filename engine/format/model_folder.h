/* A diffusers pipeline folder: model_index.json, one sub-folder a component, scheduler/scheduler_config.json.
 * This file reads names and numbers; what a component means is model/'s and diffusion/'s business. */
#ifndef DN_FORMAT_MODEL_FOLDER_H
#define DN_FORMAT_MODEL_FOLDER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dn_model_folder {
    char *path;
    char *base;                  /* the folder that its parts lie in: PATH, or where the file PATH lies */
    char *pipeline_class;        /* "DDPMPipeline", ... ; NULL for a bare component folder (config.json beside the weights) */
    char *network_path;          /* folder of the denoiser: PATH/unet, PATH/transformer, or PATH itself (a flat pipeline, too) */
    char *vae_path;              /* PATH/vae: the autoencoder whose latents the denoiser works on; NULL: none */
    char *guide_path;            /* PATH/guide: autoguidance's weaker denoiser; NULL: none */
    char *classifier_path;       /* PATH/classifier: classifier guidance's classifier; NULL: none */
    cJSON *scheduler;            /* scheduler_config.json, or NULL */
    char *scheduler_path;
    uint32_t class_count;        /* id2label's entries; 0: none given */
    char **class_names;          /* [class_count], comma-separated synonyms as stored */
    cJSON *defaults;             /* "denoised" object of model_index.json: {"sampler","steps","guidance_scale","null_class"}; NULL: none */
} dn_model_folder;

/* PATH may also be a checkpoint of an original format, or a folder that holds nothing else: what it is the tensors say then. A file
 * stands for a bare folder in which it is the one that is meant: config.json, scheduler, vae and the like beside it count.
 * id2label must hold every index 0..n-1 exactly once. Refusals name the file and the rule. */
dn_status dn_model_folder_open(dn_model_folder **out, const char *path, dn_error *error);
void dn_model_folder_free(dn_model_folder *folder);

#endif
