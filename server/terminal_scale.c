/* Pictures made larger or smaller by whole numbers (terminal.h). */
#include <stdlib.h>

#include "server/terminal.h"

static uint8_t mean_of(const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels, uint32_t x0, uint32_t y0, uint32_t side,
                       uint32_t channel)
{
    uint64_t sum = 0, count = 0;
    for (uint32_t y = y0; y < y0 + side && y < height; y++)
        for (uint32_t x = x0; x < x0 + side && x < width; x++, count++)
            sum += pixels[((size_t)y * width + x) * channels + channel];
    return (uint8_t)((sum + count / 2) / count);
}

bool terminal_scale(uint8_t **out, uint32_t *out_width, uint32_t *out_height, const uint8_t *pixels, uint32_t width, uint32_t height,
                    uint32_t channels, uint32_t up, uint32_t down)
{
    const uint32_t wide = up > 1 ? width * up : (width + down - 1) / down, high = up > 1 ? height * up : (height + down - 1) / down;
    uint8_t *scaled = malloc((size_t)wide * high * channels);
    if (scaled == NULL)
        return false;
    for (uint32_t y = 0; y < high; y++)
        for (uint32_t x = 0; x < wide; x++)
            for (uint32_t c = 0; c < channels; c++)
                scaled[((size_t)y * wide + x) * channels + c] = up > 1
                                                                    ? pixels[((size_t)(y / up) * width + x / up) * channels + c]
                                                                    : mean_of(pixels, width, height, channels, x * down, y * down, down, c);
    *out = scaled;
    *out_width = wide;
    *out_height = high;
    return true;
}
