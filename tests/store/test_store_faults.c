/* Faults: kill -9, power cuts, errors of write and sync, a full disk. What was acknowledged is there afterwards; what could not be
 * done says so; what is not known is called unknown. */
#include <errno.h>
#include <sys/mount.h>

#include "tests/store/fault_vfs.h"
#include "tests/store/store_harness.h"

enum { ROUNDS = 30, THREADS = 4, ACKED_MAX = 200000 };

/* ---- kill -9 */
typedef struct ack { /* written to the pipe in one piece once the store has said OK */
    char id[26];
    char what; /* 'e' enqueued, 'i' its image is there and it has ended */
} ack;

static int ack_pipe;
static atomic_uint child_ids;

static void child_id(char out[27], unsigned round)
{
    snprintf(out, 27, "%026u", 0u);
    unsigned value = atomic_fetch_add(&child_ids, 1);
    for (int i = 25; i > 15; i--, value /= 6) {
        out[i] = (char)('2' + value % 6);
    }
    for (int i = 15; i >= 0; i--, round /= 6) {
        out[i] = (char)('2' + round % 6);
    }
}

static void *child_works(void *round)
{
    for (;;) {
        store_request *r = enqueue_request((spec){0});
        ack a = {.what = 'e'};
        child_id(r->jobs[0].id, *(unsigned *)round);
        memcpy(a.id, r->jobs[0].id, 26);
        if (store_call(st, r) != STORE_OK || write(ack_pipe, &a, sizeof a) != sizeof a) {
            _exit(1);
        }
        store_request_free(r);
        claim c = claim_one();
        if (c.token && put_image(c.id, c.token, 0).ended) {
            a.what = 'i';
            memcpy(a.id, c.id, 26);
            if (write(ack_pipe, &a, sizeof a) != sizeof a) {
                _exit(1);
            }
        }
    }
    return NULL;
}

static pid_t start_child(unsigned *round, int *from_child)
{
    int ends[2];
    if (pipe(ends) != 0) {
        return -1;
    }
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        ack_pipe = ends[1];
        if (open_store() != DN_OK) {
            _exit(1);
        }
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++) {
            pthread_create(&threads[i], NULL, child_works, round);
        }
        pthread_join(threads[0], NULL);
        _exit(0);
    }
    close(ends[1]);
    *from_child = ends[0];
    return child;
}

/* One round: a child works, is killed, and its acknowledgements are compared with what a restart finds. */
static bool kill_round(unsigned round, unsigned *acked, unsigned *lost)
{
    static ack acks[ACKED_MAX];
    int pipe_end = -1;
    unsigned count = 0;
    pid_t child = start_child(&round, &pipe_end);
    if (child < 0 || read(pipe_end, &acks[count++], sizeof *acks) != sizeof *acks) {
        return false;
    }
    usleep(2000 + round * 1700 % 40000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    while (count < ACKED_MAX && read(pipe_end, &acks[count], sizeof *acks) == sizeof *acks) {
        count++;
    }
    close(pipe_end);
    if (open_store() != DN_OK) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        char id[27] = "";
        memcpy(id, acks[i].id, 26);
        store_job job = job_of(id);
        bool there = acks[i].what == 'e' ? (int)job.state >= 0 : job.state == API_STATE_SUCCEEDED && job.images_done == 1;
        *lost += !there;
    }
    close_store();
    *acked += count;
    return true;
}

static void kill_9_loses_nothing_acknowledged(void)
{
    new_folder();
    unsigned acked = 0, lost = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        CHECK_MSG(kill_round(round, &acked, &lost), "round %u: %s", round, error.message);
        CHECK_MSG(lost == 0, "round %u: %u of %u acknowledgements lost", round, lost, acked);
    }
    CHECK(acked > ROUNDS);
    CHECK(ask_database("SELECT count(*) FROM job WHERE state=2 AND images_done!=n") == 0);
    CHECK(ask_database("SELECT (SELECT sum(jobs) FROM total)-(SELECT count(*) FROM job)") == 0);
    CHECK(ask_database("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check!='ok'") == 0);
    printf("# kill -9: %d rounds, %u acknowledged, %u lost\n", ROUNDS, acked, lost);
}

/* ---- Power cut */
static atomic_bool working;
static _Atomic unsigned acked_count;
static char acked_ids[ACKED_MAX][27];
static pthread_mutex_t acked_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *enqueue_on(void *unused)
{
    (void)unused;
    while (atomic_load(&working)) {
        store_request *r = enqueue_request((spec){0});
        if (store_call(st, r) == STORE_OK) {
            pthread_mutex_lock(&acked_mutex);
            if (acked_count < ACKED_MAX) {
                memcpy(acked_ids[acked_count], r->ids[0], 27);
                atomic_fetch_add(&acked_count, 1);
            }
            pthread_mutex_unlock(&acked_mutex);
        }
        store_request_free(r);
    }
    return NULL;
}

