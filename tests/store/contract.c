/* The calls of contract.h. The place of the store, and how it is opened, are the adapter's. */
#include "tests/store/contract.h"

#include <stdatomic.h>
#include <unistd.h>

store *st;
store_options options;
int64_t clock_ms;
dn_error error;

static const store_adapter *adapter = &ADAPTER_SQLITE;
static atomic_uint next_id;

static int64_t test_clock(void *unused)
{
    (void)unused;
    return clock_ms;
}

void use_adapter(const store_adapter *which)
{
    end_store_tests();
    adapter = which;
}

void close_store(void)
{
    store_close(st);
    st = NULL;
}

void new_place(void)
{
    end_store_tests();
    clock_ms = CONTRACT_BEGAN_MS;
    options = (store_options){.base_path = "", .now_ms = test_clock, .keep_ms = 7 * DAY_MS};
    if (!adapter->create(&options)) {
        perror(adapter->name);
        exit(1);
    }
}

dn_status open_store(void)
{
    close_store();
    return adapter->open(&st, &options, &error);
}

bool fresh(void)
{
    new_place();
    return open_store() == DN_OK;
}

void end_store_tests(void)
{
    close_store();
    adapter->destroy();
}

/* ids count up in base 32: distinct, valid, in order. */
void make_id(char out[27])
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
    memset(out, 'a', 26);
    out[26] = 0;
    unsigned value = atomic_fetch_add(&next_id, 1) + 1;
    for (int i = 25; value; i--, value /= 32) {
        out[i] = digits[value % 32];
    }
}

void reset_ids(void)
{
    atomic_store(&next_id, 0);
}

store_request *enqueue_request(spec p)
{
    store_request *r = store_request_create(STORE_ENQUEUE, NULL, NULL);
    r->job_count = p.jobs ? p.jobs : 1;
    r->jobs = calloc(r->job_count, sizeof *r->jobs);
    snprintf(r->client, sizeof r->client, "%s", p.client ? p.client : "alice");
    snprintf(r->key, sizeof r->key, "%s", p.key ? p.key : "");
    memset(r->fingerprint, p.print, sizeof r->fingerprint);
    for (size_t i = 0; i < r->job_count; i++) {
        make_id(r->jobs[i].id);
        snprintf(r->jobs[i].model, sizeof r->jobs[i].model, "%s", p.model ? p.model : "m");
        r->jobs[i].priority = p.priority;
        r->jobs[i].cost = p.cost ? p.cost : 20;
        r->jobs[i].n = p.n ? p.n : 1;
        r->jobs[i].deadline_ms = p.deadline_ms;
        r->jobs[i].request_json = strdup(REQUEST_JSON);
    }
    return r;
}

/* Enqueues; the first id comes out. */
store_result enqueue(char id[27], spec p)
{
    store_request *r = enqueue_request(p);
    store_result result = store_call(st, r);
    if (r->id_count) {
        memcpy(id, r->ids[0], 27);
    }
    store_request_free(r);
    return result;
}

/* A queued job's place; -1: not queued. */
int64_t position(const char *id)
{
    int64_t jobs;
    uint64_t cost;
    return store_queue_place(st, id, &jobs, &cost) == STORE_OK ? jobs : -1;
}

store_result cost_before(const char *id, uint64_t *cost)
{
    int64_t jobs;
    return store_queue_place(st, id, &jobs, cost);
}

/* Claims up to max (at most 64); how many came. */
size_t claim_jobs(claim *out, uint32_t max, const char *const *models)
{
    store_request *r = store_request_create(STORE_CLAIM, NULL, NULL);
    r->claim_max = max;
    r->models = models;
    r->device = "cpu";
    size_t count = store_call(st, r) == STORE_OK ? r->claimed_count : 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(out[i].id, r->claimed[i].job.id, 27);
        out[i].token = r->claimed[i].job.token;
        out[i].attempt = r->claimed[i].job.attempt;
        out[i].done_count = r->claimed[i].done_count;
        out[i].n = r->claimed[i].job.n;
    }
    store_request_free(r);
    return count;
}

