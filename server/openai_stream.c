/* A job as OpenAI streams pictures: image_generation.partial_image from the previews of the denoising loop, image_generation.completed for
 * each finished image, error when there will be none. As in route_events.c the reader never blocks: when there is nothing to say it suspends
 * the connection until the hub wakes it or a ping is due. A client that leaves cancels nothing: Location says where its job is. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/enlarge.h"
#include "base/clock.h"
#include "server/openai.h"

#define PING_SECONDS 15.0

typedef struct image_stream {
    service *service;
    http_request *request;
    char id[27];
    char client[65];
    hub_subscription *subscription;
    bool counted, greeted, looked, more, ended; /* more: another finished image waits to be told */
    unsigned partial_images;
    uint8_t partials[API_N_MAX]; /* told of each image */
    bool completed[API_N_MAX];
    uint32_t width, height; /* of the model's pictures; 0: not known */
    int64_t seq; /* the newest milestone that was looked at */
    uint64_t preview_version;
    double wrote_at;
    char *text; /* being sent */
    size_t used, sent;
} image_stream;

static void wake_request(void *payload)
{
    http_resume(payload);
}

static void stream_free(void *payload)
{
    image_stream *e = payload;
    if (e->subscription != NULL) {
        hub_unsubscribe(e->service->hub, e->subscription);
    }
    if (e->counted) {
        stream_leave(e->service, e->client);
    }
    free(e->text);
    free(e);
}

/* Takes the event, the one thing to be sent next; without memory for it the stream ends. */
static void say(image_stream *e, char *event)
{
    free(e->text);
    e->text = event;
    e->used = event != NULL ? strlen(event) : 0;
    e->sent = 0;
    e->ended |= event == NULL;
}

static void say_problem(image_stream *e, const api_problem *problem)
{
    int status;
    char *error = api_openai_error(problem, &status);
    say(e, error != NULL ? api_openai_error_event(error) : NULL);
    free(error);
    e->ended = true;
}

static int64_t seconds_now(void)
{
    return dn_wall_ms() / 1000;
}

/* ---- Finished images */

static void say_completed(image_stream *e, const job_view *held, const store_image *row)
{
    api_problem problem = {0};
    const char *json = held->job.request_json;
    api_request *asked = calloc(1, sizeof *asked);
    unsigned char *png = route_image_bytes(e->service, row);
    if (asked == NULL || png == NULL || json == NULL || !api_request_from_json(asked, json, strlen(json))) {
        api_refuse(&problem, API_INTERNAL, "", "an image's file could not be read");
        say_problem(e, &problem);
    } else {
        api_openai_image image = openai_image(row, asked);
        image.png = png;
        say(e, api_openai_completed_event(&image, seconds_now()));
    }
    free(png);
    free(asked);
}

/* What the store knows: the next finished image that has not been told, or how the job ended without more. */
static void look(image_stream *e)
{
    job_view held;
    api_problem problem = {0};
    const store_result result = job_view_get(&held, e->service, NULL, e->id);
    const store_image *next = NULL;
    e->more = false;
    if (result != STORE_OK) {
        api_refuse(&problem, result == STORE_GONE ? API_EXPIRED : API_INTERNAL, "", "the job could not be read");
        say_problem(e, &problem);
        return;
    }
    for (size_t i = 0; i < held.image_count; i++) {
        if (held.images[i].index < API_N_MAX && !e->completed[held.images[i].index]) {
            e->more = next != NULL;
            next = next != NULL ? next : &held.images[i];
        }
    }
    if (next != NULL) {
        e->completed[next->index] = true;
        say_completed(e, &held, next);
        e->more |= api_state_ended(held.job.state); /* the next look ends the stream */
    } else if (held.job.state == API_STATE_SUCCEEDED) {
        e->ended = true;
    } else if (api_state_ended(held.job.state)) {
        openai_ended_badly(&held.job, &problem);
        say_problem(e, &problem);
    }
    job_view_done(&held);
}

/* ---- Previews */

/* Whether a preview is the image's next partial picture: k of them stand for k equal parts of its way. */
static bool is_due(const image_stream *e, const hub_preview_view *preview)
{
    return preview->index < API_N_MAX && !e->completed[preview->index] && e->partials[preview->index] < e->partial_images &&
           (uint64_t)preview->done * (e->partial_images + 1) >= (uint64_t)preview->total * (e->partials[preview->index] + 1u);
}

