/* Owns size-1 threads (the caller of dn_pool_run is worker 0) and the job that is open.
 *
 * One 64-bit word, the gate, says everything about the job: a generation (high half), whether it is open, and how many
 * threads are inside. A thread enters by compare-and-swap while the gate is open, so a thread that wakes up late finds it
 * shut and never touches the job; dn_pool_run waits only for those that did enter. Inside, tiles are handed out by an
 * atomic counter. Invariant: the job's fields change only while the gate is shut and nobody is inside.
 *
 * Waiting is looking for a while, then sleep on a futex. Nobody yields while looking: that would hand a whole time slice to whoever else
 * wants the core, and the sleeper that is woken comes back sooner. How long is worth looking each thread learns from its own waits: where
 * they end in sleep, or the core was taken away meanwhile, it looks half as long the next time. Both sides announce themselves
 * before they look (sequentially consistent), so a wake-up is never lost. dn_pool_run may be called from any thread that is not
 * inside one of this pool's tasks; calls take turns. */
#include "base/thread_pool.h"

#include <fenv.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"

#define GATE_INSIDE_MASK UINT64_C(0xFFFF) /* threads inside, the owner not counted */
#define GATE_OPEN UINT64_C(0x10000)
#define GATE_GENERATION UINT64_C(0x100000000)
#define LOOKS 8 /* between two looks at the clock */
#define LOOK_SECONDS_MIN 2e-6
#define LOOK_SECONDS_MAX 20e-6 /* a wake-up costs half of it */
#define LOOK_SECONDS_EXPECTED 250e-6 /* between dn_pool_expect and dn_pool_relax */
#define TAKEN_AWAY_SECONDS 100e-6 /* two looks at the clock further apart: somebody else had the core */

/* Something that threads wait for: word changes whenever it may have come. */
typedef struct news {
    atomic_uint word, sleepers;
} news;

typedef struct worker {
    dn_pool *pool;
    unsigned index;
    pthread_t thread;
    uint64_t seen; /* generation of the last job entered */
    double patience; /* 0..1: the part of the longest look that is worth it */
} worker;

struct dn_pool {
    unsigned size;
    unsigned started; /* threads that exist */
    worker *workers; /* the caller's first */
    pthread_mutex_t turn; /* held by the caller of dn_pool_run */

    /* The job. */
    dn_pool_task *task;
    void *payload;
    unsigned count;
    atomic_uint next;
    _Atomic uint64_t gate;

    news opened; /* the gate, or the pool stops */
    news emptied; /* the gate is shut, and the last one went */
    atomic_uint expecting; /* dn_pool_expect less dn_pool_relax */
    atomic_bool stop;
};

/* ---- Waiting */

static void announce(news *it, unsigned wanted)
{
    atomic_fetch_add(&it->word, 1);
    if (atomic_load(&it->sleepers) > 0) {
        syscall(SYS_futex, &it->word, FUTEX_WAKE_PRIVATE, wanted > INT_MAX ? INT_MAX : (int)wanted, NULL, NULL, 0);
    }
}

typedef bool condition(const worker *self);

/* Looks for a while. False: it did not come, or the core was taken away. */
static bool look(worker *self, condition *come)
{
    bool expected = atomic_load_explicit(&self->pool->expecting, memory_order_relaxed) > 0;
    double began = dn_now_seconds(), now = began, limit = self->patience * (expected ? LOOK_SECONDS_EXPECTED : LOOK_SECONDS_MAX);
    limit = limit < LOOK_SECONDS_MIN ? LOOK_SECONDS_MIN : limit;
    for (;;) {
        for (int i = 0; i < LOOKS; i++) {
            if (come(self)) {
                return true;
            }
        }
        double before = now;
        now = dn_now_seconds();
        if (now - began > limit || now - before > TAKEN_AWAY_SECONDS) {
            return come(self);
        }
    }
}

