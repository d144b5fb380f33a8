/* Guidance folds several rows' answers into one. Classifier-free guidance (Ho and Salimans 2022) in diffusers'
 * convention: answer = u + s (c - u); s = 1 is off (one conditional row), s = 0 is unconditional (one null row). The
 * papers' w is s - 1. */
#ifndef DN_DIFFUSION_GUIDANCE_H
#define DN_DIFFUSION_GUIDANCE_H

#include "diffusion/sampler.h"

typedef struct dn_guidance {
    double scale;
    bool has_null; /* the network has a null row */
} dn_guidance;

/* Which rows an evaluation needs. */
bool dn_guidance_needs_cond(const dn_guidance *guidance);
bool dn_guidance_needs_null(const dn_guidance *guidance);
/* Leaves the folded raw answer in DN_REG_COND. */
void dn_guidance_fold(const dn_guidance *guidance, dn_ops *out);

#endif
