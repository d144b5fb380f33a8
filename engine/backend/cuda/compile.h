/* A plan compiled for the GPU: which kernel or product does what, in which order, and where every value lies. Pure C, no device.
 *
 * Fusions (none with keep_values): a convolution's row bias goes into the group norm after it; a gated linear node and the layer norm
 * after it are one step; linear nodes that read one vector (adaLN) are one product, whose parts are views; q, k, v are one already.
 * Everything else is one step a node, or a product and a `finish` where its epilogue cannot say the rest.
 * A compiled plan is immutable; the plan it came from outlives it. */
#ifndef DN_BACKEND_CUDA_COMPILE_H
#define DN_BACKEND_CUDA_COMPILE_H

#include "backend/cuda/libraries.h"
#include "plan/plan.h"

typedef enum dn_cuda_step_kind {
    DN_CUDA_STEP_GATHER,         /* out[0] */
    DN_CUDA_STEP_SCATTER,        /* in[0] */
    DN_CUDA_STEP_PRODUCT,        /* out[0] = product(in[0], weight, bias, residual in[1]) */
    DN_CUDA_STEP_FINISH,         /* out[0] from x in[0], row bias in[1], residual in[2], gate in[3] */
    DN_CUDA_STEP_GROUP_NORM,     /* out[0] from in[0], modulation in[1], row bias in[2] */
    DN_CUDA_STEP_LAYER_NORM,     /* out[0] from in[0], shift in[1], scale in[2]; with gate in[3] and residual in[4]: sum in out[1] */
    DN_CUDA_STEP_ATTENTION,      /* our own: out[0] from qkv in[0] */
    DN_CUDA_STEP_TIME_EMBEDDING, /* and so on: out[0], as the node says */
    DN_CUDA_STEP_CLASS_SINUSOID,
    DN_CUDA_STEP_FOURIER_EMBEDDING,
    DN_CUDA_STEP_TIME_TABLE,
    DN_CUDA_STEP_CLASS_EMBEDDING,
    DN_CUDA_STEP_AFFINE,
    DN_CUDA_STEP_ACTIVATE,
    DN_CUDA_STEP_UPSAMPLE_NEAREST2,
    DN_CUDA_STEP_AVERAGE_POOL2,
    DN_CUDA_STEP_FIR2,
    DN_CUDA_STEP_POSITION,
    DN_CUDA_STEP_UNPATCHIFY,
    DN_CUDA_STEP_DIVIDE_BY_TIME,
    DN_CUDA_STEP_CONCAT,         /* out[0] = in[0] then in[1] */
    DN_CUDA_STEP_GLOBAL_POOL,
    DN_CUDA_STEP_KINDS
} dn_cuda_step_kind;

typedef uint32_t dn_cuda_slot;   /* index into compiled->slots */
typedef uint32_t dn_cuda_pack;   /* index into compiled->packs */
#define DN_CUDA_STEP_INPUTS 5

typedef struct dn_cuda_step {
    dn_cuda_step_kind kind;
    const dn_node *node;                 /* whose parameters it has (of a fusion: the norm's, the product's); NULL: gather, scatter */
    char name[96];                       /* nodes that it computes, for profiles and traces */
    dn_cuda_slot in[DN_CUDA_STEP_INPUTS], out[2]; /* DN_NONE where absent */
    dn_cuda_pack weight, bias;           /* DN_NONE where absent */
    uint32_t product;                    /* PRODUCT: index into compiled->products; else DN_NONE */
    /* FINISH alone: node's scale and activation count where these say so. */
    bool scaled, activated, residual_last;
} dn_cuda_step;

/* Where a value lies: of row r at arena + rows * offset + (view_at + r * row_pitch) * size of the type. Slots that are not alive together
 * share memory, and so do a step's output and an input that launch.h or libraries.h lets it overwrite: they have the same offset. Views
 * (parts of a stacked product, one part of a vector) share the memory of `base`; they are vectors, and are never written. A view of a
 * stacked product begins at a multiple of DN_CUDA_CHANNEL_UNIT; a shift, scale or gate at any element, and its pitch is its c. */
typedef struct dn_cuda_slot_info {
    uint32_t h, w, c, pitch;
    uint64_t row_pitch;  /* elements */
    uint64_t offset;     /* bytes a row, a multiple of 256: of the memory's start; a view's is its base's */
    uint64_t view_at;    /* elements past the memory's start, for views */
    dn_cuda_slot base;   /* itself, unless it is a view */
    dn_value value;      /* the plan's value that it holds; DN_NONE: none whole (what a later step finishes, a stack, a part of a vector) */
} dn_cuda_slot_info;

/* How a weight is laid out on the device. */
typedef enum dn_cuda_pack_kind {
    DN_CUDA_PACK_FILTER,      /* [o_pad][kh][kw][i_pad] of the type; stacked nodes one after another along o */
    DN_CUDA_PACK_VECTOR,      /* of the type, padded with zeros (biases of products) */
    DN_CUDA_PACK_FLOATS,      /* floats as in the checkpoint (norms, tables) */
    DN_CUDA_PACK_FREQUENCIES, /* doubles [count] of a time embedding or class sinusoid node: dn_plan_frequencies (plan/tables.h) of 2 count */
    DN_CUDA_PACK_POSITIONS    /* floats [h][w][c] of a position node: dn_plan_positions */
} dn_cuda_pack_kind;

typedef struct dn_cuda_pack_info {
    dn_cuda_pack_kind kind;
    const dn_node *node;          /* FREQUENCIES, POSITIONS */
    const dn_weight *weights;     /* stacked ones in order; owned by the compiled plan */
    uint32_t weight_count;
    uint32_t o, i, kh, kw;        /* FILTER: of the whole, unpadded, o of one weight is dims[0]; of several, each a whole unit */
    uint32_t o_pad, i_pad;        /* VECTOR: o_pad is the padded count */
    float scale;                  /* VECTOR: a factor of every element, for biases behind a product's scale; 1 elsewhere */
    uint64_t count;               /* elements before padding */
    uint64_t bytes, offset;       /* on the device: offset a multiple of 256 from the packed weights' start */
} dn_cuda_pack_info;

typedef struct dn_cuda_compiled {
    const dn_plan *plan;          /* borrowed */
    dn_cuda_type type;
    bool keep_values;
    dn_cuda_step *steps;
    uint32_t step_count;
    dn_cuda_slot_info *slots;
    uint32_t slot_count;
    dn_cuda_slot *value_slots;    /* per plan value; DN_NONE: fused away */
    dn_cuda_pack_info *packs;
    uint32_t pack_count;
    dn_cuda_product_spec *products; /* no two equal */
    uint32_t product_count;
    uint64_t row_bytes;           /* of the arena, for each row */
    uint64_t packed_bytes;        /* of all weights */
    dn_arena arena;               /* what all of it lies in */
} dn_cuda_compiled;

typedef struct dn_cuda_compile_options {
    dn_cuda_type type;
    bool keep_values; /* every value keeps its own memory, and nothing is fused */
    /* Whether the libraries take an attention of this shape; NULL: none. */
    bool (*takes_sdpa)(const dn_cuda_product_spec *spec);
} dn_cuda_compile_options;

/* DN_UNSUPPORTED: the plan has an attention that neither the libraries nor our own kernel take. */
dn_status dn_cuda_compile(dn_cuda_compiled **out, const dn_plan *plan, const dn_cuda_compile_options *options, dn_error *error);
void dn_cuda_compiled_free(dn_cuda_compiled *compiled); /* NULL too */

#endif
