/* Reading what a scheduler_config.json says of sampling: known keys strictly, unknown keys ignored (as diffusers does),
 * missing keys and nulls by the class's own defaults. Pure functions, any thread.
 *
 * The defaults of diffusers 0.31's constructors stand in one table. A class in the table need not have a sampler here:
 * its folder still says how the network was trained, and a sampler chosen by name can serve it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diffusion/family.h"
#include "diffusion/scheduler_class.h"

#define LINEAR 1e-4, 0.02, "linear"
#define LATENT 0.00085, 0.012, "linear"
#define LEADING DN_SPACING_LEADING
#define LINSPACE DN_SPACING_LINSPACE

static const dn_scheduler_class classes[] = {
    /* name, betas, spacing, clips, clip_default, thresholds, set_alpha_to_one */
    {"DDPMScheduler", LINEAR, LEADING, true, true, true, true},
    {"DDIMScheduler", LINEAR, LEADING, true, true, true, true},
    {"EulerDiscreteScheduler", LINEAR, LINSPACE, false, false, false, true},
    {"EulerAncestralDiscreteScheduler", LINEAR, LINSPACE, false, false, false, true},
    {"HeunDiscreteScheduler", LATENT, LINSPACE, true, false, false, true},
    {"DPMSolverMultistepScheduler", LINEAR, LINSPACE, false, false, true, true},
    {"DPMSolverSinglestepScheduler", LINEAR, LINSPACE, false, false, true, true},
    {"UniPCMultistepScheduler", LINEAR, LINSPACE, false, false, true, true},
    {"DEISMultistepScheduler", LINEAR, LINSPACE, false, false, true, true},
    {"SASolverScheduler", LINEAR, LINSPACE, false, false, true, true},
    {"LMSDiscreteScheduler", LINEAR, LINSPACE, false, false, false, true},
    {"PNDMScheduler", LINEAR, LEADING, false, false, false, false},
    {"KDPM2DiscreteScheduler", LATENT, LINSPACE, false, false, false, true},
    {"KDPM2AncestralDiscreteScheduler", LATENT, LINSPACE, false, false, false, true},
    {"DPMSolverSDEScheduler", LATENT, LINSPACE, false, false, false, true},
    {"LCMScheduler", 0.00085, 0.012, "scaled_linear", LEADING, true, false, true, true},
    {"TCDScheduler", 0.00085, 0.012, "scaled_linear", LEADING, false, false, false, true},
    {"EDMEulerScheduler", LINEAR, LINSPACE, false, false, false, true},
    {"EDMDPMSolverMultistepScheduler", LINEAR, LINSPACE, false, false, true, true},
    {"CMStochasticIterativeScheduler", LINEAR, LINSPACE, false, true, false, true},
    {"FlowMatchEulerDiscreteScheduler", LINEAR, LINSPACE, false, false, false, true},
    {"FlowMatchHeunDiscreteScheduler", LINEAR, LINSPACE, false, false, false, true},
    {"ScoreSdeVeScheduler", LINEAR, LINSPACE, false, false, false, true},
    {"DDIMInverseScheduler", LINEAR, LEADING, true, true, false, true},
    {"DDPMParallelScheduler", LINEAR, LEADING, true, true, true, true},
    {"DDIMParallelScheduler", LINEAR, LEADING, true, true, true, true},
};

/* The solvers of classes that have a choice: words apart by spaces, the class's own first. A word of a sibling class means the
 * class's own, as in diffusers, so that a configuration carried from class to class loads. */
typedef struct dn_solver_class {
    const char *name, *algorithms, *solver_types;
    uint32_t order, corrector_order;
    bool lower_order_final, final_sigma_min;
} dn_solver_class;

static const dn_solver_class solvers[] = {
    {"DPMSolverMultistepScheduler", "dpmsolver++ dpmsolver sde-dpmsolver++ sde-dpmsolver", "midpoint heun", 2, 0, true, false},
    {"DPMSolverSinglestepScheduler", "dpmsolver++ dpmsolver sde-dpmsolver++", "midpoint heun", 2, 0, false, false},
    {"UniPCMultistepScheduler", "data_prediction noise_prediction", "bh2 bh1", 2, 3, true, false},
    {"DEISMultistepScheduler", "deis", "logrho", 2, 0, true, true},
    {"SASolverScheduler", "data_prediction noise_prediction", "", 2, 2, true, true},
    {"PNDMScheduler", "prk plms", "", 4, 0, false, false},
    {"LMSDiscreteScheduler", "", "", 4, 0, false, false},
};
static const dn_solver_class any_solver = {"", "dpmsolver++ dpmsolver sde-dpmsolver++ sde-dpmsolver", "midpoint heun", 2, 0, true, false};

