/* What the compiler's files share: the state of one compilation, and how they add to it. One thread; nothing outlives dn_cuda_compile but
 * what lies in out->arena. The arrays of `out` are as long as any plan of so many nodes can need, so that adding never fails for room. */
#ifndef DN_BACKEND_CUDA_COMPILE_PRIVATE_H
#define DN_BACKEND_CUDA_COMPILE_PRIVATE_H

#include "backend/cuda/compile.h"

#define DN_CUDA_MEMORY_UNIT 256u      /* bytes: what every value and every packed weight begins at a multiple of */
#define DN_CUDA_OWN_HEAD_DIM_MAX 512u /* channels of a head that our own attention takes */

typedef struct dn_cuda_compiler {
    const dn_plan *plan;
    const dn_cuda_compile_options *options;
    dn_cuda_compiled *out;
    dn_arena scratch;
    dn_status status;      /* of the first failure; later ones are not reported */
    dn_error *error;
    dn_cuda_slot *slots;   /* [value]: where it is read from; DN_NONE: it is not written yet */
    uint32_t *absorber;    /* [node] of a convolution or gated linear node: the norm that does the rest of its work; DN_NONE */
    uint32_t *absorbed;    /* [node] of a norm: the node whose rest it does; DN_NONE */
    uint32_t *stack_next;  /* [node] of a linear node: the next of its stack; DN_NONE */
    bool *stack_follower;  /* [node]: an earlier one's product computes it */
} dn_cuda_compiler;

static inline uint32_t dn_cuda_whole_units(uint32_t channels)
{
    return (channels + DN_CUDA_CHANNEL_UNIT - 1) / DN_CUDA_CHANNEL_UNIT * DN_CUDA_CHANNEL_UNIT;
}

static inline uint64_t dn_cuda_memory_units(uint64_t bytes)
{
    return (bytes + DN_CUDA_MEMORY_UNIT - 1) / DN_CUDA_MEMORY_UNIT * DN_CUDA_MEMORY_UNIT;
}

static inline uint32_t dn_cuda_type_bytes(dn_cuda_type type)
{
    return type == DN_CUDA_BF16 ? 2 : 4;
}

/* compile.c. A step without operands; the next addition may move nothing: the pointer stays good. */
dn_cuda_step *dn_cuda_add_step(dn_cuda_compiler *c, dn_cuda_step_kind kind, const dn_node *node);
/* Memory of `shape`. */
dn_cuda_slot dn_cuda_add_slot(dn_cuda_compiler *c, dn_shape shape);
/* Where a node's value is read from; DN_NONE for DN_NONE. */
dn_cuda_slot dn_cuda_read(const dn_cuda_compiler *c, dn_value value);
/* Memory for a value, from now on what its readers see: whole, or (`whole` false) still without what a later step adds. */
dn_cuda_slot dn_cuda_write(dn_cuda_compiler *c, dn_value value, bool whole);
/* Channels first .. first + count - 1 of a vector. */
dn_cuda_slot dn_cuda_add_part(dn_cuda_compiler *c, dn_cuda_slot vector, uint32_t first, uint32_t count);

/* compile_fuse.c: fills absorber, absorbed, stack_next and stack_follower. */
void dn_cuda_find_fusions(dn_cuda_compiler *c);

/* compile_products.c, compile_nodes.c: the steps of one node. */
void dn_cuda_compile_conv(dn_cuda_compiler *c, uint32_t n);
void dn_cuda_compile_linear(dn_cuda_compiler *c, uint32_t n);
void dn_cuda_compile_attention(dn_cuda_compiler *c, uint32_t n);
void dn_cuda_compile_group_norm(dn_cuda_compiler *c, uint32_t n);
void dn_cuda_compile_layer_norm(dn_cuda_compiler *c, uint32_t n);
void dn_cuda_compile_plain(dn_cuda_compiler *c, uint32_t n); /* any other kind: one step */

/* compile_pack.c: the place of weights in one layout; the same one whenever it is asked for again. */
dn_cuda_pack dn_cuda_add_pack(dn_cuda_compiler *c, dn_cuda_pack_kind kind, const dn_weight *weights, uint32_t weight_count);
/* The same of one weight; DN_NONE for DN_NONE. */
dn_cuda_pack dn_cuda_add_weight(dn_cuda_compiler *c, dn_cuda_pack_kind kind, dn_weight weight);
/* VECTOR of biases one after another, each times `scale`; DN_NONE where the nodes have none. */
dn_cuda_pack dn_cuda_add_bias(dn_cuda_compiler *c, const dn_weight *biases, uint32_t count, float scale);
/* FREQUENCIES, POSITIONS. */
dn_cuda_pack dn_cuda_add_table(dn_cuda_compiler *c, dn_cuda_pack_kind kind, const dn_node *node);

/* compile_memory.c: every slot's offset, and the bytes of a row. */
void dn_cuda_plan_memory(dn_cuda_compiler *c);

#endif
