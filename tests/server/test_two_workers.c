/* Several workers on one queue: the same bytes as one makes, whatever becomes of one of them: killed, frozen, its device lost for a moment or
 * for good. Their devices are names that mean nothing here: every worker of this test computes on the CPU. */
#include "tests/server/dispatcher_harness.h"

#include "backend/backend.h"
#include "server/dispatcher_internal.h"

#define DEVICE_SEED 777u /* an image of this seed loses the device of whoever begins it */
#define LOST_TEXT "the device fell off its bus"

static const wanted wide = {.sampler = "ddpm", .steps = 300, .n = 12, .class_index = 3, .guidance = 2, .seed = 5};

/* ---- The worker's side: files beside the model say what its device does. */

static int socket_fd;
static char side[96], own_device[32];

static const char *file_of(const char *what, const char *device)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s-%s", side, what, device);
    return path;
}

static bool there_is(const char *what, const char *device)
{
    return access(file_of(what, device), F_OK) == 0;
}

static void set_file(const char *what, const char *device, bool there)
{
    if (there)
        dn_file_write(file_of(what, device), "", 0, false, NULL);
    else
        unlink(file_of(what, device));
}

/* As worker_run says it: by a last message and an end. */
static void lose_device(void)
{
    protocol_pipe pipe;
    protocol_pipe_init(&pipe, socket_fd);
    protocol_send(&pipe, &(protocol_message){.type = PROTOCOL_LOST, .text = protocol_text(LOST_TEXT)}, NULL);
    _exit(75);
}

static void at_a_lane(const api_request *request, uint64_t seed)
{
    if (seed == DEVICE_SEED)
        lose_device();
    die_of_poison(request, seed);
}

static void at_a_tick(void)
{
    if (!there_is("ticked", own_device))
        set_file("ticked", own_device, true);
    if (there_is("lost", own_device)) {
        set_file("lost", own_device, false);
        lose_device();
    }
    if (there_is("failing", own_device))
        lose_device();
    keep_pace();
}

/* The device has memory for one network, and for no second: which is seen only when one is asked for. */
static dn_backend small;

static dn_status make_network(dn_network **out, dn_device *device, const dn_network_options *options, dn_error *why)
{
    static bool full;
    if (full) {
        set_file("was-full", own_device, true);
        return dn_fail(why, DN_NO_MEMORY, "no memory for a second network");
    }
    full = true;
    return dn_backend_cpu()->network_create(out, device, options, why);
}

/* A worker whose device works, and whose model cannot be loaded there. */
static int refusing_main(int fd)
{
    protocol_pipe pipe;
    protocol_pipe_init(&pipe, fd);
    protocol_send(&pipe, &(protocol_message){.type = PROTOCOL_HELLO, .state = PROTOCOL_VERSION, .credit = 8}, NULL);
    protocol_send(&pipe,
                  &(protocol_message){.type = PROTOCOL_MODEL,
                                      .state = PROTOCOL_MODEL_FAILED,
                                      .text = protocol_text("tiny"),
                                      .data = protocol_text("it takes more than there is")},
                  NULL);
    for (;;) {
        const protocol_message alive = {.type = PROTOCOL_ALIVE};
        usleep(100000);
        if (protocol_send(&pipe, &alive, NULL) != DN_OK)
            break;
    }
    protocol_pipe_done(&pipe);
    return 0;
}

static int devices_worker_main(int argc, char **argv)
{
    worker_options options;
    const int outcome = worker_prepare(&options, argc - 1, argv + 1);
    if (outcome != DN_OPTIONS_GO_ON)
        return outcome;
    snprintf(own_device, sizeof own_device, "%s", options.device);
    snprintf(side, sizeof side, "%.80s/..", options.models[0].folder);
    snprintf(pace_file, sizeof pace_file, "%s/slow", side);
    socket_fd = options.fd;
    if (there_is("broken", own_device))
        lose_device();
    if (there_is("refusing", own_device))
        return refusing_main(options.fd);
    options.device = NULL;
    small = *dn_backend_cpu();
    small.network_create = make_network;
    options.backend = there_is("small", own_device) ? &small : NULL;
    options.before_admit = at_a_lane;
    options.before_tick = at_a_tick;
    return worker_run(&options, &error) == DN_OK ? 0 : 1;
}

/* ---- The test's side */

