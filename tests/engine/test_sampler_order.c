/* Samplers on a Gaussian whose denoiser is known in closed form: order of convergence, the probability flow's exact map,
 * and the distributions of the stochastic ones. With data N(m, s^2) and x = alpha x0 + sigma n,
 *   E[n | x] = sigma (x - alpha m) / (alpha^2 s^2 + sigma^2). */
#include "tests/test.h"

#include "register_machine.h"

#define MEAN 0.3
#define SPREAD 0.25

static dn_error error;
static dn_training_schedule *training;
static dn_sampler_context context;
static machine m;

static bool distilled; /* the network answers with the end of the flow, not with the mean */

static void answer_exactly(const dn_evaluation *evaluation)
{
    double alpha = evaluation->level.alpha, sigma = evaluation->level.sigma;
    double variance = alpha * alpha * SPREAD * SPREAD + sigma * sigma;
    double norm = sqrt(alpha * alpha + sigma * sigma);
    for (size_t i = 0; i < m.elements; i++) {
        double x = m.reg[evaluation->reg][i], eps = sigma * (x - alpha * MEAN) / variance, x0 = (x - sigma * eps) / alpha;
        if (distilled) {
            x0 = MEAN + SPREAD * (x - alpha * MEAN) / sqrt(variance);
            eps = (x - alpha * x0) / sigma;
        }
        m.reg[DN_REG_COND][i] = training->prediction == DN_PREDICT_EPSILON  ? eps
                                : training->prediction == DN_PREDICT_SAMPLE ? x0
                                                                            : (alpha * eps - sigma * x0) / norm;
    }
}

static void run_sampler(const dn_sampler *sampler)
{
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    m.noise = machine_philox;
    (void)sampler;
    while (machine_next(&m, &context, &state, &evaluation)) {
        answer_exactly(&evaluation);
        machine_answer(&m, &context, &state, &evaluation);
    }
}

static void open_training(const char *prediction)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "prediction_type", prediction);
    dn_training_schedule_free(training);
    training = NULL;
    CHECK_OK(dn_training_schedule_from_json(&training, json, "test", &error), error);
    cJSON_Delete(json);
}

/* Levels even in log sigma from 80 to 0.002, as if a table had them: convergence is a matter of the solver alone. */
static void smooth_levels(dn_schedule *schedule, bool exploding, uint32_t steps)
{
    const double rho = 7.0, high = pow(80.0, 1.0 / rho), low = pow(0.002, 1.0 / rho);
    schedule->steps = steps;
    for (uint32_t i = 0; i <= steps; i++) {
        double sigma = pow(high + (low - high) * i / steps, rho), alpha = exploding ? 1.0 : 1.0 / sqrt(1.0 + sigma * sigma);
        schedule->level[i] = (dn_level){.time = 0.0, .alpha = alpha, .sigma = sigma * alpha};
    }
}

/* |x - exact| after n steps from x = m + 80 * 0.7: the flow keeps (x - alpha m) / sqrt(alpha^2 s^2 + sigma^2). */
static double error_after(const char *name, uint32_t steps)
{
    dn_options options = {0};
    dn_scheduler_config unused = {0};
    if (dn_sampler_context_init(&context, name, 10, &options, 1, training, &unused, &error) != DN_OK)
        abort();
    bool exploding = context.sampler->schedule != dn_sampler_find("dpmpp_2m")->schedule;
    context.config.lower_order_final = false;
    context.config.final_sigma_min = true;
    smooth_levels(&context.schedule, exploding, steps);
    const dn_level *first = &context.schedule.level[0], *last = &context.schedule.level[steps];
    m.elements = 1;
    double start = MEAN + 80.0 * 0.7;
    m.reg[DN_REG_X][0] = start * first->alpha;
    run_sampler(context.sampler);
    double spread_first = sqrt(SPREAD * SPREAD + pow(first->sigma / first->alpha, 2)), ratio = last->sigma / last->alpha;
    double exact = MEAN + (start - MEAN) * sqrt(SPREAD * SPREAD + ratio * ratio) / spread_first;
    return fabs(m.reg[DN_REG_X][0] / last->alpha - exact);
}

