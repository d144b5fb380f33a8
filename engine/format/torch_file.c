/* A torch file (torch.save since 1.6): a zip with ROOT/data.pkl, which says what tensors there are, and ROOT/data/KEY, the storages
 * they look into. Invariant of a file that was read: every tensor's extent lies inside the entry of its storage, and the entry is
 * as long as the pickle says. Other things that bear the same endings are refused by what they are. One call, one thread. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/pickle.h"
#include "format/safetensors_file.h"
#include "format/tensors_file.h"

#define MAGIC_BYTES 16u
#define PICKLE_ENTRY "/data.pkl"
#define SMALL_ENTRY_BYTES_MAX 64u
#define NAMES_BYTES_MAX (8u << 20) /* of all tensors: a small pickle can say one long name of a dictionary again and again */

static const char *const save_again = "open it where it comes from and save its state_dict() again with torch.save (1.6 or later)";

/* The pickle of torch's magic number 0x1950a86a20f9469cfc6c, with which files before 1.6 begin. */
static const unsigned char legacy_magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

static dn_status check_magic(const dn_tensor_file *file, dn_error *error)
{
    unsigned char head[MAGIC_BYTES] = {0};
    size_t count = file->bytes < MAGIC_BYTES ? (size_t)file->bytes : MAGIC_BYTES;
    dn_status status = dn_pread_exactly(file->fd, file->path, head, count, 0, error);
    if (status != DN_OK || memcmp(head, "PK\x03\x04", 4) == 0)
        return status;
    if (memcmp(head, legacy_magic, sizeof legacy_magic) == 0)
        return dn_fail(error, DN_UNSUPPORTED, "%s: a torch file of the form before 1.6; %s", file->path, save_again);
    if (head[0] == 0x80 && head[1] >= 2 && head[1] <= 5)
        return dn_fail(error, DN_UNSUPPORTED, "%s: a bare pickle, which can run anything and is not opened; %s", file->path, save_again);
    return dn_fail(error, DN_INVALID, "%s: neither a zip as torch.save writes it nor any other known file of weights", file->path);
}

typedef struct torch_file {
    dn_tensors *tensors;
    uint32_t file;
    const dn_zip *zip;
    int root_bytes; /* ROOT */
    size_t names_bytes; /* so far */
    const char *root;
} torch_file;

static const dn_zip_entry *find_in_root(const torch_file *torch, const char *name)
{
    char path[DN_TENSOR_NAME_BYTES_MAX * 2];
    int length = snprintf(path, sizeof path, "%.*s/%s", torch->root_bytes, torch->root, name);
    return length > 0 && (size_t)length < sizeof path ? dn_zip_find(torch->zip, path) : NULL;
}

/* The one folder of the archive, told by its data.pkl. */
static dn_status find_root(torch_file *torch, dn_error *error)
{
    const dn_zip *zip = torch->zip;
    torch->root = NULL;
    for (size_t i = 0; i < zip->count; i++) {
        const char *name = zip->entries[i].name, *slash = strchr(name, '/');
        if (slash == NULL || strcmp(slash, PICKLE_ENTRY) != 0)
            continue;
        if (torch->root != NULL)
            return dn_fail(error, DN_INVALID, "%s: zip: two data.pkl", zip->path);
        torch->root = name;
        torch->root_bytes = (int)(slash - name);
    }
    if (torch->root == NULL)
        return dn_fail(error, DN_INVALID, "%s: zip: there is no data.pkl: torch.save did not write this", zip->path);
    if (find_in_root(torch, "constants.pkl") != NULL)
        return dn_fail(error, DN_UNSUPPORTED, "%s: a TorchScript program; %s", zip->path, save_again);
    return DN_OK;
}

