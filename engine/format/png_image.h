/* PNG files of 8-bit grey (channels 1) or RGB (channels 3) pixels, [H][W][C], with text chunks. Output is a pure
 * function of its input and of libpng's and zlib's version: no time, no machine. */
#ifndef DN_FORMAT_PNG_IMAGE_H
#define DN_FORMAT_PNG_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

typedef struct dn_png_text {
    const char *key;      /* 1..79 Latin-1 characters */
    const char *text;     /* UTF-8; written as tEXt when it is ASCII, else as iTXt */
} dn_png_text;

/* *out is malloc'd and owned by the caller. */
dn_status dn_png_encode(unsigned char **out, size_t *out_bytes, const uint8_t *pixels, uint32_t width, uint32_t height,
                        uint32_t channels, const dn_png_text *texts, size_t text_count, dn_error *error);

/* Decodes to 8 bits, grey or RGB as stored (alpha composited away is refused: DN_UNSUPPORTED), within side_max pixels;
 * all text is dropped unless `texts` is asked for by dn_png_read_text. *out is malloc'd. */
dn_status dn_png_decode(uint8_t **out, uint32_t *width, uint32_t *height, uint32_t *channels, const unsigned char *bytes,
                        size_t count, uint32_t side_max, dn_error *error);

/* The size that the header tells of, before anything is decoded or allocated; false: no header where it must be. */
bool dn_png_size(uint32_t *width, uint32_t *height, const unsigned char *bytes, size_t count);

/* The text under `key` (tEXt or uncompressed iTXt), malloc'd, or DN_INVALID when there is none. */
dn_status dn_png_read_text(char **out, const unsigned char *bytes, size_t count, const char *key, dn_error *error);

/* Lays n equal pictures out as a contact sheet of `columns`, `gap` pixels of white between; *out malloc'd. */
dn_status dn_contact_sheet(uint8_t **out, uint32_t *out_width, uint32_t *out_height, const uint8_t *const *pictures, uint32_t n,
                           uint32_t width, uint32_t height, uint32_t channels, uint32_t columns, uint32_t gap, dn_error *error);

#endif
