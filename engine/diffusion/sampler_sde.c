/* Samplers of the reverse-time stochastic differential equation: Euler-Maruyama's method, and predictor-corrector sampling (Song et
 * al. 2021, arXiv 2011.13456, eq. 6, algorithms 2 to 5). Pure functions, any thread.
 *
 * With the score s = -n / sigma, from a level to the next:
 *   VP    beta = 2 log(alpha' / alpha), the integral of beta(t) over the step: x' = (1 + beta/2) x + beta s + sqrt(beta) z
 *   VE    v = sigma^2 - sigma'^2 (EDM's networks too):                        x' = x + v s + sqrt(v) z
 *   FLOW  d = t - t', diffusion w(t) = t (SiT, Ma et al. 2024, eq. 4):        x' = x - d u + d w s + sqrt(2 d w) z, u = n - x0.
 * The last step, to the image, takes the mean without noise; the seed documents add noise there and divide by a sigma of 0 at the end.
 *
 * Predictor-corrector: before each step corrector_steps Langevin steps at its level (Song et al., algorithms 4 and 5), each an
 * evaluation; the predictor is the reverse diffusion. State: stage = Langevin steps done at this level. */
#include <math.h>

#include "diffusion/family.h"
#include "diffusion/levels.h"
#include "diffusion/samplers.h"

#define DN_FLOW_LAST_STEP 0.04 /* SiT: the length in t of the last, noiseless step */

/* Even times over the table's whole range, fractional; then the image. Tables with zero terminal signal may fall at their end, where
 * 2^-24 stands for 0: there nothing moves. */
static void levels_vp(dn_schedule *out, const dn_sampler_context *context, uint32_t steps)
{
    double top = context->training->timesteps - 1.0, highest = INFINITY;
    out->steps = steps;
    out->start_scale = 1.0;
    for (uint32_t i = 0; i < steps; i++) {
        double time = steps == 1 ? top : top * (steps - 1 - i) / (steps - 1);
        double ratio = fmin(dn_training_sigma(context->training, time), highest), alpha = 1.0 / sqrt(1.0 + ratio * ratio);
        highest = ratio;
        out->level[i] = (dn_level){.time = time, .alpha = alpha, .sigma = ratio * alpha};
    }
    out->level[steps] = (dn_level){.time = 0.0, .alpha = 1.0, .sigma = 0.0};
}

static void levels_flow(dn_schedule *out, const dn_sampler_context *context, uint32_t steps)
{
    out->steps = steps;
    out->start_scale = 1.0;
    for (uint32_t i = 0; i <= steps; i++) {
        double even = i == steps ? 0.0 : 1.0 - (1.0 - DN_FLOW_LAST_STEP) * (steps == 1 ? 0.0 : (double)i / (steps - 1));
        double time = dn_shifted(context->training->shift, even);
        out->level[i] = dn_level_at(context->training, 1.0 - time, time);
    }
}

static dn_status schedule_maruyama(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    if (context->training->family == DN_FAMILY_VP)
        levels_vp(out, context, steps);
    else if (context->training->family == DN_FAMILY_FLOW)
        levels_flow(out, context, steps);
    else
        return dn_levels_family(out, context, steps, DN_FORM_EXPLODING, error);
    return DN_OK;
}

/* x' = keep x + noise n + clean x0 + fresh z. */
typedef struct sde_step {
    double keep, noise, clean, fresh;
} sde_step;

static sde_step exploding_step(double sigma, double to)
{
    double variance = sigma * sigma - to * to;
    return (sde_step){.keep = 1.0, .noise = -variance / sigma, .fresh = sqrt(variance)};
}

static void append_step(const dn_sampler_context *context, uint32_t step, uint32_t draw, const sde_step *s, dn_ops *out)
{
    bool noisy = step + 1 < context->schedule.steps;
    if (noisy)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, draw);
    dn_ops_linear(out, DN_REG_X, noisy ? 4 : 3, (const uint32_t[]){DN_REG_X, DN_REG_EPS, DN_REG_X0, DN_REG_NOISE},
                  (const double[]){s->keep, s->noise, s->clean, s->fresh});
}

