/* Parametrisation: what a network's raw answer means. From x = alpha*x0 + sigma*n and the answer to x0 and the noise.
 * Also the helpers that append register operations. Pure functions, any thread.
 *
 * With c = sqrt(alpha^2 + sigma^2) (1 for variance-preserving levels), the network saw x / c and answers
 *   epsilon (Ho et al. 2020, eq. 15):       x0 = (x - sigma e) / alpha
 *   sample:                                 x0 = answer
 *   v (Salimans and Ho 2022, appendix D):   x0 = alpha/c x/c - sigma/c v,   n = alpha/c v + sigma/c x/c.
 * Other families, with r = sigma/alpha and their skip and out (family.c):
 *   EDM and VE:                             x0 = skip x / alpha + out answer,   n = (x - alpha x0) / sigma
 *   FLOW, with c = alpha + sigma, u = n - x0 (the answer, or its negative):
 *                                           x0 = x/c - sigma/c u,   n = x/c + alpha/c u, also where alpha or sigma is 0. */
#include <assert.h>
#include <math.h>

#include "diffusion/family.h"

static dn_op *append(dn_ops *ops, dn_op_kind kind, uint32_t dst)
{
    assert(ops->count < DN_PROGRAM_OPS_MAX);
    dn_op *op = &ops->op[ops->count++];
    *op = (dn_op){.kind = kind, .dst = dst};
    return op;
}

void dn_ops_linear(dn_ops *ops, uint32_t dst, uint32_t terms, const uint32_t *src, const double *coefficient)
{
    assert(terms >= 1 && terms <= DN_OP_TERMS_MAX);
    dn_op *op = append(ops, DN_OP_LINEAR, dst);
    op->terms = terms;
    for (uint32_t i = 0; i < terms; i++) {
        op->src[i] = src[i];
        op->coefficient[i] = (float)coefficient[i];
    }
}

void dn_ops_noise(dn_ops *ops, uint32_t dst, uint64_t seed, dn_noise_stream stream, uint32_t draw)
{
    dn_op *op = append(ops, DN_OP_NOISE, dst);
    op->seed = seed;
    op->stream = stream;
    op->draw = draw;
}

static void append_clip(dn_ops *ops, uint32_t reg, double range)
{
    dn_op *op = append(ops, DN_OP_CLIP, reg);
    op->terms = 1;
    op->src[0] = reg;
    op->low = (float)-range;
    op->high = (float)range;
}

/* Dynamic thresholding (Saharia et al. 2022, section 2.3). */
static void append_threshold(dn_ops *ops, uint32_t reg, const dn_scheduler_config *config)
{
    dn_op *op = append(ops, DN_OP_THRESHOLD, reg);
    op->terms = 1;
    op->src[0] = reg;
    op->ratio = (float)config->dynamic_thresholding_ratio;
    op->high = (float)config->sample_max_value;
}

double dn_input_scale(const dn_sampler_context *context, const dn_level *level)
{
    double alpha = level->alpha, sigma = level->sigma, data = context->training->sigma_data;
    switch (context->training->family) {
    case DN_FAMILY_EDM:
        return 1.0 / sqrt(alpha * alpha * data * data + sigma * sigma);
    case DN_FAMILY_FLOW:
        return 1.0 / (alpha + sigma);
    case DN_FAMILY_VE:
        return 1.0 / alpha;
    case DN_FAMILY_VP:
        break;
    }
    return 1.0 / sqrt(alpha * alpha + sigma * sigma);
}

/* EDM and VE; neither is asked at sigma 0. */
static void parametrise_exploding(const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t raw, dn_ops *out)
{
    double alpha = evaluation->level.alpha, sigma = evaluation->level.sigma;
    dn_precondition c = dn_precondition_at(context->training, sigma / alpha);
    const uint32_t src[2] = {evaluation->reg, raw};
    dn_ops_linear(out, DN_REG_X0, 2, src, (const double[]){c.skip / alpha, c.out});
    dn_ops_linear(out, DN_REG_EPS, 2, src, (const double[]){(1.0 - c.skip) / sigma, -alpha * c.out / sigma});
}

static void parametrise_flow(const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t raw, dn_ops *out)
{
    double alpha = evaluation->level.alpha, sigma = evaluation->level.sigma, scale = 1.0 / (alpha + sigma);
    double sign = context->training->time_flipped ? -1.0 : 1.0;
    const uint32_t src[2] = {evaluation->reg, raw};
    dn_ops_linear(out, DN_REG_X0, 2, src, (const double[]){scale, -sign * sigma * scale});
    dn_ops_linear(out, DN_REG_EPS, 2, src, (const double[]){scale, sign * alpha * scale});
}

static void parametrise_preserving(const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t raw, dn_ops *out)
{
    double alpha = evaluation->level.alpha, sigma = evaluation->level.sigma;
    double scale = dn_input_scale(context, &evaluation->level);
    const uint32_t src[2] = {evaluation->reg, raw};
    switch (context->training->prediction) {
    case DN_PREDICT_EPSILON:
        dn_ops_linear(out, DN_REG_X0, 2, src, (const double[]){1.0 / alpha, -sigma / alpha});
        dn_ops_linear(out, DN_REG_EPS, 1, &raw, (const double[]){1.0});
        break;
    case DN_PREDICT_SAMPLE:
        dn_ops_linear(out, DN_REG_X0, 1, &raw, (const double[]){1.0});
        dn_ops_linear(out, DN_REG_EPS, 2, src, (const double[]){1.0 / sigma, -alpha / sigma});
        break;
    case DN_PREDICT_V:
        dn_ops_linear(out, DN_REG_X0, 2, src, (const double[]){alpha * scale * scale, -sigma * scale});
        dn_ops_linear(out, DN_REG_EPS, 2, src, (const double[]){sigma * scale * scale, alpha * scale});
        break;
    case DN_PREDICT_FLOW:
        break; /* of the family FLOW only */
    }
}

void dn_parametrise(const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t raw, dn_ops *out)
{
    switch (context->training->family) {
    case DN_FAMILY_VP:
        parametrise_preserving(context, evaluation, raw, out);
        break;
    case DN_FAMILY_FLOW:
        parametrise_flow(context, evaluation, raw, out);
        break;
    case DN_FAMILY_EDM:
    case DN_FAMILY_VE:
        parametrise_exploding(context, evaluation, raw, out);
        break;
    }
    if (context->config.thresholding)
        append_threshold(out, DN_REG_X0, &context->config);
    else if (context->config.clip_sample)
        append_clip(out, DN_REG_X0, context->config.clip_sample_range);
}
