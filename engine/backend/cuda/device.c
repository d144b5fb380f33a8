/* A GPU opened: its driver and capability checked, its streams and libraries made; and what CUDA's errors mean.
 *
 * Invariant: whoever meets an error that CUDA keeps writes the first cause down, and nothing is asked of the card after that. Any thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/buffers.h"
#include "backend/cuda/device.h"
#include "backend/cuda/pool.h"
#include "backend/cuda/programs.h"

#define CAPABILITY_NEEDED 8 /* compute capability 8.0: bfloat16 products */

/* Errors after which CUDA answers nothing but the same: the process has lost the card. */
static bool is_kept(cudaError_t code)
{
    switch ((int)code) {
    case cudaErrorDevicesUnavailable:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

static bool is_lack(cudaError_t code)
{
    switch ((int)code) {
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorNoDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorNotPermitted:
    case cudaErrorNotSupported:
    case cudaErrorSystemNotReady:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
        return true;
    default:
        return false;
    }
}

static dn_status lost(dn_device *device, dn_error *error)
{
    pthread_mutex_lock(&device->lock);
    dn_status status = DN_OK;
    if (device->lost)
        status = dn_fail(error, DN_DEVICE_LOST, "%s is lost: %s", device->text, device->lost_why);
    pthread_mutex_unlock(&device->lock);
    return status;
}

static dn_status lose(dn_device *device, cudaError_t code, const char *doing, dn_error *error)
{
    pthread_mutex_lock(&device->lock);
    if (!device->lost)
        snprintf(device->lost_why, sizeof device->lost_why, "%s (%s) while %s", cudaGetErrorString(code), cudaGetErrorName(code), doing);
    device->lost = true;
    pthread_mutex_unlock(&device->lock);
    return lost(device, error);
}

dn_status dn_cuda_check(dn_device *device, cudaError_t code, const char *doing, dn_error *error)
{
    if (code == cudaSuccess)
        return DN_OK;
    if (is_kept(code))
        return lose(device, code, doing, error);
    (void)cudaGetLastError(); /* or the next launch would be told of it */
    if (lost(device, error) != DN_OK)
        return DN_DEVICE_LOST;
    if (code == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total = 0;
        if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess)
            return dn_fail(error, DN_NO_MEMORY, "out of memory while %s", doing);
        return dn_fail(error, DN_NO_MEMORY, "out of memory while %s: %zu MB of the %zu MB of %s are free", doing, free_bytes >> 20,
                       total >> 20, device->text);
    }
    return dn_fail(error, is_lack(code) ? DN_UNSUPPORTED : DN_INTERNAL, "%s: %s (%s) while %s", device->text, cudaGetErrorString(code),
                   cudaGetErrorName(code), doing);
}

dn_status dn_cuda_enter(dn_device *device, dn_error *error)
{
    dn_status status = lost(device, error);
    return status == DN_OK ? dn_cuda_check(device, cudaSetDevice(device->ordinal), "taking the device", error) : status;
}

dn_status dn_cuda_alloc(dn_device *device, void **out, size_t bytes, dn_error *error)
{
    dn_status status = dn_cuda_enter(device, error);
    if (status != DN_OK)
        return status;
    cudaError_t code = cudaMalloc(out, bytes);
    if (code == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        if (dn_cuda_pool_trim(device))
            code = cudaMalloc(out, bytes);
    }
    char doing[64];
    snprintf(doing, sizeof doing, bytes >> 20 ? "reserving %zu MB of it" : "reserving %zu bytes of it",
             bytes >> 20 ? (bytes + (1u << 20) - 1) >> 20 : bytes);
    return dn_cuda_check(device, code, doing, error);
}

void dn_cuda_release(dn_device *device, void *memory)
{
    if (!memory)
        return;
    (void)cudaSetDevice(device->ordinal);
    (void)dn_cuda_check(device, cudaFree(memory), "giving memory back", NULL);
}

/* The driver speaks the runtime's CUDA or a later one, of whatever minor version. */
static dn_status check_driver(dn_error *error)
{
    int driver = 0, runtime = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess || cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
        return dn_fail(error, DN_UNSUPPORTED, "there is no NVIDIA driver: install one that offers CUDA %d.0 or later", runtime / 1000);
    if (driver / 1000 < runtime / 1000)
        return dn_fail(error, DN_UNSUPPORTED,
                       "the NVIDIA driver offers CUDA %d.%d, and CUDA %d.0 or later is needed: install a newer driver", driver / 1000,
                       driver % 1000 / 10, runtime / 1000);
    return DN_OK;
}

static dn_status check_ordinal(const dn_device *device, dn_error *error)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count == 0)
        return dn_fail(error, DN_UNSUPPORTED, "no NVIDIA GPU is visible: %s", cudaGetErrorString(code ? code : cudaErrorNoDevice));
    if (device->ordinal >= count)
        return dn_fail(error, DN_INVALID, "there is no GPU %d: this machine has %d, numbered from 0", device->ordinal, count);
    return DN_OK;
}

