/* What ticks of a freshly loaded model take: found out with made-up images of one row each, in the batch that will be used.
 *
 * Invariant: the batch is empty before and after. The time for it is bounded: a single row is always measured, larger sizes while they
 * promise to fit WORKER_MEASURE_SECONDS; the sizes that did not are measured by the first ticks that have them (tick_table.h). Runs on
 * the loader's thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "server/worker_internal.h"

#define MEASURED_TICKS 3 /* the fastest counts: what disturbs only ever slows down */
#define MEASURED_STEPS (MEASURED_TICKS + 1u) /* no lane ends too early; and hardly a model or sampler refuses so few */
#define SLOW_SECONDS 0.2 /* a tick longer than this is run once */

/* The fastest of some ticks, behind one that touches its memory for the first time, and which counts where a second would take too long.
 * *out 0: nothing was evaluated, since every lane has failed. */
static dn_status measure(double *out, dn_batch *batch, dn_tick_report *report, dn_error *error)
{
    dn_status status = dn_batch_tick(batch, report, error);
    *out = status == DN_OK && report->seconds > WORKER_TICK_SECONDS ? report->seconds : (double)INFINITY;
    for (int i = 0; status == DN_OK && i < MEASURED_TICKS && !(*out > SLOW_SECONDS && isfinite(*out)); i++) {
        status = dn_batch_tick(batch, report, error);
        if (status == DN_OK)
            *out = report->rows ? fmin(*out, report->seconds) : 0;
    }
    return status;
}

static void clear(dn_batch *batch, uint32_t lanes)
{
    for (uint32_t lane = 1; lane <= lanes; lane++)
        (void)dn_batch_evict(batch, lane);
}

/* Lanes 1..rows, at their first step. */
static dn_status fill(dn_batch *batch, uint32_t rows, dn_error *error)
{
    dn_lane_spec spec = {.guidance_scale = 1, .steps = MEASURED_STEPS};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", dn_batch_engine(batch)->default_sampler);
    spec.has_class = dn_batch_engine(batch)->class_count > 0;
    dn_status status = DN_OK;
    for (uint32_t lane = 1; status == DN_OK && lane <= rows; lane++) {
        spec.seed = lane;
        status = dn_batch_admit(batch, lane, &spec, error);
    }
    return status;
}

dn_status worker_measure_ticks(tick_table *out, dn_batch *batch, uint32_t rows_limit, dn_error *error)
{
    *out = (tick_table){.recent_count = 0};
    dn_tick_report *report = malloc(sizeof *report);
    if (!report)
        return dn_fail(error, DN_NO_MEMORY, "out of memory for a tick");
    const double until = dn_now_seconds() + WORKER_MEASURE_SECONDS;
    double best = 0, seconds = 0, before = INFINITY;
    dn_status status = DN_OK;
    uint32_t rows = 1;
    for (uint32_t stalls = 0; rows <= rows_limit && stalls < 2; rows *= 2) {
        if (rows > 1 && dn_now_seconds() + 2 * (MEASURED_TICKS + 1) * seconds > until)
            break;
        status = fill(batch, rows, error);
        if (status == DN_OK)
            status = measure(&seconds, batch, report, error);
        clear(batch, rows);
        if (status != DN_OK || seconds <= 0)
            break;
        seconds = fmin(seconds, 2 * before); /* rows never cost more together than one after another: it was something else */
        before = seconds;
        tick_table_measured(out, report->rows, seconds); /* a lane has two where a classifier guides by itself */
        stalls = rows / seconds > TICK_TABLE_GROWTH * best ? 0 : stalls + 1;
        best = fmax(best, rows / seconds);
    }
    free(report);
    return rows > 1 && status != DN_DEVICE_LOST ? DN_OK : status; /* what a larger batch lacks, the first size did not */
}
