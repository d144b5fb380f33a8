/* The simulated workers: they speak the real protocol over the sockets they were given, make pictures out of nothing but the request, and
 * die, freeze, lose their device or talk nonsense when told to. One lives at a time on each device, as one coroutine.
 *
 * It checks the daemon from its side: a lane comes only after its job's claim was committed, a snapshot is of this very lane, STORED comes
 * only after the image's row (or of an image that nobody will ever store), and never more lanes come than it gave credit for. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/sim/worker_internal.h"

sim_machine machine;

bool sim_is_poison(uint64_t seed)
{
    return (seed & 0xff) == 0x66;
}

size_t sim_picture(unsigned char *out, const char *request_json, size_t request_bytes, uint32_t index)
{
    uint64_t hash = 1469598103934665603u + index;
    for (size_t i = 0; i < request_bytes; i++)
        hash = (hash ^ (unsigned char)request_json[i]) * 1099511628211u;
    const size_t count = 24 + hash % (SIM_PICTURE_BYTES - 24);
    memcpy(out, "\x89PNG", 4);
    for (size_t i = 4; i < count; i++) {
        hash = hash * 6364136223846793005u + 1442695040888963407u;
        out[i] = (unsigned char)(hash >> 56);
    }
    return count;
}

/* ---- Life and death */

void sim_worker_reset(void)
{
    for (unsigned slot = 0; slot < SIM_WORKERS_MAX; slot++) {
        sim_worker *w = &machine.workers[slot];
        for (size_t i = 0; i < SIM_LANES_MAX; i++)
            free(w->lanes[i].request);
        if (w->alive)
            protocol_pipe_done(&w->pipe);
    }
    memset(&machine, 0, sizeof machine);
    for (unsigned slot = 0; slot < SIM_WORKERS_MAX; slot++)
        machine.workers[slot] = (sim_worker){.slot = slot, .pipe.fd = -1};
}

unsigned sim_worker_deaths(void)
{
    return machine.deaths;
}

static sim_worker *worker_with(int pid)
{
    for (unsigned slot = 0; slot < SIM_WORKERS_MAX; slot++)
        if (machine.workers[slot].pid == pid)
            return &machine.workers[slot];
    return NULL;
}

bool sim_worker_alive(int pid)
{
    const sim_worker *w = worker_with(pid);
    return w && w->alive;
}

int sim_worker_status(int pid)
{
    const sim_worker *w = worker_with(pid);
    return w ? w->status : 0;
}

void worker_end_process(sim_worker *w, int status)
{
    w->alive = false;
    w->status = status;
    machine.deaths++;
    protocol_pipe_done(&w->pipe);
    for (size_t i = 0; i < SIM_LANES_MAX; i++) {
        free(w->lanes[i].request);
        w->lanes[i] = (lane){0};
    }
    sim_say("worker %d ended with status %d", w->pid, status);
}

void sim_worker_kill(int pid)
{
    sim_worker *w = worker_with(pid);
    if (!w || !w->alive)
        return;
    if (w->thread != sim_thread_self())
        sim_thread_drop(w->thread);
    worker_end_process(w, 9);
}

/* The daemon is gone: the system ends its workers. */
void sim_worker_orphaned(void)
{
    for (unsigned slot = 0; slot < SIM_WORKERS_MAX; slot++)
        if (machine.workers[slot].alive)
            sim_worker_kill(machine.workers[slot].pid);
}

