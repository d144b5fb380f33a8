/* Register programs: what samplers say they do to an image.
 *
 * Invariant: plain C without fused multiply-add, elements in order, so that every CPU gives the same bytes. One lane's
 * program is one task of the device's pool. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/program.h"
#include "backend/program_check.h"

static void run_linear(const dn_program *program, const dn_op *op)
{
    float *dst = dn_cpu_register(program, op->dst);
    const float *src[DN_OP_TERMS_MAX] = {0};
    for (uint32_t t = 0; t < op->terms; t++)
        src[t] = dn_cpu_register(program, op->src[t]);
    for (size_t i = 0; i < program->elements; i++) {
        float sum = op->coefficient[0] * src[0][i];
        for (uint32_t t = 1; t < op->terms; t++)
            sum += op->coefficient[t] * src[t][i];
        dst[i] = sum;
    }
}

/* NaN stays NaN. */
static float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

static void run_clip(const dn_program *program, const dn_op *op)
{
    float *dst = dn_cpu_register(program, op->dst);
    const float *src = dn_cpu_register(program, op->src[0]);
    for (size_t i = 0; i < program->elements; i++)
        dst[i] = clamp(src[i], op->low, op->high);
}

static void swap(float *a, float *b)
{
    float held = *a;
    *a = *b;
    *b = held;
}

/* Hoare's FIND: the value that would stand at `rank` were x sorted. Afterwards nothing before rank is larger and nothing
 * after it smaller. */
static float select_rank(float *x, ptrdiff_t count, ptrdiff_t rank)
{
    ptrdiff_t low = 0, high = count - 1;
    while (low < high) {
        float pivot = x[rank];
        ptrdiff_t i = low, j = high;
        while (i <= j) {
            while (x[i] < pivot)
                i++;
            while (pivot < x[j])
                j--;
            if (i <= j)
                swap(&x[i++], &x[j--]);
        }
        if (j < rank)
            low = i;
        if (rank < i)
            high = j;
    }
    return x[rank];
}

/* Linear interpolation between order statistics, as torch.quantile. x is reordered and holds no NaN. */
static float quantile(float *x, size_t count, float ratio)
{
    double position = (double)ratio * (double)(count - 1);
    size_t rank = (size_t)position;
    float low = select_rank(x, (ptrdiff_t)count, (ptrdiff_t)rank);
    if (rank + 1 >= count)
        return low;
    float high = x[rank + 1];
    for (size_t i = rank + 2; i < count; i++)
        high = x[i] < high ? x[i] : high;
    return low + (high - low) * (float)(position - (double)rank);
}

/* Dynamic thresholding (Imagen, section 2.3), as diffusers does it. NaN counts as the largest value. */
static dn_status run_threshold(const dn_program *program, const dn_op *op, dn_error *error)
{
    float *sorted = malloc(program->elements * sizeof *sorted);
    if (!sorted)
        return dn_fail(error, DN_NO_MEMORY, "no memory to threshold an image");
    float *dst = dn_cpu_register(program, op->dst);
    const float *src = dn_cpu_register(program, op->src[0]);
    for (size_t i = 0; i < program->elements; i++)
        sorted[i] = isnan(src[i]) ? INFINITY : fabsf(src[i]);
    float bound = clamp(quantile(sorted, program->elements, op->ratio), 1.0f, op->high);
    free(sorted);
    for (size_t i = 0; i < program->elements; i++)
        dst[i] = clamp(src[i], -bound, bound) / bound;
    return DN_OK;
}

static void run_exp_scale(const dn_program *program, const dn_op *op)
{
    float *dst = dn_cpu_register(program, op->dst);
    const float *exponent = dn_cpu_register(program, op->src[0]), *factor = dn_cpu_register(program, op->src[1]);
    for (size_t i = 0; i < program->elements; i++)
        dst[i] = (float)dn_exp((double)op->low + (double)op->ratio * (double)exponent[i]) * factor[i];
}

