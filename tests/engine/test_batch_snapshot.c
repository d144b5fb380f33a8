/* Snapshots: an image goes on from any tick to the same bytes; anything else than its own bytes is refused. */
#include "batch_cases.h"

/* Restores the snapshot of every tick of one image into a fresh batch with a stranger in it, and finishes it there. */
static void resume_everywhere(dn_engine *engine, dn_lane_spec spec, dn_lane_spec stranger)
{
    static dn_tick_report report;
    picture expected, resumed;
    dn_batch *first = NULL, *second = NULL;
    CHECK_OK(dn_generate(engine, &spec, 1, expected.pixels, expected.floats, NULL, NULL, &error), error);
    CHECK_OK(dn_batch_create(&first, engine, 8, &error), error);
    CHECK_OK(dn_batch_create(&second, engine, 8, &error), error);
    CHECK_OK(dn_batch_admit(first, 1, &spec, &error), error);
    dn_lane_state state = DN_LANE_RUNNING;
    for (uint32_t tick = 0; state == DN_LANE_RUNNING; tick++) {
        unsigned char *bytes = NULL;
        size_t count = 0;
        CHECK_OK(dn_batch_snapshot(first, 1, &bytes, &count, &error), error);
        CHECK_OK(dn_batch_admit(second, 3, &stranger, &error), error);
        CHECK_OK(dn_batch_restore(second, 7, bytes, count, &error), error);
        free(bytes);
        CHECK_MSG(finish(second, 7), "%s, tick %u does not finish", spec.sampler, tick);
        read_picture(&resumed, second, 7);
        CHECK_MSG(same_picture(&resumed, &expected), "%s of %u steps resumed after tick %u differs", spec.sampler, spec.steps, tick);
        CHECK(dn_batch_evict(second, 7) == DN_OK && dn_batch_evict(second, 3) == DN_OK);
        CHECK_OK(dn_batch_tick(first, &report, &error), error);
        state = report.lanes[0].state;
    }
    CHECK(state == DN_LANE_DONE);
    dn_batch_free(first);
    dn_batch_free(second);
}

static void every_sampler_resumes_at_every_tick(void)
{
    dn_engine *engine = open_engine(1);
    for (uint32_t i = 0; i < case_count() && !test_failed; i++)
        resume_everywhere(engine, case_spec(i), case_spec((i + 1) % case_count()));
    dn_engine_close(engine);
}

/* The third order keeps two answers: both are in the snapshot. */
static void the_third_order_resumes_at_every_tick(void)
{
    dn_engine *engine = open_with_scheduler("unet_default", "{\"_class_name\":\"DPMSolverMultistepScheduler\",\"solver_order\":3}");
    CHECK_MSG(engine != NULL, "%s", error.message);
    dn_lane_spec spec = case_spec(6);
    spec.steps = 7;
    resume_everywhere(engine, spec, case_spec(0));
    dn_engine_close(engine);
}

static void a_finished_image_survives(void)
{
    dn_engine *engine = open_engine(1);
    dn_batch *batch = NULL;
    unsigned char *bytes = NULL;
    size_t count = 0;
    picture before, after;
    dn_lane_spec spec = case_spec(2);
    CHECK_OK(dn_batch_create(&batch, engine, 8, &error), error);
    CHECK_OK(dn_batch_admit(batch, 1, &spec, &error), error);
    CHECK(finish(batch, 1));
    read_picture(&before, batch, 1);
    CHECK_OK(dn_batch_snapshot(batch, 1, &bytes, &count, &error), error);
    CHECK(dn_batch_restore(batch, 1, bytes, count, &error) == DN_INVALID);
    CHECK_OK(dn_batch_restore(batch, 2, bytes, count, &error), error);
    CHECK(finish(batch, 2));
    read_picture(&after, batch, 2);
    CHECK(same_picture(&before, &after));
    free(bytes);
    dn_batch_free(batch);
    dn_engine_close(engine);
}

static void damage_is_refused(void)
{
    dn_engine *engine = open_engine(1);
    dn_batch *batch = NULL;
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_lane_spec spec = case_spec(0);
    CHECK_OK(dn_batch_create(&batch, engine, 8, &error), error);
    CHECK_OK(dn_batch_admit(batch, 1, &spec, &error), error);
    CHECK_OK(dn_batch_snapshot(batch, 1, &bytes, &count, &error), error);
    for (size_t cut = 0; cut < count; cut += cut < 400 ? 1 : 37) {
        unsigned char *shorter = malloc(cut + 1);
        memcpy(shorter, bytes, cut);
        CHECK_MSG(dn_batch_restore(batch, 2, shorter, cut, &error) == DN_INVALID, "%zu of %zu bytes were accepted", cut, count);
        free(shorter);
    }
    for (size_t at = 0; at < count; at += at < 600 ? 1 : 41) {
        bytes[at] ^= 0x10;
        CHECK_MSG(dn_batch_restore(batch, 2, bytes, count, &error) == DN_INVALID, "a wrong byte %zu was accepted", at);
        bytes[at] ^= 0x10;
    }
    CHECK(dn_batch_lanes(batch) == 1);
    CHECK_OK(dn_batch_restore(batch, 2, bytes, count, &error), error);
    free(bytes);
    dn_batch_free(batch);
    dn_engine_close(engine);
}

static void another_build_is_refused(void)
{
    dn_engine *engine = open_engine(1), *other = open_engine(1);
    dn_batch *batch = NULL, *elsewhere = NULL;
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_lane_spec spec = case_spec(0);
    CHECK_OK(dn_batch_create(&batch, engine, 8, &error), error);
    CHECK_OK(dn_batch_create(&elsewhere, other, 8, &error), error);
    CHECK_OK(dn_batch_admit(batch, 1, &spec, &error), error);
    CHECK_OK(dn_batch_snapshot(batch, 1, &bytes, &count, &error), error);
    other->build[0] = other->build[0] == '0' ? '1' : '0';
    CHECK(dn_batch_restore(elsewhere, 1, bytes, count, &error) == DN_INVALID);
    CHECK_MSG(strstr(error.message, "another build") != NULL, "%s", error.message);
    free(bytes);
    dn_batch_free(batch);
    dn_batch_free(elsewhere);
    dn_engine_close(engine);
    dn_engine_close(other);
}

int main(void)
{
    RUN(every_sampler_resumes_at_every_tick);
    RUN(the_third_order_resumes_at_every_tick);
    RUN(a_finished_image_survives);
    RUN(damage_is_refused);
    RUN(another_build_is_refused);
    return test_end();
}
