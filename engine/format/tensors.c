/* Opens checkpoints of every kind and reads tensors out of them. Owns the descriptors of all files and one table of tensors.
 * Invariant: every tensor's extent lies inside its file as it was when opened, and no name is there twice; a file that shrinks later
 * is a refusal at the read. Immutable once open but for dn_tensors_enter: any number of threads may read. */
#include "format/tensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/sha256.h"
#include "format/safetensors_file.h"
#include "format/tensors_file.h"

#define FILES_MAX 257u /* an index and its shards */
#define NAMES_BYTES_MAX (96u << 20)
#define READ_CHUNK_BYTES (64u << 10)
#define HASH_CHUNK_BYTES (1u << 20)
#define INDEX_ENDING ".index.json"
#define INDEX_HALF_ENDING ".index.fp16.json" /* as diffusers names a variant's */

static bool ends_with(const char *text, const char *ending)
{
    size_t bytes = strlen(text), ending_bytes = strlen(ending);
    return bytes >= ending_bytes && strcmp(text + bytes - ending_bytes, ending) == 0;
}

void dn_tensors_close(dn_tensors *tensors)
{
    if (tensors == NULL)
        return;
    for (uint32_t i = 0; i < tensors->file_count; i++) {
        if (tensors->files[i].safetensors != NULL)
            dn_safetensors_close(tensors->files[i].safetensors);
        else if (tensors->files[i].fd >= 0)
            close(tensors->files[i].fd);
    }
    free(tensors->files);
    free(tensors->entries);
    free(tensors->by_name);
    dn_arena_done(&tensors->arena);
    free(tensors);
}

dn_status dn_tensors_add_entry(dn_tensors *tensors, const dn_tensor_entry *entry, dn_error *error)
{
    const char *path = tensors->files[entry->file].path;
    if (tensors->count == DN_SAFETENSORS_TENSORS_MAX)
        return dn_fail(error, DN_INVALID, "%s: more than %u tensors", path, DN_SAFETENSORS_TENSORS_MAX);
    if (tensors->count == tensors->capacity) {
        size_t capacity = tensors->capacity ? tensors->capacity * 2 : 256;
        dn_tensor_entry *larger = realloc(tensors->entries, capacity * sizeof *larger);
        if (larger == NULL)
            return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
        tensors->entries = larger;
        tensors->capacity = capacity;
    }
    tensors->entries[tensors->count++] = *entry;
    return DN_OK;
}

static dn_status note_time(dn_tensor_file *file, dn_error *error)
{
    struct stat info;
    if (fstat(file->fd, &info) != 0)
        return dn_fail(error, DN_IO, "%s: cannot stat: %s", file->path, strerror(errno));
    file->changed = info.st_mtim;
    return DN_OK;
}

dn_status dn_tensors_new_file(dn_tensors *tensors, uint32_t *index, const char *path, dn_error *error)
{
    if (tensors->file_count == FILES_MAX)
        return dn_fail(error, DN_INVALID, "%s: too many files", path);
    dn_tensor_file *file = &tensors->files[tensors->file_count];
    *file = (dn_tensor_file){.fd = -1, .path = dn_arena_strdup(&tensors->arena, path)};
    if (file->path == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    *index = tensors->file_count++;
    unsigned long long bytes = 0;
    dn_status status = dn_file_open(&file->fd, &bytes, path, error);
    if (status == DN_OK && bytes > DN_WEIGHT_BYTES_MAX)
        status = dn_fail(error, DN_INVALID, "%s: larger than %llu bytes", path, DN_WEIGHT_BYTES_MAX);
    file->bytes = bytes;
    return status == DN_OK ? note_time(file, error) : status;
}

dn_status dn_tensors_unchanged(const dn_tensors *tensors, dn_error *error)
{
    for (uint32_t i = 0; i < tensors->file_count; i++) {
        const dn_tensor_file *file = &tensors->files[i];
        struct stat info;
        if (fstat(file->fd, &info) != 0 || (uint64_t)info.st_size != file->bytes || info.st_mtim.tv_sec != file->changed.tv_sec ||
            info.st_mtim.tv_nsec != file->changed.tv_nsec)
            return dn_fail(error, DN_IO, "%s: the file was changed while it was read", file->path);
    }
    return DN_OK;
}

/* The safetensors reader opens the file itself; its descriptor takes the place of ours. */
static dn_status add_safetensors(dn_tensors *tensors, uint32_t index, dn_error *error)
{
    dn_tensor_file *file = &tensors->files[index];
    close(file->fd);
    file->fd = -1;
    dn_status status = dn_safetensors_open(&file->safetensors, file->path, error);
    if (status != DN_OK)
        return status;
    file->fd = file->safetensors->fd;
    file->bytes = file->safetensors->file_bytes;
    status = note_time(file, error);
    for (size_t i = 0; i < dn_safetensors_count(file->safetensors) && status == DN_OK; i++)
        status = dn_tensors_add_entry(tensors, &(dn_tensor_entry){.info = *dn_safetensors_at(file->safetensors, i), .file = index}, error);
    return status;
}

dn_status dn_tensors_add_file(dn_tensors *tensors, const char *path, dn_error *error)
{
    uint32_t index = 0;
    dn_status status = dn_tensors_new_file(tensors, &index, path, error);
    if (status != DN_OK)
        return status;
    return ends_with(path, ".safetensors") ? add_safetensors(tensors, index, error) : dn_torch_read(tensors, index, error);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(dn_tensor_entry *const *)a)->info.name, (*(dn_tensor_entry *const *)b)->info.name);
}

