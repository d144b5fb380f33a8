/* A plan's weights from a checkpoint and to a safetensors file, strictly. Private to this folder. */
#ifndef DN_MODEL_WEIGHTS_H
#define DN_MODEL_WEIGHTS_H

#include "model/model.h"

/* Checks the checkpoint against model->plan without reading data: every part must be where model->naming says (NULL: under its own
 * name, or under the one that diffusers before 0.15 gave it), with its shape, as F32, F16 or BF16; a tensor that no part asked for is
 * refused, but for known leftovers. */
dn_status dn_weights_check(const dn_model *model, const dn_tensors *tensors, dn_error *error);

/* dn_weights_check, then reads: every number must be finite. The caller owns *out. */
dn_status dn_weights_read(dn_weights **out, const dn_model *model, const dn_tensors *tensors, dn_error *error);

/* Writes atomically, under diffusers' names; dtype is a dn_dtype: DN_F32, DN_F16 or DN_BF16. */
dn_status dn_weights_write(const dn_model *model, const char *path, int dtype, dn_error *error);

/* One part of a plan's weight: where it lies, and what shape it has there (weights_layout.c). dims: of the part. */
typedef struct dn_part {
    dn_source source;
    const dn_tensor_info *info;
    uint64_t dims[4];
    uint32_t rank;
} dn_part;

/* The shape that part->source.layout wants of the stored tensor. A class table's last rows may be missing there: its columns are then
 * taken from `info`. */
void dn_part_stored_dims(const dn_part *part, uint64_t dims[4]);
/* Reads the part into out[product of dims], in the plan's order. */
dn_status dn_part_read(const dn_part *part, const dn_tensors *tensors, float *out, dn_error *error);

#endif
