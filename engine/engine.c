/* The library's short way: specs in, pictures out, through one running batch on the calling thread. */
#include "engine.h"

#define DN_GENERATE_ROWS 16u /* enough to fill the cores; more only takes memory */

typedef struct dn_generation {
    dn_engine *engine;
    dn_batch *batch;
    const dn_lane_spec *specs;
    uint32_t n, admitted, finished;
    uint32_t steps_done, steps_total; /* of lanes that are gone; of all */
    uint8_t *pixels;
    float *floats;
} dn_generation;

static dn_status check_specs(dn_generation *g, dn_error *error)
{
    for (uint32_t i = 0; i < g->n; i++) {
        dn_status status = dn_lane_spec_check(g->engine, &g->specs[i], error);
        if (status != DN_OK)
            return status;
        g->steps_total += g->specs[i].steps;
    }
    return DN_OK;
}

/* Fills the batch's rows with lanes, in order. */
static dn_status admit_more(dn_generation *g, dn_error *error)
{
    dn_status status = DN_OK;
    while (status == DN_OK && g->admitted < g->n && dn_batch_lanes(g->batch) < DN_LANES_MAX) {
        const dn_lane_spec *spec = &g->specs[g->admitted];
        if (dn_batch_rows_wanted(g->batch) + dn_lane_spec_rows(g->engine, spec) > DN_GENERATE_ROWS)
            break;
        status = dn_batch_admit(g->batch, g->admitted, spec, error);
        g->admitted++;
    }
    return status;
}

static dn_status take_image(dn_generation *g, dn_lane_id id, dn_error *error)
{
    size_t elements = dn_engine_elements(g->engine);
    dn_status status = DN_OK;
    if (g->pixels != NULL)
        status = dn_batch_read_pixels(g->batch, id, g->pixels + id * elements, error);
    if (status == DN_OK && g->floats != NULL)
        status = dn_batch_read_floats(g->batch, id, g->floats + id * elements, error);
    (void)dn_batch_evict(g->batch, id);
    g->finished++;
    return status;
}

/* Collects what a tick finished; *done counts all steps made so far. */
static dn_status collect(dn_generation *g, const dn_tick_report *report, uint32_t *done, dn_error *error)
{
    dn_status status = DN_OK;
    uint32_t running = 0;
    for (uint32_t i = 0; i < report->lane_count && status == DN_OK; i++) {
        const dn_lane_report *lane = &report->lanes[i];
        if (lane->state == DN_LANE_FAILED)
            return dn_fail(error, lane->error.status, "image %u: %s", (unsigned)lane->id, lane->error.message);
        if (lane->state == DN_LANE_RUNNING) {
            running += lane->steps_done;
            continue;
        }
        status = take_image(g, lane->id, error);
        g->steps_done += g->specs[lane->id].steps;
    }
    *done = g->steps_done + running;
    return status;
}

dn_status dn_engine_open(dn_engine **out, const char *folder, const dn_engine_options *options, dn_error *error)
{
    return dn_engine_load(out, folder, options, error);
}

dn_status dn_generate(dn_engine *engine, const dn_lane_spec *specs, uint32_t n, uint8_t *pixels, float *floats, dn_progress *progress,
                      void *payload, dn_error *error)
{
    dn_generation g = {.engine = engine, .specs = specs, .n = n, .pixels = pixels, .floats = floats};
    dn_tick_report report;
    uint32_t done = 0;
    dn_status status = check_specs(&g, error);
    if (status == DN_OK)
        status = dn_batch_create(&g.batch, engine, DN_GENERATE_ROWS, error);
    while (status == DN_OK && g.finished < n) {
        status = admit_more(&g, error);
        if (status == DN_OK)
            status = dn_batch_tick(g.batch, &report, error);
        if (status == DN_OK)
            status = collect(&g, &report, &done, error);
        if (status == DN_OK && progress != NULL && !progress(payload, done, g.steps_total))
            status = dn_fail(error, DN_CANCELLED, "cancelled after %u of %u steps", done, g.steps_total);
    }
    dn_batch_free(g.batch);
    return status;
}
