/* Owns size-1 threads (the caller of dn_pool_run is worker 0) and the job that is open.
 *
 * One 64-bit word, the gate, says everything about the job: a generation (high half), whether it is open, and how many
 * threads are inside. A thread enters by compare-and-swap while the gate is open, so a thread that wakes up late finds it
 * shut and never touches the job; dn_pool_run waits only for those that did enter. Inside, tiles are handed out by an
 * atomic counter. Invariant: the job's fields change only while the gate is shut and nobody is inside.
 *
 * Waiting is a few microseconds of looking, then sleep on a condition variable. Both sides announce themselves before
 * they look (sequentially consistent), so a wake-up is never lost. dn_pool_run may be called from any thread that is not
 * inside one of this pool's tasks; calls take turns. */
#include "base/thread_pool.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

#define GATE_INSIDE_MASK UINT64_C(0xFFFF) /* threads inside, the caller not counted */
#define GATE_OPEN UINT64_C(0x10000)
#define GATE_GENERATION UINT64_C(0x100000000)
#define SPIN_ROUNDS 16 /* each: SPIN_LOOKS looks, then sched_yield; together a few microseconds */
#define SPIN_LOOKS 64
#define EXPECT_ROUNDS 1024 /* the same while jobs are expected: a few hundred microseconds, of which a neighbour may have any part */

typedef struct worker {
    dn_pool *pool;
    unsigned index;
    pthread_t thread;
} worker;

struct dn_pool {
    unsigned size;
    unsigned started; /* threads that exist */
    worker *workers;
    pthread_mutex_t turn; /* held by the caller of dn_pool_run */

    /* The job. */
    dn_pool_task *task;
    void *payload;
    unsigned count;
    atomic_uint next;
    _Atomic uint64_t gate;

    /* Sleeping. The mutex guards no data: it orders looking against waking. */
    pthread_mutex_t sleep;
    pthread_cond_t opened;
    pthread_cond_t emptied;
    atomic_uint sleepers;
    atomic_uint expecting; /* dn_pool_expect less dn_pool_relax */
    atomic_bool caller_waits;
    atomic_bool stop;
};

static void run_tiles(dn_pool *pool, unsigned index)
{
    for (;;) {
        unsigned tile = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (tile >= pool->count) {
            return;
        }
        pool->task(pool->payload, tile, index);
    }
}

static bool gate_is_new(uint64_t gate, uint64_t seen)
{
    return (gate & GATE_OPEN) && gate / GATE_GENERATION != seen;
}

/* Whether to look once more before sleeping. */
static bool look_again(const dn_pool *pool, int round)
{
    return round < SPIN_ROUNDS || (round < EXPECT_ROUNDS && atomic_load_explicit(&pool->expecting, memory_order_relaxed) > 0);
}

/* Waits until a job newer than `seen` is open or the pool stops. */
static void wait_for_job(dn_pool *pool, uint64_t seen)
{
    for (int round = 0; look_again(pool, round); round++) {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if (gate_is_new(atomic_load_explicit(&pool->gate, memory_order_relaxed), seen)) {
                return;
            }
        }
        sched_yield();
    }
    pthread_mutex_lock(&pool->sleep);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!gate_is_new(atomic_load(&pool->gate), seen) && !atomic_load(&pool->stop)) {
        pthread_cond_wait(&pool->opened, &pool->sleep);
    }
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->sleep);
}

/* Enters the open job, if there is one newer than *seen. */
static bool enter(dn_pool *pool, uint64_t *seen)
{
    uint64_t gate = atomic_load(&pool->gate);
    while (gate_is_new(gate, *seen)) {
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) {
            *seen = gate / GATE_GENERATION;
            return true;
        }
    }
    return false;
}

static void leave(dn_pool *pool)
{
    uint64_t gate = atomic_fetch_sub(&pool->gate, 1) - 1;
    if (!(gate & GATE_OPEN) && (gate & GATE_INSIDE_MASK) == 0 && atomic_load(&pool->caller_waits)) {
        pthread_mutex_lock(&pool->sleep);
        pthread_cond_signal(&pool->emptied);
        pthread_mutex_unlock(&pool->sleep);
    }
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    dn_pool *pool = self->pool;
    char name[16];
    snprintf(name, sizeof name, "dn-pool-%u", self->index % 1000u);
    pthread_setname_np(pthread_self(), name);
    fesetenv(FE_DFL_ENV); /* every thread rounds alike */
    uint64_t seen = 0;
    while (!atomic_load(&pool->stop)) {
        wait_for_job(pool, seen);
        if (enter(pool, &seen)) {
            run_tiles(pool, self->index);
            leave(pool);
        }
    }
    return NULL;
}

