/* DPM-Solver singlestep: Lu et al. 2022a (arXiv 2206.00927), algorithms 1 and 2, and 2022b (arXiv 2211.01095), algorithm 1, orders 1 to
 * 3, by x0 or by noise, and the SDE form up to order 2, as DPMSolverSinglestepScheduler of diffusers 0.31 does them: its steps are the
 * sub-steps of the papers, so that n steps are n evaluations. Orders go 1, 2, 3, 1, 2, 3, ...; a step of order k starts again from the
 * image k - 1 steps ago and uses the k answers since. Pure functions, any thread.
 *
 * A step of higher order that would end at the image (sigma' = 0, where diffusers gives NaN) and one whose levels repeat themselves are
 * of first order. diffusers sets lower_order_final where the steps do not divide by the order or end at 0; so does this.
 *
 * Registers: H0..H2 a ring of the last answers, H3 the image where the current group of sub-steps began. State: history = answers that
 * are remembered, at most the order. */
#include <math.h>
#include <string.h>

#include "diffusion/sampler_tools.h"

#define BASE DN_REG_H3

typedef struct dn_single_step {
    bool data, sde, heun;
    const dn_level *from, *to; /* from: where the group began */
    double h, r0, r1; /* r0, r1: how far the newest answers lie along h */
    double scale, e1; /* scale e1 answers the first difference: data -a'(e^-h - 1), noise -s'(e^h - 1), SDE a'(1 - e^-2h) */
} dn_single_step;

/* The order of sub-step `step` of n steps (get_order_list of diffusers). */
static uint32_t order_in_list(const dn_scheduler_config *config, uint32_t step, uint32_t n)
{
    uint32_t order = config->solver_order, place = step % order;
    bool lower = config->lower_order_final || n % order != 0 || !config->final_sigma_min;
    if (!lower || order == 1)
        return place + 1;
    if (order == 2)
        return n % 2 == 0 && step + 1 == n ? 1 : place + 1;
    return n % 3 == 0 && step + 1 == n ? 1 : place + 1;
}

/* The coefficient of the second difference in heun's form and of the third order's first: a'((e^-h - 1)/h + 1) and its likes. */
static double second(const dn_single_step *s)
{
    double h = s->sde ? 2.0 * s->h : s->h;
    return s->data ? s->scale * (expm1(-h) / h + 1.0) : -s->scale * (expm1(h) / h - 1.0);
}

static double third(const dn_single_step *s)
{
    double h = s->h;
    return s->data ? -s->scale * ((expm1(-h) + h) / (h * h) - 0.5) : -s->scale * ((expm1(h) - h) / (h * h) - 0.5);
}

/* The weights of the answers m[0] (newest) to m[order - 1]. */
static void set_weights(const dn_single_step *s, uint32_t order, double m[3])
{
    memset(m, 0, 3 * sizeof m[0]);
    m[order - 1] = s->e1;
    if (order == 2) {
        double d1 = (s->heun ? second(s) : 0.5 * s->e1) / s->r0;
        m[0] += d1;
        m[1] -= d1;
    } else if (order == 3) {
        /* A = (m1 - m2) / r1, B = (m0 - m2) / r0; D1 = (r0 A - r1 B) / (r0 - r1), D2 = 2 (B - A) / (r0 - r1); midpoint takes B for D1. */
        double over = 1.0 / (s->r0 - s->r1), of_a = 0.0, of_b = second(s);
        if (s->heun) {
            of_a = second(s) * s->r0 * over - 2.0 * third(s) * over;
            of_b = -second(s) * s->r1 * over + 2.0 * third(s) * over;
        }
        m[0] += of_b / s->r0;
        m[1] += of_a / s->r1;
        m[2] -= of_b / s->r0 + of_a / s->r1;
    }
}

