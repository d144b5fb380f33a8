/* Conditioning as register operations; see conditioning.h. Pure functions, any thread.
 *
 * Invariant: a lane without any of it gets the operations it always had, so that its bytes stay. */
#include "diffusion/conditioning.h"

#include <assert.h>
#include <math.h>

#define DN_PASS_SHIFT 20u /* draws of the first pass lie below 2^20 */

static dn_op *append(dn_ops *ops, dn_op_kind kind, uint32_t dst, uint32_t first, uint32_t second, uint32_t third)
{
    assert(ops->count < DN_PROGRAM_OPS_MAX);
    dn_op *op = &ops->op[ops->count++];
    *op = (dn_op){.kind = kind, .dst = dst, .terms = 3, .src = {first, second, third}};
    return op;
}

uint32_t dn_conditioning_first_step(const dn_conditioning *conditioning, uint32_t steps)
{
    if (!conditioning->from_init)
        return 0;
    double wanted = floor((double)steps * conditioning->strength);
    return wanted >= (double)steps ? 0 : steps - (uint32_t)wanted;
}

/* dst = alpha init + sigma noise. */
static void noised(const dn_level *level, uint32_t dst, uint32_t noise, dn_ops *out)
{
    dn_ops_linear(out, dst, 2, (const uint32_t[]){DN_REG_INIT, noise}, (const double[]){level->alpha, level->sigma});
}

static void start_noise(const dn_conditioning *c, const dn_sampler_context *context, bool given, dn_ops *out)
{
    if (!given)
        dn_ops_noise(out, DN_REG_X, context->seed, DN_STREAM_START, 0);
    if (!c->has_variation || c->variation_strength == 0.0)
        return;
    if (c->variation_strength == 1.0) {
        dn_ops_noise(out, DN_REG_X, c->variation_seed, DN_STREAM_START, 0);
        return;
    }
    dn_ops_noise(out, DN_REG_NOISE, c->variation_seed, DN_STREAM_START, 0);
    append(out, DN_OP_SLERP, DN_REG_X, DN_REG_X, DN_REG_NOISE, 0)->ratio = (float)c->variation_strength;
}

/* The level that the sampler first asks at: that of its first step, but for edm_heun, whose first churn is part of the start. */
static dn_level first_level(const dn_sampler_context *context)
{
    const dn_sampler_state state = {.step = context->first_step};
    dn_evaluation evaluation;
    if (context->sampler->next(context, &state, &evaluation) && evaluation.reg == DN_REG_X)
        return evaluation.level;
    return context->schedule.level[context->first_step];
}

void dn_conditioning_start(const dn_conditioning *conditioning, const dn_sampler_context *context, bool given, dn_ops *out)
{
    const dn_schedule *schedule = &context->schedule;
    const uint32_t x = DN_REG_X, init = DN_REG_INIT;
    if (context->sampler->inverts || context->first_step == schedule->steps) {
        dn_ops_linear(out, DN_REG_X, 1, &init, (const double[]){1.0});
        return;
    }
    start_noise(conditioning, context, given, out);
    const dn_level first = first_level(context);
    if (conditioning->from_init) {
        noised(&first, DN_REG_X, DN_REG_X, out);
        return;
    }
    if (conditioning->has_mask)
        noised(&first, DN_REG_NOISE, DN_REG_X, out);
    dn_ops_linear(out, DN_REG_X, 1, &x, &schedule->start_scale);
    if (conditioning->has_mask)
        append(out, DN_OP_BLEND, DN_REG_X, DN_REG_X, DN_REG_NOISE, DN_REG_MASK);
}

/* Draws of the inpainting stream: two for each pass over each step. */
static uint32_t draw_of(uint32_t pass, uint32_t step, uint32_t which)
{
    return (pass << DN_PASS_SHIFT | step) * 2 + which;
}

/* x at level `from` becomes x at the noisier level `to`: the forward process between the two. */
static void go_back(const dn_sampler_context *context, const dn_level *from, const dn_level *to, uint32_t draw, dn_ops *out)
{
    double ratio = to->alpha / from->alpha;
    double added = to->sigma * to->sigma - ratio * ratio * from->sigma * from->sigma;
    dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_INPAINT, draw);
    dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X, DN_REG_NOISE}, (const double[]){ratio, sqrt(fmax(added, 0.0))});
}

void dn_conditioning_step(const dn_conditioning *conditioning, const dn_sampler_context *context, dn_sampler_state *state, uint32_t *pass,
                          dn_ops *out)
{
    if (!conditioning->has_mask)
        return;
    uint32_t step = state->step - 1;
    bool last = state->step == context->schedule.steps, again = *pass + 1 < conditioning->resample;
    const dn_level *reached = &context->schedule.level[state->step];
    uint32_t kept = DN_REG_INIT;
    if (reached->sigma > 0.0 && (!last || again)) {
        kept = DN_REG_NOISE;
        dn_ops_noise(out, DN_REG_NOISE, context->seed, DN_STREAM_INPAINT, draw_of(*pass, step, 0));
        noised(reached, DN_REG_NOISE, DN_REG_NOISE, out);
    }
    append(out, DN_OP_BLEND, DN_REG_X, DN_REG_X, kept, DN_REG_MASK);
    if (again) {
        go_back(context, reached, &context->schedule.level[step], draw_of(*pass, step, 1), out);
        state->step = step;
    }
    *pass = again ? *pass + 1 : 0;
}

void dn_conditioning_redraw(uint32_t pass, uint32_t first, dn_ops *ops)
{
    for (uint32_t i = first; i < ops->count; i++)
        if (ops->op[i].kind == DN_OP_NOISE)
            ops->op[i].draw += pass << DN_PASS_SHIFT;
}
