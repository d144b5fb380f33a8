/* Opening: checks the header against every rule before anything else sees it. Invariant of a file that opened: extents
 * start at 0, touch without gap or overlap, and end at the file's end, so no byte of the file is hidden. Rules follow the
 * reference reader (safetensors, src/tensor.rs); limits are ours. One call owns everything until it returns. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json.h"
#include "format/json_cursor.h"
#include "format/safetensors_file.h"

#define LENGTH_BYTES 8u
#define METADATA_PAIRS_MAX 1024u
#define TOKENS_PER_TENSOR (9u + DN_TENSOR_RANK_MAX)
#define HEADER_ARENA_BYTES_MAX (48ull << 20)

/* Types of the format that this engine has no use for: named apart from nonsense. */
static const char *const unsupported_dtypes[] = {"U16", "U32", "U64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "C64"};

typedef struct header {
    dn_safetensors *file;
    dn_json_cursor cursor;
    char *name; /* scratch of the header's size: the string read last */
    size_t name_capacity;
    size_t name_bytes;
    size_t tensor_capacity;
    dn_error *error;
} header;

static dn_status refuse(const header *head, const char *rule)
{
    return dn_fail(head->error, DN_INVALID, "%s: %s", head->file->path, rule);
}

static dn_status refuse_tensor(const header *head, const dn_tensor_info *info, const char *rule)
{
    return dn_fail(head->error, DN_INVALID, "%s: tensor \"%.100s\": %s", head->file->path, info->name, rule);
}

static dn_status no_memory(const header *head)
{
    return dn_fail(head->error, DN_NO_MEMORY, "%s: out of memory for the header", head->file->path);
}

/* The string that comes next, NUL terminated in head->name. JSON strings hold no NUL: the scanner refuses \u0000. */
static bool take_string(header *head)
{
    if (!dn_json_take_string(&head->cursor, head->name, head->name_capacity, &head->name_bytes)) {
        return false;
    }
    head->name[head->name_bytes] = '\0';
    return true;
}

static dn_status read_metadata(header *head)
{
    dn_safetensors *file = head->file;
    if (!dn_json_take(&head->cursor, '{')) {
        return refuse(head, "__metadata__ is not an object");
    }
    file->metadata = dn_arena_alloc_array(&file->arena, METADATA_PAIRS_MAX, sizeof *file->metadata);
    if (!file->metadata) {
        return no_memory(head);
    }
    if (dn_json_take(&head->cursor, '}')) {
        return DN_OK;
    }
    do {
        if (file->metadata_count == METADATA_PAIRS_MAX) {
            return refuse(head, "__metadata__ has too many entries");
        }
        dn_safetensors_pair *pair = &file->metadata[file->metadata_count++];
        if (!take_string(head) || !(pair->key = dn_arena_strdup(&file->arena, head->name))) {
            return no_memory(head);
        }
        dn_json_take(&head->cursor, ':');
        if (!take_string(head)) {
            return refuse(head, "__metadata__ has a value that is no string");
        }
        if (!(pair->value = dn_arena_strdup(&file->arena, head->name))) {
            return no_memory(head);
        }
    } while (dn_json_take(&head->cursor, ','));
    dn_json_take(&head->cursor, '}');
    return DN_OK;
}

static dn_status read_dtype(header *head, dn_tensor_info *info)
{
    if (!take_string(head)) {
        return refuse_tensor(head, info, "dtype is not a string");
    }
    if (dn_dtype_of(&info->dtype, head->name)) {
        return DN_OK;
    }
    for (size_t i = 0; i < sizeof unsupported_dtypes / sizeof unsupported_dtypes[0]; i++) {
        if (strcmp(unsupported_dtypes[i], head->name) == 0) {
            return dn_fail(head->error, DN_UNSUPPORTED, "%s: tensor \"%.100s\": type %s is not supported", head->file->path, info->name,
                           head->name);
        }
    }
    return refuse_tensor(head, info, "unknown dtype");
}

static dn_status read_shape(header *head, dn_tensor_info *info)
{
    if (!dn_json_take(&head->cursor, '[')) {
        return refuse_tensor(head, info, "shape is not a list");
    }
    if (dn_json_take(&head->cursor, ']')) {
        return DN_OK;
    }
    do {
        if (info->rank == DN_TENSOR_RANK_MAX) {
            return refuse_tensor(head, info, "too many dimensions");
        }
        if (!dn_json_take_u64(&head->cursor, &info->dims[info->rank])) {
            return refuse_tensor(head, info, "a dimension is not a whole number of 64 bits");
        }
        info->rank++;
    } while (dn_json_take(&head->cursor, ','));
    dn_json_take(&head->cursor, ']');
    return DN_OK;
}

/* Fills offset (relative to the data) and bytes. */
static dn_status read_offsets(header *head, dn_tensor_info *info)
{
    uint64_t begin, end;
    dn_json_cursor *cursor = &head->cursor;
    bool well_formed = dn_json_take(cursor, '[') && dn_json_take_u64(cursor, &begin) && dn_json_take(cursor, ',') &&
                       dn_json_take_u64(cursor, &end) && dn_json_take(cursor, ']');
    if (!well_formed) {
        return refuse_tensor(head, info, "data_offsets is not a pair of whole numbers");
    }
    if (end < begin) {
        return refuse_tensor(head, info, "data ends before it begins");
    }
    if (end > head->file->file_bytes - head->file->data_start) {
        return refuse_tensor(head, info, "data lies beyond the end of the file");
    }
    info->offset = begin;
    info->bytes = end - begin;
    return DN_OK;
}

static dn_status check_extent(const header *head, dn_tensor_info *info)
{
    info->count = 1;
    for (uint32_t i = 0; i < info->rank; i++) {
        if (__builtin_mul_overflow(info->count, info->dims[i], &info->count)) {
            return refuse_tensor(head, info, "shape overflows 64 bits");
        }
    }
    uint64_t bytes;
    if (__builtin_mul_overflow(info->count, (uint64_t)dn_dtype_bytes(info->dtype), &bytes)) {
        return refuse_tensor(head, info, "shape overflows 64 bits");
    }
    return bytes == info->bytes ? DN_OK : refuse_tensor(head, info, "shape and type do not match the extent of the data");
}

static dn_status read_tensor(header *head, dn_tensor_info *info)
{
    enum { HAS_DTYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4, HAS_ALL = 7 } seen = 0;
    if (!dn_json_take(&head->cursor, '{')) {
        return refuse_tensor(head, info, "its description is not an object");
    }
    while (!dn_json_take(&head->cursor, '}')) {
        if (seen) {
            dn_json_take(&head->cursor, ',');
        }
        if (!take_string(head)) {
            return refuse_tensor(head, info, "its description cannot be read");
        }
        dn_json_take(&head->cursor, ':');
        dn_status status;
        if (strcmp(head->name, "dtype") == 0) {
            seen |= HAS_DTYPE;
            status = read_dtype(head, info);
        } else if (strcmp(head->name, "shape") == 0) {
            seen |= HAS_SHAPE;
            status = read_shape(head, info);
        } else if (strcmp(head->name, "data_offsets") == 0) {
            seen |= HAS_OFFSETS;
            status = read_offsets(head, info);
        } else {
            status = refuse_tensor(head, info, "unknown member in its description");
        }
        if (status != DN_OK) {
            return status;
        }
    }
    return seen == HAS_ALL ? check_extent(head, info) : refuse_tensor(head, info, "dtype, shape or data_offsets is missing");
}

/* The tensor table grows by doubling on the heap while the header is read, and is copied to the arena at the end. */
static dn_status add_tensor(header *head, dn_tensor_info **tensors)
{
    dn_safetensors *file = head->file;
    if (head->name_bytes > DN_TENSOR_NAME_BYTES_MAX) {
        return dn_fail(head->error, DN_INVALID, "%s: tensor \"%.40s...\": name longer than %u bytes", file->path, head->name,
                       DN_TENSOR_NAME_BYTES_MAX);
    }
    if (file->count == DN_SAFETENSORS_TENSORS_MAX) {
        return refuse(head, "too many tensors");
    }
    if (file->count == head->tensor_capacity) {
        size_t capacity = head->tensor_capacity ? head->tensor_capacity * 2 : 256;
        dn_tensor_info *larger = realloc(*tensors, capacity * sizeof **tensors);
        if (!larger) {
            return no_memory(head);
        }
        *tensors = larger;
        head->tensor_capacity = capacity;
    }
    dn_tensor_info *info = &(*tensors)[file->count++];
    *info = (dn_tensor_info){.name = dn_arena_strdup(&file->arena, head->name)};
    return info->name ? read_tensor(head, info) : no_memory(head);
}

static int compare_offsets(const void *a, const void *b)
{
    const dn_tensor_info *left = a, *right = b;
    if (left->offset != right->offset) {
        return left->offset < right->offset ? -1 : 1;
    }
    if (left->bytes != right->bytes) {
        return left->bytes < right->bytes ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static int compare_names(const void *a, const void *b)
{
    dn_tensor_info *const *left = a, *const *right = b;
    return strcmp((*left)->name, (*right)->name);
}

/* Moves the table into the arena, in the order of the bytes, and checks that the bytes are covered exactly once. */
static dn_status settle(header *head, const dn_tensor_info *tensors)
{
    dn_safetensors *file = head->file;
    file->tensors = dn_arena_alloc_array(&file->arena, file->count, sizeof *file->tensors);
    file->by_name = dn_arena_alloc_array(&file->arena, file->count, sizeof(dn_tensor_info *));
    if (!file->tensors || !file->by_name) {
        return no_memory(head);
    }
    if (file->count > 0) {
        memcpy(file->tensors, tensors, file->count * sizeof *tensors);
        qsort(file->tensors, file->count, sizeof *file->tensors, compare_offsets);
    }
    uint64_t expected = 0;
    for (size_t i = 0; i < file->count; i++) {
        dn_tensor_info *info = &file->tensors[i];
        if (info->offset != expected) {
            return refuse_tensor(head, info, info->offset < expected ? "data overlaps another tensor's" : "gap before the data");
        }
        expected += info->bytes;
        info->offset += file->data_start;
        file->by_name[i] = info;
    }
    if (expected != file->file_bytes - file->data_start) {
        return refuse(head, "bytes behind the last tensor");
    }
    if (file->count > 0) {
        qsort(file->by_name, file->count, sizeof(dn_tensor_info *), compare_names);
    }
    return DN_OK;
}

static dn_status read_members(header *head)
{
    dn_tensor_info *tensors = NULL;
    dn_status status = DN_OK;
    bool first = true;
    dn_json_take(&head->cursor, '{');
    while (status == DN_OK && !dn_json_take(&head->cursor, '}')) {
        if (!first) {
            dn_json_take(&head->cursor, ',');
        }
        first = false;
        if (!take_string(head)) {
            status = refuse(head, "header cannot be read");
            break;
        }
        dn_json_take(&head->cursor, ':');
        status = strcmp(head->name, "__metadata__") == 0 ? read_metadata(head) : add_tensor(head, &tensors);
    }
    if (status == DN_OK) {
        status = settle(head, tensors);
    }
    free(tensors);
    return status;
}

static dn_status parse_header(dn_safetensors *file, const char *text, size_t count, dn_error *error)
{
    if (text[0] != '{') {
        return dn_fail(error, DN_INVALID, "%s: the header does not begin with a brace", file->path);
    }
    dn_json_limits limits = {
        .bytes_max = DN_SAFETENSORS_HEADER_BYTES_MAX,
        .depth_max = 3,
        .tokens_max = (size_t)DN_SAFETENSORS_TENSORS_MAX * TOKENS_PER_TENSOR,
    };
    size_t offset = 0;
    dn_error reason = {0};
    dn_status status = dn_json_scan(text, count, &limits, &offset, &reason);
    if (status != DN_OK) {
        return dn_fail(error, status, "%s: header: byte %zu: %s", file->path, offset, reason.message);
    }
    header head = {.file = file, .cursor = {.at = text, .end = text + count}, .name_capacity = count, .error = error};
    head.name = malloc(count + 1);
    status = head.name ? read_members(&head) : no_memory(&head);
    free(head.name);
    return status;
}

static dn_status read_header(dn_safetensors *file, dn_error *error)
{
    if (file->file_bytes < LENGTH_BYTES) {
        return dn_fail(error, DN_INVALID, "%s: shorter than 8 bytes", file->path);
    }
    if (file->file_bytes > DN_WEIGHT_BYTES_MAX) {
        return dn_fail(error, DN_INVALID, "%s: larger than %llu bytes", file->path, DN_WEIGHT_BYTES_MAX);
    }
    uint64_t length;
    dn_status status = dn_safetensors_pread(file, &length, sizeof length, 0, error);
    if (status != DN_OK) {
        return status;
    }
    if (length < 2 || length > DN_SAFETENSORS_HEADER_BYTES_MAX) {
        return dn_fail(error, DN_INVALID, "%s: header of %llu bytes (2 to %u are allowed)", file->path, (unsigned long long)length,
                       DN_SAFETENSORS_HEADER_BYTES_MAX);
    }
    if (length > file->file_bytes - LENGTH_BYTES) {
        return dn_fail(error, DN_INVALID, "%s: the header ends beyond the end of the file", file->path);
    }
    file->data_start = LENGTH_BYTES + length;
    char *text = malloc((size_t)length);
    if (!text) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory for the header", file->path);
    }
    status = dn_safetensors_pread(file, text, (size_t)length, LENGTH_BYTES, error);
    if (status == DN_OK) {
        status = parse_header(file, text, (size_t)length, error);
    }
    free(text);
    return status;
}

dn_status dn_safetensors_open(dn_safetensors **out, const char *path, dn_error *error)
{
    dn_safetensors *file = calloc(1, sizeof *file);
    if (!file) {
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    file->fd = -1;
    dn_arena_init(&file->arena, HEADER_ARENA_BYTES_MAX);
    unsigned long long size = 0;
    dn_status status = DN_OK;
    if (!(file->path = dn_arena_strdup(&file->arena, path))) {
        status = dn_fail(error, DN_NO_MEMORY, "%s: out of memory", path);
    }
    if (status == DN_OK) {
        status = dn_file_open(&file->fd, &size, path, error);
    }
    if (status == DN_OK) {
        file->file_bytes = size;
        status = read_header(file, error);
    }
    if (status == DN_OK) {
        *out = file;
        file = NULL;
    }
    dn_safetensors_close(file);
    return status;
}
