/* Networks and workspaces of the CUDA back end from inside, and what their files offer each other.
 *
 * A network is immutable once made, but for the form that workspaces with keep_values ask for. A workspace belongs to one thread; nothing in
 * it is shared, so that two workspaces run on two streams at once. */
#ifndef DN_BACKEND_CUDA_STATE_H
#define DN_BACKEND_CUDA_STATE_H

#include "backend/cuda/buckets.h"
#include "backend/cuda/compile.h"
#include "backend/cuda/device.h"
#include "base/limits.h"

/* A plan compiled in one way, with the products that its steps run and where its weights lie. */
typedef struct dn_cuda_form {
    dn_cuda_compiled *compiled;
    dn_cuda_buckets buckets; /* sizes that the products have configurations for: fewer than the usual where tensors get too large */
    dn_cuda_product **products; /* [compiled->product_count] */
    const unsigned char **packs; /* [compiled->pack_count], on the device */
} dn_cuda_form;

struct dn_network {
    dn_device *device;   /* borrowed */
    const dn_plan *plan; /* borrowed */
    dn_cuda_type type;
    uint32_t rows_max;       /* of one bucket, at most */
    dn_cuda_form *fused;     /* what serves */
    pthread_mutex_t lock;    /* kept, measured */
    dn_cuda_buckets measured; /* times of the first buckets; count 0: none were taken yet */
    dn_cuda_form *kept;      /* nothing fused, for keep_values; made for the first workspace that wants it */
    void *weights;           /* device memory: packed as fused->compiled says */
    char identity[17];       /* hex, of the products' configurations */
};

/* What a workspace has for one batch size. */
typedef struct dn_cuda_seat {
    dn_cuda_block *block, *device_block;  /* pinned, and what a pass copies it to */
    size_t block_bytes;
    uint32_t *finite, *device_finite;     /* [rows of the bucket] */
    cudaGraphExec_t graph;                /* NULL: none yet */
    bool warm;                            /* ran eagerly once: whatever libraries load lazily is there, and a capture sees launches alone */
} dn_cuda_seat;

struct dn_workspace {
    dn_network *network;       /* borrowed */
    const dn_cuda_form *form;  /* borrowed from it */
    bool keep_values, background;
    bool graphs;               /* false: every pass is enqueued step by step */
    uint32_t rows_max;
    dn_cuda_buckets buckets;   /* the form's first ones, with this workspace's times */
    dn_cuda_seat seats[DN_CUDA_BUCKETS_MAX];
    void *memory, *pinned;     /* one allocation each: arena, scratch, blocks, flags; blocks, flags */
    void *scratch;             /* in memory: of one step, a product or a group norm */
    cudaStream_t stream;       /* borrowed from the device */
    cudaStream_t capture;      /* own: where graphs are recorded, so that nobody else's work gets into them */
    cudaEvent_t done;
    uint32_t ran_bucket, ran_rows; /* keep_values: of the last run */
};

/* One pass of a bucket through a network, enqueued on a stream. */
typedef struct dn_cuda_pass {
    const dn_workspace *workspace;
    uint32_t bucket; /* index */
    cudaStream_t stream;
} dn_cuda_pass;

/* forms.c. A form of the network (of which device, plan, type and rows_max are there): compiled, products made; packs are looked up in the
 * network's weights by dn_cuda_form_find_packs. */
dn_status dn_cuda_form_create(dn_cuda_form **out, const dn_network *network, bool keep_values, dn_error *error);
void dn_cuda_form_free(dn_cuda_form *form); /* NULL too */
/* Where each pack lies among weights that were packed as `packed` says: the same one, or part of a stacked one. DN_INTERNAL: nowhere. */
dn_status dn_cuda_form_find_packs(dn_cuda_form *form, const dn_cuda_compiled *packed, const void *weights, dn_error *error);
/* The network's form for workspaces; keep_values: made now if it is not there. */
dn_status dn_cuda_form_of(const dn_cuda_form **out, dn_network *network, bool keep_values, dn_error *error);

/* weights.c. Fills device memory of compiled->packed_bytes from a checkpoint's floats; `spent` (NULL, or the same weights): each is given
 * back once it is on its way. Returns when all is there. */
dn_status dn_cuda_weights_upload(dn_device *device, const dn_cuda_compiled *compiled, const dn_weights *weights, dn_weights *spent,
                                 void *packed, dn_error *error);

/* steps.c. Everything from gather to scatter. */
dn_status dn_cuda_steps(const dn_cuda_pass *pass, dn_error *error);
/* A slot of a bucket's rows in the workspace's arena; data NULL for DN_NONE. */
dn_cuda_view dn_cuda_slot_view(const dn_workspace *workspace, uint32_t bucket, dn_cuda_slot slot);

/* graph.c. */
/* One pass of the seat's block: as a graph where there is one or can be, else step by step. */
dn_status dn_cuda_launch_bucket(dn_workspace *workspace, uint32_t bucket, dn_error *error);
/* Times of the workspace's buckets: those that the network has, or what a few passes without rows take now. */
dn_status dn_cuda_measure(dn_workspace *workspace, dn_error *error);

#endif
