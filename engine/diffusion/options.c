/* The table of options, in the order of dn_option_id. Immutable; any thread. */
#include "diffusion/options.h"

#include <stdio.h>
#include <string.h>

static const char *const sigma_schedules[] = {"model", "karras", "exponential", "beta", "lu", NULL};
static const char *const spacings[] = {"leading", "trailing", "linspace", NULL};
static const char *const finals[] = {"zero", "sigma_min", NULL};
static const char *const variances[] = {"fixed_small",   "fixed_small_log", "fixed_large", "fixed_large_log",
                                        "learned_range", "learned",         NULL};
static const char *const solvers[] = {"midpoint", "heun", "bh1", "bh2", "logrho", NULL};
static const char *const methods[] = {"cfg", "cfg_pp", "apg", "autoguidance", "classifier", NULL};

#define NUMBER(low, high) DN_TYPE_NUMBER, low, high, NULL
#define INTEGER(low, high) DN_TYPE_INTEGER, low, high, NULL
#define BOOLEAN DN_TYPE_BOOLEAN, 0, 1, NULL
#define CHOICE(words) DN_TYPE_CHOICE, 0, sizeof(words) / sizeof(words)[0] - 2, words

static const dn_option_info table[DN_OPT_COUNT] = {
    [DN_OPT_SIGMA_SCHEDULE] = {"sigma_schedule", CHOICE(sigma_schedules), "how the noise levels are spaced"},
    [DN_OPT_TIMESTEP_SPACING] = {"timestep_spacing", CHOICE(spacings), "how the timesteps are spaced"},
    [DN_OPT_FINAL_SIGMA] = {"final_sigma", CHOICE(finals), "where the last step ends"},
    [DN_OPT_SIGMA_MIN] = {"sigma_min", NUMBER(1e-6, 1e6), "the lowest noise level before the last step"},
    [DN_OPT_SIGMA_MAX] = {"sigma_max", NUMBER(1e-6, 1e6), "the noise level of the start"},
    [DN_OPT_RHO] = {"rho", NUMBER(1, 100), "exponent of the Karras spacing"},
    [DN_OPT_SHIFT] = {"shift", NUMBER(0.01, 100), "of the times of flow matching: s' = shift s / (1 + (shift - 1) s)"},
    [DN_OPT_RESCALE_ZERO_SNR] = {"rescale_betas_zero_snr", BOOLEAN, "training betas rescaled to end without signal"},
    [DN_OPT_CLIP_SAMPLE] = {"clip_sample", BOOLEAN, "the denoised estimate is clipped"},
    [DN_OPT_CLIP_SAMPLE_RANGE] = {"clip_sample_range", NUMBER(1e-6, 1e6), "to plus and minus this"},
    [DN_OPT_THRESHOLDING] = {"thresholding", BOOLEAN, "dynamic thresholding of the denoised estimate"},
    [DN_OPT_DYNAMIC_THRESHOLDING_RATIO] = {"dynamic_thresholding_ratio", NUMBER(0, 1), "its quantile"},
    [DN_OPT_SAMPLE_MAX_VALUE] = {"sample_max_value", NUMBER(1, 1e6), "its largest threshold"},
    [DN_OPT_ETA] = {"eta", NUMBER(0, 1), "fresh noise: 0 none, 1 as much as the diffusion itself"},
    [DN_OPT_S_CHURN] = {"s_churn", NUMBER(0, 1000), "noise added before a step, in all"},
    [DN_OPT_S_NOISE] = {"s_noise", NUMBER(0, 2), "scale of the added noise"},
    [DN_OPT_S_TMIN] = {"s_tmin", NUMBER(0, 1e9), "churn only from this noise level"},
    [DN_OPT_S_TMAX] = {"s_tmax", NUMBER(0, 1e9), "churn only up to this noise level"},
    [DN_OPT_VARIANCE_TYPE] = {"variance_type", CHOICE(variances), "variance of the ancestral noise"},
    [DN_OPT_SOLVER_ORDER] = {"solver_order", INTEGER(1, 4), "order of the solver"},
    [DN_OPT_SOLVER_TYPE] = {"solver_type", CHOICE(solvers), "variant of the solver"},
    [DN_OPT_LOWER_ORDER_FINAL] = {"lower_order_final", BOOLEAN, "lower orders for the last of few steps"},
    [DN_OPT_CORRECTOR_ORDER] = {"corrector_order", INTEGER(0, 4), "order of the corrector; 0: none"},
    [DN_OPT_CORRECTOR_STEPS] = {"corrector_steps", INTEGER(0, 16), "Langevin steps after each predictor step"},
    [DN_OPT_SNR] = {"snr", NUMBER(0, 10), "signal-to-noise ratio of a Langevin step"},
    [DN_OPT_ORIGINAL_INFERENCE_STEPS] = {"original_inference_steps", INTEGER(1, 1000), "steps of the distilled teacher"},
    [DN_OPT_RTOL] = {"rtol", NUMBER(1e-8, 1), "relative error of a step"},
    [DN_OPT_ATOL] = {"atol", NUMBER(1e-8, 1), "absolute error of a step"},
    [DN_OPT_GUIDANCE_METHOD] = {"guidance_method", CHOICE(methods), "how guidance folds its answers"},
    [DN_OPT_GUIDANCE_SIGMA_MIN] = {"guidance_sigma_min", NUMBER(0, 1e9), "guided only above this noise level (sigma / alpha)"},
    [DN_OPT_GUIDANCE_SIGMA_MAX] = {"guidance_sigma_max", NUMBER(0, 1e9), "guided only up to this noise level (sigma / alpha)"},
    [DN_OPT_GUIDANCE_RESCALE] = {"guidance_rescale", NUMBER(0, 1), "how far the guided answer takes the conditional one's deviation"},
    [DN_OPT_GUIDANCE_CHANNELS] = {"guidance_channels", INTEGER(0, 16384), "guided channels, from the first; 0: all"},
    [DN_OPT_APG_ETA] = {"apg_eta", NUMBER(-10, 10), "weight of the part parallel to the conditional estimate"},
    [DN_OPT_APG_NORM] = {"apg_norm_threshold", NUMBER(0, 1e6), "bound of the guidance's norm; 0: none"},
    [DN_OPT_APG_MOMENTUM] = {"apg_momentum", NUMBER(-1, 1), "weight of the running guidance"},
    [DN_OPT_CLASSIFIER_SCALE] = {"classifier_scale", NUMBER(0, 1000), "weight of the classifier's gradient"},
    [DN_OPT_STRENGTH] = {"strength", NUMBER(0, 1), "how far a given picture is noised: 1 forgets it"},
    [DN_OPT_RESAMPLE] = {"resample", INTEGER(1, 32), "passes over each step while inpainting (RePaint)"},
    [DN_OPT_VARIATION_STRENGTH] = {"variation_strength", NUMBER(0, 1), "how far the start noise goes to the variation seed's"},
};

