/* Which job comes next: priority, aging, fairness between clients, models; tokens; the plans that the indexes must serve. */
#include "server/store/sqlite_store.h"
#include "tests/store/store_harness.h"

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
    clock_ms += 2 * STORE_AGING_MS;
    CHECK(enqueue(young, (spec){.priority = 1}) == STORE_OK);
    CHECK(strcmp(claim_one().id, old) == 0);
}

static void a_short_wait_raises_nothing(void)
{
    CHECK(fresh());
    char old[27], young[27];
    CHECK(enqueue(old, (spec){.priority = 0}) == STORE_OK);
    clock_ms += STORE_AGING_MS / 2;
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
    CHECK_MSG(rounds >= 20 * STORE_AGING_MS / 10000, "priority meant nothing: %d rounds", rounds);
}

static void an_urgent_job_waits_for_one_aged_job_at_most(void)
{
    CHECK(fresh());
    char id[27], urgent[27];
    for (int i = 0; i < 50; i++) {
        CHECK(enqueue(id, (spec){.priority = 0}) == STORE_OK);
    }
    clock_ms += 100 * STORE_AGING_MS;
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
    close_store();
    CHECK(ask_database("SELECT count(*) FROM job WHERE state=1 AND token=1 AND attempt=1") == 400);
}

/* ---- Plans */
static bool plan_says(sqlite3 *db, const char *text, const char *wanted, char *plan, size_t plan_bytes)
{
    char question[2048];
    sqlite3_stmt *statement = NULL;
    size_t used = 0;
    plan[0] = 0;
    snprintf(question, sizeof question, "EXPLAIN QUERY PLAN %s", text);
    bool fine = sqlite3_prepare_v2(db, question, -1, &statement, NULL) == SQLITE_OK;
    while (fine && sqlite3_step(statement) == SQLITE_ROW) {
        used += (size_t)snprintf(plan + used, plan_bytes - used, "%s; ", (const char *)sqlite3_column_text(statement, 3));
    }
    sqlite3_finalize(statement);
    return fine && strstr(plan, wanted) && !strstr(plan, "TEMP B-TREE");
}

#define SQL_TEXT(name, text) [name] = text,
static const char *const TEXTS[SQL_COUNT] = {SQL_STATEMENTS(SQL_TEXT)};

static void indexes_serve_the_queue(void)
{
    static const struct {
        sql_id id;
        const char *plan;
    } rows[] = {
        {SQL_HEAD, "USING INDEX job_ready (priority=?)"},
        {SQL_HEAD_MODEL, "job_ready_model (model=? AND priority=?)"},
        {SQL_BEFORE, "USING COVERING INDEX job_ready (priority=? AND turn<"},
        {SQL_FROM, "USING COVERING INDEX job_ready (priority=? AND turn>"},
        {SQL_STAGE, "job_delayed (run_at_ms"},
        {SQL_DELAYED_NEXT, "USING COVERING INDEX job_delayed"},
        {SQL_DELAYED_FROM, "USING COVERING INDEX job_delayed"},
        {SQL_LIST_CLIENT, "job_list (client=? AND created_ms<"},
        {SQL_PENDING, "USING COVERING INDEX job_pending (client=? AND state<?)"},
        {SQL_RUNNING_OTHERS, "job_running"},
        {SQL_ENDED_OLDEST, "USING INDEX job_ended"},
        {SQL_FORGET, "job_tombstone"},
        {SQL_PURGE_NEXT, "job_purge"},
        {SQL_KEY_FIND, "(client=? AND key=?)"},
        {SQL_EVENT_ADD, "SEARCH event USING PRIMARY KEY (job=?)"},
    };
    CHECK(fresh());
    close_store();
    char path[128], plan[512];
    snprintf(path, sizeof path, "%s/denoised.db", folder);
    sqlite3 *db = NULL;
    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    const char *missing = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && !missing; i++) {
        bool sorted = rows[i].id == SQL_RUNNING_OTHERS; /* a handful of rows, sorted once at start */
        bool fine = plan_says(db, TEXTS[rows[i].id], rows[i].plan, plan, sizeof plan) || (sorted && strstr(plan, rows[i].plan));
        missing = fine ? NULL : rows[i].plan;
    }
    sqlite3_close(db);
    CHECK_MSG(!missing, "wanted %s, the plan is %.400s", missing ? missing : "", plan);
}

int main(void)
{
    RUN(nothing_waits);
    RUN(in_order_of_acceptance);
    RUN(a_claim_marks_the_job);
    RUN(higher_priority_first);
    RUN(places_in_a_deep_queue_are_exact);
    RUN(a_thousand_jobs_delay_anothers_first_by_one);
    RUN(clients_take_turns);
    RUN(turns_go_by_cost);
    RUN(idle_clients_save_nothing_up);
    RUN(waiting_raises_priority);
    RUN(a_short_wait_raises_nothing);
    RUN(nobody_starves_under_a_flood);
    RUN(an_urgent_job_waits_for_one_aged_job_at_most);
    RUN(a_clock_set_back_ages_nobody);
    RUN(only_the_models_asked_for);
    RUN(tokens_rise_with_each_claim);
    RUN(a_requeued_job_goes_first);
    RUN(done_images_are_told);
    RUN(no_job_is_claimed_twice);
    RUN(indexes_serve_the_queue);
    end_store_tests();
    return test_end();
}
