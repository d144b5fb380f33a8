/* Follows a job's event stream (client.h): a bar, previews, and one connection after another until the job has ended. A connection that
 * is lost is looked for again with growing pauses; what was missed meanwhile is asked for by Last-Event-ID. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/base64.h"
#include "base/clock.h"
#include "server/client.h"

#define PAUSE_FIRST 0.25 /* seconds before the second connection, then twice as long each time */
#define PAUSE_MOST 15.0

/* What stands below the picture. */
static void draw_bar(client_watch *w)
{
    dn_progress_update_left(&w->bar, w->share, w->left_seconds, w->note);
}

/* Wipes the bar, so that something else can be written where it stands; it is drawn again at once, whatever its pace. */
static void wipe_bar(client_watch *w)
{
    dn_progress_end(&w->bar);
    w->bar.drawn = 0.0;
}

/* A line beneath the picture. */
static void say(client_watch *w, const char *text)
{
    wipe_bar(w);
    fprintf(stderr, "denoised %s: ", w->c->command);
    client_print(stderr, text);
    fprintf(stderr, "\n");
    w->pictures.lines = 0; /* what is drawn next stands below this line */
}

static void on_progress_event(client_watch *w, const cJSON *data)
{
    const double fraction = client_number(data, "fraction", -1), done = client_number(data, "done", 0);
    w->bar.label = "denoising";
    w->note[0] = '\0';
    if (fraction < 0)
        snprintf(w->note, sizeof w->note, "%.0f steps", done);
    else if (client_number(data, "images_done", 0) > 0)
        snprintf(w->note, sizeof w->note, "%.0f done", client_number(data, "images_done", 0));
    w->share = fraction > 0 ? fraction : 0;
    w->left_seconds = client_number(data, "eta_seconds", -1);
    draw_bar(w);
}

static void on_waiting(client_watch *w, const cJSON *data)
{
    const double place = client_number(data, "queue_position", -1);
    w->bar.label = "waiting  ";
    w->note[0] = '\0';
    if (place >= 0)
        snprintf(w->note, sizeof w->note, "%.0f before it", place);
    w->share = 0;
    w->left_seconds = client_number(data, "eta_seconds", -1);
    draw_bar(w);
}

static void on_preview(client_watch *w, const cJSON *data)
{
    const char *text = client_text(data, "png");
    const size_t length = strlen(text);
    const double index = client_number(data, "index", -1);
    size_t bytes = 0;
    unsigned char *png = malloc(length + 1);
    if (png != NULL && index >= 0 && index < CLIENT_IMAGES_MAX && api_base64_decode(png, &bytes, text, length) &&
        client_pictures_add(&w->pictures, (uint32_t)index, png, bytes)) {
        wipe_bar(w);
        client_pictures_show(&w->pictures, w->screen);
        draw_bar(w);
    }
    free(png);
}

/* Milestones of a job that nobody draws a bar for. */
static void tell_milestone(client_watch *w, const char *name, const cJSON *data)
{
    char line[96] = "";
    const cJSON *image = cJSON_GetObjectItemCaseSensitive(data, "image");
    if (strcmp(name, "started") == 0)
        snprintf(line, sizeof line, "running (attempt %.0f)", client_number(data, "attempt", 1));
    else if (strcmp(name, "image") == 0)
        snprintf(line, sizeof line, "picture %.0f is done", client_number(image, "index", 0));
    else if (strcmp(name, "queued") == 0)
        snprintf(line, sizeof line, "waiting");
    if (line[0] != '\0' && w->plain)
        say(w, line);
    if (strcmp(name, "requeued") == 0) {
        snprintf(line, sizeof line, "the job waits again (%.40s)", client_text(data, "reason"));
        say(w, line);
    }
}

static void print_event(const client_event *event, cJSON *data)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddItemToObject(line, "id", event->id != NULL ? cJSON_CreateNumber(strtod(event->id, NULL)) : cJSON_CreateNull());
    cJSON_AddStringToObject(line, "event", event->name);
    cJSON_AddItemReferenceToObject(line, "data", data);
    char *text = cJSON_PrintUnformatted(line);
    if (text != NULL)
        printf("%s\n", text);
    fflush(stdout);
    cJSON_free(text);
    cJSON_Delete(line);
}

static bool is_end(const char *name)
{
    return strcmp(name, "succeeded") == 0 || strcmp(name, "failed") == 0 || strcmp(name, "canceled") == 0;
}

static bool on_event(void *payload, const client_event *event)
{
    client_watch *w = payload;
    cJSON *data = cJSON_Parse(event->data);
    w->heard = true;
    if (w->json && data != NULL)
        print_event(event, data);
    if (strcmp(event->name, "progress") == 0)
        on_progress_event(w, data);
    else if (strcmp(event->name, "preview") == 0)
        on_preview(w, data);
    else if (strcmp(event->name, "position") == 0 || strcmp(event->name, "queued") == 0)
        on_waiting(w, data);
    tell_milestone(w, event->name, data);
    if (is_end(event->name))
        w->job = cJSON_DetachItemFromObjectCaseSensitive(data, "job");
    cJSON_Delete(data);
    return w->job == NULL && !client_stopped();
}

