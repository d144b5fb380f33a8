/* Accepting jobs: durability of the answer, idempotency keys, limits, arrays all or nothing, many threads at once. */
#include "tests/store/store_harness.h"

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

/* ---- The bounded queue: a callback that holds the writer lets requests pile up behind it. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static atomic_uint busy, answered;

static void hold_writer(store_request *r)
{
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    store_request_free(r);
    atomic_fetch_add(&answered, 1);
}

static void count_answer(store_request *r)
{
    atomic_fetch_add(&busy, r->result == STORE_BUSY);
    store_request_free(r);
    atomic_fetch_add(&answered, 1);
}

static void a_full_writer_queue_is_busy(void)
{
    CHECK(fresh());
    busy = answered = 0;
    pthread_mutex_lock(&gate);
    store_request *first = store_request_create(STORE_RETENTION, hold_writer, NULL);
    store_submit(st, first);
    usleep(200000); /* it is in the writer's hands now */
    for (int i = 0; i < 1100; i++) {
        store_request *r = enqueue_request((spec){.jobs = 1});
        r->done = count_answer;
        store_submit(st, r);
    }
    unsigned refused = busy;
    store_request *result = store_request_create(STORE_RETENTION, count_answer, NULL);
    store_submit(st, result); /* results of running jobs still get in */
    unsigned refused_after = busy;
    pthread_mutex_unlock(&gate);
    close_store(); /* drains */
    CHECK_MSG(refused == 1100 - 1024 && refused_after == refused, "%u refused", refused);
    CHECK(answered == 1102);
    CHECK_OK(open_store(), error);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 1024);
}

int main(void)
{
    RUN(stored_as_given);
    RUN(others_do_not_see_it);
    RUN(survives_a_restart);
    RUN(queued_event_has_the_position);
    RUN(key_replays_the_first_ids);
    RUN(key_with_another_body_is_a_mismatch);
    RUN(keys_belong_to_clients);
    RUN(ended_jobs_replay_too);
    RUN(arrays_replay_whole);
    RUN(arrays_are_all_or_nothing);
    RUN(an_id_twice_changes_nothing);
    RUN(a_clients_limit_counts_running_jobs);
    RUN(the_queue_is_limited_in_cost);
    RUN(a_known_key_answers_though_the_queue_is_full);
    RUN(parallel_posts_of_one_key_make_one_job);
    RUN(parallel_posts_respect_the_limit);
    RUN(a_full_writer_queue_is_busy);
    end_store_tests();
    return test_end();
}