static bool begin_with(unsigned workers)
{
    const bool fine = begin();
    snprintf(side, sizeof side, "%s", root);
    how.device_count = workers;
    how.devices[0] = "test:0";
    how.devices[1] = "test:1";
    how.rows_max = 8;
    return fine;
}

static dispatcher_worker worker_at(unsigned index)
{
    dispatcher_worker out;
    dispatcher_get_worker(dispatched, index, &out);
    return out;
}

static bool becomes(unsigned index, const char *state)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until && strcmp(worker_at(index).state, state) != 0)
        usleep(2000);
    return strcmp(worker_at(index).state, state) == 0;
}

static bool all_ready(void)
{
    return becomes(0, "ready") && becomes(1, "ready");
}

static bool both_tick(void)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until && !(there_is("ticked", "test:0") && there_is("ticked", "test:1")))
        usleep(2000);
    return there_is("ticked", "test:0") && there_is("ticked", "test:1");
}

/* What the wide job's images are where one worker makes them; made once. */
static bool made_by_one(unsigned char digest[32])
{
    static unsigned char kept[32];
    static bool have;
    if (!have) {
        char id[27];
        have = begin() && start() && enqueue(id, wide) && wait_until_ended(id) && images_digest(kept, id, wide.n);
        finish();
    }
    memcpy(digest, kept, 32);
    return have;
}

static bool is_as_by_one(const char *id, const wanted *w)
{
    unsigned char expected[32], got[32];
    char again[27];
    const bool stored = state_of(id, NULL, NULL) == API_STATE_SUCCEEDED && images_digest(got, id, w->n);
    return stored && enqueue(again, *w) && wait_until_ended(again) && images_digest(expected, again, w->n) &&
           memcmp(expected, got, 32) == 0;
}

/* Waits until it is cut in two: lanes of it are on both. */
static bool begin_wide(char *id)
{
    set_pace(true);
    return start() && all_ready() && enqueue(id, wide) && both_tick() && wait_until_under_way(id);
}

static void jobs_have_the_bytes_of_one_worker(void)
{
    enum { JOBS = 40 };
    static unsigned char alone[JOBS][32], shared[JOBS][32];
    static const char *const samplers[] = {"ddim", "ddpm", "euler", "dpmpp_2m", "heun"};
    for (unsigned workers = 1; workers <= 2; workers++) {
        static char ids[JOBS][27];
        CHECK_MSG(begin_with(workers), "%s", error.message);
        CHECK(start() && becomes(0, "ready") && (workers == 1 || becomes(1, "ready")));
        for (uint32_t i = 0; i < JOBS; i++)
            CHECK(enqueue(ids[i], (wanted){.sampler = samplers[i % 5],
                                           .steps = 5 + i,
                                           .n = 1 + i % 4,
                                           .class_index = i % 10,
                                           .guidance = 1 + i % 3,
                                           .seed = 100 * i,
                                           .priority = (int)(i % 3) - 1}));
        for (uint32_t i = 0; i < JOBS; i++) {
            CHECK(wait_until_ended(ids[i]) && state_of(ids[i], NULL, NULL) == API_STATE_SUCCEEDED);
            CHECK(images_digest(workers == 1 ? alone[i] : shared[i], ids[i], 1 + i % 4));
        }
        CHECK_MSG(workers == 1 || both_tick(), "one worker made everything");
        CHECK(metric("denoised_workers") == workers && metric("denoised_worker_restarts_total") == 0);
        finish();
    }
    CHECK_MSG(memcmp(alone, shared, sizeof alone) == 0, "other pictures");
}

/* One of the two is killed or frozen: its part of the job goes on, and the other never ends. */
static void one_of_two_is_lost(void)
{
    unsigned char expected[32], got[32];
    CHECK(made_by_one(expected));
    for (int frozen = 0; frozen < 2; frozen++) {
        char id[27];
        uint32_t attempt = 0;
        CHECK_MSG(begin_with(2), "%s", error.message);
        CHECK(begin_wide(id));
        const pid_t lost = worker_at(0).pid, kept = worker_at(1).pid;
        CHECK(lost > 0 && kept > 0 && lost != kept && kill(lost, frozen ? SIGSTOP : SIGKILL) == 0);
        atomic_store(&dispatched->freeze_seconds, frozen ? 1 : DISPATCHER_FREEZE_SECONDS);
        for (const double until = dn_now_seconds() + PATIENCE_SECONDS; kill(lost, 0) == 0 && dn_now_seconds() < until;)
            usleep(2000);
        atomic_store(&dispatched->freeze_seconds, DISPATCHER_FREEZE_SECONDS);
        set_pace(false);
        CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 2);
        CHECK_MSG(images_digest(got, id, wide.n) && memcmp(got, expected, 32) == 0, "other pictures");
        CHECK(worker_at(1).pid == kept && worker_at(1).restarts == 0 && worker_at(0).restarts == 1);
        finish();
    }
}

