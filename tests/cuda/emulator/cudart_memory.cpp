/* The emulated GPU's memory: the host's own, filled with NaN, between guards that are looked at when it is freed. */
#include "cudart.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define GUARD(memory, bytes) __asan_poison_memory_region(memory, bytes)
#define UNGUARD(memory, bytes) __asan_unpoison_memory_region(memory, bytes)
#else
#define GUARD(memory, bytes) ((void)(memory), (void)(bytes))
#define UNGUARD(memory, bytes) ((void)(memory), (void)(bytes))
#endif

namespace cudart {
namespace {

constexpr size_t guard_bytes = 256; /* before and after; CUDA's alignment too */
constexpr unsigned char guard_byte = 0xA5, poison_byte = 0xFF;
constexpr size_t poison_most = size_t(256) << 20; /* of larger ones the rest is as the system gives it */

size_t round_up(size_t bytes)
{
    return (bytes + guard_bytes - 1) / guard_bytes * guard_bytes;
}

/* NULL: the host has none. The back guard begins at the very end, not at the next 256th byte. */
void *guarded_alloc(std::map<uintptr_t, Allocation> &memory, size_t bytes, int device)
{
    size_t whole = round_up(bytes) + 2 * guard_bytes;
    auto *base = static_cast<unsigned char *>(aligned_alloc(guard_bytes, whole));
    if (!base)
        return nullptr;
    unsigned char *start = base + guard_bytes;
    memset(base, guard_byte, guard_bytes);
    memset(start, poison_byte, bytes < poison_most ? bytes : poison_most);
    memset(start + bytes, guard_byte, whole - guard_bytes - bytes);
    GUARD(base, guard_bytes);
    GUARD(start + bytes, whole - guard_bytes - bytes);
    memory[uintptr_t(start)] = Allocation{bytes, device, base};
    return start;
}

void check_guard(const unsigned char *guard, size_t bytes, const char *where)
{
    for (size_t i = 0; i < bytes; i++) {
        if (guard[i] != guard_byte) {
            fprintf(stderr, "emulated GPU: something wrote %s memory, at byte %zu of the guard\n", where, i);
            abort();
        }
    }
}

void guarded_free(std::map<uintptr_t, Allocation> &memory, std::map<uintptr_t, Allocation>::iterator at)
{
    auto *base = static_cast<unsigned char *>(at->second.base);
    size_t bytes = at->second.bytes, whole = round_up(bytes) + 2 * guard_bytes;
    UNGUARD(base, whole);
    check_guard(base, guard_bytes, "before");
    check_guard(base + guard_bytes + bytes, whole - guard_bytes - bytes, "past");
    memory.erase(at);
    free(base);
}

bool inside(const std::map<uintptr_t, Allocation> &memory, const void *start, size_t bytes)
{
    auto after = memory.upper_bound(uintptr_t(start));
    if (after == memory.begin())
        return false;
    --after;
    size_t offset = uintptr_t(start) - after->first;
    return offset <= after->second.bytes && bytes <= after->second.bytes - offset;
}

/* Device ends of a copy must be on a device. */
bool ends_fit(const void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    bool any = kind == cudaMemcpyDefault;
    return (any || on_device(to, bytes) == to_device) && (any || on_device(from, bytes) == from_device);
}

std::function<cudaError_t()> copy_work(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    return [=] {
        if (!ends_fit(to, from, bytes, kind))
            return cudaErrorIllegalAddress; /* freed since: a graph's */
        memmove(to, from, bytes);
        return cudaSuccess;
    };
}

bool known_kind(cudaMemcpyKind kind)
{
    return kind >= cudaMemcpyHostToHost && kind <= cudaMemcpyDefault;
}

cudaError_t pinned_alloc(void **out, size_t bytes)
{
    return call(DN_EMULATOR_PINNED, Rule::unsafe, [&] {
        *out = bytes ? guarded_alloc(state().pinned_memory, bytes, current_device()) : nullptr;
        return !bytes || *out ? cudaSuccess : cudaErrorMemoryAllocation;
    });
}

} // namespace

bool on_device(const void *memory, size_t bytes)
{
    return inside(state().device_memory, memory, bytes);
}

bool pinned(const void *memory, size_t bytes)
{
    return inside(state().pinned_memory, memory, bytes);
}

} // namespace cudart

using namespace cudart;

