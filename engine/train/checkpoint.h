/* The state of a training run on disk: weights, their average, both moments, step and the recipe's hash, in one
 * safetensors file that is replaced whole. A run killed at any moment leaves the last complete one. */
#ifndef DN_TRAIN_CHECKPOINT_H
#define DN_TRAIN_CHECKPOINT_H

#include "plan/plan.h"

typedef struct dn_checkpoint {
    const dn_plan *plan;
    dn_weights *weights, *average, *first, *second; /* borrowed, read or filled */
    const char *recipe_hash;
    uint64_t step;
} dn_checkpoint;

dn_status dn_checkpoint_write(const dn_checkpoint *checkpoint, const char *folder, dn_error *error);
/* Fills the tensors and step; DN_INVALID when the file is of another recipe or another network. */
dn_status dn_checkpoint_read(dn_checkpoint *checkpoint, const char *folder, dn_error *error);

#endif
