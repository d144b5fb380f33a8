/* UNet2DModel's configuration, as config.json gives it with diffusers' defaults for missing keys. Private to this folder.
 *
 * Invariant: a dn_unet2d_config that dn_unet2d_config_parse returned describes a network that unet2d.c can build. Networks of
 * other formats with the same structure (guided_diffusion.c) fill one themselves.
 * A plain value: any thread may read it. */
#ifndef DN_MODEL_UNET2D_H
#define DN_MODEL_UNET2D_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "model/model.h"

typedef struct dn_unet2d_block {
    bool attention; /* an attention after each resnet; of a skip up block: one, at its end */
    bool resnet_resampler; /* the block's down- or upsampler is a resnet, not a convolution */
    bool skip; /* NCSN++: resampling through a FIR filter, and the picture beside the features */
} dn_unet2d_block;

typedef enum dn_unet2d_time { DN_UNET2D_POSITIONAL, DN_UNET2D_FOURIER, DN_UNET2D_LEARNED } dn_unet2d_time;

typedef struct dn_unet2d_config {
    uint32_t height, width;
    uint32_t in_channels, out_channels;
    bool center_input_sample;
    dn_unet2d_time time; /* time_embedding_type */
    uint32_t time_channels; /* of the sinusoid or the learned table; half the size of random frequencies' answer */
    uint32_t time_rows; /* num_train_timesteps, of a learned table */
    uint32_t time_embedding_dim;
    float freq_shift;
    bool flip_sin_to_cos;
    uint32_t levels; /* down blocks, and as many up blocks */
    uint32_t channels[DN_BLOCKS_MAX]; /* block_out_channels, finest first */
    dn_unet2d_block down[DN_BLOCKS_MAX], up[DN_BLOCKS_MAX];
    uint32_t layers_per_block;
    bool mid_block, mid_attention;
    float mid_scale; /* mid_block_scale_factor: the mid block's outputs are divided by it */
    uint32_t downsample_padding; /* 1: symmetric; 0: one row and column at the bottom and right */
    dn_activation activation; /* act_fn */
    uint32_t head_dim; /* 0: one head of all channels, or head_count heads */
    uint32_t head_count, up_head_count; /* 0: by head_dim; up_head_count: of the up blocks */
    uint32_t groups; /* norm_num_groups; 0: by the channels, as skip blocks do everywhere */
    uint32_t mid_attention_groups; /* 0: the mid block's attention has no group norm */
    float epsilon;
    bool scale_shift; /* resnet_time_scale_shift: scale_shift, not default */
    uint32_t class_rows; /* num_class_embeds, 0: unconditional */
    bool class_sinusoid; /* class_embed_type "timestep": the class number goes the way of the time */
} dn_unet2d_config;

/* height, width: 0 for the configuration's sample_size. Unknown keys are ignored, as diffusers does. */
dn_status dn_unet2d_config_parse(dn_unet2d_config *out, const cJSON *json, const char *path, uint32_t height, uint32_t width,
                                 dn_error *error);

/* What "by the channels" means: min(channels / 4, 32) groups. */
uint32_t dn_unet2d_groups(uint32_t channels);
/* Heads of an attention over so many channels in an up block or elsewhere. */
uint32_t dn_unet2d_heads(const dn_unet2d_config *config, uint32_t channels, bool up);

/* The plan, the shapes and the number of classes of a configuration. path: for messages. */
dn_status dn_unet2d_plan(dn_model *out, const dn_unet2d_config *config, const char *path, dn_error *error);

/* The architecture table's entry. */
dn_status dn_unet2d_build(dn_model *out, const dn_build_input *input, dn_error *error);

#endif
