/* Lists with a cursor, totals, model descriptions, and forgetting: expiry by age and bytes, tombstones, purge. */
#include "tests/store/store_harness.h"

#define DAY_MS (24ll * 3600 * 1000)

typedef struct page {
    char ids[100][27];
    size_t count;
    char next[64];
    store_result result;
} page;

static page list(const char *client, const api_state *state, const char *model, const char *cursor, uint32_t limit)
{
    page p = {0};
    store_job *jobs = NULL;
    p.result = store_list(st, client, state, model, cursor, limit, &jobs, &p.count, p.next);
    for (size_t i = 0; p.result == STORE_OK && i < p.count; i++) {
        memcpy(p.ids[i], jobs[i].id, 27);
        store_job_done(&jobs[i]);
    }
    free(jobs);
    return p;
}

static void newest_first_in_pages(void)
{
    CHECK(fresh());
    char ids[7][27];
    for (int i = 0; i < 7; i++) {
        clock_ms += i % 2; /* some in the same millisecond */
        CHECK(enqueue(ids[i], (spec){0}) == STORE_OK);
    }
    page p = list("alice", NULL, NULL, NULL, 3);
    CHECK(p.count == 3 && p.next[0] && strcmp(p.ids[0], ids[6]) == 0 && strcmp(p.ids[2], ids[4]) == 0);
    p = list("alice", NULL, NULL, p.next, 3);
    CHECK(p.count == 3 && p.next[0] && strcmp(p.ids[0], ids[3]) == 0 && strcmp(p.ids[2], ids[1]) == 0);
    p = list("alice", NULL, NULL, p.next, 3);
    CHECK(p.count == 1 && !p.next[0] && strcmp(p.ids[0], ids[0]) == 0);
}

static void an_exact_page_has_no_next(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.jobs = 3}) == STORE_OK);
    page p = list("alice", NULL, NULL, "", 3);
    CHECK(p.count == 3 && !p.next[0]);
    CHECK(list("nobody", NULL, NULL, NULL, 3).count == 0);
}

static void a_cursor_survives_deletions(void)
{
    CHECK(fresh());
    char ids[6][27];
    for (int i = 0; i < 6; i++) {
        clock_ms += 1;
        CHECK(enqueue(ids[i], (spec){0}) == STORE_OK);
    }
    page p = list("alice", NULL, NULL, NULL, 2); /* ids 5 and 4 */
    CHECK(purge_job("alice", ids[4]).result == STORE_OK); /* the very row the cursor names */
    CHECK(purge_job("alice", ids[3]).result == STORE_OK);
    CHECK(enqueue(ids[0], (spec){0}) == STORE_OK); /* a new one does not shift the page */
    p = list("alice", NULL, NULL, p.next, 2);
    CHECK(p.count == 2 && strcmp(p.ids[0], ids[2]) == 0 && strcmp(p.ids[1], ids[1]) == 0);
}

static void a_bad_cursor_is_refused(void)
{
    CHECK(fresh());
    CHECK(list("alice", NULL, NULL, "not a cursor", 3).result == STORE_NONE);
}

static void lists_filter(void)
{
    CHECK(fresh());
    char a[27], b[27], c[27];
    CHECK(enqueue(a, (spec){.model = "x"}) == STORE_OK);
    CHECK(enqueue(b, (spec){.model = "y"}) == STORE_OK);
    CHECK(enqueue(c, (spec){.client = "bob", .model = "y"}) == STORE_OK);
    claim_one();
    api_state queued = API_STATE_QUEUED, state = API_STATE_RUNNING;
    page p = list("alice", &state, NULL, NULL, 10);
    CHECK(p.count == 1 && strcmp(p.ids[0], a) == 0);
    p = list("alice", NULL, "y", NULL, 10);
    CHECK(p.count == 1 && strcmp(p.ids[0], b) == 0);
    p = list(NULL, NULL, NULL, NULL, 10);
    CHECK(p.count == 3 && strcmp(p.ids[0], c) == 0);
    CHECK(list(NULL, &queued, "y", NULL, 10).count == 2);
    p = list(NULL, NULL, NULL, NULL, 2);
    CHECK(p.count == 2 && list(NULL, NULL, NULL, p.next, 2).count == 1);
}

