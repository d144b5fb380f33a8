/* A GPU as host code holds it: streams, memory, errors, and the register programs that wait for the next launch.
 *
 * Every CUDA call's answer is checked. An error that CUDA keeps (an illegal address, a card that has fallen off the bus) marks the device
 * lost: from then on every call answers DN_DEVICE_LOST with the first cause, and the process has to end.
 *
 * Programs are not run when they are given: they wait, chained by their registers, and ride in the next graph's block, so that a tick is
 * one copy and one launch. What needs their results (buffer_read, buffer_write, a program that gives scalars) runs them first. */
#ifndef DN_BACKEND_CUDA_DEVICE_H
#define DN_BACKEND_CUDA_DEVICE_H

#include <cuda_runtime_api.h> /* NVIDIA's, or the emulator's subset of it */
#include <pthread.h>

#include "backend/backend.h"
#include "backend/cuda/libraries.h"
#include "backend/cuda/view.h"

struct dn_device {
    int ordinal;
    char isa[32];         /* "sm_90" */
    char text[192];       /* "cuda:0 NVIDIA H200" */
    char identity[192];   /* "NVIDIA H200, sm_90, cuDNN 9.19.0, cuBLASLt 13.1.0": part of builds */
    bool fast;
    size_t memory;        /* bytes, of the card */
    dn_cuda_libraries *libraries;
    cudaStream_t main, background; /* background: lower priority, for decodes */
    cudaStream_t reading; /* of settled buffers, which so wait for nobody's pass */
    /* All below. Recursive: a run holds it from dn_cuda_pending_take until its block is launched, and programs are launched under it, so that
     * nobody reads between the two what is not enqueued yet. */
    pthread_mutex_t lock;
    bool lost;
    char lost_why[384];
    struct dn_cuda_pool *pool;       /* device memory for buffers, by size */
    struct dn_cuda_pending *pending; /* programs that wait */
    struct dn_cuda_staging *staging; /* pinned memory between host and buffers; has a lock of its own, taken before this one */
};

struct dn_buffer {
    dn_device *device;
    float *data; /* on the device */
    size_t count;
    size_t bytes; /* of its memory, as the pool has it */
    _Atomic bool settled; /* a run wrote it and was waited for, and nothing was enqueued for it since: any stream may read it */
    /* The chain of programs that waits for it; programs.c. */
    dn_cuda_op *ops;
    uint32_t op_count, op_room;
    size_t elements;  /* of a register */
    double *scalars;  /* on the device; NULL: the chain gives none */
    bool waits;
    dn_buffer *before, *after; /* of those that wait */
};

/* DN_OK, or what CUDA's error means: DN_NO_MEMORY, DN_UNSUPPORTED, DN_DEVICE_LOST; `doing` says what was tried ("copying 12 MB"). */
dn_status dn_cuda_check(dn_device *device, cudaError_t code, const char *doing, dn_error *error);

/* Every entry begins with it: this thread's calls go to the device; DN_DEVICE_LOST where it is lost. */
dn_status dn_cuda_enter(dn_device *device, dn_error *error);

/* Device memory, 256-byte aligned, with anything in it. */
dn_status dn_cuda_alloc(dn_device *device, void **out, size_t bytes, dn_error *error);
void dn_cuda_release(dn_device *device, void *memory);

/* Takes the programs that wait into a block (as far as they fit, whole chains; the rest, and all that came before, is launched eagerly on
 * the main stream first), and sets its slice_count. The caller launches the block on the main stream next. */
dn_status dn_cuda_pending_take(dn_device *device, dn_cuda_block *block, dn_error *error);
/* Runs what waits now, on the main stream. `touching`: only if some of it touches this buffer; NULL: all. Does not wait for the GPU. */
dn_status dn_cuda_pending_flush(dn_device *device, const dn_buffer *touching, dn_error *error);

/* Entries of the back end's table: device.c, buffers.c, programs.c. */
dn_status dn_cuda_device_open(dn_device **out, const dn_device_options *options, dn_error *error);
void dn_cuda_device_close(dn_device *device);
dn_status dn_cuda_buffer_create(dn_buffer **out, dn_device *device, size_t floats, dn_error *error);
void dn_cuda_buffer_free(dn_buffer *buffer);
dn_status dn_cuda_buffer_write(dn_buffer *buffer, size_t offset, const float *values, size_t count, dn_error *error);
dn_status dn_cuda_buffer_read(const dn_buffer *buffer, size_t offset, float *values, size_t count, dn_error *error);
dn_status dn_cuda_buffer_read_pixels(const dn_buffer *buffer, size_t offset, uint32_t channels, size_t plane, bool unit_range, uint8_t *pixels,
                                     dn_error *error);
dn_status dn_cuda_execute(dn_device *device, const dn_program *programs, uint32_t program_count, dn_error *error);

/* network.c, workspace.c, run.c. */
dn_status dn_cuda_network_create(dn_network **out, dn_device *device, const dn_network_options *options, dn_error *error);
dn_status dn_cuda_network_update(dn_network *network, const dn_weights *weights, dn_error *error);
void dn_cuda_network_free(dn_network *network);
size_t dn_cuda_network_bytes(const dn_network *network);
const char *dn_cuda_network_identity(const dn_network *network);
size_t dn_cuda_packed_bytes(dn_device *device, const dn_plan *plan, dn_precision precision);
dn_status dn_cuda_workspace_create(dn_workspace **out, dn_network *network, const dn_workspace_options *options, dn_error *error);
void dn_cuda_workspace_free(dn_workspace *workspace);
size_t dn_cuda_workspace_bytes(const dn_network *network, uint32_t rows, bool keep_values);
dn_status dn_cuda_run(dn_network *network, dn_workspace *workspace, dn_row *rows, uint32_t row_count, dn_error *error);
dn_status dn_cuda_read_value(dn_network *network, dn_workspace *workspace, dn_value value, uint32_t row, float *out, dn_error *error);

/* backend.c: the table itself. */
const dn_backend *dn_backend_cuda(void);

#endif
