/* POST /generate: validate, store, then answer as asked: JSON at once or when the job has ended, the picture itself, or the
 * stream of its events. A synchronous call is "enqueue and wait": a cut connection leaves a job to poll.
 *
 * The handler is called several times: first to validate and enqueue (the request sleeps until COMMIT), then while it waits. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/generate_request.h"
#include "api/negotiate.h"
#include "base/clock.h"
#include "server/service.h"

typedef struct generate_state {
    api_form form;
    bool is_array, waits, waiting;
    unsigned wait_seconds;
    store_request *enqueue;
    bool enqueued, has_inputs;
    double cost; /* in megapixel-steps, taken off the key's budget */
    unsigned budget_seconds; /* until the budget would do, when it did not; 0: never */
    waiter waiter;
} generate_state;

static void generate_state_free(void *payload)
{
    generate_state *g = payload;
    if (g->waiting) {
        waiter_done(&g->waiter);
    }
    store_request_free(g->enqueue);
    free(g);
}

static void on_enqueued(store_request *done)
{
    http_resume(done->payload);
}

/* ---- Before the store */

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

static bool check_headers(http_request *request, generate_state *g, api_problem *problem)
{
    service *s = request->application;
    const char *key = http_header(request, "Idempotency-Key");
    if (atomic_load(&s->draining)) {
        api_refuse(problem, API_DRAINING, "", "the daemon is draining and takes no new jobs");
        problem->retry_after_seconds = 5;
        return false;
    }
    g->form = api_negotiate(http_header(request, "Accept"));
    if (g->form == API_FORM_NONE) {
        return api_refuse(problem, API_NOT_ACCEPTABLE, "", "this can answer application/json, image/png or text/event-stream");
    }
    api_code refusal = g->form == API_FORM_EVENTS ? route_stream_refusal(s, request->client) : API_NONE;
    if (refusal != API_NONE) {
        api_refuse(problem, refusal, "", STREAMS_REFUSED);
        problem->retry_after_seconds = 5;
        return false;
    }
    if (!api_is_json(http_header(request, "Content-Type"))) {
        return api_refuse(problem, API_UNSUPPORTED_MEDIA_TYPE, "", "Content-Type must be application/json");
    }
    if (http_header(request, "Content-Encoding") != NULL) {
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
        snprintf(g->enqueue->key, sizeof g->enqueue->key, "%s", key);
    }
    return true;
}

static bool parse_body(http_request *request, generate_state *g, api_request **jobs, size_t *count, api_problem *problem)
{
    service *s = request->application;
    const char *body = request->body != NULL ? request->body : "";
    model_lookup lookup = {.service = s};
    if (!api_parse_generate(jobs, count, &g->is_array, body, request->body_bytes, look_up, &lookup, problem)) {
        size_t length = strlen(problem->field);
        bool at_model = length >= 6 && strcmp(problem->field + length - 6, "/model") == 0;
        bool undescribed = models_lookup(s->models, NULL) == NULL;
        if (problem->code != API_MALFORMED_JSON && (at_model || undescribed)) {
            explain_model(s, lookup.undescribed, problem);
        }
        return false;
    }
    if (g->is_array && g->form != API_FORM_JSON) {
        return api_refuse(problem, API_NOT_ACCEPTABLE, "", "an array of jobs is answered in application/json only");
    }
    if (g->form == API_FORM_PNG && (*jobs)[0].n > 1) {
        return api_refuse(problem, API_INVALID_FIELD, "/n", "n must be 1 when the answer is image/png");
    }
    return true;
}

