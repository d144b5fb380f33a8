/* What must hold when things go wrong: a worker killed, frozen or poisoned, a daemon drained or killed, a snapshot spoilt. The same
 * requests give the same bytes as if nothing had happened. */
#include "tests/server/dispatcher_harness.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>

#include "server/dispatcher_internal.h"

static const wanted slow = {.sampler = "ddpm", .steps = SLOW_STEPS, .n = 8, .class_index = 3, .guidance = 2, .seed = 5};

/* What the slow job's images are when nothing disturbs it; made once. */
static bool undisturbed(unsigned char digest[32])
{
    static unsigned char kept[32];
    static bool have;
    if (!have) {
        char id[27];
        have = begin() && start() && enqueue(id, slow) && wait_until_ended(id) && images_digest(kept, id, slow.n);
        finish();
    }
    memcpy(digest, kept, 32);
    return have;
}

static void killed_worker_costs_no_job(void)
{
    unsigned char expected[32], got[32];
    CHECK(undisturbed(expected));
    CHECK_MSG(begin() && start(), "%s", error.message);
    char id[27], names[256];
    uint32_t attempt = 0;
    set_pace(true);
    CHECK(enqueue(id, slow) && wait_until_under_way(id));
    const pid_t worker = worker_of(getpid());
    const int64_t killed_ms = dn_wall_ms();
    CHECK(worker > 0 && kill(worker, SIGKILL) == 0);
    set_pace(false);
    const double began = dn_now_seconds();
    while (worker_of(getpid()) <= 0 && dn_now_seconds() - began < 5)
        usleep(2000);
    CHECK_MSG(dn_now_seconds() - began < 1, "%.2f s without a worker", dn_now_seconds() - began);
    CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 2);
    CHECK_MSG(dn_wall_ms() - killed_ms >= 1000, "it was tried again at once");
    CHECK(images_digest(got, id, slow.n));
    CHECK_MSG(memcmp(got, expected, 32) == 0, "the images differ from those of an undisturbed run");
    event_names(names, sizeof names, id);
    CHECK_MSG(strncmp(names, "queued started requeued started image", 37) == 0, "%s", names);
    CHECK(metric("denoised_worker_restarts_total") == 1);
    finish();
}

/* Several jobs under way: nobody can be blamed, so nobody pays an attempt. */
static void crowd_is_not_blamed(void)
{
    CHECK_MSG(begin(), "%s", error.message);
    how.rows_max = 32; /* whatever this machine would choose: all four are under way together */
    char ids[4][27];
    wanted w = slow;
    w.n = 4;
    for (int i = 0; i < 4; i++)
        CHECK(enqueue(ids[i], w));
    set_pace(true);
    CHECK(start() && wait_until_under_way(ids[3]));
    CHECK(kill(worker_of(getpid()), SIGKILL) == 0);
    set_pace(false);
    for (int i = 0; i < 4; i++) {
        uint32_t attempt = 0;
        CHECK(wait_until_ended(ids[i]) && state_of(ids[i], &attempt, NULL) == API_STATE_SUCCEEDED);
        CHECK_MSG(attempt == 1, "job %d paid for a crash that nobody can be blamed for", i);
    }
    finish();
}

/* One of two was being canceled: it may have been that one, which nobody will run again. */
static void company_that_was_canceled_clears_the_other(void)
{
    CHECK_MSG(begin(), "%s", error.message);
    how.rows_max = 32;
    char ids[2][27], last[27];
    uint32_t attempt = 0;
    wanted w = slow;
    w.n = 2;
    CHECK(enqueue(ids[0], w) && enqueue(ids[1], w));
    set_pace(true);
    CHECK(start() && wait_until_under_way(ids[0]) && wait_until_under_way(ids[1]));
    const pid_t worker = worker_of(getpid());
    CHECK(worker > 0 && kill(worker, SIGSTOP) == 0);
    store_request *r = store_request_create(STORE_CANCEL, NULL, NULL);
    snprintf(r->id, sizeof r->id, "%s", ids[1]);
    CHECK(store_call(st, r) == STORE_OK);
    store_request_free(r);
    dispatcher_cancel(dispatched, ids[1]);
    /* What the dispatcher is told is taken in order: with this one ended, it has heard of the cancel. */
    CHECK(enqueue(last, (wanted){.sampler = "ddim", .steps = 10, .n = 1, .guidance = 1, .unreadable = true}) && wait_until_ended(last));
    CHECK(kill(worker, SIGKILL) == 0);
    set_pace(false);
    CHECK(wait_until_ended(ids[1]) && state_of(ids[1], NULL, NULL) == API_STATE_CANCELED);
    CHECK(wait_until_ended(ids[0]) && state_of(ids[0], &attempt, NULL) == API_STATE_SUCCEEDED);
    CHECK_MSG(attempt == 1, "it paid for a crash that need not have been its own");
    finish();
}

