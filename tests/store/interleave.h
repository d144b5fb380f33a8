/* Named interleavings: two or three sessions, each a few operations in order, against one store. Every order that keeps each session's own
 * is tried: one call after the other, and all of them in one transaction; each answer must be the model's, and after each order the stated
 * invariant must hold beside those that always do. Then the sessions run as threads: what comes of that must be what came of one of the
 * orders. */
#ifndef DN_TESTS_STORE_INTERLEAVE_H
#define DN_TESTS_STORE_INTERLEAVE_H

#include "tests/store/contract.h"

#define SESSIONS_MAX 3
#define WORDS_MAX 5 /* of a session */
#define SCENE_JOBS_MAX 8
#define SCENE_FILES_MAX 16

/* Operations, by word:
 *   post post2 postk postj postd     a new job of one image, of two; under the key k, under k with another body; with a deadline in 10 ms
 *   claim                            what is claimed is what the session's next words are about
 *   image0 image1 fail done requeue crash    of the session's claim (before it has one: of the setup's)
 *   cancel purge                     of the first job there is
 *   retention deadlines              everything that has ended goes; what time brings
 *   read                             the first job, its images and its milestones: whole, or gone */
typedef struct interleaving {
    const char *name;
    const char *setup; /* "" nothing; done first, by nobody's session */
    const char *sessions[SESSIONS_MAX]; /* NULL: fewer */
    const char *(*holds)(void); /* what does not, in words; NULL: it does. Looks at `scene`. */
    int64_t later_ms; /* the clock goes on so far after the setup */
    uint64_t client_jobs_max;
} interleaving;

/* What came of an order. */
typedef struct scene_state {
    struct {
        size_t count;
        char words[WORDS_MAX][12];
        store_result results[WORDS_MAX]; /* of "claim": NONE when nothing came; of "read": STALE when it saw something torn */
        char files[WORDS_MAX][96]; /* of images: what was stored under which name */
        char ids[WORDS_MAX][27]; /* what a claim or a post brought; "" nothing */
        int64_t tokens[WORDS_MAX]; /* of claims */
    } sessions[SESSIONS_MAX];
    size_t session_count;
    store_job jobs[SCENE_JOBS_MAX]; /* in order of acceptance, without their text */
    char milestones[SCENE_JOBS_MAX][160];
    size_t job_count;
    char unlinked[SCENE_FILES_MAX][112]; /* what the store said to unlink */
    size_t unlinked_count;
} scene_state;
extern scene_state scene;

int result_of(int session, const char *word); /* -1: the session has no such word */

/* Tries everything; NULL: fine, else what went wrong in which order (valid until the next call). *orders: how many there are. */
const char *interleave(const interleaving *named, int thread_rounds, unsigned seed, int *orders);

#endif
