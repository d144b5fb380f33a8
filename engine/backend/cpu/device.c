/* The CPU as a device: its threads, its instruction set, its buffers; and the table that is the back end.
 *
 * Invariant: the kernels of a device are ones its CPU can run. A device is shared; its pool lets callers take turns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/isa.h"
#include "backend/cpu/state.h"
#include "base/pixel.h"

#define BUFFER_ALIGNMENT 64u

float *dn_cpu_alloc(size_t floats)
{
    if (floats > SIZE_MAX / sizeof(float) - DN_CPU_LINE_FLOATS)
        return NULL;
    return aligned_alloc(64, dn_cpu_round_up(floats ? floats : 1, DN_CPU_LINE_FLOATS) * sizeof(float));
}

static dn_status device_open(dn_device **out, const dn_device_options *options, dn_error *error)
{
    static const dn_device_options defaults = {0};
    if (!options)
        options = &defaults;
    const dn_cpu_kernels *kernels = NULL;
    dn_status status = dn_cpu_choose(&kernels, options->isa, error);
    if (status != DN_OK)
        return status;
    dn_device *device = calloc(1, sizeof *device);
    if (!device)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a device");
    device->kernels = kernels;
    status = dn_pool_create(&device->pool, options->threads, error);
    if (status != DN_OK) {
        free(device);
        return status;
    }
    *out = device;
    return DN_OK;
}

static void device_close(dn_device *device)
{
    if (!device)
        return;
    dn_pool_free(device->pool);
    free(device);
}

static void device_describe(const dn_device *device, char *out, size_t out_bytes)
{
    unsigned threads = dn_pool_size(device->pool);
    snprintf(out, out_bytes, "cpu %s %u thread%s", device->kernels->isa, threads, threads == 1 ? "" : "s");
}

static const char *device_isa(const dn_device *device)
{
    return device->kernels->isa;
}

static const char *no_identity(const dn_device *device)
{
    (void)device;
    return ""; /* the instruction set says it all */
}

static const char *no_pins(const dn_network *network)
{
    (void)network;
    return "";
}

static size_t network_bytes(const dn_network *network)
{
    return network->bytes;
}

static dn_status read_value(dn_network *network, dn_workspace *workspace, dn_value value, uint32_t row, float *out, dn_error *error)
{
    if (!workspace->keep_values || value >= network->plan->value_count || row >= workspace->row_count)
        return dn_fail(error, DN_INTERNAL, "no value %u of row %u is kept", value, row);
    size_t count = dn_shape_count(network->plan->values[value].shape);
    memcpy(out, dn_cpu_value(workspace, value) + row * count, count * sizeof *out);
    return DN_OK;
}

/* calloc's large blocks are fresh pages, zero without being touched: what nobody writes costs nothing. */
static dn_status buffer_create(dn_buffer **out, dn_device *device, size_t floats, dn_error *error)
{
    (void)device;
    dn_buffer *buffer = calloc(1, sizeof *buffer);
    char *memory = floats > SIZE_MAX / sizeof(float) - BUFFER_ALIGNMENT ? NULL : calloc(1, floats * sizeof(float) + BUFFER_ALIGNMENT);
    if (!buffer || !memory) {
        free(buffer);
        free(memory);
        return dn_fail(error, DN_NO_MEMORY, "no memory for a buffer of %zu floats", floats);
    }
    size_t past = (uintptr_t)memory % BUFFER_ALIGNMENT;
    *buffer = (dn_buffer){.count = floats, .data = (float *)(void *)(memory + BUFFER_ALIGNMENT - past), .memory = memory};
    *out = buffer;
    return DN_OK;
}

static void buffer_free(dn_buffer *buffer)
{
    if (!buffer)
        return;
    free(buffer->memory);
    free(buffer);
}

static bool inside(const dn_buffer *buffer, size_t offset, size_t count)
{
    return offset <= buffer->count && count <= buffer->count - offset;
}

static dn_status buffer_write(dn_buffer *buffer, size_t offset, const float *values, size_t count, dn_error *error)
{
    if (!inside(buffer, offset, count))
        return dn_fail(error, DN_INTERNAL, "%zu floats at %zu do not fit a buffer of %zu", count, offset, buffer->count);
    if (count)
        memcpy(buffer->data + offset, values, count * sizeof *values);
    return DN_OK;
}

static dn_status buffer_read(const dn_buffer *buffer, size_t offset, float *values, size_t count, dn_error *error)
{
    if (!inside(buffer, offset, count))
        return dn_fail(error, DN_INTERNAL, "%zu floats at %zu are not in a buffer of %zu", count, offset, buffer->count);
    if (count)
        memcpy(values, buffer->data + offset, count * sizeof *values);
    return DN_OK;
}

static dn_status buffer_read_pixels(const dn_buffer *buffer, size_t offset, uint32_t channels, size_t plane, bool unit_range,
                                    uint8_t *pixels, dn_error *error)
{
    if (!inside(buffer, offset, channels * plane))
        return dn_fail(error, DN_INTERNAL, "a picture of %zu floats at %zu is not in a buffer of %zu", channels * plane, offset,
                       buffer->count);
    const float *picture = buffer->data + offset;
    for (size_t i = 0; i < plane; i++) {
        for (uint32_t c = 0; c < channels; c++)
            pixels[i * channels + c] = dn_pixel(picture[c * plane + i], unit_range);
    }
    return DN_OK;
}

const dn_backend *dn_backend_cpu(void)
{
    static const dn_backend backend = {
        .name = "cpu",
        .precision = DN_PRECISION_FP32,
        .host_values = true,
        .device_open = device_open,
        .device_close = device_close,
        .device_describe = device_describe,
        .device_isa = device_isa,
        .device_identity = no_identity,
        .precision_check = dn_cpu_precision_check,
        .precision_flops = dn_cpu_precision_flops,
        .network_create = dn_cpu_network_create,
        .network_update = dn_cpu_network_update,
        .network_free = dn_cpu_network_free,
        .network_bytes = network_bytes,
        .network_identity = no_pins,
        .packed_bytes = dn_cpu_packed_bytes,
        .workspace_create = dn_cpu_workspace_create,
        .workspace_free = dn_cpu_workspace_free,
        .workspace_bytes = dn_cpu_workspace_bytes,
        .condition_bytes = dn_cpu_condition_bytes,
        .run = dn_cpu_run_rows,
        .read_value = read_value,
        .buffer_create = buffer_create,
        .buffer_free = buffer_free,
        .buffer_write = buffer_write,
        .buffer_read = buffer_read,
        .buffer_read_pixels = buffer_read_pixels,
        .execute = dn_cpu_execute,
    };
    return &backend;
}
