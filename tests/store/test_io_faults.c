/* Errors of the disk at every operation of a job's life, from the start of the store to its end: EIO, ENOSPC, short writes; once, and from
 * then on. The client hears the truth each time: what was acknowledged is there after a restart, what was refused is not, no row
 * is without its file, and the process goes on or stops writing (and would be restarted).
 *
 * `--torture SEED COUNT`: COUNT faults of lives with 50 jobs, at operations that the seed chooses. */
#undef _FORTIFY_SOURCE
#include "tests/store/disk_shim.h"

#include "tests/store/disk_judge.h"

enum { ASKS_SHORT = 2, ASKS_LONG = 50 };

#define BIT(kind) (1u << (kind))
#define EVERYTHING (BIT(DISK_KINDS) - 1u)
#define WRITES (BIT(DISK_CREATE) | BIT(DISK_WRITE) | BIT(DISK_ALLOCATE) | BIT(DISK_MKDIR))

static const struct fault_case {
    const char *name;
    unsigned kinds;
    int code;
    bool sticky, partial;
} CASES[] = {
    {"EIO once", EVERYTHING, EIO, false, false},
    {"EIO from then on", EVERYTHING, EIO, true, false},
    {"ENOSPC once", WRITES | BIT(DISK_SYNC) | BIT(DISK_RENAME), ENOSPC, false, false},
    {"ENOSPC from then on", WRITES, ENOSPC, true, false},
    {"a short write and ENOSPC, once", BIT(DISK_WRITE), ENOSPC, false, true},
    {"short writes from then on", BIT(DISK_WRITE), ENOSPC, true, true},
};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

static char failure[400];
static long hits[DISK_KINDS]; /* which kinds of operation were made to fail, first */
static int stops, refusals, starts_refused;

/* A life with a fault at operation `at`; then a restart on a sound disk, and the ledger. *reached: the fault came to pass. */
static bool one_fault(const struct fault_case *how, unsigned long seed, unsigned asks, long at, bool *reached, life_ledger *sum)
{
    life_forget(seed);
    new_folder();
    disk_watch(folder);
    disk_fail(how->kinds, how->code, at, how->sticky, how->partial);
    bool opened = life_open();
    if (opened) {
        life_goes_on(asks);
        stops += life.over;
    } else {
        starts_refused++;
    }
    bool told = opened || error.message[0];
    life_close();
    *reached = disk.hits > 0;
    hits[disk.hit_kind] += *reached;
    char where[300];
    snprintf(where, sizeof where, "%s at operation %ld (%s of %s)", how->name, at, disk_kind_names[disk.hit_kind], disk.hit_path);
    disk_fail(0, 0, 0, false, false);
    disk_watch("");
    for (size_t i = 0; i < life.ask_count; i++) {
        refusals += life.asks[i].result == STORE_SPACE;
    }
    life_ledger ledger = {0};
    if (!told || life.strange || open_store() != DN_OK) {
        snprintf(failure, sizeof failure, "%.150s: %s (%.150s, answer %d)", where, life.strange ? "a strange answer" : "no restart",
                 error.message, (int)life.strange_result);
        return false;
    }
    ledger = judge(LIFE_NEVER - 1);
    sum->lost += ledger.lost;
    sum->unexpected += ledger.unexpected;
    sum->duplicated += ledger.duplicated;
    sum->recovered += ledger.recovered;
    char id[27];
    bool works = enqueue(id, (spec){0}) == STORE_OK;
    snprintf(failure, sizeof failure, "%.200s: %.150s", where, works ? ledger.first : "it does not go on");
    return works && judge_valid(&ledger);
}

/* Every operation of a short life. */
static void sweep(const struct fault_case *how)
{
    life_ledger sum = {0};
    bool reached = true;
    long at = 0;
    memset(hits, 0, sizeof hits);
    stops = refusals = starts_refused = 0;
    while (reached) {
        at++;
        CHECK_MSG(one_fault(how, 7, ASKS_SHORT, at, &reached, &sum), "%s", failure);
    }
    CHECK(at > 20);
    printf("# %s: %ld operations, lost %d, unexpected %d, duplicated %d, recovered %d; the store stopped %d times, refused for want of "
           "space %d,"
           " did not start %d;",
           how->name, at - 1, sum.lost, sum.unexpected, sum.duplicated, sum.recovered, stops, refusals, starts_refused);
    for (int kind = 0; kind < DISK_KINDS; kind++) {
        if (hits[kind]) {
            printf(" %s %ld", disk_kind_names[kind], hits[kind]);
        }
    }
    printf("\n");
}

static void an_error_once(void)
{
    sweep(&CASES[0]);
    CHECK(hits[DISK_WRITE] && hits[DISK_SYNC] && hits[DISK_SYNC_FOLDER] && hits[DISK_RENAME] && hits[DISK_CREATE] && hits[DISK_OPEN] &&
          hits[DISK_UNLINK] && hits[DISK_TRUNCATE]);
    CHECK(stops > 0 && starts_refused > 0);
}

static void an_error_for_good(void)
{
    sweep(&CASES[1]);
}

static void no_space_once(void)
{
    sweep(&CASES[2]);
}

static void no_space_for_good(void)
{
    sweep(&CASES[3]);
    CHECK(refusals > 0);
}

static void a_short_write_once(void)
{
    sweep(&CASES[4]);
}

static void short_writes_for_good(void)
{
    sweep(&CASES[5]);
}

static int torture(unsigned long seed, unsigned long count, const char *program)
{
    unsigned long failed = 0;
    life_ledger sum = {0};
    for (unsigned long i = seed; i < seed + count; i++) {
        bool reached;
        uint64_t chance = i * 11400714819323198485ull >> 20;
        if (!one_fault(&CASES[chance % CASE_COUNT], i / 64, ASKS_LONG, 1 + (long)(chance / CASE_COUNT % 4000), &reached, &sum)) {
            failed++;
            printf("FAIL seed=%lu commit=%s: %s\n  replay: %s --torture %lu 1\n", i, DN_COMMIT, failure, program, i);
        }
    }
    end_store_tests();
    printf("TORTURE key=io_faults seed=%lu done=%lu failed=%lu\n", seed, count, failed);
    return failed > 0;
}

int main(int argc, char **argv)
{
    if (!freopen("/dev/null", "w", stderr)) { /* each fault is told of there */
        return 1;
    }
    if (argc == 4 && strcmp(argv[1], "--torture") == 0) {
        return torture(strtoul(argv[2], NULL, 10), strtoul(argv[3], NULL, 10), argv[0]);
    }
    RUN(an_error_once);
    RUN(an_error_for_good);
    RUN(no_space_once);
    RUN(no_space_for_good);
    RUN(a_short_write_once);
    RUN(short_writes_for_good);
    end_store_tests();
    return test_end();
}