static void poison_is_found_and_ends(void)
{
    CHECK_MSG(begin(), "%s", error.message);
    char poison[27], ids[3][27], code[24];
    uint32_t attempt = 0;
    wanted w = slow;
    w.n = 4;
    CHECK(enqueue(ids[0], w));
    CHECK(enqueue(poison, (wanted){.sampler = "ddim", .steps = 10, .n = 2, .guidance = 1, .seed = POISON_SEED - 1}));
    CHECK(enqueue(ids[1], w) && enqueue(ids[2], w));
    CHECK(start());
    for (int i = 0; i < 3; i++) {
        CHECK(wait_until_ended(ids[i]) && state_of(ids[i], &attempt, NULL) == API_STATE_SUCCEEDED);
        CHECK_MSG(attempt == 1, "innocent job %d is at attempt %u", i, attempt);
    }
    CHECK(wait_until_ended(poison) && state_of(poison, NULL, code) == API_STATE_FAILED);
    CHECK_MSG(strcmp(code, "crashed") == 0, "%s", code);
    const double restarts = metric("denoised_worker_restarts_total");
    CHECK_MSG(restarts >= 3 && restarts <= 8, "%.0f workers were lost", restarts);
    finish();
}

static void frozen_worker_is_replaced(void)
{
    unsigned char expected[32], got[32];
    CHECK(undisturbed(expected));
    CHECK_MSG(begin() && start(), "%s", error.message);
    char id[27];
    set_pace(true);
    CHECK(enqueue(id, slow) && wait_until_under_way(id));
    const pid_t worker = worker_of(getpid());
    CHECK(worker > 0 && kill(worker, SIGSTOP) == 0);
    atomic_store(&dispatched->freeze_seconds, 1);
    set_pace(false);
    for (double began = dn_now_seconds(); kill(worker, 0) == 0 && dn_now_seconds() - began < PATIENCE_SECONDS;)
        usleep(2000);
    atomic_store(&dispatched->freeze_seconds,
                 DISPATCHER_FREEZE_SECONDS); /* its successor may be slow on a busy machine, and is not frozen */
    char code[24] = "";
    CHECK_MSG(wait_until_ended(id) && state_of(id, NULL, code) == API_STATE_SUCCEEDED, "%s", code);
    CHECK(worker_of(getpid()) != worker);
    CHECK(images_digest(got, id, slow.n) && memcmp(got, expected, 32) == 0);
    finish();
}

