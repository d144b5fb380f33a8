/* The samplers' rows, one file each. Private to this folder: everyone else finds them through the table. */
#ifndef DN_DIFFUSION_SAMPLERS_H
#define DN_DIFFUSION_SAMPLERS_H

#include "diffusion/sampler.h"

extern const dn_sampler dn_sampler_ddpm, dn_sampler_ddim, dn_sampler_euler, dn_sampler_euler_ancestral, dn_sampler_heun,
    dn_sampler_dpmpp_2m, dn_sampler_dpmpp_3m, dn_sampler_dpmpp_2m_sde;
extern const dn_sampler dn_sampler_edm_euler, dn_sampler_edm_heun, dn_sampler_flow_euler, dn_sampler_flow_heun, dn_sampler_euler_maruyama,
    dn_sampler_predictor_corrector, dn_sampler_rk45, dn_sampler_ddim_inverse, dn_sampler_consistency;
extern const dn_sampler dn_sampler_unipc, dn_sampler_dpmpp_2s, dn_sampler_deis, dn_sampler_ipndm, dn_sampler_lms, dn_sampler_pndm,
    dn_sampler_plms, dn_sampler_kdpm2, dn_sampler_kdpm2_ancestral, dn_sampler_dpmpp_sde, dn_sampler_sa, dn_sampler_lcm, dn_sampler_tcd;

#endif
