/* Accepting jobs: durability of the answer, idempotency keys, limits, arrays all or nothing, many threads at once. */
#include <pthread.h>
#include <stdatomic.h>
#include "tests/store/contract.h"

static void stored_as_given(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.client = "bob", .model = "fashion", .priority = -3, .cost = 160, .n = 4}) == STORE_OK);
    store_job job;
    CHECK(store_get(st, "bob", id, &job) == STORE_OK);
    bool same = strcmp(job.id, id) == 0 && strcmp(job.client, "bob") == 0 && strcmp(job.model, "fashion") == 0 && job.priority == -3 &&
                job.cost == 160 && job.n == 4 && job.images_done == 0 && job.state == API_STATE_QUEUED && !job.cancel_requested &&
                !job.expired && job.created_ms == clock_ms && !job.started_ms && !job.finished_ms && job.attempt == 0 &&
                strcmp(job.request_json, REQUEST_JSON) == 0 && !job.error_code[0] && !job.error_detail;
    store_job_done(&job);
    CHECK(same);
}

static void others_do_not_see_it(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.client = "bob"}) == STORE_OK);
    store_job job;
    CHECK(store_get(st, "alice", id, &job) == STORE_NONE);
    CHECK(store_get(st, "bob", "aaaaaaaaaaaaaaaaaaaaaaaaaa", &job) == STORE_NONE);
    CHECK(store_get(st, NULL, id, &job) == STORE_OK);
    store_job_done(&job);
}

static void survives_a_restart(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    CHECK_OK(open_store(), error);
    CHECK(job_of(id).state == API_STATE_QUEUED);
    CHECK(job_of(id).boots == 0);
}

static void queued_event_has_the_position(void)
{
    CHECK(fresh());
    char first[27], second[27], high[27];
    CHECK(enqueue(first, (spec){0}) == STORE_OK);
    CHECK(enqueue(second, (spec){0}) == STORE_OK);
    CHECK(enqueue(high, (spec){.priority = 1}) == STORE_OK);
    store_event *events;
    size_t count;
    CHECK(store_events(st, second, 0, &events, &count) == STORE_OK && count == 1);
    char expected[96];
    snprintf(expected, sizeof expected, "{\"id\":\"%s\",\"queue_position\":1}", second);
    bool same = events[0].seq == 1 && strcmp(events[0].name, "queued") == 0 && strcmp(events[0].data, expected) == 0;
    store_events_free(events, count);
    CHECK(same);
    CHECK(position(high) == 0 && position(first) == 1 && position(second) == 2);
    uint64_t ahead;
    CHECK(cost_before(second, &ahead) == STORE_OK && ahead == 40);
    CHECK(cost_before("aaaaaaaaaaaaaaaaaaaaaaaaaa", &ahead) == STORE_NONE);
    CHECK(position("aaaaaaaaaaaaaaaaaaaaaaaaaa") == -1);
}

static void key_replays_the_first_ids(void)
{
    CHECK(fresh());
    char first[27], again[27];
    CHECK(enqueue(first, (spec){.key = "k", .print = 1}) == STORE_OK);
    CHECK(enqueue(again, (spec){.key = "k", .print = 1}) == STORE_REPLAY);
    CHECK(strcmp(first, again) == 0);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 1);
}

static void key_with_another_body_is_a_mismatch(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.key = "k", .print = 1}) == STORE_OK);
    CHECK(enqueue(id, (spec){.key = "k", .print = 2}) == STORE_MISMATCH);
}

static void keys_belong_to_clients(void)
{
    CHECK(fresh());
    char a[27], b[27];
    CHECK(enqueue(a, (spec){.client = "a", .key = "k", .print = 1}) == STORE_OK);
    CHECK(enqueue(b, (spec){.client = "b", .key = "k", .print = 2}) == STORE_OK);
    CHECK(strcmp(a, b) != 0);
}

static void ended_jobs_replay_too(void)
{
    CHECK(fresh());
    char id[27], again[27];
    CHECK(enqueue(id, (spec){.key = "k"}) == STORE_OK);
    claim c = claim_one();
    CHECK(fail_job(c.id, c.token).result == STORE_OK);
    CHECK(enqueue(again, (spec){.key = "k"}) == STORE_REPLAY && strcmp(id, again) == 0);
}

