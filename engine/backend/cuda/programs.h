/* Register programs that wait, and their launches when they do not ride in a run's block. See device.h. */
#ifndef DN_BACKEND_CUDA_PROGRAMS_H
#define DN_BACKEND_CUDA_PROGRAMS_H

#include "backend/cuda/device.h"

dn_status dn_cuda_pending_create(dn_device *device, dn_error *error);
void dn_cuda_pending_free(dn_device *device); /* also where there is none, or half of one */
/* What waits for the buffer is never run. */
void dn_cuda_pending_drop(dn_buffer *buffer);

/* program_ops.c. */
/* Whether each element of what the operation writes depends on the same element of what it reads alone. */
bool dn_cuda_op_is_elementwise(uint32_t kind);
void dn_cuda_op_copy(dn_cuda_op *to, const dn_op *from);

#endif
