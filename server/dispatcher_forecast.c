/* What the dispatcher knows of the work, kept as a forecast (forecast.h): the tables, the lanes that are here, and how many images
 * come. From it the end of every job is told: of those here by the dispatcher's thread, of queued ones by whoever asks.
 *
 * Invariant: `known` is whole whenever the lock is free: models as last measured, lanes as of the last update. Only the dispatcher's
 * thread writes it; others copy it under the lock. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server/dispatcher_internal.h"

#define UPDATE_SECONDS 0.1 /* between two looks at the lanes */
#define ARRIVALS_SECONDS 20.0 /* images that came longer ago count for less and less */
#define ARRIVALS_LEAST_SECONDS 5.0 /* a first burst is not taken for a habit */
#define STALLS_SECONDS 4.0 /* ticks longer ago say little about how busy the machine is */
#define UNDISTURBED_SECONDS 0.2 /* of ticks that are taken to have run as the table says */
#define LEARNED 0.1 /* share of a new sample */

dn_status dispatcher_forecast_start(dispatcher *d, dn_error *error)
{
    d->known = calloc(2, sizeof *d->known);
    d->arrivals = calloc(models_count(d->options.models) + 1, sizeof *d->arrivals);
    if (!d->known || !d->arrivals)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the dispatcher");
    d->played = d->known + 1;
    d->known->model_count = d->played->model_count = (uint32_t)models_count(d->options.models);
    d->known->worker_count = d->played->worker_count = d->worker_count;
    return DN_OK;
}

void dispatcher_forecast_done(dispatcher *d)
{
    free(d->known);
    free(d->arrivals);
    pthread_mutex_destroy(&d->forecast_lock);
}

/* One image at a time leaves no batch to forecast. */
void dispatcher_forecast_table(dispatcher *d, const worker_side *w, size_t model, const tick_table *table, uint32_t rows_max)
{
    pthread_mutex_lock(&d->forecast_lock);
    forecast_set_batch(d->known, w->index, (uint32_t)model, table, d->options.batching == BATCHING_SINGLE ? 1 : rows_max);
    pthread_mutex_unlock(&d->forecast_lock);
}

/* ---- What comes */

static void fade(arrivals *a, double now)
{
    const double left = a->since > 0 ? exp((a->last - now) / ARRIVALS_SECONDS) : 0;
    a->since = a->since > 0 ? a->since : now;
    a->last = now;
    a->images *= left;
    a->evaluations *= left;
    a->rows *= left;
}

void dispatcher_note_arrival(dispatcher *d, const running_job *job)
{
    arrivals *a = &d->arrivals[job->model_index];
    fade(a, dn_now_seconds());
    a->images += job->n;
    a->evaluations += job->n * job->evaluations_a_step * job->steps_made;
    a->rows += (double)job->n * job->rows;
    a->any_evaluations = a->evaluations / a->images;
    a->any_rows = a->rows / a->images;
}

/* The table leaves stalls out, because they say nothing about the size of a batch; but whoever waits waits for them too. */
void dispatcher_note_tick(dispatcher *d, worker_side *w, const protocol_message *tick)
{
    const outstanding_lane *out = NULL;
    for (uint32_t i = 0; i < tick->lane_count && !(out && out->job); i++)
        out = outstanding_find(w, protocol_lane_at(tick, i).lane);
    const double now = dn_now_seconds(), expected = out && out->job ? tick_table_seconds(&w->tables[out->job->model_index], tick->rows) : 0;
    if (!tick->rows || expected <= 0)
        return;
    arrivals *a = &d->arrivals[out->job->model_index];
    const double left = exp((a->ticked - now) / STALLS_SECONDS);
    a->ticked = now;
    a->took = left * a->took + tick->seconds;
    a->expected = left * a->expected + expected;
}

/* Of images whose last tick was heard of then, and which are stored now. */
void dispatcher_note_stored(dispatcher *d, const running_job *job, uint32_t index)
{
    arrivals *a = &d->arrivals[job->model_index];
    const double began = job->lanes[index].made_at, seconds = dn_now_seconds() - began;
    if (began > 0)
        a->tail_seconds += (a->tail_seconds > 0 ? LEARNED : 1) * (seconds - a->tail_seconds);
}

/* From acceptance to the first tick where nothing had to be waited for: claim, commit, the tick in progress. */
void dispatcher_note_admitted(dispatcher *d, const running_job *job)
{
    arrivals *a = &d->arrivals[job->model_index];
    if (job->had_room && !job->admitted)
        a->head_seconds += (a->head_seconds > 0 ? LEARNED : 1) * (job_waited(job) - a->head_seconds);
}

static void set_arrivals(forecast_model *m, arrivals *a, double now)
{
    const double age = fmax(now - a->since, ARRIVALS_LEAST_SECONDS);
    fade(a, now);
    m->arrivals = a->images / (ARRIVALS_SECONDS * (1 - exp(-age / ARRIVALS_SECONDS)));
    m->arrival_evaluations = a->any_evaluations;
    m->arrival_rows = a->any_rows;
    m->tail_seconds = a->tail_seconds;
    m->head_seconds = a->head_seconds;
    m->slowness = fmin(fmax((a->took + UNDISTURBED_SECONDS) / (a->expected + UNDISTURBED_SECONDS), 0.5), 4);
}

/* ---- What is here */

