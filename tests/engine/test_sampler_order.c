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

static void answer_exactly(const dn_evaluation *evaluation)
{
    double alpha = evaluation->level.alpha, sigma = evaluation->level.sigma;
    double variance = alpha * alpha * SPREAD * SPREAD + sigma * sigma;
    double norm = sqrt(alpha * alpha + sigma * sigma);
    for (size_t i = 0; i < m.elements; i++) {
        double x = m.reg[evaluation->reg][i], eps = sigma * (x - alpha * MEAN) / variance, x0 = (x - sigma * eps) / alpha;
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
    while (sampler->next(&context, &state, &evaluation)) {
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

/* Mean and variance of many images made by one sampler. */
static void moments(const char *name, double eta, uint32_t steps, double *mean, double *variance)
{
    dn_options options = {0};
    dn_scheduler_config unused = {0};
    const uint32_t runs = 16;
    double sum = 0.0, squares = 0.0;
    dn_option_set(&options, DN_OPT_ETA, eta);
    m.elements = MACHINE_ELEMENTS_MAX;
    m.noise = machine_philox;
    for (uint32_t run = 0; run < runs; run++) {
        if (dn_sampler_context_init(&context, name, steps, &options, 77 + run, training, &unused, &error) != DN_OK)
            abort();
        context.config.clip_sample = false;
        dn_op start = {.kind = DN_OP_NOISE, .seed = 77 + run, .stream = DN_STREAM_START};
        machine_philox(NULL, m.reg[DN_REG_X], m.elements, &start);
        for (size_t i = 0; i < m.elements; i++)
            m.reg[DN_REG_X][i] *= context.schedule.start_scale;
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
    moments("ddim", 1.0, 50, &mean[0], &variance[0]);
    moments("ddpm", NAN, 50, &mean[1], &variance[1]);
    CHECK_MSG(fabs(mean[0] - mean[1]) < 1e-4 && fabs(variance[0] - variance[1]) < 1e-4, "means %.6f %.6f, variances %.6f %.6f", mean[0],
              mean[1], variance[0], variance[1]);
}

/* Many steps of each stochastic sampler give the data's mean and variance back. */
static void stochastic_samplers_keep_the_distribution(void)
{
    static const struct {
        const char *name;
        double eta;
    } rows[] = {{"ddpm", NAN}, {"ddim", 0.5}, {"euler_ancestral", NAN}, {"euler_ancestral", 0.5}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double mean, variance;
        moments(rows[i].name, rows[i].eta, 500, &mean, &variance);
        CHECK_MSG(fabs(mean - MEAN) < 0.01 && fabs(variance - SPREAD * SPREAD) < 0.006, "%s: mean %.4f, variance %.4f", rows[i].name, mean,
                  variance);
    }
}

int main(void)
{
    open_training("epsilon");
    RUN(euler_has_order_1);
    RUN(heun_has_order_2);
    RUN(dpmpp_2m_has_order_2);
    RUN(ddim_has_order_1);
    RUN(predictions_agree);
    RUN(ddim_eta_1_is_ddpm);
    RUN(stochastic_samplers_keep_the_distribution);
    dn_training_schedule_free(training);
    return test_end();
}
