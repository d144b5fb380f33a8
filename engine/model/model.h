/* The one face of every architecture: a diffusers component folder in, a plan and its weights out.
 *
 * Adding an architecture is one file in this folder (a function that builds a plan from config.json) and one row in
 * the table of model.c. */
#ifndef DN_MODEL_MODEL_H
#define DN_MODEL_MODEL_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "plan/plan.h"

typedef struct dn_model {
    const char *architecture; /* "UNet2DModel" */
    uint32_t width, height, channels; /* of the sample; out_channels of the network's answer (learned variance doubles it) */
    uint32_t out_channels;
    uint32_t class_rows; /* embedding rows, 0: unconditional network */
    dn_plan *plan;
    dn_weights *weights;
    char weights_sha256[65]; /* of the weight file's bytes */
} dn_model;

typedef struct dn_architecture {
    const char *class_name; /* _class_name in config.json */
    /* Fills everything but the weights. height, width: 0 for the configuration's sample_size. Refusals name file and key. */
    dn_status (*build)(dn_model *out, const cJSON *config, const char *config_path, uint32_t height, uint32_t width, dn_error *error);
} dn_architecture;

const dn_architecture *dn_architecture_find(const char *class_name); /* NULL: unknown */

/* Reads FOLDER/config.json and FOLDER/diffusion_pytorch_model.safetensors, strictly: every tensor the plan names must be
 * there with its shape; a tensor the plan does not know is refused too, but for a short list of known leftovers. */
dn_status dn_model_open(dn_model **out, const char *folder, uint32_t height, uint32_t width, dn_error *error);
/* The plan alone, for training from scratch and for inspect. */
dn_status dn_model_from_config(dn_model **out, const cJSON *config, const char *config_path, dn_error *error);
void dn_model_free(dn_model *model);

/* Saves config and weights (F32, F16 or BF16) as a diffusers component folder; each file is written atomically. */
dn_status dn_model_save(const dn_model *model, const cJSON *config, const char *folder, int dtype, dn_error *error);

#endif
