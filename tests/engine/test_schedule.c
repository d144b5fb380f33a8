/* Training schedules and scheduler configurations: tables against closed forms, defaults of the classes, timesteps of the
 * spacings, and refusals that name file and key. */
#include "tests/test.h"

#include "diffusion/sampler.h"
#include "format/json.h"

static dn_error error;

static cJSON *parse(const char *text)
{
    cJSON *json = NULL;
    size_t offset = 0;
    dn_json_limits limits = {.bytes_max = 4096};
    if (dn_json_parse(&json, text, strlen(text), &limits, &offset, &error) != DN_OK) {
        printf("FAIL parse: %s at %zu\n", error.message, offset);
        exit(1);
    }
    return json;
}

static dn_status read_training(dn_training_schedule **out, const char *text)
{
    cJSON *json = parse(text);
    dn_status status = dn_training_schedule_from_json(out, json, "scheduler_config.json", &error);
    cJSON_Delete(json);
    return status;
}

static dn_status read_config(dn_scheduler_config *out, const char *text)
{
    cJSON *json = parse(text);
    dn_status status = dn_scheduler_config_from_json(out, json, "scheduler_config.json", &error);
    cJSON_Delete(json);
    return status;
}

static bool near(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b);
}

static void tables_have_their_known_values(void)
{
    static const struct {
        const char *text;
        double first_beta, middle, last, sigma_max;
    } rows[] = {
        {"{}", 1e-4, 0.0777967, 4.03583e-5, 157.407},
        {"{\"beta_schedule\":\"scaled_linear\",\"beta_start\":0.00085,\"beta_end\":0.012}", 0.00085, 0.0, 0.0046601, 14.6146},
        {"{\"beta_schedule\":\"squaredcos_cap_v2\"}", 4.12842e-5, 0.492285, 2.42877e-9, 20291.0},
        {"{\"beta_schedule\":\"laplace\"}", 0.02115376, 0.7072834, 0.03162277, 5.533785},
        {"{\"beta_schedule\":\"sigmoid\"}", 1.4920520e-4, 0.2988876, 3.968182e-5, 158.74336},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_training_schedule *schedule = NULL;
        CHECK_OK(read_training(&schedule, rows[i].text), error);
        CHECK_MSG(near(schedule->betas[0], rows[i].first_beta, 1e-4), "row %zu: beta 0 is %g", i, schedule->betas[0]);
        CHECK_MSG(rows[i].middle == 0.0 || near(schedule->alphas_cumprod[500], rows[i].middle, 1e-5), "row %zu: %g", i,
                  schedule->alphas_cumprod[500]);
        CHECK_MSG(near(schedule->alphas_cumprod[999], rows[i].last, 1e-4), "row %zu: %g", i, schedule->alphas_cumprod[999]);
        CHECK_MSG(near(dn_training_sigma(schedule, 999.0), rows[i].sigma_max, 1e-4), "row %zu: %g", i, dn_training_sigma(schedule, 999.0));
        for (uint32_t t = 1; t < 1000; t++)
            CHECK(schedule->alphas_cumprod[t] < schedule->alphas_cumprod[t - 1]);
        double half = dn_training_sigma(schedule, 500.5);
        CHECK(half > dn_training_sigma(schedule, 500.0) && half < dn_training_sigma(schedule, 501.0));
        dn_training_schedule_free(schedule);
    }
}

static void zero_terminal_snr(void)
{
    dn_training_schedule *plain = NULL, *zero = NULL;
    CHECK_OK(read_training(&plain, "{}"), error);
    CHECK_OK(read_training(&zero, "{\"rescale_betas_zero_snr\":true}"), error);
    CHECK(zero->alphas_cumprod[999] == 0.0);
    CHECK(near(zero->alphas_cumprod[0], plain->alphas_cumprod[0], 1e-12));
    CHECK(near(dn_training_sigma(zero, 999.0), 4096.0, 1e-6));
    dn_training_schedule_free(plain);
    dn_training_schedule_free(zero);
}

static void trained_betas(void)
{
    dn_training_schedule *schedule = NULL;
    CHECK_OK(read_training(&schedule, "{\"num_train_timesteps\":3,\"trained_betas\":[0.1,0.2,0.5],\"prediction_type\":\"v_prediction\"}"),
             error);
    CHECK(schedule->prediction == DN_PREDICT_V && near(schedule->alphas_cumprod[2], 0.9 * 0.8 * 0.5, 1e-6));
    dn_training_schedule_free(schedule);
}

