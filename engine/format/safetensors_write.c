/* The writer. Owns copies of everything added until it is freed. The file's bytes depend on the contents alone, not on the
 * order of adding: tensors are sorted by size of type (largest first, so that every tensor is aligned) and name, as the
 * reference writer does. Its own header goes through the reader's scanner before it is written, which is where duplicate
 * or malformed names are found. One thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "format/json.h"
#include "format/safetensors_file.h"

#define HEADER_ALIGNMENT 8u

typedef struct entry {
    char *name;
    dn_dtype dtype;
    uint32_t rank;
    uint64_t dims[DN_TENSOR_RANK_MAX];
    size_t bytes;
    unsigned char *data;
} entry;

struct dn_safetensors_writer {
    entry *entries;
    size_t count, capacity;
    char **metadata; /* key, value, key, value, ... */
    size_t metadata_count;
};

dn_status dn_safetensors_writer_create(dn_safetensors_writer **out, dn_error *error)
{
    dn_safetensors_writer *writer = calloc(1, sizeof *writer);
    if (!writer) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory for a safetensors writer");
    }
    *out = writer;
    return DN_OK;
}

void dn_safetensors_writer_free(dn_safetensors_writer *writer)
{
    if (!writer) {
        return;
    }
    for (size_t i = 0; i < writer->count; i++) {
        free(writer->entries[i].name);
        free(writer->entries[i].data);
    }
    for (size_t i = 0; i < writer->metadata_count; i++) {
        free(writer->metadata[i]);
    }
    free(writer->entries);
    free(writer->metadata);
    free(writer);
}

dn_status dn_safetensors_writer_metadata(dn_safetensors_writer *writer, const char *key, const char *value, dn_error *error)
{
    char **larger = realloc(writer->metadata, (writer->metadata_count + 2) * sizeof *larger);
    if (larger) {
        writer->metadata = larger;
    }
    char *key_copy = strdup(key), *value_copy = strdup(value);
    if (!larger || !key_copy || !value_copy) {
        free(key_copy);
        free(value_copy);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for metadata");
    }
    writer->metadata[writer->metadata_count++] = key_copy;
    writer->metadata[writer->metadata_count++] = value_copy;
    return DN_OK;
}

/* Appends an entry with room for its data. *out points into the writer until the next one is added. */
static dn_status add_entry(entry **out, dn_safetensors_writer *writer, const char *name, dn_dtype dtype, uint32_t rank,
                           const uint64_t *dims, dn_error *error)
{
    if (rank > DN_TENSOR_RANK_MAX || strlen(name) > DN_TENSOR_NAME_BYTES_MAX) {
        return dn_fail(error, DN_INVALID, "tensor \"%.100s\": name too long or too many dimensions", name);
    }
    if (writer->count == DN_SAFETENSORS_TENSORS_MAX) {
        return dn_fail(error, DN_INVALID, "tensor \"%.100s\": too many tensors", name);
    }
    entry added = {.dtype = dtype, .rank = rank, .bytes = dn_dtype_bytes(dtype)};
    for (uint32_t i = 0; i < rank; i++) {
        added.dims[i] = dims[i];
        if (__builtin_mul_overflow(added.bytes, dims[i], &added.bytes)) {
            return dn_fail(error, DN_INVALID, "tensor \"%.100s\": shape overflows 64 bits", name);
        }
    }
    if (writer->count == writer->capacity) {
        size_t capacity = writer->capacity ? writer->capacity * 2 : 64;
        entry *larger = realloc(writer->entries, capacity * sizeof *larger);
        if (!larger) {
            return dn_fail(error, DN_NO_MEMORY, "tensor \"%.100s\": out of memory", name);
        }
        writer->entries = larger;
        writer->capacity = capacity;
    }
    added.name = strdup(name);
    added.data = malloc(added.bytes ? added.bytes : 1);
    if (!added.name || !added.data) {
        free(added.name);
        free(added.data);
        return dn_fail(error, DN_NO_MEMORY, "tensor \"%.100s\": out of memory", name);
    }
    *out = &writer->entries[writer->count];
    writer->entries[writer->count++] = added;
    return DN_OK;
}

dn_status dn_safetensors_writer_add_f32(dn_safetensors_writer *writer, const char *name, dn_dtype stored_as, uint32_t rank,
                                        const uint64_t *dims, const float *values, dn_error *error)
{
    if (stored_as != DN_F32 && stored_as != DN_F64 && stored_as != DN_F16 && stored_as != DN_BF16) {
        return dn_fail(error, DN_INVALID, "tensor \"%.100s\": floats cannot be stored as %s", name, dn_dtype_name(stored_as));
    }
    entry *added = NULL;
    dn_status status = add_entry(&added, writer, name, stored_as, rank, dims, error);
    if (status != DN_OK) {
        return status;
    }
    size_t count = added->bytes / dn_dtype_bytes(stored_as);
    for (size_t i = 0; i < count; i++) {
        double wide = (double)values[i];
        uint16_t half = stored_as == DN_F16 ? dn_f32_to_f16(values[i]) : dn_f32_to_bf16(values[i]);
        const void *source = stored_as == DN_F64   ? (const void *)&wide
                             : stored_as == DN_F32 ? (const void *)&values[i]
                                                   : (const void *)&half;
        memcpy(added->data + i * dn_dtype_bytes(stored_as), source, dn_dtype_bytes(stored_as));
    }
    return DN_OK;
}

