/* SA-Solver: Xue et al. 2023 (arXiv 2309.05019), algorithm 1: a stochastic Adams-Bashforth predictor and Adams-Moulton corrector, one
 * evaluation a step, by x0 or by noise, as SASolverScheduler of diffusers 0.31 does it. Pure functions, any thread.
 *
 * tau(t) is how random the path is: diffusers' default, 1 for times from 200 to 800 and 0 outside, times eta; these are
 * timesteps as they are, of however many (a network of 100 timesteps is sampled without noise).
 * With c = 1 + tau^2, u = lambda - lambda' and l_j the Lagrange polynomials of the answers' lambdas, by x0:
 *   x' = sigma'/sigma e^{-tau^2 h} x + c alpha' sum_j m_j int_{-h}^0 e^{c u} l_j du + sigma' sqrt(1 - e^{-2 tau^2 h}) z   (eq. 14)
 * and by noise:
 *   x' = alpha'/alpha x - c sigma' sum_j m_j int_{-h}^0 e^{-u} l_j du + tau sigma' sqrt(e^{2h} - 1) z.
 * At order 2 by x0 the authors' program takes the leading term of the first moment (h^2 / 2) for the moment itself; so does this.
 *
 * Registers: H0..H3 a ring of the last answers, H4 the image before the last step, H5 that step's noise.
 * scalar[0]: the corrector's order for the last step. */
#include <math.h>
#include <string.h>

#include "diffusion/sampler_tools.h"

#define LAST DN_REG_H4
#define LAST_NOISE DN_REG_H5
#define ORDER_MAX 4
#define TAU_FROM 200.0
#define TAU_TO 800.0

typedef struct dn_sa_step {
    bool data;
    const dn_level *from, *to;
    double h, tau, c;
} dn_sa_step;

static bool by_data(const dn_sampler_context *context)
{
    return strcmp(context->config.algorithm_type, "noise_prediction") != 0;
}

static uint32_t ring(const dn_sampler_context *context)
{
    uint32_t predictor = context->config.solver_order, corrector = context->config.corrector_order;
    return corrector > predictor + 1 ? corrector - 1 : predictor;
}

static dn_sa_step step_from(const dn_sampler_context *context, uint32_t step)
{
    const dn_level *level = &context->schedule.level[step];
    dn_sa_step s = {.data = by_data(context), .from = level, .to = level + 1};
    bool random = level->time >= TAU_FROM && level->time <= TAU_TO;
    s.h = dn_lambda(s.to) - dn_lambda(s.from);
    s.tau = random ? dn_option_value(context, DN_OPT_ETA) : 0.0;
    s.c = s.data ? 1.0 + s.tau * s.tau : -1.0;
    return s;
}

/* The integral from -h to 0 of e^{c u} u^n du, n = 0 .. 3, by parts. */
static void set_moments(double c, double h, double moment[ORDER_MAX])
{
    double edge = exp(-c * h) / c;
    moment[0] = -expm1(-c * h) / c;
    for (uint32_t n = 1; n < ORDER_MAX; n++) {
        edge *= -h;
        moment[n] = -edge - n / c * moment[n - 1];
    }
}

/* The answers' lambdas relative to the end of the step; the highest order for which all differ. */
static uint32_t set_nodes(const dn_sampler_context *context, uint32_t newest, const dn_sa_step *s, uint32_t order, double u[ORDER_MAX])
{
    for (uint32_t j = 0; j < order; j++) {
        u[j] = dn_lambda(&context->schedule.level[newest - j]) - dn_lambda(s->to);
        for (uint32_t k = 0; k < j; k++)
            if (!(fabs(u[j] - u[k]) > 1e-9))
                return j;
    }
    return order;
}

/* weight[j] = int e^{c u} l_j(u) du. */
static void set_weights(const dn_sa_step *s, const double *u, uint32_t order, double weight[ORDER_MAX])
{
    double moment[ORDER_MAX];
    set_moments(s->c, s->h, moment);
    for (uint32_t j = 0; j < order; j++) {
        double p[ORDER_MAX] = {1.0, 0.0, 0.0, 0.0};
        for (uint32_t k = 0; k < order; k++) {
            if (k == j)
                continue;
            for (uint32_t n = ORDER_MAX; n-- > 0;)
                p[n] = ((n > 0 ? p[n - 1] : 0.0) - u[k] * p[n]) / (u[j] - u[k]);
        }
        weight[j] = 0.0;
        for (uint32_t n = 0; n < order; n++)
            weight[j] += p[n] * moment[n];
    }
}

/* The image after the step: `image` before it, answers newest first in `answer`, `noise` its noise. */
static void append_update(const dn_sa_step *s, uint32_t image, const uint32_t *answer, const double *weight, uint32_t order, uint32_t noise,
                          dn_ops *out)
{
    double tau2 = s->tau * s->tau;
    double scale = s->data ? s->c * s->to->alpha : -(1.0 + tau2) * s->to->sigma;
    double deviation = s->data ? s->to->sigma * sqrt(-expm1(-2.0 * tau2 * s->h)) : s->tau * s->to->sigma * sqrt(expm1(2.0 * s->h));
    dn_sum sum = {0};
    dn_sum_add(&sum, image, s->data ? s->to->sigma / s->from->sigma * exp(-tau2 * s->h) : s->to->alpha / s->from->alpha);
    for (uint32_t j = 0; j < order; j++)
        dn_sum_add(&sum, answer[j], scale * weight[j]);
    dn_sum_add(&sum, noise, deviation);
    dn_sum_into(out, DN_REG_X, &sum);
}

