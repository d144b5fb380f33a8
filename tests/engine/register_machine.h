/* A lane's registers in double and an interpreter of register programs: what the samplers' tests run on, so that they
 * test samplers and not a back end. Noise comes from a function of the test. One thread. */
#ifndef DN_TESTS_REGISTER_MACHINE_H
#define DN_TESTS_REGISTER_MACHINE_H

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "diffusion/sampler.h"

#define MACHINE_ELEMENTS_MAX 4096

typedef struct machine {
    size_t elements;
    double reg[DN_REG_COUNT][MACHINE_ELEMENTS_MAX];
    /* Writes the normals of (seed, stream, draw). */
    void (*noise)(void *payload, double *out, size_t count, const dn_op *op);
    void *payload;
    double scalar[DN_PROGRAM_SCALARS_MAX]; /* of the program that ran last */
    uint32_t scalar_count;
} machine;

static inline void machine_philox(void *payload, double *out, size_t count, const dn_op *op)
{
    (void)payload;
    static float normals[MACHINE_ELEMENTS_MAX];
    dn_noise_normal(normals, count, 0, op->seed, op->stream, op->draw);
    for (size_t i = 0; i < count; i++)
        out[i] = (double)normals[i];
}

static inline int machine_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline void machine_threshold(machine *m, const dn_op *op)
{
    static double sorted[MACHINE_ELEMENTS_MAX];
    const double *src = m->reg[op->src[0]];
    for (size_t i = 0; i < m->elements; i++)
        sorted[i] = fabs(src[i]);
    qsort(sorted, m->elements, sizeof sorted[0], machine_compare);
    double place = (double)op->ratio * (double)(m->elements - 1), part = place - floor(place);
    size_t low = (size_t)place, high = low + 1 < m->elements ? low + 1 : low;
    double s = fmin(fmax(sorted[low] + (sorted[high] - sorted[low]) * part, 1.0), (double)op->high);
    for (size_t i = 0; i < m->elements; i++)
        m->reg[op->dst][i] = fmin(fmax(src[i], -s), s) / s;
}

/* The operations with a sum over the whole register. */
static inline void machine_sums(machine *m, const dn_op *op)
{
    const double *a = m->reg[op->src[0]], *b = m->reg[op->src[1]], *c = m->reg[op->src[2]];
    double squares[2] = {0.0, 0.0};
    for (size_t i = 0; i < m->elements; i++) {
        if (op->kind == DN_OP_NORM)
            squares[0] += a[i] * a[i];
        if (op->kind == DN_OP_ERROR_NORM)
            squares[0] += pow(a[i] / ((double)op->low + (double)op->ratio * fmax(fabs(b[i]), fabs(c[i]))), 2.0);
        if (op->kind == DN_OP_LANGEVIN) {
            squares[0] += b[i] * b[i];
            squares[1] += c[i] * c[i];
        }
    }
    if (op->kind == DN_OP_NORM || op->kind == DN_OP_ERROR_NORM)
        m->scalar[m->scalar_count++] = sqrt(squares[0] / (double)m->elements);
    if (op->kind != DN_OP_LANGEVIN)
        return;
    double e = 2.0 * (double)op->low * (double)op->ratio * (double)op->ratio * squares[1] / squares[0];
    for (size_t i = 0; i < m->elements; i++)
        m->reg[op->dst][i] = a[i] + e * b[i] + sqrt(2.0 * e) * c[i];
}

static inline void machine_run(machine *m, const dn_ops *ops)
{
    m->scalar_count = 0;
    for (uint32_t o = 0; o < ops->count; o++) {
        const dn_op *op = &ops->op[o];
        double *dst = m->reg[op->dst];
        machine_sums(m, op);
        if (op->kind == DN_OP_ACCEPT)
            memmove(dst, m->reg[op->src[m->scalar[m->scalar_count - 1] <= 1.0 ? 0 : 1]], m->elements * sizeof *dst);
        if (op->kind == DN_OP_NOISE)
            m->noise(m->payload, dst, m->elements, op);
        if (op->kind == DN_OP_THRESHOLD)
            machine_threshold(m, op);
        for (size_t i = 0; i < m->elements; i++) {
            double sum = 0.0;
            for (uint32_t t = 0; op->kind == DN_OP_LINEAR && t < op->terms; t++)
                sum += (double)op->coefficient[t] * m->reg[op->src[t]][i];
            if (op->kind == DN_OP_LINEAR)
                dst[i] = sum;
            if (op->kind == DN_OP_CLIP)
                dst[i] = fmin(fmax(m->reg[op->src[0]][i], (double)op->low), (double)op->high);
            if (op->kind == DN_OP_EXP_SCALE)
                dst[i] = exp((double)op->low + (double)op->ratio * m->reg[op->src[0]][i]) * m->reg[op->src[1]][i];
        }
    }
}

/* What a lane does with one answer that lies in DN_REG_COND: parametrisation, then the sampler. */
static inline void machine_answer(machine *m, const dn_sampler_context *context, dn_sampler_state *state, const dn_evaluation *evaluation)
{
    dn_ops ops = {.count = 0};
    dn_parametrise(context, evaluation, DN_REG_COND, &ops);
    context->sampler->feed(context, state, &ops);
    machine_run(m, &ops);
    if (context->sampler->settle != NULL)
        context->sampler->settle(context, state, m->scalar);
}

/* What a lane does before an evaluation. */
static inline bool machine_next(machine *m, const dn_sampler_context *context, const dn_sampler_state *state, dn_evaluation *evaluation)
{
    dn_ops ops = {.count = 0};
    if (!context->sampler->next(context, state, evaluation))
        return false;
    if (context->sampler->prepare != NULL)
        context->sampler->prepare(context, state, &ops);
    machine_run(m, &ops);
    return true;
}

#endif
