/* Lists with a cursor, filters, and totals that agree with them. */
#include "tests/store/contract.h"

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

/* Everything there is, page by page, while jobs come and go: whoever stays is seen exactly once. */
static void pages_hold_still_while_jobs_come_and_go(void)
{
    char ids[20][27], id[27];
    CHECK(fresh());
    for (int i = 0; i < 20; i++) {
        clock_ms += i % 3 == 0;
        CHECK(enqueue(ids[i], (spec){0}) == STORE_OK);
    }
    for (int everybody = 0; everybody < 2; everybody++) {
        int seen[20] = {0};
        page p = {0};
        int gone = 10 * everybody;
        do {
            p = list(everybody ? NULL : "alice", NULL, NULL, p.next, 3);
            CHECK(p.result == STORE_OK);
            for (size_t i = 0; i < p.count; i++) {
                for (int k = 0; k < 20; k++) {
                    seen[k] += strcmp(p.ids[i], ids[k]) == 0;
                }
            }
            CHECK(enqueue(id, (spec){0}) == STORE_OK);
            if (gone < 10 * everybody + 5) {
                CHECK(purge_job("alice", ids[gone]).result == STORE_OK);
                gone += 1;
            }
            clock_ms += 1;
        } while (p.next[0]);
        for (int k = everybody ? 15 : 5; k < 20; k++) {
            CHECK_MSG(seen[k] == 1, "job %d was seen %d times", k, seen[k]);
        }
    }
}

static void filters_go_on_over_pages(void)
{
    char id[27];
    CHECK(fresh());
    for (int i = 0; i < 30; i++) {
        clock_ms += 1;
        CHECK(enqueue(id, (spec){.model = i % 3 ? "x" : "y"}) == STORE_OK);
        if (i % 2) {
            CHECK(cancel_job("alice", id).ended);
        }
    }
    const api_state canceled = API_STATE_CANCELED;
    size_t seen = 0;
    page p = {0};
    do {
        p = list("alice", &canceled, "y", p.next, 2);
        CHECK(p.result == STORE_OK && p.count <= 2);
        seen += p.count;
    } while (p.next[0]);
    CHECK_MSG(seen == 5, "%zu", seen);
}

static void a_list_tells_whole_jobs(void)
{
    char id[27];
    CHECK(fresh() && enqueue(id, (spec){.n = 2, .cost = 8, .priority = 4}) == STORE_OK);
    const claim c = claim_one();
    CHECK(put_image(id, c.token, 1).result == STORE_OK && fail_job(id, c.token).ended);
    store_job *jobs, one;
    size_t count;
    char next[64];
    CHECK(store_list(st, "alice", NULL, NULL, NULL, 5, &jobs, &count, next) == STORE_OK && count == 1);
    CHECK(store_get(st, "alice", id, &one) == STORE_OK);
    const bool same = strcmp(jobs[0].id, one.id) == 0 && jobs[0].state == one.state && jobs[0].images_done == 1 && jobs[0].cost == 8 &&
                      jobs[0].priority == 4 && jobs[0].finished_ms == one.finished_ms && jobs[0].expires_ms == one.expires_ms &&
                      strcmp(jobs[0].request_json, one.request_json) == 0 && strcmp(jobs[0].error_code, "engine") == 0 &&
                      strcmp(jobs[0].error_detail, one.error_detail) == 0;
    store_job_done(&jobs[0]);
    store_job_done(&one);
    free(jobs);
    CHECK(same);
}

/* ---- Totals */
static bool totals_are_those_of_a_scan(void)
{
    store_stats told, counted = {0};
    page p = {0};
    bool fine = store_get_stats(st, &told) == STORE_OK;
    do {
        store_job *jobs = NULL;
        fine = fine && store_list(st, NULL, NULL, NULL, p.next, 100, &jobs, &p.count, p.next) == STORE_OK;
        for (size_t i = 0; fine && i < p.count; i++) {
            store_image *images = NULL;
            size_t count = 0;
            counted.jobs[jobs[i].state]++;
            counted.queued_cost += jobs[i].state == API_STATE_QUEUED ? jobs[i].cost : 0;
            fine = store_images(st, jobs[i].id, &images, &count) == STORE_OK && count == jobs[i].images_done;
            for (size_t k = 0; k < count; k++) {
                counted.image_bytes += images[k].view.bytes;
            }
            store_images_free(images, count);
            store_job_done(&jobs[i]);
        }
        free(jobs);
    } while (fine && p.next[0]);
    return fine && memcmp(&told, &counted, sizeof told) == 0;
}

static void totals_agree_with_a_scan(void)
{
    char id[27];
    CHECK(fresh());
    CHECK(totals_are_those_of_a_scan());
    CHECK(enqueue(id, (spec){.n = 2, .cost = 7, .jobs = 60}) == STORE_OK);
    for (int i = 0; i < 48; i++) {
        const claim c = claim_one();
        bool fine = true;
        if (i % 6 == 0) {
            fine = put_image(c.id, c.token, 0).result == STORE_OK && put_image(c.id, c.token, 1).ended;
        } else if (i % 6 == 1) {
            fine = fail_job(c.id, c.token).ended;
        } else if (i % 6 == 2) {
            fine = requeue_job(c.id, c.token, "shutdown", i % 12 == 2).result == STORE_OK;
        } else if (i % 6 == 3) {
            fine = put_image(c.id, c.token, 1).result == STORE_OK && cancel_job("alice", c.id).result == STORE_OK;
        } else if (i % 6 == 4) {
            fine = canceled_done(c.id, c.token).ended;
        }
        CHECK(fine && totals_are_those_of_a_scan());
    }
    CHECK_OK(open_store(), error);
    CHECK(totals_are_those_of_a_scan());
}

static const contract_case CASES[] = {
    CASE(newest_first_in_pages),
    CASE(an_exact_page_has_no_next),
    CASE(a_cursor_survives_deletions),
    CASE(a_bad_cursor_is_refused),
    CASE(lists_filter),
    CASE(pages_hold_still_while_jobs_come_and_go),
    CASE(filters_go_on_over_pages),
    CASE(a_list_tells_whole_jobs),
    CASE(totals_agree_with_a_scan),
};
CONTRACT_GROUP(contract_lists, CASES)
