/* The machine: reads a pickle's instructions once, from first to last. Invariant: every
 * index on the stack and in the memo is a value of this run; whatever the bytes are, the run ends, within named limits. Protocols 2
 * to 5 (PEP 307, 3154, 574; Lib/pickletools.py). One thread. */
#include "format/pickle_values.h"

#include <string.h>

/* Instructions by the names that pickletools gives them. */
enum {
    OP_PROTO = 0x80,
    OP_FRAME = 0x95,
    OP_STOP = '.',
    OP_MARK = '(',
    OP_POP = '0',
    OP_POP_MARK = '1',
    OP_DUP = '2',
    OP_NONE = 'N',
    OP_NEWTRUE = 0x88,
    OP_NEWFALSE = 0x89,
    OP_BININT = 'J',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_LONG1 = 0x8a,
    OP_LONG4 = 0x8b,
    OP_BINFLOAT = 'G',
    OP_BINUNICODE = 'X',
    OP_SHORT_BINUNICODE = 0x8c,
    OP_BINUNICODE8 = 0x8d,
    OP_BINSTRING = 'T',
    OP_SHORT_BINSTRING = 'U',
    OP_BINBYTES = 'B',
    OP_SHORT_BINBYTES = 'C',
    OP_BINBYTES8 = 0x8e,
    OP_BYTEARRAY8 = 0x96,
    OP_EMPTY_TUPLE = ')',
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_TUPLE = 't',
    OP_EMPTY_LIST = ']',
    OP_APPEND = 'a',
    OP_APPENDS = 'e',
    OP_LIST = 'l',
    OP_EMPTY_DICT = '}',
    OP_SETITEM = 's',
    OP_SETITEMS = 'u',
    OP_DICT = 'd',
    OP_EMPTY_SET = 0x8f,
    OP_ADDITEMS = 0x90,
    OP_FROZENSET = 0x91,
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_MEMOIZE = 0x94,
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j',
    OP_GLOBAL = 'c',
    OP_STACK_GLOBAL = 0x93,
    OP_REDUCE = 'R',
    OP_NEWOBJ = 0x81,
    OP_NEWOBJ_EX = 0x92,
    OP_BUILD = 'b',
    OP_BINPERSID = 'Q'
};

static dn_status do_mark(dn_pickle *p)
{
    uint32_t *room = dn_pickle_grow(&p->marks, sizeof *room, DN_PICKLE_STACK_MAX);
    if (room == NULL)
        return dn_fail(p->error, DN_NO_MEMORY, "%s: pickle: out of memory, or more than %u marks", p->path, DN_PICKLE_STACK_MAX);
    *room = p->stack.count;
    return DN_OK;
}

/* Integers of more than 8 bytes (a seed among the arguments) are of no use here. */
static dn_status do_long(dn_pickle *p, size_t length_bytes)
{
    uint64_t bytes = 0, value = 0;
    dn_status status = dn_pickle_take_number(p, &bytes, length_bytes);
    if (status != DN_OK)
        return status;
    const unsigned char *at = dn_pickle_take(p, bytes);
    if (at == NULL)
        return dn_pickle_refuse(p, "breaks off");
    if (bytes > 8)
        return dn_pickle_push_kind(p, DN_PICKLE_INERT);
    for (size_t i = 0; i < 8; i++)
        value |= (uint64_t)(i < bytes ? at[i] : bytes > 0 && at[bytes - 1] & 0x80 ? 0xFF : 0) << 8 * i;
    return dn_pickle_push_integer(p, (int64_t)value);
}

static dn_status do_text(dn_pickle *p, size_t length_bytes, dn_pickle_kind kind)
{
    uint64_t bytes = 0;
    dn_status status = dn_pickle_take_number(p, &bytes, length_bytes);
    if (status != DN_OK)
        return status;
    const unsigned char *at = dn_pickle_take(p, bytes);
    if (at == NULL)
        return dn_pickle_refuse(p, "breaks off inside a string");
    return dn_pickle_push(p, &(dn_pickle_value){.kind = kind, .text = {(const char *)at, (uint32_t)bytes}});
}

static dn_status collect(dn_pickle *p, dn_pickle_kind kind, const uint32_t *items, uint32_t count)
{
    uint32_t container = 0;
    dn_status status = dn_pickle_value_new(p, &container, &(dn_pickle_value){.kind = kind});
    for (uint32_t i = 0; i < count && status == DN_OK; i++)
        status = dn_pickle_append(p, container, DN_PICKLE_NONE, items[i]);
    return status == DN_OK ? dn_pickle_push_index(p, container) : status;
}

