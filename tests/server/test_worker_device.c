/* A worker whose device lacks something: memory for a batch, for a lane, for a tick; or that is lost in the middle. The device is the CPU
 * behind a table that fails when files beside the model say so. Whatever it lacks, what is made has the bytes of a device that lacks nothing. */
#include "tests/server/dispatcher_harness.h"

#include "backend/backend.h"
#include "batch/codec.h"

#define LOST_TEXT "the device fell off its bus"

static const wanted wide = {.sampler = "ddpm", .steps = 100, .n = 8, .class_index = 3, .guidance = 2, .seed = 5};

/* ---- The device */

static char side[96];

static const char *file_of(const char *what)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", side, what);
    return path;
}

static bool there_is(const char *what)
{
    return access(file_of(what), F_OK) == 0;
}

static void set_number(const char *what, unsigned number)
{
    char text[16];
    snprintf(text, sizeof text, "%u", number);
    dn_file_write(file_of(what), text, strlen(text), false, NULL);
}

/* No file: no limit. */
static unsigned number_in(const char *what)
{
    unsigned char *text = NULL;
    size_t count = 0;
    const unsigned number =
        dn_file_read(&text, &count, file_of(what), 16, NULL) == DN_OK && count ? (unsigned)atoi((char *)text) : 1u << 30;
    free(text);
    return number;
}

static dn_backend table;
static unsigned buffers;
static dn_workspace *decoder;

static dn_status make_workspace(dn_workspace **out, dn_network *network, const dn_workspace_options *options, dn_error *why)
{
    if (options->rows_max > number_in("workspace-rows"))
        return dn_fail(why, DN_NO_MEMORY, "no memory for %u rows", options->rows_max);
    const dn_status status = dn_backend_cpu()->workspace_create(out, network, options, why);
    if (status == DN_OK && options->background)
        decoder = *out;
    return status;
}

static dn_status make_buffer(dn_buffer **out, dn_device *device, size_t floats, dn_error *why)
{
    if (buffers >= number_in("buffers"))
        return dn_fail(why, DN_NO_MEMORY, "no memory for another buffer");
    const dn_status status = dn_backend_cpu()->buffer_create(out, device, floats, why);
    buffers += status == DN_OK;
    return status;
}

static void free_buffer(dn_buffer *buffer)
{
    buffers--;
    dn_backend_cpu()->buffer_free(buffer);
}

static dn_status run_rows(dn_network *network, dn_workspace *workspace, dn_row *rows, uint32_t count, dn_error *why)
{
    char name[32];
    if (there_is("lost")) {
        unlink(file_of("lost"));
        return dn_fail(why, DN_DEVICE_LOST, LOST_TEXT);
    }
    if (workspace == decoder) {
        while (there_is("hold-decodes"))
            usleep(2000);
        snprintf(name, sizeof name, "decoded-%u", count);
        set_number(name, 1);
    } else if (count > number_in("tick-rows")) {
        set_number("tick-failed", count);
        return dn_fail(why, DN_NO_MEMORY, "no memory for a tick of %u rows", count);
    }
    return dn_backend_cpu()->run(network, workspace, rows, count, why);
}

static size_t memory_of(const dn_device *device, size_t *free_bytes)
{
    (void)device;
    if (free_bytes)
        *free_bytes = 512u << 20;
    return 1u << 30;
}

static int poor_worker_main(int argc, char **argv)
{
    worker_options options;
    const int outcome = worker_prepare(&options, argc - 1, argv + 1);
    if (outcome != DN_OPTIONS_GO_ON)
        return outcome;
    snprintf(side, sizeof side, "%.90s", options.models[0].folder);
    *strrchr(side, '/') = 0;
    snprintf(pace_file, sizeof pace_file, "%s/slow", side);
    table = *dn_backend_cpu();
    table.host_values = false;
    table.workspace_create = make_workspace;
    table.buffer_create = make_buffer;
    table.buffer_free = free_buffer;
    table.run = run_rows;
    table.device_memory = memory_of;
    options.backend = there_is("plain") ? NULL : &table;
    options.before_tick = keep_pace;
    return worker_run(&options, &error) == DN_OK ? 0 : 1;
}

