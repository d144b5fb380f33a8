/* Sampling consistency models: the answer is an image already; noise is put back and taken away again (Song et al. 2023, algorithm 1),
 * at the levels of diffusers' CMStochasticIterativeScheduler. Pure functions, any thread. */
#include <math.h>

#include "diffusion/family.h"
#include "diffusion/levels.h"
#include "diffusion/samplers.h"

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_training_schedule *training = context->training;
    if (steps > training->timesteps)
        return dn_fail(error, DN_INVALID, "steps must be at most %u for this sampler and model", training->timesteps);
    dn_scheduler_config karras = {.use_karras_sigmas = true, .rho = context->config.rho};
    out->steps = steps;
    for (uint32_t i = 0; i < steps; i++) {
        uint32_t place = i * (training->timesteps / steps);
        out->level[i] =
            dn_level_at(training, 1.0, dn_spaced_sigma(&karras, training->sigma_max, training->sigma_min, place, training->timesteps));
    }
    out->level[steps] = (dn_level){.time = 0.0, .alpha = 1.0, .sigma = 0.0};
    out->start_scale = training->sigma_max;
    return DN_OK;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    double low = context->training->sigma_min, to = fmax(context->schedule.level[step + 1].sigma, low);
    double given = dn_option_value(context, DN_OPT_S_NOISE);
    double noise = sqrt(to * to - low * low) * (isnan(given) ? context->config.s_noise : given);
    if (noise > 0.0)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_ops_linear(out, DN_REG_X, noise > 0.0 ? 2 : 1, (const uint32_t[]){DN_REG_X0, DN_REG_NOISE}, (const double[]){1.0, noise});
}

static const dn_option_field fields[] = {
    {DN_OPT_S_NOISE, 0.0, 2.0, NAN}, {DN_OPT_CLIP_SAMPLE, 0.0, 1.0, 1.0}, {DN_OPT_CLIP_SAMPLE_RANGE, 1e-6, 1e6, 1.0}};

const dn_sampler dn_sampler_consistency = {
    .name = "consistency",
    .title = "Consistency model",
    .scheduler_class = "CMStochasticIterativeScheduler",
    .source = "Song et al. 2023, arXiv 2303.01469, algorithm 1",
    .families = 1u << DN_FAMILY_EDM,
    .consistency_only = true,
    .order = 1,
    .evaluations_per_step = 1,
    .stochastic = true,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = schedule,
    .next = dn_next_plain,
    .feed = feed,
};
