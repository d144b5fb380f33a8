/* The samplers' rows, one file each. Private to this folder: everyone else finds them through the table. */
#ifndef DN_DIFFUSION_SAMPLERS_H
#define DN_DIFFUSION_SAMPLERS_H

#include "diffusion/sampler.h"

extern const dn_sampler dn_sampler_ddpm, dn_sampler_ddim, dn_sampler_euler, dn_sampler_euler_ancestral, dn_sampler_heun,
    dn_sampler_dpmpp_2m, dn_sampler_dpmpp_3m, dn_sampler_dpmpp_2m_sde;

#endif
