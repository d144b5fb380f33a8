/* Buckets: sizes, times, and the packing of rows. Pure. */
#include "backend/cuda/buckets.h"

#include <stdbool.h>

void dn_cuda_buckets_make(dn_cuda_buckets *out, uint32_t rows, uint32_t limit)
{
    *out = (dn_cuda_buckets){0};
    do {
        out->rows[out->count] = 1u << out->count;
        out->ms[out->count] = (float)(out->rows[out->count] + DN_CUDA_PASS_ROWS);
        out->count++;
    } while (out->count < DN_CUDA_BUCKETS_MAX && out->rows[out->count - 1] < rows && 1u << out->count <= limit);
}

void dn_cuda_buckets_measured(dn_cuda_buckets *buckets, const float *ms, uint32_t count)
{
    for (uint32_t b = 0; count > 0 && b < buckets->count; b++)
        buckets->ms[b] = b < count ? ms[b] : ms[count - 1] * (float)buckets->rows[b] / (float)buckets->rows[count - 1];
}

/* One choice of buckets, by bit. */
typedef struct choice {
    uint32_t mask, rows, passes;
    double ms;
} choice;

static bool better(const choice *a, const choice *b)
{
    if (a->ms != b->ms)
        return a->ms < b->ms;
    return a->passes != b->passes ? a->passes < b->passes : a->mask > b->mask;
}

/* The choice's smallest bucket is needed: without it the rows have no room. So every bucket but the last is full. */
static bool fits_tightly(const dn_cuda_buckets *buckets, const choice *c, uint32_t rows)
{
    uint32_t smallest = 0;
    while (!(c->mask >> smallest & 1u))
        smallest++;
    return c->rows >= rows && c->rows - buckets->rows[smallest] < rows;
}

uint32_t dn_cuda_buckets_pack(const dn_cuda_buckets *buckets, uint32_t rows, uint32_t out[DN_CUDA_BUCKETS_MAX])
{
    choice best = {0};
    /* Every set of buckets: 2^8 for 128 rows. Sums are taken from the smallest bucket up, so that equal sets give equal sums. */
    for (uint32_t mask = 1; rows > 0 && mask < 1u << buckets->count; mask++) {
        choice c = {.mask = mask};
        for (uint32_t b = 0; b < buckets->count; b++) {
            if (!(mask >> b & 1u))
                continue;
            c.rows += buckets->rows[b];
            c.ms += (double)buckets->ms[b];
            c.passes++;
        }
        if (fits_tightly(buckets, &c, rows) && (best.mask == 0 || better(&c, &best)))
            best = c;
    }
    uint32_t count = 0;
    for (uint32_t b = buckets->count; b-- > 0;) {
        if (best.mask >> b & 1u)
            out[count++] = b;
    }
    return count;
}
