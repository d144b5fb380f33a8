/* Training a judge on real pictures. One thread calls; a pool works while it lasts. */
#ifndef DN_EVALUATE_JUDGE_TRAINING_H
#define DN_EVALUATE_JUDGE_TRAINING_H

#include <signal.h>

#include "evaluate/judge.h"
#include "train/train.h"

typedef struct dn_judge_training {
    const dn_dataset *dataset; /* the real training split; borrowed */
    uint32_t epochs;
    uint64_t seed;
    unsigned threads; /* 0: all available */
    bool flip; /* mirror every other picture: only where a mirrored picture keeps its class */
    const volatile sig_atomic_t *cancel; /* may be NULL */
    void (*progress)(void *payload, const dn_train_progress *progress); /* may be NULL */
    void *payload;
} dn_judge_training;

/* Trains from random weights; folder: where the classifier is kept, NULL for nowhere. */
dn_status dn_judge_train(dn_judge **out, const dn_judge_training *training, const char *folder, dn_error *error);

#endif
