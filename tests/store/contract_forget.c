/* Forgetting: expiry by age and by bytes, tombstones, purge. */
#include "tests/store/contract.h"

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
    store_job *jobs;
    char next[64];
    CHECK(store_list(st, "alice", NULL, NULL, NULL, 10, &jobs, &count, next) == STORE_OK);
    free(jobs);
    CHECK(count == 0);
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
    size_t files = 0, steps = 0;
    do {
        CHECK(store_call(st, r) == STORE_OK && (r->more ? r->file_count > 0 : true));
        files += r->file_count;
        steps++;
    } while (r->more);
    store_request_free(r);
    CHECK_MSG(files == 300 && steps > 1, "%zu files in %zu steps", files, steps);
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

/* Equal requests give equal pictures: what is forgotten of one must not be missing of the other. */
static void equal_jobs_survive_each_others_retention(void)
{
    char files[2][4][112];
    claim jobs[2];
    CHECK(fresh());
    jobs[0] = ended_job(4);
    clock_ms += DAY_MS;
    jobs[1] = ended_job(4);
    for (int k = 0; k < 2; k++) {
        store_image *images;
        size_t count;
        CHECK(store_images(st, jobs[k].id, &images, &count) == STORE_OK && count == 4);
        for (size_t i = 0; i < 4; i++) {
            snprintf(files[k][i], sizeof files[k][i], "images/%s", images[i].file);
        }
        store_images_free(images, count);
    }
    store_request *r = store_request_create(STORE_RETENTION, NULL, NULL);
    r->keep_ms = DAY_MS;
    bool fine = store_call(st, r) == STORE_OK && r->file_count == 4;
    for (size_t i = 0; fine && i < 4; i++) {
        bool own = false;
        for (size_t k = 0; k < 4; k++) {
            own = own || strcmp(r->files[i], files[0][k]) == 0;
            fine = fine && strcmp(r->files[i], files[1][k]) != 0;
        }
        fine = fine && own;
    }
    store_request_free(r);
    CHECK(fine && job_of(jobs[0].id).expired && !job_of(jobs[1].id).expired);
    store_image *images;
    size_t count;
    CHECK(store_images(st, jobs[1].id, &images, &count) == STORE_OK && count == 4);
    store_images_free(images, count);
}

static void failed_and_canceled_jobs_expire_too(void)
{
    char failed[27], canceled[27], waiting[27];
    CHECK(fresh() && enqueue(failed, (spec){0}) == STORE_OK);
    const claim c = claim_one();
    CHECK(fail_job(failed, c.token).ended && enqueue(canceled, (spec){0}) == STORE_OK && cancel_job("alice", canceled).ended);
    CHECK(enqueue(waiting, (spec){0}) == STORE_OK);
    clock_ms += DAY_MS;
    CHECK(retain(DAY_MS, 0).files == 0);
    store_job job;
    CHECK(job_of(canceled).expired && !job_of(waiting).expired && store_get(st, "alice", failed, &job) == STORE_OK);
    const bool bare = job.expired && job.state == API_STATE_FAILED && strcmp(job.error_code, "engine") == 0 && !job.error_detail;
    store_job_done(&job);
    CHECK(bare);
}

static void a_job_without_images_does_not_go_for_bytes(void)
{
    char failed[27];
    CHECK(fresh() && enqueue(failed, (spec){0}) == STORE_OK);
    const claim c = claim_one();
    CHECK(fail_job(failed, c.token).ended);
    clock_ms += 1;
    const claim big = ended_job(2);
    CHECK(retain(0, 1).files == 2);
    CHECK(job_of(big.id).expired && !job_of(failed).expired);
}

static void images_of_running_jobs_count_but_stay(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){.n = 2}) == STORE_OK);
    const claim c = claim_one();
    CHECK(put_image(id, c.token, 0).result == STORE_OK);
    CHECK(retain(1, 1).files == 0 && job_of(id).images_done == 1);
    clock_ms += 1;
    CHECK(put_image(id, c.token, 1).ended && retain(0, 2000).files == 0 && retain(0, 1999).files == 2);
}

static void retention_again_does_nothing(void)
{
    CHECK(fresh());
    const claim c = ended_job(3);
    clock_ms += DAY_MS;
    CHECK(retain(DAY_MS, 1).files == 3);
    const int64_t expired = job_of(c.id).expires_ms;
    clock_ms += DAY_MS;
    CHECK(retain(DAY_MS, 1).files == 0 && job_of(c.id).expires_ms == expired);
    CHECK_OK(open_store(), error);
    CHECK(retain(DAY_MS, 1).files == 0 && job_of(c.id).expired);
}

static void no_retention_keeps_everything(void)
{
    CHECK(fresh());
    const claim c = ended_job(1);
    clock_ms += 10000 * DAY_MS;
    CHECK(retain(0, 0).files == 0 && !job_of(c.id).expired);
}

static void a_purged_run_that_succeeds_goes_all_the_same(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){0}) == STORE_OK);
    const claim c = claim_one();
    CHECK(purge_job("alice", id).state == API_STATE_RUNNING);
    CHECK(put_image(id, c.token, 0).state == API_STATE_CANCELED);
    CHECK(retain(0, 0).files == 1 && job_of(id).expired);
}

static void a_purge_outlives_a_restart(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){.n = 2}) == STORE_OK);
    const claim c = claim_one();
    CHECK(put_image(id, c.token, 0).result == STORE_OK && purge_job("alice", id).state == API_STATE_RUNNING);
    CHECK_OK(open_store(), error);
    CHECK(job_of(id).state == API_STATE_CANCELED && retain(0, 0).files == 1 && job_of(id).expired);
}

static void a_purge_tells_what_it_took(void)
{
    CHECK(fresh());
    const claim c = ended_job(1);
    store_request *r = job_request(STORE_PURGE, c.id, 0);
    bool told = store_call(st, r) == STORE_OK && r->job_body && strstr(r->job_body, c.id) && strstr(r->job_body, "\"succeeded\"") &&
                strstr(r->job_body, "\"sha256\"");
    store_request_free(r);
    CHECK(told);
    char id[27];
    CHECK(enqueue(id, (spec){.n = 1}) == STORE_OK);
    claim_one();
    r = job_request(STORE_PURGE, id, 0);
    told = store_call(st, r) == STORE_OK && !r->job_body; /* it has yet to end */
    store_request_free(r);
    CHECK(told);
}

static const contract_case CASES[] = {
    CASE(results_expire_by_age),
    CASE(tombstones_go_after_a_month),
    CASE(an_arrays_key_lives_with_its_last_job),
    CASE(waiting_jobs_never_expire),
    CASE(results_expire_by_bytes_oldest_first),
    CASE(retention_goes_in_bounded_steps),
    CASE(purge_takes_an_ended_job_at_once),
    CASE(purge_of_a_queued_job_cancels_it),
    CASE(purge_of_a_running_job_waits_for_its_end),
    CASE(equal_jobs_survive_each_others_retention),
    CASE(failed_and_canceled_jobs_expire_too),
    CASE(a_job_without_images_does_not_go_for_bytes),
    CASE(images_of_running_jobs_count_but_stay),
    CASE(retention_again_does_nothing),
    CASE(no_retention_keeps_everything),
    CASE(a_purged_run_that_succeeds_goes_all_the_same),
    CASE(a_purge_outlives_a_restart),
    CASE(a_purge_tells_what_it_took),
};
CONTRACT_GROUP(contract_forget, CASES)
