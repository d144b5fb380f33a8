/* One image being made: from its spec to rows, from answers to register programs. */
#include "batch/lane.h"

#include <math.h>
#include <string.h>

static bool learned(const dn_engine *engine)
{
    return engine->model->out_channels != engine->model->channels;
}

uint32_t dn_lane_registers(const dn_engine *engine)
{
    return learned(engine) ? DN_REG_COUNT_LEARNED : DN_REG_COUNT;
}

size_t dn_engine_lane_bytes(const dn_engine *engine)
{
    return dn_lane_registers(engine) * dn_engine_elements(engine) * sizeof(float);
}

static dn_guidance guidance_of(const dn_engine *engine, const dn_lane_spec *spec)
{
    dn_guidance guidance = {.scale = spec->has_class ? spec->guidance_scale : 0.0, .has_null = engine->null_class != DN_NONE};
    return guidance;
}

static dn_status check_conditions(const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    if (!(fabs(spec->guidance_scale) <= DN_GUIDANCE_SCALE_MAX))
        return dn_fail(error, DN_INVALID, "guidance_scale must be a number from %g to %g", -DN_GUIDANCE_SCALE_MAX, DN_GUIDANCE_SCALE_MAX);
    if (spec->has_class && engine->class_count == 0)
        return dn_fail(error, DN_INVALID, "class_label must be absent: this model takes no class");
    if (spec->has_class && spec->class_index >= engine->class_count)
        return dn_fail(error, DN_INVALID, "class_label must be an integer from 0 to %u", engine->class_count - 1);
    if (!spec->has_class && engine->class_count > 0 && engine->null_class == DN_NONE)
        return dn_fail(error, DN_INVALID, "class_label is needed: this model has no null class");
    if (spec->has_class && engine->null_class == DN_NONE && spec->guidance_scale != 1.0)
        return dn_fail(error, DN_INVALID, "guidance_scale must be 1: this model has no null class to guide with");
    return DN_OK;
}

static dn_status resolve(dn_sampler_context *out, const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    dn_status status =
        dn_sampler_context_init(out, spec->sampler, spec->steps, &spec->options, spec->seed, engine->training, &engine->scheduler, error);
    if (status == DN_OK && strcmp(out->sampler->name, "ddpm") == 0 && out->config.variance == DN_VARIANCE_LEARNED_RANGE && !learned(engine))
        return dn_fail(error, DN_INVALID, "sampler \"%s\" wants a learned variance, and this network answers with none", spec->sampler);
    return status;
}

dn_status dn_lane_spec_check(const dn_engine *engine, const dn_lane_spec *spec, dn_error *error)
{
    dn_sampler_context context;
    if (memchr(spec->sampler, '\0', sizeof spec->sampler) == NULL)
        return dn_fail(error, DN_INVALID, "sampler is not a known name");
    dn_status status = check_conditions(engine, spec, error);
    return status == DN_OK ? resolve(&context, engine, spec, error) : status;
}

static uint32_t rows_of(const dn_guidance *guidance)
{
    return (uint32_t)dn_guidance_needs_cond(guidance) + (uint32_t)dn_guidance_needs_null(guidance);
}

uint32_t dn_lane_spec_rows(const dn_engine *engine, const dn_lane_spec *spec)
{
    dn_guidance guidance = guidance_of(engine, spec);
    return rows_of(&guidance);
}

uint32_t dn_lane_spec_evaluations(const dn_engine *engine, const dn_lane_spec *spec)
{
    dn_sampler_context context;
    if (resolve(&context, engine, spec, NULL) != DN_OK)
        return 0;
    return dn_sampler_evaluations(&context) * dn_lane_spec_rows(engine, spec);
}

dn_status dn_lane_init(dn_lane *lane, const dn_engine *engine, dn_lane_id id, const dn_lane_spec *spec, dn_error *error)
{
    dn_status status = dn_lane_spec_check(engine, spec, error);
    if (status != DN_OK)
        return status;
    dn_buffer *registers = lane->registers;
    memset(lane, 0, sizeof *lane);
    lane->registers = registers;
    lane->id = id;
    lane->spec = *spec;
    lane->spec.start = NULL;
    lane->guidance = guidance_of(engine, spec);
    lane->state = DN_LANE_RUNNING;
    return resolve(&lane->context, engine, spec, error);
}

static dn_status execute_one(dn_lane *lane, const dn_engine *engine, dn_error *error)
{
    dn_program program = {
        .registers = lane->registers, .elements = dn_engine_elements(engine), .ops = lane->ops.op, .op_count = lane->ops.count};
    return engine->backend->execute(engine->device, &program, 1, error);
}

