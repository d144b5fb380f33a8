/* Every scheduler case of the goldens against diffusers 0.31: timesteps, noise levels, what the network is given, every step alone, and
 * whole trajectories with the goldens' closed-form denoiser (a mixture of three Gaussians per element). Where diffusers itself gives
 * NaN the tables are compared, and the run here must stay finite; each such run is named. */
#include "tests/test.h"

#include "format/json.h"
#include "format/safetensors.h"
#include "register_machine.h"

#define TOLERANCE 1e-5 /* of the largest |x|; the stored values are float */
/* UniPC by noise carries its corrected image, which is not stored, from step to step: with the stored answers that chain is open, and
 * grows what the floats round. */
#define OPEN_CHAIN_TOLERANCE 5e-5
#define ROUNDED_BAR 1e-12 /* what floats leave of differences of nearly equal alphas (zero terminal signal) */
#define GAP_TIMES 4.0 /* of the distance between diffusers' own float and double runs, where that is more */
#define LEVEL_TOLERANCE 3e-6 /* sigma and start scale, relative */
#define TIME_TOLERANCE 2e-4 /* of fractional timesteps; whole ones must be equal */

static const char *folder;
static const char *case_class, *case_name;
static const cJSON *case_json;
static dn_safetensors *tensors;
static dn_training_schedule *training;
static dn_scheduler_config config;
static dn_sampler_context context;
static machine m;

typedef struct tensor {
    uint64_t count, first; /* elements; of one slice of the first dimension */
    double *values;
} tensor;

static tensor load(const char *steps, const char *what)
{
    char name[256];
    snprintf(name, sizeof name, "%s/%s%s%s", case_name, steps, steps[0] ? "/" : "", what);
    tensor t = {0, 0, NULL};
    const dn_tensor_info *info = dn_safetensors_find(tensors, name);
    if (info == NULL)
        return t;
    dn_error error;
    t.count = info->count;
    t.first = info->count / info->dims[0];
    t.values = malloc(t.count * sizeof *t.values);
    if (t.values == NULL || dn_safetensors_read_f64(tensors, info, t.values, &error) != DN_OK)
        abort();
    return t;
}

static double largest(const double *values, size_t count)
{
    double most = 0.0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs(values[i]));
    return most;
}

static double distance(const double *a, const double *b, size_t count)
{
    double most = 0.0;
    for (size_t i = 0; i < count; i++)
        most = isfinite(a[i]) ? fmax(most, fabs(a[i] - b[i])) : (double)INFINITY;
    return most;
}

/* The noise that diffusers drew in the current call. */
static const double *given_noise;
static void noise_given(void *payload, double *out, size_t count, const dn_op *op)
{
    (void)payload;
    (void)op;
    memcpy(out, given_noise, count * sizeof *out);
}

static double toy_alpha_bar(double time)
{
    if (time == floor(time) && context.schedule.start_scale == 1.0 && context.schedule.level[0].alpha == 0.0)
        return training->alphas_cumprod[(uint32_t)time];
    double sigma = dn_training_sigma(training, time);
    return 1.0 / (1.0 + sigma * sigma);
}

/* The goldens' README: prediction at network input x and time t; the variance half of learned networks. */
static void toy_denoise(double *raw, double *variance, const double *x, size_t count, double time)
{
    static const double weight[3] = {0.3, 0.5, 0.2}, mean[3] = {-0.8, 0.35, 0.9}, spread[3] = {0.15, 0.3, 0.1};
    double a = toy_alpha_bar(time), root = sqrt(a);
    for (size_t i = 0; i < count; i++) {
        double log_p[3], most = -INFINITY, sum = 0.0, eps = 0.0, x0 = 0.0;
        for (int k = 0; k < 3; k++) {
            double v = a * spread[k] * spread[k] + 1.0 - a, d = x[i] - root * mean[k];
            log_p[k] = log(weight[k]) - 0.5 * log(v) - 0.5 * d * d / v;
            most = fmax(most, log_p[k]);
        }
        for (int k = 0; k < 3; k++)
            sum += exp(log_p[k] - most);
        for (int k = 0; k < 3; k++) {
            double v = a * spread[k] * spread[k] + 1.0 - a, d = x[i] - root * mean[k], r = exp(log_p[k] - most) / sum;
            eps += r * d / v;
            x0 += r * (mean[k] + root * spread[k] * spread[k] * d / v);
        }
        eps *= sqrt(1.0 - a);
        raw[i] = training->prediction == DN_PREDICT_EPSILON  ? eps
                 : training->prediction == DN_PREDICT_SAMPLE ? x0
                                                             : root * eps - sqrt(1.0 - a) * x0;
        variance[i] = 0.5 * eps / (1.0 + fabs(eps));
    }
}

