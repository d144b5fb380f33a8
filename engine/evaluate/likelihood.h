/* The log-density that a model gives a picture, by the probability flow (Chen et al. 2018; Song et al. 2021, appendix D.2).
 *
 * The flow dx/dt = v(x, t), x = (1 - t) x0 + t n, carries the picture to noise, whose density is known; along it
 * d log p / dt = - trace(dv/dx). The trace is estimated from probes e of +1 and -1 by e . (dv/dx) e (Hutchinson; Grathwohl et al. 2019),
 * the same ones along the whole flow, or summed exactly over the unit vectors. Picture and traces are integrated together by adaptive
 * RK45, in double. Pure but for the field; one thread. */
#ifndef DN_EVALUATE_LIKELIHOOD_H
#define DN_EVALUATE_LIKELIHOOD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define DN_PROBES_MAX 64u
#define DN_EXACT_TRACE_ELEMENTS_MAX 4096u

/* A velocity field and its products. */
typedef struct dn_flow_field {
    void *self;
    size_t elements;
    double begin, end; /* t of the noise and of the picture: begin > end */
    double deviation; /* of x at `begin`, where it is normal around 0 */
    /* velocity[elements] = v(x, time); products[k][elements] = the vector probes[k] times dv/dx, for k < count, at least 1. */
    dn_status (*run)(void *self, double time, const float *x, const float *probes, uint32_t count, float *velocity, float *products,
                     dn_error *error);
} dn_flow_field;

typedef struct dn_likelihood_options {
    uint32_t probes; /* 1..DN_PROBES_MAX; 0: the exact trace, for at most DN_EXACT_TRACE_ELEMENTS_MAX elements */
    double rtol, atol; /* of a step; of x, and of the trace divided by the elements */
    uint64_t seed; /* of the probes (noise stream "probe") */
} dn_likelihood_options;

typedef struct dn_likelihood {
    double log_density; /* in nats, of x as a point of the pictures' own space (at t = end: with the noise that is left there) */
    double probe_deviation; /* standard deviation of log_density from probe to probe; 0 for one probe and for the exact trace */
    uint32_t evaluations; /* of the field */
} dn_likelihood;

/* x: [elements] the picture, dequantised. DN_NUMERIC: the tolerances were not reached. */
dn_status dn_log_density(dn_likelihood *out, const dn_flow_field *field, const float *x, const dn_likelihood_options *options,
                         dn_error *error);

/* Uniform dequantisation (Theis et al. 2016): x = (pixel + u) / 127.5 - 1 with u uniform in [-1/2, 1/2), so that the density of x is
 * a bound for the probability of the pixel. pixels [h][w][c], x [c][h][w]. */
void dn_dequantise(float *x, const uint8_t *pixels, uint32_t height, uint32_t width, uint32_t channels, uint64_t seed);
/* Bits for each 8-bit number: - log_density / (elements log 2) + log2(127.5), the width of one value being 1 / 127.5. */
double dn_bits_per_dimension(double log_density, size_t elements);

#endif
