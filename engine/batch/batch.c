/* The running batch: admission, eviction and the tick. Nothing is allocated in a tick, but for the copy that dynamic
 * thresholding sorts.
 *
 * Turns: lanes stand in the order of their ids; a tick serves whole lanes from behind the last one it served, around
 * once, until the next one does not fit. Which lanes share a tick has no influence on their bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/pixel.h"
#include "base/clock.h"
#include "batch/batch_private.h"
#include "batch/codec.h"

dn_status dn_batch_create(dn_batch **out, dn_engine *engine, uint32_t rows_max, dn_error *error)
{
    if (rows_max < 1 || rows_max > DN_BATCH_ROWS_MAX)
        return dn_fail(error, DN_INVALID, "a batch has 1 to %u rows, not %u", DN_BATCH_ROWS_MAX, rows_max);
    dn_batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a batch");
    batch->engine = engine;
    batch->rows_max = rows_max;
    batch->cursor = UINT64_MAX;
    batch->host = malloc(dn_engine_elements(engine) * sizeof *batch->host);
    dn_status status = batch->host != NULL ? DN_OK : dn_fail(error, DN_NO_MEMORY, "no memory for a batch");
    dn_workspace_options options = {.rows_max = rows_max};
    if (status == DN_OK && engine->network == NULL)
        status = dn_fail(error, DN_INTERNAL, "an engine that was only described runs no batch");
    if (status == DN_OK)
        status = engine->backend->workspace_create(&batch->workspace, engine->network, &options, error);
    if (status == DN_OK && engine->guide != NULL)
        status = engine->backend->workspace_create(&batch->guide_workspace, engine->guide, &options, error);
    if (status == DN_OK)
        *out = batch;
    else
        dn_batch_free(batch);
    return status;
}

static void free_lane(const dn_batch *batch, dn_lane *lane)
{
    if (lane->registers != NULL)
        batch->engine->backend->buffer_free(lane->registers);
    free(lane);
}

void dn_batch_free(dn_batch *batch)
{
    if (batch == NULL)
        return;
    for (uint32_t i = 0; i < batch->lane_count; i++)
        free_lane(batch, batch->lanes[i]);
    for (uint32_t i = 0; i < batch->spare_count; i++)
        free_lane(batch, batch->spares[i]);
    if (batch->guide_workspace != NULL)
        batch->engine->backend->workspace_free(batch->guide_workspace);
    if (batch->workspace != NULL)
        batch->engine->backend->workspace_free(batch->workspace);
    free(batch->host);
    free(batch);
}

const dn_engine *dn_batch_engine(const dn_batch *batch)
{
    return batch->engine;
}

uint32_t dn_batch_lanes(const dn_batch *batch)
{
    return batch->lane_count;
}

uint32_t dn_batch_rows_wanted(const dn_batch *batch)
{
    uint32_t rows = 0, counts[DN_RUN_COUNT];
    for (uint32_t i = 0; i < batch->lane_count; i++)
        rows += dn_lane_rows(batch->lanes[i], counts);
    return rows;
}

bool dn_batch_has_room(const dn_batch *batch, const dn_lane *lane)
{
    uint32_t counts[DN_RUN_COUNT];
    (void)dn_lane_rows_most(lane, counts);
    for (uint32_t run = 0; run < DN_RUN_COUNT; run++)
        if (counts[run] > batch->rows_max)
            return false;
    return true;
}

/* The index of the first lane whose id is not below `id`. */
static uint32_t place_of(const dn_batch *batch, dn_lane_id id)
{
    uint32_t low = 0, high = batch->lane_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (batch->lanes[middle]->id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

dn_lane *dn_batch_find(const dn_batch *batch, dn_lane_id id)
{
    uint32_t place = place_of(batch, id);
    return place < batch->lane_count && batch->lanes[place]->id == id ? batch->lanes[place] : NULL;
}

dn_status dn_batch_take_lane(dn_batch *batch, dn_lane_id id, dn_lane **out, dn_error *error)
{
    if (dn_batch_find(batch, id) != NULL)
        return dn_fail(error, DN_INVALID, "lane %llu is already in flight", (unsigned long long)id);
    if (batch->lane_count == DN_LANES_MAX)
        return dn_fail(error, DN_NO_MEMORY, "the batch is full: %u lanes are in flight", DN_LANES_MAX);
    if (batch->spare_count > 0) {
        *out = batch->spares[--batch->spare_count];
        return DN_OK;
    }
    dn_lane *lane = calloc(1, sizeof *lane);
    if (lane == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a lane");
    const dn_engine *engine = batch->engine;
    size_t floats = dn_lane_registers(engine) * dn_engine_elements(engine);
    dn_status status = engine->backend->buffer_create(&lane->registers, engine->device, floats, error);
    if (status == DN_OK)
        *out = lane;
    else
        free(lane);
    return status;
}

void dn_batch_return_lane(dn_batch *batch, dn_lane *lane)
{
    batch->spares[batch->spare_count++] = lane;
}

void dn_batch_insert(dn_batch *batch, dn_lane *lane)
{
    uint32_t place = place_of(batch, lane->id);
    memmove(&batch->lanes[place + 1], &batch->lanes[place], (batch->lane_count - place) * sizeof batch->lanes[0]);
    batch->lanes[place] = lane;
    batch->lane_count++;
}

dn_status dn_batch_admit(dn_batch *batch, dn_lane_id id, const dn_lane_spec *spec, dn_error *error)
{
    dn_lane *lane = NULL;
    dn_status status = dn_batch_take_lane(batch, id, &lane, error);
    if (status != DN_OK)
        return status;
    status = dn_lane_init(lane, batch->engine, id, spec, error);
    if (status == DN_OK && !dn_batch_has_room(batch, lane))
        status = dn_fail(error, DN_INVALID, "guidance_scale %g needs a batch of 2 rows", spec->guidance_scale);
    if (status == DN_OK)
        status = dn_lane_start(lane, batch->engine, spec, batch->host, error);
    if (status == DN_OK)
        dn_batch_insert(batch, lane);
    else
        dn_batch_return_lane(batch, lane);
    return status;
}

dn_status dn_batch_evict(dn_batch *batch, dn_lane_id id)
{
    uint32_t place = place_of(batch, id);
    if (place == batch->lane_count || batch->lanes[place]->id != id)
        return DN_INVALID;
    dn_batch_return_lane(batch, batch->lanes[place]);
    batch->lane_count--;
    memmove(&batch->lanes[place], &batch->lanes[place + 1], (batch->lane_count - place) * sizeof batch->lanes[0]);
    return DN_OK;
}

/* Whether counts[run] more rows fit behind rows[run], for every run. */
static bool fits(const dn_batch *batch, const uint32_t rows[DN_RUN_COUNT], const uint32_t counts[DN_RUN_COUNT])
{
    for (uint32_t run = 0; run < DN_RUN_COUNT; run++)
        if (rows[run] + counts[run] > batch->rows_max)
            return false;
    return true;
}

/* Where a lane's rows begin in the lists of the tick. */
static void places_of(dn_batch *batch, const dn_lane *lane, dn_row *out[DN_RUN_COUNT])
{
    for (uint32_t run = 0; run < DN_RUN_COUNT; run++)
        out[run] = batch->rows[run] + lane->first_row[run];
}

/* Asks the lanes whose turn it is; rows[run] is what was asked for. A lane that has none of them has `asked` 0. */
static void gather(dn_batch *batch, uint32_t rows[DN_RUN_COUNT])
{
    uint32_t start = place_of(batch, batch->cursor), counts[DN_RUN_COUNT];
    start = start < batch->lane_count && batch->lanes[start]->id == batch->cursor ? start + 1 : start;
    for (uint32_t i = 0; i < batch->lane_count; i++)
        batch->lanes[i]->asked = 0;
    for (uint32_t i = 0; i < batch->lane_count; i++) {
        dn_lane *lane = batch->lanes[(start + i) % batch->lane_count];
        dn_row *places[DN_RUN_COUNT];
        if (dn_lane_rows(lane, counts) == 0)
            continue;
        if (!fits(batch, rows, counts))
            break;
        memcpy(lane->first_row, rows, sizeof lane->first_row);
        places_of(batch, lane, places);
        dn_lane_ask(lane, batch->engine, places);
        for (uint32_t run = 0; run < DN_RUN_COUNT; run++)
            rows[run] += counts[run];
        batch->cursor = lane->id;
    }
}

static dn_program program_of(const dn_batch *batch, dn_lane *lane)
{
    return (dn_program){
        .registers = lane->registers,
        .elements = dn_engine_elements(batch->engine),
        .ops = lane->ops.op,
        .op_count = lane->ops.count,
        .scalars = lane->scalars,
    };
}

/* What samplers want done to their registers before they are evaluated. */
static dn_status prepare(dn_batch *batch, dn_error *error)
{
    const dn_engine *engine = batch->engine;
    uint32_t programs = 0;
    for (uint32_t i = 0; i < batch->lane_count; i++)
        if (batch->lanes[i]->asked != 0 && batch->lanes[i]->ops.count > 0)
            batch->programs[programs++] = program_of(batch, batch->lanes[i]);
    return programs > 0 ? engine->backend->execute(engine->device, batch->programs, programs, error) : DN_OK;
}

/* Each network once at most. */
static dn_status evaluate(dn_batch *batch, const uint32_t rows[DN_RUN_COUNT], dn_error *error)
{
    const dn_engine *engine = batch->engine;
    const dn_gradient *classifier = &engine->classifier;
    dn_status status = DN_OK;
    if (rows[DN_RUN_NETWORK] > 0)
        status = engine->backend->run(engine->network, batch->workspace, batch->rows[DN_RUN_NETWORK], rows[DN_RUN_NETWORK], error);
    if (status == DN_OK && rows[DN_RUN_GUIDE] > 0)
        status = engine->backend->run(engine->guide, batch->guide_workspace, batch->rows[DN_RUN_GUIDE], rows[DN_RUN_GUIDE], error);
    if (status == DN_OK && rows[DN_RUN_CLASSIFIER] > 0)
        status = classifier->run(classifier->self, batch->rows[DN_RUN_CLASSIFIER], rows[DN_RUN_CLASSIFIER], error);
    return status;
}

/* Hands every asked lane its answer and runs all their programs. */
static dn_status answer(dn_batch *batch, dn_error *error)
{
    const dn_engine *engine = batch->engine;
    uint32_t programs = 0;
    dn_status status = DN_OK;
    for (uint32_t i = 0; i < batch->lane_count && status == DN_OK; i++) {
        dn_lane *lane = batch->lanes[i];
        dn_row *places[DN_RUN_COUNT];
        places_of(batch, lane, places);
        if (lane->asked == 0 || !dn_lane_answer(lane, engine, (const dn_row *const *)places))
            continue;
        if (lane->spec.noise != NULL)
            status = dn_lane_give_noise(lane, engine, error);
        batch->programs[programs++] = program_of(batch, lane);
    }
    if (status == DN_OK && programs > 0)
        status = engine->backend->execute(engine->device, batch->programs, programs, error);
    for (uint32_t i = 0; i < batch->lane_count && status == DN_OK; i++)
        if (batch->lanes[i]->asked != 0 && batch->lanes[i]->state == DN_LANE_RUNNING)
            dn_lane_settle(batch->lanes[i]);
    return status;
}

static void write_report(const dn_batch *batch, dn_tick_report *report, uint32_t rows, double seconds)
{
    report->rows = rows;
    report->seconds = seconds;
    report->lane_count = batch->lane_count;
    for (uint32_t i = 0; i < batch->lane_count; i++) {
        const dn_lane *lane = batch->lanes[i];
        report->lanes[i] = (dn_lane_report){
            .id = lane->id,
            .state = lane->state,
            .steps_done = lane->sampler.step,
            .steps_total = lane->context.schedule.steps,
            .fraction = lane->state == DN_LANE_DONE ? 1.0 : dn_sampler_fraction(&lane->context, &lane->sampler),
            .evaluations = lane->sampler.evaluations,
            .error = lane->error,
        };
    }
}

dn_status dn_batch_tick(dn_batch *batch, dn_tick_report *report, dn_error *error)
{
    double began = dn_now_seconds();
    uint32_t rows[DN_RUN_COUNT] = {0};
    gather(batch, rows);
    dn_status status = prepare(batch, error);
    if (status == DN_OK)
        status = evaluate(batch, rows, error);
    if (status == DN_OK)
        status = answer(batch, error);
    if (status == DN_OK)
        write_report(batch, report, rows[DN_RUN_NETWORK] + rows[DN_RUN_GUIDE] + rows[DN_RUN_CLASSIFIER], dn_now_seconds() - began);
    return status;
}

/* Of a running lane the estimate of the image; before its first answer, its start noise. */
static dn_status read_image(dn_batch *batch, dn_lane_id id, float *out, dn_error *error)
{
    const dn_lane *lane = dn_batch_find(batch, id);
    if (lane == NULL)
        return dn_fail(error, DN_INVALID, "no lane %llu is in flight", (unsigned long long)id);
    size_t elements = dn_engine_elements(batch->engine);
    bool estimate = lane->state != DN_LANE_DONE && lane->has_x0;
    dn_status status =
        batch->engine->backend->buffer_read(lane->registers, (estimate ? DN_REG_X0 : DN_REG_X) * elements, out, elements, error);
    if (status == DN_OK && lane->state == DN_LANE_RUNNING && !lane->has_x0)
        for (size_t i = 0; i < elements; i++)
            out[i] /= (float)lane->context.schedule.start_scale;
    return status;
}

dn_status dn_batch_read_floats(dn_batch *batch, dn_lane_id id, float *out, dn_error *error)
{
    return read_image(batch, id, out, error);
}

dn_status dn_batch_read_pixels(dn_batch *batch, dn_lane_id id, uint8_t *out, dn_error *error)
{
    const dn_model *model = batch->engine->model;
    size_t plane = (size_t)model->height * model->width;
    bool unit_range = batch->engine->training->family == DN_FAMILY_VE;
    if (batch->engine->codec_path != NULL)
        return dn_fail(error, DN_UNSUPPORTED, "this network makes latents: a codec makes them pixels");
    dn_status status = read_image(batch, id, batch->host, error);
    for (size_t i = 0; status == DN_OK && i < plane; i++)
        for (uint32_t c = 0; c < model->channels; c++)
            out[i * model->channels + c] = dn_pixel(batch->host[c * plane + i], unit_range);
    return status;
}
