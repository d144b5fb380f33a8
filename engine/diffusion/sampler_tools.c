/* What samplers with a memory share. Pure functions, any thread. */
#include "diffusion/sampler_tools.h"

#include <assert.h>
#include <math.h>

#define DN_LOWER_ORDER_STEPS 15 /* below this many steps lower_order_final lowers the order of the last two */

void dn_sum_add(dn_sum *sum, uint32_t reg, double coefficient)
{
    if (coefficient == 0.0)
        return;
    for (uint32_t i = 0; i < sum->count; i++)
        if (sum->src[i] == reg) {
            sum->coefficient[i] += coefficient;
            return;
        }
    assert(sum->count < DN_OP_TERMS_MAX);
    sum->src[sum->count] = reg;
    sum->coefficient[sum->count++] = coefficient;
}

void dn_sum_into(dn_ops *ops, uint32_t dst, const dn_sum *sum)
{
    dn_ops_linear(ops, dst, sum->count, sum->src, sum->coefficient);
}

void dn_ops_copy(dn_ops *ops, uint32_t dst, uint32_t src)
{
    dn_ops_linear(ops, dst, 1, &src, (const double[]){1.0});
}

uint32_t dn_history_at(uint32_t step, uint32_t back, uint32_t size)
{
    return DN_REG_H0 + (step - back) % size;
}

uint32_t dn_history_live(uint32_t step, uint32_t count, uint32_t size)
{
    uint32_t live = 0;
    for (uint32_t back = 0; back < count; back++)
        live |= 1u << dn_history_at(step, back, size);
    return live;
}

double dn_lambda(const dn_level *level)
{
    return -log(dn_level_ratio(level));
}

uint32_t dn_append_noise_answer(const dn_sampler_context *context, const dn_level *level, dn_ops *out)
{
    if (context->config.thresholding)
        dn_ops_linear(out, DN_REG_EPS, 2, (const uint32_t[]){DN_REG_X, DN_REG_X0},
                      (const double[]){1.0 / level->sigma, -level->alpha / level->sigma});
    return DN_REG_EPS;
}

uint32_t dn_multistep_order(const dn_sampler_context *context, const dn_sampler_state *state)
{
    const dn_scheduler_config *config = &context->config;
    uint32_t steps = context->schedule.steps, step = state->step;
    bool few = config->lower_order_final && steps < DN_LOWER_ORDER_STEPS;
    uint32_t order = config->solver_order < state->history + 1 ? config->solver_order : state->history + 1;
    if (step + 1 == steps && (config->euler_at_final || few || !config->final_sigma_min))
        return 1;
    if (step + 2 == steps && few && order > 2)
        return 2;
    return order;
}

static void swap_rows(double a[4][4], double b[4], uint32_t i, uint32_t j)
{
    for (uint32_t k = 0; k < 4; k++) {
        double kept = a[i][k];
        a[i][k] = a[j][k];
        a[j][k] = kept;
    }
    double kept = b[i];
    b[i] = b[j];
    b[j] = kept;
}

bool dn_solve_small(double a[4][4], double b[4], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t best = i;
        for (uint32_t j = i + 1; j < count; j++)
            if (fabs(a[j][i]) > fabs(a[best][i]))
                best = j;
        if (!(fabs(a[best][i]) > 1e-12))
            return false;
        swap_rows(a, b, i, best);
        for (uint32_t j = i + 1; j < count; j++) {
            double part = a[j][i] / a[i][i];
            for (uint32_t k = i; k < count; k++)
                a[j][k] -= part * a[i][k];
            b[j] -= part * b[i];
        }
    }
    for (uint32_t i = count; i-- > 0;) {
        for (uint32_t k = i + 1; k < count; k++)
            b[i] -= a[i][k] * b[k];
        b[i] /= a[i][i];
    }
    return true;
}
