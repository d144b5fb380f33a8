/* The operations of register programs as kernels know them. Pure. */
#include <string.h>

#include "backend/cuda/programs.h"

_Static_assert(DN_CUDA_TERMS_MAX == DN_OP_TERMS_MAX && DN_CUDA_CLASSES_MAX == DN_CONDITION_CLASSES_MAX, "view.h says what backend.h says");

bool dn_cuda_op_is_elementwise(uint32_t kind)
{
    switch (kind) {
    case DN_OP_LINEAR:
    case DN_OP_NOISE:
    case DN_OP_CLIP:
    case DN_OP_SELECT:
    case DN_OP_BLEND:
    case DN_OP_EXP_SCALE:
        return true;
    default:
        return false;
    }
}

void dn_cuda_op_copy(dn_cuda_op *to, const dn_op *from)
{
    *to = (dn_cuda_op){.kind = from->kind, .dst = from->dst, .terms = from->terms, .low = from->low, .high = from->high};
    to->ratio = from->ratio;
    to->stream = from->stream;
    to->draw = from->draw;
    to->split = from->split;
    to->seed = from->seed;
    memcpy(to->src, from->src, sizeof to->src);
    memcpy(to->coefficient, from->coefficient, sizeof to->coefficient);
}
