/* See input_picture.h. */
#include "server/input_picture.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/sha256.h"
#include "format/png_image.h"

static uint8_t grey_of(const uint8_t *rgb)
{
    return (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

static void convert(uint8_t *out, uint32_t out_channels, const uint8_t *in, uint32_t in_channels, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (out_channels == in_channels)
            memcpy(out + i * out_channels, in + i * in_channels, in_channels);
        else if (out_channels == 1)
            out[i] = grey_of(in + i * in_channels);
        else
            memset(out + i * out_channels, in[i], out_channels);
}

/* Decodes what has the wanted size; *channels is what the file has. */
static dn_status decode(uint8_t **out, uint32_t *channels, const unsigned char *png, size_t bytes, uint32_t width, uint32_t height,
                        dn_error *error)
{
    uint32_t own_width = 0, own_height = 0;
    /* By its header, so that a small file that unpacks to a huge picture is never unpacked; a file without one is not decoded. */
    if (dn_png_size(&own_width, &own_height, png, bytes) && (own_width != width || own_height != height))
        return dn_fail(error, DN_INVALID, "it has %u x %u pixels, and the model's pictures %u x %u", own_width, own_height, width, height);
    dn_status status = dn_png_decode(out, &own_width, &own_height, channels, png, bytes, width > height ? width : height, error);
    assert(status != DN_OK || (own_width == width && own_height == height));
    return status;
}

dn_status input_picture_decode(uint8_t **out, const unsigned char *png, size_t bytes, uint32_t width, uint32_t height, uint32_t channels,
                               dn_error *error)
{
    uint8_t *decoded = NULL, *converted = NULL;
    uint32_t own_channels = 0;
    dn_status status = decode(&decoded, &own_channels, png, bytes, width, height, error);
    if (status != DN_OK)
        return status;
    size_t count = (size_t)width * height;
    converted = malloc(count * channels);
    if (converted == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for a picture");
        goto done;
    }
    convert(converted, channels, decoded, own_channels, count);
    *out = converted;
done:
    free(decoded);
    return status;
}

static bool is_grey(const uint8_t *rgb, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rgb[3 * i] != rgb[3 * i + 1] || rgb[3 * i] != rgb[3 * i + 2])
            return false;
    return true;
}

dn_status input_picture_hash(char out[65], const unsigned char *png, size_t bytes, uint32_t width, uint32_t height, uint32_t channels,
                             dn_error *error)
{
    uint8_t *decoded = NULL, *converted = NULL;
    unsigned char digest[DN_SHA256_BYTES];
    uint32_t own_channels = 0;
    dn_status status = channels == 1 || channels == 3 ? decode(&decoded, &own_channels, png, bytes, width, height, error)
                                                      : dn_fail(error, DN_INVALID, "a picture has 1 or 3 channels");
    if (status != DN_OK)
        return status;
    const size_t count = (size_t)width * height;
    if (channels == 1 && own_channels == 3 && !is_grey(decoded, count))
        channels = 3; /* other pixels than a model of grey pictures makes, and so another hash */
    converted = malloc(count * channels);
    if (converted == NULL) {
        status = dn_fail(error, DN_NO_MEMORY, "out of memory for a picture");
    } else {
        convert(converted, channels, decoded, own_channels, count);
        dn_sha256_of(digest, converted, count * channels);
        dn_sha256_hex(out, digest);
    }
    free(converted);
    free(decoded);
    return status;
}
