/* What samplers with a memory share: sums put together term by term, answers of earlier steps in a ring of registers, and the
 * half log of the signal-to-noise ratio that multistep formulas are written in. Private to this folder. Pure functions, any thread. */
#ifndef DN_DIFFUSION_SAMPLER_TOOLS_H
#define DN_DIFFUSION_SAMPLER_TOOLS_H

#include "diffusion/levels.h"
#include "diffusion/samplers.h"

/* clang-format off */
/* The options of the levels of the Euler family, of DPM-Solver's, and of whole timesteps: ranges, and the standards of diffusers'
 * classes. NaN: the table's own, or what the folder says. */
#define DN_FIELDS_SIGMA_RANGE \
    {DN_OPT_SIGMA_MIN, 1e-6, 1e6, NAN}, {DN_OPT_SIGMA_MAX, 1e-6, 1e6, NAN}, {DN_OPT_RHO, 1.0, 100.0, 7.0}
#define DN_FIELD_LINSPACE {DN_OPT_TIMESTEP_SPACING, DN_SPACING_LEADING, DN_SPACING_LINSPACE, DN_SPACING_LINSPACE}
#define DN_FIELDS_SIGMAS \
    {DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_MODEL, DN_SIGMAS_BETA, DN_SIGMAS_MODEL}, DN_FIELD_LINSPACE, DN_FIELDS_SIGMA_RANGE
#define DN_FIELD_RESCALE {DN_OPT_RESCALE_ZERO_SNR, 0.0, 1.0, NAN}
#define DN_FIELD_FINAL_SIGMA {DN_OPT_FINAL_SIGMA, 0.0, 1.0, 0.0}
/* The estimate. */
#define DN_FIELDS_CLIP(standard) {DN_OPT_CLIP_SAMPLE, 0.0, 1.0, standard}, {DN_OPT_CLIP_SAMPLE_RANGE, 1e-6, 1e6, 1.0}
#define DN_FIELDS_THRESHOLDING \
    {DN_OPT_THRESHOLDING, 0.0, 1.0, 0.0}, {DN_OPT_DYNAMIC_THRESHOLDING_RATIO, 0.0, 1.0, 0.995}, {DN_OPT_SAMPLE_MAX_VALUE, 1.0, 1e6, 1.0}
/* DDPM and DDIM. */
#define DN_FIELDS_WHOLE_TIMES \
    {DN_OPT_TIMESTEP_SPACING, DN_SPACING_LEADING, DN_SPACING_LINSPACE, DN_SPACING_LEADING}, DN_FIELD_RESCALE, DN_FIELDS_CLIP(1.0)
/* clang-format on */

/* A linear combination of registers being put together. Terms of one register join, and zeros are left out: they may hold nothing. */
typedef struct dn_sum {
    uint32_t count;
    uint32_t src[DN_OP_TERMS_MAX];
    double coefficient[DN_OP_TERMS_MAX];
} dn_sum;

void dn_sum_add(dn_sum *sum, uint32_t reg, double coefficient);
void dn_sum_into(dn_ops *ops, uint32_t dst, const dn_sum *sum);
void dn_ops_copy(dn_ops *ops, uint32_t dst, uint32_t src);

/* The register of the answer of `back` steps before `step`, in a ring of `size` registers from H0. */
uint32_t dn_history_at(uint32_t step, uint32_t back, uint32_t size);
/* The mask of the answers that the step after `step` may read: of `step` and `count` - 1 before it. */
uint32_t dn_history_live(uint32_t step, uint32_t count, uint32_t size);

/* lambda = log(alpha / sigma) (Lu et al. 2022a, eq. 3.1); infinite at the image itself. */
double dn_lambda(const dn_level *level);

/* The noise that the (thresholded) estimate leaves in x: EPS, made again where x0 was thresholded. Returns DN_REG_EPS. */
uint32_t dn_append_noise_answer(const dn_sampler_context *context, const dn_level *level, dn_ops *out);

/* The order after `history` answers; `few`: lower_order_final with few steps takes one off near the end, the last step takes order 1. */
uint32_t dn_multistep_order(const dn_sampler_context *context, const dn_sampler_state *state);

/* Solves a[count][count] x = b in place by elimination with pivots; false: singular. count <= 4. */
bool dn_solve_small(double a[4][4], double b[4], uint32_t count);

#endif