static void arrays_replay_whole(void)
{
    CHECK(fresh());
    store_request *first = enqueue_request((spec){.key = "k", .jobs = 64});
    CHECK(store_call(st, first) == STORE_OK && first->id_count == 64);
    store_request *again = enqueue_request((spec){.key = "k", .jobs = 64});
    CHECK(store_call(st, again) == STORE_REPLAY && again->id_count == 64);
    bool same = memcmp(first->ids, again->ids, 64 * sizeof *first->ids) == 0;
    store_request_free(first);
    store_request_free(again);
    CHECK(same);
}

static void arrays_are_all_or_nothing(void)
{
    CHECK(fresh());
    options.queue_jobs_max = 5;
    CHECK_OK(open_store(), error);
    char id[27];
    CHECK(enqueue(id, (spec){.jobs = 3}) == STORE_OK);
    CHECK(enqueue(id, (spec){.jobs = 3, .key = "k"}) == STORE_QUEUE_FULL);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 3);
    CHECK(enqueue(id, (spec){.jobs = 2, .key = "k"}) == STORE_OK); /* the refusal left no key behind */
}

static void an_id_twice_changes_nothing(void)
{
    CHECK(fresh());
    store_request *r = enqueue_request((spec){.jobs = 3});
    memcpy(r->jobs[2].id, r->jobs[0].id, 27);
    store_result result = store_call(st, r);
    store_request_free(r);
    CHECK(result == STORE_BUSY);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 0);
    CHECK(!store_stopped(st));
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
}

static void a_clients_limit_counts_running_jobs(void)
{
    CHECK(fresh());
    options.client_jobs_max = 2;
    CHECK_OK(open_store(), error);
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    claim c = claim_one();
    CHECK(enqueue(id, (spec){0}) == STORE_QUOTA);
    CHECK(enqueue(id, (spec){.client = "bob"}) == STORE_OK);
    CHECK(put_image(c.id, c.token, 0).ended);
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
}

static void the_queue_is_limited_in_cost(void)
{
    CHECK(fresh());
    options.queue_cost_max = 100;
    CHECK_OK(open_store(), error);
    char id[27];
    CHECK(enqueue(id, (spec){.cost = 60}) == STORE_OK);
    CHECK(enqueue(id, (spec){.cost = 41}) == STORE_QUEUE_FULL);
    CHECK(enqueue(id, (spec){.cost = 40}) == STORE_OK);
}

static void a_known_key_answers_though_the_queue_is_full(void)
{
    CHECK(fresh());
    options.queue_jobs_max = 1;
    CHECK_OK(open_store(), error);
    char id[27], again[27];
    CHECK(enqueue(id, (spec){.key = "k"}) == STORE_OK);
    CHECK(enqueue(again, (spec){0}) == STORE_QUEUE_FULL);
    CHECK(enqueue(again, (spec){.key = "k"}) == STORE_REPLAY && strcmp(id, again) == 0);
}

/* ---- Many threads */
enum { THREADS = 256 };
static atomic_uint oks, replays;
static char winner[THREADS][27];

static void *post_same_key(void *number)
{
    store_request *r = number;
    store_result result = store_call(st, r);
    atomic_fetch_add(result == STORE_OK ? &oks : &replays, result == STORE_OK || result == STORE_REPLAY);
    return NULL;
}

static void parallel_posts_of_one_key_make_one_job(void)
{
    CHECK(fresh());
    oks = replays = 0;
    pthread_t threads[THREADS];
    store_request *requests[THREADS];
    for (int i = 0; i < THREADS; i++) {
        requests[i] = enqueue_request((spec){.key = "same", .print = 7});
        CHECK(pthread_create(&threads[i], NULL, post_same_key, requests[i]) == 0);
    }
    bool one = true;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        memcpy(winner[i], requests[i]->ids[0], 27);
        one = one && strcmp(winner[i], winner[0]) == 0;
        store_request_free(requests[i]);
    }
    CHECK_MSG(oks == 1 && replays == THREADS - 1, "%u made, %u replayed", oks, replays);
    CHECK(one);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 1);
}

