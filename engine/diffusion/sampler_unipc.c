/* UniPC: Zhao et al. 2023 (arXiv 2302.04867), algorithms 1 (UniC) and 2 (UniP), orders 1 to 3, with B1(h) = h or B2(h) = e^h - 1, by x0
 * or by noise, as UniPCMultistepScheduler of diffusers 0.31 does them. Each evaluation first corrects the step that led to it and then
 * predicts the next one, so that the corrector costs no evaluation. Pure functions, any thread.
 *
 * h = lambda' - lambda and r_i = (lambda_i - lambda) / h; hh = -h by x0, h by noise. A step that ends at the image (sigma' = 0, where
 * diffusers gives NaN with B1 or by noise) is of first order, x = x0; where levels repeat themselves the order falls until the
 * differences exist.
 *
 * Registers: H0..H2 a ring of the last answers, H3 the image before the last step. scalar[0]: the order of the last step. */
#include <math.h>
#include <string.h>

#include "diffusion/sampler_tools.h"

#define LAST DN_REG_H3
#define ORDER_MAX 3

/* One step from `from` to `to` and its coefficients. */
typedef struct dn_unipc_step {
    const dn_level *from, *to;
    bool data; /* by x0 */
    double h, hh, b; /* b = B(hh) */
    double x, phi_1; /* coefficient of the image; expm1(hh) */
    double scale; /* alpha' by x0, sigma' by noise */
} dn_unipc_step;

static bool by_data(const dn_sampler_context *context)
{
    return strcmp(context->config.algorithm_type, "noise_prediction") != 0;
}

static dn_unipc_step step_between(const dn_sampler_context *context, uint32_t from)
{
    const dn_level *level = context->schedule.level;
    dn_unipc_step s = {.from = &level[from], .to = &level[from + 1], .data = by_data(context)};
    s.h = dn_lambda(s.to) - dn_lambda(s.from);
    s.hh = s.data ? -s.h : s.h;
    s.phi_1 = expm1(s.hh);
    s.b = strcmp(context->config.solver_type, "bh1") == 0 ? s.hh : s.phi_1;
    s.x = s.data ? s.to->sigma / s.from->sigma : s.to->alpha / s.from->alpha;
    s.scale = s.data ? s.to->alpha : s.to->sigma;
    return s;
}

/* r_1 .. r_{order-1} of the answers before `from`; the highest order whose ratios all differ from 0 and each other. */
static uint32_t set_ratios(const dn_sampler_context *context, uint32_t from, double h, uint32_t order, double r[ORDER_MAX])
{
    for (uint32_t i = 1; i < order; i++) {
        r[i - 1] = (dn_lambda(&context->schedule.level[from - i]) - dn_lambda(&context->schedule.level[from])) / h;
        if (!(fabs(r[i - 1]) > 1e-9) || (i > 1 && !(fabs(r[i - 1] - r[i - 2]) > 1e-9)))
            return i;
    }
    return order;
}

/* Solves R rho = b for `count` weights (eq. 9 and 12): row i holds r^i, b_i = h phi_{i+1}(hh) (i+1)! / B. */
static bool solve_weights(const dn_unipc_step *s, const double *r, uint32_t count, double rho[4])
{
    double rows[4][4] = {{0}}, phi = s->phi_1 / s->hh - 1.0, factorial = 1.0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t k = 0; k < count; k++)
            rows[i][k] = pow(r[k], i);
        rho[i] = phi * factorial / s->b;
        factorial *= i + 2.0;
        phi = phi / s->hh - 1.0 / factorial;
    }
    return dn_solve_small(rows, rho, count);
}

/* Adds x coefficient * image - scale * (phi_1 m0 + b * sum of rho_i (m_i - m0) / r_i), the m_i being the answers before `from`. */
static void add_known(dn_sum *sum, const dn_unipc_step *s, uint32_t image, uint32_t from, uint32_t size, uint32_t order, const double *r,
                      const double *rho)
{
    double at_m0 = s->phi_1;
    dn_sum_add(sum, image, s->x);
    for (uint32_t i = 1; i < order; i++) {
        double weight = s->b * rho[i - 1] / r[i - 1];
        at_m0 -= weight;
        dn_sum_add(sum, dn_history_at(from, i, size), -s->scale * weight);
    }
    dn_sum_add(sum, dn_history_at(from, 0, size), -s->scale * at_m0);
}

