/* The lanes of a simulated worker: admitted, entered, stepped, snapshotted, finished, let go; and what the worker holds the daemon to. */
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "tests/sim/worker_internal.h"

static bool is_broken(uint64_t seed)
{
    return (seed & 0xff) == 0xee;
}

static bool say_of(sim_worker *w, protocol_type type, const lane *l)
{
    const protocol_message m = {.type = type, .lane = l->id, .steps_done = l->steps_done, .steps_total = l->steps_total};
    return worker_say(w, &m);
}

static bool say_gone(sim_worker *w, uint64_t id)
{
    const protocol_message m = {.type = PROTOCOL_GONE, .lane = id};
    sim_count_one(COUNT_LANES_GONE);
    return worker_say(w, &m);
}

/* ---- Hearing */

static lane *lane_of(sim_worker *w, uint64_t id)
{
    for (size_t i = 0; i < SIM_LANES_MAX; i++)
        if (w->lanes[i].used && w->lanes[i].id == id)
            return &w->lanes[i];
    return NULL;
}

static void release(lane *l)
{
    free(l->request);
    *l = (lane){0};
}

static void take_snapshot(sim_worker *w, lane *l, const protocol_message *m)
{
    char expected[64];
    const int count = snprintf(expected, sizeof expected, "%s/%u@%u on ", l->job, l->index, m->steps_done);
    if (m->data.count != (size_t)count + 1 || memcmp(m->data.bytes, expected, (size_t)count) != 0)
        sim_wrong("lane %llu of job %s got a snapshot that is not its own", (unsigned long long)l->id, l->job);
    l->steps_done = m->steps_done;
    sim_count_one(m->data.bytes[count] == (unsigned char)('0' + w->slot) ? COUNT_RESUMED : COUNT_MOVED);
}

static bool works_at(const sim_worker *w, const char *job)
{
    for (size_t i = 0; i < SIM_LANES_MAX; i++)
        if (w->lanes[i].used && strcmp(w->lanes[i].job, job) == 0)
            return true;
    return false;
}

static bool admit(sim_worker *w, const protocol_message *m)
{
    lane *l = NULL;
    unsigned used = 0;
    for (size_t i = 0; i < SIM_LANES_MAX; i++) {
        used += w->lanes[i].used;
        if (!w->lanes[i].used)
            l = &w->lanes[i];
    }
    if (!l || used >= plan.credit || lane_of(w, m->lane)) {
        sim_wrong("a lane beyond the credit of %u, or twice", plan.credit);
        return false;
    }
    if (w->draining)
        return say_gone(w, m->lane);
    *l = (lane){.used = true, .id = m->lane, .index = m->index, .steps_total = m->steps_total};
    protocol_copy_text(l->job, sizeof l->job, m->name);
    l->request = strndup((const char *)m->text.bytes, m->text.count);
    l->request_bytes = m->text.count;
    l->token = oracle_running(l->job);
    if (oracle_database() && !l->token)
        sim_wrong("job %s is given to the worker, and does not run", l->job);
    if (!api_request_from_json(&l->parsed, l->request, l->request_bytes))
        sim_wrong("job %s has a request that cannot be read", l->job);
    for (unsigned slot = 0; slot < plan.workers; slot++)
        if (slot != w->slot && works_at(&machine.workers[slot], l->job))
            sim_count_one(COUNT_SPREAD);
    if (m->data.count)
        take_snapshot(w, l, m);
    return true;
}

/* An image that was acknowledged and has no row must never get one under the same claim. */
static void stored(lane *l)
{
    bool known = false;
    sim_count_one(COUNT_STORED);
    if (!l->sent)
        sim_wrong("lane %llu is called stored before its image was sent", (unsigned long long)l->id);
    const bool there = oracle_has_image(l->job, l->index, &known);
    if (known && !there && machine.told_count < SIM_JOBS_MAX) {
        early *e = &machine.told_early[machine.told_count++];
        snprintf(e->job, sizeof e->job, "%s", l->job);
        e->index = l->index;
        e->token = l->token;
    }
    release(l);
}

static bool say_snapshot(sim_worker *w, const lane *l)
{
    char text[64];
    const int count = snprintf(text, sizeof text, "%s/%u@%u on %u", l->job, l->index, l->steps_done, w->slot);
    const protocol_message m = {.type = PROTOCOL_SNAPSHOT,
                                .lane = l->id,
                                .steps_done = l->steps_done,
                                .steps_total = l->steps_total,
                                .data = {(const unsigned char *)text, (size_t)count}};
    sim_count_one(COUNT_SNAPSHOTS);
    return worker_say(w, &m);
}

static bool cancel(sim_worker *w, uint64_t id)
{
    lane *l = lane_of(w, id);
    if (l)
        release(l);
    return say_gone(w, id);
}