/* TERM and a new daemon: the job goes back with its snapshots, spends no attempt, and goes on where it stood. */
static void drained_job_resumes(void)
{
    unsigned char expected[32], got[32];
    CHECK(undisturbed(expected));
    CHECK_MSG(begin() && start(), "%s", error.message);
    char id[27], names[256];
    uint32_t attempt = 0;
    set_pace(true);
    CHECK(enqueue(id, slow) && wait_until_under_way(id));
    dispatcher_drain(dispatched, 600);
    CHECK(!dispatcher_worker_ready(dispatched, NULL, 0));
    dispatcher_hurry(dispatched);
    const double began = dn_now_seconds();
    while (!dispatcher_drained(dispatched) && dn_now_seconds() - began < PATIENCE_SECONDS)
        usleep(5000);
    CHECK(dispatcher_drained(dispatched) && state_of(id, NULL, NULL) == API_STATE_QUEUED);
    set_pace(false);
    CHECK_MSG(restart(), "%s", error.message);
    CHECK(wait_until_ended(id) && state_of(id, &attempt, NULL) == API_STATE_SUCCEEDED && attempt == 1);
    CHECK(images_digest(got, id, slow.n));
    CHECK_MSG(memcmp(got, expected, 32) == 0, "the images differ from those of an undisturbed run");
    event_names(names, sizeof names, id);
    CHECK_MSG(strncmp(names, "queued started requeued started image", 37) == 0, "%s", names);
    CHECK(metric("denoised_lanes_resumed_total") > 0);
    store_event *events = NULL;
    size_t count = 0;
    CHECK(store_events(st, id, 3, &events, &count) == STORE_OK && count > 0);
    CHECK_MSG(strstr(events[0].data, "\"resumed_done\":") && !strstr(events[0].data, "\"resumed_done\":0}"), "%s", events[0].data);
    store_events_free(events, count);
    const int left = openat(AT_FDCWD, data_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char name[SNAPSHOT_NAME_BYTES + 16], snap[SNAPSHOT_NAME_BYTES];
    snapshot_name(snap, id, 0);
    snprintf(name, sizeof name, "snapshots/%s", snap);
    stop();
    CHECK_MSG(faccessat(left, name, F_OK, 0) != 0, "the snapshot of a finished job is still there");
    close(left);
    finish();
}

/* A drain with time enough lets everything end, and gives back what had not begun. */
static void drain_lets_jobs_end(void)
{
    CHECK_MSG(begin() && start(), "%s", error.message);
    char id[27], late[27];
    wanted w = slow;
    w.n = 4;
    set_pace(true);
    CHECK(enqueue(id, w) && wait_until_under_way(id));
    dispatcher_drain(dispatched, PATIENCE_SECONDS);
    usleep(100000);
    CHECK(enqueue(late, w));
    set_pace(false);
    const double began = dn_now_seconds();
    while (!dispatcher_drained(dispatched) && dn_now_seconds() - began < PATIENCE_SECONDS)
        usleep(5000);
    CHECK(state_of(id, NULL, NULL) == API_STATE_SUCCEEDED && state_of(late, NULL, NULL) == API_STATE_QUEUED);
    finish();
}

/* A daemon of its own process, for the next test: serves until it is killed. */
static int daemon_main(char **argv)
{
    snprintf(root, sizeof root, "%s", argv[2]);
    snprintf(data_folder, sizeof data_folder, "%s/data", root);
    snprintf(model_folder, sizeof model_folder, "%s/model", root);
    how = (dispatcher_options){.base_path = "", .threads = 1, .snapshot_every_seconds = 0.05};
    if (hub_create(&live, &error) != DN_OK || models_create(&registry, &error) != DN_OK || metrics_create(&counted, &error) != DN_OK ||
        models_add(registry, "tiny", model_folder, &error) != DN_OK || open_store() != DN_OK || !start())
        return 1;
    for (;;)
        pause();
}

static bool gone(pid_t pid)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return true;
    const bool zombie = fgets(line, sizeof line, f) && strrchr(line, ')') && strrchr(line, ')')[2] == 'Z';
    fclose(f);
    return zombie;
}

/* The daemon is killed while its worker is stopped: the next one starts at once, and the orphan dies. */
static void orphan_holds_nothing(void)
{
    unsigned char expected[32], got[32];
    CHECK(undisturbed(expected));
    CHECK_MSG(begin(), "%s", error.message);
    char id[27];
    CHECK(enqueue(id, slow));
    store_close(st);
    st = NULL;
    char *const arguments[] = {"/proc/self/exe", "daemon", root, NULL};
    pid_t daemon = 0, worker = 0;
    set_pace(true);
    CHECK(posix_spawn(&daemon, "/proc/self/exe", NULL, NULL, arguments, environ) == 0);
    const double began = dn_now_seconds();
    while ((worker = worker_of(daemon)) <= 0 && dn_now_seconds() - began < PATIENCE_SECONDS)
        usleep(2000);
    usleep(400000);
    CHECK(worker > 0 && kill(worker, SIGSTOP) == 0 && kill(daemon, SIGKILL) == 0 && waitpid(daemon, NULL, 0) == daemon);
    set_pace(false);
    CHECK_MSG(open_store() == DN_OK && start(), "%s", error.message);
    const double killed = dn_now_seconds();
    while (!gone(worker) && dn_now_seconds() - killed < 5)
        usleep(2000);
    CHECK_MSG(gone(worker), "the orphan lives on");
    CHECK(wait_until_ended(id) && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED);
    CHECK(images_digest(got, id, slow.n) && memcmp(got, expected, 32) == 0);
    finish();
}

