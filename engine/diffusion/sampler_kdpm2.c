/* Midpoint methods in log sigma on the variance-exploding form, two evaluations a step, the last step one. Pure functions, any thread.
 *
 *   kdpm2            DPM-Solver-2 as in k-diffusion's sample_dpm_2 (Karras et al. 2022, algorithm 2 at r = geometric mean)
 *   kdpm2_ancestral  the same down to sigma_down, with fresh noise of sigma_up after it
 *   dpmpp_sde        DPM-Solver++ as an SDE (k-diffusion's sample_dpmpp_sde, r = 1/2): fresh noise in both half-steps
 *
 * The noises of dpmpp_sde's two half-steps overlap: the first is the Brownian path from sigma to the midpoint, the second that from
 * sigma to the next level. k-diffusion draws them from a Brownian tree; the path of one step is never asked for in another, so that two
 * independent normals a step, put together by the lengths of the path's parts, have exactly the same distribution.
 *
 * Registers: H0 the image before the step, H1 the noise of dpmpp_sde's first half. State: stage 0 before, 1 between the evaluations. */
#include <math.h>

#include "diffusion/family.h"
#include "diffusion/sampler_tools.h"

#define BASE DN_REG_H0
#define FIRST_NOISE DN_REG_H1

/* A step of an ancestral sampler: down without noise, then up with it. */
typedef struct dn_split {
    double up, down;
} dn_split;

static dn_split split(double from, double to, double eta)
{
    double up = fmin(to, eta * sqrt(fmax(to * to * (from * from - to * to) / (from * from), 0.0)));
    return (dn_split){.up = up, .down = sqrt(fmax(to * to - up * up, 0.0))};
}

static double eta_of(const dn_sampler_context *context)
{
    return dn_sampler_field_of(context->sampler, DN_OPT_ETA) != NULL ? dn_option_value(context, DN_OPT_ETA) : 0.0;
}

/* The level between: the geometric mean of where the step begins and where its part without noise ends; of the ends themselves for
 * dpmpp_sde. 0 where the step ends at the image: there is no second half. */
static double middle(const dn_sampler_context *context, uint32_t step)
{
    double from = context->schedule.level[step].sigma, to = context->schedule.level[step + 1].sigma;
    return sqrt(from * (context->sampler == &dn_sampler_dpmpp_sde ? to : split(from, to, eta_of(context)).down));
}

static bool next(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->step >= context->schedule.steps)
        return false;
    *out = (dn_evaluation){.reg = DN_REG_X, .level = context->schedule.level[state->step]};
    if (state->stage == 1)
        out->level = dn_level_at(context->training, 1.0, middle(context, state->step));
    return true;
}

static void move(dn_ops *out, uint32_t image, double length, uint32_t noise, double deviation)
{
    dn_sum sum = {0};
    dn_sum_add(&sum, image, 1.0);
    dn_sum_add(&sum, DN_REG_EPS, length);
    dn_sum_add(&sum, noise, deviation);
    dn_sum_into(out, DN_REG_X, &sum);
}

static void end_step(dn_sampler_state *state)
{
    state->stage = 0;
    state->live = 0;
    state->step++;
}

static void feed_midpoint(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step;
    double from = context->schedule.level[step].sigma, to = context->schedule.level[step + 1].sigma, mid = middle(context, step);
    if (state->stage == 0) {
        if (mid > 0.0)
            dn_ops_copy(out, BASE, DN_REG_X);
        move(out, DN_REG_X, mid - from, DN_REG_NOISE, 0.0);
        if (!(mid > 0.0)) {
            end_step(state);
            return;
        }
        state->stage = 1;
        state->live = 1u << BASE;
        return;
    }
    dn_split s = split(from, to, eta_of(context));
    if (s.up > 0.0)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    move(out, BASE, s.down - from, DN_REG_NOISE, s.up);
    end_step(state);
}

