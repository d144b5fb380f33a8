/* Buckets: the batch sizes that products and graphs are made for, and which of them a run's rows go through.
 *
 * A bucket of b rows computes b rows whatever is wanted of it, so 20 rows are 16 and 4, or 32, as the times say that were measured. What a
 * row's bytes are never depends on it. Pure; no state of its own. */
#ifndef DN_BACKEND_CUDA_BUCKETS_H
#define DN_BACKEND_CUDA_BUCKETS_H

#include <stdint.h>

#include "backend/cuda/libraries.h"

typedef struct dn_cuda_buckets {
    uint32_t count;
    uint32_t rows[DN_CUDA_BUCKETS_MAX]; /* rising */
    float ms[DN_CUDA_BUCKETS_MAX];      /* of one pass; only how they compare counts */
} dn_cuda_buckets;

/* Those that hold 1 .. rows rows: 1, 2, 4, ... up to the first of at least `rows`, but none above `limit` except 1, with times that stand in
 * until some are measured: a pass costs as much as its rows and DN_CUDA_PASS_ROWS more. */
#define DN_CUDA_PASS_ROWS 4u
void dn_cuda_buckets_make(dn_cuda_buckets *out, uint32_t rows, uint32_t limit);

/* Takes the first `count` buckets' times as measured (milliseconds, above 0); those of larger ones go on in proportion to their rows. */
void dn_cuda_buckets_measured(dn_cuda_buckets *buckets, const float *ms, uint32_t count);

/* The buckets, by index and largest first, that hold `rows` rows in the least time, none twice; of equal times the fewest, then those with
 * the larger first bucket. Returns how many; 0 where all together hold fewer. All but the last are full. */
uint32_t dn_cuda_buckets_pack(const dn_cuda_buckets *buckets, uint32_t rows, uint32_t out[DN_CUDA_BUCKETS_MAX]);

#endif
