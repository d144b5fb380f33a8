/* What depends on a row's time and condition alone, computed once for all rows that agree in them.
 *
 * conditioning  the part of a network that reads neither pixels nor noise: embeddings, their layers, the projections of adaptive
 *               norms. Found when the network is made; immutable.
 * conditions    a workspace's vectors of the conditions that it met last. The workspace's owner calls.
 * A vector's bytes are those that its row would compute alone: a product's rows do not know each other. */
#ifndef DN_BACKEND_CPU_CONDITIONS_H
#define DN_BACKEND_CPU_CONDITIONS_H

#include "backend/backend.h"

/* Memory for kept vectors: a part of the packed weights, within bounds; and never more conditions than a search should pass over. */
#define DN_CPU_CONDITIONS_SHARE 16u
#define DN_CPU_CONDITIONS_BYTES_MIN ((size_t)2 << 20)
#define DN_CPU_CONDITIONS_BYTES_MAX ((size_t)256 << 20)
#define DN_CPU_CONDITIONS_MAX 1024u
/* Conditions computed in one pass over the weights: the rows of the largest microkernel. */
#define DN_CPU_CONDITIONS_PASS 14u

struct dn_cpu_run;

typedef enum dn_cpu_part {
    DN_CPU_PART_ROWS, /* computed for each row */
    DN_CPU_PART_INNER, /* of a condition, read by other nodes of conditions alone */
    DN_CPU_PART_KEPT /* of a condition, read by nodes of rows: kept */
} dn_cpu_part;

typedef struct dn_cpu_conditioning {
    uint8_t *parts; /* per node of the plan: a dn_cpu_part */
    uint32_t *nodes; /* the nodes of conditions, level after level: a level reads what is before it */
    uint32_t *level_ends; /* where each level ends in nodes */
    uint32_t node_count, level_count;
    size_t *kept_at; /* per node: its place among a condition's vectors, in floats */
    size_t kept_floats; /* of one condition */
    size_t pass_floats; /* of one condition while it is computed: every value */
} dn_cpu_conditioning;

dn_status dn_cpu_conditioning_find(dn_cpu_conditioning *out, const dn_plan *plan, dn_error *error);
void dn_cpu_conditioning_done(dn_cpu_conditioning *conditioning);

typedef struct dn_cpu_conditions dn_cpu_conditions;

/* bytes_max: bound of the kept vectors (rows_max conditions are always kept); 0: the network's own. *out is NULL where nothing depends
 * on a condition alone. */
dn_status dn_cpu_conditions_create(dn_cpu_conditions **out, const dn_network *network, uint32_t rows_max, size_t bytes_max,
                                   dn_error *error);
void dn_cpu_conditions_free(dn_cpu_conditions *conditions);
size_t dn_cpu_conditions_bytes(const dn_network *network, uint32_t rows_max, size_t bytes_max);

/* Finds or computes the vectors of every row of the workspace, on its whole pool. Not inside a task. */
void dn_cpu_conditions_prepare(dn_cpu_conditions *conditions, const dn_workspace *workspace);
/* Writes the kept vector of the run's node for its rows. Any thread. */
void dn_cpu_conditions_copy(const dn_cpu_conditions *conditions, const struct dn_cpu_run *run);

#endif
