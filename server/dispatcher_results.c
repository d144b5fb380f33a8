/* What the store answered, and what follows: publishing, acknowledging, trying again.
 *
 * Invariant: publishing comes after the commit and before the acknowledgement. A result that the store calls stale is thrown
 * away with its file. A full disk is asked again once a second; a store that has stopped is asked nothing more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/dispatcher_internal.h"
#include "server/fault.h"
#include "server/log.h"

static void pending_free(pending *item)
{
    store_request_free(item->request);
    free(item->png);
    free(item);
}

static void count_end(dispatcher *d, const running_job *job, api_state state)
{
    static const metrics_counter counters[] = {[API_STATE_SUCCEEDED] = METRIC_JOBS_SUCCEEDED,
                                               [API_STATE_FAILED] = METRIC_JOBS_FAILED,
                                               [API_STATE_CANCELED] = METRIC_JOBS_CANCELED};
    if (!api_state_ended(state))
        return;
    metrics_add(d->options.metrics, counters[state], 1);
    const double seconds = (double)(dn_wall_ms() - job->job.started_ms) / 1000;
    metrics_observe(d->options.metrics, METRIC_JOB_SECONDS, seconds > 0 ? seconds : 0);
    metrics_observe(d->options.metrics, METRIC_JOB_LATENCY_SECONDS, job_waited(job));
    job_log_ended(&job->job, api_state_name(state), state == API_STATE_FAILED ? job->error_code : "", job_steps_done(job));
}

static void publish_end(dispatcher *d, const store_request *request)
{
    fault_point("event_unpublished");
    hub_milestone(d->options.hub, request->id, request->event_seq, request->job_ended);
    fault_point("event_published");
    if (request->job_ended)
        hub_forget(d->options.hub, request->id);
}

static void image_stored(dispatcher *d, const pending *item, running_job *job)
{
    const store_request *request = item->request;
    metrics_add(d->options.metrics, METRIC_IMAGES, 1);
    char name[SNAPSHOT_NAME_BYTES];
    snapshot_name(name, request->id, request->image.index);
    files_unlink(&d->files, FILE_UNLINK_SNAPSHOT, name);
    if (job) {
        dispatcher_note_stored(d, job, request->image.index);
        job->lanes[request->image.index].place = PLACE_DONE;
        job->changed = true;
    }
    publish_end(d, request);
    dispatcher_acknowledge(d, item->lane);
    if (!job)
        return;
    if (request->job_ended) {
        count_end(d, job, request->state_after);
        job_remove(d, job, true);
    } else {
        job_try_end(d, job);
    }
}

static void image_result(dispatcher *d, pending *item)
{
    const store_request *request = item->request;
    running_job *job = job_find(d, request->id, request->token);
    if (request->result == STORE_OK) {
        image_stored(d, item, job);
        return;
    }
    files_unlink(&d->files, FILE_UNLINK_IMAGE, request->image.file);
    dispatcher_acknowledge(d, item->lane);
    if (!job)
        return;
    job->lanes[request->image.index].place = PLACE_DONE;
    if (request->result == STORE_SPACE && job->end == END_NONE)
        job_end_with(d, job, END_FAILED, "storage", request->detail);
    else if (job->end == END_NONE)
        job_end_with(d, job, END_DROPPED, NULL, NULL); /* The claim is no longer ours. */
    else
        job_try_end(d, job);
}

static void end_result(dispatcher *d, const store_request *request)
{
    running_job *job = job_find(d, request->id, request->token);
    if (request->result == STORE_OK) {
        publish_end(d, request);
        if (job && request->job_ended)
            count_end(d, job, request->state_after);
        else if (request->op == STORE_REQUEUE)
            metrics_add(d->options.metrics, METRIC_JOBS_REQUEUED, 1);
        if (job && request->op == STORE_REQUEUE && !request->job_ended)
            job_log_requeued(job);
        if (request->op == STORE_REQUEUE) {
            if (job && job_deadline_ms(job) < INT64_MAX)
                dispatcher_deadline(d, job_deadline_ms(job));
            if (request->next_due_ms)
                dispatcher_deadline(d, request->next_due_ms);
            d->queue_moved = d->claim_urgent = true;
            dispatcher_look_again(d);
        }
    }
    /* Where the store could not say how it ended, the next start takes the job up: from its snapshots, which stay. */
    const bool over = request->job_ended || request->result == STORE_STALE || request->result == STORE_NONE;
    if (job)
        job_remove(d, job, over);
}

static void defer(dispatcher *d, pending *item, double seconds)
{
    item->due = dn_now_seconds() + seconds;
    item->next = d->deferred;
    d->deferred = item;
}

/* Whether the request will be made again: BUSY soon, SPACE once a second; an image up to a limit (its job then fails), the end of a
 * job for as long as the daemon runs, because in the store it runs until then. */
static bool again(dispatcher *d, pending *item)
{
    const store_request *request = item->request;
    if (request->op == STORE_CLAIM || request->op == STORE_MODEL)
        return false;
    if (request->result == STORE_BUSY) {
        defer(d, item, 0.05);
        return true;
    }
    const bool patient = request->op != STORE_IMAGE && !atomic_load(&d->draining);
    if (request->result == STORE_SPACE && (patient || item->refusals < DISPATCHER_REFUSALS_MAX)) {
        if (item->refusals++ == 0) {
            log_say(LOG_ERROR, "dispatcher", "%s; trying again", request->detail);
            store_release_ballast(d->options.store);
        }
        defer(d, item, 1.0);
        return true;
    }
    return false;
}

void dispatcher_result(dispatcher *d, pending *item)
{
    store_request *request = item->request;
    if (request->result == STORE_UNKNOWN)
        atomic_store(&d->store_gone, true);
    else if (again(d, item))
        return;
    switch (request->op) {
    case STORE_CLAIM:
        if (!dispatcher_claimed(d, item)) {
            defer(d, item, 0.05);
            return;
        }
        break;
    case STORE_IMAGE:
        if (request->result != STORE_UNKNOWN)
            image_result(d, item);
        break;
    case STORE_FAIL:
    case STORE_CANCELED_DONE:
    case STORE_REQUEUE:
        end_result(d, request);
        break;
    case STORE_DEADLINES:
        dispatcher_deadlines_passed(d, request);
        break;
    default: /* A description that was not kept is told again by the next worker. */
        break;
    }
    pending_free(item);
}

void dispatcher_retry_deferred(dispatcher *d, double now)
{
    pending *item = d->deferred;
    d->deferred = NULL;
    while (item) {
        pending *next = item->next;
        if (item->due > now) {
            item->next = d->deferred;
            d->deferred = item;
        } else if (item->png) {
            d->store_pending++;
            files_write_image(&d->files, item);
        } else if (item->request->op == STORE_CLAIM) {
            dispatcher_result(d, item); /* the store has said what it had to say */
        } else {
            dispatcher_submit(d, item);
        }
        item = next;
    }
}
