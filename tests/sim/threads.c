/* Threads as coroutines on one real thread, mutexes, conditions, sleep and both clocks.
 *
 * Invariant: exactly one coroutine or the scheduler runs. A coroutine gives way where it waits, and where sim_maybe_yield says so: at every
 * lock, unlock and signal, and at the file system's operations. The scheduler picks the next by chance among those that can run; when none
 * can, it moves the clock to the earliest time that somebody waits for. */
#undef _FORTIFY_SOURCE
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "tests/sim/sim.h"
#include "tests/sim/wrapped.h"

enum { THREADS_MAX = 64, STACK_BYTES = 256 << 10, PREEMPT = 60 };

typedef enum thread_state { THREAD_FREE, THREAD_READY, THREAD_WAITING, THREAD_OVER } thread_state;

struct sim_thread {
    thread_state state;
    sim_role role;
    const char *name;
    bool inside; /* a client in a call of the daemon */
    void *(*run)(void *);
    void *payload;
    ucontext_t context;
    void *stack;
    /* waiting */
    bool (*ready)(void *);
    void *ready_payload;
    double until;
    pthread_cond_t *condition; /* waits for a signal of it */
    bool signalled;
};

static struct {
    sim_thread threads[THREADS_MAX];
    sim_thread *current;
    ucontext_t scheduler;
    double now, pace;
    int64_t wall_offset_ms;
    unsigned inside;
} sim;

void sim_threads_reset(void)
{
    for (unsigned i = 0; i < THREADS_MAX; i++)
        sim.threads[i].state = THREAD_FREE;
    sim.current = NULL;
    sim.now = 1000;
    sim.pace = 20e-6;
    sim.wall_offset_ms = 1700000000000;
    sim.inside = 0;
}

double sim_now(void)
{
    return sim.now;
}

void sim_set_now(double now)
{
    sim.now = now;
}

int64_t sim_wall_ms(void)
{
    return sim.wall_offset_ms + (int64_t)(sim.now * 1000);
}

void sim_jump_clock(int64_t by_ms)
{
    sim.wall_offset_ms += by_ms;
}

void sim_set_pace(double seconds)
{
    sim.pace = seconds;
}

sim_thread *sim_thread_self(void)
{
    return sim.current;
}

bool sim_thread_over(const sim_thread *thread)
{
    return thread->state == THREAD_OVER || thread->state == THREAD_FREE;
}

void sim_set_inside(bool inside)
{
    if (sim.current->inside != inside)
        sim.inside += inside ? 1 : -1;
    sim.current->inside = inside;
}

unsigned sim_inside(void)
{
    return sim.inside;
}

static void enter(void)
{
    sim_thread *self = sim.current;
    self->run(self->payload);
    self->state = self->role == ROLE_DAEMON ? THREAD_OVER : THREAD_FREE; /* the daemon's are joined */
    if (self->inside)
        sim.inside--;
    self->inside = false;
    swapcontext(&self->context, &sim.scheduler);
}

sim_thread *sim_thread_start(const char *name, sim_role role, void *(*run)(void *), void *payload)
{
    unsigned i = 0;
    while (i < THREADS_MAX && sim.threads[i].state != THREAD_FREE)
        i++;
    assert(i < THREADS_MAX && "too many threads");
    sim_thread *t = &sim.threads[i];
    void *stack = t->stack;
    if (!stack)
        stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert(stack != MAP_FAILED);
    *t = (sim_thread){.state = THREAD_READY, .role = role, .name = name, .run = run, .payload = payload, .stack = stack};
    getcontext(&t->context);
    t->context.uc_stack.ss_sp = stack;
    t->context.uc_stack.ss_size = STACK_BYTES;
    t->context.uc_link = &sim.scheduler;
    makecontext(&t->context, enter, 0);
    return t;
}

void sim_thread_drop(sim_thread *thread)
{
    assert(thread != sim.current);
    if (thread->inside)
        sim.inside--;
    thread->inside = false;
    thread->state = THREAD_FREE;
}

/* ---- Scheduling */

static bool can_run(sim_thread *t)
{
    if (t->state != THREAD_WAITING)
        return t->state == THREAD_READY;
    return (t->condition && t->signalled) || (t->ready && t->ready(t->ready_payload)) || sim.now >= t->until;
}

static void run_thread(sim_thread *t)
{
    t->state = THREAD_READY;
    sim.current = t;
    swapcontext(&sim.scheduler, &t->context);
    sim.current = NULL;
}

/* One of those that can run, by chance; NULL: none. earliest: when the first of the others will. */
static sim_thread *choose(bool ghost, double *earliest)
{
    sim_thread *able[THREADS_MAX];
    uint32_t count = 0;
    *earliest = 1e300;
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        sim_thread *t = &sim.threads[i];
        if (t->state == THREAD_FREE || t->state == THREAD_OVER || (ghost && t->role != ROLE_DAEMON && !t->inside))
            continue;
        if (can_run(t))
            able[count++] = t;
        else if (t->until < *earliest)
            *earliest = t->until;
    }
    return count ? able[count > 1 ? sim_below(count) : 0] : NULL;
}

