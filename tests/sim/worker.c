/* The simulated worker: speaks the real protocol over the socket it was given, makes pictures out of nothing but the request, and dies,
 * freezes or talks nonsense when told to. One lives at a time, as one coroutine.
 *
 * It checks the daemon from its side: a lane comes only after its job's claim was committed, a snapshot is of this very lane, STORED comes
 * only after the image's row (or of an image that nobody will ever store), and never more lanes come than it gave credit for. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/sim/worker_internal.h"

sim_worker w;

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
    for (size_t i = 0; i < SIM_LANES_MAX; i++)
        free(w.lanes[i].request);
    if (w.alive)
        protocol_pipe_done(&w.pipe);
    memset(&w, 0, sizeof w);
    w.pipe.fd = -1;
}

unsigned sim_worker_deaths(void)
{
    return w.deaths;
}

bool sim_worker_alive(int pid)
{
    return w.alive && w.pid == pid;
}

int sim_worker_status(int pid)
{
    (void)pid;
    return w.status;
}

void worker_end_process(int status)
{
    w.alive = false;
    w.status = status;
    w.deaths++;
    protocol_pipe_done(&w.pipe);
    for (size_t i = 0; i < SIM_LANES_MAX; i++) {
        free(w.lanes[i].request);
        w.lanes[i] = (lane){0};
    }
    sim_say("worker %d ended with status %d", w.pid, status);
}

void sim_worker_kill(int pid)
{
    if (!sim_worker_alive(pid))
        return;
    if (w.thread != sim_thread_self())
        sim_thread_drop(w.thread);
    worker_end_process(9);
}

/* The daemon is gone: the system ends its worker. */
void sim_worker_orphaned(void)
{
    if (w.alive)
        sim_worker_kill(w.pid);
}

/* The one that lives, if any. */
void sim_worker_trouble(sim_trouble kind)
{
    static const sim_count counts[] = {COUNT_WORKER_KILLS, COUNT_WORKER_FROZEN, COUNT_WORKER_GARBAGE, COUNT_WORKER_MID_FRAME,
                                       COUNT_WORKER_SLOW};
    if (!w.alive)
        return;
    sim_count_one(counts[kind]);
    sim_say("worker %d: trouble %d", w.pid, kind);
    w.frozen |= kind == TROUBLE_FREEZE;
    w.garbage |= kind == TROUBLE_GARBAGE;
    w.mid_frame |= kind == TROUBLE_MID_FRAME;
    if (kind == TROUBLE_SLOW)
        w.slow = 0.5;
    if (kind == TROUBLE_KILL)
        sim_worker_kill(w.pid);
}

void sim_worker_well(bool well)
{
    w.well = well;
    w.refuse = 0;
    w.slow = 0;
}

void sim_worker_refuse(unsigned times)
{
    w.refuse = times;
}

bool sim_worker_told_early(const char *job, unsigned index, int64_t token)
{
    for (size_t i = 0; i < w.told_count; i++)
        if (w.told_early[i].token == token && w.told_early[i].index == index && strcmp(w.told_early[i].job, job) == 0)
            return true;
    return false;
}

/* ---- Speaking */

bool worker_say(const protocol_message *m)
{
    dn_error error;
    if (protocol_unsent(&w.pipe) > (4u << 20))
        return true; /* the daemon has long stopped listening */
    w.last_said = sim_now();
    return protocol_send(&w.pipe, m, &error) == DN_OK;
}

static bool say_model(unsigned i)
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
    const bool failed = plan.bad_model == i && i && !w.well;
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
    const bool said = worker_say(&m);
    free(json);
    return said;
}

static bool say_table(void)
{
    static tick_table table;
    unsigned char packed[DN_BATCH_ROWS_MAX * TICK_TABLE_PACKED_BYTES];
    memset(&table, 0, sizeof table);
    tick_table_measured(&table, 1, plan.tick);
    tick_table_measured(&table, plan.rows, plan.tick * 1.5);
    const size_t count = tick_table_pack(&table, packed);
    const protocol_message m = {.type = PROTOCOL_TABLE, .rows = plan.rows, .text = protocol_text("model-0"), .data = {packed, count}};
    return worker_say(&m);
}

static bool introduce(void)
{
    const protocol_message hello = {.type = PROTOCOL_HELLO, .state = PROTOCOL_VERSION, .credit = plan.credit};
    bool fine = worker_say(&hello);
    sim_sleep(1e-3 * sim_below(100));
    for (unsigned i = 0; fine && i < plan.models; i++)
        fine = say_model(i);
    return fine && (plan.seed % 3 ? say_table() : true);
}

static bool listen_once(void)
{
    dn_error error;
    bool got = true;
    if (protocol_flush(&w.pipe, &error) != DN_OK || protocol_fill(&w.pipe, &error) != DN_OK)
        return false;
    while (got) {
        protocol_message m;
        if (protocol_receive(&w.pipe, &m, &got, &error) != DN_OK) {
            sim_wrong("the daemon's bytes cannot be read: %s", error.message);
            return false;
        }
        if (got && !worker_hear(&m))
            return false;
    }
    return !w.pipe.ended;
}

static bool talk_nonsense(void)
{
    static const unsigned char frame[] = {3, 0, 0, 0, 77, 0, 0, 0, 1, 2, 3}, half[] = {200, 0, 0, 0, PROTOCOL_IMAGE, 0, 0, 0, 9};
    if (w.garbage)
        send(w.pipe.fd, frame, sizeof frame, 0);
    else
        send(w.pipe.fd, half, sizeof half, 0);
    return w.garbage;
}

static void *run(void *payload)
{
    (void)payload;
    bool fine = introduce();
    double next = sim_now();
    while (fine && w.alive) {
        struct pollfd fd = {.fd = w.pipe.fd, .events = POLLIN};
        const double wait = next - sim_now();
        poll(&fd, 1, wait > 0 ? (int)(wait * 1000) + 1 : 1);
        if (w.frozen) {
            sim_sleep(1000);
            continue;
        }
        fine = listen_once();
        if (fine && (w.garbage || w.mid_frame))
            fine = talk_nonsense();
        const protocol_message alive = {.type = PROTOCOL_ALIVE};
        if (fine && sim_now() - w.last_said > plan.freeze / 4)
            fine = worker_say(&alive);
        if (fine && sim_now() >= next) {
            next = sim_now() + plan.tick + w.slow;
            fine = worker_enter_waiting() && worker_tick_once();
        }
    }
    if (w.alive)
        worker_end_process(0);
    return NULL;
}

int sim_worker_start(int fd)
{
    if (w.refuse || w.alive) {
        if (w.alive)
            sim_wrong("a second worker is started");
        sim_count_one(COUNT_SPAWN_REFUSED);
        w.refuse -= w.refuse > 0;
        return -1;
    }
    w.pid = ++w.last_pid;
    w.alive = true;
    w.draining = w.frozen = w.garbage = w.mid_frame = false;
    w.slow = 0;
    /* The daemon closes its copy of the descriptor: this one is the process's own. */
    const int own = sim_fd_open(FD_SOCKET), peer = sim_fd_at(fd)->peer;
    sim_fd_at(own)->peer = peer;
    sim_fd_at(peer)->peer = own;
    sim_fd_at(fd)->peer = -1;
    protocol_pipe_init(&w.pipe, own);
    sim_count_one(COUNT_WORKER_STARTS);
    w.thread = sim_thread_start("worker", ROLE_WORKER, run, NULL);
    return w.pid;
}