claim claim_one(void)
{
    claim c = {.id = "none"};
    claim_jobs(&c, 1, NULL);
    return c;
}

outcome finish_call(store_request *r)
{
    store_call(st, r);
    outcome o = {r->result, r->job_ended, r->state_after, r->event_seq, r->file_count};
    store_request_free(r);
    return o;
}

store_request *job_request(store_op op, const char *id, int64_t token)
{
    store_request *r = store_request_create(op, NULL, NULL);
    snprintf(r->id, sizeof r->id, "%.26s", id);
    r->token = token;
    return r;
}

store_request *image_request(const char *id, int64_t token, uint32_t index, const char *suffix)
{
    store_request *r = job_request(STORE_IMAGE, id, token);
    r->image.index = index;
    r->image.view =
        (api_image_view){.index = index, .seed = UINT64_MAX, .width = 32, .height = 32, .bytes = 1000, .device = "cpu", .build = "b"};
    memset(r->image.view.sha256, 'a', 64);
    memset(r->image.view.pixels_sha256, 'b', 64);
    snprintf(r->image.file, sizeof r->image.file, "%.26s-%u-%lld%.20s.png", id, index, (long long)token, suffix);
    return r;
}

outcome put_image(const char *id, int64_t token, uint32_t index)
{
    return finish_call(image_request(id, token, index, ""));
}

outcome fail_job(const char *id, int64_t token)
{
    store_request *r = job_request(STORE_FAIL, id, token);
    snprintf(r->error_code, sizeof r->error_code, "engine");
    snprintf(r->error_detail, sizeof r->error_detail, "a number was not finite");
    return finish_call(r);
}

outcome cancel_job(const char *client, const char *id)
{
    store_request *r = job_request(STORE_CANCEL, id, 0);
    snprintf(r->client, sizeof r->client, "%s", client);
    return finish_call(r);
}

outcome canceled_done(const char *id, int64_t token)
{
    return finish_call(job_request(STORE_CANCELED_DONE, id, token));
}

outcome purge_job(const char *client, const char *id)
{
    store_request *r = job_request(STORE_PURGE, id, 0);
    snprintf(r->client, sizeof r->client, "%s", client);
    return finish_call(r);
}

outcome requeue_job(const char *id, int64_t token, const char *reason, bool crashed)
{
    store_request *r = job_request(STORE_REQUEUE, id, token);
    snprintf(r->reason, sizeof r->reason, "%s", reason);
    r->crashed_alone = crashed;
    return finish_call(r);
}

outcome retain(int64_t keep_ms, uint64_t keep_bytes)
{
    store_request *r = store_request_create(STORE_RETENTION, NULL, NULL);
    r->keep_ms = keep_ms;
    r->keep_bytes = keep_bytes;
    return finish_call(r);
}

/* A job as a value without its text: enough for most checks. state -1: not found. */
store_job job_of(const char *id)
{
    store_job job = {0};
    store_result result = store_get(st, NULL, id, &job);
    store_job copy = job;
    copy.request_json = copy.error_detail = NULL;
    if (result != STORE_OK) {
        copy.state = (api_state)-1;
    } else {
        store_job_done(&job);
    }
    return copy;
}

/* The names of a job's milestones, comma separated. */
const char *milestones(const char *id)
{
    static char text[1024];
    store_event *events = NULL;
    size_t count = 0, used = 0;
    text[0] = 0;
    if (store_events(st, id, 0, &events, &count) != STORE_OK) {
        return "?";
    }
    for (size_t i = 0; i < count; i++) {
        bool in_order = events[i].seq == (int64_t)i + 1;
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%s", i ? "," : "", events[i].name, in_order ? "" : "!");
    }
    store_events_free(events, count);
    return text;
}

bool file_exists(const char *inside, const char *name)
{
    char *path = store_path(st, inside, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}