/* ---- The test's side */

static bool begin_poor(void)
{
    const bool fine = begin();
    snprintf(side, sizeof side, "%s", root);
    return fine;
}

/* The wide job's images on a device that lacks nothing, made once. */
static bool made_in_plenty(unsigned char digest[32])
{
    static unsigned char kept[32];
    static bool have;
    if (!have) {
        char id[27];
        have = begin_poor();
        set_number("plain", 1);
        have = have && start() && enqueue(id, wide) && wait_until_ended(id) && images_digest(kept, id, wide.n);
        finish();
    }
    memcpy(digest, kept, 32);
    return have;
}

/* A job of it succeeds, at its first attempt, with these bytes. */
static void wide_job_is_made(const unsigned char expected[32])
{
    unsigned char got[32];
    char id[27], code[24];
    uint32_t attempt = 0;
    CHECK(enqueue(id, wide) && wait_until_ended(id));
    CHECK_MSG(state_of(id, &attempt, code) == API_STATE_SUCCEEDED && attempt == 1, "%s, attempt %u", code, attempt);
    CHECK_MSG(images_digest(got, id, wide.n) && memcmp(got, expected, 32) == 0, "other pictures");
}

static uint32_t rows_shown(void)
{
    api_batch batch = {.rows_max = 0};
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (!models_batch(registry, "tiny", &batch) && dn_now_seconds() < until)
        usleep(2000);
    return batch.rows_max;
}

static void lost_device_ends_the_worker(void)
{
    unsigned char expected[32], got[32];
    char id[27];
    uint32_t attempt = 0;
    store_event *events = NULL;
    size_t count = 0;
    CHECK(made_in_plenty(expected));
    CHECK_MSG(begin_poor(), "%s", error.message);
    set_pace(true);
    CHECK(start() && enqueue(id, wide) && wait_until_under_way(id));
    set_number("lost", 1);
    set_pace(false);
    CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 2);
    CHECK_MSG(images_digest(got, id, wide.n) && memcmp(got, expected, 32) == 0, "other pictures");
    CHECK(store_events(st, id, 2, &events, &count) == STORE_OK && count > 0);
    CHECK_MSG(strstr(events[0].data, "\"device-lost\""), "%s", events[0].data);
    store_events_free(events, count);
    CHECK(metric("denoised_worker_restarts_total") == 1 && metric("denoised_lanes_resumed_total") > 0);
    finish();
}

/* At every load. The model is not what failed: it waits, and the worker is started again, later and later. */
static void device_lost_while_loading(void)
{
    char reason[256] = "";
    CHECK_MSG(begin_poor(), "%s", error.message);
    set_number("lost", 1);
    CHECK(start());
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (!strstr(reason, LOST_TEXT) && !dispatcher_worker_ready(dispatched, reason, sizeof reason) && dn_now_seconds() < until)
        usleep(1000);
    CHECK_MSG(strstr(reason, LOST_TEXT), "%s", reason);
    CHECK(wait_until_ready() && models_state(registry, "tiny", NULL, 0) == MODEL_READY);
    finish();
}

static void batch_is_as_large_as_memory(void)
{
    unsigned char expected[32];
    char cause[256];
    CHECK(made_in_plenty(expected));
    CHECK_MSG(begin_poor(), "%s", error.message);
    set_number("workspace-rows", 9); /* of 128, 64, 32, ... */
    CHECK(start());
    CHECK_MSG(rows_shown() <= 8, "%u rows", rows_shown());
    wide_job_is_made(expected);
    finish();
    CHECK_MSG(begin_poor(), "%s", error.message);
    set_number("workspace-rows", 1);
    CHECK(start());
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (models_state(registry, "tiny", cause, sizeof cause) != MODEL_FAILED && dn_now_seconds() < until)
        usleep(2000);
    CHECK_MSG(strstr(cause, "MiB with a batch of 2 rows") && strstr(cause, "1024 MiB in all: no memory for 2 rows"), "%s", cause);
    finish();
}

