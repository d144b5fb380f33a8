/* The outbox: what is to be delivered about ends of jobs, from the transaction that ends one to the last try. */
#include "tests/store/contract.h"

#define WEBHOOK_JSON                                                                                                                       \
    "{\"model\":\"m\",\"class_label\":null,\"class_name\":null,\"guidance_scale\":1.0,\"steps\":20,\"sampler\":\"ddim\","                  \
    "\"seed\":\"1\",\"n\":1,\"priority\":0,\"webhook\":\"https://example.com/hook\"}"

static store_result enqueue_told(char id[27])
{
    store_request *r = enqueue_request((spec){.n = 1});
    free(r->jobs[0].request_json);
    r->jobs[0].request_json = strdup(WEBHOOK_JSON);
    memcpy(id, r->jobs[0].id, 27);
    const store_result result = store_call(st, r);
    store_request_free(r);
    return result;
}

static store_result mark(int64_t row, bool delivered, int64_t next_ms)
{
    store_request *r = store_request_create(STORE_DELIVERY, NULL, NULL);
    r->delivery_row = row;
    r->delivered = delivered;
    r->next_try_ms = next_ms;
    snprintf(r->error_detail, sizeof r->error_detail, "answered with status 500");
    const store_result result = store_call(st, r);
    store_request_free(r);
    return result;
}

/* The one delivery that is due; its row, or 0 when there is none, or -1 when there are others. */
static int64_t due(const char *id, uint32_t attempt, const char *event)
{
    store_delivery *list = NULL;
    size_t count = 0;
    if (store_deliveries(st, 10, &list, &count) != STORE_OK)
        return -1;
    int64_t row = count == 0 ? 0 : -1;
    if (count == 1 && strcmp(list[0].id, id) == 0 && list[0].attempt == attempt && strcmp(list[0].event, event) == 0 &&
        strcmp(list[0].url, "https://example.com/hook") == 0 && strstr(list[0].data, id) && list[0].finished_ms > 0)
        row = list[0].row;
    store_deliveries_free(list, count);
    return row;
}

static bool stands(const char *id, uint32_t attempts, bool delivered, bool given_up)
{
    store_delivery_state state;
    return store_delivery_of(st, id, &state) == STORE_OK && state.attempts == attempts && state.delivered == delivered &&
           state.given_up == given_up;
}

static void an_end_is_due_at_once(void)
{
    char id[27], plain[27];
    store_delivery_state state;
    CHECK(fresh() && enqueue_told(id) == STORE_OK && enqueue(plain, (spec){.n = 1}) == STORE_OK);
    CHECK(due(id, 0, "") == 0 && store_delivery_of(st, id, &state) == STORE_NONE);
    const claim first = claim_one(), second = claim_one();
    CHECK(put_image(first.id, first.token, 0).ended && put_image(second.id, second.token, 0).ended);
    CHECK(due(id, 0, "succeeded") > 0 && stands(id, 0, false, false));
    CHECK(store_delivery_of(st, plain, &state) == STORE_NONE);
}

static void every_kind_of_end_is_due(void)
{
    char id[27];
    CHECK(fresh() && enqueue_told(id) == STORE_OK);
    claim c = claim_one();
    CHECK(fail_job(id, c.token).ended && mark(due(id, 0, "failed"), true, 0) == STORE_OK);
    CHECK(enqueue_told(id) == STORE_OK && finish_call(job_request(STORE_CANCEL, id, 0)).result == STORE_OK);
    CHECK(mark(due(id, 0, "canceled"), true, 0) == STORE_OK);
    CHECK(enqueue_told(id) == STORE_OK);
    c = claim_one();
    CHECK(finish_call(job_request(STORE_CANCEL, id, 0)).result == STORE_OK && due(id, 0, "") == 0);
    CHECK(finish_call(job_request(STORE_CANCELED_DONE, id, c.token)).ended && due(id, 0, "canceled") > 0);
}

static void a_stale_end_is_not_told(void)
{
    char id[27];
    CHECK(fresh() && enqueue_told(id) == STORE_OK);
    const claim c = claim_one();
    CHECK(put_image(id, c.token + 1, 0).result == STORE_STALE && fail_job(id, c.token + 1).result == STORE_STALE && due(id, 0, "") == 0);
}

