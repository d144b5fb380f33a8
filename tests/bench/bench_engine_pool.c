/* Measures the thread pool: what meeting costs, and what a busy neighbour costs.
 *
 *     bench_engine_pool [MODEL-FOLDER [SECONDS_PER_ROW]]
 *
 * A neighbour is a process that never rests, pinned to one core. Beside k of them on n cores the scheduler's fair share of n threads
 * is n - k / 2 cores: that is the floor of "with neighbours / alone". Rows with and without take turns, medians of ROUNDS; wall time,
 * so it means something on a machine that is otherwise quiet. */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread_pool.h"
#include "engine.h"
#include "tests/bench/fma_probe.h"

#define ROUNDS 5
#define NEIGHBOURS_MAX 2
#define STEPS 10u

static double seconds_per_row = 0.5;

/* ---- Neighbours */

static pid_t start_neighbour(unsigned core)
{
    pid_t child = fork();
    if (child == 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(core, &set);
        sched_setaffinity(0, sizeof set, &set);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (volatile unsigned long spin = 0;; spin++)
            ;
    }
    usleep(20000);
    return child;
}

static void stop_neighbour(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* ---- Work: something done per second */

typedef double rate_function(void *payload);

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x)
{
    qsort(x, ROUNDS, sizeof *x, compare);
    return x[ROUNDS / 2];
}

static double process_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The rate alone and beside 1 and 2 neighbours, in turns. */
static void with_neighbours(const char *name, const char *unit, rate_function *rate, void *payload, unsigned cores)
{
    double rates[NEIGHBOURS_MAX + 1][ROUNDS], medians[NEIGHBOURS_MAX + 1];
    double used[NEIGHBOURS_MAX + 1][ROUNDS]; /* cores */
    for (int round = 0; round < ROUNDS; round++) {
        for (unsigned k = 0; k <= NEIGHBOURS_MAX; k++) {
            pid_t neighbours[NEIGHBOURS_MAX];
            for (unsigned i = 0; i < k; i++)
                neighbours[i] = start_neighbour(i % cores);
            double cpu = process_seconds(), began = dn_now_seconds();
            rates[k][round] = rate(payload);
            used[k][round] = (process_seconds() - cpu) / (dn_now_seconds() - began);
            for (unsigned i = 0; i < k; i++)
                stop_neighbour(neighbours[i]);
        }
    }
    printf("%-40s", name);
    for (unsigned k = 0; k <= NEIGHBOURS_MAX; k++) {
        medians[k] = median(rates[k]);
        if (k == 0)
            printf(" %9.1f %s alone on %.2f cores", medians[0], unit, median(used[0]));
        else
            printf("; beside %u: %.2f (fair %.2f) on %.2f", k, medians[k] / medians[0], ((double)cores - k / 2.0) / cores, median(used[k]));
    }
    printf("\n");
    fflush(stdout);
}

/* ---- Forks and joins */

typedef struct forks {
    dn_pool *pool;
    unsigned count, loops; /* tiles of a job; additions of a tile */
    double pause_us;
} forks;

static void spin_tile(void *payload, unsigned index, unsigned worker)
{
    const forks *f = payload;
    (void)index;
    (void)worker;
    for (volatile unsigned i = 0; i < f->loops; i++)
        ;
}

/* Jobs a second, pauses not counted. */
static double fork_rate(void *payload)
{
    forks *f = payload;
    double worked = 0.0;
    unsigned jobs = 0;
    for (double end = dn_now_seconds() + seconds_per_row; dn_now_seconds() < end; jobs++) {
        if (f->pause_us > 0)
            usleep((useconds_t)f->pause_us);
        double began = dn_now_seconds();
        dn_pool_run(f->pool, f->count, spin_tile, f);
        worked += dn_now_seconds() - began;
    }
    return jobs / worked;
}

static void bench_forks(dn_pool *pool)
{
    static const struct {
        const char *name;
        unsigned count, loops;
        double pause_us;
    } rows[] = {
        {"2 empty tiles, one job after another", 2, 0, 0}, {"2 empty tiles, after 20 us", 2, 0, 20},
        {"2 empty tiles, after 2 ms", 2, 0, 2000},         {"4 tiles of 10 us, one job after another", 4, 20000, 0},
        {"4 tiles of 10 us, after 2 ms", 4, 20000, 2000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        forks f = {.pool = pool, .count = rows[i].count, .loops = rows[i].loops, .pause_us = rows[i].pause_us};
        forks alone = f;
        alone.pool = NULL;
        double rate = fork_rate(&f), inline_rate = fork_rate(&alone);
        printf("%-40s %9.2f us a job; on the calling thread alone %.2f us\n", rows[i].name, 1e6 / rate, 1e6 / inline_rate);
        fflush(stdout);
    }
}

/* ---- Rows of a model */

typedef struct forwards {
    dn_engine *engine;
    uint32_t rows;
} forwards;

/* Rows a second: images of STEPS steps without guidance, `rows` of them in one batch. */
static double forward_rate(void *payload)
{
    forwards *f = payload;
    dn_error error = {DN_OK, ""};
    dn_lane_spec *specs = calloc(f->rows, sizeof *specs);
    uint64_t rows = 0;
    if (!specs)
        abort();
    for (uint32_t i = 0; i < f->rows; i++) {
        specs[i] = (dn_lane_spec){.seed = i, .has_class = f->engine->class_count > 0, .guidance_scale = 1, .steps = STEPS};
        snprintf(specs[i].sampler, sizeof specs[i].sampler, "ddim");
    }
    double began = dn_now_seconds();
    while (dn_now_seconds() < began + seconds_per_row) {
        if (dn_generate(f->engine, specs, f->rows, NULL, NULL, NULL, NULL, &error) != DN_OK) {
            fprintf(stderr, "bench_engine_pool: %s\n", error.message);
            exit(1);
        }
        rows += (uint64_t)f->rows * STEPS;
    }
    free(specs);
    return (double)rows / (dn_now_seconds() - began);
}

static double probe_rate(void *payload)
{
    const forwards *f = payload;
    return 1e-9 * fma_probe_all(fma_probe_lanes(f->engine->backend->device_isa(f->engine->device)), dn_available_cpus(), seconds_per_row);
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : "models/fashion-mnist";
    dn_error error = {DN_OK, ""};
    dn_pool *pool = NULL;
    forwards f = {0};
    seconds_per_row = argc > 2 ? atof(argv[2]) : seconds_per_row;
    if (dn_pool_create(&pool, 0, &error) != DN_OK ||
        dn_engine_open(&f.engine, folder, &(dn_engine_options){.threads = 0}, &error) != DN_OK) {
        fprintf(stderr, "bench_engine_pool: %s\n", error.message);
        return 1;
    }
    const unsigned cores = dn_pool_size(pool);
    printf("%u threads on %s\n", cores, f.engine->device_text);
    bench_forks(pool);
    dn_pool_free(pool);
    with_neighbours("multiply-adds without meeting", "GF/s", probe_rate, &f, cores);
    static const uint32_t counts[] = {1, 2, 3, 8, 16};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        char name[64];
        f.rows = counts[i];
        snprintf(name, sizeof name, "batch of %u", f.rows);
        with_neighbours(name, "rows/s", forward_rate, &f, cores);
    }
    dn_engine_close(f.engine);
    return 0;
}
