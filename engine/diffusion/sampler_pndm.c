/* Pseudo numerical methods on DDIM's step: Liu et al. 2022 (arXiv 2202.09778), eq. 9 to 13 and algorithm 2, as PNDMScheduler of
 * diffusers 0.31 does them. Pure functions, any thread.
 *
 *   pndm  the first three steps are Runge-Kutta steps of four evaluations, the others Adams-Bashforth of order 4
 *   plms  (skip_prk_steps) no Runge-Kutta: the first step is done twice, and the order rises from 1 to 4
 *
 * A v prediction is averaged as it is and turned into noise at the level where the step began, as diffusers does; for epsilon there is
 * no difference. Where the distance d of two timesteps is odd, diffusers goes to t - d/2 and asks at t - d + d/2; so does this.
 *
 * Registers: H0..H3 a ring of the answers that count, by step; H4 the image before the step, H5 the weighted sum of a Runge-Kutta step. */
#include <math.h>
#include <string.h>

#include "diffusion/sampler_tools.h"

#define BASE DN_REG_H4
#define TOTAL DN_REG_H5
#define ORDER 4
#define RUNGE_KUTTA_STEPS 3

static bool runge_kutta(const dn_sampler_context *context)
{
    return strcmp(context->config.algorithm_type, "plms") != 0;
}

static uint32_t distance(const dn_sampler_context *context)
{
    return context->training->timesteps / context->schedule.steps;
}

/* The time at which stage `stage` of step `step` asks. */
static double time_of(const dn_sampler_context *context, uint32_t step, uint32_t stage)
{
    const dn_level *level = context->schedule.level;
    if (stage == 0)
        return level[step].time;
    if (!runge_kutta(context) || stage == 3)
        return level[step + 1].time;
    return level[step + 1].time + distance(context) / 2;
}

static bool next(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->step >= context->schedule.steps)
        return false;
    *out = (dn_evaluation){.reg = DN_REG_X, .level = dn_level_vp(context, time_of(context, state->step, state->stage))};
    return true;
}

/* The answer as the network gives it, epsilon or v, from x0 and the noise. */
static void append_answer(const dn_sampler_context *context, const dn_level *level, uint32_t dst, dn_ops *out)
{
    if (context->training->prediction == DN_PREDICT_V)
        dn_ops_linear(out, dst, 2, (const uint32_t[]){DN_REG_EPS, DN_REG_X0}, (const double[]){level->alpha, -level->sigma});
    else
        dn_ops_copy(out, dst, DN_REG_EPS);
}

/* Eq. 11 from `from` to `to`: image and noise keep their places, x' = alpha'/alpha x + (sigma' - alpha' sigma / alpha) eps. `answer` is
 * a combination of answers. */
static void append_transfer(const dn_sampler_context *context, double from_time, double to_time, uint32_t image, const dn_sum *answer,
                            dn_ops *out)
{
    dn_level from = dn_level_vp(context, from_time), to = dn_level_vp(context, to_time);
    double of_noise = to.sigma - to.alpha * from.sigma / from.alpha, of_image = to.alpha / from.alpha, of_answer = of_noise;
    if (context->training->prediction == DN_PREDICT_V) { /* eps = alpha v + sigma x */
        of_image += of_noise * from.sigma;
        of_answer = of_noise * from.alpha;
    }
    dn_sum sum = {0};
    dn_sum_add(&sum, image, of_image);
    for (uint32_t i = 0; i < answer->count; i++)
        dn_sum_add(&sum, answer->src[i], of_answer * answer->coefficient[i]);
    dn_sum_into(out, DN_REG_X, &sum);
}

static void end_step(dn_sampler_state *state)
{
    if (state->history < ORDER - 1)
        state->history++;
    state->live = dn_history_live(state->step, state->history, ORDER);
    state->stage = 0;
    state->step++;
}

