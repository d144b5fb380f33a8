/* The methods of guidance as register operations; see guidance.h for the formulas. Pure functions, any thread.
 *
 * The seed documents call w = 0 unconditional; with their own formula (1+w) c - w u it is conditional and w = -1 is
 * unconditional. Here s = 1 + w: 1 conditional, 0 unconditional. */
#include "diffusion/guidance.h"

#include <assert.h>
#include <math.h>

static dn_op *append(dn_ops *ops, dn_op_kind kind, uint32_t dst)
{
    assert(ops->count < DN_PROGRAM_OPS_MAX);
    dn_op *op = &ops->op[ops->count++];
    *op = (dn_op){.kind = kind, .dst = dst, .terms = 2};
    return op;
}

static uint32_t rows_at_scale(const dn_guidance *guidance, double scale)
{
    switch (guidance->method) {
    case DN_GUIDE_AUTO: /* the network itself always: a learned variance is its own */
        return scale == 1.0 ? DN_ROW_COND : DN_ROW_COND | DN_ROW_GUIDE;
    case DN_GUIDE_CFG_PP: /* the noise is the null row's at every scale */
        return scale == 0.0 ? DN_ROW_NULL : DN_ROW_COND | DN_ROW_NULL;
    case DN_GUIDE_CFG:
    case DN_GUIDE_APG:
    case DN_GUIDE_CLASSIFIER:
        break;
    }
    return (scale == 0.0 ? 0u : DN_ROW_COND) | (scale == 1.0 ? 0u : DN_ROW_NULL);
}

uint32_t dn_guidance_rows_most(const dn_guidance *guidance)
{
    if (!guidance->conditional && guidance->method != DN_GUIDE_AUTO)
        return DN_ROW_COND;
    bool gradient = guidance->method == DN_GUIDE_CLASSIFIER && guidance->classifier_scale != 0.0;
    return rows_at_scale(guidance, guidance->scale) | (gradient ? DN_ROW_GRADIENT : 0u);
}

uint32_t dn_guidance_rows(const dn_guidance *guidance, const dn_level *level)
{
    /* alpha may be 0 */
    bool above = guidance->sigma_min == 0.0 || level->sigma > guidance->sigma_min * level->alpha;
    bool below = isinf(guidance->sigma_max) || level->sigma <= guidance->sigma_max * level->alpha;
    if (above && below)
        return dn_guidance_rows_most(guidance);
    bool unconditional = guidance->conditional && guidance->method == DN_GUIDE_CLASSIFIER && guidance->scale == 0.0;
    return unconditional ? DN_ROW_NULL : DN_ROW_COND; /* where the classifier alone knows the class, it stays so */
}

/* The linear part of the parametrisation: x0 = x0_by_x * x + x0_by_raw * raw, and the noise likewise. */
typedef struct dn_answer {
    double x0_by_x, x0_by_raw, noise_by_x, noise_by_raw;
} dn_answer;

/* Found by following the parametrisation's own program, so that it is said in one place alone. */
static dn_answer answer_at(const dn_sampler_context *context, const dn_evaluation *evaluation)
{
    double by_x[DN_REG_COUNT] = {0}, by_raw[DN_REG_COUNT] = {0};
    dn_ops ops = {.count = 0};
    dn_parametrise(context, evaluation, DN_REG_COND, &ops);
    by_x[evaluation->reg] = 1.0;
    by_raw[DN_REG_COND] = 1.0;
    for (uint32_t i = 0; i < ops.count; i++) {
        const dn_op *op = &ops.op[i];
        double x = 0.0, raw = 0.0;
        if (op->kind != DN_OP_LINEAR)
            continue; /* clips and thresholds come after it */
        for (uint32_t t = 0; t < op->terms; t++) {
            x += (double)op->coefficient[t] * by_x[op->src[t]];
            raw += (double)op->coefficient[t] * by_raw[op->src[t]];
        }
        by_x[op->dst] = x;
        by_raw[op->dst] = raw;
    }
    return (dn_answer){by_x[DN_REG_X0], by_raw[DN_REG_X0], by_x[DN_REG_EPS], by_raw[DN_REG_EPS]};
}

static void copy(dn_ops *out, uint32_t dst, uint32_t src)
{
    dn_ops_linear(out, dst, 1, &src, (const double[]){1.0});
}

/* The difference first: c and u are close, and s c + (1 - s) u would round both at s times their size. */
static void fold_linear(const dn_guidance *guidance, dn_ops *out)
{
    static const uint32_t both[2] = {DN_REG_COND, DN_REG_UNCOND};
    if (guidance->rescale > 0.0 || guidance->split > 0)
        copy(out, DN_REG_X0, DN_REG_COND);
    dn_ops_linear(out, DN_REG_COND, 2, both, (const double[]){1.0, -1.0});
    dn_ops_linear(out, DN_REG_COND, 2, both, (const double[]){guidance->scale, 1.0});
}

