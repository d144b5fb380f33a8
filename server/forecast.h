/* When will it be done? The running batches, what waits for them and what is likely to come, played forward over the tables of tick
 * durations. A value to copy and to play as often as one likes; no clock, no thread. */
#ifndef SERVER_FORECAST_H
#define SERVER_FORECAST_H

#include "backend/devices.h"
#include "server/tick_table.h"
#include "server/worker.h"

#define FORECAST_LANES_MAX 512u /* known ones; a queue that is longer is worked off as a whole */
#define FORECAST_WORKERS_MAX (DN_DEVICES_MAX + 1u)
#define FORECAST_WORK_MAX 60000u /* lanes times events (one enters or ends) in one play: what goes beyond is worked off as a whole */

/* A model on one worker. */
typedef struct forecast_batch {
    uint32_t rows_max; /* of a tick; 0: nothing is known of it there */
    double seconds[DN_BATCH_ROWS_MAX + 1]; /* of a tick, by rows; all 0: likewise */
} forecast_batch;

typedef struct forecast_model {
    double slowness; /* what ticks took lately over what the table said, stalls and all; 0: as 1 */
    double head_seconds; /* from acceptance to the first tick, where nothing waits */
    double tail_seconds; /* from an image's last tick to its being stored: decoding, PNG, disk */
    double arrivals; /* images a second that are expected to come, on top of what is known */
    double arrival_evaluations, arrival_rows; /* of one of them */
} forecast_model;

typedef struct forecast_lane {
    uint32_t model, rows; /* rows: of one tick */
    double evaluations; /* still to make */
    bool running; /* in its batch, on `worker`; else it waits, in the order of the list */
    uint32_t worker;
    bool asked; /* it is what forecast_job_ends is asked about */
    int priority;
    double waited_seconds; /* since its job was accepted */
    double ends; /* out of forecast_play: seconds from now until it is stored; < 0: not known */
} forecast_lane;

typedef struct forecast {
    uint32_t worker_count, model_count, lane_count;
    forecast_model models[WORKER_MODELS_MAX];
    forecast_lane lanes[FORECAST_LANES_MAX];
    bool out[FORECAST_WORKERS_MAX]; /* nothing more is expected of that worker */
    forecast_batch batches[FORECAST_WORKERS_MAX][WORKER_MODELS_MAX];
} forecast;

/* A job that is not among the lanes: n images of so many evaluations, behind others of `cost_ahead` rows in all. */
typedef struct forecast_job {
    uint32_t model, n, rows;
    double evaluations; /* of one image */
    int priority;
    double waited_seconds;
    double cost_ahead;
} forecast_job;

void forecast_set_batch(forecast *f, uint32_t worker, uint32_t model, const tick_table *table, uint32_t rows_max);
/* Rows a second of the model in full batches on all workers together; 0: not known. */
double forecast_rate(const forecast *f, uint32_t model);
void forecast_add(forecast *f, forecast_lane lane); /* beyond FORECAST_LANES_MAX: left out */
/* Fills `ends` of every lane. */
void forecast_play(forecast *f);
/* Seconds until the job's last image is stored; < 0: not known. Plays; the lanes of *f are its own afterwards. */
double forecast_job_ends(forecast *f, const forecast_job *job);

#endif
