/* A plan's weights in float: one 64-byte aligned allocation, carved into the plan's tensors.
 *
 * Invariant: data[w] has exactly plan->weights[w].count floats and starts on a 64-byte line. Owner's thread. */
#include "plan/plan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LINE_FLOATS 16u

static uint64_t padded(uint64_t count)
{
    return (count + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

dn_status dn_weights_create(dn_weights **out, const dn_plan *plan, dn_error *error)
{
    uint64_t total = 0, room = 0;
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        total += plan->weights[w].count;
        room += padded(plan->weights[w].count);
    }
    dn_weights *weights = calloc(1, sizeof *weights);
    float **data = calloc(plan->weight_count ? plan->weight_count : 1, sizeof *data);
    size_t bytes = (size_t)(room ? room : LINE_FLOATS) * sizeof(float);
    float *storage = aligned_alloc(64, bytes);
    if (!weights || !data || !storage) {
        free(weights);
        free(data);
        free(storage);
        return dn_fail(error, DN_NO_MEMORY, "no memory for %llu weights", (unsigned long long)total);
    }
    memset(storage, 0, bytes);
    *weights = (dn_weights){.count = plan->weight_count, .total = total, .storage = storage, .data = data};
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        data[w] = storage;
        storage += padded(plan->weights[w].count);
    }
    *out = weights;
    return DN_OK;
}

void dn_weights_free(dn_weights *weights)
{
    if (!weights)
        return;
    free(weights->storage);
    free(weights->data);
    free(weights);
}

/* Whole pages of it alone: the system takes them, and gives zeros if they are ever read again. */
void dn_weights_release(dn_weights *weights, const dn_plan *plan, uint32_t w)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)weights->data[w];
    uintptr_t first = (begin + page - 1) / page * page, end = (begin + plan->weights[w].count * sizeof(float)) / page * page;
    if (end > first)
        (void)madvise((void *)first, end - first, MADV_DONTNEED);
}
