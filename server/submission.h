/* Taking jobs in, for every route that does: POST /generate and the dialects (server/route_openai.c, ...).
 *
 * A dialect's route translates its client's body into the text of a POST /generate body (a pure function of api/) and gives it to this;
 * so there is one validator, one set of limits, one place where seeds are drawn and budgets are charged, and Idempotency-Key works alike
 * everywhere. The order, in a handler's first call:
 *
 *     submission_open         refused while draining; makes the write
 *     submission_check        Content-Type, Content-Encoding, Idempotency-Key
 *     submission_parse        the native body, through api_parse_generate; then the route may look at `jobs`
 *     submission_send         webhooks, ids and seeds, fingerprint, budget; the request is SUSPENDED when it returns true
 *
 * each false with *problem filled, which the route renders in its own shape after it has given `problem->field` (a JSON Pointer into the
 * native body) its own parameter's name. When the handler is called again the COMMIT is through or was refused, and
 *
 *     submission_stored       what became of it; true: the jobs are enqueue->ids[0 .. enqueue->id_count), new ones or (replayed) known ones
 *
 * must be called once: it gives a budget back, tells the dispatcher, and removes the files of what was not stored. The client may be gone by
 * then: headers and query are to be read in the first call (http.h). Then the route waits (waiter_begin with enqueue->ids), or answers, or
 * opens a stream; a dropped connection never cancels. submission_done belongs into the request's state_free. One request, one thread at a
 * time. */
#ifndef SERVER_SUBMISSION_H
#define SERVER_SUBMISSION_H

#include "api/generate_request.h"
#include "server/service.h"

typedef struct submission {
    http_request *request;
    api_request *jobs; /* as parsed and validated, from submission_parse until submission_send */
    size_t count;
    const char *said; /* JSON that is fingerprinted instead of the request's own body; NULL: that body */
    bool is_array; /* whether they came as a JSON array */
    bool replayed; /* the Idempotency-Key was known: say so with Idempotency-Replayed: true (submission_stored has added it) */
    store_request *enqueue;
    /* Its own. */
    bool has_inputs;
    double cost; /* in megapixel-steps, taken off the key's budget */
    unsigned budget_seconds; /* until the budget would do, when it did not; 0: never */
} submission;

/* *out is inside the request's state, zeroed. Refuses with draining or internal. */
bool submission_open(submission *out, http_request *request, api_problem *problem);
/* 415 for a body that is not plain JSON; invalid-field for an Idempotency-Key that is none. */
bool submission_check(submission *sub, api_problem *problem);
/* The same without a look at Content-Type, for a route that takes others too. */
bool submission_check_key(submission *sub, api_problem *problem);
/* body: a native POST /generate body, one object or an array. A model that is known but cannot be described yet is explained: loading, or
 * why it cannot be loaded. */
bool submission_parse(submission *sub, const char *body, size_t bytes, api_problem *problem);
/* route: what the fingerprint is of besides the client's own body ("POST /generate"): the same key for another route is another request.
 * The request's own body is what is fingerprinted, so that what a dialect adds to it later does not matter. */
bool submission_send(submission *sub, const char *route, api_problem *problem);
bool submission_stored(submission *sub, api_problem *problem);
void submission_done(submission *sub); /* frees what it holds, not itself */

#endif
