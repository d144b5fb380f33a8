/* A back end: compiles a plan, runs it over rows, and runs the register programs of samplers.
 *
 * Four nouns:
 *   device    a CPU or GPU with its threads or streams; made once, shared.
 *   network   a plan compiled with its weights packed; immutable while it runs; any number of workspaces may run it.
 *   workspace activations of up to rows_max rows; one thread owns it.
 *   buffer    floats on the device: a lane's registers, or a caller's inputs and outputs. Element order (c*H + h)*W + w.
 * Every call is a function pointer in one table, so that the CPU and the CUDA library look alike. The CPU is the reference. */
#ifndef DN_BACKEND_BACKEND_H
#define DN_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/philox.h"
#include "base/precision.h"
#include "plan/plan.h"

typedef struct dn_device dn_device;
typedef struct dn_network dn_network;
typedef struct dn_workspace dn_workspace;
typedef struct dn_buffer dn_buffer;

/* A condition is a list of (class row, weight); one class is {{7, 1.0f}}. count 0: the network takes none. */
typedef struct dn_condition {
    uint32_t count;
    uint32_t classes[DN_CONDITION_CLASSES_MAX];
    float weights[DN_CONDITION_CLASSES_MAX];
} dn_condition;

/* One thing to evaluate: out = network(scale * in, time, condition). Offsets in floats. */
typedef struct dn_row {
    const dn_buffer *in;
    size_t in_offset;
    float in_scale;
    float time;
    dn_condition condition;
    dn_buffer *out;
    size_t out_offset;
    bool finite;           /* written by the run: false when any output element is NaN or infinite */
} dn_row;

/* ---- Register programs: what a sampler says it does to an image. */
#define DN_OP_TERMS_MAX 8

typedef enum dn_op_kind {
    DN_OP_LINEAR,      /* dst = sum of coefficient[i] * src[i], i in order, float, no fused multiply-add; dst may be a src */
    DN_OP_NOISE,       /* dst = standard normals of (seed, stream, draw) */
    DN_OP_CLIP,        /* dst = min(max(src[0], low), high) */
    DN_OP_THRESHOLD,   /* dynamic thresholding: s = clamp(quantile(|src0|, ratio), 1, high); dst = clamp(src0, -s, s) / s */
    DN_OP_NORM,        /* scalar result: sqrt(mean(src[0]^2)), in double, handed back by the execute call */
    DN_OP_SELECT,      /* dst[i] = i < split ? src[0][i] : src[1][i] (the first channels alone) */
    DN_OP_BLEND,       /* dst = src[2] * src[0] + (1 - src[2]) * src[1] (src[2]: a mask) */
    DN_OP_SLERP,       /* dst = sin((1-t)w)/sin(w) src[0] + sin(tw)/sin(w) src[1], t = ratio, w the angle between them as vectors; linear
                        * where sin(w) is below 1e-4. Sums in double, own sine (no libm). */
    DN_OP_MATCH_STD,   /* dst = src[0] * (ratio * std(src[1]) / std(src[0]) + 1 - ratio), unbiased std over all elements (Lin et al. 2023) */
    DN_OP_PROJECT,     /* adaptive projected guidance: d = src[0] * min(1, low / |src[0]|) (low 0: no bound), p its part along src[1],
                        * dst = (d - p) + ratio * p; sums in double */
    DN_OP_ERROR_NORM,  /* scalar result: sqrt(mean((src[0] / (low + ratio * max(|src[1]|, |src[2]|)))^2)) (adaptive step control) */
    DN_OP_ACCEPT,      /* dst = src[0] where the program's last scalar is <= 1, else src[1]: the whole register */
    DN_OP_LANGEVIN,    /* dst = src[0] + e src[1] + sqrt(2 e) src[2], e = 2 low (ratio |src[2]| / |src[1]|)^2 (Song et al. 2021, algorithm 4) */
    DN_OP_EXP_SCALE    /* dst = exp(low + ratio * src[0]) * src[1], our own exponential without fused multiply-add (learned variance) */
} dn_op_kind;

typedef struct dn_op {
    dn_op_kind kind;
    uint32_t dst;
    uint32_t terms;
    uint32_t src[DN_OP_TERMS_MAX];
    float coefficient[DN_OP_TERMS_MAX];
    float low, high, ratio;
    uint64_t split;
    uint64_t seed;
    dn_noise_stream stream;
    uint32_t draw;
} dn_op;

/* Ops over one lane's registers: register r is registers[r*elements .. (r+1)*elements-1]. */
typedef struct dn_program {
    dn_buffer *registers;
    size_t elements;
    const dn_op *ops;
    uint32_t op_count;
    double *scalars;       /* one per DN_OP_NORM and DN_OP_ERROR_NORM, in order; may be NULL when there are none */
} dn_program;

typedef struct dn_device_options {
    unsigned threads;       /* 0: all available */
    const char *isa;        /* "sse2", "avx2", "avx512"; "neon"; "generic". NULL: the best the CPU has (or DENOISED_ISA). GPUs: not read */
    uint32_t index;         /* which of the back end's devices; 0 where there is one */
    bool fast;              /* GPUs: the fastest configuration for every batch size, though a row's bytes may then depend on its batch */
    const char *cache;      /* GPUs: folder of plans that were found, made if missing; NULL: none */
} dn_device_options;