/* One of those that live, if any. */
void sim_worker_trouble(sim_trouble kind)
{
    static const sim_count counts[] = {COUNT_WORKER_KILLS, COUNT_WORKER_FROZEN, COUNT_WORKER_GARBAGE, COUNT_WORKER_MID_FRAME,
                                       COUNT_WORKER_SLOW,  COUNT_DEVICE_LOST,   COUNT_DEVICE_BROKEN};
    sim_worker *w = &machine.workers[plan.workers > 1 ? sim_below(plan.workers) : 0];
    if (!w->alive)
        return;
    sim_count_one(counts[kind]);
    sim_say("worker %d: trouble %d", w->pid, kind);
    w->frozen |= kind == TROUBLE_FREEZE;
    w->garbage |= kind == TROUBLE_GARBAGE;
    w->mid_frame |= kind == TROUBLE_MID_FRAME;
    w->losing |= kind == TROUBLE_DEVICE_LOST || kind == TROUBLE_DEVICE_BROKEN;
    w->broken |= kind == TROUBLE_DEVICE_BROKEN;
    if (kind == TROUBLE_SLOW)
        w->slow = 0.5;
    if (kind == TROUBLE_KILL)
        sim_worker_kill(w->pid);
}

void sim_worker_well(bool well)
{
    machine.well = well;
    machine.refuse = 0;
    for (unsigned slot = 0; slot < SIM_WORKERS_MAX; slot++) {
        machine.workers[slot].slow = 0;
        machine.workers[slot].broken = false;
    }
}

void sim_worker_refuse(unsigned times)
{
    machine.refuse = times;
}

bool sim_worker_told_early(const char *job, unsigned index, int64_t token)
{
    for (size_t i = 0; i < machine.told_count; i++)
        if (machine.told_early[i].token == token && machine.told_early[i].index == index && strcmp(machine.told_early[i].job, job) == 0)
            return true;
    return false;
}

/* ---- Speaking */

bool worker_say(sim_worker *w, const protocol_message *m)
{
    dn_error error;
    if (protocol_unsent(&w->pipe) > (4u << 20))
        return true; /* the daemon has long stopped listening */
    w->last_said = sim_now();
    return protocol_send(&w->pipe, m, &error) == DN_OK;
}

bool worker_say_lost(sim_worker *w)
{
    const protocol_message m = {.type = PROTOCOL_LOST, .text = protocol_text("the device does not answer")};
    dn_error error;
    if (worker_say(w, &m))
        protocol_flush(&w->pipe, &error);
    worker_end_process(w, 1);
    return false;
}

static bool say_model(sim_worker *w, unsigned i)
{
    char name[16];
    snprintf(name, sizeof name, "model-%u", i);
    api_model model = {.width = 8, .height = 8, .channels = 1, .guidance = true, .class_count = 0, .samplers = ~0ull, .default_steps = 4};
    snprintf(model.name, sizeof model.name, "%s", name);
    snprintf(model.architecture, sizeof model.architecture, "Simulated");
    snprintf(model.default_sampler, sizeof model.default_sampler, "ddim");
    snprintf(model.model_sampler, sizeof model.model_sampler, "ddim");
    snprintf(model.device, sizeof model.device, "cpu");
    snprintf(model.precision, sizeof model.precision, "fp32");
    snprintf(model.build, sizeof model.build, "sim");
    memset(model.weights_sha256, '0', 64);
    const bool failed = plan.bad_model == i && i && !machine.well;
    char *json = failed ? strdup("it cannot be read") : api_model_to_json(&model);
    if (failed)
        sim_count_one(COUNT_MODEL_FAILED);
    const protocol_message m = {.type = PROTOCOL_MODEL,
                                .rows = plan.rows,
                                .state = failed ? PROTOCOL_MODEL_FAILED
                                         : i    ? PROTOCOL_MODEL_UNLOADED
                                                : PROTOCOL_MODEL_READY,
                                .text = protocol_text(name),
                                .data = protocol_text(json)};
    const bool said = worker_say(w, &m);
    free(json);
    return said;
}

static bool say_table(sim_worker *w)
{
    static tick_table table;
    unsigned char packed[DN_BATCH_ROWS_MAX * TICK_TABLE_PACKED_BYTES];
    memset(&table, 0, sizeof table);
    tick_table_measured(&table, 1, plan.tick);
    tick_table_measured(&table, plan.rows, plan.tick * 1.5);
    const size_t count = tick_table_pack(&table, packed);
    const protocol_message m = {.type = PROTOCOL_TABLE, .rows = plan.rows, .text = protocol_text("model-0"), .data = {packed, count}};
    return worker_say(w, &m);
}