static dn_options case_options(void)
{
    dn_options options = {0};
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(case_json, "step_kwargs"))
    {
        dn_option_id id;
        if (dn_option_find(item->string, &id))
            dn_option_set(&options, id, item->valuedouble);
    }
    return options;
}

/* The noise level of a call. The classes that ask half-way hold only the ends of their steps. */
static double expected_sigma(const tensor *sigmas, uint64_t call)
{
    bool half = strcmp(case_class, "KDPM2DiscreteScheduler") == 0 || strcmp(case_class, "DPMSolverSDEScheduler") == 0;
    if (sigmas->values == NULL)
        return 0.0;
    return half && call % 2 == 1 ? sqrt(sigmas->values[call - 1] * sigmas->values[call]) : sigmas->values[call];
}

/* Timesteps and noise levels of every network call. */
static void check_tables(const char *steps)
{
    tensor times = load(steps, "timesteps"), sigmas = load(steps, "sigmas");
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    uint64_t call = 0;
    while (context.sampler->next(&context, &state, &evaluation)) {
        CHECK_MSG(call < times.count, "%s: more than %llu calls", steps, (unsigned long long)times.count);
        double time = times.values[call], mine = evaluation.level.time;
        double slack = time == floor(time) && mine == floor(mine) ? 0.0 : TIME_TOLERANCE;
        CHECK_MSG(fabs(time - mine) <= slack, "%s: call %llu at time %.9g, expected %.9g", steps, (unsigned long long)call, mine, time);
        double ratio = evaluation.level.sigma / evaluation.level.alpha, expected = expected_sigma(&sigmas, call);
        if (sigmas.values != NULL)
            CHECK_MSG(fabs(ratio - expected) <= LEVEL_TOLERANCE * expected, "%s: call %llu at sigma %.9g, expected %.9g", steps,
                      (unsigned long long)call, ratio, expected);
        dn_ops ops = {.count = 0};
        context.sampler->feed(&context, &state, &ops);
        call++;
    }
    CHECK_MSG(call == times.count, "%s: %llu calls, expected %llu", steps, (unsigned long long)call, (unsigned long long)times.count);
    CHECK(call == dn_sampler_evaluations(&context));
    tensor scale = load(steps, "init_noise_sigma");
    if (scale.values != NULL)
        CHECK_MSG(fabs(scale.values[0] - context.schedule.start_scale) <= LEVEL_TOLERANCE * scale.values[0],
                  "%s: start scale %.9g, expected %.9g", steps, context.schedule.start_scale, scale.values[0]);
    free(times.values);
    free(sigmas.values);
    free(scale.values);
}

/* What the network is given: the image by the input scale. */
static void check_input(const tensor *inputs, uint64_t call, const dn_evaluation *evaluation, const char *steps)
{
    double scale = dn_input_scale(&context, &evaluation->level), most = 0.0;
    const double *expected = inputs->values + call * inputs->first;
    for (size_t i = 0; i < m.elements; i++)
        most = fmax(most, fabs(scale * m.reg[evaluation->reg][i] - expected[i]));
    CHECK_MSG(most <= TOLERANCE * largest(expected, m.elements), "%s: the input of call %llu is off by %.3g", steps,
              (unsigned long long)call, most);
}

