/* The running batch: lanes in flight on one engine. Anything shares a batch.
 *
 * A tick gathers the rows every lane asks for, runs each network at most once, hands every lane its answer and runs all
 * register programs. Lanes are admitted, evicted, snapshotted and restored between ticks. One thread owns a batch.
 * The bytes of an image depend on its spec alone, never on its batch-mates. */
#ifndef DN_BATCH_BATCH_H
#define DN_BATCH_BATCH_H

#include "batch/loaded_engine.h"

typedef struct dn_batch dn_batch;
typedef uint64_t dn_lane_id; /* chosen by the caller, unique among live lanes */

typedef struct dn_lane_spec {
    uint64_t seed;
    bool has_class; /* false: unconditional */
    uint32_t class_index;
    dn_condition mixture; /* count > 0, with has_class: several classes' embeddings by weight, instead of class_index */
    bool has_negative; /* guided away from negative_class instead of the null class */
    uint32_t negative_class;
    double guidance_scale;
    uint32_t steps;
    char sampler[32]; /* a name, or "model" */
    dn_options options; /* of sampler, guidance and conditioning */
    bool has_variation; /* the start is turned from seed's noise to variation_seed's, by options' variation_strength */
    uint64_t variation_seed;
    const float *init; /* given picture [C*H*W], clean, in the network's space; NULL: none; read during admit */
    const float *mask; /* [H*W], 1 where init is painted anew, 0 where it stays; NULL: none; read during admit */
    const float *start; /* given start noise [C*H*W], NULL: philox from seed; read during admit */
    /* Given noise [draws][C*H*W] of the steps, NULL: philox from seed; borrowed until the lane is gone, and such a lane has
     * no snapshot. For comparing implementations. */
    const float *noise;
} dn_lane_spec;

typedef enum dn_lane_state { DN_LANE_RUNNING, DN_LANE_DONE, DN_LANE_FAILED } dn_lane_state;

/* What became of a lane in a tick. */
typedef struct dn_lane_report {
    dn_lane_id id;
    dn_lane_state state;
    uint32_t steps_done, steps_total; /* of an adaptive sampler's own steps no total is known: see fraction */
    double fraction; /* how far the image is, 0 to 1 */
    uint32_t evaluations; /* of the image so far, guided ones counted once */
    dn_error error; /* DN_LANE_FAILED: step and cause (NaN in the network's answer) */
} dn_lane_report;

typedef struct dn_tick_report {
    uint32_t rows; /* rows evaluated, by all networks together */
    double seconds;
    uint32_t lane_count;
    dn_lane_report lanes[DN_LANES_MAX]; /* every lane in flight when the tick began */
} dn_tick_report;

dn_status dn_batch_create(dn_batch **out, dn_engine *engine, uint32_t rows_max, dn_error *error);
void dn_batch_free(dn_batch *batch);
const dn_engine *dn_batch_engine(const dn_batch *batch);
uint32_t dn_batch_lanes(const dn_batch *batch);
uint32_t dn_batch_rows_wanted(const dn_batch *batch); /* rows the next tick will run, were there room for all */

/* Checks a spec against the engine without admitting it: refusals name the field ("steps must be ..."). */
dn_status dn_lane_spec_check(const dn_engine *engine, const dn_lane_spec *spec, dn_error *error);
/* Rows one tick of this lane needs at most, of all networks together (1 to 3). 0 for a spec whose guidance is refused. */
uint32_t dn_lane_spec_rows(const dn_engine *engine, const dn_lane_spec *spec);
/* Rows evaluated for the whole image: what it costs. 0 for a spec that dn_lane_spec_check refuses. Progress counts steps. */
uint32_t dn_lane_spec_evaluations(const dn_engine *engine, const dn_lane_spec *spec);

dn_status dn_batch_admit(dn_batch *batch, dn_lane_id id, const dn_lane_spec *spec, dn_error *error);
dn_status dn_batch_evict(dn_batch *batch, dn_lane_id id); /* DN_INVALID: no such lane */

/* Runs at most rows_max rows of each network: lanes that do not fit wait their turn (round robin). DN_OK even when lanes failed. */
dn_status dn_batch_tick(dn_batch *batch, dn_tick_report *report, dn_error *error);

/* A snapshot is the spec, the sampler's state and the registers that live across ticks; bytes are malloc'd. It opens
 * only on the same weights, build and shape: anything else is DN_INVALID and the lane starts at step 0. */
dn_status dn_batch_snapshot(dn_batch *batch, dn_lane_id id, unsigned char **out, size_t *out_bytes, dn_error *error);
dn_status dn_batch_restore(dn_batch *batch, dn_lane_id id, const unsigned char *bytes, size_t count, dn_error *error);

/* The lane's image as it stands: final latents/pixels in floats [C*H*W], or 8-bit [H][W][C] (x/2 + 0.5, clamped, times 255,
 * rounded half to even). For a running lane this is the current denoised estimate (a preview). Pixels are for networks that make
 * them themselves: latents are read as floats and go through a codec (DN_UNSUPPORTED). */
dn_status dn_batch_read_floats(dn_batch *batch, dn_lane_id id, float *out, dn_error *error);
dn_status dn_batch_read_pixels(dn_batch *batch, dn_lane_id id, uint8_t *out, dn_error *error);

#endif
