/* The diffusion transformer's configuration, whichever format it was stored in. Private to this folder.
 *
 * Invariant: a dn_dit_config that a parser returned describes a network that dit.c can build. A plain value: any thread
 * may read it. Source: Peebles & Xie 2022 (DiT), Ma et al. 2024 (SiT), Yu et al. 2024 (REPA): one network, three meanings. */
#ifndef DN_MODEL_DIT_H
#define DN_MODEL_DIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "model/model.h"

#define DN_DIT_DEPTH_MAX 256u
#define DN_DIT_FREQUENCIES 256u /* channels of the time's sinusoid, in every format */
#define DN_DIT_EMBEDDER "transformer_blocks.%u.norm1.emb." /* diffusers stores time and class embedders in every block */

typedef struct dn_dit_config {
    uint32_t height, width; /* of the sample */
    uint32_t base_side; /* the side of the sample that the position table was made for; others stretch it */
    uint32_t in_channels, out_channels, patch;
    uint32_t hidden, heads, depth, mlp_hidden;
    uint32_t class_rows; /* of the embedding table, the null class included */
    float freq_shift; /* 1: diffusers' frequencies, over half - 1; 0: the original's, over half */
    float mlp_epsilon; /* of the second norm of a block; all others have 1e-6 */
    bool mlp_norm_affine, attention_bias;
    dn_activation activation;
    bool shared[DN_DIT_DEPTH_MAX]; /* block i reads block 0's embedders */
} dn_dit_config;

/* DiTTransformer2DModel's keys and defaults. Unknown keys are ignored, as diffusers does. `shared` is left all false. */
dn_status dn_dit_config_parse(dn_dit_config *out, const dn_build_input *input, dn_error *error);
/* The constructor's arguments of the original sources as keys; what is missing is read from the tensors' shapes. */
dn_status dn_dit_original_config_parse(dn_dit_config *out, const cJSON *json, const dn_build_input *input, dn_error *error);
/* DN_INVALID when a stored position table is not the sincos table that the network computes. */
dn_status dn_dit_check_positions(const dn_dit_config *config, const dn_build_input *input, const char *tensor, dn_error *error);

/* Everything of *out but weights and what a format means by its numbers. */
dn_status dn_dit_build_plan(dn_model *out, const dn_dit_config *config, const char *config_path, dn_error *error);

/* The architecture table's entries: diffusers' DiTTransformer2DModel (and Transformer2DModel with ada_norm_zero), and the
 * original DiT, SiT and REPA. A file cannot tell DiT from SiT: config.json must ({"_class_name": "SiT"} is enough). */
dn_status dn_dit_build(dn_model *out, const dn_build_input *input, dn_error *error);
dn_status dn_dit_original_build(dn_model *out, const dn_build_input *input, dn_error *error);
cJSON *dn_dit_original_recognise(const dn_tensors *tensors);

#endif
