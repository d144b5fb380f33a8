/* The simulated machine that the daemon's parts run on: threads, clocks, chance, files, sockets, the worker process. One seed decides all of it.
 *
 * The store and the dispatcher are the program's own, unchanged: test_simulator is linked so that what they ask of the system (the list
 * SIM_WRAPPED in the Makefile) comes here instead. Threads are coroutines on one real thread; they change places only where they
 * wait or where chance says so, time passes only when this file says so. So one seed is one history, byte for byte. */
#ifndef DN_TESTS_SIM_H
#define DN_TESTS_SIM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- Chance and the trace (sim_main.c) */
uint64_t sim_random(void);
uint32_t sim_below(uint32_t limit); /* 0 .. limit - 1 */
bool sim_chance(uint32_t per_thousand);
void sim_trace(uint64_t what); /* goes into the hash that two runs of a seed must agree on */
void sim_trace_bytes(const void *bytes, size_t count);
__attribute__((format(printf, 1, 2))) void sim_say(const char *format, ...); /* with -v: a line of the history */
/* Something that must never happen has: the seed has failed. The first one counts. */
__attribute__((format(printf, 1, 2))) void sim_wrong(const char *format, ...);
bool sim_failed(void);

/* What happened how often, over all seeds: a kind that never happened is a hole in the test. */
#define SIM_COUNTS(X)                                                                                                                      \
    X(POSTS) X(ARRAYS) X(KEYED) X(REPLAYS) X(MISMATCHES) X(UNKNOWN_POSTS) X(RETRIED_POSTS) X(QUOTA) X(QUEUE_FULL) X(SPACE_LOW)             \
    X(CANCELS) X(PURGES) X(GONE) X(STREAMS) X(DEADLINES) X(KILLS) X(KILLS_IN_RECOVERY) \
    X(POWER_CUTS) X(DRAINS) X(HURRIED_DRAINS) X(STORE_STOPS) X(WRITE_ERRORS)  \
    X(SYNC_ERRORS) X(DISK_FULL) X(FILE_ERRORS) X(CLOCK_JUMPS) X(WORKER_STARTS) X(WORKER_KILLS) X(WORKER_FROZEN) X(WORKER_GARBAGE)          \
    X(WORKER_MID_FRAME) X(POISON_DEATHS) X(WORKER_SLOW) X(SPAWN_REFUSED) X(MODEL_FAILED) X(RESUMED) X(SNAPSHOTS) \
    X(ASIDE) X(IMAGES) X(LANES_FAILED) X(LANES_GONE)            \
    X(STORED) X(SUCCEEDED) X(FAILED_CRASHED) X(FAILED_DEADLINE) X(FAILED_MODEL) X(FAILED_ENGINE) X(FAILED_STORAGE) X(CANCELED)             \
    X(REQUEUED_CRASH) X(REQUEUED_SHUTDOWN) X(REQUEUED_RESTART) X(EXPIRED) X(FORGOTTEN) X(LITTER_SWEPT) X(TORN_WRITES) X(PREEMPTIONS) X(AUDITS) \
    X(LATE_RESULTS) X(FIRST_OF_CLIENT) X(DEVICE_LOST) X(DEVICE_BROKEN) X(FAILED_DEVICE) X(REQUEUED_DEVICE) X(MOVED) X(SPREAD)
#define SIM_NAME(name) COUNT_##name,
typedef enum sim_count { SIM_COUNTS(SIM_NAME) SIM_COUNT_KINDS } sim_count;
#undef SIM_NAME
void sim_count_one(sim_count kind);

/* ---- Threads and time (threads.c) */
typedef enum sim_role { ROLE_DAEMON, ROLE_WORKER, ROLE_CLIENT, ROLE_NEMESIS } sim_role;
typedef struct sim_thread sim_thread;

void sim_threads_reset(void); /* no thread is left from an earlier seed */
sim_thread *sim_thread_start(const char *name, sim_role role, void *(*run)(void *), void *payload);
void sim_thread_drop(sim_thread *thread); /* another one: it never runs again */
sim_thread *sim_thread_self(void); /* NULL: the scheduler itself */
bool sim_thread_over(const sim_thread *thread);
/* Runs threads until `over` says so, or something is wrong; ghost: only the daemon's, and clients that are inside it. False: nothing
 * can run any more, or the time or the turns are up. */
bool sim_run(bool (*over)(void), bool ghost, double until, unsigned turns_max);
void sim_set_inside(bool inside); /* the calling client is in a call of the daemon */
unsigned sim_inside(void); /* clients that are */
void sim_yield(void); /* another may run first */
void sim_maybe_yield(uint32_t per_thousand);
void sim_sleep(double seconds);
/* Waits until ready(payload), looked at whenever somebody else has run, or until the time; true: ready. */
bool sim_wait(bool (*ready)(void *payload), void *payload, double until);
double sim_now(void); /* monotonic seconds */
void sim_set_now(double now);
int64_t sim_wall_ms(void);
void sim_jump_clock(int64_t by_ms);
void sim_set_pace(double seconds); /* what a turn takes on the average */

