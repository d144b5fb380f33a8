/* The pickle machine's input and its stack. Invariant: the stack never falls below the last mark, and reading never passes the end of
 * the bytes. One thread. */
#include "format/pickle_values.h"

/* The next `count` bytes, or NULL. */
const unsigned char *dn_pickle_take(dn_pickle *p, uint64_t count)
{
    if (count > (uint64_t)(p->end - p->at))
        return NULL;
    const unsigned char *at = p->at;
    p->at += count;
    return at;
}

/* A little-endian number of 1 to 8 bytes. */
dn_status dn_pickle_take_number(dn_pickle *p, uint64_t *out, size_t bytes)
{
    const unsigned char *at = dn_pickle_take(p, bytes);
    if (at == NULL)
        return dn_pickle_refuse(p, "breaks off");
    *out = 0;
    for (size_t i = bytes; i-- > 0;)
        *out = *out << 8 | at[i];
    return DN_OK;
}

dn_status dn_pickle_push_index(dn_pickle *p, uint32_t value)
{
    uint32_t *room = dn_pickle_grow(&p->stack, sizeof *room, DN_PICKLE_STACK_MAX);
    if (room == NULL)
        return dn_fail(p->error, DN_NO_MEMORY, "%s: pickle: out of memory, or the stack passes %u values", p->path, DN_PICKLE_STACK_MAX);
    *room = value;
    return DN_OK;
}

dn_status dn_pickle_push(dn_pickle *p, const dn_pickle_value *value)
{
    uint32_t index = 0;
    dn_status status = dn_pickle_value_new(p, &index, value);
    return status == DN_OK ? dn_pickle_push_index(p, index) : status;
}

dn_status dn_pickle_push_kind(dn_pickle *p, dn_pickle_kind kind)
{
    return dn_pickle_push(p, &(dn_pickle_value){.kind = kind});
}

dn_status dn_pickle_push_integer(dn_pickle *p, int64_t integer)
{
    return dn_pickle_push(p, &(dn_pickle_value){.kind = DN_PICKLE_INT, .integer = integer});
}

/* Height of the stack above the last mark: values below one are out of reach until it is taken away. */
uint32_t dn_pickle_reachable(const dn_pickle *p)
{
    return p->stack.count - (p->marks.count ? ((const uint32_t *)p->marks.items)[p->marks.count - 1] : 0);
}

dn_status dn_pickle_pop(dn_pickle *p, uint32_t *out)
{
    if (dn_pickle_reachable(p) == 0)
        return dn_pickle_refuse(p, "takes a value from an empty stack");
    *out = ((const uint32_t *)p->stack.items)[--p->stack.count];
    return DN_OK;
}

dn_status dn_pickle_top(const dn_pickle *p, uint32_t *out)
{
    if (dn_pickle_reachable(p) == 0)
        return dn_pickle_refuse(p, "looks at an empty stack");
    *out = ((const uint32_t *)p->stack.items)[p->stack.count - 1];
    return DN_OK;
}

/* A stack that never held a value has no memory: nothing may be added to its address. */
const uint32_t *dn_pickle_stack_from(const dn_pickle *p, uint32_t height)
{
    return p->stack.items == NULL ? NULL : (const uint32_t *)p->stack.items + height;
}

/* Takes the last mark away: the `count` values above it are at *items, and stay there until the next push. */
dn_status dn_pickle_pop_mark(dn_pickle *p, const uint32_t **items, uint32_t *count)
{
    if (p->marks.count == 0)
        return dn_pickle_refuse(p, "goes back to a mark that was not set");
    uint32_t height = ((const uint32_t *)p->marks.items)[--p->marks.count];
    *items = dn_pickle_stack_from(p, height);
    *count = p->stack.count - height;
    p->stack.count = height;
    return DN_OK;
}
