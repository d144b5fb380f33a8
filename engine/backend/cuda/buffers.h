/* Pinned memory between the host and buffers. */
#ifndef DN_BACKEND_CUDA_BUFFERS_H
#define DN_BACKEND_CUDA_BUFFERS_H

#include "backend/cuda/device.h"

dn_status dn_cuda_staging_create(dn_device *device, dn_error *error);
void dn_cuda_staging_free(dn_device *device); /* also where there is none, or half of one */

#endif
