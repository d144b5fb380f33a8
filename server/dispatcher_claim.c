/* Claims: how many jobs, of which models, and what becomes of them here.
 *
 * Invariant: one claim is under way at a time; a model's jobs are claimed only while the rows of its lanes that wait or run are
 * fewer than a tick and a little more takes, so that one job waits ahead at most and priorities keep their meaning. Where there is no
 * room, jobs are claimed that outrank enough of those here: the worker sets lanes aside for them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/dispatcher_internal.h"
#include "server/log.h"
#include "server/urgency.h"

/* Rows of the jobs here that a new one of this priority would not outrank. Suspects have a worker of their own. */
static double rows_before(const dispatcher *d, size_t model_index, int priority)
{
    double rows = 0;
    for (const running_job *job = d->jobs; job; job = job->next)
        if (job->model_index == model_index && !job->group && !urgency_outranks(priority, 0, job->job.priority, job_waited(job)))
            rows += (double)job->rows * (job_count_lanes(job, PLACE_WAITING) + job_count_lanes(job, PLACE_SENT));
    return rows;
}

/* Rows of a tick of all workers that take the model's new jobs together, and what they may have beyond it. */
static uint32_t rows_of_all(const dispatcher *d, size_t model_index, uint32_t *ahead)
{
    uint32_t rows = 0;
    *ahead = 0;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const worker_side *w = &d->workers[i];
        if (!worker_takes(w, model_index) || worker_reserved(d, w))
            continue;
        rows += w->models[model_index].rows_max;
        *ahead += worker_ahead(w->models[model_index].rows_max);
    }
    return rows;
}

/* ---- Jobs that an earlier run accepted for models that this one does not have */

void dispatcher_forget_strangers(dispatcher *d)
{
    for (char **name = d->strangers; name && *name; name++)
        free(*name);
    free(d->strangers);
    d->strangers = NULL;
}

void dispatcher_find_strangers(dispatcher *d)
{
    size_t kept = 0;
    d->strangers = store_queued_models(d->options.store);
    for (char **name = d->strangers; name && *name; name++) {
        if (models_known(d->options.models, *name)) {
            free(*name);
        } else {
            log_say(LOG_WARNING, "dispatcher", "queued jobs are of model %s, which is not configured: they fail once a model is ready",
                    *name);
            d->strangers[kept++] = *name;
        }
    }
    if (d->strangers)
        d->strangers[kept] = NULL;
    if (!kept)
        dispatcher_forget_strangers(d);
}

void dispatcher_look_again(dispatcher *d)
{
    d->next_claim = 0;
    for (size_t i = 0; i < models_count(d->options.models); i++)
        d->no_jobs_until[i] = 0;
}

void dispatcher_staged(dispatcher *d, const store_request *request)
{
    if (request->result != STORE_OK || !request->staged)
        return;
    d->queue_moved = d->claim_urgent = d->claim_again = true;
    dispatcher_look_again(d);
    if (!d->strangers)
        dispatcher_find_strangers(d);
}

/* ---- What may be claimed */

/* Fills claim_models; returns the rows that are free for jobs of this priority, of them all. A model that cannot be loaded is claimed
 * too, beside one that can: its jobs fail with the cause. Where none can, the daemon is about to end, and its jobs wait for a better
 * start. */
static double choose_models(dispatcher *d, int priority, double now)
{
    double room = 0;
    unsigned count = 0;
    if (!dispatcher_any_ready(d))
        return 0;
    for (size_t i = 0; i < models_count(d->options.models) && count < WORKER_MODELS_MAX; i++) {
        uint32_t ahead;
        const uint32_t rows_max = rows_of_all(d, i, &ahead);
        const bool failed = dispatcher_model_failed(d, i);
        const double free_rows = (failed ? 1 : rows_max + ahead) - rows_before(d, i, priority);
        if ((!rows_max && !failed) || free_rows <= 0 || now < d->no_jobs_until[i])
            continue;
        d->claim_models[count++] = models_name(d->options.models, i);
        room += free_rows;
    }
    d->claim_models[count] = NULL;
    return count ? room : 0;
}

