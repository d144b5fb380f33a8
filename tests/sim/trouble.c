/* Trouble, as the seed has it: the daemon killed or its power cut (now and then while it recovers), drains, disks that fail or are full,
 * workers that die, freeze or talk nonsense, clocks that jump. It ends; then everything must come right by itself. */
#include "tests/sim/world.h"

#include <stddef.h>

#define CALM_SECONDS 400.0 /* after the last trouble, at most, until everything has ended */

static bool over;
static sim_end wanted;

bool trouble_over(void)
{
    return over;
}

void trouble_forget(void)
{
    wanted = END_OF_LIFE_NONE;
}

sim_end trouble_wants(void)
{
    return wanted;
}

static void end_life(sim_end how)
{
    sim_count_one(how == END_OF_LIFE_KILL ? COUNT_KILLS : COUNT_POWER_CUTS);
    if (!daemon_.up)
        sim_count_one(COUNT_KILLS_IN_RECOVERY);
    wanted = how;
    sim_yield(); /* the scheduler does it */
}

static void kill_soon(sim_end how)
{
    end_life(how);
    while (sim_chance(300)) { /* again, in the midst of recovery */
        sim_sleep(1e-3 * sim_below(30));
        end_life(how);
    }
}

static void disk_trouble(void)
{
    const sim_disk_fault kind = FAULT_FULL + sim_below(3);
    sim_say("trouble: disk fault %d", kind);
    sim_disk_fault_in(kind, sim_below(60), sim_chance(400));
    sim_sleep(0.01 * sim_below(200));
    sim_disk_heal();
}

static void fill_disk(void)
{
    sim_say("trouble: the disk fills up");
    sim_disk_room((9u << 20) + sim_below(300000));
    sim_sleep(0.02 * sim_below(200));
    sim_disk_room(1ull << 30);
}

/* For so long that pictures are given up. */
static void starve(void)
{
    sim_say("trouble: the disk stays full");
    sim_disk_fault_in(FAULT_FULL, sim_below(60), true);
    sim_sleep(75);
    sim_disk_heal();
}

static void drain(void)
{
    daemon_term(0.2 * sim_below(10));
    if (sim_chance(400)) {
        sim_sleep(0.05 * sim_below(10));
        daemon_term(0);
    }
    if (sim_chance(200)) { /* a kill in the midst of it */
        sim_sleep(0.05 * sim_below(10));
        end_life(END_OF_LIFE_KILL);
    }
}

/* A month at once: what had expired is forgotten. Only what had expired: the audit sees to it. */
static void pass_a_month(void)
{
    if (!daemon_.up || !plan.keeps_short)
        return;
    audit(false);
    audit_month_passed();
    sim_jump_clock(31 * 24 * 3600 * 1000ll);
}

static void jump(void)
{
    static const int64_t by[] = {-24 * 3600 * 1000ll, 24 * 3600 * 1000ll, -3000, 3000, 130 * 1000};
    const uint32_t kind = sim_below(6);
    sim_count_one(COUNT_CLOCK_JUMPS);
    if (kind == 5)
        pass_a_month();
    else
        sim_jump_clock(by[kind]);
}

static void make_trouble(void)
{
    const uint32_t kind = sim_below(100);
    if (kind < 14)
        kill_soon(END_OF_LIFE_KILL);
    else if (kind < 26)
        kill_soon(END_OF_LIFE_POWER);
    else if (kind < 34)
        drain();
    else if (kind < 47)
        disk_trouble();
    else if (kind < 52)
        fill_disk();
    else if (kind < 53)
        starve();
    else if (kind < 58)
        jump();
    else if (kind < 61)
        late_results();
    else if (kind < 64)
        sim_worker_refuse(1 + sim_below(3));
    else
        sim_worker_trouble((sim_trouble)sim_below(TROUBLE_KINDS));
}

/* Whoever posted it and never heard of it: a job that is there ends. */
static bool all_ended(void *payload)
{
    oracle_counts now;
    (void)payload;
    return clients_over() && daemon_.up && oracle_open() && oracle_count(&now) && now.pending == 0;
}

static void *run(void *payload)
{
    (void)payload;
    for (unsigned i = 0; i < plan.troubles; i++) {
        sim_sleep(1e-3 * sim_below(sim_chance(300) ? 2000 : 300));
        make_trouble();
    }
    sim_disk_heal();
    sim_disk_room(1ull << 30);
    sim_worker_well(true);
    const double until = sim_now() + CALM_SECONDS;
    while (!all_ended(NULL)) {
        sim_sleep(0.2);
        if (sim_now() > until)
            sim_wrong("there is no trouble any more, and jobs do not end");
    }
    over = true;
    return NULL;
}

void trouble_start(void)
{
    over = false;
    wanted = END_OF_LIFE_NONE;
    sim_thread_start("trouble", ROLE_NEMESIS, run, NULL);
}
