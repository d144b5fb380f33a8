/* GET /jobs, GET /jobs/{id} (with Prefer: wait) and DELETE /jobs/{id}. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/negotiate.h"
#include "server/fault.h"
#include "server/service.h"

/* ---- GET /jobs */

static bool parse_list_query(http_request *request, uint32_t *limit, api_state *state, bool *has_state, api_problem *problem)
{
    const char *text = http_query(request, "limit");
    *limit = API_LIST_LIMIT;
    *has_state = false;
    if (text != NULL) {
        size_t digits = strspn(text, "0123456789");
        unsigned long value = digits > 0 && digits <= 3 && text[digits] == '\0' ? strtoul(text, NULL, 10) : 0;
        if (value < 1 || value > API_LIST_LIMIT_MAX) {
            return api_refuse(problem, API_INVALID_FIELD, "limit", "limit must be an integer from 1 to %d", API_LIST_LIMIT_MAX);
        }
        *limit = (uint32_t)value;
    }
    text = http_query(request, "state");
    if (text != NULL) {
        if (!api_state_parse(text, state)) {
            return api_refuse(problem, API_INVALID_FIELD, "state", "state must be queued, running, succeeded, failed or canceled");
        }
        *has_state = true;
    }
    text = http_query(request, "model");
    if (text != NULL && !api_model_name_valid(text)) {
        return api_refuse(problem, API_INVALID_FIELD, "model", "model must be a name of 1 to %d letters, digits and . _ -",
                          API_MODEL_NAME_BYTES_MAX);
    }
    return true;
}

static char *list_body(service *s, store_job *jobs, size_t count, const char *cursor)
{
    job_view *held = calloc(count + 1, sizeof *held);
    api_job_view *views = calloc(count + 1, sizeof *views);
    char *body = NULL;
    size_t made = 0;
    bool fine = held != NULL && views != NULL;
    for (size_t i = 0; fine && i < count; i++) {
        store_result result = job_view_make(&held[made], s, &jobs[i]);
        if (result == STORE_OK) {
            views[made] = held[made].view;
            made++;
        } else {
            fine = result == STORE_GONE || result == STORE_NONE; /* expired since the list was read: it is left out */
        }
    }
    if (fine) {
        body = api_list_body(views, made, cursor[0] != '\0' ? cursor : NULL, s->base_path);
    }
    for (size_t i = 0; i < made; i++) {
        job_view_done(&held[i]);
    }
    free(held);
    free(views);
    return body;
}

void route_jobs_list(http_request *request)
{
    service *s = request->application;
    api_problem problem = {0};
    api_state state = API_STATE_QUEUED;
    bool has_state = false;
    uint32_t limit = 0;
    store_job *jobs = NULL;
    size_t count = 0;
    char next[64] = "";
    if (!parse_list_query(request, &limit, &state, &has_state, &problem)) {
        http_problem(request, &problem);
        return;
    }
    store_result result = store_list(s->store, route_reach(request), has_state ? &state : NULL, http_query(request, "model"),
                                     http_query(request, "cursor"), limit, &jobs, &count, next);
    if (result == STORE_NONE) {
        http_refuse(request, API_BAD_CURSOR, "cursor must be a next_cursor that this service gave");
    } else if (result != STORE_OK) {
        http_refuse(request, API_INTERNAL, "the store could not be read");
    } else {
        http_answer_json(request, 200, list_body(s, jobs, count, next));
    }
    for (size_t i = 0; i < count; i++) {
        store_job_done(&jobs[i]);
    }
    free(jobs);
}

/* ---- GET /jobs/{id} */

typedef struct get_state {
    waiter waiter;
    char ids[1][27];
} get_state;

static void get_state_free(void *payload)
{
    get_state *g = payload;
    waiter_done(&g->waiter);
    free(g);
}

static bool begin_wait(http_request *request, unsigned seconds)
{
    get_state *g = calloc(1, sizeof *g);
    if (g == NULL) {
        return false;
    }
    memcpy(g->ids[0], request->segment[0], sizeof g->ids[0]);
    if (!waiter_begin(&g->waiter, request->application, request, g->ids, 1, seconds)) {
        free(g);
        return false;
    }
    request->state = g;
    request->state_free = get_state_free;
    return true;
}

