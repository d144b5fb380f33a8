/* The two orders of a picture's numbers: a lane's, (c*H + h)*W + w, and a value's, [H,W,C]. Any thread. */
#ifndef DN_TRAIN_ORDER_H
#define DN_TRAIN_ORDER_H

#include "plan/plan.h"

static inline void dn_order_to_pixels(float *restrict out, const float *restrict in, dn_shape shape)
{
    size_t pixels = (size_t)shape.h * shape.w;
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < shape.c; c++) {
            out[p * shape.c + c] = in[c * pixels + p];
        }
    }
}

static inline void dn_order_from_pixels(float *restrict out, const float *restrict in, dn_shape shape)
{
    size_t pixels = (size_t)shape.h * shape.w;
    for (size_t p = 0; p < pixels; p++) {
        for (size_t c = 0; c < shape.c; c++) {
            out[c * pixels + p] = in[p * shape.c + c];
        }
    }
}

#endif
