/* The dispatcher and a real worker, as they are meant to run: jobs complete, share ticks, are watched, cancelled, refused. */
#include "tests/server/dispatcher_harness.h"

#include <stdatomic.h>

static void job_completes(void)
{
    CHECK_MSG(begin() && start(), "%s", error.message);
    char id[27], names[256];
    CHECK(enqueue(id, (wanted){.sampler = "ddim", .steps = 20, .n = 3, .class_index = 7, .guidance = 2, .seed = UINT64_MAX}));
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED);
    unsigned char digest[32];
    CHECK(images_digest(digest, id, 3));
    store_image *images = NULL;
    size_t count = 0;
    CHECK(store_images(st, id, &images, &count) == STORE_OK && count == 3);
    CHECK(images[0].view.seed == UINT64_MAX && images[1].view.seed == 0 && images[2].view.width == 8 && images[2].view.height == 8);
    CHECK(strlen(images[0].view.build) == 64 && strstr(images[0].view.device, "cpu"));
    store_images_free(images, count);
    event_names(names, sizeof names, id);
    CHECK_MSG(strcmp(names, "queued started image image image succeeded") == 0, "%s", names);
    CHECK(metric_becomes("denoised_jobs_succeeded_total", 1) && metric("denoised_images_total") == 3 &&
          metric("denoised_steps_total") == 60 && metric("denoised_admission_wait_seconds_count") == 3);
    CHECK(metric("denoised_network_rows_total") == 120);
    const api_model *model = models_lookup(registry, "tiny");
    CHECK(model && model->guidance && model->class_count == 10 && strcmp(model->class_names[3], "d") == 0 && model->width == 8);
    dispatcher_question first = {.model = "tiny", .n = 1, .rows = 2, .cost = 1000}, second = first;
    second.cost_ahead = 10000;
    CHECK(dispatcher_eta(dispatched, &first) > 0 && dispatcher_eta(dispatched, &second) > dispatcher_eta(dispatched, &first));
    second.model = "unheard-of";
    CHECK(dispatcher_eta(dispatched, &second) < 0 && dispatcher_queue_seconds(dispatched, 1000) > 0);
    hub_live now;
    hub_read(live, id, &now);
    CHECK(!now.known);
    finish();
}

static void description_outlives_the_worker(void)
{
    CHECK_MSG(begin() && start(), "%s", error.message);
    char reason[256] = "";
    CHECK(dispatcher_worker_ready(dispatched, reason, sizeof reason) || reason[0]);
    CHECK(wait_until_ready());
    char *json = NULL;
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (store_model(st, "tiny", &json) != STORE_OK && dn_now_seconds() < until)
        usleep(5000);
    CHECK(json);
    free(json);
    stop();
    models_free(registry);
    CHECK_OK(models_create(&registry, &error), error);
    CHECK_OK(models_add(registry, "tiny", "/nonexistent", &error), error);
    CHECK(start());
    CHECK(models_lookup(registry, "tiny"));
    char id[27];
    CHECK(enqueue(id, (wanted){.sampler = "ddim", .steps = 5, .n = 1, .guidance = 1}));
    const double limit = dn_now_seconds() + PATIENCE_SECONDS;
    while (models_state(registry, "tiny", NULL, 0) != MODEL_FAILED && dn_now_seconds() < limit)
        usleep(5000);
    CHECK(!dispatcher_worker_ready(dispatched, reason, sizeof reason) && strstr(reason, "nonexistent"));
    /* The only model cannot be loaded: the daemon will end, and the job waits for a better start. */
    usleep(300000);
    CHECK(state_of(id, NULL, NULL) == API_STATE_QUEUED);
    finish();
}

static void eight_jobs_share_ticks(void)
{
    static const char *const samplers[] = {"ddim", "ddpm", "euler", "dpmpp_2m", "heun", "euler_ancestral", "model", "ddim"};
    CHECK_MSG(begin(), "%s", error.message);
    char ids[8][27];
    for (uint32_t i = 0; i < 8; i++)
        CHECK(enqueue(ids[i],
                      (wanted){.sampler = samplers[i], .steps = 100 + i, .n = 1, .class_index = i, .guidance = 1 + i % 2, .seed = i}));
    set_pace(true); /* until all of them have been claimed, whatever a commit takes here */
    CHECK(start() && wait_until_under_way(ids[7]));
    set_pace(false);
    for (int i = 0; i < 8; i++)
        CHECK(wait_until_ended(ids[i]) && state_of(ids[i], NULL, NULL) == API_STATE_SUCCEEDED);
    const double rows = metric("denoised_tick_rows_sum") / metric("denoised_tick_rows_count");
    CHECK_MSG(rows > 3, "%.2f rows a tick", rows);
    finish();
}