static dn_status check_card(dn_device *device, dn_error *error)
{
    struct cudaDeviceProp properties;
    dn_status status = dn_cuda_check(device, cudaGetDeviceProperties(&properties, device->ordinal), "asking for its properties", error);
    if (status != DN_OK)
        return status;
    device->memory = properties.totalGlobalMem;
    snprintf(device->isa, sizeof device->isa, "sm_%d%d", properties.major, properties.minor);
    snprintf(device->text, sizeof device->text, "cuda:%d %.160s", device->ordinal, properties.name);
    snprintf(device->identity, sizeof device->identity, "%.80s, %s", properties.name, device->isa);
    if (properties.major < CAPABILITY_NEEDED)
        return dn_fail(error, DN_UNSUPPORTED, "%s has compute capability %d.%d, and %d.0 or later is needed", device->text,
                       properties.major, properties.minor, CAPABILITY_NEEDED);
    return dn_cuda_check(device, cudaSetDevice(device->ordinal), "taking the device", error);
}

/* Runs come before decodes wherever both wait for the card; what is read is small. */
static dn_status make_streams(dn_device *device, dn_error *error)
{
    int least = 0, greatest = 0;
    dn_status status = dn_cuda_check(device, cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities", error);
    if (status == DN_OK)
        status =
            dn_cuda_check(device, cudaStreamCreateWithPriority(&device->main, cudaStreamNonBlocking, greatest), "making a stream", error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaStreamCreateWithPriority(&device->background, cudaStreamNonBlocking, least), "making a stream",
                               error);
    if (status == DN_OK)
        status = dn_cuda_check(device, cudaStreamCreateWithPriority(&device->reading, cudaStreamNonBlocking, greatest), "making a stream",
                               error);
    return status;
}

static dn_status open_libraries(dn_device *device, const dn_device_options *options, dn_error *error)
{
    dn_cuda_libraries_options wanted = {.device = device->ordinal, .fast = options->fast, .cache = options->cache};
    dn_status status = dn_cuda_libraries_open(&device->libraries, &wanted, error);
    if (status != DN_OK)
        return status;
    size_t used = strlen(device->identity);
    snprintf(device->identity + used, sizeof device->identity - used, ", %s", dn_cuda_libraries_describe(device->libraries));
    return DN_OK;
}

static bool make_lock(dn_device *device)
{
    pthread_mutexattr_t recursive;
    if (pthread_mutexattr_init(&recursive) != 0)
        return false;
    bool made = pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE) == 0 && pthread_mutex_init(&device->lock, &recursive) == 0;
    (void)pthread_mutexattr_destroy(&recursive);
    return made;
}

dn_status dn_cuda_device_open(dn_device **out, const dn_device_options *options, dn_error *error)
{
    static const dn_device_options defaults = {0};
    options = options ? options : &defaults;
    dn_status status = check_driver(error);
    if (status != DN_OK)
        return status;
    dn_device *device = calloc(1, sizeof *device);
    if (!device || !make_lock(device)) {
        free(device);
        return dn_fail(error, DN_NO_MEMORY, "no memory for a device");
    }
    device->ordinal = (int)(options->index < INT32_MAX ? options->index : INT32_MAX);
    device->fast = options->fast;
    snprintf(device->text, sizeof device->text, "cuda:%d", device->ordinal);
    status = check_ordinal(device, error);
    if (status == DN_OK)
        status = check_card(device, error);
    if (status == DN_OK)
        status = make_streams(device, error);
    if (status == DN_OK)
        status = dn_cuda_pool_create(device, error);
    if (status == DN_OK)
        status = dn_cuda_staging_create(device, error);
    if (status == DN_OK)
        status = dn_cuda_pending_create(device, error);
    if (status == DN_OK)
        status = open_libraries(device, options, error);
    if (status == DN_OK)
        *out = device;
    else
        dn_cuda_device_close(device);
    return status;
}

void dn_cuda_device_close(dn_device *device)
{
    if (!device)
        return;
    (void)cudaSetDevice(device->ordinal);
    if (device->main)
        (void)cudaStreamSynchronize(device->main);
    if (device->background)
        (void)cudaStreamSynchronize(device->background);
    dn_cuda_libraries_close(device->libraries);
    dn_cuda_pending_free(device);
    dn_cuda_staging_free(device);
    dn_cuda_pool_free(device);
    if (device->reading)
        (void)cudaStreamDestroy(device->reading);
    if (device->background)
        (void)cudaStreamDestroy(device->background);
    if (device->main)
        (void)cudaStreamDestroy(device->main);
    (void)cudaGetLastError();
    (void)pthread_mutex_destroy(&device->lock);
    free(device);
}
