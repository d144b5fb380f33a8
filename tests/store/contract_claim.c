/* Which job comes next: priority, aging, fairness between clients, models; tokens. */
#include <pthread.h>
#include <stdatomic.h>
#include "server/urgency.h"
#include "tests/store/contract.h"

#define AGING_MS (1000ll * URGENCY_AGING_SECONDS) /* waiting so long counts as one more priority */

static void nothing_waits(void)
{
    CHECK(fresh());
    claim c;
    CHECK(claim_jobs(&c, 1, NULL) == 0);
}

static void in_order_of_acceptance(void)
{
    CHECK(fresh());
    char ids[5][27];
    for (int i = 0; i < 5; i++) {
        CHECK(enqueue(ids[i], (spec){0}) == STORE_OK);
    }
    claim got[8];
    CHECK(claim_jobs(got, 8, NULL) == 5);
    for (int i = 0; i < 5; i++) {
        CHECK(strcmp(ids[i], got[i].id) == 0);
    }
}

static void a_claim_marks_the_job(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    clock_ms += 500;
    claim c = claim_one();
    store_job job = job_of(id);
    CHECK(strcmp(c.id, id) == 0 && c.attempt == 1 && c.token == 1 && c.done_count == 0);
    CHECK(job.state == API_STATE_RUNNING && job.started_ms == clock_ms && job.attempt == 1 && job.token == c.token);
    CHECK(strcmp(milestones(id), "queued,started") == 0);
    CHECK(position(id) == -1);
    CHECK(strcmp(claim_one().id, "none") == 0);
}

static void higher_priority_first(void)
{
    CHECK(fresh());
    static const int priorities[] = {0, -10, 10, 3, -1, 10};
    static const int order[] = {2, 5, 3, 0, 4, 1};
    char ids[6][27];
    for (int i = 0; i < 6; i++) {
        CHECK(enqueue(ids[i], (spec){.priority = priorities[i], .cost = 100000}) == STORE_OK);
    }
    for (int i = 0; i < 6; i++) {
        CHECK(position(ids[order[i]]) == i);
    }
    for (int i = 0; i < 6; i++) {
        CHECK_MSG(strcmp(claim_one().id, ids[order[i]]) == 0, "place %d", i);
    }
}

/* Places near the front are counted from there, others from the end: both must agree with the order of claims. */
static void places_in_a_deep_queue_are_exact(void)
{
    enum { JOBS = 640 };
    static const char *const clients[] = {"alice", "bob", "carol"};
    static char ids[JOBS][27];
    static int64_t place[JOBS];
    CHECK(fresh());
    for (int i = 0; i < JOBS; i++) {
        CHECK(enqueue(ids[i], (spec){.client = clients[i % 3], .priority = i % 5 == 0, .cost = 10 + (uint64_t)(i * 7 % 90)}) == STORE_OK);
    }
    uint64_t ahead = 0;
    for (int i = 0; i < JOBS; i++) {
        place[i] = position(ids[i]);
    }
    int wrong = 0;
    for (int claimed = 0; claimed < JOBS; claimed++) {
        int next = 0;
        while (next < JOBS && place[next] != claimed) {
            next++;
        }
        if (next == JOBS || cost_before(ids[next], &ahead) != STORE_OK || ahead != 0) {
            wrong++;
            break;
        }
        if (claimed % 100 == 0) {
            /* The last in line has the cost of all the others before it. */
            uint64_t others = 0, told = 0;
            int last = 0;
            for (int i = 0; i < JOBS; i++) {
                last = place[i] == JOBS - 1 ? i : last;
                others += place[i] >= claimed && place[i] < JOBS - 1 ? 10 + (uint64_t)(i * 7 % 90) : 0;
            }
            wrong += cost_before(ids[last], &told) != STORE_OK || told != others;
        }
        wrong += strcmp(claim_one().id, ids[next]) != 0;
    }
    CHECK_MSG(wrong == 0, "%d places are wrong", wrong);
}

