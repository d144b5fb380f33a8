/* A lane as bytes, and back: what a killed worker's successor goes on from.
 *
 * Layout, little-endian: magic, version, build, weights sha256 of the network, its guide and its classifier, elements, the spec, the
 * sampler's and the lane's state, the mask of live registers, their floats, sha256 of all that. Everything else about a lane is a
 * pure function of its spec, so a restored lane continues to the same bytes. Called between ticks by the thread that owns the batch. */
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "batch/batch_private.h"

#define DN_SNAPSHOT_MAGIC "DNLANE\r\n"
#define DN_SNAPSHOT_VERSION 2u
#define DN_SNAPSHOT_HEAD_BYTES_MAX 4096u
#define DN_STAGES_MAX 64u /* more than any sampler counts inside a step, or remembers */

/* A cursor over bytes being written or read; reading past the end clears ok and yields zeros. */
typedef struct dn_cursor {
    unsigned char *bytes;
    size_t at, count;
    bool ok;
} dn_cursor;

static void put_bytes(dn_cursor *c, const void *bytes, size_t count)
{
    memcpy(c->bytes + c->at, bytes, count);
    c->at += count;
}

static void get_bytes(dn_cursor *c, void *out, size_t count)
{
    if (!c->ok || c->count - c->at < count) {
        c->ok = false;
        memset(out, 0, count);
        return;
    }
    memcpy(out, c->bytes + c->at, count);
    c->at += count;
}

static void put_u64(dn_cursor *c, uint64_t value)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
    put_bytes(c, bytes, sizeof bytes);
}

static uint64_t get_u64(dn_cursor *c)
{
    unsigned char bytes[8];
    uint64_t value = 0;
    get_bytes(c, bytes, sizeof bytes);
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static void put_double(dn_cursor *c, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_u64(c, bits);
}

static double get_double(dn_cursor *c)
{
    uint64_t bits = get_u64(c);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void put_condition(dn_cursor *c, const dn_condition *condition)
{
    put_u64(c, condition->count);
    for (uint32_t i = 0; i < DN_CONDITION_CLASSES_MAX; i++) {
        put_u64(c, condition->classes[i]);
        put_double(c, (double)condition->weights[i]);
    }
}

static void get_condition(dn_cursor *c, dn_condition *condition)
{
    condition->count = (uint32_t)get_u64(c);
    for (uint32_t i = 0; i < DN_CONDITION_CLASSES_MAX; i++) {
        condition->classes[i] = (uint32_t)get_u64(c);
        condition->weights[i] = (float)get_double(c);
    }
}

/* Of init and mask only that there were some: what is left of them are registers. */
static void put_spec(dn_cursor *c, const dn_lane *lane)
{
    const dn_lane_spec *spec = &lane->spec;
    put_u64(c, spec->seed);
    put_u64(c, spec->has_class);
    put_u64(c, spec->class_index);
    put_condition(c, &spec->mixture);
    put_u64(c, spec->has_negative);
    put_u64(c, spec->negative_class);
    put_double(c, spec->guidance_scale);
    put_u64(c, spec->steps);
    put_bytes(c, spec->sampler, sizeof spec->sampler);
    put_u64(c, spec->options.given);
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++)
        put_double(c, spec->options.value[i]);
    put_u64(c, spec->has_variation);
    put_u64(c, spec->variation_seed);
    put_u64(c, lane->conditioning.has_init);
    put_u64(c, lane->conditioning.has_mask);
}

/* picture: stands for an init or a mask that was there; its contents do not matter. */
static void get_spec(dn_cursor *c, dn_lane_spec *spec, const float *picture)
{
    memset(spec, 0, sizeof *spec);
    spec->seed = get_u64(c);
    spec->has_class = get_u64(c) != 0;
    spec->class_index = (uint32_t)get_u64(c);
    get_condition(c, &spec->mixture);
    spec->has_negative = get_u64(c) != 0;
    spec->negative_class = (uint32_t)get_u64(c);
    spec->guidance_scale = get_double(c);
    spec->steps = (uint32_t)get_u64(c);
    get_bytes(c, spec->sampler, sizeof spec->sampler);
    spec->options.given = get_u64(c);
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++)
        spec->options.value[i] = get_double(c);
    spec->has_variation = get_u64(c) != 0;
    spec->variation_seed = get_u64(c);
    spec->init = get_u64(c) != 0 ? picture : NULL;
    spec->mask = get_u64(c) != 0 ? picture : NULL;
}

