/* The samplers of Karras et al. 2022 (EDM) in the variance-exploding form, with churn. Pure functions, any thread.
 *
 * edm_euler is diffusers' EDMEulerScheduler: with churn the network is asked at the level before it, and its answer is then taken
 * for one at the churned level and the churned image. edm_heun is the paper's algorithm 2: it asks after the churn. The first churn
 * of edm_heun goes into the start: adding noise to a start of pure noise only makes it larger.
 *
 * Registers of edm_heun: H0 the first slope, H1 the image before the step (after its churn). State: stage 0 before, 1 between the
 * evaluations. */
#include <math.h>

#include "diffusion/family.h"
#include "diffusion/levels.h"
#include "diffusion/samplers.h"

#define DN_CHURN_MAX 0.41421356237309503 /* sqrt(2) - 1 */

/* How many times higher step `step` starts than its level. */
static double churn_of(const dn_sampler_context *context, uint32_t step)
{
    double sigma = context->schedule.level[step].sigma;
    if (sigma < dn_option_value(context, DN_OPT_S_TMIN) || sigma > dn_option_value(context, DN_OPT_S_TMAX))
        return 1.0;
    return 1.0 + fmin(dn_option_value(context, DN_OPT_S_CHURN) / context->schedule.steps, DN_CHURN_MAX);
}

/* Deviation of the noise that lifts an image from `low` to `high`. */
static double added_noise(const dn_sampler_context *context, double low, double high)
{
    return sqrt(high * high - low * low) * dn_option_value(context, DN_OPT_S_NOISE);
}

static void feed_euler(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    double sigma = context->schedule.level[step].sigma, to = context->schedule.level[step + 1].sigma;
    double high = sigma * churn_of(context, step), slope = (to - high) / high;
    if (high == sigma) {
        dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X0, DN_REG_EPS}, (const double[]){1.0, to});
        return;
    }
    /* x0' = b.skip x' + b.out answer, the answer from x0 = a.skip x + a.out answer; x'' = x' + slope (x' - x0'). */
    dn_precondition a = dn_precondition_at(context->training, sigma), b = dn_precondition_at(context->training, high);
    double share = a.out != 0.0 ? b.out / a.out : 0.0;
    dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_ops_linear(out, DN_REG_X, 3, (const uint32_t[]){DN_REG_X, DN_REG_X0, DN_REG_NOISE},
                  (const double[]){1.0 + slope - slope * (b.skip - share * a.skip), -slope * share,
                                   added_noise(context, sigma, high) * (1.0 + slope - slope * b.skip)});
}

static const dn_option_field fields[] = {
    {DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS, DN_SIGMAS_BETA, DN_SIGMAS_KARRAS},
    {DN_OPT_SIGMA_MIN, 1e-6, 1e6, NAN},
    {DN_OPT_SIGMA_MAX, 1e-6, 1e6, NAN},
    {DN_OPT_RHO, 1.0, 100.0, NAN},
    {DN_OPT_S_CHURN, 0.0, 1000.0, 0.0},
    {DN_OPT_S_NOISE, 0.0, 2.0, 1.0},
    {DN_OPT_S_TMIN, 0.0, 1e9, 0.0},
    {DN_OPT_S_TMAX, 0.0, 1e9, 1e9},
};

const dn_sampler dn_sampler_edm_euler = {
    .name = "edm_euler",
    .title = "EDM Euler",
    .scheduler_class = "EDMEulerScheduler",
    .source = "Karras et al. 2022, arXiv 2206.00364, eq. 1; diffusers' EDMEulerScheduler",
    .families = DN_FAMILIES_ALL,
    .order = 1,
    .evaluations_per_step = 1,
    .memoryless = true,
    .renoises = true,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = dn_levels_edm,
    .next = dn_next_plain,
    .feed = feed_euler,
};

/* A given picture is already noised to the level where it starts: no churn there. */
static double lifted(const dn_sampler_context *context, uint32_t step)
{
    double sigma = context->schedule.level[step].sigma;
    return step == context->first_step && step > 0 ? sigma : sigma * churn_of(context, step);
}

static dn_status schedule_heun(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    dn_status status = dn_levels_edm(out, context, steps, error);
    if (status != DN_OK)
        return status;
    double top = out->level[0].sigma, noise = dn_option_value(context, DN_OPT_S_NOISE);
    double gamma = dn_option_value(context, DN_OPT_S_CHURN) / steps;
    bool churned = top >= dn_option_value(context, DN_OPT_S_TMIN) && top <= dn_option_value(context, DN_OPT_S_TMAX);
    double high = churned ? 1.0 + fmin(gamma, DN_CHURN_MAX) : 1.0;
    out->start_scale = top * sqrt(1.0 + (high * high - 1.0) * noise * noise);
    return DN_OK;
}

static bool next_heun(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->step >= context->schedule.steps)
        return false;
    const dn_level *level = &context->schedule.level[state->step];
    double high = lifted(context, state->step);
    *out = (dn_evaluation){.reg = DN_REG_X, .level = level[state->stage]};
    if (state->stage == 0 && high != level->sigma)
        out->level = dn_level_at(context->training, 1.0, high);
    return true;
}

/* slope = (x - x0) / sigma: of the clipped estimate where it is clipped. */
static void append_slope(dn_ops *out, uint32_t dst, double sigma)
{
    dn_ops_linear(out, dst, 2, (const uint32_t[]){DN_REG_X, DN_REG_X0}, (const double[]){1.0 / sigma, -1.0 / sigma});
}

/* The step is done: the churn of the one that follows. */
static void finish_step(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = ++state->step;
    state->stage = 0;
    state->live = 0;
    double sigma = context->schedule.level[step].sigma;
    if (step >= context->schedule.steps || lifted(context, step) == sigma)
        return;
    dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X, DN_REG_NOISE},
                  (const double[]){1.0, added_noise(context, sigma, lifted(context, step))});
}

static void feed_heun(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    double from = lifted(context, state->step), to = context->schedule.level[state->step + 1].sigma, length = to - from;
    if (state->stage == 0) {
        append_slope(out, DN_REG_H0, from);
        dn_ops_linear(out, DN_REG_H1, 1, (const uint32_t[]){DN_REG_X}, (const double[]){1.0});
        dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X, DN_REG_H0}, (const double[]){1.0, length});
        if (to == 0.0) {
            finish_step(context, state, out);
            return;
        }
        state->stage = 1;
        state->live = 1u << DN_REG_H0 | 1u << DN_REG_H1;
        return;
    }
    append_slope(out, DN_REG_SCRATCH, to);
    dn_ops_linear(out, DN_REG_X, 3, (const uint32_t[]){DN_REG_H1, DN_REG_H0, DN_REG_SCRATCH},
                  (const double[]){1.0, 0.5 * length, 0.5 * length});
    finish_step(context, state, out);
}

const dn_sampler dn_sampler_edm_heun = {
    .name = "edm_heun",
    .title = "EDM Heun",
    .scheduler_class = "EDMEulerScheduler",
    .source = "Karras et al. 2022, arXiv 2206.00364, algorithm 2",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 2,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = schedule_heun,
    .next = next_heun,
    .feed = feed_heun,
};