static void a_delivered_one_is_done_with(void)
{
    char id[27];
    CHECK(fresh() && enqueue_told(id) == STORE_OK);
    const claim c = claim_one();
    CHECK(put_image(id, c.token, 0).ended);
    const int64_t row = due(id, 0, "succeeded");
    CHECK(row > 0 && mark(row, true, 0) == STORE_OK && due(id, 1, "") == 0 && stands(id, 1, true, false));
    CHECK(mark(row, false, clock_ms) == STORE_OK && stands(id, 1, true, false)); /* a late word changes nothing */
    CHECK(open_store() == DN_OK && due(id, 1, "") == 0 && stands(id, 1, true, false));
}

static void a_failed_one_waits_for_its_time(void)
{
    char id[27];
    CHECK(fresh() && enqueue_told(id) == STORE_OK);
    const claim c = claim_one();
    CHECK(put_image(id, c.token, 0).ended);
    const int64_t row = due(id, 0, "succeeded");
    CHECK(mark(row, false, clock_ms + 5000) == STORE_OK && due(id, 1, "") == 0);
    clock_ms += 4999;
    CHECK(open_store() == DN_OK && due(id, 1, "") == 0);
    clock_ms += 1;
    CHECK(due(id, 1, "succeeded") == row);
    CHECK(mark(row, false, 0) == STORE_OK && stands(id, 2, false, true));
    clock_ms += 1ll << 50;
    CHECK(due(id, 2, "") == 0);
}

static void an_expired_job_is_not_told(void)
{
    char id[27];
    store_delivery_state state;
    CHECK(fresh() && enqueue_told(id) == STORE_OK);
    const claim c = claim_one();
    CHECK(put_image(id, c.token, 0).ended && due(id, 0, "succeeded") > 0);
    CHECK(finish_call(job_request(STORE_PURGE, id, 0)).result == STORE_OK);
    CHECK(due(id, 0, "") == 0 && store_delivery_of(st, id, &state) == STORE_NONE);
}

/* Where somebody is there to tell it: else it would stay for ever. */
static void retention_passes_over_an_end_that_is_yet_to_be_told(void)
{
    char id[27];
    for (int by_bytes = 0; by_bytes < 2; by_bytes++) {
        CHECK(fresh() && enqueue_told(id) == STORE_OK);
        const claim c = claim_one();
        CHECK(put_image(id, c.token, 0).ended);
        char other[27];
        CHECK(enqueue(other, (spec){.n = 1}) == STORE_OK);
        CHECK(put_image(other, claim_one().token, 0).ended);
        clock_ms += 10000;
        store_request *r = store_request_create(STORE_RETENTION, NULL, NULL);
        r->keep_ms = by_bytes ? 0 : 1000;
        r->keep_bytes = by_bytes ? 1 : 0;
        r->untold_stay = true;
        CHECK(store_call(st, r) == STORE_OK && !job_of(id).expired && job_of(other).expired);
        const int64_t row = due(id, 0, "succeeded");
        CHECK(row > 0 && mark(row, false, by_bytes ? 0 : clock_ms + 5000) == STORE_OK);
        CHECK(store_call(st, r) == STORE_OK && job_of(id).expired == by_bytes); /* given up, or to be tried again */
        r->untold_stay = false;
        CHECK(store_call(st, r) == STORE_OK && job_of(id).expired);
        store_request_free(r);
    }
}

static void the_longest_due_come_first(void)
{
    char ids[3][27];
    store_delivery *list = NULL;
    size_t count = 0;
    CHECK(fresh());
    for (int i = 0; i < 3; i++) {
        CHECK(enqueue_told(ids[i]) == STORE_OK);
        const claim c = claim_one();
        clock_ms += 10;
        CHECK(put_image(c.id, c.token, 0).ended);
    }
    CHECK(store_deliveries(st, 2, &list, &count) == STORE_OK && count == 2);
    CHECK(strcmp(list[0].id, ids[0]) == 0 && strcmp(list[1].id, ids[1]) == 0);
    store_deliveries_free(list, count);
}

static const contract_case CASES[] = {
    CASE(an_end_is_due_at_once),           CASE(every_kind_of_end_is_due),
    CASE(a_stale_end_is_not_told),         CASE(a_delivered_one_is_done_with),
    CASE(a_failed_one_waits_for_its_time), CASE(an_expired_job_is_not_told),
    CASE(the_longest_due_come_first),      CASE(retention_passes_over_an_end_that_is_yet_to_be_told),
};
CONTRACT_GROUP(contract_outbox, CASES)
