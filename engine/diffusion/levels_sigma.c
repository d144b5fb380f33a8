/* Tables of noise levels: the Euler family's and DPM-Solver's, with the Karras, exponential and beta spacings, as
 * diffusers 0.31 makes them. Pure functions, any thread. */
#include <math.h>
#include <string.h>

#include "diffusion/family.h"
#include "diffusion/levels.h"

#define DN_BETA_SIGMA_SHAPE 0.6 /* "Beta sampling is all you need", arXiv 2407.12173: alpha = beta = 0.6 */

/* The distribution function of Beta(0.6, 0.6) at x <= 1/2 by its hypergeometric series, normalized to 1/2 there:
 * B(x; a, b) = x^a sum_k (1-b)_k / (k! (a+k)) x^k. The other half follows from symmetry. */
static double beta_series(double x)
{
    double term = 1.0, sum = 0.0;
    for (int k = 0; k < 120 && term > 1e-18; k++) {
        sum += term / (DN_BETA_SIGMA_SHAPE + k);
        term *= (1.0 - DN_BETA_SIGMA_SHAPE + k) / (k + 1.0) * x;
    }
    return pow(x, DN_BETA_SIGMA_SHAPE) * sum;
}

/* The quantile function of Beta(0.6, 0.6): Newton's steps from the series' first term, by halves where one would leave the bracket. A
 * request may ask for a thousand of them before its job is accepted. */
static double beta_quantile(double p)
{
    if (p > 0.5)
        return 1.0 - beta_quantile(1.0 - p);
    double wanted = 2.0 * beta_series(0.5) * p, low = 0.0, high = 0.5;
    double x = fmin(0.5, pow(DN_BETA_SIGMA_SHAPE * wanted, 1.0 / DN_BETA_SIGMA_SHAPE));
    for (int i = 0; i < 80 && x > 0.0; i++) {
        double excess = beta_series(x) - wanted, slope = pow(x * (1.0 - x), DN_BETA_SIGMA_SHAPE - 1.0), next = x - excess / slope;
        *(excess < 0.0 ? &low : &high) = x;
        next = next > low && next < high ? next : 0.5 * (low + high);
        if (fabs(next - x) <= 1e-16 * x)
            return next;
        x = next;
    }
    return x;
}

double dn_spaced_sigma(const dn_scheduler_config *config, double high, double low, uint32_t i, uint32_t n)
{
    double ramp = n == 1 ? 0.0 : (double)i / (n - 1);
    if (config->use_beta_sigmas)
        return low + beta_quantile(1.0 - ramp) * (high - low);
    if (config->use_karras_sigmas) {
        /* Karras et al. 2022, eq. 5. */
        double from = pow(high, 1.0 / config->rho), to = pow(low, 1.0 / config->rho);
        return pow(from + ramp * (to - from), config->rho);
    }
    return exp(log(high) + ramp * (log(low) - log(high)));
}

bool dn_levels_respaced(const dn_scheduler_config *config)
{
    return config->use_karras_sigmas || config->use_exponential_sigmas || config->use_beta_sigmas || config->use_lu_lambdas;
}

/* numpy's float32 timesteps: fractional for linspace. */
static double euler_time(const dn_sampler_context *context, uint32_t steps, uint32_t i)
{
    double count = context->training->timesteps;
    switch (context->config.spacing) {
    case DN_SPACING_TRAILING:
        return rint(count - i * (count / steps)) - 1.0;
    case DN_SPACING_LINSPACE:
        return steps == 1 ? 0.0 : (double)(float)((steps - 1 - i) * ((count - 1.0) / (steps - 1)));
    case DN_SPACING_LEADING:
        break;
    }
    return (double)((steps - 1 - i) * (context->training->timesteps / steps) + context->config.steps_offset);
}

static double last_sigma(const dn_sampler_context *context)
{
    return context->config.final_sigma_min ? dn_training_sigma(context->training, 0.0) : 0.0;
}

/* A range that was asked for must fall. */
static dn_status check_range(double high, double low, dn_error *error)
{
    return low < high ? DN_OK : dn_fail(error, DN_INVALID, "sigma_min must be below sigma_max: they are %.6g and %.6g here", low, high);
}

/* Replaces the sigmas (and, respaced, the timesteps) of a table that the configuration wants spaced otherwise.
 * interpolation_type log_linear: steps + 1 levels even in log sigma over the whole training table, so that the last
 * is not 0. */
static dn_status respace(dn_schedule *out, const dn_sampler_context *context, dn_error *error)
{
    const dn_scheduler_config *config = &context->config;
    const dn_training_schedule *training = context->training;
    bool log_linear = strcmp(config->interpolation_type, "log_linear") == 0;
    double high = log_linear ? dn_training_sigma(training, training->timesteps) : out->level[0].sigma;
    double low = log_linear ? dn_training_sigma(training, 0.0) : out->level[out->steps - 1].sigma;
    if (dn_levels_respaced(config)) {
        high = isnan(config->sigma_max) ? high : config->sigma_max;
        low = isnan(config->sigma_min) ? low : config->sigma_min;
        dn_status status = out->steps > 1 ? check_range(high, low, error) : DN_OK;
        if (status != DN_OK)
            return status;
        for (uint32_t i = 0; i < out->steps; i++) {
            double sigma = dn_spaced_sigma(config, high, low, i, out->steps);
            out->level[i] = (dn_level){.time = (double)(float)dn_network_time(training, sigma), .alpha = 1.0, .sigma = sigma};
        }
    } else if (log_linear) {
        for (uint32_t i = 0; i <= out->steps; i++)
            out->level[i].sigma = exp(log(high) + (double)i / out->steps * (log(low) - log(high)));
    }
    return DN_OK;
}