static void wait_for(worker *self, news *it, condition *come)
{
    if (come(self)) {
        return;
    }
    if (look(self, come)) {
        self->patience = self->patience > 0.5 ? 1.0 : 2.0 * self->patience;
        return;
    }
    self->patience = self->patience < 0.02 ? 0.01 : 0.5 * self->patience;
    atomic_fetch_add(&it->sleepers, 1);
    for (;;) {
        unsigned word = atomic_load(&it->word);
        if (come(self)) {
            break;
        }
        syscall(SYS_futex, &it->word, FUTEX_WAIT_PRIVATE, word, NULL, NULL, 0);
    }
    atomic_fetch_sub(&it->sleepers, 1);
}

/* ---- The job */

static bool gate_is_new(uint64_t gate, uint64_t seen)
{
    return (gate & GATE_OPEN) && gate / GATE_GENERATION != seen;
}

static bool job_is_open(const worker *self)
{
    return gate_is_new(atomic_load(&self->pool->gate), self->seen) || atomic_load(&self->pool->stop);
}

static bool nobody_is_inside(const worker *self)
{
    return (atomic_load(&self->pool->gate) & GATE_INSIDE_MASK) == 0;
}

/* Enters the open job, if there is one that this thread has not seen. */
static bool enter(worker *self)
{
    dn_pool *pool = self->pool;
    uint64_t gate = atomic_load(&pool->gate);
    while (gate_is_new(gate, self->seen)) {
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) {
            self->seen = gate / GATE_GENERATION;
            return true;
        }
    }
    return false;
}

static void leave(dn_pool *pool)
{
    uint64_t gate = atomic_fetch_sub(&pool->gate, 1) - 1;
    if (!(gate & GATE_OPEN) && (gate & GATE_INSIDE_MASK) == 0) {
        announce(&pool->emptied, 1);
    }
}

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

static void open_gate(dn_pool *pool)
{
    uint64_t generation = atomic_load(&pool->gate) / GATE_GENERATION + 1;
    atomic_store(&pool->gate, generation * GATE_GENERATION | GATE_OPEN);
    announce(&pool->opened, pool->count - 1);
}

static void shut_gate(dn_pool *pool)
{
    atomic_fetch_and(&pool->gate, ~GATE_OPEN);
    wait_for(&pool->workers[0], &pool->emptied, nobody_is_inside);
}

/* ---- Threads */

static void *worker_main(void *argument)
{
    worker *self = argument;
    dn_pool *pool = self->pool;
    char name[16];
    snprintf(name, sizeof name, "dn-pool-%u", self->index % 1000u);
    pthread_setname_np(pthread_self(), name);
    fesetenv(FE_DFL_ENV); /* every thread rounds alike */
    while (!atomic_load(&pool->stop)) {
        wait_for(self, &pool->opened, job_is_open);
        if (enter(self)) {
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
    for (unsigned i = 1; i < pool->size; i++) {
        int code = pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]);
        if (code != 0) {
            status = dn_fail(error, DN_NO_MEMORY, "cannot start thread %u of %u: %s", i + 1, pool->size, strerror(code));
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
    for (unsigned i = 0; i < threads; i++) {
        workers[i].pool = pool;
        workers[i].index = i;
        workers[i].patience = 1.0;
    }
    pthread_mutex_init(&pool->turn, NULL);
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
    atomic_store(&pool->stop, true);
    announce(&pool->opened, UINT_MAX);
    for (unsigned i = 1; i <= pool->started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_mutex_destroy(&pool->turn);
    free(pool->workers);
    free(pool);
}

unsigned dn_pool_size(const dn_pool *pool)
{
    return pool ? pool->size : 1;
}

void dn_pool_expect(dn_pool *pool)
{
    if (pool) {
        atomic_fetch_add(&pool->expecting, 1);
    }
}

void dn_pool_relax(dn_pool *pool)
{
    if (pool) {
        atomic_fetch_sub(&pool->expecting, 1);
    }
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