static void a_thousand_jobs_delay_anothers_first_by_one(void)
{
    CHECK(fresh());
    char id[27], bob[27];
    for (int i = 0; i < 20; i++) {
        CHECK(enqueue(id, (spec){.client = "alice", .jobs = 50}) == STORE_OK);
    }
    for (int i = 0; i < 10; i++) {
        claim_one();
    }
    CHECK(enqueue(bob, (spec){.client = "bob"}) == STORE_OK);
    CHECK(position(bob) <= 1);
    int place = 0;
    while (strcmp(claim_one().id, bob) != 0 && place < 5) {
        place++;
    }
    CHECK_MSG(place <= 1, "came after %d others", place);
}

static void clients_take_turns(void)
{
    CHECK(fresh());
    char id[27];
    for (int i = 0; i < 10; i++) {
        CHECK(enqueue(id, (spec){.client = "alice"}) == STORE_OK);
    }
    for (int i = 0; i < 10; i++) {
        CHECK(enqueue(id, (spec){.client = "bob"}) == STORE_OK);
    }
    int alice = 0, bob = 0;
    for (int i = 0; i < 20; i++) {
        store_job job = job_of(claim_one().id);
        alice += strcmp(job.client, "alice") == 0;
        bob += strcmp(job.client, "bob") == 0;
        CHECK_MSG(abs(alice - bob) <= 1, "after %d: %d and %d", i + 1, alice, bob);
    }
}

static void turns_go_by_cost(void)
{
    CHECK(fresh());
    char id[27];
    for (int i = 0; i < 10; i++) {
        CHECK(enqueue(id, (spec){.client = "dear", .cost = 300}) == STORE_OK);
    }
    for (int i = 0; i < 30; i++) {
        CHECK(enqueue(id, (spec){.client = "cheap", .cost = 100}) == STORE_OK);
    }
    int dear = 0, cheap = 0;
    for (int i = 0; i < 20; i++) {
        store_job job = job_of(claim_one().id);
        dear += strcmp(job.client, "dear") == 0;
        cheap += strcmp(job.client, "cheap") == 0;
    }
    CHECK_MSG(dear == 5 && cheap == 15, "%d dear and %d cheap of 20", dear, cheap);
}

static void idle_clients_save_nothing_up(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.client = "bob"}) == STORE_OK);
    claim_one();
    for (int i = 0; i < 40; i++) { /* alice works alone for long */
        CHECK(enqueue(id, (spec){.client = "alice"}) == STORE_OK);
        claim_one();
    }
    for (int i = 0; i < 10; i++) {
        CHECK(enqueue(id, (spec){.client = "alice"}) == STORE_OK);
        CHECK(enqueue(id, (spec){.client = "bob"}) == STORE_OK);
    }
    int bob = 0;
    for (int i = 0; i < 10; i++) {
        bob += strcmp(job_of(claim_one().id).client, "bob") == 0;
    }
    CHECK_MSG(bob >= 4 && bob <= 6, "%d of 10 are bob's", bob);
}

static void waiting_raises_priority(void)
{
    CHECK(fresh());
    char old[27], young[27];
    CHECK(enqueue(old, (spec){.priority = 0}) == STORE_OK);
    clock_ms += 2 * AGING_MS;
    CHECK(enqueue(young, (spec){.priority = 1}) == STORE_OK);
    CHECK(strcmp(claim_one().id, old) == 0);
}

static void a_short_wait_raises_nothing(void)
{
    CHECK(fresh());
    char old[27], young[27];
    CHECK(enqueue(old, (spec){.priority = 0}) == STORE_OK);
    clock_ms += AGING_MS / 2;
    CHECK(enqueue(young, (spec){.priority = 1}) == STORE_OK);
    CHECK(strcmp(claim_one().id, young) == 0);
}

