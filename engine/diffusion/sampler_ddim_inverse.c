/* DDIM run backwards, from a given picture to the noise that DDIM would make it from: Song, Meng and Ermon 2021, section 4.3, as
 * diffusers' DDIMInverseScheduler. Pure functions, any thread.
 *
 * A step takes the picture at one level for one at the next: the network is told the timestep where the step ends, and its answer is
 * used at the level where it begins, which is right as far as the answer does not change in between. Unlike diffusers' class the sampler
 * by its name does not clip: a clipped estimate is not inverted, and DDIM has to go back without a clip too. */
#include <math.h>

#include "diffusion/levels.h"
#include "diffusion/samplers.h"

/* The timestep that step i ends at, from low to high. */
static double time_of(const dn_sampler_context *context, uint32_t steps, uint32_t i)
{
    double count = context->training->timesteps;
    if (context->config.spacing == DN_SPACING_TRAILING)
        return rint(count - (steps - 1 - i) * (count / steps)) - 1.0;
    return (double)(i * (context->training->timesteps / steps) + context->config.steps_offset);
}

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_training_schedule *training = context->training;
    if (context->config.spacing == DN_SPACING_LINSPACE)
        return dn_fail(error, DN_INVALID, "timestep_spacing must be leading or trailing for ddim_inverse");
    if (steps > training->timesteps || time_of(context, steps, steps - 1) >= training->timesteps)
        return dn_fail(error, DN_INVALID, "steps must be at most %u, the timesteps this model was trained on", training->timesteps);
    if (training->prediction == DN_PREDICT_SAMPLE && context->config.set_alpha_to_one)
        return dn_fail(error, DN_UNSUPPORTED, "ddim_inverse cannot start from a clean picture with a network that predicts the sample");
    out->steps = steps;
    out->start_scale = 1.0;
    for (uint32_t i = 0; i <= steps; i++) {
        double time = time_of(context, steps, i < steps ? i : steps - 1);
        double before = i < steps ? time - training->timesteps / steps : time;
        double bar = before >= 0.0                      ? training->alphas_cumprod[(uint32_t)before]
                     : context->config.set_alpha_to_one ? 1.0
                                                        : training->alphas_cumprod[0];
        out->level[i] = (dn_level){.time = time, .alpha = sqrt(bar), .sigma = sqrt(1.0 - bar)};
    }
    return DN_OK;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const dn_level *level = &context->schedule.level[state->step++];
    double bar = context->training->alphas_cumprod[(uint32_t)level->time];
    dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X0, DN_REG_EPS}, (const double[]){sqrt(bar), sqrt(1.0 - bar)});
}

static const dn_option_field fields[] = {{DN_OPT_CLIP_SAMPLE, 0.0, 1.0, 0.0}, {DN_OPT_CLIP_SAMPLE_RANGE, 1e-6, 1e6, 1.0}};

const dn_sampler dn_sampler_ddim_inverse = {
    .name = "ddim_inverse",
    .title = "DDIM inversion",
    .scheduler_class = "DDIMInverseScheduler",
    .source = "Song, Meng and Ermon 2021, arXiv 2010.02502, section 4.3",
    .families = 1u << DN_FAMILY_VP,
    .order = 1,
    .evaluations_per_step = 1,
    .inverts = true,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = schedule,
    .next = dn_next_plain,
    .feed = feed,
};