static dn_status do_tuple(dn_pickle *p, uint32_t count)
{
    if (dn_pickle_reachable(p) < count)
        return dn_pickle_refuse(p, "makes a tuple of more values than there are");
    p->stack.count -= count;
    return collect(p, DN_PICKLE_TUPLE, dn_pickle_stack_from(p, p->stack.count), count);
}

static dn_status do_collect(dn_pickle *p, dn_pickle_kind kind)
{
    const uint32_t *items = NULL;
    uint32_t count = 0;
    dn_status status = dn_pickle_pop_mark(p, &items, &count);
    if (status != DN_OK)
        return status;
    return kind == DN_PICKLE_INERT ? dn_pickle_push_kind(p, kind) : collect(p, kind, items, count);
}

/* Adds to the container on top: pairs to a dictionary, items to a list, anything to an inert value, which forgets it. */
static dn_status add_items(dn_pickle *p, dn_pickle_kind kind, const uint32_t *items, uint32_t count)
{
    uint32_t container = 0;
    dn_status status = dn_pickle_top(p, &container);
    if (status != DN_OK)
        return status;
    dn_pickle_kind has = dn_pickle_at(p, container)->kind;
    if (has == DN_PICKLE_INERT)
        return DN_OK;
    if (has != kind)
        return dn_pickle_refuse(p, "adds items to what is no container of its kind");
    uint32_t step = kind == DN_PICKLE_DICT ? 2 : 1;
    if (count % step != 0)
        return dn_pickle_refuse(p, "adds a key without a value");
    for (uint32_t i = 0; i < count && status == DN_OK; i += step)
        status = dn_pickle_append(p, container, step == 2 ? items[i] : DN_PICKLE_NONE, items[i + step - 1]);
    return status;
}

static dn_status do_add_marked(dn_pickle *p, dn_pickle_kind kind)
{
    const uint32_t *items = NULL;
    uint32_t count = 0;
    dn_status status = dn_pickle_pop_mark(p, &items, &count);
    return status == DN_OK ? add_items(p, kind, items, count) : status;
}

static dn_status do_add_one(dn_pickle *p, dn_pickle_kind kind, uint32_t count)
{
    uint32_t items[2] = {0};
    dn_status status = DN_OK;
    for (uint32_t i = count; i-- > 0 && status == DN_OK;)
        status = dn_pickle_pop(p, &items[i]);
    return status == DN_OK ? add_items(p, kind, items, count) : status;
}

/* A dictionary written in one instruction, or an object's: [key, value]... above the mark. */
static dn_status do_dict(dn_pickle *p)
{
    const uint32_t *items = NULL;
    uint32_t count = 0;
    dn_status status = dn_pickle_pop_mark(p, &items, &count);
    if (status == DN_OK && count != 0)
        return dn_pickle_refuse(p, "makes a dictionary of items at once, which torch.save does not write");
    return status == DN_OK ? dn_pickle_push_kind(p, DN_PICKLE_DICT) : status;
}

static dn_status do_put(dn_pickle *p, uint64_t index)
{
    uint32_t value = 0;
    dn_status status = dn_pickle_top(p, &value);
    if (status != DN_OK)
        return status;
    if (index >= DN_PICKLE_MEMO_MAX)
        return dn_pickle_refuse(p, "a memo index that is too large");
    while (p->memo.count <= index) {
        uint32_t *room = dn_pickle_grow(&p->memo, sizeof *room, DN_PICKLE_MEMO_MAX);
        if (room == NULL)
            return dn_fail(p->error, DN_NO_MEMORY, "%s: pickle: out of memory", p->path);
        *room = DN_PICKLE_NONE;
    }
    ((uint32_t *)p->memo.items)[index] = value;
    return DN_OK;
}

static dn_status do_get(dn_pickle *p, uint64_t index)
{
    if (index >= p->memo.count || ((const uint32_t *)p->memo.items)[index] == DN_PICKLE_NONE)
        return dn_pickle_refuse(p, "a memo index that was never set");
    return dn_pickle_push_index(p, ((const uint32_t *)p->memo.items)[index]);
}

