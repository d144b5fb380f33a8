/* Buffers: floats on the card, written and read through pinned memory.
 *
 * A write returns when the values are in pinned memory, whose parts are written again only once they have been copied; it is enqueued on the
 * main stream. A read waits for what waits for its buffer and for the main stream; one of a settled buffer waits for neither: pictures are
 * read while passes run. Any thread; a buffer's users take turns. */
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/buffers.h"
#include "backend/cuda/kernels/launch.h"
#include "backend/cuda/pool.h"
#include "backend/cuda/programs.h"

#define PARTS 4u
#define PART_BYTES ((size_t)1 << 20)

struct dn_cuda_staging {
    pthread_mutex_t lock; /* all below; before the device's */
    unsigned char *memory; /* [PARTS][PART_BYTES], pinned */
    cudaEvent_t copied[PARTS]; /* when the card is done with a part */
    unsigned next;
    void *pixels; /* on the card: of the picture that is being read */
    size_t pixels_bytes;
};

dn_status dn_cuda_staging_create(dn_device *device, dn_error *error)
{
    struct dn_cuda_staging *staging = calloc(1, sizeof *staging);
    if (!staging || pthread_mutex_init(&staging->lock, NULL) != 0) {
        free(staging);
        return dn_fail(error, DN_NO_MEMORY, "no memory for a device");
    }
    device->staging = staging;
    void *memory = NULL;
    dn_status status = dn_cuda_check(device, cudaMallocHost(&memory, PARTS * PART_BYTES), "reserving pinned memory for buffers", error);
    staging->memory = memory;
    for (unsigned i = 0; i < PARTS && status == DN_OK; i++)
        status = dn_cuda_check(device, cudaEventCreateWithFlags(&staging->copied[i], cudaEventDisableTiming), "making an event", error);
    return status;
}

void dn_cuda_staging_free(dn_device *device)
{
    struct dn_cuda_staging *staging = device->staging;
    if (!staging)
        return;
    for (unsigned i = 0; i < PARTS; i++)
        if (staging->copied[i])
            (void)cudaEventDestroy(staging->copied[i]);
    if (staging->memory)
        (void)cudaFreeHost(staging->memory);
    dn_cuda_release(device, staging->pixels);
    (void)pthread_mutex_destroy(&staging->lock);
    free(staging);
    device->staging = NULL;
}

/* The next part, once the card is done with it. */
static dn_status next_part(dn_device *device, unsigned *part, dn_error *error)
{
    struct dn_cuda_staging *staging = device->staging;
    *part = staging->next;
    staging->next = (staging->next + 1) % PARTS;
    return dn_cuda_check(device, cudaEventSynchronize(staging->copied[*part]), "waiting for a copy", error);
}

static dn_status stage(dn_device *device, void *to, const void *from, size_t bytes, cudaStream_t stream, cudaEvent_t copied,
                       dn_error *error)
{
    dn_status status = dn_cuda_check(device, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copying a buffer", error);
    return status == DN_OK ? dn_cuda_check(device, cudaEventRecord(copied, stream), "copying a buffer", error) : status;
}

/* Under the staging's lock. */
static dn_status copy_in(dn_device *device, unsigned char *to, const unsigned char *from, size_t bytes, dn_error *error)
{
    struct dn_cuda_staging *staging = device->staging;
    dn_status status = DN_OK;
    for (size_t at = 0; at < bytes && status == DN_OK; at += PART_BYTES) {
        size_t taken = bytes - at < PART_BYTES ? bytes - at : PART_BYTES;
        unsigned part = 0;
        status = next_part(device, &part, error);
        if (status != DN_OK)
            break;
        unsigned char *held = staging->memory + part * PART_BYTES;
        memcpy(held, from + at, taken);
        status = stage(device, to + at, held, taken, device->main, staging->copied[part], error);
    }
    return status;
}

/* Behind what the stream has. */
static dn_status copy_out(dn_device *device, cudaStream_t stream, unsigned char *to, const unsigned char *from, size_t bytes,
                          dn_error *error)
{
    struct dn_cuda_staging *staging = device->staging;
    dn_status status = DN_OK;
    for (size_t at = 0; at < bytes && status == DN_OK; at += PART_BYTES) {
        size_t taken = bytes - at < PART_BYTES ? bytes - at : PART_BYTES;
        unsigned part = 0;
        status = next_part(device, &part, error);
        unsigned char *held = staging->memory + part * PART_BYTES;
        if (status == DN_OK)
            status = stage(device, held, from + at, taken, stream, staging->copied[part], error);
        if (status == DN_OK)
            status = dn_cuda_check(device, cudaEventSynchronize(staging->copied[part]), "copying from the card", error);
        if (status == DN_OK)
            memcpy(to + at, held, taken);
    }
    return status;
}

/* CPU back end's calloc: zeros. */
dn_status dn_cuda_buffer_create(dn_buffer **out, dn_device *device, size_t floats, dn_error *error)
{
    dn_status status = dn_cuda_enter(device, error);
    if (status != DN_OK)
        return status;
    dn_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer || floats > SIZE_MAX / 8) {
        free(buffer);
        return dn_fail(error, DN_NO_MEMORY, "no memory for a buffer of %zu floats", floats);
    }
    *buffer = (dn_buffer){.device = device, .count = floats, .bytes = floats * sizeof(float)};
    void *memory = NULL;
    status = dn_cuda_pool_take(device, &memory, &buffer->bytes, error);
    if (status == DN_OK && floats)
        status = dn_cuda_check(device, cudaMemsetAsync(memory, 0, floats * sizeof(float), device->main), "clearing a buffer", error);
    buffer->data = memory;
    if (status == DN_OK)
        *out = buffer;
    else
        dn_cuda_buffer_free(buffer);
    return status;
}