extern "C" {

bool dn_emulator_on_device(const void *memory, size_t bytes)
{
    std::lock_guard<std::mutex> hold(state().lock);
    return on_device(memory, bytes);
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    return call(DN_EMULATOR_MALLOC, Rule::unsafe, [&] {
        State &s = state();
        int device = current_device();
        *out = nullptr;
        if (bytes == 0)
            return cudaSuccess;
        if (bytes > s.settings.memory || s.used[device] > s.settings.memory - bytes)
            return cudaErrorMemoryAllocation;
        *out = guarded_alloc(s.device_memory, bytes, device);
        if (*out)
            s.used[device] += bytes;
        return *out ? cudaSuccess : cudaErrorMemoryAllocation;
    });
}

/* Waits for the card first, as CUDA does. */
cudaError_t cudaFree(void *memory)
{
    return call(DN_EMULATOR_OTHER, Rule::frees, [&] {
        State &s = state();
        auto at = s.device_memory.find(uintptr_t(memory));
        if (!memory || at == s.device_memory.end())
            return memory ? cudaErrorInvalidValue : cudaSuccess;
        run_device(at->second.device);
        s.used[at->second.device] -= at->second.bytes;
        guarded_free(s.device_memory, at);
        return s.broken[current_device()];
    });
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    return pinned_alloc(out, bytes);
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned int flags)
{
    return flags <= 7u ? pinned_alloc(out, bytes) : cudaErrorInvalidValue;
}

cudaError_t cudaFreeHost(void *memory)
{
    return call(DN_EMULATOR_OTHER, Rule::frees, [&] {
        State &s = state();
        auto at = s.pinned_memory.find(uintptr_t(memory));
        if (!memory || at == s.pinned_memory.end())
            return memory ? cudaErrorInvalidValue : cudaSuccess;
        run_device(at->second.device);
        guarded_free(s.pinned_memory, at);
        return s.broken[current_device()];
    });
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    return call(DN_EMULATOR_COPY, Rule::unsafe, [&] {
        if (!known_kind(kind) || !ends_fit(to, from, bytes, kind))
            return known_kind(kind) ? cudaErrorInvalidValue : cudaErrorInvalidMemcpyDirection;
        cudaError_t code = enqueue(stream_of(nullptr), NodeKind::copy, copy_work(to, from, bytes, kind));
        return code == cudaSuccess ? state().broken[current_device()] : code;
    });
}

/* Memory that is not pinned is read before the call returns, and written before it returns. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t handle)
{
    return call(DN_EMULATOR_COPY, Rule::plain, [&] {
        CUstream_st *stream = stream_of(handle);
        if (!stream)
            return cudaErrorInvalidResourceHandle;
        if (!known_kind(kind) || !ends_fit(to, from, bytes, kind))
            return known_kind(kind) ? cudaErrorInvalidValue : cudaErrorInvalidMemcpyDirection;
        std::function<cudaError_t()> work = copy_work(to, from, bytes, kind);
        bool waits = !stream->capture && !on_device(to, bytes) && !pinned(to, bytes);
        if (!stream->capture && !on_device(from, bytes) && !pinned(from, bytes) && bytes) {
            auto *start = static_cast<const unsigned char *>(from);
            auto held = std::make_shared<std::vector<unsigned char>>(start, start + bytes);
            work = [=] {
                if (!ends_fit(to, from, bytes, kind))
                    return cudaErrorIllegalAddress;
                memcpy(to, held->data(), bytes);
                return cudaSuccess;
            };
        }
        cudaError_t code = enqueue(stream, NodeKind::copy, work);
        if (code != cudaSuccess || !waits)
            return code;
        run_until(stream, nullptr);
        return state().broken[stream->device];
    });
}

static cudaError_t set_memory(void *memory, int value, size_t bytes, CUstream_st *stream)
{
    if (!stream)
        return cudaErrorInvalidResourceHandle;
    if (!on_device(memory, bytes))
        return cudaErrorInvalidValue;
    return enqueue(stream, NodeKind::set, [=] {
        if (!on_device(memory, bytes))
            return cudaErrorIllegalAddress;
        memset(memory, value, bytes);
        return cudaSuccess;
    });
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    return call(DN_EMULATOR_COPY, Rule::unsafe, [&] { return set_memory(memory, value, bytes, stream_of(nullptr)); });
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    return call(DN_EMULATOR_COPY, Rule::plain, [&] { return set_memory(memory, value, bytes, stream_of(stream)); });
}

} /* extern "C" */
