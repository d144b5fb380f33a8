/* How AUTOMATIC1111's clients follow their calls and end them: GET /sdapi/v1/progress, POST /internal/progress, /sdapi/v1/interrupt, /skip.
 * Where webui has one progress for everybody, each client has its own here, and with ?id_task= each call. */
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "api/sdapi_views.h"
#include "server/sdapi.h"

/* ---- Looking */

/* The preview that is newest, if it is another than the client has. */
static void show_preview(service *s, const char *id, int64_t seen, api_sdapi_progress *out, hub_preview_view *preview)
{
    hub_live live;
    sdapi_calls_watch(s->sdapi, id);
    hub_read(s->hub, id, &live);
    out->preview_id = seen;
    if (live.preview_version > 0 && live.preview_version <= INT64_MAX && (int64_t)live.preview_version != seen &&
        hub_next_preview(s->hub, id, live.preview_version - 1, preview)) {
        out->preview = preview->png;
        out->preview_bytes = preview->bytes;
        out->preview_id = (int64_t)preview->version;
    }
}

/* How it stands with a job; false: there is none that this client may see. */
static bool show_job(http_request *request, const sdapi_call *call, api_sdapi_progress *out)
{
    service *s = request->application;
    job_view held;
    api_request *made = calloc(1, sizeof *made);
    if (made == NULL || job_view_get(&held, s, route_reach(request), call->id) != STORE_OK) {
        free(made);
        return false;
    }
    const api_job_view *view = &held.view;
    const char *json = held.job.request_json != NULL ? held.job.request_json : "";
    *out = (api_sdapi_progress){.known = true,
                                .queued = view->state == API_STATE_QUEUED,
                                .ended = api_state_ended(view->state),
                                .interrupted = view->cancel_requested || view->state == API_STATE_CANCELED,
                                .img2img = call->img2img,
                                .fraction = view->total > 0 ? (double)view->done / (double)view->total : 0,
                                .eta_seconds = view->eta_seconds,
                                .created_ms = view->created_ms,
                                .queue_position = view->queue_position,
                                .n_iter = call->n_iter,
                                .n = held.job.n,
                                .images_done = view->images_done,
                                .done = view->done,
                                .preview_id = -1};
    if (view->adaptive) { /* nobody knows how many steps there will be */
        out->fraction = held.job.n > 0 ? (double)view->images_done / held.job.n : 0;
    }
    if (api_request_from_json(made, json, strlen(json))) {
        out->steps = api_request_steps_made(made);
    }
    if (out->ended) {
        sdapi_calls_end(s->sdapi, call->id);
    }
    job_view_done(&held);
    free(made);
    return true;
}

/* The call of a task id, the client's own before others' where it may see those; else the job of that id, as a call of one batch. */
static bool show_task(http_request *request, const char *task, sdapi_call *call, api_sdapi_progress *out)
{
    service *s = request->application;
    if (!sdapi_calls_find(s->sdapi, request->client, task, call) && !sdapi_calls_find(s->sdapi, route_reach(request), task, call)) {
        *call = (sdapi_call){.n_iter = 1};
        if (!api_id_valid(task)) {
            return false;
        }
        memcpy(call->id, task, sizeof call->id);
    }
    return show_job(request, call, out);
}

/* The oldest call of the client's that has not ended. */
static bool show_current(http_request *request, sdapi_call *call, api_sdapi_progress *out)
{
    service *s = request->application;
    while (sdapi_calls_open(s->sdapi, request->client, call, 1) == 1) {
        if (show_job(request, call, out) && !out->ended) {
            return true;
        }
        sdapi_calls_end(s->sdapi, call->id); /* or retention has taken it */
    }
    *out = (api_sdapi_progress){.known = false};
    return false;
}

/* A boolean as clients of webui write it. */
static bool read_flag(http_request *request, const char *name, bool *out)
{
    static const char *const words[6] = {"false", "False", "0", "true", "True", "1"};
    const char *text = http_query(request, name);
    *out = false;
    for (size_t i = 0; text != NULL && i < 6; i++) {
        if (strcmp(text, words[i]) == 0) {
            *out = i >= 3;
            return true;
        }
    }
    return text == NULL;
}