/* While suspects are tried again on one worker, the other takes what comes. */
static void suspects_hold_nobody_up(void)
{
    char ids[4][27], next[27];
    CHECK_MSG(begin_with(2), "%s", error.message);
    wanted w = wide;
    w.n = 4;
    set_pace(true);
    CHECK(start() && all_ready());
    for (int i = 0; i < 4; i++)
        CHECK(enqueue(ids[i], w));
    CHECK(both_tick() && wait_until_under_way(ids[3]));
    set_file("broken", "test:0", true);
    CHECK(kill(worker_at(0).pid, SIGKILL) == 0 && becomes(0, "gone"));
    CHECK(enqueue(next, (wanted){.sampler = "ddim", .steps = 5, .n = 1, .guidance = 2}));
    CHECK(wait_until_ended(next) && state_of(next, NULL, NULL) == API_STATE_SUCCEEDED);
    set_pace(false);
    for (int i = 0; i < 4; i++) { /* on the other, which is the only one now: one group after another */
        uint32_t attempt = 0;
        CHECK(wait_until_ended(ids[i]) && state_of(ids[i], &attempt, NULL) == API_STATE_SUCCEEDED);
        CHECK_MSG(attempt == 1, "job %d paid for a crash that nobody can be blamed for", i);
    }
    CHECK(is_as_by_one(ids[0], &w));
    finish();
}

static void lost_device_costs_no_job(void)
{
    unsigned char expected[32], got[32];
    char id[27], names[1024];
    CHECK(made_by_one(expected));
    CHECK_MSG(begin_with(2), "%s", error.message);
    CHECK(begin_wide(id));
    set_file("lost", "test:1", true);
    for (const double until = dn_now_seconds() + PATIENCE_SECONDS; there_is("lost", "test:1") && dn_now_seconds() < until;)
        usleep(2000);
    set_pace(false);
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK_MSG(images_digest(got, id, wide.n) && memcmp(got, expected, 32) == 0, "other pictures");
    store_event *events = NULL;
    size_t count = 0;
    event_names(names, sizeof names, id);
    CHECK_MSG(strncmp(names, "queued started requeued started image", 37) == 0, "%s", names);
    CHECK(store_events(st, id, 2, &events, &count) == STORE_OK && count > 0 && strstr(events[0].data, "\"device-lost\""));
    store_events_free(events, count);
    CHECK(metric("denoised_lanes_resumed_total") > 0);
    finish();
}

