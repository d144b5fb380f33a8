/* Text chunks read without libpng (nothing is unpacked, and only the one asked for is copied), and contact sheets. Owns
 * nothing. Any thread. */
#include "format/png_image.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/limits.h"

#define CHUNK_OVERHEAD_BYTES 12u /* length, type, checksum */
#define SHEET_BYTES_MAX (1ull << 30)
#define SHEET_WHITE 255

static uint32_t big_endian(const unsigned char bytes[4])
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

bool dn_png_size(uint32_t *width, uint32_t *height, const unsigned char *bytes, size_t count)
{
    static const unsigned char first[8] = {0, 0, 0, 13, 'I', 'H', 'D', 'R'};
    if (count < 24 || memcmp(bytes, signature, sizeof signature) != 0 || memcmp(bytes + 8, first, sizeof first) != 0) {
        return false;
    }
    *width = big_endian(bytes + 16);
    *height = big_endian(bytes + 20);
    return true;
}

/* tEXt: Latin-1 behind the keyword, given back as UTF-8. */
static char *latin1_to_utf8(const unsigned char *text, size_t count)
{
    char *out = malloc(2 * count + 1);
    size_t used = 0;
    for (size_t i = 0; out && i < count; i++) {
        if (text[i] < 0x80) {
            out[used++] = (char)text[i];
        } else {
            out[used++] = (char)(0xC0 | text[i] >> 6);
            out[used++] = (char)(0x80 | (text[i] & 0x3F));
        }
    }
    if (out) {
        out[used] = '\0';
    }
    return out;
}

/* iTXt behind the keyword: compression flag, method, language NUL, translated keyword NUL, UTF-8. */
static const unsigned char *skip_itxt_fields(const unsigned char *at, const unsigned char *end)
{
    if (end - at < 2 || at[0] != 0) {
        return NULL;
    }
    at += 2;
    for (int field = 0; field < 2; field++) {
        const unsigned char *nul = memchr(at, 0, (size_t)(end - at));
        if (!nul) {
            return NULL;
        }
        at = nul + 1;
    }
    return at;
}

/* The text of one chunk if it is the one under `key`; false when it is not. *out stays NULL when memory ran out. */
static bool take_text(char **out, const unsigned char *type, const unsigned char *data, size_t count, const char *key)
{
    size_t key_bytes = strlen(key);
    bool latin1 = memcmp(type, "tEXt", 4) == 0;
    if ((!latin1 && memcmp(type, "iTXt", 4) != 0) || count < key_bytes + 1 || memcmp(data, key, key_bytes + 1) != 0) {
        return false;
    }
    const unsigned char *text = data + key_bytes + 1, *end = data + count;
    if (latin1) {
        *out = latin1_to_utf8(text, (size_t)(end - text));
        return true;
    }
    text = skip_itxt_fields(text, end);
    if (!text) {
        return false;
    }
    size_t bytes = (size_t)(end - text);
    *out = malloc(bytes + 1);
    if (*out) {
        memcpy(*out, text, bytes);
        (*out)[bytes] = '\0';
    }
    return true;
}

dn_status dn_png_read_text(char **out, const unsigned char *bytes, size_t count, const char *key, dn_error *error)
{
    if (count < sizeof signature || memcmp(bytes, signature, sizeof signature) != 0) {
        return dn_fail(error, DN_INVALID, "PNG: not a PNG file");
    }
    size_t at = sizeof signature;
    while (count - at >= CHUNK_OVERHEAD_BYTES) {
        uint32_t length = big_endian(bytes + at);
        const unsigned char *type = bytes + at + 4;
        if (length > count - at - CHUNK_OVERHEAD_BYTES) {
            return dn_fail(error, DN_INVALID, "PNG: ends too early");
        }
        if (big_endian(type + 4 + length) != (uint32_t)crc32(crc32(0, NULL, 0), type, length + 4)) {
            return dn_fail(error, DN_INVALID, "PNG: checksum fault");
        }
        char *text = NULL;
        if (take_text(&text, type, type + 4, length, key)) {
            if (!text) {
                return dn_fail(error, DN_NO_MEMORY, "PNG: out of memory");
            }
            *out = text;
            return DN_OK;
        }
        at += length + CHUNK_OVERHEAD_BYTES;
    }
    return dn_fail(error, DN_INVALID, "PNG: no text under \"%.80s\"", key);
}

dn_status dn_contact_sheet(uint8_t **out, uint32_t *out_width, uint32_t *out_height, const uint8_t *const *pictures, uint32_t n,
                           uint32_t width, uint32_t height, uint32_t channels, uint32_t columns, uint32_t gap, dn_error *error)
{
    bool sane = n > 0 && columns > 0 && width > 0 && height > 0 && width <= DN_IMAGE_SIDE_MAX && height <= DN_IMAGE_SIDE_MAX &&
                (channels == 1 || channels == 3) && gap <= DN_IMAGE_SIDE_MAX;
    if (!sane) {
        return dn_fail(error, DN_INVALID, "contact sheet: %u pictures of %ux%ux%u in %u columns", n, width, height, channels, columns);
    }
    columns = columns < n ? columns : n;
    uint64_t rows = ((uint64_t)n + columns - 1) / columns;
    uint64_t sheet_width = (uint64_t)columns * (width + gap) - gap, sheet_height = rows * (height + gap) - gap;
    if (sheet_width > UINT32_MAX || sheet_height > UINT32_MAX || sheet_width * sheet_height > SHEET_BYTES_MAX / channels) {
        return dn_fail(error, DN_INVALID, "contact sheet: larger than %llu bytes", SHEET_BYTES_MAX);
    }
    size_t stride = (size_t)sheet_width * channels, row_bytes = (size_t)width * channels;
    uint8_t *sheet = malloc(stride * (size_t)sheet_height);
    if (!sheet) {
        return dn_fail(error, DN_NO_MEMORY, "contact sheet: out of memory");
    }
    memset(sheet, SHEET_WHITE, stride * (size_t)sheet_height);
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *corner = sheet + (size_t)(i / columns) * (height + gap) * stride + (size_t)(i % columns) * (width + gap) * channels;
        for (uint32_t y = 0; y < height; y++) {
            memcpy(corner + y * stride, pictures[i] + y * row_bytes, row_bytes);
        }
    }
    *out = sheet;
    *out_width = (uint32_t)sheet_width;
    *out_height = (uint32_t)sheet_height;
    return DN_OK;
}
