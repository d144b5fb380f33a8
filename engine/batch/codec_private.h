/* The codec's files among themselves. */
#ifndef DN_BATCH_CODEC_PRIVATE_H
#define DN_BATCH_CODEC_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "batch/codec.h"
#include "model/autoencoder_kl.h"
#include "model/model.h"

/* One of the autoencoder's networks at one size, on the device, with room for some rows. */
typedef struct dn_codec_stage {
    const dn_backend *backend; /* borrowed; NULL: not open */
    dn_model *model; /* owned; without weights unless they are kept */
    dn_network *network;
    dn_workspace *workspace;
    dn_buffer *in, *out;
    uint32_t rows;
    size_t in_count, out_count, spare; /* floats of a row, and of the output buffer beyond the rows */
} dn_codec_stage;

struct dn_codec {
    dn_codec_options options;
    dn_codec_info info;
    char *folder;
    dn_autoencoder_kl_config config;
    pthread_mutex_t turn; /* held by whoever decodes or encodes: guards the stages */
    dn_codec_stage decoder; /* of the whole latent, or of a full tile */
    dn_codec_stage encoder; /* opened by the first encode */
    atomic_size_t bytes; /* of the stages that are open */
    float *staging; /* [decoder.rows][latent] unscaled latents on their way in */
    float *preview; /* [C][latent_channels + 1], the last column the constant; NULL: not fitted */
};

/* Takes the model onto the device with `weights`, or, where that is NULL, with its own, whose floats are given back as they are packed.
 * On failure *out is left closed, and the model is freed. rows: at most; half, and half again, where there is no memory for them. spare:
 * floats of room beyond the answers in the output buffer. */
dn_status dn_codec_stage_open(dn_codec_stage *out, const dn_codec_options *options, dn_model *model, const dn_weights *weights,
                              uint32_t rows, size_t spare, dn_error *error);
void dn_codec_stage_close(dn_codec_stage *stage);
size_t dn_codec_stage_bytes(const dn_codec_stage *stage);
/* in: [rows][C,h,w] floats, no more rows than the stage has; answer r stays in stage->out from r * out_count on. DN_NUMERIC when one has NaN
 * or infinity. */
dn_status dn_codec_stage_run(const dn_codec_stage *stage, const float *in, uint32_t rows, const char *what, dn_error *error);

/* A tile's side in latent pixels; 0 where the autoencoder's sample_size does not divide into tiles. */
uint32_t dn_codec_tile_side(const dn_autoencoder_kl_config *config);
/* Whether some tile of a latent is smaller than a full one. */
bool dn_codec_tiles_uneven(const dn_autoencoder_kl_config *config, uint32_t height, uint32_t width);
/* Decodes codec->staging in tiles into picture [C][H][W]. */
dn_status dn_codec_decode_tiles(dn_codec *codec, float *picture, dn_error *error);

/* Fits codec->preview with a decode of fixed latents of the decoder stage's size. */
dn_status dn_codec_fit_preview(dn_codec *codec, dn_error *error);

#endif
