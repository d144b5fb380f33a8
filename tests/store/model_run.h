/* Random steps, done by the model and by the store under test, and held against each other. A step is a handful of numbers that say
 * what to do in terms of what is there then, so that any part of a history is a history too: that is what lets one be made shorter. */
#ifndef DN_TESTS_STORE_MODEL_RUN_H
#define DN_TESTS_STORE_MODEL_RUN_H

#include "tests/store/model.h"

typedef struct model_step {
    uint32_t kind, a, b, c, d;
} model_step;

typedef struct model_failure {
    bool failed;
    size_t steps; /* done when it was seen, the one that showed it included */
    char what[512];
} model_failure;

/* The steps of a seed. */
void model_make_steps(uint64_t seed, model_step *steps, size_t count);
/* Does them on an empty store in a new place. strict: nothing goes in groups, and in a short history everything is
 * compared after every step. told: one line for each step, to standard output. */
model_failure model_run_steps(const model_step *steps, size_t count, bool strict, bool told);

#endif
