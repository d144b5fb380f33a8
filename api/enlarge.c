/* See enlarge.h. */
#include "api/enlarge.h"

#include <stdlib.h>
#include <string.h>

#include "format/png_image.h"

unsigned char *api_enlarge_png(size_t *out_bytes, const unsigned char *png, size_t bytes, uint32_t width, uint32_t height)
{
    uint8_t *small = NULL, *large = NULL;
    unsigned char *out = NULL;
    uint32_t w = 0, h = 0, channels = 0;
    const uint32_t side_max = width > height ? width : height;
    if (dn_png_decode(&small, &w, &h, &channels, png, bytes, side_max, NULL) != DN_OK || w > width || h > height) {
        goto done;
    }
    large = malloc((size_t)width * height * channels);
    for (uint32_t y = 0; large != NULL && y < height; y++) {
        const uint8_t *row = small + (size_t)((uint64_t)y * h / height) * w * channels;
        uint8_t *to = large + (size_t)y * width * channels;
        for (uint32_t x = 0; x < width; x++, to += channels) {
            memcpy(to, row + (size_t)((uint64_t)x * w / width) * channels, channels);
        }
    }
    if (large == NULL || dn_png_encode(&out, out_bytes, large, width, height, channels, NULL, 0, NULL) != DN_OK) {
        out = NULL;
    }
done:
    free(small);
    free(large);
    return out;
}
