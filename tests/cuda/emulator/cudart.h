/* The emulated GPU's inside: what the files of the fake runtime share.
 *
 * One lock guards everything. Work on a stream is a list of closures; by default they run as late as CUDA allows, on the thread that waits
 * for them, so that host code that reads too early, or writes over what a copy has yet to read, is found out. Closures run under the lock
 * and never call the runtime. */
#ifndef DN_CUDA_EMULATOR_CUDART_H
#define DN_CUDA_EMULATOR_CUDART_H

#include <cuda_runtime_api.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "emulator.h"

/* Where launches of kernels arrive (cuemu.h). A cudaError_t's number. */
namespace cuemu {
int submit(void *stream, std::function<void()> work);
}

namespace cudart {

constexpr int devices_max = 8;
constexpr int runtime_version = CUDART_VERSION;

struct Fault {
    dn_emulator_kind kind;
    uint64_t call;
    cudaError_t code;
    bool told_later; /* a launch that breaks when it runs */
};

struct Settings {
    int devices = 1, driver = runtime_version, capability = 90;
    size_t memory = size_t(8) << 30;
    bool late = true;
    unsigned slow_microseconds = 0, slow_first_microseconds = 0; /* the latter: once */
    std::vector<Fault> faults;
};

struct Item {
    std::function<void()> work;
    bool always; /* also on a broken card: marks that waiters look for */
};

/* Where an event was recorded. */
struct Mark {
    bool done = false;
    double when = 0.0; /* seconds */
    CUstream_st *stream;
};

enum class NodeKind { kernel, copy, set };

struct Node {
    NodeKind kind;
    std::function<cudaError_t()> work; /* an answer other than success breaks the card */
};

struct Capture {
    CUstream_st *origin;
    cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false;
    std::vector<Node> nodes;
    std::set<CUstream_st *> unjoined; /* others that took part since the origin last waited for them */
};

struct Allocation {
    size_t bytes;
    int device;
    void *base; /* what malloc gave */
};

struct State {
    std::mutex lock;
    Settings settings;
    uint64_t calls[DN_EMULATOR_KINDS] = {};
    cudaError_t broken[devices_max] = {};
    size_t used[devices_max] = {};
    std::map<uintptr_t, Allocation> device_memory, pinned_memory;
    std::set<CUstream_st *> streams; /* that programs made */
    std::set<CUevent_st *> events;
    std::set<CUgraph_st *> graphs;
    std::set<CUgraphExec_st *> executables;
    std::set<Capture *> captures;
};

State &state();
bool read_settings(Settings *out, const char *text);

/* A call's frame: the lock, counts and faults, a broken card, then the body; its answer is kept for cudaGetLastError. */
enum class Rule {
    plain,
    unsafe, /* not while a capture forbids it */
    frees,  /* its body runs on a broken card too */
    asks    /* of the driver: needs no card */
};
cudaError_t call(dn_emulator_kind kind, Rule rule, const std::function<cudaError_t()> &body);

int &current_device();                       /* of this thread */
cudaStreamCaptureMode &capture_mode();       /* of this thread: which captures forbid it what could wait for the card */
CUstream_st *stream_of(cudaStream_t stream); /* NULL: this thread's device's own; nullptr: there is none such */
bool breaks(cudaError_t code);               /* whether a card is broken for good by it */
void run_until(CUstream_st *stream, const Mark *mark); /* NULL: everything */
void run_device(int device);
cudaError_t launch_fault(); /* what the launch that was just counted breaks with; success: nothing */
void slow_launch();         /* takes the time that the settings say */
/* Adds to a stream, or to the capture that it is part of. */
cudaError_t enqueue(CUstream_st *stream, NodeKind kind, std::function<cudaError_t()> work);
bool on_device(const void *memory, size_t bytes);
bool pinned(const void *memory, size_t bytes);
double seconds();

} // namespace cudart

struct CUstream_st {
    int device;
    unsigned flags;
    int priority;
    bool own; /* the device's, which is always there */
    std::deque<cudart::Item> items;
    std::shared_ptr<cudart::Capture> capture;
};

struct CUevent_st {
    unsigned flags;
    std::shared_ptr<cudart::Mark> mark;
    std::shared_ptr<cudart::Capture> capture; /* it was recorded in */
    CUstream_st *captured;
};

struct CUgraph_st {
    std::vector<cudart::Node> nodes;
};

struct CUgraphExec_st {
    std::shared_ptr<std::vector<cudart::Node>> nodes;
    int device;
};

#endif