/* "module\nname\n" */
static dn_status do_global(dn_pickle *p)
{
    const char *parts[2];
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        const unsigned char *end = memchr(p->at, '\n', (size_t)(p->end - p->at));
        if (end == NULL)
            return dn_pickle_refuse(p, "breaks off inside a name");
        parts[i] = (const char *)p->at;
        bytes[i] = (size_t)(end - p->at);
        p->at = end + 1;
    }
    uint32_t value = 0;
    dn_status status = dn_pickle_name(p, &value, parts[0], bytes[0], parts[1], bytes[1]);
    return status == DN_OK ? dn_pickle_push_index(p, value) : status;
}

static dn_status do_stack_global(dn_pickle *p)
{
    uint32_t name = 0, module = 0, value = 0;
    dn_status status = dn_pickle_pop(p, &name);
    if (status == DN_OK)
        status = dn_pickle_pop(p, &module);
    if (status != DN_OK)
        return status;
    const dn_pickle_value *n = dn_pickle_at(p, name), *m = dn_pickle_at(p, module);
    if (n->kind != DN_PICKLE_TEXT || m->kind != DN_PICKLE_TEXT)
        return dn_pickle_refuse(p, "a name that is no string");
    status = dn_pickle_name(p, &value, m->text.at, m->text.bytes, n->text.at, n->text.bytes);
    return status == DN_OK ? dn_pickle_push_index(p, value) : status;
}

/* Calls what lies below the arguments. A new object (NEWOBJ) of a known class is made as by a call; extra: keyword arguments. */
static dn_status do_call(dn_pickle *p, bool extra)
{
    uint32_t keywords = 0, arguments = 0, callable = 0, value = 0;
    dn_status status = extra ? dn_pickle_pop(p, &keywords) : DN_OK;
    if (status == DN_OK)
        status = dn_pickle_pop(p, &arguments);
    if (status == DN_OK)
        status = dn_pickle_pop(p, &callable);
    if (status == DN_OK)
        status = extra ? dn_pickle_value_new(p, &value, &(dn_pickle_value){.kind = DN_PICKLE_INERT})
                       : dn_pickle_call(p, &value, callable, arguments);
    return status == DN_OK ? dn_pickle_push_index(p, value) : status;
}

/* An object's state (an OrderedDict's _metadata, a Namespace's fields) holds nothing that this machine keeps. */
static dn_status do_build(dn_pickle *p)
{
    uint32_t state = 0, object = 0;
    dn_status status = dn_pickle_pop(p, &state);
    return status == DN_OK ? dn_pickle_top(p, &object) : status;
}

static dn_status do_persistent(dn_pickle *p)
{
    uint32_t id = 0, value = 0;
    dn_status status = dn_pickle_pop(p, &id);
    if (status == DN_OK)
        status = dn_pickle_persistent(p, &value, id);
    return status == DN_OK ? dn_pickle_push_index(p, value) : status;
}

static dn_status do_pop(dn_pickle *p)
{
    uint32_t value = 0;
    return dn_pickle_pop(p, &value);
}

static dn_status do_dup(dn_pickle *p)
{
    uint32_t value = 0;
    dn_status status = dn_pickle_top(p, &value);
    return status == DN_OK ? dn_pickle_push_index(p, value) : status;
}

/* Instructions that are followed by a number of `bytes` bytes and nothing else. */
static dn_status do_numbered(dn_pickle *p, unsigned char op, size_t bytes)
{
    uint64_t number = 0;
    dn_status status = dn_pickle_take_number(p, &number, bytes);
    if (status != DN_OK)
        return status;
    switch (op) {
    case OP_BININT:
        return dn_pickle_push_integer(p, (int32_t)(uint32_t)number);
    case OP_BININT1:
    case OP_BININT2:
        return dn_pickle_push_integer(p, (int64_t)number);
    case OP_BINFLOAT:
        return dn_pickle_push_kind(p, DN_PICKLE_INERT);
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        return do_put(p, number);
    case OP_FRAME:
        return number <= (uint64_t)(p->end - p->at) ? DN_OK : dn_pickle_refuse(p, "a frame that ends beyond the pickle");
    default:
        return do_get(p, number);
    }
}

