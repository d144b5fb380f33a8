/* The CPU back end's nouns from inside, and the functions its files offer each other. */
#ifndef DN_BACKEND_CPU_STATE_H
#define DN_BACKEND_CPU_STATE_H

#include "backend/cpu/conditions.h"
#include "backend/cpu/cpu.h"
#include "backend/cpu/kernels.h"
#include "base/math64.h"

#define DN_CPU_LINE_FLOATS 16u /* one 64-byte cache line */

struct dn_device {
    dn_pool *pool;
    const dn_cpu_kernels *kernels;
};

/* What a node needs beside the plan, made when the network is. */
typedef struct dn_cpu_node {
    float *packed; /* conv, linear: the weight as panels */
    double *frequency; /* time embedding, class sinusoid: dim / 2 angular frequencies */
    float *table; /* position: [h,w,C] to be added */
    const struct dn_cpu_half *half; /* conv, linear: how it multiplies and packed lies; NULL: in float */
    bool apart; /* in float, but rows are laid out anew first: where they are, they would drive each other out of the first cache */
} dn_cpu_node;

struct dn_network {
    dn_device *device; /* borrowed */
    const dn_plan *plan; /* borrowed */
    dn_cpu_node *nodes; /* one per node of the plan */
    float **weights; /* per plan weight: a copy in checkpoint layout, NULL where only the packed form is read */
    float *storage; /* what packed and weights point into, 64-byte aligned */
    void *allocation; /* what storage lies in */
    double *frequencies;
    size_t bytes; /* of storage */
    dn_cpu_conditioning conditioning;
    uint64_t version; /* of the weights: one more with each update */
    bool together; /* threads share every node, instead of each taking rows of its own through the network */
};

/* Activations live in regions. With keep_values one region holds every row of every value; otherwise values of a few rows give way to
 * one another in a region, and rows pass through it chunk by chunk: each worker has a region, or all share one. */
struct dn_workspace {
    const dn_network *network;   /* borrowed */
    dn_pool *pool;               /* borrowed; NULL: inline */
    bool keep_values;
    uint32_t rows_max, row_count;
    uint32_t region_rows;        /* rows that a region holds */
    size_t region_floats;
    size_t half_offset;          /* in a region: where rows lie that were converted for products in 16 bits */
    size_t half_row_floats;      /* of each of the region's rows: what the largest node needs */
    dn_row *rows;                /* copies of the last run's */
    float *arena;                /* the regions */
    size_t *offsets;             /* per plan value; row r of value v at region + offsets[v] + r * dn_shape_count */
    float *scratch;              /* scratch_floats for each worker of the pool */
    size_t scratch_floats;
    dn_cpu_conditions *conditions; /* NULL: every row computes its own vectors (keep_values), or there are none */
};

#define DN_CPU_CHUNK_ROWS 4u /* rows that share a pass over the weights and still leave the caches some room */

static inline size_t dn_cpu_round_up(size_t count, size_t unit)
{
    return (count + unit - 1) / unit * unit;
}

static inline size_t dn_cpu_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t dn_cpu_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

float *dn_cpu_alloc(size_t floats); /* 64-byte aligned, not zeroed; free() */

/* What a node's function sees: some of the workspace's rows, and the threads that share them. */
typedef struct dn_cpu_run {
    const dn_workspace *workspace;
    dn_pool *pool;               /* NULL: the calling thread alone */
    unsigned worker;             /* whose scratch the calling thread uses when alone */
    dn_row *rows;                /* the first of row_count */
    uint32_t row_count;
    float *region;
    const size_t *offsets;       /* per value, into the region */
    uint32_t region_first;       /* the run's first row inside its region */
    const dn_plan *plan;
    const dn_node *node;
    const dn_cpu_node *compiled;
    const dn_cpu_kernels *kernels;
} dn_cpu_run;

/* A value of the run's first row; the others follow. NULL for DN_NONE. */
static inline float *dn_cpu_rows_of(const dn_cpu_run *run, dn_value value)
{
    if (value == DN_NONE)
        return NULL;
    return run->region + run->offsets[value] + run->region_first * dn_shape_count(run->plan->values[value].shape);
}

static inline const float *dn_cpu_in(const dn_cpu_run *run, int index)
{
    return dn_cpu_rows_of(run, run->node->in[index]);
}

static inline float *dn_cpu_out(const dn_cpu_run *run)
{
    return dn_cpu_rows_of(run, run->node->out);
}

static inline const float *dn_cpu_weight(const dn_cpu_run *run, dn_weight weight)
{
    return weight == DN_NONE ? NULL : run->workspace->network->weights[weight];
}

static inline dn_shape dn_cpu_shape(const dn_cpu_run *run, dn_value value)
{
    return run->plan->values[value].shape;
}

/* The caller's row of the run's index-th. */
static inline const dn_row *dn_cpu_row_of(const dn_cpu_run *run, size_t index)
{
    return &run->rows[index];
}

static inline float *dn_cpu_out_row(const dn_cpu_run *run, size_t row)
{
    return dn_cpu_out(run) + row * dn_shape_count(dn_cpu_shape(run, run->node->out));
}

