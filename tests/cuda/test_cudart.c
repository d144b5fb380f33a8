/* The emulated CUDA runtime: that it is as strict as CUDA, as late as CUDA may be, and fails when it is told to. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cuda/device_check.h"

#define GOOD(call) CHECK_MSG((call) == cudaSuccess, "%s: %s", #call, cudaGetErrorName(cudaPeekAtLastError()))
#define FAILS(call, code)                                                                                                                  \
    do {                                                                                                                                   \
        cudaError_t got_ = (call);                                                                                                         \
        CHECK_MSG(got_ == (code), "%s: %s, not %s", #call, cudaGetErrorName(got_), #code);                                                 \
    } while (0)

/* Something of everything, made anew for each test. */
typedef struct things {
    float *device, *pinned;
    cudaStream_t one, two;
    cudaEvent_t event;
} things;

static bool make(things *t)
{
    void *device = NULL, *pinned = NULL;
    bool made = cudaMalloc(&device, 64) == cudaSuccess && cudaMallocHost(&pinned, 64) == cudaSuccess &&
                cudaStreamCreateWithFlags(&t->one, cudaStreamNonBlocking) == cudaSuccess &&
                cudaStreamCreateWithPriority(&t->two, cudaStreamNonBlocking, -1) == cudaSuccess &&
                cudaEventCreate(&t->event) == cudaSuccess;
    t->device = device;
    t->pinned = pinned;
    return made && cudaMemset(device, 0, 64) == cudaSuccess;
}

static void end(things *t)
{
    (void)cudaEventDestroy(t->event);
    (void)cudaStreamDestroy(t->two);
    (void)cudaStreamDestroy(t->one);
    (void)cudaFreeHost(t->pinned);
    (void)cudaFree(t->device);
}

static void add_one(void *at)
{
    *(float *)at += 1.0f;
}

static void twice(void *at)
{
    *(float *)at *= 2.0f;
}

static cudaError_t launch(cudaStream_t stream, void (*work)(void *), void *payload)
{
    return (cudaError_t)dn_emulator_launch(stream, work, payload);
}

/* How a child of this process ends that asks for the number of cards under such an environment: first of all tests, while nothing has read it. */
static int child_under(const char *settings, int want)
{
    pid_t child = fork();
    if (child == 0) {
        int count = -1;
        (void)!freopen("/dev/null", "w", stderr);
        setenv("DENOISED_EMULATOR", settings, 1);
        _exit(cudaGetDeviceCount(&count) == cudaSuccess && count == want ? 0 : 1);
    }
    int status = -1;
    return child > 0 && waitpid(child, &status, 0) == child ? status : -1;
}

static void the_environment_is_read(void)
{
    unsetenv("DENOISED_EMULATOR");
    CHECK(child_under("", 1) == 0 && child_under("devices=5", 5) == 0);
    int status = child_under("devices=5,colour=red", 5);
    CHECK(status != 0 && status != -1);
}

static void settings_are_read_strictly(void)
{
    static const char *const bad[] = {"devices=9",           "devices=",          "devices",
                                      "memory=5T",           "memory=2000000M",   "driver=x",
                                      "capability=9",        "work=soon",         "fault=launch:0:oom",
                                      "fault=launch:1",      "fault=lunch:1:oom", "fault=launch:1:bad",
                                      "fault=sync:-1:oom",   "slow=sync:3",       "slow=launch:",
                                      "slow=first:",         "devices=1,",        ",",
                                      "devices=1,devices=1", " devices=1",        "colour=red"};
    CHECK(dn_emulator_configure("devices=3"));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_MSG(!dn_emulator_configure(bad[i]), "%s", bad[i]);
    int count = 0;
    GOOD(cudaGetDeviceCount(&count));
    CHECK(count == 3); /* what cannot be read changes nothing */
    CHECK(dn_emulator_configure(
        "devices=2,memory=512M,driver=13010,capability=80,work=now,slow=launch:1,fault=launch:57:lost,fault=malloc:3:oom"));
    CHECK(dn_emulator_configure("") && dn_emulator_configure(NULL));
}

