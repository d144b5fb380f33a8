/* Which lanes go to which worker, in which order; and which jobs are suspected of having ended one.
 *
 * A lane goes where the least of a tick is taken, of the workers that have its model in memory if one of those has room. After a worker's
 * death the jobs that it was computing are suspects. They are run again in groups, one group at a time and with nothing else on one worker,
 * the trial; a group that ends its worker is halved, so that the guilty one is alone after a few deaths, and only being alone costs it an
 * attempt. The others never leave the claim they have; other workers go on with other jobs. The dispatcher's thread. */
#include <stdlib.h>

#include "server/dispatcher_internal.h"
#include "server/log.h"
#include "server/urgency.h"

/* Rows that the worker has of the job's model; those of jobs that this one outranks make way, and do not count. */
static uint32_t rows_sent(const worker_side *w, const running_job *job)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < w->outstanding_count; i++) {
        const outstanding_lane *lane = &w->outstanding[i];
        const running_job *other = lane->job;
        if (other && other->model_index == job->model_index && other->lanes[lane->index].place == PLACE_SENT &&
            !urgency_outranks(job->job.priority, job_waited(job), other->job.priority, job_waited(other)))
            rows += other->rows;
    }
    return rows;
}

/* ---- Suspects */

unsigned dispatcher_group(const dispatcher *d)
{
    unsigned group = 0;
    for (const running_job *job = d->jobs; job; job = job->next)
        if (job->group && (!group || job->group < group))
            group = job->group;
    return group;
}

static bool others_are_out(const worker_side *w, unsigned group)
{
    for (uint32_t i = 0; i < w->outstanding_count; i++) {
        const outstanding_lane *lane = &w->outstanding[i];
        if (lane->job && lane->job->group != group && lane->job->lanes[lane->index].place == PLACE_SENT)
            return true;
    }
    return false;
}

/* Whether the worker can run the group, or will be able to in a moment. */
static bool can_try(const dispatcher *d, const worker_side *w, unsigned group)
{
    for (const running_job *job = d->jobs; job; job = job->next)
        if (job->group == group && job->end == END_NONE)
            return !w->models[job->model_index].failed && !w->retiring && (w->hello || (!w->failures && !w->spare));
    return true;
}

/* The one that has not died for longer, so that a device which ends whatever it is given cannot use up a job's attempts alone. */
static bool better_trial(const worker_side *w, const worker_side *other)
{
    return w->died_at < other->died_at || (w->died_at <= other->died_at && w->outstanding_count < other->outstanding_count);
}

void dispatcher_choose_trial(dispatcher *d)
{
    const unsigned group = dispatcher_group(d);
    if (!group)
        d->trial = NULL;
    if (!group || (d->trial && can_try(d, d->trial, group)))
        return;
    worker_side *best = NULL;
    for (unsigned i = 0; i < d->worker_count; i++) {
        worker_side *w = &d->workers[i];
        if (can_try(d, w, group) && (!best || better_trial(w, best)))
            best = w;
    }
    d->trial = best ? best : d->trial ? d->trial : &d->workers[0];
}

/* Puts the lanes the worker had back in place, and its jobs under suspicion. */
void dispatcher_suspect(dispatcher *d, worker_side *w)
{
    running_job *alone = NULL;
    unsigned there = 0, count = 0, seen = 0; /* one that was already ending may have done it, and will not run again */
    for (running_job *job = d->jobs; job; job = job->next) {
        if (!job_is_at(job, w))
            continue;
        there++;
        if (job->end == END_NONE) {
            alone = job;
            count++;
        }
    }
    if (there)
        d->trial = w->device_lost ? NULL : w; /* what a device took with it is tried on another, if there is one */
    if (there > 1)
        d->next_group += 2;
    for (running_job *job = d->jobs; job; job = job->next)
        if (there > 1 && job->end == END_NONE && job_is_at(job, w))
            job->group = d->next_group - (seen++ < count / 2 ? 1 : 0);
    if (there == 1 && alone) {
        alone->crashed_alone = true;
        for (uint32_t i = 0; i < alone->n; i++)
            if (alone->lanes[i].place == PLACE_SENT && alone->lanes[i].worker == w)
                alone->lanes[i].place = PLACE_WAITING;
        job_end_with(d, alone, END_REQUEUED, w->device_lost ? "device-lost" : "worker-crashed", w->lost_by);
    }
}

