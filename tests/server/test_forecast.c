/* Forecasts against what then happens, on a machine that is simulated tick by tick with a clock of its own: a batch of continuous
 * admission over a table of tick durations, Poisson arrivals, 5 to 50 evaluations, one row or two. */
#include "server/forecast.h"

#include "tests/test.h"

enum { JOBS = 1500, WARM = 100, ROWS_MAX = 16 };

typedef struct simulated {
    double arrives, ends, foreseen;
    uint32_t rows;
    double evaluations, left;
} simulated;

static uint64_t state;
static simulated jobs[JOBS];
static forecast foresight;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / 9007199254740992.0;
}

/* Two rows cost little more than one, then rows cost alike. */
static double seconds_of(uint32_t rows)
{
    return 1e-3 + 1.4e-3 * (rows > 2 ? rows : 2);
}

static tick_table table_of_it(void)
{
    tick_table table = {.recent_count = 0};
    for (uint32_t rows = 1; rows <= ROWS_MAX; rows *= 2)
        tick_table_measured(&table, rows, seconds_of(rows));
    return table;
}

/* Rows a second of images made one at a time: what a load of 1 is. */
static void draw_jobs(double load)
{
    double seconds = 0, now = 0;
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (simulated){.rows = 1 + (uniform() < 0.5), .evaluations = 5 + floor(46 * uniform())};
        jobs[i].left = jobs[i].evaluations;
        seconds += jobs[i].evaluations * seconds_of(jobs[i].rows);
    }
    for (int i = 0; i < JOBS; i++) {
        now -= log(1 - uniform()) * seconds / JOBS / load;
        jobs[i].arrives = now;
    }
}

/* What the dispatcher would tell of job i when it comes: of those before it the running ones are known, the others by their cost. */
static double foresee(int i, int first, int running, double rate)
{
    double evaluations = 0, rows = 0;
    forecast_job asked = {.n = 1, .rows = jobs[i].rows, .evaluations = jobs[i].evaluations};
    foresight.lane_count = 0;
    for (int k = 0; k < i; k++) {
        evaluations += jobs[k].evaluations / i;
        rows += (double)jobs[k].rows / i;
    }
    foresight.models[0].arrivals = rate;
    foresight.models[0].arrival_evaluations = evaluations;
    foresight.models[0].arrival_rows = rows;
    for (int k = first; k < i; k++)
        if (jobs[k].left > 0 && k < running)
            forecast_add(&foresight, (forecast_lane){.rows = jobs[k].rows, .evaluations = jobs[k].left, .running = true});
        else if (jobs[k].left > 0)
            asked.cost_ahead += jobs[k].rows * jobs[k].evaluations;
    return forecast_job_ends(&foresight, &asked);
}

/* Plays all jobs; foreseen: at each arrival. Arrivals are heard of between ticks. */
static void simulate(void)
{
    double now = 0;
    int first = 0, running = 0, here = 0;
    while (first < JOBS) {
        for (; here < JOBS && jobs[here].arrives <= now; here++) {
            const double foreseen = here < WARM ? -1 : foresee(here, first, running, here / (now > 0 ? now : 1));
            jobs[here].foreseen = foreseen < 0 ? -1 : foreseen + now - jobs[here].arrives;
        }
        uint32_t rows = 0;
        for (int i = first; i < running; i++)
            rows += jobs[i].left > 0 ? jobs[i].rows : 0;
        while (running < here && (rows == 0 || rows + jobs[running].rows <= ROWS_MAX))
            rows += jobs[running++].rows;
        if (rows == 0) {
            now = jobs[here].arrives;
            continue;
        }
        now += seconds_of(rows);
        for (int i = first; i < running; i++) {
            jobs[i].left -= jobs[i].left > 0;
            if (jobs[i].left <= 0 && jobs[i].ends <= 0)
                jobs[i].ends = now;
        }
        while (first < running && jobs[first].left <= 0)
            first++;
    }
}

