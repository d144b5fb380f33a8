/* The file of a finished picture, as the worker writes it and `denoised verify` compares it: the PNG with its two texts. And the spec that a
 * request asks an engine for. Pure; any thread. */
#ifndef SERVER_PICTURE_FILE_H
#define SERVER_PICTURE_FILE_H

#include "api/generate_request.h"
#include "batch/batch.h"

typedef struct picture_file {
    unsigned char *png; /* malloc'd */
    size_t png_bytes;
    unsigned char sha256[32], pixels_sha256[32];
} picture_file;

/* pixels: [height][width][channels] of the model's pictures. */
dn_status picture_file_make(picture_file *out, const api_request *request, const api_model *model, uint64_t seed, const uint8_t *pixels,
                            dn_error *error);

/* init, mask: borrowed, or NULL. */
dn_lane_spec picture_spec(const api_request *request, uint64_t seed, const float *init, const float *mask);

#endif
