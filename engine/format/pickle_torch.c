/* What torch's names mean: storages and the tensors that look into them. Invariant: a tensor value lies inside its storage, strides
 * and all, and has no more elements than it; checked here, once. Meaning: torch/serialization.py (persistent_load) and
 * torch/_utils.py (_rebuild_tensor_v2). One thread. */
#include <stdlib.h>
#include <string.h>

#include "format/pickle_values.h"

#define STORAGE_KEY_BYTES_MAX 64u
#define PERSISTENT_ITEMS 5u /* 'storage', type, key, location, count */
#define TENSOR_ITEMS_MIN 4u /* storage, offset, size, stride; then gradient flag and hooks, of no interest here */

static const struct {
    const char *module, *name;
    dn_pickle_global id;
    dn_dtype dtype;
} globals[] = {
    {"collections", "OrderedDict", DN_GLOBAL_ORDERED_DICT, DN_F32},
    {"torch._utils", "_rebuild_tensor_v2", DN_GLOBAL_REBUILD_TENSOR, DN_F32},
    {"torch._utils", "_rebuild_parameter", DN_GLOBAL_REBUILD_PARAMETER, DN_F32},
    {"torch._utils", "_rebuild_parameter_with_state", DN_GLOBAL_REBUILD_PARAMETER, DN_F32},
    {"torch", "DoubleStorage", DN_GLOBAL_STORAGE_TYPE, DN_F64},
    {"torch", "FloatStorage", DN_GLOBAL_STORAGE_TYPE, DN_F32},
    {"torch", "HalfStorage", DN_GLOBAL_STORAGE_TYPE, DN_F16},
    {"torch", "BFloat16Storage", DN_GLOBAL_STORAGE_TYPE, DN_BF16},
    {"torch", "LongStorage", DN_GLOBAL_STORAGE_TYPE, DN_I64},
    {"torch", "IntStorage", DN_GLOBAL_STORAGE_TYPE, DN_I32},
    {"torch", "ShortStorage", DN_GLOBAL_STORAGE_TYPE, DN_I16},
    {"torch", "CharStorage", DN_GLOBAL_STORAGE_TYPE, DN_I8},
    {"torch", "ByteStorage", DN_GLOBAL_STORAGE_TYPE, DN_U8},
    {"torch", "BoolStorage", DN_GLOBAL_STORAGE_TYPE, DN_BOOL},
};

static bool same_text(const char *at, size_t bytes, const char *text)
{
    return bytes == strlen(text) && memcmp(at, text, bytes) == 0;
}

dn_status dn_pickle_name(dn_pickle *p, uint32_t *out, const char *module, size_t module_bytes, const char *name, size_t name_bytes)
{
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (same_text(module, module_bytes, globals[i].module) && same_text(name, name_bytes, globals[i].name))
            return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_GLOBAL, .global = {globals[i].id, globals[i].dtype}});
    return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_INERT});
}

/* A key names a file of the archive: letters and digits alone, so that it cannot lead anywhere else. */
static bool is_storage_key(const dn_pickle_value *key)
{
    if (key->kind != DN_PICKLE_TEXT || key->text.bytes == 0 || key->text.bytes > STORAGE_KEY_BYTES_MAX)
        return false;
    for (uint32_t i = 0; i < key->text.bytes; i++) {
        char c = key->text.at[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'))
            return false;
    }
    return true;
}

dn_status dn_pickle_persistent(dn_pickle *p, uint32_t *out, uint32_t id)
{
    const dn_pickle_value *tuple = dn_pickle_at(p, id);
    if (tuple->kind != DN_PICKLE_TUPLE || tuple->items.count != PERSISTENT_ITEMS)
        return dn_pickle_refuse(p, "a persistent id that names no storage");
    const dn_pickle_value *word = dn_pickle_at(p, dn_pickle_item(p, id, 0)), *type = dn_pickle_at(p, dn_pickle_item(p, id, 1));
    uint32_t key = dn_pickle_item(p, id, 2);
    const dn_pickle_value *count = dn_pickle_at(p, dn_pickle_item(p, id, 4));
    if (!dn_pickle_text_is(word, "storage"))
        return dn_pickle_refuse(p, "a persistent id that names no storage");
    if (!is_storage_key(dn_pickle_at(p, key)))
        return dn_pickle_refuse(p, "a storage whose key is not made of letters and digits");
    if (count->kind != DN_PICKLE_INT || count->integer < 0)
        return dn_pickle_refuse(p, "a storage whose size is no whole number");
    if (type->kind != DN_PICKLE_GLOBAL || type->global.id != DN_GLOBAL_STORAGE_TYPE) /* complex numbers, quantised ones */
        return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_INERT});
    dn_pickle_value storage = {.kind = DN_PICKLE_STORAGE, .storage = {key, type->global.dtype, (uint64_t)count->integer}};
    return dn_pickle_value_new(p, out, &storage);
}