/* What a kernel sees of memory that nobody wrote, and where memory ends. */
static void memory_is_poisoned_and_counted(void)
{
    void *memory = NULL, *pinned = NULL;
    GOOD(cudaMalloc(&memory, 1001));
    GOOD(cudaHostAlloc(&pinned, 10, cudaHostAllocWriteCombined));
    CHECK((uintptr_t)memory % 256 == 0 && ((unsigned char *)memory)[0] == 0xFF && ((unsigned char *)memory)[1000] == 0xFF);
    CHECK(dn_emulator_on_device(memory, 1001) && !dn_emulator_on_device(memory, 1002) && !dn_emulator_on_device(pinned, 1));
    dn_emulator_counts counts;
    dn_emulator_count(&counts);
    CHECK(counts.device_allocations == 1 && counts.device_bytes == 1001 && counts.pinned_allocations == 1);
    GOOD(cudaFree(memory));
    FAILS(cudaFree(memory), cudaErrorInvalidValue);
    GOOD(cudaFreeHost(pinned));
    GOOD(cudaFree(NULL));
    CHECK(nothing_lives());
}

/* In a process of its own: a write past the end ends it when the memory is freed (AddressSanitizer: at once). */
static void a_write_past_the_end_is_found(void)
{
    for (int side = 0; side < 2; side++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            void *memory = NULL;
            (void)!freopen("/dev/null", "w", stderr);
            if (cudaMalloc(&memory, 100) == cudaSuccess)
                *((volatile unsigned char *)memory + (side ? 100 : -1)) = 1;
            (void)cudaFree(memory);
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK_MSG(!(WIFEXITED(status) && WEXITSTATUS(status) == 0), "side %d", side);
    }
}

static void memory_has_an_end(void)
{
    void *first = NULL, *second = NULL;
    size_t unused = 0, total = 0;
    CHECK(dn_emulator_configure("memory=1M"));
    GOOD(cudaMalloc(&first, 1 << 19));
    FAILS(cudaMalloc(&second, (1 << 19) + 1), cudaErrorMemoryAllocation);
    GOOD(cudaMemGetInfo(&unused, &total));
    CHECK(unused == 1 << 19 && total == 1 << 20);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess);
    GOOD(cudaMalloc(&second, 1 << 19));
    GOOD(cudaFree(first));
    GOOD(cudaFree(second));
    CHECK(dn_emulator_configure(NULL) && nothing_lives());
}

/* Nothing on a stream happens before somebody waits; then all of it, in order. */
static void work_is_late_and_in_order(void)
{
    things t;
    CHECK(make(&t));
    *t.pinned = 3.0f;
    GOOD(cudaMemcpyAsync(t.device, t.pinned, sizeof(float), cudaMemcpyHostToDevice, t.one));
    *t.pinned = 5.0f; /* too early: the copy has yet to read it */
    GOOD(launch(t.one, add_one, t.device));
    GOOD(launch(t.one, twice, t.device));
    GOOD(cudaMemcpyAsync(t.pinned + 1, t.device, sizeof(float), cudaMemcpyDeviceToHost, t.one));
    CHECK(isnan(t.pinned[1]));
    GOOD(cudaStreamSynchronize(t.two));
    CHECK(isnan(t.pinned[1]));
    FAILS(cudaStreamQuery(t.one), cudaErrorNotReady);
    GOOD(cudaStreamSynchronize(t.one));
    CHECK(same_bits(t.pinned[1], 12.0f));
    GOOD(cudaStreamQuery(t.one));
    CHECK(dn_emulator_configure("work=now"));
    GOOD(launch(t.one, add_one, t.device));
    CHECK(same_bits(*t.device, 13.0f));
    CHECK(dn_emulator_configure(NULL));
    end(&t);
    CHECK(nothing_lives());
}

/* Memory that is not pinned: read before the call returns, written before it returns. */
static void pageable_memory_is_copied_at_the_call(void)
{
    things t;
    float value = 7.0f, back = 0.0f;
    CHECK(make(&t));
    GOOD(cudaMemcpyAsync(t.device, &value, sizeof value, cudaMemcpyHostToDevice, t.one));
    value = 8.0f;
    GOOD(cudaMemcpyAsync(&back, t.device, sizeof back, cudaMemcpyDeviceToHost, t.one));
    CHECK(same_bits(back, 7.0f));
    end(&t);
}

