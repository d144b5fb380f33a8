/* Workers at their worst: a job that ends its worker among 63 others, workers that say nonsense, that end at once, that are paused with
 * their daemon; daemons that end again and again. */
#include "tests/server/dispatcher_harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "server/dispatcher_internal.h"

#define MATES 63u
#define PAUSE_MICROSECONDS 3500000

static const wanted long_job = {.sampler = "ddpm", .steps = SLOW_STEPS, .n = 4, .class_index = 3, .guidance = 2, .seed = 5};

/* ---- Workers that are none: what lies in ROOT/misbehave says how. */

typedef enum misdeed {
    MISDEED_EXIT = 1, /* status 7, before a word */
    MISDEED_NOISE,
    MISDEED_OLD_VERSION,
    MISDEED_LONG_FRAME,
    MISDEED_DAEMONS_WORD,
    MISDEED_STRANGE_MODEL,
    MISDEED_BAD_DESCRIPTION,
    MISDEED_BAD_TABLE,
    MISDEED_BAD_STATE,
    MISDEED_LYING_TICK,
    MISDEED_HALF_A_FRAME, /* and then silence */
    MISDEED_UNKNOWN_LANES, /* which are ignored; then it ends */
    MISDEED_COUNT,
    MISDEED_DAMAGED_IMAGE /* a real worker behind a wire that changes one bit of its first image */
} misdeed;

static void misbehave(int how_badly)
{
    char path[128], text[8];
    snprintf(path, sizeof path, "%s/misbehave", root);
    snprintf(text, sizeof text, "%d", how_badly);
    if (how_badly)
        dn_file_write(path, text, strlen(text), false, NULL);
    else
        unlink(path);
}

static int asked_misdeed(const char *model)
{
    char path[300];
    unsigned char *text = NULL;
    size_t count = 0;
    snprintf(path, sizeof path, "%s/../misbehave", model);
    const int asked = dn_file_read(&text, &count, path, 16, NULL) == DN_OK && count ? atoi((const char *)text) : 0;
    free(text);
    return asked;
}

static void say(protocol_pipe *pipe, protocol_message m)
{
    protocol_send(pipe, &m, NULL);
}

static void say_raw(const protocol_pipe *pipe, const char *bytes, size_t count)
{
    if (send(pipe->fd, bytes, count, MSG_NOSIGNAL) < 0)
        _exit(2);
}

/* A frame of a type with a payload that is not what the type says. */
static void say_frame(const protocol_pipe *pipe, unsigned type, const char *payload, unsigned count)
{
    const unsigned char header[8] = {(unsigned char)count, 0, 0, 0, (unsigned char)type};
    say_raw(pipe, (const char *)header, sizeof header);
    say_raw(pipe, payload, count);
}

static void say_unknown_lanes(protocol_pipe *pipe)
{
    static const protocol_type types[] = {PROTOCOL_ADMITTED, PROTOCOL_ASIDE, PROTOCOL_PREVIEW, PROTOCOL_SNAPSHOT,
                                          PROTOCOL_IMAGE,    PROTOCOL_GONE,  PROTOCOL_FAILED};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        say(pipe, (protocol_message){.type = types[i], .lane = 4711, .steps_done = 9, .steps_total = 3, .data = protocol_text("data")});
    const protocol_tick_lane lane = {.lane = 4711, .steps_done = 9, .steps_total = 3};
    say(pipe, (protocol_message){.type = PROTOCOL_TICK, .rows = 1, .lanes = &lane, .lane_count = 1});
}

