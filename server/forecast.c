/* Playing the batches forward (forecast.h): between two events (a lane ends, an expected one comes) every running lane of a model
 * moves at the pace of a tick of the rows that are in its batch; on a worker, models with lanes share the time.
 *
 * Invariant: lanes that wait enter in the order of the list, where the least of a tick is taken; one that does not fit anywhere holds up
 * those of its model behind it. Owns nothing. */
#include "server/forecast.h"

#include <math.h>
#include <string.h>

#include "server/urgency.h"

#define QUEUE_PLAYED 64.0 /* images of a queue that are played one by one; behind more of them everything goes at the full batch's rate */
#define NEVER 1e18

void forecast_set_batch(forecast *f, uint32_t worker, uint32_t model, const tick_table *table, uint32_t rows_max)
{
    forecast_batch *batch = &f->batches[worker][model];
    batch->rows_max = rows_max;
    for (uint32_t rows = 1; rows <= DN_BATCH_ROWS_MAX; rows++)
        batch->seconds[rows] = tick_table_seconds(table, rows);
}

void forecast_add(forecast *f, forecast_lane lane)
{
    if (f->lane_count < FORECAST_LANES_MAX)
        f->lanes[f->lane_count++] = lane;
}

/* What is in the batches while they are played. Expected lanes are alike, and counted in bulk, as fractions: guests. */
typedef struct played {
    double rows[FORECAST_WORKERS_MAX][WORKER_MODELS_MAX]; /* in the batch, guests included */
    double guests[FORECAST_WORKERS_MAX][WORKER_MODELS_MAX];
    double pace[FORECAST_WORKERS_MAX]
               [WORKER_MODELS_MAX]; /* evaluations a second of every lane in it; 0: it has none, or nothing is known */
    double waiting_guests[WORKER_MODELS_MAX]; /* that came while there was no room */
    bool blocked[WORKER_MODELS_MAX]; /* a known lane waits for room */
} played;

static double tick_seconds(const forecast *f, uint32_t worker, uint32_t model, double rows)
{
    const forecast_batch *batch = &f->batches[worker][model];
    const double bounded = fmin(fmax(rows, 1), DN_BATCH_ROWS_MAX), slowness = f->models[model].slowness;
    const uint32_t below = (uint32_t)bounded, above = below < DN_BATCH_ROWS_MAX ? below + 1 : below;
    const double seconds = batch->seconds[below] + (bounded - below) * (batch->seconds[above] - batch->seconds[below]);
    return slowness > 0 ? seconds * slowness : seconds;
}

static bool is_known(const forecast *f, uint32_t worker, uint32_t model)
{
    return !f->out[worker] && f->batches[worker][model].rows_max && f->batches[worker][model].seconds[1] > 0;
}

/* Rows of a tick of all workers that are known to have the model. */
static double rows_of_all(const forecast *f, uint32_t model)
{
    double rows = 0;
    for (uint32_t w = 0; w < f->worker_count; w++)
        rows += is_known(f, w, model) ? f->batches[w][model].rows_max : 0;
    return rows;
}

double forecast_rate(const forecast *f, uint32_t model)
{
    double rate = 0;
    for (uint32_t w = 0; w < f->worker_count; w++)
        if (is_known(f, w, model))
            rate += f->batches[w][model].rows_max / tick_seconds(f, w, model, f->batches[w][model].rows_max);
    return rate;
}

/* Where the lane enters: of the workers with room for it, the one of whose tick the least is taken. FORECAST_WORKERS_MAX: nowhere. */
static uint32_t worker_for(const forecast *f, const played *p, const forecast_lane *lane)
{
    uint32_t best = FORECAST_WORKERS_MAX;
    double least = NEVER;
    for (uint32_t w = 0; w < f->worker_count; w++) {
        const double rows = p->rows[w][lane->model], rows_max = f->batches[w][lane->model].rows_max;
        if (is_known(f, w, lane->model) && (rows <= 0 || rows + lane->rows <= rows_max) && rows / rows_max < least) {
            best = w;
            least = rows / rows_max;
        }
    }
    return best;
}

static void enter_known(forecast *f, played *p)
{
    for (uint32_t i = 0; i < f->model_count; i++)
        p->blocked[i] = false;
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        if (lane->running || lane->evaluations <= 0 || p->blocked[lane->model])
            continue;
        const uint32_t worker = worker_for(f, p, lane);
        lane->running = worker < FORECAST_WORKERS_MAX;
        p->blocked[lane->model] = !lane->running;
        if (lane->running) {
            lane->worker = worker;
            p->rows[worker][lane->model] += lane->rows;
        }
    }
}

/* Guests take what the known lanes leave, of every worker in proportion. */
static void enter_guests(const forecast *f, played *p)
{
    for (uint32_t i = 0; i < f->model_count; i++) {
        const forecast_model *m = &f->models[i];
        double room[FORECAST_WORKERS_MAX] = {0}, all = 0;
        if (p->blocked[i] || m->arrival_rows <= 0)
            continue;
        for (uint32_t w = 0; w < f->worker_count; w++) {
            room[w] = is_known(f, w, i) ? fmax((f->batches[w][i].rows_max - p->rows[w][i]) / m->arrival_rows, 0) : 0;
            all += room[w];
        }
        const double entering = fmin(p->waiting_guests[i], all);
        for (uint32_t w = 0; w < f->worker_count && entering > 0; w++) {
            p->guests[w][i] += entering * room[w] / all;
            p->rows[w][i] += entering * room[w] / all * m->arrival_rows;
        }
        p->waiting_guests[i] -= entering;
    }
}

