/* What happens to a claimed job: images exactly once, fencing, ends, cancel in each state, requeue and the poison limits. */
#include "tests/store/contract.h"

/* A job of n images, claimed. */
static claim running(uint32_t n)
{
    char id[27];
    if (!fresh() || enqueue(id, (spec){.n = n}) != STORE_OK) {
        return (claim){.id = "none"};
    }
    return claim_one();
}

static void the_last_image_ends_the_job(void)
{
    claim c = running(3);
    for (uint32_t i = 0; i < 3; i++) {
        clock_ms += 10;
        outcome o = put_image(c.id, c.token, i);
        CHECK(o.result == STORE_OK && o.ended == (i == 2));
        CHECK(o.seq == (i == 2 ? 6 : 3 + (int64_t)i)); /* the last one makes two milestones */
    }
    store_job job = job_of(c.id);
    CHECK(job.state == API_STATE_SUCCEEDED && job.images_done == 3 && job.finished_ms == clock_ms);
    CHECK(job.expires_ms == clock_ms + options.keep_ms);
    CHECK(strcmp(milestones(c.id), "queued,started,image,image,image,succeeded") == 0);
}

static void images_come_in_any_order(void)
{
    claim c = running(3);
    CHECK(put_image(c.id, c.token, 2).result == STORE_OK && put_image(c.id, c.token, 0).result == STORE_OK);
    CHECK(put_image(c.id, c.token, 1).ended);
    store_image *images;
    size_t count;
    CHECK(store_images(st, c.id, &images, &count) == STORE_OK && count == 3);
    bool sorted = images[0].index == 0 && images[1].index == 1 && images[2].index == 2;
    bool exact = images[1].view.seed == UINT64_MAX && images[1].view.width == 32 && images[1].view.bytes == 1000 &&
                 strlen(images[1].view.sha256) == 64 && strncmp(images[1].file, c.id, 26) == 0;
    store_images_free(images, count);
    CHECK(sorted && exact);
}

static void an_image_is_counted_once(void)
{
    claim c = running(2);
    CHECK(put_image(c.id, c.token, 0).result == STORE_OK);
    outcome same_file = put_image(c.id, c.token, 0);
    CHECK(same_file.result == STORE_OK && same_file.seq == 0 && !same_file.ended);
    CHECK(finish_call(image_request(c.id, c.token, 0, "-other")).result == STORE_STALE);
    CHECK(job_of(c.id).images_done == 1);
    CHECK(strcmp(milestones(c.id), "queued,started,image") == 0);
}

static void an_index_beyond_n_is_refused(void)
{
    claim c = running(2);
    CHECK(put_image(c.id, c.token, 2).result == STORE_STALE);
    CHECK(job_of(c.id).images_done == 0);
}

static void an_ended_job_takes_no_image(void)
{
    claim c = running(1);
    CHECK(put_image(c.id, c.token, 0).ended);
    CHECK(put_image(c.id, c.token, 0).result == STORE_STALE);
    CHECK(put_image("aaaaaaaaaaaaaaaaaaaaaaaaaa", 1, 0).result == STORE_NONE);
}

static void a_stale_token_changes_nothing(void)
{
    claim old = running(1);
    CHECK(requeue_job(old.id, old.token, "worker-crashed", false).result == STORE_OK);
    CHECK(put_image(old.id, old.token, 0).result == STORE_STALE); /* queued: nobody's */
    claim now = claim_one();
    CHECK(put_image(old.id, old.token, 0).result == STORE_STALE);
    CHECK(fail_job(old.id, old.token).result == STORE_STALE);
    CHECK(canceled_done(old.id, old.token).result == STORE_STALE);
    CHECK(requeue_job(old.id, old.token, "shutdown", true).result == STORE_STALE);
    CHECK(job_of(old.id).state == API_STATE_RUNNING && job_of(old.id).crashes == 0);
    CHECK(put_image(now.id, now.token, 0).ended);
    CHECK(strcmp(milestones(old.id), "queued,started,requeued,started,image,succeeded") == 0);
}

static void a_failure_says_why(void)
{
    claim c = running(2);
    CHECK(put_image(c.id, c.token, 1).result == STORE_OK);
    outcome o = fail_job(c.id, c.token);
    CHECK(o.result == STORE_OK && o.ended && o.state == API_STATE_FAILED);
    store_job job;
    CHECK(store_get(st, NULL, c.id, &job) == STORE_OK);
    bool right = strcmp(job.error_code, "engine") == 0 && strcmp(job.error_detail, "a number was not finite") == 0 && job.images_done == 1;
    store_job_done(&job);
    CHECK(right);
    CHECK(fail_job(c.id, c.token).result == STORE_STALE);
    CHECK(strcmp(milestones(c.id), "queued,started,image,failed") == 0);
}