static dn_status check_byte_order(const torch_file *torch, dn_error *error)
{
    const dn_zip_entry *entry = find_in_root(torch, "byteorder");
    unsigned char *text = NULL;
    if (entry == NULL)
        return DN_OK;
    dn_status status = dn_zip_load(&text, torch->zip, entry, SMALL_ENTRY_BYTES_MAX, error);
    if (status == DN_OK && (entry->bytes != 6 || memcmp(text, "little", 6) != 0))
        status = dn_fail(error, DN_UNSUPPORTED, "%s: byteorder: only little-endian tensors are supported", torch->zip->path);
    free(text);
    return status;
}

static bool is_contiguous(const dn_pickle_tensor *tensor)
{
    uint64_t expected = 1;
    for (uint32_t i = tensor->rank; i-- > 0;) {
        if (tensor->dims[i] == 1)
            continue;
        if (tensor->strides[i] != expected)
            return false;
        expected *= tensor->dims[i];
    }
    return true;
}

static dn_status on_tensor(void *payload, const dn_pickle_tensor *tensor, dn_error *error)
{
    torch_file *torch = payload;
    char name[DN_TENSOR_NAME_BYTES_MAX + 8];
    snprintf(name, sizeof name, "data/%s", tensor->storage);
    const dn_zip_entry *entry = find_in_root(torch, name);
    uint64_t size = dn_dtype_bytes(tensor->dtype), stored;
    if (entry == NULL)
        return dn_fail(error, DN_INVALID, "%s: tensor \"%.100s\": its storage %.60s is not in the archive", torch->zip->path, tensor->name,
                       name);
    if (__builtin_mul_overflow(tensor->storage_count, size, &stored) || stored != entry->bytes)
        return dn_fail(error, DN_INVALID, "%s: tensor \"%.100s\": its storage %.60s has not the size that data.pkl says", torch->zip->path,
                       tensor->name, name);
    dn_tensor_entry made = {.file = torch->file, .strided = tensor->count > 0 && !is_contiguous(tensor)};
    made.info = (dn_tensor_info){.dtype = tensor->dtype, .rank = tensor->rank, .count = tensor->count, .bytes = tensor->count * size};
    made.info.offset = entry->offset + (tensor->count > 0 ? tensor->first * size : 0);
    memcpy(made.info.dims, tensor->dims, sizeof made.info.dims);
    memcpy(made.strides, tensor->strides, sizeof made.strides);
    torch->names_bytes += strlen(tensor->name) + 1;
    if (torch->names_bytes > NAMES_BYTES_MAX)
        return dn_fail(error, DN_INVALID, "%s: the names of its tensors take more than %u bytes", torch->zip->path, NAMES_BYTES_MAX);
    made.info.name = dn_arena_strdup(&torch->tensors->arena, tensor->name);
    if (made.info.name == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory for the names of tensors", torch->zip->path);
    return dn_tensors_add_entry(torch->tensors, &made, error);
}

dn_status dn_torch_read(dn_tensors *tensors, uint32_t file, dn_error *error)
{
    dn_tensor_file *opened = &tensors->files[file];
    unsigned char *pickle = NULL;
    dn_status status = check_magic(opened, error);
    if (status != DN_OK)
        return status;
    opened->zip = dn_arena_alloc(&tensors->arena, sizeof *opened->zip);
    if (opened->zip == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", opened->path);
    *opened->zip = (dn_zip){.fd = opened->fd, .path = opened->path, .file_bytes = opened->bytes};
    torch_file torch = {.tensors = tensors, .file = file, .zip = opened->zip};
    status = dn_zip_read(opened->zip, &tensors->arena, error);
    if (status == DN_OK)
        status = find_root(&torch, error);
    if (status == DN_OK)
        status = check_byte_order(&torch, error);
    const dn_zip_entry *entry = status == DN_OK ? find_in_root(&torch, &PICKLE_ENTRY[1]) : NULL;
    if (entry != NULL)
        status = dn_zip_load(&pickle, opened->zip, entry, DN_PICKLE_BYTES_MAX, error);
    if (entry != NULL && status == DN_OK)
        status = dn_pickle_tensors(pickle, (size_t)entry->bytes, opened->path, on_tensor, &torch, error);
    free(pickle);
    return status;
}
