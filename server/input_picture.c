/* See input_picture.h. */
#include "server/input_picture.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
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

dn_status input_picture_decode(uint8_t **out, const unsigned char *png, size_t bytes, uint32_t width, uint32_t height, uint32_t channels,
                               dn_error *error)
{
    uint8_t *decoded = NULL, *converted = NULL;
    uint32_t own_width = 0, own_height = 0, own_channels = 0;
    /* By its header, so that a small file that unpacks to a huge picture is never unpacked; a file without one is not decoded. */
    if (dn_png_size(&own_width, &own_height, png, bytes) && (own_width != width || own_height != height))
        return dn_fail(error, DN_INVALID, "it has %u x %u pixels, and the model's pictures %u x %u", own_width, own_height, width, height);
    dn_status status = dn_png_decode(&decoded, &own_width, &own_height, &own_channels, png, bytes, width > height ? width : height, error);
    if (status != DN_OK)
        return status;
    assert(own_width == width && own_height == height);
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
