/* Linear multistep methods on the probability flow with one evaluation a step: LMS and iPNDM. With y = x / alpha and r = sigma / alpha
 * the flow is dy = eps dr. Pure functions, any thread.
 *
 *   lms    Adams-Bashforth of order 1 to 4 for steps of any length: the noise is interpolated in r and integrated exactly (k-diffusion's
 *          sample_lms; diffusers integrates the same polynomial by quadrature).
 *   ipndm  Adams-Bashforth with the weights of equal steps (Zhang and Chen 2023, arXiv 2204.13902, appendix; Liu et al. 2022,
 *          arXiv 2202.09778, eq. 12), started with lower orders instead of Runge-Kutta steps. Its order is that of its weights only
 *          where steps are equal. diffusers' IPNDMScheduler is this on levels of its own, for networks with times from 0 to 1.
 *
 * Registers: H0..H3 a ring of the last answers. */
#include <math.h>

#include "diffusion/sampler_tools.h"

#define ORDER_MAX 4

/* The integral from a to b of the Lagrange polynomial that is 1 at r[j] and 0 at the others. Shifted to a, for accuracy. */
static double lagrange_integral(double a, double b, const double *r, uint32_t order, uint32_t j)
{
    double c[ORDER_MAX] = {1.0, 0.0, 0.0, 0.0}, sum = 0.0, power = 1.0; /* c[n]: of (t - a)^n */
    for (uint32_t k = 0; k < order; k++) {
        if (k == j)
            continue;
        double root = r[k] - a, over = 1.0 / (r[j] - r[k]);
        for (uint32_t n = ORDER_MAX; n-- > 0;)
            c[n] = over * ((n > 0 ? c[n - 1] : 0.0) - root * c[n]);
    }
    for (uint32_t n = 0; n < order; n++) {
        power *= b - a;
        sum += c[n] * power / (n + 1.0);
    }
    return sum;
}

/* The levels of the last `order` answers; the highest order whose levels all differ. */
static uint32_t set_levels(const dn_sampler_context *context, uint32_t step, uint32_t order, double r[ORDER_MAX])
{
    for (uint32_t i = 0; i < order; i++) {
        r[i] = dn_level_ratio(&context->schedule.level[step - i]);
        for (uint32_t k = 0; k < i; k++)
            if (!(fabs(r[i] - r[k]) > 1e-9 * r[0]))
                return i;
    }
    return order;
}

static uint32_t order_of(const dn_sampler_context *context, const dn_sampler_state *state)
{
    return context->config.solver_order < state->history + 1 ? context->config.solver_order : state->history + 1;
}

/* y' = y + sum of weight[j] eps_j; the answer lies in the ring already. */
static void append_step(const dn_sampler_context *context, dn_sampler_state *state, uint32_t order, const double *weight, dn_ops *out)
{
    uint32_t step = state->step, size = context->config.solver_order;
    const dn_level *from = &context->schedule.level[step], *to = &context->schedule.level[step + 1];
    dn_sum sum = {0};
    dn_sum_add(&sum, DN_REG_X, to->alpha / from->alpha);
    for (uint32_t j = 0; j < order; j++)
        dn_sum_add(&sum, dn_history_at(step, j, size), to->alpha * weight[j]);
    dn_sum_into(out, DN_REG_X, &sum);
    if (state->history + 1 < size)
        state->history++;
    state->live = dn_history_live(step, state->history, size);
    state->step++;
}

static void feed_lms(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    double r[ORDER_MAX], weight[ORDER_MAX];
    double to = dn_level_ratio(&context->schedule.level[state->step + 1]);
    uint32_t order = set_levels(context, state->step, order_of(context, state), r);
    dn_ops_copy(out, dn_history_at(state->step, 0, context->config.solver_order), DN_REG_EPS);
    for (uint32_t j = 0; j < order; j++)
        weight[j] = lagrange_integral(r[0], to, r, order, j);
    append_step(context, state, order, weight, out);
}

static void feed_ipndm(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    static const double adams[ORDER_MAX][ORDER_MAX] = {
        {1.0, 0.0, 0.0, 0.0},
        {3.0 / 2, -1.0 / 2, 0.0, 0.0},
        {23.0 / 12, -16.0 / 12, 5.0 / 12, 0.0},
        {55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24},
    };
    const dn_level *level = &context->schedule.level[state->step];
    uint32_t order = order_of(context, state);
    double weight[ORDER_MAX], length = dn_level_ratio(&level[1]) - dn_level_ratio(&level[0]);
    dn_ops_copy(out, dn_history_at(state->step, 0, context->config.solver_order), DN_REG_EPS);
    for (uint32_t j = 0; j < order; j++)
        weight[j] = length * adams[order - 1][j];
    append_step(context, state, order, weight, out);
}

static const dn_option_field lms_fields[] = {DN_FIELDS_SIGMAS, {DN_OPT_SOLVER_ORDER, 1.0, 4.0, 4.0}};

const dn_sampler dn_sampler_lms = {
    .name = "lms",
    .title = "LMS",
    .scheduler_class = "LMSDiscreteScheduler",
    .source = "k-diffusion, sample_lms: Adams-Bashforth with steps of any length",
    .families = DN_FAMILIES_ALL,
    .order = 4,
    .evaluations_per_step = 1,
    .fields = lms_fields,
    .field_count = sizeof lms_fields / sizeof lms_fields[0],
    .schedule = dn_levels_sigma,
    .next = dn_next_plain,
    .feed = feed_lms,
};

/* Karras levels, for which the method is known to do best at few evaluations. */
static const dn_option_field ipndm_fields[] = {
    {DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_MODEL, DN_SIGMAS_BETA, DN_SIGMAS_KARRAS},
    DN_FIELD_LINSPACE,
    DN_FIELDS_SIGMA_RANGE,
    DN_FIELD_FINAL_SIGMA,
    {DN_OPT_SOLVER_ORDER, 1.0, 4.0, 4.0},
};

const dn_sampler dn_sampler_ipndm = {
    .name = "ipndm",
    .title = "iPNDM",
    .scheduler_class = "EulerDiscreteScheduler",
    .source = "Zhang and Chen 2023 (arXiv 2204.13902), improved PNDM",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 1,
    .fields = ipndm_fields,
    .field_count = sizeof ipndm_fields / sizeof ipndm_fields[0],
    .schedule = dn_levels_sigma,
    .next = dn_next_plain,
    .feed = feed_ipndm,
};
