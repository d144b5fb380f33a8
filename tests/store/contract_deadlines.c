/* Deadlines of queued jobs: the order they give to a client's own jobs, what they cost others (nothing), and their end. */
#include "tests/store/contract.h"

/* How many failed; *next: the deadline to look at next. */
static size_t pass_deadlines(int64_t *next)
{
    store_request *r = store_request_create(STORE_DEADLINES, NULL, NULL);
    const size_t count = store_call(st, r) == STORE_OK ? r->claimed_count : 999;
    *next = r->next_due_ms;
    store_request_free(r);
    return count;
}

/* No deadline, late, early, none, earliest: the last comes first, and so on; those without one keep their order. */
static void earlier_deadlines_go_first(void)
{
    static const int64_t deadlines[] = {0, 9000, 5000, 0, 1000};
    static const int order[] = {4, 2, 1, 0, 3};
    char ids[5][27];
    CHECK(fresh());
    for (int i = 0; i < 5; i++) {
        CHECK(enqueue(ids[i], (spec){.deadline_ms = deadlines[i], .cost = 10 + (uint64_t)i}) == STORE_OK);
    }
    for (int i = 0; i < 5; i++) {
        CHECK_MSG(position(ids[order[i]]) == i, "job %d is at %lld", order[i], (long long)position(ids[order[i]]));
    }
    for (int i = 0; i < 5; i++) {
        CHECK(strcmp(claim_one().id, ids[order[i]]) == 0);
    }
}

/* Bob's turns are the same, whether Alice's jobs have deadlines or not. */
static void deadlines_take_nobody_elses_turn(void)
{
    for (int with = 0; with < 2; with++) {
        char alice[12][27], bob[4][27];
        CHECK(fresh());
        for (int i = 0; i < 12; i++) {
            CHECK(enqueue(alice[i], (spec){.cost = 10, .deadline_ms = with ? 100000 - i : 0}) == STORE_OK);
        }
        for (int i = 0; i < 4; i++) {
            CHECK(enqueue(bob[i], (spec){.client = "bob", .cost = 30}) == STORE_OK);
        }
        int mine = 0;
        for (int i = 0; i < 16; i++) {
            const claim next = claim_one();
            if (mine < 4 && strcmp(next.id, bob[mine]) == 0) {
                /* Bob's jobs cost three of Alice's: after her first, then after every three of them. */
                CHECK_MSG(i == 1 + 4 * mine, "deadlines %d: job %d of bob's is number %d", with, mine, i);
                mine++;
            }
        }
        CHECK(mine == 4);
    }
}

/* Of another priority, or of another client, nothing moves. */
static void deadlines_stay_within_their_priority(void)
{
    char high[27], low[27], other[27], late[27];
    CHECK(fresh());
    CHECK(enqueue(high, (spec){.priority = 2}) == STORE_OK && enqueue(low, (spec){.priority = 0}) == STORE_OK);
    CHECK(enqueue(other, (spec){.client = "bob", .priority = 0}) == STORE_OK);
    CHECK(enqueue(late, (spec){.priority = 0, .deadline_ms = 1}) == STORE_OK);
    CHECK(position(high) == 0 && position(other) == 1 && position(late) == 2 && position(low) == 3);
}

static void late_jobs_fail_where_they_wait(void)
{
    char early[27], never[27], later[27], running[27];
    int64_t next;
    CHECK(fresh());
    CHECK(enqueue(running, (spec){.deadline_ms = 50}) == STORE_OK && strcmp(claim_one().id, running) == 0);
    CHECK(enqueue(early, (spec){.deadline_ms = 100}) == STORE_OK && enqueue(never, (spec){.n = 1}) == STORE_OK);
    CHECK(enqueue(later, (spec){.deadline_ms = 5000}) == STORE_OK);
    CHECK(pass_deadlines(&next) == 0 && next == clock_ms + 100);
    clock_ms += 100;
    CHECK(pass_deadlines(&next) == 1 && next == clock_ms + 4900);
    const store_job job = job_of(early);
    CHECK(job.state == API_STATE_FAILED && strcmp(job.error_code, "deadline") == 0 && job.finished_ms == clock_ms);
    CHECK(strcmp(milestones(early), "queued,failed") == 0);
    CHECK(job_of(running).state == API_STATE_RUNNING && job_of(never).state == API_STATE_QUEUED);
    /* It outlives the daemon. */
    clock_ms += 10000;
    CHECK(open_store() == DN_OK);
    CHECK(pass_deadlines(&next) == 2 && next == 0); /* the one that ran is queued again, and late too */
    CHECK(job_of(later).state == API_STATE_FAILED && job_of(running).state == API_STATE_FAILED && job_of(never).state == API_STATE_QUEUED);
}

static void many_late_jobs_fail_in_portions(void)
{
    char id[27];
    int64_t next;
    CHECK(fresh());
    for (int i = 0; i < 3; i++) {
        CHECK(enqueue(id, (spec){.deadline_ms = 10, .jobs = 100}) == STORE_OK);
    }
    clock_ms += 11;
    size_t first = pass_deadlines(&next), all = first;
    CHECK(first > 0 && first < 300 && next > 0 && next < clock_ms);
    while (next) {
        all += pass_deadlines(&next);
    }
    CHECK(all == 300);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_FAILED] == 300 && stats.queued_cost == 0);
}

static const contract_case CASES[] = {
    CASE(earlier_deadlines_go_first),     CASE(deadlines_take_nobody_elses_turn), CASE(deadlines_stay_within_their_priority),
    CASE(late_jobs_fail_where_they_wait), CASE(many_late_jobs_fail_in_portions),
};
CONTRACT_GROUP(contract_deadlines, CASES)
