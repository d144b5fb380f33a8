/* Schedulers of EDM, consistency models, flow matching, variance-exploding training and DDIM inversion against diffusers 0.31: times,
 * noise levels, every step alone and whole trajectories with the goldens' closed-form denoiser (a mixture of three Gaussians per
 * element; tests/golden/scripts/make_families.py). */
#include "tests/test.h"

#include "diffusion/family.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "register_machine.h"

#define STEP_TOLERANCE 1e-5 /* of the largest |x|; the stored values are float */
#define LEVEL_TOLERANCE 5e-6 /* sigma and start scale, relative */
#define TIME_TOLERANCE 2e-4
#define TRAJECTORY_TOLERANCE 1e-4 /* diffusers runs in float */

static const char *case_name;
static const cJSON *case_json;
static dn_safetensors *tensors;
static dn_training_schedule *training;
static dn_scheduler_config config;
static dn_sampler_context context;
static machine m;
static const double *given_noise;

typedef struct tensor {
    uint64_t count, first; /* elements; of one slice of the first dimension */
    double *values;
} tensor;

static tensor load(const char *steps, const char *what)
{
    char name[256];
    dn_error error;
    snprintf(name, sizeof name, "%s/%s/%s", case_name, steps, what);
    tensor t = {0, 0, NULL};
    const dn_tensor_info *info = dn_safetensors_find(tensors, name);
    if (info == NULL)
        return t;
    t.count = info->count;
    t.first = info->count / info->dims[0];
    t.values = malloc(t.count * sizeof *t.values);
    if (t.values == NULL || dn_safetensors_read_f64(tensors, info, t.values, &error) != DN_OK)
        abort();
    return t;
}

static void noise_given(void *payload, double *out, size_t count, const dn_op *op)
{
    (void)payload;
    (void)op;
    memcpy(out, given_noise, count * sizeof *out);
}

/* E[x0 | alpha x0 + sigma n = y]. */
static double posterior(double y, double alpha, double sigma)
{
    static const double weight[3] = {0.3, 0.5, 0.2}, mean[3] = {-0.8, 0.35, 0.9}, spread[3] = {0.15, 0.3, 0.1};
    double log_p[3], most = -INFINITY, sum = 0.0, x0 = 0.0;
    for (int k = 0; k < 3; k++) {
        double v = alpha * alpha * spread[k] * spread[k] + sigma * sigma, d = y - alpha * mean[k];
        log_p[k] = log(weight[k]) - 0.5 * log(v) - 0.5 * d * d / v;
        most = fmax(most, log_p[k]);
    }
    for (int k = 0; k < 3; k++)
        sum += exp(log_p[k] - most);
    for (int k = 0; k < 3; k++) {
        double v = alpha * alpha * spread[k] * spread[k] + sigma * sigma, d = y - alpha * mean[k];
        x0 += exp(log_p[k] - most) / sum * (mean[k] + alpha * spread[k] * spread[k] * d / v);
    }
    return x0;
}

/* The network's answer to an input at a time, by what each family tells its network; independent of family.c. */
static double toy_answer(double x, double time)
{
    double data = training->sigma_data;
    switch (training->family) {
    case DN_FAMILY_VP: {
        double a = training->alphas_cumprod[(uint32_t)time], x0 = posterior(x, sqrt(a), sqrt(1.0 - a));
        double eps = (x - sqrt(a) * x0) / sqrt(1.0 - a);
        return training->prediction == DN_PREDICT_V ? sqrt(a) * eps - sqrt(1.0 - a) * x0 : eps;
    }
    case DN_FAMILY_FLOW:
        return (x - posterior(x, 1.0 - time / 1000.0, time / 1000.0)) / (time / 1000.0);
    case DN_FAMILY_VE:
        return (posterior(x, 1.0, time) - x) / (time * time);
    case DN_FAMILY_EDM:
        break;
    }
    double sigma = training->boundary > 0.0 ? exp(time / 250.0) : exp(4.0 * time), part = sigma - training->boundary;
    double y = x * sqrt(sigma * sigma + data * data), skip = data * data / (part * part + data * data);
    double out = part * data / sqrt(sigma * sigma + data * data);
    if (training->prediction == DN_PREDICT_V)
        out = -out;
    return fabs(out) < 1e-7 ? 0.0 : (posterior(y, 1.0, sigma) - skip * y) / out;
}

