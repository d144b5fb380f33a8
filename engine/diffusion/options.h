/* Every option of sampling, guidance and conditioning that a request may set, in one table: its name on the wire, on the command
 * line (with '-' for '_') and in stored requests, its type, its widest range, and one line of help. A sampler or a guidance method
 * lists which of them it takes, with ranges and defaults of its own. Plain data; any thread. */
#ifndef DN_DIFFUSION_OPTIONS_H
#define DN_DIFFUSION_OPTIONS_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

typedef enum dn_option_id {
    /* which noise levels are visited */
    DN_OPT_SIGMA_SCHEDULE,
    DN_OPT_TIMESTEP_SPACING,
    DN_OPT_FINAL_SIGMA,
    DN_OPT_SIGMA_MIN,
    DN_OPT_SIGMA_MAX,
    DN_OPT_RHO,
    DN_OPT_SHIFT,
    DN_OPT_RESCALE_ZERO_SNR,
    /* the denoised estimate */
    DN_OPT_CLIP_SAMPLE,
    DN_OPT_CLIP_SAMPLE_RANGE,
    DN_OPT_THRESHOLDING,
    DN_OPT_DYNAMIC_THRESHOLDING_RATIO,
    DN_OPT_SAMPLE_MAX_VALUE,
    /* fresh noise */
    DN_OPT_ETA,
    DN_OPT_S_CHURN,
    DN_OPT_S_NOISE,
    DN_OPT_S_TMIN,
    DN_OPT_S_TMAX,
    DN_OPT_VARIANCE_TYPE,
    /* the solver */
    DN_OPT_SOLVER_ORDER,
    DN_OPT_SOLVER_TYPE,
    DN_OPT_LOWER_ORDER_FINAL,
    DN_OPT_CORRECTOR_ORDER,
    DN_OPT_CORRECTOR_STEPS,
    DN_OPT_SNR,
    DN_OPT_ORIGINAL_INFERENCE_STEPS,
    DN_OPT_RTOL,
    DN_OPT_ATOL,
    /* guidance (dn_guidance says which method takes which) */
    DN_OPT_GUIDANCE_METHOD,
    DN_OPT_GUIDANCE_SIGMA_MIN,
    DN_OPT_GUIDANCE_SIGMA_MAX,
    DN_OPT_GUIDANCE_RESCALE,
    DN_OPT_GUIDANCE_CHANNELS,
    DN_OPT_APG_ETA,
    DN_OPT_APG_NORM,
    DN_OPT_APG_MOMENTUM,
    DN_OPT_CLASSIFIER_SCALE,
    /* conditioning on pictures and seeds */
    DN_OPT_STRENGTH,
    DN_OPT_RESAMPLE,
    DN_OPT_VARIATION_STRENGTH,
    DN_OPT_COUNT /* at most 64 */
} dn_option_id;

typedef enum dn_option_type { DN_TYPE_NUMBER, DN_TYPE_INTEGER, DN_TYPE_BOOLEAN, DN_TYPE_CHOICE } dn_option_type;

typedef struct dn_option_info {
    const char *name;
    dn_option_type type;
    double minimum, maximum; /* booleans 0..1; choices: indices into `choices` */
    const char *const *choices;
    const char *help;
} dn_option_info;

/* All zeros: nothing is given. Booleans are 0 or 1, choices an index. */
typedef struct dn_options {
    uint64_t given; /* bit dn_option_id */
    double value[DN_OPT_COUNT]; /* 0 where not given */
} dn_options;

/* One option as one sampler takes it: a range within the table's (a range of choices for choices) and what is used when it is not
 * given. NaN as standard: the folder's own, or what the model's levels say. */
typedef struct dn_option_field {
    dn_option_id id;
    double minimum, maximum, standard;
} dn_option_field;

const dn_option_info *dn_option_info_of(dn_option_id id);
/* False: no such option. */
bool dn_option_find(const char *name, dn_option_id *out);
/* The index of a choice by its word; false: no such word. */
bool dn_option_choice(dn_option_id id, const char *word, double *out);
bool dn_option_given(const dn_options *options, dn_option_id id);
void dn_option_set(dn_options *options, dn_option_id id, double value);
/* Whether `value` is one that this field takes; a refusal names the option and its rule. */
dn_status dn_option_check(const dn_option_field *field, double value, dn_error *error);

/* The words of the choices, as indices. */
typedef enum dn_sigma_schedule { DN_SIGMAS_MODEL, DN_SIGMAS_KARRAS, DN_SIGMAS_EXPONENTIAL, DN_SIGMAS_BETA, DN_SIGMAS_LU } dn_sigma_schedule;
typedef enum dn_solver_type { DN_SOLVER_MIDPOINT, DN_SOLVER_HEUN, DN_SOLVER_BH1, DN_SOLVER_BH2, DN_SOLVER_LOGRHO } dn_solver_type;
typedef enum dn_guidance_method { DN_GUIDE_CFG, DN_GUIDE_CFG_PP, DN_GUIDE_APG, DN_GUIDE_AUTO, DN_GUIDE_CLASSIFIER } dn_guidance_method;

#endif