static inline const float *dn_cpu_in_row(const dn_cpu_run *run, int index, size_t row)
{
    return dn_cpu_in(run, index) + row * dn_shape_count(dn_cpu_shape(run, run->node->in[index]));
}

/* Elements of a value in all the run's rows. */
static inline double dn_cpu_elements_of(const dn_cpu_run *run, dn_value value)
{
    return (double)dn_shape_count(dn_cpu_shape(run, value)) * run->row_count;
}

/* Below this many elementary operations a node runs on the calling thread: waking another costs more. */
#define DN_CPU_PARALLEL_WORK_MIN 500000.0
/* What moving one float counts as: it waits for memory while a multiply-add unit does so many. */
#define DN_CPU_MOVE_WORK 20.0

/* Runs a node's tasks on the run's pool, or inline when `work` (operations in all) is small. */
void dn_cpu_parallel(const dn_cpu_run *run, double work, size_t count, dn_pool_task *task, const void *payload);

/* Threads that share the node's work. */
static inline size_t dn_cpu_threads(const dn_cpu_run *run)
{
    return dn_pool_size(run->pool);
}

static inline float *dn_cpu_scratch(const dn_cpu_run *run, unsigned worker)
{
    return run->workspace->scratch + (run->worker + worker) * run->workspace->scratch_floats;
}

/* Whether a conv or linear node's product pays in 16 bits: a function of its shape alone. */
bool dn_cpu_half_fits(const dn_plan *plan, const dn_node *node);
/* Floats that a region needs for each of its rows when they are converted: of the largest node. */
size_t dn_cpu_half_row_floats(const dn_network *network);
/* Whether the pixels of a product in float lie so that a tile of them needs more lines of one cache set than there are: by shape. */
bool dn_cpu_rows_collide(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node);
/* A node whose `half` or `apart` is set, for every row of the run. */
void dn_cpu_half_product(const dn_cpu_run *run);
dn_status dn_cpu_precision_check(const dn_device *device, dn_precision precision, dn_error *error);
double dn_cpu_precision_flops(const dn_plan *plan, dn_precision precision);

/* Each computes a node for every row of the run. */
void dn_cpu_run_node(const dn_cpu_run *run); /* of any kind */
void dn_cpu_conv(const dn_cpu_run *run);
void dn_cpu_linear(const dn_cpu_run *run);
void dn_cpu_group_norm(const dn_cpu_run *run);
void dn_cpu_attention(const dn_cpu_run *run);
void dn_cpu_time_embedding(const dn_cpu_run *run);
void dn_cpu_class_embedding(const dn_cpu_run *run);
void dn_cpu_affine(const dn_cpu_run *run);
void dn_cpu_upsample_nearest2(const dn_cpu_run *run);
void dn_cpu_average_pool2(const dn_cpu_run *run);
void dn_cpu_concat(const dn_cpu_run *run);
void dn_cpu_global_pool(const dn_cpu_run *run);
void dn_cpu_activation(const dn_cpu_run *run);
void dn_cpu_layer_norm(const dn_cpu_run *run);
void dn_cpu_class_sinusoid(const dn_cpu_run *run);
void dn_cpu_fourier_embedding(const dn_cpu_run *run);
void dn_cpu_time_table(const dn_cpu_run *run);
void dn_cpu_fir(const dn_cpu_run *run);
void dn_cpu_position(const dn_cpu_run *run);
void dn_cpu_unpatchify(const dn_cpu_run *run);
void dn_cpu_divide_by_time(const dn_cpu_run *run);

/* Panels first .. end - 1 of a linear node without a gate, for every row of the run, on the calling thread. */
void dn_cpu_linear_panels(const dn_cpu_run *run, unsigned worker, size_t first, size_t end);

/* Floats of scratch that one task of a node needs. */
size_t dn_cpu_conv_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node);
size_t dn_cpu_attention_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node);
size_t dn_cpu_group_norm_scratch(const dn_cpu_kernels *kernels, const dn_plan *plan, const dn_node *node);
size_t dn_cpu_layer_norm_scratch(const dn_plan *plan, const dn_node *node);

/* Tables of dn_backend. */
dn_status dn_cpu_network_create(dn_network **out, dn_device *device, const dn_network_options *options, dn_error *error);
dn_status dn_cpu_network_update(dn_network *network, const dn_weights *weights, dn_error *error);
void dn_cpu_network_free(dn_network *network);
size_t dn_cpu_packed_bytes(dn_device *device, const dn_plan *plan, dn_precision precision);
dn_status dn_cpu_workspace_create(dn_workspace **out, dn_network *network, const dn_workspace_options *options, dn_error *error);
void dn_cpu_workspace_free(dn_workspace *workspace);
size_t dn_cpu_workspace_bytes(const dn_network *network, uint32_t rows, bool keep_values);
size_t dn_cpu_condition_bytes(const dn_network *network, uint32_t rows);
dn_status dn_cpu_run_rows(dn_network *network, dn_workspace *workspace, dn_row *rows, uint32_t row_count, dn_error *error);
dn_status dn_cpu_execute(dn_device *device, const dn_program *programs, uint32_t program_count, dn_error *error);

#endif
