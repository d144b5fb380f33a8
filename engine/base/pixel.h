/* Floats to pixels and back, as every picture of this program is rounded. */
#ifndef DN_BASE_PIXEL_H
#define DN_BASE_PIXEL_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* x/2 + 0.5, clamped, times 255, rounded half to even; NaN is black. */
static inline uint8_t dn_pixel_from_signed(float x)
{
    const float value = x * 0.5f + 0.5f;
    if (!(value > 0.0f))
        return 0;
    return value >= 1.0f ? 255 : (uint8_t)rintf(value * 255.0f);
}

/* The same for pixels in [0, 1] where `unit_range`. */
static inline uint8_t dn_pixel(float x, bool unit_range)
{
    return dn_pixel_from_signed(unit_range ? 2.0f * x - 1.0f : x);
}

static inline float dn_pixel_to_signed(uint8_t byte)
{
    return 2.0f * ((float)byte / 255.0f) - 1.0f;
}

#endif
