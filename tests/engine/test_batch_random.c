/* Random requests, every sampler with every guidance and conditioning: an image has the bytes that it has alone whatever shares its
 * batches and however often it moves between two engines as a snapshot, and costs the evaluations that were foretold. */
#include "batch_cases.h"

#include "base/philox.h"

#define ITEMS 64
#define ROUNDS 4

typedef struct item {
    dn_lane_spec spec;
    picture alone;
    uint32_t batch;
    bool done;
} item;

static item items[ITEMS];
static uint64_t state = 20240;

static uint32_t random_below(uint32_t end)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % end;
}

static double random_between(double low, double high)
{
    return low + (high - low) * random_below(1u << 20) / (1u << 20);
}

/* A field at one of its ends or anywhere between. */
static void give(dn_options *options, const dn_option_field *field)
{
    uint32_t kind = random_below(3);
    double value = kind == 0 ? field->minimum : kind == 1 ? field->maximum : random_between(field->minimum, field->maximum);
    dn_option_set(options, field->id, dn_option_info_of(field->id)->type == DN_TYPE_NUMBER ? value : rint(value));
}

static void give_some(dn_lane_spec *spec, const dn_engine *engine, const dn_sampler *sampler)
{
    const dn_option_field *field = NULL;
    for (uint32_t i = 0; i < sampler->field_count; i++)
        if (random_below(6) == 0)
            give(&spec->options, &sampler->fields[i]);
    for (uint32_t i = 0; (field = dn_engine_field_at(engine, i)) != NULL; i++) {
        bool needs_more = field->id == DN_OPT_STRENGTH || field->id == DN_OPT_RESAMPLE || field->id == DN_OPT_VARIATION_STRENGTH;
        if (!needs_more && random_below(6) == 0)
            give(&spec->options, field);
    }
    if (spec->init != NULL && !sampler->inverts && random_below(2) == 0)
        dn_option_set(&spec->options, DN_OPT_STRENGTH, random_between(0.0, 1.0));
    if (spec->mask != NULL && random_below(2) == 0)
        dn_option_set(&spec->options, DN_OPT_RESAMPLE, 1 + random_below(3));
    if (sampler->adaptive) {
        dn_option_set(&spec->options, DN_OPT_RTOL, 0.2);
        dn_option_set(&spec->options, DN_OPT_ATOL, 0.2);
    }
}

/* Most random requests are refused for one reason or another; false then. */
static bool draw(dn_lane_spec *spec, const dn_engine *engine)
{
    static const double scales[] = {1.0, 0.0, 0.5, 2.0, 7.5, -100.0, 100.0};
    const dn_sampler *sampler = case_sampler(random_below(case_samplers()));
    case_row row = {.sampler = sampler->name, .steps = 1 + random_below(8), .scale = scales[random_below(7)]};
    row.label = (int)random_below(12) - 2;
    row.mixture = row.label >= 0 && random_below(4) == 0;
    row.negative = row.label >= 0 && random_below(4) == 0;
    row.variation = random_below(4) == 0;
    row.init = sampler->inverts || random_below(3) == 0;
    row.mask = row.init && random_below(2) == 0;
    *spec = spec_of_row(&row, state);
    give_some(spec, engine, sampler);
    return dn_lane_spec_check(engine, spec, &error) == DN_OK;
}

static void make_alone_and_count(item *one, dn_engine *engine)
{
    static dn_tick_report report;
    dn_batch *batch = NULL;
    uint64_t rows = 0;
    bool adaptive = strcmp(one->spec.sampler, "rk45") == 0;
    CHECK_OK(dn_batch_create(&batch, engine, 4, &error), error);
    CHECK_OK(dn_batch_admit(batch, 1, &one->spec, &error), error);
    do {
        CHECK_OK(dn_batch_tick(batch, &report, &error), error);
        rows += report.rows;
    } while (report.lanes[0].state == DN_LANE_RUNNING);
    CHECK_MSG(report.lanes[0].state == DN_LANE_DONE, "%s: %s", one->spec.sampler, report.lanes[0].error.message);
    uint32_t foretold = dn_lane_spec_evaluations(engine, &one->spec);
    CHECK_MSG(adaptive || rows == foretold, "%s of %u steps ran %llu evaluations, %u were foretold", one->spec.sampler, one->spec.steps,
              (unsigned long long)rows, foretold);
    read_picture(&one->alone, batch, 1);
    dn_batch_free(batch);
}

