/* The reader. Owns one descriptor, kept open between reads, and one arena for names and tables. Invariant: every tensor's
 * extent lies inside the file as it was when opened; a file that shrinks later is a refusal at the read, not a fault.
 * Immutable once open: any number of threads may read (pread). */
#include "format/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/half.h"
#include "format/safetensors_file.h"

#define READ_CHUNK_BYTES (64u << 10)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are stored and copied as little endian");

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [DN_F64] = {"F64", 8}, [DN_F32] = {"F32", 4}, [DN_F16] = {"F16", 2}, [DN_BF16] = {"BF16", 2}, [DN_I64] = {"I64", 8},
    [DN_I32] = {"I32", 4}, [DN_I16] = {"I16", 2}, [DN_I8] = {"I8", 1},   [DN_U8] = {"U8", 1},     [DN_BOOL] = {"BOOL", 1},
};

size_t dn_dtype_bytes(dn_dtype dtype)
{
    return dtypes[dtype].bytes;
}

const char *dn_dtype_name(dn_dtype dtype)
{
    return dtypes[dtype].name;
}

bool dn_dtype_of(dn_dtype *out, const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, name) == 0) {
            *out = (dn_dtype)i;
            return true;
        }
    }
    return false;
}

void dn_safetensors_close(dn_safetensors *file)
{
    if (!file) {
        return;
    }
    if (file->fd >= 0) {
        close(file->fd);
    }
    dn_arena_done(&file->arena);
    free(file);
}

size_t dn_safetensors_count(const dn_safetensors *file)
{
    return file->count;
}

const dn_tensor_info *dn_safetensors_at(const dn_safetensors *file, size_t index)
{
    return index < file->count ? &file->tensors[index] : NULL;
}

const dn_tensor_info *dn_safetensors_find(const dn_safetensors *file, const char *name)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, file->by_name[middle]->name);
        if (order == 0) {
            return file->by_name[middle];
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return NULL;
}

const char *dn_safetensors_metadata(const dn_safetensors *file, const char *key)
{
    for (size_t i = 0; i < file->metadata_count; i++) {
        if (strcmp(file->metadata[i].key, key) == 0) {
            return file->metadata[i].value;
        }
    }
    return NULL;
}

const char *dn_safetensors_path(const dn_safetensors *file)
{
    return file->path;
}

dn_status dn_safetensors_pread(const dn_safetensors *file, void *out, size_t count, uint64_t offset, dn_error *error)
{
    return dn_pread_exactly(file->fd, file->path, out, count, offset, error);
}

dn_status dn_pread_exactly(int fd, const char *path, void *out, size_t count, uint64_t offset, dn_error *error)
{
    unsigned char *at = out;
    while (count > 0) {
        ssize_t got = pread(fd, at, count, (off_t)offset);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return dn_fail(error, DN_IO, "%s: cannot read: %s", path, strerror(errno));
        }
        if (got == 0) {
            return dn_fail(error, DN_IO, "%s: the file has shrunk since it was opened", path);
        }
        at += got;
        offset += (uint64_t)got;
        count -= (size_t)got;
    }
    return DN_OK;
}

static int64_t integer_at(const unsigned char *bytes, size_t i, dn_dtype dtype)
{
    int64_t i64;
    int32_t i32;
    int16_t i16;
    switch (dtype) {
    case DN_I64:
        memcpy(&i64, bytes + 8 * i, 8);
        return i64;
    case DN_I32:
        memcpy(&i32, bytes + 4 * i, 4);
        return i32;
    case DN_I16:
        memcpy(&i16, bytes + 2 * i, 2);
        return i16;
    case DN_I8:
        return (int8_t)bytes[i];
    default:
        return bytes[i];
    }
}

static double float_at(const unsigned char *bytes, size_t i, dn_dtype dtype)
{
    double f64;
    float f32;
    uint16_t half;
    switch (dtype) {
    case DN_F64:
        memcpy(&f64, bytes + 8 * i, 8);
        return f64;
    case DN_F32:
        memcpy(&f32, bytes + 4 * i, 4);
        return (double)f32;
    default:
        memcpy(&half, bytes + 2 * i, 2);
        return (double)(dtype == DN_F16 ? dn_f16_to_f32(half) : dn_bf16_to_f32(half));
    }
}

