/* OpenAI's Images API: POST /v1/images/generations, GET /v1/models and /v1/models/{id}, and its refusals.
 *
 * A synchronous call is "enqueue and wait": it answers when the job has ended, or with 504 and Location before the client gives up; a client
 * that leaves cancels nothing. X-Should-Retry, which OpenAI's clients obey, keeps them from making a second job of what is already one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/negotiate.h"
#include "server/openai.h"
#include "server/submission.h"

#define ORIGIN_BYTES 300

typedef struct images_state {
    submission submission;
    api_openai_request asked;
    waiter waiter;
    bool stored, waiting;
    bool preferred; /* Prefer: wait=N */
    bool keyed; /* with an Idempotency-Key, so that to ask again is to wait for the same job */
    double seconds; /* to wait */
    char origin[ORIGIN_BYTES]; /* of the URLs of its pictures */
} images_state;

static void images_state_free(void *payload)
{
    images_state *g = payload;
    if (g->waiting) {
        waiter_done(&g->waiter);
    }
    submission_done(&g->submission);
    free(g);
}

char *route_openai_refusal(http_request *request, const api_problem *problem, int *status, const char **content_type)
{
    (void)request;
    *content_type = "application/json";
    return api_openai_error(problem, status);
}

/* ---- Models */

void route_openai_models(http_request *request)
{
    const service *s = request->application;
    const size_t count = models_count(s->models);
    const char **names = calloc(count + 1, sizeof *names);
    for (size_t i = 0; names != NULL && i < count; i++) {
        names[i] = models_name(s->models, i);
    }
    http_answer_json(request, 200, names != NULL ? api_openai_models(names, count) : NULL);
    free(names);
}

void route_openai_model(http_request *request)
{
    const service *s = request->application;
    api_problem problem = {0};
    if (models_known(s->models, request->segment[0])) {
        http_answer_json(request, 200, api_openai_model(request->segment[0]));
        return;
    }
    api_refuse(&problem, API_NOT_FOUND, "/model", "there is no such model; GET /v1/models lists them");
    http_problem(request, &problem);
}

/* ---- Before the store */

static const api_model *look_up(void *payload, const char *name)
{
    const service *s = payload;
    return models_lookup(s->models, name);
}

/* --public-url, or how this request reached us: a proxy says whether by https. */
static void find_origin(images_state *g, const http_request *request)
{
    const service *s = request->application;
    const char *host = http_header(request, "Host"), *proto = http_header(request, "X-Forwarded-Proto");
    if (s->public_url[0] != '\0' || host == NULL) {
        snprintf(g->origin, sizeof g->origin, "%s", s->public_url);
    } else {
        snprintf(g->origin, sizeof g->origin, "%s://%s", proto != NULL && strcasecmp(proto, "https") == 0 ? "https" : "http", host);
    }
}

static bool read_body(http_request *request, images_state *g, api_problem *problem)
{
    service *s = request->application;
    submission *sub = &g->submission;
    char *native = NULL;
    const char *body = request->body != NULL ? request->body : "";
    if (!api_openai_translate(&g->asked, &native, body, request->body_bytes, look_up, s, problem)) {
        return false;
    }
    bool fine = submission_parse(sub, native, strlen(native), problem);
    free(native);
    if (fine && !g->asked.resolved) { /* it was described between the two looks: its classes have not been looked at */
        fine = api_refuse(problem, API_LOADING, "", "the model is loading for the first time");
        problem->retry_after_seconds = 1;
    }
    api_code refusal = fine && g->asked.stream ? route_stream_refusal(s, request->client) : API_NONE;
    if (refusal != API_NONE) {
        fine = api_refuse(problem, refusal, "", STREAMS_REFUSED);
        problem->retry_after_seconds = 5;
    }
    return fine;
}