static const dn_solver_class *solver_of(const char *class_name)
{
    for (size_t i = 0; i < sizeof solvers / sizeof solvers[0]; i++)
        if (strcmp(solvers[i].name, class_name) == 0)
            return &solvers[i];
    return &any_solver;
}

static bool has_word(const char *words, const char *word)
{
    size_t length = strlen(word);
    for (const char *at = words; length > 0 && (at = strstr(at, word)) != NULL; at++)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

static const dn_scheduler_class *find_class(const char *name)
{
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++)
        if (strcmp(classes[i].name, name) == 0)
            return &classes[i];
    return NULL;
}

dn_status dn_scheduler_class_of(const dn_scheduler_class **out, dn_config_reader *reader)
{
    const char *name = dn_config_text(reader, "_class_name", "DDPMScheduler");
    *out = find_class(name);
    if (*out == NULL)
        dn_config_fail(reader, DN_UNSUPPORTED, "_class_name", "\"%.80s\" is not a scheduler this program knows", name);
    return reader->error.status;
}

static void fill_defaults(dn_scheduler_config *out, const dn_scheduler_class *row)
{
    const dn_solver_class *solver = solver_of(row->name);
    *out = (dn_scheduler_config){
        .spacing = row->spacing,
        .clip_sample = row->clip_default,
        .clip_sample_range = 1.0,
        .dynamic_thresholding_ratio = 0.995,
        .sample_max_value = 1.0,
        .set_alpha_to_one = row->set_alpha_to_one,
        .variance = DN_VARIANCE_FIXED_SMALL,
        .solver_order = solver->order,
        .corrector_order = solver->corrector_order,
        .original_inference_steps = 50,
        .timestep_scaling = 10.0,
        .interpolation_type = "linear",
        .timestep_type = "discrete",
        .lower_order_final = solver->lower_order_final,
        .final_sigma_min = solver->final_sigma_min,
        .sigma_min = NAN,
        .sigma_max = NAN,
        .rho = 7.0,
        .snr = 0.15,
        .correct_steps = 1,
        .s_noise = 1.0,
        .lambda_min_clipped = -INFINITY,
    };
    snprintf(out->class_name, sizeof out->class_name, "%s", row->name);
    snprintf(out->algorithm_type, sizeof out->algorithm_type, "%.*s", (int)strcspn(solver->algorithms, " "), solver->algorithms);
    snprintf(out->solver_type, sizeof out->solver_type, "%.*s", (int)strcspn(solver->solver_types, " "), solver->solver_types);
}

dn_status dn_scheduler_config_defaults(dn_scheduler_config *out, const char *class_name, dn_error *error)
{
    const dn_scheduler_class *row = find_class(class_name);
    if (row == NULL)
        return dn_fail(error, DN_UNSUPPORTED, "\"%.80s\" is not a scheduler this program knows", class_name);
    fill_defaults(out, row);
    return DN_OK;
}

/* One of `count` words; the value's index, or `fallback` when the key is missing or null. */
static uint32_t read_choice(dn_config_reader *reader, const char *key, const char *const *words, uint32_t count, uint32_t fallback)
{
    if (dn_config_is_null(reader, key))
        return fallback;
    const char *text = dn_config_text(reader, key, words[fallback]);
    for (uint32_t i = 0; i < count; i++)
        if (strcmp(words[i], text) == 0)
            return i;
    dn_config_fail(reader, DN_UNSUPPORTED, key, "\"%.60s\" is not a value this program knows", text);
    return fallback;
}

#define CHOICE(reader, key, words, fallback) read_choice(reader, key, words, (uint32_t)(sizeof(words) / sizeof(words)[0]), fallback)

static double read_number(dn_config_reader *reader, const char *key, double fallback, double low, double high)
{
    return dn_config_is_null(reader, key) ? fallback : dn_config_number(reader, key, fallback, low, high);
}

static bool read_bool(dn_config_reader *reader, const char *key, bool fallback)
{
    return dn_config_is_null(reader, key) ? fallback : dn_config_bool(reader, key, fallback);
}

