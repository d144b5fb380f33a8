/* Guidance folds several rows' answers into one, in diffusers' convention of the scale s: s = 1 is off (one conditional row), s = 0
 * unconditional (one null row); the papers' w is s - 1.
 *
 *   cfg           u + s (c - u)                                     Ho and Salimans 2022
 *   cfg_pp        x0 from u + s (c - u), s in [0, 1]; noise from u   Chung et al. 2024, "CFG++", algorithm 2
 *   apg           D_u + s P(D_c - D_u), P weighs the part along D_c  Sadat et al. 2024, algorithm 1, as diffusers has it
 *   autoguidance  g + s (c - g), g a weaker network's answer         Karras et al. 2024, eq. 3
 *   classifier    cfg, and eps - sigma scale grad log p(class | x)   Dhariwal and Nichol 2021, algorithm 2
 * A negative class takes the null class's place. Any of them may be confined to an interval of noise levels (Kynkaanniemi et al.
 * 2024): outside it one conditional row is all (one null row, where a classifier guides at s = 0). Pure functions, any thread. */
#ifndef DN_DIFFUSION_GUIDANCE_H
#define DN_DIFFUSION_GUIDANCE_H

#include "diffusion/sampler.h"

/* What an evaluation may ask for. */
enum {
    DN_ROW_COND = 1, /* the network for what is asked for; its answer in DN_REG_COND */
    DN_ROW_NULL = 2, /* for the null or the negative class; DN_REG_UNCOND */
    DN_ROW_GUIDE = 4, /* the guide network for what is asked for; DN_REG_UNCOND */
    DN_ROW_GRADIENT = 8 /* the classifier; DN_REG_GUIDE */
};

typedef struct dn_guidance {
    dn_guidance_method method;
    bool conditional; /* a class is asked for; without one only autoguidance guides */
    double scale;
    double sigma_min, sigma_max; /* guided while sigma_min < sigma / alpha <= sigma_max; 0 and INFINITY: no bound */
    double rescale; /* 0: off */
    uint64_t split; /* elements, from the first, that are guided; 0: all. The others are the conditional row's */
    double apg_eta, apg_norm, apg_momentum;
    double classifier_scale;
} dn_guidance;

/* Which rows an evaluation at this level needs. */
uint32_t dn_guidance_rows(const dn_guidance *guidance, const dn_level *level);
/* The most that any level needs. */
uint32_t dn_guidance_rows_most(const dn_guidance *guidance);

/* Leaves the folded raw answer in DN_REG_COND. rows: as asked for. *moving: whether DN_REG_GUIDE holds APG's running guidance of
 * earlier evaluations; updated. */
void dn_guidance_fold(const dn_guidance *guidance, const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t rows,
                      bool *moving, dn_ops *out);
/* After dn_parametrise: what CFG++ says of the noise. */
void dn_guidance_renoise(const dn_guidance *guidance, const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t rows,
                         dn_ops *out);

#endif
