/* 3x3 convolution by Winograd's forms: what the back end's files offer each other about it. */
#ifndef DN_BACKEND_CPU_WINOGRAD_H
#define DN_BACKEND_CPU_WINOGRAD_H

#include "backend/cpu/state.h"

#define DN_WINOGRAD_POINTS_MAX 6u /* of a patch's side */

/* How a convolution is computed. */
typedef struct dn_winograd_form {
    size_t side; /* of an output tile: 2 or 4; 0: the direct form */
    bool kept; /* whether the packed weight is the transformed one: (side + 2)^2 matrices for 9 */
} dn_winograd_form;

dn_winograd_form dn_cpu_winograd_form(const dn_plan *plan, const dn_node *node);

/* From weight[O,I,3,3] to packed. */
size_t dn_cpu_winograd_packed_count(const dn_cpu_kernels *kernels, dn_winograd_form form, size_t inputs, size_t outputs);
void dn_cpu_winograd_pack(float *packed, const dn_cpu_kernels *kernels, dn_winograd_form form, const float *weight, size_t inputs,
                          size_t outputs);

/* Floats of scratch that a task needs. */
size_t dn_cpu_winograd_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node);
void dn_cpu_winograd(const dn_cpu_run *run, dn_winograd_form form);

#endif