/* ?id_task=, NULL where it is not sent. False: refused and answered. */
static bool read_task_query(http_request *request, const char **task)
{
    api_sdapi_refusal refusal = {.kind = "value_error"};
    *task = http_query(request, "id_task");
    const size_t bytes = *task != NULL ? strlen(*task) : 0;
    bool fine = bytes < API_SDAPI_TASK_BYTES;
    for (size_t i = 0; i < bytes && fine; i++) {
        fine = (*task)[i] >= ' ' && (*task)[i] <= '~';
    }
    if (!fine) {
        api_refuse(&refusal.problem, API_INVALID_FIELD, "id_task", "id_task must have at most 127 printable ASCII characters");
        sdapi_refuse(request, &refusal);
    }
    return fine;
}

void route_sdapi_progress(http_request *request)
{
    service *s = request->application;
    api_sdapi_refusal refusal = {.kind = "type_error.bool"};
    api_sdapi_progress progress = {.known = false};
    hub_preview_view preview = {.png = NULL};
    sdapi_call call;
    bool without_image = false;
    const char *task = NULL;
    if (!read_task_query(request, &task)) {
        return;
    }
    if (!read_flag(request, "skip_current_image", &without_image)) {
        api_refuse(&refusal.problem, API_INVALID_FIELD, "skip_current_image", "skip_current_image must be true or false");
        sdapi_refuse(request, &refusal);
        return;
    }
    const bool known = task != NULL ? show_task(request, task, &call, &progress) : show_current(request, &call, &progress);
    if (known && !progress.ended && !without_image) {
        show_preview(s, call.id, -1, &progress, &preview);
    }
    http_answer_json(request, 200, api_sdapi_progress_body(&progress));
    free(preview.png);
}

static bool read_task(const cJSON *root, const char **task, int64_t *seen, bool *previews, api_sdapi_refusal *refusal)
{
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        const bool whole =
            cJSON_IsNumber(item) && item->valuedouble >= -1 && item->valuedouble < 9e15 && item->valuedouble == floor(item->valuedouble);
        if (strcmp(item->string, "id_task") == 0 && cJSON_IsString(item)) {
            *task = item->valuestring;
        } else if (strcmp(item->string, "id_live_preview") == 0 && whole) {
            *seen = (int64_t)item->valuedouble;
        } else if (strcmp(item->string, "live_preview") == 0 && cJSON_IsBool(item)) {
            *previews = cJSON_IsTrue(item);
        } else {
            refusal->kind = "value_error";
            return api_refuse(&refusal->problem, API_INVALID_FIELD, "",
                              "the body may have id_task (a string), id_live_preview (a whole number) and live_preview (true or false)");
        }
    }
    refusal->kind = "value_error.missing";
    return *task != NULL || api_refuse(&refusal->problem, API_INVALID_FIELD, "/id_task", "id_task is required");
}

void route_sdapi_task(http_request *request)
{
    service *s = request->application;
    api_sdapi_refusal refusal = {.kind = NULL};
    api_sdapi_progress progress = {.known = false};
    hub_preview_view preview = {.png = NULL};
    const char *task = NULL;
    int64_t seen = -1;
    bool previews = true;
    sdapi_call call;
    cJSON *root = NULL;
    if (!sdapi_read_object(request, &root)) {
        return;
    }
    if (!read_task(root, &task, &seen, &previews, &refusal)) {
        sdapi_refuse(request, &refusal);
        cJSON_Delete(root);
        return;
    }
    if (show_task(request, task, &call, &progress) && !progress.queued && !progress.ended && previews) {
        show_preview(s, call.id, seen, &progress, &preview);
    } else if (progress.known && !progress.ended && previews) {
        sdapi_calls_watch(s->sdapi, call.id); /* for when it runs */
    }
    http_answer_json(request, 200, api_sdapi_task_body(&progress));
    free(preview.png);
    cJSON_Delete(root);
}

/* ---- Ending */

/* Every call of the client's that is open, or the one that was named. All are given to the store before the request sleeps, so that they
 * take their course whether or not the client stays. */
