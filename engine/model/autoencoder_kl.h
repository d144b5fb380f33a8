/* AutoencoderKL: pictures to latents and back, as two plans from one component folder.
 *
 * The decoder reads latents [h, w, latent_channels] as the checkpoint means them (unscaled: latents / scaling_factor + shift_factor)
 * and answers with pictures in [-1, 1]; the encoder reads pictures and answers with mean and log-variance, 2 * latent_channels, the
 * latter to be clamped to [-30, 20] by whoever samples. Source: Rombach et al. 2022; module names of diffusers 0.31. */
#ifndef DN_MODEL_AUTOENCODER_KL_H
#define DN_MODEL_AUTOENCODER_KL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "model/model.h"

#define DN_AUTOENCODER_DECODER "decoder" /* parts of the component, for dn_model_open_part */
#define DN_AUTOENCODER_ENCODER "encoder"

typedef struct dn_autoencoder_kl_config {
    uint32_t in_channels, out_channels, latent_channels;
    uint32_t levels; /* the picture is 2^(levels - 1) times as large as the latent */
    uint32_t channels[DN_BLOCKS_MAX]; /* block_out_channels, finest first */
    uint32_t layers_per_block, groups;
    uint32_t sample_size; /* side of the pictures it was trained on: the tile of a tiled decode */
    dn_activation activation;
    bool quant_conv, post_quant_conv, mid_attention;
    double scaling_factor, shift_factor;
} dn_autoencoder_kl_config;

/* Keys and defaults are those of diffusers 0.31's AutoencoderKL; unknown keys are ignored. */
dn_status dn_autoencoder_kl_config_parse(dn_autoencoder_kl_config *out, const cJSON *json, const char *path, dn_error *error);

/* The architecture table's entry: the part that the input names, the decoder by default. height, width: of the latent for the
 * decoder, of the picture for the encoder; 0: the configuration's sample_size. model->private_config is the parsed
 * dn_autoencoder_kl_config. */
dn_status dn_autoencoder_kl_build(dn_model *out, const dn_build_input *input, dn_error *error);

/* The same part for another size of its input, without weights: those of `model` fit it. model is from dn_autoencoder_kl_build. */
dn_status dn_autoencoder_kl_resize(dn_model **out, const dn_model *model, uint32_t height, uint32_t width, dn_error *error);

#endif
