/* Named tensors of a checkpoint, whatever its files: one safetensors file, several of them behind an index, or torch's zip.
 *
 * All of them are read strictly, tensor by tensor, never mapped. The zip reader understands the few instructions of a pickle that
 * build dictionaries of tensors, and executes nothing. An open dn_tensors is immutable: any thread may read it. */
#ifndef DN_FORMAT_TENSORS_H
#define DN_FORMAT_TENSORS_H

#include "format/safetensors.h"

typedef struct dn_tensors dn_tensors;

/* path: NAME.safetensors, NAME.safetensors.index.json (its shards lie in the same folder), or torch's zip (.bin, .pt, .pth, .ckpt).
 * Tensors of nested dictionaries have their keys joined by dots ("ema.blocks.0.attn.qkv.weight"). Refusals name file, part, rule. */
dn_status dn_tensors_open(dn_tensors **out, const char *path, dn_error *error);
void dn_tensors_close(dn_tensors *tensors); /* accepts NULL */
const char *dn_tensors_path(const dn_tensors *tensors);
uint32_t dn_tensors_shards(const dn_tensors *tensors); /* files that hold tensors, an index not counted */
size_t dn_tensors_count(const dn_tensors *tensors);
const dn_tensor_info *dn_tensors_at(const dn_tensors *tensors, size_t index);
const dn_tensor_info *dn_tensors_find(const dn_tensors *tensors, const char *name); /* NULL: not there */
/* Only the tensors whose names begin with `prefix` stay, without it ("ema."); false, and no change, when there are none. */
bool dn_tensors_enter(dn_tensors *tensors, const char *prefix);

/* As their namesakes in safetensors.h; a torch tensor that is no contiguous block of its storage is gathered by its strides. */
dn_status dn_tensors_read_f32(const dn_tensors *tensors, const dn_tensor_info *info, float *out, dn_error *error);
/* Elements first..first+count-1 alone. */
dn_status dn_tensors_read_part_f32(const dn_tensors *tensors, const dn_tensor_info *info, uint64_t first, uint64_t count, float *out,
                                   dn_error *error);
/* Whether two tensors hold the same type, shape and bytes. */
dn_status dn_tensors_equal(const dn_tensors *tensors, const dn_tensor_info *a, const dn_tensor_info *b, bool *equal, dn_error *error);
/* DN_IO when somebody has written to one of its files since they were opened: what was read of it and its hash may be of different
 * bytes. Another file put in its place by renaming is no change: what is open stays what it was. */
dn_status dn_tensors_unchanged(const dn_tensors *tensors, dn_error *error);
/* Over the bytes of all its files, in the order of their names; 65 bytes with the NUL. */
dn_status dn_tensors_sha256(const dn_tensors *tensors, char out[65], dn_error *error);

#endif
