/* Every operation on a job, in every state that it may be in: one table. What is refused changes nothing; and after each, the job,
 * its milestones and the totals agree with one another. */
#include "tests/store/contract.h"

#define OPERATIONS 11

typedef enum kind { QUEUED, DELAYED, RUNNING, ASKED, RECLAIMED, SUCCEEDED, FAILED, CANCELED, EXPIRED, UNKNOWN } kind;

/* What is tried, in the order of the table's words. */
static outcome try(int operation, const char *id, int64_t token)
{
    switch (operation) {
    case 0:
        return put_image(id, token, 0);
    case 1:
        return fail_job(id, token);
    case 2:
        return canceled_done(id, token);
    case 3:
        return requeue_job(id, token, "shutdown", false);
    case 4:
        return requeue_job(id, token, "worker-crashed", true);
    case 5:
        return cancel_job("alice", id);
    case 6:
        return purge_job("alice", id);
    case 7:
        return cancel_job("mallory", id);
    case 8:
        return purge_job("mallory", id);
    case 9:
        return cancel_job("", id); /* the operator */
    default:
        return purge_job("", id);
    }
}

/* Alice's job of two images in that state; *token: the one that somebody may still hold. */
static bool make(kind state, char id[27], int64_t *token)
{
    memcpy(id, NOBODY, 27);
    *token = 1;
    if (!fresh() || state == UNKNOWN) {
        return state == UNKNOWN;
    }
    bool fine = enqueue(id, (spec){.n = 2}) == STORE_OK;
    if (state == QUEUED || !fine) {
        return fine;
    }
    *token = claim_one().token;
    switch (state) {
    case DELAYED:
        return requeue_job(id, *token, "worker-crashed", true).result == STORE_OK && job_of(id).run_at_ms;
    case ASKED:
        return cancel_job("alice", id).result == STORE_OK;
    case RECLAIMED:
        return requeue_job(id, *token, "shutdown", false).result == STORE_OK && claim_one().token > *token;
    case SUCCEEDED:
        return put_image(id, *token, 0).result == STORE_OK && put_image(id, *token, 1).ended;
    case FAILED:
        return fail_job(id, *token).ended;
    case CANCELED:
        return canceled_done(id, *token).ended;
    case EXPIRED:
        return fail_job(id, *token).ended && purge_job("alice", id).result == STORE_OK && job_of(id).expired;
    default:
        return true;
    }
}

static const char *result_name(store_result result)
{
    static const char *const names[] = {
        [STORE_OK] = "ok", [STORE_STALE] = "stale", [STORE_NONE] = "none", [STORE_GONE] = "gone", [STORE_ENDED] = "ended"};
    return (size_t)result < sizeof names / sizeof names[0] && names[result] ? names[result] : "?";
}

/* The job as far as an operation might change it. */
static void describe(char out[256], const char *id)
{
    const store_job job = job_of(id);
    snprintf(out, 256, "%d %d %d %u %u %u %u %lld %lld %s", (int)job.state, job.cancel_requested, job.expired, job.attempt, job.crashes,
             job.boots, job.images_done, (long long)job.token, (long long)job.run_at_ms, milestones(id));
}

/* Its last milestone says its state; the totals count it there, and nowhere else. */
static bool coherent(const char *id)
{
    static const char *const last[] = {"queued|requeued", "started|image", "succeeded", "failed", "canceled"};
    const store_job job = job_of(id);
    store_stats stats;
    if ((int)job.state == -1) {
        return true;
    }
    bool fine = store_get_stats(st, &stats) == STORE_OK;
    for (int state = 0; state < 5; state++) {
        fine = fine && stats.jobs[state] == (state == (int)job.state);
    }
    const char *names = milestones(id), *comma = strrchr(names, ',');
    fine = fine && (job.expired ? strcmp(names, "?") == 0 : strstr(last[job.state], comma ? comma + 1 : names) != NULL);
    return fine && (position(id) == 0) == (job.state == API_STATE_QUEUED && !job.run_at_ms);
}

