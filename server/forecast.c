/* Playing the batches forward (forecast.h): between two events (a lane ends, an expected one comes) every running lane of a model
 * moves at the pace of a tick of the rows that are in its batch; models with lanes share the time.
 *
 * Invariant: lanes that wait enter in the order of the list; one that does not fit holds up those of its model behind it. Owns nothing. */
#include "server/forecast.h"

#include <math.h>
#include <string.h>

#include "server/urgency.h"

#define QUEUE_PLAYED 64.0 /* images of a queue that are played one by one; behind more of them everything goes at the full batch's rate */
#define NEVER 1e18

void forecast_set_model(forecast *f, uint32_t model, const tick_table *table, uint32_t rows_max)
{
    forecast_model *m = &f->models[model];
    m->rows_max = rows_max;
    for (uint32_t rows = 1; rows <= DN_BATCH_ROWS_MAX; rows++)
        m->seconds[rows] = tick_table_seconds(table, rows);
}

void forecast_add(forecast *f, forecast_lane lane)
{
    if (f->lane_count < FORECAST_LANES_MAX)
        f->lanes[f->lane_count++] = lane;
}

/* What is in a model's batch while it is played. Expected lanes are alike, and counted in bulk, as fractions: guests. */
typedef struct played {
    double rows; /* in the batch, guests included */
    double guests, waiting_guests; /* in the batch; that came while there was no room */
    bool blocked; /* a known lane waits for room */
} played;

static double tick_seconds(const forecast_model *m, double rows)
{
    const double bounded = fmin(fmax(rows, 1), DN_BATCH_ROWS_MAX);
    const uint32_t below = (uint32_t)bounded, above = below < DN_BATCH_ROWS_MAX ? below + 1 : below;
    const double seconds = m->seconds[below] + (bounded - below) * (m->seconds[above] - m->seconds[below]);
    return m->slowness > 0 ? seconds * m->slowness : seconds;
}

static void enter_known(forecast *f, played *p)
{
    for (uint32_t i = 0; i < f->model_count; i++)
        p[i].blocked = false;
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        played *batch = &p[lane->model];
        if (lane->running || lane->evaluations <= 0 || batch->blocked)
            continue;
        lane->running = batch->rows <= 0 || batch->rows + lane->rows <= f->models[lane->model].rows_max;
        batch->rows += lane->running ? lane->rows : 0;
        batch->blocked = !lane->running;
    }
}

/* Guests take what the known lanes leave. */
static void enter_guests(const forecast *f, played *p)
{
    for (uint32_t i = 0; i < f->model_count; i++) {
        const forecast_model *m = &f->models[i];
        if (p[i].blocked || m->arrival_rows <= 0)
            continue;
        const double room = (m->rows_max - p[i].rows) / m->arrival_rows, entering = fmin(p[i].waiting_guests, fmax(room, 0));
        p[i].waiting_guests -= entering;
        p[i].guests += entering;
        p[i].rows += entering * m->arrival_rows;
    }
}

/* Evaluations a second of every lane in each model's batch; 0: it has none, or nothing is known of it. */
static void paces_of(const forecast *f, const played *p, double pace[WORKER_MODELS_MAX])
{
    double at_work = 0;
    for (uint32_t i = 0; i < f->model_count; i++)
        at_work += p[i].rows > 0;
    for (uint32_t i = 0; i < f->model_count; i++) {
        const double seconds = p[i].rows > 0 ? tick_seconds(&f->models[i], p[i].rows) : 0;
        pace[i] = seconds > 0 ? 1 / (seconds * at_work) : 0;
    }
}

/* Until the next known lane ends; but at most a fraction of a guest's life at a time, since their number changes all along. */
static double next_event(const forecast *f, const double pace[WORKER_MODELS_MAX])
{
    double next = NEVER;
    for (uint32_t i = 0; i < f->lane_count; i++) {
        const forecast_lane *lane = &f->lanes[i];
        if (lane->running && lane->evaluations > 0 && pace[lane->model] > 0)
            next = fmin(next, lane->evaluations / pace[lane->model]);
    }
    for (uint32_t i = 0; i < f->model_count; i++)
        if (pace[i] > 0 && f->models[i].arrivals > 0)
            next = fmin(next, fmax(f->models[i].arrival_evaluations / 8 / pace[i], 1e-4));
    return next;
}

/* Guests are of all ages: of so many, each evaluation ends the same share. */
static void advance_guests(const forecast_model *m, played *p, double evaluations, double seconds)
{
    const double ended = m->arrival_evaluations > 0 ? p->guests * fmin(1, evaluations / m->arrival_evaluations) : 0;
    p->guests -= ended;
    p->rows = fmax(0, p->rows - ended * m->arrival_rows);
    p->waiting_guests += m->arrivals * seconds;
}

static void advance(forecast *f, played *p, const double pace[WORKER_MODELS_MAX], double seconds, double now)
{
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        if (!lane->running || lane->evaluations <= 0)
            continue;
        lane->evaluations -= pace[lane->model] * seconds;
        if (lane->evaluations > 1e-6)
            continue;
        lane->evaluations = 0;
        lane->ends = now + f->models[lane->model].tail_seconds;
        p[lane->model].rows -= lane->rows;
    }
    for (uint32_t i = 0; i < f->model_count; i++)
        advance_guests(&f->models[i], &p[i], pace[i] * seconds, seconds);
}

