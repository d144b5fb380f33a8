/* The two halves of the simulated worker: worker.c (the process, what it says of itself) and worker_lanes.c (its lanes). */
#ifndef DN_TESTS_SIM_WORKER_INTERNAL_H
#define DN_TESTS_SIM_WORKER_INTERNAL_H

#include "server/protocol.h"
#include "tests/sim/world.h"

typedef struct lane {
    bool used, entered, sent, aside, watched; /* sent: its image is on its way, STORED is due */
    uint64_t id;
    char job[27];
    uint32_t index, steps_done, steps_total;
    int64_t token;
    char *request;
    size_t request_bytes;
    api_request parsed;
} lane;

typedef struct early {
    char job[27];
    unsigned index;
    int64_t token;
} early;

/* One process, on one device. */
typedef struct sim_worker {
    unsigned slot; /* the device */
    int pid, status;
    bool alive, draining, frozen, garbage, mid_frame;
    bool losing, broken; /* its device: lost in a moment; cannot be opened any more */
    double slow;
    protocol_pipe pipe;
    sim_thread *thread;
    lane lanes[SIM_LANES_MAX];
    double last_snapshot, last_said;
} sim_worker;

typedef struct sim_machine {
    sim_worker workers[SIM_WORKERS_MAX];
    int last_pid;
    bool well;
    unsigned refuse, deaths;
    early told_early[SIM_JOBS_MAX];
    size_t told_count;
} sim_machine;
extern sim_machine machine;

void worker_end_process(sim_worker *w, int status);
bool worker_say(sim_worker *w, const protocol_message *m); /* false: the daemon is gone */
bool worker_say_lost(sim_worker *w); /* always false: it ends the process */
bool worker_hear(sim_worker *w, const protocol_message *m); /* false: the connection is of no use any more */
bool worker_enter_waiting(sim_worker *w); /* false: one of them was poison, and the process has ended */
bool worker_tick_once(sim_worker *w);

#endif
