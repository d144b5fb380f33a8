/* The heap of tests of kernels when they run on a GPU: memory that the card and the processor both see, so that the same tests give kernels their
 * own allocations. Included before anything else by the build (-include, deploy/cuda.mk); single-threaded like the tests. */
#ifndef DN_TESTS_GPU_MANAGED_H
#define DN_TESTS_GPU_MANAGED_H

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

static inline void *gpu_managed(size_t bytes)
{
    void *memory = NULL;
    return cudaMallocManaged(&memory, bytes > 0 ? bytes : 1, cudaMemAttachGlobal) == cudaSuccess ? memory : NULL;
}

static inline void *gpu_managed_zeros(size_t count, size_t size)
{
    void *memory = gpu_managed(count * size);
    return memory != NULL ? memset(memory, 0, count * size) : NULL;
}

static inline void gpu_managed_free(void *memory)
{
    if (memory != NULL)
        cudaFree(memory);
}

#define malloc(bytes) gpu_managed(bytes)
#define calloc(count, size) gpu_managed_zeros(count, size)
#define aligned_alloc(alignment, bytes) gpu_managed(bytes)
#define free(memory) gpu_managed_free(memory)

#endif