/* x = (down / from) image + (1 - down / from) x0 + up noise. */
static void append_half(dn_ops *out, uint32_t image, double from, dn_split s, uint32_t noise)
{
    dn_sum sum = {0};
    dn_sum_add(&sum, image, s.down / from);
    dn_sum_add(&sum, DN_REG_X0, 1.0 - s.down / from);
    dn_sum_add(&sum, noise, s.up);
    dn_sum_into(out, DN_REG_X, &sum);
}

static void feed_sde(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step;
    double from = context->schedule.level[step].sigma, to = context->schedule.level[step + 1].sigma, mid = middle(context, step);
    double scale = dn_option_value(context, DN_OPT_S_NOISE);
    if (!(to > 0.0)) {
        dn_ops_copy(out, DN_REG_X, DN_REG_X0);
        end_step(state);
        return;
    }
    dn_split s = split(from, state->stage == 0 ? mid : to, 1.0);
    s.up *= scale;
    dn_ops_noise(out, state->stage == 0 ? FIRST_NOISE : DN_REG_NOISE, context->seed, DN_STREAM_STEP, 2 * step + state->stage);
    if (state->stage == 0) {
        dn_ops_copy(out, BASE, DN_REG_X);
        append_half(out, DN_REG_X, from, s, FIRST_NOISE);
        state->stage = 1;
        state->live = 1u << BASE | 1u << FIRST_NOISE;
        return;
    }
    double length = from - to;
    bool moves = length > 0.0;
    dn_ops_linear(out, DN_REG_NOISE, 2, (const uint32_t[]){FIRST_NOISE, DN_REG_NOISE},
                  (const double[]){moves ? sqrt((from - mid) / length) : 1.0, moves ? sqrt((mid - to) / length) : 0.0});
    append_half(out, BASE, from, s, DN_REG_NOISE);
    end_step(state);
}

/* These classes round the timesteps of Karras levels (not those between). */
static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    dn_status status = dn_levels_sigma(out, context, steps, error);
    bool rounds = context->config.use_karras_sigmas && context->training->family == DN_FAMILY_VP;
    for (uint32_t i = 0; status == DN_OK && rounds && i < steps; i++)
        out->level[i].time = rint(out->level[i].time);
    return status;
}

static const dn_option_field fields[] = {DN_FIELDS_SIGMAS};
static const dn_option_field ancestral_fields[] = {{DN_OPT_ETA, 0.0, 1.0, 1.0}, DN_FIELDS_SIGMAS};
static const dn_option_field sde_fields[] = {DN_FIELDS_SIGMAS, {DN_OPT_S_NOISE, 0.0, 2.0, 1.0}};

const dn_sampler dn_sampler_kdpm2 = {
    .name = "kdpm2",
    .title = "DPM2",
    .scheduler_class = "KDPM2DiscreteScheduler",
    .source = "k-diffusion, sample_dpm_2: Lu et al. 2022a (arXiv 2206.00927), algorithm 1",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 2,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = schedule,
    .next = next,
    .feed = feed_midpoint,
};

const dn_sampler dn_sampler_kdpm2_ancestral = {
    .name = "kdpm2_ancestral",
    .title = "DPM2 ancestral",
    .scheduler_class = "KDPM2AncestralDiscreteScheduler",
    .source = "k-diffusion, sample_dpm_2_ancestral",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 2,
    .stochastic = true,
    .fields = ancestral_fields,
    .field_count = sizeof ancestral_fields / sizeof ancestral_fields[0],
    .schedule = schedule,
    .next = next,
    .feed = feed_midpoint,
};

const dn_sampler dn_sampler_dpmpp_sde = {
    .name = "dpmpp_sde",
    .title = "DPM-Solver++ SDE",
    .scheduler_class = "DPMSolverSDEScheduler",
    .source = "k-diffusion, sample_dpmpp_sde",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 2,
    .stochastic = true,
    .fields = sde_fields,
    .field_count = sizeof sde_fields / sizeof sde_fields[0],
    .schedule = dn_levels_sigma,
    .next = next,
    .feed = feed_sde,
};
