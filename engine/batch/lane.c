/* One image being made: from its resolved spec to rows, from answers to register programs. */
#include "batch/lane.h"

#include <math.h>
#include <string.h>

static bool learned(const dn_model *model)
{
    return model != NULL && model->out_channels != model->channels;
}

uint32_t dn_lane_registers(const dn_engine *engine)
{
    return learned(engine->model) || learned(engine->guide_model) ? DN_REG_COUNT_LEARNED : DN_REG_COUNT;
}

dn_status dn_lane_init(dn_lane *lane, const dn_engine *engine, dn_lane_id id, const dn_lane_spec *spec, dn_error *error)
{
    dn_buffer *registers = lane->registers;
    memset(lane, 0, sizeof *lane);
    lane->registers = registers;
    lane->id = id;
    lane->spec = *spec;
    lane->spec.start = lane->spec.init = lane->spec.mask = NULL;
    lane->state = DN_LANE_RUNNING;
    dn_status status = dn_lane_resolve(lane, engine, spec, error);
    lane->sampler.step = lane->context.first_step;
    return status;
}

static dn_status execute_one(dn_lane *lane, const dn_engine *engine, dn_error *error)
{
    dn_program program = {
        .registers = lane->registers, .elements = dn_engine_elements(engine), .ops = lane->ops.op, .op_count = lane->ops.count};
    return engine->backend->execute(engine->device, &program, 1, error);
}

static dn_status write_register(dn_lane *lane, const dn_engine *engine, uint32_t reg, const float *values, dn_error *error)
{
    size_t elements = dn_engine_elements(engine);
    return values != NULL ? engine->backend->buffer_write(lane->registers, reg * elements, values, elements, error) : DN_OK;
}

/* One mask for all channels. */
static dn_status write_mask(dn_lane *lane, const dn_engine *engine, const float *mask, float *host, dn_error *error)
{
    size_t plane = (size_t)engine->model->height * engine->model->width;
    if (mask == NULL)
        return DN_OK;
    for (size_t i = 0; i < plane; i++)
        if (!(mask[i] >= 0.0f && mask[i] <= 1.0f))
            return dn_fail(error, DN_INVALID, "mask_image must hold numbers from 0 to 1");
    for (uint32_t c = 0; c < engine->model->channels; c++)
        memcpy(host + c * plane, mask, plane * sizeof *host);
    return write_register(lane, engine, DN_REG_MASK, host, error);
}

static dn_status check_init(const dn_engine *engine, const float *init, dn_error *error)
{
    for (size_t i = 0; init != NULL && i < dn_engine_elements(engine); i++)
        if (!isfinite(init[i]))
            return dn_fail(error, DN_INVALID, "init_image holds NaN or infinity");
    return DN_OK;
}

dn_status dn_lane_start(dn_lane *lane, const dn_engine *engine, const dn_lane_spec *spec, float *host, dn_error *error)
{
    dn_status status = check_init(engine, spec->init, error);
    if (status == DN_OK)
        status = write_register(lane, engine, DN_REG_INIT, spec->init, error);
    if (status == DN_OK)
        status = write_mask(lane, engine, spec->mask, host, error);
    if (status == DN_OK)
        status = write_register(lane, engine, DN_REG_X, spec->start, error);
    if (status != DN_OK)
        return status;
    lane->ops.count = 0;
    dn_conditioning_start(&lane->conditioning, &lane->context, spec->start != NULL, &lane->ops);
    if (lane->context.first_step == lane->context.schedule.steps)
        lane->state = DN_LANE_DONE; /* strength 0: the picture itself */
    return execute_one(lane, engine, error);
}

uint32_t dn_lane_rows(const dn_lane *lane, uint32_t counts[DN_RUN_COUNT])
{
    dn_evaluation evaluation;
    bool asks = lane->state == DN_LANE_RUNNING && lane->context.sampler->next(&lane->context, &lane->sampler, &evaluation);
    return dn_lane_count_rows(asks ? dn_guidance_rows(&lane->guidance, &evaluation.level) : 0, counts);
}

uint32_t dn_lane_rows_most(const dn_lane *lane, uint32_t counts[DN_RUN_COUNT])
{
    return dn_lane_count_rows(dn_guidance_rows_most(&lane->guidance), counts);
}