static void copies_are_checked(void)
{
    things t;
    float value = 0.0f;
    CHECK(make(&t));
    FAILS(cudaMemcpyAsync(&value, t.pinned, 4, cudaMemcpyHostToDevice, t.one), cudaErrorInvalidValue);
    FAILS(cudaMemcpyAsync(t.device, t.pinned, 65, cudaMemcpyHostToDevice, t.one), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(t.device, t.device, 4, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    FAILS(cudaMemcpy(t.device, &value, 4, (enum cudaMemcpyKind)5), cudaErrorInvalidMemcpyDirection);
    FAILS(cudaMemsetAsync(t.pinned, 0, 4, t.one), cudaErrorInvalidValue);
    FAILS(cudaMemcpyAsync(t.device, t.pinned, 4, cudaMemcpyHostToDevice, (cudaStream_t)(void *)&value), cudaErrorInvalidResourceHandle);
    GOOD(cudaMemcpy(t.device, &value, 4, cudaMemcpyDefault));
    end(&t);
    FAILS(cudaStreamDestroy(t.one), cudaErrorInvalidResourceHandle);
    FAILS(cudaEventDestroy(t.event), cudaErrorInvalidResourceHandle);
}

static void events_order_streams(void)
{
    things t;
    cudaEvent_t later, untimed;
    float ms = -1.0f;
    CHECK(make(&t));
    GOOD(cudaEventCreate(&later));
    GOOD(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    GOOD(cudaEventSynchronize(t.event)); /* never recorded */
    GOOD(launch(t.one, add_one, t.device));
    GOOD(cudaEventRecord(t.event, t.one));
    GOOD(launch(t.one, twice, t.device + 1)); /* after the event */
    GOOD(cudaStreamWaitEvent(t.two, t.event, 0));
    GOOD(launch(t.two, twice, t.device));
    GOOD(cudaEventRecord(later, t.two));
    FAILS(cudaEventElapsedTime(&ms, t.event, later), cudaErrorNotReady);
    t.device[1] = 10.0f;
    GOOD(cudaEventSynchronize(later));
    CHECK(same_bits(t.device[0], 2.0f) && same_bits(t.device[1], 10.0f));
    GOOD(cudaEventElapsedTime(&ms, t.event, later));
    CHECK(ms >= 0.0f);
    FAILS(cudaEventElapsedTime(&ms, untimed, later), cudaErrorInvalidResourceHandle);
    GOOD(cudaDeviceSynchronize());
    CHECK(same_bits(t.device[1], 20.0f));
    GOOD(cudaEventDestroy(later));
    GOOD(cudaEventDestroy(untimed));
    end(&t);
}

/* Freed memory takes what waits with it in time: a free waits for the device. */
static void a_free_waits(void)
{
    things t;
    void *more = NULL;
    CHECK(make(&t));
    GOOD(cudaMalloc(&more, 4));
    GOOD(launch(t.one, add_one, t.device));
    GOOD(cudaFree(more));
    CHECK(same_bits(*t.device, 1.0f));
    GOOD(cudaMallocHost(&more, 4));
    GOOD(launch(t.two, twice, t.device));
    GOOD(cudaFreeHost(more));
    CHECK(same_bits(*t.device, 2.0f));
    end(&t);
    CHECK(nothing_lives());
}

/* A graph is what the stream was given, with the addresses of then and the values of now. */
static void graphs_are_replayed(void)
{
    things t;
    cudaGraph_t graph, other;
    cudaGraphExec_t exec;
    size_t nodes = 0;
    CHECK(make(&t));
    GOOD(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeThreadLocal));
    GOOD(cudaMemcpyAsync(t.device, t.pinned, sizeof(float), cudaMemcpyHostToDevice, t.one));
    GOOD(launch(t.one, add_one, t.device));
    GOOD(cudaMemcpyAsync(t.pinned + 1, t.device, sizeof(float), cudaMemcpyDeviceToHost, t.one));
    GOOD(cudaStreamEndCapture(t.one, &graph));
    GOOD(cudaGraphGetNodes(graph, NULL, &nodes));
    CHECK(nodes == 3 && isnan(t.pinned[1]));
    GOOD(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 5; i++) {
        *t.pinned = (float)i;
        GOOD(cudaGraphLaunch(exec, t.two));
        GOOD(cudaStreamSynchronize(t.two));
        CHECK(same_bits(t.pinned[1], (float)i + 1.0f));
    }
    GOOD(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeGlobal));
    GOOD(launch(t.one, twice, t.device));
    GOOD(cudaStreamEndCapture(t.one, &other));
    cudaGraphExecUpdateResultInfo info;
    FAILS(cudaGraphExecUpdate(exec, other, &info), cudaErrorGraphExecUpdateFailure);
    CHECK(info.result == cudaGraphExecUpdateErrorTopologyChanged);
    GOOD(cudaGraphDestroy(other));
    GOOD(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeRelaxed));
    GOOD(cudaMemcpyAsync(t.device, t.pinned, sizeof(float), cudaMemcpyHostToDevice, t.one));
    GOOD(launch(t.one, twice, t.device));
    GOOD(cudaMemcpyAsync(t.pinned + 2, t.device, sizeof(float), cudaMemcpyDeviceToHost, t.one));
    GOOD(cudaStreamEndCapture(t.one, &other));
    GOOD(cudaGraphLaunch(exec, t.two)); /* as it is now */
    GOOD(cudaGraphExecUpdate(exec, other, &info));
    GOOD(cudaGraphLaunch(exec, t.two));
    GOOD(cudaGraphDestroy(graph));
    GOOD(cudaGraphDestroy(other));
    GOOD(cudaGraphExecDestroy(exec)); /* what was launched is done all the same */
    GOOD(cudaStreamSynchronize(t.two));
    CHECK(same_bits(t.pinned[1], 5.0f) && same_bits(t.pinned[2], 8.0f));
    FAILS(cudaGraphLaunch(exec, t.two), cudaErrorInvalidResourceHandle);
    end(&t);
    CHECK(nothing_lives());
}