static void lanes_wait_for_memory(void)
{
    unsigned char expected[32];
    CHECK(made_in_plenty(expected));
    CHECK_MSG(begin_poor(), "%s", error.message);
    set_number("buffers", 3);
    CHECK(start());
    wide_job_is_made(expected);
    CHECK_MSG(metric("denoised_tick_rows_sum") <= 6 * metric("denoised_tick_rows_count"), "more than three lanes ran");
    CHECK(metric("denoised_worker_restarts_total") == 0);
    finish();
}

/* The table was measured in better times: ticks are halved until they fit, and what had begun goes on. */
static void ticks_shrink_to_what_fits(void)
{
    unsigned char expected[32];
    CHECK(made_in_plenty(expected));
    CHECK_MSG(begin_poor(), "%s", error.message);
    how.rows_max = 16;
    CHECK(start() && wait_until_ready());
    set_number("tick-rows", 5);
    wide_job_is_made(expected);
    CHECK(number_in("tick-failed") > 5 && number_in("tick-failed") <= 16);
    CHECK_MSG(rows_shown() <= 5, "%u rows", rows_shown());
    CHECK(metric("denoised_worker_restarts_total") == 0 && metric("denoised_jobs_requeued_total") == 0);
    /* One lane alone that does not fit fails, with the cause. */
    char id[27], code[24];
    set_number("tick-rows", 1);
    CHECK(enqueue(id, wide) && wait_until_ended(id) && state_of(id, NULL, code) == API_STATE_FAILED);
    CHECK_MSG(strcmp(code, "out-of-memory") == 0, "%s", code);
    finish();
}

static bool begin_latent(void)
{
    char golden[4096];
    const bool fine = begin_poor() && realpath("tests/golden/pipe_dit_ddpm10_cfg4", golden);
    nftw(model_folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    how.rows_max = 16;
    return fine && symlink(golden, model_folder) == 0;
}

/* Latents that wait for the decoder go through it together, and come out as each would alone. */
static void decodes_share_a_run(void)
{
    static const wanted latent = {.sampler = "ddim", .steps = 5, .n = 9, .class_index = 7, .guidance = 2, .seed = 3};
    unsigned char alone[32], together[32];
    char id[27], name[32];
    hub_live now = {0};
    CHECK_MSG(begin_latent(), "%s", error.message);
    set_number("plain", 1);
    CHECK(start() && enqueue(id, latent) && wait_until_ended(id) && images_digest(alone, id, latent.n));
    finish();
    CHECK_MSG(begin_latent(), "%s", error.message);
    CHECK(start() && wait_until_ready());
    set_number("hold-decodes", 1);
    CHECK(enqueue(id, latent));
    for (const double until = dn_now_seconds() + PATIENCE_SECONDS; dn_now_seconds() < until && (!now.total || now.done < now.total);) {
        usleep(2000);
        hub_read(live, id, &now);
    }
    CHECK(now.total == 9 * 5 && now.done == now.total);
    unlink(file_of("hold-decodes"));
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED && images_digest(together, id, latent.n));
    CHECK_MSG(memcmp(alone, together, 32) == 0, "other pictures");
    unsigned most = 0;
    for (unsigned rows = 1; rows <= latent.n; rows++) {
        snprintf(name, sizeof name, "decoded-%u", rows);
        most = there_is(name) ? rows : most;
    }
    CHECK_MSG(most >= 2 && most <= DN_CODEC_ROWS_MAX, "%u decodes in a run", most);
    finish();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return poor_worker_main(argc, argv);
    RUN(lost_device_ends_the_worker);
    RUN(device_lost_while_loading);
    RUN(batch_is_as_large_as_memory);
    RUN(lanes_wait_for_memory);
    RUN(ticks_shrink_to_what_fits);
    RUN(decodes_share_a_run);
    return test_end();
}
