/* A lane: one image being made. Its spec, its registers, its sampler's and guidance's scalars. Private to this folder;
 * the thread that owns the batch owns its lanes. */
#ifndef DN_BATCH_LANE_H
#define DN_BATCH_LANE_H

#include "batch/batch.h"

/* Lanes of networks that answer with a variance half have four registers more: the whole answers of both rows. */
enum { DN_REG_ANSWER_COND = DN_REG_COUNT, DN_REG_ANSWER_NULL = DN_REG_COUNT + 2, DN_REG_COUNT_LEARNED = DN_REG_COUNT + 4 };

typedef struct dn_lane {
    dn_lane_id id;
    dn_lane_spec spec; /* start is not kept */
    dn_lane_state state;
    dn_error error; /* DN_LANE_FAILED */
    bool has_x0; /* DN_REG_X0 holds an estimate */
    dn_sampler_context context;
    dn_sampler_state sampler;
    dn_guidance guidance;
    dn_evaluation evaluation; /* of the tick in progress */
    uint32_t first_row, row_count;
    dn_ops ops;
    double norm; /* of the finished image, to catch infinities */
    dn_buffer *registers;
} dn_lane;

/* Registers of one lane of this engine. */
uint32_t dn_lane_registers(const dn_engine *engine);

/* Resolves a spec that dn_lane_spec_check accepts; registers are the caller's business. */
dn_status dn_lane_init(dn_lane *lane, const dn_engine *engine, dn_lane_id id, const dn_lane_spec *spec, dn_error *error);
/* Fills the lane's registers for step 0. */
dn_status dn_lane_start(dn_lane *lane, const dn_engine *engine, const float *start, dn_error *error);

uint32_t dn_lane_rows(const dn_lane *lane); /* rows of its next evaluation */
void dn_lane_ask(dn_lane *lane, const dn_engine *engine, dn_row *rows); /* writes dn_lane_rows() rows */
/* Writes the program that takes the answers in; a lane whose answer is not finite fails and has none. */
bool dn_lane_answer(dn_lane *lane, const dn_engine *engine, const dn_row *rows);
/* Given noise goes into its register before the program runs. */
dn_status dn_lane_give_noise(dn_lane *lane, const dn_engine *engine, dn_error *error);
void dn_lane_settle(dn_lane *lane); /* after the program: done? finite? */

/* Bit r: register r lives on between ticks. */
uint32_t dn_lane_live_registers(const dn_lane *lane);

#endif