/* How many of the acknowledged jobs a power cut in the middle of work loses; -1: something else went wrong. */
static int power_cut(bool lying, unsigned *acked)
{
    char old[64];
    fault.keep_durable = true;
    fault.lying = false;
    if (!fresh()) {
        return -1;
    }
    fault.lying = lying;
    acked_count = 0;
    atomic_store(&working, true);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, enqueue_on, NULL);
    }
    usleep(40000);
    memcpy(old, folder, sizeof old);
    *acked = acked_count; /* acknowledged before the cut */
    bool fine = make_test_folder() && fault_power_cut(old, folder);
    atomic_store(&working, false);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    close_store();
    nftw(old, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    fault.keep_durable = false;
    if (!fine || open_store() != DN_OK) {
        return -1;
    }
    int lost = 0;
    for (unsigned i = 0; i < *acked; i++) {
        lost += (int)job_of(acked_ids[i]).state == -1;
    }
    return lost;
}

static void a_power_cut_loses_nothing_acknowledged(void)
{
    unsigned acked = 0, all = 0;
    for (int round = 0; round < 15; round++) {
        int lost = power_cut(false, &acked);
        CHECK_MSG(lost == 0, "round %d: %d of %u lost (%s)", round, lost, acked, error.message);
        all += acked;
    }
    CHECK(all > 0);
    printf("# power cut: 15 rounds, %u acknowledged, 0 lost\n", all);
}

static void the_power_cut_test_can_fail(void)
{
    unsigned acked = 0;
    int lost = power_cut(true, &acked);
    CHECK_MSG(lost > 0, "a disk that lies about syncing lost %d of %u", lost, acked);
}

