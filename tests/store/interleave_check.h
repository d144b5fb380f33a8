/* What must hold after any interleaving, and an outcome in words. */
#ifndef DN_TESTS_STORE_INTERLEAVE_CHECK_H
#define DN_TESTS_STORE_INTERLEAVE_CHECK_H

#include "tests/store/interleave.h"

#define OUTCOME_BYTES 2048

/* Reads the store into `scene`, and holds it against what the sessions were told. NULL: fine. */
const char *check_always(void);
/* A job read while others write: OK when what was seen may have been so at one moment, STALE when not. Any thread. */
store_result check_read(const char *id);
/* The scene in words: results, claims, jobs. Jobs are numbered by their acceptance, so that it does not matter which ids they drew. */
void describe_outcome(char out[OUTCOME_BYTES]);

#endif
