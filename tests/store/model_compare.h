/* What the store says, held against what the model says. The first difference is kept, in words. */
#ifndef DN_TESTS_STORE_MODEL_COMPARE_H
#define DN_TESTS_STORE_MODEL_COMPARE_H

#include "tests/store/model.h"

typedef struct comparison {
    bool differs;
    char what[512];
    /* A list that was broken off, to be gone on with after other things have happened: its cursor, and the job that it stands behind. */
    char cursor[64];
    int client, state, last;
    const char *model;
} comparison;

void differ(comparison *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void compare_answer(comparison *c, const model *m, const store_request *r, const model_answer *expected);
/* The job's row, its images, its milestones after that number, its place in the queue. */
void compare_job(comparison *c, const model *m, int job, int64_t after);
/* client, state: -1 any; model NULL any. go_on: first the rest of the list that was broken off last; then this one, broken off after a page. */
void compare_list(comparison *c, const model *m, int client, int state, const char *model_name, uint32_t limit, bool go_on);
void compare_stats(comparison *c, const model *m);
void compare_description(comparison *c, const char *name, const char *expected);

#endif
