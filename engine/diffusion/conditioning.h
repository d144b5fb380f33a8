/* Conditioning on pictures and on second seeds, as register operations around a sampler's steps. Pure functions, any thread.
 *
 *   variation        the start noise is turned from one seed's towards another's along the great circle between them.
 *   image-to-image   starts at the level of step steps - min(int(steps strength), steps) from the given picture, noised to it
 *                    (Meng et al. 2022, "SDEdit"; diffusers' get_timesteps). strength 1 starts at the first level, which still holds a
 *                    trace of the picture where its alpha is not 0: so does diffusers. strength 0 is the picture itself.
 *   inpainting       after each step the kept part is the given picture noised to the level just reached, by fresh noise (Lugmayr et
 *                    al. 2022, "RePaint", algorithm 1; the seed documents noise it to the level the step began at); in the end it is the
 *                    picture itself. `resample` r > 1 goes back by the forward process and takes each step r times. */
#ifndef DN_DIFFUSION_CONDITIONING_H
#define DN_DIFFUSION_CONDITIONING_H

#include "diffusion/sampler.h"

typedef struct dn_conditioning {
    bool has_init; /* DN_REG_INIT holds a picture */
    bool has_mask; /* DN_REG_MASK says what of it is painted anew; needs has_init */
    bool from_init; /* the start is the picture, noised; false: noise alone */
    double strength;
    uint32_t resample; /* passes over each step: 1, or more for samplers that remember nothing */
    bool has_variation;
    double variation_strength;
    uint64_t variation_seed;
} dn_conditioning;

/* The step to begin with; `steps` itself: there is nothing to do. */
uint32_t dn_conditioning_first_step(const dn_conditioning *conditioning, uint32_t steps);

/* Fills DN_REG_X for the first step. given: it holds the start noise already. */
void dn_conditioning_start(const dn_conditioning *conditioning, const dn_sampler_context *context, bool given, dn_ops *out);

/* After the program of a feed by which `state` has just finished a step: the kept part, and perhaps the way back. *pass counts the
 * passes over the step in progress. */
void dn_conditioning_step(const dn_conditioning *conditioning, const dn_sampler_context *context, dn_sampler_state *state, uint32_t *pass,
                          dn_ops *out);

/* A step that is taken again draws other noise: to be applied to the operations that a feed has appended from `first` on. */
void dn_conditioning_redraw(uint32_t pass, uint32_t first, dn_ops *ops);

#endif
