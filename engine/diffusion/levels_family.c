/* Tables of noise levels for networks that were not trained on a table of alpha-bar, and tables that any family can be visited by.
 * Pure functions, any thread. */
#include <math.h>

#include "diffusion/family.h"
#include "diffusion/levels.h"

/* Where samplers other than flow matching's own start on a flow: at t = 1 the ratio is infinite. As diffusers' use_flow_sigmas. */
#define DN_FLOW_FIRST 0.999

/* An option of the sampler's, where it takes it and it is given or has a standard. */
static double option_or(const dn_sampler_context *context, dn_option_id id, double otherwise)
{
    double value = dn_option_value(context, id);
    return isfinite(value) && value > 0.0 ? value : otherwise;
}

/* The last level: the image, or once more the lowest noise. */
static dn_level last_level(const dn_sampler_context *context, double low)
{
    if (context->config.final_sigma_min)
        return dn_level_at(context->training, 1.0, low);
    return (dn_level){.time = 0.0, .alpha = 1.0, .sigma = 0.0};
}

dn_status dn_levels_edm(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    dn_scheduler_config config = context->config;
    double low, high;
    dn_family_range(context->training, &low, &high);
    low = option_or(context, DN_OPT_SIGMA_MIN, low);
    high = option_or(context, DN_OPT_SIGMA_MAX, high);
    if (low >= high)
        return dn_fail(error, DN_INVALID, "sigma_min must be below sigma_max: they are %g and %g", low, high);
    config.rho = option_or(context, DN_OPT_RHO, config.rho);
    config.use_karras_sigmas = !config.use_exponential_sigmas && !config.use_beta_sigmas && !config.use_lu_lambdas;
    out->steps = steps;
    for (uint32_t i = 0; i < steps; i++)
        out->level[i] = dn_level_at(context->training, 1.0, dn_spaced_sigma(&config, high, low, i, steps));
    out->level[steps] = last_level(context, low);
    out->start_scale = sqrt(high * high + 1.0);
    return DN_OK;
}

dn_status dn_levels_ve(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_training_schedule *training = context->training;
    double low = training->sigma_min, growth = training->sigma_max / low;
    (void)error;
    out->steps = steps;
    for (uint32_t i = 0; i < steps; i++) {
        double part = steps == 1 ? 1.0 : (double)(steps - 1 - i) / (steps - 1);
        double told = training->time_floor + (1.0 - training->time_floor) * part;
        out->level[i] = (dn_level){.time = low * pow(growth, told), .alpha = 1.0, .sigma = low * pow(growth, part)};
    }
    out->level[steps] = last_level(context, low);
    out->start_scale = training->sigma_max;
    return DN_OK;
}

static dn_level flow_level(const dn_training_schedule *training, double shift, double time)
{
    double shifted = dn_shifted(shift, time);
    return dn_level_at(training, 1.0 - shifted, shifted);
}

/* diffusers shifts the lowest time of its table twice: once in the table, once in the steps. */
dn_status dn_levels_flow(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_training_schedule *training = context->training;
    double shift = option_or(context, DN_OPT_SHIFT, training->shift), lowest = dn_shifted(shift, training->sigma_min);
    (void)error;
    out->steps = steps;
    for (uint32_t i = 0; i < steps; i++) {
        double even = 1.0 - (double)i / steps;
        double table = steps == 1 ? 1.0 : 1.0 + (lowest - 1.0) * i / (steps - 1);
        out->level[i] = flow_level(training, shift, training->sigma_min > 0.0 ? table : even);
    }
    out->level[steps] = flow_level(training, shift, 0.0);
    out->start_scale = 1.0;
    return DN_OK;
}

static void levels_flow_solver(dn_schedule *out, const dn_sampler_context *context, uint32_t steps)
{
    double shift = option_or(context, DN_OPT_SHIFT, context->training->shift);
    out->steps = steps;
    for (uint32_t i = 0; i < steps; i++)
        out->level[i] = flow_level(context->training, shift, DN_FLOW_FIRST * (1.0 - (double)i / steps));
    out->level[steps] = flow_level(context->training, shift, 0.0);
    out->start_scale = 1.0;
}

/* The same levels with alpha = 1, or with alpha^2 + sigma^2 = 1. */
static void take_form(dn_schedule *out, dn_form form)
{
    if (form == DN_FORM_OWN)
        return;
    for (uint32_t i = 0; i <= out->steps; i++) {
        dn_level *level = &out->level[i];
        double factor = form == DN_FORM_EXPLODING ? level->alpha : hypot(level->alpha, level->sigma);
        level->alpha /= factor;
        level->sigma /= factor;
        if (i == 0)
            out->start_scale /= factor;
    }
}

dn_status dn_levels_family(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_form form, dn_error *error)
{
    const dn_scheduler_config *config = &context->config;
    bool respaced = config->use_karras_sigmas || config->use_exponential_sigmas || config->use_beta_sigmas || config->use_lu_lambdas;
    dn_family family = context->training->family;
    dn_status status = DN_OK;
    if (family == DN_FAMILY_FLOW && !respaced)
        levels_flow_solver(out, context, steps);
    else if (family == DN_FAMILY_VE && !respaced)
        status = dn_levels_ve(out, context, steps, error);
    else
        status = dn_levels_edm(out, context, steps, error);
    if (status == DN_OK)
        take_form(out, form);
    return status;
}