/* ---- Feeding */

static void send_lane(dispatcher *d, worker_side *w, running_job *job, uint32_t index)
{
    job_lane *lane = &job->lanes[index];
    size_t count = 0;
    uint32_t steps = 0;
    unsigned char *snapshot = snapshot_read(d->files.snapshots_fd, job->job.id, index, &steps, &count);
    if (!snapshot && snapshot_exists(d->files.snapshots_fd, job->job.id, index))
        log_say(LOG_WARNING, "dispatcher", "image %u of job %s starts at step 0: its snapshot is damaged", index, job->job.id);
    lane->number = ++d->next_number;
    lane->place = PLACE_SENT;
    lane->worker = w;
    lane->watched = lane->aside = lane->entered = false;
    lane->made_at = 0;
    w->outstanding[w->outstanding_count++] = (outstanding_lane){.number = lane->number, .job = job, .index = index};
    const protocol_message m = {.type = PROTOCOL_ADMIT,
                                .lane = lane->number,
                                .index = index,
                                .steps_done = steps,
                                .steps_total = lane->steps_total,
                                .seconds = job_waited(job),
                                .text = protocol_text(job->job.request_json),
                                .name = protocol_text(job->job.id),
                                .data = {snapshot, count}};
    worker_tell(w, &m);
    free(snapshot);
}

/* How much of a tick is taken where the next lane of the job would go, and more than all of it where the model is not in memory; < 0: there
 * is no room. A first lane always fits. */
static double load_of(const dispatcher *d, const worker_side *w, const running_job *job)
{
    const worker_side_model *model = &w->models[job->model_index];
    if (!worker_takes(w, job->model_index) || (job->group ? w != d->trial : worker_reserved(d, w)) || w->outstanding_count >= w->credit)
        return -1;
    const uint32_t rows = rows_sent(w, job);
    if (rows && rows + job->rows > model->rows_max + worker_ahead(model->rows_max))
        return -1;
    return (double)rows / model->rows_max + (model->batch_rows ? 0 : 2);
}

static worker_side *worker_for(const dispatcher *d, const running_job *job)
{
    worker_side *best = NULL;
    double least = 0;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const double load = load_of(d, &d->workers[i], job);
        if (load < 0 || (best && load >= least))
            continue;
        best = &d->workers[i];
        least = load;
    }
    return best;
}

/* Lanes of a job while rows and credit last; false: the model's rows are taken. */
static bool feed_job(dispatcher *d, running_job *job)
{
    for (uint32_t i = 0; i < job->n; i++) {
        if (job->lanes[i].place != PLACE_WAITING)
            continue;
        worker_side *w = worker_for(d, job);
        if (!w)
            return false;
        send_lane(d, w, job, i);
    }
    return true;
}

/* Jobs of a model that cannot be loaded (any more), beside one that can: nothing will ever compute them. */
static void fail_unloadable(dispatcher *d)
{
    for (running_job *job = d->jobs, *next; job; job = next) {
        char cause[256];
        next = job->next;
        if (job->end != END_NONE || !dispatcher_model_failed(d, job->model_index) || !dispatcher_any_ready(d))
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
    if (d->drain_sent)
        return;
    dispatcher_choose_trial(d);
    const unsigned group = dispatcher_group(d);
    const bool trial_busy = group && others_are_out(d->trial, group);
    uint64_t full[2] = {0}; /* models whose rows are taken, for others and for suspects: later jobs of theirs wait, in order */
    for (running_job *job = d->jobs; job; job = job->next) {
        const uint64_t bit = 1ull << job->model_index % 64;
        if (job->end != END_NONE || (job->group && (job->group != group || trial_busy)) || (full[job->group > 0] & bit))
            continue;
        if (!feed_job(d, job))
            full[job->group > 0] |= bit;
    }
}
