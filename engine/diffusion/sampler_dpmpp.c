/* DPM-Solver multistep: data prediction (Lu et al. 2022b, arXiv 2211.01095, algorithm 2), noise prediction (Lu et al.
 * 2022a, arXiv 2206.00927) and their SDE forms, orders 1 to 3. Chosen by name it is DPM-Solver++(2M), midpoint; a folder
 * may ask for the others. Pure functions, any thread.
 *
 * lambda = log(alpha/sigma), h = lambda' - lambda > 0, e = exp(-h) = (sigma'/alpha') / (sigma/alpha). A last level with
 * sigma' = 0 has h infinite and e = 0; it is always a first-order step, where x = x0. The seed documents double lambda,
 * mix the coefficients of noise and data prediction, and take the current timestep for the one before it in the history.
 *
 * The third order is that of the authors' program and of diffusers, which take half of the second difference that the expansion wants
 * (D2 would be 2 (A - B) / (r0 + r1)); measured on an exact problem it therefore converges with order 2, with smaller errors than 2M.
 * It is kept, because folders that ask for it mean it so.
 *
 * Registers: H0 and H1 the model's last two answers. State: history = how many of them are valid. */
#include <math.h>
#include <string.h>

#include "diffusion/sampler_tools.h"

typedef struct dn_dpm_step {
    bool data, sde; /* data prediction; stochastic */
    const dn_level *from, *to;
    double h, e; /* e = exp(-h) */
    double d[3]; /* coefficients of D0, D1, D2 */
    double x, noise; /* of the image and of fresh noise */
    double r0, r1;
} dn_dpm_step;

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_scheduler_config *config = &context->config;
    bool sde = strncmp(config->algorithm_type, "sde-", 4) == 0;
    bool data = strstr(config->algorithm_type, "++") != NULL;
    if (sde && config->solver_order == 3)
        return dn_fail(error, DN_UNSUPPORTED, "solver_order 3 with algorithm_type \"%s\" is not supported", config->algorithm_type);
    if (!data && !config->final_sigma_min)
        return dn_fail(error, DN_INVALID, "algorithm_type \"%s\" needs final_sigmas_type \"sigma_min\"", config->algorithm_type);
    return dn_levels_dpm(out, context, steps, error);
}

/* Two visits to one level (rounded tables repeat themselves) leave no difference to extrapolate: order 1 then. */
static uint32_t set_ratios(const dn_sampler_context *context, uint32_t step, uint32_t order, dn_dpm_step *s)
{
    const dn_level *level = context->schedule.level;
    if (order >= 2)
        s->r0 = log(dn_level_ratio(&level[step - 1]) / dn_level_ratio(&level[step])) / s->h;
    if (order >= 3)
        s->r1 = log(dn_level_ratio(&level[step - 2]) / dn_level_ratio(&level[step - 1])) / s->h;
    if (order >= 2 && !(isfinite(s->r0) && s->r0 > 0.0))
        return 1;
    return order >= 3 && !(isfinite(s->r1) && s->r1 > 0.0) ? 2 : order;
}

/* Coefficients of data prediction: with a' = alpha', E = exp(-2h) for the SDE and exp(-h) for the ODE. */
static void set_data(dn_dpm_step *s, uint32_t order, bool heun)
{
    double a = s->to->alpha, e = s->sde ? s->e * s->e : s->e, h = s->sde ? 2.0 * s->h : s->h;
    s->x = s->to->sigma / s->from->sigma * (s->sde ? s->e : 1.0);
    s->noise = s->sde ? s->to->sigma * sqrt(1.0 - e) : 0.0;
    s->d[0] = a * (1.0 - e);
    if (order == 1)
        return;
    s->d[1] = order == 2 && !heun ? 0.5 * a * (1.0 - e) : a * ((e - 1.0) / h + 1.0);
    s->d[2] = order == 3 ? -a * ((e - 1.0 + h) / (h * h) - 0.5) : 0.0;
}

/* Coefficients of noise prediction; the SDE doubles them. */
static void set_noise_prediction(dn_dpm_step *s, uint32_t order, bool heun)
{
    double b = (s->sde ? 2.0 : 1.0) * s->to->sigma, g = 1.0 / s->e, h = s->h;
    s->x = s->to->alpha / s->from->alpha;
    s->noise = s->sde ? s->to->sigma * sqrt(g * g - 1.0) : 0.0;
    s->d[0] = -b * (g - 1.0);
    if (order == 1)
        return;
    s->d[1] = order == 2 && !heun ? -0.5 * b * (g - 1.0) : -b * ((g - 1.0) / h - 1.0);
    s->d[2] = order == 3 ? -b * ((g - 1.0 - h) / (h * h) - 0.5) : 0.0;
}

/* From D0, D1, D2 to the answers m0, m1, m2 themselves:
 * order 2: D1 = (m0 - m1) / r0;
 * order 3: D1 = A + r0/(r0+r1) (A - B), D2 = (A - B)/(r0+r1), A = (m0 - m1)/r0, B = (m1 - m2)/r1. */
