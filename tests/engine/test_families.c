/* What a network of each family is given and what its answer means, and that every sampler serves every family it says it serves. */
#include "tests/test.h"

#include "gaussian_network.h"

static dn_error error;
static dn_training_schedule *training;
static dn_sampler_context context;
static machine m;

static void open_class(const char *class_name, const char *prediction)
{
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "_class_name", class_name);
    if (prediction != NULL)
        cJSON_AddStringToObject(json, "prediction_type", prediction);
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

static dn_status begin(const char *name, uint32_t steps)
{
    const dn_options options = {0};
    const dn_scheduler_config unused = {0};
    return dn_sampler_context_init(&context, name, steps, &options, 1, training, &unused, &error);
}

/* The exact denoiser comes back out of the network's answer, in any form of the level, and x = alpha x0 + sigma n. */
static void check_parametrisation(double tolerance)
{
    static const double scales[] = {1.0, 0.5, 0.013};
    double low, high;
    dn_family_range(training, &low, &high);
    CHECK_OK(begin("euler", 4), error);
    m.elements = 1;
    /* at its boundary a consistency model's network is not heard at all */
    for (int i = training->boundary > 0.0; i <= 12; i++)
        for (int k = 0; k < 3; k++) {
            double ratio = low * pow(high / low, i / 12.0), alpha = scales[k], sigma = alpha * ratio;
            dn_evaluation at = {.reg = DN_REG_X, .level = dn_level_at(training, alpha, sigma)};
            double x = alpha * 0.4 + sigma * 0.9;
            dn_ops ops = {.count = 0};
            m.reg[DN_REG_X][0] = x;
            m.reg[DN_REG_COND][0] = gaussian_answer(training, dn_input_scale(&context, &at.level) * x, at.level.time);
            dn_parametrise(&context, &at, DN_REG_COND, &ops);
            machine_run(&m, &ops);
            double x0 = gaussian_x0(x, alpha, sigma), found = m.reg[DN_REG_X0][0], eps = m.reg[DN_REG_EPS][0];
            /* float coefficients: x0 is a difference of numbers of the size of the ratio */
            CHECK_MSG(fabs(found - x0) <= tolerance * (1.0 + ratio), "ratio %g, alpha %g: x0 is %.8g, not %.8g", ratio, alpha, found, x0);
            CHECK_MSG(fabs(eps - (x - alpha * x0) / sigma) <= tolerance * (1.0 + 1.0 / ratio), "ratio %g: noise is %.8g", ratio, eps);
        }
}

static void edm_epsilon(void)
{
    open_class("EDMEulerScheduler", "epsilon");
    check_parametrisation(3e-7);
}

static void edm_v_prediction(void)
{
    open_class("EDMEulerScheduler", "v_prediction");
    check_parametrisation(3e-7);
}

static void consistency_boundary(void)
{
    open_class("CMStochasticIterativeScheduler", NULL);
    check_parametrisation(3e-7);
    dn_precondition c = dn_precondition_at(training, training->sigma_min);
    CHECK(c.skip == 1.0 && c.out == 0.0);
}

static void flow_of_diffusers(void)
{
    open_class("FlowMatchEulerDiscreteScheduler", NULL);
    check_parametrisation(3e-7);
    dn_level start = dn_level_at(training, 0.0, 1.0);
    CHECK(start.time == 1000.0);
}

static void sit_and_repa(void)
{
    open_convention(DN_CONVENTION_SIT);
    check_parametrisation(3e-7);
    CHECK(dn_level_at(training, 0.0, 1.0).time == 0.0 && dn_level_at(training, 1.0, 0.0).time == 1.0);
    if (test_failed)
        return;
    open_convention(DN_CONVENTION_REPA);
    check_parametrisation(3e-7);
    CHECK(dn_level_at(training, 0.0, 1.0).time == 1.0 && dn_level_at(training, 1.0, 0.0).time == 0.0);
}

static void variance_exploding(void)
{
    open_class("ScoreSdeVeScheduler", NULL);
    check_parametrisation(3e-7);
}

static void variance_preserving(void)
{
    static const char *const predictions[] = {"epsilon", "sample", "v_prediction"};
    for (int i = 0; i < 3 && !test_failed; i++) {
        open_class("DDPMScheduler", predictions[i]);
        check_parametrisation(3e-6); /* the table is read between its entries by sigma, and found by its logarithm */
    }
}

/* Karras et al. 2022, table 1, at numbers worked out by hand: sigma 0.5 with sigma_data 0.5. */
static void edm_numbers(void)
{
    open_convention(DN_CONVENTION_EDM);
    dn_precondition c = dn_precondition_at(training, 0.5);
    CHECK(fabs(c.skip - 0.5) < 1e-15 && fabs(c.out - 0.35355339059327379) < 1e-15);
    CHECK(fabs(c.in - 1.4142135623730951) < 1e-15 && fabs(c.time - -0.17328679513998632) < 1e-15);
}

/* |image - exact| of a sampler that makes no noise, after `steps`, from x = 0.7 standard deviations of its start. */
static double off_after(const char *name, uint32_t steps)
{
    dn_sampler_state state = {0};
    if (begin(name, steps) != DN_OK)
        return INFINITY;
    m.elements = 1;
    m.reg[DN_REG_X][0] = 0.7 * context.schedule.start_scale;
    double exact = gaussian_map(m.reg[DN_REG_X][0], &context.schedule.level[0]);
    (void)gaussian_run(&m, &context, &state);
    return fabs(m.reg[DN_REG_X][0] - exact);
}