/* Sizes or strides: a tuple of whole numbers. */
static dn_status take_numbers(const dn_pickle *p, uint64_t out[DN_TENSOR_RANK_MAX], uint32_t *count, uint32_t tuple)
{
    const dn_pickle_value *value = dn_pickle_at(p, tuple);
    if (value->kind != DN_PICKLE_TUPLE || value->items.count > DN_TENSOR_RANK_MAX)
        return dn_pickle_refuse(p, "a tensor whose shape or strides are no tuple of at most 8 numbers");
    *count = value->items.count;
    for (uint32_t i = 0; i < *count; i++) {
        const dn_pickle_value *number = dn_pickle_at(p, dn_pickle_item(p, tuple, i));
        if (number->kind != DN_PICKLE_INT || number->integer < 0)
            return dn_pickle_refuse(p, "a tensor whose shape or strides are no whole numbers");
        out[i] = (uint64_t)number->integer;
    }
    return DN_OK;
}

static dn_status check_inside(const dn_pickle *p, dn_pickle_tensor *tensor)
{
    uint64_t last = tensor->first;
    tensor->count = 1;
    for (uint32_t i = 0; i < tensor->rank; i++)
        if (__builtin_mul_overflow(tensor->count, tensor->dims[i], &tensor->count))
            return dn_pickle_refuse(p, "a tensor whose shape overflows 64 bits");
    if (tensor->count == 0)
        return DN_OK;
    for (uint32_t i = 0; i < tensor->rank; i++) {
        uint64_t reach;
        if (__builtin_mul_overflow(tensor->dims[i] - 1, tensor->strides[i], &reach) || __builtin_add_overflow(last, reach, &last))
            return dn_pickle_refuse(p, "a tensor whose strides overflow 64 bits");
    }
    if (last >= tensor->storage_count)
        return dn_pickle_refuse(p, "a tensor that reaches beyond its storage");
    if (tensor->count > tensor->storage_count)
        return dn_pickle_refuse(p, "a tensor of more elements than its storage has");
    return DN_OK;
}

static dn_status rebuild_tensor(dn_pickle *p, uint32_t *out, uint32_t arguments)
{
    if (dn_pickle_at(p, arguments)->items.count < TENSOR_ITEMS_MIN)
        return dn_pickle_refuse(p, "a tensor of too few arguments");
    const dn_pickle_value *storage = dn_pickle_at(p, dn_pickle_item(p, arguments, 0));
    const dn_pickle_value *offset = dn_pickle_at(p, dn_pickle_item(p, arguments, 1));
    if (storage->kind == DN_PICKLE_INERT)
        return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_INERT});
    if (storage->kind != DN_PICKLE_STORAGE)
        return dn_pickle_refuse(p, "a tensor without a storage");
    if (offset->kind != DN_PICKLE_INT || offset->integer < 0)
        return dn_pickle_refuse(p, "a tensor whose offset is no whole number");
    dn_pickle_tensor tensor = {
        .dtype = storage->storage.dtype, .storage_count = storage->storage.count, .first = (uint64_t)offset->integer};
    uint32_t key = storage->storage.key;
    uint32_t stride_count = 0;
    dn_status status = take_numbers(p, tensor.dims, &tensor.rank, dn_pickle_item(p, arguments, 2));
    if (status == DN_OK)
        status = take_numbers(p, tensor.strides, &stride_count, dn_pickle_item(p, arguments, 3));
    if (status == DN_OK && stride_count != tensor.rank)
        status = dn_pickle_refuse(p, "a tensor with another number of strides than of dimensions");
    if (status == DN_OK)
        status = check_inside(p, &tensor);
    if (status != DN_OK)
        return status;
    dn_pickle_built *room = dn_pickle_grow(&p->tensors, sizeof *room, DN_PICKLE_TENSORS_MAX);
    if (room == NULL)
        return dn_fail(p->error, DN_NO_MEMORY, "%s: pickle: out of memory, or too many tensors", p->path);
    *room = (dn_pickle_built){.tensor = tensor, .key = key};
    return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_TENSOR, .tensor = p->tensors.count - 1});
}

dn_status dn_pickle_call(dn_pickle *p, uint32_t *out, uint32_t callable, uint32_t arguments)
{
    const dn_pickle_value *function = dn_pickle_at(p, callable), *tuple = dn_pickle_at(p, arguments);
    if (function->kind == DN_PICKLE_INERT)
        return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_INERT});
    if (function->kind != DN_PICKLE_GLOBAL || tuple->kind != DN_PICKLE_TUPLE)
        return dn_pickle_refuse(p, "a call of what is no function, or without arguments");
    switch (function->global.id) {
    case DN_GLOBAL_ORDERED_DICT:
        if (tuple->items.count != 0)
            return dn_pickle_refuse(p, "an OrderedDict made from arguments, which torch.save does not write");
        return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_DICT});
    case DN_GLOBAL_REBUILD_TENSOR:
        return rebuild_tensor(p, out, arguments);
    case DN_GLOBAL_REBUILD_PARAMETER:
        if (tuple->items.count == 0)
            return dn_pickle_refuse(p, "a parameter without its tensor");
        *out = dn_pickle_item(p, arguments, 0);
        return DN_OK;
    case DN_GLOBAL_STORAGE_TYPE:
        break;
    }
    return dn_pickle_value_new(p, out, &(dn_pickle_value){.kind = DN_PICKLE_INERT});
}