/* What is in use of it, which is little. */
static void copy(forecast *to, const forecast *from)
{
    to->worker_count = from->worker_count;
    to->model_count = from->model_count;
    to->lane_count = from->lane_count;
    memcpy(to->models, from->models, from->model_count * sizeof from->models[0]);
    memcpy(to->lanes, from->lanes, from->lane_count * sizeof from->lanes[0]);
    memcpy(to->out, from->out, sizeof to->out);
    for (uint32_t w = 0; w < from->worker_count; w++)
        memcpy(to->batches[w], from->batches[w], from->model_count * sizeof from->batches[w][0]);
}

static void add_lane(forecast *f, running_job *job, job_lane *lane)
{
    const uint32_t left = job_steps_left(job, lane);
    const bool here = lane->place <= PLACE_SENT && left > 0;
    lane->played = here && f->lane_count < FORECAST_LANES_MAX ? f->lane_count : UINT32_MAX;
    if (here)
        forecast_add(f, (forecast_lane){.model = (uint32_t)job->model_index,
                                        .rows = job->rows,
                                        .evaluations = left * job->evaluations_a_step,
                                        .running = lane->entered && lane->place == PLACE_SENT,
                                        .worker = lane->place == PLACE_SENT ? lane->worker->index : 0,
                                        .priority = job->job.priority,
                                        .waited_seconds = job_waited(job)});
}

/* Seconds until an image that is made will be stored. */
static double tail_left(const forecast *f, const running_job *job, const job_lane *lane, double now)
{
    const double tail = f->models[job->model_index].tail_seconds, gone = lane->made_at > 0 ? now - lane->made_at : 0;
    return fmax(tail - gone, tail / 4);
}

static double job_ends(const forecast *f, const running_job *job, double now)
{
    double ends = 0;
    for (uint32_t i = 0; i < job->n; i++) {
        const job_lane *lane = &job->lanes[i];
        const bool playing = lane->played < f->lane_count, open = lane->place <= PLACE_SENT && job_steps_left(job, lane) > 0;
        if (lane->place == PLACE_DONE)
            continue;
        if (playing ? f->lanes[lane->played].ends < 0 : open)
            return -1; /* not known, or one too many for the forecast */
        ends = fmax(ends, playing ? f->lanes[lane->played].ends : tail_left(f, job, lane, now));
    }
    return ends;
}

/* A worker that cannot be started counts for nothing, unless there is no other either: then what was known goes on to be said. The spare
 * one counts while it is there. */
static void set_workers(dispatcher *d)
{
    bool any = false;
    for (unsigned i = 0; i < d->worker_count; i++) {
        const worker_side *w = &d->workers[i];
        d->known->out[i] = w->spare ? !w->pid || w->retiring : worker_hopeless(w);
        any |= !d->known->out[i];
    }
    for (unsigned i = 0; !any && i < d->worker_count; i++)
        d->known->out[i] = false;
}

void dispatcher_forecast_update(dispatcher *d, double now)
{
    if (now - d->forecast_at < UPDATE_SECONDS)
        return;
    d->forecast_at = now;
    pthread_mutex_lock(&d->forecast_lock);
    d->known->lane_count = 0;
    set_workers(d);
    for (uint32_t i = 0; i < d->known->model_count; i++)
        set_arrivals(&d->known->models[i], &d->arrivals[i], now);
    for (running_job *job = d->jobs; job; job = job->next)
        for (uint32_t i = 0; job->end == END_NONE && i < job->n; i++)
            add_lane(d->known, job, &job->lanes[i]);
    pthread_mutex_unlock(&d->forecast_lock);
    if (!d->jobs)
        return;
    copy(d->played, d->known);
    forecast_play(d->played);
    for (running_job *job = d->jobs; job; job = job->next) {
        const double ends = job->end == END_NONE ? job_ends(d->played, job, now) : -1;
        job->ends_at = ends < 0 ? -1 : now + ends;
    }
}

/* ---- Any thread */

double dispatcher_eta(dispatcher *d, const dispatcher_question *question)
{
    size_t index = 0;
    while (index < models_count(d->options.models) && strcmp(models_name(d->options.models, index), question->model) != 0)
        index++;
    forecast *f = index < models_count(d->options.models) && question->rows ? malloc(sizeof *f) : NULL;
    if (!f)
        return -1;
    pthread_mutex_lock(&d->forecast_lock);
    copy(f, d->known);
    pthread_mutex_unlock(&d->forecast_lock);
    const uint32_t n = question->n ? question->n : 1;
    const forecast_job job = {.model = (uint32_t)index,
                              .n = n,
                              .rows = question->rows,
                              .evaluations = (double)question->cost / ((double)n * question->rows),
                              .priority = question->priority,
                              .waited_seconds = question->waited_seconds,
                              .cost_ahead = (double)question->cost_ahead};
    const double ends = forecast_job_ends(f, &job);
    free(f);
    return ends;
}

double dispatcher_queue_seconds(dispatcher *d, uint64_t cost)
{
    double seconds = -1;
    pthread_mutex_lock(&d->forecast_lock);
    for (uint32_t i = 0; i < d->known->model_count; i++) {
        const double rate = forecast_rate(d->known, i), slowness = d->known->models[i].slowness;
        if (rate > 0)
            seconds = fmax(seconds, (double)cost / rate / (slowness > 0 ? slowness : 1));
    }
    pthread_mutex_unlock(&d->forecast_lock);
    return seconds;
}
