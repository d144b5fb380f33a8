/* A picture that somebody gave, from the bytes of its PNG to pixels as the model makes them: what the worker and the command line share,
 * so that both start from the same numbers. Pure; any thread. */
#ifndef DN_SERVER_INPUT_PICTURE_H
#define DN_SERVER_INPUT_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Decodes under the limits of format/png_image.h; a picture of another size is refused, not resized. channels 1 or 3: RGB becomes grey by
 * ITU-R 601 (as Pillow rounds it), grey becomes RGB with equal parts. *out is malloc'd, [height][width][channels]. Refusals say what is
 * wrong with the picture, without a name. */
dn_status input_picture_decode(uint8_t **out, const unsigned char *png, size_t bytes, uint32_t width, uint32_t height, uint32_t channels,
                               dn_error *error);

/* The hash of a picture's pixels as an image's pixels_sha256 has it, for a model's pictures of this shape. Grey in place of RGB counts as
 * equal parts, RGB in place of grey only where its parts are equal: other programs may have packed the same pixels otherwise. out: hex.
 * Another size is refused before anything is decoded. */
dn_status input_picture_hash(char out[65], const unsigned char *png, size_t bytes, uint32_t width, uint32_t height, uint32_t channels,
                             dn_error *error);

#endif