/* ---- Cancel */
static void cancel_while_queued(void)
{
    CHECK(fresh());
    char id[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    outcome o = cancel_job("alice", id);
    CHECK(o.result == STORE_OK && o.state == API_STATE_CANCELED && o.seq == 2);
    CHECK(strcmp(claim_one().id, "none") == 0);
    CHECK(strcmp(milestones(id), "queued,canceled") == 0);
}

static void cancel_while_running(void)
{
    claim c = running(2);
    CHECK(put_image(c.id, c.token, 0).result == STORE_OK);
    outcome o = cancel_job("alice", c.id);
    CHECK(o.result == STORE_OK && o.state == API_STATE_RUNNING && job_of(c.id).cancel_requested);
    CHECK(cancel_job("alice", c.id).result == STORE_OK); /* asking twice is asking once */
    o = canceled_done(c.id, c.token);
    CHECK(o.result == STORE_OK && o.ended && o.state == API_STATE_CANCELED);
    CHECK(job_of(c.id).images_done == 1); /* finished images stay */
    CHECK(strcmp(milestones(c.id), "queued,started,image,canceled") == 0);
}

static void cancel_after_the_end(void)
{
    claim c = running(1);
    CHECK(put_image(c.id, c.token, 0).ended);
    outcome o = cancel_job("alice", c.id);
    CHECK(o.result == STORE_ENDED && o.state == API_STATE_SUCCEEDED && !job_of(c.id).cancel_requested);
}

static void cancel_of_anothers_job(void)
{
    claim c = running(1);
    CHECK(cancel_job("mallory", c.id).result == STORE_NONE);
    CHECK(cancel_job("alice", "aaaaaaaaaaaaaaaaaaaaaaaaaa").result == STORE_NONE);
    CHECK(!job_of(c.id).cancel_requested);
    CHECK(cancel_job("", c.id).result == STORE_OK); /* the operator's */
}

static void the_first_commit_wins(void)
{
    claim c = running(1);
    CHECK(cancel_job("alice", c.id).result == STORE_OK);
    outcome o = put_image(c.id, c.token, 0);
    CHECK(o.result == STORE_OK && o.ended && o.state == API_STATE_CANCELED && job_of(c.id).images_done == 1);
}

static void a_canceled_job_neither_fails_nor_requeues(void)
{
    claim c = running(1);
    CHECK(cancel_job("alice", c.id).result == STORE_OK);
    CHECK(fail_job(c.id, c.token).state == API_STATE_CANCELED);
    c = running(1);
    CHECK(cancel_job("alice", c.id).result == STORE_OK);
    outcome o = requeue_job(c.id, c.token, "worker-crashed", true);
    CHECK(o.ended && o.state == API_STATE_CANCELED);
}

/* ---- Requeue */
static void a_requeue_gives_the_attempt_back(void)
{
    claim c = running(1);
    outcome o = requeue_job(c.id, c.token, "shutdown", false);
    CHECK(o.result == STORE_OK && !o.ended && o.state == API_STATE_QUEUED);
    store_job job = job_of(c.id);
    CHECK(job.attempt == 0 && job.crashes == 0 && job.boots == 0);
    CHECK(claim_one().attempt == 1);
    store_event *events;
    size_t count;
    CHECK(store_events(st, c.id, 2, &events, &count) == STORE_OK && count == 2);
    bool right = strcmp(events[0].data, "{\"reason\":\"shutdown\",\"attempt\":1}") == 0;
    store_events_free(events, count);
    CHECK(right);
}

static void three_crashes_alone_are_enough(void)
{
    claim c = running(1);
    for (uint32_t crash = 1; crash <= 3; crash++) {
        CHECK(c.attempt == crash);
        outcome o = requeue_job(c.id, c.token, "worker-crashed", true);
        CHECK(o.result == STORE_OK && o.ended == (crash == 3));
        clock_ms += 4000; /* the delay after a crash */
        if (crash < 3) {
            c = claim_one();
        }
    }
    store_job job = job_of(c.id);
    CHECK(job.state == API_STATE_FAILED && job.crashes == 3 && strcmp(job.error_code, "crashed") == 0);
    CHECK(strcmp(milestones(c.id), "queued,started,requeued,started,requeued,started,failed") == 0);
}

static void innocent_requeues_never_poison(void)
{
    claim c = running(1);
    for (int i = 0; i < 20; i++) {
        CHECK(!requeue_job(c.id, c.token, "worker-crashed", false).ended);
        c = claim_one();
        CHECK(c.attempt == 1);
    }
    CHECK(put_image(c.id, c.token, 0).ended);
}

/* ---- Milestones */
static void the_end_shows_the_job_as_it_is_read(void)
{
    claim c = running(1);
    CHECK(put_image(c.id, c.token, 0).ended);
    store_event *events;
    size_t count;
    CHECK(store_events(st, c.id, 3, &events, &count) == STORE_OK && count == 1);
    store_job job;
    CHECK(store_get(st, NULL, c.id, &job) == STORE_OK);
    store_image *images;
    size_t image_count;
    CHECK(store_images(st, c.id, &images, &image_count) == STORE_OK && image_count == 1);
    api_job_view view;
    store_job_view(&job, &images[0].view, 1, &view);
    char *body = api_event_ended(&view, "");
    bool same = strcmp(body, events[0].data) == 0;
    CHECK_MSG(same, "%.300s\nis not\n%.300s", events[0].data, body);
    CHECK(strstr(body, "\"done\":20,\"total\":20"));
    CHECK(strstr(body, "\"seed\":\"18446744073709551615\""));
    free(body);
    store_images_free(images, image_count);
    store_job_done(&job);
    store_events_free(events, count);
}

static void milestones_replay_byte_for_byte(void)
{
    claim c = running(2);
    CHECK(put_image(c.id, c.token, 0).result == STORE_OK);
    store_event *before, *after;
    size_t before_count, after_count;
    CHECK(store_events(st, c.id, 0, &before, &before_count) == STORE_OK && before_count == 3);
    options.base_path = "/elsewhere"; /* what was said stays said */
    CHECK_OK(open_store(), error);
    CHECK(store_events(st, c.id, 0, &after, &after_count) == STORE_OK && after_count == 4);
    bool same = true;
    for (size_t i = 0; i < before_count; i++) {
        same = same && before[i].seq == after[i].seq && strcmp(before[i].data, after[i].data) == 0;
    }
    store_events_free(before, before_count);
    store_events_free(after, after_count);
    CHECK(same);
}

static void milestones_after_a_number(void)
{
    claim c = running(1);
    store_event *events;
    size_t count;
    CHECK(store_events(st, c.id, 1, &events, &count) == STORE_OK && count == 1 && events[0].seq == 2);
    store_events_free(events, count);
    CHECK(store_events(st, c.id, 2, &events, &count) == STORE_OK && count == 0);
    store_events_free(events, count);
    CHECK(store_events(st, "aaaaaaaaaaaaaaaaaaaaaaaaaa", 0, &events, &count) == STORE_NONE);
}

static void the_last_crash_says_why(void)
{
    claim c = running(1);
    for (int crash = 1; crash <= 3; crash++) {
        store_request *r = job_request(STORE_REQUEUE, c.id, c.token);
        r->crashed_alone = true;
        snprintf(r->reason, sizeof r->reason, "worker-crashed");
        snprintf(r->error_detail, sizeof r->error_detail, "signal %d", 10 + crash);
        CHECK(finish_call(r).ended == (crash == 3));
        clock_ms += 4000;
        c = crash < 3 ? claim_one() : c;
    }
    store_job job;
    CHECK(store_get(st, NULL, c.id, &job) == STORE_OK);
    const bool told = job.error_detail && strstr(job.error_detail, "signal 13");
    CHECK_MSG(told, "%.200s", job.error_detail ? job.error_detail : "nothing");
    store_job_done(&job);
}

static const contract_case CASES[] = {
    CASE(the_last_image_ends_the_job),
    CASE(images_come_in_any_order),
    CASE(an_image_is_counted_once),
    CASE(an_index_beyond_n_is_refused),
    CASE(an_ended_job_takes_no_image),
    CASE(a_stale_token_changes_nothing),
    CASE(a_failure_says_why),
    CASE(cancel_while_queued),
    CASE(cancel_while_running),
    CASE(cancel_after_the_end),
    CASE(cancel_of_anothers_job),
    CASE(the_first_commit_wins),
    CASE(a_canceled_job_neither_fails_nor_requeues),
    CASE(a_requeue_gives_the_attempt_back),
    CASE(three_crashes_alone_are_enough),
    CASE(innocent_requeues_never_poison),
    CASE(the_end_shows_the_job_as_it_is_read),
    CASE(milestones_replay_byte_for_byte),
    CASE(milestones_after_a_number),
    CASE(the_last_crash_says_why),
};
CONTRACT_GROUP(contract_run, CASES)
