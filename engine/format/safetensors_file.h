/* What the header parser (safetensors_header.c), the reader (safetensors.c) and the readers of other files share. */
#ifndef DN_FORMAT_SAFETENSORS_FILE_H
#define DN_FORMAT_SAFETENSORS_FILE_H

#include "base/arena.h"
#include "format/safetensors.h"

typedef struct dn_safetensors_pair {
    const char *key;
    const char *value;
} dn_safetensors_pair;

struct dn_safetensors {
    int fd;
    uint64_t file_bytes;
    uint64_t data_start; /* of the first tensor's byte, in the file */
    dn_arena arena; /* everything below */
    const char *path;
    dn_tensor_info *tensors; /* [count], in the order of their bytes */
    dn_tensor_info **by_name; /* [count], sorted */
    size_t count;
    dn_safetensors_pair *metadata;
    size_t metadata_count;
};

bool dn_dtype_of(dn_dtype *out, const char *name);

/* Exactly `count` bytes at `offset`, or an error that names the file. */
dn_status dn_safetensors_pread(const dn_safetensors *file, void *out, size_t count, uint64_t offset, dn_error *error);
dn_status dn_pread_exactly(int fd, const char *path, void *out, size_t count, uint64_t offset, dn_error *error);

/* `count` stored elements as floats. */
void dn_dtype_to_f32(float *out, const unsigned char *bytes, size_t count, dn_dtype dtype);

#endif