/* With all rows taken: the lowest priority for which there is room nevertheless, and its room. */
static double choose_urgent(dispatcher *d, int *priority, double now)
{
    double room = 0;
    for (*priority = 1 - API_PRIORITY_MAX; room <= 0 && *priority <= API_PRIORITY_MAX; ++*priority)
        room = choose_models(d, *priority, now);
    --*priority;
    return room;
}

/* Whether some worker may take what is claimed. */
static bool any_open(const dispatcher *d)
{
    for (unsigned i = 0; i < d->worker_count; i++)
        if (d->workers[i].pid && d->workers[i].hello && !worker_reserved(d, &d->workers[i]))
            return true;
    return false;
}

void dispatcher_claim(dispatcher *d, double now)
{
    if (atomic_exchange(&d->kicked, false)) {
        dispatcher_look_again(d);
        d->claim_again = d->claim_urgent = true;
        d->queue_moved = true;
    }
    dispatcher_choose_trial(d);
    if (d->claiming || now < d->next_claim || !any_open(d))
        return;
    int priority = -API_PRIORITY_MAX;
    double room = choose_models(d, priority, now);
    if (room <= 0 && d->claim_urgent)
        room = choose_urgent(d, &priority, now);
    const bool strange = d->strangers && dispatcher_any_ready(d);
    pending *item = room > 0 || strange ? dispatcher_pending(d, STORE_CLAIM) : NULL;
    if (!item)
        return;
    const double jobs = strange ? DISPATCHER_CLAIM_MAX : room / d->rows_per_job;
    item->request->claim_max = jobs < 1 ? 1 : jobs > DISPATCHER_CLAIM_MAX ? DISPATCHER_CLAIM_MAX : (uint32_t)jobs;
    item->request->models = strange ? (const char *const *)d->strangers : d->claim_models;
    item->request->levels_left_out = strange ? 0 : (uint32_t)(priority + API_PRIORITY_MAX);
    item->request->resumed_done = snapshot_resumed_done;
    const api_model *first = models_lookup(d->options.models, item->request->models[0]);
    item->request->device = first ? first->device : "";
    d->claiming = true;
    d->claim_again = false;
    dispatcher_submit(d, item);
}

static size_t model_index_of(const dispatcher *d, const char *name)
{
    size_t i = 0;
    while (i < models_count(d->options.models) && strcmp(models_name(d->options.models, i), name) != 0)
        i++;
    return i;
}

/* NULL: out of memory. */
static running_job *make_job(dispatcher *d, store_claimed *claimed)
{
    running_job *job = calloc(1, sizeof *job);
    job_lane *lanes = calloc(claimed->job.n ? claimed->job.n : 1, sizeof *lanes);
    const char *json = claimed->job.request_json ? claimed->job.request_json : "";
    const dn_status read = job ? api_request_read(&job->request, json, strlen(json)) : DN_NO_MEMORY;
    if (!job || !lanes || read == DN_NO_MEMORY) {
        free(job);
        free(lanes);
        return NULL;
    }
    job->job = claimed->job;
    job->readable = read == DN_OK;
    claimed->job = (store_job){0};
    job->n = job->job.n;
    job->lanes = lanes;
    job->rows = 1;
    for (uint32_t i = 0; i < claimed->done_count; i++)
        if (claimed->done_indices[i] < job->n)
            lanes[claimed->done_indices[i]].place = PLACE_DONE;
    running_job **link = &d->jobs;
    const double waited = job_waited(job);
    while (*link && !urgency_outranks(job->job.priority, waited, (*link)->job.priority, job_waited(*link)))
        link = &(*link)->next;
    job->next = *link;
    *link = job;
    return job;
}

