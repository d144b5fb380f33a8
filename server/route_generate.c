/* POST /generate: validate, store, then answer as asked: JSON at once or when the job has ended, the picture itself, or the
 * stream of its events. A synchronous call is "enqueue and wait": a cut connection leaves a job to poll.
 *
 * The handler is called several times: first to validate and enqueue (the request sleeps until COMMIT), then while it waits. */
#include <stdlib.h>
#include <string.h>

#include "api/negotiate.h"
#include "server/submission.h"

typedef struct generate_state {
    submission submission;
    api_form form;
    bool waits, waiting, previews;
    unsigned wait_seconds;
    bool enqueued;
    waiter waiter;
} generate_state;

static void generate_state_free(void *payload)
{
    generate_state *g = payload;
    if (g->waiting) {
        waiter_done(&g->waiter);
    }
    submission_done(&g->submission);
    free(g);
}

/* ---- Before the store */

static bool check_form(http_request *request, generate_state *g, api_problem *problem)
{
    service *s = request->application;
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
    return true;
}

static bool parse_body(http_request *request, generate_state *g, api_problem *problem)
{
    submission *sub = &g->submission;
    if (!submission_parse(sub, request->body != NULL ? request->body : "", request->body_bytes, problem)) {
        return false;
    }
    if (sub->is_array && g->form != API_FORM_JSON) {
        return api_refuse(problem, API_NOT_ACCEPTABLE, "", "an array of jobs is answered in application/json only");
    }
    if (g->form == API_FORM_PNG && sub->jobs[0].n > 1) {
        return api_refuse(problem, API_INVALID_FIELD, "/n", "n must be 1 when the answer is image/png");
    }
    return true;
}

static void begin(http_request *request)
{
    api_problem problem = {0};
    generate_state *g = calloc(1, sizeof *g);
    if (g == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    request->state = g;
    request->state_free = generate_state_free;
    http_add_header(request, "Vary", "Accept, Prefer");
    g->waits = api_prefer_wait(http_header(request, "Prefer"), &g->wait_seconds) == 1;
    if (!route_flag(request, "previews", true, &g->previews)) {
        return;
    }
    if (!submission_open(&g->submission, request, &problem) || !check_form(request, g, &problem) ||
        !submission_check(&g->submission, &problem) || !parse_body(request, g, &problem) ||
        !submission_send(&g->submission, "POST /generate", &problem)) {
        http_problem(request, &problem);
    }
}

/* ---- After the store */

static void answer_array(http_request *request, generate_state *g, bool all_ended)
{
    service *s = request->application;
    const store_request *enqueue = g->submission.enqueue;
    job_view *held = calloc(enqueue->id_count, sizeof *held);
    api_job_view *views = calloc(enqueue->id_count, sizeof *views);
    size_t made = 0;
    while (held != NULL && views != NULL && made < enqueue->id_count &&
           job_view_get(&held[made], s, NULL, enqueue->ids[made]) == STORE_OK) {
        views[made] = held[made].view;
        made++;
    }
    if (made == enqueue->id_count) {
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
    const char *id = g->submission.enqueue->ids[0];
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
    if (g->submission.is_array) {
        answer_array(request, g, all_ended);
    } else if (g->form == API_FORM_PNG && all_ended) {
        answer_png(request, g);
    } else {
        route_job(request, all_ended ? 200 : 202, g->submission.enqueue->ids[0]);
    }
}

/* The COMMIT is through, or was refused. False: answered. */
static bool stored(http_request *request, generate_state *g)
{
    service *s = request->application;
    const store_request *enqueue = g->submission.enqueue;
    api_problem problem = {0};
    if (!submission_stored(&g->submission, &problem)) {
        http_problem(request, &problem);
        return false;
    }
    if (g->form == API_FORM_EVENTS) {
        const bool previews = g->previews;
        http_add_header(request, "Location", "%s/jobs/%s", s->base_path, enqueue->ids[0]);
        /* The stream brings its own state; ours ends here. */
        char id[27];
        memcpy(id, enqueue->ids[0], sizeof id);
        request->state = NULL;
        request->state_free = NULL;
        generate_state_free(g);
        route_stream(request, id, 0, previews);
        return false;
    }
    /* A new job that nobody waits for is accepted, however quickly it may have ended meanwhile. */
    if (!g->waits && g->form == API_FORM_JSON && !g->submission.replayed) {
        answer(request, g, false);
        return false;
    }
    unsigned seconds = g->waits ? g->wait_seconds : g->form == API_FORM_PNG ? API_WAIT_PNG_SECONDS : 0;
    g->waiting = waiter_begin(&g->waiter, s, request, g->submission.enqueue->ids, enqueue->id_count, seconds);
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