static int misbehaving_main(int fd, int asked)
{
    protocol_pipe pipe;
    protocol_pipe_init(&pipe, fd);
    if (asked == MISDEED_EXIT)
        return 7;
    if (asked != MISDEED_NOISE)
        say(&pipe, (protocol_message){.type = PROTOCOL_HELLO,
                                      .state = asked == MISDEED_OLD_VERSION ? PROTOCOL_VERSION - 1 : PROTOCOL_VERSION,
                                      .credit = 8});
    const protocol_bytes tiny = protocol_text("tiny");
    switch (asked) {
    case MISDEED_NOISE:
        say_raw(&pipe, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35);
        break;
    case MISDEED_LONG_FRAME:
        say_raw(&pipe, "\xff\xff\xff\x7f\x02\0\0\0", 8);
        break;
    case MISDEED_DAEMONS_WORD:
        say(&pipe, (protocol_message){.type = PROTOCOL_DRAIN});
        break;
    case MISDEED_STRANGE_MODEL:
        say(&pipe, (protocol_message){.type = PROTOCOL_MODEL, .text = protocol_text("nobody"), .state = PROTOCOL_MODEL_FAILED});
        break;
    case MISDEED_BAD_DESCRIPTION:
        say(&pipe,
            (protocol_message){.type = PROTOCOL_MODEL, .text = tiny, .state = PROTOCOL_MODEL_READY, .data = protocol_text("{\"a\":")});
        break;
    case MISDEED_BAD_TABLE:
        say(&pipe, (protocol_message){.type = PROTOCOL_TABLE, .text = tiny, .rows = 8, .data = protocol_text("no table")});
        break;
    case MISDEED_BAD_STATE:
        say(&pipe, (protocol_message){.type = PROTOCOL_MODEL, .text = tiny, .state = 99});
        break;
    case MISDEED_LYING_TICK:
        say_frame(&pipe, PROTOCOL_TICK, "\x01\0\0\0\0\0\0\0\0\0\0\0\xff\xff\xff\xff", 16);
        break;
    case MISDEED_HALF_A_FRAME:
        say_raw(&pipe, "\x40\0\0\0\x02\0\0\0half", 12);
        break;
    case MISDEED_UNKNOWN_LANES:
        say_unknown_lanes(&pipe);
        return 0;
    default:
        break;
    }
    for (;;)
        pause();
}

/* ---- A wire that spoils one image */

static int daemons_side, workers_side;

static bool read_fully(int fd, unsigned char *to, size_t count)
{
    for (size_t have = 0; have < count;) {
        const ssize_t got = recv(fd, to + have, count - have, 0);
        if (got <= 0)
            return false;
        have += (size_t)got;
    }
    return true;
}

static bool write_fully(int fd, const unsigned char *from, size_t count)
{
    for (size_t sent = 0; sent < count;) {
        const ssize_t done = send(fd, from + sent, count - sent, MSG_NOSIGNAL);
        if (done <= 0)
            return false;
        sent += (size_t)done;
    }
    return true;
}

static void *carry_down(void *unused)
{
    unsigned char some[4096];
    for (;;) {
        const ssize_t got = recv(daemons_side, some, sizeof some, 0);
        if (got <= 0 || !write_fully(workers_side, some, (size_t)got))
            _exit(0);
    }
    return unused;
}

static void *carry_up(void *unused)
{
    static unsigned char frame[1u << 22];
    for (bool spoilt = false;;) {
        if (!read_fully(workers_side, frame, PROTOCOL_HEADER_BYTES))
            _exit(0);
        const size_t count = frame[0] | (size_t)frame[1] << 8 | (size_t)frame[2] << 16 | (size_t)frame[3] << 24;
        if (count > sizeof frame - PROTOCOL_HEADER_BYTES || !read_fully(workers_side, frame + PROTOCOL_HEADER_BYTES, count))
            _exit(0);
        if (frame[4] == PROTOCOL_IMAGE && !spoilt) {
            spoilt = true;
            frame[PROTOCOL_HEADER_BYTES + count - 20] ^= 1; /* of the picture, which comes last */
        }
        if (!write_fully(daemons_side, frame, PROTOCOL_HEADER_BYTES + count))
            _exit(0);
    }
    return unused;
}

/* Puts threads between the daemon's socket and the one that the worker is given. */
static int spoiling_wire(int fd)
{
    int pair[2];
    pthread_t up, down;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        _exit(2);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    fcntl(pair[0], F_SETFL, fcntl(pair[0], F_GETFL) | O_NONBLOCK);
    daemons_side = fd;
    workers_side = pair[1];
    if (pthread_create(&up, NULL, carry_up, NULL) || pthread_create(&down, NULL, carry_down, NULL))
        _exit(2);
    return pair[0];
}