static void feed_maruyama(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step++;
    const dn_level *from = &context->schedule.level[step], *to = from + 1;
    double beta = 2.0 * log(to->alpha / from->alpha), length = from->sigma - to->sigma;
    sde_step s = {.keep = 1.0 + 0.5 * beta, .noise = -beta / from->sigma, .fresh = sqrt(beta)};
    if (context->training->family == DN_FAMILY_FLOW)
        s = (sde_step){.keep = 1.0, .noise = -2.0 * length, .clean = length, .fresh = sqrt(2.0 * length * from->sigma)};
    else if (context->training->family != DN_FAMILY_VP)
        s = exploding_step(from->sigma, to->sigma);
    append_step(context, step, step, &s, out);
}

const dn_sampler dn_sampler_euler_maruyama = {
    .name = "euler_maruyama",
    .title = "Euler-Maruyama on the reverse SDE",
    .scheduler_class = "EulerDiscreteScheduler",
    .source = "Song et al. 2021, arXiv 2011.13456, eq. 6; flow matching: Ma et al. 2024, arXiv 2401.08740, eq. 4",
    .families = DN_FAMILIES_ALL,
    .order = 1,
    .evaluations_per_step = 1,
    .memoryless = true,
    .stochastic = true,
    .schedule = schedule_maruyama,
    .next = dn_next_plain,
    .feed = feed_maruyama,
};

static dn_status schedule_corrected(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    if (context->training->family != DN_FAMILY_VP)
        return dn_levels_family(out, context, steps, DN_FORM_EXPLODING, error);
    levels_vp(out, context, steps);
    return DN_OK;
}

static uint32_t corrections_of(const dn_sampler_context *context)
{
    double given = dn_option_value(context, DN_OPT_CORRECTOR_STEPS);
    return isnan(given) ? context->config.correct_steps : (uint32_t)given;
}

/* Algorithm 5 (VP) shortens the step by 1 - beta; algorithm 4 does not. */
static void append_langevin(const dn_sampler_context *context, const dn_level *level, double kept, uint32_t draw, dn_ops *out)
{
    double given = dn_option_value(context, DN_OPT_SNR);
    dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, draw);
    dn_ops_linear(out, DN_REG_SCRATCH, 1, (const uint32_t[]){DN_REG_EPS}, (const double[]){-1.0 / level->sigma});
    out->op[out->count++] = (dn_op){.kind = DN_OP_LANGEVIN,
                                    .dst = DN_REG_X,
                                    .terms = 3,
                                    .src = {DN_REG_X, DN_REG_SCRATCH, DN_REG_NOISE},
                                    .low = (float)kept,
                                    .ratio = (float)(isnan(given) ? context->config.snr : given)};
}

static void feed_corrected(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const dn_level *from = &context->schedule.level[state->step], *to = from + 1;
    bool preserving = context->training->family == DN_FAMILY_VP;
    double kept = preserving ? from->alpha * from->alpha / (to->alpha * to->alpha) : 1.0;
    uint32_t corrections = corrections_of(context), draw = state->step * (corrections + 1) + state->stage;
    if (state->stage < corrections) {
        append_langevin(context, from, kept, draw, out);
        state->stage++;
        return;
    }
    sde_step s = exploding_step(from->sigma, to->sigma);
    if (preserving) {
        double beta = 1.0 - kept;
        s = (sde_step){.keep = 2.0 - sqrt(kept), .noise = -beta / from->sigma, .fresh = sqrt(beta)};
    }
    append_step(context, state->step, draw, &s, out);
    state->stage = 0;
    state->step++;
}

static const dn_option_field corrector_fields[] = {{DN_OPT_CORRECTOR_STEPS, 0.0, 16.0, NAN}, {DN_OPT_SNR, 1e-6, 10.0, NAN}};

const dn_sampler dn_sampler_predictor_corrector = {
    .name = "predictor_corrector",
    .title = "Predictor-corrector",
    .scheduler_class = "ScoreSdeVeScheduler",
    .source = "Song et al. 2021, arXiv 2011.13456, algorithms 2 to 5",
    .families = DN_FAMILIES_ALL,
    .score_only = true, /* a Langevin step divides by the score */
    .order = 1,
    .evaluations_per_step = 2,
    .stochastic = true,
    .fields = corrector_fields,
    .field_count = sizeof corrector_fields / sizeof corrector_fields[0],
    .schedule = schedule_corrected,
    .next = dn_next_plain,
    .feed = feed_corrected,
};
