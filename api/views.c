/* Jobs and images as wire bodies. Pure; any thread; all text is malloc'd. */
#include "api/views.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/view_parts.h"

static const char *const STATES[] = {
    [API_STATE_QUEUED] = "queued", [API_STATE_RUNNING] = "running",   [API_STATE_SUCCEEDED] = "succeeded",
    [API_STATE_FAILED] = "failed", [API_STATE_CANCELED] = "canceled",
};
#define STATE_COUNT (sizeof STATES / sizeof STATES[0])

const char *api_state_name(api_state state)
{
    return (size_t)state < STATE_COUNT ? STATES[state] : "unknown";
}

bool api_state_parse(const char *name, api_state *out)
{
    for (size_t i = 0; i < STATE_COUNT; i++) {
        if (strcmp(name, STATES[i]) == 0) {
            *out = (api_state)i;
            return true;
        }
    }
    return false;
}

bool api_state_ended(api_state state)
{
    return state == API_STATE_SUCCEEDED || state == API_STATE_FAILED || state == API_STATE_CANCELED;
}

void api_time_text(char out[32], int64_t ms)
{
    int64_t fraction = (ms % 1000 + 1000) % 1000;
    time_t seconds = (time_t)(ms / 1000 - (ms % 1000 < 0));
    struct tm parts;
    if (!gmtime_r(&seconds, &parts) || parts.tm_year < 0 || parts.tm_year > 8099) {
        parts = (struct tm){.tm_mday = 1, .tm_year = 70};
        fraction = 0;
    }
    char whole[24];
    strftime(whole, sizeof whole, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out, 32, "%s.%03uZ", whole, (unsigned)fraction % 1000);
}

static void add_time(api_text *text, const char *name, int64_t ms)
{
    char when[32];
    api_text_format(text, "\"%s\":", name);
    if (ms) {
        api_time_text(when, ms);
    }
    api_text_string(text, ms ? when : NULL);
    api_text_add(text, ",");
}

void api_add_rounded(api_text *text, double value, double places)
{
    if (value >= 0 && isfinite(value)) {
        api_text_number(text, round(value * places) / places);
    } else {
        api_text_add(text, "null");
    }
}

void api_add_position(api_text *text, int64_t position)
{
    if (position >= 0) {
        api_text_format(text, "%" PRId64, position);
    } else {
        api_text_add(text, "null");
    }
}

void api_add_progress(api_text *text, const api_job_view *job)
{
    double fraction = job->total ? (double)job->done / (double)job->total : 0;
    api_text_add(text, "\"fraction\":");
    api_add_rounded(text, job->adaptive ? -1 : fmin(fraction, 1), 1e4);
    api_text_format(text, ",\"done\":%" PRIu64 ",\"total\":", job->done);
    if (job->adaptive) {
        api_text_add(text, "null");
    } else {
        api_text_format(text, "%" PRIu64, job->total);
    }
    api_text_format(text, ",\"images_done\":%" PRIu32, job->images_done);
}

void api_add_image(api_text *text, const char *job_id, const api_image_view *image, const char *base_path)
{
    api_text_format(text, "{\"index\":%" PRIu32 ",\"seed\":\"%" PRIu64 "\",\"url\":", image->index, image->seed);
    api_text url = API_TEXT_INIT;
    api_text_format(&url, "%s/jobs/%s/images/%" PRIu32 ".png", base_path, job_id, image->index);
    char *taken = api_text_take(&url);
    text->failed |= !taken;
    api_text_string(text, taken);
    free(taken);
    api_text_format(text, ",\"width\":%" PRIu32 ",\"height\":%" PRIu32 ",\"bytes\":%" PRIu64 ",\"sha256\":", image->width, image->height,
                    image->bytes);
    api_text_string(text, image->sha256);
    api_text_add(text, ",\"pixels_sha256\":");
    api_text_string(text, image->pixels_sha256);
    api_text_add(text, ",\"device\":");
    api_text_string(text, image->device);
    api_text_add(text, ",\"build\":");
    api_text_string(text, image->build);
    api_text_add(text, ",\"evaluations\":");
    if (image->evaluations) {
        api_text_format(text, "%" PRIu32, image->evaluations);
    } else {
        api_text_add(text, "null");
    }
    api_text_add(text, "}");
}