static void put_state(dn_cursor *c, const dn_lane *lane)
{
    const dn_sampler_state *state = &lane->sampler;
    put_u64(c, state->step);
    put_u64(c, state->stage);
    put_u64(c, state->history);
    put_u64(c, state->live);
    put_u64(c, state->evaluations);
    for (size_t i = 0; i < sizeof state->scalar / sizeof state->scalar[0]; i++)
        put_double(c, state->scalar[i]);
    put_u64(c, lane->pass);
}

static void get_state(dn_cursor *c, dn_lane *lane)
{
    dn_sampler_state *state = &lane->sampler;
    state->step = (uint32_t)get_u64(c);
    state->stage = (uint32_t)get_u64(c);
    state->history = (uint32_t)get_u64(c);
    state->live = (uint32_t)get_u64(c);
    state->evaluations = (uint32_t)get_u64(c);
    for (size_t i = 0; i < sizeof state->scalar / sizeof state->scalar[0]; i++)
        state->scalar[i] = get_double(c);
    lane->pass = (uint32_t)get_u64(c);
}

/* What a snapshot must have been taken on: build, weights, shape. */
static void put_origin(dn_cursor *c, const dn_engine *engine)
{
    put_bytes(c, DN_SNAPSHOT_MAGIC, 8);
    put_u64(c, DN_SNAPSHOT_VERSION);
    put_bytes(c, engine->build, sizeof engine->build);
    put_bytes(c, engine->model->weights_sha256, sizeof engine->model->weights_sha256);
    const char *guide = engine->guide_model != NULL ? engine->guide_model->weights_sha256 : (const char[DN_SHA256_HEX_BYTES]){0};
    put_bytes(c, guide, DN_SHA256_HEX_BYTES);
    put_bytes(c, engine->classifier.weights_sha256, sizeof engine->classifier.weights_sha256);
    put_u64(c, dn_engine_elements(engine));
}

dn_status dn_batch_snapshot(dn_batch *batch, dn_lane_id id, unsigned char **out, size_t *out_bytes, dn_error *error)
{
    const dn_engine *engine = batch->engine;
    size_t elements = dn_engine_elements(engine);
    const dn_lane *lane = dn_batch_find(batch, id);
    if (lane == NULL)
        return dn_fail(error, DN_INVALID, "no lane %llu is in flight", (unsigned long long)id);
    if (lane->spec.noise != NULL || lane->state == DN_LANE_FAILED)
        return dn_fail(error, DN_UNSUPPORTED, "a lane that failed, or that was given its noise, has no snapshot");
    uint32_t live = dn_lane_live_registers(lane);
    size_t bytes = DN_SNAPSHOT_HEAD_BYTES_MAX + (size_t)__builtin_popcount(live) * elements * sizeof(float) + DN_SHA256_BYTES;
    dn_cursor c = {.bytes = malloc(bytes)};
    if (c.bytes == NULL)
        return dn_fail(error, DN_NO_MEMORY, "no memory for a snapshot of %zu bytes", bytes);
    put_origin(&c, engine);
    put_spec(&c, lane);
    put_state(&c, lane);
    put_u64(&c, live);
    dn_status status = DN_OK;
    for (uint32_t r = 0; r < DN_REG_COUNT && status == DN_OK; r++) {
        if ((live >> r & 1u) == 0)
            continue;
        status = engine->backend->buffer_read(lane->registers, r * elements, batch->host, elements, error);
        put_bytes(&c, batch->host, elements * sizeof(float));
    }
    if (status != DN_OK) {
        free(c.bytes);
        return status;
    }
    dn_sha256_of(c.bytes + c.at, c.bytes, c.at);
    *out = c.bytes;
    *out_bytes = c.at + DN_SHA256_BYTES;
    return DN_OK;
}

static dn_status check_origin(dn_cursor *c, const dn_engine *engine, dn_error *error)
{
    unsigned char mine[DN_SNAPSHOT_HEAD_BYTES_MAX] = {0}, theirs[DN_SNAPSHOT_HEAD_BYTES_MAX], digest[DN_SHA256_BYTES];
    dn_cursor origin = {.bytes = mine};
    put_origin(&origin, engine);
    get_bytes(c, theirs, origin.at);
    if (!c->ok || memcmp(theirs, mine, 16) != 0)
        return dn_fail(error, DN_INVALID, "this is no snapshot of version %u", DN_SNAPSHOT_VERSION);
    dn_sha256_of(digest, c->bytes, c->count);
    if (memcmp(digest, c->bytes + c->count, sizeof digest) != 0)
        return dn_fail(error, DN_INVALID, "the snapshot is damaged: its checksum differs");
    if (memcmp(theirs, mine, origin.at) != 0)
        return dn_fail(error, DN_INVALID, "the snapshot was taken by another build, with other weights or of another shape");
    return DN_OK;
}