static void classes_have_their_own_defaults(void)
{
    dn_scheduler_config config;
    dn_training_schedule *schedule = NULL;
    CHECK_OK(read_config(&config, "{\"_class_name\":\"DDIMScheduler\"}"), error);
    CHECK(config.spacing == DN_SPACING_LEADING && config.clip_sample && config.set_alpha_to_one);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"PNDMScheduler\"}"), error);
    CHECK(!config.set_alpha_to_one && !config.clip_sample);
    CHECK_OK(read_config(&config,
                         "{\"_class_name\":\"DPMSolverMultistepScheduler\",\"clip_sample\":true,\"variance_type\":null,\"sigma_min\":null,"
                         "\"lambda_min_clipped\":-1e308}"),
             error);
    CHECK(config.spacing == DN_SPACING_LINSPACE && !config.clip_sample && config.solver_order == 2 && !config.final_sigma_min);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"HeunDiscreteScheduler\",\"final_sigmas_type\":\"sigma_min\",\"use_lu_lambdas\":true,"
                                  "\"sigma_max\":5,\"lambda_min_clipped\":-3,\"interpolation_type\":\"log_linear\"}"),
             error);
    CHECK(!config.final_sigma_min && !config.use_lu_lambdas && isnan(config.sigma_max) && isinf(config.lambda_min_clipped));
    CHECK(strcmp(config.interpolation_type, "linear") == 0);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"EulerAncestralDiscreteScheduler\",\"use_karras_sigmas\":true}"), error);
    CHECK(!config.use_karras_sigmas);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"UniPCMultistepScheduler\",\"solver_type\":\"midpoint\",\"disable_corrector\":[0,3]}"),
             error);
    CHECK(strcmp(config.solver_type, "bh2") == 0 && config.disable_corrector == 9 && config.solver_order == 2);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"DEISMultistepScheduler\",\"algorithm_type\":\"dpmsolver++\"}"), error);
    CHECK(strcmp(config.algorithm_type, "deis") == 0 && config.final_sigma_min);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"DPMSolverSinglestepScheduler\",\"timestep_spacing\":\"leading\"}"), error);
    CHECK(config.spacing == DN_SPACING_LINSPACE && !config.lower_order_final);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"PNDMScheduler\",\"skip_prk_steps\":true}"), error);
    CHECK(strcmp(config.algorithm_type, "plms") == 0);
    CHECK_OK(read_config(&config, "{\"_class_name\":\"SASolverScheduler\",\"predictor_order\":3,\"corrector_order\":4}"), error);
    CHECK(config.solver_order == 3 && config.corrector_order == 4);
    CHECK_OK(read_training(&schedule, "{\"_class_name\":\"HeunDiscreteScheduler\"}"), error);
    CHECK(near(schedule->betas[0], 0.00085, 1e-6) && near(schedule->betas[999], 0.012, 1e-6));
    dn_training_schedule_free(schedule);
    CHECK_OK(dn_scheduler_config_from_json(&config, NULL, "none", &error), error);
    CHECK(strcmp(config.class_name, "DDPMScheduler") == 0);
}

/* Table 2 of "Common diffusion noise schedules and sample steps are flawed", as diffusers computes it. */
static void spacings(void)
{
    static const struct {
        const char *spacing, *sampler;
        uint32_t steps;
        double times[10];
    } rows[] = {
        {"leading", "DDIMScheduler", 4, {750, 500, 250, 0}},
        {"trailing", "DDIMScheduler", 4, {999, 749, 499, 249}},
        {"linspace", "DDIMScheduler", 4, {999, 666, 333, 0}},
        {"linspace", "DPMSolverMultistepScheduler", 10, {999, 899, 799, 699, 599, 500, 400, 300, 200, 100}},
    };
    dn_options options = {0};
    dn_training_schedule *training = NULL;
    CHECK_OK(read_training(&training, "{}"), error);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        char text[256];
        dn_scheduler_config config;
        static dn_sampler_context context;
        snprintf(text, sizeof text, "{\"_class_name\":\"%s\",\"timestep_spacing\":\"%s\"}", rows[r].sampler, rows[r].spacing);
        CHECK_OK(read_config(&config, text), error);
        CHECK_OK(dn_sampler_context_init(&context, "model", rows[r].steps, &options, 0, training, &config, &error), error);
        for (uint32_t i = 0; i < rows[r].steps; i++)
            CHECK_MSG(context.schedule.level[i].time == rows[r].times[i], "row %zu: time %u is %g", r, i, context.schedule.level[i].time);
    }
    dn_training_schedule_free(training);
}

