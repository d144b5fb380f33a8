/* Products on the CPU as plainly as a GPU's libraries could be replaced: operands widened to float, float sums in the order of k, results
 * rounded once to the product's type. A row's bytes depend on that row alone. No state; any thread. */
#ifndef DN_TESTS_CUDA_PLAIN_H
#define DN_TESTS_CUDA_PLAIN_H

#include "backend/cuda/libraries.h"

/* Everything that one run needs, by value, so that a recorded graph may run it later. */
typedef struct dn_plain_run {
    dn_cuda_product_spec spec; /* one that dn_cuda_product_check accepted */
    dn_cuda_operands operands;
    uint32_t rows;
    size_t workspace; /* bytes */
} dn_plain_run;

/* false: out of memory. */
bool dn_plain_product(const dn_plain_run *run);

/* Enqueues work(run) on the emulated stream; a CUDA error number. submit.cpp */
int dn_plain_submit(void *stream, const dn_plain_run *run);

#endif