/* The job itself, where no events are left of it. */
static int look_at_job(client_watch *w)
{
    char path[64];
    client_answer answer;
    snprintf(path, sizeof path, "/jobs/%s", w->id);
    int status = client_call(w->c, "GET", path, NULL, NULL, &answer);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    if (answer.status != 200)
        status = client_refused(w->c, &answer);
    else if ((w->job = client_json(w->c, &answer)) == NULL)
        status = DN_EXIT_PROTOCOL;
    client_answer_done(&answer);
    return status;
}

static bool is_passing(long status)
{
    return status == 429 || status == 502 || status == 503 || status == 504;
}

static void pause_for(double seconds)
{
    const double until = dn_now_seconds() + seconds;
    for (double left; !client_stopped() && (left = until - dn_now_seconds()) > 0;) {
        const struct timespec nap = {.tv_nsec = (long)(1e9 * (left < 0.1 ? left : 0.1))};
        nanosleep(&nap, NULL);
    }
}

/* One connection. DN_OPTIONS_GO_ON: the job has ended, or another connection is due (*again). */
static int connect_once(client_watch *w, bool first, bool *again, unsigned *retry_after)
{
    char path[96], header[64];
    client_answer answer;
    int status = DN_OPTIONS_GO_ON;
    snprintf(path, sizeof path, "/jobs/%s/events%s", w->id, w->screen->way != TERMINAL_NONE || w->json ? "" : "?previews=0");
    snprintf(header, sizeof header, "Last-Event-ID: %s", w->events.last_id);
    client_events_again(&w->events);
    const CURLcode code = client_stream(w->c, path, w->events.last_id[0] != '\0' ? header : NULL, client_events_feed, &w->events, &answer);
    *again = false;
    *retry_after = answer.retry_after;
    if (w->job != NULL || client_stopped())
        status = DN_OPTIONS_GO_ON;
    else if (code == CURLE_OK && answer.status == 204)
        status = look_at_job(w);
    else if (answer.status >= 400 && !is_passing(answer.status))
        status = client_refused(w->c, &answer);
    else if (first && code != CURLE_OK && answer.status == 0)
        status = client_unreachable(w->c, code);
    else
        *again = true;
    client_answer_done(&answer);
    return status;
}

static int stopped(client_watch *w)
{
    fprintf(stderr,
            "denoised %s: the job goes on; to see more of it: denoised watch %s, for its pictures: denoised get %s, to end it: "
            "denoised cancel %s\n",
            w->c->command, w->id, w->id, w->id);
    return DN_EXIT_INTERRUPTED;
}

static int give_up(client_watch *w)
{
    fprintf(
        stderr,
        "denoised %s: the daemon has not been there for %.0f s; the job is safe in its queue if the daemon comes back: denoised watch %s\n",
        w->c->command, w->give_up_seconds, w->id);
    return DN_EXIT_TEMPORARY;
}

int client_watch_run(client_watch *w)
{
    double pause = PAUSE_FIRST, lost_at = 0.0;
    bool again = true, first = true, said = false;
    int status = DN_OPTIONS_GO_ON;
    w->events = (client_events){.on_event = on_event, .payload = w};
    dn_progress_begin(&w->bar, "waiting  ", 1.0);
    w->plain = !w->bar.terminal && !w->json;
    while (again && status == DN_OPTIONS_GO_ON && !client_stopped()) {
        unsigned retry_after = 0;
        w->heard = false;
        status = connect_once(w, first, &again, &retry_after);
        first = false;
        if (!again || status != DN_OPTIONS_GO_ON || client_stopped())
            break;
        if (w->heard) {
            pause = PAUSE_FIRST;
            lost_at = 0.0;
            said = false;
        }
        if (!said)
            say(w, "the connection was lost; trying again");
        said = true;
        lost_at = lost_at > 0.0 ? lost_at : dn_now_seconds();
        if (dn_now_seconds() - lost_at > w->give_up_seconds) {
            status = give_up(w);
            break;
        }
        pause_for(retry_after > pause ? retry_after : pause);
        pause = pause * 2 < PAUSE_MOST ? pause * 2 : PAUSE_MOST;
    }
    dn_progress_end(&w->bar);
    client_events_done(&w->events);
    return status == DN_OPTIONS_GO_ON && w->job == NULL ? stopped(w) : status;
}

int client_tell_end(const client *c, const cJSON *job)
{
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(job, "error");
    const char *state = client_text(job, "state");
    const int pictures = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(job, "images"));
    fprintf(stderr, "job ");
    client_print(stderr, client_text(job, "id"));
    fprintf(stderr, " ");
    client_print(stderr, state);
    fprintf(stderr, ", %d picture%s", pictures, pictures == 1 ? "" : "s");
    if (client_text(error, "detail")[0] != '\0') {
        fprintf(stderr, ": ");
        client_print(stderr, client_text(error, "detail"));
    }
    fprintf(stderr, "\n");
    if (strcmp(client_text(error, "code"), "crashed") == 0)
        fprintf(stderr, "denoised %s: it ended its worker several times; the daemon's log says how\n", c->command);
    return strcmp(state, "succeeded") == 0 ? DN_EXIT_OK : DN_EXIT_FAILED;
}