/* ---- Files (files.c): a small file system that forgets what was not synced */
typedef struct sim_file sim_file;
void sim_disk_reset(void); /* an empty disk */
void sim_disk_dead(bool dead); /* dead: what is written from now on comes to nothing, without an error: the writer is gone */
void sim_disk_power_cut(void); /* unsynced writes and names: gone, whole or torn, as chance says */
void sim_disk_settle(void); /* everything that was written becomes durable */
typedef enum sim_disk_fault { FAULT_NONE, FAULT_FULL, FAULT_WRITE, FAULT_SYNC } sim_disk_fault;
void sim_disk_fault_in(sim_disk_fault kind, unsigned operations, bool sticky); /* the fault hits after so many operations */
void sim_disk_heal(void);
bool sim_disk_fault_seen(void); /* a fault has hit since the last heal */
void sim_disk_room(uint64_t bytes); /* size of the disk */
uint64_t sim_disk_free(void);
sim_file *sim_file_find(const char *path);
sim_file *sim_file_make(const char *path); /* an empty one, or the one that is there */
void sim_file_remove(const char *path, bool synced);
int sim_file_write(sim_file *file, const void *bytes, size_t count, uint64_t offset); /* 0 or errno */
int sim_file_truncate(sim_file *file, uint64_t size);
int sim_file_sync(sim_file *file); /* with its name */
int sim_file_sync_bytes(sim_file *file); /* without it */
int sim_folder_sync(const char *path);
bool sim_file_rename(const char *from, const char *to);
int sim_file_reserve(sim_file *file, uint64_t bytes);
size_t sim_file_size(const sim_file *file);
const unsigned char *sim_file_bytes(const sim_file *file);
void **sim_file_shared(sim_file *file); /* a pointer of the database layer's */
/* Calls visit for every name under a folder ("data/images"). */
void sim_folder_each(const char *folder, void (*visit)(const char *name, sim_file *file, void *payload), void *payload);
void sim_vfs_register(void); /* vfs.c: SQLite on these files, for the rest of the process */
void sim_vfs_forget(void); /* the process that had the files open is gone: its locks and shared memory too */

/* ---- Descriptors (descriptors.c): folders, files, sockets, events; and the worker process */
#define SIM_FD_BASE 1000000
typedef enum sim_kind { FD_FREE, FD_FOLDER, FD_FILE, FD_EVENT, FD_SOCKET, FD_PROCESS } sim_kind;
typedef struct sim_fd {
    sim_kind kind;
    char path[160];
    sim_file *file;
    uint64_t offset, events; /* FD_EVENT: its counter */
    bool append;
    int peer; /* FD_SOCKET: the other end; -1: closed */
    unsigned char *in; /* what the other end sent */
    size_t in_start, in_count, in_room;
} sim_fd;
void sim_fds_reset(void);
sim_fd *sim_fd_at(int fd); /* NULL: not one of ours, or free */
int sim_fd_open(sim_kind kind);
int sim_fd_close(int fd);
void sim_socket_limit(size_t bytes); /* what a socket takes before it is full */

/* ---- The worker processes, one on each device (worker.c) */
int sim_worker_start(int fd, unsigned slot); /* on that device: its process id; -1: none can be started now */
bool sim_worker_alive(int pid);
void sim_worker_kill(int pid);
int sim_worker_status(int pid);
void sim_worker_orphaned(void); /* its daemon has ended */
void sim_worker_reset(void);
typedef enum sim_trouble {
    TROUBLE_KILL,
    TROUBLE_FREEZE,
    TROUBLE_GARBAGE,
    TROUBLE_MID_FRAME,
    TROUBLE_SLOW,
    TROUBLE_DEVICE_LOST,
    TROUBLE_DEVICE_BROKEN, /* lost, and not to be opened again while trouble lasts */
    TROUBLE_KINDS
} sim_trouble;
void sim_worker_trouble(sim_trouble kind); /* of one that lives, if any */
void sim_worker_well(bool well); /* true: from now on no trouble comes, and models load */
void sim_worker_refuse(unsigned times); /* so many starts fail */
/* How many workers have ended, in this seed. */
unsigned sim_worker_deaths(void);
/* Whether the worker was told STORED of this lane of the job before its row was there. */
bool sim_worker_told_early(const char *job, unsigned index, int64_t token);

/* The picture that a worker makes: bytes out of the stored request and the index alone. out: SIM_PICTURE_BYTES; the count of bytes. */
#define SIM_PICTURE_BYTES 256
struct api_request;
size_t sim_picture(unsigned char *out, const char *request_json, size_t request_bytes, uint32_t index);
bool sim_is_poison(uint64_t seed); /* an image of this seed ends its worker */

#endif