static void check_order(const char *name, double order, double error_at_64)
{
    double at[4];
    for (int i = 0; i < 4; i++)
        at[i] = error_after(name, 16u << i);
    double measured = log2(at[1] / at[3]) / 2.0;
    CHECK_MSG(measured > order - 0.15 && measured < order + 0.4, "%s converges with order %.2f, not %.0f (%.3g %.3g %.3g %.3g)", name,
              measured, order, at[0], at[1], at[2], at[3]);
    CHECK_MSG(fabs(at[2] - error_at_64) <= 0.05 * error_at_64, "%s is off by %.4g after 64 steps, not %.4g", name, at[2], error_at_64);
}

/* The errors after 64 steps are those of an independent implementation of the same methods. */
static void euler_has_order_1(void)
{
    check_order("euler", 1.0, 8.37e-3);
}

static void heun_has_order_2(void)
{
    check_order("heun", 2.0, 7.61e-4);
}

static void dpmpp_2m_has_order_2(void)
{
    check_order("dpmpp_2m", 2.0, 7.92e-4);
}

/* ---- The order of every solver that visits levels of any kind: from log(alpha/sigma) -2 to 3 in n equal steps. */

#define LAMBDA_FROM (-2.0)
#define LAMBDA_TO 3.0

/* A multistep method of order p starts with steps of order 1, 2, ...; with steps of equal length these alone would limit it to order 2.
 * Short first steps keep their errors below those of the rest: one of order k is as long as h^((p + 1) / (k + 1)). */
static uint32_t start_lambdas(double *lambda, double h, uint32_t order)
{
    lambda[0] = LAMBDA_FROM;
    for (uint32_t k = 1; k < order; k++)
        lambda[k] = lambda[k - 1] + pow(h, (order + 1.0) / (k + 1.0));
    return order > 0 ? order - 1 : 0;
}

/* `even_ratios`: equal steps in sigma / alpha instead, for the weights of iPNDM. */
static void even_levels(dn_schedule *schedule, bool exploding, uint32_t steps, uint32_t short_order, bool even_ratios)
{
    double lambda[DN_STEPS_MAX + 8], h = (LAMBDA_TO - LAMBDA_FROM) / steps;
    uint32_t first = start_lambdas(lambda, h, short_order);
    for (uint32_t i = 1; i <= steps; i++)
        lambda[first + i] = lambda[first] + (LAMBDA_TO - lambda[first]) * i / steps;
    schedule->steps = first + steps;
    for (uint32_t i = 0; i <= schedule->steps; i++) {
        double sigma = exp(-lambda[i]), from = exp(-LAMBDA_FROM), to = exp(-LAMBDA_TO);
        if (even_ratios)
            sigma = from + (to - from) * i / steps;
        double alpha = exploding ? 1.0 : 1.0 / sqrt(1.0 + sigma * sigma);
        schedule->level[i] = (dn_level){.time = 0.0, .alpha = alpha, .sigma = sigma * alpha};
    }
}

typedef struct order_row {
    const char *name, *what;
    double solver_order, corrector_order, solver_type; /* -1: not given */
    const char *algorithm; /* NULL: its own */
    double expected; /* order of convergence */
    uint32_t short_order; /* of the short first steps; 0: none */
    bool even_ratios;
    bool at_least; /* the start or the problem's symmetry leaves more to see than the asymptotic order */
} order_row;