static void begin(http_request *request)
{
    api_problem problem = {0};
    unsigned prefer = 0;
    images_state *g = calloc(1, sizeof *g);
    if (g == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    request->state = g;
    request->state_free = images_state_free;
    g->preferred = api_prefer_wait(http_header(request, "Prefer"), &prefer) == 1;
    const char *patience = http_header(request, "X-Stainless-Read-Timeout"); /* openai-python's; openai-node says the other */
    g->seconds = api_openai_wait_seconds(patience != NULL ? patience : http_header(request, "X-Stainless-Timeout"),
                                         g->preferred ? prefer : API_WAIT_SECONDS_MAX);
    find_origin(g, request);
    if (!submission_open(&g->submission, request, &problem) || !submission_check(&g->submission, &problem) ||
        !read_body(request, g, &problem) || !submission_send(&g->submission, "POST /v1/images/generations", &problem)) {
        api_openai_rename(&g->asked, &problem);
        http_problem(request, &problem);
        return;
    }
    g->keyed = g->submission.enqueue->key[0] != '\0';
}

/* ---- After the store */

api_openai_image openai_image(const store_image *image, const api_request *asked)
{
    return (api_openai_image){.index = image->index,
                              .seed = image->view.seed,
                              .png_bytes = (size_t)image->view.bytes,
                              .width = image->view.width,
                              .height = image->view.height,
                              .class_name = asked->has_class && asked->mixture_count == 0 ? asked->class_name : NULL};
}

void openai_ended_badly(const store_job *job, api_problem *problem)
{
    if (job->state == API_STATE_FAILED) {
        api_refuse(problem, API_JOB_FAILED, "", "the job failed: %s", job->error_detail != NULL ? job->error_detail : job->error_code);
    } else {
        api_refuse(problem, API_CANCELED, "", "the job was canceled");
    }
}

/* False: a file is missing or damaged, and an error has been answered. */
static bool add_images(api_text *text, http_request *request, const images_state *g, const job_view *held, const api_request *asked)
{
    service *s = request->application;
    for (size_t i = 0; i < held->image_count; i++) {
        char url[ORIGIN_BYTES + 128];
        api_openai_image image = openai_image(&held->images[i], asked);
        unsigned char *png = NULL;
        snprintf(url, sizeof url, "%s%s/jobs/%s/images/%u.png", g->origin, s->base_path, held->job.id, image.index);
        image.url = url;
        if (!g->asked.as_url) {
            png = route_image_bytes(s, &held->images[i]);
            if (png == NULL) {
                http_refuse(request, API_INTERNAL, "an image's file could not be read");
                return false;
            }
            image.png = png;
        }
        api_openai_images_add(text, i, &image);
        free(png);
    }
    return true;
}

static void answer_images(http_request *request, const images_state *g, const job_view *held)
{
    api_text text = API_TEXT_INIT;
    api_request *asked = calloc(1, sizeof *asked);
    const char *json = held->job.request_json;
    if (asked == NULL || json == NULL || !api_request_from_json(asked, json, strlen(json)) || held->image_count == 0) {
        http_refuse(request, API_INTERNAL, "the job could not be read");
        free(asked);
        return;
    }
    const api_image_view *first = &held->images[0].view;
    api_openai_images_begin(&text, held->job.finished_ms / 1000, first->width, first->height);
    if (add_images(&text, request, g, held, asked)) {
        api_openai_images_end(&text);
        http_answer_json(request, 200, api_text_take(&text));
    } else {
        free(api_text_take(&text));
    }
    free(asked);
}

/* It goes on, and this answer can wait no longer. Who sends the same key again waits for the same job; without one that would be another. */
static void answer_unfinished(http_request *request, const images_state *g, const job_view *held)
{
    char message[256];
    const bool stopping = http_stopping(request->server);
    snprintf(message, sizeof message, "%s; the job goes on: GET %s/jobs/%s (see Location)%s",
             stopping ? "the daemon is stopping" : "the pictures are not ready yet", ((service *)request->application)->base_path,
             held->job.id, g->keyed ? ", or send this again with the same Idempotency-Key" : "");
    http_add_header(request, "Retry-After", "%u", job_retry_after(held));
    http_add_header(request, "X-Should-Retry", "%s", g->keyed ? "true" : "false");
    http_answer_json(request, stopping ? 503 : 504, api_openai_error_of("server_error", stopping ? "draining" : "timeout", message));
}

static void answer(http_request *request, const images_state *g)
{
    job_view held;
    api_problem problem = {0};
    const char *id = g->submission.enqueue->ids[0];
    const store_result result = job_view_get(&held, request->application, NULL, id);
    if (result != STORE_OK) {
        http_add_header(request, "X-Should-Retry", "false");
        route_missing(request, result);
        return;
    }
    if (held.job.state == API_STATE_SUCCEEDED) {
        answer_images(request, g, &held);
    } else if (!api_state_ended(held.job.state)) {
        answer_unfinished(request, g, &held);
    } else {
        http_add_header(request, "X-Should-Retry", "false");
        openai_ended_badly(&held.job, &problem);
        http_problem(request, &problem);
    }
    job_view_done(&held);
}

/* The COMMIT is through, or was refused. False: answered. */
static bool stored(http_request *request, images_state *g)
{
    service *s = request->application;
    const store_request *enqueue = g->submission.enqueue;
    api_problem problem = {0};
    if (!submission_stored(&g->submission, &problem)) {
        http_problem(request, &problem);
        return false;
    }
    http_add_header(request, "Location", "%s/jobs/%s", s->base_path, enqueue->ids[0]);
    if (g->asked.stream) {
        /* The stream brings its own state; ours ends here. */
        char id[27];
        const unsigned partial_images = g->asked.partial_images;
        memcpy(id, enqueue->ids[0], sizeof id);
        request->state = NULL;
        request->state_free = NULL;
        images_state_free(g);
        openai_stream(request, id, partial_images);
        return false;
    }
    g->waiting = waiter_begin(&g->waiter, s, request, g->submission.enqueue->ids, enqueue->id_count, g->seconds);
    if (g->preferred && g->waiting) {
        http_add_header(request, "Preference-Applied", "wait=%u", (unsigned)g->seconds);
    }
    if (!g->waiting) {
        answer(request, g);
    }
    return g->waiting;
}

void route_openai_images(http_request *request)
{
    images_state *g = request->state;
    bool all_ended = false;
    if (g == NULL) {
        begin(request);
        return;
    }
    if (!g->stored) {
        g->stored = true;
        if (!stored(request, g)) {
            return;
        }
    }
    if (waiter_over(&g->waiter, &all_ended)) {
        answer(request, g);
    }
}
