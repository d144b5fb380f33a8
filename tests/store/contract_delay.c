/* Delayed jobs: after a crash alone a job waits 1 s, then 4 s, out of every claim's sight; meanwhile it can be canceled, be late, and
 * outlive a restart. */
#include "tests/store/contract.h"

/* What time brings: *staged jobs come back, so many fail; *next: when to ask again. */
static size_t pass_time(uint32_t *staged, int64_t *next)
{
    store_request *r = store_request_create(STORE_DEADLINES, NULL, NULL);
    const size_t late = store_call(st, r) == STORE_OK ? r->claimed_count : 999;
    *staged = r->staged;
    *next = r->next_due_ms;
    store_request_free(r);
    return late;
}

/* A claim of all that there is: how many. */
static size_t claim_all(void)
{
    claim all[64];
    return claim_jobs(all, 64, NULL);
}

/* A job that has crashed its worker alone so many times (1 or 2), and waits. */
static bool delayed(char id[27], spec p, int crashes)
{
    bool fine = fresh() && enqueue(id, p) == STORE_OK;
    for (int i = 0; fine && i < crashes; i++) {
        clock_ms += 4000;
        const claim c = claim_one();
        fine = strcmp(c.id, id) == 0 && !requeue_job(id, c.token, "worker-crashed", true).ended;
    }
    return fine;
}

static void a_crash_alone_waits_a_second(void)
{
    char id[27];
    CHECK(delayed(id, (spec){0}, 1));
    CHECK(job_of(id).state == API_STATE_QUEUED && job_of(id).run_at_ms == clock_ms + 1000);
    clock_ms += 999;
    CHECK(claim_all() == 0);
    clock_ms += 1;
    const claim c = claim_one();
    CHECK(strcmp(c.id, id) == 0 && c.attempt == 2 && job_of(id).run_at_ms == 0);
    CHECK(put_image(id, c.token, 0).ended);
}

static void the_next_crash_waits_four(void)
{
    char id[27];
    CHECK(delayed(id, (spec){0}, 2));
    CHECK(job_of(id).run_at_ms == clock_ms + 4000);
    clock_ms += 3999;
    CHECK(claim_all() == 0);
    clock_ms += 1;
    const claim c = claim_one();
    CHECK(c.attempt == 3);
    const outcome o = requeue_job(id, c.token, "worker-crashed", true);
    CHECK(o.ended && o.state == API_STATE_FAILED && job_of(id).run_at_ms == 0);
}

static void who_is_not_to_blame_waits_for_nothing(void)
{
    char id[27];
    CHECK(delayed(id, (spec){0}, 1));
    clock_ms += 1000;
    const claim c = claim_one();
    CHECK(requeue_job(id, c.token, "shutdown", false).result == STORE_OK && job_of(id).run_at_ms == 0 && position(id) == 0);
    CHECK(claim_all() == 1);
}

static void a_delayed_job_has_no_place(void)
{
    char id[27], other[27], higher[27];
    CHECK(delayed(id, (spec){.cost = 70}, 1));
    CHECK(position(id) == -1);
    CHECK(enqueue(other, (spec){.client = "bob"}) == STORE_OK && position(other) == 0);
    uint64_t cost = 99;
    CHECK(cost_before(other, &cost) == STORE_OK && cost == 0);
    CHECK(enqueue(higher, (spec){.client = "bob", .priority = 3}) == STORE_OK && position(other) == 1);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 3 && stats.queued_cost == 110);
    uint32_t staged;
    int64_t next;
    clock_ms += 1000;
    CHECK(pass_time(&staged, &next) == 0 && staged == 1 && next == 0);
    CHECK(position(id) == 1 && position(other) == 2); /* its old turn */
    CHECK(cost_before(other, &cost) == STORE_OK && cost == 90);
}

/* Behind more than are counted from the front, where the totals are taken. */
static void delayed_jobs_count_for_nobody_in_a_deep_queue(void)
{
    char id[27], last[27];
    CHECK(delayed(id, (spec){.priority = 1, .cost = 7}, 1));
    CHECK(enqueue(last, (spec){0}) == STORE_OK && position(last) == 0);
    CHECK(delayed(id, (spec){.cost = 7}, 1));
    for (int i = 0; i < 300; i++) {
        CHECK(enqueue(last, (spec){.cost = 3}) == STORE_OK);
    }
    uint64_t cost = 0;
    CHECK(position(last) == 299 && cost_before(last, &cost) == STORE_OK && cost == 299 * 3);
}