/* The same spec alone and in company gives the same files. */
static void company_does_not_change_bytes(void)
{
    unsigned char alone[32], together[32];
    CHECK_MSG(begin() && start(), "%s", error.message);
    const wanted w = {.sampler = "dpmpp_2m", .steps = 30, .n = 4, .class_index = 3, .guidance = 3, .seed = 11};
    char first[27], ids[5][27];
    CHECK(enqueue(first, w) && wait_until_ended(first) && images_digest(alone, first, 4));
    for (uint32_t i = 0; i < 5; i++) {
        const wanted other = {.sampler = "ddpm", .steps = 50, .n = 5, .class_index = i, .guidance = 1.5, .seed = i};
        CHECK(enqueue(ids[i], i == 2 ? w : other));
    }
    for (int i = 0; i < 5; i++)
        CHECK(wait_until_ended(ids[i]));
    CHECK(images_digest(together, ids[2], 4));
    CHECK_MSG(memcmp(alone, together, 32) == 0, "the files differ");
    finish();
}

static void running_job_is_cancelled(void)
{
    CHECK_MSG(begin() && start(), "%s", error.message);
    char id[27], next[27], names[256];
    CHECK(enqueue(id, (wanted){.sampler = "ddpm", .steps = SLOW_STEPS, .n = 16, .guidance = 2, .seed = 1}));
    set_pace(true);
    CHECK(wait_until_under_way(id));
    store_request *r = store_request_create(STORE_CANCEL, NULL, NULL);
    snprintf(r->id, sizeof r->id, "%s", id);
    CHECK(store_call(st, r) == STORE_OK && r->state_after == API_STATE_RUNNING);
    store_request_free(r);
    const double began = dn_now_seconds();
    dispatcher_cancel(dispatched, id);
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_CANCELED);
    CHECK_MSG(dn_now_seconds() - began < 2, "%.2f s until the job was gone", dn_now_seconds() - began);
    set_pace(false);
    event_names(names, sizeof names, id);
    CHECK_MSG(strcmp(names, "queued started canceled") == 0, "%s", names);
    CHECK(enqueue(next, (wanted){.sampler = "ddim", .steps = 5, .n = 1, .guidance = 2}) && wait_until_ended(next));
    CHECK(state_of(next, NULL, NULL) == API_STATE_SUCCEEDED && metric_becomes("denoised_jobs_canceled_total", 1));
    dispatcher_cancel(dispatched, next);
    finish();
}

