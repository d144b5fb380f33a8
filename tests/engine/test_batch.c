/* The running batch: an image's bytes depend on its spec alone; turns; failures; refusals. */
#include "batch_cases.h"

static picture alone[CASES_MAX];

/* All cases in one batch with staggered admission and strangers who come and are sent away midway. */
static void run_together(dn_engine *engine, uint32_t rows_max, bool reversed, const char *what)
{
    static dn_tick_report report;
    dn_batch *batch = NULL;
    CHECK_OK(dn_batch_create(&batch, engine, rows_max, &error), error);
    uint32_t admitted = 0, finished = 0, cases = case_count();
    for (uint32_t tick = 0; finished < cases && tick < 5000; tick++) {
        if (admitted < cases && (tick % 2 == 0 || reversed)) {
            uint32_t index = reversed ? cases - 1 - admitted : admitted;
            dn_lane_spec spec = case_spec(index);
            CHECK_OK(dn_batch_admit(batch, index, &spec, &error), error);
            admitted++;
        }
        if (tick % 3 == 0) {
            dn_lane_spec stranger = case_spec(tick % cases);
            stranger.seed = 1000 + tick;
            CHECK_OK(dn_batch_admit(batch, 500 + tick, &stranger, &error), error);
        }
        if (tick >= 2 && (tick - 2) % 3 == 0)
            CHECK(dn_batch_evict(batch, 500 + tick - 2) == DN_OK);
        CHECK_OK(dn_batch_tick(batch, &report, &error), error);
        CHECK_MSG(report.rows <= RUNS * rows_max, "%u rows in a batch of %u of each network", report.rows, rows_max);
        for (uint32_t i = 0; i < report.lane_count; i++) {
            const dn_lane_report *lane = &report.lanes[i];
            if (lane->id >= cases || lane->state == DN_LANE_RUNNING)
                continue;
            picture together;
            CHECK_MSG(lane->state == DN_LANE_DONE, "%s: image %u: %s", what, (unsigned)lane->id, lane->error.message);
            read_picture(&together, batch, lane->id);
            CHECK_MSG(same_picture(&together, &alone[lane->id]), "%s: image %u differs from itself made alone", what, (unsigned)lane->id);
            CHECK(dn_batch_evict(batch, lane->id) == DN_OK);
            finished++;
        }
    }
    CHECK_MSG(finished == cases, "%s: %u of %u images finished", what, finished, cases);
    dn_batch_free(batch);
}

static void alone_equals_together_one_thread(void)
{
    dn_engine *engine = open_engine(1);
    CHECK(case_count() <= CASES_MAX);
    for (uint32_t i = 0; i < case_count(); i++)
        make_alone(&alone[i], engine, i);
    run_together(engine, 64, false, "64 rows");
    if (!test_failed)
        run_together(engine, 64, true, "64 rows, other order");
    if (!test_failed)
        run_together(engine, 3, false, "3 rows");
    dn_engine_close(engine);
}

static void alone_equals_together_two_threads(void)
{
    dn_engine *engine = open_engine(2);
    picture again;
    make_alone(&again, engine, 0);
    CHECK(same_picture(&again, &alone[0]));
    run_together(engine, 64, false, "64 rows");
    if (!test_failed)
        run_together(engine, 5, true, "5 rows, other order");
    dn_engine_close(engine);
}

static void images_differ_by_seed_and_class(void)
{
    dn_engine *engine = open_engine(1);
    dn_lane_spec specs[3] = {case_spec(0), case_spec(0), case_spec(0)};
    uint8_t pixels[3][ELEMENTS];
    specs[1].seed++;
    specs[2].class_index++;
    CHECK_OK(dn_generate(engine, specs, 3, pixels[0], NULL, NULL, NULL, &error), error);
    CHECK(memcmp(pixels[0], alone[0].pixels, ELEMENTS) == 0);
    CHECK(memcmp(pixels[0], pixels[1], ELEMENTS) != 0 && memcmp(pixels[0], pixels[2], ELEMENTS) != 0);
    dn_engine_close(engine);
}

/* Scale 1 is the conditional answer alone, scale 0 the unconditional: one row each, and the same bytes as asking so. */
static void guidance_ends(void)
{
    dn_engine *engine = open_engine(1);
    picture guided, plain;
    dn_lane_spec spec = case_spec(0), none = case_spec(0);
    spec.guidance_scale = 0.0;
    none.has_class = false;
    CHECK(dn_lane_spec_rows(engine, &spec) == 1 && dn_lane_spec_rows(engine, &none) == 1);
    CHECK_OK(dn_generate(engine, &spec, 1, guided.pixels, guided.floats, NULL, NULL, &error), error);
    CHECK_OK(dn_generate(engine, &none, 1, plain.pixels, plain.floats, NULL, NULL, &error), error);
    CHECK(same_picture(&guided, &plain));
    spec.guidance_scale = 1.0;
    CHECK(dn_lane_spec_rows(engine, &spec) == 1 && dn_lane_spec_evaluations(engine, &spec) == 7);
    spec.guidance_scale = 2.0;
    CHECK(dn_lane_spec_rows(engine, &spec) == 2 && dn_lane_spec_evaluations(engine, &spec) == 14);
    dn_engine_close(engine);
}

