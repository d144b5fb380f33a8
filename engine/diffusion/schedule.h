/* Noise schedules: what the network was trained on, and the levels a sampler visits.
 *
 * One formulation for all: x = alpha * x0 + sigma * n. The training schedule is a table of alpha-bar (Ho et al. 2020,
 * eq. 4) as diffusers 0.31 makes it; timestep tables follow diffusers 0.31 exactly, so that a folder's
 * scheduler_config.json means here what it means there. Everything in double. Pure functions, any thread. */
#ifndef DN_DIFFUSION_SCHEDULE_H
#define DN_DIFFUSION_SCHEDULE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"

/* DN_PREDICT_FLOW: the velocity n - x0 of x_t = (1 - t) x0 + t n. */
typedef enum dn_prediction { DN_PREDICT_EPSILON, DN_PREDICT_SAMPLE, DN_PREDICT_V, DN_PREDICT_FLOW } dn_prediction;
/* How the network was trained, which says what it is given for x = alpha x0 + sigma n with r = sigma / alpha:
 *   VP    x / (alpha sqrt(1 + r^2)), at the (fractional) index of r in a table of alpha-bar;
 *   EDM   x / (alpha sqrt(r^2 + sigma_data^2)), at log(r) / 4 (Karras et al. 2022, table 1);
 *   FLOW  x / (alpha (1 + r)), at t = r / (1 + r), scaled and turned as the format wants it;
 *   VE    x / alpha, at r itself; it answers with the score -n / r (Song et al. 2021, NCSN++). */
typedef enum dn_family { DN_FAMILY_VP, DN_FAMILY_EDM, DN_FAMILY_FLOW, DN_FAMILY_VE } dn_family;
#define DN_FAMILIES_ALL 15u
typedef enum dn_spacing { DN_SPACING_LEADING, DN_SPACING_TRAILING, DN_SPACING_LINSPACE } dn_spacing;
typedef enum dn_variance {
    DN_VARIANCE_FIXED_SMALL,
    DN_VARIANCE_FIXED_SMALL_LOG,
    DN_VARIANCE_FIXED_LARGE,
    DN_VARIANCE_FIXED_LARGE_LOG,
    DN_VARIANCE_LEARNED_RANGE,
    DN_VARIANCE_LEARNED /* known in folders, and refused */
} dn_variance;

/* What training fixed: kept whichever sampler is chosen by name. */
typedef struct dn_training_schedule {
    dn_family family;
    uint32_t timesteps; /* 1000 */
    dn_prediction prediction;
    double *alphas_cumprod; /* VP: [timesteps], owned; NULL for the other families */
    double *betas; /* likewise */
    bool cosine; /* made by squaredcos_cap_v2: some tables round their times differently */
    bool zero_snr; /* VP: the table ends without signal (rescale_betas_zero_snr) */
    struct dn_training_schedule *rescaled; /* VP: this schedule rescaled to zero terminal SNR, owned; NULL: it is so already, or not VP */
    double sigma_data; /* EDM */
    double sigma_min, sigma_max; /* EDM and VE: the range of r; FLOW: of t before `shift` (diffusers 1/1000 and 1, SiT 0 and 1) */
    double boundary; /* EDM: the sigma at which a consistency model answers with its input; 0 for other networks */
    double time_floor; /* VE: the last of the even times that the levels are spaced by (sampling_eps) */
    double shift; /* FLOW: t' = shift t / (1 + (shift - 1) t) */
    double time_scale; /* EDM, FLOW: the network is told time_scale times its time (FLOW: diffusers 1000, SiT 1; EDM 1) */
    bool time_flipped; /* FLOW: it is told 1 - t instead of t, and answers x0 - n (SiT) */
} dn_training_schedule;

/* What a scheduler_config.json says of sampling: per-class defaults of diffusers for missing keys (engine-facts, 2.2). */
typedef struct dn_scheduler_config {
    char class_name[64]; /* "DDIMScheduler" */
    dn_spacing spacing;
    uint32_t steps_offset;
    bool respaced; /* a step ends at the next time visited, as the original programs do; diffusers' DDPM and DDIM: at t - T / n */
    bool clip_sample;
    double clip_sample_range;
    bool thresholding;
    double dynamic_thresholding_ratio, sample_max_value;
    bool set_alpha_to_one;
    bool use_karras_sigmas, use_exponential_sigmas, use_beta_sigmas, use_lu_lambdas;
    dn_variance variance;
    uint32_t solver_order; /* 1..4 */
    char algorithm_type[24], solver_type[16], interpolation_type[16], timestep_type[16];
    uint32_t corrector_order; /* SA-Solver: 1..4, 0 none; UniPC: at most the predictor's, 0 none */
    uint64_t disable_corrector; /* UniPC: bit i: no correction after step i */
    uint32_t original_inference_steps; /* LCM and TCD: steps of the distilled teacher */
    double timestep_scaling; /* LCM */
    bool lower_order_final, euler_at_final;
    bool final_sigma_min; /* final_sigmas_type "sigma_min" instead of "zero" */
    double sigma_min, sigma_max; /* Euler's optional range; NaN: the table's own */
    double rho; /* exponent of the Karras spacing: 7 */
    double snr; /* predictor-corrector: signal-to-noise ratio of a Langevin step */
    uint32_t correct_steps; /* Langevin steps before each predictor step */
    double s_noise; /* consistency models: scale of the fresh noise */
    double lambda_min_clipped; /* DPM-Solver: lowest log(alpha/sigma) visited; -INFINITY: the whole table */
} dn_scheduler_config;

/* config may be NULL (DDPMScheduler with its defaults). Refusals name path and key. */
dn_status dn_training_schedule_from_json(dn_training_schedule **out, const cJSON *config, const char *path, dn_error *error);
void dn_training_schedule_free(dn_training_schedule *schedule);
dn_status dn_scheduler_config_from_json(dn_scheduler_config *out, const cJSON *config, const char *path, dn_error *error);
/* The defaults of one scheduler class (what a sampler chosen by name uses). */
dn_status dn_scheduler_config_defaults(dn_scheduler_config *out, const char *class_name, dn_error *error);

/* sigma of the VE form at an integer or fractional timestep: sqrt((1-a)/a), linear between neighbours. */
double dn_training_sigma(const dn_training_schedule *schedule, double time);

/* One level a sampler visits. VP samplers keep (alpha, sigma) with alpha^2 + sigma^2 = 1; VE samplers alpha = 1. */
typedef struct dn_level {
    double time; /* what the network is told; may be fractional */
    double alpha, sigma;
} dn_level;

/* steps + 1 levels: level[i] is where step i starts, level[i+1] where it ends. The last may be clean (sigma 0). */
typedef struct dn_schedule {
    uint32_t steps; /* network visits in order; Heun's second evaluations are not listed */
    double start_scale; /* standard normals times this are the start (diffusers' init_noise_sigma) */
    dn_level level[DN_STEPS_MAX + 1];
    double beta_tilde[DN_STEPS_MAX]; /* DDPM's posterior variance of each step where used, else 0 */
    double beta[DN_STEPS_MAX]; /* DDPM's effective beta of each step where used, else 0 */
} dn_schedule;

#endif
