/* What the readers behind dn_tensors share: one table of entries over one or several open files. Private to this folder. */
#ifndef DN_FORMAT_TENSORS_FILE_H
#define DN_FORMAT_TENSORS_FILE_H

#include <time.h>

#include "base/arena.h"
#include "format/tensors.h"
#include "format/zip.h"

typedef struct dn_tensor_file {
    int fd;
    const char *path; /* in the arena */
    uint64_t bytes;
    struct timespec changed; /* its mtime when it was opened */
    dn_safetensors *safetensors; /* owns fd where there is one */
    dn_zip *zip; /* in the arena: a torch file, whose checksums are checked while it is hashed */
} dn_tensor_file;

/* info is the first member: a dn_tensor_info of this room is an entry. */
typedef struct dn_tensor_entry {
    dn_tensor_info info;
    uint32_t file;
    bool strided; /* no contiguous block: element (i, j, ...) lies i * strides[0] + j * strides[1] + ... behind the first */
    uint64_t strides[DN_TENSOR_RANK_MAX];
} dn_tensor_entry;

struct dn_tensors {
    dn_arena arena; /* names, paths, zip directories */
    const char *path;
    dn_tensor_file *files;
    uint32_t file_count;
    dn_tensor_entry *entries; /* heap, in the order of files and of bytes */
    size_t count, capacity;
    dn_tensor_entry **by_name; /* heap, [count], sorted */
};

/* Adds a file by its kind and the tensors in it (tensors.c); the names are looked at together at the end. */
dn_status dn_tensors_add_file(dn_tensors *tensors, const char *path, dn_error *error);
/* Copies the entry; its name is already in the arena. */
dn_status dn_tensors_add_entry(dn_tensors *tensors, const dn_tensor_entry *entry, dn_error *error);
/* A file opened but not read: room for it in the table. */
dn_status dn_tensors_new_file(dn_tensors *tensors, uint32_t *index, const char *path, dn_error *error);

/* The tensors of a torch zip that is open as files[file] (torch_file.c). */
dn_status dn_torch_read(dn_tensors *tensors, uint32_t file, dn_error *error);
/* The index of a checkpoint in several files, and the shards it names (tensors_index.c). */
dn_status dn_tensors_read_index(dn_tensors *tensors, const char *path, dn_error *error);

#endif
