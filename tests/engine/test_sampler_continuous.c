/* Samplers of the continuous families on a Gaussian whose probability flow and marginals are known: orders of convergence, the adaptive
 * one against its tolerances, distributions of the stochastic ones over 1e5 one-dimensional trajectories, and DDIM there and back. */
#include "tests/test.h"

#include "gaussian_network.h"

#define RUNS 25 /* of MACHINE_ELEMENTS_MAX trajectories: 102400 */

static dn_error error;
static dn_training_schedule *training;
static dn_sampler_context context;
static machine m;

static void open_class(const char *class_name)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "_class_name", class_name);
    dn_training_schedule_free(training);
    training = NULL;
    if (dn_training_schedule_from_json(&training, json, "test", &error) != DN_OK)
        abort();
    cJSON_Delete(json);
}

static void open_convention(dn_convention convention)
{
    dn_training_schedule_free(training);
    training = NULL;
    if (dn_training_schedule_for_convention(&training, convention, 0.0, false, &error) != DN_OK)
        abort();
}

static void begin(const char *name, uint32_t steps, const dn_options *options, uint64_t seed)
{
    const dn_options none = {0};
    const dn_scheduler_config unused = {0};
    if (dn_sampler_context_init(&context, name, steps, options != NULL ? options : &none, seed, training, &unused, &error) != DN_OK) {
        printf("%s\n", error.message);
        abort();
    }
}

/* |x - exact| after n steps; the last level is the image itself, which every solver reaches by a step of Euler's: to see the order of
 * the others, EDM's levels end at sigma_min. */
static double off_after(const char *name, uint32_t steps)
{
    dn_sampler_state state = {0};
    begin(name, steps, NULL, 1);
    if (training->family == DN_FAMILY_EDM) {
        context.config.final_sigma_min = true;
        if (context.sampler->schedule(&context.schedule, &context, steps, &error) != DN_OK)
            abort();
    }
    const dn_level *first = &context.schedule.level[0], *last = &context.schedule.level[steps];
    m.elements = 1;
    m.reg[DN_REG_X][0] = first->alpha * GAUSSIAN_MEAN + 0.7 * first->sigma;
    double part = 0.7 * first->sigma / hypot(first->alpha * GAUSSIAN_SPREAD, first->sigma);
    double exact = last->alpha * GAUSSIAN_MEAN + part * hypot(last->alpha * GAUSSIAN_SPREAD, last->sigma);
    (void)gaussian_run(&m, &context, &state);
    return fabs(m.reg[DN_REG_X][0] - exact);
}

static void check_order(const char *name, double order)
{
    double at[4];
    for (int i = 0; i < 4; i++)
        at[i] = off_after(name, 32u << i);
    double measured = log2(at[1] / at[3]) / 2.0;
    printf("     %-12s order %.2f: off by %.2e %.2e %.2e %.2e after 32, 64, 128, 256 steps\n", name, measured, at[0], at[1], at[2], at[3]);
    CHECK_MSG(fabs(measured - order) < 0.3, "%s converges with order %.2f, not %.0f", name, measured, order);
}

static void edm_euler_has_order_1(void)
{
    open_class("EDMEulerScheduler");
    check_order("edm_euler", 1.0);
}

static void edm_heun_has_order_2(void)
{
    open_class("EDMEulerScheduler");
    check_order("edm_heun", 2.0);
}

static void flow_euler_has_order_1(void)
{
    open_convention(DN_CONVENTION_REPA);
    check_order("flow_euler", 1.0);
}

static void flow_heun_has_order_2(void)
{
    open_convention(DN_CONVENTION_SIT);
    check_order("flow_heun", 2.0);
}

/* Where the flow ends at the lowest level, and the mean of the data given that: rk45's image. */
static double exact_rk45(double x)
{
    const dn_level *first = &context.schedule.level[0];
    double low, high, part = (x - first->alpha * GAUSSIAN_MEAN) / hypot(first->alpha * GAUSSIAN_SPREAD, first->sigma);
    if (training->family == DN_FAMILY_FLOW)
        return GAUSSIAN_MEAN + GAUSSIAN_SPREAD * part;
    dn_family_range(training, &low, &high);
    return gaussian_x0(GAUSSIAN_MEAN + part * hypot(GAUSSIAN_SPREAD, low), 1.0, low);
}