/* Evaluations of an image that the sampler's row promises. */
static uint32_t promised(const dn_sampler *sampler, uint32_t steps)
{
    if (strcmp(sampler->name, "pndm") == 0)
        return steps + 9;
    if (strcmp(sampler->name, "plms") == 0 && steps > 1)
        return steps + 1;
    return sampler->evaluations_per_step == 2 ? 2 * steps - 1 : steps * sampler->evaluations_per_step;
}

/* One sampler with one number of steps; what it refuses it refuses by the name of a field. */
static void check_schedule(const dn_sampler *sampler, uint32_t steps, const dn_training_schedule *training)
{
    static dn_sampler_context context;
    dn_options options = {0};
    dn_scheduler_config config;
    CHECK_OK(dn_scheduler_config_defaults(&config, "DDPMScheduler", &error), error);
    if (dn_sampler_context_init(&context, sampler->name, steps, &options, 0, training, &config, &error) != DN_OK) {
        CHECK_MSG(strstr(error.message, "steps must be") != NULL, "%s, %u steps: %s", sampler->name, steps, error.message);
        CHECK_MSG(steps < 4 || steps > 50, "%s refuses %u steps", sampler->name, steps);
        return;
    }
    CHECK(context.schedule.steps == steps);
    for (uint32_t i = 0; i < steps && !sampler->inverts; i++) {
        double from = context.schedule.level[i].sigma, to = context.schedule.level[i + 1].sigma;
        CHECK_MSG(to < from || (i + 1 == steps && to == from), "%s, %u steps: level %u does not fall", sampler->name, steps, i);
    }
    uint32_t evaluations = dn_sampler_evaluations(&context);
    CHECK_MSG(sampler->adaptive || strcmp(sampler->name, "predictor_corrector") == 0 || evaluations == promised(sampler, steps),
              "%s, %u steps: %u evaluations, not %u", sampler->name, steps, evaluations, promised(sampler, steps));
}

static void every_sampler_makes_a_schedule_that_falls(void)
{
    static const uint32_t counts[] = {1, 2, 3, 10, 20, 50, 250, 999};
    dn_training_schedule *training = NULL;
    CHECK_OK(read_training(&training, "{\"beta_schedule\":\"squaredcos_cap_v2\",\"prediction_type\":\"v_prediction\"}"), error);
    for (uint32_t s = 0; dn_sampler_at(s) != NULL; s++)
        for (size_t c = 0; c < sizeof counts / sizeof counts[0] && (dn_sampler_at(s)->families >> DN_FAMILY_VP & 1u); c++) {
            check_schedule(dn_sampler_at(s), counts[c], training);
            if (test_failed)
                return;
        }
    dn_training_schedule_free(training);
}

