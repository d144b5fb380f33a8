/* Tables of the pickle machine. Invariant: an index that was handed out is valid until dn_pickle_done, every container's chain of
 * cells ends, and no table grows past its limit. One thread. */
#include "format/pickle_values.h"

#include <stdlib.h>
#include <string.h>

#define ARRAY_ITEMS_MIN 256u

void dn_pickle_done(dn_pickle *p)
{
    dn_pickle_array *const arrays[] = {&p->values, &p->cells, &p->tensors, &p->stack, &p->marks, &p->memo};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        free(arrays[i]->items);
}

dn_status dn_pickle_refuse(const dn_pickle *p, const char *rule)
{
    return dn_fail(p->error, DN_INVALID, "%s: pickle, byte %zu: %s", p->path, (size_t)(p->at - p->start), rule);
}

void *dn_pickle_grow(dn_pickle_array *array, size_t size, uint32_t limit)
{
    if (array->count >= limit)
        return NULL;
    if (array->count == array->capacity) {
        uint32_t capacity = array->capacity ? array->capacity * 2 : ARRAY_ITEMS_MIN;
        void *larger = realloc(array->items, capacity * size);
        if (larger == NULL)
            return NULL;
        array->items = larger;
        array->capacity = capacity;
    }
    unsigned char *item = (unsigned char *)array->items + array->count * size;
    memset(item, 0, size);
    array->count++;
    return item;
}

dn_status dn_pickle_value_new(dn_pickle *p, uint32_t *out, const dn_pickle_value *value)
{
    dn_pickle_value *room = dn_pickle_grow(&p->values, sizeof *room, DN_PICKLE_VALUES_MAX);
    if (room == NULL)
        return dn_fail(p->error, DN_NO_MEMORY, "%s: pickle: out of memory, or more than %u values", p->path, DN_PICKLE_VALUES_MAX);
    *room = *value;
    if (value->kind == DN_PICKLE_TUPLE || value->kind == DN_PICKLE_LIST || value->kind == DN_PICKLE_DICT) {
        room->items.first = room->items.last = DN_PICKLE_NONE;
        room->items.count = 0;
    }
    *out = p->values.count - 1;
    return DN_OK;
}

const dn_pickle_value *dn_pickle_at(const dn_pickle *p, uint32_t value)
{
    return (const dn_pickle_value *)p->values.items + value;
}

dn_status dn_pickle_append(dn_pickle *p, uint32_t container, uint32_t key, uint32_t value)
{
    dn_pickle_cell *cell = dn_pickle_grow(&p->cells, sizeof *cell, DN_PICKLE_VALUES_MAX);
    if (cell == NULL)
        return dn_fail(p->error, DN_NO_MEMORY, "%s: pickle: out of memory, or more than %u items", p->path, DN_PICKLE_VALUES_MAX);
    *cell = (dn_pickle_cell){.key = key, .value = value, .next = DN_PICKLE_NONE};
    dn_pickle_value *owner = (dn_pickle_value *)p->values.items + container;
    uint32_t index = p->cells.count - 1;
    if (owner->items.last == DN_PICKLE_NONE)
        owner->items.first = index;
    else
        ((dn_pickle_cell *)p->cells.items)[owner->items.last].next = index;
    owner->items.last = index;
    owner->items.count++;
    return DN_OK;
}

uint32_t dn_pickle_item(const dn_pickle *p, uint32_t container, uint32_t i)
{
    const dn_pickle_cell *cells = p->cells.items;
    uint32_t cell = dn_pickle_at(p, container)->items.first;
    for (; cell != DN_PICKLE_NONE && i > 0; i--)
        cell = cells[cell].next;
    return cell == DN_PICKLE_NONE ? DN_PICKLE_NONE : cells[cell].value;
}

bool dn_pickle_text_is(const dn_pickle_value *value, const char *text)
{
    return value->kind == DN_PICKLE_TEXT && value->text.bytes == strlen(text) && memcmp(value->text.at, text, value->text.bytes) == 0;
}
