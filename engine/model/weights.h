/* A plan's weights from and to a safetensors file, strictly. Private to this folder. */
#ifndef DN_MODEL_WEIGHTS_H
#define DN_MODEL_WEIGHTS_H

#include "base/error.h"
#include "plan/plan.h"

/* Every tensor of the plan must be in the file with its shape, as F32, F16 or BF16 and finite; a tensor that the plan does not know
 * is refused, but for known leftovers. Attention names from before diffusers 0.15 are understood. The caller owns *out. */
dn_status dn_weights_read(dn_weights **out, const dn_plan *plan, const char *path, dn_error *error);

/* Writes atomically; dtype is a dn_dtype: DN_F32, DN_F16 or DN_BF16. */
dn_status dn_weights_write(const dn_plan *plan, const dn_weights *weights, const char *path, int dtype, dn_error *error);

#endif
