/* The probability flow by the adaptive method of Dormand and Prince 1980 (RK5(4)7M) with its first-same-as-last evaluation. Pure
 * functions, any thread.
 *
 * Every family is integrated as a flow: x = (1 - t) x0 + t n with t = r / (1 + r), where dx/dt = n - x0 (family.c tells the network
 * what it wants at that ratio): the slope stays finite at both ends, which it does not over sigma. Flow matching runs from t = 1 to 0;
 * the others between the ends of their range, and the last estimate of x0 is the image.
 *
 * A step is refused when sqrt(mean((error / (atol + rtol max(|x|, |x'|)))^2)) is above 1 (dormand_prince.h: the step after it).
 * `steps` bounds nothing: the first step is the whole range divided by it.
 *
 * Registers: H0 to H5 the slopes k1 to k6 (k7 takes the place of k2, which neither the solution nor the error needs), H6 the image
 * before the step, H7 its error. State: stage = the slope to be evaluated next; scalars below. The length of a step is known only
 * after the program of the one before it has run, so its first stage is put together by `prepare`. */
#include <math.h>

#include "diffusion/dormand_prince.h"
#include "diffusion/family.h"
#include "diffusion/levels.h"
#include "diffusion/samplers.h"

#define DN_RK45_EVALUATIONS_MAX 6000u
#define DN_RK45_STEP_MIN 1e-9 /* of t, whose whole range is 1 */

/* scalar[] of the state; before the first evaluation all are 0 and `history` is 0. */
enum { AT, LENGTH, EVALUATIONS, OUTCOME, REFUSED };
enum { RUNNING, DONE, TOO_MANY, TOO_SHORT }; /* OUTCOME */

/* Where the integration ends; the image lies at 0. */
static double end_time(const dn_sampler_context *context)
{
    double begin, end, deviation;
    dn_flow_range(context->training, &begin, &end, &deviation);
    return end;
}

static dn_level level_at(const dn_sampler_context *context, double time)
{
    return dn_level_at(context->training, 1.0 - time, time);
}

static dn_status schedule(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    double begin, end;
    (void)error;
    dn_flow_range(context->training, &begin, &end, &out->start_scale);
    out->steps = steps;
    for (uint32_t i = 0; i < steps; i++)
        out->level[i] = level_at(context, begin + (end - begin) * i / steps);
    out->level[steps] = (dn_level){.time = 0.0, .alpha = 1.0, .sigma = 0.0};
    return DN_OK;
}

static double start_time(const dn_sampler_context *context)
{
    return context->schedule.level[context->first_step].sigma;
}

static double time_of(const dn_sampler_context *context, const dn_sampler_state *state)
{
    return state->history == 0 ? start_time(context) : state->scalar[AT];
}

static double length_of(const dn_sampler_context *context, const dn_sampler_state *state)
{
    double all = start_time(context) - end_time(context);
    return state->history == 0 ? all / (context->schedule.steps - context->first_step) : state->scalar[LENGTH];
}

static bool next(const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *out)
{
    if (state->scalar[OUTCOME] != RUNNING)
        return false;
    double time = time_of(context, state) - dn_rk45_node[state->stage] * length_of(context, state);
    *out = (dn_evaluation){.reg = DN_REG_X, .level = level_at(context, fmax(time, 0.0))};
    return true;
}

/* X = image before the step - length * sum of the slopes so far. Slopes are by t, which falls. */
static void append_stage(uint32_t stage, double length, dn_ops *out)
{
    uint32_t terms = 1, src[DN_RK45_STAGES] = {DN_REG_H6};
    double coefficient[DN_RK45_STAGES] = {1.0};
    for (uint32_t j = 0; j < stage; j++)
        if (dn_rk45_weight[stage][j] != 0.0) {
            src[terms] = DN_REG_H0 + j;
            coefficient[terms++] = -length * dn_rk45_weight[stage][j];
        }
    dn_ops_linear(out, DN_REG_X, terms, src, coefficient);
}

static void prepare(const dn_sampler_context *context, const dn_sampler_state *state, dn_ops *out)
{
    if (state->stage == 1)
        append_stage(1, length_of(context, state), out);
}

static void append_choice(dn_ops *out, uint32_t dst, uint32_t accepted, uint32_t refused)
{
    out->op[out->count++] = (dn_op){.kind = DN_OP_ACCEPT, .dst = dst, .terms = 2, .src = {accepted, refused}};
}

static bool ends_here(const dn_sampler_context *context, const dn_sampler_state *state)
{
    return time_of(context, state) - length_of(context, state) <= end_time(context) + DN_RK45_STEP_MIN;
}

/* All seven slopes are known: the error, and the image after the step or the one before it. */
static void append_verdict(const dn_sampler_context *context, const dn_sampler_state *state, dn_ops *out)
{
    uint32_t src[6];
    double coefficient[6];
    for (uint32_t j = 0; j < 6; j++) { /* H1 holds k7 */
        src[j] = DN_REG_H0 + j;
        coefficient[j] = length_of(context, state) * dn_rk45_error[j == 1 ? 6 : j];
    }
    dn_ops_linear(out, DN_REG_H7, 6, src, coefficient);
    out->op[out->count++] = (dn_op){.kind = DN_OP_ERROR_NORM,
                                    .terms = 3,
                                    .src = {DN_REG_H7, DN_REG_H6, DN_REG_X},
                                    .low = (float)dn_option_value(context, DN_OPT_ATOL),
                                    .ratio = (float)dn_option_value(context, DN_OPT_RTOL)};
    bool image = ends_here(context, state) && context->training->family != DN_FAMILY_FLOW;
    append_choice(out, DN_REG_X, image ? DN_REG_X0 : DN_REG_X, DN_REG_H6);
    append_choice(out, DN_REG_H0, DN_REG_H1, DN_REG_H0);
    dn_ops_linear(out, DN_REG_H6, 1, (const uint32_t[]){DN_REG_X}, (const double[]){1.0});
}

