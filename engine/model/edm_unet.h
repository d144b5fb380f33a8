/* The networks of EDM (Karras et al. 2022) as NVlabs/edm builds them: SongUNet (DDPM++, NCSN++) and DhariwalUNet (ADM), under
 * EDM's own preconditioning. Their pickles hold code and are not read; their tensors, exported to safetensors under the names
 * that the module gives them, are.
 *
 * config.json: _class_name "SongUNet" or "DhariwalUNet", the constructor's arguments as keys, and sigma_data.
 * Private to this folder. A plain value: any thread may read it. */
#ifndef DN_MODEL_EDM_UNET_H
#define DN_MODEL_EDM_UNET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "model/model.h"

#define DN_EDM_SONG_CLASS "SongUNet"
#define DN_EDM_DHARIWAL_CLASS "DhariwalUNet"

typedef enum dn_edm_encoder { DN_EDM_STANDARD, DN_EDM_SKIP, DN_EDM_RESIDUAL } dn_edm_encoder;

typedef struct dn_edm_config {
    bool dhariwal; /* else Song */
    uint32_t height, width; /* of the sample */
    uint32_t resolution; /* img_resolution: names levels by their side */
    uint32_t in_channels, out_channels;
    uint32_t label_dim; /* classes, 0: unconditional; the class table has one row more, zeros, which is the null class */
    uint32_t model_channels, noise_channels, emb_channels;
    uint32_t levels, multipliers[DN_BLOCKS_MAX]; /* channel_mult */
    uint32_t num_blocks;
    bool attention[DN_BLOCKS_MAX]; /* attn_resolutions */
    bool fourier; /* embedding_type */
    dn_edm_encoder encoder;
    bool decoder_skip;
    bool fir; /* resample_filter [1,3,3,1], else [1,1] */
    double sigma_data;
    char prefix[16]; /* of the names in the checkpoint: "model." or "" */
} dn_edm_config;

dn_status dn_edm_config_parse(dn_edm_config *out, const dn_build_input *input, dn_error *error);
/* Heads of an attention over so many channels; 0: too few for one, and the network has none there. */
uint32_t dn_edm_heads(const dn_edm_config *config, uint32_t channels);
/* dn_naming and dn_leftover of both networks. */
bool dn_edm_name_part(const dn_model *model, const char *part, dn_source *out);
bool dn_edm_is_leftover(const dn_model *model, const char *tensor);

/* The architecture table's entry, of both class names. */
dn_status dn_edm_build(dn_model *out, const dn_build_input *input, dn_error *error);

#endif
