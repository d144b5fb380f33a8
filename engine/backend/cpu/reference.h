/* The plain reference: a whole plan run node by node with the simplest loops that say what each node means.
 *
 * Compiled for float and for double. It is what fast kernels and gradients are compared with, and is never used to
 * serve. Its numbers come from libm in double, rounded once. Any thread; nothing is kept between calls. */
#ifndef DN_BACKEND_CPU_REFERENCE_H
#define DN_BACKEND_CPU_REFERENCE_H

#include "backend/backend.h"

/* What a row is besides its sample. */
typedef struct dn_reference_row {
    double time;
    dn_condition condition;
} dn_reference_row;

/* A table of values: table[v] is the [rows,H,W,C] tensor of value v. One allocation; free with free(). */
dn_status dn_reference_table_f32(float ***out, const dn_plan *plan, uint32_t row_count, dn_error *error);
dn_status dn_reference_table_f64(double ***out, const dn_plan *plan, uint32_t row_count, dn_error *error);

/* weights[w] in plan order and checkpoint layout (as in dn_weights); samples [rows,H,W,C] (NHWC) of the plan's input.
 * Fills every value of the table. DN_INVALID when a condition names a class, or a time a row,
 * outside the table. */
dn_status dn_reference_run_f32(const dn_plan *plan, const float *const *weights, const float *samples, const dn_reference_row *rows,
                               uint32_t row_count, float *const *table, dn_error *error);
dn_status dn_reference_run_f64(const dn_plan *plan, const double *const *weights, const double *samples, const dn_reference_row *rows,
                               uint32_t row_count, double *const *table, dn_error *error);

double dn_reference_activation(dn_activation activation, double x);

#endif
