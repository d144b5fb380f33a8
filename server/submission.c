/* See submission.h. */
#include "server/log.h"
#include "server/submission.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/negotiate.h"
#include "base/clock.h"

static void on_enqueued(store_request *done)
{
    http_resume(done->payload);
}

bool submission_open(submission *out, http_request *request, api_problem *problem)
{
    service *s = request->application;
    out->request = request;
    if (atomic_load(&s->draining)) {
        api_refuse(problem, API_DRAINING, "", "the daemon is draining and takes no new jobs");
        problem->retry_after_seconds = 5;
        return false;
    }
    out->enqueue = store_request_create(STORE_ENQUEUE, on_enqueued, request);
    if (out->enqueue == NULL) {
        return api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    memcpy(out->enqueue->client, request->client, sizeof out->enqueue->client);
    out->enqueue->pending_jobs_max = request->who.pending_jobs;
    out->enqueue->base_path = s->base_path;
    return true;
}

bool submission_check_key(submission *sub, api_problem *problem)
{
    const char *key = http_header(sub->request, "Idempotency-Key");
    if (http_header(sub->request, "Content-Encoding") != NULL) {
        return api_refuse(problem, API_UNSUPPORTED_MEDIA_TYPE, "", "the body must not be encoded");
    }
    if (key != NULL) {
        size_t length = strlen(key);
        bool printable = length >= 1 && length <= API_KEY_BYTES_MAX;
        for (size_t i = 0; i < length && printable; i++) {
            printable = key[i] >= 32 && key[i] < 127;
        }
        if (!printable) {
            return api_refuse(problem, API_INVALID_FIELD, "", "Idempotency-Key must be 1 to %d printable ASCII characters",
                              API_KEY_BYTES_MAX);
        }
        snprintf(sub->enqueue->key, sizeof sub->enqueue->key, "%s", key);
    }
    return true;
}

bool submission_check(submission *sub, api_problem *problem)
{
    if (!api_is_json(http_header(sub->request, "Content-Type"))) {
        return api_refuse(problem, API_UNSUPPORTED_MEDIA_TYPE, "", "Content-Type must be application/json");
    }
    return submission_check_key(sub, problem);
}

/* ---- The body */

static bool loading(service *s)
{
    for (size_t i = 0; i < models_count(s->models); i++) {
        if (models_lookup(s->models, models_name(s->models, i)) == NULL &&
            models_state(s->models, models_name(s->models, i), NULL, 0) != MODEL_FAILED) {
            return true;
        }
    }
    return false;
}

/* The models, and which of them a request asked for although it could never be described. */
typedef struct model_lookup {
    service *service;
    char undescribed[65];
} model_lookup;

static const api_model *look_up(void *payload, const char *name)
{
    model_lookup *lookup = payload;
    const api_model *model = models_lookup(lookup->service->models, name);
    if (model == NULL && name != NULL && models_known(lookup->service->models, name)) {
        snprintf(lookup->undescribed, sizeof lookup->undescribed, "%s", name);
    }
    return model;
}

/* Why a model that is configured is not one that can be asked for: it is being loaded, or it cannot be. */
static void explain_model(service *s, const char *name, api_problem *problem)
{
    char cause[256];
    if (name[0] != '\0' && models_state(s->models, name, cause, sizeof cause) == MODEL_FAILED) {
        char field[sizeof problem->field];
        memcpy(field, problem->field, sizeof field);
        api_refuse(problem, API_INVALID_FIELD, field, "model %s cannot be loaded: %.200s", name, cause);
    } else if (loading(s)) {
        api_refuse(problem, API_LOADING, "", "the model is loading for the first time");
        problem->retry_after_seconds = 1;
    }
}

bool submission_parse(submission *sub, const char *body, size_t bytes, api_problem *problem)
{
    service *s = sub->request->application;
    model_lookup lookup = {.service = s};
    if (api_parse_generate(&sub->jobs, &sub->count, &sub->is_array, body, bytes, look_up, &lookup, problem)) {
        return true;
    }
    size_t length = strlen(problem->field);
    bool at_model = length >= 6 && strcmp(problem->field + length - 6, "/model") == 0;
    bool undescribed = models_lookup(s->models, NULL) == NULL;
    if (problem->code != API_MALFORMED_JSON && (at_model || undescribed)) {
        explain_model(s, lookup.undescribed, problem);
    }
    return false;
}

/* ---- On its way to the store */

/* Whether each job's end can be told where it asks to be. */
static bool check_webhooks(const submission *sub, api_problem *problem)
{
    const service *s = sub->request->application;
    for (size_t i = 0; i < sub->count; i++) {
        const char *url = sub->jobs[i].webhook;
        char field[32] = "/webhook";
        const char *rule = url[0] && s->webhooks ? webhooks_refuse(s->webhooks, url) : NULL;
        if (sub->is_array) {
            snprintf(field, sizeof field, "/%zu/webhook", i);
        }
        if (url[0] && !s->webhooks) {
            return api_refuse(problem, API_UNSUPPORTED_OPTION, field,
                              "webhook is turned off here: serve --webhook-secret-file turns it on");
        }
        if (rule != NULL) {
            return api_refuse(problem, API_INVALID_FIELD, field, "webhook %s", rule);
        }
    }
    return true;
}

/* What the jobs come to, off the key's budget: evaluations times pixels, in millions. What the budget cannot pay is still asked of the
 * store, which may know the Idempotency-Key: a repetition costs nothing. */
static void charge(submission *sub)
{
    service *s = sub->request->application;
    for (size_t i = 0; i < sub->count; i++) {
        const api_model *model = models_lookup(s->models, sub->jobs[i].model);
        sub->cost += model == NULL ? 0 : (double)api_request_cost(&sub->jobs[i]) * model->width * model->height / 1e6;
    }
    sub->enqueue->known_only = !auth_allow_cost(s->auth, &sub->request->who, sub->cost, &sub->budget_seconds);
}

/* Ids and omitted seeds are drawn here, once: what is stored is complete. */
static bool fill_job(store_enqueue_job *job, api_request *asked, api_problem *problem)
{
    unsigned char random[16];
    uint64_t seed = 0;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random || getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
        return api_refuse(problem, API_INTERNAL, "", "no random bytes");
    }
    if (!asked->has_seed) {
        asked->has_seed = true;
        asked->seed = seed;
    }
    api_id_text(job->id, random);
    memcpy(job->model, asked->model, sizeof job->model);
    job->deadline_ms = asked->deadline_ms;
    job->priority = asked->priority;
    job->cost = api_request_cost(asked);
    job->n = asked->n;
    job->request_json = api_request_json(asked);
    return job->request_json != NULL || api_refuse(problem, API_INTERNAL, "", "out of memory");
}