static dn_condition condition_of(const dn_lane *lane, const dn_engine *engine, uint32_t row)
{
    const dn_lane_spec *spec = &lane->spec;
    dn_condition condition = {.count = 1, .weights = {1.0f}};
    if (row == DN_ROW_GRADIENT)
        condition.classes[0] = spec->class_index;
    else if (engine->model->class_rows == 0)
        condition.count = 0;
    else if (row == DN_ROW_NULL && spec->has_negative)
        condition.classes[0] = spec->negative_class;
    else if (row == DN_ROW_NULL || !spec->has_class)
        condition.classes[0] = engine->null_class;
    else if (spec->mixture.count > 0)
        condition = spec->mixture;
    else
        condition.classes[0] = spec->class_index;
    return condition;
}

/* Where a row's answer goes: whole answers of networks with a variance half to two registers, to be split. */
static uint32_t answer_of(const dn_engine *engine, uint32_t row)
{
    switch (row) {
    case DN_ROW_COND:
        return learned(engine->model) ? DN_REG_ANSWER_COND : DN_REG_COND;
    case DN_ROW_NULL:
        return learned(engine->model) ? DN_REG_ANSWER_NULL : DN_REG_UNCOND;
    case DN_ROW_GUIDE:
        return learned(engine->guide_model) ? DN_REG_ANSWER_NULL : DN_REG_UNCOND;
    default:
        return DN_REG_GUIDE;
    }
}

static dn_row row_of(const dn_lane *lane, const dn_engine *engine, uint32_t row)
{
    size_t elements = dn_engine_elements(engine);
    return (dn_row){
        .in = lane->registers,
        .in_offset = lane->evaluation.reg * elements,
        .in_scale = (float)dn_input_scale(&lane->context, &lane->evaluation.level),
        .time = (float)lane->evaluation.level.time,
        .condition = condition_of(lane, engine, row),
        .out = lane->registers,
        .out_offset = answer_of(engine, row) * elements,
    };
}

void dn_lane_ask(dn_lane *lane, const dn_engine *engine, dn_row *const rows[DN_RUN_COUNT])
{
    static const uint32_t order[] = {DN_ROW_COND, DN_ROW_NULL, DN_ROW_GUIDE, DN_ROW_GRADIENT};
    static const uint32_t runs[] = {DN_RUN_NETWORK, DN_RUN_NETWORK, DN_RUN_GUIDE, DN_RUN_CLASSIFIER};
    memset(lane->row_count, 0, sizeof lane->row_count);
    lane->asked = 0;
    if (!lane->context.sampler->next(&lane->context, &lane->sampler, &lane->evaluation))
        return;
    lane->ops.count = 0;
    if (lane->context.sampler->prepare != NULL)
        lane->context.sampler->prepare(&lane->context, &lane->sampler, &lane->ops);
    lane->asked = dn_guidance_rows(&lane->guidance, &lane->evaluation.level);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
        if (lane->asked & order[i])
            rows[runs[i]][lane->row_count[runs[i]]++] = row_of(lane, engine, order[i]);
}

/* Splits wide answers: the prediction halves to where guidance looks, the variance of the conditional row (of the only
 * row, where there is one) to its register. */
static void split_answers(dn_lane *lane, const dn_engine *engine)
{
    const double one = 1.0;
    const uint32_t cond = DN_REG_ANSWER_COND, other = DN_REG_ANSWER_NULL;
    if (learned(engine->model) && (lane->asked & DN_ROW_COND))
        dn_ops_linear(&lane->ops, DN_REG_COND, 1, &cond, &one);
    if ((learned(engine->model) && (lane->asked & DN_ROW_NULL)) || (learned(engine->guide_model) && (lane->asked & DN_ROW_GUIDE)))
        dn_ops_linear(&lane->ops, DN_REG_UNCOND, 1, &other, &one);
    const uint32_t variance = (lane->asked & DN_ROW_COND ? cond : other) + 1;
    if (learned(engine->model))
        dn_ops_linear(&lane->ops, DN_REG_VARIANCE, 1, &variance, &one);
}

static void fail_lane(dn_lane *lane, const char *cause)
{
    lane->state = DN_LANE_FAILED;
    (void)dn_fail(&lane->error, DN_NUMERIC, "step %u of %u: %s", lane->sampler.step + 1, lane->context.schedule.steps, cause);
}