static void say_partial(image_stream *e, const hub_preview_view *preview)
{
    api_openai_image image = {
        .index = preview->index, .png = preview->png, .png_bytes = preview->bytes, .width = preview->width, .height = preview->height};
    unsigned char *large = NULL;
    if (preview->width < e->width && preview->height < e->height) {
        large = api_enlarge_png(&image.png_bytes, preview->png, preview->bytes, e->width, e->height);
    }
    if (large != NULL) {
        image.png = large;
        image.width = e->width;
        image.height = e->height;
    } else {
        image.png_bytes = preview->bytes;
    }
    say(e, api_openai_partial_event(&image, e->partials[preview->index]++, seconds_now()));
    free(large);
}

static void look_for_previews(image_stream *e)
{
    hub_preview_view preview;
    while (e->used == 0 && !e->ended && hub_next_preview(e->service->hub, e->id, e->preview_version, &preview)) {
        e->preview_version = preview.version;
        if (is_due(e, &preview)) {
            say_partial(e, &preview);
        }
        free(preview.png);
    }
}

/* ---- The stream */

/* What is new since the last look; how long it may sleep when there is nothing. */
static double fill(image_stream *e)
{
    hub_live live = {0};
    const double sleep = PING_SECONDS - (dn_now_seconds() - e->wrote_at);
    e->used = e->sent = 0;
    if (!e->greeted) {
        e->greeted = true;
        say(e, strdup(": the job is accepted\n\n"));
        return sleep;
    }
    hub_read(e->service->hub, e->id, &live);
    if (e->partial_images > 0) {
        look_for_previews(e);
    }
    if (e->used > 0 || e->ended) {
        return sleep;
    }
    if (!e->looked || e->more || live.seq > e->seq || live.ended || sleep <= 0.0) {
        e->looked = true;
        e->seq = live.seq;
        look(e);
    }
    if (e->used == 0 && !e->ended && sleep <= 0.0) {
        say(e, strdup(": ping\n\n"));
    }
    return sleep;
}

/* Without it a client would take the end of the stream for that of its pictures. */
static void say_stopping(image_stream *e)
{
    api_problem problem = {0};
    api_refuse(&problem, API_DRAINING, "", "the daemon is stopping; the job goes on: GET %s/jobs/%s (see Location)", e->service->base_path,
               e->id);
    say_problem(e, &problem);
}

static ssize_t read_stream(http_request *request, void *payload, char *out, size_t room)
{
    image_stream *e = payload;
    if (e->sent == e->used) {
        if (e->ended || atomic_load(&request->gone)) {
            return -1;
        }
        const double sleep = fill(e);
        if (e->used == 0 && !e->ended && http_stopping(request->server)) {
            say_stopping(e);
        }
        if (e->used == 0) {
            if (e->ended) {
                return -1;
            }
            http_suspend(request, fmax(sleep, 0.01));
            return 0;
        }
        e->wrote_at = dn_now_seconds();
    }
    const size_t count = e->used - e->sent < room ? e->used - e->sent : room;
    memcpy(out, e->text + e->sent, count);
    e->sent += count;
    return (ssize_t)count;
}

/* How large the model's pictures are, so that what comes before them has their size. */
static void find_size(image_stream *e)
{
    store_job job = {0};
    if (store_get(e->service->store, NULL, e->id, &job) == STORE_OK) {
        const api_model *model = models_lookup(e->service->models, job.model);
        e->width = model != NULL ? model->width : 0;
        e->height = model != NULL ? model->height : 0;
        store_job_done(&job);
    }
}

void openai_stream(http_request *request, const char *job_id, unsigned partial_images)
{
    service *s = request->application;
    image_stream *e = calloc(1, sizeof *e);
    if (e == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    e->service = s;
    e->request = request;
    e->partial_images = partial_images;
    e->wrote_at = dn_now_seconds();
    snprintf(e->id, sizeof e->id, "%s", job_id);
    snprintf(e->client, sizeof e->client, "%s", request->client);
    request->state = e;
    request->state_free = stream_free;
    api_code refusal = stream_enter(s, e->client);
    if (refusal != API_NONE) {
        http_add_header(request, "Retry-After", "5");
        http_add_header(request, "X-Should-Retry", "false"); /* the job is there already: Location */
        http_refuse(request, refusal, STREAMS_REFUSED);
        return;
    }
    e->counted = true;
    find_size(e);
    e->subscription = hub_subscribe(s->hub, e->id, partial_images > 0, wake_request, request);
    if (e->subscription == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    http_add_header(request, "X-Accel-Buffering", "no");
    http_answer_stream(request, 200, "text/event-stream", read_stream, e);
}