/* Seconds of work at the rate of full batches; 0: none is left, or it is not known. */
static double work_of(const forecast *f, const forecast_lane *lane)
{
    const forecast_model *m = &f->models[lane->model];
    return m->rows_max ? lane->evaluations * lane->rows * tick_seconds(m, m->rows_max) / m->rows_max : 0;
}

/* What is still open: in order, at the rate of full batches. Models share the time: until one of them has had so much, every other has
 * had as much, or all that it needs. */
static void work_off(forecast *f, double now)
{
    double all[WORKER_MODELS_MAX] = {0}, had[WORKER_MODELS_MAX] = {0};
    for (uint32_t i = 0; i < f->lane_count; i++)
        all[f->lanes[i].model] += work_of(f, &f->lanes[i]);
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        const double work = work_of(f, lane), own = had[lane->model] += work;
        if (work <= 0)
            continue;
        lane->ends = now + f->models[lane->model].tail_seconds;
        for (uint32_t m = 0; m < f->model_count; m++)
            lane->ends += fmin(all[m], own);
    }
}

void forecast_play(forecast *f)
{
    played p[WORKER_MODELS_MAX] = {0};
    double now = 0, pace[WORKER_MODELS_MAX];
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        lane->ends = lane->evaluations > 0 ? -1 : f->models[lane->model].tail_seconds;
        if (lane->running && lane->evaluations > 0)
            p[lane->model].rows += lane->rows;
    }
    const uint32_t events = FORECAST_WORK_MAX / (f->lane_count ? f->lane_count : 1);
    for (uint32_t event = 0; event < events; event++) {
        enter_known(f, p);
        enter_guests(f, p);
        paces_of(f, p, pace);
        const double seconds = next_event(f, pace);
        bool open = false;
        for (uint32_t i = 0; i < f->lane_count && !open; i++)
            open = f->lanes[i].evaluations > 0;
        if (!open || seconds >= NEVER)
            return;
        now += seconds;
        advance(f, p, pace, seconds, now);
    }
    work_off(f, now);
}

/* Those that the job outranks make way: they go on behind it. */
static void put_before(forecast *f, const forecast_job *job)
{
    forecast_lane behind[FORECAST_LANES_MAX];
    uint32_t kept = 0, moved = 0;
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        const bool yields =
            lane->model == job->model && urgency_outranks(job->priority, job->waited_seconds, lane->priority, lane->waited_seconds);
        lane->running &= !yields;
        if (yields)
            behind[moved++] = *lane;
        else
            f->lanes[kept++] = *lane;
    }
    f->lane_count = kept;
    for (uint32_t i = 0; i < job->n; i++)
        forecast_add(f, (forecast_lane){.model = job->model, .rows = job->rows, .evaluations = job->evaluations, .asked = true});
    for (uint32_t i = 0; i < moved; i++)
        forecast_add(f, behind[i]);
}

/* Behind a long queue: all the work before it at the full batch's rate, less what is still in the batch when the job enters, half of a
 * batch's images on average; then its own in full batches. */
static double ends_behind_queue(const forecast *f, const forecast_job *job, double each)
{
    const forecast_model *m = &f->models[job->model];
    const double tick = tick_seconds(m, m->rows_max), full = tick / m->rows_max;
    double work = job->cost_ahead - m->rows_max * each / 2;
    for (uint32_t i = 0; i < f->lane_count; i++)
        work += f->lanes[i].rows * f->lanes[i].evaluations;
    const double waves = ceil((double)job->n * job->rows / m->rows_max);
    return fmax(work, 0) * full + waves * job->evaluations * tick + m->head_seconds + m->tail_seconds;
}

double forecast_job_ends(forecast *f, const forecast_job *job)
{
    const forecast_model *m = &f->models[job->model];
    if (job->model >= f->model_count || !m->rows_max || tick_seconds(m, 1) <= 0)
        return -1;
    /* The queue before it is of images like those that came lately. */
    const double rows = m->arrival_rows > 0 ? fmax(1, floor(m->arrival_rows + 0.5)) : job->rows;
    const double each = m->arrival_evaluations > 0 ? m->arrival_evaluations : job->evaluations;
    const double images = job->cost_ahead / (rows * each);
    if (images > QUEUE_PLAYED || job->n + f->lane_count + QUEUE_PLAYED > FORECAST_LANES_MAX)
        return ends_behind_queue(f, job, each);
    for (double left = images; left > 0; left--)
        forecast_add(f,
                     (forecast_lane){
                         .model = job->model, .rows = (uint32_t)rows, .evaluations = fmin(left, 1) * each, .priority = API_PRIORITY_MAX});
    put_before(f, job);
    forecast_play(f);
    double ends = -1;
    for (uint32_t i = 0; i < f->lane_count; i++)
        if (f->lanes[i].asked)
            ends = fmax(ends, f->lanes[i].ends);
    return ends < 0 ? -1 : ends + m->head_seconds;
}