/* UniC: the image at this level again, now with the answer there. */
static void append_corrector(const dn_sampler_context *context, const dn_sampler_state *state, uint32_t answer, dn_ops *out)
{
    uint32_t last = state->step - 1, wanted = (uint32_t)state->scalar[0], size = context->config.solver_order;
    if (state->history == 0 || (last < 64 && (context->config.disable_corrector >> last & 1u)))
        return;
    if (context->config.corrector_order < wanted)
        wanted = context->config.corrector_order;
    dn_unipc_step s = step_between(context, last);
    if (wanted == 0 || !(s.h > 0.0))
        return;
    double r[ORDER_MAX] = {0}, rho[4] = {0.5};
    uint32_t order = set_ratios(context, last, s.h, wanted, r);
    r[order - 1] = 1.0;
    if (order > 1 && !solve_weights(&s, r, order, rho))
        return;
    dn_sum sum = {0};
    double newest = s.b * rho[order - 1];
    add_known(&sum, &s, LAST, last, size, order, r, rho);
    dn_sum_add(&sum, answer, -s.scale * newest);
    dn_sum_add(&sum, dn_history_at(last, 0, size), s.scale * newest);
    dn_sum_into(out, DN_REG_X, &sum);
}

/* UniP. */
static uint32_t append_predictor(const dn_sampler_context *context, const dn_sampler_state *state, uint32_t wanted, dn_ops *out)
{
    dn_unipc_step s = step_between(context, state->step);
    dn_sum sum = {0};
    double r[ORDER_MAX] = {0}, rho[4] = {0.5};
    if (!(s.h > 0.0)) /* the level repeats itself: nothing moves */
        return 1;
    if (s.to->sigma == 0.0) {
        dn_sum_add(&sum, DN_REG_X0, s.to->alpha);
        dn_sum_into(out, DN_REG_X, &sum);
        return 1;
    }
    uint32_t order = set_ratios(context, state->step, s.h, wanted, r);
    if (order > 2 && !solve_weights(&s, r, order - 1, rho))
        order = 2;
    if (order == 2)
        rho[0] = 0.5;
    add_known(&sum, &s, DN_REG_X, state->step, context->config.solver_order, order, r, rho);
    dn_sum_into(out, DN_REG_X, &sum);
    return order;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const dn_scheduler_config *config = &context->config;
    uint32_t step = state->step, size = config->solver_order, left = context->schedule.steps - step;
    uint32_t answer = by_data(context) ? DN_REG_X0 : DN_REG_EPS;
    append_corrector(context, state, answer, out);
    dn_ops_copy(out, dn_history_at(step, 0, size), answer);
    dn_ops_copy(out, LAST, DN_REG_X);
    uint32_t order = config->lower_order_final && left < size ? left : size;
    order = order < state->history + 1 ? order : state->history + 1;
    state->scalar[0] = append_predictor(context, state, order, out);
    if (state->history < size)
        state->history++;
    state->live = dn_history_live(step, state->history, size) | 1u << LAST;
    state->step++;
}

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    if (!by_data(context) && context->config.thresholding)
        return dn_fail(error, DN_INVALID, "thresholding needs predict_x0: by noise nothing is thresholded");
    return dn_levels_dpm(out, context, steps, error);
}

static const dn_option_field fields[] = {
    DN_FIELDS_SIGMAS,
    DN_FIELD_FINAL_SIGMA,
    DN_FIELD_RESCALE,
    DN_FIELDS_THRESHOLDING,
    {DN_OPT_SOLVER_ORDER, 1.0, 3.0, 2.0},
    {DN_OPT_SOLVER_TYPE, DN_SOLVER_BH1, DN_SOLVER_BH2, DN_SOLVER_BH2},
    {DN_OPT_CORRECTOR_ORDER, 0.0, 3.0, 3.0},
    {DN_OPT_LOWER_ORDER_FINAL, 0.0, 1.0, 1.0},
};

const dn_sampler dn_sampler_unipc = {
    .name = "unipc",
    .title = "UniPC",
    .scheduler_class = "UniPCMultistepScheduler",
    .source = "Zhao et al. 2023 (arXiv 2302.04867), algorithms 1 and 2",
    .families = DN_FAMILIES_ALL,
    .order = 3,
    .evaluations_per_step = 1,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = schedule,
    .next = dn_next_plain,
    .feed = feed,
};
