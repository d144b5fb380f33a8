/* A lane: one image being made. Its spec, its registers, its sampler's and guidance's scalars. Private to this folder;
 * the thread that owns the batch owns its lanes. */
#ifndef DN_BATCH_LANE_H
#define DN_BATCH_LANE_H

#include "batch/batch.h"
#include "diffusion/conditioning.h"

/* Lanes of networks that answer with a variance half have four registers more: the whole answers of both rows. */
enum { DN_REG_ANSWER_COND = DN_REG_COUNT, DN_REG_ANSWER_NULL = DN_REG_COUNT + 2, DN_REG_COUNT_LEARNED = DN_REG_COUNT + 4 };

/* What rows are run by. */
enum { DN_RUN_NETWORK, DN_RUN_GUIDE, DN_RUN_CLASSIFIER, DN_RUN_COUNT };

typedef struct dn_lane {
    dn_lane_id id;
    dn_lane_spec spec; /* without start, init and mask, which the registers hold */
    dn_lane_state state;
    dn_error error; /* DN_LANE_FAILED */
    bool has_x0; /* DN_REG_X0 holds an estimate */
    bool moving; /* DN_REG_GUIDE holds guidance's running mean */
    uint32_t pass; /* of the step in progress: 0, or more where steps are taken again */
    dn_sampler_context context;
    dn_sampler_state sampler;
    dn_guidance guidance;
    dn_conditioning conditioning;
    dn_evaluation evaluation; /* of the tick in progress */
    uint32_t asked; /* its rows: DN_ROW_* */
    uint32_t first_row[DN_RUN_COUNT], row_count[DN_RUN_COUNT];
    dn_ops ops;
    uint32_t scalar_count; /* of the program in progress; the last is the norm of the image where has_norm */
    bool has_norm;
    double scalars[DN_PROGRAM_SCALARS_MAX + 1];
    dn_buffer *registers;
} dn_lane;

/* Registers of one lane of this engine. */
uint32_t dn_lane_registers(const dn_engine *engine);

/* What a spec means, resolved: lane_spec.c. Refusals name the field. Fills context, guidance and conditioning. */
dn_status dn_lane_resolve(dn_lane *lane, const dn_engine *engine, const dn_lane_spec *spec, dn_error *error);
/* How many of the rows that `asked` names are run by each; the sum of all. */
uint32_t dn_lane_count_rows(uint32_t asked, uint32_t counts[DN_RUN_COUNT]);

/* Resolves a spec; registers are the caller's business. */
dn_status dn_lane_init(dn_lane *lane, const dn_engine *engine, dn_lane_id id, const dn_lane_spec *spec, dn_error *error);
/* Fills the lane's registers for its first step. host: [elements] of scratch. */
dn_status dn_lane_start(dn_lane *lane, const dn_engine *engine, const dn_lane_spec *spec, float *host, dn_error *error);

/* The rows of its next evaluation by what runs them; the sum of all. */
uint32_t dn_lane_rows(const dn_lane *lane, uint32_t counts[DN_RUN_COUNT]);
/* The most rows of any tick, likewise. */
uint32_t dn_lane_rows_most(const dn_lane *lane, uint32_t counts[DN_RUN_COUNT]);
/* Writes the rows of its next evaluation to rows[run], and into `ops` what must happen to its registers before it. */
void dn_lane_ask(dn_lane *lane, const dn_engine *engine, dn_row *const rows[DN_RUN_COUNT]);
/* Writes the program that takes the answers in; a lane whose answer is not finite fails and has none. */
bool dn_lane_answer(dn_lane *lane, const dn_engine *engine, const dn_row *const rows[DN_RUN_COUNT]);
/* Given noise goes into its register before the program runs. */
dn_status dn_lane_give_noise(dn_lane *lane, const dn_engine *engine, dn_error *error);
void dn_lane_settle(dn_lane *lane); /* after the program: done? finite? */

/* Bit r: register r lives on between ticks. */
uint32_t dn_lane_live_registers(const dn_lane *lane);

#endif
