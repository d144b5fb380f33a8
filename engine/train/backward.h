/* The backward run of a plan, some rows at a time: from the gradient of the output to those of the weights.
 *
 * Every node kind has one backward function, in backward_conv, _winograd, _linear, _norm, _attention, _shape and
 * _embedding.inc.c, compiled for double (the checked truth) and for float per instruction set (what training runs). Some rows
 * go through a node after one another, or together where that reads a weight once; the gradients of the weights accumulate in
 * an order that the caller's rows alone decide, so that the bytes do not depend on threads. A run touches only what its
 * rows name: any number of threads, each with its own. */
#ifndef DN_TRAIN_BACKWARD_H
#define DN_TRAIN_BACKWARD_H

#include "backend/backend.h"
#include "train/packing.h"

#define DN_BACKWARD_DECLARE(real, suffix)                                                                                                  \
    typedef struct dn_backward_##suffix {                                                                                                  \
        const dn_packing *packing;                                                                                                         \
        const real *packed; /* weights, [packing->total] */                                                                                \
        real *packed_gradient; /* += , [packing->total]; NULL: only the gradients of values are wanted */                                  \
        const real *const *values; /* [plan->value_count] of the forward run of this row, NHWC */                                          \
        real *const *gradients; /* [plan->value_count]; the output's is the input of the run, the others are overwritten */                \
        const dn_condition *condition; /* may be NULL when the plan takes no class */                                                      \
        real *scratch; /* [packing->scratch] */                                                                                            \
        bool input_gradient; /* compute the gradient of the sample too */                                                                  \
        double time; /* the row's, as in the forward run */                                                                                \
    } dn_backward_##suffix;                                                                                                                \
    typedef struct dn_backward_table_##suffix {                                                                                            \
        const char *isa;                                                                                                                   \
        /* At most DN_BACKWARD_ROWS rows that differ in values, gradients, condition and time; the first one's scratch serves all. */      \
        void (*rows)(const dn_backward_##suffix *runs, uint32_t count);                                                                    \
        void (*pack)(const dn_packing *packing, const real *const *weights, real *packed);                                                 \
        void (*unpack)(const dn_packing *packing, const real *packed, real *const *weights);                                               \
    } dn_backward_table_##suffix;

DN_BACKWARD_DECLARE(float, f32)
DN_BACKWARD_DECLARE(double, f64)

/* isa: as dn_backend's device_isa ("sse2", "avx2", "avx512"); an unknown name gives the portable one. */
const dn_backward_table_f32 *dn_backward_find_f32(const char *isa);
const dn_backward_table_f64 *dn_backward_find_f64(void);

/* An activation and its slope, from libm in double. */
double dn_activation_value(dn_activation activation, double x);
double dn_activation_slope(dn_activation activation, double x);

#endif