static double run_rk45(double tolerance, uint32_t steps, uint32_t *evaluations)
{
    static double start[64];
    dn_options options = {0};
    dn_sampler_state state = {0};
    dn_option_set(&options, DN_OPT_RTOL, tolerance);
    dn_option_set(&options, DN_OPT_ATOL, tolerance);
    begin("rk45", steps, &options, 1);
    m.elements = 64;
    for (size_t i = 0; i < m.elements; i++)
        m.reg[DN_REG_X][i] = start[i] = context.schedule.start_scale * (-2.5 + 5.0 * (double)i / 63.0);
    *evaluations = gaussian_run(&m, &context, &state);
    double worst = dn_sampler_failure(&context, &state) == NULL ? 0.0 : (double)INFINITY;
    for (size_t i = 0; i < m.elements; i++)
        worst = fmax(worst, fabs(m.reg[DN_REG_X][i] - exact_rk45(start[i])));
    if (dn_sampler_fraction(&context, &state) != 1.0 || state.step != steps)
        worst = INFINITY;
    return worst;
}

static void rk45_keeps_its_tolerances(void)
{
    static const char *const classes[] = {"EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler", "DDPMScheduler"};
    for (size_t k = 0; k < sizeof classes / sizeof classes[0]; k++) {
        uint32_t before = 0;
        open_class(classes[k]);
        for (double tolerance = 1e-3; tolerance > 0.5e-6; tolerance /= 10.0) {
            uint32_t evaluations;
            double off = run_rk45(tolerance, 20, &evaluations);
            printf("     %-32s rtol = atol = %.0e: off by %.2e, %u evaluations\n", dn_family_title(training->family), tolerance, off,
                   evaluations);
            CHECK_MSG(off <= 10.0 * tolerance, "%s: off by %.3g at %.0e", classes[k], off, tolerance);
            CHECK_MSG(evaluations > before && evaluations < 1000, "%s: %u evaluations at %.0e", classes[k], evaluations, tolerance);
            before = evaluations;
        }
    }
}

/* The first step's length is the whole range when steps = 1: it is refused and shortened. */
static void rk45_refuses_long_steps(void)
{
    uint32_t from_one, from_many;
    open_convention(DN_CONVENTION_SIT);
    double one = run_rk45(1e-5, 1, &from_one), many = run_rk45(1e-5, 100, &from_many);
    CHECK_MSG(one <= 1e-4 && many <= 1e-4, "off by %.3g and %.3g", one, many);
    CHECK_MSG(from_one < 400 && from_many < 400, "%u and %u evaluations", from_one, from_many);
}

/* A network that answers differently every time meets no tolerance: the sampler gives up and says why. */
static void rk45_gives_up(void)
{
    dn_options options = {0};
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    uint32_t evaluations = 0;
    open_convention(DN_CONVENTION_REPA);
    dn_option_set(&options, DN_OPT_RTOL, 1e-8);
    dn_option_set(&options, DN_OPT_ATOL, 1e-8);
    begin("rk45", 10, &options, 1);
    m.elements = 1;
    m.reg[DN_REG_X][0] = 0.5;
    for (; machine_next(&m, &context, &state, &evaluation); evaluations++) {
        CHECK_MSG(evaluations < 10000, "it never ends");
        m.reg[DN_REG_COND][0] = evaluations % 2 ? 1e3 : -1e3;
        machine_answer(&m, &context, &state, &evaluation);
    }
    const char *cause = dn_sampler_failure(&context, &state);
    CHECK(cause != NULL && strstr(cause, "rtol") != NULL && dn_sampler_fraction(&context, &state) < 1.0);
}

typedef struct moments {
    double mean, variance;
} moments;

static moments moments_of(const char *name, uint32_t steps, const dn_options *options)
{
    double sum = 0.0, squares = 0.0;
    m.elements = MACHINE_ELEMENTS_MAX;
    m.noise = machine_philox;
    for (uint32_t run = 0; run < RUNS; run++) {
        dn_sampler_state state = {0};
        begin(name, steps, options, 100 + run);
        dn_op start = {.kind = DN_OP_NOISE, .seed = 100 + run, .stream = DN_STREAM_START};
        machine_philox(NULL, m.reg[DN_REG_X], m.elements, &start);
        for (size_t i = 0; i < m.elements; i++)
            m.reg[DN_REG_X][i] *= context.schedule.start_scale;
        (void)gaussian_run(&m, &context, &state);
        for (size_t i = 0; i < m.elements; i++) {
            sum += m.reg[DN_REG_X][i];
            squares += m.reg[DN_REG_X][i] * m.reg[DN_REG_X][i];
        }
    }
    double count = (double)RUNS * MACHINE_ELEMENTS_MAX, mean = sum / count;
    return (moments){mean, squares / count - mean * mean};
}