/* A stage of a Runge-Kutta step: weights 1/6, 1/3, 1/3, 1/6. */
static void feed_runge_kutta(const dn_sampler_context *context, dn_sampler_state *state, const dn_level *level, dn_ops *out)
{
    uint32_t step = state->step, mine = dn_history_at(step, 0, ORDER), answer = state->stage == 0 ? mine : DN_REG_NOISE;
    double from = context->schedule.level[step].time, half = distance(context) / 2;
    double targets[4] = {from - half, level->time, level->time - half, level->time};
    const double weights[4] = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};
    dn_sum sum = {0};
    append_answer(context, level, answer, out);
    if (state->stage == 0)
        dn_ops_copy(out, BASE, DN_REG_X);
    dn_sum_add(&sum, answer, weights[state->stage]);
    if (state->stage > 0)
        dn_sum_add(&sum, TOTAL, 1.0);
    dn_sum_into(out, TOTAL, &sum);
    dn_sum used = {.count = 1, .src = {state->stage == 3 ? TOTAL : answer}, .coefficient = {1.0}};
    append_transfer(context, from, targets[state->stage], BASE, &used, out);
    if (state->stage == 3) {
        end_step(state);
        return;
    }
    state->stage++;
    state->live = dn_history_live(step, state->history + 1, ORDER) | 1u << BASE | 1u << TOTAL;
}

/* The first step of plms: forward, and again with the mean of both answers. */
static void feed_first(const dn_sampler_context *context, dn_sampler_state *state, const dn_level *level, dn_ops *out)
{
    uint32_t mine = dn_history_at(state->step, 0, ORDER);
    double d = distance(context);
    if (state->stage == 0) {
        append_answer(context, level, mine, out);
        dn_ops_copy(out, BASE, DN_REG_X);
        append_transfer(context, level->time, level->time - d, BASE, &(dn_sum){1, {mine}, {1.0}}, out);
        state->stage = 1;
        state->live = 1u << mine | 1u << BASE;
        return;
    }
    append_answer(context, level, DN_REG_NOISE, out);
    append_transfer(context, level->time + d, level->time, BASE, &(dn_sum){2, {DN_REG_NOISE, mine}, {0.5, 0.5}}, out);
    end_step(state);
}

static void feed_adams(const dn_sampler_context *context, dn_sampler_state *state, const dn_level *level, dn_ops *out)
{
    static const double adams[ORDER][ORDER] = {
        {1.0, 0.0, 0.0, 0.0},
        {3.0 / 2, -1.0 / 2, 0.0, 0.0},
        {23.0 / 12, -16.0 / 12, 5.0 / 12, 0.0},
        {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
    };
    dn_sum answer = {0};
    append_answer(context, level, dn_history_at(state->step, 0, ORDER), out);
    for (uint32_t j = 0; j <= state->history; j++)
        dn_sum_add(&answer, dn_history_at(state->step, j, ORDER), adams[state->history][j]);
    append_transfer(context, level->time, level->time - distance(context), DN_REG_X, &answer, out);
    end_step(state);
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    dn_evaluation now;
    (void)next(context, state, &now);
    uint32_t first = context->first_step;
    if (runge_kutta(context) && state->step < first + RUNGE_KUTTA_STEPS && state->step + 1 < context->schedule.steps)
        feed_runge_kutta(context, state, &now.level, out);
    else if (!runge_kutta(context) && state->step == first && state->step + 1 < context->schedule.steps)
        feed_first(context, state, &now.level, out);
    else
        feed_adams(context, state, &now.level, out);
}

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    if (runge_kutta(context) && steps <= RUNGE_KUTTA_STEPS)
        return dn_fail(error, DN_INVALID, "steps must be at least %d: the first three are Runge-Kutta steps (plms has none)",
                       RUNGE_KUTTA_STEPS + 1);
    dn_status status = dn_levels_vp(out, context, steps, error);
    if (status == DN_OK && out->level[0].alpha == 0.0) /* eq. 11 divides by it */
        return dn_fail(error, DN_INVALID, "timestep_spacing must be another: at the first timestep no signal is left to step from");
    return status;
}

static const dn_option_field fields[] = {
    {DN_OPT_TIMESTEP_SPACING, DN_SPACING_LEADING, DN_SPACING_LINSPACE, DN_SPACING_LEADING},
};

#define SAMPLER                                                                                                                            \
    .scheduler_class = "PNDMScheduler", .source = "Liu et al. 2022 (arXiv 2202.09778), algorithm 2", .families = 1u << DN_FAMILY_VP,       \
    .order = 2, .evaluations_per_step = 1, .fields = fields, .field_count = sizeof fields / sizeof fields[0], .schedule = schedule,        \
    .next = next, .feed = feed

const dn_sampler dn_sampler_pndm = {.name = "pndm", .title = "PNDM", .algorithm = "prk", SAMPLER};
const dn_sampler dn_sampler_plms = {.name = "plms", .title = "PLMS", .algorithm = "plms", SAMPLER};