static void refusals_name_file_and_key(void)
{
    static const struct {
        const char *text, *word;
    } training[] = {
        {"{\"beta_schedule\":\"exp\"}", "beta_schedule"},
        {"{\"beta_start\":\"a\"}", "beta_start"},
        {"{\"beta_end\":1.5}", "beta_end"},
        {"{\"num_train_timesteps\":0}", "num_train_timesteps"},
        {"{\"num_train_timesteps\":10001}", "num_train_timesteps"},
        {"{\"prediction_type\":\"flow_prediction\"}", "prediction_type"},
        {"{\"trained_betas\":[0.1]}", "trained_betas"},
        {"{\"num_train_timesteps\":2,\"trained_betas\":[0.1,2]}", "trained_betas"},
        {"{\"_class_name\":\"NoSuchScheduler\"}", "_class_name"},
        {"{\"rescale_betas_zero_snr\":1}", "rescale_betas_zero_snr"},
    };
    static const struct {
        const char *text, *word;
    } sampling[] = {
        {"{\"_class_name\":\"UniPCMultistepScheduler\",\"solver_p\":{}}", "solver_p"},
        {"{\"_class_name\":\"UniPCMultistepScheduler\",\"disable_corrector\":[64]}", "disable_corrector"},
        {"{\"_class_name\":\"SASolverScheduler\",\"algorithm_type\":\"dpmsolver++\"}", "algorithm_type"},
        {"{\"_class_name\":\"SASolverScheduler\",\"predictor_order\":5}", "predictor_order"},
        {"{\"timestep_spacing\":\"even\"}", "timestep_spacing"},
        {"{\"steps_offset\":-1}", "steps_offset"},
        {"{\"solver_order\":4}", "solver_order"},
        {"{\"variance_type\":\"huge\"}", "variance_type"},
        {"{\"use_flow_sigmas\":true}", "use_flow_sigmas"},
        {"{\"use_karras_sigmas\":true,\"use_beta_sigmas\":true}", "use_karras_sigmas"},
        {"{\"clip_sample\":\"yes\"}", "clip_sample"},
        {"{\"dynamic_thresholding_ratio\":2}", "dynamic_thresholding_ratio"},
    };
    dn_training_schedule *schedule = NULL;
    dn_scheduler_config config;
    for (size_t i = 0; i < sizeof training / sizeof training[0]; i++) {
        CHECK_MSG(read_training(&schedule, training[i].text) != DN_OK && schedule == NULL, "%s was accepted", training[i].text);
        CHECK_MSG(strstr(error.message, training[i].word) != NULL && strstr(error.message, "scheduler_config.json") != NULL, "%s",
                  error.message);
    }
    for (size_t i = 0; i < sizeof sampling / sizeof sampling[0]; i++) {
        CHECK_MSG(read_config(&config, sampling[i].text) != DN_OK, "%s was accepted", sampling[i].text);
        CHECK_MSG(strstr(error.message, sampling[i].word) != NULL && strstr(error.message, "scheduler_config.json") != NULL, "%s",
                  error.message);
    }
}

/* What a folder may ask for and no sampler here can do is refused when "model" is chosen; a sampler by name still works. */
static void model_may_ask_for_too_much(void)
{
    static const struct {
        const char *text, *word;
        uint32_t steps;
    } rows[] = {
        {"{\"_class_name\":\"LCMScheduler\"}", "original_inference_steps", 60},
        {"{\"_class_name\":\"PNDMScheduler\"}", "steps", 3},
        {"{\"_class_name\":\"UniPCMultistepScheduler\",\"predict_x0\":false,\"thresholding\":true}", "thresholding", 10},
        {"{\"_class_name\":\"DPMSolverSinglestepScheduler\",\"algorithm_type\":\"sde-dpmsolver++\",\"solver_order\":3}", "solver_order",
         10},
        {"{\"_class_name\":\"DDPMScheduler\",\"variance_type\":\"learned\"}", "learned", 10},
        {"{\"_class_name\":\"DDIMScheduler\",\"steps_offset\":100}", "steps_offset", 100},
        {"{\"_class_name\":\"DPMSolverMultistepScheduler\",\"algorithm_type\":\"dpmsolver\"}", "final_sigmas_type", 10},
        {"{\"_class_name\":\"DPMSolverMultistepScheduler\",\"algorithm_type\":\"sde-dpmsolver++\",\"solver_order\":3}", "solver_order", 10},
    };
    dn_options options = {0};
    static dn_sampler_context context;
    dn_training_schedule *training = NULL;
    CHECK_OK(read_training(&training, "{}"), error);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        dn_scheduler_config config;
        CHECK_OK(read_config(&config, rows[i].text), error);
        CHECK_MSG(dn_sampler_context_init(&context, "model", rows[i].steps, &options, 0, training, &config, &error) != DN_OK,
                  "%s was accepted", rows[i].text);
        CHECK_MSG(strstr(error.message, rows[i].word) != NULL, "%s", error.message);
        CHECK_OK(dn_sampler_context_init(&context, "ddim", rows[i].steps, &options, 0, training, &config, &error), error);
    }
    dn_training_schedule_free(training);
}

int main(void)
{
    RUN(tables_have_their_known_values);
    RUN(zero_terminal_snr);
    RUN(trained_betas);
    RUN(classes_have_their_own_defaults);
    RUN(spacings);
    RUN(every_sampler_makes_a_schedule_that_falls);
    RUN(refusals_name_file_and_key);
    RUN(model_may_ask_for_too_much);
    return test_end();
}
