/* The parts that U-Nets are made of: residual blocks, attentions, resamplers, as UNet2DModel has them. Private to this folder.
 *
 * Each function appends nodes to the plan and answers the value of the last; after a failure of the builder it answers DN_NONE. */
#ifndef DN_MODEL_UNET2D_BLOCKS_H
#define DN_MODEL_UNET2D_BLOCKS_H

#include "model/plan_tools.h"
#include "model/unet2d.h"

typedef struct dn_unet {
    const dn_unet2d_config *config;
    dn_plan_builder *plan;
    dn_value time; /* act_fn(time + class embedding), vector of time_embedding_dim; every resnet projects it */
} dn_unet;

typedef enum dn_resample { DN_RESAMPLE_NONE, DN_RESAMPLE_DOWN, DN_RESAMPLE_UP } dn_resample;

typedef struct dn_resnet_shape {
    uint32_t out_channels;
    uint32_t groups_in, groups_out; /* of norm1 and norm2 */
    float output_scale; /* output_scale_factor: what the sum is divided by */
    dn_resample resample;
    bool fir; /* resample through [1,3,3,1] */
    bool shortcut; /* a convolution on the shortcut even where the channels agree */
} dn_resnet_shape;

dn_value dn_unet_resample(dn_unet *u, dn_value in, dn_resample how, bool fir, const char *name);
dn_value dn_unet_resnet(dn_unet *u, dn_value in, dn_module_name module, const dn_resnet_shape *shape);
/* groups 0: no norm. */
dn_value dn_unet_attention(dn_unet *u, dn_value in, dn_module_name module, uint32_t groups, uint32_t heads, float output_scale);
/* Downsample2D and Upsample2D with a convolution. */
dn_value dn_unet_conv_resampler(dn_unet *u, dn_value in, dn_module_name module, dn_resample how);

#endif