dn_status dn_lane_start(dn_lane *lane, const dn_engine *engine, const float *start, dn_error *error)
{
    size_t elements = dn_engine_elements(engine);
    lane->ops.count = 0;
    if (start != NULL) {
        dn_status status = engine->backend->buffer_write(lane->registers, DN_REG_X * elements, start, elements, error);
        if (status != DN_OK)
            return status;
    } else {
        dn_ops_noise(&lane->ops, DN_REG_X, lane->spec.seed, DN_STREAM_START, 0);
    }
    dn_ops_linear(&lane->ops, DN_REG_X, 1, (const uint32_t[]){DN_REG_X}, &lane->context.schedule.start_scale);
    return execute_one(lane, engine, error);
}

uint32_t dn_lane_rows(const dn_lane *lane)
{
    return lane->state == DN_LANE_RUNNING ? rows_of(&lane->guidance) : 0;
}

/* One row of the current evaluation, whose answer goes to register `answer` (and the one after it, if learned). */
static dn_row row_of(const dn_lane *lane, const dn_engine *engine, uint32_t answer, bool conditional)
{
    size_t elements = dn_engine_elements(engine);
    dn_row row = {
        .in = lane->registers,
        .in_offset = lane->evaluation.reg * elements,
        .in_scale = (float)dn_input_scale(&lane->context, &lane->evaluation.level),
        .time = (float)lane->evaluation.level.time,
        .out = lane->registers,
        .out_offset = answer * elements,
    };
    if (engine->model->class_rows > 0) {
        row.condition.count = 1;
        row.condition.classes[0] = conditional ? lane->spec.class_index : engine->null_class;
        row.condition.weights[0] = 1.0f;
    }
    return row;
}

void dn_lane_ask(dn_lane *lane, const dn_engine *engine, dn_row *rows)
{
    bool wide = learned(engine);
    lane->row_count = 0;
    if (!lane->context.sampler->next(&lane->context, &lane->sampler, &lane->evaluation))
        return;
    if (dn_guidance_needs_cond(&lane->guidance))
        rows[lane->row_count++] = row_of(lane, engine, wide ? DN_REG_ANSWER_COND : DN_REG_COND, true);
    if (dn_guidance_needs_null(&lane->guidance))
        rows[lane->row_count++] = row_of(lane, engine, wide ? DN_REG_ANSWER_NULL : DN_REG_UNCOND, false);
}

/* Splits wide answers: the prediction halves to where guidance looks, the variance of the conditional row (of the only
 * row, where there is one) to its register. */
static void split_answers(dn_lane *lane)
{
    bool cond = dn_guidance_needs_cond(&lane->guidance);
    uint32_t first = cond ? DN_REG_ANSWER_COND : DN_REG_ANSWER_NULL, variance = first + 1;
    const uint32_t null = DN_REG_ANSWER_NULL;
    const double one = 1.0;
    if (cond)
        dn_ops_linear(&lane->ops, DN_REG_COND, 1, &first, &one);
    if (dn_guidance_needs_null(&lane->guidance))
        dn_ops_linear(&lane->ops, DN_REG_UNCOND, 1, &null, &one);
    dn_ops_linear(&lane->ops, DN_REG_VARIANCE, 1, &variance, &one);
}

static void fail_lane(dn_lane *lane, const char *cause)
{
    lane->state = DN_LANE_FAILED;
    (void)dn_fail(&lane->error, DN_NUMERIC, "step %u of %u: %s", lane->sampler.step + 1, lane->context.schedule.steps, cause);
}

bool dn_lane_answer(dn_lane *lane, const dn_engine *engine, const dn_row *rows)
{
    for (uint32_t i = 0; i < lane->row_count; i++)
        if (!rows[i].finite) {
            fail_lane(lane, "the network's answer holds NaN or infinity");
            return false;
        }
    dn_evaluation following;
    lane->ops.count = 0;
    if (learned(engine))
        split_answers(lane);
    dn_guidance_fold(&lane->guidance, &lane->ops);
    dn_parametrise(&lane->context, &lane->evaluation, DN_REG_COND, &lane->ops);
    lane->context.sampler->feed(&lane->context, &lane->sampler, &lane->ops);
    if (!lane->context.sampler->next(&lane->context, &lane->sampler, &following))
        lane->ops.op[lane->ops.count++] = (dn_op){.kind = DN_OP_NORM, .terms = 1, .src = {DN_REG_X}};
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
        if (op->kind == DN_OP_NOISE)
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
    dn_evaluation following;
    if (lane->context.sampler->next(&lane->context, &lane->sampler, &following))
        return;
    if (isfinite(lane->norm))
        lane->state = DN_LANE_DONE;
    else
        fail_lane(lane, "the finished image holds NaN or infinity");
}

uint32_t dn_lane_live_registers(const dn_lane *lane)
{
    uint32_t live = 1u << DN_REG_X;
    if (lane->has_x0)
        live |= 1u << DN_REG_X0;
    if (lane->sampler.stage > 0 || lane->sampler.history > 0)
        live |= 1u << DN_REG_H0;
    if (lane->sampler.stage > 0 || lane->sampler.history > 1)
        live |= 1u << DN_REG_H1;
    return live;
}