static int faulty_worker_main(int argc, char **argv)
{
    worker_options options;
    const int outcome = worker_prepare(&options, argc - 1, argv + 1);
    if (outcome != DN_OPTIONS_GO_ON)
        return outcome;
    const int asked = asked_misdeed(options.models[0].folder);
    if (asked && asked != MISDEED_DAMAGED_IMAGE)
        return misbehaving_main(options.fd, asked);
    if (asked == MISDEED_DAMAGED_IMAGE)
        options.fd = spoiling_wire(options.fd);
    options.before_admit = die_of_poison;
    options.before_tick = keep_pace;
    snprintf(pace_file, sizeof pace_file, "%s/../slow", options.models[0].folder);
    return worker_run(&options, &error) == DN_OK ? 0 : 1;
}

/* ---- Tests */

static bool metric_reaches(const char *name, double least)
{
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until && metric(name) < least)
        usleep(2000);
    return metric(name) >= least;
}

static bool wait_until_begun(const char *id)
{
    hub_live now = {0};
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until && !now.done) {
        usleep(1000);
        hub_read(live, id, &now);
    }
    return now.done > 0 && now.done < now.total;
}

static void undisturbed(unsigned char digest[32])
{
    static unsigned char kept[32];
    static bool have;
    char id[27];
    if (!have)
        have = begin() && start() && enqueue(id, long_job) && wait_until_ended(id) && images_digest(kept, id, long_job.n);
    CHECK_MSG(have, "%s", error.message);
    if (live)
        finish();
    live = NULL;
    memcpy(digest, kept, 32);
}

/* One batch of 64: the last one in ends the worker, again and again until it is alone. */
static void sixty_three_mates_lose_nothing(void)
{
    CHECK_MSG(begin(), "%s", error.message);
    how.rows_max = MATES + 1;
    static char ids[MATES][27];
    char poison[27], code[24];
    store_job job = {0};
    wanted mate = {.sampler = "ddim", .steps = SLOW_STEPS, .n = 1, .class_index = 2, .guidance = 1};
    for (unsigned i = 0; i < MATES; i++) {
        mate.seed = 10000 + i;
        CHECK(enqueue(ids[i], mate));
    }
    set_pace(true);
    CHECK(start());
    for (unsigned i = 0; i < MATES; i++)
        CHECK_MSG(wait_until_begun(ids[i]), "mate %u is not in the batch", i);
    CHECK(enqueue(poison, (wanted){.sampler = "ddim", .steps = 10, .n = 1, .guidance = 1, .seed = POISON_SEED}));
    CHECK(metric_reaches("denoised_worker_restarts_total", 1));
    set_pace(false);
    for (unsigned i = 0; i < MATES; i++) {
        uint32_t attempt = 0;
        CHECK(wait_until_ended(ids[i]) && state_of(ids[i], &attempt, NULL) == API_STATE_SUCCEEDED);
        CHECK_MSG(attempt == 1, "mate %u is at attempt %u", i, attempt);
    }
    CHECK(wait_until_ended(poison) && state_of(poison, NULL, code) == API_STATE_FAILED);
    CHECK_MSG(strcmp(code, "crashed") == 0, "%s", code);
    CHECK(store_get(st, NULL, poison, &job) == STORE_OK && job.crashes == 3 && job.error_detail && strstr(job.error_detail, "signal 6"));
    printf("63 mates: %.0f workers lost to one job, %.0f steps made again; it failed with: %s\n", metric("denoised_worker_restarts_total"),
           metric("denoised_steps_redone_total"), job.error_detail);
    store_job_done(&job);
    finish();
}

