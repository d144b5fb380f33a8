/* Options of a request against a scheduler's configuration. Private to this folder. Pure functions, any thread. */
#ifndef DN_DIFFUSION_SAMPLER_OPTIONS_H
#define DN_DIFFUSION_SAMPLER_OPTIONS_H

#include "diffusion/levels.h"

/* What a sampler's own standards say beyond the defaults of its class: for samplers chosen by name. */
void dn_config_apply_standards(dn_scheduler_config *config, const dn_sampler *sampler);

/* Checks the options that the context's sampler takes, puts them into its configuration, training schedule and resolved options, and
 * refuses those that would do nothing. Options that the sampler does not take have been refused before. */
dn_status dn_context_apply_options(dn_sampler_context *context, const dn_options *given, dn_error *error);

#endif
