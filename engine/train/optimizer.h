/* AdamW (Loshchilov & Hutter 2019, algorithm 2, decoupled decay) with global-norm clipping, warm-up and decay of the
 * rate, and the running average of the weights.
 *
 * Every element is updated alone and norms are added tensor by tensor, so that bytes do not depend on threads. Tensors of
 * rank 1 (biases, norm gains) are not decayed. The owner's thread; the pool works inside a call only. */
#ifndef DN_TRAIN_OPTIMIZER_H
#define DN_TRAIN_OPTIMIZER_H

#include <stdbool.h>

#include "base/thread_pool.h"
#include "plan/plan.h"

typedef struct dn_adamw_options {
    double learning_rate;
    double warmup, total; /* in the unit of `position`: images for networks, steps for classifiers */
    bool cosine; /* to zero at total; else constant */
    double beta1, beta2, epsilon, weight_decay;
    double clip; /* of the gradient's global norm; 0: off */
} dn_adamw_options;

typedef struct dn_adamw {
    dn_adamw_options options;
    const dn_plan *plan; /* borrowed */
    dn_weights *first, *second; /* moments, owned */
} dn_adamw;

dn_status dn_adamw_create(dn_adamw **out, const dn_plan *plan, const dn_adamw_options *options, dn_error *error);
void dn_adamw_free(dn_adamw *optimizer);

/* The rate at `position` (before the step's images are counted). */
double dn_adamw_rate(const dn_adamw_options *options, double position);

/* One update, the step-th (from 1). *norm (may be NULL) is the gradient's norm before clipping; gradients are scaled in
 * place. DN_NUMERIC, and nothing changed, when the norm is not finite. */
dn_status dn_adamw_step(dn_adamw *optimizer, dn_pool *pool, dn_weights *weights, dn_weights *gradient, uint64_t step, double position,
                        double *norm, dn_error *error);

/* average += (1 - d) (weights - average), d = min(decay, (1 + step) / (10 + step)). */
void dn_average_step(dn_pool *pool, const dn_plan *plan, dn_weights *average, const dn_weights *weights, double decay, uint64_t step);

#endif
