/* Runs seeds of the simulation, in processes of their own so that a crash is a failure of its seed and no more.
 *
 *     test_simulator                        10,000 seeds, the regression cases first; every kind of event must have happened
 *     test_simulator --torture SEED COUNT   seeds SEED, SEED + 1, ...
 *     test_simulator --replay SEED          one, telling its history */
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/seed.h"
#include "tests/test.h"

enum { PROCESSES = 2, CHUNK = 500, SEEDS = 10000, TWICE_EVERY = 100, FAILURES_SHOWN = 5 };

pid_t __real_waitpid(pid_t pid, int *status, int options);

static const char *program;
static sim_totals *shared; /* [PROCESSES] */
static uint64_t *failures; /* shared: how many */

/* Seeds that once failed. */
static const uint64_t regressions[] = {331, 1274};

static void report(uint64_t seed, const char *what)
{
    printf("seed=%llu commit=%s: %s\n  %s --replay %llu\n", (unsigned long long)seed, DN_COMMIT, what, program, (unsigned long long)seed);
    fflush(stdout);
}

/* In a process of its own: seeds first, first + PROCESSES, ... */
static void run_chunk(unsigned slot, uint64_t first, uint64_t count)
{
    uint64_t hash, again;
    if (!freopen("/dev/null", "w", stderr))
        _exit(2);
    sim_totals *totals = &shared[slot];
    static sim_totals kept;
    memcpy(&kept, totals, sizeof kept);
    sim_prepare(totals, false);
    memcpy(totals->counts, kept.counts, sizeof kept.counts);
    for (uint64_t seed = first; seed < first + count; seed++) {
        const bool fine = sim_run_seed(seed, &hash);
        if (!fine)
            _exit(3);
        if (seed % TWICE_EVERY == 0 && (!sim_run_seed(seed, &again) || hash != again)) {
            snprintf(totals->wrong, sizeof totals->wrong, "two runs of this seed differ");
            _exit(3);
        }
    }
    _exit(0);
}

/* What is left of a chunk: after a failure, from the next seed on. */
typedef struct chunk {
    pid_t pid;
    uint64_t next, end;
} chunk;

static void start(chunk *c, unsigned slot)
{
    fflush(stdout);
    shared[slot].running = c->next;
    shared[slot].wrong[0] = 0;
    c->pid = fork();
    if (c->pid == 0)
        run_chunk(slot, c->next, c->end - c->next);
}

/* The process of this slot has ended; true: its chunk is done. */
static bool finish(chunk *c, unsigned slot, int status)
{
    c->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    char what[440];
    if (WIFSIGNALED(status))
        snprintf(what, sizeof what, "ended by signal %d %s", WTERMSIG(status), shared[slot].wrong);
    else
        snprintf(what, sizeof what, "%s", shared[slot].wrong[0] ? shared[slot].wrong : "the process ended by itself");
    if (++*failures <= FAILURES_SHOWN)
        report(shared[slot].running, what);
    c->next = shared[slot].running + 1;
    return c->next >= c->end;
}

/* Runs all of them; how many failed. */
static uint64_t run_seeds(uint64_t first, uint64_t count)
{
    chunk chunks[PROCESSES] = {{0}};
    uint64_t next = first;
    const uint64_t end = first + count, before = *failures;
    for (bool busy = true; busy;) {
        busy = false;
        for (unsigned i = 0; i < PROCESSES; i++) {
            if (!chunks[i].pid && chunks[i].next < chunks[i].end) {
                start(&chunks[i], i);
            } else if (!chunks[i].pid && next < end) {
                chunks[i] = (chunk){.next = next, .end = next + CHUNK < end ? next + CHUNK : end};
                next = chunks[i].end;
                start(&chunks[i], i);
            }
            busy |= chunks[i].pid > 0;
        }
        int status = 0;
        const pid_t pid = busy ? __real_waitpid(-1, &status, 0) : 0;
        for (unsigned i = 0; pid > 0 && i < PROCESSES; i++)
            if (chunks[i].pid == pid && finish(&chunks[i], i, status))
                chunks[i].next = chunks[i].end;
    }
    return *failures - before;
}

static uint64_t total(unsigned kind)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < PROCESSES; i++)
        sum += shared[i].counts[kind];
    return sum;
}

static void show_counts(void)
{
    for (unsigned kind = 0; sim_count_name(kind); kind++)
        printf("%s%s=%llu", kind ? (kind % 8 ? " " : "\n  ") : "  ", sim_count_name(kind), (unsigned long long)total(kind));
    printf("\n");
}

/* Sanitizers make a seed several times as long; the one for threads does not know coroutines. */
static int seeds_wanted(void)
{
    const char *variant = getenv("TEST_VARIANT");
    return test_rounds(variant && strcmp(variant, "release") != 0 ? SEEDS / 10 : SEEDS);
}

static void histories_are_in_order(void)
{
#ifdef __SANITIZE_THREAD__
    SKIP("the thread sanitizer does not know coroutines");
#endif
    uint64_t failed = 0;
    for (size_t i = 0; i < sizeof regressions / sizeof regressions[0]; i++)
        failed += run_seeds(regressions[i], 1);
    failed += run_seeds(1, (uint64_t)seeds_wanted());
    CHECK_MSG(failed == 0, "%llu seeds failed", (unsigned long long)failed);
}

static void everything_happened(void)
{
    if (seeds_wanted() < SEEDS)
        SKIP("too few seeds");
    show_counts();
    for (unsigned kind = 0; sim_count_name(kind); kind++)
        CHECK_MSG(total(kind) > 0, "%s never happened", sim_count_name(kind));
}

static int replay(uint64_t seed)
{
    uint64_t hash;
    sim_prepare(&shared[0], true);
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    const bool fine = sim_run_seed(seed, &hash);
    printf("%s %016llx\n", fine ? "fine" : "WRONG", (unsigned long long)hash);
    return fine ? 0 : 1;
}

int main(int argc, char **argv)
{
    program = argv[0];
    shared = mmap(NULL, PROCESSES * sizeof *shared + sizeof *failures, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 2;
    failures = (uint64_t *)(void *)(shared + PROCESSES);
    if (argc == 3 && strcmp(argv[1], "--replay") == 0)
        return replay(strtoull(argv[2], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "--torture") == 0) {
        const uint64_t first = strtoull(argv[2], NULL, 10), count = strtoull(argv[3], NULL, 10), failed = run_seeds(first, count);
        show_counts();
        printf("TORTURE key=simulator seed=%llu done=%llu failed=%llu\n", (unsigned long long)first, (unsigned long long)count,
               (unsigned long long)failed);
        return failed ? 1 : 0;
    }
    RUN(histories_are_in_order);
    RUN(everything_happened);
    return test_end();
}
