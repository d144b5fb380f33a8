/* Euler's and Heun's methods on the flow dx/dt = u = n - x0 from t = 1 to 0, where x = (1 - t) x0 + t n: rectified flow (Liu et al. 2023),
 * flow matching (Lipman et al. 2023); diffusers' FlowMatchEulerDiscreteScheduler and FlowMatchHeunDiscreteScheduler, and the steps of
 * SiT. Heun's last step, which ends at t = 0, is Euler's. Pure functions, any thread.
 *
 * Registers of flow_heun: H0 the first velocity, H1 the image before the step. State: stage 0 before, 1 between the evaluations. */
#include "diffusion/levels.h"
#include "diffusion/samplers.h"

/* x + (t' - t) (n - x0) is (1 - t') x0 + t' n. */
static void feed_euler(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const dn_level *to = &context->schedule.level[++state->step];
    dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_X0, DN_REG_EPS}, (const double[]){to->alpha, to->sigma});
}

static bool next_heun(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->step >= context->schedule.steps)
        return false;
    *out = (dn_evaluation){.reg = DN_REG_X, .level = context->schedule.level[state->step + state->stage]};
    return true;
}

static void feed_heun(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    const uint32_t answer[2] = {DN_REG_EPS, DN_REG_X0};
    double from = context->schedule.level[state->step].sigma, to = context->schedule.level[state->step + 1].sigma, length = to - from;
    bool first = state->stage == 0, last = to == 0.0;
    if (first) {
        dn_ops_linear(out, DN_REG_H0, 2, answer, (const double[]){1.0, -1.0});
        dn_ops_linear(out, DN_REG_H1, 1, (const uint32_t[]){DN_REG_X}, (const double[]){1.0});
        dn_ops_linear(out, DN_REG_X, 2, (const uint32_t[]){DN_REG_H1, DN_REG_H0}, (const double[]){1.0, length});
    } else {
        dn_ops_linear(out, DN_REG_X, 4, (const uint32_t[]){DN_REG_H1, DN_REG_H0, DN_REG_EPS, DN_REG_X0},
                      (const double[]){1.0, 0.5 * length, 0.5 * length, -0.5 * length});
    }
    state->stage = first && !last;
    state->live = state->stage ? 1u << DN_REG_H0 | 1u << DN_REG_H1 : 0;
    state->step += state->stage == 0;
}

static const dn_option_field fields[] = {{DN_OPT_SHIFT, 0.01, 100.0, NAN}};

const dn_sampler dn_sampler_flow_euler = {
    .name = "flow_euler",
    .title = "Flow matching Euler",
    .scheduler_class = "FlowMatchEulerDiscreteScheduler",
    .source = "Lipman et al. 2023, arXiv 2210.02747; Esser et al. 2024, arXiv 2403.03206, eq. 23 (shift)",
    .families = 1u << DN_FAMILY_FLOW,
    .order = 1,
    .evaluations_per_step = 1,
    .memoryless = true,
    .renoises = true,
    .fields = fields,
    .field_count = 1,
    .schedule = dn_levels_flow,
    .next = dn_next_plain,
    .feed = feed_euler,
};

const dn_sampler dn_sampler_flow_heun = {
    .name = "flow_heun",
    .title = "Flow matching Heun",
    .scheduler_class = "FlowMatchHeunDiscreteScheduler",
    .source = "Lipman et al. 2023, arXiv 2210.02747; Ma et al. 2024, arXiv 2401.08740",
    .families = 1u << DN_FAMILY_FLOW,
    .order = 2,
    .evaluations_per_step = 2,
    .fields = fields,
    .field_count = 1,
    .schedule = dn_levels_flow,
    .next = next_heun,
    .feed = feed_heun,
};