static void read_tables(dn_config_reader *reader, dn_scheduler_config *out)
{
    static const char *const spacings[] = {"leading", "trailing", "linspace"};
    out->spacing = (dn_spacing)CHOICE(reader, "timestep_spacing", spacings, (uint32_t)out->spacing);
    if (strcmp(out->class_name, "DPMSolverSinglestepScheduler") == 0)
        out->spacing = DN_SPACING_LINSPACE; /* has no such key */
    out->steps_offset = dn_config_count(reader, "steps_offset", 0, 0, DN_TRAIN_TIMESTEPS_MAX);
    out->use_karras_sigmas = read_bool(reader, "use_karras_sigmas", false);
    out->use_exponential_sigmas = read_bool(reader, "use_exponential_sigmas", false);
    out->use_beta_sigmas = read_bool(reader, "use_beta_sigmas", false);
    out->use_lu_lambdas = read_bool(reader, "use_lu_lambdas", false);
    out->sigma_min = read_number(reader, "sigma_min", NAN, 0.0, 1e6);
    out->sigma_max = read_number(reader, "sigma_max", NAN, 1e-6, 1e9);
    out->lambda_min_clipped = read_number(reader, "lambda_min_clipped", (double)-INFINITY, (double)-INFINITY, 1e3);
    if (out->use_karras_sigmas + out->use_exponential_sigmas + out->use_beta_sigmas + out->use_lu_lambdas > 1)
        dn_config_fail(reader, DN_INVALID, "use_karras_sigmas", "only one of the use_*_sigmas and use_lu_lambdas may be true");
    if (read_bool(reader, "use_flow_sigmas", false))
        dn_config_fail(reader, DN_UNSUPPORTED, "use_flow_sigmas", "flow matching is not supported");
    if (read_bool(reader, "use_dynamic_shifting", false))
        dn_config_fail(reader, DN_UNSUPPORTED, "use_dynamic_shifting", "dynamic shifting is not supported");
}

static void read_clipping(dn_config_reader *reader, dn_scheduler_config *out, const dn_scheduler_class *row)
{
    out->clip_sample = row->clips && read_bool(reader, "clip_sample", row->clip_default);
    out->clip_sample_range = read_number(reader, "clip_sample_range", 1.0, 1e-6, 1e6);
    out->thresholding = row->thresholds && read_bool(reader, "thresholding", false);
    out->dynamic_thresholding_ratio = read_number(reader, "dynamic_thresholding_ratio", 0.995, 0.0, 1.0);
    out->sample_max_value = read_number(reader, "sample_max_value", 1.0, 1e-6, 1e6);
}

/* A word of the class, or of a sibling, which leaves the class's own. */
static void read_word(dn_config_reader *reader, const char *key, const char *words, const char *siblings, char *out, size_t out_bytes)
{
    if (words[0] == '\0' || dn_config_is_null(reader, key))
        return;
    const char *text = dn_config_text(reader, key, "");
    if (has_word(words, text))
        snprintf(out, out_bytes, "%s", text);
    else if (!has_word(siblings, text))
        dn_config_fail(reader, DN_UNSUPPORTED, key, "\"%.60s\" is not a value this program knows", text);
}

/* What UniPC, SA-Solver and PNDM call by keys of their own. */
static void read_own_solver(dn_config_reader *reader, dn_scheduler_config *out)
{
    if (strcmp(out->class_name, "UniPCMultistepScheduler") == 0) {
        const cJSON *list = dn_config_item(reader, "disable_corrector"), *item = NULL;
        cJSON_ArrayForEach(item, list)
        {
            if (cJSON_IsNumber(item) && item->valuedouble >= 0.0 && item->valuedouble < 64.0)
                out->disable_corrector |= UINT64_C(1) << (uint32_t)item->valuedouble;
            else
                dn_config_fail(reader, DN_UNSUPPORTED, "disable_corrector", "must list steps from 0 to 63");
        }
        if (!dn_config_is_null(reader, "solver_p"))
            dn_config_fail(reader, DN_UNSUPPORTED, "solver_p", "another scheduler as predictor is not supported");
        snprintf(out->algorithm_type, sizeof out->algorithm_type, "%s",
                 read_bool(reader, "predict_x0", true) ? "data_prediction" : "noise_prediction");
    } else if (strcmp(out->class_name, "SASolverScheduler") == 0) {
        out->solver_order = dn_config_count(reader, "predictor_order", 2, 1, 4);
        out->corrector_order = dn_config_count(reader, "corrector_order", 2, 0, 4);
        read_word(reader, "algorithm_type", solver_of(out->class_name)->algorithms, "", out->algorithm_type, sizeof out->algorithm_type);
    } else if (strcmp(out->class_name, "PNDMScheduler") == 0) {
        snprintf(out->algorithm_type, sizeof out->algorithm_type, "%s", read_bool(reader, "skip_prk_steps", false) ? "plms" : "prk");
    }
}

