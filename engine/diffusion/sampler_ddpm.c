/* Ancestral sampling of the discrete chain: Ho et al. 2020, eq. 6 and 7, and Nichol and Dhariwal 2021, eq. 15, for
 * learned variance. Its schedule holds each step's effective beta and posterior variance. Pure functions, any thread.
 *
 * The seed documents sample with sigma^2 = beta ("fixed_large") beside formulas of the posterior variance
 * ("fixed_small"); these are different samplers, and DDIM at eta = 1 equals the second only. */
#include <math.h>

#include "diffusion/sampler_tools.h"

#define DN_VARIANCE_MIN 1e-20

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    if (context->config.variance == DN_VARIANCE_LEARNED)
        return dn_fail(error, DN_UNSUPPORTED, "variance_type \"learned\" is not supported; learned_range is");
    dn_status status = dn_levels_vp(out, context, steps, error);
    if (status != DN_OK)
        return status;
    for (uint32_t i = 0; i < steps; i++) {
        double bar = context->training->alphas_cumprod[(uint32_t)out->level[i].time];
        double bar_next = dn_bar_after(context, out->level[i].time);
        out->beta[i] = 1.0 - bar / bar_next;
        out->beta_tilde[i] = fmax((1.0 - bar_next) / (1.0 - bar) * out->beta[i], DN_VARIANCE_MIN);
    }
    return DN_OK;
}

/* Leaves the step's noise, scaled by its standard deviation over *deviation, in DN_REG_NOISE. */
static double append_noise(const dn_sampler_context *context, uint32_t step, dn_ops *out)
{
    double small = context->schedule.beta_tilde[step], large = context->schedule.beta[step];
    dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    switch (context->config.variance) {
    case DN_VARIANCE_FIXED_LARGE:
    case DN_VARIANCE_FIXED_LARGE_LOG:
        return sqrt(large);
    case DN_VARIANCE_LEARNED_RANGE: {
        /* log variance = f log beta + (1 - f) log beta~, f = (v + 1) / 2: the deviation is exp(half of that). */
        dn_op *op = &out->op[out->count++];
        *op = (dn_op){.kind = DN_OP_EXP_SCALE, .dst = DN_REG_NOISE, .terms = 2, .src = {DN_REG_VARIANCE, DN_REG_NOISE}};
        op->low = (float)(0.25 * (log(large) + log(small)));
        op->ratio = (float)(0.25 * (log(large) - log(small)));
        return 1.0;
    }
    case DN_VARIANCE_FIXED_SMALL:
    case DN_VARIANCE_FIXED_SMALL_LOG:
    case DN_VARIANCE_LEARNED:
        break;
    }
    return sqrt(small);
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    const dn_level *level = &context->schedule.level[step];
    double bar_next = dn_bar_after(context, level->time), beta = context->schedule.beta[step];
    double all = level->sigma * level->sigma;
    const uint32_t src[3] = {DN_REG_X0, DN_REG_X, DN_REG_NOISE};
    double coefficient[3] = {sqrt(bar_next) * beta / all, sqrt(1.0 - beta) * (1.0 - bar_next) / all, 0.0};
    bool noisy = level->time > 0.0;
    if (noisy)
        coefficient[2] = append_noise(context, step, out);
    dn_ops_linear(out, DN_REG_X, noisy ? 3 : 2, src, coefficient);
}

static const dn_option_field fields[] = {
    {DN_OPT_VARIANCE_TYPE, DN_VARIANCE_FIXED_SMALL, DN_VARIANCE_LEARNED_RANGE, DN_VARIANCE_FIXED_SMALL},
    DN_FIELDS_WHOLE_TIMES,
    DN_FIELDS_THRESHOLDING,
};

const dn_sampler dn_sampler_ddpm = {
    .name = "ddpm",
    .title = "DDPM",
    .scheduler_class = "DDPMScheduler",
    .source = "Ho et al. 2020 (arXiv 2006.11239), algorithm 2; Nichol and Dhariwal 2021 (arXiv 2102.09672), eq. 15",
    .families = 1u << DN_FAMILY_VP,
    .order = 1,
    .evaluations_per_step = 1,
    .stochastic = true,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .memoryless = true,
    .schedule = schedule,
    .next = dn_next_plain,
    .feed = feed,
};