static void sort_names(dn_tensors *tensors)
{
    for (size_t i = 0; i < tensors->count; i++)
        tensors->by_name[i] = &tensors->entries[i];
    if (tensors->count > 0)
        qsort(tensors->by_name, tensors->count, sizeof *tensors->by_name, compare_names);
}

static dn_status settle(dn_tensors *tensors, dn_error *error)
{
    tensors->by_name = calloc(tensors->count + 1, sizeof *tensors->by_name);
    if (tensors->by_name == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", tensors->path);
    sort_names(tensors);
    for (size_t i = 1; i < tensors->count; i++)
        if (compare_names(&tensors->by_name[i - 1], &tensors->by_name[i]) == 0)
            return dn_fail(error, DN_INVALID, "%s: tensor \"%.100s\" is there twice", tensors->path, tensors->by_name[i]->info.name);
    return DN_OK;
}

dn_status dn_tensors_open(dn_tensors **out, const char *path, dn_error *error)
{
    dn_tensors *tensors = calloc(1, sizeof *tensors);
    if (tensors == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    dn_status status = DN_OK;
    dn_arena_init(&tensors->arena, NAMES_BYTES_MAX);
    tensors->path = dn_arena_strdup(&tensors->arena, path);
    tensors->files = calloc(FILES_MAX, sizeof *tensors->files);
    if (tensors->path == NULL || tensors->files == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    else if (ends_with(path, INDEX_ENDING) || ends_with(path, INDEX_HALF_ENDING))
        status = dn_tensors_read_index(tensors, path, error);
    else
        status = dn_tensors_add_file(tensors, path, error);
    if (status == DN_OK)
        status = settle(tensors, error);
    if (status == DN_OK) {
        *out = tensors;
        tensors = NULL;
    }
    dn_tensors_close(tensors);
    return status;
}

const char *dn_tensors_path(const dn_tensors *tensors)
{
    return tensors->path;
}

uint32_t dn_tensors_shards(const dn_tensors *tensors)
{
    uint32_t shards = 0;
    for (uint32_t i = 0; i < tensors->file_count; i++)
        shards += tensors->files[i].safetensors != NULL || tensors->files[i].zip != NULL;
    return shards;
}

size_t dn_tensors_count(const dn_tensors *tensors)
{
    return tensors->count;
}

const dn_tensor_info *dn_tensors_at(const dn_tensors *tensors, size_t index)
{
    return index < tensors->count ? &tensors->entries[index].info : NULL;
}

const dn_tensor_info *dn_tensors_find(const dn_tensors *tensors, const char *name)
{
    dn_tensor_entry key = {.info = {.name = name}}, *pointer = &key;
    dn_tensor_entry **found = bsearch(&pointer, tensors->by_name, tensors->count, sizeof pointer, compare_names);
    return found != NULL ? &(*found)->info : NULL;
}

bool dn_tensors_enter(dn_tensors *tensors, const char *prefix)
{
    size_t bytes = strlen(prefix), kept = 0;
    for (size_t i = 0; i < tensors->count; i++)
        kept += strncmp(tensors->entries[i].info.name, prefix, bytes) == 0;
    if (kept == 0)
        return false;
    kept = 0;
    for (size_t i = 0; i < tensors->count; i++) {
        if (strncmp(tensors->entries[i].info.name, prefix, bytes) != 0)
            continue;
        tensors->entries[kept] = tensors->entries[i];
        tensors->entries[kept++].info.name += bytes;
    }
    tensors->count = kept;
    sort_names(tensors);
    return true;
}

static const dn_tensor_entry *entry_of(const dn_tensor_info *info)
{
    return (const dn_tensor_entry *)(const void *)info;
}

static dn_status read_bytes(const dn_tensors *tensors, const dn_tensor_entry *entry, void *out, uint64_t from, size_t count,
                            dn_error *error)
{
    const dn_tensor_file *file = &tensors->files[entry->file];
    return dn_pread_exactly(file->fd, file->path, out, count, entry->info.offset + from, error);
}

/* Copies a strided tensor's elements together from the span of its storage that holds them. */
static void gather(unsigned char *out, const unsigned char *span, const dn_tensor_entry *entry, size_t size)
{
    uint64_t index[DN_TENSOR_RANK_MAX] = {0}, at = 0;
    const dn_tensor_info *info = &entry->info;
    for (uint64_t i = 0; i < info->count; i++) {
        memcpy(out + i * size, span + at * size, size);
        for (uint32_t d = info->rank; d-- > 0;) {
            at += entry->strides[d];
            if (++index[d] < info->dims[d])
                break;
            at -= entry->strides[d] * info->dims[d];
            index[d] = 0;
        }
    }
}

/* All bytes of a strided tensor in the order of its elements; *out is malloc'd. No larger than the file: see pickle_torch.c. */
static dn_status read_strided(unsigned char **out, const dn_tensors *tensors, const dn_tensor_entry *entry, dn_error *error)
{
    const dn_tensor_info *info = &entry->info;
    size_t size = dn_dtype_bytes(info->dtype), span_count = 1;
    for (uint32_t d = 0; d < info->rank; d++)
        span_count += (size_t)((info->dims[d] - 1) * entry->strides[d]);
    unsigned char *span = malloc(span_count * size), *gathered = malloc((size_t)info->bytes);
    dn_status status = DN_OK;
    if (span == NULL || gathered == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "%s: %.100s: out of memory", tensors->path, info->name);
    else
        status = read_bytes(tensors, entry, span, 0, span_count * size, error);
    if (status == DN_OK) {
        gather(gathered, span, entry, size);
        *out = gathered;
        gathered = NULL;
    }
    free(gathered);
    free(span);
    return status;
}

static dn_status read_converted(const dn_tensors *tensors, const dn_tensor_entry *entry, uint64_t first, uint64_t count, float *out,
                                dn_error *error)
{
    size_t size = dn_dtype_bytes(entry->info.dtype);
    dn_status status = DN_OK;
    unsigned char *chunk = malloc(READ_CHUNK_BYTES);
    if (chunk == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: %.100s: out of memory", tensors->path, entry->info.name);
    for (uint64_t done = 0; done < count && status == DN_OK;) {
        uint64_t left = count - done;
        size_t now = left < READ_CHUNK_BYTES / size ? (size_t)left : READ_CHUNK_BYTES / size;
        status = read_bytes(tensors, entry, chunk, (first + done) * size, now * size, error);
        if (status == DN_OK)
            dn_dtype_to_f32(out + done, chunk, now, entry->info.dtype);
        done += now;
    }
    free(chunk);
    return status;
}

dn_status dn_tensors_read_part_f32(const dn_tensors *tensors, const dn_tensor_info *info, uint64_t first, uint64_t count, float *out,
                                   dn_error *error)
{
    const dn_tensor_entry *entry = entry_of(info);
    size_t size = dn_dtype_bytes(info->dtype);
    if (first > info->count || count > info->count - first)
        return dn_fail(error, DN_INTERNAL, "%s: %.100s: elements beyond its end were asked for", tensors->path, info->name);
    if (!entry->strided && info->dtype == DN_F32)
        return read_bytes(tensors, entry, out, first * size, (size_t)count * size, error);
    if (!entry->strided)
        return read_converted(tensors, entry, first, count, out, error);
    unsigned char *bytes = NULL;
    dn_status status = read_strided(&bytes, tensors, entry, error);
    if (status == DN_OK)
        dn_dtype_to_f32(out, bytes + first * size, (size_t)count, info->dtype);
    free(bytes);
    return status;
}

dn_status dn_tensors_read_f32(const dn_tensors *tensors, const dn_tensor_info *info, float *out, dn_error *error)
{
    return dn_tensors_read_part_f32(tensors, info, 0, info->count, out, error);
}

static bool same_form(const dn_tensor_info *a, const dn_tensor_info *b)
{
    if (a->dtype != b->dtype || a->rank != b->rank)
        return false;
    for (uint32_t i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i])
            return false;
    return true;
}

static dn_status equal_strided(const dn_tensors *tensors, const dn_tensor_entry *a, const dn_tensor_entry *b, bool *equal, dn_error *error)
{
    const dn_tensor_entry *const both[] = {a, b};
    unsigned char *bytes[2] = {NULL, NULL};
    dn_status status = DN_OK;
    for (int i = 0; i < 2 && status == DN_OK; i++) {
        if (both[i]->strided) {
            status = read_strided(&bytes[i], tensors, both[i], error);
            continue;
        }
        bytes[i] = malloc((size_t)both[i]->info.bytes);
        status = bytes[i] == NULL ? dn_fail(error, DN_NO_MEMORY, "%s: out of memory", tensors->path)
                                  : read_bytes(tensors, both[i], bytes[i], 0, (size_t)both[i]->info.bytes, error);
    }
    if (status == DN_OK)
        *equal = memcmp(bytes[0], bytes[1], (size_t)a->info.bytes) == 0;
    free(bytes[0]);
    free(bytes[1]);
    return status;
}

static dn_status equal_plain(const dn_tensors *tensors, const dn_tensor_entry *a, const dn_tensor_entry *b, bool *equal, dn_error *error)
{
    bool same = true;
    dn_status status = DN_OK;
    unsigned char *chunks = malloc(2 * READ_CHUNK_BYTES);
    if (chunks == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", tensors->path);
    for (uint64_t at = 0; at < a->info.bytes && same && status == DN_OK; at += READ_CHUNK_BYTES) {
        uint64_t left = a->info.bytes - at;
        size_t count = left < READ_CHUNK_BYTES ? (size_t)left : READ_CHUNK_BYTES;
        status = read_bytes(tensors, a, chunks, at, count, error);
        if (status == DN_OK)
            status = read_bytes(tensors, b, chunks + READ_CHUNK_BYTES, at, count, error);
        same = status == DN_OK && memcmp(chunks, chunks + READ_CHUNK_BYTES, count) == 0;
    }
    if (status == DN_OK)
        *equal = same;
    free(chunks);
    return status;
}

dn_status dn_tensors_equal(const dn_tensors *tensors, const dn_tensor_info *a, const dn_tensor_info *b, bool *equal, dn_error *error)
{
    const dn_tensor_entry *left = entry_of(a), *right = entry_of(b);
    if (!same_form(a, b) || a->count == 0) {
        *equal = same_form(a, b);
        return DN_OK;
    }
    if (left->strided || right->strided)
        return equal_strided(tensors, left, right, equal, error);
    if (left->file == right->file && a->offset == b->offset) { /* two names of one storage */
        *equal = true;
        return DN_OK;
    }
    return equal_plain(tensors, left, right, equal, error);
}

static dn_status hash_file(dn_sha256 *hash, const dn_tensor_file *file, unsigned char *chunk, dn_error *error)
{
    dn_zip_audit audit = {.zip = file->zip};
    dn_status status = DN_OK;
    for (uint64_t at = 0; at < file->bytes && status == DN_OK; at += HASH_CHUNK_BYTES) {
        uint64_t left = file->bytes - at;
        size_t count = left < HASH_CHUNK_BYTES ? (size_t)left : HASH_CHUNK_BYTES;
        status = dn_pread_exactly(file->fd, file->path, chunk, count, at, error);
        if (status == DN_OK)
            dn_sha256_update(hash, chunk, count);
        if (status == DN_OK && file->zip != NULL)
            status = dn_zip_audit_chunk(&audit, chunk, count, error);
    }
    return status;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp((*(const dn_tensor_file *const *)a)->path, (*(const dn_tensor_file *const *)b)->path);
}

dn_status dn_tensors_sha256(const dn_tensors *tensors, char out[65], dn_error *error)
{
    const dn_tensor_file *files[FILES_MAX];
    unsigned char digest[DN_SHA256_BYTES];
    dn_sha256 hash;
    unsigned char *chunk = malloc(HASH_CHUNK_BYTES);
    if (chunk == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", tensors->path);
    for (uint32_t i = 0; i < tensors->file_count; i++)
        files[i] = &tensors->files[i];
    qsort(files, tensors->file_count, sizeof files[0], compare_paths);
    dn_sha256_init(&hash);
    dn_status status = DN_OK;
    for (uint32_t i = 0; i < tensors->file_count && status == DN_OK; i++)
        status = hash_file(&hash, files[i], chunk, error);
    if (status == DN_OK) {
        dn_sha256_final(&hash, digest);
        dn_sha256_hex(out, digest);
    }
    free(chunk);
    return status;
}
