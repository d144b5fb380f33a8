/* Every scheduler case of the goldens against diffusers 0.31: timesteps, noise levels, every step alone, and whole
 * trajectories with the goldens' closed-form denoiser (a mixture of three Gaussians per element). */
#include "tests/test.h"

#include "format/json.h"
#include "format/safetensors.h"
#include "register_machine.h"

#define FOLDER "tests/golden/schedulers/"
#define STEP_TOLERANCE 1e-5 /* of the largest |x|; the stored values are float */
#define LEVEL_TOLERANCE 3e-6 /* sigma and start scale, relative */
#define TIME_TOLERANCE 2e-4 /* of fractional timesteps; whole ones must be equal */
#define TRAJECTORY_TOLERANCE 1e-4 /* the largest distance of diffusers' own float and double runs is 7e-5 */

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

/* Timesteps and noise levels of every network call. */
static void check_tables(const char *steps)
{
    tensor times = load(steps, "timesteps"), sigmas = load(steps, "sigmas");
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    uint64_t call = 0;
    while (context.sampler->next(&context, &state, &evaluation)) {
        CHECK_MSG(call < times.count, "%s: more than %llu calls", steps, (unsigned long long)times.count);
        double time = times.values[call], slack = time == floor(time) ? 0.0 : TIME_TOLERANCE;
        CHECK_MSG(fabs(time - evaluation.level.time) <= slack, "%s: call %llu at time %.9g, expected %.9g", steps, (unsigned long long)call,
                  evaluation.level.time, time);
        double ratio = evaluation.level.sigma / evaluation.level.alpha;
        if (sigmas.values != NULL)
            CHECK_MSG(fabs(ratio - sigmas.values[call]) <= LEVEL_TOLERANCE * sigmas.values[call],
                      "%s: call %llu at sigma %.9g, expected %.9g", steps, (unsigned long long)call, ratio, sigmas.values[call]);
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

/* Every step alone, from the stored image, answer and noise. */
static void check_steps(const char *steps)
{
    tensor x = load(steps, "x"), answers = load(steps, "model_out"), noise = load(steps, "noise");
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    m.elements = x.first;
    m.noise = noise_given;
    for (uint64_t call = 0; context.sampler->next(&context, &state, &evaluation); call++) {
        memcpy(m.reg[DN_REG_X], x.values + call * x.first, x.first * sizeof(double));
        memcpy(m.reg[DN_REG_COND], answers.values + call * answers.first, x.first * sizeof(double));
        if (answers.first == 2 * x.first)
            memcpy(m.reg[DN_REG_VARIANCE], answers.values + call * answers.first + x.first, x.first * sizeof(double));
        given_noise = noise.values != NULL ? noise.values + call * noise.first : NULL;
        machine_answer(&m, &context, &state, &evaluation);
        const double *expected = x.values + (call + 1) * x.first;
        double off = distance(m.reg[DN_REG_X], expected, x.first);
        double size = fmax(largest(expected, x.first), largest(x.values + call * x.first, x.first));
        CHECK_MSG(off <= STEP_TOLERANCE * size, "%s: call %llu is off by %.3g of %.3g", steps, (unsigned long long)call, off, size);
    }
    free(x.values);
    free(answers.values);
    free(noise.values);
}

static void check_trajectory(const char *steps)
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
    double off = distance(m.reg[DN_REG_X], final.values, m.elements);
    free(x.values);
    free(noise.values);
    free(final.values);
    CHECK_MSG(off <= TRAJECTORY_TOLERANCE, "%s: the final image is off by %.3g", steps, off);
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
        check_tables(run->string);
        if (test_failed || !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(run, "finite")))
            return;
        char name[256];
        snprintf(name, sizeof name, "%s/%s/model_out", case_name, run->string);
        if (dn_safetensors_find(tensors, name) != NULL)
            check_steps(run->string);
        if (!test_failed)
            check_trajectory(run->string);
        if (test_failed)
            return;
    }
}

static void check_alphas(void)
{
    tensor bar = load("", "alphas_cumprod");
    for (uint64_t i = 0; i < bar.count; i++) {
        double mine = training->alphas_cumprod[i], floor_bar = i + 1 == bar.count ? 0x1p-24 : 0.0;
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
    snprintf(path, sizeof path, FOLDER "%s.json", class_name);
    if (dn_json_read_file(&all, path, DN_CONFIG_BYTES_MAX, &error) != DN_OK) {
        printf("FAIL %s: %s\n", class_name, error.message);
        test_failures++;
        return;
    }
    snprintf(path, sizeof path, FOLDER "%s.safetensors", class_name);
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

int main(void)
{
    static const char *const names[] = {"DDPMScheduler",          "DDIMScheduler",
                                        "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
                                        "HeunDiscreteScheduler",  "DPMSolverMultistepScheduler"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        run_class(names[i]);
    return test_end();
}