static void answer_coefficients(const dn_dpm_step *s, uint32_t order, double m[3])
{
    m[0] = s->d[0];
    m[1] = m[2] = 0.0;
    if (order == 1)
        return;
    double first = s->d[1], second = 0.0;
    if (order == 3) {
        double mixed = (s->d[1] * s->r0 + s->d[2]) / (s->r0 + s->r1);
        first += mixed;
        second = -mixed;
    }
    m[0] += first / s->r0;
    m[1] = -first / s->r0;
    if (order == 3) {
        m[1] += second / s->r1;
        m[2] = -second / s->r1;
    }
}

static void append_history(const dn_sampler_context *context, dn_sampler_state *state, uint32_t answer, dn_ops *out)
{
    if (context->config.solver_order >= 3)
        dn_ops_linear(out, DN_REG_H1, 1, (const uint32_t[]){DN_REG_H0}, (const double[]){1.0});
    if (context->config.solver_order >= 2)
        dn_ops_linear(out, DN_REG_H0, 1, &answer, (const double[]){1.0});
    if (state->history + 1 < context->config.solver_order)
        state->history++;
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const dn_scheduler_config *config = &context->config;
    uint32_t step = state->step;
    dn_dpm_step s = {
        .data = strstr(config->algorithm_type, "++") != NULL,
        .sde = strncmp(config->algorithm_type, "sde-", 4) == 0,
        .from = &context->schedule.level[step],
        .to = &context->schedule.level[step + 1],
    };
    s.e = dn_level_ratio(s.to) / dn_level_ratio(s.from);
    s.h = -log(s.e);
    uint32_t order = set_ratios(context, step, dn_multistep_order(context, state), &s);
    bool heun = strcmp(config->solver_type, "heun") == 0;
    if (s.data)
        set_data(&s, order, heun);
    else
        set_noise_prediction(&s, order, heun);
    double m[3];
    answer_coefficients(&s, order, m);
    uint32_t answer = s.data ? DN_REG_X0 : dn_append_noise_answer(context, s.from, out);
    uint32_t terms = order + 1;
    uint32_t src[5] = {DN_REG_X, answer, DN_REG_H0, DN_REG_H1, 0};
    double coefficient[5] = {s.x, m[0], m[1], m[2], 0.0};
    if (s.noise > 0.0) {
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_STEP, step);
        src[terms] = DN_REG_NOISE;
        coefficient[terms++] = s.noise;
    }
    dn_ops_linear(out, DN_REG_X, terms, src, coefficient);
    append_history(context, state, answer, out);
    state->step++;
    state->live = ((1u << state->history) - 1u) << DN_REG_H0;
}

/* clang-format off */
#define FIELDS(order, most)                                                                                                                \
    {DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_MODEL, DN_SIGMAS_LU, DN_SIGMAS_MODEL}, DN_FIELD_LINSPACE, DN_FIELDS_SIGMA_RANGE,                     \
    DN_FIELD_FINAL_SIGMA, DN_FIELD_RESCALE, DN_FIELDS_THRESHOLDING, {DN_OPT_SOLVER_ORDER, 1.0, most, order},                               \
    {DN_OPT_SOLVER_TYPE, DN_SOLVER_MIDPOINT, DN_SOLVER_HEUN, DN_SOLVER_MIDPOINT}, {DN_OPT_LOWER_ORDER_FINAL, 0.0, 1.0, 1.0}
/* clang-format on */

static const dn_option_field fields_2m[] = {FIELDS(2.0, 3.0)}, fields_3m[] = {FIELDS(3.0, 3.0)}, fields_sde[] = {FIELDS(2.0, 2.0)};

#define SAMPLER                                                                                                                            \
    .scheduler_class = "DPMSolverMultistepScheduler", .families = DN_FAMILIES_ALL, .evaluations_per_step = 1,                              \
    .field_count = sizeof fields_2m / sizeof fields_2m[0], .schedule = schedule, .next = dn_next_plain, .feed = feed

const dn_sampler dn_sampler_dpmpp_2m = {
    .name = "dpmpp_2m",
    .title = "DPM-Solver++(2M)",
    .source = "Lu et al. 2022b (arXiv 2211.01095), algorithm 2",
    .order = 2,
    .fields = fields_2m,
    SAMPLER,
};

const dn_sampler dn_sampler_dpmpp_3m = {
    .name = "dpmpp_3m",
    .title = "DPM-Solver++(3M)",
    .source = "Lu et al. 2022b (arXiv 2211.01095), section 4; third order as in the authors' program",
    .order = 2,
    .fields = fields_3m,
    SAMPLER,
};

const dn_sampler dn_sampler_dpmpp_2m_sde = {
    .name = "dpmpp_2m_sde",
    .title = "SDE-DPM-Solver++(2M)",
    .source = "Lu et al. 2022b (arXiv 2211.01095), section 5",
    .algorithm = "sde-dpmsolver++",
    .order = 2,
    .stochastic = true,
    .fields = fields_sde,
    SAMPLER,
};