/* Every step alone, from the stored image, answer and noise. */
static void check_steps(const char *steps, double gap)
{
    tensor x = load(steps, "x"), answers = load(steps, "model_out"), noise = load(steps, "noise"), inputs = load(steps, "model_in");
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    bool open_chain = strcmp(case_class, "UniPCMultistepScheduler") == 0 && strcmp(config.algorithm_type, "noise_prediction") == 0;
    double tolerance = open_chain ? OPEN_CHAIN_TOLERANCE : TOLERANCE;
    m.elements = x.first;
    m.noise = noise_given;
    for (uint64_t call = 0; context.sampler->next(&context, &state, &evaluation); call++) {
        memcpy(m.reg[DN_REG_X], x.values + call * x.first, x.first * sizeof(double));
        memcpy(m.reg[DN_REG_COND], answers.values + call * answers.first, x.first * sizeof(double));
        if (answers.first == 2 * x.first)
            memcpy(m.reg[DN_REG_VARIANCE], answers.values + call * answers.first + x.first, x.first * sizeof(double));
        given_noise = noise.values != NULL ? noise.values + call * noise.first : NULL;
        check_input(&inputs, call, &evaluation, steps);
        machine_answer(&m, &context, &state, &evaluation);
        const double *expected = x.values + (call + 1) * x.first;
        double off = distance(m.reg[DN_REG_X], expected, x.first);
        double size = fmax(largest(expected, x.first), largest(x.values + call * x.first, x.first));
        CHECK_MSG(off <= fmax(tolerance * size, GAP_TIMES * gap), "%s: call %llu is off by %.3g of %.3g", steps, (unsigned long long)call,
                  off, size);
    }
    free(x.values);
    free(answers.values);
    free(noise.values);
    free(inputs.values);
}

static void check_trajectory(const char *steps, double gap)
{
    tensor x = load(steps, "x"), noise = load(steps, "noise"), final = load(steps, "x_final_f64");
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    static double input[MACHINE_ELEMENTS_MAX];
    m.elements = x.first;
    m.noise = noise_given;
    memcpy(m.reg[DN_REG_X], x.values, x.first * sizeof(double));
    for (uint64_t call = 0; context.sampler->next(&context, &state, &evaluation); call++) {
        double scale = dn_input_scale(&context, &evaluation.level);
        for (size_t i = 0; i < m.elements; i++)
            input[i] = scale * m.reg[evaluation.reg][i];
        toy_denoise(m.reg[DN_REG_COND], m.reg[DN_REG_VARIANCE], input, m.elements, evaluation.level.time);
        given_noise = noise.values != NULL ? noise.values + call * noise.first : NULL;
        machine_answer(&m, &context, &state, &evaluation);
    }
    double off = distance(m.reg[DN_REG_X], final.values, m.elements), size = largest(final.values, m.elements);
    free(x.values);
    free(noise.values);
    free(final.values);
    double allowed = fmax(TOLERANCE * fmax(size, 1.0), GAP_TIMES * gap);
    CHECK_MSG(off <= allowed, "%s: the final image is off by %.3g, more than %.3g", steps, off, allowed);
}

/* Where diffusers gives NaN: a run here with noise of its own ends finite. */
static void check_finite(const char *steps)
{
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    static double input[MACHINE_ELEMENTS_MAX];
    m.elements = 32;
    m.noise = machine_philox;
    machine_philox(NULL, m.reg[DN_REG_X], m.elements, &(dn_op){.seed = 5});
    for (size_t i = 0; i < m.elements; i++)
        m.reg[DN_REG_X][i] *= context.schedule.start_scale;
    while (context.sampler->next(&context, &state, &evaluation)) {
        double scale = dn_input_scale(&context, &evaluation.level);
        for (size_t i = 0; i < m.elements; i++)
            input[i] = scale * m.reg[evaluation.reg][i];
        toy_denoise(m.reg[DN_REG_COND], m.reg[DN_REG_VARIANCE], input, m.elements, evaluation.level.time);
        machine_answer(&m, &context, &state, &evaluation);
    }
    double most = largest(m.reg[DN_REG_X], m.elements);
    CHECK_MSG(isfinite(most) && most < 3.0, "%s: the image reaches %g", steps, most);
    printf("NOTE %s/%s/%s: diffusers gives NaN; its tables were compared, and the image here is finite (|x| <= %.2f)\n", case_class,
           case_name, steps, most);
}