static dn_status run_container(dn_pickle *p, unsigned char op)
{
    switch (op) {
    case OP_EMPTY_TUPLE:
        return do_tuple(p, 0);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return do_tuple(p, op - OP_TUPLE1 + 1u);
    case OP_TUPLE:
        return do_collect(p, DN_PICKLE_TUPLE);
    case OP_LIST:
        return do_collect(p, DN_PICKLE_LIST);
    case OP_FROZENSET:
        return do_collect(p, DN_PICKLE_INERT);
    case OP_EMPTY_LIST:
        return dn_pickle_push_kind(p, DN_PICKLE_LIST);
    case OP_EMPTY_DICT:
        return dn_pickle_push_kind(p, DN_PICKLE_DICT);
    case OP_DICT:
        return do_dict(p);
    case OP_APPEND:
        return do_add_one(p, DN_PICKLE_LIST, 1);
    case OP_SETITEM:
        return do_add_one(p, DN_PICKLE_DICT, 2);
    case OP_APPENDS:
        return do_add_marked(p, DN_PICKLE_LIST);
    case OP_SETITEMS:
        return do_add_marked(p, DN_PICKLE_DICT);
    case OP_ADDITEMS:
        return do_add_marked(p, DN_PICKLE_INERT);
    default:
        return dn_fail(p->error, DN_INVALID, "%s: pickle, byte %zu: instruction 0x%02x is none that torch.save writes", p->path,
                       (size_t)(p->at - p->start) - 1, op);
    }
}

static dn_status run_scalar(dn_pickle *p, unsigned char op)
{
    switch (op) {
    case OP_NONE:
    case OP_NEWTRUE:
    case OP_NEWFALSE:
    case OP_EMPTY_SET:
        return dn_pickle_push_kind(p, DN_PICKLE_INERT);
    case OP_BININT1:
    case OP_BINPUT:
    case OP_BINGET:
        return do_numbered(p, op, 1);
    case OP_BININT2:
        return do_numbered(p, op, 2);
    case OP_BININT:
    case OP_LONG_BINPUT:
    case OP_LONG_BINGET:
        return do_numbered(p, op, 4);
    case OP_BINFLOAT:
    case OP_FRAME:
        return do_numbered(p, op, 8);
    case OP_LONG1:
        return do_long(p, 1);
    case OP_LONG4:
        return do_long(p, 4);
    case OP_SHORT_BINUNICODE:
        return do_text(p, 1, DN_PICKLE_TEXT);
    case OP_BINUNICODE:
        return do_text(p, 4, DN_PICKLE_TEXT);
    case OP_BINUNICODE8:
        return do_text(p, 8, DN_PICKLE_TEXT);
    case OP_SHORT_BINSTRING:
    case OP_SHORT_BINBYTES:
        return do_text(p, 1, DN_PICKLE_INERT);
    case OP_BINSTRING:
    case OP_BINBYTES:
        return do_text(p, 4, DN_PICKLE_INERT);
    case OP_BINBYTES8:
    case OP_BYTEARRAY8:
        return do_text(p, 8, DN_PICKLE_INERT);
    default:
        return run_container(p, op);
    }
}

static dn_status run_one(dn_pickle *p, unsigned char op)
{
    switch (op) {
    case OP_MARK:
        return do_mark(p);
    case OP_POP:
        return do_pop(p);
    case OP_POP_MARK: {
        const uint32_t *items = NULL;
        uint32_t count = 0;
        return dn_pickle_pop_mark(p, &items, &count);
    }
    case OP_DUP:
        return do_dup(p);
    case OP_MEMOIZE:
        return do_put(p, p->memo.count);
    case OP_GLOBAL:
        return do_global(p);
    case OP_STACK_GLOBAL:
        return do_stack_global(p);
    case OP_REDUCE:
    case OP_NEWOBJ:
        return do_call(p, false);
    case OP_NEWOBJ_EX:
        return do_call(p, true);
    case OP_BUILD:
        return do_build(p);
    case OP_BINPERSID:
        return do_persistent(p);
    default:
        return run_scalar(p, op);
    }
}

dn_status dn_pickle_run(dn_pickle *p, uint32_t *root)
{
    const unsigned char *head = dn_pickle_take(p, 2);
    if (head == NULL || head[0] != OP_PROTO || head[1] < 2 || head[1] > 5)
        return dn_pickle_refuse(p, "not of protocol 2 to 5");
    for (;;) {
        const unsigned char *op = dn_pickle_take(p, 1);
        if (op == NULL)
            return dn_pickle_refuse(p, "breaks off");
        if (*op == OP_STOP)
            break;
        dn_status status = run_one(p, *op);
        if (status != DN_OK)
            return status;
    }
    if (p->at != p->end)
        return dn_pickle_refuse(p, "bytes behind its end");
    if (p->stack.count != 1 || p->marks.count != 0)
        return dn_pickle_refuse(p, "does not end with one value");
    *root = ((const uint32_t *)p->stack.items)[0];
    return DN_OK;
}
