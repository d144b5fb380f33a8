/* DEIS: Zhang and Chen 2023 (arXiv 2204.13902), eq. 15 and section 3.3 (rho-AB in log rho), orders 1 to 3, as DEISMultistepScheduler of
 * diffusers 0.31 does them. Pure functions, any thread.
 *
 * With rho = sigma / alpha and y = x / alpha the flow is dy = eps drho; the noise is interpolated by a polynomial in log rho through
 * the last answers and integrated exactly:
 *   int_{rho}^{rho'} prod_k (log t - log rho_k) / (log rho_j - log rho_k) dt,   int log^n t dt = t (log^n t - n int log^{n-1} t / t ...).
 * Where levels repeat themselves the order falls until the differences exist.
 *
 * Registers: H0..H2 a ring of the last answers. */
#include <math.h>

#include "diffusion/sampler_tools.h"

#define ORDER_MAX 3

/* The integral from a to b of (log t)^n dt, n <= 2. */
static double log_power(double a, double b, uint32_t n)
{
    double la = log(a), lb = log(b);
    if (n == 0)
        return b - a;
    if (n == 1)
        return b * (lb - 1.0) - a * (la - 1.0);
    return b * (lb * lb - 2.0 * lb + 2.0) - a * (la * la - 2.0 * la + 2.0);
}

/* The integral from `from` to `to` of the Lagrange polynomial that is 1 at log rho[j] and 0 at the others. */
static double weight(double from, double to, const double *rho, uint32_t order, uint32_t j)
{
    double c[ORDER_MAX] = {1.0, 0.0, 0.0}, sum = 0.0; /* c[n]: of (log t)^n */
    for (uint32_t k = 0; k < order; k++) {
        if (k == j)
            continue;
        double root = log(rho[k]), over = 1.0 / (log(rho[j]) - root);
        for (uint32_t n = ORDER_MAX; n-- > 0;)
            c[n] = over * ((n > 0 ? c[n - 1] : 0.0) - root * c[n]);
    }
    for (uint32_t n = 0; n < order; n++)
        sum += c[n] * log_power(from, to, n);
    return sum;
}

/* The levels of the last `order` answers; the highest order whose levels all differ. */
static uint32_t set_levels(const dn_sampler_context *context, uint32_t step, uint32_t order, double rho[ORDER_MAX])
{
    for (uint32_t i = 0; i < order; i++) {
        rho[i] = dn_level_ratio(&context->schedule.level[step - i]);
        for (uint32_t k = 0; k < i; k++)
            if (!(fabs(log(rho[i] / rho[k])) > 1e-9))
                return i;
    }
    return order;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t step = state->step, size = context->config.solver_order;
    const dn_level *from = &context->schedule.level[step], *to = &context->schedule.level[step + 1];
    double rho[ORDER_MAX];
    dn_ops_copy(out, dn_history_at(step, 0, size), dn_append_noise_answer(context, from, out));
    uint32_t order = set_levels(context, step, dn_multistep_order(context, state), rho);
    dn_sum sum = {0};
    if (to->sigma == 0.0) {
        dn_sum_add(&sum, DN_REG_X0, to->alpha);
    } else {
        dn_sum_add(&sum, DN_REG_X, to->alpha / from->alpha);
        for (uint32_t j = 0; j < order; j++)
            dn_sum_add(&sum, dn_history_at(step, j, size), to->alpha * weight(rho[0], dn_level_ratio(to), rho, order, j));
    }
    dn_sum_into(out, DN_REG_X, &sum);
    if (state->history + 1 < size)
        state->history++;
    state->live = dn_history_live(step, state->history, size);
    state->step++;
}

static const dn_option_field fields[] = {
    DN_FIELDS_SIGMAS,
    {DN_OPT_FINAL_SIGMA, 0.0, 1.0, 1.0},
    DN_FIELDS_THRESHOLDING,
    {DN_OPT_SOLVER_ORDER, 1.0, 3.0, 2.0},
    {DN_OPT_LOWER_ORDER_FINAL, 0.0, 1.0, 1.0},
};

const dn_sampler dn_sampler_deis = {
    .name = "deis",
    .title = "DEIS",
    .scheduler_class = "DEISMultistepScheduler",
    .source = "Zhang and Chen 2023 (arXiv 2204.13902), section 3.3",
    .families = DN_FAMILIES_ALL,
    .order = 2,
    .evaluations_per_step = 1,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = dn_levels_dpm,
    .next = dn_next_plain,
    .feed = feed,
};