static bool fill_jobs(submission *sub, const char *route, api_problem *problem)
{
    const http_request *request = sub->request;
    store_request *enqueue = sub->enqueue;
    enqueue->jobs = calloc(sub->count, sizeof *enqueue->jobs);
    if (enqueue->jobs == NULL) {
        return api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    enqueue->job_count = sub->count;
    memcpy(enqueue->trace, request->trace, sizeof enqueue->trace);
    for (size_t i = 0; i < sub->count; i++) {
        sub->has_inputs |= sub->jobs[i].init_image.bytes != NULL;
        if (!fill_job(&enqueue->jobs[i], &sub->jobs[i], problem)) {
            return false;
        }
    }
    const char *said = sub->said != NULL ? sub->said : request->body;
    return api_fingerprint(enqueue->fingerprint, route, said, sub->said != NULL ? strlen(said) : request->body_bytes) ||
           api_refuse(problem, API_INTERNAL, "", "out of memory");
}

bool submission_send(submission *sub, const char *route, api_problem *problem)
{
    service *s = sub->request->application;
    if (!check_webhooks(sub, problem) || !fill_jobs(sub, route, problem)) {
        return false;
    }
    charge(sub);
    http_suspend(sub->request, -1.0);
    inputs_submit(s->inputs, sub->enqueue, sub->jobs);
    free(sub->jobs);
    sub->jobs = NULL;
    return true;
}

/* ---- After the store */

static void refuse_cost(const submission *sub, api_problem *problem)
{
    api_refuse(problem, API_QUOTA, "", "this comes to %.3g megapixel-steps, and the key may use %.3g an hour", sub->cost,
               sub->request->who.budget);
    problem->retry_after_seconds = sub->budget_seconds;
}

static void log_accepted(const http_request *request, const store_request *enqueue, const store_enqueue_job *job)
{
    char trace[33];
    log_line line;
    api_trace_id(trace, enqueue->trace);
    log_begin(&line, LOG_INFO, "jobs", "job accepted");
    log_text(&line, "job", job->id);
    log_text(&line, "client", enqueue->client);
    log_text(&line, "model", job->model);
    log_integer(&line, "n", job->n);
    log_integer(&line, "priority", job->priority);
    log_integer(&line, "cost", (long long)job->cost);
    log_text(&line, "request_id", request->id);
    log_text(&line, "trace_id", trace);
    log_end(&line);
}

bool submission_stored(submission *sub, api_problem *problem)
{
    http_request *request = sub->request;
    service *s = request->application;
    store_request *enqueue = sub->enqueue;
    sub->replayed = enqueue->result == STORE_REPLAY;
    /* Not when the outcome is unknown: the rows may be there, and the next start will see. */
    if (sub->has_inputs && enqueue->result != STORE_OK && enqueue->result != STORE_UNKNOWN) {
        inputs_discard(s->inputs, enqueue);
    }
    if (enqueue->result != STORE_OK && !enqueue->known_only) {
        auth_return_cost(s->auth, &request->who, sub->cost);
    }
    if (enqueue->result == STORE_QUOTA && enqueue->known_only) {
        refuse_cost(sub, problem);
        return false;
    }
    if (sub->replayed) {
        http_add_header(request, "Idempotency-Replayed", "true");
        return true;
    }
    if (enqueue->result != STORE_OK) {
        route_store_problem(s, enqueue, problem);
        return false;
    }
    metrics_add(s->metrics, METRIC_JOBS_ACCEPTED, enqueue->id_count);
    for (size_t i = 0; i < enqueue->job_count; i++) {
        log_accepted(request, enqueue, &enqueue->jobs[i]);
        if (enqueue->jobs[i].deadline_ms) {
            dispatcher_deadline(s->dispatcher, dn_wall_ms() + enqueue->jobs[i].deadline_ms);
        }
    }
    dispatcher_kick(s->dispatcher);
    return true;
}

void submission_done(submission *sub)
{
    store_request_free(sub->enqueue);
    free(sub->jobs);
    sub->enqueue = NULL;
    sub->jobs = NULL;
}
