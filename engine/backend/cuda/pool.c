/* Device memory by size classes: see pool.h. */
#include <stdlib.h>

#include "backend/cuda/pool.h"

#define SMALLEST_LOG2 10u
#define CLASSES (4u * (sizeof(size_t) * 8u - SMALLEST_LOG2))
#define KEPT_SHARE 16u /* one part in so many of the card's memory */

typedef struct kept {
    void *memory;
    struct kept *next;
} kept;

struct dn_cuda_pool {
    kept *lists[CLASSES];
    size_t bytes; /* kept */
};

/* The smallest class that has so many bytes, and its size: (4 + q) * 2^(log2 - 2), q = 0..3. */
static unsigned class_of(size_t bytes, size_t *rounded)
{
    unsigned log2 = SMALLEST_LOG2, quarter = 0;
    while (log2 < sizeof(size_t) * 8 - 2 && (size_t)1 << (log2 + 1) <= bytes)
        log2++;
    size_t step = (size_t)1 << (log2 - 2), size = (size_t)1 << log2;
    while (size < bytes) {
        size += step;
        quarter++;
    }
    if (quarter == 4) {
        log2++;
        quarter = 0;
    }
    *rounded = size;
    return 4 * (log2 - SMALLEST_LOG2) + quarter;
}

dn_status dn_cuda_pool_create(dn_device *device, dn_error *error)
{
    device->pool = calloc(1, sizeof *device->pool);
    return device->pool ? DN_OK : dn_fail(error, DN_NO_MEMORY, "no memory for a device");
}

bool dn_cuda_pool_trim(dn_device *device)
{
    pthread_mutex_lock(&device->lock);
    struct dn_cuda_pool *pool = device->pool;
    bool any = pool && pool->bytes > 0;
    for (unsigned c = 0; any && c < CLASSES; c++) {
        while (pool->lists[c]) {
            kept *first = pool->lists[c];
            pool->lists[c] = first->next;
            (void)cudaFree(first->memory);
            free(first);
        }
    }
    if (any)
        pool->bytes = 0;
    pthread_mutex_unlock(&device->lock);
    return any;
}

void dn_cuda_pool_free(dn_device *device)
{
    (void)dn_cuda_pool_trim(device);
    free(device->pool);
    device->pool = NULL;
}

dn_status dn_cuda_pool_take(dn_device *device, void **out, size_t *bytes, dn_error *error)
{
    size_t rounded = 0;
    if (*bytes > SIZE_MAX / 4)
        return dn_fail(error, DN_NO_MEMORY, "no memory on the GPU: %zu bytes are wanted", *bytes);
    unsigned c = class_of(*bytes, &rounded);
    pthread_mutex_lock(&device->lock);
    kept *first = device->pool->lists[c];
    if (first) {
        device->pool->lists[c] = first->next;
        device->pool->bytes -= rounded;
    }
    pthread_mutex_unlock(&device->lock);
    dn_status status = DN_OK;
    if (first)
        *out = first->memory;
    else
        status = dn_cuda_alloc(device, out, rounded, error);
    free(first);
    if (status == DN_OK)
        *bytes = rounded;
    return status;
}

void dn_cuda_pool_give(dn_device *device, void *memory, size_t bytes)
{
    size_t rounded = 0;
    unsigned c = class_of(bytes, &rounded);
    kept *entry = malloc(sizeof *entry);
    pthread_mutex_lock(&device->lock);
    struct dn_cuda_pool *pool = device->pool;
    bool keep = entry && !device->lost && pool->bytes + rounded <= device->memory / KEPT_SHARE;
    if (keep) {
        *entry = (kept){.memory = memory, .next = pool->lists[c]};
        pool->lists[c] = entry;
        pool->bytes += rounded;
        entry = NULL; /* the list's */
    }
    pthread_mutex_unlock(&device->lock);
    free(entry);
    if (!keep)
        dn_cuda_release(device, memory);
}