dn_status dn_levels_sigma(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_training_schedule *training = context->training;
    if (training->family != DN_FAMILY_VP)
        return dn_levels_family(out, context, steps, DN_FORM_EXPLODING, error);
    if (steps > training->timesteps)
        return dn_fail(error, DN_INVALID, "steps must be at most %u, the timesteps this model was trained on", training->timesteps);
    if (strcmp(context->config.timestep_type, "continuous") == 0 && training->prediction == DN_PREDICT_V)
        return dn_fail(error, DN_UNSUPPORTED, "timestep_type \"continuous\" with prediction_type v_prediction is not supported");
    out->steps = steps;
    for (uint32_t i = 0; i < steps; i++) {
        double time = euler_time(context, steps, i);
        out->level[i] = (dn_level){.time = time, .alpha = 1.0, .sigma = dn_training_sigma(training, time)};
    }
    out->level[steps] = (dn_level){.time = 0.0, .alpha = 1.0, .sigma = last_sigma(context)};
    dn_status status = respace(out, context, error);
    if (status != DN_OK)
        return status;
    double top = out->level[0].sigma;
    out->start_scale = context->config.spacing == DN_SPACING_LEADING ? sqrt(top * top + 1.0) : top;
    return DN_OK;
}

/* How many timesteps DPM-Solver may use: those with log(alpha/sigma) not below lambda_min_clipped. */
static uint32_t usable_timesteps(const dn_sampler_context *context)
{
    uint32_t count = context->training->timesteps;
    while (count > 1 && -log(dn_training_sigma(context->training, count - 1)) < context->config.lambda_min_clipped)
        count--;
    return count;
}

/* Timestep of step i; DPM-Solver's tables have one point more than steps and drop time 0. */
static double dpm_time(const dn_sampler_context *context, uint32_t usable, uint32_t steps, uint32_t i)
{
    switch (context->config.spacing) {
    case DN_SPACING_TRAILING:
        return rint(usable - i * ((double)context->training->timesteps / steps)) - 1.0;
    case DN_SPACING_LINSPACE:
        return rint((steps - i) * ((usable - 1.0) / steps));
    case DN_SPACING_LEADING:
        break;
    }
    return (double)((steps - i) * (usable / (steps + 1)) + context->config.steps_offset);
}

static dn_level dpm_level(double time, double ratio)
{
    double alpha = 1.0 / sqrt(ratio * ratio + 1.0);
    return (dn_level){.time = time, .alpha = alpha, .sigma = ratio * alpha};
}

/* A whole timestep: rounded, but cut off for exponential and beta levels (as later releases of diffusers do; 0.31 raises there), and by
 * DPMSolverMultistepScheduler for cosine tables. The slack keeps the table's last entry what it is. */
static double whole_time_of(const dn_sampler_context *context, double ratio)
{
    double time = dn_network_time(context->training, ratio);
    bool cosine = context->training->cosine && strcmp(context->config.class_name, "DPMSolverMultistepScheduler") == 0;
    bool cut = cosine || context->config.use_exponential_sigmas || context->config.use_beta_sigmas;
    return cut ? floor(time + 1e-6) : rint(time);
}

dn_status dn_levels_dpm(dn_schedule *out, const dn_sampler_context *context, uint32_t steps, dn_error *error)
{
    const dn_scheduler_config *config = &context->config;
    const dn_training_schedule *training = context->training;
    if (training->family != DN_FAMILY_VP)
        return dn_levels_family(out, context, steps, DN_FORM_OWN, error);
    uint32_t usable = usable_timesteps(context);
    uint32_t limit = config->spacing == DN_SPACING_LEADING ? usable - 1 : usable;
    if (steps > limit)
        return dn_fail(error, DN_INVALID, "steps must be at most %u for this sampler and model", limit);
    double high = isnan(config->sigma_max) ? dn_training_sigma(training, training->timesteps - 1) : config->sigma_max;
    double low = isnan(config->sigma_min) ? dn_training_sigma(training, 0.0) : config->sigma_min;
    double last = last_sigma(context);
    /* DEIS and SA-Solver end at the level visited last, which is the lowest, but for a single step: diffusers then leaves the noise. */
    bool keeps_last =
        steps > 1 || strcmp(config->class_name, "DEISMultistepScheduler") == 0 || strcmp(config->class_name, "SASolverScheduler") == 0;
    if (dn_levels_respaced(config) && check_range(high, low, error) != DN_OK)
        return DN_INVALID;
    out->steps = 0;
    out->start_scale = 1.0;
    for (uint32_t i = 0; i < steps; i++) {
        double time = dpm_time(context, usable, steps, i);
        double ratio = dn_training_sigma(training, time);
        if (dn_levels_respaced(config)) {
            ratio = dn_spaced_sigma(config, high, low, i, steps);
            time = whole_time_of(context, ratio);
            last = !config->final_sigma_min ? 0.0 : keeps_last ? ratio : low;
        }
        if (time < 0.0)
            break; /* trailing with clipped lambdas has fewer steps than asked for */
        out->level[out->steps++] = dpm_level(time, ratio);
    }
    out->level[out->steps] = dpm_level(0.0, last);
    return DN_OK;
}
