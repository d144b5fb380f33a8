/* A job as the wire shows it: its row, its images, and what is live (progress from the hub, position and ETA). */
#include "base/clock.h"
#include "server/service.h"

#include <stdlib.h>
#include <string.h>

/* Seconds until a job ends that nothing is known of yet but what is stored: `ahead` is the cost of what is before it. */
static double foresee(service *s, const job_view *held, uint64_t ahead)
{
    const store_job *job = &held->job;
    const uint32_t left = job->n - job->images_done;
    const dispatcher_question question = {.model = job->model,
                                          .n = left,
                                          .rows = held->view.lane_rows,
                                          .cost = job->cost / job->n * left,
                                          .cost_ahead = ahead,
                                          .priority = job->priority,
                                          .waited_seconds = (double)(dn_wall_ms() - job->created_ms) / 1000};
    return dispatcher_eta(s->dispatcher, &question);
}

/* What is live, on top of what is durable. A job that has been claimed this moment runs, but nobody has heard of it yet. */
static void show_progress(job_view *held, service *s)
{
    hub_live live = {.eta_seconds = -1.0};
    const store_job *job = &held->job;
    api_job_view *view = &held->view;
    if (job->state == API_STATE_QUEUED) {
        int64_t position = 0;
        uint64_t ahead = 0;
        if (store_queue_place(s->store, job->id, &position, &ahead) == STORE_OK) {
            view->queue_position = position;
        }
        if (!job->run_at_ms) { /* of a delayed job nothing is foreseen */
            view->eta_seconds = foresee(s, held, ahead); /* without a place it has been claimed since it was read: nothing is ahead */
        }
    } else if (job->state == API_STATE_RUNNING) {
        hub_read(s->hub, job->id, &live);
        if (live.known && live.total == view->total && live.done > view->done) {
            view->done = live.done;
        }
        view->eta_seconds = live.known && live.eta_seconds >= 0 ? live.eta_seconds : foresee(s, held, 0);
    }
}

/* How it stands with telling the job's end, if that was asked for. */
static store_result show_webhook(job_view *held, service *s)
{
    const char *json = held->job.request_json;
    if (json == NULL || strstr(json, "\"webhook\":") == NULL) {
        return STORE_OK;
    }
    store_delivery_state *d = &held->delivery;
    if (store_delivery_of(s->store, held->job.id, d) == STORE_UNKNOWN) {
        job_view_done(held);
        return STORE_UNKNOWN;
    }
    held->webhook = (api_webhook_view){.state = d->delivered  ? "delivered"
                                                : d->given_up ? "failed"
                                                              : "pending",
                                       .tries = d->attempts,
                                       .error = d->error[0] != '\0' ? d->error : NULL};
    held->view.webhook = &held->webhook;
    return STORE_OK;
}

store_result job_view_make(job_view *out, service *s, store_job *job)
{
    memset(out, 0, sizeof *out);
    out->job = *job;
    memset(job, 0, sizeof *job);
    store_job *held = &out->job;
    /* Most jobs that are looked at have no image yet. */
    store_result result = held->images_done == 0 ? STORE_OK : store_images(s->store, held->id, &out->images, &out->image_count);
    out->image_views = result == STORE_OK ? calloc(out->image_count + 1, sizeof *out->image_views) : NULL;
    if (out->image_views == NULL) {
        job_view_done(out);
        return result == STORE_OK ? STORE_UNKNOWN : result;
    }
    for (size_t i = 0; i < out->image_count; i++) {
        out->image_views[i] = out->images[i].view;
    }
    store_job_view(held, out->image_views, out->image_count, &out->view);
    show_progress(out, s);
    return show_webhook(out, s);
}

void job_view_done(job_view *held)
{
    store_job_done(&held->job);
    store_images_free(held->images, held->image_count);
    free(held->image_views);
    memset(held, 0, sizeof *held);
}

store_result job_view_get(job_view *out, service *s, const char *client, const char *id)
{
    store_job job = {0};
    if (!api_id_valid(id)) {
        return STORE_NONE;
    }
    store_result result = store_get(s->store, client, id, &job);
    if (result != STORE_OK) {
        return result;
    }
    if (job.expired) {
        store_job_done(&job);
        return STORE_GONE;
    }
    return job_view_make(out, s, &job);
}

unsigned job_retry_after(const job_view *held)
{
    double eta = held->view.eta_seconds;
    if (!(eta > 1.0)) {
        return 1;
    }
    return eta > 600.0 ? 600u : (unsigned)ceil(eta);
}