typedef struct dn_network_options {
    const dn_plan *plan;        /* borrowed; outlives the network */
    const dn_weights *weights;  /* read during the call only */
    dn_weights *spent;          /* instead of weights: each one's memory is given back when it is packed; they are worth nothing then */
    dn_precision precision;     /* one that precision_check accepts */
    uint32_t rows_max;          /* GPUs: runs of more rows are cut, so that nothing is prepared for them; 0: DN_BATCH_ROWS_MAX */
} dn_network_options;

typedef struct dn_workspace_options {
    uint32_t rows_max;
    bool keep_values;       /* no arena reuse: every value survives the run (training, trace) */
    bool inline_threads;    /* run on the calling thread alone, not the device's pool */
    size_t condition_bytes; /* bound of the vectors kept for times and conditions met before; 0: the back end's own. Those of rows_max
                             * rows are always kept. With keep_values there are none */
    bool background;        /* GPUs: beside the others, with lower priority (decodes) */
} dn_workspace_options;

typedef struct dn_backend {
    const char *name;                                             /* "cpu" or "cuda" */
    dn_precision precision;                                       /* what DN_PRECISION_AUTO means here */
    bool host_values;                                             /* values of a workspace lie in this process' memory (what gradients need) */
    dn_status (*device_open)(dn_device **out, const dn_device_options *options, dn_error *error);
    void (*device_close)(dn_device *device);
    void (*device_describe)(const dn_device *device, char *out, size_t out_bytes);   /* "cpu avx512 2 threads" */
    const char *(*device_isa)(const dn_device *device);
    /* What else pictures depend on: card and libraries ("NVIDIA H200, sm_90, cuDNN 9.19.0, cuBLASLt 13.1.0"); "": nothing. */
    const char *(*device_identity)(const dn_device *device);
    /* The device's own memory in bytes, and (may be NULL) what of it nobody has; 0: not known. NULL: it has the machine's memory. */
    size_t (*device_memory)(const dn_device *device, size_t *free_bytes);
    /* Whether the device multiplies so, and gains by it; DN_UNSUPPORTED says what it has instead. */
    dn_status (*precision_check)(const dn_device *device, dn_precision precision, dn_error *error);
    /* FLOPs of one row that this precision takes in 16 bits: a matter of the layers' shapes. */
    double (*precision_flops)(const dn_plan *plan, dn_precision precision);

    dn_status (*network_create)(dn_network **out, dn_device *device, const dn_network_options *options, dn_error *error);
    /* New weights into the same network (training): no run may be in flight. */
    dn_status (*network_update)(dn_network *network, const dn_weights *weights, dn_error *error);
    void (*network_free)(dn_network *network);
    size_t (*network_bytes)(const dn_network *network);           /* packed weights */
    const char *(*network_identity)(const dn_network *network);   /* hash of the configurations that its products were pinned to; "": none */
    /* How it was compiled, for people: "612 steps, 208 products, buckets of 1 2 4 8 rows". NULL: there is nothing to say. */
    void (*network_describe)(const dn_network *network, char *out, size_t out_bytes);
    /* The same of a network that is not made yet; 0: out of memory. */
    size_t (*packed_bytes)(dn_device *device, const dn_plan *plan, dn_precision precision);

    dn_status (*workspace_create)(dn_workspace **out, dn_network *network, const dn_workspace_options *options, dn_error *error);
    void (*workspace_free)(dn_workspace *workspace);
    size_t (*workspace_bytes)(const dn_network *network, uint32_t rows, bool keep_values);   /* planned arena, scratch, kept vectors */
    size_t (*condition_bytes)(const dn_network *network, uint32_t rows);   /* of these, without keep_values: at most so many of kept vectors */

    /* Runs 1..rows_max rows. Each row's bytes depend on that row alone, whatever shares the call. A row's output may
     * overwrite its own input, but no other row's. */
    dn_status (*run)(dn_network *network, dn_workspace *workspace, dn_row *rows, uint32_t row_count, dn_error *error);
    /* After a run with keep_values: a value of row `row`, NHWC floats, to the host. */
    dn_status (*read_value)(dn_network *network, dn_workspace *workspace, dn_value value, uint32_t row, float *out, dn_error *error);

    dn_status (*buffer_create)(dn_buffer **out, dn_device *device, size_t floats, dn_error *error);
    void (*buffer_free)(dn_buffer *buffer);
    dn_status (*buffer_write)(dn_buffer *buffer, size_t offset, const float *values, size_t count, dn_error *error);
    dn_status (*buffer_read)(const dn_buffer *buffer, size_t offset, float *values, size_t count, dn_error *error);
    /* A picture [channels][plane] of floats in the buffer as bytes [plane][channels]: dn_pixel of each (base/pixel.h). */
    dn_status (*buffer_read_pixels)(const dn_buffer *buffer, size_t offset, uint32_t channels, size_t plane, bool unit_range, uint8_t *pixels,
                                    dn_error *error);

    /* At most DN_LANES_MAX programs. */
    dn_status (*execute)(dn_device *device, const dn_program *programs, uint32_t program_count, dn_error *error);
} dn_backend;

const dn_backend *dn_backend_cpu(void);   /* any other: backend/devices.h */

#endif