static bool drain(sim_worker *w)
{
    bool fine = true;
    w->draining = true;
    for (size_t i = 0; fine && i < SIM_LANES_MAX; i++) {
        lane *l = &w->lanes[i];
        if (!l->used || l->sent)
            continue;
        if (l->steps_done)
            fine = say_snapshot(w, l);
        fine = fine && cancel(w, l->id);
    }
    const protocol_message m = {.type = PROTOCOL_DRAINED};
    return fine && worker_say(w, &m);
}

bool worker_hear(sim_worker *w, const protocol_message *m)
{
    const protocol_message alive = {.type = PROTOCOL_ALIVE};
    lane *l = lane_of(w, m->lane);
    switch (m->type) {
    case PROTOCOL_ADMIT:
        return admit(w, m);
    case PROTOCOL_CANCEL:
        return cancel(w, m->lane);
    case PROTOCOL_STORED:
        if (l)
            stored(l);
        return true;
    case PROTOCOL_DRAIN:
        return drain(w);
    case PROTOCOL_PING:
        return worker_say(w, &alive);
    case PROTOCOL_WATCH:
        if (l)
            l->watched = m->state;
        return true;
    default:
        sim_wrong("the daemon sent a message of type %d", (int)m->type);
        return false;
    }
}

/* ---- Working */

static bool say_image(sim_worker *w, lane *l)
{
    unsigned char png[SIM_PICTURE_BYTES];
    const size_t count = sim_picture(png, l->request, l->request_bytes, l->index);
    protocol_message m = {.type = PROTOCOL_IMAGE,
                          .lane = l->id,
                          .steps_done = l->steps_total,
                          .steps_total = l->steps_total,
                          .width = 8,
                          .height = 8,
                          .data = {png, count}};
    dn_sha256_of(m.sha256, png, count);
    memcpy(m.pixels_sha256, m.sha256, sizeof m.sha256);
    sim_count_one(COUNT_IMAGES);
    l->sent = true;
    return worker_say(w, &m);
}

static bool say_failed(sim_worker *w, lane *l)
{
    const protocol_message m = {.type = PROTOCOL_FAILED, .lane = l->id, .state = PROTOCOL_FAILED_ENGINE, .text = protocol_text("broken")};
    release(l);
    sim_count_one(COUNT_LANES_FAILED);
    return worker_say(w, &m);
}

/* Lanes that wait enter while there are rows; a poisoned one ends the process. False: it has ended. */
bool worker_enter_waiting(sim_worker *w)
{
    unsigned rows = 0;
    for (size_t i = 0; i < SIM_LANES_MAX; i++)
        rows += w->lanes[i].used && w->lanes[i].entered;
    for (size_t i = 0; i < SIM_LANES_MAX; i++) {
        lane *l = &w->lanes[i];
        if (!l->used || l->entered || l->sent || rows >= plan.rows)
            continue;
        if (sim_is_poison(l->parsed.seed + l->index)) {
            sim_count_one(COUNT_POISON_DEATHS);
            if (l->parsed.seed >> 8 & 1)
                return worker_say_lost(w);
            worker_end_process(w, 6);
            return false;
        }
        l->entered = true;
        l->aside = false;
        rows++;
        const protocol_message m = {.type = PROTOCOL_ADMITTED,
                                    .lane = l->id,
                                    .steps_done = l->steps_done,
                                    .steps_total = l->steps_total,
                                    .text = protocol_text("")};
        if (!worker_say(w, &m))
            return false;
    }
    return true;
}

static bool step(sim_worker *w, lane *l, protocol_tick_lane *told)
{
    l->steps_done++;
    *told = (protocol_tick_lane){l->id, l->steps_done, l->steps_total};
    if (is_broken(l->parsed.seed + l->index) && l->steps_done * 2 >= l->steps_total)
        return say_failed(w, l);
    if (l->steps_done >= l->steps_total) {
        l->entered = false;
        return say_image(w, l);
    }
    if (sim_chance(10)) {
        l->entered = false;
        sim_count_one(COUNT_ASIDE);
        return say_of(w, PROTOCOL_ASIDE, l);
    }
    return true;
}

bool worker_tick_once(sim_worker *w)
{
    protocol_tick_lane told[SIM_LANES_MAX];
    uint32_t count = 0;
    bool fine = true;
    for (size_t i = 0; fine && i < SIM_LANES_MAX; i++)
        if (w->lanes[i].used && w->lanes[i].entered)
            fine = step(w, &w->lanes[i], &told[count++]);
    const protocol_message m = {.type = PROTOCOL_TICK, .rows = count, .seconds = plan.tick + w->slow, .lanes = told, .lane_count = count};
    if (fine && count)
        fine = worker_say(w, &m);
    const bool due = sim_now() - w->last_snapshot >= plan.snapshot_every;
    for (size_t i = 0; fine && due && i < SIM_LANES_MAX; i++)
        if (w->lanes[i].used && w->lanes[i].entered && w->lanes[i].steps_done)
            fine = say_snapshot(w, &w->lanes[i]);
    if (due)
        w->last_snapshot = sim_now();
    return fine;
}
