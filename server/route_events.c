/* GET /jobs/{id}/events: server-sent events. Milestones come from the store, verbatim, with ids; position, progress and
 * previews come from the hub, the latest only, without ids. The reader never blocks: when there is nothing to say it
 * suspends the connection until the hub wakes it or a ping is due. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/service.h"

#define PING_SECONDS 15.0
#define PROGRESS_SECONDS 0.1 /* at most 10 a second */
#define POSITION_SECONDS 1.0 /* each is counted out of the queue, for everybody who waits; streams take turns within it */
#define POSITION_TURNS 32
#define PREVIEW_SECONDS 0.125 /* at most 8 a second a stream */

typedef struct event_stream {
    service *service;
    http_request *request;
    char id[27];
    char client[65];
    hub_subscription *subscription;
    bool counted, previews, greeted, replayed, ended, queued; /* queued: as far as it was told */
    int64_t after;
    uint64_t progress_version, queue_version, preview_version;
    int64_t position; /* last told; -1: none since the last milestone */
    api_job_view running; /* as it was stored at the last milestone, without what it points to; total 0: not read since */
    double turn; /* of POSITION_SECONDS: when it looks for its place */
    double wrote_at, progress_at, preview_at;
    char *text; /* being sent */
    size_t used, sent, room;
} event_stream;

static void wake_request(void *payload)
{
    http_resume(payload);
}

static void stream_free(void *payload)
{
    event_stream *e = payload;
    if (e->subscription != NULL) {
        hub_unsubscribe(e->service->hub, e->subscription);
    }
    if (e->counted) {
        stream_leave(e->service, e->client);
    }
    free(e->text);
    free(e);
}

/* ---- Filling the buffer */

static void append(event_stream *e, const char *text)
{
    size_t length = strlen(text);
    if (e->used + length > e->room) {
        size_t room = 2 * (e->used + length);
        char *grown = realloc(e->text, room);
        if (grown == NULL) {
            e->ended = true;
            return;
        }
        e->text = grown;
        e->room = room;
    }
    memcpy(e->text + e->used, text, length);
    e->used += length;
}

/* Takes data. */
static void append_event(event_stream *e, int64_t id, const char *name, char *data)
{
    char *text = data == NULL ? NULL : api_sse(id, name, data);
    if (text != NULL) {
        append(e, text);
    }
    free(text);
    free(data);
}

static bool ends(const char *name)
{
    api_state state;
    return api_state_parse(name, &state) && api_state_ended(state);
}

static void append_milestones(event_stream *e)
{
    store_event *events = NULL;
    size_t count = 0;
    if (store_events(e->service->store, e->id, e->after, &events, &count) != STORE_OK) {
        e->ended = true;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        append_event(e, events[i].seq, events[i].name, events[i].data);
        events[i].data = NULL;
        e->after = events[i].seq;
        e->position = -1;
        e->running.total = 0;
        e->queued = strcmp(events[i].name, "queued") == 0 || strcmp(events[i].name, "requeued") == 0;
        e->ended |= ends(events[i].name);
    }
    store_events_free(events, count);
}

/* Between two milestones a running job changes in what the hub knows alone; the store need not be asked ten times a second by every
 * stream. False: it must be. */
static bool append_live_progress(event_stream *e, const hub_live *live)
{
    if (e->running.total == 0 || !live->known || live->total != e->running.total || live->eta_seconds < 0) {
        return false;
    }
    api_job_view view = e->running;
    view.done = live->done > view.done ? live->done : view.done;
    view.eta_seconds = live->eta_seconds;
    append_event(e, -1, "progress", api_event_progress(&view));
    return true;
}

static void append_progress(event_stream *e, const hub_live *live)
{
    job_view held;
    if (append_live_progress(e, live)) {
        return;
    }
    if (job_view_get(&held, e->service, NULL, e->id) != STORE_OK) {
        e->ended = true;
        return;
    }
    e->queued = held.job.state == API_STATE_QUEUED;
    if (e->queued) {
        if (held.view.queue_position >= 0 && held.view.queue_position != e->position) {
            e->position = held.view.queue_position;
            append_event(e, -1, "position", api_event_position(held.view.queue_position, held.view.eta_seconds));
        }
    } else if (held.job.state == API_STATE_RUNNING) {
        append_event(e, -1, "progress", api_event_progress(&held.view));
        e->running = held.view;
        e->running.images = NULL;
        e->running.request_json = e->running.error_code = e->running.error_detail = NULL;
    }
    job_view_done(&held);
}

static void append_preview(event_stream *e, double now)
{
    hub_preview_view preview;
    if (!hub_next_preview(e->service->hub, e->id, e->preview_version, &preview)) {
        return;
    }
    e->preview_version = preview.version;
    e->preview_at = now;
    append_event(e, -1, "preview",
                 api_event_preview(preview.index, preview.done, preview.total, preview.width, preview.height, preview.png, preview.bytes));
    free(preview.png);
}

/* When to look for progress or the place in the queue: `now` or before it is at once. Nobody wakes those who wait when the queue moves: they
 * look every second, each at its own time of it, as two thousand places counted at once would hold up everybody else. */
