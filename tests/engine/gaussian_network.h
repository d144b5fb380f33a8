/* Networks of every family that are exact for data of independent normals N(mean, spread^2), written by what each format tells its
 * network and expects of it, without the engine's own parametrisation. One thread. */
#ifndef DN_TESTS_GAUSSIAN_NETWORK_H
#define DN_TESTS_GAUSSIAN_NETWORK_H

#include <math.h>

#include "diffusion/family.h"
#include "register_machine.h"

#define GAUSSIAN_MEAN 0.3
#define GAUSSIAN_SPREAD 0.25

/* E[x0 | alpha x0 + sigma n = y]. */
static inline double gaussian_x0(double y, double alpha, double sigma)
{
    double data = GAUSSIAN_SPREAD * GAUSSIAN_SPREAD, variance = alpha * alpha * data + sigma * sigma;
    return GAUSSIAN_MEAN + alpha * data * (y - alpha * GAUSSIAN_MEAN) / variance;
}

static inline double gaussian_edm(const dn_training_schedule *training, double x, double time)
{
    double sigma = exp(4.0 * time / training->time_scale), data = training->sigma_data, part = sigma - training->boundary;
    double y = x * sqrt(sigma * sigma + data * data), skip = data * data / (part * part + data * data);
    double out = part * data / sqrt(sigma * sigma + data * data);
    return (gaussian_x0(y, 1.0, sigma) - skip * y) / (training->prediction == DN_PREDICT_V ? -out : out);
}

/* Between the entries of its table the logarithm of the ratio is linear in time. */
static inline double gaussian_vp(const dn_training_schedule *training, double x, double time)
{
    double low = log(dn_training_sigma(training, floor(time))), high = log(dn_training_sigma(training, ceil(time)));
    double ratio = exp(low + (high - low) * (time - floor(time))), alpha = 1.0 / sqrt(1.0 + ratio * ratio), sigma = ratio * alpha;
    double x0 = gaussian_x0(x, alpha, sigma), eps = (x - alpha * x0) / sigma;
    return training->prediction == DN_PREDICT_EPSILON ? eps : training->prediction == DN_PREDICT_SAMPLE ? x0 : alpha * eps - sigma * x0;
}

/* x = (1 - t) x0 + t n; SiT counts its time from noise to data and answers with the velocity that way. */
static inline double gaussian_flow(const dn_training_schedule *training, double x, double time)
{
    double told = time / training->time_scale, t = training->time_flipped ? 1.0 - told : told;
    double data = GAUSSIAN_SPREAD * GAUSSIAN_SPREAD, variance = (1.0 - t) * (1.0 - t) * data + t * t;
    double centred = (x - (1.0 - t) * GAUSSIAN_MEAN) / variance;
    double velocity = t * centred - GAUSSIAN_MEAN - (1.0 - t) * data * centred;
    return training->time_flipped ? -velocity : velocity;
}

static inline double gaussian_answer(const dn_training_schedule *training, double x, double time)
{
    switch (training->family) {
    case DN_FAMILY_EDM:
        return gaussian_edm(training, x, time);
    case DN_FAMILY_FLOW:
        return gaussian_flow(training, x, time);
    case DN_FAMILY_VE:
        return (gaussian_x0(x, 1.0, time) - x) / (time * time);
    case DN_FAMILY_VP:
        break;
    }
    return gaussian_vp(training, x, time);
}

/* What the probability flow makes of x at a level where the image is clean. */
static inline double gaussian_map(double x, const dn_level *level)
{
    double spread = hypot(level->alpha * GAUSSIAN_SPREAD, level->sigma);
    return GAUSSIAN_MEAN + GAUSSIAN_SPREAD * (x - level->alpha * GAUSSIAN_MEAN) / spread;
}

/* The whole way of a sampler from the image in DN_REG_X; the number of evaluations. */
static inline uint32_t gaussian_run(machine *m, const dn_sampler_context *context, dn_sampler_state *state)
{
    dn_evaluation evaluation;
    uint32_t evaluations = 0;
    for (; machine_next(m, context, state, &evaluation); evaluations++) {
        double scale = dn_input_scale(context, &evaluation.level);
        for (size_t i = 0; i < m->elements; i++)
            m->reg[DN_REG_COND][i] = gaussian_answer(context->training, scale * m->reg[evaluation.reg][i], evaluation.level.time);
        machine_answer(m, context, state, &evaluation);
    }
    return evaluations;
}

#endif