static void nobody_starves_under_a_flood(void)
{
    CHECK(fresh());
    char low[20][27], id[27];
    for (int i = 0; i < 20; i++) {
        CHECK(enqueue(low[i], (spec){.client = "patient", .priority = -10}) == STORE_OK);
    }
    int served = 0, rounds = 0;
    for (; served < 20 && rounds < 2000; rounds++) { /* two urgent jobs come for each one served, a second apart */
        CHECK(enqueue(id, (spec){.client = "flood", .priority = 10, .jobs = 2}) == STORE_OK);
        clock_ms += 10000;
        served += strcmp(job_of(claim_one().id).client, "patient") == 0;
    }
    CHECK_MSG(served == 20, "%d served in %d rounds", served, rounds);
    CHECK_MSG(rounds >= 20 * AGING_MS / 10000, "priority meant nothing: %d rounds", rounds);
}

static void an_urgent_job_waits_for_one_aged_job_at_most(void)
{
    CHECK(fresh());
    char id[27], urgent[27];
    for (int i = 0; i < 50; i++) {
        CHECK(enqueue(id, (spec){.priority = 0}) == STORE_OK);
    }
    clock_ms += 100 * AGING_MS;
    claim_one();
    CHECK(enqueue(urgent, (spec){.priority = 10}) == STORE_OK);
    bool first = strcmp(claim_one().id, urgent) == 0;
    CHECK(first || strcmp(claim_one().id, urgent) == 0);
}

static void a_clock_set_back_ages_nobody(void)
{
    CHECK(fresh());
    char low[27], high[27];
    CHECK(enqueue(low, (spec){.priority = 0}) == STORE_OK);
    clock_ms -= 24 * 3600 * 1000;
    CHECK(enqueue(high, (spec){.priority = 1}) == STORE_OK);
    CHECK(strcmp(claim_one().id, high) == 0 && strcmp(claim_one().id, low) == 0);
}

static void only_the_models_asked_for(void)
{
    CHECK(fresh());
    char a[27], b[27], c[27];
    CHECK(enqueue(a, (spec){.model = "a"}) == STORE_OK);
    CHECK(enqueue(b, (spec){.model = "b"}) == STORE_OK);
    CHECK(enqueue(c, (spec){.model = "c"}) == STORE_OK);
    static const char *const two[] = {"c", "b", NULL};
    static const char *const none[] = {NULL};
    claim got[4];
    CHECK(claim_jobs(got, 4, none) == 0);
    CHECK(claim_jobs(got, 4, two) == 2);
    CHECK(strcmp(got[0].id, b) == 0 && strcmp(got[1].id, c) == 0);
    CHECK(strcmp(claim_one().id, a) == 0);
}

static void tokens_rise_with_each_claim(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    claim first = claim_one();
    CHECK(requeue_job(id, first.token, "shutdown", false).result == STORE_OK);
    claim second = claim_one();
    CHECK(strcmp(second.id, id) == 0 && second.token > first.token && second.attempt == 1);
}

static void a_requeued_job_goes_first(void)
{
    CHECK(fresh());
    char first[27], id[27];
    CHECK(enqueue(first, (spec){0}) == STORE_OK);
    for (int i = 0; i < 5; i++) {
        CHECK(enqueue(id, (spec){0}) == STORE_OK);
    }
    claim c = claim_one();
    claim_one();
    CHECK(requeue_job(first, c.token, "shutdown", false).result == STORE_OK);
    CHECK(strcmp(claim_one().id, first) == 0);
}

static void done_images_are_told(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.n = 4}) == STORE_OK);
    claim c = claim_one();
    CHECK(put_image(id, c.token, 2).result == STORE_OK && put_image(id, c.token, 0).result == STORE_OK);
    CHECK(requeue_job(id, c.token, "worker-crashed", false).result == STORE_OK);
    store_request *r = store_request_create(STORE_CLAIM, NULL, NULL);
    r->claim_max = 1;
    r->device = "cpu";
    CHECK(store_call(st, r) == STORE_OK && r->claimed_count == 1);
    bool right = r->claimed[0].done_count == 2 && r->claimed[0].done_indices[0] == 0 && r->claimed[0].done_indices[1] == 2;
    store_request_free(r);
    CHECK(right);
    store_event *events;
    size_t count;
    CHECK(store_events(st, id, 5, &events, &count) == STORE_OK && count == 1);
    right = strcmp(events[0].data, "{\"attempt\":1,\"device\":\"cpu\",\"resumed_done\":40}") == 0;
    store_events_free(events, count);
    CHECK(right);
}