static void read_solver(dn_config_reader *reader, dn_scheduler_config *out)
{
    static const char *const variances[] = {"fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log", "learned_range", "learned"};
    static const char *const interpolations[] = {"linear", "log_linear"};
    static const char *const times[] = {"discrete", "continuous"};
    static const char *const finals[] = {"zero", "sigma_min"};
    const dn_solver_class *solver = solver_of(out->class_name);
    out->set_alpha_to_one = read_bool(reader, "set_alpha_to_one", out->set_alpha_to_one);
    out->variance = (dn_variance)CHOICE(reader, "variance_type", variances, 0);
    if (solver->order <= 3)
        out->solver_order = dn_config_count(reader, "solver_order", solver->order, 1, 3);
    out->lower_order_final = read_bool(reader, "lower_order_final", solver->lower_order_final);
    out->euler_at_final = read_bool(reader, "euler_at_final", false);
    if (!solver->final_sigma_min)
        out->final_sigma_min = CHOICE(reader, "final_sigmas_type", finals, 0) == 1;
    out->original_inference_steps = dn_config_count(reader, "original_inference_steps", 50, 1, DN_TRAIN_TIMESTEPS_MAX);
    out->timestep_scaling = read_number(reader, "timestep_scaling", 10.0, 0.0, 1e6);
    read_own_solver(reader, out);
    if (strstr(solver->algorithms, "dpmsolver") != NULL || strcmp(solver->algorithms, "deis") == 0)
        read_word(reader, "algorithm_type", solver->algorithms, "dpmsolver++ dpmsolver deis", out->algorithm_type,
                  sizeof out->algorithm_type);
    read_word(reader, "solver_type", solver->solver_types, "midpoint heun logrho bh1 bh2", out->solver_type, sizeof out->solver_type);
    snprintf(out->interpolation_type, sizeof out->interpolation_type, "%s",
             interpolations[CHOICE(reader, "interpolation_type", interpolations, 0)]);
    snprintf(out->timestep_type, sizeof out->timestep_type, "%s", times[CHOICE(reader, "timestep_type", times, 0)]);
}

/* Keys that a class does not have say nothing, whatever a file carried over from another class holds (diffusers ignores them). */
static void drop_foreign_keys(dn_scheduler_config *out)
{
    static const char *const plain =
        "HeunDiscreteScheduler LMSDiscreteScheduler KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler DPMSolverSDEScheduler";
    bool ancestral = strcmp(out->class_name, "EulerAncestralDiscreteScheduler") == 0;
    if (ancestral || has_word(plain, out->class_name)) {
        out->final_sigma_min = false;
        out->sigma_min = out->sigma_max = NAN;
        snprintf(out->interpolation_type, sizeof out->interpolation_type, "linear");
        snprintf(out->timestep_type, sizeof out->timestep_type, "discrete");
    }
    if (ancestral)
        out->use_karras_sigmas = out->use_exponential_sigmas = out->use_beta_sigmas = false;
    if (!has_word("DPMSolverMultistepScheduler", out->class_name))
        out->use_lu_lambdas = false;
    if (!has_word("DPMSolverMultistepScheduler EDMDPMSolverMultistepScheduler", out->class_name))
        out->euler_at_final = false;
    if (!has_word("DPMSolverMultistepScheduler DPMSolverSinglestepScheduler SASolverScheduler", out->class_name))
        out->lambda_min_clipped = -INFINITY;
}

dn_status dn_scheduler_config_from_json(dn_scheduler_config *out, const cJSON *config, const char *path, dn_error *error)
{
    if (config == NULL)
        return dn_scheduler_config_defaults(out, "DDPMScheduler", error);
    const dn_scheduler_class *row = NULL;
    dn_scheduler_config read = {0};
    dn_config_reader reader;
    dn_status status = dn_config_reader_init(&reader, config, path, error);
    if (status != DN_OK)
        return status;
    if (dn_scheduler_class_of(&row, &reader) == DN_OK) {
        fill_defaults(&read, row);
        read_tables(&reader, &read);
        read_clipping(&reader, &read, row);
        read_solver(&reader, &read);
        drop_foreign_keys(&read);
        dn_scheduler_config_read_family(&reader, &read);
    }
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = read;
    return status;
}