dn_status dn_safetensors_writer_add_raw(dn_safetensors_writer *writer, const char *name, dn_dtype dtype, uint32_t rank,
                                        const uint64_t *dims, const void *bytes, dn_error *error)
{
    entry *added = NULL;
    dn_status status = add_entry(&added, writer, name, dtype, rank, dims, error);
    if (status == DN_OK && added->bytes > 0) {
        memcpy(added->data, bytes, added->bytes);
    }
    return status;
}

static int compare_entries(const void *a, const void *b)
{
    const entry *left = a, *right = b;
    size_t left_size = dn_dtype_bytes(left->dtype), right_size = dn_dtype_bytes(right->dtype);
    if (left_size != right_size) {
        return left_size > right_size ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static void put_string(FILE *stream, const char *text)
{
    fputc('"', stream);
    for (const unsigned char *at = (const unsigned char *)text; *at; at++) {
        if (*at == '"' || *at == '\\') {
            fputc('\\', stream);
            fputc(*at, stream);
        } else if (*at < 0x20) {
            fprintf(stream, "\\u%04x", *at);
        } else {
            fputc(*at, stream);
        }
    }
    fputc('"', stream);
}

static void put_metadata(FILE *stream, const dn_safetensors_writer *writer)
{
    fputs("\"__metadata__\":{", stream);
    for (size_t i = 0; i < writer->metadata_count; i += 2) {
        fputs(i > 0 ? "," : "", stream);
        put_string(stream, writer->metadata[i]);
        fputc(':', stream);
        put_string(stream, writer->metadata[i + 1]);
    }
    fputc('}', stream);
}

static void put_entry(FILE *stream, const entry *tensor, unsigned long long begin)
{
    put_string(stream, tensor->name);
    fprintf(stream, ":{\"dtype\":\"%s\",\"shape\":[", dn_dtype_name(tensor->dtype));
    for (uint32_t i = 0; i < tensor->rank; i++) {
        fprintf(stream, "%s%llu", i > 0 ? "," : "", (unsigned long long)tensor->dims[i]);
    }
    fprintf(stream, "],\"data_offsets\":[%llu,%llu]}", begin, begin + tensor->bytes);
}

/* *out is malloc'd; its length is a multiple of 8, padded with spaces. */
static dn_status make_header(char **out, size_t *out_bytes, const dn_safetensors_writer *writer, dn_error *error)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    if (!stream) {
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the header");
    }
    fputc('{', stream);
    if (writer->metadata_count > 0) {
        put_metadata(stream, writer);
    }
    unsigned long long begin = 0;
    for (size_t i = 0; i < writer->count; i++) {
        fputs(i > 0 || writer->metadata_count > 0 ? "," : "", stream);
        put_entry(stream, &writer->entries[i], begin);
        begin += writer->entries[i].bytes;
    }
    fputc('}', stream);
    for (long at = ftell(stream); at % (long)HEADER_ALIGNMENT != 0; at++) {
        fputc(' ', stream);
    }
    if (fclose(stream) != 0 || !text) {
        free(text);
        return dn_fail(error, DN_NO_MEMORY, "out of memory for the header");
    }
    size_t offset = 0;
    dn_error reason = {0};
    dn_json_limits limits = {.bytes_max = DN_SAFETENSORS_HEADER_BYTES_MAX, .depth_max = 3};
    dn_status status = dn_json_scan(text, bytes, &limits, &offset, &reason);
    if (status != DN_OK) {
        free(text);
        return dn_fail(error, status, "tensor names or metadata make no valid header: byte %zu: %s", offset, reason.message);
    }
    *out = text;
    *out_bytes = bytes;
    return DN_OK;
}

dn_status dn_safetensors_writer_save(dn_safetensors_writer *writer, const char *path, bool durable, dn_error *error)
{
    if (writer->count > 0) {
        qsort(writer->entries, writer->count, sizeof *writer->entries, compare_entries);
    }
    char *text = NULL;
    size_t text_bytes = 0;
    dn_file_part *parts = calloc(writer->count + 2, sizeof *parts);
    if (!parts) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    dn_error reason = {0};
    dn_status status = make_header(&text, &text_bytes, writer, &reason);
    if (status != DN_OK) {
        status = dn_fail(error, status, "%s: %s", path, reason.message);
        goto done;
    }
    uint64_t length = text_bytes;
    parts[0] = (dn_file_part){.bytes = &length, .count = sizeof length};
    parts[1] = (dn_file_part){.bytes = text, .count = text_bytes};
    for (size_t i = 0; i < writer->count; i++) {
        parts[i + 2] = (dn_file_part){.bytes = writer->entries[i].data, .count = writer->entries[i].bytes};
    }
    status = dn_file_write_parts(path, parts, writer->count + 2, durable, error);
done:
    free(parts);
    free(text);
    return status;
}
