/* What the float backward files share: their tables, and an exponential that compilers turn into vector code. */
#ifndef DN_TRAIN_BACKWARD_F32_H
#define DN_TRAIN_BACKWARD_F32_H

#include <stdint.h>
#include <string.h>

#include "train/backward.h"

extern const dn_backward_table_f32 dn_backward_table_sse2, dn_backward_table_avx2, dn_backward_table_avx512, dn_backward_table_neon,
    dn_backward_table_generic;

/* e^x to about 2 units in the last place: x = n ln 2 + r, a polynomial in r (Cephes' expf), 2^n by its bits. Saturates
 * at |x| = 87. No branches and no libm, so that a loop over it becomes vector code. */
static inline float fast_exp(float x)
{
    x = x > 87.0f ? 87.0f : x;
    x = x < -87.0f ? -87.0f : x;
    float shifted = x * 1.44269504088896341f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23; /* the magic sum keeps n in its low bits; what stands above is shifted out */
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

#endif