/* 1e5 draws leave 0.0008 of the mean and 0.5 % of the variance open; the rest is the steps' own error, which falls with their length. */
static void check_moments(const char *what, const char *name, uint32_t steps, const dn_options *options, double expected, double slack)
{
    moments found = moments_of(name, steps, options);
    double spread = found.variance / (GAUSSIAN_SPREAD * GAUSSIAN_SPREAD);
    printf("     %-34s %4u steps: mean %.4f, variance %.4f of the data's\n", what, steps, found.mean, spread);
    CHECK_MSG(fabs(found.mean - GAUSSIAN_MEAN) < 0.005, "%s: mean %.4f", what, found.mean);
    CHECK_MSG(fabs(spread - expected) < slack, "%s: variance %.4f of the data's", what, spread);
}

static void euler_maruyama_keeps_the_distribution(void)
{
    open_class("DDPMScheduler");
    check_moments("VP, Euler-Maruyama", "euler_maruyama", 600, NULL, 1.0, 0.035);
    if (test_failed)
        return;
    open_class("ScoreSdeVeScheduler");
    check_moments("VE, Euler-Maruyama", "euler_maruyama", 600, NULL, 1.0, 0.035);
    if (test_failed)
        return;
    open_class("EDMEulerScheduler");
    check_moments("EDM, Euler-Maruyama", "euler_maruyama", 600, NULL, 1.0, 0.035);
    if (test_failed)
        return;
    open_convention(DN_CONVENTION_SIT);
    /* SiT's last step takes the mean over a length of 0.04: of a variance of 0.96^2 s^2 + 0.04^2 it leaves 0.9218 s^2. */
    check_moments("FLOW, Euler-Maruyama", "euler_maruyama", 600, NULL, 0.9218, 0.03);
}

static void predictor_corrector_keeps_the_distribution(void)
{
    open_class("DDPMScheduler");
    check_moments("VP, predictor-corrector", "predictor_corrector", 300, NULL, 1.0, 0.04);
    if (test_failed)
        return;
    open_class("ScoreSdeVeScheduler");
    check_moments("VE, predictor-corrector", "predictor_corrector", 300, NULL, 1.0, 0.04);
}

static void edm_heun_with_churn_keeps_the_distribution(void)
{
    dn_options options = {0};
    dn_option_set(&options, DN_OPT_S_CHURN, 40.0);
    open_class("EDMEulerScheduler");
    check_moments("EDM, Heun with churn", "edm_heun", 200, &options, 1.0, 0.03);
    if (test_failed)
        return;
    open_class("DDPMScheduler");
    check_moments("VP, Heun with churn", "edm_heun", 200, &options, 1.0, 0.03);
}

/* There and back: the picture returns, the nearer the more steps. */
static double there_and_back(uint32_t steps)
{
    static double picture[64];
    dn_options options = {0};
    dn_sampler_state state = {0};
    double worst = 0.0;
    dn_option_set(&options, DN_OPT_CLIP_SAMPLE, 0.0);
    m.elements = 64;
    begin("ddim_inverse", steps, &options, 1);
    for (size_t i = 0; i < m.elements; i++)
        m.reg[DN_REG_X][i] = picture[i] = -0.4 + 1.4 * (double)i / 63.0;
    (void)gaussian_run(&m, &context, &state);
    memset(&state, 0, sizeof state);
    begin("ddim", steps, &options, 1);
    (void)gaussian_run(&m, &context, &state);
    for (size_t i = 0; i < m.elements; i++)
        worst = fmax(worst, fabs(m.reg[DN_REG_X][i] - picture[i]));
    return worst;
}

static void inversion_returns_the_picture(void)
{
    open_class("DDPMScheduler");
    double at_10 = there_and_back(10), at_50 = there_and_back(50), at_250 = there_and_back(250);
    printf("     inverted and made again: off by %.3f, %.3f, %.4f with 10, 50, 250 steps\n", at_10, at_50, at_250);
    CHECK_MSG(at_50 < 0.5 * at_10 && at_250 < 0.4 * at_50 && at_250 < 0.03, "%.4f %.4f %.4f", at_10, at_50, at_250);
}

int main(void)
{
    RUN(edm_euler_has_order_1);
    RUN(edm_heun_has_order_2);
    RUN(flow_euler_has_order_1);
    RUN(flow_heun_has_order_2);
    RUN(rk45_keeps_its_tolerances);
    RUN(rk45_refuses_long_steps);
    RUN(rk45_gives_up);
    RUN(euler_maruyama_keeps_the_distribution);
    RUN(predictor_corrector_keeps_the_distribution);
    RUN(edm_heun_with_churn_keeps_the_distribution);
    RUN(inversion_returns_the_picture);
    dn_training_schedule_free(training);
    return test_end();
}
