/* The CPU back end's inside: what its files (and the trainer, which runs the same nodes backward) share. */
#ifndef DN_BACKEND_CPU_CPU_H
#define DN_BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "base/thread_pool.h"

struct dn_buffer {
    size_t count;
    float *data;                 /* 64-byte aligned */
    void *memory;                /* what data lies in */
};

/* Where a value of every row lives in a workspace that keeps values: value v of row r is at base[v] + r * dn_shape_count(shape of v), so that the rows of
 * a value are one [rows,H,W,C] tensor. */
float *dn_cpu_value(const dn_workspace *workspace, dn_value value);

/* Rows so far whose vectors of time and condition were there already, in the same run or from before; and those computed. */
void dn_cpu_condition_counts(const dn_workspace *workspace, uint64_t *hits, uint64_t *misses);

#endif