static bool introduce(sim_worker *w)
{
    const protocol_message hello = {.type = PROTOCOL_HELLO, .state = PROTOCOL_VERSION, .credit = plan.credit};
    bool fine = worker_say(w, &hello);
    sim_sleep(1e-3 * sim_below(100));
    for (unsigned i = 0; fine && i < plan.models; i++)
        fine = say_model(w, i);
    return fine && (plan.seed % 3 ? say_table(w) : true);
}

static bool listen_once(sim_worker *w)
{
    dn_error error;
    bool got = true;
    if (protocol_flush(&w->pipe, &error) != DN_OK || protocol_fill(&w->pipe, &error) != DN_OK)
        return false;
    while (got) {
        protocol_message m;
        if (protocol_receive(&w->pipe, &m, &got, &error) != DN_OK) {
            sim_wrong("the daemon's bytes cannot be read: %s", error.message);
            return false;
        }
        if (got && !worker_hear(w, &m))
            return false;
    }
    return !w->pipe.ended;
}

static bool talk_nonsense(sim_worker *w)
{
    static const unsigned char frame[] = {3, 0, 0, 0, 77, 0, 0, 0, 1, 2, 3}, half[] = {200, 0, 0, 0, PROTOCOL_IMAGE, 0, 0, 0, 9};
    if (w->garbage)
        send(w->pipe.fd, frame, sizeof frame, 0);
    else
        send(w->pipe.fd, half, sizeof half, 0);
    return w->garbage;
}

static void *run(void *payload)
{
    sim_worker *w = payload;
    bool fine = !w->broken ? introduce(w) : worker_say_lost(w);
    double next = sim_now();
    while (fine && w->alive) {
        struct pollfd fd = {.fd = w->pipe.fd, .events = POLLIN};
        const double wait = next - sim_now();
        poll(&fd, 1, wait > 0 ? (int)(wait * 1000) + 1 : 1);
        if (w->frozen) {
            sim_sleep(1000);
            continue;
        }
        fine = listen_once(w);
        if (fine && (w->garbage || w->mid_frame))
            fine = talk_nonsense(w);
        if (fine && w->losing)
            fine = worker_say_lost(w);
        const protocol_message alive = {.type = PROTOCOL_ALIVE};
        if (fine && sim_now() - w->last_said > plan.freeze / 4)
            fine = worker_say(w, &alive);
        if (fine && sim_now() >= next) {
            next = sim_now() + plan.tick + w->slow;
            fine = worker_enter_waiting(w) && worker_tick_once(w);
        }
    }
    if (w->alive)
        worker_end_process(w, 0);
    return NULL;
}

int sim_worker_start(int fd, unsigned slot)
{
    sim_worker *w = &machine.workers[slot];
    if (machine.refuse || w->alive) {
        if (w->alive)
            sim_wrong("a second worker is started on device %u", slot);
        sim_count_one(COUNT_SPAWN_REFUSED);
        machine.refuse -= machine.refuse > 0;
        return -1;
    }
    w->pid = ++machine.last_pid;
    w->alive = true;
    w->draining = w->frozen = w->garbage = w->mid_frame = w->losing = false;
    w->slow = 0;
    /* The daemon closes its copy of the descriptor: this one is the process's own. */
    const int own = sim_fd_open(FD_SOCKET), peer = sim_fd_at(fd)->peer;
    sim_fd_at(own)->peer = peer;
    sim_fd_at(peer)->peer = own;
    sim_fd_at(fd)->peer = -1;
    protocol_pipe_init(&w->pipe, own);
    sim_count_one(COUNT_WORKER_STARTS);
    w->thread = sim_thread_start("worker", ROLE_WORKER, run, w);
    return w->pid;
}
