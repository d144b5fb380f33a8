/* An arena: memory of one lifetime, allocated piecewise and freed whole. Not thread safe: one owner. */
#ifndef DN_BASE_ARENA_H
#define DN_BASE_ARENA_H

#include <stddef.h>

typedef struct dn_arena {
    struct dn_arena_chunk *head;
    size_t total_bytes;     /* handed out so far */
    size_t limit_bytes;     /* 0: none; past it allocations return NULL */
} dn_arena;

void dn_arena_init(dn_arena *arena, size_t limit_bytes);
void dn_arena_done(dn_arena *arena);                       /* frees everything; the arena may be used again */

/* Zeroed, 64-byte aligned memory, or NULL when out of memory or past the limit. */
void *dn_arena_alloc(dn_arena *arena, size_t bytes);
void *dn_arena_alloc_array(dn_arena *arena, size_t count, size_t size);   /* NULL on overflow too */
char *dn_arena_strdup(dn_arena *arena, const char *text);

#endif
