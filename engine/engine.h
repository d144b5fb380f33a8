/* denoised as a library: the engine's public face. See examples/generate.c for its use in 30 lines.
 *
 * An engine is a model on a device; a batch is the lanes in flight on one engine; a lane is one image being made. */
#ifndef DN_ENGINE_H
#define DN_ENGINE_H

#include "base/error.h"
#include "batch/batch.h"
#include "batch/loaded_engine.h"
#include "format/png_image.h"

/* Opens a model folder, or a checkpoint of an original format. FOLDER/guide and FOLDER/classifier, where they are, hold
 * autoguidance's network and classifier guidance's classifier. */
dn_status dn_engine_open(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error);

/* Makes n images through one batch and calls `progress` after every tick (return false to cancel: DN_CANCELLED).
 * pixels: n pictures of [H][W][C] bytes, may be NULL; floats: n of [C*H*W], may be NULL. */
typedef bool dn_progress(void *payload, uint32_t steps_done, uint32_t steps_total);
dn_status dn_generate(dn_engine *engine, const dn_lane_spec *specs, uint32_t n, uint8_t *pixels, float *floats, dn_progress *progress,
                      void *payload, dn_error *error);

#endif
