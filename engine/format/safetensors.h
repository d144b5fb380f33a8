/* safetensors: a header of names, types, shapes and offsets, then the bytes. Read strictly, tensor by tensor, never
 * mapped (a file that shrinks must not kill us). Rules as in the reference reader and reliability notes: offsets start
 * at 0, are contiguous and end at the file's end; product of the shape times the size of the type equals the extent. */
#ifndef DN_FORMAT_SAFETENSORS_H
#define DN_FORMAT_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"

typedef enum dn_dtype { DN_F64, DN_F32, DN_F16, DN_BF16, DN_I64, DN_I32, DN_I16, DN_I8, DN_U8, DN_BOOL } dn_dtype;

size_t dn_dtype_bytes(dn_dtype dtype);
const char *dn_dtype_name(dn_dtype dtype);   /* "F32", as in the file */

typedef struct dn_tensor_info {
    const char *name;          /* owned by the file object */
    dn_dtype dtype;
    uint32_t rank;
    uint64_t dims[DN_TENSOR_RANK_MAX];
    uint64_t count;            /* elements */
    uint64_t offset;           /* of its first byte, from the start of the file */
    uint64_t bytes;
} dn_tensor_info;

typedef struct dn_safetensors dn_safetensors;

dn_status dn_safetensors_open(dn_safetensors **out, const char *path, dn_error *error);
void dn_safetensors_close(dn_safetensors *file);                               /* accepts NULL */
size_t dn_safetensors_count(const dn_safetensors *file);
const dn_tensor_info *dn_safetensors_at(const dn_safetensors *file, size_t index);
const dn_tensor_info *dn_safetensors_find(const dn_safetensors *file, const char *name);   /* NULL: not there */
const char *dn_safetensors_metadata(const dn_safetensors *file, const char *key);          /* NULL: not there */
const char *dn_safetensors_path(const dn_safetensors *file);

/* Element-wise conversion to float (F64, F16, BF16, integers widened or rounded) or double. `out` holds info->count. */
dn_status dn_safetensors_read_f32(const dn_safetensors *file, const dn_tensor_info *info, float *out, dn_error *error);
dn_status dn_safetensors_read_f64(const dn_safetensors *file, const dn_tensor_info *info, double *out, dn_error *error);
/* Integers of any width (F32 and F64 too when every value is whole); others are DN_INVALID. */
dn_status dn_safetensors_read_i64(const dn_safetensors *file, const dn_tensor_info *info, int64_t *out, dn_error *error);

/* Writing: add tensors (data is copied and converted from float; or raw bytes), then save atomically. */
typedef struct dn_safetensors_writer dn_safetensors_writer;
dn_status dn_safetensors_writer_create(dn_safetensors_writer **out, dn_error *error);
void dn_safetensors_writer_free(dn_safetensors_writer *writer);
dn_status dn_safetensors_writer_metadata(dn_safetensors_writer *writer, const char *key, const char *value, dn_error *error);
dn_status dn_safetensors_writer_add_f32(dn_safetensors_writer *writer, const char *name, dn_dtype stored_as, uint32_t rank,
                                        const uint64_t *dims, const float *values, dn_error *error);
dn_status dn_safetensors_writer_add_raw(dn_safetensors_writer *writer, const char *name, dn_dtype dtype, uint32_t rank,
                                        const uint64_t *dims, const void *bytes, dn_error *error);
dn_status dn_safetensors_writer_save(dn_safetensors_writer *writer, const char *path, bool durable, dn_error *error);

#endif