/* A replay of a copy to memory that is no more is an illegal address, for good. */
static void a_graph_over_freed_memory_breaks_the_card(void)
{
    things t;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    void *more = NULL;
    CHECK(make(&t));
    GOOD(cudaMalloc(&more, 16));
    GOOD(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeThreadLocal));
    GOOD(cudaMemcpyAsync(more, t.pinned, 16, cudaMemcpyHostToDevice, t.one));
    GOOD(cudaStreamEndCapture(t.one, &graph));
    GOOD(cudaGraphInstantiate(&exec, graph, 0));
    GOOD(cudaFree(more));
    GOOD(cudaGraphLaunch(exec, t.one));
    FAILS(cudaStreamSynchronize(t.one), cudaErrorIllegalAddress);
    FAILS(cudaMalloc(&more, 16), cudaErrorIllegalAddress);
    FAILS(cudaSetDevice(0), cudaErrorIllegalAddress);
    FAILS(cudaGetLastError(), cudaErrorIllegalAddress);
    (void)cudaGraphExecDestroy(exec);
    (void)cudaGraphDestroy(graph);
    end(&t);
    CHECK(nothing_lives() && dn_emulator_configure(NULL));
}

/* What CUDA forbids while a stream captures; each is the end of the capture. */
static void captures_are_minded(void)
{
    things t;
    cudaGraph_t graph;
    void *memory = NULL;
    enum cudaStreamCaptureStatus status;
    CHECK(make(&t));
    for (int c = 0; c < 6; c++) {
        GOOD(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeThreadLocal));
        GOOD(cudaStreamIsCapturing(t.one, &status));
        CHECK(status == cudaStreamCaptureStatusActive);
        cudaError_t code = c == 0   ? cudaStreamSynchronize(t.one)
                           : c == 1 ? cudaMalloc(&memory, 4)
                           : c == 2 ? cudaStreamQuery(t.one)
                           : c == 3 ? cudaMemcpy(t.device, t.pinned, 4, cudaMemcpyHostToDevice)
                           : c == 4 ? cudaDeviceSynchronize()
                                    : cudaFree(t.device);
        CHECK_MSG(code == cudaErrorStreamCaptureUnsupported, "case %d: %d", c, code);
        GOOD(cudaStreamIsCapturing(t.one, &status));
        CHECK(status == cudaStreamCaptureStatusInvalidated);
        FAILS(launch(t.one, add_one, t.device), cudaErrorStreamCaptureInvalidated);
        FAILS(cudaStreamEndCapture(t.one, &graph), cudaErrorStreamCaptureInvalidated);
        CHECK(graph == NULL);
        GOOD(cudaStreamSynchronize(t.one));
    }
    GOOD(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeRelaxed)); /* nothing forbidden but what concerns the stream */
    GOOD(cudaMalloc(&memory, 4));
    GOOD(cudaStreamSynchronize(t.two));
    FAILS(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeRelaxed), cudaErrorInvalidValue);
    GOOD(cudaStreamEndCapture(t.one, &graph));
    GOOD(cudaGraphDestroy(graph));
    GOOD(cudaFree(memory));
    FAILS(cudaStreamEndCapture(t.one, &graph), cudaErrorInvalidValue);
    FAILS(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeRelaxed), cudaErrorStreamCaptureUnsupported);
    cudaStream_t heedful;
    GOOD(cudaStreamCreate(&heedful));
    GOOD(cudaStreamBeginCapture(heedful, cudaStreamCaptureModeRelaxed));
    FAILS(launch(NULL, add_one, t.device), cudaErrorStreamCaptureImplicit);
    FAILS(cudaStreamEndCapture(heedful, &graph), cudaErrorStreamCaptureInvalidated);
    GOOD(cudaStreamDestroy(heedful));
    end(&t);
    CHECK(nothing_lives());
}

