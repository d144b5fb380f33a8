/* The emulated GPU's frame: its state, what every call begins with (counts, faults, cards that are broken), errors and devices. */
#include "cudart.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace cudart {

double seconds()
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool breaks(cudaError_t code)
{
    switch (code) {
    case cudaErrorECCUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

/* Never destroyed: threads may outlive main. */
State &state()
{
    static State *const made = [] {
        State *fresh = new State;
        const char *text = getenv("DENOISED_EMULATOR");
        if (!read_settings(&fresh->settings, text)) {
            fprintf(stderr, "DENOISED_EMULATOR: cannot read \"%s\"\n", text);
            abort();
        }
        return fresh;
    }();
    return *made;
}

int &current_device()
{
    static thread_local int device = 0;
    return device;
}

cudaStreamCaptureMode &capture_mode()
{
    static thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    return mode;
}

static cudaError_t &last_error()
{
    static thread_local cudaError_t code = cudaSuccess;
    return code;
}

/* Whether a capture forbids calls that could wait for the card: this thread's own, and any thread's of the global mode. Such a call is the
 * end of the capture. */
static bool capture_forbids()
{
    bool forbids = false;
    for (Capture *capture : state().captures) {
        bool mine = capture->thread == std::this_thread::get_id();
        bool counts = mine ? capture->mode != cudaStreamCaptureModeRelaxed
                           : capture->mode == cudaStreamCaptureModeGlobal && capture_mode() == cudaStreamCaptureModeGlobal;
        if (counts && capture_mode() != cudaStreamCaptureModeRelaxed) {
            capture->invalid = true;
            forbids = true;
        }
    }
    return forbids;
}

cudaError_t launch_fault()
{
    const State &s = state();
    for (const Fault &fault : s.settings.faults)
        if (fault.told_later && fault.call == s.calls[DN_EMULATOR_LAUNCH])
            return fault.code;
    return cudaSuccess;
}

void slow_launch()
{
    Settings &settings = state().settings;
    unsigned time = settings.slow_microseconds + settings.slow_first_microseconds;
    settings.slow_first_microseconds = 0;
    if (time)
        std::this_thread::sleep_for(std::chrono::microseconds(time));
}

static cudaError_t begin(dn_emulator_kind kind, Rule rule)
{
    State &s = state();
    uint64_t nth = ++s.calls[kind];
    if (rule == Rule::asks)
        return cudaSuccess;
    if (s.settings.driver < runtime_version)
        return cudaErrorInsufficientDriver;
    if (s.settings.devices == 0)
        return cudaErrorNoDevice;
    int device = current_device();
    if (s.broken[device] != cudaSuccess)
        return s.broken[device];
    if (rule == Rule::unsafe && capture_forbids())
        return cudaErrorStreamCaptureUnsupported;
    for (const Fault &fault : s.settings.faults) {
        if (fault.kind != kind || fault.call != nth || fault.told_later)
            continue;
        if (breaks(fault.code))
            s.broken[device] = fault.code;
        return fault.code;
    }
    return cudaSuccess;
}

cudaError_t call(dn_emulator_kind kind, Rule rule, const std::function<cudaError_t()> &body)
{
    std::lock_guard<std::mutex> hold(state().lock);
    cudaError_t code = begin(kind, rule == Rule::frees ? Rule::unsafe : rule);
    bool gone = rule == Rule::frees && breaks(code);
    if (code == cudaSuccess || gone) {
        cudaError_t answer = body();
        code = gone ? code : answer;
    }
    if (code != cudaSuccess && code != cudaErrorNotReady)
        last_error() = code;
    return code;
}

} // namespace cudart

using namespace cudart;

extern "C" {

bool dn_emulator_configure(const char *settings)
{
    State &s = state();
    std::lock_guard<std::mutex> hold(s.lock);
    if (!read_settings(&s.settings, settings))
        return false;
    for (uint64_t &count : s.calls)
        count = 0;
    for (cudaError_t &code : s.broken)
        code = cudaSuccess;
    return true;
}

void dn_emulator_count(dn_emulator_counts *out)
{
    State &s = state();
    std::lock_guard<std::mutex> hold(s.lock);
    *out = dn_emulator_counts{};
    out->device_allocations = s.device_memory.size();
    for (const auto &entry : s.device_memory)
        out->device_bytes += entry.second.bytes;
    out->pinned_allocations = s.pinned_memory.size();
    out->streams = s.streams.size();
    out->events = s.events.size();
    out->graphs = s.graphs.size();
    out->executables = s.executables.size();
    memcpy(out->calls, s.calls, sizeof out->calls);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t code = last_error();
    last_error() = cudaSuccess;
    std::lock_guard<std::mutex> hold(state().lock);
    cudaError_t broken = state().broken[current_device()];
    return broken != cudaSuccess ? broken : code;
}

cudaError_t cudaPeekAtLastError(void)
{
    std::lock_guard<std::mutex> hold(state().lock);
    cudaError_t broken = state().broken[current_device()];
    return broken != cudaSuccess ? broken : last_error();
}

static const struct {
    cudaError_t code;
    const char *name, *text;
} error_texts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "capture was not initiated in this stream"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread", "attempt to terminate a capture from another thread"},
    {cudaErrorGraphExecUpdateFailure, "cudaErrorGraphExecUpdateFailure", "the graph update was not performed"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &entry : error_texts)
        if (entry.code == error)
            return entry.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &entry : error_texts)
        if (entry.code == error)
            return entry.text;
    return "unrecognized error code";
}