static double distance(const double *a, const double *b, size_t count)
{
    double most = 0.0;
    for (size_t i = 0; i < count; i++)
        most = isfinite(a[i]) ? fmax(most, fabs(a[i] - b[i])) : (double)INFINITY;
    return most;
}

static double largest(const double *values, size_t count)
{
    double most = 0.0;
    for (size_t i = 0; i < count; i++)
        most = fmax(most, fabs(values[i]));
    return most;
}

/* Where sigmas are listed once per step, and where once per call, as each class has them. */
static bool sigmas_per_call(void)
{
    return training->family != DN_FAMILY_VE && training->family != DN_FAMILY_VP;
}

static double sigma_of(const dn_level *level)
{
    return training->family == DN_FAMILY_FLOW ? level->sigma : level->sigma / level->alpha;
}

static void check_tables(const char *steps, const cJSON *run)
{
    tensor times = load(steps, "timesteps"), sigmas = load(steps, "sigmas");
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    uint64_t call = 0;
    for (; context.sampler->next(&context, &state, &evaluation); call++) {
        double time = times.values[call];
        CHECK_MSG(call < times.count, "%s: more than %llu calls", steps, (unsigned long long)times.count);
        CHECK_MSG(fabs(time - evaluation.level.time) <= fmax(TIME_TOLERANCE, LEVEL_TOLERANCE * fabs(time)),
                  "%s: call %llu at time %.9g, expected %.9g", steps, (unsigned long long)call, evaluation.level.time, time);
        uint64_t place = sigmas_per_call() ? call : state.step;
        if (sigmas.values != NULL)
            CHECK_MSG(fabs(sigma_of(&evaluation.level) - sigmas.values[place]) <= LEVEL_TOLERANCE * sigmas.values[place],
                      "%s: call %llu at sigma %.9g, expected %.9g", steps, (unsigned long long)call, sigma_of(&evaluation.level),
                      sigmas.values[place]);
        dn_ops ops = {.count = 0};
        context.sampler->feed(&context, &state, &ops);
    }
    CHECK_MSG(call == times.count, "%s: %llu calls, expected %llu", steps, (unsigned long long)call, (unsigned long long)times.count);
    CHECK(call == dn_sampler_evaluations(&context));
    const cJSON *stored = cJSON_GetObjectItemCaseSensitive(run, "init_noise_sigma");
    double scale = stored != NULL ? stored->valuedouble : 1.0;
    CHECK_MSG(fabs(scale - context.schedule.start_scale) <= LEVEL_TOLERANCE * scale, "%s: start scale %.9g, expected %.9g", steps,
              context.schedule.start_scale, scale);
    free(times.values);
    free(sigmas.values);
}

/* alone: every step from the stored image and answer; else the whole way from the stored start with the toy's answers. */
static void check_images(const char *steps, bool alone)
{
    tensor x = load(steps, "x"), answers = load(steps, "model_out"), noise = load(steps, "noise");
    dn_sampler_state state = {0};
    dn_evaluation evaluation;
    m.elements = x.first;
    m.noise = noise_given;
    memcpy(m.reg[DN_REG_X], x.values, x.first * sizeof(double));
    for (uint64_t call = 0; context.sampler->next(&context, &state, &evaluation); call++) {
        const double *expected = x.values + (call + 1) * x.first;
        if (alone) {
            memcpy(m.reg[DN_REG_X], x.values + call * x.first, x.first * sizeof(double));
            memcpy(m.reg[DN_REG_COND], answers.values + call * answers.first, x.first * sizeof(double));
        } else {
            for (size_t i = 0; i < m.elements; i++)
                m.reg[DN_REG_COND][i] =
                    toy_answer(dn_input_scale(&context, &evaluation.level) * m.reg[evaluation.reg][i], evaluation.level.time);
        }
        given_noise = noise.values != NULL ? noise.values + call * noise.first : NULL;
        machine_answer(&m, &context, &state, &evaluation);
        double off = distance(m.reg[DN_REG_X], expected, x.first);
        double size = fmax(largest(expected, x.first), largest(x.values + call * x.first, x.first));
        CHECK_MSG(off <= fmax(alone ? 0.0 : TRAJECTORY_TOLERANCE, STEP_TOLERANCE * size), "%s %s: call %llu is off by %.3g of %.3g", steps,
                  alone ? "alone" : "on its way", (unsigned long long)call, off, size);
    }
    free(x.values);
    free(answers.values);
    free(noise.values);
}

