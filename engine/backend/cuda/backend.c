/* The table of the CUDA back end, and the one symbol that the library shows. */
#include <stdio.h>
#include <string.h>

#include "backend/cuda/state.h"
#include "backend/library.h"

static void device_describe(const dn_device *device, char *out, size_t out_bytes)
{
    snprintf(out, out_bytes, "%s", device->text);
}

static const char *device_isa(const dn_device *device)
{
    return device->isa;
}

static const char *device_identity(const dn_device *device)
{
    return device->identity;
}

static size_t device_memory(const dn_device *device, size_t *free_bytes)
{
    size_t unused = 0, total = 0;
    bool known = cudaSetDevice(device->ordinal) == cudaSuccess && cudaMemGetInfo(&unused, &total) == cudaSuccess;
    if (free_bytes)
        *free_bytes = known ? unused : 0;
    return device->memory;
}

static dn_status precision_check(const dn_device *device, dn_precision precision, dn_error *error)
{
    if (precision == DN_PRECISION_FP32 || precision == DN_PRECISION_BF16)
        return DN_OK;
    return dn_fail(error, DN_UNSUPPORTED, "%s multiplies in bf16 or fp32, not in %s", device->text, dn_precision_name(precision));
}

/* All that multiplies, whatever its shape. */
static double precision_flops(const dn_plan *plan, dn_precision precision)
{
    return precision == DN_PRECISION_BF16 ? dn_plan_flops(plan) : 0.0;
}

static void network_describe(const dn_network *network, char *out, size_t out_bytes)
{
    const dn_cuda_form *form = network->fused;
    int used = snprintf(out, out_bytes, "%u steps, %u products, buckets of", form->compiled->step_count, form->compiled->product_count);
    for (uint32_t i = 0; i < form->buckets.count && used > 0 && (size_t)used < out_bytes; i++)
        used += snprintf(out + used, out_bytes - (size_t)used, " %u", form->buckets.rows[i]);
    if (used > 0 && (size_t)used < out_bytes)
        snprintf(out + used, out_bytes - (size_t)used, " rows");
}

/* Vectors of times and conditions are computed with every row. */
static size_t condition_bytes(const dn_network *network, uint32_t rows)
{
    (void)network;
    (void)rows;
    return 0;
}

static const dn_backend backend = {
    .name = "cuda",
    .precision = DN_PRECISION_BF16,
    .host_values = false,
    .device_open = dn_cuda_device_open,
    .device_close = dn_cuda_device_close,
    .device_describe = device_describe,
    .device_isa = device_isa,
    .device_identity = device_identity,
    .device_memory = device_memory,
    .precision_check = precision_check,
    .precision_flops = precision_flops,
    .network_create = dn_cuda_network_create,
    .network_update = dn_cuda_network_update,
    .network_free = dn_cuda_network_free,
    .network_bytes = dn_cuda_network_bytes,
    .network_identity = dn_cuda_network_identity,
    .network_describe = network_describe,
    .packed_bytes = dn_cuda_packed_bytes,
    .workspace_create = dn_cuda_workspace_create,
    .workspace_free = dn_cuda_workspace_free,
    .workspace_bytes = dn_cuda_workspace_bytes,
    .condition_bytes = condition_bytes,
    .run = dn_cuda_run,
    .read_value = dn_cuda_read_value,
    .buffer_create = dn_cuda_buffer_create,
    .buffer_free = dn_cuda_buffer_free,
    .buffer_write = dn_cuda_buffer_write,
    .buffer_read = dn_cuda_buffer_read,
    .buffer_read_pixels = dn_cuda_buffer_read_pixels,
    .execute = dn_cuda_execute,
};

const dn_backend *dn_backend_cuda(void)
{
    return &backend;
}

/* Cards that the driver shows. 0: `why` says what is missing. */
static int device_count(char *why, size_t why_bytes)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaErrorInsufficientDriver)
        snprintf(why, why_bytes, "the NVIDIA driver is too old for CUDA %d.%d: install a newer one", CUDART_VERSION / 1000,
                 CUDART_VERSION % 1000 / 10);
    else if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0))
        snprintf(why, why_bytes, "no NVIDIA GPU is visible: nvidia-smi lists those that are; containers need --gpus all");
    else if (code != cudaSuccess)
        snprintf(why, why_bytes, "CUDA does not start: %s", cudaGetErrorString(code));
    return code == cudaSuccess ? count : 0;
}

const dn_backend_library *denoised_backend(void);
__attribute__((visibility("default"))) const dn_backend_library *denoised_backend(void)
{
    static const dn_backend_library library = {
        .abi = DN_BACKEND_ABI,
        .bytes = sizeof library,
        .sizes = DN_BACKEND_SIZES,
        .sources = DN_SOURCES,
        .backend = &backend,
        .device_count = device_count,
    };
    return &library;
}