static void add_error(api_text *text, const api_job_view *job)
{
    if (!job->error_code) {
        api_text_add(text, "\"error\":null,");
        return;
    }
    api_text_add(text, "\"error\":{\"code\":");
    api_text_string(text, job->error_code);
    api_text_add(text, ",\"detail\":");
    api_text_string(text, job->error_detail ? job->error_detail : "");
    api_text_add(text, "},");
}

static void add_webhook(api_text *text, const api_webhook_view *webhook)
{
    if (webhook) {
        api_text_format(text, "\"webhook\":{\"state\":\"%s\",\"tries\":%" PRIu32 ",\"error\":", webhook->state, webhook->tries);
        api_text_string(text, webhook->error);
        api_text_add(text, "},");
    }
}

static void add_urls(api_text *text, const char *id, const char *base_path)
{
    api_text_format(text, "\"urls\":{\"self\":\"%s/jobs/%s\",\"events\":\"%s/jobs/%s/events\"}", base_path, id, base_path, id);
}

void api_add_job(api_text *text, const api_job_view *job, const char *base_path)
{
    api_text_add(text, "{\"id\":");
    api_text_string(text, job->id);
    api_text_format(text, ",\"state\":\"%s\",\"cancel_requested\":", api_state_name(job->state));
    api_text_bool(text, job->cancel_requested);
    api_text_add(text, ",");
    add_time(text, "created_at", job->created_ms);
    add_time(text, "started_at", job->started_ms);
    add_time(text, "finished_at", job->finished_ms);
    add_time(text, "expires_at", job->expires_ms);
    api_text_format(text, "\"request\":%s,\"progress\":{", job->request_json ? job->request_json : "null");
    api_add_progress(text, job);
    api_text_add(text, "},\"queue_position\":");
    api_add_position(text, job->queue_position);
    api_text_add(text, ",\"eta_seconds\":");
    api_add_rounded(text, job->eta_seconds, 1e3);
    api_text_format(text, ",\"attempt\":%" PRIu32 ",\"images\":[", job->attempt);
    for (uint32_t i = 0; i < job->image_count; i++) {
        api_text_add(text, i ? "," : "");
        api_add_image(text, job->id, &job->images[i], base_path);
    }
    api_text_add(text, "],");
    add_error(text, job);
    add_webhook(text, job->webhook);
    add_urls(text, job->id, base_path);
    api_text_add(text, "}");
}

char *api_job_body(const api_job_view *job, const char *base_path)
{
    api_text text = API_TEXT_INIT;
    api_add_job(&text, job, base_path);
    return api_text_take(&text);
}

char *api_image_body(const char *job_id, const api_image_view *image, const char *base_path)
{
    api_text text = API_TEXT_INIT;
    api_add_image(&text, job_id, image, base_path);
    return api_text_take(&text);
}

static void add_jobs(api_text *text, const api_job_view *jobs, size_t count, const char *base_path)
{
    api_text_add(text, "{\"jobs\":[");
    for (size_t i = 0; i < count; i++) {
        api_text_add(text, i ? "," : "");
        api_add_job(text, &jobs[i], base_path);
    }
    api_text_add(text, "]");
}

char *api_list_body(const api_job_view *jobs, size_t count, const char *next_cursor, const char *base_path)
{
    api_text text = API_TEXT_INIT;
    add_jobs(&text, jobs, count, base_path);
    api_text_add(&text, ",\"next_cursor\":");
    api_text_string(&text, next_cursor && next_cursor[0] ? next_cursor : NULL);
    api_text_add(&text, "}");
    return api_text_take(&text);
}

char *api_jobs_array_body(const api_job_view *jobs, size_t count, const char *base_path)
{
    api_text text = API_TEXT_INIT;
    add_jobs(&text, jobs, count, base_path);
    api_text_add(&text, "}");
    return api_text_take(&text);
}
