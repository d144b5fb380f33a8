/* Denoising diffusion implicit models: Song, Meng and Ermon 2021, eq. 12 and 16. Pure functions, any thread.
 *
 * The seed documents stop at timestep 0, where noise is left, and call eta a trade of quality for speed; the last step
 * ends at the image itself (set_alpha_to_one), and eta is how random the path is: 0 not at all, 1 as DDPM. */
#include <math.h>

#include "diffusion/sampler_tools.h"

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    const dn_level *level = &context->schedule.level[step];
    double bar = level->alpha * level->alpha, bar_next = level[1].alpha * level[1].alpha;
    if (context->training->family == DN_FAMILY_VP)
        bar_next = dn_bar_after(context, level->time);
    double variance = (1.0 - bar_next) / (level->sigma * level->sigma) * (1.0 - bar / bar_next);
    double deviation = dn_option_value(context, DN_OPT_ETA) * sqrt(fmax(variance, 0.0));
    double direction = sqrt(fmax(1.0 - bar_next - deviation * deviation, 0.0));
    bool noisy = deviation > 0.0;
    if (noisy)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_ops_linear(out, DN_REG_X, noisy ? 3 : 2, (const uint32_t[]){DN_REG_X0, DN_REG_EPS, DN_REG_NOISE},
                  (const double[]){sqrt(bar_next), direction, deviation});
}

static const dn_option_field fields[] = {{DN_OPT_ETA, 0.0, 1.0, 0.0}, DN_FIELDS_WHOLE_TIMES, DN_FIELDS_THRESHOLDING};

const dn_sampler dn_sampler_ddim = {
    .name = "ddim",
    .title = "DDIM",
    .scheduler_class = "DDIMScheduler",
    .source = "Song et al. 2021 (arXiv 2010.02502), eq. 12 and 16",
    .families = DN_FAMILIES_ALL,
    .order = 1,
    .evaluations_per_step = 1,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .memoryless = true,
    .renoises = true,
    .schedule = dn_levels_vp,
    .next = dn_next_plain,
    .feed = feed,
};