/* A job that loses the device of whoever has it alone fails after three of them, with what was said. */
static void job_that_loses_devices_ends(void)
{
    char id[27], mate[27], code[24];
    store_job job = {0};
    uint32_t attempt = 0;
    CHECK_MSG(begin_with(2), "%s", error.message);
    CHECK(start() && all_ready());
    CHECK(enqueue(mate, wide) && enqueue(id, (wanted){.sampler = "ddim", .steps = 5, .n = 2, .guidance = 1, .seed = DEVICE_SEED - 1}));
    CHECK(wait_until_ended(id) && state_of(id, NULL, code) == API_STATE_FAILED);
    CHECK_MSG(strcmp(code, "device-lost") == 0, "%s", code);
    CHECK(store_get(st, NULL, id, &job) == STORE_OK && job.crashes == 3 && job.error_detail);
    CHECK_MSG(strcmp(job.error_detail, "the device was lost 3 times while this job ran, the last time by " LOST_TEXT) == 0, "%s",
              job.error_detail);
    store_job_done(&job);
    CHECK(wait_until_ended(mate) && state_of(mate, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 1);
    finish();
}

/* A device that cannot be opened: the other one serves; it is tried again, and comes back. */
static void broken_device_is_done_without(void)
{
    char id[27], reason[256];
    CHECK_MSG(begin_with(2), "%s", error.message);
    set_file("broken", "test:0", true);
    CHECK(start() && becomes(1, "ready") && dispatcher_worker_ready(dispatched, reason, sizeof reason));
    CHECK(enqueue(id, wide) && wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(!there_is("ticked", "test:0") && strcmp(worker_at(0).state, "ready") != 0);
    set_file("broken", "test:1", true);
    CHECK(kill(worker_at(1).pid, SIGKILL) == 0);
    for (const double until = dn_now_seconds() + PATIENCE_SECONDS;
         dispatcher_worker_ready(dispatched, reason, sizeof reason) && dn_now_seconds() < until;)
        usleep(2000);
    CHECK_MSG(strstr(reason, "tiny") && strstr(reason, "test:0") && strstr(reason, LOST_TEXT), "%s", reason);
    CHECK(enqueue(id, wide));
    set_file("broken", "test:0", false);
    CHECK(becomes(0, "ready") && wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(there_is("ticked", "test:0"));
    finish();
}

/* A model that one worker cannot load is made by the other; while that one is not there, its jobs wait. */
static void model_that_fits_one_device(void)
{
    char id[27];
    CHECK_MSG(begin_with(2), "%s", error.message);
    set_file("refusing", "test:0", true);
    set_file("broken", "test:1", true);
    CHECK(start() && becomes(0, "ready"));
    CHECK(models_state(registry, "tiny", NULL, 0) != MODEL_FAILED && !dispatcher_worker_ready(dispatched, NULL, 0));
    CHECK(enqueue(id, wide));
    set_file("broken", "test:1", false);
    CHECK(becomes(1, "ready") && dispatcher_worker_ready(dispatched, NULL, 0) && models_state(registry, "tiny", NULL, 0) == MODEL_READY);
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED && worker_at(0).restarts == 0);
    finish();
}

/* A model beside the first is loaded when it is wanted; where that fails on one device, what was sent there is made by the other. */
static void second_model_that_fits_one_device(void)
{
    char id[27], code[24], reason[256];
    CHECK_MSG(begin_with(2), "%s", error.message);
    CHECK(models_add(registry, "other", model_folder, &error) == DN_OK);
    set_file("small", "test:0", true);
    CHECK(start() && all_ready());
    wanted w = wide;
    w.model = "other";
    CHECK(enqueue(id, w) && wait_until_ended(id));
    CHECK_MSG(state_of(id, NULL, code) == API_STATE_SUCCEEDED, "%s", code);
    CHECK(there_is("was-full", "test:0") && models_state(registry, "other", NULL, 0) == MODEL_READY);
    CHECK(metric("denoised_worker_restarts_total") == 0 && metric("denoised_jobs_requeued_total") == 0);
    finish();
    CHECK_MSG(begin_with(1), "%s", error.message); /* and where there is no other, the job says why */
    CHECK(models_add(registry, "other", model_folder, &error) == DN_OK);
    set_file("small", "test:0", true);
    CHECK(start() && becomes(0, "ready") && enqueue(id, w) && wait_until_ended(id));
    CHECK_MSG(state_of(id, NULL, code) == API_STATE_FAILED && strcmp(code, "model-load") == 0, "%s", code);
    CHECK(models_state(registry, "other", reason, sizeof reason) == MODEL_FAILED && strstr(reason, "no memory for a second network"));
    finish();
}

/* A device that is lost whenever it ticks takes no job with it while there is another: who lost one with a job has another try elsewhere. */
static void device_lost_at_every_tick(void)
{
    char ids[3][27];
    CHECK_MSG(begin_with(2), "%s", error.message);
    set_file("failing", "test:0", true);
    CHECK(start() && all_ready());
    for (int i = 0; i < 3; i++) {
        uint32_t attempt = 0;
        char code[24];
        CHECK(enqueue(ids[i], (wanted){.sampler = "ddim", .steps = 5, .n = 1, .guidance = 2, .seed = 3}) && wait_until_ended(ids[i]));
        CHECK_MSG(state_of(ids[i], &attempt, code) == API_STATE_SUCCEEDED && attempt <= 2, "job %d: %s, attempt %u", i, code, attempt);
    }
    CHECK(there_is("ticked", "test:0") && worker_at(0).restarts > 0 && worker_at(1).restarts == 0);
    finish();
}

/* With no device left the CPU works the queue off, if that was asked for; and goes once a device is there again. */
static void the_cpu_steps_in(void)
{
    char first[27], second[27];
    CHECK_MSG(begin_with(1), "%s", error.message);
    how.device_fallback = true;
    set_file("broken", "test:0", true);
    CHECK(start() && dispatcher_worker_count(dispatched) == 1);
    CHECK(enqueue(first, wide) && wait_until_ended(first) && state_of(first, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(dispatcher_worker_count(dispatched) == 2 && strcmp(worker_at(1).device, "cpu") == 0 && there_is("ticked", "cpu"));
    CHECK(strcmp(worker_at(1).state, "ready") == 0 && dispatcher_worker_ready(dispatched, NULL, 0));
    set_file("broken", "test:0", false);
    CHECK(becomes(0, "ready") && becomes(1, "gone"));
    CHECK(enqueue(second, wide) && wait_until_ended(second) && state_of(second, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(there_is("ticked", "test:0") && worker_at(1).pid == 0);
    finish();
}

static void cancel_reaches_both(void)
{
    char id[27], next[27];
    CHECK_MSG(begin_with(2), "%s", error.message);
    CHECK(begin_wide(id));
    store_request *r = store_request_create(STORE_CANCEL, NULL, NULL);
    snprintf(r->id, sizeof r->id, "%s", id);
    CHECK(store_call(st, r) == STORE_OK);
    store_request_free(r);
    dispatcher_cancel(dispatched, id);
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_CANCELED);
    set_pace(false);
    CHECK(enqueue(next, wide) && wait_until_ended(next) && state_of(next, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(metric_becomes("denoised_lanes_running", 0) && metric("denoised_worker_restarts_total") == 0);
    finish();
}

/* TERM, and a daemon with one worker after it: snapshots of both workers go on there. */
static void drain_and_go_on_with_one(void)
{
    unsigned char expected[32], got[32];
    char id[27];
    uint32_t attempt = 0;
    CHECK(made_by_one(expected));
    CHECK_MSG(begin_with(2), "%s", error.message);
    CHECK(begin_wide(id));
    dispatcher_drain(dispatched, 600);
    dispatcher_hurry(dispatched);
    const double began = dn_now_seconds();
    while (!dispatcher_drained(dispatched) && dn_now_seconds() - began < PATIENCE_SECONDS)
        usleep(5000);
    CHECK(dispatcher_drained(dispatched) && state_of(id, NULL, NULL) == API_STATE_QUEUED);
    set_pace(false);
    how.device_count = 1;
    CHECK_MSG(restart(), "%s", error.message);
    CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 1);
    CHECK_MSG(images_digest(got, id, wide.n) && memcmp(got, expected, 32) == 0, "other pictures");
    CHECK_MSG(metric("denoised_lanes_resumed_total") > how.rows_max / 2, "%g: no more than one of them had",
              metric("denoised_lanes_resumed_total"));
    finish();
}

/* With all rows of both taken, an urgent job is made at once. */
static void urgent_job_passes_on_both(void)
{
    char low[4][27], urgent[27];
    CHECK_MSG(begin_with(2), "%s", error.message);
    set_pace(true);
    CHECK(start() && all_ready());
    wanted w = wide;
    w.priority = -3;
    for (int i = 0; i < 4; i++)
        CHECK(enqueue(low[i], w));
    CHECK(both_tick() && wait_until_under_way(low[0]));
    CHECK(enqueue(urgent, (wanted){.sampler = "ddim", .steps = 10, .n = 8, .guidance = 2, .seed = 1, .priority = 3}));
    CHECK(wait_until_ended(urgent) && state_of(urgent, NULL, NULL) == API_STATE_SUCCEEDED);
    for (int i = 0; i < 4; i++)
        CHECK_MSG(!api_state_ended(state_of(low[i], NULL, NULL)), "job %d ended first", i);
    CHECK(metric("denoised_lanes_set_aside_total") >= 4);
    set_pace(false);
    for (int i = 0; i < 4; i++)
        CHECK(wait_until_ended(low[i]) && state_of(low[i], NULL, NULL) == API_STATE_SUCCEEDED);
    finish();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return devices_worker_main(argc, argv);
    RUN(jobs_have_the_bytes_of_one_worker);
    RUN(one_of_two_is_lost);
    RUN(suspects_hold_nobody_up);
    RUN(lost_device_costs_no_job);
    RUN(job_that_loses_devices_ends);
    RUN(broken_device_is_done_without);
    RUN(model_that_fits_one_device);
    RUN(second_model_that_fits_one_device);
    RUN(device_lost_at_every_tick);
    RUN(the_cpu_steps_in);
    RUN(cancel_reaches_both);
    RUN(drain_and_go_on_with_one);
    RUN(urgent_job_passes_on_both);
    return test_end();
}