static double number_of(const cJSON *json, const char *key, double fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

static void check_run(const cJSON *run)
{
    double gap = number_of(run, "gap", 0.0), steps_gap = number_of(run, "steps_gap", gap);
    check_tables(run->string);
    if (test_failed)
        return;
    if (!cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(run, "finite"))) {
        check_finite(run->string);
        return;
    }
    check_steps(run->string, steps_gap);
    if (!test_failed)
        check_trajectory(run->string, gap);
}

static void check_runs(void)
{
    const cJSON *run = NULL;
    dn_options options = case_options();
    cJSON_ArrayForEach(run, cJSON_GetObjectItemCaseSensitive(case_json, "runs"))
    {
        dn_error error;
        uint32_t steps = (uint32_t)strtoul(run->string, NULL, 10);
        CHECK_OK(dn_sampler_context_init(&context, "model", steps, &options, 0, training, &config, &error), error);
        check_run(run);
        if (test_failed)
            return;
    }
}

static void check_alphas(void)
{
    tensor bar = load("", "alphas_cumprod");
    for (uint64_t i = 0; i < bar.count; i++) {
        double mine = training->alphas_cumprod[i], floor_bar = i + 1 == bar.count ? 0x1p-24 : ROUNDED_BAR;
        CHECK_MSG(fabs(mine - bar.values[i]) <= 1e-5 * bar.values[i] + floor_bar, "alphas_cumprod[%llu] = %.9g, expected %.9g",
                  (unsigned long long)i, mine, bar.values[i]);
    }
    free(bar.values);
}

static void run_case(void)
{
    dn_error error;
    const cJSON *json = cJSON_GetObjectItemCaseSensitive(case_json, "config");
    if (strcmp(case_name, "clip_eta0_use_clipped") == 0)
        SKIP("use_clipped_model_output is an argument of diffusers' step that no model folder can ask for");
    CHECK_OK(dn_training_schedule_from_json(&training, json, case_class, &error), error);
    CHECK_OK(dn_scheduler_config_from_json(&config, json, case_class, &error), error);
    check_alphas();
    if (!test_failed)
        check_runs();
    dn_training_schedule_free(training);
}

static void run_class(const char *class_name)
{
    char path[256], label[256];
    dn_error error;
    cJSON *all = NULL;
    snprintf(path, sizeof path, "%s/%s.json", folder, class_name);
    if (dn_json_read_file(&all, path, DN_CONFIG_BYTES_MAX, &error) != DN_OK) {
        printf("FAIL %s: %s\n", class_name, error.message);
        test_failures++;
        return;
    }
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, class_name);
    if (dn_safetensors_open(&tensors, path, &error) != DN_OK) {
        printf("FAIL %s: %s\n", class_name, error.message);
        test_failures++;
    } else {
        cJSON_ArrayForEach(case_json, all)
        {
            case_class = class_name;
            case_name = case_json->string;
            snprintf(label, sizeof label, "%s/%s", class_name, case_name);
            test_run(label, run_case);
        }
        dn_safetensors_close(tensors);
    }
    cJSON_Delete(all);
}

/* diffusers' IPNDMScheduler keeps levels of its own, alpha = cos and sigma = sin of even angles, for networks with times from 0 to 1; no
 * table of alpha-bar has them. Its steps are those of `ipndm` on these levels. */
