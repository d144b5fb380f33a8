/* A plain interpreter of compiled steps: every row, every step, the simplest loops over slots and packed weights in float.
 *
 * It honours what a GPU would: offsets, pitches, views, values that share memory, channels padded with zeros. All memory is NaN before a
 * pass, so that reading what was never written shows, and padding is written as zeros, and looked at before a product runs over it.
 * What each step means is in step_formulas.h. One thread. */
#ifndef DN_TESTS_CUDA_STEP_INTERPRETER_H
#define DN_TESTS_CUDA_STEP_INTERPRETER_H

#include "tests/test.h"

#include <stdarg.h>

#include "backend/backend.h"
#include "backend/cuda/compile.h"
#include "plan/tables.h"

typedef struct interpreter {
    const dn_cuda_compiled *compiled;
    const dn_weights *weights;
    uint32_t row_count;
    const dn_row *rows;    /* in_offset and out_offset, in floats, into samples and answers */
    const float *samples;
    float *answers;
    float *memory;         /* row_count * row_bytes */
    void **packs;          /* [pack_count] */
    char problem[256];     /* the first thing that is wrong; "" */
} interpreter;

static inline void __attribute__((format(printf, 2, 3))) complain(interpreter *m, const char *format, ...)
{
    va_list arguments;
    if (m->problem[0])
        return;
    va_start(arguments, format);
    vsnprintf(m->problem, sizeof m->problem, format, arguments);
    va_end(arguments);
}

/* One row of a slot. at NULL: there is none. */
typedef struct field {
    float *at;
    uint32_t h, w, c, pitch;
    size_t pixels;
} field;

static inline field field_of(const interpreter *m, dn_cuda_slot slot, uint32_t row)
{
    if (slot == DN_NONE)
        return (field){0};
    const dn_cuda_slot_info *info = &m->compiled->slots[slot];
    float *base = m->memory + m->row_count * info->offset / sizeof(float);
    return (field){base + info->view_at + row * info->row_pitch, info->h, info->w, info->c, info->pitch, (size_t)info->h * info->w};
}

static inline void clear_padding(field f)
{
    for (size_t p = 0; p < f.pixels; p++)
        for (uint32_t c = f.c; c < f.pitch; c++)
            f.at[p * f.pitch + c] = 0.0f;
}

static inline bool padding_is_clear(field f)
{
    for (size_t p = 0; p < f.pixels; p++)
        for (uint32_t c = f.c; c < f.pitch; c++)
            if (f.at[p * f.pitch + c] != 0.0f)
                return false;
    return true;
}

/* [o_pad][kh][kw][i_pad], the weights one after another along o. */
static inline float *pack_filter(const dn_cuda_pack_info *pack, const dn_weights *weights, const dn_plan *plan)
{
    float *packed = calloc(pack->bytes / sizeof(float), sizeof(float));
    const size_t taps = (size_t)pack->kh * pack->kw;
    uint32_t first = 0;
    for (uint32_t k = 0; packed && k < pack->weight_count; k++) {
        const float *from = weights->data[pack->weights[k]];
        uint32_t count = plan->weights[pack->weights[k]].dims[0];
        for (uint32_t o = 0; o < count; o++)
            for (size_t i = 0; i < pack->i; i++)
                for (size_t tap = 0; tap < taps; tap++)
                    packed[((first + o) * taps + tap) * pack->i_pad + i] = from[(o * pack->i + i) * taps + tap];
        first += count;
    }
    return packed;
}

static inline float *pack_floats(const dn_cuda_pack_info *pack, const dn_weights *weights, const dn_plan *plan)
{
    float *packed = calloc(pack->bytes / sizeof(float), sizeof(float)), *next = packed;
    for (uint32_t k = 0; packed && k < pack->weight_count; k++) {
        size_t count = plan->weights[pack->weights[k]].count;
        for (size_t i = 0; i < count; i++)
            *next++ = weights->data[pack->weights[k]][i] * pack->scale;
    }
    return packed;
}

static inline void *pack_one(const dn_cuda_pack_info *pack, const dn_weights *weights, const dn_plan *plan)
{
    void *packed = NULL;
    switch (pack->kind) {
    case DN_CUDA_PACK_FILTER:
        return pack_filter(pack, weights, plan);
    case DN_CUDA_PACK_VECTOR:
    case DN_CUDA_PACK_FLOATS:
        return pack_floats(pack, weights, plan);
    case DN_CUDA_PACK_FREQUENCIES:
        packed = malloc(pack->bytes);
        if (packed)
            dn_plan_frequencies(pack->node, 2 * (uint32_t)pack->count, packed);
        break;
    case DN_CUDA_PACK_POSITIONS:
        packed = malloc(pack->bytes);
        if (packed)
            dn_plan_positions(plan, pack->node, packed);
        break;
    }
    return packed;
}

#include "tests/cuda/step_formulas.h"

static inline void interpreter_close(interpreter *m)
{
    for (dn_cuda_pack p = 0; m->packs && p < m->compiled->pack_count; p++)
        free(m->packs[p]);
    free(m->packs);
    free(m->memory);
}

static inline bool interpreter_open(interpreter *m, const dn_cuda_compiled *compiled, const dn_weights *weights, uint32_t row_count)
{
    *m = (interpreter){.compiled = compiled, .weights = weights, .row_count = row_count};
    m->memory = malloc(row_count * compiled->row_bytes);
    m->packs = calloc(compiled->pack_count + 1, sizeof *m->packs);
    if (!m->memory || !m->packs)
        return false;
    for (size_t i = 0; i < row_count * compiled->row_bytes / sizeof(float); i++)
        m->memory[i] = NAN;
    for (dn_cuda_pack p = 0; p < compiled->pack_count; p++) {
        m->packs[p] = pack_one(&compiled->packs[p], weights, compiled->plan);
        if (!m->packs[p])
            return false;
    }
    return true;
}

static inline void run_step(interpreter *m, const dn_cuda_step *step)
{
    for (uint32_t r = 0; r < m->row_count; r++) {
        formula_operands o = {.m = m, .step = step, .node = step->node, .row = &m->rows[r]};
        for (int i = 0; i < DN_CUDA_STEP_INPUTS; i++)
            o.in[i] = field_of(m, step->in[i], r);
        for (int i = 0; i < 2; i++)
            o.out[i] = field_of(m, step->out[i], r);
        o.weight = step->weight == DN_NONE ? NULL : m->packs[step->weight];
        o.bias = step->bias == DN_NONE ? NULL : m->packs[step->bias];
        formulas[step->kind](&o);
        for (int i = 0; i < 2; i++)
            clear_padding(o.out[i]);
    }
}

#endif