/* In x0: with x0 = a x + b raw, D_c - D_u = b (c - u), and the answer whose x0 is D_u + s P is u + s P / b. */
static void fold_projected(const dn_guidance *guidance, const dn_answer *answer, uint32_t x, bool *moving, dn_ops *out)
{
    double b = answer->x0_by_raw;
    uint32_t difference = guidance->apg_momentum != 0.0 ? DN_REG_GUIDE : DN_REG_SCRATCH;
    bool adds = guidance->apg_momentum != 0.0 && *moving;
    dn_ops_linear(out, difference, adds ? 3 : 2, (const uint32_t[]){DN_REG_COND, DN_REG_UNCOND, DN_REG_GUIDE},
                  (const double[]){b, -b, guidance->apg_momentum});
    *moving = guidance->apg_momentum != 0.0;
    dn_ops_linear(out, DN_REG_X0, 2, (const uint32_t[]){x, DN_REG_COND}, (const double[]){answer->x0_by_x, b});
    dn_op *project = append(out, DN_OP_PROJECT, DN_REG_SCRATCH);
    project->src[0] = difference;
    project->src[1] = DN_REG_X0;
    project->low = (float)guidance->apg_norm;
    project->ratio = (float)guidance->apg_eta;
    copy(out, DN_REG_X0, DN_REG_COND);
    dn_ops_linear(out, DN_REG_COND, 2, (const uint32_t[]){DN_REG_UNCOND, DN_REG_SCRATCH}, (const double[]){1.0, guidance->scale / b});
}

/* DN_REG_X0 holds the conditional answer (where it is wanted), DN_REG_COND the guided one. */
static void finish_fold(const dn_guidance *guidance, dn_ops *out)
{
    if (guidance->rescale > 0.0) {
        dn_op *match = append(out, DN_OP_MATCH_STD, DN_REG_COND);
        match->src[0] = DN_REG_COND;
        match->src[1] = DN_REG_X0;
        match->ratio = (float)guidance->rescale;
    }
    if (guidance->split > 0) {
        dn_op *select = append(out, DN_OP_SELECT, DN_REG_COND);
        select->src[0] = DN_REG_COND;
        select->src[1] = DN_REG_X0;
        select->split = guidance->split;
    }
}

/* eps' = eps - sigma scale grad_x log p, hence x0' = x0 + sigma^2 / alpha scale grad_x log p: said of the raw answer. The classifier
 * saw in_scale x and gives the gradient by that. Where alpha is 0 the image has no part in x, and no class shows in it. */
static void add_gradient(const dn_guidance *guidance, const dn_sampler_context *context, const dn_level *level, const dn_answer *answer,
                         dn_ops *out)
{
    if (level->alpha == 0.0 || answer->x0_by_raw == 0.0)
        return;
    double shift = level->sigma * level->sigma / level->alpha * guidance->classifier_scale * dn_input_scale(context, level);
    dn_ops_linear(out, DN_REG_COND, 2, (const uint32_t[]){DN_REG_COND, DN_REG_GUIDE}, (const double[]){1.0, shift / answer->x0_by_raw});
}

void dn_guidance_fold(const dn_guidance *guidance, const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t rows,
                      bool *moving, dn_ops *out)
{
    bool both = (rows & DN_ROW_COND) && (rows & (DN_ROW_NULL | DN_ROW_GUIDE)), apg = both && guidance->method == DN_GUIDE_APG;
    dn_answer answer = {0};
    if (apg || (rows & DN_ROW_GRADIENT))
        answer = answer_at(context, evaluation);
    bool projected = apg && answer.x0_by_raw != 0.0; /* without noise (inversion begins there) the estimates are one and the same */
    if (!(rows & DN_ROW_COND))
        copy(out, DN_REG_COND, DN_REG_UNCOND);
    if (projected)
        fold_projected(guidance, &answer, evaluation->reg, moving, out);
    else if (both)
        fold_linear(guidance, out);
    if (both)
        finish_fold(guidance, out);
    if (rows & DN_ROW_GRADIENT)
        add_gradient(guidance, context, &evaluation->level, &answer, out);
}

/* The noise is the null row's, and the image is put where that noise and the guided estimate say it is, so that samplers that move
 * from x by the noise (Euler's) go the same way as those that move from x0 (DDIM). */
void dn_guidance_renoise(const dn_guidance *guidance, const dn_sampler_context *context, const dn_evaluation *evaluation, uint32_t rows,
                         dn_ops *out)
{
    if (guidance->method != DN_GUIDE_CFG_PP || !(rows & DN_ROW_NULL) || !(rows & DN_ROW_COND))
        return;
    dn_answer answer = answer_at(context, evaluation);
    dn_ops_linear(out, DN_REG_EPS, 2, (const uint32_t[]){evaluation->reg, DN_REG_UNCOND},
                  (const double[]){answer.noise_by_x, answer.noise_by_raw});
    dn_ops_linear(out, evaluation->reg, 2, (const uint32_t[]){DN_REG_X0, DN_REG_EPS},
                  (const double[]){evaluation->level.alpha, evaluation->level.sigma});
}