static void parallel_posts_respect_the_limit(void)
{
    CHECK(fresh());
    options.queue_jobs_max = 100;
    CHECK_OK(open_store(), error);
    oks = replays = 0;
    pthread_t threads[THREADS];
    store_request *requests[THREADS];
    for (int i = 0; i < THREADS; i++) {
        requests[i] = enqueue_request((spec){0});
        CHECK(pthread_create(&threads[i], NULL, post_same_key, requests[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        store_request_free(requests[i]);
    }
    CHECK(oks == 100);
}

static void a_request_comes_back_byte_for_byte(void)
{
    CHECK(fresh());
    char *text = malloc(60001);
    memset(text, 'x', 60000);
    memcpy(text, "{\"\xc3\xa4\\u0000\\n\":\"", 16);
    text[60000] = 0;
    store_request *r = enqueue_request((spec){0});
    free(r->jobs[0].request_json);
    r->jobs[0].request_json = strdup(text);
    store_job job;
    bool same =
        store_call(st, r) == STORE_OK && store_get(st, NULL, r->jobs[0].id, &job) == STORE_OK && strcmp(job.request_json, text) == 0;
    if (same) {
        store_job_done(&job);
    }
    store_request_free(r);
    free(text);
    CHECK(same);
}

static void arrays_keep_their_order(void)
{
    CHECK(fresh());
    store_request *r = enqueue_request((spec){.jobs = 10});
    bool fine = store_call(st, r) == STORE_OK && r->id_count == 10;
    for (int i = 0; fine && i < 10; i++) {
        fine = strcmp(r->ids[i], r->jobs[i].id) == 0 && position(r->ids[i]) == i;
    }
    store_request_free(r);
    CHECK(fine);
}

static void a_refusal_leaves_nothing(void)
{
    char id[27], again[27];
    CHECK(fresh());
    options.client_jobs_max = 1;
    CHECK_OK(open_store(), error);
    CHECK(enqueue(id, (spec){.key = "a", .print = 1}) == STORE_OK);
    for (int i = 0; i < 3; i++) {
        CHECK(enqueue(again, (spec){.key = "b", .cost = 500}) == STORE_QUOTA);
        CHECK(enqueue(again, (spec){.key = "a", .print = 2}) == STORE_MISMATCH);
        CHECK(enqueue(again, (spec){.key = "a", .print = 1}) == STORE_REPLAY);
    }
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 1 && stats.queued_cost == 20);
    CHECK(strcmp(milestones(id), "queued") == 0);
    /* Nor did the refused ones take a turn: another client's job is not behind them. */
    char bob[27];
    CHECK(enqueue(bob, (spec){.client = "bob"}) == STORE_OK && position(bob) == 1);
}

static void a_mismatch_is_no_replay_of_another_client(void)
{
    char id[27], again[27];
    CHECK(fresh());
    CHECK(enqueue(id, (spec){.client = "alice", .key = "K", .print = 1}) == STORE_OK);
    CHECK(enqueue(again, (spec){.client = "alice", .key = "k", .print = 2}) == STORE_OK); /* keys differ by case */
    CHECK(enqueue(again, (spec){.client = "Alice", .key = "K", .print = 2}) == STORE_OK); /* clients too */
    CHECK(enqueue(again, (spec){.client = "alice", .key = "K", .print = 2}) == STORE_MISMATCH);
}

static void keys_survive_a_restart(void)
{
    char id[27], again[27];
    CHECK(fresh());
    CHECK(enqueue(id, (spec){.key = "k", .print = 9}) == STORE_OK);
    CHECK_OK(open_store(), error);
    CHECK(enqueue(again, (spec){.key = "k", .print = 9}) == STORE_REPLAY && strcmp(id, again) == 0);
    CHECK(enqueue(again, (spec){.key = "k", .print = 8}) == STORE_MISMATCH);
}

static void a_canceled_or_purged_job_replays_too(void)
{
    char id[27], again[27];
    CHECK(fresh());
    CHECK(enqueue(id, (spec){.key = "k"}) == STORE_OK && cancel_job("alice", id).ended);
    CHECK(enqueue(again, (spec){.key = "k"}) == STORE_REPLAY && strcmp(id, again) == 0);
    CHECK(purge_job("alice", id).result == STORE_OK);
    CHECK(enqueue(again, (spec){.key = "k"}) == STORE_REPLAY && strcmp(id, again) == 0 && job_of(id).expired);
}

static void limits_make_room_as_jobs_leave(void)
{
    char id[27], more[27];
    CHECK(fresh());
    options.queue_jobs_max = 2;
    options.queue_cost_max = 100;
    CHECK_OK(open_store(), error);
    CHECK(enqueue(id, (spec){.cost = 50}) == STORE_OK && enqueue(more, (spec){.cost = 50}) == STORE_OK);
    CHECK(enqueue(more, (spec){.cost = 1}) == STORE_QUEUE_FULL);
    CHECK(strcmp(claim_one().id, id) == 0); /* what runs is not queued */
    CHECK(enqueue(more, (spec){.cost = 50}) == STORE_OK && enqueue(id, (spec){.cost = 1}) == STORE_QUEUE_FULL);
    CHECK(cancel_job("alice", more).ended && enqueue(more, (spec){.cost = 50}) == STORE_OK);
}

static void a_requeue_is_never_refused(void)
{
    char id[27], more[27];
    CHECK(fresh());
    options.queue_jobs_max = 1;
    CHECK_OK(open_store(), error);
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    const claim c = claim_one();
    CHECK(enqueue(more, (spec){0}) == STORE_OK);
    CHECK(requeue_job(id, c.token, "shutdown", false).result == STORE_OK && position(id) == 0 && position(more) == 1);
}

/* A client that may start nothing new is still answered about what it has started. */
static void only_known_keys_pass_where_nothing_new_may(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){.key = "k", .print = 1}) == STORE_OK);
    static const struct {
        const char *key;
        unsigned char print;
        store_result result;
    } rows[] = {{"k", 1, STORE_REPLAY}, {"k", 2, STORE_MISMATCH}, {"new", 1, STORE_QUOTA}, {"", 1, STORE_QUOTA}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        store_request *r = enqueue_request((spec){.key = rows[i].key, .print = rows[i].print});
        r->known_only = true;
        const store_result result = store_call(st, r);
        const bool same = result != STORE_REPLAY || (r->id_count == 1 && strcmp(r->ids[0], id) == 0);
        store_request_free(r);
        CHECK_MSG(result == rows[i].result && same, "row %zu: %d", i, (int)result);
    }
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 1);
}

