/* Jobs that are here, and their lanes: found, ended, taken out of the list. Which lanes go where: dispatcher_feed.c.
 *
 * Invariant: a lane is SENT exactly while a worker owes an answer about it; that worker's `outstanding` lists its SENT and STORING lanes,
 * and never holds more than its credit. A job leaves the list only after the store has said what became of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/dispatcher_internal.h"
#include "server/fault.h"
#include "server/log.h"
#include "server/urgency.h"

running_job *job_find(dispatcher *d, const char *id, int64_t token)
{
    for (running_job *job = d->jobs; job; job = job->next)
        if (strcmp(job->job.id, id) == 0 && (!token || job->job.token == token))
            return job;
    return NULL;
}

int64_t job_deadline_ms(const running_job *job)
{
    return job->request.deadline_ms ? job->job.created_ms + job->request.deadline_ms : INT64_MAX;
}

double job_waited(const running_job *job)
{
    const int64_t milliseconds = dn_wall_ms() - job->job.created_ms;
    return milliseconds > 0 ? (double)milliseconds / 1000 : 0; /* a clock set back ages nobody */
}

uint32_t job_steps_left(const running_job *job, const job_lane *lane)
{
    const uint32_t left = lane->steps_total > lane->steps_done ? lane->steps_total - lane->steps_done : 0;
    return left < job->steps_made ? left : job->steps_made;
}

uint32_t job_count_lanes(const running_job *job, lane_place place)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < job->n; i++)
        count += job->lanes[i].place == place;
    return count;
}

bool job_is_at(const running_job *job, const worker_side *w)
{
    for (uint32_t i = 0; i < job->n; i++)
        if (job->lanes[i].place == PLACE_SENT && job->lanes[i].worker == w)
            return true;
    return false;
}

outstanding_lane *outstanding_find(worker_side *w, uint64_t number)
{
    for (uint32_t i = 0; i < w->outstanding_count; i++)
        if (w->outstanding[i].number == number)
            return &w->outstanding[i];
    return NULL;
}

void outstanding_remove(worker_side *w, outstanding_lane *lane)
{
    *lane = w->outstanding[--w->outstanding_count];
}

/* The image is safe, or not wanted: the worker may forget the lane. */
void dispatcher_acknowledge(dispatcher *d, uint64_t number)
{
    for (unsigned i = 0; i < d->worker_count; i++) {
        worker_side *w = &d->workers[i];
        outstanding_lane *lane = outstanding_find(w, number);
        if (!lane)
            continue;
        outstanding_remove(w, lane);
        const protocol_message m = {.type = PROTOCOL_STORED, .lane = number};
        worker_tell(w, &m);
        fault_point("lane_acknowledged");
        return;
    }
}

static void forget_outstanding(worker_side *w, const running_job *job)
{
    for (uint32_t i = 0; i < w->outstanding_count; i++)
        if (w->outstanding[i].job == job)
            w->outstanding[i].job = NULL;
}

/* Takes the job out of the list and frees it. ended: it will not run again, so its snapshots go. */
void job_remove(dispatcher *d, running_job *job, bool ended)
{
    running_job **link = &d->jobs;
    while (*link != job)
        link = &(*link)->next;
    *link = job->next;
    for (uint32_t i = 0; ended && i < job->n; i++)
        if (job->lanes[i].place != PLACE_DONE)
            metrics_add(d->options.metrics, METRIC_STEPS_WASTED, job->lanes[i].steps_done);
    for (unsigned i = 0; i < d->worker_count; i++)
        forget_outstanding(&d->workers[i], job);
    for (uint32_t i = 0; ended && i < job->n; i++) {
        char name[SNAPSHOT_NAME_BYTES];
        snapshot_name(name, job->job.id, i);
        files_unlink(&d->files, FILE_UNLINK_SNAPSHOT, name);
    }
    store_job_done(&job->job);
    free(job->lanes);
    free(job);
}

static void submit_end(dispatcher *d, running_job *job)
{
    static const store_op ops[] = {[END_CANCELED] = STORE_CANCELED_DONE, [END_FAILED] = STORE_FAIL, [END_REQUEUED] = STORE_REQUEUE};
    pending *item = dispatcher_pending(d, ops[job->end]);
    if (!item)
        return; /* Tried again when the next lane's answer or the next turn comes by. */
    store_request *request = item->request;
    snprintf(request->id, sizeof request->id, "%s", job->job.id);
    request->token = job->job.token;
    snprintf(request->error_code, sizeof request->error_code, "%s", job->error_code);
    snprintf(request->error_detail, sizeof request->error_detail, "%s", job->error_detail);
    snprintf(request->reason, sizeof request->reason, "%s", job->reason);
    request->crashed_alone = job->crashed_alone;
    job->end_submitted = true;
    dispatcher_submit(d, item);
}

/* Tells the store how the job ends, once no worker holds anything of it. A job that goes back to the queue waits for its images
 * first: they could not be stored without the claim. */
void job_try_end(dispatcher *d, running_job *job)
{
    if (job->end == END_NONE || job->end_submitted || job_count_lanes(job, PLACE_SENT))
        return;
    if (job->end == END_REQUEUED && job_count_lanes(job, PLACE_STORING))
        return;
    if (job->end == END_DROPPED)
        job_remove(d, job, true);
    else
        submit_end(d, job);
}

/* code_or_reason, detail: error code and detail of END_FAILED; reason of END_REQUEUED, and what ended the worker. May free the job. */
void job_end_with(dispatcher *d, running_job *job, job_end end, const char *code_or_reason, const char *detail)
{
    job->end = end;
    if (end == END_FAILED) {
        snprintf(job->error_code, sizeof job->error_code, "%s", code_or_reason);
        snprintf(job->error_detail, sizeof job->error_detail, "%s", detail ? detail : "");
    } else if (end == END_REQUEUED) {
        snprintf(job->reason, sizeof job->reason, "%s", code_or_reason);
        snprintf(job->error_detail, sizeof job->error_detail, "%s", detail ? detail : "");
    }
    for (uint32_t i = 0; i < job->n; i++)
        if (job->lanes[i].place == PLACE_SENT) {
            const protocol_message m = {.type = PROTOCOL_CANCEL, .lane = job->lanes[i].number};
            worker_tell(job->lanes[i].worker, &m);
        }
    job_try_end(d, job);
}
