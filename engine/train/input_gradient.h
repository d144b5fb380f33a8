/* The gradient of a number by a network's input: what classifier guidance and likelihoods are made of.
 *
 * For each row the network runs forward; the caller looks at its output and says with which vector to pull on it; the row
 * receives d (pull . output) / d (network input), the vector-Jacobian product. For log p(class | x) the pull is
 * onehot(class) - softmax(output); for Hutchinson's estimate of a trace it is the probe, and the trace's sample is
 * probe . gradient. The weights' gradients are not computed. One thread calls; rows are shared among the pool's. A row's
 * bytes depend on that row and its pull alone. */
#ifndef DN_TRAIN_INPUT_GRADIENT_H
#define DN_TRAIN_INPUT_GRADIENT_H

#include "backend/backend.h"
#include "base/thread_pool.h"

typedef struct dn_input_gradient dn_input_gradient;

typedef struct dn_input_gradient_options {
    const dn_backend *backend; /* the CPU's: values are read where they lie */
    dn_device *device; /* borrowed, as all below, until dn_input_gradient_free */
    dn_network *network; /* of the plan, holding these weights */
    const dn_plan *plan;
    const dn_weights *weights; /* read during create only */
    dn_pool *pool; /* the caller's own, never the device's; NULL: the calling thread */
} dn_input_gradient_options;

/* Fills pull[count] from output[count] of row `row`; both in a lane's order, (c*H + h)*W + w. From any of the pool's threads. */
typedef void dn_pull_function(void *payload, uint32_t row, const float *output, float *pull, size_t count);

dn_status dn_input_gradient_create(dn_input_gradient **out, const dn_input_gradient_options *options, dn_error *error);
void dn_input_gradient_free(dn_input_gradient *gradient); /* accepts NULL */

/* rows as for dn_backend's run (any count), but each row's `out` receives the gradient by in_scale * in, with the sample's
 * shape and order; `finite` is false when the output or the gradient is not. A row's out may overwrite its own in. */
dn_status dn_input_gradient_run(dn_input_gradient *gradient, dn_row *rows, uint32_t row_count, dn_pull_function *pull, void *payload,
                                dn_error *error);

#endif