/* Takes a lane out of its batch and goes on with it in any of the two. */
static void move(dn_batch *const batches[2], uint32_t id)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    CHECK_OK(dn_batch_snapshot(batches[items[id].batch], id, &bytes, &count, &error), error);
    CHECK(dn_batch_evict(batches[items[id].batch], id) == DN_OK);
    items[id].batch = random_below(2);
    dn_status status = dn_batch_restore(batches[items[id].batch], id, bytes, count, &error);
    free(bytes);
    CHECK_OK(status, error);
}

static void take(dn_batch *const batches[2], const dn_lane_report *lane)
{
    uint32_t id = (uint32_t)lane->id;
    picture together;
    if (lane->state == DN_LANE_RUNNING) {
        if (random_below(6) == 0)
            move(batches, id);
        return;
    }
    CHECK_MSG(lane->state == DN_LANE_DONE, "%s: %s", items[id].spec.sampler, lane->error.message);
    read_picture(&together, batches[items[id].batch], id);
    CHECK_MSG(same_picture(&together, &items[id].alone), "%s of %u steps differs from itself made alone", items[id].spec.sampler,
              items[id].spec.steps);
    CHECK(dn_batch_evict(batches[items[id].batch], id) == DN_OK);
    items[id].done = true;
}

static void run_together(dn_batch *const batches[2])
{
    static dn_tick_report report;
    uint32_t admitted = 0, done = 0;
    for (uint32_t tick = 0; done < ITEMS && tick < 5000; tick++) {
        for (uint32_t more = 1 + random_below(8); admitted < ITEMS && more > 0; more--, admitted++) {
            items[admitted].batch = random_below(2);
            CHECK_OK(dn_batch_admit(batches[items[admitted].batch], admitted, &items[admitted].spec, &error), error);
        }
        for (uint32_t b = 0; b < 2; b++) {
            CHECK_OK(dn_batch_tick(batches[b], &report, &error), error);
            for (uint32_t i = 0; i < report.lane_count && !test_failed; i++)
                take(batches, &report.lanes[i]);
            if (test_failed)
                return;
        }
        done = 0;
        for (uint32_t i = 0; i < ITEMS; i++)
            done += items[i].done;
    }
    CHECK_MSG(done == ITEMS, "%u of %u finished", done, ITEMS);
}

static void any_request_is_the_same_in_any_company(void)
{
    dn_engine *engines[2] = {open_engine(1), open_engine(2)};
    for (int round = 0; round < ROUNDS && !test_failed; round++) {
        dn_batch *batches[2] = {NULL, NULL};
        for (uint32_t i = 0; i < ITEMS && !test_failed; i++) {
            items[i].done = false;
            while (!draw(&items[i].spec, engines[0]))
                continue;
            make_alone_and_count(&items[i], engines[0]);
        }
        if (test_failed)
            break;
        CHECK_OK(dn_batch_create(&batches[0], engines[0], 64, &error), error);
        CHECK_OK(dn_batch_create(&batches[1], engines[1], 7, &error), error);
        run_together(batches);
        dn_batch_free(batches[0]);
        dn_batch_free(batches[1]);
    }
    dn_engine_close(engines[0]);
    dn_engine_close(engines[1]);
}

int main(void)
{
    RUN(any_request_is_the_same_in_any_company);
    return test_end();
}
