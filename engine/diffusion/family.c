/* What each family of training gives its network and what it makes of the answer. Pure functions, any thread.
 *
 * VP, epsilon: y - r e; v (Salimans and Ho 2022): y / (r^2 + 1) - r v / sqrt(r^2 + 1); sample: the answer.
 * EDM (Karras et al. 2022, table 1): skip = s^2 / (r^2 + s^2), out = r s / sqrt(r^2 + s^2), in = 1 / sqrt(r^2 + s^2), time log(r) / 4;
 * diffusers' v_prediction is the same with out negative. Consistency models (Song et al. 2023, appendix C) put r - boundary for r in
 * skip and in out's factor, so that the answer at the boundary is the input.
 * FLOW (Lipman et al. 2023; Ma et al. 2024, SiT): with t = r / (1 + r), (1 - t) y = (1 - t) x0 + t n and u = n - x0.
 * VE (Song et al. 2021): the answer is the score -n / r. */
#include "diffusion/family.h"

#include <math.h>

const char *dn_family_title(dn_family family)
{
    static const char *const titles[] = {[DN_FAMILY_VP] = "variance-preserving diffusion",
                                         [DN_FAMILY_EDM] = "EDM's preconditioning",
                                         [DN_FAMILY_FLOW] = "flow matching",
                                         [DN_FAMILY_VE] = "variance-exploding diffusion"};
    return titles[family];
}

double dn_shifted(double shift, double time)
{
    return shift * time / (1.0 + (shift - 1.0) * time);
}

/* The (possibly fractional) index of a ratio in the table: linear in its logarithm between the entries. Tables with zero terminal
 * signal may fall at their end, where 2^-24 stands for 0; as in diffusers the last entry that is not above the ratio (but for
 * rounding) counts. */
static double index_of(const dn_training_schedule *training, double ratio)
{
    uint32_t low = training->timesteps - 1;
    double slack = training->zero_snr ? 1.0 + 1e-6 : 1.0;
    while (low > 0 && dn_training_sigma(training, low) > ratio * slack)
        low--;
    low = low < training->timesteps - 1 ? low : training->timesteps - 2;
    double from = log(dn_training_sigma(training, low)), to = log(dn_training_sigma(training, low + 1));
    double part = (log(fmax(ratio, 1e-10)) - from) / (to - from);
    return low + fmin(fmax(part, 0.0), 1.0);
}

double dn_network_time(const dn_training_schedule *training, double ratio)
{
    switch (training->family) {
    case DN_FAMILY_EDM:
        return training->time_scale * 0.25 * log(ratio);
    case DN_FAMILY_FLOW: {
        double time = isinf(ratio) ? 1.0 : ratio / (1.0 + ratio);
        return training->time_scale * (training->time_flipped ? 1.0 - time : time);
    }
    case DN_FAMILY_VE:
        return ratio;
    case DN_FAMILY_VP:
        break;
    }
    return index_of(training, ratio);
}

dn_level dn_level_at(const dn_training_schedule *training, double alpha, double sigma)
{
    return (dn_level){.time = dn_network_time(training, sigma / alpha), .alpha = alpha, .sigma = sigma};
}

static dn_precondition precondition_vp(dn_prediction prediction, double ratio)
{
    double in = 1.0 / sqrt(ratio * ratio + 1.0);
    switch (prediction) {
    case DN_PREDICT_SAMPLE:
        return (dn_precondition){.skip = 0.0, .out = 1.0, .in = in};
    case DN_PREDICT_V:
        return (dn_precondition){.skip = 1.0 / (ratio * ratio + 1.0), .out = -ratio * in, .in = in};
    case DN_PREDICT_EPSILON:
    case DN_PREDICT_FLOW:
        break;
    }
    return (dn_precondition){.skip = 1.0, .out = -ratio, .in = in};
}

static dn_precondition precondition_edm(const dn_training_schedule *training, double ratio)
{
    double data = training->sigma_data, in = 1.0 / sqrt(ratio * ratio + data * data), part = ratio - training->boundary;
    double out = part * data * in;
    return (dn_precondition){
        .skip = data * data / (part * part + data * data), .out = training->prediction == DN_PREDICT_V ? -out : out, .in = in};
}

dn_precondition dn_precondition_at(const dn_training_schedule *training, double ratio)
{
    dn_precondition c = {0};
    switch (training->family) {
    case DN_FAMILY_VP:
        c = precondition_vp(training->prediction, ratio);
        break;
    case DN_FAMILY_EDM:
        c = precondition_edm(training, ratio);
        break;
    case DN_FAMILY_FLOW:
        c.skip = c.in = 1.0 / (1.0 + ratio);
        c.out = (training->time_flipped ? ratio : -ratio) / (1.0 + ratio);
        break;
    case DN_FAMILY_VE:
        c = (dn_precondition){.skip = 1.0, .out = ratio * ratio, .in = 1.0};
        break;
    }
    c.time = dn_network_time(training, ratio);
    return c;
}

/* Flow matching reaches r = infinity at t = 1 and 0 at t = 0: one of a thousand parts of t is left out at either end. */
#define DN_FLOW_MARGIN 1e-3

void dn_family_range(const dn_training_schedule *training, double *low, double *high)
{
    switch (training->family) {
    case DN_FAMILY_EDM:
    case DN_FAMILY_VE:
        *low = training->sigma_min;
        *high = training->sigma_max;
        return;
    case DN_FAMILY_FLOW: {
        double first = dn_shifted(training->shift, 1.0 - DN_FLOW_MARGIN), last = dn_shifted(training->shift, DN_FLOW_MARGIN);
        *low = last / (1.0 - last);
        *high = first / (1.0 - first);
        return;
    }
    case DN_FAMILY_VP:
        break;
    }
    *low = dn_training_sigma(training, 0.0);
    *high = dn_training_sigma(training, training->timesteps - 1.0);
}

/* n - x0 = (x - x0) / t, and for FLOW the answer itself or its negative. */
dn_flow_velocity dn_flow_velocity_at(const dn_training_schedule *training, double time)
{
    dn_level level = dn_level_at(training, 1.0 - time, time);
    if (training->family == DN_FAMILY_FLOW)
        return (dn_flow_velocity){.own = 0.0, .answer = training->time_flipped ? -1.0 : 1.0, .in = 1.0, .time = level.time};
    dn_precondition c = dn_precondition_at(training, time / (1.0 - time));
    return (dn_flow_velocity){
        .own = (1.0 - c.skip / level.alpha) / time, .answer = -c.out / time, .in = c.in / level.alpha, .time = c.time};
}

/* Variance-preserving networks begin with one standard normal of x / sqrt(alpha^2 + sigma^2), as all their samplers do. */
void dn_flow_range(const dn_training_schedule *training, double *begin, double *end, double *deviation)
{
    double low, high;
    *begin = *deviation = 1.0;
    *end = 0.0;
    if (training->family == DN_FAMILY_FLOW)
        return;
    dn_family_range(training, &low, &high);
    *begin = high / (1.0 + high);
    *end = low / (1.0 + low);
    *deviation = training->family == DN_FAMILY_VP ? hypot(1.0, high) / (1.0 + high) : *begin;
}