/* Nonsense ends the worker that says it and costs no job anything; once a worker makes sense again, everything is made. */
static void nonsense_costs_no_job(void)
{
    unsigned char expected[32], got[32];
    undisturbed(expected);
    for (int kind = MISDEED_NOISE; kind < MISDEED_COUNT; kind++) {
        char id[27];
        uint32_t attempt = 0;
        CHECK_MSG(begin(), "%s", error.message);
        how.freeze_seconds = kind == MISDEED_HALF_A_FRAME ? 1 : DISPATCHER_FREEZE_SECONDS;
        misbehave(kind);
        CHECK(start() && enqueue(id, long_job));
        CHECK_MSG(metric_reaches("denoised_worker_restarts_total", 1), "misdeed %d is put up with", kind);
        CHECK(state_of(id, NULL, NULL) == API_STATE_QUEUED);
        misbehave(0);
        atomic_store(&dispatched->freeze_seconds, DISPATCHER_FREEZE_SECONDS); /* an honest one may be slow on a busy machine */
        CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED);
        CHECK_MSG(attempt == 1, "misdeed %d cost an attempt", kind);
        CHECK(images_digest(got, id, long_job.n) && memcmp(got, expected, 32) == 0);
        finish();
    }
    live = NULL;
}

static void damaged_image_is_made_again(void)
{
    unsigned char expected[32], got[32];
    undisturbed(expected);
    char id[27];
    CHECK_MSG(begin(), "%s", error.message);
    misbehave(MISDEED_DAMAGED_IMAGE);
    CHECK(start() && enqueue(id, long_job));
    CHECK(metric_reaches("denoised_worker_restarts_total", 1));
    misbehave(0);
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK_MSG(images_digest(got, id, long_job.n) && memcmp(got, expected, 32) == 0, "another picture than an undisturbed one");
    finish();
    live = NULL;
}

/* It is tried less and less often; whoever asks is told why; and the queue waits. */
static void worker_that_ends_at_once(void)
{
    char id[27], reason[256];
    uint32_t attempt = 0;
    CHECK_MSG(begin(), "%s", error.message);
    misbehave(MISDEED_EXIT);
    CHECK(start() && enqueue(id, long_job) && metric_reaches("denoised_worker_restarts_total", 2));
    CHECK(!dispatcher_worker_ready(dispatched, reason, sizeof reason));
    CHECK_MSG(strstr(reason, "tiny") && strstr(reason, "status 7"), "%s", reason);
    const double before = metric("denoised_worker_restarts_total"), began = dn_now_seconds();
    usleep(2000000);
    const double starts = metric("denoised_worker_restarts_total") - before, seconds = dn_now_seconds() - began;
    CHECK_MSG(starts <= 2 * seconds, "%.0f starts in %.1f s", starts, seconds);
    CHECK(state_of(id, NULL, NULL) == API_STATE_QUEUED);
    misbehave(0);
    CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 1);
    CHECK(dispatcher_worker_ready(dispatched, reason, sizeof reason));
    finish();
    live = NULL;
}

/* Stops the worker and then the daemon, and lets the daemon go on first: what a paused container may look like from inside. */
static int pauser_main(char **argv)
{
    const pid_t daemon = atoi(argv[2]), worker = atoi(argv[3]);
    kill(worker, SIGSTOP);
    usleep(300000); /* the daemon hears what it had said before */
    kill(daemon, SIGSTOP);
    usleep(PAUSE_MICROSECONDS);
    kill(daemon, SIGCONT);
    usleep(300000);
    kill(worker, SIGCONT);
    return 0;
}

/* Whether the job makes another step, or has ended. */
static bool goes_on(const char *id)
{
    hub_live first, now;
    hub_read(live, id, &first);
    const double until = dn_now_seconds() + PATIENCE_SECONDS;
    while (dn_now_seconds() < until && !api_state_ended(state_of(id, NULL, NULL))) {
        hub_read(live, id, &now);
        if (now.done != first.done)
            return true;
        usleep(2000);
    }
    return api_state_ended(state_of(id, NULL, NULL));
}