static store_result enqueue_capped(const char *client, uint64_t most)
{
    store_request *r = enqueue_request((spec){.client = client});
    r->pending_jobs_max = most;
    const store_result result = store_call(st, r);
    store_request_free(r);
    return result;
}

static void a_clients_own_limit_holds_where_it_is_lower(void)
{
    CHECK(fresh());
    CHECK(enqueue_capped("alice", 2) == STORE_OK && enqueue_capped("alice", 2) == STORE_OK && enqueue_capped("alice", 2) == STORE_QUOTA);
    CHECK(enqueue_capped("alice", 3) == STORE_OK && enqueue_capped("bob", 1) == STORE_OK && enqueue_capped("bob", 1) == STORE_QUOTA);
    CHECK(enqueue_capped("bob", 0) == STORE_OK);
    options.client_jobs_max = 4;
    CHECK_OK(open_store(), error);
    CHECK(enqueue_capped("alice", 100) == STORE_OK && enqueue_capped("alice", 100) == STORE_QUOTA &&
          enqueue_capped("alice", 0) == STORE_QUOTA);
}

static const contract_case CASES[] = {
    CASE(stored_as_given),
    CASE(others_do_not_see_it),
    CASE(survives_a_restart),
    CASE(queued_event_has_the_position),
    CASE(key_replays_the_first_ids),
    CASE(key_with_another_body_is_a_mismatch),
    CASE(keys_belong_to_clients),
    CASE(ended_jobs_replay_too),
    CASE(arrays_replay_whole),
    CASE(arrays_are_all_or_nothing),
    CASE(an_id_twice_changes_nothing),
    CASE(a_clients_limit_counts_running_jobs),
    CASE(the_queue_is_limited_in_cost),
    CASE(a_known_key_answers_though_the_queue_is_full),
    CASE(parallel_posts_of_one_key_make_one_job),
    CASE(parallel_posts_respect_the_limit),
    CASE(a_request_comes_back_byte_for_byte),
    CASE(arrays_keep_their_order),
    CASE(a_refusal_leaves_nothing),
    CASE(a_mismatch_is_no_replay_of_another_client),
    CASE(keys_survive_a_restart),
    CASE(a_canceled_or_purged_job_replays_too),
    CASE(limits_make_room_as_jobs_leave),
    CASE(a_requeue_is_never_refused),
    CASE(only_known_keys_pass_where_nothing_new_may),
    CASE(a_clients_own_limit_holds_where_it_is_lower),
};
CONTRACT_GROUP(contract_enqueue, CASES)
