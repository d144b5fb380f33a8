/* Heun's method on the probability flow in the variance-exploding form: Karras et al. 2022, algorithm 2 (algorithm 1 where
 * s_churn is 0). Two evaluations a step; the last step, which ends at sigma 0 where the slope has no value, is Euler's (the seed
 * documents forget this and step in timesteps instead of sigma). A churned step asks after its fresh noise, as in the paper; diffusers'
 * class has no churn. Pure functions, any thread.
 *
 * Registers: H0 the first slope, H1 the image before the step, H3 the churned image while it is asked about. State: stage 0 before, 1
 * between the evaluations. */
#include <math.h>

#include "diffusion/family.h"
#include "diffusion/sampler_tools.h"

#define CHURNED DN_REG_H3

/* The noise level that a step starts from. */
static double churned(const dn_sampler_context *context, uint32_t step)
{
    double sigma = context->schedule.level[step].sigma;
    if (sigma < dn_option_value(context, DN_OPT_S_TMIN) || sigma > dn_option_value(context, DN_OPT_S_TMAX))
        return sigma;
    return sigma * (1.0 + fmin(dn_option_value(context, DN_OPT_S_CHURN) / context->schedule.steps, sqrt(2.0) - 1.0));
}

static bool next(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->step >= context->schedule.steps)
        return false;
    *out = (dn_evaluation){.reg = DN_REG_X, .level = context->schedule.level[state->step + state->stage]};
    double sigma = churned(context, state->step);
    if (state->stage == 0 && sigma > out->level.sigma)
        *out = (dn_evaluation){.reg = CHURNED, .level = dn_level_at(context->training, 1.0, sigma)};
    return true;
}

/* The noise of a churned step. */
static void prepare(const dn_sampler_context *context, const dn_sampler_state *state, dn_ops *out)
{
    double sigma = context->schedule.level[state->step].sigma, high = churned(context, state->step);
    if (state->stage > 0 || !(high > sigma))
        return;
    dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, state->step);
    dn_ops_linear(out, CHURNED, 2, (const uint32_t[]){DN_REG_X, DN_REG_NOISE},
                  (const double[]){1.0, sqrt(high * high - sigma * sigma) * dn_option_value(context, DN_OPT_S_NOISE)});
}

/* slope = (x - x0) / sigma: of the clipped estimate where it is clipped. */
static void append_slope(dn_ops *out, uint32_t dst, uint32_t image, double sigma)
{
    dn_ops_linear(out, dst, 2, (const uint32_t[]){image, DN_REG_X0}, (const double[]){1.0 / sigma, -1.0 / sigma});
}

static void end_step(dn_sampler_state *state)
{
    state->stage = 0;
    state->live = 0;
    state->step++;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    double sigma = churned(context, state->step), to = context->schedule.level[state->step + 1].sigma;
    double length = to - sigma;
    if (state->stage == 0) {
        uint32_t image = sigma > context->schedule.level[state->step].sigma ? CHURNED : DN_REG_X;
        append_slope(out, DN_REG_H0, image, sigma);
        if (to > 0.0)
            dn_ops_copy(out, DN_REG_H1, image);
        dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){image, DN_REG_H0}, (const double[]){1.0, length});
        if (to > 0.0) {
            state->stage = 1;
            state->live = 1u << DN_REG_H0 | 1u << DN_REG_H1;
        } else {
            end_step(state);
        }
        return;
    }
    append_slope(out, DN_REG_H2, DN_REG_X, to);
    dn_ops_linear(out, DN_REG_X, 3, (const uint32_t[]){DN_REG_H1, DN_REG_H0, DN_REG_H2}, (const double[]){1.0, 0.5 * length, 0.5 * length});
    end_step(state);
}

static const dn_option_field fields[] = {
    DN_FIELDS_SIGMAS,
    DN_FIELDS_CLIP(0.0),
    {DN_OPT_S_CHURN, 0.0, 1000.0, 0.0},
    {DN_OPT_S_NOISE, 0.0, 2.0, 1.0},
    {DN_OPT_S_TMIN, 0.0, 1e9, 0.0},
    {DN_OPT_S_TMAX, 0.0, 1e9, 1e9},
};

const dn_sampler dn_sampler_heun = {
    .name = "heun",
    .title = "Heun",
    .scheduler_class = "HeunDiscreteScheduler",
    .source = "Karras et al. 2022 (arXiv 2206.00364), algorithms 1 and 2",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 2,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = dn_levels_sigma,
    .next = next,
    .prepare = prepare,
    .feed = feed,
};