/* A daemon that ends between the write of a commit and its sync, as one whose sync fails does: the next one finds the job. */
static void end_before_the_sync(void)
{
    const pid_t child = fork();
    if (child == 0) {
        char first[27];
        bool fine = open_store() == DN_OK && enqueue(first, (spec){0}) == STORE_OK;
        fault_arm(FAULT_SYNC_ERROR, 1, true);
        store_request *r = fine ? enqueue_request((spec){.key = "k"}) : NULL;
        _exit(r && store_call(st, r) == STORE_UNKNOWN ? 0 : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
}

static void what_a_start_tells_of_survives_a_power_cut(void)
{
#ifdef __SANITIZE_THREAD__
    SKIP("ThreadSanitizer lets no child of a process that had threads start its own");
#endif
    char id[27], again[27], old[64];
    fault.keep_durable = true;
    fault.lying = false;
    CHECK(fresh());
    close_store();
    end_before_the_sync();
    CHECK_OK(open_store(), error);
    CHECK(enqueue(id, (spec){.key = "k"}) == STORE_REPLAY);
    memcpy(old, folder, sizeof old);
    CHECK(make_test_folder() && fault_power_cut(old, folder));
    close_store();
    nftw(old, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    fault.keep_durable = false;
    CHECK_OK(open_store(), error);
    CHECK_MSG(enqueue(again, (spec){.key = "k"}) == STORE_REPLAY && strcmp(id, again) == 0, "the job that was told of is lost");
}

/* ---- Errors of the disk */
static void an_error_of_sync_is_unknown_and_stops_the_store(void)
{
    CHECK(fresh());
    char id[27], again[27];
    CHECK(enqueue(id, (spec){0}) == STORE_OK);
    fault_arm(FAULT_SYNC_ERROR, 1, true);
    store_request *r = enqueue_request((spec){.key = "k"});
    store_result result = store_call(st, r);
    bool told = r->detail[0] != 0;
    store_request_free(r);
    fault_arm(FAULT_NONE, 0, false);
    CHECK(result == STORE_UNKNOWN && told && store_stopped(st));
    CHECK(enqueue(again, (spec){0}) == STORE_UNKNOWN);
    store_job job;
    CHECK(store_get(st, NULL, id, &job) == STORE_OK); /* reading goes on */
    store_job_done(&job);
    CHECK_OK(open_store(), error);
    result = enqueue(again, (spec){.key = "k"}); /* the key tells what happened */
    CHECK(result == STORE_OK || result == STORE_REPLAY);
    CHECK(job_of(id).state == API_STATE_QUEUED && job_of(again).state == API_STATE_QUEUED);
}

/* One error at the Nth write. Enqueues before, during and after; what was acknowledged must be there after a restart. */
static bool one_write_error(int kind, long at, bool sticky, bool *reached, unsigned *refused)
{
    char ids[12][27];
    store_result results[12];
    if (!fresh()) {
        return false;
    }
    fault_arm(kind, at, sticky);
    for (int i = 0; i < 12; i++) {
        results[i] = enqueue(ids[i], (spec){.jobs = 1 + (uint32_t)i % 3});
        bool expected = results[i] == STORE_OK || (kind == FAULT_WRITE_FULL ? results[i] == STORE_SPACE : results[i] == STORE_UNKNOWN);
        if (!expected) {
            snprintf(error.message, sizeof error.message, "result %d at write %ld", (int)results[i], at);
            return false;
        }
        *refused += results[i] != STORE_OK;
    }
    *reached = fault.count >= at;
    fault_arm(FAULT_NONE, 0, false);
    char id[27];
    if (kind == FAULT_WRITE_FULL && enqueue(id, (spec){0}) != STORE_OK) {
        snprintf(error.message, sizeof error.message, "the store did not recover from a full disk at write %ld", at);
        return false;
    }
    bool there = open_store() == DN_OK;
    for (int i = 0; there && i < 12; i++) {
        there = results[i] != STORE_OK || (int)job_of(ids[i]).state >= 0;
    }
    return there;
}

static void sweep_writes(int kind)
{
    unsigned refused = 0;
    for (int sticky = 0; sticky < 2; sticky++) {
        bool reached = true;
        for (long at = 1; at < 400 && reached; at += at < 20 ? 1 : 7) {
            CHECK_MSG(one_write_error(kind, at, sticky, &reached, &refused), "%s", error.message);
        }
        CHECK(!reached); /* the sweep went past the last write */
    }
    CHECK(refused > 0);
}

static void a_full_disk_at_any_write_refuses_cleanly(void)
{
    sweep_writes(FAULT_WRITE_FULL);
}

static void an_error_at_any_write_loses_nothing(void)
{
    sweep_writes(FAULT_WRITE_ERROR);
}

/* ---- A small disk */
static bool fill_disk(void)
{
    char path[128];
    static const char block[1 << 16];
    snprintf(path, sizeof path, "%s/filler", folder);
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ssize_t written = 1;
    while (fd >= 0 && written > 0) {
        written = write(fd, block, sizeof block);
    }
    bool full = written < 0 && errno == ENOSPC;
    while (full && (written = write(fd, block, 512)) > 0) {
    }
    close(fd);
    return full;
}

static void on_a_small_disk(uint64_t space_min)
{
    char id[27];
    options.space_min_bytes = space_min;
    CHECK_OK(open_store(), error);
    CHECK(file_exists("", "ballast"));
    CHECK(enqueue(id, (spec){.jobs = 50}) == STORE_OK);
    claim c = claim_one();
    CHECK(fill_disk());
    usleep(250000); /* the gate looks a few times a second */
    store_result result = STORE_OK;
    for (int i = 0; i < 40 && result == STORE_OK; i++) {
        result = enqueue(id, (spec){.jobs = 50});
    }
    CHECK(result == STORE_SPACE && !store_stopped(st));
    CHECK(store_space_low(st) == (space_min > 0));
    CHECK(job_of(c.id).state == API_STATE_RUNNING); /* reading goes on */
    for (int i = 0; i < 40; i++) { /* running jobs can end */
        CHECK_MSG(put_image(c.id, c.token, 0).ended, "job %d", i);
        c = claim_one();
        CHECK(c.token != 0);
    }
    char filler[128];
    snprintf(filler, sizeof filler, "%s/filler", folder);
    CHECK(unlink(filler) == 0);
    usleep(250000);
    CHECK(enqueue(id, (spec){0}) == STORE_OK); /* no restart was needed */
    for (int i = 0; i < 200 && !file_exists("", "ballast"); i++) {
        usleep(10000); /* the writer restores it after it has answered */
    }
    CHECK(file_exists("", "ballast"));
    close_store();
    CHECK(ask_database("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check!='ok'") == 0);
}

static void small_disk(uint64_t space_min)
{
    new_folder();
    if (mount("tmpfs", folder, "tmpfs", 0, "size=32m") != 0) {
        SKIP("mounting a small tmpfs needs the superuser: %s", strerror(errno));
    }
    on_a_small_disk(space_min);
    close_store();
    umount2(folder, MNT_DETACH);
}

static void a_full_disk_refuses_new_jobs_and_ends_running_ones(void)
{
    small_disk(1 << 20);
}

static void without_the_gate_the_write_itself_refuses(void)
{
    small_disk(0);
}

static void a_capped_database_refuses_cleanly(void)
{
    CHECK(fresh());
    options.db_bytes_max = 1 << 20;
    CHECK_OK(open_store(), error);
    char id[27];
    store_result result = STORE_OK;
    for (int i = 0; i < 100 && result == STORE_OK; i++) {
        result = enqueue(id, (spec){.jobs = 64});
    }
    CHECK(result == STORE_SPACE && !store_stopped(st));
    store_stats stats;
    CHECK(store_get_stats(st, &stats) == STORE_OK && stats.jobs[API_STATE_QUEUED] % 64 == 0);
}

int main(void)
{
    RUN(kill_9_loses_nothing_acknowledged);
    RUN(a_full_disk_refuses_new_jobs_and_ends_running_ones);
    RUN(without_the_gate_the_write_itself_refuses);
    RUN(a_capped_database_refuses_cleanly);
    fault_register();
    RUN(a_power_cut_loses_nothing_acknowledged);
    RUN(the_power_cut_test_can_fail);
    RUN(what_a_start_tells_of_survives_a_power_cut);
    RUN(an_error_of_sync_is_unknown_and_stops_the_store);
    RUN(a_full_disk_at_any_write_refuses_cleanly);
    RUN(an_error_at_any_write_loses_nothing);
    end_store_tests();
    return test_end();
}
