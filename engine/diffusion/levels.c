/* Timesteps of the three spacings (Lin et al. 2023, table 2, as diffusers 0.31 computes them) and the levels of the
 * schedulers that visit whole timesteps. Pure functions, any thread. */
#include "diffusion/levels.h"

#include <math.h>

double dn_level_ratio(const dn_level *level)
{
    return level->sigma / level->alpha;
}

bool dn_next_plain(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->step >= context->schedule.steps)
        return false;
    *out = (dn_evaluation){.reg = DN_REG_X, .level = context->schedule.level[state->step]};
    return true;
}

static dn_level vp_level(double time, double bar)
{
    return (dn_level){.time = time, .alpha = sqrt(bar), .sigma = sqrt(1.0 - bar)};
}

static double bar_at(const dn_sampler_context *context, double time)
{
    const double *bar = context->training->alphas_cumprod;
    if (time < 0.0)
        return context->config.set_alpha_to_one ? 1.0 : bar[0];
    return bar[(uint32_t)time];
}

dn_level dn_level_vp(const dn_sampler_context *context, double time)
{
    return vp_level(time, bar_at(context, time));
}

/* The time visited after this one, -1 after the last. */
static double next_time(const dn_schedule *schedule, double time)
{
    for (uint32_t i = 0; i + 1 < schedule->steps; i++)
        if (schedule->level[i].time == time)
            return schedule->level[i + 1].time;
    return -1.0;
}

double dn_bar_after(const dn_sampler_context *context, double time)
{
    if (context->config.respaced)
        return bar_at(context, next_time(&context->schedule, time));
    return bar_at(context, time - (double)(context->training->timesteps / context->schedule.steps));
}

/* The whole timestep of step i; linspace and trailing round half to even as numpy does. */
static double whole_time(const dn_sampler_context *context, uint32_t steps, uint32_t i)
{
    double count = context->training->timesteps;
    switch (context->config.spacing) {
    case DN_SPACING_TRAILING:
        return rint(count - i * (count / steps)) - 1.0;
    case DN_SPACING_LINSPACE:
        return steps == 1 ? 0.0 : rint((steps - 1 - i) * ((count - 1.0) / (steps - 1)));
    case DN_SPACING_LEADING:
        break;
    }
    return (double)((steps - 1 - i) * (context->training->timesteps / steps) + context->config.steps_offset);
}

dn_status dn_levels_vp(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    uint32_t count = context->training->timesteps;
    if (context->training->family != DN_FAMILY_VP)
        return dn_levels_family(out, context, steps, DN_FORM_PRESERVING, error);
    if (steps > count)
        return dn_fail(error, DN_INVALID, "steps must be at most %u, the timesteps this model was trained on", count);
    double first = whole_time(context, steps, 0);
    if (first >= count)
        return dn_fail(error, DN_INVALID, "steps_offset %u reaches past the %u timesteps this model was trained on",
                       context->config.steps_offset, count);
    out->steps = steps;
    out->start_scale = 1.0;
    for (uint32_t i = 0; i < steps; i++) {
        double time = whole_time(context, steps, i);
        out->level[i] = vp_level(time, bar_at(context, time));
    }
    out->level[steps] = vp_level(0.0, bar_at(context, -1.0));
    if (out->level[0].alpha == 0.0 && context->training->prediction == DN_PREDICT_EPSILON)
        return dn_fail(
            error, DN_INVALID,
            "timestep_spacing must be another: at the first timestep no signal is left, where an epsilon prediction says nothing");
    return DN_OK;
}
