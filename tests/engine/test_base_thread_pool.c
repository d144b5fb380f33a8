/* The pool: every task once, on its own worker, in every size, under many short jobs. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/thread_pool.h"
#include "tests/test.h"

#define TASKS_MAX 5000

typedef struct tally {
    atomic_uint runs[TASKS_MAX];
    atomic_uint busy[DN_THREADS_MAX]; /* one task at a time per worker */
    atomic_uint faults;
    unsigned workers;
    unsigned plain[TASKS_MAX]; /* written without atomics: the pool must order it before its return */
} tally;

static tally counted;

static void count_task(void *payload, unsigned index, unsigned worker)
{
    tally *sum = payload;
    if (worker >= sum->workers || atomic_fetch_add(&sum->busy[worker], 1) != 0) {
        atomic_fetch_add(&sum->faults, 1);
    }
    atomic_fetch_add(&sum->runs[index], 1);
    sum->plain[index]++;
    atomic_fetch_sub(&sum->busy[worker], 1);
}

static void each_task_runs_once(void)
{
    const unsigned sizes[] = {1, 2, 3, 4, 8}, counts[] = {0, 1, 2, 3, 7, 64, 1000, TASKS_MAX};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        dn_pool *pool = NULL;
        dn_error error = {0};
        CHECK_OK(dn_pool_create(&pool, sizes[s], &error), error);
        CHECK(dn_pool_size(pool) == sizes[s]);
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            memset(&counted, 0, sizeof counted);
            counted.workers = sizes[s];
            dn_pool_run(pool, counts[c], count_task, &counted);
            CHECK(atomic_load(&counted.faults) == 0);
            for (unsigned i = 0; i < TASKS_MAX; i++) {
                CHECK_MSG(atomic_load(&counted.runs[i]) == (i < counts[c]) && counted.plain[i] == (i < counts[c]),
                          "size %u count %u task %u", sizes[s], counts[c], i);
            }
        }
        dn_pool_free(pool);
    }
}

static void no_pool_runs_inline_in_order(void)
{
    memset(&counted, 0, sizeof counted);
    counted.workers = 1;
    dn_pool_run(NULL, 100, count_task, &counted);
    CHECK(atomic_load(&counted.runs[99]) == 1 && atomic_load(&counted.faults) == 0);
    CHECK(dn_pool_size(NULL) == 1);
    dn_pool_free(NULL);
}

/* Many short jobs with pauses now and then, so that threads are met spinning, asleep and half way between. */
static void many_short_jobs(void)
{
    dn_pool *pool = NULL;
    dn_error error = {0};
    CHECK_OK(dn_pool_create(&pool, 4, &error), error);
    memset(&counted, 0, sizeof counted);
    counted.workers = 4;
    for (unsigned job = 0; job < 20000; job++) {
        dn_pool_run(pool, 1 + job % 5, count_task, &counted);
        if (job % 1000 == 0) {
            usleep(500);
        }
    }
    CHECK(atomic_load(&counted.faults) == 0);
    CHECK(atomic_load(&counted.runs[0]) == 20000 && atomic_load(&counted.runs[4]) == 4000 && counted.plain[2] == 12000);
    dn_pool_free(pool);
}

/* Where jobs are expected threads look longer; pauses past that still find them asleep. Nested, and relaxed in the middle of it. */
static void expected_jobs(void)
{
    dn_pool *pool = NULL;
    dn_error error = {0};
    CHECK_OK(dn_pool_create(&pool, 4, &error), error);
    memset(&counted, 0, sizeof counted);
    counted.workers = 4;
    dn_pool_expect(NULL);
    dn_pool_relax(NULL);
    for (unsigned job = 0; job < 2000; job++) {
        if (job % 3 == 0)
            dn_pool_expect(pool);
        dn_pool_run(pool, 4, count_task, &counted);
        if (job % 3 == 2)
            dn_pool_relax(pool);
        if (job % 100 == 0)
            usleep(job % 200 ? 1000 : 30);
    }
    CHECK(atomic_load(&counted.faults) == 0);
    CHECK(counted.plain[0] == 2000 && counted.plain[3] == 2000);
    dn_pool_free(pool);
}

static void *run_from_thread(void *pool)
{
    for (int i = 0; i < 500; i++) {
        dn_pool_run(pool, 8, count_task, &counted);
    }
    return NULL;
}

static void callers_take_turns(void)
{
    dn_pool *pool = NULL;
    dn_error error = {0};
    CHECK_OK(dn_pool_create(&pool, 3, &error), error);
    memset(&counted, 0, sizeof counted);
    counted.workers = 3;
    pthread_t callers[3];
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_create(&callers[i], NULL, run_from_thread, pool) == 0);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(callers[i], NULL);
    }
    CHECK(atomic_load(&counted.faults) == 0);
    for (int i = 0; i < 8; i++) {
        CHECK(counted.plain[i] == 1500);
    }
    dn_pool_free(pool);
}

static void wait_for_second(void *payload, unsigned index, unsigned worker)
{
    atomic_uint *arrived = payload;
    (void)index;
    (void)worker;
    atomic_fetch_add(arrived, 1);
    double deadline = dn_now_seconds() + 10;
    while (atomic_load(arrived) < 2 && dn_now_seconds() < deadline) {
        usleep(100);
    }
}

/* Two tasks that each wait for the other: they end early only if two threads run them at the same time. */
static void tasks_run_at_the_same_time(void)
{
    dn_pool *pool = NULL;
    dn_error error = {0};
    CHECK_OK(dn_pool_create(&pool, 2, &error), error);
    for (int round = 0; round < 20; round++) {
        atomic_uint arrived = 0;
        double start = dn_now_seconds();
        usleep(round % 2 ? 2000 : 0); /* asleep or still looking */
        dn_pool_run(pool, 2, wait_for_second, &arrived);
        CHECK(dn_now_seconds() - start < 9);
    }
    dn_pool_free(pool);
}

static void sizes_are_checked(void)
{
    dn_pool *pool = NULL;
    dn_error error = {0};
    CHECK(dn_pool_create(&pool, DN_THREADS_MAX + 1, &error) == DN_INVALID && pool == NULL);
    unsigned cpus = dn_available_cpus();
    CHECK(cpus >= 1 && cpus <= DN_THREADS_MAX);
    CHECK_OK(dn_pool_create(&pool, 0, &error), error);
    CHECK(dn_pool_size(pool) == cpus);
    dn_pool_free(pool);
}

int main(void)
{
    RUN(each_task_runs_once);
    RUN(no_pool_runs_inline_in_order);
    RUN(many_short_jobs);
    RUN(expected_jobs);
    RUN(callers_take_turns);
    RUN(tasks_run_at_the_same_time);
    RUN(sizes_are_checked);
    return test_end();
}