static void spoilt_snapshots_are_not_read(void)
{
    char folder[] = "/tmp/dn-snapshots-XXXXXX", name[SNAPSHOT_NAME_BYTES];
    static const char id[] = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
    CHECK(mkdtemp(folder));
    const int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const protocol_bytes payload = protocol_text("registers and scalars");
    size_t count = 0, got = 0;
    uint32_t steps = 0;
    unsigned char *file = snapshot_wrap(id, 3, 17, payload, &count);
    snapshot_name(name, id, 3);
    for (size_t spoilt = 0; spoilt <= count + 1; spoilt++) {
        const int out = openat(fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (spoilt < count)
            file[spoilt] ^= 4;
        CHECK(write(out, file, spoilt == count + 1 ? count - 1 : count) > 0);
        close(out);
        if (spoilt < count)
            file[spoilt] ^= 4;
        unsigned char *back = snapshot_read(fd, id, 3, &steps, &got);
        const bool whole = back && got == payload.count && memcmp(back, payload.bytes, got) == 0 && steps == 17;
        CHECK_MSG(whole == (spoilt == count), "byte %zu spoilt: %s", spoilt, back ? "read all the same" : "not read");
        free(back);
    }
    CHECK(!snapshot_read(fd, id, 4, &steps, &got));
    free(file);
    unlinkat(fd, name, 0);
    close(fd);
    rmdir(folder);
}

/* Standard error goes to a file in the root from here on; the old one is returned. */
static int catch_errors(char *path, size_t path_bytes)
{
    snprintf(path, path_bytes, "%s/errors", root);
    const int kept = dup(STDERR_FILENO), caught = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    dup2(caught, STDERR_FILENO);
    close(caught);
    return kept;
}

static void fill_disk(void)
{
    char path[128];
    static const char block[4096] = {1};
    snprintf(path, sizeof path, "%s/filler", data_folder);
    const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, block, sizeof block) > 0) {
    }
    close(fd);
}

static void on_a_full_disk(void)
{
    char id[27], path[128];
    unsigned char digest[32];
    CHECK_MSG(open_store() == DN_OK, "%s", error.message);
    how.snapshot_every_seconds = 1000; /* their files would make room for the images */
    CHECK(start());
    wanted two = slow;
    two.n = 2;
    set_pace(true);
    CHECK(enqueue(id, two) && wait_until_under_way(id));
    const int kept = catch_errors(path, sizeof path);
    fill_disk();
    set_pace(false);
    const bool ended = wait_until_ended(id);
    dup2(kept, STDERR_FILENO);
    close(kept);
    CHECK(ended && state_of(id, NULL, NULL) == API_STATE_SUCCEEDED && images_digest(digest, id, two.n));
    unsigned char *said = NULL;
    size_t count = 0;
    CHECK(dn_file_read(&said, &count, path, 1u << 20, NULL) == DN_OK);
    const bool put_off = memmem(said, count, "cannot write an image file", 26) != NULL;
    free(said);
    CHECK_MSG(!put_off, "an image had to wait although there was ballast to give back");
}

static void full_disk_costs_no_image(void)
{
    CHECK_MSG(begin(), "%s", error.message);
    store_close(st);
    st = NULL;
    const bool mounted = mount("tmpfs", data_folder, "tmpfs", 0, "size=32m") == 0;
    if (mounted)
        on_a_full_disk();
    stop();
    store_close(st);
    st = NULL;
    umount2(data_folder, MNT_DETACH);
    finish();
    if (!mounted)
        SKIP("mounting a small tmpfs needs the superuser");
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "worker") == 0)
        return worker_main(argc, argv);
    if (argc > 2 && strcmp(argv[1], "daemon") == 0)
        return daemon_main(argv);
    RUN(spoilt_snapshots_are_not_read);
    RUN(killed_worker_costs_no_job);
    RUN(crowd_is_not_blamed);
    RUN(company_that_was_canceled_clears_the_other);
    RUN(poison_is_found_and_ends);
    RUN(frozen_worker_is_replaced);
    RUN(drained_job_resumes);
    RUN(drain_lets_jobs_end);
    RUN(orphan_holds_nothing);
    RUN(full_disk_costs_no_image);
    return test_end();
}