/* (h c - 1 + e^{-ch}) / c^2: the integral of -u e^{cu}. */
static double slope_integral(const dn_sa_step *s)
{
    return (s->h * s->c + expm1(-s->c * s->h)) / (s->c * s->c);
}

static void append_corrector(const dn_sampler_context *context, const dn_sampler_state *state, uint32_t answer, dn_ops *out)
{
    uint32_t step = state->step, order = (uint32_t)state->scalar[0], answers[ORDER_MAX] = {answer};
    double u[ORDER_MAX], weight[ORDER_MAX];
    if (state->history == 0 || order == 0)
        return;
    dn_sa_step s = step_from(context, step - 1);
    if (!(s.h > 0.0) || !isfinite(s.h))
        return;
    order = set_nodes(context, step, &s, order, u);
    set_weights(&s, u, order, weight);
    if (order == 2 && s.data) {
        double more = s.h / 2.0 - slope_integral(&s) / s.h;
        weight[0] += more;
        weight[1] -= more;
    }
    for (uint32_t j = 1; j < order; j++)
        answers[j] = dn_history_at(step, j, ring(context));
    append_update(&s, LAST, answers, weight, order, LAST_NOISE, out);
}

static void append_predictor(const dn_sampler_context *context, const dn_sampler_state *state, uint32_t order, dn_ops *out)
{
    uint32_t step = state->step, answers[ORDER_MAX];
    double u[ORDER_MAX], weight[ORDER_MAX];
    dn_sa_step s = step_from(context, step);
    if (!(s.h > 0.0)) /* the level repeats itself: nothing moves */
        return;
    if (!isfinite(s.h)) {
        dn_ops_linear(out, DN_REG_X, 1, (const uint32_t[]){DN_REG_X0}, &s.to->alpha);
        return;
    }
    order = set_nodes(context, step, &s, order, u);
    set_weights(&s, u, order, weight);
    if (order == 2 && s.data) {
        double more = (s.h * s.h / 2.0 - slope_integral(&s)) / (u[0] - u[1]);
        weight[0] += more;
        weight[1] -= more;
    }
    for (uint32_t j = 0; j < order; j++)
        answers[j] = dn_history_at(step, j, ring(context));
    append_update(&s, DN_REG_X, answers, weight, order, LAST_NOISE, out);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const dn_scheduler_config *config = &context->config;
    uint32_t step = state->step, left = context->schedule.steps - step, size = ring(context);
    const dn_level *level = &context->schedule.level[step];
    uint32_t answer = by_data(context) ? DN_REG_X0 : dn_append_noise_answer(context, level, out);
    append_corrector(context, state, answer, out);
    dn_ops_copy(out, dn_history_at(step, 0, size), answer);
    dn_ops_copy(out, LAST, DN_REG_X);
    bool noisy = step_from(context, step).tau > 0.0;
    if (noisy)
        dn_ops_noise(out, LAST_NOISE, context->seed, DN_STREAM_STEP, step);
    uint32_t predictor = config->lower_order_final ? least(config->solver_order, left) : config->solver_order;
    uint32_t corrector = config->lower_order_final ? least(config->corrector_order, left + 1) : config->corrector_order;
    append_predictor(context, state, least(predictor, state->history + 1), out);
    state->scalar[0] = least(corrector, state->history + 2);
    if (state->history < size)
        state->history++;
    state->live = dn_history_live(step, state->history, size) | 1u << LAST | (noisy ? 1u << LAST_NOISE : 0u);
    state->step++;
}

static const dn_option_field fields[] = {
    {DN_OPT_ETA, 0.0, 1.0, 1.0},
    DN_FIELDS_SIGMAS,
    {DN_OPT_FINAL_SIGMA, 0.0, 1.0, 1.0},
    DN_FIELDS_THRESHOLDING,
    {DN_OPT_SOLVER_ORDER, 1.0, 4.0, 2.0},
    {DN_OPT_CORRECTOR_ORDER, 0.0, 4.0, 2.0},
    {DN_OPT_LOWER_ORDER_FINAL, 0.0, 1.0, 1.0},
};

const dn_sampler dn_sampler_sa = {
    .name = "sa_solver",
    .title = "SA-Solver",
    .scheduler_class = "SASolverScheduler",
    .source = "Xue et al. 2023 (arXiv 2309.05019), algorithm 1",
    .families = 1u << DN_FAMILY_VP,
    .order = 2,
    .evaluations_per_step = 1,
    .stochastic = true,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = dn_levels_dpm,
    .next = dn_next_plain,
    .feed = feed,
};
