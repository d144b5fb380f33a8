/* Euler's method on the probability flow dx/dsigma = (x - x0)/sigma in the variance-exploding form (Karras et al. 2022,
 * eq. 1 and algorithm 2), and its ancestral variant (k-diffusion). Pure functions, any thread.
 *
 * With s_churn the network is asked at the level before the churn and its answer used after it: so do diffusers and,
 * for parity, this file; Karras et al. ask after it. */
#include <math.h>
#include <string.h>

#include "diffusion/family.h"
#include "diffusion/sampler_tools.h"

static double churn_of(const dn_sampler_context *context, double sigma)
{
    if (sigma < dn_option_value(context, DN_OPT_S_TMIN) || sigma > dn_option_value(context, DN_OPT_S_TMAX))
        return 0.0;
    /* Even in log sigma, diffusers' table has one level more than it visits, and the churn is spread over it. */
    bool longer = strcmp(context->config.interpolation_type, "log_linear") == 0 && !dn_levels_respaced(&context->config);
    return fmin(dn_option_value(context, DN_OPT_S_CHURN) / (context->schedule.steps + longer), sqrt(2.0) - 1.0);
}

/* How much of the added noise the denoised estimate takes along: x0' = x0 + share * (x' - x). */
static double churn_share(const dn_sampler_context *context, double sigma)
{
    return dn_precondition_at(context->training, sigma).skip;
}

static void feed_churned(const dn_sampler_context *context, uint32_t step, double sigma, double next, dn_ops *out)
{
    double high = sigma * (1.0 + churn_of(context, sigma));
    double added = sqrt(high * high - sigma * sigma) * dn_option_value(context, DN_OPT_S_NOISE);
    double slope = (next - high) / high;
    dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    if (context->training->prediction == DN_PREDICT_EPSILON) {
        dn_ops_linear(out, DN_REG_X, 3, (const uint32_t[]){DN_REG_X, DN_REG_EPS, DN_REG_NOISE}, (const double[]){1.0, next - high, added});
        return;
    }
    dn_ops_linear(out, DN_REG_X, 3, (const uint32_t[]){DN_REG_X, DN_REG_X0, DN_REG_NOISE},
                  (const double[]){1.0 + slope, -slope, added * (1.0 + slope * (1.0 - churn_share(context, sigma)))});
}

static void feed_euler(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    double sigma = context->schedule.level[step].sigma, next = context->schedule.level[step + 1].sigma;
    if (churn_of(context, sigma) > 0.0)
        feed_churned(context, step, sigma, next, out);
    else
        dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X, DN_REG_EPS}, (const double[]){1.0, next - sigma});
}

/* sigma_up and sigma_down of k-diffusion's get_ancestral_step: variance up^2 is put back after a step down to `down`. */
static void feed_ancestral(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    double sigma = context->schedule.level[step].sigma, next = context->schedule.level[step + 1].sigma;
    double up =
        fmin(next, dn_option_value(context, DN_OPT_ETA) * sqrt(fmax(next * next * (sigma * sigma - next * next) / (sigma * sigma), 0.0)));
    double down = sqrt(fmax(next * next - up * up, 0.0));
    bool noisy = up > 0.0;
    if (noisy)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_ops_linear(out, DN_REG_X, noisy ? 3 : 2, (const uint32_t[]){DN_REG_X, DN_REG_EPS, DN_REG_NOISE},
                  (const double[]){1.0, down - sigma, up});
}

static const dn_option_field euler_fields[] = {
    DN_FIELDS_SIGMAS,
    DN_FIELD_FINAL_SIGMA,
    DN_FIELD_RESCALE,
    {DN_OPT_S_CHURN, 0.0, 1000.0, 0.0},
    {DN_OPT_S_NOISE, 0.0, 2.0, 1.0},
    {DN_OPT_S_TMIN, 0.0, 1e9, 0.0},
    {DN_OPT_S_TMAX, 0.0, 1e9, 1e9},
};

const dn_sampler dn_sampler_euler = {
    .name = "euler",
    .title = "Euler",
    .scheduler_class = "EulerDiscreteScheduler",
    .source = "Karras et al. 2022 (arXiv 2206.00364), eq. 1 and algorithm 2",
    .families = DN_FAMILIES_ALL,
    .order = 1,
    .evaluations_per_step = 1,
    .fields = euler_fields,
    .field_count = sizeof euler_fields / sizeof euler_fields[0],
    .memoryless = true,
    .renoises = true,
    .schedule = dn_levels_sigma,
    .next = dn_next_plain,
    .feed = feed_euler,
};

static const dn_option_field ancestral_fields[] = {
    {DN_OPT_ETA, 0.0, 1.0, 1.0},
    DN_FIELDS_SIGMAS,
    DN_FIELD_RESCALE,
};

const dn_sampler dn_sampler_euler_ancestral = {
    .name = "euler_ancestral",
    .title = "Euler ancestral",
    .scheduler_class = "EulerAncestralDiscreteScheduler",
    .source = "k-diffusion, sample_euler_ancestral",
    .families = DN_FAMILIES_ALL,
    .order = 1,
    .evaluations_per_step = 1,
    .stochastic = true,
    .fields = ancestral_fields,
    .field_count = sizeof ancestral_fields / sizeof ancestral_fields[0],
    .memoryless = true,
    .renoises = true,
    .schedule = dn_levels_sigma,
    .next = dn_next_plain,
    .feed = feed_ancestral,
};