static dn_status start_threads(dn_pool *pool, dn_error *error)
{
    /* Signals belong to the program's own threads: workers block them all. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    dn_status status = DN_OK;
    for (unsigned i = 0; i + 1 < pool->size; i++) {
        worker *self = &pool->workers[i];
        *self = (worker){.pool = pool, .index = i + 1};
        int code = pthread_create(&self->thread, NULL, worker_main, self);
        if (code != 0) {
            status = dn_fail(error, DN_NO_MEMORY, "cannot start thread %u of %u: %s", i + 2, pool->size, strerror(code));
            break;
        }
        pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

dn_status dn_pool_create(dn_pool **out, unsigned threads, dn_error *error)
{
    if (threads == 0) {
        threads = dn_available_cpus();
    }
    if (threads > DN_THREADS_MAX) {
        return dn_fail(error, DN_INVALID, "%u threads, more than %u", threads, DN_THREADS_MAX);
    }
    dn_pool *pool = calloc(1, sizeof *pool);
    worker *workers = calloc(threads, sizeof *workers);
    if (!pool || !workers) {
        free(pool);
        free(workers);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for a pool of %u threads", threads);
    }
    pool->size = threads;
    pool->workers = workers;
    pthread_mutex_init(&pool->turn, NULL);
    pthread_mutex_init(&pool->sleep, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pthread_cond_init(&pool->emptied, NULL);
    dn_status status = start_threads(pool, error);
    if (status != DN_OK) {
        dn_pool_free(pool);
        return status;
    }
    *out = pool;
    return DN_OK;
}

void dn_pool_free(dn_pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->sleep);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->opened);
    pthread_mutex_unlock(&pool->sleep);
    for (unsigned i = 0; i < pool->started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->emptied);
    pthread_cond_destroy(&pool->opened);
    pthread_mutex_destroy(&pool->sleep);
    pthread_mutex_destroy(&pool->turn);
    free(pool->workers);
    free(pool);
}

unsigned dn_pool_size(const dn_pool *pool)
{
    return pool ? pool->size : 1;
}

static void open_gate(dn_pool *pool)
{
    uint64_t generation = atomic_load(&pool->gate) / GATE_GENERATION + 1;
    atomic_store(&pool->gate, generation * GATE_GENERATION | GATE_OPEN);
    unsigned sleepers = atomic_load(&pool->sleepers);
    if (sleepers == 0) {
        return;
    }
    unsigned wanted = pool->count - 1;
    pthread_mutex_lock(&pool->sleep);
    if (wanted >= sleepers) {
        pthread_cond_broadcast(&pool->opened);
    } else {
        for (unsigned i = 0; i < wanted; i++) {
            pthread_cond_signal(&pool->opened);
        }
    }
    pthread_mutex_unlock(&pool->sleep);
}

static void shut_gate(dn_pool *pool)
{
    atomic_fetch_and(&pool->gate, ~GATE_OPEN);
    for (int round = 0; look_again(pool, round); round++) {
        for (int look = 0; look < SPIN_LOOKS; look++) {
            if ((atomic_load(&pool->gate) & GATE_INSIDE_MASK) == 0) {
                return;
            }
        }
        sched_yield();
    }
    pthread_mutex_lock(&pool->sleep);
    atomic_store(&pool->caller_waits, true);
    while (atomic_load(&pool->gate) & GATE_INSIDE_MASK) {
        pthread_cond_wait(&pool->emptied, &pool->sleep);
    }
    atomic_store(&pool->caller_waits, false);
    pthread_mutex_unlock(&pool->sleep);
}

void dn_pool_expect(dn_pool *pool)
{
    if (pool)
        atomic_fetch_add(&pool->expecting, 1);
}

void dn_pool_relax(dn_pool *pool)
{
    if (pool)
        atomic_fetch_sub(&pool->expecting, 1);
}

void dn_pool_run(dn_pool *pool, unsigned count, dn_pool_task *task, void *payload)
{
    if (!pool) {
        for (unsigned i = 0; i < count; i++) {
            task(payload, i, 0);
        }
        return;
    }
    if (count == 0) {
        return;
    }
    pthread_mutex_lock(&pool->turn);
    pool->task = task;
    pool->payload = payload;
    pool->count = count;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    bool shared = count > 1 && pool->size > 1;
    if (shared) {
        open_gate(pool);
    }
    run_tiles(pool, 0);
    if (shared) {
        shut_gate(pool);
    }
    pthread_mutex_unlock(&pool->turn);
}
