/* See program_check.h. */
#include "backend/program_check.h"

/* How many registers an operation reads. */
static uint32_t sources_of(const dn_op *op)
{
    static const uint32_t sources[] = {
        [DN_OP_NOISE] = 0,  [DN_OP_CLIP] = 1,     [DN_OP_THRESHOLD] = 1, [DN_OP_NORM] = 1,    [DN_OP_SELECT] = 2,
        [DN_OP_BLEND] = 3,  [DN_OP_SLERP] = 2,    [DN_OP_MATCH_STD] = 2, [DN_OP_PROJECT] = 2, [DN_OP_ERROR_NORM] = 3,
        [DN_OP_ACCEPT] = 2, [DN_OP_LANGEVIN] = 3, [DN_OP_EXP_SCALE] = 2,
    };
    return op->kind == DN_OP_LINEAR ? op->terms : sources[op->kind];
}

static bool gives_scalar(const dn_op *op)
{
    return op->kind == DN_OP_NORM || op->kind == DN_OP_ERROR_NORM;
}

dn_status dn_program_check(const dn_program *program, size_t count, uint32_t *scalars, dn_error *error)
{
    size_t registers = program->elements ? count / program->elements : 0;
    *scalars = 0;
    for (uint32_t i = 0; i < program->op_count; i++) {
        const dn_op *op = &program->ops[i];
        if ((unsigned)op->kind > DN_OP_EXP_SCALE)
            return dn_fail(error, DN_INTERNAL, "operation %u of a register program is of no known kind", i);
        uint32_t sources = sources_of(op);
        bool good = sources <= DN_OP_TERMS_MAX && (op->kind != DN_OP_LINEAR || sources > 0);
        good = good && (gives_scalar(op) ? program->scalars != NULL : op->dst < registers);
        good = good && (op->kind != DN_OP_ACCEPT || *scalars > 0);
        for (uint32_t t = 0; good && t < sources; t++)
            good = op->src[t] < registers;
        if (!good)
            return dn_fail(error, DN_INTERNAL, "operation %u of a register program names what is not there", i);
        *scalars += gives_scalar(op);
    }
    return DN_OK;
}