static void totals_agree_with_a_scan(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.n = 2, .cost = 7, .jobs = 20}) == STORE_OK);
    for (int i = 0; i < 12; i++) {
        claim c = claim_one();
        if (i % 4 == 0) {
            CHECK(put_image(c.id, c.token, 0).result == STORE_OK && put_image(c.id, c.token, 1).ended);
        } else if (i % 4 == 1) {
            CHECK(fail_job(c.id, c.token).ended);
        } else if (i % 4 == 2) {
            CHECK(requeue_job(c.id, c.token, "shutdown", false).result == STORE_OK);
        }
    }
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK);
    close_store();
    CHECK(stats.jobs[API_STATE_SUCCEEDED] == 3 && stats.jobs[API_STATE_FAILED] == 3 && stats.image_bytes == 6000);
    CHECK((int64_t)stats.jobs[API_STATE_QUEUED] == ask_database("SELECT count(*) FROM job WHERE state=0"));
    CHECK((int64_t)stats.jobs[API_STATE_RUNNING] == ask_database("SELECT count(*) FROM job WHERE state=1"));
    CHECK((int64_t)stats.queued_cost == ask_database("SELECT sum(cost) FROM job WHERE state=0"));
}

static void models_are_remembered(void)
{
    CHECK(fresh());
    char *json = NULL;
    CHECK(store_model(st, "m", &json) == STORE_NONE);
    for (int i = 0; i < 2; i++) {
        store_request *r = store_request_create(STORE_MODEL, NULL, NULL);
        snprintf(r->model_name, sizeof r->model_name, "m");
        r->model_json = strdup(i ? "{\"second\":1}" : "{\"first\":1}");
        CHECK(finish_call(r).result == STORE_OK);
    }
    CHECK_OK(open_store(), error);
    CHECK(store_model(st, "m", &json) == STORE_OK);
    bool right = strcmp(json, "{\"second\":1}") == 0;
    free(json);
    CHECK(right);
}

/* ---- Forgetting */
static claim ended_job(uint32_t n)
{
    char id[27];
    if (enqueue(id, (spec){.n = n}) != STORE_OK) {
        return (claim){.id = "none"};
    }
    claim c = claim_one();
    for (uint32_t i = 0; i < n; i++) {
        put_image(c.id, c.token, i);
    }
    return c;
}

static void results_expire_by_age(void)
{
    CHECK(fresh());
    claim c = ended_job(2);
    CHECK(retain(DAY_MS, 0).files == 0 && job_of(c.id).expired == false);
    clock_ms += DAY_MS;
    CHECK(retain(DAY_MS, 0).files == 2);
    store_job job;
    CHECK(store_get(st, "alice", c.id, &job) == STORE_OK);
    bool bare = job.expired && !job.request_json && job.state == API_STATE_SUCCEEDED && job.expires_ms == clock_ms;
    store_job_done(&job);
    CHECK(bare);
    store_image *images;
    store_event *events;
    size_t count;
    CHECK(store_images(st, c.id, &images, &count) == STORE_GONE);
    CHECK(store_events(st, c.id, 0, &events, &count) == STORE_GONE);
    CHECK(cancel_job("alice", c.id).result == STORE_GONE);
    CHECK(cancel_job("bob", c.id).result == STORE_NONE);
    CHECK(list("alice", NULL, NULL, NULL, 10).count == 0);
}

static void tombstones_go_after_a_month(void)
{
    CHECK(fresh());
    char again[27];
    CHECK(enqueue(again, (spec){.key = "k"}) == STORE_OK);
    claim c = claim_one();
    CHECK(put_image(c.id, c.token, 0).ended);
    clock_ms += DAY_MS;
    retain(DAY_MS, 0);
    clock_ms += 30 * DAY_MS - 1;
    retain(DAY_MS, 0);
    CHECK(job_of(c.id).expired);
    CHECK(enqueue(again, (spec){.key = "k"}) == STORE_REPLAY); /* the key lives as long */
    clock_ms += 1;
    retain(DAY_MS, 0);
    CHECK((int)job_of(c.id).state == -1);
    CHECK(enqueue(again, (spec){.key = "k"}) == STORE_OK && strcmp(again, c.id) != 0);
}