typedef struct interrupt_state {
    http_request *request;
    store_request **cancels;
    size_t count;
    atomic_size_t left; /* not answered by the store yet */
} interrupt_state;

static void interrupt_state_free(void *payload)
{
    interrupt_state *i = payload;
    for (size_t k = 0; k < i->count; k++) {
        store_request_free(i->cancels[k]);
    }
    free(i->cancels);
    free(i);
}

static void on_written(store_request *done)
{
    interrupt_state *i = done->payload;
    if (atomic_fetch_sub(&i->left, 1) == 1) {
        http_resume(i->request);
    }
}

/* Which calls are to end; *count of them. */
static void find_calls(http_request *request, const char *task, sdapi_call *calls, size_t *count)
{
    service *s = request->application;
    if (task == NULL) {
        *count = sdapi_calls_open(s->sdapi, request->client, calls, SDAPI_CALLS_MAX);
    } else if (sdapi_calls_find(s->sdapi, request->client, task, calls)) {
        *count = calls[0].ended ? 0 : 1;
    }
}

static bool make_cancels(interrupt_state *i, const sdapi_call *calls, size_t count)
{
    const service *s = i->request->application;
    i->cancels = calloc(count + 1, sizeof *i->cancels);
    for (size_t k = 0; k < count && i->cancels != NULL; k++) {
        store_request *cancel = store_request_create(STORE_CANCEL, on_written, i);
        if (cancel == NULL) {
            return false;
        }
        memcpy(cancel->client, i->request->client, sizeof cancel->client);
        memcpy(cancel->id, calls[k].id, sizeof cancel->id);
        cancel->base_path = s->base_path;
        i->cancels[i->count++] = cancel;
    }
    return i->cancels != NULL;
}

/* False: answered. */
static bool begin_interrupt(http_request *request)
{
    const char *task = NULL;
    size_t count = 0;
    if (!read_task_query(request, &task)) {
        return false;
    }
    interrupt_state *i = calloc(1, sizeof *i);
    sdapi_call *calls = calloc(SDAPI_CALLS_MAX, sizeof *calls);
    bool fine = i != NULL && calls != NULL;
    if (fine) {
        i->request = request;
        request->state = i;
        request->state_free = interrupt_state_free;
        find_calls(request, task, calls, &count);
        fine = make_cancels(i, calls, count);
    } else {
        free(i);
    }
    free(calls);
    if (!fine) {
        http_refuse(request, API_INTERNAL, "out of memory");
    }
    return fine;
}

/* What the cancels came to. A job that has ended or gone meanwhile needs none. False: refused and answered. */
static bool interrupted(http_request *request, const interrupt_state *i)
{
    service *s = request->application;
    const store_request *refused = NULL;
    for (size_t k = 0; k < i->count; k++) {
        const store_request *done = i->cancels[k];
        if (done->result == STORE_OK) {
            route_canceled(s, done);
        } else if (done->result != STORE_ENDED && done->result != STORE_NONE && done->result != STORE_GONE) {
            refused = done;
        }
    }
    if (refused != NULL) {
        route_store_refusal(request, s, refused);
    }
    return refused == NULL;
}

static void route_interrupt(http_request *request, const char *body)
{
    service *s = request->application;
    const bool first = request->state == NULL;
    if (first && !begin_interrupt(request)) {
        return;
    }
    interrupt_state *i = request->state;
    const size_t count = i->count; /* when the last one is given away, the request may be gone */
    if (first && count > 0) {
        atomic_store(&i->left, count);
        http_suspend(request, -1.0);
        for (size_t k = 0; k < count; k++) {
            store_submit(s->store, i->cancels[k]);
        }
    } else if (interrupted(request, i)) {
        http_answer_constant(request, 200, "application/json", body, strlen(body));
    }
}

void route_sdapi_interrupt(http_request *request)
{
    route_interrupt(request, "{}");
}

/* The pictures of a call are made together, so there is no next one to go on with: what is left of the call ends. */
void route_sdapi_skip(http_request *request)
{
    route_interrupt(request, "null");
}