static int by_size(const void *a, const void *b)
{
    const double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

/* Median and ninth decile of the relative errors; -1: something had no forecast. */
static void errors_of(double *median, double *decile)
{
    static double errors[JOBS];
    int count = 0;
    for (int i = WARM; i < JOBS; i++) {
        const double took = jobs[i].ends - jobs[i].arrives;
        errors[count++] = jobs[i].foreseen < 0 ? 1e9 : fabs(jobs[i].foreseen - took) / took;
    }
    qsort(errors, (size_t)count, sizeof errors[0], by_size);
    *median = errors[count / 2];
    *decile = errors[count * 9 / 10];
}

static void forecasts_are_honest_under_load(void)
{
    static const double loads[] = {0.3, 0.5, 0.8, 1.0, 1.3, 1.5, 2.5};
    const tick_table table = table_of_it();
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        double median, decile;
        foresight = (forecast){.worker_count = 1, .model_count = 1};
        forecast_set_batch(&foresight, 0, 0, &table, ROWS_MAX);
        state = 7 + i;
        draw_jobs(loads[i]);
        simulate();
        errors_of(&median, &decile);
        printf("  load %.1f: median error %.3f, nine of ten under %.3f\n", loads[i], median, decile);
        CHECK_MSG(median <= 0.20 && decile <= 0.50, "load %.1f: median %.3f, ninth decile %.3f", loads[i], median, decile);
    }
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-6 * fabs(b);
}

/* Without arrivals everything is known, and exact but for the rounding of ticks. */
static void what_is_known_is_exact(void)
{
    const tick_table table = table_of_it();
    foresight = (forecast){.worker_count = 1, .model_count = 2};
    forecast_set_batch(&foresight, 0, 0, &table, 4);
    foresight.models[0].tail_seconds = 0.5;
    /* Two fit, the third waits for the first. */
    forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 10, .running = true});
    forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 30, .running = true});
    forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 20});
    forecast_play(&foresight);
    const double four = seconds_of(4), two = seconds_of(2);
    CHECK(near(foresight.lanes[0].ends, 10 * four + 0.5));
    CHECK(near(foresight.lanes[1].ends, 30 * four + 0.5) && near(foresight.lanes[2].ends, 30 * four + 0.5));
    /* A second model halves the pace of both. */
    forecast_set_batch(&foresight, 0, 1, &table, 4);
    foresight.lane_count = 0;
    forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 10, .running = true});
    forecast_add(&foresight, (forecast_lane){.model = 1, .rows = 2, .evaluations = 30, .running = true});
    forecast_play(&foresight);
    CHECK(near(foresight.lanes[0].ends, 20 * two + 0.5) && near(foresight.lanes[1].ends, 40 * two));
    /* On a machine that has become slower than the table says. */
    foresight.models[1].slowness = 3;
    foresight.lane_count = 0;
    forecast_add(&foresight, (forecast_lane){.model = 1, .rows = 2, .evaluations = 30, .running = true});
    forecast_play(&foresight);
    CHECK(near(foresight.lanes[0].ends, 90 * two));
    /* Nothing is known of a model without a table. */
    foresight.model_count = 3;
    const forecast_job stranger = {.model = 2, .n = 1, .rows = 1, .evaluations = 5};
    CHECK(forecast_job_ends(&foresight, &stranger) < 0);
}

/* An urgent job is foreseen in the place of those that will make way, and a long queue is worked off at the full batch's rate. */
static void urgency_and_long_queues(void)
{
    const tick_table table = table_of_it();
    foresight = (forecast){.worker_count = 1, .model_count = 1};
    forecast_set_batch(&foresight, 0, 0, &table, 4);
    const forecast_job urgent = {.n = 1, .rows = 2, .evaluations = 10, .priority = 5}, plain = {.n = 1, .rows = 2, .evaluations = 10};
    for (int pass = 0; pass < 2; pass++) {
        foresight.lane_count = 0;
        forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 100, .running = true});
        forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 100, .running = true});
        const double ends = forecast_job_ends(&foresight, pass ? &urgent : &plain);
        CHECK_MSG(near(ends, pass ? 10 * seconds_of(4) : 100 * seconds_of(4) + 10 * seconds_of(2)), "%g s", ends);
    }
    foresight.lane_count = 0;
    forecast_job last = plain;
    last.cost_ahead = 1e6;
    const double ends = forecast_job_ends(&foresight, &last);
    CHECK_MSG(fabs(ends - 1e6 * seconds_of(4) / 4) < 0.01 * ends, "%g s", ends);
    for (uint32_t i = 0; i < 2 * FORECAST_LANES_MAX; i++)
        forecast_add(&foresight, (forecast_lane){.rows = 1, .evaluations = 100});
    CHECK(foresight.lane_count == FORECAST_LANES_MAX && forecast_job_ends(&foresight, &plain) > 0);
    /* More events than are played: the end is told all the same, and not far off. */
    foresight.lane_count = 0;
    foresight.models[0].arrivals = 1e-3;
    foresight.models[0].arrival_evaluations = 2;
    foresight.models[0].arrival_rows = 2;
    for (uint32_t i = 0; i < 128; i++)
        forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 1000});
    forecast_play(&foresight);
    const double all = 128 * 1000 * seconds_of(4) / 2;
    CHECK_MSG(fabs(foresight.lanes[127].ends - all) < 0.1 * all, "%g s of %g", foresight.lanes[127].ends, all);
    /* A long job of another model does not hold up a shorter one behind it in the list: they share the time. */
    foresight.lane_count = 0;
    foresight.model_count = 2;
    forecast_set_batch(&foresight, 0, 1, &table, 4);
    for (uint32_t i = 0; i < 128; i++)
        forecast_add(&foresight, (forecast_lane){.model = i < 112, .rows = 2, .evaluations = 1000});
    forecast_play(&foresight);
    CHECK_MSG(fabs(foresight.lanes[127].ends - all / 4) < 0.05 * all, "%g s of %g", foresight.lanes[127].ends, all);
    CHECK_MSG(fabs(foresight.lanes[111].ends - all) < 0.1 * all, "%g s of %g", foresight.lanes[111].ends, all);
}

