/* The levels a sampler visits: diffusers' timestep and sigma tables. Private to this folder. Pure functions, any thread. */
#ifndef DN_DIFFUSION_LEVELS_H
#define DN_DIFFUSION_LEVELS_H

#include "diffusion/sampler.h"

/* Whole timesteps of the DDPM and DDIM schedulers, alpha^2 + sigma^2 = 1, start scale 1. The last level is the image. */
dn_status dn_levels_vp(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);

/* The Euler family's: possibly fractional timesteps, alpha = 1, sigma from the training table. */
dn_status dn_levels_sigma(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);

/* DPMSolverMultistepScheduler's: sigma from the training table, then alpha^2 + sigma^2 = 1, start scale 1. */
dn_status dn_levels_dpm(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);

/* alpha-bar where a step that starts at `time` ends by the rule of DDIM in diffusers: at time - T / steps, whatever the
 * spacing (its linspace tables therefore step to a level that is not the next one: parity wants this). */
double dn_bar_after(const dn_sampler_context *context, double time);

/* sigma over alpha: the noise level of a variance-exploding sampler. */
double dn_level_ratio(const dn_level *level);

/* Whole evaluations: every step once, on X, at its level; `next` of most samplers. */
bool dn_next_plain(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out);

#endif
