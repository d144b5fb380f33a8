/* Options of a request against a scheduler's configuration: those that mirror a key of scheduler_config.json replace it, and what
 * the configuration says is the value of those that are not given. Combinations in which one has no effect are refused by name.
 * Pure functions, any thread. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "diffusion/sampler_options.h"

static double sigma_schedule_of(const dn_scheduler_config *config)
{
    return config->use_karras_sigmas        ? DN_SIGMAS_KARRAS
           : config->use_exponential_sigmas ? DN_SIGMAS_EXPONENTIAL
           : config->use_beta_sigmas        ? DN_SIGMAS_BETA
           : config->use_lu_lambdas         ? DN_SIGMAS_LU
                                            : DN_SIGMAS_MODEL;
}

static double solver_type_of(const dn_scheduler_config *config)
{
    double index;
    return dn_option_choice(DN_OPT_SOLVER_TYPE, config->solver_type, &index) ? index : (double)NAN;
}

double dn_config_option(const dn_scheduler_config *config, const dn_training_schedule *training, dn_option_id id)
{
    switch ((int)id) {
    case DN_OPT_SIGMA_SCHEDULE:
        return sigma_schedule_of(config);
    case DN_OPT_TIMESTEP_SPACING:
        return config->spacing;
    case DN_OPT_FINAL_SIGMA:
        return config->final_sigma_min;
    case DN_OPT_SIGMA_MIN:
        return config->sigma_min;
    case DN_OPT_SIGMA_MAX:
        return config->sigma_max;
    case DN_OPT_RHO:
        return config->rho;
    case DN_OPT_RESCALE_ZERO_SNR:
        return training->zero_snr;
    case DN_OPT_CLIP_SAMPLE:
        return config->clip_sample;
    case DN_OPT_CLIP_SAMPLE_RANGE:
        return config->clip_sample_range;
    case DN_OPT_THRESHOLDING:
        return config->thresholding;
    case DN_OPT_DYNAMIC_THRESHOLDING_RATIO:
        return config->dynamic_thresholding_ratio;
    case DN_OPT_SAMPLE_MAX_VALUE:
        return config->sample_max_value;
    case DN_OPT_VARIANCE_TYPE:
        return config->variance;
    case DN_OPT_SOLVER_ORDER:
        return config->solver_order;
    case DN_OPT_SOLVER_TYPE:
        return solver_type_of(config);
    case DN_OPT_LOWER_ORDER_FINAL:
        return config->lower_order_final;
    case DN_OPT_CORRECTOR_ORDER:
        return config->corrector_order;
    case DN_OPT_ORIGINAL_INFERENCE_STEPS:
        return config->original_inference_steps;
    case DN_OPT_S_NOISE:
        return config->s_noise;
    case DN_OPT_SNR:
        return config->snr;
    case DN_OPT_CORRECTOR_STEPS:
        return config->correct_steps;
    case DN_OPT_SHIFT:
        return training->family == DN_FAMILY_FLOW ? training->shift : (double)NAN;
    default:
        return (double)NAN;
    }
}

static void set_sigma_schedule(dn_scheduler_config *config, double value)
{
    config->use_karras_sigmas = value == DN_SIGMAS_KARRAS;
    config->use_exponential_sigmas = value == DN_SIGMAS_EXPONENTIAL;
    config->use_beta_sigmas = value == DN_SIGMAS_BETA;
    config->use_lu_lambdas = value == DN_SIGMAS_LU;
}

/* Which noise levels are visited. */
static void set_levels(dn_scheduler_config *config, dn_option_id id, double value)
{
    switch ((int)id) {
    case DN_OPT_SIGMA_SCHEDULE:
        set_sigma_schedule(config, value);
        break;
    case DN_OPT_TIMESTEP_SPACING:
        config->spacing = (dn_spacing)value;
        break;
    case DN_OPT_FINAL_SIGMA:
        config->final_sigma_min = value != 0.0;
        break;
    case DN_OPT_SIGMA_MIN:
        config->sigma_min = value;
        break;
    case DN_OPT_SIGMA_MAX:
        config->sigma_max = value;
        break;
    case DN_OPT_RHO:
        config->rho = value;
        break;
    case DN_OPT_ORIGINAL_INFERENCE_STEPS:
        config->original_inference_steps = (uint32_t)value;
        break;
    default:
        break;
    }
}

/* What becomes of an answer. */
static void set_solver(dn_scheduler_config *config, dn_option_id id, double value)
{
    switch ((int)id) {
    case DN_OPT_CLIP_SAMPLE:
        config->clip_sample = value != 0.0;
        break;
    case DN_OPT_CLIP_SAMPLE_RANGE:
        config->clip_sample_range = value;
        break;
    case DN_OPT_THRESHOLDING:
        config->thresholding = value != 0.0;
        break;
    case DN_OPT_DYNAMIC_THRESHOLDING_RATIO:
        config->dynamic_thresholding_ratio = value;
        break;
    case DN_OPT_SAMPLE_MAX_VALUE:
        config->sample_max_value = value;
        break;
    case DN_OPT_VARIANCE_TYPE:
        config->variance = (dn_variance)value;
        break;
    case DN_OPT_SOLVER_ORDER:
        config->solver_order = (uint32_t)value;
        break;
    case DN_OPT_SOLVER_TYPE:
        snprintf(config->solver_type, sizeof config->solver_type, "%s", dn_option_info_of(id)->choices[(uint32_t)value]);
        break;
    case DN_OPT_LOWER_ORDER_FINAL:
        config->lower_order_final = value != 0.0;
        break;
    case DN_OPT_CORRECTOR_ORDER:
        config->corrector_order = (uint32_t)value;
        break;
    default:
        break;
    }
}

