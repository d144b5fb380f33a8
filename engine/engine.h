/* denoised as a library: the engine's public face. See examples/generate.c for its use in 30 lines.
 *
 * An engine is a model on a device; a batch is the lanes in flight on one engine; a lane is one image being made. */
#ifndef DN_ENGINE_H
#define DN_ENGINE_H

#include "base/error.h"
#include "batch/batch.h"
#include "batch/codec.h"
#include "batch/loaded_engine.h"
#include "format/png_image.h"

/* Opens a model folder, or a checkpoint of an original format. FOLDER/guide and FOLDER/classifier, where they are, hold
 * autoguidance's network and classifier guidance's classifier. */
dn_status dn_engine_open(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error);

/* The codec between an engine's space and pictures; the identity for networks of pixels. `preview`: dn_codec_preview will be asked. */
dn_status dn_engine_codec_open(dn_codec **out, const dn_engine *engine, bool preview, dn_error *error);

/* A given picture as a lane's spec wants it. pixels: [H][W][C] of the engine's pictures; init: [elements], by the encoder's mean for
 * latent networks. mask_pixels: [H][W] grey, white is painted anew; NULL: none. mask: [height*width] of the samples, 0 or 1: cut at
 * one half, then the nearest pixel above and to the left where samples are smaller than pictures, as diffusers does. */
dn_status dn_prepare_init(const dn_engine *engine, dn_codec *codec, const uint8_t *pixels, const uint8_t *mask_pixels, float *init,
                          float *mask, dn_error *error);
/* The same with a codec that is opened for it. */
dn_status dn_engine_prepare_init(const dn_engine *engine, const uint8_t *pixels, const uint8_t *mask_pixels, float *init, float *mask,
                                 dn_error *error);

/* Makes n images through one batch and calls `progress` after every tick (return false to cancel: DN_CANCELLED).
 * pixels: n pictures of [H][W][C] bytes (image_height, image_width, image_channels: decoded, where the network works on latents), may
 * be NULL; floats: n of [C*H*W] as the network made them (latents, then), may be NULL. */
typedef bool dn_progress(void *payload, uint32_t steps_done, uint32_t steps_total);
dn_status dn_generate(dn_engine *engine, const dn_lane_spec *specs, uint32_t n, uint8_t *pixels, float *floats, dn_progress *progress,
                      void *payload, dn_error *error);

#endif
