/* The values of a restricted pickle machine: a growing table of them, addressed by index, so that a pickle that refers to itself
 * does no harm. Private to pickle*.c. */
#ifndef DN_FORMAT_PICKLE_VALUES_H
#define DN_FORMAT_PICKLE_VALUES_H

#include "format/pickle.h"

/* All tables together stay below 40 MB, whatever the program: a checkpoint of 2,400 tensors with its optimizer has 50,000 values. */
#define DN_PICKLE_VALUES_MAX (1u << 19) /* values, and cells of containers */
#define DN_PICKLE_STACK_MAX (1u << 18) /* and marks */
#define DN_PICKLE_MEMO_MAX (1u << 20)
#define DN_PICKLE_TENSORS_MAX DN_SAFETENSORS_TENSORS_MAX
#define DN_PICKLE_NONE UINT32_MAX

typedef enum dn_pickle_kind {
    DN_PICKLE_INERT, /* whatever this machine does not know or need: None, booleans, floats, objects of any class */
    DN_PICKLE_INT,
    DN_PICKLE_TEXT,
    DN_PICKLE_TUPLE,
    DN_PICKLE_LIST,
    DN_PICKLE_DICT,
    DN_PICKLE_GLOBAL,
    DN_PICKLE_STORAGE,
    DN_PICKLE_TENSOR
} dn_pickle_kind;

typedef enum dn_pickle_global {
    DN_GLOBAL_ORDERED_DICT,
    DN_GLOBAL_REBUILD_TENSOR, /* torch._utils._rebuild_tensor_v2 */
    DN_GLOBAL_REBUILD_PARAMETER, /* torch._utils._rebuild_parameter: its first argument is the tensor */
    DN_GLOBAL_STORAGE_TYPE
} dn_pickle_global;

typedef struct dn_pickle_value {
    dn_pickle_kind kind;
    union {
        int64_t integer;
        struct {
            const char *at; /* into the pickle; not terminated */
            uint32_t bytes;
        } text;
        struct {
            uint32_t first, last, count; /* cells */
        } items;
        struct {
            dn_pickle_global id;
            dn_dtype dtype; /* of a storage type */
        } global;
        struct {
            uint32_t key; /* a text */
            dn_dtype dtype;
            uint64_t count;
        } storage;
        uint32_t tensor; /* index into tensors */
    };
} dn_pickle_value;

typedef struct dn_pickle_cell {
    uint32_t key, value; /* key: of a dictionary */
    uint32_t next;
} dn_pickle_cell;

typedef struct dn_pickle_built {
    dn_pickle_tensor tensor; /* without its names */
    uint32_t key; /* of its storage: a text */
} dn_pickle_built;

typedef struct dn_pickle_array {
    void *items;
    uint32_t count, capacity;
} dn_pickle_array;

/* One run of the machine. Owns its tables; the pickle's bytes are borrowed. */
typedef struct dn_pickle {
    const unsigned char *at, *end, *start;
    const char *path;
    dn_error *error;
    dn_pickle_array values, cells, tensors; /* dn_pickle_value, dn_pickle_cell, dn_pickle_built */
    dn_pickle_array stack, marks, memo; /* uint32_t: values, heights of the stack, values */
} dn_pickle;

void dn_pickle_done(dn_pickle *p);
dn_status dn_pickle_refuse(const dn_pickle *p, const char *rule);

/* Room for one more item of `size` bytes at the end of an array, zeroed; NULL past the limit or out of memory. */
void *dn_pickle_grow(dn_pickle_array *array, size_t size, uint32_t limit);

dn_status dn_pickle_value_new(dn_pickle *p, uint32_t *out, const dn_pickle_value *value);
dn_status dn_pickle_append(dn_pickle *p, uint32_t container, uint32_t key, uint32_t value);
const dn_pickle_value *dn_pickle_at(const dn_pickle *p, uint32_t value);
/* The i-th item of a tuple or list, DN_PICKLE_NONE beyond its end. */
uint32_t dn_pickle_item(const dn_pickle *p, uint32_t container, uint32_t i);
bool dn_pickle_text_is(const dn_pickle_value *value, const char *text);

/* Input and stack (pickle_stack.c). */
const unsigned char *dn_pickle_take(dn_pickle *p, uint64_t count); /* the next bytes, or NULL */
dn_status dn_pickle_take_number(dn_pickle *p, uint64_t *out, size_t bytes); /* little-endian, of 1 to 8 bytes */
dn_status dn_pickle_push_index(dn_pickle *p, uint32_t value);
dn_status dn_pickle_push(dn_pickle *p, const dn_pickle_value *value); /* a new value */
dn_status dn_pickle_push_kind(dn_pickle *p, dn_pickle_kind kind);
dn_status dn_pickle_push_integer(dn_pickle *p, int64_t integer);
uint32_t dn_pickle_reachable(const dn_pickle *p); /* values above the last mark: those below are out of reach until it goes */
dn_status dn_pickle_pop(dn_pickle *p, uint32_t *out);
dn_status dn_pickle_top(const dn_pickle *p, uint32_t *out);
const uint32_t *dn_pickle_stack_from(const dn_pickle *p, uint32_t height);
/* Takes the last mark away: the `count` values above it are at *items, and stay there until the next push. */
dn_status dn_pickle_pop_mark(dn_pickle *p, const uint32_t **items, uint32_t *count);

/* Runs the instructions to STOP, which must be the last byte (pickle.c); *root is the one value that is left. */
dn_status dn_pickle_run(dn_pickle *p, uint32_t *root);

/* What torch means by a name, a persistent id, and a call (pickle_torch.c). An unknown one is an inert value. */
dn_status dn_pickle_name(dn_pickle *p, uint32_t *out, const char *module, size_t module_bytes, const char *name, size_t name_bytes);
dn_status dn_pickle_persistent(dn_pickle *p, uint32_t *out, uint32_t id);
dn_status dn_pickle_call(dn_pickle *p, uint32_t *out, uint32_t callable, uint32_t arguments);

#endif