static void set_option(dn_scheduler_config *config, dn_option_id id, double value)
{
    set_levels(config, id, value);
    set_solver(config, id, value);
}

void dn_config_apply_standards(dn_scheduler_config *config, const dn_sampler *sampler)
{
    for (uint32_t i = 0; i < sampler->field_count; i++)
        if (!isnan(sampler->fields[i].standard))
            set_option(config, sampler->fields[i].id, sampler->fields[i].standard);
}

/* `option` says something only where `needed` says `what`. */
static dn_status refuse(dn_error *error, dn_option_id option, dn_option_id needed, const char *what)
{
    return dn_fail(error, DN_INVALID, "%s needs %s %s", dn_option_info_of(option)->name, dn_option_info_of(needed)->name, what);
}

/* Timesteps are spaced by themselves only where noise levels are not: DPM-Solver's tables space one or the other, and networks of other
 * families have no table of timesteps. */
static dn_status check_spacing(const dn_sampler_context *context, const dn_options *given, dn_error *error)
{
    const char *class_name = context->sampler->scheduler_class;
    bool either = strstr(class_name, "Multistep") != NULL || strcmp(class_name, "SASolverScheduler") == 0;
    if (!dn_option_given(given, DN_OPT_TIMESTEP_SPACING))
        return DN_OK;
    if (context->training->family != DN_FAMILY_VP)
        return dn_fail(error, DN_INVALID, "timestep_spacing needs a model with a table of timesteps");
    if (either && dn_levels_respaced(&context->config))
        return refuse(error, DN_OPT_TIMESTEP_SPACING, DN_OPT_SIGMA_SCHEDULE, "model");
    return DN_OK;
}

/* Options that would be taken and do nothing. */
static dn_status check_combinations(const dn_sampler_context *context, const dn_options *given, dn_error *error)
{
    const dn_scheduler_config *config = &context->config;
    bool spaced = dn_levels_respaced(config) || context->training->family != DN_FAMILY_VP;
    if (dn_option_given(given, DN_OPT_SIGMA_MIN) && !spaced)
        return refuse(error, DN_OPT_SIGMA_MIN, DN_OPT_SIGMA_SCHEDULE, "karras, exponential or beta");
    if (dn_option_given(given, DN_OPT_SIGMA_MAX) && !spaced)
        return refuse(error, DN_OPT_SIGMA_MAX, DN_OPT_SIGMA_SCHEDULE, "karras, exponential or beta");
    if (config->sigma_min >= config->sigma_max)
        return dn_fail(error, DN_INVALID, "sigma_min must be below sigma_max");
    if (dn_option_given(given, DN_OPT_RHO) && !config->use_karras_sigmas && context->training->family == DN_FAMILY_VP)
        return refuse(error, DN_OPT_RHO, DN_OPT_SIGMA_SCHEDULE, "karras");
    if (dn_option_given(given, DN_OPT_CLIP_SAMPLE_RANGE) && !config->clip_sample)
        return refuse(error, DN_OPT_CLIP_SAMPLE_RANGE, DN_OPT_CLIP_SAMPLE, "true");
    if (dn_option_given(given, DN_OPT_DYNAMIC_THRESHOLDING_RATIO) && !config->thresholding)
        return refuse(error, DN_OPT_DYNAMIC_THRESHOLDING_RATIO, DN_OPT_THRESHOLDING, "true");
    if (dn_option_given(given, DN_OPT_SAMPLE_MAX_VALUE) && !config->thresholding)
        return refuse(error, DN_OPT_SAMPLE_MAX_VALUE, DN_OPT_THRESHOLDING, "true");
    return check_spacing(context, given, error);
}

/* The training schedule that the request wants: the model's own or that rescaled. */
static dn_status choose_training(dn_sampler_context *context, const dn_options *given, dn_error *error)
{
    if (!dn_option_given(given, DN_OPT_RESCALE_ZERO_SNR))
        return DN_OK;
    bool wanted = given->value[DN_OPT_RESCALE_ZERO_SNR] != 0.0;
    if (wanted == context->training->zero_snr)
        return DN_OK;
    if (!wanted)
        return dn_fail(error, DN_INVALID, "rescale_betas_zero_snr must be true: this model was trained with rescaled betas");
    if (context->training->rescaled == NULL)
        return dn_fail(error, DN_INVALID, "rescale_betas_zero_snr must be false: this model has no table of betas");
    context->training = context->training->rescaled;
    return DN_OK;
}

dn_status dn_context_apply_options(dn_sampler_context *context, const dn_options *given, dn_error *error)
{
    const dn_sampler *sampler = context->sampler;
    dn_status status = choose_training(context, given, error);
    for (uint32_t i = 0; i < sampler->field_count && status == DN_OK; i++) {
        const dn_option_field *field = &sampler->fields[i];
        if (!dn_option_given(given, field->id))
            continue;
        status = dn_option_check(field, given->value[field->id], error);
        if (status == DN_OK)
            set_option(&context->config, field->id, given->value[field->id]);
    }
    if (status == DN_OK)
        status = check_combinations(context, given, error);
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++)
        context->options.value[i] = (double)NAN;
    for (uint32_t i = 0; i < sampler->field_count; i++) {
        dn_option_id id = sampler->fields[i].id;
        double configured = dn_config_option(&context->config, context->training, id);
        context->options.value[id] = dn_option_given(given, id) ? given->value[id]
                                     : isnan(configured)        ? sampler->fields[i].standard
                                                                : configured;
    }
    return status;
}