/* Streams that join a capture through events must come back to it. */
static void captures_fork_and_join(void)
{
    things t;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t back;
    CHECK(make(&t));
    GOOD(cudaEventCreate(&back));
    for (int joined = 0; joined < 2; joined++) {
        GOOD(cudaStreamBeginCapture(t.one, cudaStreamCaptureModeThreadLocal));
        GOOD(launch(t.one, add_one, t.device));
        GOOD(cudaEventRecord(t.event, t.one));
        GOOD(cudaStreamWaitEvent(t.two, t.event, 0));
        GOOD(launch(t.two, twice, t.device));
        GOOD(cudaEventRecord(back, t.two));
        FAILS(cudaStreamEndCapture(t.two, &graph), cudaErrorStreamCaptureUnmatched);
        if (joined)
            GOOD(cudaStreamWaitEvent(t.one, back, 0));
        FAILS(cudaStreamEndCapture(t.one, &graph), joined ? cudaSuccess : cudaErrorStreamCaptureUnjoined);
    }
    GOOD(cudaGraphInstantiate(&exec, graph, 0));
    GOOD(cudaGraphLaunch(exec, t.one));
    GOOD(cudaStreamSynchronize(t.one));
    CHECK(same_bits(*t.device, 2.0f));
    GOOD(cudaGraphExecDestroy(exec));
    GOOD(cudaGraphDestroy(graph));
    GOOD(cudaEventDestroy(back));
    end(&t);
}

/* Faults that are that call's alone, and faults that stay; a launch breaks when it runs. */
static void faults_come_on_demand(void)
{
    things t;
    CHECK(make(&t));
    CHECK(dn_emulator_configure("fault=launch:2:resources,fault=copy:1:invalid"));
    GOOD(launch(t.one, add_one, t.device));
    FAILS(launch(t.one, add_one, t.device), cudaErrorLaunchOutOfResources);
    FAILS(cudaMemcpyAsync(t.device + 1, t.pinned, 4, cudaMemcpyHostToDevice, t.one), cudaErrorInvalidValue);
    GOOD(launch(t.one, add_one, t.device));
    GOOD(cudaStreamSynchronize(t.one));
    CHECK(same_bits(*t.device, 2.0f));
    CHECK(dn_emulator_configure("fault=launch:2:failure"));
    GOOD(launch(t.one, add_one, t.device));
    GOOD(launch(t.one, add_one, t.device));
    GOOD(launch(t.one, add_one, t.device)); /* nobody has noticed yet */
    FAILS(cudaStreamSynchronize(t.one), cudaErrorLaunchFailure);
    CHECK(same_bits(*t.device, 3.0f));
    FAILS(launch(t.one, add_one, t.device), cudaErrorLaunchFailure);
    CHECK(dn_emulator_configure("fault=launch:1:lost"));
    FAILS(launch(t.one, add_one, t.device), cudaErrorUnknown);
    FAILS(cudaStreamSynchronize(t.one), cudaErrorUnknown);
    FAILS(cudaFree(t.device), cudaErrorUnknown); /* and it is gone */
    t.device = NULL;
    end(&t);
    CHECK(nothing_lives() && dn_emulator_configure(NULL));
}

/* A stream takes launches of threads whose device is its own. */
static void streams_belong_to_their_device(void)
{
    things t;
    CHECK(dn_emulator_configure("devices=2"));
    CHECK(make(&t));
    GOOD(cudaSetDevice(1));
    FAILS(launch(t.one, add_one, t.device), cudaErrorInvalidResourceHandle);
    FAILS(cudaSetDevice(2), cudaErrorInvalidDevice);
    GOOD(cudaSetDevice(0));
    GOOD(launch(t.one, add_one, t.device));
    end(&t);
    CHECK(nothing_lives() && dn_emulator_configure(NULL));
}

int main(void)
{
    RUN(the_environment_is_read);
    RUN(settings_are_read_strictly);
    RUN(memory_is_poisoned_and_counted);
    RUN(a_write_past_the_end_is_found);
    RUN(memory_has_an_end);
    RUN(work_is_late_and_in_order);
    RUN(pageable_memory_is_copied_at_the_call);
    RUN(copies_are_checked);
    RUN(events_order_streams);
    RUN(a_free_waits);
    RUN(graphs_are_replayed);
    RUN(a_graph_over_freed_memory_breaks_the_card);
    RUN(captures_are_minded);
    RUN(captures_fork_and_join);
    RUN(faults_come_on_demand);
    RUN(streams_belong_to_their_device);
    return test_end();
}
