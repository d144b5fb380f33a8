/* Deadlines through the dispatcher: of jobs that run, that wait, that cannot be met, and that passed while no daemon was there. */
#include "tests/server/dispatcher_harness.h"

static bool failed_late(const char *id)
{
    char code[24] = "";
    return wait_until_ended(id) && state_of(id, NULL, code) == API_STATE_FAILED && strcmp(code, "deadline") == 0;
}

static double seconds_of(const char *id)
{
    store_job job = {0};
    if (store_get(st, NULL, id, &job) != STORE_OK)
        return -1;
    const double seconds = (double)(job.finished_ms - job.created_ms) / 1000;
    store_job_done(&job);
    return seconds;
}

static const wanted endless = {.sampler = "ddpm", .steps = SLOW_STEPS, .n = 64, .guidance = 2, .seed = 1};

/* The job that runs is let go of, the one that waits behind it never starts, and a third without a deadline is made. */
static void running_and_waiting_jobs_fail_in_time(void)
{
    CHECK(begin());
    how.rows_max = 4;
    CHECK_MSG(start() && wait_until_ready(), "%s", error.message);
    char running[27], waiting[27], patient[27], names[256];
    wanted w = endless;
    w.steps = 20; /* one lane alone would be done in time on any machine; 64 of them at this pace are not */
    w.deadline_ms = 3000;
    set_pace(true);
    CHECK(enqueue(running, w));
    CHECK(wait_until_under_way(running));
    w.deadline_ms = 1500;
    w.client = "other";
    CHECK(enqueue(waiting, w));
    CHECK(enqueue(patient, (wanted){.sampler = "ddim", .steps = 5, .n = 1, .guidance = 2, .client = "third"}));
    CHECK(failed_late(waiting) && failed_late(running));
    set_pace(false);
    /* Not before, unless what was left of the time was too little for what was left to do. */
    CHECK_MSG(seconds_of(running) >= 2 && seconds_of(waiting) >= 0.5, "%g and %g s", seconds_of(running), seconds_of(waiting));
    event_names(names, sizeof names, waiting);
    CHECK(wait_until_ended(patient) && state_of(patient, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(metric_becomes("denoised_jobs_failed_total", 2) && metric("denoised_worker_restarts_total") == 0);
    finish();
}

/* A thousand steps cannot be done in a millisecond or two: it is said at once, before any step is wasted on it. */
static void hopeless_job_fails_at_once(void)
{
    CHECK_MSG(begin() && start() && wait_until_ready(), "%s", error.message);
    char warm[27], id[27];
    CHECK(enqueue(warm, (wanted){.sampler = "ddim", .steps = 5, .n = 1, .guidance = 2}) && wait_until_ended(warm));
    wanted w = endless;
    w.n = 1;
    w.steps = 1000;
    w.deadline_ms = 15;
    CHECK(enqueue(id, w) && failed_late(id));
    /* And one that has time enough is made. */
    w.deadline_ms = (int64_t)(1000 * PATIENCE_SECONDS);
    CHECK(enqueue(id, w) && wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED);
    finish();
}

static void deadlines_outlive_the_daemon(void)
{
    CHECK(begin());
    how.rows_max = 4;
    CHECK_MSG(start() && wait_until_ready(), "%s", error.message);
    char passed[27], running[27], coming[27];
    wanted w = endless;
    set_pace(true);
    CHECK(enqueue(running, w) && wait_until_under_way(running));
    stop();
    set_pace(false);
    w.deadline_ms = 1;
    CHECK(enqueue(passed, w));
    w.deadline_ms = 1500;
    CHECK(enqueue(coming, w));
    CHECK_MSG(restart(), "%s", error.message);
    CHECK(failed_late(passed) && failed_late(coming));
    CHECK(!api_state_ended(state_of(running, NULL, NULL)));
    finish();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return worker_main(argc, argv);
    RUN(running_and_waiting_jobs_fail_in_time);
    RUN(hopeless_job_fails_at_once);
    RUN(deadlines_outlive_the_daemon);
    return test_end();
}
