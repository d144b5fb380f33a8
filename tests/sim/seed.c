/* One seed: chance, the trace, the plan, lives of the daemon one after another until trouble and clients are done, then the last look.
 *
 * The history ends with everything in order: no trouble any more, every accepted job ended, the daemon drained; after one in eight it starts
 * once more. */
#include "tests/sim/seed.h"

#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/world.h"

#define TIME_MAX 3000.0
#define TURNS_MAX 300000u

sim_plan plan;

static struct {
    uint64_t state, hash;
    sim_totals *totals;
    bool verbose, failed;
    sim_thread *daemon;
    unsigned char *database, *lock; /* an empty database, to begin with */
    size_t database_bytes, lock_bytes;
} own;

/* ---- Chance and the trace */

uint64_t sim_random(void)
{
    uint64_t z = own.state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t sim_below(uint32_t limit)
{
    return limit ? (uint32_t)((sim_random() >> 32) * limit >> 32) : 0;
}

bool sim_chance(uint32_t per_thousand)
{
    return sim_below(1000) < per_thousand;
}

void sim_trace(uint64_t what)
{
    own.hash = (own.hash ^ what) * 1099511628211u;
    own.hash ^= own.hash >> 29;
}

void sim_trace_bytes(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        own.hash = (own.hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
}

void sim_count_one(sim_count kind)
{
    own.totals->counts[kind]++;
}

const char *sim_count_name(unsigned kind)
{
#define SIM_TEXT(name) #name,
    static const char *const names[] = {SIM_COUNTS(SIM_TEXT)};
#undef SIM_TEXT
    return kind < SIM_COUNT_KINDS ? names[kind] : NULL;
}

void sim_say(const char *format, ...)
{
    if (!own.verbose)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%11.4f ", sim_now());
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

void sim_wrong(const char *format, ...)
{
    if (own.failed)
        return;
    own.failed = true;
    va_list arguments;
    va_start(arguments, format);
    const int used = snprintf(own.totals->wrong, sizeof own.totals->wrong, "at %.4f s: ", sim_now() - 1000);
    vsnprintf(own.totals->wrong + used, sizeof own.totals->wrong - (size_t)used, format, arguments);
    va_end(arguments);
    sim_say("WRONG %s", own.totals->wrong);
}

bool sim_failed(void)
{
    return own.failed;
}

/* ---- What a seed is about */

static void make_plan(uint64_t seed)
{
    own.state = seed * 0x2545f4914f6cdd1du + 0x1234567;
    own.hash = 1469598103934665603u;
    plan = (sim_plan){.seed = seed, .calm = seed % 16 == 7};
    plan.models = 1 + sim_below(SIM_MODELS_MAX);
    plan.clients = seed % 32 == 7 ? 1 : 1 + sim_below(3);
    plan.operations = 1 + sim_below(7);
    plan.troubles = plan.calm ? 0 : 1 + sim_below(3);
    plan.credit = 2 + sim_below(SIM_LANES_MAX - 2);
    plan.rows = 1 + sim_below(8);
    plan.tick = 0.004 * (1 + sim_below(10));
    plan.snapshot_every = 0.02 * (1 + sim_below(10));
    plan.freeze = 0.3 + 0.1 * sim_below(20);
    plan.queue_jobs_max = sim_chance(250) ? 2 + sim_below(6) : 0;
    plan.client_jobs_max = sim_chance(250) ? 2 + sim_below(6) : 0;
    plan.keeps_short = sim_chance(300);
    plan.keep_ms = plan.keeps_short ? 300 + sim_below(3000) : 3600 * 1000;
    plan.keep_bytes = sim_chance(200) ? 100 + sim_below(1000) : 0;
    plan.workers = seed / 32 % 2 ? 2 + (seed / 64 % 4 == 1) : 1;
    plan.fresh = seed % 32 == 3;
    plan.bad_model = sim_below(4) == 0 && plan.models > 1 ? 1 + sim_below(plan.models - 1) : 0;
}

static void put_file(const char *path, const unsigned char *bytes, size_t count)
{
    sim_file_write(sim_file_make(path), bytes, count, 0);
}

static void reset(void)
{
    own.failed = false;
    sim_threads_reset();
    sim_worker_reset();
    sim_fds_reset();
    sim_disk_reset();
    sim_vfs_forget();
    ledger_reset();
    audit_reset();
    trouble_forget();
    sim_socket_limit(sim_chance(100) ? 2000 : 200 << 10);
    if (own.database && !plan.fresh) {
        put_file("data/denoised.db", own.database, own.database_bytes);
        put_file("data/denoised.lock", own.lock, own.lock_bytes);
    }
    sim_disk_settle();
    sim_set_pace(plan.calm ? 5e-6 : 5e-6 * (1 + sim_below(40)));
}

/* ---- Lives */

static bool daemon_over(void)
{
    return sim_thread_over(own.daemon);
}

static bool daemon_up(void)
{
    return daemon_.up || daemon_over();
}

static bool everything_over(void)
{
    return clients_over() && trouble_over();
}

static bool life_over(void)
{
    return trouble_wants() || daemon_over() || everything_over();
}

/* The process is gone: what it had open, and its worker. */
static void bury(void)
{
    sim_thread_drop(own.daemon);
    sim_worker_orphaned();
    oracle_close();
    sim_vfs_forget();
    sim_fds_reset();
}

/* The daemon's end at this very moment. Its ghost takes no time, and no chance of the living. */
static void kill_daemon(bool power)
{
    const double now = sim_now();
    sim_say(power ? "power cut" : "kill");
    trouble_forget();
    sim_disk_dead(true);
    sim_worker_orphaned();
    oracle_close();
    daemon_stop_now();
    if (!sim_run(daemon_over, true, now + TIME_MAX, TURNS_MAX))
        sim_wrong("a daemon that was killed cannot be taken down");
    sim_disk_dead(false);
    if (power)
        sim_disk_power_cut();
    sim_set_now(now);
    bury();
}

static void lives(void)
{
    const double until = sim_now() + TIME_MAX;
    while (!own.failed) {
        if (!sim_run(life_over, false, until, TURNS_MAX)) {
            sim_wrong("nothing goes on any more, or too long");
            return;
        }
        const sim_end end = trouble_wants();
        if (end)
            kill_daemon(end == END_OF_LIFE_POWER);
        else if (daemon_over())
            bury();
        else
            return;
        sim_set_now(sim_now() + 0.01 * sim_below(20));
        own.daemon = daemon_start();
    }
}

static void orderly_end(void)
{
    daemon_term(1);
    if (!sim_run(daemon_over, false, sim_now() + TIME_MAX, TURNS_MAX))
        sim_wrong("the daemon does not drain");
    bury();
}

static void last_look(void)
{
    own.daemon = daemon_start();
    daemon_.last = true;
    if (!sim_run(daemon_up, false, sim_now() + TIME_MAX, TURNS_MAX) || !daemon_.opened)
        sim_wrong("the daemon does not start again");
    daemon_stop_now();
    if (!sim_run(daemon_over, false, sim_now() + TIME_MAX, TURNS_MAX))
        sim_wrong("the daemon does not end");
    bury();
}

bool sim_run_seed(uint64_t seed, uint64_t *hash)
{
    own.totals->running = seed;
    make_plan(seed);
    reset();
    own.daemon = daemon_start();
    trouble_start();
    clients_start();
    lives();
    if (!own.failed)
        orderly_end();
    if (!own.failed && (seed % 8 == 0 || plan.fresh))
        last_look();
    *hash = own.hash;
    return !own.failed;
}

/* ---- Once a process: the empty database that most seeds begin with, with small pages to be quick */

static unsigned char *keep(const char *path, size_t *count)
{
    const sim_file *file = sim_file_find(path);
    *count = file ? sim_file_size(file) : 0;
    unsigned char *copy = malloc(*count + 1);
    if (*count)
        memcpy(copy, sim_file_bytes(file), *count);
    return copy;
}

void sim_prepare(sim_totals *totals, bool verbose)
{
    own.totals = totals;
    own.verbose = false;
    sim_vfs_register();
    make_plan(0);
    plan.clients = plan.troubles = 0;
    reset();
    sqlite3 *db = NULL;
    if (sqlite3_open("data/denoised.db", &db) != SQLITE_OK ||
        sqlite3_exec(db, "PRAGMA page_size=1024; VACUUM", NULL, NULL, NULL) != SQLITE_OK)
        abort();
    sqlite3_close(db);
    sim_vfs_forget();
    last_look();
    if (own.failed) {
        fprintf(stderr, "the simulator cannot begin: %s\n", totals->wrong);
        abort();
    }
    own.database = keep("data/denoised.db", &own.database_bytes);
    own.lock = keep("data/denoised.lock", &own.lock_bytes);
    memset(totals, 0, sizeof *totals);
    own.verbose = verbose;
}