/* A request that its model refuses ends with the reason; the worker goes on. */
static void refused_request_fails_alone(void)
{
    CHECK_MSG(begin() && start(), "%s", error.message);
    char wrong[27], right[27], code[24];
    CHECK(enqueue(wrong, (wanted){.sampler = "ddim", .steps = 5, .n = 2, .class_index = 99, .guidance = 2}));
    CHECK(enqueue(right, (wanted){.sampler = "ddim", .steps = 5, .n = 2, .class_index = 9, .guidance = 2}));
    CHECK(wait_until_ended(wrong) && wait_until_ended(right));
    CHECK(state_of(wrong, NULL, code) == API_STATE_FAILED && strcmp(code, "engine") == 0 &&
          state_of(right, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(metric("denoised_worker_restarts_total") == 0);
    finish();
}

static void nobody(void *payload)
{
    atomic_fetch_add((atomic_int *)payload, 1);
}

static void previews_come_while_watched(void)
{
    CHECK_MSG(begin() && start(), "%s", error.message);
    char id[27];
    set_pace(true);
    CHECK(enqueue(id, (wanted){.sampler = "ddpm", .steps = SLOW_STEPS, .n = 16, .guidance = 2, .seed = 1}));
    atomic_int woken = 0;
    hub_subscription *s = hub_subscribe(live, id, true, nobody, &woken);
    hub_preview_view view = {0};
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (!hub_next_preview(live, id, 0, &view) && dn_now_seconds() < until && !api_state_ended(state_of(id, NULL, NULL)))
        usleep(5000);
    CHECK(view.png && view.bytes > 40 && memcmp(view.png, "\x89PNG", 4) == 0 && view.width == 8 && view.index < 16);
    CHECK(view.done > 0 && view.total == SLOW_STEPS && woken > 0);
    free(view.png);
    hub_live now;
    hub_read(live, id, &now);
    CHECK_MSG(now.total == 16 * SLOW_STEPS && now.eta_seconds > 0, "%llu steps, %.3f s to go", (unsigned long long)now.total,
              now.eta_seconds);
    set_pace(false);
    CHECK(wait_until_ended(id));
    hub_unsubscribe(live, s);
    finish();
}

/* With every row taken by jobs of low priority, one of high priority is made at once; the others go on with the bytes they had. */
static void urgent_job_does_not_wait(void)
{
    unsigned char alone[32], crowded[32];
    const wanted slow = {.sampler = "ddpm", .steps = SLOW_STEPS, .n = 12, .class_index = 4, .guidance = 2, .seed = 5, .priority = -3};
    char first[27], low[2][27], urgent[27];
    CHECK(begin());
    how.rows_max = 8;
    CHECK_MSG(start(), "%s", error.message);
    CHECK(enqueue(first, slow) && wait_until_ended(first) && images_digest(alone, first, 12));
    set_pace(true);
    for (int i = 0; i < 2; i++)
        CHECK(enqueue(low[i], slow));
    CHECK(wait_until_under_way(low[0]));
    CHECK(enqueue(urgent, (wanted){.sampler = "ddim", .steps = 20, .n = 4, .guidance = 2, .seed = 1, .priority = 3}));
    CHECK(wait_until_ended(urgent) && state_of(urgent, NULL, NULL) == API_STATE_SUCCEEDED);
    for (int i = 0; i < 2; i++)
        CHECK_MSG(!api_state_ended(state_of(low[i], NULL, NULL)), "job %d ended first", i);
    CHECK(metric("denoised_lanes_set_aside_total") >= 4);
    set_pace(false);
    for (int i = 0; i < 2; i++) {
        CHECK(wait_until_ended(low[i]) && images_digest(crowded, low[i], 12));
        CHECK_MSG(memcmp(alone, crowded, 32) == 0, "job %d has other pictures", i);
    }
    finish();
}

/* One client has filled the queue; another's first picture waits for one of its jobs at most, counted in rows of full ticks: until a place
 * is free, then its own. A fifth is allowed for claims and commits, which ticks do not wait for. */
static void flood_delays_another_by_one_job(void)
{
    CHECK(begin());
    how.rows_max = 8;
    CHECK_MSG(start(), "%s", error.message);
    char id[27], mine[27];
    for (uint64_t i = 0; i < 60; i++)
        CHECK(enqueue(id, (wanted){.sampler = "ddim", .steps = SLOW_STEPS, .n = 1, .guidance = 2, .seed = i, .client = "flood"}));
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (metric("denoised_images_total") < 5 && dn_now_seconds() < until)
        usleep(1000);
    const double before = metric("denoised_network_rows_total");
    CHECK(enqueue(mine, (wanted){.sampler = "ddim", .steps = SLOW_STEPS, .n = 1, .guidance = 2, .seed = 9, .client = "other"}));
    CHECK(wait_until_ended(mine) && state_of(mine, NULL, NULL) == API_STATE_SUCCEEDED);
    const double ticks = (metric("denoised_network_rows_total") - before) / how.rows_max;
    CHECK_MSG(ticks <= 2.4 * SLOW_STEPS, "%.0f full ticks for %u of its own", ticks, SLOW_STEPS);
    finish();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return worker_main(argc, argv);
    RUN(job_completes);
    RUN(description_outlives_the_worker);
    RUN(eight_jobs_share_ticks);
    RUN(company_does_not_change_bytes);
    RUN(running_job_is_cancelled);
    RUN(refused_request_fails_alone);
    RUN(previews_come_while_watched);
    RUN(urgent_job_does_not_wait);
    RUN(flood_delays_another_by_one_job);
    return test_end();
}
