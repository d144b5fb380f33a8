/* cuDNN's graph API as a list of descriptors that one owner keeps and that fail once.
 *
 * Every descriptor made through a dn_cudnn belongs to it and lives as long as it does: descriptors refer to one another, and cuDNN does not
 * say which of them copy. After the first failure every call does nothing; the error says which attribute of which descriptor was refused
 * and cuDNN's own words. One thread at a time. */
#ifndef DN_BACKEND_CUDA_NVIDIA_CUDNN_GRAPH_H
#define DN_BACKEND_CUDA_NVIDIA_CUDNN_GRAPH_H

#include <cudnn.h>

#include "backend/cuda/libraries.h"
#include "backend/cuda/pins.h"

typedef cudnnBackendDescriptor_t dn_cudnn_descriptor;

/* What plans are made for: a handle's GPU, or, where there is none, properties that were written down (tests, plans made beforehand). */
typedef struct dn_cudnn_target {
    cudnnHandle_t handle;           /* NULL: properties */
    dn_cudnn_descriptor properties; /* a finalized CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, or NULL */
} dn_cudnn_target;

typedef struct dn_cudnn {
    dn_cudnn_target target;
    dn_cudnn_descriptor *owned;
    uint32_t count, capacity;
    dn_error error; /* DN_OK while all is well */
} dn_cudnn;

void dn_cudnn_done(dn_cudnn *set); /* destroys what it owns, the latest first; a zeroed set too */

dn_cudnn_descriptor dn_cudnn_make(dn_cudnn *set, cudnnBackendDescriptorType_t type);
void dn_cudnn_set(dn_cudnn *set, dn_cudnn_descriptor descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                  int64_t count, const void *values);
/* Elements that were there, at most `count` of which are written; 0 after a failure. */
int64_t dn_cudnn_get(dn_cudnn *set, dn_cudnn_descriptor descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     int64_t count, void *values);
/* The descriptor; NULL after a failure. */
dn_cudnn_descriptor dn_cudnn_finalize(dn_cudnn *set, dn_cudnn_descriptor descriptor, const char *what);

/* dims [N,C,H,W] and their strides; uid 0: a virtual tensor, of float, between two operations. */
dn_cudnn_descriptor dn_cudnn_tensor(dn_cudnn *set, int64_t uid, cudnnDataType_t type, const int64_t dims[4], const int64_t strides[4]);
/* A float that a run passes by value. */
dn_cudnn_descriptor dn_cudnn_scalar(dn_cudnn *set, int64_t uid);
/* y = scale * x + scale * b. */
dn_cudnn_descriptor dn_cudnn_add(dn_cudnn *set, float scale, dn_cudnn_descriptor x, dn_cudnn_descriptor b, dn_cudnn_descriptor y);
dn_cudnn_descriptor dn_cudnn_operations(dn_cudnn *set, const dn_cudnn_descriptor *operations, int64_t count);

dn_cudnn_descriptor dn_cudnn_engine(dn_cudnn *set, dn_cudnn_descriptor graph, int64_t number);
/* A plan of the graph by engine and knobs; NULL: cuDNN refuses (the set has the reason). workspace: bytes that its runs need. */
dn_cudnn_descriptor dn_cudnn_plan(dn_cudnn *set, dn_cudnn_descriptor graph, const dn_cuda_pin *pin, int64_t *workspace);

/* A device's properties from cuDNN's JSON of them. */
dn_cudnn_descriptor dn_cudnn_properties(dn_cudnn *set, const char *json);

#endif