static void feed(const dn_sampler_context *context, dn_sampler_state *state, dn_ops *out)
{
    uint32_t stage = state->stage, slope = stage == 6 ? DN_REG_H1 : DN_REG_H0 + stage;
    dn_ops_linear(out, slope, 2, (const uint32_t[]){DN_REG_EPS, DN_REG_X0}, (const double[]){1.0, -1.0});
    state->scalar[EVALUATIONS] += 1.0;
    if (stage == 0)
        dn_ops_linear(out, DN_REG_H6, 1, (const uint32_t[]){DN_REG_X}, (const double[]){1.0});
    if (stage == 6) {
        append_verdict(context, state, out);
        state->stage = 1; /* k7 is the next step's k1 */
        state->live = 1u << DN_REG_H0 | 1u << DN_REG_H6;
        return;
    }
    if (stage > 0)
        append_stage(stage + 1, length_of(context, state), out);
    state->stage = stage + 1;
    state->live |= 1u << DN_REG_H6 | 1u << (DN_REG_H0 + stage);
}

/* How the step went is known after its last stage: that is when `feed` has set the stage back to 1. */
static void settle(const dn_sampler_context *context, dn_sampler_state *state, const double *scalars)
{
    if (state->stage != 1 || state->scalar[EVALUATIONS] <= 1.0)
        return;
    double time = time_of(context, state), length = length_of(context, state), norm = scalars[0], end = end_time(context);
    bool accepted = norm <= 1.0, last = ends_here(context, state);
    double factor = dn_rk45_factor(norm, !accepted || state->scalar[REFUSED] != 0.0);
    if (accepted)
        time -= length;
    state->history = 1;
    state->scalar[AT] = time;
    state->scalar[LENGTH] = fmin(length * factor, time - end);
    state->scalar[REFUSED] = !accepted;
    state->step = (uint32_t)fmin((start_time(context) - time) / (start_time(context) - end) * (context->schedule.steps - 1),
                                 context->schedule.steps - 1.0);
    if (accepted && last) {
        state->scalar[OUTCOME] = DONE;
        state->step = context->schedule.steps;
    } else if (state->scalar[EVALUATIONS] + 6.0 > DN_RK45_EVALUATIONS_MAX) {
        state->scalar[OUTCOME] = TOO_MANY;
    } else if (state->scalar[LENGTH] < DN_RK45_STEP_MIN) {
        state->scalar[OUTCOME] = TOO_SHORT;
    }
    if (state->scalar[OUTCOME] != RUNNING)
        state->live = 0;
}

static bool is_whole(double value, double most)
{
    return value >= 0.0 && value <= most && value == trunc(value);
}

static bool possible(const dn_sampler_context *context, const dn_sampler_state *state)
{
    const double *scalar = state->scalar, start = start_time(context), end = end_time(context);
    for (uint32_t i = REFUSED + 1; i < DN_SAMPLER_SCALARS_MAX; i++)
        if (scalar[i] != 0.0)
            return false;
    if (state->stage >= DN_RK45_STAGES || state->history > 1 || !is_whole(scalar[EVALUATIONS], DN_RK45_EVALUATIONS_MAX) ||
        !is_whole(scalar[OUTCOME], TOO_SHORT) || !is_whole(scalar[REFUSED], 1.0))
        return false;
    if (state->history == 0) /* the first step of all is under way */
        return scalar[EVALUATIONS] == state->stage && scalar[AT] == 0.0 && scalar[LENGTH] == 0.0 && scalar[OUTCOME] == RUNNING;
    return state->stage > 0 && scalar[AT] >= end - DN_RK45_STEP_MIN && scalar[AT] <= start && scalar[LENGTH] <= start - end &&
           (scalar[OUTCOME] != RUNNING || scalar[LENGTH] >= DN_RK45_STEP_MIN);
}

static double fraction(const dn_sampler_context *context, const dn_sampler_state *state)
{
    double start = start_time(context);
    return state->scalar[OUTCOME] == DONE ? 1.0 : (start - time_of(context, state)) / (start - end_time(context));
}

static const char *failure(const dn_sampler_context *context, const dn_sampler_state *state)
{
    (void)context;
    if (state->scalar[OUTCOME] == TOO_MANY)
        return "the tolerances were not reached within 6000 evaluations: raise rtol or atol";
    if (state->scalar[OUTCOME] == TOO_SHORT)
        return "the tolerances need steps shorter than single precision allows: raise rtol or atol";
    return NULL;
}

static const dn_option_field fields[] = {{DN_OPT_RTOL, 1e-8, 1.0, 1e-3}, {DN_OPT_ATOL, 1e-8, 1.0, 1e-3}};

const dn_sampler dn_sampler_rk45 = {
    .name = "rk45",
    .title = "Probability flow by adaptive RK45",
    .scheduler_class = "EulerDiscreteScheduler",
    .source = "Dormand and Prince 1980; Song et al. 2021, arXiv 2011.13456, section 4.3",
    .families = DN_FAMILIES_ALL,
    .order = 5,
    .evaluations_per_step = 6,
    .adaptive = true,
    .fields = fields,
    .field_count = sizeof fields / sizeof fields[0],
    .schedule = schedule,
    .next = next,
    .feed = feed,
    .prepare = prepare,
    .settle = settle,
    .fraction = fraction,
    .possible = possible,
    .failure = failure,
};