const dn_option_info *dn_option_info_of(dn_option_id id)
{
    return &table[id];
}

bool dn_option_find(const char *name, dn_option_id *out)
{
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++)
        if (strcmp(table[i].name, name) == 0) {
            *out = (dn_option_id)i;
            return true;
        }
    return false;
}

bool dn_option_choice(dn_option_id id, const char *word, double *out)
{
    for (uint32_t i = 0; table[id].choices != NULL && table[id].choices[i] != NULL; i++)
        if (strcmp(table[id].choices[i], word) == 0) {
            *out = i;
            return true;
        }
    return false;
}

bool dn_option_given(const dn_options *options, dn_option_id id)
{
    return options->given >> id & 1u;
}

void dn_option_set(dn_options *options, dn_option_id id, double value)
{
    options->given |= UINT64_C(1) << id;
    options->value[id] = value;
}

static dn_status refuse_choice(const dn_option_field *field, const dn_option_info *info, dn_error *error)
{
    char words[160] = "";
    size_t used = 0;
    for (uint32_t i = (uint32_t)field->minimum; i <= (uint32_t)field->maximum && used < sizeof words; i++) {
        const char *between = used == 0 ? "" : i == (uint32_t)field->maximum ? " or " : ", ";
        used += (size_t)snprintf(words + used, sizeof words - used, "%s%s", between, info->choices[i]);
    }
    return dn_fail(error, DN_INVALID, "%s must be %s", info->name, words);
}

dn_status dn_option_check(const dn_option_field *field, double value, dn_error *error)
{
    const dn_option_info *info = &table[field->id];
    bool whole = info->type == DN_TYPE_NUMBER || value == rint(value);
    if (value >= field->minimum && value <= field->maximum && whole)
        return DN_OK;
    switch (info->type) {
    case DN_TYPE_CHOICE:
        return refuse_choice(field, info, error);
    case DN_TYPE_BOOLEAN:
        return dn_fail(error, DN_INVALID, "%s must be true or false", info->name);
    case DN_TYPE_INTEGER:
        return dn_fail(error, DN_INVALID, "%s must be an integer from %g to %g", info->name, field->minimum, field->maximum);
    case DN_TYPE_NUMBER:
        break;
    }
    return dn_fail(error, DN_INVALID, "%s must be a number from %.10g to %.10g", info->name, field->minimum, field->maximum);
}