static double error_of_row(const order_row *row, uint32_t steps)
{
    dn_options options = {0};
    dn_scheduler_config unused = {0};
    if (row->solver_order > 0.0)
        dn_option_set(&options, DN_OPT_SOLVER_ORDER, row->solver_order);
    if (row->corrector_order >= 0.0)
        dn_option_set(&options, DN_OPT_CORRECTOR_ORDER, row->corrector_order);
    if (row->solver_type >= 0.0)
        dn_option_set(&options, DN_OPT_SOLVER_TYPE, row->solver_type);
    if (dn_sampler_context_init(&context, row->name, 10, &options, 1, training, &unused, &error) != DN_OK) {
        printf("%s\n", error.message);
        abort();
    }
    bool exploding = context.schedule.level[0].alpha == 1.0;
    if (row->algorithm != NULL)
        snprintf(context.config.algorithm_type, sizeof context.config.algorithm_type, "%s", row->algorithm);
    context.config.lower_order_final = false;
    context.config.final_sigma_min = true;
    if (dn_sampler_field_of(context.sampler, DN_OPT_ETA) != NULL)
        context.options.value[DN_OPT_ETA] = 0.0;
    even_levels(&context.schedule, exploding, steps, row->short_order, row->even_ratios);
    const dn_level *first = &context.schedule.level[0], *last = &context.schedule.level[context.schedule.steps];
    double ratio = first->sigma / first->alpha, end = last->sigma / last->alpha, start = MEAN + 1.3 * ratio;
    m.elements = 1;
    m.reg[DN_REG_X][0] = start * first->alpha;
    run_sampler(context.sampler);
    double exact = MEAN + (start - MEAN) * hypot(SPREAD, end) / hypot(SPREAD, ratio);
    return fabs(m.reg[DN_REG_X][0] / last->alpha - exact);
}

#define COUNTS 7 /* of steps: 6, 12, .. 384 */

/* The order between the last two numbers of steps whose errors lie well above the rounding of the operations' float coefficients. */
static void check_row(const order_row *row)
{
    double off[COUNTS], measured = 0.0;
    for (int i = 0; i < COUNTS; i++)
        off[i] = error_of_row(row, 6u << i);
    for (int i = 1; i < COUNTS && off[i] > 1e-6; i++)
        measured = log2(off[i - 1] / off[i]);
    printf("     %-34s order %.2f, expected %s%g (24 steps: off by %.2e, 96: %.2e)\n", row->what, measured,
           row->at_least ? "at least " : "", row->expected, off[2], off[4]);
    bool high = !row->at_least && measured > row->expected + 0.3;
    CHECK_MSG(!high && measured >= row->expected - 0.3, "%s converges with order %.2f, not %g", row->what, measured, row->expected);
}

#define ROW(name, what, order, expected, first)                                                                                            \
    {                                                                                                                                      \
        name, what, order, -1.0, -1.0, NULL, expected, first, false, false                                                                 \
    }

