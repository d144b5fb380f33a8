/* Device memory for buffers, kept by size when it is given back, so that a lane's registers come and go without asking the driver.
 *
 * Sizes are rounded up to a quarter of a power of two. At most a sixteenth of the card's memory is kept; all of it goes back to the driver
 * when an allocation would fail otherwise. Takes the device's lock. Memory comes with anything in it, and may still be read or written by
 * what its former owner enqueued on the main stream: the next one uses it on that stream first. */
#ifndef DN_BACKEND_CUDA_POOL_H
#define DN_BACKEND_CUDA_POOL_H

#include "backend/cuda/device.h"

dn_status dn_cuda_pool_create(dn_device *device, dn_error *error);
void dn_cuda_pool_free(dn_device *device); /* what is kept; nothing may be out. Also where there is none */

/* bytes: at least this many; then what it has, to be given back with. */
dn_status dn_cuda_pool_take(dn_device *device, void **out, size_t *bytes, dn_error *error);
void dn_cuda_pool_give(dn_device *device, void *memory, size_t bytes);
/* All that is kept, back to the driver; false: nothing was. */
bool dn_cuda_pool_trim(dn_device *device);

#endif