/* SiT's and REPA's networks are the same one in two conventions: the same images to the last bit but rounding. */
static void conventions_agree(void)
{
    static const char *const names[] = {"flow_euler", "flow_heun", "dpmpp_2m", "ddim", "rk45"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        open_convention(DN_CONVENTION_SIT);
        double off_sit = off_after(names[i], 25), sit = m.reg[DN_REG_X][0];
        open_convention(DN_CONVENTION_REPA);
        double off_repa = off_after(names[i], 25), repa = m.reg[DN_REG_X][0];
        CHECK_MSG(fabs(sit - repa) < 1e-6, "%s: %.9g and %.9g", names[i], sit, repa);
        CHECK_MSG(off_sit < 0.03 && off_repa < 0.03, "%s: off by %.3g and %.3g", names[i], off_sit, off_repa);
    }
}

/* Every sampler that makes no noise ends near the exact image, nearer with more steps, on every family that it serves. */
static void check_family(dn_family family)
{
    for (uint32_t i = 0; dn_sampler_at(i) != NULL; i++) {
        const dn_sampler *sampler = dn_sampler_at(i);
        if (!(sampler->families >> family & 1u)) {
            CHECK_MSG(begin(sampler->name, 10) == DN_INVALID, "%s is not refused", sampler->name);
            CHECK_MSG(strstr(error.message, sampler->name) != NULL, "%s: %s", sampler->name, error.message);
            continue;
        }
        if (sampler->stochastic || sampler->inverts)
            continue;
        double few = off_after(sampler->name, 20), many = off_after(sampler->name, 160);
        printf("     %-28s %-16s off by %.2e after 20 steps, %.2e after 160\n", dn_family_title(family), sampler->name, few, many);
        CHECK_MSG(many < 0.02 && many < fmax(0.6 * few, 1e-3), "%s: off by %.3g after 20 steps, by %.3g after 160", sampler->name, few,
                  many);
    }
}

static void samplers_serve_edm(void)
{
    open_class("EDMEulerScheduler", NULL);
    check_family(DN_FAMILY_EDM);
}

static void samplers_serve_flow(void)
{
    open_class("FlowMatchEulerDiscreteScheduler", NULL);
    check_family(DN_FAMILY_FLOW);
}

static void samplers_serve_flow_of_sit(void)
{
    open_convention(DN_CONVENTION_SIT);
    check_family(DN_FAMILY_FLOW);
}

static void samplers_serve_exploding(void)
{
    open_class("ScoreSdeVeScheduler", NULL);
    check_family(DN_FAMILY_VE);
}

static void keys_are_read(void)
{
    static const char *const bad[] = {"{\"_class_name\":\"EDMEulerScheduler\",\"sigma_min\":5,\"sigma_max\":2}",
                                      "{\"_class_name\":\"EDMEulerScheduler\",\"prediction_type\":\"sample\"}",
                                      "{\"_class_name\":\"EDMEulerScheduler\",\"sigma_data\":0}",
                                      "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift\":0}",
                                      "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"stochastic_sampling\":true}",
                                      "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\",\"shift_terminal\":0.1}"};
    static const char *const keys[] = {"sigma_min", "prediction_type", "sigma_data", "shift", "stochastic_sampling", "shift_terminal"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dn_training_schedule *refused = NULL;
        cJSON *json = cJSON_Parse(bad[i]);
        dn_status status = dn_training_schedule_from_json(&refused, json, "folder/scheduler_config.json", &error);
        cJSON_Delete(json);
        CHECK_MSG(status != DN_OK, "%s was accepted", bad[i]);
        CHECK_MSG(strstr(error.message, keys[i]) != NULL && strstr(error.message, "folder/") != NULL, "%s: %s", keys[i], error.message);
    }
}

static void model_of_each_convention(void)
{
    static const struct {
        dn_convention convention;
        const char *sampler;
    } rows[] = {{DN_CONVENTION_SIT, "flow_euler"},
                {DN_CONVENTION_REPA, "flow_euler"},
                {DN_CONVENTION_EDM, "edm_euler"},
                {DN_CONVENTION_GUIDED_DIFFUSION, "ddpm"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const dn_options options = {0};
        dn_scheduler_config config;
        open_convention(rows[i].convention);
        CHECK_OK(dn_scheduler_config_for_convention(&config, rows[i].convention, &error), error);
        CHECK_OK(dn_sampler_context_init(&context, "model", 10, &options, 1, training, &config, &error), error);
        CHECK_MSG(strcmp(context.sampler->name, rows[i].sampler) == 0, "%s", context.sampler->name);
    }
}

int main(void)
{
    RUN(edm_numbers);
    RUN(edm_epsilon);
    RUN(edm_v_prediction);
    RUN(consistency_boundary);
    RUN(flow_of_diffusers);
    RUN(sit_and_repa);
    RUN(variance_exploding);
    RUN(variance_preserving);
    RUN(conventions_agree);
    RUN(samplers_serve_edm);
    RUN(samplers_serve_flow);
    RUN(samplers_serve_flow_of_sit);
    RUN(samplers_serve_exploding);
    RUN(keys_are_read);
    RUN(model_of_each_convention);
    dn_training_schedule_free(training);
    return test_end();
}
