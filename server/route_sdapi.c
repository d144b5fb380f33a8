/* POST /sdapi/v1/txt2img and /img2img: translate, store, wait, answer with the pictures. A call is "enqueue and wait": the answer's Location
 * is the job's, and a client that leaves does not cancel it. An interrupted call answers 200 with what was finished, as webui does.
 *
 * The handler is called several times: to translate and enqueue (the request sleeps until COMMIT), then while it waits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/json_fields.h"
#include "api/negotiate.h"
#include "api/sdapi_options.h"
#include "api/sdapi_views.h"
#include "base/clock.h"
#include "server/sdapi.h"
#include "server/submission.h"

typedef struct sdapi_state {
    submission sub;
    bool stored, waiting;
    unsigned wait_seconds;
    waiter waiter;
    /* Of the call, for its answer. */
    sdapi_call call;
    uint32_t batch_size;
    bool send_images;
    char *parameters, *prompt, *negative_prompt;
    char keeps_model[65]; /* override_settings_restore_afterwards false; "": none */
} sdapi_state;

static void sdapi_state_free(void *payload)
{
    sdapi_state *g = payload;
    if (g->waiting) {
        waiter_done(&g->waiter);
    }
    submission_done(&g->sub);
    free(g->parameters);
    free(g->prompt);
    free(g->negative_prompt);
    free(g);
}

char *sdapi_refusal(http_request *request, const api_problem *problem, int *status, const char **content_type)
{
    (void)request;
    *content_type = "application/json";
    return api_sdapi_refusal_json(problem, NULL, status);
}

void sdapi_refuse(http_request *request, const api_sdapi_refusal *refusal)
{
    int status = 500;
    if (refusal->kind == NULL) {
        http_problem(request, &refusal->problem);
        return;
    }
    char *json = api_sdapi_refusal_json(&refusal->problem, refusal->kind, &status);
    http_answer_json(request, status, json);
}

/* ---- Models */

const char *sdapi_find_model(service *s, const char *text)
{
    for (size_t i = 0; i < models_count(s->models); i++) {
        const char *name = models_name(s->models, i);
        if (api_sdapi_model_is(name, models_lookup(s->models, name), text)) {
            return name;
        }
    }
    return NULL;
}

const char *sdapi_model_of(http_request *request)
{
    service *s = request->application;
    char chosen[65];
    const char *name = sdapi_calls_model(s->sdapi, request->client, chosen) ? sdapi_find_model(s, chosen) : NULL;
    return name != NULL ? name : models_name(s->models, 0);
}

/* ---- The first call */

/* What the answer will need, out of a request that is not kept. */
static bool keep(sdapi_state *g, const api_sdapi_request *asked, const api_model *model)
{
    api_text parameters = API_TEXT_INIT;
    api_sdapi_add_parameters(&parameters, asked->values, asked->img2img, model ? model->width : 0, model ? model->height : 0);
    g->parameters = api_text_take(&parameters);
    g->prompt = strdup(asked->prompt);
    g->negative_prompt = strdup(asked->negative_prompt);
    g->batch_size = asked->batch_size;
    g->send_images = asked->send_images;
    g->call.n_iter = asked->n_iter;
    g->call.img2img = asked->img2img;
    memcpy(g->call.task, asked->task_id, sizeof g->call.task);
    return g->parameters != NULL && g->prompt != NULL && g->negative_prompt != NULL;
}

/* The body, for the model that it or its client chose, as a native one that has been validated. */
static bool translate(http_request *request, sdapi_state *g, const api_sdapi_request *asked, api_sdapi_refusal *refusal)
{
    service *s = request->application;
    const char *name = asked->checkpoint != NULL ? sdapi_find_model(s, asked->checkpoint) : sdapi_model_of(request);
    const api_model *model = name == NULL ? NULL : models_lookup(s->models, name);
    uint64_t draw = 0;
    char *native = NULL;
    if (name == NULL) {
        refusal->kind = "value_error";
        return api_refuse(&refusal->problem, API_INVALID_FIELD, "/override_settings/sd_model_checkpoint",
                          "sd_model_checkpoint is not one of GET /sdapi/v1/sd-models");
    }
    if (getrandom(&draw, sizeof draw, 0) != (ssize_t)sizeof draw || !keep(g, asked, model)) {
        return api_refuse(&refusal->problem, API_INTERNAL, "", "out of memory or of random bytes");
    }
    if (asked->keeps_checkpoint) {
        snprintf(g->keeps_model, sizeof g->keeps_model, "%s", name);
    }
    if (!api_sdapi_translate(&native, asked, name, model, draw, refusal)) {
        return false;
    }
    const bool fine = submission_parse(&g->sub, native, strlen(native), &refusal->problem);
    free(native);
    if (!fine) {
        api_sdapi_rename(&refusal->problem, asked->img2img);
    }
    return fine;
}

static bool read_and_send(http_request *request, sdapi_state *g, bool img2img, api_sdapi_refusal *refusal)
{
    api_sdapi_request asked;
    const char *body = request->body != NULL ? request->body : "";
    if (!submission_open(&g->sub, request, &refusal->problem) || !submission_check(&g->sub, &refusal->problem) ||
        !api_sdapi_read(&asked, img2img, body, request->body_bytes, refusal)) {
        return false;
    }
    const bool fine = translate(request, g, &asked, refusal);
    api_sdapi_done(&asked);
    return fine && submission_send(&g->sub, img2img ? "POST /sdapi/v1/img2img" : "POST /sdapi/v1/txt2img", &refusal->problem);
}

