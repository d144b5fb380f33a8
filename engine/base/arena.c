/* Owns a list of chunks; each is one calloc, so large fresh memory is zeroed by the kernel page by page as it is
 * touched. Invariant: every pointer handed out is 64-byte aligned and lives until dn_arena_done. One owner, no lock. */
#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGNMENT 64u
#define ARENA_CHUNK_BYTES (64u << 10) /* the smallest chunk; a larger request gets a chunk of its own size */

struct dn_arena_chunk {
    struct dn_arena_chunk *next;
    unsigned char *at;
    size_t left_bytes;
};

void dn_arena_init(dn_arena *arena, size_t limit_bytes)
{
    *arena = (dn_arena){.limit_bytes = limit_bytes};
}

void dn_arena_done(dn_arena *arena)
{
    struct dn_arena_chunk *chunk = arena->head;
    while (chunk) {
        struct dn_arena_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    arena->head = NULL;
    arena->total_bytes = 0;
}

static struct dn_arena_chunk *chunk_create(size_t bytes)
{
    size_t payload = bytes > ARENA_CHUNK_BYTES ? bytes : ARENA_CHUNK_BYTES;
    size_t overhead = sizeof(struct dn_arena_chunk) + ARENA_ALIGNMENT;
    if (payload > SIZE_MAX - overhead) {
        return NULL;
    }
    struct dn_arena_chunk *chunk = calloc(1, payload + overhead);
    if (!chunk) {
        return NULL;
    }
    unsigned char *start = (unsigned char *)(chunk + 1);
    chunk->at = start + (ARENA_ALIGNMENT - (uintptr_t)start % ARENA_ALIGNMENT) % ARENA_ALIGNMENT;
    chunk->left_bytes = payload;
    return chunk;
}

void *dn_arena_alloc(dn_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX - ARENA_ALIGNMENT) {
        return NULL;
    }
    size_t rounded = bytes == 0 ? ARENA_ALIGNMENT : (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
    if (arena->limit_bytes && rounded > arena->limit_bytes - arena->total_bytes) {
        return NULL;
    }
    struct dn_arena_chunk *chunk = arena->head;
    if (!chunk || chunk->left_bytes < rounded) {
        chunk = chunk_create(rounded);
        if (!chunk) {
            return NULL;
        }
        /* A chunk made for one large request is full at once: keep allocating from the old one behind it. */
        if (arena->head && rounded >= ARENA_CHUNK_BYTES) {
            chunk->next = arena->head->next;
            arena->head->next = chunk;
        } else {
            chunk->next = arena->head;
            arena->head = chunk;
        }
    }
    void *memory = chunk->at;
    chunk->at += rounded;
    chunk->left_bytes -= rounded;
    arena->total_bytes += rounded;
    return memory;
}

void *dn_arena_alloc_array(dn_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return NULL;
    }
    return dn_arena_alloc(arena, bytes);
}

char *dn_arena_strdup(dn_arena *arena, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = dn_arena_alloc(arena, bytes);
    if (copy) {
        memcpy(copy, text, bytes);
    }
    return copy;
}