static void check_state(kind state, const char *expected)
{
    char words[256], *rest = NULL;
    snprintf(words, sizeof words, "%s", expected);
    const char *word = strtok_r(words, " ", &rest);
    for (int operation = 0; operation < OPERATIONS; operation++, word = strtok_r(NULL, " ", &rest)) {
        char id[27], before[256], after[256], got[64];
        int64_t token;
        CHECK_MSG(word && make(state, id, &token), "operation %d: the state could not be made", operation);
        describe(before, id);
        const outcome o = try(operation, id, token);
        describe(after, id);
        const char *name = o.result == STORE_OK || o.result == STORE_ENDED ? api_state_name(o.state) : "";
        snprintf(got, sizeof got, "%s%s%s", result_name(o.result), name[0] ? ":" : "", name);
        CHECK_MSG(strcmp(got, word) == 0, "operation %d: %s instead of %s", operation, got, word);
        CHECK_MSG(o.result == STORE_OK || strcmp(before, after) == 0, "operation %d: %s became %s", operation, before, after);
        CHECK_MSG(coherent(id), "operation %d left %s", operation, after);
        if (o.result == STORE_OK || o.result == STORE_ENDED) {
            CHECK_MSG(o.state == job_of(id).state && o.ended == (o.result == STORE_OK && api_state_ended(o.state)),
                      "operation %d: what was answered is not what is so", operation);
        }
    }
    CHECK(!word);
}

/*       image      fail        canceled    requeued    crashed     cancel  purge   another's cancel, purge   operator's cancel, purge */
static void of_a_queued_job(void)
{
    check_state(QUEUED, "stale stale stale stale stale ok:canceled ok:canceled none none ok:canceled ok:canceled");
}

static void of_a_delayed_job(void)
{
    check_state(DELAYED, "stale stale stale stale stale ok:canceled ok:canceled none none ok:canceled ok:canceled");
}

static void of_a_running_job(void)
{
    check_state(RUNNING, "ok:running ok:failed ok:canceled ok:queued ok:queued ok:running ok:running none none ok:running ok:running");
}

static void of_a_job_that_was_asked_to_cancel(void)
{
    check_state(ASKED, "ok:running ok:canceled ok:canceled ok:canceled ok:canceled ok:running ok:running none none ok:running ok:running");
}

static void of_a_job_that_another_claim_has(void)
{
    check_state(RECLAIMED, "stale stale stale stale stale ok:running ok:running none none ok:running ok:running");
}

static void of_a_job_that_has_succeeded(void)
{
    check_state(SUCCEEDED, "stale stale stale stale stale ended:succeeded ok:succeeded none none ended:succeeded ok:succeeded");
}

static void of_a_job_that_has_failed(void)
{
    check_state(FAILED, "stale stale stale stale stale ended:failed ok:failed none none ended:failed ok:failed");
}

static void of_a_job_that_was_canceled(void)
{
    check_state(CANCELED, "stale stale stale stale stale ended:canceled ok:canceled none none ended:canceled ok:canceled");
}

static void of_a_job_that_has_expired(void)
{
    check_state(EXPIRED, "stale stale stale stale stale gone gone none none gone gone");
}

static void of_a_job_that_never_was(void)
{
    check_state(UNKNOWN, "none none none none none none none none none none none");
}

static const contract_case CASES[] = {
    CASE(of_a_queued_job),
    CASE(of_a_delayed_job),
    CASE(of_a_running_job),
    CASE(of_a_job_that_was_asked_to_cancel),
    CASE(of_a_job_that_another_claim_has),
    CASE(of_a_job_that_has_succeeded),
    CASE(of_a_job_that_has_failed),
    CASE(of_a_job_that_was_canceled),
    CASE(of_a_job_that_has_expired),
    CASE(of_a_job_that_never_was),
};
CONTRACT_GROUP(contract_states, CASES)
