/* What picture comes next, and how it is treated: the random choices of training as a function of (seed, image number).
 *
 * Image number g counts pictures seen since the start. Every epoch is its own permutation. Filling an order is one
 * thread's; the choices are pure, any thread. */
#ifndef DN_TRAIN_DRAW_H
#define DN_TRAIN_DRAW_H

#include <stdbool.h>
#include <stddef.h>

#include "format/idx.h"

typedef struct dn_draw {
    const dn_dataset *dataset; /* borrowed */
    uint64_t seed;
    uint64_t epoch; /* of the permutation held; UINT64_MAX: none */
    uint32_t *permutation; /* [dataset->count] */
} dn_draw;

typedef enum dn_choice { DN_CHOICE_FLIP, DN_CHOICE_TIME, DN_CHOICE_DROP } dn_choice;

dn_status dn_draw_create(dn_draw **out, const dn_dataset *dataset, uint64_t seed, dn_error *error);
void dn_draw_free(dn_draw *draw);

/* order[i] = index in the data set of image number first + i. */
void dn_draw_order(dn_draw *draw, uint64_t first, uint32_t count, uint32_t *order);

/* Uniform in [0, 1): one choice of image number g. */
double dn_draw_choice(uint64_t seed, uint64_t g, dn_choice choice);

/* The noise of image number g: standard normals, order (c*H + h)*W + w. */
void dn_draw_noise(float *out, size_t count, uint64_t seed, uint64_t g);

/* Picture `index` in [-1, 1], order (c*H + h)*W + w, mirrored when asked. */
void dn_draw_picture(float *out, const dn_dataset *dataset, uint32_t index, bool mirrored);

#endif