static void turns_go_round(void)
{
    static dn_tick_report report;
    dn_engine *engine = open_engine(1);
    dn_batch *batch = NULL;
    CHECK_OK(dn_batch_create(&batch, engine, 5, &error), error);
    for (dn_lane_id id = 0; id < 4; id++) {
        dn_lane_spec spec = case_spec(0);
        CHECK_OK(dn_batch_admit(batch, id, &spec, &error), error);
    }
    CHECK(dn_batch_rows_wanted(batch) == 8);
    for (uint32_t tick = 1; tick <= 6; tick++) {
        CHECK_OK(dn_batch_tick(batch, &report, &error), error);
        CHECK(report.rows == 4 && report.lane_count == 4);
        for (uint32_t i = 0; i < 4; i++)
            CHECK_MSG(report.lanes[i].steps_done == (2 * tick + 3 - i) / 4, "tick %u: lane %u has made %u steps", tick, i,
                      report.lanes[i].steps_done);
    }
    dn_batch_free(batch);
    dn_engine_close(engine);
}

static void one_bad_lane_harms_nobody(void)
{
    static dn_tick_report report;
    dn_engine *engine = open_engine(1);
    dn_batch *batch = NULL;
    float start[ELEMENTS] = {0};
    dn_lane_spec bad = case_spec(0), good = case_spec(0);
    start[17] = NAN;
    bad.start = start;
    CHECK_OK(dn_batch_create(&batch, engine, 16, &error), error);
    CHECK_OK(dn_batch_admit(batch, 1, &bad, &error), error);
    CHECK_OK(dn_batch_admit(batch, 2, &good, &error), error);
    CHECK_OK(dn_batch_tick(batch, &report, &error), error);
    CHECK(report.lanes[0].state == DN_LANE_FAILED && report.lanes[0].error.status == DN_NUMERIC);
    CHECK_MSG(strstr(report.lanes[0].error.message, "step 1 of 7") != NULL, "%s", report.lanes[0].error.message);
    picture picture_of_good;
    CHECK(finish(batch, 2));
    read_picture(&picture_of_good, batch, 2);
    CHECK(same_picture(&picture_of_good, &alone[0]));
    dn_batch_free(batch);
    CHECK(dn_generate(engine, &bad, 1, NULL, NULL, NULL, NULL, &error) == DN_NUMERIC);
    dn_engine_close(engine);
}

static void previews_before_and_between_steps(void)
{
    static dn_tick_report report;
    dn_engine *engine = open_engine(1);
    dn_batch *batch = NULL;
    picture preview;
    dn_lane_spec spec = case_spec(3);
    CHECK_OK(dn_batch_create(&batch, engine, 16, &error), error);
    CHECK_OK(dn_batch_admit(batch, 1, &spec, &error), error);
    read_picture(&preview, batch, 1);
    double sum = 0.0;
    for (size_t i = 0; i < ELEMENTS; i++)
        sum += (double)preview.floats[i] * (double)preview.floats[i];
    CHECK_MSG(sum / ELEMENTS > 0.5 && sum / ELEMENTS < 2.0, "the start noise has variance %.3g", sum / ELEMENTS);
    CHECK_OK(dn_batch_tick(batch, &report, &error), error);
    read_picture(&preview, batch, 1);
    CHECK(dn_batch_read_pixels(batch, 99, preview.pixels, &error) == DN_INVALID);
    CHECK(dn_batch_evict(batch, 99) == DN_INVALID);
    CHECK(dn_batch_admit(batch, 1, &spec, &error) == DN_INVALID);
    dn_batch_free(batch);
    dn_engine_close(engine);
}

