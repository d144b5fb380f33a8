/* Jobs that are here, their lanes, and the order in which lanes go to the worker.
 *
 * Invariant: a lane is SENT exactly while the worker owes an answer about it; `outstanding` lists SENT and STORING lanes, and never
 * holds more than the worker's credit. A job leaves the list only after the store has said what became of it.
 *
 * After a worker's death the jobs it was computing are suspects. They are run again in groups, one group at a time and with nothing
 * else; a group that ends its worker is halved, so that the guilty one is alone after a few deaths, and only being alone costs it an
 * attempt. The others never leave the claim they have. */
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

outstanding_lane *outstanding_find(dispatcher *d, uint64_t number)
{
    for (uint32_t i = 0; i < d->outstanding_count; i++)
        if (d->outstanding[i].number == number)
            return &d->outstanding[i];
    return NULL;
}

void outstanding_remove(dispatcher *d, outstanding_lane *lane)
{
    *lane = d->outstanding[--d->outstanding_count];
}

/* The image is safe, or not wanted: the worker may forget the lane. */
void dispatcher_acknowledge(dispatcher *d, uint64_t number)
{
    outstanding_lane *lane = outstanding_find(d, number);
    if (!lane)
        return;
    outstanding_remove(d, lane);
    const protocol_message m = {.type = PROTOCOL_STORED, .lane = number};
    worker_tell(d, &m);
    fault_point("lane_acknowledged");
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
    for (uint32_t i = 0; i < d->outstanding_count; i++)
        if (d->outstanding[i].job == job)
            d->outstanding[i].job = NULL;
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

/* Tells the store how the job ends, once the worker holds nothing of it. A job that goes back to the queue waits for its images
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
            worker_tell(d, &m);
        }
    job_try_end(d, job);
}

/* ---- Feeding */

/* Rows that the worker has of the job's model; those of jobs that this one outranks make way, and do not count. */
static uint32_t rows_sent(const dispatcher *d, const running_job *job)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < d->outstanding_count; i++) {
        const outstanding_lane *lane = &d->outstanding[i];
        const running_job *other = lane->job;
        if (other && other->model_index == job->model_index && other->lanes[lane->index].place == PLACE_SENT &&
            !urgency_outranks(job->job.priority, job_waited(job), other->job.priority, job_waited(other)))
            rows += other->rows;
    }
    return rows;
}

/* The group of suspects whose turn it is; 0: nobody is suspected. */
static unsigned current_group(const dispatcher *d)
{
    unsigned group = 0;
    for (const running_job *job = d->jobs; job; job = job->next)
        if (job->group && (!group || job->group < group))
            group = job->group;
    return group;
}

static bool others_are_out(const dispatcher *d, unsigned group)
{
    for (uint32_t i = 0; i < d->outstanding_count; i++) {
        const outstanding_lane *lane = &d->outstanding[i];
        if (lane->job && lane->job->group != group && lane->job->lanes[lane->index].place == PLACE_SENT)
            return true;
    }
    return false;
}

static void send_lane(dispatcher *d, running_job *job, uint32_t index)
{
    job_lane *lane = &job->lanes[index];
    size_t count = 0;
    uint32_t steps = 0;
    unsigned char *snapshot = snapshot_read(d->files.snapshots_fd, job->job.id, index, &steps, &count);
    if (!snapshot && snapshot_exists(d->files.snapshots_fd, job->job.id, index))
        log_say(LOG_WARNING, "dispatcher", "image %u of job %s starts at step 0: its snapshot is damaged", index, job->job.id);
    lane->number = ++d->next_number;
    lane->place = PLACE_SENT;
    lane->watched = lane->aside = lane->entered = false;
    lane->made_at = 0;
    d->outstanding[d->outstanding_count++] = (outstanding_lane){.number = lane->number, .job = job, .index = index};
    const protocol_message m = {.type = PROTOCOL_ADMIT,
                                .lane = lane->number,
                                .index = index,
                                .steps_done = steps,
                                .steps_total = lane->steps_total,
                                .seconds = job_waited(job),
                                .text = protocol_text(job->job.request_json),
                                .name = protocol_text(job->job.id),
                                .data = {snapshot, count}};
    worker_tell(d, &m);
    free(snapshot);
}

/* Lanes of a job while rows and credit last; false: the model's rows are taken. A first lane always fits. */
static bool feed_job(dispatcher *d, running_job *job)
{
    const uint32_t rows_max = d->models[job->model_index].rows_max, ahead = rows_max / 4 > 2 ? rows_max / 4 : 2;
    uint32_t rows = rows_sent(d, job);
    for (uint32_t i = 0; i < job->n; i++) {
        if (job->lanes[i].place != PLACE_WAITING)
            continue;
        if ((rows && rows + job->rows > rows_max + ahead) || d->outstanding_count >= d->credit)
            return false;
        send_lane(d, job, i);
        rows += job->rows;
    }
    return true;
}

bool dispatcher_any_ready(const dispatcher *d)
{
    for (size_t i = 0; i < models_count(d->options.models); i++)
        if (d->models[i].ready)
            return true;
    return false;
}

/* Jobs of a model that cannot be loaded (any more), beside one that can: nothing will ever compute them. */
static void fail_unloadable(dispatcher *d)
{
    for (running_job *job = d->jobs, *next; job; job = next) {
        char cause[256];
        next = job->next;
        if (job->end != END_NONE || !d->models[job->model_index].failed || !dispatcher_any_ready(d))
            continue;
        models_state(d->options.models, job->job.model, cause, sizeof cause);
        job_end_with(d, job, END_FAILED, "model-load", cause);
    }
}

void dispatcher_feed(dispatcher *d)
{
    fail_unloadable(d);
    for (running_job *job = d->jobs, *next; job; job = next) {
        next = job->next;
        job_try_end(d, job);
    }
    if (!d->hello || d->drain_sent)
        return;
    const unsigned group = current_group(d);
    if (group && others_are_out(d, group))
        return;
    uint64_t full = 0; /* models whose rows are taken: later jobs of theirs wait, in order */
    for (running_job *job = d->jobs; job; job = job->next) {
        const uint64_t bit = 1ull << job->model_index % 64;
        if (job->end != END_NONE || job->group != group || !d->models[job->model_index].ready || (full & bit))
            continue;
        if (!feed_job(d, job))
            full |= bit;
    }
}

/* Puts the lanes the worker had back in place, and its jobs under suspicion. */
void dispatcher_suspect(dispatcher *d)
{
    running_job *alone = NULL;
    unsigned there = 0, count = 0, seen = 0; /* one that was already ending may have done it, and will not run again */
    for (running_job *job = d->jobs; job; job = job->next) {
        if (!job_count_lanes(job, PLACE_SENT))
            continue;
        there++;
        if (job->end == END_NONE) {
            alone = job;
            count++;
        }
    }
    if (there > 1)
        d->next_group += 2;
    for (running_job *job = d->jobs; job; job = job->next)
        if (there > 1 && job->end == END_NONE && job_count_lanes(job, PLACE_SENT))
            job->group = d->next_group - (seen++ < count / 2 ? 1 : 0);
    if (there == 1 && alone) {
        alone->crashed_alone = true;
        for (uint32_t i = 0; i < alone->n; i++)
            if (alone->lanes[i].place == PLACE_SENT)
                alone->lanes[i].place = PLACE_WAITING;
        job_end_with(d, alone, END_REQUEUED, "worker-crashed", d->lost_by);
    }
}
