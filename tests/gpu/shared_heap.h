/* The heap of tests of kernels when they run on a GPU: pinned memory, which card and processor see at the same address, so that the same tests give
 * kernels their own allocations. Included before anything else by the build (-include, deploy/cuda.mk); single-threaded like the tests. */
#ifndef DN_TESTS_GPU_SHARED_HEAP_H
#define DN_TESTS_GPU_SHARED_HEAP_H

#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

static inline void *gpu_shared(size_t bytes)
{
    void *memory = NULL;
    return cudaMallocHost(&memory, bytes > 0 ? bytes : 1) == cudaSuccess ? memory : NULL;
}

static inline void *gpu_shared_zeros(size_t count, size_t size)
{
    void *memory = gpu_shared(count * size);
    return memory != NULL ? memset(memory, 0, count * size) : NULL;
}

static inline void gpu_shared_free(void *memory)
{
    if (memory != NULL)
        cudaFreeHost(memory);
}

#define malloc(bytes) gpu_shared(bytes)
#define calloc(count, size) gpu_shared_zeros(count, size)
#define aligned_alloc(alignment, bytes) gpu_shared(bytes)
#define free(memory) gpu_shared_free(memory)

#endif