static atomic_uint claimed_in_all;

static void *claim_until_empty(void *unused)
{
    (void)unused;
    claim got[4];
    for (size_t count; (count = claim_jobs(got, 4, NULL)) > 0;) {
        atomic_fetch_add(&claimed_in_all, (unsigned)count);
    }
    return NULL;
}

static void no_job_is_claimed_twice(void)
{
    CHECK(fresh());
    char id[27];
    for (int i = 0; i < 8; i++) {
        CHECK(enqueue(id, (spec){.jobs = 50}) == STORE_OK);
    }
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) {
        CHECK(pthread_create(&threads[i], NULL, claim_until_empty, NULL) == 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    CHECK_MSG(claimed_in_all == 400, "%u claims of 400 jobs", claimed_in_all);
    char next[64] = "";
    unsigned once = 0;
    do {
        store_job *jobs;
        size_t count;
        const api_state running = API_STATE_RUNNING;
        CHECK(store_list(st, NULL, &running, NULL, next, 100, &jobs, &count, next) == STORE_OK);
        for (size_t i = 0; i < count; i++) {
            once += jobs[i].token == 1 && jobs[i].attempt == 1;
            store_job_done(&jobs[i]);
        }
        free(jobs);
    } while (next[0]);
    CHECK_MSG(once == 400, "%u of 400 were claimed once", once);
}

static size_t claim_levels(claim *out, uint32_t max, uint32_t left_out)
{
    store_request *r = store_request_create(STORE_CLAIM, NULL, NULL);
    r->claim_max = max;
    r->levels_left_out = left_out;
    r->device = "cpu";
    size_t count = store_call(st, r) == STORE_OK ? r->claimed_count : 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(out[i].id, r->claimed[i].job.id, 27);
    }
    store_request_free(r);
    return count;
}

static void the_lowest_priorities_are_left_out(void)
{
    char low[27], middle[27], high[27];
    claim got[4];
    CHECK(fresh());
    CHECK(enqueue(low, (spec){.priority = -10}) == STORE_OK && enqueue(middle, (spec){.priority = 0}) == STORE_OK);
    CHECK(enqueue(high, (spec){.priority = 10}) == STORE_OK);
    clock_ms += 100 * AGING_MS; /* their own priority counts, not what waiting made of it */
    CHECK(claim_levels(got, 4, 21) == 0);
    CHECK(claim_levels(got, 4, 20) == 1 && strcmp(got[0].id, high) == 0);
    CHECK(claim_levels(got, 4, 11) == 0);
    CHECK(claim_levels(got, 4, 10) == 1 && strcmp(got[0].id, middle) == 0);
    CHECK(claim_levels(got, 4, 1) == 0);
    CHECK(claim_levels(got, 4, 0) == 1 && strcmp(got[0].id, low) == 0);
}

static void a_claim_of_none_takes_none(void)
{
    char id[27];
    claim got[1];
    CHECK(fresh() && enqueue(id, (spec){0}) == STORE_OK);
    CHECK(claim_jobs(got, 0, NULL) == 0 && job_of(id).state == API_STATE_QUEUED && job_of(id).attempt == 0);
}