/* Two workers: each has its own batch and its own pace; the queue is worked off by both. */
static void workers_share_the_queue(void)
{
    const tick_table table = table_of_it();
    tick_table slow = {.recent_count = 0};
    for (uint32_t rows = 1; rows <= ROWS_MAX; rows *= 2)
        tick_table_measured(&slow, rows, 3 * seconds_of(rows));
    foresight = (forecast){.worker_count = 2, .model_count = 1};
    forecast_set_batch(&foresight, 0, 0, &table, 4);
    forecast_set_batch(&foresight, 1, 0, &slow, 4);
    /* One runs on the slow worker; the next enters the empty one, the third where less of a tick is taken: the first that is free. */
    forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 10, .running = true, .worker = 1});
    forecast_add(&foresight, (forecast_lane){.rows = 4, .evaluations = 20});
    forecast_add(&foresight, (forecast_lane){.rows = 4, .evaluations = 20});
    forecast_play(&foresight);
    const double two = seconds_of(2), four = seconds_of(4);
    CHECK_MSG(near(foresight.lanes[0].ends, 30 * two), "%g s", foresight.lanes[0].ends);
    CHECK_MSG(near(foresight.lanes[1].ends, 20 * four) && foresight.lanes[1].worker == 0, "%g s", foresight.lanes[1].ends);
    const bool slow_first = 30 * two < 20 * four;
    CHECK_MSG(near(foresight.lanes[2].ends, slow_first ? 30 * two + 60 * four : 40 * four), "%g s", foresight.lanes[2].ends);
    /* A long queue goes at the rate of both; one that is out counts for nothing. */
    forecast_job last = {.n = 1, .rows = 2, .evaluations = 10, .cost_ahead = 1e6};
    for (int out = 0; out < 3; out++) {
        const double rate = 4 / four * (out == 0 ? 4.0 / 3 : out == 1 ? 1.0 / 3 : 1);
        foresight.lane_count = 0;
        foresight.out[0] = out == 1;
        foresight.out[1] = out == 2;
        CHECK(near(forecast_rate(&foresight, 0), rate));
        const double ends = forecast_job_ends(&foresight, &last);
        CHECK_MSG(fabs(ends - 1e6 / rate) < 0.01 * ends, "%g s, not %g", ends, 1e6 / rate);
    }
    foresight.out[0] = true;
    CHECK(forecast_rate(&foresight, 0) == 0 && forecast_job_ends(&foresight, &last) < 0);
    /* Half of those who come go to each of two equal workers. */
    foresight = (forecast){.worker_count = 2, .model_count = 1};
    forecast_set_batch(&foresight, 0, 0, &table, 4);
    forecast_set_batch(&foresight, 1, 0, &table, 4);
    for (int i = 0; i < 4; i++)
        forecast_add(&foresight, (forecast_lane){.rows = 2, .evaluations = 100});
    forecast_play(&foresight);
    for (int i = 0; i < 4; i++)
        CHECK_MSG(near(foresight.lanes[i].ends, 100 * four), "lane %d: %g s", i, foresight.lanes[i].ends);
}

int main(void)
{
    RUN(what_is_known_is_exact);
    RUN(urgency_and_long_queues);
    RUN(workers_share_the_queue);
    RUN(forecasts_are_honest_under_load);
    return test_end();
}