static void ipndm_on_its_own_levels(void)
{
    static const char *const runs[] = {"10", "20"};
    dn_options options = {0};
    dn_error error;
    for (size_t r = 0; r < 2; r++) {
        tensor alphas = load(runs[r], "alphas"), sigmas = load(runs[r], "sigmas"), x = load(runs[r], "x"),
               answers = load(runs[r], "model_out");
        uint32_t steps = (uint32_t)alphas.count - 1;
        CHECK_OK(dn_sampler_context_init(&context, "ipndm", steps, &options, 0, training, &config, &error), error);
        for (uint32_t i = 0; i <= steps; i++)
            context.schedule.level[i] = (dn_level){.alpha = alphas.values[i], .sigma = sigmas.values[i]};
        context.schedule.level[0].alpha = 1e-8; /* really 0: diffusers' first step divides 0 by this, and is not compared */
        dn_sampler_state state = {0};
        dn_evaluation evaluation;
        m.elements = x.first;
        for (uint64_t call = 0; context.sampler->next(&context, &state, &evaluation); call++) {
            memcpy(m.reg[DN_REG_X], x.values + call * x.first, x.first * sizeof(double));
            memcpy(m.reg[DN_REG_COND], answers.values + call * x.first, x.first * sizeof(double));
            machine_answer(&m, &context, &state, &evaluation);
            double off = distance(m.reg[DN_REG_X], x.values + (call + 1) * x.first, x.first);
            CHECK_MSG(call == 0 || off <= TOLERANCE * largest(x.values + (call + 1) * x.first, x.first), "%s: call %llu is off by %.3g",
                      runs[r], (unsigned long long)call, off);
        }
        free(alphas.values);
        free(sigmas.values);
        free(x.values);
        free(answers.values);
    }
}

static void ipndm(void)
{
    dn_error error;
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "prediction_type", "v_prediction");
    CHECK_OK(dn_training_schedule_from_json(&training, json, "test", &error), error);
    CHECK_OK(dn_safetensors_open(&tensors, "tests/golden/schedulers_more/IPNDMScheduler.safetensors", &error), error);
    case_class = "IPNDMScheduler";
    case_name = "default";
    ipndm_on_its_own_levels();
    dn_safetensors_close(tensors);
    dn_training_schedule_free(training);
    cJSON_Delete(json);
}

/* Every class of a folder of goldens but those of other families of training, which test_families compares. */
static void run_folder(const char *path, const char *const *names)
{
    folder = path;
    for (size_t i = 0; names[i] != NULL; i++)
        run_class(names[i]);
}

int main(void)
{
    static const char *const first[] = {"DDPMScheduler",
                                        "DDIMScheduler",
                                        "EulerDiscreteScheduler",
                                        "EulerAncestralDiscreteScheduler",
                                        "HeunDiscreteScheduler",
                                        "DPMSolverMultistepScheduler",
                                        "DPMSolverSinglestepScheduler",
                                        "UniPCMultistepScheduler",
                                        "DEISMultistepScheduler",
                                        "LMSDiscreteScheduler",
                                        "PNDMScheduler",
                                        "KDPM2DiscreteScheduler",
                                        NULL};
    static const char *const more[] = {"DDPMScheduler",
                                       "DDIMScheduler",
                                       "EulerDiscreteScheduler",
                                       "HeunDiscreteScheduler",
                                       "DPMSolverMultistepScheduler",
                                       "DPMSolverSinglestepScheduler",
                                       "UniPCMultistepScheduler",
                                       "DEISMultistepScheduler",
                                       "LMSDiscreteScheduler",
                                       "PNDMScheduler",
                                       "KDPM2DiscreteScheduler",
                                       "KDPM2AncestralDiscreteScheduler",
                                       "DPMSolverSDEScheduler",
                                       "SASolverScheduler",
                                       "LCMScheduler",
                                       "TCDScheduler",
                                       NULL};
    run_folder("tests/golden/schedulers", first);
    run_folder("tests/golden/schedulers_more", more);
    RUN(ipndm);
    return test_end();
}