/* Whether each job's end can be told where it asks to be. */
static bool check_webhooks(const service *s, const generate_state *g, const api_request *jobs, size_t count, api_problem *problem)
{
    for (size_t i = 0; i < count; i++) {
        char field[32] = "/webhook";
        const char *rule = jobs[i].webhook[0] && s->webhooks ? webhooks_refuse(s->webhooks, jobs[i].webhook) : NULL;
        if (g->is_array) {
            snprintf(field, sizeof field, "/%zu/webhook", i);
        }
        if (jobs[i].webhook[0] && !s->webhooks) {
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
static void charge(http_request *request, generate_state *g, const api_request *jobs, size_t count)
{
    service *s = request->application;
    for (size_t i = 0; i < count; i++) {
        const api_model *model = models_lookup(s->models, jobs[i].model);
        g->cost += model == NULL ? 0 : (double)api_request_cost(&jobs[i]) * model->width * model->height / 1e6;
    }
    g->enqueue->known_only = !auth_allow_cost(s->auth, &request->who, g->cost, &g->budget_seconds);
}

static void refuse_cost(http_request *request, const generate_state *g)
{
    api_problem problem = {0};
    api_refuse(&problem, API_QUOTA, "", "this comes to %.3g megapixel-steps, and the key may use %.3g an hour", g->cost,
               request->who.budget);
    problem.retry_after_seconds = g->budget_seconds;
    http_problem(request, &problem);
}

/* Ids and omitted seeds are drawn here, once: what is stored is complete. */
static bool fill_jobs(http_request *request, generate_state *g, api_request *jobs, size_t count, api_problem *problem)
{
    store_request *enqueue = g->enqueue;
    enqueue->jobs = calloc(count, sizeof *enqueue->jobs);
    if (enqueue->jobs == NULL) {
        return api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    enqueue->job_count = count;
    for (size_t i = 0; i < count; i++) {
        store_enqueue_job *job = &enqueue->jobs[i];
        unsigned char random[16];
        uint64_t seed = 0;
        if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random || getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {
            return api_refuse(problem, API_INTERNAL, "", "no random bytes");
        }
        if (!jobs[i].has_seed) {
            jobs[i].has_seed = true;
            jobs[i].seed = seed;
        }
        api_id_text(job->id, random);
        memcpy(job->model, jobs[i].model, sizeof job->model);
        job->deadline_ms = jobs[i].deadline_ms;
        job->priority = jobs[i].priority;
        job->cost = api_request_cost(&jobs[i]);
        job->n = jobs[i].n;
        g->has_inputs |= jobs[i].init_image.bytes != NULL;
        job->request_json = api_request_json(&jobs[i]);
        if (job->request_json == NULL) {
            return api_refuse(problem, API_INTERNAL, "", "out of memory");
        }
    }
    return api_fingerprint(enqueue->fingerprint, "POST /generate", request->body, request->body_bytes) ||
           api_refuse(problem, API_INTERNAL, "", "out of memory");
}

static void begin(http_request *request)
{
    service *s = request->application;
    api_problem problem = {0};
    api_request *jobs = NULL;
    size_t count = 0;
    generate_state *g = calloc(1, sizeof *g);
    if (g == NULL || (g->enqueue = store_request_create(STORE_ENQUEUE, on_enqueued, request)) == NULL) {
        free(g);
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    request->state = g;
    request->state_free = generate_state_free;
    memcpy(g->enqueue->client, request->client, sizeof g->enqueue->client);
    g->enqueue->pending_jobs_max = request->who.pending_jobs;
    g->enqueue->base_path = s->base_path;
    http_add_header(request, "Vary", "Accept, Prefer");
    bool fine = check_headers(request, g, &problem) && parse_body(request, g, &jobs, &count, &problem) &&
                check_webhooks(s, g, jobs, count, &problem) && fill_jobs(request, g, jobs, count, &problem);
    if (fine) {
        charge(request, g, jobs, count);
        g->waits = api_prefer_wait(http_header(request, "Prefer"), &g->wait_seconds) == 1;
        http_suspend(request, -1.0);
        inputs_submit(s->inputs, g->enqueue, jobs);
    } else {
        http_problem(request, &problem);
    }
    free(jobs);
}

/* ---- After the store */

static void answer_array(http_request *request, generate_state *g, bool all_ended)
{
    service *s = request->application;
    job_view *held = calloc(g->enqueue->id_count, sizeof *held);
    api_job_view *views = calloc(g->enqueue->id_count, sizeof *views);
    size_t made = 0;
    while (held != NULL && views != NULL && made < g->enqueue->id_count &&
           job_view_get(&held[made], s, NULL, g->enqueue->ids[made]) == STORE_OK) {
        views[made] = held[made].view;
        made++;
    }
    if (made == g->enqueue->id_count) {
        if (!all_ended) {
            http_add_header(request, "Retry-After", "%u", made > 0 ? job_retry_after(&held[made - 1]) : 1u);
        }
        http_answer_json(request, all_ended ? 200 : 202, api_jobs_array_body(views, made, s->base_path));
    } else {
        http_refuse(request, API_INTERNAL, "the jobs were stored but could not be read");
    }
    for (size_t i = 0; i < made; i++) {
        job_view_done(&held[i]);
    }
    free(held);
    free(views);
}

static void answer_png(http_request *request, generate_state *g)
{
    service *s = request->application;
    job_view held;
    api_problem problem = {0};
    const char *id = g->enqueue->ids[0];
    store_result result = job_view_get(&held, s, NULL, id);
    if (result != STORE_OK) {
        route_missing(request, result);
        return;
    }
    http_add_header(request, "Location", "%s/jobs/%s", s->base_path, id);
    if (held.job.state == API_STATE_SUCCEEDED) {
        route_png(request, &held, 0);
    } else if (held.job.state == API_STATE_FAILED) {
        api_refuse(&problem, API_JOB_FAILED, "", "the job failed: %s",
                   held.job.error_detail != NULL ? held.job.error_detail : held.job.error_code);
        http_problem(request, &problem);
    } else {
        http_refuse(request, API_CANCELED, "the job was canceled");
    }
    job_view_done(&held);
}

static void answer(http_request *request, generate_state *g, bool all_ended)
{
    if (g->is_array) {
        answer_array(request, g, all_ended);
    } else if (g->form == API_FORM_PNG && all_ended) {
        answer_png(request, g);
    } else {
        route_job(request, all_ended ? 200 : 202, g->enqueue->ids[0]);
    }
}

/* The COMMIT is through, or was refused. False: answered. */
static bool stored(http_request *request, generate_state *g)
{
    service *s = request->application;
    store_request *enqueue = g->enqueue;
    /* Not when the outcome is unknown: the rows may be there, and the next start will see. */
    if (g->has_inputs && enqueue->result != STORE_OK && enqueue->result != STORE_UNKNOWN) {
        inputs_discard(s->inputs, enqueue);
    }
    if (enqueue->result != STORE_OK && !enqueue->known_only) {
        auth_return_cost(s->auth, &request->who, g->cost);
    }
    if (enqueue->result == STORE_QUOTA && enqueue->known_only) {
        refuse_cost(request, g);
        return false;
    }
    if (enqueue->result != STORE_OK && enqueue->result != STORE_REPLAY) {
        route_store_refusal(request, s, enqueue);
        return false;
    }
    if (enqueue->result == STORE_REPLAY) {
        http_add_header(request, "Idempotency-Replayed", "true");
    } else {
        metrics_add(s->metrics, METRIC_JOBS_ACCEPTED, enqueue->id_count);
        for (size_t i = 0; i < enqueue->job_count; i++) {
            if (enqueue->jobs[i].deadline_ms) {
                dispatcher_deadline(s->dispatcher, dn_wall_ms() + enqueue->jobs[i].deadline_ms);
            }
        }
        dispatcher_kick(s->dispatcher);
    }
    if (g->form == API_FORM_EVENTS) {
        const char *previews = http_query(request, "previews");
        http_add_header(request, "Location", "%s/jobs/%s", s->base_path, enqueue->ids[0]);
        /* The stream brings its own state; ours ends here. */
        char id[27];
        memcpy(id, enqueue->ids[0], sizeof id);
        request->state = NULL;
        request->state_free = NULL;
        generate_state_free(g);
        route_stream(request, id, 0, previews == NULL || strcmp(previews, "0") != 0);
        return false;
    }
    /* A new job that nobody waits for is accepted, however quickly it may have ended meanwhile. */
    if (!g->waits && g->form == API_FORM_JSON && enqueue->result == STORE_OK) {
        answer(request, g, false);
        return false;
    }
    unsigned seconds = g->waits ? g->wait_seconds : g->form == API_FORM_PNG ? API_WAIT_PNG_SECONDS : 0;
    g->waiting = waiter_begin(&g->waiter, s, request, enqueue->ids, enqueue->id_count, seconds);
    if (g->waits && g->waiting) {
        http_add_header(request, "Preference-Applied", "wait=%u", seconds);
    }
    if (!g->waiting) {
        answer(request, g, false);
    }
    return g->waiting;
}

void route_generate(http_request *request)
{
    generate_state *g = request->state;
    bool all_ended = false;
    if (g == NULL) {
        begin(request);
        return;
    }
    if (!g->enqueued) {
        g->enqueued = true;
        if (!stored(request, g)) {
            return;
        }
    }
    if (waiter_over(&g->waiter, &all_ended)) {
        answer(request, g, all_ended);
    }
}