static void check_runs(void)
{
    const cJSON *run = NULL, *item = NULL;
    dn_options options = {0};
    dn_option_id id;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(case_json, "step_kwargs")) if (dn_option_find(item->string, &id))
        dn_option_set(&options, id, item->valuedouble);
    cJSON_ArrayForEach(run, cJSON_GetObjectItemCaseSensitive(case_json, "runs"))
    {
        dn_error error;
        uint32_t steps = (uint32_t)strtoul(run->string, NULL, 10);
        CHECK_OK(dn_sampler_context_init(&context, "model", steps, &options, 0, training, &config, &error), error);
        check_tables(run->string, run);
        if (!test_failed)
            check_images(run->string, true);
        if (!test_failed)
            check_images(run->string, false);
        if (test_failed)
            return;
    }
}

static void run_case(void)
{
    dn_error error;
    const cJSON *json = cJSON_GetObjectItemCaseSensitive(case_json, "config");
    CHECK_OK(dn_training_schedule_from_json(&training, json, case_name, &error), error);
    CHECK_OK(dn_scheduler_config_from_json(&config, json, case_name, &error), error);
    check_runs();
    dn_training_schedule_free(training);
}

static void run_class(const char *folder, const char *class_name)
{
    char path[256], label[256];
    dn_error error;
    cJSON *all = NULL;
    snprintf(path, sizeof path, "tests/golden/%s/%s.json", folder, class_name);
    dn_status status = dn_json_read_file(&all, path, DN_CONFIG_BYTES_MAX, &error);
    snprintf(path, sizeof path, "tests/golden/%s/%s.safetensors", folder, class_name);
    if (status == DN_OK)
        status = dn_safetensors_open(&tensors, path, &error);
    if (status != DN_OK) {
        printf("FAIL %s: %s\n", class_name, error.message);
        test_failures++;
        cJSON_Delete(all);
        return;
    }
    cJSON_ArrayForEach(case_json, all)
    {
        cJSON *json = cJSON_GetObjectItemCaseSensitive(case_json, "config");
        if (!cJSON_HasObjectItem(json, "_class_name"))
            cJSON_AddStringToObject(json, "_class_name", class_name);
        case_name = case_json->string;
        snprintf(label, sizeof label, "%s/%s", class_name, case_name);
        test_run(label, run_case);
    }
    dn_safetensors_close(tensors);
    cJSON_Delete(all);
}

int main(void)
{
    static const char *const names[][2] = {{"schedulers", "FlowMatchEulerDiscreteScheduler"},
                                           {"schedulers", "FlowMatchHeunDiscreteScheduler"},
                                           {"families", "FlowMatchEulerDiscreteScheduler"},
                                           {"families", "FlowMatchHeunDiscreteScheduler"},
                                           {"families", "EDMEulerScheduler"},
                                           {"families", "EDMDPMSolverMultistepScheduler"},
                                           {"families", "CMStochasticIterativeScheduler"},
                                           {"families", "ScoreSdeVeScheduler"},
                                           {"families", "DDIMInverseScheduler"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        run_class(names[i][0], names[i][1]);
    return test_end();
}
