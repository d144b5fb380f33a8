/* A restart: what ran comes back, once, and nothing else changes. */
#include "tests/store/contract.h"

static void a_clean_close_is_a_restart_too(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    claim_one();
    CHECK_OK(open_store(), error);
    CHECK(job_of(id).state == API_STATE_QUEUED && job_of(id).boots == 1);
    store_event *events;
    size_t count;
    CHECK(store_events(st, id, 2, &events, &count) == STORE_OK && count == 1);
    bool right = strcmp(events[0].data, "{\"reason\":\"restart\",\"attempt\":1}") == 0;
    store_events_free(events, count);
    CHECK(right);
}

static void a_canceled_run_ends_at_the_restart(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    claim_one();
    CHECK(cancel_job("alice", id).state == API_STATE_RUNNING);
    CHECK_OK(open_store(), error);
    CHECK(job_of(id).state == API_STATE_CANCELED);
    CHECK(strcmp(milestones(id), "queued,started,canceled") == 0);
}

static void ten_boots_are_enough(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    for (uint32_t boot = 1; boot <= 10; boot++) {
        CHECK(strcmp(claim_one().id, id) == 0);
        CHECK_OK(open_store(), error);
        CHECK(job_of(id).boots == boot);
        CHECK(job_of(id).state == (boot < 10 ? API_STATE_QUEUED : API_STATE_FAILED));
    }
    CHECK(strcmp(job_of(id).error_code, "crashed") == 0);
}

static void running_jobs_come_back_in_their_order(void)
{
    char ids[6][27];
    CHECK(fresh());
    for (int i = 0; i < 6; i++) {
        CHECK(enqueue(ids[i], (spec){.n = 2}) == STORE_OK);
    }
    claim got[4];
    CHECK(claim_jobs(got, 4, NULL) == 4 && put_image(got[1].id, got[1].token, 1).result == STORE_OK);
    CHECK_OK(open_store(), error);
    for (int i = 0; i < 6; i++) {
        CHECK(position(ids[i]) == i && job_of(ids[i]).attempt == 0 && job_of(ids[i]).crashes == 0);
    }
    CHECK(strcmp(milestones(ids[1]), "queued,started,image,requeued") == 0);
    for (int i = 0; i < 4; i++) { /* an orphaned worker's late results */
        CHECK(put_image(got[i].id, got[i].token, 0).result == STORE_STALE);
        CHECK(fail_job(got[i].id, got[i].token).result == STORE_STALE);
    }
    for (int i = 0; i < 6; i++) {
        const claim c = claim_one();
        CHECK(strcmp(c.id, ids[i]) == 0 && c.attempt == 1 && c.done_count == (i == 1));
        CHECK(i > 3 || c.token > got[i].token);
    }
}

static void a_second_restart_changes_nothing(void)
{
    char queued[27], run[27], delayed[27];
    CHECK(fresh() && enqueue(run, (spec){.n = 2}) == STORE_OK && enqueue(delayed, (spec){0}) == STORE_OK);
    CHECK(enqueue(queued, (spec){0}) == STORE_OK);
    claim got[2];
    CHECK(claim_jobs(got, 2, NULL) == 2 && requeue_job(delayed, got[1].token, "worker-crashed", true).result == STORE_OK);
    CHECK_OK(open_store(), error);
    const store_job before = job_of(run);
    for (int i = 0; i < 3; i++) {
        clock_ms += 100;
        CHECK_OK(open_store(), error);
        const store_job now = job_of(run);
        CHECK(now.boots == 1 && now.token == before.token && now.state == API_STATE_QUEUED && now.attempt == 0);
        CHECK(strcmp(milestones(run), "queued,started,requeued") == 0 && strcmp(milestones(delayed), "queued,started,requeued") == 0);
        CHECK(strcmp(milestones(queued), "queued") == 0 && job_of(delayed).crashes == 1 && job_of(delayed).boots == 0);
    }
}

static void crashes_and_boots_are_counted_apart(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){0}) == STORE_OK);
    for (int i = 0; i < 2; i++) {
        claim c = claim_one();
        CHECK(requeue_job(id, c.token, "worker-crashed", true).result == STORE_OK);
        clock_ms += 4000;
        claim_one();
        CHECK_OK(open_store(), error);
    }
    CHECK(job_of(id).crashes == 2 && job_of(id).boots == 2 && job_of(id).attempt == 2 && job_of(id).state == API_STATE_QUEUED);
    const claim c = claim_one();
    CHECK(c.attempt == 3 && requeue_job(id, c.token, "worker-crashed", true).state == API_STATE_FAILED);
}

static void what_has_ended_stays_as_it_is(void)
{
    char ids[3][27];
    store_job before[3];
    CHECK(fresh());
    for (int i = 0; i < 3; i++) {
        CHECK(enqueue(ids[i], (spec){0}) == STORE_OK);
        const claim c = claim_one();
        CHECK(i == 0 ? put_image(c.id, c.token, 0).ended : i == 1 ? fail_job(c.id, c.token).ended : canceled_done(c.id, c.token).ended);
        before[i] = job_of(ids[i]);
    }
    clock_ms += 1000;
    options.keep_ms = 5;
    CHECK_OK(open_store(), error);
    for (int i = 0; i < 3; i++) {
        const store_job now = job_of(ids[i]);
        CHECK(now.state == before[i].state && now.finished_ms == before[i].finished_ms && now.expires_ms == before[i].expires_ms);
        CHECK(now.boots == 0 && now.images_done == before[i].images_done);
    }
}

static void turns_outlive_a_restart(void)
{
    char id[27], bob[27];
    CHECK(fresh());
    for (int i = 0; i < 20; i++) {
        CHECK(enqueue(id, (spec){0}) == STORE_OK);
        claim_one();
    }
    CHECK(enqueue(id, (spec){.jobs = 10}) == STORE_OK);
    CHECK_OK(open_store(), error); /* and those that ran are first again */
    CHECK(enqueue(bob, (spec){.client = "bob"}) == STORE_OK);
    CHECK_MSG(position(bob) >= 19 && position(bob) <= 21, "%lld", (long long)position(bob));
}

static void every_milestone_outlives_a_restart(void)
{
    char id[27], before[512];
    CHECK(fresh() && enqueue(id, (spec){.n = 3}) == STORE_OK);
    claim c = claim_one();
    CHECK(put_image(id, c.token, 1).result == STORE_OK && requeue_job(id, c.token, "shutdown", false).result == STORE_OK);
    c = claim_one();
    CHECK(put_image(id, c.token, 0).result == STORE_OK && put_image(id, c.token, 2).ended);
    snprintf(before, sizeof before, "%s", milestones(id));
    CHECK_OK(open_store(), error);
    CHECK(strcmp(milestones(id), before) == 0 && strcmp(before, "queued,started,image,requeued,started,image,image,succeeded") == 0);
}

static const contract_case CASES[] = {
    CASE(a_clean_close_is_a_restart_too),
    CASE(a_canceled_run_ends_at_the_restart),
    CASE(ten_boots_are_enough),
    CASE(running_jobs_come_back_in_their_order),
    CASE(a_second_restart_changes_nothing),
    CASE(crashes_and_boots_are_counted_apart),
    CASE(what_has_ended_stays_as_it_is),
    CASE(turns_outlive_a_restart),
    CASE(every_milestone_outlives_a_restart),
};
CONTRACT_GROUP(contract_restart, CASES)
