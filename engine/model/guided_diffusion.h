/* The U-Net of guided-diffusion ("ADM", Dhariwal & Nichol 2021) as its authors store it: a .pt file of openai/guided-diffusion.
 *
 * The network is one that UNet2DModel's plan can say; what differs is how its configuration is written (the arguments of the
 * original's scripts, as keys of a config.json with _class_name "GuidedDiffusionUNet"), the names of its tensors, and the order
 * of q, k and v. Private to this folder. A plain value: any thread may read it. */
#ifndef DN_MODEL_GUIDED_DIFFUSION_H
#define DN_MODEL_GUIDED_DIFFUSION_H

#include "model/unet2d.h"

#define DN_GUIDED_DIFFUSION_CLASS "GuidedDiffusionUNet"

typedef struct dn_guided_diffusion_config {
    dn_unet2d_config unet;
    bool new_attention_order; /* q, k, v are stacked, then split into heads; else each head's q, k, v lie together */
    bool cosine_schedule; /* noise_schedule */
} dn_guided_diffusion_config;

dn_status dn_guided_diffusion_config_parse(dn_guided_diffusion_config *out, const dn_build_input *input, dn_error *error);

/* The architecture table's entries. */
dn_status dn_guided_diffusion_build(dn_model *out, const dn_build_input *input, dn_error *error);
/* Shapes tell everything but the heads, the order of q, k, v and the schedule: those are the published checkpoints' own, known by
 * their channel multipliers. The super-resolution networks (six channels in) are not recognised. */
cJSON *dn_guided_diffusion_recognise(const dn_tensors *tensors);

#endif