void route_job_get(http_request *request)
{
    service *s = request->application;
    job_view held;
    unsigned seconds = 0;
    bool ended = false;
    if (request->state == NULL) {
        store_result result = job_view_get(&held, s, route_reach(request), request->segment[0]);
        if (result != STORE_OK) {
            route_missing(request, result);
            return;
        }
        http_add_header(request, "Vary", "Accept, Prefer");
        bool asked = api_prefer_wait(http_header(request, "Prefer"), &seconds) == 1;
        bool ended_already = api_state_ended(held.job.state), waits = asked && !ended_already && begin_wait(request, seconds);
        if (asked && (waits || ended_already)) {
            http_add_header(request, "Preference-Applied", "wait=%u", seconds);
        }
        if (!waits) {
            if (!api_state_ended(held.job.state)) {
                http_add_header(request, "Retry-After", "%u", job_retry_after(&held));
            }
            http_answer_json(request, 200, api_job_body(&held.view, s->base_path));
            job_view_done(&held);
            return;
        }
        job_view_done(&held);
    }
    if (waiter_over(&((get_state *)request->state)->waiter, &ended)) {
        route_job(request, ended ? 200 : 202, request->segment[0]);
    }
}

/* ---- DELETE /jobs/{id} */

typedef struct delete_state {
    store_request *cancel, *purge;
} delete_state;

static void delete_state_free(void *payload)
{
    delete_state *d = payload;
    store_request_free(d->cancel);
    store_request_free(d->purge);
    free(d);
}

static void on_written(store_request *done)
{
    http_resume(done->payload);
}

/* A write about the request's job, not yet given to the store; NULL: refused and answered. */
static store_request *make_write(http_request *request, store_op op)
{
    service *s = request->application;
    store_request *write = store_request_create(op, on_written, request);
    if (write == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return NULL;
    }
    if ((request->who.scopes & AUTH_ADMIN) == 0) { /* "" is anybody's */
        memcpy(write->client, request->client, sizeof write->client);
    }
    memcpy(write->id, request->segment[0], sizeof write->id);
    write->base_path = s->base_path;
    return write;
}

static void log_canceled(service *s, const char *id)
{
    store_job job;
    if (store_get(s->store, NULL, id, &job) == STORE_OK) {
        job_log_ended(&job, "canceled", "", 0);
        store_job_done(&job);
    }
}

void route_canceled(service *s, const store_request *done)
{
    if (done->state_after == API_STATE_RUNNING) {
        dispatcher_cancel(s->dispatcher, done->id);
    } else {
        hub_milestone(s->hub, done->id, done->event_seq, true);
        hub_forget(s->hub, done->id);
        hub_queue_moved(s->hub);
        metrics_add(s->metrics, METRIC_JOBS_CANCELED, 1);
        log_canceled(s, done->id);
    }
}

/* What the cancel came to. False: refused and answered. */
static bool canceled(http_request *request, delete_state *d)
{
    service *s = request->application;
    store_request *done = d->cancel;
    if (done->result != STORE_OK && done->result != STORE_ENDED) {
        route_store_refusal(request, s, done);
        return false;
    }
    if (done->result == STORE_OK) {
        route_canceled(s, done);
    }
    return true;
}

/* Gives a write to the store; the request sleeps until its outcome is known. */
static void submit(http_request *request, store_request *write)
{
    service *s = request->application;
    http_suspend(request, -1.0);
    store_submit(s->store, write);
}

/* The store asks a running job to let go and remembers that its files are to be deleted; those of any other are, now. */
static void begin_purge(http_request *request, delete_state *d)
{
    d->purge = make_write(request, STORE_PURGE);
    if (d->purge != NULL) {
        submit(request, d->purge);
    }
}

static void purged(http_request *request, delete_state *d)
{
    service *s = request->application;
    if (d->purge->result != STORE_OK) {
        route_store_refusal(request, s, d->purge);
        return;
    }
    if (!d->purge->job_ended) {
        route_job(request, 0, request->segment[0]);
        return;
    }
    for (size_t i = 0; i < d->purge->file_count; i++) {
        char *path = store_path(s->store, "", d->purge->files[i]);
        if (path != NULL) {
            unlink(path);
            fault_point("purge_after_unlink");
        }
        free(path);
    }
    http_answer_json(request, 200, d->purge->job_body);
    d->purge->job_body = NULL;
}

static void begin_delete(http_request *request)
{
    delete_state *d = calloc(1, sizeof *d);
    if (d == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    request->state = d;
    request->state_free = delete_state_free;
    d->cancel = make_write(request, STORE_CANCEL);
    if (d->cancel != NULL) {
        submit(request, d->cancel);
    }
}

void route_job_delete(http_request *request)
{
    delete_state *d = request->state;
    bool purge = false;
    if (!route_flag(request, "purge", false, &purge)) {
        return;
    }
    if (d == NULL && !api_id_valid(request->segment[0])) {
        route_missing(request, STORE_NONE);
    } else if (d == NULL) {
        begin_delete(request);
    } else if (d->purge != NULL) {
        purged(request, d);
    } else if (canceled(request, d)) {
        if (purge) {
            begin_purge(request, d);
        } else {
            route_job(request, 0, request->segment[0]);
        }
    }
}