/* The same queue, claimed at once or one by one. */
static void many_at_once_come_in_the_same_order(void)
{
    enum { JOBS = 24 };
    static const char *const clients[] = {"alice", "bob", "carol"};
    int order[2][JOBS];
    for (int together = 0; together < 2; together++) {
        char ids[JOBS][27];
        claim got[JOBS];
        CHECK(fresh());
        for (int i = 0; i < JOBS; i++) {
            clock_ms += 7 * AGING_MS / 10;
            CHECK(enqueue(ids[i], (spec){.client = clients[i % 3], .priority = i % 7 - 3, .cost = 5 + (uint64_t)(i * 13 % 40)}) ==
                  STORE_OK);
        }
        size_t count = together ? claim_jobs(got, JOBS, NULL) : 0;
        while (!together && count < JOBS && claim_jobs(got + count, 1, NULL)) {
            count++;
        }
        CHECK(count == JOBS);
        for (int i = 0; i < JOBS; i++) {
            order[together][i] = -1;
            for (int k = 0; k < JOBS; k++) {
                order[together][i] = strcmp(got[i].id, ids[k]) == 0 ? k : order[together][i];
            }
        }
    }
    CHECK(memcmp(order[0], order[1], sizeof order[0]) == 0);
}

static void equals_between_priorities_take_turns(void)
{
    char id[27];
    CHECK(fresh());
    for (int i = 0; i < 10; i++) {
        CHECK(enqueue(id, (spec){.client = "patient", .priority = -5}) == STORE_OK);
    }
    clock_ms += 15 * AGING_MS; /* as urgent as can be */
    for (int i = 0; i < 10; i++) {
        CHECK(enqueue(id, (spec){.client = "urgent", .priority = 10}) == STORE_OK);
    }
    int patient = 0;
    for (int i = 0; i < 10; i++) {
        patient += job_of(claim_one().id).priority == -5;
        CHECK_MSG(abs(2 * patient - (i + 1)) <= 1, "%d of %d", patient, i + 1);
    }
}

static void a_claim_tells_the_whole_job(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){.client = "bob", .model = "x", .priority = 2, .cost = 60, .n = 3}) == STORE_OK);
    clock_ms += 5;
    store_request *r = store_request_create(STORE_CLAIM, NULL, NULL);
    r->claim_max = 4;
    r->device = "cpu";
    bool fine = store_call(st, r) == STORE_OK && r->claimed_count == 1;
    const store_job *job = fine ? &r->claimed[0].job : NULL;
    fine = fine && strcmp(job->id, id) == 0 && strcmp(job->client, "bob") == 0 && strcmp(job->model, "x") == 0 && job->priority == 2 &&
           job->cost == 60 && job->n == 3 && job->state == API_STATE_RUNNING && job->started_ms == clock_ms &&
           job->created_ms == clock_ms - 5 && strcmp(job->request_json, REQUEST_JSON) == 0 && r->claimed[0].event_seq == 2 &&
           r->claimed[0].done_count == 0;
    store_request_free(r);
    CHECK(fine);
}

static const contract_case CASES[] = {
    CASE(nothing_waits),
    CASE(in_order_of_acceptance),
    CASE(a_claim_marks_the_job),
    CASE(higher_priority_first),
    CASE(places_in_a_deep_queue_are_exact),
    CASE(a_thousand_jobs_delay_anothers_first_by_one),
    CASE(clients_take_turns),
    CASE(turns_go_by_cost),
    CASE(idle_clients_save_nothing_up),
    CASE(waiting_raises_priority),
    CASE(a_short_wait_raises_nothing),
    CASE(nobody_starves_under_a_flood),
    CASE(an_urgent_job_waits_for_one_aged_job_at_most),
    CASE(a_clock_set_back_ages_nobody),
    CASE(only_the_models_asked_for),
    CASE(tokens_rise_with_each_claim),
    CASE(a_requeued_job_goes_first),
    CASE(done_images_are_told),
    CASE(no_job_is_claimed_twice),
    CASE(the_lowest_priorities_are_left_out),
    CASE(a_claim_of_none_takes_none),
    CASE(many_at_once_come_in_the_same_order),
    CASE(equals_between_priorities_take_turns),
    CASE(a_claim_tells_the_whole_job),
};
CONTRACT_GROUP(contract_claim, CASES)
