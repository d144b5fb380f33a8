/* The most memory that was allocated at one time since heap_peak_begin(), by everybody in this program (malloc and its kin are answered
 * here, out of libc's own). Not under sanitizers, which have their own malloc: heap_peak_known is false there. Include once a program. */
#ifndef DN_TESTS_HOSTILE_HEAP_PEAK_H
#define DN_TESTS_HOSTILE_HEAP_PEAK_H

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

static _Atomic size_t heap_now, heap_most;
static size_t heap_began;

static inline void heap_peak_begin(void)
{
    heap_began = atomic_load(&heap_now);
    atomic_store(&heap_most, heap_began);
}

/* Bytes above what there was at the beginning. */
static inline size_t heap_peak(void)
{
    const size_t most = atomic_load(&heap_most);
    return most > heap_began ? most - heap_began : 0;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool heap_peak_known = false;
#else
static const bool heap_peak_known = true;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *old);

/* A block counts with what was asked for, rounded up as libc does: large ones to whole pages. */
static void *heap_took(void *block)
{
    if (block != NULL) {
        const size_t now = atomic_fetch_add(&heap_now, malloc_usable_size(block)) + malloc_usable_size(block);
        size_t most = atomic_load(&heap_most);
        while (now > most && !atomic_compare_exchange_weak(&heap_most, &most, now))
            continue;
    }
    return block;
}

static void heap_gave(void *block)
{
    if (block != NULL)
        atomic_fetch_sub(&heap_now, malloc_usable_size(block));
}

void *malloc(size_t size)
{
    return heap_took(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return heap_took(__libc_calloc(count, size));
}

void *realloc(void *old, size_t size)
{
    heap_gave(old);
    void *block = __libc_realloc(old, size);
    if (block == NULL && size > 0)
        heap_took(old);
    return heap_took(block);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return heap_took(__libc_memalign(alignment, size));
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *block = heap_took(__libc_memalign(alignment, size));
    if (block != NULL)
        *out = block;
    return block != NULL ? 0 : ENOMEM;
}

void free(void *old)
{
    heap_gave(old);
    __libc_free(old);
}
#endif

#endif