cudaError_t cudaDriverGetVersion(int *version)
{
    return call(DN_EMULATOR_OTHER, Rule::asks, [&] {
        *version = state().settings.driver;
        return cudaSuccess;
    });
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = runtime_version;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    return call(DN_EMULATOR_OTHER, Rule::asks, [&] {
        const Settings &settings = state().settings;
        *count = settings.driver < runtime_version ? 0 : settings.devices;
        return settings.driver < runtime_version ? cudaErrorInsufficientDriver : settings.devices ? cudaSuccess : cudaErrorNoDevice;
    });
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        const Settings &settings = state().settings;
        if (device < 0 || device >= settings.devices)
            return cudaErrorInvalidDevice;
        *out = cudaDeviceProp{};
        snprintf(out->name, sizeof out->name, "Emulated GPU");
        out->totalGlobalMem = settings.memory;
        out->sharedMemPerBlock = 49152;
        out->sharedMemPerBlockOptin = 232448;
        out->sharedMemPerMultiprocessor = 233472;
        out->reservedSharedMemPerBlock = 1024;
        out->regsPerBlock = out->regsPerMultiprocessor = 65536;
        out->warpSize = 32;
        out->maxThreadsPerBlock = 1024;
        for (int i = 0; i < 3; i++) {
            out->maxThreadsDim[i] = i == 2 ? 64 : 1024;
            out->maxGridSize[i] = i == 0 ? 2147483647 : 65535;
        }
        out->major = settings.capability / 10;
        out->minor = settings.capability % 10;
        out->multiProcessorCount = 4;
        out->l2CacheSize = 1 << 20;
        out->maxThreadsPerMultiProcessor = 2048;
        out->maxBlocksPerMultiProcessor = 32;
        out->pciBusID = device + 1;
        return cudaSuccess;
    });
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp properties;
    cudaError_t code = cudaGetDeviceProperties(&properties, device);
    if (code != cudaSuccess)
        return code;
    const std::map<int, int> values = {{cudaDevAttrMaxThreadsPerBlock, properties.maxThreadsPerBlock},
                                       {cudaDevAttrMaxSharedMemoryPerBlock, int(properties.sharedMemPerBlock)},
                                       {cudaDevAttrWarpSize, properties.warpSize},
                                       {cudaDevAttrClockRate, 1000000},
                                       {cudaDevAttrMultiProcessorCount, properties.multiProcessorCount},
                                       {cudaDevAttrPciBusId, properties.pciBusID},
                                       {cudaDevAttrPciDeviceId, properties.pciDeviceID},
                                       {cudaDevAttrMemoryClockRate, 1000000},
                                       {cudaDevAttrL2CacheSize, properties.l2CacheSize},
                                       {cudaDevAttrPciDomainId, properties.pciDomainID},
                                       {cudaDevAttrComputeCapabilityMajor, properties.major},
                                       {cudaDevAttrComputeCapabilityMinor, properties.minor}};
    auto found = values.find(attribute);
    if (found == values.end())
        return cudaErrorInvalidValue;
    *value = found->second;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    std::unique_lock<std::mutex> hold(state().lock);
    const Settings &settings = state().settings;
    bool there = device >= 0 && device < settings.devices;
    if (there && settings.driver >= runtime_version)
        current_device() = device;
    hold.unlock();
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] { return there ? cudaSuccess : cudaErrorInvalidDevice; });
}

cudaError_t cudaGetDevice(int *device)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        *device = current_device();
        return cudaSuccess;
    });
}

cudaError_t cudaSetDeviceFlags(unsigned int flags)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] { return flags <= 7u ? cudaSuccess : cudaErrorInvalidValue; });
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    return call(DN_EMULATOR_OTHER, Rule::plain, [&] {
        *total = state().settings.memory;
        size_t used = state().used[current_device()];
        *free = used < *total ? *total - used : 0;
        return cudaSuccess;
    });
}

} /* extern "C" */