static double next_look(const event_stream *e, const hub_live *live, double now)
{
    if (e->progress_at <= 0) {
        return now;
    }
    if (e->queued) {
        const double turn = floor((e->progress_at - e->turn) / POSITION_SECONDS + 1) * POSITION_SECONDS + e->turn;
        return turn > now || live->queue_version != e->queue_version ? turn : now + POSITION_SECONDS;
    }
    return live->version != e->progress_version ? e->progress_at + PROGRESS_SECONDS : now + PING_SECONDS;
}

/* What is new since the last look; how long it may sleep when there is nothing. */
static double fill(event_stream *e)
{
    hub_live live = {0};
    double now = dn_now_seconds();
    double sleep = PING_SECONDS - (now - e->wrote_at);
    if (!e->greeted) {
        e->greeted = true;
        append(e, "retry: 2000\n\n");
    }
    hub_read(e->service->hub, e->id, &live);
    if (!e->replayed || live.seq > e->after || live.ended || sleep <= 0.0) {
        e->replayed = true;
        append_milestones(e);
    }
    if (e->ended) {
        return sleep;
    }
    if (next_look(e, &live, now) <= now) {
        e->progress_version = live.version;
        e->queue_version = live.queue_version;
        e->progress_at = now;
        append_progress(e, &live);
    }
    sleep = fmin(sleep, next_look(e, &live, now) - now);
    if (e->previews && live.preview_version > e->preview_version) {
        if (now - e->preview_at >= PREVIEW_SECONDS) {
            append_preview(e, now);
        } else if (PREVIEW_SECONDS - (now - e->preview_at) < sleep) {
            sleep = PREVIEW_SECONDS - (now - e->preview_at);
        }
    }
    if (e->used == 0 && sleep <= 0.0) {
        append(e, ": ping\n\n");
    }
    return sleep;
}

static ssize_t read_events(http_request *request, void *payload, char *out, size_t room)
{
    event_stream *e = payload;
    if (e->sent == e->used) {
        e->sent = e->used = 0;
        if (e->ended) {
            return -1;
        }
        if (atomic_load(&request->gone)) {
            return -1;
        }
        double sleep = fill(e);
        if (e->used == 0) {
            if (e->ended) {
                return -1;
            }
            http_suspend(request, sleep > 0.01 ? sleep : 0.01);
            return 0;
        }
        e->wrote_at = dn_now_seconds();
    }
    size_t count = e->used - e->sent < room ? e->used - e->sent : room;
    memcpy(out, e->text + e->sent, count);
    e->sent += count;
    return (ssize_t)count;
}

void route_stream(http_request *request, const char *job_id, int64_t after_seq, bool previews)
{
    service *s = request->application;
    event_stream *e = calloc(1, sizeof *e);
    if (e == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    *e = (event_stream){.service = s,
                        .request = request,
                        .previews = previews,
                        .after = after_seq,
                        .position = -1,
                        .queued = true,
                        .wrote_at = dn_now_seconds()};
    snprintf(e->id, sizeof e->id, "%s", job_id);
    snprintf(e->client, sizeof e->client, "%s", request->client);
    request->state = e;
    request->state_free = stream_free;
    api_code refusal = stream_enter(s, e->client);
    if (refusal != API_NONE) {
        http_add_header(request, "Retry-After", "5");
        http_refuse(request, refusal, STREAMS_REFUSED);
        return;
    }
    e->counted = true;
    e->turn = POSITION_SECONDS / POSITION_TURNS * (atomic_fetch_add(&s->stream_turn, 1) % POSITION_TURNS);
    e->subscription = hub_subscribe(s->hub, e->id, previews, wake_request, request);
    if (e->subscription == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
        return;
    }
    http_add_header(request, "X-Accel-Buffering", "no");
    http_answer_stream(request, 200, "text/event-stream", read_events, e);
}

/* Last-Event-ID, which counts first, or ?after=: digits only. -1: neither is given; -2: one of them is malformed. */
static int64_t asked_after(http_request *request)
{
    const char *const texts[] = {http_header(request, "Last-Event-ID"), http_query(request, "after")};
    int64_t after = -1;
    for (int i = 1; i >= 0; i--) {
        if (texts[i] != NULL && !api_event_id_parse(texts[i], &after)) {
            return -2;
        }
    }
    return after;
}

void route_job_events(http_request *request)
{
    service *s = request->application;
    store_job job = {0};
    store_event *events = NULL;
    size_t count = 0;
    bool previews = true;
    int64_t after = asked_after(request);
    if (!route_flag(request, "previews", true, &previews)) {
        return;
    }
    if (!api_id_valid(request->segment[0])) {
        route_missing(request, STORE_NONE);
        return;
    }
    store_result result = store_get(s->store, route_reach(request), request->segment[0], &job);
    if (result == STORE_OK && job.expired) {
        result = STORE_GONE;
    }
    if (result == STORE_OK) {
        result = store_events(s->store, request->segment[0], 0, &events, &count);
    }
    int64_t last = count > 0 ? events[count - 1].seq : 0;
    bool over = api_state_ended(job.state);
    store_events_free(events, count);
    store_job_done(&job);
    if (result != STORE_OK) {
        route_missing(request, result);
    } else if (after == -2 || after > last) {
        http_refuse(request, API_BAD_EVENT_ID, "the event id must be one that this stream gave");
    } else if (over && after == last) {
        http_answer_empty(request, 204);
    } else {
        route_stream(request, request->segment[0], after < 0 ? 0 : after, previews);
    }
}
