/* Heun's method on the probability flow in the variance-exploding form: Karras et al. 2022, algorithm 1. Two
 * evaluations a step; the last step, which ends at sigma 0 where the slope has no value, is Euler's (the seed documents
 * forget this and step in timesteps instead of sigma). Pure functions, any thread.
 *
 * Registers: H0 the first slope, H1 the image before the step. State: stage 0 before, 1 between the evaluations. */
#include "diffusion/levels.h"
#include "diffusion/samplers.h"

static bool next(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->step >= context->schedule.steps)
        return false;
    *out = (dn_evaluation){.reg = DN_REG_X, .level = context->schedule.level[state->step + state->stage]};
    return true;
}

/* slope = (x - x0) / sigma: of the clipped estimate where it is clipped. */
static void append_slope(dn_ops *out, uint32_t dst, double sigma)
{
    dn_ops_linear(out, dst, 2, (const uint32_t[]){DN_REG_X, DN_REG_X0}, (const double[]){1.0 / sigma, -1.0 / sigma});
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    double sigma = context->schedule.level[state->step].sigma, to = context->schedule.level[state->step + 1].sigma;
    double length = to - sigma;
    if (state->stage == 0) {
        append_slope(out, DN_REG_H0, sigma);
        if (to > 0.0) {
            dn_ops_linear(out, DN_REG_H1, 1, (const uint32_t[]){DN_REG_X}, (const double[]){1.0});
            state->stage = 1;
        } else {
            state->step++;
        }
        dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X, DN_REG_H0}, (const double[]){1.0, length});
        return;
    }
    append_slope(out, DN_REG_H2, to);
    dn_ops_linear(out, DN_REG_X, 3, (const uint32_t[]){DN_REG_H1, DN_REG_H0, DN_REG_H2}, (const double[]){1.0, 0.5 * length, 0.5 * length});
    state->stage = 0;
    state->step++;
}

static const dn_option_field fields[] = {{DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_MODEL, DN_SIGMAS_BETA, DN_SIGMAS_MODEL}};

const dn_sampler dn_sampler_heun = {
    .name = "heun",
    .title = "Heun",
    .scheduler_class = "HeunDiscreteScheduler",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 2,
    .fields = fields,
    .field_count = 1,
    .schedule = dn_levels_sigma,
    .next = next,
    .feed = feed,
};
