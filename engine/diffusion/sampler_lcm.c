/* Samplers of distilled networks, which answer with the image from any level: latent consistency models (Luo et al. 2023, arXiv
 * 2310.04378, algorithm 3) and trajectory consistency distillation (Zheng et al. 2024, arXiv 2402.19159, algorithm 3, strategic
 * stochastic sampling with gamma = eta), as LCMScheduler and TCDScheduler of diffusers 0.31 do them. Pure functions, any thread.
 *
 * Timesteps are chosen from those of the teacher, k - 1, 2k - 1, ... with k = T / original_inference_steps. */
#include <math.h>

#include "diffusion/sampler_tools.h"

#define DN_LCM_SIGMA_DATA 0.5

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    uint32_t teacher = context->config.original_inference_steps, count = context->training->timesteps;
    if (teacher > count)
        return dn_fail(error, DN_INVALID, "original_inference_steps must be at most %u, the timesteps this model was trained on", count);
    if (steps > teacher)
        return dn_fail(error, DN_INVALID, "steps must be at most original_inference_steps (%u)", teacher);
    uint32_t k = count / teacher;
    out->steps = steps;
    out->start_scale = 1.0;
    for (uint32_t i = 0; i < steps; i++) {
        uint32_t index = (uint32_t)floor(i * ((double)teacher / steps));
        out->level[i] = dn_level_vp(context, (double)((teacher - index) * k - 1));
    }
    out->level[steps] = dn_level_vp(context, -1.0);
    out->level[steps].time = 0.0;
    if (out->level[0].alpha == 0.0 && context->training->prediction == DN_PREDICT_EPSILON)
        return dn_fail(error, DN_INVALID,
                       "rescale_betas_zero_snr must be false: at the first timestep no signal is left, where an epsilon prediction "
                       "says nothing");
    return DN_OK;
}

/* The boundary condition of consistency models: the answer near the image is the image itself. */
static void feed_lcm(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    const dn_level *level = &context->schedule.level[step];
    double scaled = level->time * context->config.timestep_scaling, data = DN_LCM_SIGMA_DATA;
    double skip = data * data / (scaled * scaled + data * data), take = scaled / sqrt(scaled * scaled + data * data);
    bool last = state->step == context->schedule.steps;
    double alpha = last ? 1.0 : level[1].alpha;
    if (!last)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_sum sum = {0};
    dn_sum_add(&sum, DN_REG_X0, alpha * take);
    dn_sum_add(&sum, DN_REG_X, alpha * skip);
    dn_sum_add(&sum, DN_REG_NOISE, last ? 0.0 : level[1].sigma);
    dn_sum_into(out, DN_REG_X, &sum);
}

/* Down to s = (1 - eta) t' without noise, and up to t' with it. */
static void feed_tcd(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    bool last = state->step == context->schedule.steps;
    double eta = dn_option_value(context, DN_OPT_ETA), to = last ? 0.0 : context->schedule.level[step + 1].time;
    dn_level low = dn_level_vp(context, floor((1.0 - eta) * to)), next = dn_level_vp(context, to);
    double up = !last && eta > 0.0 ? next.alpha / low.alpha : 1.0, added = up < 1.0 ? sqrt(1.0 - up * up) : 0.0;
    if (added > 0.0)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_sum sum = {0};
    dn_sum_add(&sum, DN_REG_X0, up * low.alpha);
    dn_sum_add(&sum, DN_REG_EPS, up * low.sigma);
    dn_sum_add(&sum, DN_REG_NOISE, added);
    dn_sum_into(out, DN_REG_X, &sum);
}

static const dn_option_field lcm_fields[] = {
    {DN_OPT_ORIGINAL_INFERENCE_STEPS, 1.0, 1000.0, 50.0},
    DN_FIELD_RESCALE,
    DN_FIELDS_CLIP(0.0),
    DN_FIELDS_THRESHOLDING,
};
static const dn_option_field tcd_fields[] = {
    {DN_OPT_ETA, 0.0, 1.0, 0.3},
    {DN_OPT_ORIGINAL_INFERENCE_STEPS, 1.0, 1000.0, 50.0},
    DN_FIELD_RESCALE,
};

const dn_sampler dn_sampler_lcm = {
    .name = "lcm",
    .title = "LCM",
    .scheduler_class = "LCMScheduler",
    .source = "Luo et al. 2023 (arXiv 2310.04378), algorithm 3",
    .families = 1u << DN_FAMILY_VP,
    .order = 1,
    .evaluations_per_step = 1,
    .stochastic = true,
    .memoryless = true,
    .fields = lcm_fields,
    .field_count = sizeof lcm_fields / sizeof lcm_fields[0],
    .schedule = schedule,
    .next = dn_next_plain,
    .feed = feed_lcm,
};

const dn_sampler dn_sampler_tcd = {
    .name = "tcd",
    .title = "TCD",
    .scheduler_class = "TCDScheduler",
    .source = "Zheng et al. 2024 (arXiv 2402.19159), algorithm 3",
    .families = 1u << DN_FAMILY_VP,
    .order = 1,
    .evaluations_per_step = 1,
    .stochastic = true,
    .memoryless = true,
    .renoises = true,
    .fields = tcd_fields,
    .field_count = sizeof tcd_fields / sizeof tcd_fields[0],
    .schedule = schedule,
    .next = dn_next_plain,
    .feed = feed_tcd,
};