static void an_arrays_key_lives_with_its_last_job(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.key = "k", .jobs = 2}) == STORE_OK);
    claim c = claim_one();
    CHECK(put_image(c.id, c.token, 0).ended);
    clock_ms += DAY_MS;
    retain(DAY_MS, 0);
    clock_ms += 31 * DAY_MS;
    retain(DAY_MS, 0);
    CHECK((int)job_of(c.id).state == -1);
    store_request *r = enqueue_request((spec){.key = "k", .jobs = 2});
    CHECK(store_call(st, r) == STORE_REPLAY && r->id_count == 2);
    store_request_free(r);
}

static void waiting_jobs_never_expire(void)
{
    CHECK(fresh());
    char queued[27];
    claim c = {0};
    CHECK(enqueue(queued, (spec){.jobs = 2}) == STORE_OK);
    c = claim_one();
    clock_ms += 1000 * DAY_MS;
    CHECK(retain(1, 1).files == 0);
    CHECK(job_of(c.id).state == API_STATE_RUNNING);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] == 1);
}

static void results_expire_by_bytes_oldest_first(void)
{
    CHECK(fresh());
    claim first = ended_job(2);
    clock_ms += 10;
    claim second = ended_job(2);
    clock_ms += 10;
    claim third = ended_job(1);
    CHECK(retain(0, 5000).files == 0);
    CHECK(retain(0, 4999).files == 2);
    CHECK(job_of(first.id).expired && !job_of(second.id).expired);
    CHECK(retain(0, 1).files == 3);
    CHECK(job_of(second.id).expired && job_of(third.id).expired);
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.image_bytes == 0);
}

static void retention_goes_in_bounded_steps(void)
{
    CHECK(fresh());
    char id[27];
    for (int i = 0; i < 6; i++) {
        CHECK(enqueue(id, (spec){.jobs = 50}) == STORE_OK);
    }
    claim got[64];
    for (size_t count; (count = claim_jobs(got, 64, NULL)) > 0;) {
        for (size_t i = 0; i < count; i++) {
            CHECK(put_image(got[i].id, got[i].token, 0).ended);
        }
    }
    clock_ms += DAY_MS;
    store_request *r = store_request_create(STORE_RETENTION, NULL, NULL);
    r->keep_ms = DAY_MS;
    CHECK(store_call(st, r) == STORE_OK && r->more && r->file_count == 256);
    store_request_free(r);
    CHECK(retain(DAY_MS, 0).files == 44);
}

static void purge_takes_an_ended_job_at_once(void)
{
    CHECK(fresh());
    claim c = ended_job(2);
    CHECK(purge_job("mallory", c.id).result == STORE_NONE);
    outcome o = purge_job("alice", c.id);
    CHECK(o.result == STORE_OK && o.files == 2 && job_of(c.id).expired);
    CHECK(purge_job("alice", c.id).result == STORE_GONE);
}

static void purge_of_a_queued_job_cancels_it(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    outcome o = purge_job("alice", id);
    CHECK(o.result == STORE_OK && o.state == API_STATE_CANCELED && job_of(id).expired);
    CHECK(strcmp(claim_one().id, "none") == 0);
}

static void purge_of_a_running_job_waits_for_its_end(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){.n = 2}) == STORE_OK);
    claim c = claim_one();
    CHECK(put_image(id, c.token, 0).result == STORE_OK);
    outcome o = purge_job("alice", id);
    CHECK(o.result == STORE_OK && o.files == 0 && o.state == API_STATE_RUNNING && job_of(id).cancel_requested);
    CHECK(retain(0, 0).files == 0);
    CHECK(canceled_done(id, c.token).result == STORE_OK);
    CHECK(retain(0, 0).files == 1 && job_of(id).expired);
}

int main(void)
{
    RUN(newest_first_in_pages);
    RUN(an_exact_page_has_no_next);
    RUN(a_cursor_survives_deletions);
    RUN(a_bad_cursor_is_refused);
    RUN(lists_filter);
    RUN(totals_agree_with_a_scan);
    RUN(models_are_remembered);
    RUN(results_expire_by_age);
    RUN(tombstones_go_after_a_month);
    RUN(an_arrays_key_lives_with_its_last_job);
    RUN(waiting_jobs_never_expire);
    RUN(results_expire_by_bytes_oldest_first);
    RUN(retention_goes_in_bounded_steps);
    RUN(purge_takes_an_ended_job_at_once);
    RUN(purge_of_a_queued_job_cancels_it);
    RUN(purge_of_a_running_job_waits_for_its_end);
    end_store_tests();
    return test_end();
}