void dn_cuda_buffer_free(dn_buffer *buffer)
{
    if (!buffer)
        return;
    dn_cuda_pending_drop(buffer);
    if (buffer->data)
        dn_cuda_pool_give(buffer->device, buffer->data, buffer->bytes);
    free(buffer->ops);
    free(buffer);
}

static cudaStream_t stream_of(const dn_buffer *buffer)
{
    return buffer->settled ? buffer->device->reading : buffer->device->main;
}

/* Under the staging's lock. */
static dn_status room_for_pixels(dn_device *device, size_t bytes, dn_error *error)
{
    struct dn_cuda_staging *staging = device->staging;
    if (bytes <= staging->pixels_bytes)
        return DN_OK;
    dn_cuda_release(device, staging->pixels);
    staging->pixels = NULL;
    staging->pixels_bytes = 0;
    dn_status status = dn_cuda_alloc(device, &staging->pixels, bytes, error);
    if (status == DN_OK)
        staging->pixels_bytes = bytes;
    return status;
}

static bool inside(const dn_buffer *buffer, size_t offset, size_t count)
{
    return offset <= buffer->count && count <= buffer->count - offset;
}

dn_status dn_cuda_buffer_write(dn_buffer *buffer, size_t offset, const float *values, size_t count, dn_error *error)
{
    dn_device *device = buffer->device;
    if (!inside(buffer, offset, count))
        return dn_fail(error, DN_INTERNAL, "%zu floats at %zu do not fit a buffer of %zu", count, offset, buffer->count);
    dn_status status = dn_cuda_enter(device, error);
    if (status != DN_OK || count == 0)
        return status;
    pthread_mutex_lock(&device->staging->lock);
    status = dn_cuda_pending_flush(device, buffer, error);
    buffer->settled = false;
    if (status == DN_OK)
        status = copy_in(device, (unsigned char *)(buffer->data + offset), (const unsigned char *)values, count * sizeof *values, error);
    pthread_mutex_unlock(&device->staging->lock);
    return status;
}

dn_status dn_cuda_buffer_read(const dn_buffer *buffer, size_t offset, float *values, size_t count, dn_error *error)
{
    dn_device *device = buffer->device;
    if (!inside(buffer, offset, count))
        return dn_fail(error, DN_INTERNAL, "%zu floats at %zu are not in a buffer of %zu", count, offset, buffer->count);
    dn_status status = dn_cuda_enter(device, error);
    if (status != DN_OK || count == 0)
        return status;
    pthread_mutex_lock(&device->staging->lock);
    status = dn_cuda_pending_flush(device, buffer, error);
    if (status == DN_OK)
        status = copy_out(device, stream_of(buffer), (unsigned char *)values, (const unsigned char *)(buffer->data + offset),
                          count * sizeof *values, error);
    pthread_mutex_unlock(&device->staging->lock);
    return status;
}

dn_status dn_cuda_buffer_read_pixels(const dn_buffer *buffer, size_t offset, uint32_t channels, size_t plane, bool unit_range,
                                     uint8_t *pixels, dn_error *error)
{
    dn_device *device = buffer->device;
    size_t count = channels * plane;
    if ((channels && plane > SIZE_MAX / channels) || !inside(buffer, offset, count))
        return dn_fail(error, DN_INTERNAL, "a picture of %u planes of %zu floats at %zu is not in a buffer of %zu", channels, plane, offset,
                       buffer->count);
    dn_status status = dn_cuda_enter(device, error);
    if (status != DN_OK || count == 0)
        return status;
    pthread_mutex_lock(&device->staging->lock);
    status = room_for_pixels(device, count, error);
    if (status == DN_OK)
        status = dn_cuda_pending_flush(device, buffer, error);
    if (status == DN_OK) {
        cudaError_t code =
            (cudaError_t)dn_cuda_pixels(stream_of(buffer), buffer->data + offset, channels, plane, unit_range, device->staging->pixels);
        status = dn_cuda_check(device, code, "making pixels", error);
    }
    if (status == DN_OK)
        status = copy_out(device, stream_of(buffer), pixels, device->staging->pixels, count, error);
    pthread_mutex_unlock(&device->staging->lock);
    return status;
}
