/* One seed: a whole history, from an empty database to the last job's end. */
#ifndef DN_TESTS_SIM_SEED_H
#define DN_TESTS_SIM_SEED_H

#include <stdbool.h>
#include <stdint.h>

#define SIM_KINDS_MAX 96

/* What all processes that run seeds add to; in memory that they share. */
typedef struct sim_totals {
    uint64_t counts[SIM_KINDS_MAX];
    uint64_t running; /* the seed that is being run, and why it failed */
    char wrong[400];
} sim_totals;

void sim_prepare(sim_totals *totals, bool verbose); /* once a process */
/* False: something is wrong, and totals->wrong says what. hash: of the history. */
bool sim_run_seed(uint64_t seed, uint64_t *hash);
const char *sim_count_name(unsigned kind); /* NULL: no more */

#endif