static void others_go_on_meanwhile(void)
{
    char id[27], other[27];
    CHECK(delayed(id, (spec){.priority = 5}, 1));
    CHECK(enqueue(other, (spec){0}) == STORE_OK);
    const claim c = claim_one();
    CHECK(strcmp(c.id, other) == 0);
    CHECK(claim_all() == 0);
}

static void a_delayed_job_can_be_canceled(void)
{
    char id[27];
    CHECK(delayed(id, (spec){0}, 1));
    const outcome o = cancel_job("alice", id);
    CHECK(o.result == STORE_OK && o.state == API_STATE_CANCELED && job_of(id).run_at_ms == 0);
    clock_ms += 60000;
    CHECK(claim_all() == 0);
    CHECK(delayed(id, (spec){0}, 1));
    CHECK(purge_job("alice", id).ended && job_of(id).expired);
}

static void a_delayed_job_can_be_late(void)
{
    char id[27];
    uint32_t staged;
    int64_t next;
    CHECK(delayed(id, (spec){.deadline_ms = 4600}, 1)); /* it waited 4000 ms for its claim */
    CHECK(pass_time(&staged, &next) == 0 && staged == 0 && next == clock_ms + 600);
    clock_ms += 600;
    CHECK(pass_time(&staged, &next) == 1 && staged == 0 && next == 0);
    CHECK(job_of(id).state == API_STATE_FAILED && strcmp(job_of(id).error_code, "deadline") == 0);
}

static void a_restart_keeps_the_delay(void)
{
    char id[27];
    CHECK(delayed(id, (spec){0}, 2));
    clock_ms += 1500;
    CHECK_OK(open_store(), error);
    CHECK(job_of(id).run_at_ms == clock_ms + 2500 && job_of(id).boots == 0 && claim_all() == 0);
    uint32_t staged;
    int64_t next;
    CHECK(pass_time(&staged, &next) == 0 && next == clock_ms + 2500);
    clock_ms += 2500;
    CHECK(claim_all() == 1);
}

static void the_requeue_says_when_to_ask(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){0}) == STORE_OK);
    const claim c = claim_one();
    store_request *r = job_request(STORE_REQUEUE, id, c.token);
    r->crashed_alone = true;
    const bool fine = store_call(st, r) == STORE_OK && r->next_due_ms == clock_ms + 1000;
    store_request_free(r);
    CHECK(fine);
    clock_ms += 1000;
    r = store_request_create(STORE_CLAIM, NULL, NULL);
    r->claim_max = 1;
    r->device = "cpu";
    const bool staged = store_call(st, r) == STORE_OK && r->staged == 1 && r->claimed_count == 1;
    store_request_free(r);
    CHECK(staged);
}

static void a_clock_set_back_delays_nobody(void)
{
    char id[27];
    CHECK(delayed(id, (spec){0}, 1));
    clock_ms -= 24ll * 3600 * 1000;
    CHECK(claim_all() == 1);
}

static void its_model_is_still_told(void)
{
    char id[27];
    CHECK(delayed(id, (spec){.model = "strange"}, 1));
    char **names = store_queued_models(st);
    const bool told = names && names[0] && strcmp(names[0], "strange") == 0 && !names[1];
    for (char **name = names; name && *name; name++) {
        free(*name);
    }
    free(names);
    CHECK(told);
}

static const contract_case CASES[] = {
    CASE(a_crash_alone_waits_a_second),
    CASE(the_next_crash_waits_four),
    CASE(who_is_not_to_blame_waits_for_nothing),
    CASE(a_delayed_job_has_no_place),
    CASE(delayed_jobs_count_for_nobody_in_a_deep_queue),
    CASE(others_go_on_meanwhile),
    CASE(a_delayed_job_can_be_canceled),
    CASE(a_delayed_job_can_be_late),
    CASE(a_restart_keeps_the_delay),
    CASE(the_requeue_says_when_to_ask),
    CASE(a_clock_set_back_delays_nobody),
    CASE(its_model_is_still_told),
};
CONTRACT_GROUP(contract_delay, CASES)