static bool all_finite(const dn_lane *lane, const dn_row *const rows[DN_RUN_COUNT])
{
    for (uint32_t run = 0; run < DN_RUN_COUNT; run++)
        for (uint32_t i = 0; i < lane->row_count[run]; i++)
            if (!rows[run][i].finite)
                return false;
    return true;
}

static uint32_t scalars_of(const dn_ops *ops)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < ops->count; i++)
        count += ops->op[i].kind == DN_OP_NORM || ops->op[i].kind == DN_OP_ERROR_NORM;
    return count;
}

/* The sampler's move, and what conditioning makes of a step that it finishes. */
static void feed(dn_lane *lane)
{
    uint32_t step = lane->sampler.step, first = lane->ops.count;
    lane->context.sampler->feed(&lane->context, &lane->sampler, &lane->ops);
    if (lane->pass > 0)
        dn_conditioning_redraw(lane->pass, first, &lane->ops);
    if (lane->sampler.step > step)
        dn_conditioning_step(&lane->conditioning, &lane->context, &lane->sampler, &lane->pass, &lane->ops);
}

/* The norm of what may be the last image; only an adaptive sampler does not know yet whether it is. */
static void append_norm(dn_lane *lane)
{
    dn_evaluation following;
    lane->has_norm = lane->context.sampler->adaptive || !lane->context.sampler->next(&lane->context, &lane->sampler, &following);
    if (lane->has_norm)
        lane->ops.op[lane->ops.count++] = (dn_op){.kind = DN_OP_NORM, .terms = 1, .src = {DN_REG_X}};
    lane->scalar_count = scalars_of(&lane->ops);
}

bool dn_lane_answer(dn_lane *lane, const dn_engine *engine, const dn_row *const rows[DN_RUN_COUNT])
{
    if (!all_finite(lane, rows)) {
        fail_lane(lane, "the network's answer holds NaN or infinity");
        return false;
    }
    lane->ops.count = 0;
    split_answers(lane, engine);
    dn_guidance_fold(&lane->guidance, &lane->context, &lane->evaluation, lane->asked, &lane->moving, &lane->ops);
    dn_parametrise(&lane->context, &lane->evaluation, DN_REG_COND, &lane->ops);
    dn_guidance_renoise(&lane->guidance, &lane->context, &lane->evaluation, lane->asked, &lane->ops);
    feed(lane);
    lane->sampler.evaluations++;
    append_norm(lane);
    lane->has_x0 = true;
    return true;
}

dn_status dn_lane_give_noise(dn_lane *lane, const dn_engine *engine, dn_error *error)
{
    size_t elements = dn_engine_elements(engine);
    dn_status status = DN_OK;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < lane->ops.count && status == DN_OK; i++) {
        const dn_op *op = &lane->ops.op[i];
        if (op->kind == DN_OP_NOISE && op->stream == DN_STREAM_STEP)
            status =
                engine->backend->buffer_write(lane->registers, op->dst * elements, lane->spec.noise + op->draw * elements, elements, error);
        else
            lane->ops.op[kept++] = *op;
    }
    lane->ops.count = kept;
    return status;
}

void dn_lane_settle(dn_lane *lane)
{
    const dn_sampler *sampler = lane->context.sampler;
    dn_evaluation following;
    if (sampler->settle != NULL)
        sampler->settle(&lane->context, &lane->sampler, lane->scalars);
    if (sampler->next(&lane->context, &lane->sampler, &following))
        return;
    const char *failure = dn_sampler_failure(&lane->context, &lane->sampler);
    if (failure != NULL)
        fail_lane(lane, failure);
    else if (lane->has_norm && isfinite(lane->scalars[lane->scalar_count - 1]))
        lane->state = DN_LANE_DONE;
    else
        fail_lane(lane, "the finished image holds NaN or infinity");
}

uint32_t dn_lane_live_registers(const dn_lane *lane)
{
    uint32_t live = 1u << DN_REG_X | lane->sampler.live;
    if (lane->has_x0)
        live |= 1u << DN_REG_X0;
    if (lane->moving)
        live |= 1u << DN_REG_GUIDE;
    if (lane->conditioning.has_mask)
        live |= 1u << DN_REG_MASK;
    if (lane->conditioning.has_mask || (lane->context.sampler->inverts && lane->conditioning.has_init))
        live |= 1u << DN_REG_INIT;
    return live;
}