static void begin(http_request *request, bool img2img)
{
    api_sdapi_refusal refusal = {.kind = NULL};
    sdapi_state *g = calloc(1, sizeof *g);
    if (g == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    request->state = g;
    request->state_free = sdapi_state_free;
    http_add_header(request, "Vary", "Prefer");
    g->wait_seconds = SDAPI_WAIT_SECONDS;
    if (api_prefer_wait(http_header(request, "Prefer"), &g->wait_seconds) != 1) {
        g->wait_seconds = SDAPI_WAIT_SECONDS;
    }
    if (!read_and_send(request, g, img2img, &refusal)) {
        sdapi_refuse(request, &refusal);
    }
}

/* ---- The answer */

/* The job goes on, and its client is told where. */
static void answer_unfinished(http_request *request, const job_view *held)
{
    service *s = request->application;
    api_text text = API_TEXT_INIT;
    char detail[160];
    const bool stopping = http_stopping(request->server);
    snprintf(detail, sizeof detail, "the pictures are not finished%s; the job goes on, see GET %s/jobs/%s",
             stopping ? " and the daemon is stopping" : "", s->base_path, held->job.id);
    api_text_format(&text, "{\"error\":\"%s\",\"detail\":", stopping ? "draining" : "timeout");
    api_text_string(&text, detail);
    api_text_add(&text, ",\"body\":\"\",\"errors\":");
    api_text_string(&text, detail);
    api_text_add(&text, "}");
    http_add_header(request, "Retry-After", "%u", job_retry_after(held));
    http_answer_json(request, stopping ? 503 : 504, api_text_take(&text));
}

static void pictures_free(api_sdapi_picture *pictures, unsigned char **files, size_t count)
{
    for (size_t i = 0; files != NULL && i < count; i++) {
        free(files[i]);
    }
    free(files);
    free(pictures);
}

static void answer_pictures(http_request *request, sdapi_state *g, const job_view *held)
{
    service *s = request->application;
    const size_t count = held->image_count;
    api_sdapi_picture *pictures = calloc(count + 1, sizeof *pictures);
    unsigned char **files = calloc(count + 1, sizeof *files);
    api_request *made = calloc(1, sizeof *made);
    const char *json = held->job.request_json != NULL ? held->job.request_json : "";
    bool fine = pictures != NULL && files != NULL && made != NULL && api_request_from_json(made, json, strlen(json));
    for (size_t i = 0; fine && i < count; i++) {
        pictures[i].index = held->images[i].index;
        pictures[i].bytes = (size_t)held->images[i].view.bytes;
        pictures[i].png = files[i] = g->send_images ? route_image_bytes(s, &held->images[i]) : NULL;
        fine = !g->send_images || files[i] != NULL;
    }
    if (fine) {
        const api_sdapi_result result = {.job_id = held->job.id,
                                         .parameters = g->parameters,
                                         .prompt = g->prompt,
                                         .negative_prompt = g->negative_prompt,
                                         .batch_size = g->batch_size,
                                         .img2img = g->call.img2img,
                                         .interrupted = held->job.state == API_STATE_CANCELED,
                                         .request = made,
                                         .model = models_lookup(s->models, made->model),
                                         .created_ms = held->job.created_ms,
                                         .version = s->version,
                                         .pictures = pictures,
                                         .count = count};
        http_answer_json(request, 200, api_sdapi_result_body(&result));
    } else {
        http_refuse(request, API_INTERNAL, "a picture's file is missing or damaged, or there is no memory");
    }
    pictures_free(pictures, files, count);
    free(made);
}

static void answer(http_request *request, sdapi_state *g)
{
    service *s = request->application;
    job_view held;
    api_problem problem = {0};
    const char *id = g->sub.enqueue->ids[0];
    store_result result = job_view_get(&held, s, NULL, id);
    if (result != STORE_OK) {
        route_missing(request, result);
        return;
    }
    http_add_header(request, "Location", "%s/jobs/%s", s->base_path, id);
    if (!api_state_ended(held.job.state)) {
        answer_unfinished(request, &held);
        job_view_done(&held);
        return;
    }
    sdapi_calls_end(s->sdapi, id);
    if (held.job.state == API_STATE_FAILED) {
        api_refuse(&problem, API_JOB_FAILED, "", "the job failed: %s",
                   held.job.error_detail != NULL ? held.job.error_detail : held.job.error_code);
        http_problem(request, &problem);
    } else {
        answer_pictures(request, g, &held);
    }
    job_view_done(&held);
}

/* The COMMIT is through, or was refused. False: answered. */
static bool stored(http_request *request, sdapi_state *g)
{
    service *s = request->application;
    api_problem problem = {0};
    if (!submission_stored(&g->sub, &problem)) {
        http_problem(request, &problem);
        return false;
    }
    memcpy(g->call.client, request->client, sizeof g->call.client);
    memcpy(g->call.id, g->sub.enqueue->ids[0], sizeof g->call.id);
    sdapi_calls_add(s->sdapi, &g->call);
    if (g->keeps_model[0] != '\0') {
        sdapi_calls_choose(s->sdapi, request->client, g->keeps_model);
    }
    g->waiting = waiter_begin(&g->waiter, s, request, g->sub.enqueue->ids, 1, g->wait_seconds);
    if (!g->waiting) {
        answer(request, g);
    }
    return g->waiting;
}

static void route_make(http_request *request, bool img2img)
{
    sdapi_state *g = request->state;
    bool all_ended = false;
    if (g == NULL) {
        begin(request, img2img);
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

void route_sdapi_txt2img(http_request *request)
{
    route_make(request, false);
}

void route_sdapi_img2img(http_request *request)
{
    route_make(request, true);
}