static void every_solver_has_its_order(void)
{
    static const order_row rows[] = {
        ROW("euler", "Euler", -1.0, 1.0, 0),
        ROW("heun", "Heun", -1.0, 2.0, 0),
        ROW("kdpm2", "DPM2", -1.0, 2.0, 0),
        ROW("euler_ancestral", "Euler ancestral, eta 0", -1.0, 1.0, 0),
        ROW("kdpm2_ancestral", "DPM2 ancestral, eta 0", -1.0, 2.0, 0),
        ROW("dpmpp_2m", "DPM-Solver++(1)", 1.0, 1.0, 0),
        ROW("dpmpp_2m", "DPM-Solver++(2M)", 2.0, 2.0, 0),
        /* The authors' program, and diffusers, halve the second difference: the third order is lost, however the start is made. */
        ROW("dpmpp_3m", "DPM-Solver++(3M)", 3.0, 2.0, 3),
        {"dpmpp_2m", "DPM-Solver++(2M), heun", 2.0, -1.0, DN_SOLVER_HEUN, NULL, 2.0, 0, false, false},
        {"dpmpp_2m", "DPM-Solver(2M) by noise", 2.0, -1.0, -1.0, "dpmsolver", 2.0, 0, false, false},
        {"dpmpp_2m", "DPM-Solver(3M) by noise", 3.0, -1.0, -1.0, "dpmsolver", 2.0, 3, false, true},
        ROW("dpmpp_2s", "DPM-Solver++(2S)", 2.0, 2.0, 0),
        ROW("dpmpp_2s", "DPM-Solver++(3S)", 3.0, 3.0, 0),
        {"dpmpp_2s", "DPM-Solver++(3S), heun", 3.0, -1.0, DN_SOLVER_HEUN, NULL, 3.0, 0, false, false},
        {"dpmpp_2s", "DPM-Solver(2S) by noise", 2.0, -1.0, -1.0, "dpmsolver", 2.0, 0, false, false},
        {"dpmpp_2s", "DPM-Solver(3S) by noise", 3.0, -1.0, -1.0, "dpmsolver", 3.0, 0, false, false},
        ROW("deis", "DEIS-1", 1.0, 1.0, 0),
        ROW("deis", "DEIS-2", 2.0, 2.0, 0),
        {"deis", "DEIS-3", 3.0, -1.0, -1.0, NULL, 3.0, 3, false, true},
        {"unipc", "UniP-1 (bh2)", 1.0, 0.0, -1.0, NULL, 1.0, 0, false, false},
        {"unipc", "UniP-2 (bh2)", 2.0, 0.0, -1.0, NULL, 2.0, 0, false, false},
        {"unipc", "UniP-3 (bh2)", 3.0, 0.0, -1.0, NULL, 3.0, 3, false, false},
        ROW("unipc", "UniPC-1 (bh2)", 1.0, 2.0, 0),
        ROW("unipc", "UniPC-2 (bh2)", 2.0, 3.0, 3),
        {"unipc", "UniPC-2 (bh1)", 2.0, -1.0, DN_SOLVER_BH1, NULL, 3.0, 3, false, false},
        {"unipc", "UniPC-2 by noise (bh2)", 2.0, -1.0, -1.0, "noise_prediction", 3.0, 3, false, false},
        {"sa_solver", "SA-Solver 1, 1, eta 0", 1.0, 1.0, -1.0, NULL, 1.0, 0, false, false},
        {"sa_solver", "SA-Solver 2, no corrector, eta 0", 2.0, 0.0, -1.0, NULL, 2.0, 0, false, false},
        {"sa_solver", "SA-Solver 2, 2, eta 0", 2.0, 2.0, -1.0, NULL, 2.0, 0, false, false},
        {"sa_solver", "SA-Solver 3, 3, eta 0", 3.0, 3.0, -1.0, NULL, 3.0, 3, false, true},
        ROW("lms", "LMS-1", 1.0, 1.0, 0),
        ROW("lms", "LMS-2", 2.0, 2.0, 0),
        ROW("lms", "LMS-3", 3.0, 3.0, 3),
        ROW("lms", "LMS-4", 4.0, 4.0, 4),
        /* Limited to 2 in the end by their first steps of orders 1 and 2, more before. */
        {"lms", "LMS-4, even steps", 4.0, -1.0, -1.0, NULL, 2.0, 0, false, true},
        {"ipndm", "iPNDM-1, even steps of sigma", 1.0, -1.0, -1.0, NULL, 1.0, 0, true, false},
        {"ipndm", "iPNDM-4, even steps of sigma", 4.0, -1.0, -1.0, NULL, 2.0, 0, true, true},
        {"ipndm", "iPNDM-4, even steps of lambda", 4.0, -1.0, -1.0, NULL, 2.0, 0, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !test_failed; i++)
        check_row(&rows[i]);
}

/* DDIM visits whole timesteps: its error against the flow's exact map halves with twice the steps. */
static double ddim_error(uint32_t steps, double *out)
{
    dn_options options = {0};
    dn_scheduler_config unused = {0};
    if (dn_sampler_context_init(&context, "ddim", steps, &options, 1, training, &unused, &error) != DN_OK)
        abort();
    context.config.clip_sample = false;
    context.config.spacing = DN_SPACING_TRAILING;
    if (context.sampler->schedule(&context.schedule, &context, steps, &error) != DN_OK)
        abort();
    const dn_level *first = &context.schedule.level[0];
    m.elements = 1;
    m.reg[DN_REG_X][0] = 0.7;
    run_sampler(context.sampler);
    double exact =
        MEAN + SPREAD * (0.7 - first->alpha * MEAN) / sqrt(first->alpha * first->alpha * SPREAD * SPREAD + first->sigma * first->sigma);
    *out = m.reg[DN_REG_X][0];
    return fabs(*out - exact);
}

static void ddim_has_order_1(void)
{
    double x, at_25 = ddim_error(25, &x), at_100 = ddim_error(100, &x), at_1000 = ddim_error(1000, &x);
    double measured = log2(at_25 / at_100) / 2.0;
    CHECK_MSG(measured > 0.75 && measured < 1.3, "DDIM converges with order %.2f", measured);
    CHECK_MSG(at_1000 < 2e-3, "DDIM with 1000 steps is off by %.3g", at_1000);
}

/* PNDM visits whole timesteps, with the weights of equal steps of time: how far it is off the flow's exact map at time 100.
 * (Near time 0 no power of the step describes sigma, whose last two timesteps differ most in ratio.) */
static double pndm_error(const char *name, uint32_t steps)
{
    dn_options options = {0};
    dn_scheduler_config unused = {0};
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    if (dn_sampler_context_init(&context, name, steps, &options, 1, training, &unused, &error) != DN_OK)
        abort();
    uint32_t wanted = steps - 1 - steps / 10;
    const dn_level *first = &context.schedule.level[0], *last = &context.schedule.level[wanted];
    double spread_first = hypot(first->alpha * SPREAD, first->sigma), spread_last = hypot(last->alpha * SPREAD, last->sigma);
    m.elements = 1;
    m.reg[DN_REG_X][0] = first->alpha * MEAN + 1.3 * spread_first;
    while (state.step < wanted && machine_next(&m, &context, &state, &evaluation)) {
        answer_exactly(&evaluation);
        machine_answer(&m, &context, &state, &evaluation);
    }
    return fabs(m.reg[DN_REG_X][0] - last->alpha * MEAN - 1.3 * spread_last);
}

/* Order 2 is proven (Liu et al. 2022, section 3.4); far from the limit the weights of order 4 show. */
static void pndm_has_order_2(void)
{
    static const char *const names[] = {"pndm", "plms"};
    for (size_t i = 0; i < 2; i++) {
        double coarse = pndm_error(names[i], 20), middle = pndm_error(names[i], 50), fine = pndm_error(names[i], 100);
        double measured = log2(middle / fine);
        printf("     %-34s order %.2f, expected at least 2 (20 steps: off by %.2e, 50: %.2e, 100: %.2e)\n", names[i], measured, coarse,
               middle, fine);
        CHECK_MSG(measured >= 1.7 && fine < 1e-5, "%s converges with order %.2f and is off by %.2e after 100 steps", names[i], measured,
                  fine);
    }
}

/* The three predictions of the same denoiser make the same image. */
static void predictions_agree(void)
{
    static const char *const names[] = {"epsilon", "sample", "v_prediction"};
    double x[3];
    for (int i = 0; i < 3; i++) {
        open_training(names[i]);
        (void)ddim_error(20, &x[i]);
    }
    CHECK_MSG(fabs(x[0] - x[1]) < 1e-5 && fabs(x[0] - x[2]) < 1e-5, "%.8g %.8g %.8g", x[0], x[1], x[2]);
    for (int i = 0; i < 3; i++) {
        open_training(names[i]);
        x[i] = error_after("heun", 16);
    }
    CHECK_MSG(fabs(x[0] - x[1]) < 1e-5 && fabs(x[0] - x[2]) < 1e-5, "%.8g %.8g %.8g", x[0], x[1], x[2]);
    open_training("epsilon");
}

/* Levels even in log(alpha/sigma), from nearly nothing but noise to nearly none, as many as steps: what is measured is the solver, not
 * a table. The time is one at which SA-Solver is random. */
static void smooth_lambdas(dn_schedule *schedule)
{
    bool exploding = schedule->level[0].alpha == 1.0;
    for (uint32_t i = 0; i <= schedule->steps; i++) {
        double sigma = exp(3.5 - 8.0 * i / schedule->steps), alpha = exploding ? 1.0 : 1.0 / sqrt(1.0 + sigma * sigma);
        schedule->level[i] = (dn_level){.time = 500.0, .alpha = alpha, .sigma = sigma * alpha};
    }
}

#define TRAJECTORIES (25u * MACHINE_ELEMENTS_MAX) /* one-dimensional each: 102400 */

/* Mean and variance of many images made by one sampler. */
static void moments(const char *name, dn_options options, uint32_t steps, bool smooth, double *mean, double *variance)
{
    dn_scheduler_config unused = {0};
    const uint32_t runs = TRAJECTORIES / MACHINE_ELEMENTS_MAX;
    double sum = 0.0, squares = 0.0;
    m.elements = MACHINE_ELEMENTS_MAX;
    memset(m.reg[DN_REG_VARIANCE], 0, sizeof m.reg[0]);
    m.noise = machine_philox;
    for (uint32_t run = 0; run < runs; run++) {
        if (dn_sampler_context_init(&context, name, steps, &options, 77 + run, training, &unused, &error) != DN_OK)
            abort();
        context.config.clip_sample = false;
        if (smooth)
            smooth_lambdas(&context.schedule);
        const dn_level *first = &context.schedule.level[0];
        double spread = hypot(first->alpha * SPREAD, first->sigma);
        dn_op start = {.kind = DN_OP_NOISE, .seed = 77 + run, .stream = DN_STREAM_START};
        machine_philox(NULL, m.reg[DN_REG_X], m.elements, &start);
        for (size_t i = 0; i < m.elements; i++)
            m.reg[DN_REG_X][i] = first->alpha * MEAN + spread * m.reg[DN_REG_X][i];
        run_sampler(context.sampler);
        for (size_t i = 0; i < m.elements; i++) {
            sum += m.reg[DN_REG_X][i];
            squares += m.reg[DN_REG_X][i] * m.reg[DN_REG_X][i];
        }
    }
    double count = (double)runs * (double)m.elements;
    *mean = sum / count;
    *variance = squares / count - *mean * *mean;
}

/* DDIM with eta = 1 is DDPM with the posterior variance (fixed_small): the same linear map of the same noises, up to
 * the order of their terms. */
static void ddim_eta_1_is_ddpm(void)
{
    double mean[2], variance[2];
    dn_options eta = {0};
    dn_option_set(&eta, DN_OPT_ETA, 1.0);
    moments("ddim", eta, 50, false, &mean[0], &variance[0]);
    moments("ddpm", (dn_options){0}, 50, false, &mean[1], &variance[1]);
    CHECK_MSG(fabs(mean[0] - mean[1]) < 1e-4 && fabs(variance[0] - variance[1]) < 1e-4, "means %.6f %.6f, variances %.6f %.6f", mean[0],
              mean[1], variance[0], variance[1]);
}

/* The mean and variance that a stochastic sampler leaves, against those of the data at its last level. What a sampler of first order is
 * off by halves with twice the steps: its two runs are extrapolated. Standard errors are 0.0008 and 0.0003 (extrapolated: 0.0006, as
 * both runs have the same noises in part). */
typedef struct moment_row {
    const char *name, *what;
    dn_option_id id;
    double value; /* of that option; -1: none is given */
    uint32_t steps;
    bool smooth, extrapolated;
    double variance_within;
} moment_row;

static void check_moments(const moment_row *row)
{
    dn_options options = {0};
    double mean, variance, coarse_mean, coarse_variance;
    if (row->value >= 0.0)
        dn_option_set(&options, row->id, row->value);
    moments(row->name, options, row->steps, row->smooth, &mean, &variance);
    if (row->extrapolated) {
        moments(row->name, options, row->steps / 2, row->smooth, &coarse_mean, &coarse_variance);
        mean = 2.0 * mean - coarse_mean;
        variance = 2.0 * variance - coarse_variance;
    }
    const dn_level *last = &context.schedule.level[context.schedule.steps];
    double exact = pow(last->alpha * SPREAD, 2) + last->sigma * last->sigma, centre = last->alpha * MEAN;
    printf("     %-34s %3u steps%s: mean %.4f (%.4f), variance %.5f (%.5f)\n", row->what, row->steps,
           row->extrapolated ? ", extrapolated" : "", mean, centre, variance, exact);
    CHECK_MSG(fabs(mean - centre) < 0.0035 && fabs(variance - exact) < row->variance_within, "%s: mean %.4f, variance %.5f", row->what,
              mean, variance);
}

static void stochastic_samplers_keep_the_distribution(void)
{
    static const moment_row rows[] = {
        {"ddpm", "DDPM fixed_small", DN_OPT_COUNT, -1.0, 400, false, true, 0.0015},
        {"ddpm", "DDPM fixed_large", DN_OPT_VARIANCE_TYPE, DN_VARIANCE_FIXED_LARGE, 400, false, true, 0.0015},
        {"ddpm", "DDPM learned_range, half-way", DN_OPT_VARIANCE_TYPE, DN_VARIANCE_LEARNED_RANGE, 400, false, true, 0.0015},
        {"ddim", "DDIM, eta 0.5", DN_OPT_ETA, 0.5, 400, false, true, 0.0015},
        {"euler", "Euler, churn 20", DN_OPT_S_CHURN, 20.0, 200, true, true, 0.0015},
        {"heun", "Heun, churn 20", DN_OPT_S_CHURN, 20.0, 100, true, false, 0.001},
        {"euler_ancestral", "Euler ancestral", DN_OPT_COUNT, -1.0, 200, true, true, 0.0015},
        {"euler_ancestral", "Euler ancestral, eta 0.5", DN_OPT_ETA, 0.5, 400, true, true, 0.0015},
        {"kdpm2_ancestral", "DPM2 ancestral", DN_OPT_COUNT, -1.0, 200, true, true, 0.0015},
        {"dpmpp_sde", "DPM-Solver++ SDE", DN_OPT_COUNT, -1.0, 200, true, true, 0.0015},
        {"dpmpp_2m_sde", "SDE-DPM-Solver++(2M)", DN_OPT_COUNT, -1.0, 100, true, false, 0.001},
        {"dpmpp_2m_sde", "SDE-DPM-Solver++(1)", DN_OPT_SOLVER_ORDER, 1.0, 200, true, true, 0.0015},
        {"sa_solver", "SA-Solver 2, 2", DN_OPT_COUNT, -1.0, 100, true, false, 0.001},
        {"sa_solver", "SA-Solver 3, 2", DN_OPT_SOLVER_ORDER, 3.0, 100, true, false, 0.001},
        {"sa_solver", "SA-Solver 2, 2, eta 0.5", DN_OPT_ETA, 0.5, 100, true, false, 0.001},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !test_failed; i++)
        check_moments(&rows[i]);
}

/* Samplers of distilled networks with the network they are for: its answer is where the probability flow ends. TCD goes on to the
 * first level of the table by a noise that such an answer implies, which adds 0.01 to the deviation. */
static void distilled_samplers_keep_the_distribution(void)
{
    static const moment_row rows[] = {
        {"lcm", "LCM", DN_OPT_COUNT, -1.0, 4, false, false, 0.001},
        {"lcm", "LCM", DN_OPT_COUNT, -1.0, 1, false, false, 0.001},
        {"tcd", "TCD, eta 1", DN_OPT_ETA, 1.0, 4, false, false, 0.006},
    };
    distilled = true;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !test_failed; i++)
        check_moments(&rows[i]);
    distilled = false;
}

int main(void)
{
    open_training("epsilon");
    RUN(euler_has_order_1);
    RUN(heun_has_order_2);
    RUN(dpmpp_2m_has_order_2);
    RUN(every_solver_has_its_order);
    RUN(ddim_has_order_1);
    RUN(pndm_has_order_2);
    RUN(predictions_agree);
    RUN(ddim_eta_1_is_ddpm);
    RUN(stochastic_samplers_keep_the_distribution);
    RUN(distilled_samplers_keep_the_distribution);
    dn_training_schedule_free(training);
    return test_end();
}