bool sim_run(bool (*over)(void), bool ghost, double until, unsigned turns_max)
{
    for (unsigned turn = 0; !over() && !sim_failed(); turn++) {
        double earliest;
        sim_thread *t = choose(ghost, &earliest);
        if (turn == turns_max || sim.now > until || (!t && earliest >= 1e300))
            return false;
        if (!t) {
            sim.now = earliest;
            continue;
        }
        sim.now += sim.pace * (double)(1 + sim_below(16)) / 8;
        sim_trace((uint64_t)(t - sim.threads) << 48 ^ (uint64_t)(sim.now * 1e6));
        run_thread(t);
    }
    return !sim_failed();
}

static void give_way(void)
{
    sim_thread *self = sim.current;
    swapcontext(&self->context, &sim.scheduler);
}

void sim_yield(void)
{
    if (sim.current)
        give_way();
}

void sim_maybe_yield(uint32_t per_thousand)
{
    if (sim.current && sim_chance(per_thousand)) {
        sim_count_one(COUNT_PREEMPTIONS);
        give_way();
    }
}

bool sim_wait(bool (*ready)(void *), void *payload, double until)
{
    sim_thread *self = sim.current;
    if (ready && ready(payload))
        return true;
    if (!self)
        return false;
    self->ready = ready;
    self->ready_payload = payload;
    self->until = until;
    self->condition = NULL;
    self->state = THREAD_WAITING;
    give_way();
    self->ready = NULL;
    return !ready || ready(payload);
}

void sim_sleep(double seconds)
{
    sim_wait(NULL, NULL, sim.now + seconds);
}

/* ---- What the program calls */

int __wrap_clock_gettime(clockid_t id, struct timespec *out)
{
    const double now = id == CLOCK_REALTIME ? (double)sim_wall_ms() / 1000 : sim.now;
    out->tv_sec = (time_t)now;
    out->tv_nsec = (long)((now - (double)out->tv_sec) * 1e9);
    return 0;
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes, void *(*run)(void *), void *payload)
{
    (void)attributes;
    sim_thread *t = sim_thread_start("thread", ROLE_DAEMON, run, payload);
    memcpy(out, &t, sizeof t);
    sim_maybe_yield(PREEMPT);
    return 0;
}

static bool is_over(void *payload)
{
    return sim_thread_over(payload);
}

int __wrap_pthread_join(pthread_t thread, void **result)
{
    sim_thread *t;
    (void)result;
    memcpy(&t, &thread, sizeof t);
    sim_wait(is_over, t, 1e300);
    t->state = THREAD_FREE;
    return 0;
}

/* A mutex is held while its first word is 1: initialised ones start with 0, and the library never sees it. */
static bool is_free(void *mutex)
{
    return *(int *)mutex == 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    sim_maybe_yield(PREEMPT);
    if (!sim.current && !is_free(mutex)) {
        fprintf(stderr, "the scheduler cannot wait for a lock\n");
        abort();
    }
    while (!is_free(mutex))
        sim_wait(is_free, mutex, 1e300);
    *(int *)(void *)mutex = 1;
    return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    assert(!is_free(mutex) && "a lock is let go that nobody holds");
    *(int *)(void *)mutex = 0;
    sim_maybe_yield(PREEMPT);
    return 0;
}

/* Until a signal, or the time; now and then nobody signalled, as the standard allows. */
static void wait_for_signal(pthread_cond_t *condition, pthread_mutex_t *mutex, double until)
{
    sim_thread *self = sim.current;
    *(int *)(void *)mutex = 0;
    self->condition = condition;
    self->signalled = sim_chance(5);
    self->until = until;
    self->ready = NULL;
    self->state = THREAD_WAITING;
    give_way();
    self->condition = NULL;
    while (!is_free(mutex))
        sim_wait(is_free, mutex, 1e300);
    *(int *)(void *)mutex = 1;
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    wait_for_signal(condition, mutex, 1e300);
    return 0;
}

/* Wall-clock moments are told from monotonic ones by their size. */
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until)
{
    const double at = (double)until->tv_sec + 1e-9 * (double)until->tv_nsec;
    const double end = at > 1e8 ? at - (double)sim.wall_offset_ms / 1000 : at;
    wait_for_signal(condition, mutex, end);
    return !sim.current->signalled && sim.now >= end ? ETIMEDOUT : 0;
}

static void signal_some(const pthread_cond_t *condition, bool all)
{
    sim_thread *waiting[THREADS_MAX];
    uint32_t count = 0;
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        sim_thread *t = &sim.threads[i];
        if (t->state == THREAD_WAITING && t->condition == condition && !t->signalled)
            waiting[count++] = t;
    }
    if (count && !all)
        waiting[sim_below(count)]->signalled = true;
    for (uint32_t i = 0; all && i < count; i++)
        waiting[i]->signalled = true;
    sim_maybe_yield(PREEMPT);
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
    signal_some(condition, false);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *condition)
{
    signal_some(condition, true);
    return 0;
}