static void bad_specs_are_refused_by_field(void)
{
    dn_engine *engine = open_engine(1);
    struct {
        const char *word;
        dn_lane_spec spec;
    } rows[10];
    for (size_t i = 0; i < 10; i++)
        rows[i].spec = case_spec(0);
    rows[0].word = "steps", rows[0].spec.steps = 0;
    rows[1].word = "steps", rows[1].spec.steps = 1001;
    rows[2].word = "guidance_scale", rows[2].spec.guidance_scale = NAN;
    rows[3].word = "guidance_scale", rows[3].spec.guidance_scale = 101.0;
    rows[4].word = "class_label", rows[4].spec.class_index = 10;
    rows[5].word = "sampler", snprintf(rows[5].spec.sampler, sizeof rows[5].spec.sampler, "dpm");
    rows[6].word = "eta", dn_option_set(&rows[6].spec.options, DN_OPT_ETA, 0.5);
    rows[7].word = "sampler", memset(rows[7].spec.sampler, 'x', sizeof rows[7].spec.sampler);
    rows[8].word = "eta", rows[8].spec = case_spec(1), dn_option_set(&rows[8].spec.options, DN_OPT_ETA, 1.5);
    rows[9].word = "sigma_schedule", rows[9].spec = case_spec(1),
    dn_option_set(&rows[9].spec.options, DN_OPT_SIGMA_SCHEDULE, DN_SIGMAS_KARRAS);
    for (size_t i = 0; i < 10; i++) {
        dn_status status = dn_lane_spec_check(engine, &rows[i].spec, &error);
        CHECK_MSG(status == DN_INVALID && strstr(error.message, rows[i].word) != NULL, "row %zu: %s", i, error.message);
    }
    dn_engine_close(engine);
}

/* A network that answers with a variance half. */
static dn_engine *open_learned(const char *variance)
{
    char scheduler[128];
    snprintf(scheduler, sizeof scheduler, "{\"_class_name\":\"DDPMScheduler\",\"variance_type\":\"%s\"}", variance);
    return open_with_scheduler("unet_noattn", scheduler);
}

static void learned_variance(void)
{
    uint8_t pixels[3][ELEMENTS], fixed[ELEMENTS];
    dn_lane_spec specs[3] = {case_spec(6), case_spec(0), case_spec(6)};
    specs[2].has_class = false;
    dn_engine *engine = open_learned("learned_range");
    CHECK_MSG(engine != NULL, "%s", error.message);
    CHECK_OK(dn_generate(engine, specs, 3, pixels[0], NULL, NULL, NULL, &error), error);
    for (int i = 0; i < 3; i++) {
        uint8_t single[ELEMENTS];
        CHECK_OK(dn_generate(engine, &specs[i], 1, single, NULL, NULL, NULL, &error), error);
        CHECK_MSG(memcmp(single, pixels[i], ELEMENTS) == 0, "image %d differs from itself made alone", i);
    }
    dn_engine_close(engine);
    engine = open_learned("fixed_small");
    CHECK_OK(dn_generate(engine, specs, 1, fixed, NULL, NULL, NULL, &error), error);
    CHECK(memcmp(fixed, pixels[0], ELEMENTS) != 0);
    dn_engine_close(engine);
}

/* The network is asked no more after the last step: an infinity that comes with its noise is found all the same. */
static void an_infinite_end_is_found(void)
{
    static float noise[4 * ELEMENTS];
    dn_engine *engine = open_with_scheduler("unet_default", "{\"_class_name\":\"DPMSolverMultistepScheduler\","
                                                            "\"algorithm_type\":\"sde-dpmsolver++\",\"final_sigmas_type\":\"sigma_min\"}");
    CHECK_MSG(engine != NULL, "%s", error.message);
    dn_lane_spec spec = case_spec(6);
    spec.steps = 4;
    spec.noise = noise;
    dn_status good = dn_generate(engine, &spec, 1, NULL, NULL, NULL, NULL, &error);
    noise[3 * ELEMENTS + 5] = INFINITY;
    dn_status bad = dn_generate(engine, &spec, 1, NULL, NULL, NULL, NULL, &error);
    dn_engine_close(engine);
    CHECK(good == DN_OK);
    CHECK_MSG(bad == DN_NUMERIC && strstr(error.message, "finished image") != NULL, "%s: %s", dn_status_name(bad), error.message);
}

static bool stop_after_three(void *payload, uint32_t done, uint32_t total)
{
    (void)total;
    *(uint32_t *)payload = done;
    return done < 3;
}

static void generation_can_be_cancelled(void)
{
    dn_engine *engine = open_engine(1);
    dn_lane_spec spec = case_spec(0);
    uint32_t seen = 0;
    CHECK(dn_generate(engine, &spec, 1, NULL, NULL, stop_after_three, &seen, &error) == DN_CANCELLED && seen == 3);
    dn_engine_close(engine);
}

int main(void)
{
    RUN(alone_equals_together_one_thread);
    RUN(alone_equals_together_two_threads);
    RUN(images_differ_by_seed_and_class);
    RUN(guidance_ends);
    RUN(turns_go_round);
    RUN(one_bad_lane_harms_nobody);
    RUN(previews_before_and_between_steps);
    RUN(bad_specs_are_refused_by_field);
    RUN(learned_variance);
    RUN(an_infinite_end_is_found);
    RUN(generation_can_be_cancelled);
    return test_end();
}
