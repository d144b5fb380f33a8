/* Deadlines: jobs that run are ended here, between two ticks; queued ones by the store, when the first of theirs has come. The moment
 * from which a delayed job may run again is one more thing that the store is asked about in time.
 *
 * Invariant: next_due_ms is never later than the earliest such moment of a queued job: it is lowered before the dispatcher hears of a
 * job, and raised only by what the store found while nobody could lower it unseen. The dispatcher's thread. */
#include <stdio.h>

#include "base/clock.h"
#include "server/dispatcher_internal.h"

#define HOPE 0.5 /* of what a job needs at least, by the table: with less time left than that it cannot be done */

int64_t dispatcher_next_deadline(const dispatcher *d)
{
    if (atomic_load(&d->store_gone))
        return INT64_MAX;
    int64_t next = d->asking_deadlines ? INT64_MAX : atomic_load(&d->next_due_ms);
    for (const running_job *job = d->jobs; job; job = job->next)
        if (job->end == END_NONE && job_deadline_ms(job) < next)
            next = job_deadline_ms(job);
    return next;
}

/* Whether the worker has said where the lane stands, or nobody has begun it: else a snapshot may save it most of its steps. */
static bool stands_where_told(const running_job *job, const job_lane *lane)
{
    return lane->place == PLACE_SENT ? lane->entered : lane->place == PLACE_WAITING && !lane->number && job->job.token == 1;
}

/* Seconds that the job needs even if nothing else runs: its longest lane in ticks of that lane alone. 0: not known. */
static double least_seconds(const dispatcher *d, const running_job *job)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < job->n; i++) {
        const job_lane *lane = &job->lanes[i];
        const uint32_t left = stands_where_told(job, lane) ? job_steps_left(job, lane) : 0;
        most = left > most ? left : most;
    }
    return most * dispatcher_row_seconds(d, job->model_index, job->rows);
}

/* May free the job. */
static void check_job(dispatcher *d, running_job *job, int64_t now)
{
    const int64_t deadline = job_deadline_ms(job);
    const double left = (double)(deadline - now) / 1000, least = least_seconds(d, job);
    char detail[160];
    if (left <= 0)
        snprintf(detail, sizeof detail, "it was not done when its deadline_ms (%lld) had passed", (long long)job->request.deadline_ms);
    else if (left < HOPE * least)
        snprintf(detail, sizeof detail, "its deadline_ms (%lld) cannot be met: %.3f s are left, and it needs about %.3f s",
                 (long long)job->request.deadline_ms, left, least);
    else
        return;
    job_end_with(d, job, END_FAILED, "deadline", detail);
}

void dispatcher_check_deadlines(dispatcher *d)
{
    const int64_t now = dn_wall_ms();
    for (running_job *job = d->jobs, *next; job; job = next) {
        next = job->next;
        if (job->end == END_NONE && job->request.deadline_ms)
            check_job(d, job, now);
    }
    if (d->asking_deadlines || now < atomic_load(&d->next_due_ms))
        return;
    pending *item = dispatcher_pending(d, STORE_DEADLINES);
    if (!item)
        return;
    d->asking_deadlines = true;
    atomic_store(&d->next_due_ms, INT64_MAX); /* lowered by whoever enqueues from now on, and by the answer */
    dispatcher_submit(d, item);
}

void dispatcher_deadlines_passed(dispatcher *d, const store_request *request)
{
    d->asking_deadlines = false;
    if (request->result != STORE_OK) {
        dispatcher_deadline(d, dn_wall_ms() + 1000);
        return;
    }
    for (size_t i = 0; i < request->claimed_count; i++) {
        const store_claimed *late = &request->claimed[i];
        metrics_add(d->options.metrics, METRIC_JOBS_FAILED, 1);
        job_log_ended(&late->job, "failed", "deadline", 0);
        hub_milestone(d->options.hub, late->job.id, late->event_seq, true);
        hub_forget(d->options.hub, late->job.id);
        for (uint32_t image = 0; image < late->job.n; image++) {
            char name[SNAPSHOT_NAME_BYTES];
            snapshot_name(name, late->job.id, image);
            files_unlink(&d->files, FILE_UNLINK_SNAPSHOT, name);
        }
    }
    d->queue_moved |= request->claimed_count > 0;
    dispatcher_staged(d, request);
    if (request->next_due_ms)
        dispatcher_deadline(d, request->next_due_ms);
}