static bool is_float(dn_dtype dtype)
{
    return dtype == DN_F64 || dtype == DN_F32 || dtype == DN_F16 || dtype == DN_BF16;
}

void dn_dtype_to_f32(float *out, const unsigned char *bytes, size_t count, dn_dtype dtype)
{
    if (dtype == DN_F32) {
        memcpy(out, bytes, count * sizeof *out);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = is_float(dtype) ? (float)float_at(bytes, i, dtype) : (float)integer_at(bytes, i, dtype);
    }
}

/* What becomes of one chunk: elements first..first+count-1 of the tensor, as stored. False: a value does not fit. */
typedef bool convert_chunk(void *out, size_t first, const unsigned char *bytes, size_t count, dn_dtype dtype);

static bool to_f32(void *out, size_t first, const unsigned char *bytes, size_t count, dn_dtype dtype)
{
    dn_dtype_to_f32((float *)out + first, bytes, count, dtype);
    return true;
}

static bool to_f64(void *out, size_t first, const unsigned char *bytes, size_t count, dn_dtype dtype)
{
    double *values = (double *)out + first;
    for (size_t i = 0; i < count; i++) {
        values[i] = is_float(dtype) ? float_at(bytes, i, dtype) : (double)integer_at(bytes, i, dtype);
    }
    return true;
}

static bool to_i64(void *out, size_t first, const unsigned char *bytes, size_t count, dn_dtype dtype)
{
    int64_t *values = (int64_t *)out + first;
    for (size_t i = 0; i < count; i++) {
        if (!is_float(dtype)) {
            values[i] = integer_at(bytes, i, dtype);
            continue;
        }
        double value = float_at(bytes, i, dtype);
        if (!(value >= -9223372036854775808.0 && value < 9223372036854775808.0) || value != trunc(value)) {
            return false;
        }
        values[i] = (int64_t)value;
    }
    return true;
}

static dn_status read_converted(const dn_safetensors *file, const dn_tensor_info *info, convert_chunk *convert, void *out, dn_error *error)
{
    size_t size = dn_dtype_bytes(info->dtype);
    unsigned char *chunk = malloc(READ_CHUNK_BYTES);
    if (!chunk) {
        return dn_fail(error, DN_NO_MEMORY, "%s: %.100s: out of memory", file->path, info->name);
    }
    dn_status status = DN_OK;
    for (uint64_t first = 0; first < info->count;) {
        uint64_t left = info->count - first;
        size_t count = left < READ_CHUNK_BYTES / size ? (size_t)left : READ_CHUNK_BYTES / size;
        status = dn_safetensors_pread(file, chunk, count * size, info->offset + first * size, error);
        if (status != DN_OK) {
            break;
        }
        if (!convert(out, (size_t)first, chunk, count, info->dtype)) {
            status = dn_fail(error, DN_INVALID, "%s: %.100s: a value is not a whole number", file->path, info->name);
            break;
        }
        first += count;
    }
    free(chunk);
    return status;
}

dn_status dn_safetensors_read_f32(const dn_safetensors *file, const dn_tensor_info *info, float *out, dn_error *error)
{
    if (info->dtype == DN_F32) {
        return dn_safetensors_pread(file, out, (size_t)info->bytes, info->offset, error);
    }
    return read_converted(file, info, to_f32, out, error);
}

dn_status dn_safetensors_read_f64(const dn_safetensors *file, const dn_tensor_info *info, double *out, dn_error *error)
{
    return read_converted(file, info, to_f64, out, error);
}

dn_status dn_safetensors_read_i64(const dn_safetensors *file, const dn_tensor_info *info, int64_t *out, dn_error *error)
{
    if (info->dtype == DN_F16 || info->dtype == DN_BF16) {
        return dn_fail(error, DN_INVALID, "%s: %.100s: %s where integers are due", file->path, info->name, dn_dtype_name(info->dtype));
    }
    return read_converted(file, info, to_i64, out, error);
}