static void set_paces(const forecast *f, played *p)
{
    for (uint32_t w = 0; w < f->worker_count; w++) {
        double at_work = 0;
        for (uint32_t i = 0; i < f->model_count; i++)
            at_work += p->rows[w][i] > 0;
        for (uint32_t i = 0; i < f->model_count; i++) {
            const double seconds = p->rows[w][i] > 0 ? tick_seconds(f, w, i, p->rows[w][i]) : 0;
            p->pace[w][i] = seconds > 0 ? 1 / (seconds * at_work) : 0;
        }
    }
}

/* Until the next known lane ends; but at most a fraction of a guest's life at a time, since their number changes all along. */
static double next_event(const forecast *f, const played *p)
{
    double next = NEVER;
    for (uint32_t i = 0; i < f->lane_count; i++) {
        const forecast_lane *lane = &f->lanes[i];
        const double pace = p->pace[lane->worker][lane->model];
        if (lane->running && lane->evaluations > 0 && pace > 0)
            next = fmin(next, lane->evaluations / pace);
    }
    for (uint32_t w = 0; w < f->worker_count; w++)
        for (uint32_t i = 0; i < f->model_count; i++)
            if (p->pace[w][i] > 0 && f->models[i].arrivals > 0)
                next = fmin(next, fmax(f->models[i].arrival_evaluations / 8 / p->pace[w][i], 1e-4));
    return next;
}

/* Guests are of all ages: of so many, each evaluation ends the same share. */
static void advance_guests(const forecast *f, played *p, double seconds)
{
    for (uint32_t i = 0; i < f->model_count; i++) {
        const forecast_model *m = &f->models[i];
        for (uint32_t w = 0; w < f->worker_count; w++) {
            const double evaluations = p->pace[w][i] * seconds;
            const double ended = m->arrival_evaluations > 0 ? p->guests[w][i] * fmin(1, evaluations / m->arrival_evaluations) : 0;
            p->guests[w][i] -= ended;
            p->rows[w][i] = fmax(0, p->rows[w][i] - ended * m->arrival_rows);
        }
        p->waiting_guests[i] += m->arrivals * seconds;
    }
}

static void advance(forecast *f, played *p, double seconds, double now)
{
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        if (!lane->running || lane->evaluations <= 0)
            continue;
        lane->evaluations -= p->pace[lane->worker][lane->model] * seconds;
        if (lane->evaluations > 1e-6)
            continue;
        lane->evaluations = 0;
        lane->ends = now + f->models[lane->model].tail_seconds;
        p->rows[lane->worker][lane->model] -= lane->rows;
    }
    advance_guests(f, p, seconds);
}

/* Seconds of work at the rate of full batches; 0: none is left, or it is not known. */
static double work_of(const forecast_lane *lane, const double rates[WORKER_MODELS_MAX])
{
    return rates[lane->model] > 0 ? lane->evaluations * lane->rows / rates[lane->model] : 0;
}

/* What is still open: in order, at the rate of full batches. Models share the time: until one of them has had so much, every other has
 * had as much, or all that it needs. */
static void work_off(forecast *f, double now)
{
    double all[WORKER_MODELS_MAX] = {0}, had[WORKER_MODELS_MAX] = {0}, rates[WORKER_MODELS_MAX];
    for (uint32_t m = 0; m < f->model_count; m++)
        rates[m] = forecast_rate(f, m);
    for (uint32_t i = 0; i < f->lane_count; i++)
        all[f->lanes[i].model] += work_of(&f->lanes[i], rates);
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        const double work = work_of(lane, rates), own = had[lane->model] += work;
        if (work <= 0)
            continue;
        lane->ends = now + f->models[lane->model].tail_seconds;
        for (uint32_t m = 0; m < f->model_count; m++)
            lane->ends += fmin(all[m], own);
    }
}

void forecast_play(forecast *f)
{
    played p = {0};
    double now = 0;
    for (uint32_t i = 0; i < f->lane_count; i++) {
        forecast_lane *lane = &f->lanes[i];
        lane->ends = lane->evaluations > 0 ? -1 : f->models[lane->model].tail_seconds;
        if (lane->running && lane->evaluations > 0)
            p.rows[lane->worker][lane->model] += lane->rows;
    }
    const uint32_t events = FORECAST_WORK_MAX / (f->lane_count ? f->lane_count : 1);
    for (uint32_t event = 0; event < events; event++) {
        enter_known(f, &p);
        enter_guests(f, &p);
        set_paces(f, &p);
        const double seconds = next_event(f, &p);
        bool open = false;
        for (uint32_t i = 0; i < f->lane_count && !open; i++)
            open = f->lanes[i].evaluations > 0;
        if (!open || seconds >= NEVER)
            return;
        now += seconds;
        advance(f, &p, seconds, now);
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
    const double rows = rows_of_all(f, job->model), rate = forecast_rate(f, job->model), tick = rows / rate;
    double work = job->cost_ahead - rows * each / 2;
    for (uint32_t i = 0; i < f->lane_count; i++)
        work += f->lanes[i].rows * f->lanes[i].evaluations;
    const double waves = ceil((double)job->n * job->rows / rows);
    return fmax(work, 0) / rate + waves * job->evaluations * tick + m->head_seconds + m->tail_seconds;
}

double forecast_job_ends(forecast *f, const forecast_job *job)
{
    const forecast_model *m = &f->models[job->model];
    if (job->model >= f->model_count || forecast_rate(f, job->model) <= 0)
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