static bool same_state(const dn_sampler_state *a, const dn_sampler_state *b)
{
    return a->step == b->step && a->stage == b->stage && a->history == b->history && a->live == b->live &&
           a->evaluations == b->evaluations && memcmp(a->scalar, b->scalar, sizeof a->scalar) == 0;
}

/* A sampler's states do not depend on the image, but for an adaptive one's, which judges them itself: those of this lane are walked
 * through from its first, and the one that was read must be among them. So no index that a sampler makes of its state is out of range. */
static bool is_on_the_way(const dn_lane *lane)
{
    const dn_sampler *sampler = lane->context.sampler;
    dn_sampler_state state = {.step = lane->context.first_step};
    dn_evaluation evaluation;
    dn_ops ops;
    uint32_t pass = 0;
    if (sampler->possible != NULL)
        return sampler->possible(&lane->context, &lane->sampler);
    while (!same_state(&state, &lane->sampler) || pass != lane->pass) {
        const uint32_t step = state.step;
        if (state.evaluations >= lane->sampler.evaluations || !sampler->next(&lane->context, &state, &evaluation))
            return false;
        ops.count = 0;
        sampler->feed(&lane->context, &state, &ops);
        if (state.step > step)
            dn_conditioning_step(&lane->conditioning, &lane->context, &state, &pass, &ops);
        state.evaluations++;
    }
    return true;
}

/* Whether a lane of this spec can be in the state that was read, with these registers alive. */
static dn_status check_state(dn_lane *lane, uint64_t live, dn_error *error)
{
    const dn_sampler_state *state = &lane->sampler;
    const uint32_t history = ((1u << (DN_REG_COUNT - DN_REG_H0)) - 1u) << DN_REG_H0;
    dn_evaluation following;
    lane->has_x0 = live >> DN_REG_X0 & 1u;
    lane->moving = live >> DN_REG_GUIDE & 1u;
    uint32_t steps = lane->context.schedule.steps;
    bool possible = state->step >= lane->context.first_step && (lane->context.sampler->adaptive || state->step <= steps) &&
                    state->stage < DN_STAGES_MAX && state->history < DN_STAGES_MAX && (state->live & ~history) == 0 &&
                    live == dn_lane_live_registers(lane) && lane->pass < lane->conditioning.resample &&
                    (!lane->moving || lane->guidance.method == DN_GUIDE_APG) && is_on_the_way(lane);
    if (!possible)
        return dn_fail(error, DN_INVALID, "the snapshot holds a state that no lane of its spec can be in");
    if (!lane->context.sampler->next(&lane->context, state, &following) || lane->context.first_step == steps)
        lane->state = DN_LANE_DONE;
    return DN_OK;
}

static dn_status read_lane(dn_batch *batch, dn_lane *lane, dn_lane_id id, dn_cursor *c, dn_error *error)
{
    const dn_engine *engine = batch->engine;
    size_t elements = dn_engine_elements(engine);
    dn_lane_spec spec;
    get_spec(c, &spec, batch->host);
    dn_status status = dn_lane_init(lane, engine, id, &spec, error);
    if (status != DN_OK)
        return status;
    get_state(c, lane);
    uint64_t live = get_u64(c);
    status = check_state(lane, live, error);
    if (status == DN_OK && !dn_batch_has_room(batch, lane))
        status = dn_fail(error, DN_INVALID, "the snapshot's lane needs a batch of 2 rows");
    for (uint32_t r = 0; r < DN_REG_COUNT && status == DN_OK; r++) {
        if ((live >> r & 1u) == 0)
            continue;
        get_bytes(c, batch->host, elements * sizeof(float));
        status = engine->backend->buffer_write(lane->registers, r * elements, batch->host, elements, error);
    }
    if (status == DN_OK && (!c->ok || c->at != c->count))
        status = dn_fail(error, DN_INVALID, "the snapshot is too short or too long");
    return status;
}

dn_status dn_batch_restore(dn_batch *batch, dn_lane_id id, const unsigned char *bytes, size_t count, dn_error *error)
{
    if (count < DN_SHA256_BYTES)
        return dn_fail(error, DN_INVALID, "the snapshot is too short");
    dn_cursor c = {.bytes = (unsigned char *)bytes, .count = count - DN_SHA256_BYTES, .ok = true};
    dn_lane *lane = NULL;
    dn_status status = check_origin(&c, batch->engine, error);
    if (status == DN_OK)
        status = dn_batch_take_lane(batch, id, &lane, error);
    if (status != DN_OK)
        return status;
    status = read_lane(batch, lane, id, &c, error);
    if (status == DN_OK)
        dn_batch_insert(batch, lane);
    else
        dn_batch_return_lane(batch, lane);
    return status;
}
