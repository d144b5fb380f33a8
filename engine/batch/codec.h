/* The codec: pixels to latents and back, for an engine whose lanes live in a latent space; the identity for those of pixels.
 *
 * Its own networks and workspaces on the engine's device, so a decode is never inside a tick. Any thread may call: decodes and
 * encodes of one codec take turns, and share the device's threads with ticks node by node; previews do not wait. A picture
 * depends on its latents alone, never on what else the device computes.
 * Latents are as the denoiser makes them (scaled), [C*h*w] in the element order (c*h + y)*w + x; pixels are [H][W][C]. */
#ifndef DN_BATCH_CODEC_H
#define DN_BATCH_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/error.h"

#define DN_CODEC_ROWS_MAX 8u /* pictures in one run of the decoder */

typedef struct dn_codec dn_codec;

typedef struct dn_codec_options {
    const dn_backend *backend; /* borrowed with its device: both outlive the codec */
    dn_device *device;
    dn_precision precision; /* of its networks; one that the device has */
    uint32_t channels, height, width; /* of the latent: the denoiser's sample */
    bool tiling; /* decode in tiles whatever is larger than one */
    size_t workspace_bytes_max; /* and also when a whole decode would need about so much; 0: DN_CODEC_WORKSPACE_BYTES_MAX */
    bool preview; /* fit the preview map at once (one decode): dn_codec_preview will be asked */
    bool inline_threads; /* compute on the calling thread alone, not the device's pool */
    uint32_t rows_max; /* pictures in one run of the decoder, DN_CODEC_ROWS_MAX at most; 0: one. Fewer where memory is short */
    bool unit_range; /* the identity's pixels lie in [0, 1] (variance-exploding training), not in [-1, 1] */
} dn_codec_options;

typedef struct dn_codec_info {
    uint32_t latent_channels, latent_height, latent_width;
    uint32_t channels, height, width; /* of the picture */
    bool identity; /* pixels are the latents, rounded */
    bool tiled; /* decodes in tiles: another picture than a whole decode's, so part of an engine's identity */
    char weights_sha256[65]; /* empty for the identity */
} dn_codec_info;

/* folder: an AutoencoderKL component; NULL: the identity. */
dn_status dn_codec_open(dn_codec **out, const char *folder, const dn_codec_options *options, dn_error *error);
void dn_codec_close(dn_codec *codec); /* accepts NULL */
const dn_codec_info *dn_codec_about(const dn_codec *codec);
uint32_t dn_codec_rows(const dn_codec *codec); /* pictures that one run of the decoder makes */
size_t dn_codec_bytes(const dn_codec *codec); /* packed weights, workspaces and buffers held now */

dn_status dn_codec_decode(dn_codec *codec, const float *latents, uint8_t *pixels, dn_error *error);
/* Several at once, latents[i] to pixels[i], in runs of up to DN_CODEC_ROWS_MAX rows where the device gains by it (GPUs), else one by one:
 * the same bytes. On failure all of them are worth nothing. */
dn_status dn_codec_decode_many(dn_codec *codec, const float *const *latents, uint8_t *const *pixels, uint32_t count, dn_error *error);
/* The picture before rounding, in [-1, 1] or somewhat beyond: [C][H][W]. */
dn_status dn_codec_decode_floats(dn_codec *codec, const float *latents, float *picture, dn_error *error);

/* sample: draws from the encoder's distribution by (seed, stream encode); else its mean. The encoder is loaded on first use. */
dn_status dn_codec_encode(dn_codec *codec, const uint8_t *pixels, uint64_t seed, bool sample, float *latents, dn_error *error);

/* A cheap look at latents on their own grid: [h][w][C] of the picture's channels, by a linear map. Needs options.preview, or the
 * identity. */
dn_status dn_codec_preview(const dn_codec *codec, const float *latents, uint8_t *pixels, dn_error *error);

#endif