/* The first `split` elements of one register, the rest of the other. */
static void run_select(const dn_program *program, const dn_op *op)
{
    float *dst = dn_cpu_register(program, op->dst);
    const float *first = dn_cpu_register(program, op->src[0]), *rest = dn_cpu_register(program, op->src[1]);
    size_t split = dn_cpu_min((size_t)op->split, program->elements);
    memmove(dst, first, split * sizeof *dst);
    memmove(dst + split, rest + split, (program->elements - split) * sizeof *dst);
}

static void run_blend(const dn_program *program, const dn_op *op)
{
    float *dst = dn_cpu_register(program, op->dst);
    const float *inside = dn_cpu_register(program, op->src[0]), *outside = dn_cpu_register(program, op->src[1]);
    const float *mask = dn_cpu_register(program, op->src[2]);
    for (size_t i = 0; i < program->elements; i++)
        dst[i] = mask[i] * inside[i] + (1.0f - mask[i]) * outside[i];
}

/* A scalar that is NaN accepts nothing. */
static void run_accept(const dn_program *program, const dn_op *op, double scalar)
{
    const float *src = dn_cpu_register(program, op->src[scalar <= 1.0 ? 0 : 1]);
    memmove(dn_cpu_register(program, op->dst), src, program->elements * sizeof *src);
}

/* An op that writes a register from registers alone. */
typedef void op_function(const dn_program *program, const dn_op *op);
static op_function *const op_functions[] = {
    [DN_OP_LINEAR] = run_linear,         [DN_OP_CLIP] = run_clip,
    [DN_OP_SELECT] = run_select,         [DN_OP_BLEND] = run_blend,
    [DN_OP_SLERP] = dn_cpu_op_slerp,     [DN_OP_MATCH_STD] = dn_cpu_op_match_std,
    [DN_OP_PROJECT] = dn_cpu_op_project, [DN_OP_LANGEVIN] = dn_cpu_op_langevin,
    [DN_OP_EXP_SCALE] = run_exp_scale,
};

static dn_status run_program(const dn_program *program, dn_error *error)
{
    dn_status status = DN_OK;
    uint32_t scalars = 0;
    for (uint32_t i = 0; i < program->op_count && status == DN_OK; i++) {
        const dn_op *op = &program->ops[i];
        switch (op->kind) {
        case DN_OP_NOISE:
            dn_noise_normal(dn_cpu_register(program, op->dst), program->elements, 0, op->seed, op->stream, op->draw);
            break;
        case DN_OP_THRESHOLD:
            status = run_threshold(program, op, error);
            break;
        case DN_OP_NORM:
            program->scalars[scalars++] = dn_cpu_op_norm(program, op);
            break;
        case DN_OP_ERROR_NORM:
            program->scalars[scalars++] = dn_cpu_op_error_norm(program, op);
            break;
        case DN_OP_ACCEPT:
            run_accept(program, op, program->scalars[scalars - 1]);
            break;
        default:
            op_functions[op->kind](program, op);
        }
    }
    return status;
}

typedef struct execute_job {
    const dn_program *programs;
    dn_status *statuses;
} execute_job;

static void execute_task(void *payload, unsigned index, unsigned worker)
{
    (void)worker;
    const execute_job *job = payload;
    job->statuses[index] = run_program(&job->programs[index], NULL);
}

dn_status dn_cpu_execute(dn_device *device, const dn_program *programs, uint32_t program_count, dn_error *error)
{
    dn_status status = DN_OK, statuses[DN_LANES_MAX];
    uint32_t scalars;
    if (program_count > DN_LANES_MAX)
        return dn_fail(error, DN_INTERNAL, "%u register programs, more than %u", program_count, DN_LANES_MAX);
    for (uint32_t i = 0; i < program_count && status == DN_OK; i++)
        status = dn_program_check(&programs[i], programs[i].registers->count, &scalars, error);
    if (status != DN_OK || program_count == 0)
        return status;
    execute_job job = {.programs = programs, .statuses = statuses};
    dn_pool_run(device->pool, program_count, execute_task, &job);
    for (uint32_t i = 0; i < program_count && status == DN_OK; i++) {
        if (statuses[i] != DN_OK)
            status = dn_fail(error, statuses[i], "register program %u failed", i);
    }
    return status;
}
