/* What the files of the register programs share: where a register is, and the operations that need sums over it. */
#ifndef DN_BACKEND_CPU_PROGRAM_H
#define DN_BACKEND_CPU_PROGRAM_H

#include "backend/cpu/state.h"

static inline float *dn_cpu_register(const dn_program *program, uint32_t index)
{
    return program->registers->data + (size_t)index * program->elements;
}

/* See dn_op_kind. Sums run in double, in the order of the elements. */
double dn_cpu_op_norm(const dn_program *program, const dn_op *op);
double dn_cpu_op_error_norm(const dn_program *program, const dn_op *op);
void dn_cpu_op_slerp(const dn_program *program, const dn_op *op);
void dn_cpu_op_match_std(const dn_program *program, const dn_op *op);
void dn_cpu_op_project(const dn_program *program, const dn_op *op);
void dn_cpu_op_langevin(const dn_program *program, const dn_op *op);

#endif