/* The step of order `order` that ends after `step`; false: its levels do not allow that order. */
static bool set_step(dn_single_step *s, const dn_sampler_context *context, uint32_t step, uint32_t order)
{
    const dn_level *level = context->schedule.level;
    s->from = &level[step + 1 - order];
    s->to = &level[step + 1];
    s->h = dn_lambda(s->to) - dn_lambda(s->from);
    s->r0 = (dn_lambda(&level[step]) - dn_lambda(s->from)) / s->h;
    s->r1 = order == 3 ? (dn_lambda(&level[step - 1]) - dn_lambda(s->from)) / s->h : 0.0;
    s->scale = s->data ? s->to->alpha : s->to->sigma;
    s->e1 = s->sde ? -s->scale * expm1(-2.0 * s->h) : s->data ? -s->scale * expm1(-s->h) : -s->scale * expm1(s->h);
    if (order == 1)
        return true;
    bool apart = order == 2 || (s->r1 > 0.0 && s->r0 > s->r1);
    return isfinite(s->h) && s->r0 > 0.0 && apart;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const dn_scheduler_config *config = &context->config;
    uint32_t step = state->step, size = config->solver_order;
    dn_single_step s = {.data = strstr(config->algorithm_type, "++") != NULL,
                        .sde = strncmp(config->algorithm_type, "sde-", 4) == 0,
                        .heun = strcmp(config->solver_type, "heun") == 0};
    uint32_t answer = s.data ? DN_REG_X0 : dn_append_noise_answer(context, &context->schedule.level[step], out);
    dn_ops_copy(out, dn_history_at(step, 0, size), answer);
    uint32_t order = order_in_list(config, step, context->schedule.steps);
    order = order < state->history + 1 ? order : state->history + 1;
    bool allowed = set_step(&s, context, step, order);
    uint32_t base = order == 1 || !allowed ? DN_REG_X : BASE;
    if (order == 1 || !allowed)
        dn_ops_copy(out, BASE, DN_REG_X);
    if (!allowed)
        (void)set_step(&s, context, step, order = 1);
    double m[3];
    set_weights(&s, order, m);
    dn_sum sum = {0};
    dn_sum_add(&sum, base, s.data ? s.to->sigma / s.from->sigma * (s.sde ? exp(-s.h) : 1.0) : s.to->alpha / s.from->alpha);
    for (uint32_t i = 0; i < order; i++)
        dn_sum_add(&sum, dn_history_at(step, i, size), m[i]);
    double deviation = s.sde ? s.to->sigma * sqrt(-expm1(-2.0 * s.h)) : 0.0;
    if (deviation > 0.0)
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
    dn_sum_add(&sum, DN_REG_NOISE, deviation);
    dn_sum_into(out, DN_REG_X, &sum);
    if (state->history + 1 < size)
        state->history++;
    state->live = size == 1 ? 0 : dn_history_live(step, state->history, size) | 1u << BASE;
    state->step++;
}

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_scheduler_config *config = &context->config;
    bool sde = strncmp(config->algorithm_type, "sde-", 4) == 0;
    if (sde && config->solver_order == 3)
        return dn_fail(error, DN_UNSUPPORTED, "solver_order 3 with algorithm_type \"%s\" is not supported", config->algorithm_type);
    if (strstr(config->algorithm_type, "++") == NULL && !config->final_sigma_min)
        return dn_fail(error, DN_INVALID, "algorithm_type \"%s\" needs final_sigmas_type \"sigma_min\"", config->algorithm_type);
    return dn_levels_dpm(out, context, steps, error);
}

static const dn_option_field fields[] = {
    {DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_MODEL, DN_SIGMAS_BETA, DN_SIGMAS_MODEL},
    DN_FIELDS_SIGMA_RANGE,
    DN_FIELD_FINAL_SIGMA,
    DN_FIELDS_THRESHOLDING,
    {DN_OPT_SOLVER_ORDER, 1.0, 3.0, 2.0},
    {DN_OPT_SOLVER_TYPE, DN_SOLVER_MIDPOINT, DN_SOLVER_HEUN, DN_SOLVER_MIDPOINT},
    {DN_OPT_LOWER_ORDER_FINAL, 0.0, 1.0, 0.0},
};

const dn_sampler dn_sampler_dpmpp_2s = {
    .name = "dpmpp_2s",
    .title = "DPM-Solver++(2S)",
    .scheduler_class = "DPMSolverSinglestepScheduler",
    .source = "Lu et al. 2022b (arXiv 2211.01095), algorithm 1; 2022a (arXiv 2206.00927), algorithms 1 and 2",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 1,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = schedule,
    .next = dn_next_plain,
    .feed = feed,
};
