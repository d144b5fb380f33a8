/* Power cuts: the database and the files as a disk has them that loses whatever was not synced, cut after any operation of a life of jobs
 * (enqueues with keys and input pictures, claims, images, cancels, purges, retention). Whatever was acknowledged is there and whole.
 *
 * `--torture SEED COUNT` tries COUNT cuts; ten seeds that follow each other cut the same life, in which a sync fails every third time. */
#undef _FORTIFY_SOURCE
#include "tests/store/disk_shim.h"

#include "tests/store/disk_judge.h"
#include "tests/store/disk_model.h"

enum { CUTS = 200, CUTS_A_LIFE = 10, ASKS = 24 };

typedef enum cut_mutation { AS_IT_IS, SYNCHRONOUS_NORMAL, DISK_LIES, IMAGES_UNSYNCED, FOLDERS_UNSYNCED, A_SYNC_FAILS } cut_mutation;

static char failure[300];
static unsigned long lived; /* the life that is recorded, plus 1 */
static cut_mutation lived_as;

static void drop(const char *path)
{
    nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* Lives once, everything written down. */
static bool live(unsigned long seed, cut_mutation mutation)
{
    char old[64];
    lived = seed + 1;
    lived_as = mutation;
    life_forget(seed);
    new_folder();
    disk_watch(folder);
    disk_record(true);
    const bool failing = mutation == A_SYNC_FAILS;
    disk_fail(1u << DISK_SYNC | 1u << DISK_SYNC_FOLDER, EIO, failing ? 1 + (long)(seed * 37 % 220) : 0, false, false);
    bool fine = life_open();
    if (fine && mutation == SYNCHRONOUS_NORMAL) {
        sqlite3_exec(st->writer.db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL); /* the writer waits for its first request */
    }
    if (fine) {
        life_goes_on(ASKS);
    }
    life_close();
    disk_record(false);
    disk_fail(0, 0, 0, false, false);
    disk_watch("");
    memcpy(old, folder, sizeof old);
    drop(old);
    folder[0] = 0;
    if (life.strange || (!failing && (!fine || life.over))) {
        snprintf(failure, sizeof failure, "the life itself: %.200s, %d strange answers", error.message, life.strange);
        return false;
    }
    return true;
}

/* One cut. False: something was lost, came from nowhere or stands twice; or the directory was refused. */
static bool cut(unsigned long seed, cut_mutation mutation, life_ledger *sum)
{
    static const int lies[] = {DISK_HONEST, DISK_HONEST, DISK_NO_SYNC, DISK_NO_IMAGE_SYNC, DISK_NO_FOLDER_SYNC, DISK_HONEST};
    if ((lived != seed / CUTS_A_LIFE + 1 || lived_as != mutation) && !live(seed / CUTS_A_LIFE, mutation)) {
        return false;
    }
    disk_state = seed * 11400714819323198485ull + 1;
    disk_chance(2);
    size_t end = disk_chance((unsigned)disk.count + 1);
    bool strict = disk_chance(2);
    if (!make_test_folder() || !disk_power_cut(folder, end, strict, lies[mutation])) {
        snprintf(failure, sizeof failure, "no folder could be made");
        return false;
    }
    options.folder = folder;
    life_ledger ledger = {0};
    bool opened = open_store() == DN_OK;
    if (opened) {
        ledger = judge(end);
    } else {
        snprintf(ledger.first, sizeof ledger.first, "refused: %.150s", error.message);
    }
    close_store();
    drop(folder);
    folder[0] = 0;
    sum->lost += ledger.lost;
    sum->unexpected += ledger.unexpected;
    sum->duplicated += ledger.duplicated;
    sum->recovered += ledger.recovered;
    bool valid = opened && judge_valid(&ledger);
    if (!valid) {
        snprintf(failure, sizeof failure, "cut after %zu of %zu operations, %s: %.200s", end, disk.count, strict ? "strict" : "lucky",
                 ledger.first);
    }
    return valid;
}

static void power_cuts_lose_nothing_acknowledged(void)
{
    life_ledger sum = {0};
    for (unsigned long seed = 0; seed < CUTS; seed++) {
        CHECK_MSG(cut(seed, AS_IT_IS, &sum), "seed=%lu: %s; replay: test_power_cuts --torture %lu 1", seed, failure, seed);
    }
    CHECK(sum.lost + sum.unexpected + sum.duplicated == 0);
    printf("# power cuts: %d, lost %d, unexpected %d, duplicated %d, recovered %d\n", CUTS, sum.lost, sum.unexpected, sum.duplicated,
           sum.recovered);
}

/* One sync fails and takes with it what it should have made durable, as Linux does; then the power fails too. */
static void a_sync_that_fails_loses_nothing_acknowledged(void)
{
    life_ledger sum = {0};
    for (unsigned long seed = 0; seed < CUTS / 2; seed++) {
        CHECK_MSG(cut(seed, A_SYNC_FAILS, &sum), "seed=%lu: %s", seed, failure);
    }
}

/* A check that cannot fail proves nothing: each of these must be found out. */
static void found_out(cut_mutation mutation)
{
    life_ledger sum = {0};
    int failed = 0;
    for (unsigned long seed = 0; seed < CUTS && !failed; seed++) {
        CHECK_MSG(seed % CUTS_A_LIFE || live(seed / CUTS_A_LIFE, mutation), "%s", failure);
        failed += !cut(seed, mutation, &sum);
    }
    printf("# %s\n", failure);
    CHECK_MSG(failed > 0, "%d cuts found nothing wrong", CUTS);
}

static void a_database_that_does_not_sync_each_commit_is_found_out(void)
{
    found_out(SYNCHRONOUS_NORMAL);
}

static void a_disk_that_lies_is_found_out(void)
{
    found_out(DISK_LIES);
}

static void pictures_without_a_sync_are_found_out(void)
{
    found_out(IMAGES_UNSYNCED);
}

static void folders_without_a_sync_are_found_out(void)
{
    found_out(FOLDERS_UNSYNCED);
}

static int torture(unsigned long seed, unsigned long count, const char *program)
{
    unsigned long failed = 0;
    life_ledger sum = {0};
    for (unsigned long i = 0; i < count; i++) {
        const cut_mutation with = (seed + i) / CUTS_A_LIFE % 3 == 2 ? A_SYNC_FAILS : AS_IT_IS;
        if (!cut(seed + i, with, &sum)) {
            failed++;
            printf("FAIL seed=%lu commit=%s: %s\n  replay: %s --torture %lu 1\n", seed + i, DN_COMMIT, failure, program, seed + i);
        }
    }
    end_store_tests();
    printf("TORTURE key=power_cuts seed=%lu done=%lu failed=%lu\n", seed, count, failed);
    return failed > 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "--torture") == 0) {
        return torture(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10), argv[0]);
    }
    RUN(power_cuts_lose_nothing_acknowledged);
    RUN(a_sync_that_fails_loses_nothing_acknowledged);
    RUN(a_database_that_does_not_sync_each_commit_is_found_out);
    RUN(a_disk_that_lies_is_found_out);
    RUN(pictures_without_a_sync_are_found_out);
    RUN(folders_without_a_sync_are_found_out);
    end_store_tests();
    return test_end();
}
