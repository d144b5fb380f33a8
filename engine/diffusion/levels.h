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

/* Whether the configuration spaces the noise levels themselves (Karras, exponential, beta, Lu), not the timesteps. */
bool dn_levels_respaced(const dn_scheduler_config *config);

/* The level of a whole timestep with alpha^2 + sigma^2 = 1; below 0 the image itself, or, where the configuration wants so, the
 * level of timestep 0. */
dn_level dn_level_vp(const dn_sampler_context *context, double time);

/* How x stands for x0 + r n: alpha 1; alpha^2 + sigma^2 = 1; as the family's own levels are (flow matching: alpha + sigma = 1). */
typedef enum dn_form { DN_FORM_EXPLODING, DN_FORM_PRESERVING, DN_FORM_OWN } dn_form;

/* The levels of a network that was not trained on a table of alpha-bar, in a sampler's form; the three tables above hand over to
 * this one: exploding for the Euler family's, preserving for DDIM's, its own for DPM-Solver's. */
dn_status dn_levels_family(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_form form, dn_error *error);

/* Karras et al. 2022, eq. 5 (or exponential, or beta, by the configuration): any family, alpha = 1, between the family's own ends
 * or the options sigma_max and sigma_min; start scale sqrt(sigma_max^2 + 1) as in diffusers. */
dn_status dn_levels_edm(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);
/* ScoreSdeVeScheduler's: even in log sigma. */
dn_status dn_levels_ve(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);
/* FlowMatchEulerDiscreteScheduler's (from SiT on: even steps from t = 1 to 0), alpha = 1 - t, sigma = t, start scale 1. */
dn_status dn_levels_flow(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error);

/* Level i of n from sigma `high` down to `low`, by the spacing that the configuration asks for. */
double dn_spaced_sigma(const dn_scheduler_config *config, double high, double low, uint32_t i, uint32_t n);

/* alpha-bar where a step that starts at `time` ends by the rule of DDIM in diffusers: at time - T / steps, whatever the
 * spacing (its linspace tables therefore step to a level that is not the next one: parity wants this). */
double dn_bar_after(const dn_sampler_context *context, double time);

/* sigma over alpha: the noise level of a variance-exploding sampler. */
double dn_level_ratio(const dn_level *level);

/* Whole evaluations: every step once, on X, at its level; `next` of most samplers. */
bool dn_next_plain(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out);

#endif
