/* Gradients of a batch by a fixed number of shards: data parallelism whose bytes do not depend on threads.
 *
 * A batch's pictures go to DN_SHARDS shards in order; a shard runs its pictures forward and backward a few at a time and
 * adds their gradients; shards are tasks of a pool and are added up in shard order. Networks and classifiers train by the same
 * code: what differs is the `dn_example` source and the loss, both given by the caller and called from pool threads. */
#ifndef DN_TRAIN_SHARDS_H
#define DN_TRAIN_SHARDS_H

#include "backend/backend.h"
#include "base/thread_pool.h"

#define DN_SHARDS 8u

/* What one picture of a batch asks of the network. Arrays are the shard's, to be filled by the source. */
typedef struct dn_example {
    float *sample; /* [c*H*W] of the plan's input, order (c*H + h)*W + w */
    float *target; /* [as the plan's output]: the loss's own, may be left alone */
    double weight; /* of the loss; 1 when left alone */
    float time;
    dn_condition condition;
    uint32_t label; /* a classifier's */
} dn_example;

typedef void dn_example_source(void *payload, uint32_t index, dn_example *example);

/* Returns the loss of one picture and fills d[i] = d loss / d output[i]; output order (c*H + h)*W + w. */
typedef double dn_example_loss(const dn_example *example, const float *output, float *d, size_t count);

double dn_loss_squared(const dn_example *example, const float *output, float *d, size_t count); /* weight * mean of squares */
double dn_loss_cross_entropy(const dn_example *example, const float *output, float *d, size_t count); /* softmax; label */

typedef struct dn_shards dn_shards;

typedef struct dn_shards_options {
    const dn_backend *backend; /* the CPU's: values are read where they lie */
    dn_device *device;
    dn_network *network; /* of the plan; updated by the caller between batches */
    const dn_plan *plan;
    dn_pool *pool; /* borrowed; NULL: the calling thread */
    dn_example_source *source;
    dn_example_loss *loss;
    void *payload; /* the source's */
} dn_shards_options;

dn_status dn_shards_create(dn_shards **out, const dn_shards_options *options, dn_error *error);
void dn_shards_free(dn_shards *shards);

/* gradient = the mean over the batch's pictures; *loss the mean loss. weights: what the network holds now. */
dn_status dn_shards_gradient(dn_shards *shards, const dn_weights *weights, uint32_t batch, dn_weights *gradient, double *loss,
                             dn_error *error);

#endif
