/* Comparisons of the random test. See model_compare.h. */
#include "tests/store/model_compare.h"

#include <stdarg.h>
#include <string.h>

#include "tests/store/contract.h"

void differ(comparison *c, const char *format, ...)
{
    va_list list;
    if (c->differs) {
        return;
    }
    va_start(list, format);
    vsnprintf(c->what, sizeof c->what, format, list);
    va_end(list);
    c->differs = true;
}

#define EXPECT(c, label, got, wanted)                                                                                                      \
    do {                                                                                                                                   \
        const long long got_ = (long long)(got), wanted_ = (long long)(wanted);                                                            \
        if (got_ != wanted_) {                                                                                                             \
            differ(c, "%s: %s is %lld, and should be %lld", label, #got, got_, wanted_);                                                   \
        }                                                                                                                                  \
    } while (0)

/* ---- Answers */
static const char *const OPS[] = {"enqueue", "claim", "image",     "fail",  "cancel",   "canceled done",
                                  "requeue", "purge", "retention", "model", "deadlines"};

static void compare_claimed(comparison *c, const model *m, const store_request *r, const model_answer *expected)
{
    EXPECT(c, OPS[r->op], r->claimed_count, expected->claimed_count);
    for (size_t i = 0; i < expected->claimed_count && !c->differs; i++) {
        const store_claimed *got = &r->claimed[i];
        const model_job *wanted = &m->jobs[expected->claimed[i].job];
        if (strcmp(got->job.id, wanted->id) != 0) {
            differ(c, "%s: number %zu is %s, and should be %s", OPS[r->op], i, got->job.id, wanted->id);
        }
        EXPECT(c, wanted->id, got->event_seq, expected->claimed[i].event_seq);
        EXPECT(c, wanted->id, got->job.token, expected->claimed[i].token);
        if (r->op == STORE_CLAIM) {
            EXPECT(c, wanted->id, got->job.attempt, expected->claimed[i].attempt);
            EXPECT(c, wanted->id, got->done_count, expected->claimed[i].done_count);
            EXPECT(c, wanted->id, got->job.run_at_ms, 0);
        }
    }
}

void compare_answer(comparison *c, const model *m, const store_request *r, const model_answer *expected)
{
    const char *label = r->id[0] ? r->id : OPS[r->op];
    char named[64];
    snprintf(named, sizeof named, "%s %s", OPS[r->op], r->id[0] ? label : "");
    EXPECT(c, named, r->result, expected->result);
    if (c->differs || (r->result != STORE_OK && r->result != STORE_ENDED && r->result != STORE_REPLAY)) {
        return;
    }
    EXPECT(c, named, r->event_seq, expected->event_seq);
    if (r->op == STORE_ENQUEUE) {
        EXPECT(c, named, r->id_count, expected->id_count);
        for (int i = 0; i < expected->id_count && !c->differs; i++) {
            if (strcmp(r->ids[i], m->jobs[expected->first + i].id) != 0) {
                differ(c, "%s: id %d is %s, and should be %s", named, i, r->ids[i], m->jobs[expected->first + i].id);
            }
        }
    } else if (r->op == STORE_CLAIM || r->op == STORE_DEADLINES) {
        compare_claimed(c, m, r, expected);
        EXPECT(c, named, r->staged, expected->staged);
    } else if (r->id[0]) {
        EXPECT(c, named, r->state_after, expected->state_after);
        EXPECT(c, named, r->job_ended, expected->job_ended);
    }
    if (r->op == STORE_DEADLINES || r->op == STORE_REQUEUE) {
        EXPECT(c, named, r->next_due_ms, expected->next_due_ms);
    }
    uint64_t files = 0;
    for (size_t i = 0; i < r->file_count; i++) {
        files += model_hash(r->files[i]);
    }
    EXPECT(c, named, r->file_count, expected->file_count);
    EXPECT(c, named, files, expected->files);
    EXPECT(c, named, r->more, false);
}

/* ---- A job */
static void compare_row(comparison *c, const model *m, const store_job *got, const model_job *j)
{
    EXPECT(c, j->id, got->state, j->state);
    EXPECT(c, j->id, got->cancel_requested, j->cancel_requested);
    EXPECT(c, j->id, got->expired, j->expired);
    EXPECT(c, j->id, got->priority, j->priority);
    EXPECT(c, j->id, got->cost, j->cost);
    EXPECT(c, j->id, got->created_ms, j->created_ms);
    EXPECT(c, j->id, got->started_ms, j->started_ms);
    EXPECT(c, j->id, got->finished_ms, j->finished_ms);
    EXPECT(c, j->id, got->expires_ms, j->expires_ms);
    EXPECT(c, j->id, got->run_at_ms, j->run_at_ms);
    EXPECT(c, j->id, got->attempt, j->attempt);
    EXPECT(c, j->id, got->crashes, j->crashes);
    EXPECT(c, j->id, got->boots, j->boots);
    EXPECT(c, j->id, got->token, j->token);
    EXPECT(c, j->id, got->n, j->n);
    EXPECT(c, j->id, got->images_done, j->images_done);
    EXPECT(c, j->id, strcmp(got->model, j->model), 0);
    EXPECT(c, j->id, strcmp(got->client, m->clients[j->client]), 0);
    EXPECT(c, j->id, strcmp(got->error_code, j->error_code), 0);
    EXPECT(c, j->id, got->request_json == NULL, j->expired);
}

static void compare_images(comparison *c, const model_job *j)
{
    store_image *images = NULL;
    size_t count = 0, at = 0;
    const store_result result = store_images(st, j->id, &images, &count);
    EXPECT(c, j->id, result, j->expired ? STORE_GONE : STORE_OK);
    if (result != STORE_OK) {
        return;
    }
    EXPECT(c, j->id, count, j->images_done);
    for (uint32_t i = 0; i < j->n && !c->differs; i++) {
        if (j->files[i][0]) {
            EXPECT(c, j->id, images[at].index, i);
            EXPECT(c, j->id, images[at].view.bytes, j->bytes[i]);
            EXPECT(c, j->files[i], strcmp(images[at].file, j->files[i]), 0);
            at++;
        }
    }
    store_images_free(images, count);
}

static void compare_events(comparison *c, const model_job *j, int64_t after)
{
    store_event *events = NULL;
    size_t count = 0;
    const store_result result = store_events(st, j->id, after, &events, &count);
    EXPECT(c, j->id, result, j->expired ? STORE_GONE : STORE_OK);
    if (result != STORE_OK) {
        return;
    }
    const int64_t all = (int64_t)strlen(j->events);
    EXPECT(c, j->id, count, all > after ? all - after : 0);
    for (size_t i = 0; i < count && !c->differs; i++) {
        EXPECT(c, j->id, events[i].seq, after + (int64_t)i + 1);
        EXPECT(c, j->id, model_event_letter(events[i].name), j->events[after + (int64_t)i]);
    }
    store_events_free(events, count);
}

void compare_job(comparison *c, const model *m, int job, int64_t after)
{
    const model_job *j = &m->jobs[job];
    store_job got = {0};
    int64_t jobs, place, cost;
    uint64_t cost_ahead;
    if (!j->there && model_find(m, j->id) >= 0) {
        return; /* another job has its id now */
    }
    const store_result result = store_get(st, NULL, j->id, &got);
    EXPECT(c, j->id, result, j->there ? STORE_OK : STORE_NONE);
    if (result == STORE_OK && j->there) {
        compare_row(c, m, &got, j);
        compare_images(c, j);
        compare_events(c, j, after);
        const bool queued = model_place(m, job, &place, &cost);
        EXPECT(c, j->id, store_queue_place(st, j->id, &jobs, &cost_ahead), queued ? STORE_OK : STORE_NONE);
        if (queued && !c->differs) {
            EXPECT(c, j->id, jobs, place);
            EXPECT(c, j->id, cost_ahead, cost);
        }
    }
    store_job_done(&got);
    EXPECT(c, j->id, store_get(st, "mallory", j->id, &got), STORE_NONE);
}

/* ---- Lists */
static bool listed_before(const model *m, int client, int a, int b)
{
    const model_job *x = &m->jobs[a], *y = &m->jobs[b];
    return client < 0 || x->created_ms == y->created_ms ? a > b : x->created_ms > y->created_ms;
}

/* The next job of the list behind `last` (-1: the first); -1: none. */
static int next_listed(const model *m, int client, int state, const char *model_name, int last)
{
    int best = -1;
    for (int i = 0; i < (int)m->job_count; i++) {
        const model_job *j = &m->jobs[i];
        const bool fits = j->there && !j->expired && (client < 0 || j->client == client) && (state < 0 || (int)j->state == state) &&
                          (!model_name || strcmp(j->model, model_name) == 0);
        if (fits && (last < 0 || listed_before(m, client, last, i)) && (best < 0 || listed_before(m, client, i, best))) {
            best = i;
        }
    }
    return best;
}

/* One page from the cursor kept in *c; it stands behind the page afterwards, "" at the end. */
static void compare_page(comparison *c, const model *m, uint32_t limit)
{
    store_job *jobs = NULL;
    size_t count = 0;
    const api_state state = (api_state)c->state;
    const store_result result = store_list(st, c->client < 0 ? NULL : m->clients[c->client], c->state < 0 ? NULL : &state, c->model,
                                           c->cursor, limit, &jobs, &count, c->cursor);
    EXPECT(c, "list", result, STORE_OK);
    for (size_t i = 0; result == STORE_OK && i < count; i++) {
        const int wanted = next_listed(m, c->client, c->state, c->model, c->last);
        if (wanted < 0 || strcmp(jobs[i].id, m->jobs[wanted].id) != 0) {
            differ(c, "a list has %s, where %s should be", jobs[i].id, wanted < 0 ? "nothing" : m->jobs[wanted].id);
        } else {
            compare_row(c, m, &jobs[i], &m->jobs[wanted]);
        }
        c->last = wanted;
        store_job_done(&jobs[i]);
    }
    free(jobs);
    if (!c->differs) {
        const bool more = next_listed(m, c->client, c->state, c->model, c->last) >= 0;
        EXPECT(c, "list", count < limit && more, 0);
        EXPECT(c, "list", c->cursor[0] != 0, more);
    }
}

void compare_list(comparison *c, const model *m, int client, int state, const char *model_name, uint32_t limit, bool go_on)
{
    if (go_on && c->cursor[0]) {
        compare_page(c, m, limit);
        return;
    }
    c->cursor[0] = 0;
    c->client = client;
    c->state = state;
    c->model = model_name;
    c->last = -1;
    do {
        compare_page(c, m, limit);
    } while (!go_on && c->cursor[0] && !c->differs);
}

void compare_stats(comparison *c, const model *m)
{
    store_stats got, wanted;
    EXPECT(c, "stats", store_get_stats(st, &got), STORE_OK);
    model_stats(m, &wanted);
    for (int i = 0; i < 5 && !c->differs; i++) {
        EXPECT(c, api_state_name((api_state)i), got.jobs[i], wanted.jobs[i]);
    }
    EXPECT(c, "stats", got.queued_cost, wanted.queued_cost);
    EXPECT(c, "stats", got.image_bytes, wanted.image_bytes);
}

void compare_description(comparison *c, const char *name, const char *expected)
{
    char *json = NULL;
    const store_result result = store_model(st, name, &json);
    EXPECT(c, name, result, expected[0] ? STORE_OK : STORE_NONE);
    if (result == STORE_OK && strcmp(json, expected) != 0) {
        differ(c, "model %s is %s, and should be %s", name, json, expected);
    }
    free(json);
}