/* What cannot run ends at once. May free the job. */
static void begin_job(dispatcher *d, running_job *job)
{
    job->model_index = model_index_of(d, job->job.model);
    const bool known = job->model_index < models_count(d->options.models);
    if (!known || !job->readable) {
        job->model_index = 0;
        job_end_with(d, job, END_FAILED, known ? "engine" : "model-load",
                     known ? "the stored request cannot be read" : "the model is not configured");
        return;
    }
    job->rows = api_request_rows(&job->request);
    job->model = models_lookup(d->options.models, job->job.model);
    job->steps_made = api_request_steps_made(&job->request);
    job->evaluations_a_step = (double)job->job.cost / ((double)job->n * job->rows * job->steps_made);
    for (uint32_t i = 0; i < job->n; i++) {
        job->lanes[i].steps_total = job->request.steps;
        job->lanes[i].steps_done = job->lanes[i].place == PLACE_DONE ? job->request.steps : 0;
    }
    job->changed = true;
    job->ends_at = -1;
    uint32_t ahead;
    job->had_room = job_waited(job) <= DISPATCHER_CLAIM_SECONDS &&
                    models_state(d->options.models, job->job.model, NULL, 0) == MODEL_READY &&
                    2 * rows_before(d, job->model_index, -API_PRIORITY_MAX) <= rows_of_all(d, job->model_index, &ahead);
    dispatcher_note_arrival(d, job);
    d->forecast_at = 0;
    d->rows_per_job += 0.2 * ((double)job->rows * job->n - d->rows_per_job);
    if (job->job.crashes)
        job->group = ++d->next_group; /* It has ended a worker alone before: it stays alone. */
    if (job->job.cancel_requested)
        job_end_with(d, job, END_CANCELED, NULL, NULL);
}

/* A job that was claimed is nobody else's any more: it is taken here, if not now then when there is memory. */
static bool take_claimed(dispatcher *d, pending *item)
{
    const store_request *request = item->request;
    for (; item->claimed < request->claimed_count; item->claimed++) {
        store_claimed *claimed = &request->claimed[item->claimed];
        running_job *job = make_job(d, claimed);
        if (!job) {
            log_say(LOG_ERROR, "dispatcher", "out of memory for job %s; trying again", claimed->job.id);
            return false;
        }
        const double waited = (double)(job->job.started_ms - job->job.created_ms) / 1000;
        metrics_observe(d->options.metrics, METRIC_QUEUE_WAIT_SECONDS, waited > 0 ? waited : 0);
        job_log_started(job);
        hub_milestone(d->options.hub, job->job.id, claimed->event_seq, false);
        begin_job(d, job);
    }
    return true;
}

/* No job waits for the models that were asked for; of the others, which had no room then, this says nothing. */
static void note_empty(dispatcher *d, const store_request *request)
{
    const double until = d->claim_again ? 0 : dn_now_seconds() + DISPATCHER_CLAIM_SECONDS;
    for (const char *const *name = request->models; name && *name; name++) {
        const size_t i = model_index_of(d, *name);
        if (i < models_count(d->options.models))
            d->no_jobs_until[i] = until;
    }
}

bool dispatcher_claimed(dispatcher *d, pending *item)
{
    const store_request *request = item->request;
    d->claiming = false;
    dispatcher_staged(d, request);
    if (request->result == STORE_OK && !request->claimed_count && request->models == (const char *const *)d->strangers) {
        dispatcher_forget_strangers(d); /* All of them have failed. */
        d->next_claim = 0;
        return true;
    }
    if (request->result == STORE_OK && !request->claimed_count && request->levels_left_out) {
        d->claim_urgent = d->claim_again;
        return true;
    }
    if (request->result != STORE_OK) {
        d->next_claim = d->claim_again ? 0 : dn_now_seconds() + 0.1;
        return true;
    }
    if (!request->claimed_count) {
        note_empty(d, request);
        return true;
    }
    d->queue_moved = true;
    d->claiming = !take_claimed(d, item);
    return !d->claiming;
}