static void pause_of_the_whole_is_no_freeze(void)
{
    CHECK_MSG(begin(), "%s", error.message);
    char id[27], daemon_text[16], worker_text[16];
    uint32_t attempt = 0;
    pid_t pauser = 0;
    set_pace(true);
    CHECK(start() && enqueue(id, long_job) && wait_until_under_way(id));
    const pid_t worker = worker_of(getpid());
    snprintf(daemon_text, sizeof daemon_text, "%d", (int)getpid());
    snprintf(worker_text, sizeof worker_text, "%d", (int)worker);
    char *const arguments[] = {"/proc/self/exe", "pauser", daemon_text, worker_text, NULL};
    atomic_store(&dispatched->freeze_seconds, 2);
    CHECK(worker > 0 && posix_spawn(&pauser, "/proc/self/exe", NULL, NULL, arguments, environ) == 0);
    CHECK(waitpid(pauser, NULL, 0) == pauser);
    CHECK(goes_on(id));
    atomic_store(&dispatched->freeze_seconds, DISPATCHER_FREEZE_SECONDS); /* a worker that has spoken may be slow after that */
    set_pace(false);
    CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 1);
    CHECK_MSG(metric("denoised_worker_restarts_total") == 0, "a worker that was paused with its daemon was taken for frozen");
    finish();
    live = NULL;
}

/* Nine ends of the daemon in the middle of a job cost it nothing; the tenth is the last. */
static void ten_boots_are_enough(void)
{
    char id[27], code[24];
    uint32_t attempt = 0;
    CHECK_MSG(begin() && start(), "%s", error.message);
    set_pace(true);
    CHECK(enqueue(id, long_job));
    for (int boot = 1; boot <= 10; boot++) {
        const double until = dn_now_seconds() + PATIENCE_SECONDS;
        while (state_of(id, &attempt, NULL) != API_STATE_RUNNING && dn_now_seconds() < until)
            usleep(2000);
        CHECK_MSG(state_of(id, &attempt, NULL) == API_STATE_RUNNING && attempt == 1, "before end %d, attempt %u", boot, attempt);
        CHECK_MSG(restart(), "%s", error.message);
    }
    CHECK(state_of(id, NULL, code) == API_STATE_FAILED);
    CHECK_MSG(strcmp(code, "crashed") == 0, "%s", code);
    finish();
}

/* One that a device holds in the kernel is not ended by any signal: here, one that SIGKILL does not reach. */
static _Atomic pid_t unreached;

int kill(pid_t pid, int number)
{
    return number == SIGKILL && pid == atomic_load(&unreached) ? 0 : (int)syscall(SYS_kill, pid, number);
}

static void process_that_does_not_end_holds_nobody_up(void)
{
    char id[27], late[27], code[24];
    uint32_t attempt = 0;
    dispatcher_worker shown = {.pid = 1};
    CHECK_MSG(begin() && start(), "%s", error.message);
    set_pace(true);
    CHECK(enqueue(id, long_job) && wait_until_under_way(id));
    const pid_t worker = worker_of(getpid());
    atomic_store(&unreached, worker);
    CHECK(worker > 0 && kill(worker, SIGSTOP) == 0);
    atomic_store(&dispatched->freeze_seconds, 1);
    for (const double until = dn_now_seconds() + PATIENCE_SECONDS; shown.pid && dn_now_seconds() < until; usleep(2000))
        dispatcher_get_worker(dispatched, 0, &shown);
    atomic_store(&dispatched->freeze_seconds, DISPATCHER_FREEZE_SECONDS);
    CHECK(enqueue(late, (wanted){.sampler = "ddim", .steps = 5, .n = 1, .guidance = 1, .deadline_ms = 2000}));
    CHECK(wait_until_ended(late) && state_of(late, NULL, code) == API_STATE_FAILED);
    CHECK_MSG(strcmp(code, "deadline") == 0, "%s", code);
    CHECK_MSG(metric("denoised_worker_restarts_total") == 0, "two processes at once");
    atomic_store(&unreached, 0);
    CHECK(kill(worker, SIGKILL) == 0);
    set_pace(false);
    CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 2);
    CHECK(metric("denoised_worker_restarts_total") == 1);
    finish();
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return faulty_worker_main(argc, argv);
    if (argc > 3 && strcmp(argv[1], "pauser") == 0)
        return pauser_main(argv);
    RUN(sixty_three_mates_lose_nothing);
    RUN(nonsense_costs_no_job);
    RUN(damaged_image_is_made_again);
    RUN(worker_that_ends_at_once);
    RUN(pause_of_the_whole_is_no_freeze);
    RUN(ten_boots_are_enough);
    RUN(process_that_does_not_end_holds_nobody_up);
    return test_end();
}
