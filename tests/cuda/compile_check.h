/* Compiled plans against the CPU back end, value by value, and against the rules of memory, found by looking. Single-threaded callers. */
#ifndef DN_TESTS_CUDA_COMPILE_CHECK_H
#define DN_TESTS_CUDA_COMPILE_CHECK_H

#include "tests/cuda/step_interpreter.h"
#include "tests/engine/cpu_harness.h"

#define CHECK_ROWS 3
#define ANSWER_ERROR_MAX 1e-5
#define VALUE_ERROR_FACTOR 2.0 /* of values on the way, as the golden tests have it */
#define MEMORY_UNIT 256u

static inline bool takes_any_sdpa(const dn_cuda_product_spec *spec)
{
    return spec->kind == DN_CUDA_SDPA;
}

/* Whether this step may write its output over an input, by launch.h and libraries.h. */
static inline bool overwrites(const dn_cuda_step *step, int out, int in)
{
    switch (step->kind) {
    case DN_CUDA_STEP_FINISH:
        return in == 0 || in == 2;
    case DN_CUDA_STEP_LAYER_NORM:
        return out == 1 && in == 4;
    case DN_CUDA_STEP_PRODUCT:
        return in == 1;
    case DN_CUDA_STEP_GROUP_NORM:
    case DN_CUDA_STEP_AFFINE:
    case DN_CUDA_STEP_ACTIVATE:
    case DN_CUDA_STEP_POSITION:
    case DN_CUDA_STEP_DIVIDE_BY_TIME:
        return in == 0;
    default:
        return false;
    }
}

static inline uint64_t slot_units(const dn_cuda_compiled *c, dn_cuda_slot slot)
{
    uint64_t size = c->type == DN_CUDA_BF16 ? 2 : 4;
    return (c->slots[c->slots[slot].base].row_pitch * size + MEMORY_UNIT - 1) / MEMORY_UNIT;
}

static inline bool overlap(const dn_cuda_compiled *c, dn_cuda_slot a, dn_cuda_slot b)
{
    uint64_t x = c->slots[a].offset / MEMORY_UNIT, y = c->slots[b].offset / MEMORY_UNIT;
    return x < y + slot_units(c, b) && y < x + slot_units(c, a);
}

/* What is wrong with a step's outputs beside its inputs: an overlap that no kernel allows, or of another layout. */
static inline bool outputs_collide(const dn_cuda_compiled *c, const dn_cuda_step *step)
{
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < DN_CUDA_STEP_INPUTS && step->out[k] != DN_NONE; i++) {
            if (step->in[i] == DN_NONE || !overlap(c, step->out[k], step->in[i]))
                continue;
            const dn_cuda_slot_info *to = &c->slots[step->out[k]], *from = &c->slots[step->in[i]];
            bool same = to->offset == from->offset && from->view_at == 0 && to->row_pitch == from->row_pitch && to->pitch == from->pitch;
            if (!same || !overwrites(step, k, i))
                return true;
        }
    }
    return step->out[0] != DN_NONE && step->out[1] != DN_NONE && overlap(c, step->out[0], step->out[1]);
}

/* Walks the steps with a note, for every unit of memory, of which slot lies there: what a step reads must still be there, whole.
 * Returns the name of the first step that is wrong; NULL: none. */
static inline const char *find_overwritten(const dn_cuda_compiled *c)
{
    const uint64_t units = c->row_bytes / MEMORY_UNIT;
    dn_cuda_slot *owner = malloc((units + 1) * sizeof *owner);
    const char *wrong = owner ? NULL : "no memory";
    for (uint64_t u = 0; !wrong && u < units; u++)
        owner[u] = DN_NONE;
    for (uint32_t s = 0; !wrong && s < c->step_count; s++) {
        const dn_cuda_step *step = &c->steps[s];
        for (int i = 0; i < DN_CUDA_STEP_INPUTS; i++) {
            if (step->in[i] == DN_NONE)
                continue;
            dn_cuda_slot base = c->slots[step->in[i]].base;
            for (uint64_t u = 0; u < slot_units(c, base); u++)
                if (owner[c->slots[base].offset / MEMORY_UNIT + u] != base)
                    wrong = step->name;
        }
        for (int k = 0; k < 2; k++) {
            dn_cuda_slot out = step->out[k];
            if (out != DN_NONE && (c->slots[out].base != out || c->slots[out].offset % MEMORY_UNIT))
                wrong = step->name;
            for (uint64_t u = 0; out != DN_NONE && u < slot_units(c, out); u++) {
                uint64_t at = c->slots[out].offset / MEMORY_UNIT + u;
                if (at >= units)
                    wrong = step->name;
                else
                    owner[at] = out;
            }
        }
        if (outputs_collide(c, step))
            wrong = step->name;
    }
    free(owner);
    return wrong;
}

/* The most that any step has alive at once, in bytes a row: no placement needs less. An output upon its input counts once. */
static inline uint64_t most_alive(const dn_cuda_compiled *c)
{
    uint64_t most = 0;
    for (uint32_t s = 0; s < c->step_count; s++) {
        uint64_t alive = 0;
        for (dn_cuda_slot slot = 0; slot < c->slot_count; slot++) {
            uint32_t first = DN_NONE, last = 0;
            for (uint32_t t = 0; c->slots[slot].base == slot && t < c->step_count; t++) {
                for (int i = 0; i < DN_CUDA_STEP_INPUTS; i++)
                    if (c->steps[t].in[i] != DN_NONE && c->slots[c->steps[t].in[i]].base == slot)
                        last = t;
                for (int k = 0; k < 2; k++)
                    if (c->steps[t].out[k] == slot)
                        first = last = t;
            }
            bool inherits = false;
            for (int i = 0; first == s && i < DN_CUDA_STEP_INPUTS; i++)
                inherits |= c->steps[s].in[i] != DN_NONE && c->slots[c->steps[s].in[i]].offset == c->slots[slot].offset;
            if (first != DN_NONE && first <= s && s <= last && !inherits)
                alive += slot_units(c, slot) * MEMORY_UNIT;
        }
        most = alive > most ? alive : most;
    }
    return most;
}

/* The CPU back end's values of CHECK_ROWS rows. */
typedef struct cpu_values {
    harness h;
    double error_max; /* that is allowed of answers, relative to the largest */
    dn_workspace *workspace;
    dn_row rows[CHECK_ROWS];
    float *samples, *answers; /* [CHECK_ROWS] */
} cpu_values;

static inline bool cpu_values_open(cpu_values *v, const dn_plan *plan, const dn_weights *weights)
{
    memset(v, 0, sizeof *v);
    if (!harness_open(&v->h, NULL, 1, plan, weights))
        return false;
    v->samples = draw_floats(v->h.in_count * CHECK_ROWS);
    v->answers = draw_floats(v->h.out_count * CHECK_ROWS);
    dn_workspace_options options = {.rows_max = CHECK_ROWS, .keep_values = true, .inline_threads = true};
    const dn_backend *b = v->h.backend;
    if (b->workspace_create(&v->workspace, v->h.network, &options, NULL) != DN_OK ||
        b->buffer_write(v->h.in, 0, v->samples, v->h.in_count * CHECK_ROWS, NULL) != DN_OK)
        return false;
    for (uint32_t r = 0; r < CHECK_ROWS; r++)
        v->rows[r] = harness_row(&v->h, r);
    return b->run(v->h.network, v->workspace, v->rows, CHECK_ROWS, NULL) == DN_OK &&
           b->buffer_read(v->h.out, 0, v->answers, v->h.out_count * CHECK_ROWS, NULL) == DN_OK;
}

static inline void cpu_values_close(cpu_values *v)
{
    v->h.backend->workspace_free(v->workspace);
    harness_close(&v->h);
    free(v->samples);
    free(v->answers);
}

static inline double error_of(const float *got, const float *expected, size_t count)
{
    double largest = 1e-30, difference = 0.0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        double d = fabs((double)got[i] - (double)expected[i]);
        difference = d >= difference || isnan(d) ? d : difference;
        if (isnan(d))
            return (double)INFINITY;
    }
    return difference / largest;
}

/* A value in its slot against the CPU's, for every row. */
static inline void compare_value(interpreter *m, cpu_values *v, dn_cuda_slot slot, const char *step)
{
    dn_value value = m->compiled->slots[slot].value;
    dn_shape shape = m->compiled->plan->values[value].shape;
    float *expected = malloc(dn_shape_count(shape) * sizeof *expected), *got = malloc(dn_shape_count(shape) * sizeof *got);
    for (uint32_t r = 0; r < m->row_count; r++) {
        field f = field_of(m, slot, r);
        if (f.h != shape.h || f.w != shape.w || f.c != shape.c ||
            v->h.backend->read_value(v->h.network, v->workspace, value, r, expected, NULL) != DN_OK) {
            complain(m, "%s: no such value", step);
            break;
        }
        for (size_t i = 0; i < dn_shape_count(shape); i++)
            got[i] = f.at[i / f.c * f.pitch + i % f.c];
        double error = error_of(got, expected, dn_shape_count(shape));
        if (!(error <= VALUE_ERROR_FACTOR * v->error_max))
            complain(m, "%s: row %u is off by %.2e", step, r, error);
    }
    free(expected);
    free(got);
}

/* The values that a step has written, views of its output too; step NULL: all of them, when the last step has run. */
static inline void compare_step(interpreter *m, cpu_values *v, const dn_cuda_step *step)
{
    for (dn_cuda_slot slot = 0; slot < m->compiled->slot_count; slot++) {
        const dn_cuda_slot_info *info = &m->compiled->slots[slot];
        if (info->value != DN_NONE && (!step || info->base == step->out[0] || info->base == step->out[1]))
            compare_value(m, v, slot, step ? step->name : "at the end");
    }
}

/* Interprets `rows` rows; every value and the answers are compared. */
static inline void check_rows(const dn_cuda_compiled *compiled, const dn_weights *weights, cpu_values *v, uint32_t rows, char problem[256])
{
    interpreter m;
    float *answers = calloc(v->h.out_count * rows, sizeof *answers);
    bool opened = interpreter_open(&m, compiled, weights, rows);
    m.rows = v->rows;
    m.samples = v->samples;
    m.answers = answers;
    for (uint32_t s = 0; opened && answers && s < compiled->step_count && !m.problem[0]; s++) {
        run_step(&m, &compiled->steps[s]);
        compare_step(&m, v, &compiled->steps[s]);
    }
    if (opened && compiled->keep_values)
        compare_step(&m, v, NULL);
    double error = opened && answers ? error_of(answers, v->answers, v->h.out_count * rows) : (double)INFINITY;
    if (!(error <= v->error_max))
        complain(&m, "the answer of %u rows is off by %.2e", rows, error);
    memcpy(problem, m.problem, sizeof m.problem);
    interpreter_close(&m);
    free(answers);
}

/* A plan compiled every way: in both types its memory, in float its numbers. */
static inline void check_plan(const char *name, const dn_plan *plan, const dn_weights *weights, double error_max)
{
    cpu_values v;
    dn_error error = {DN_OK, ""};
    bool ready = cpu_values_open(&v, plan, weights);
    v.error_max = error_max;
    char problem[256] = "";
    for (int way = 0; ready && way < 8 && !problem[0]; way++) {
        dn_cuda_compiled *compiled = NULL;
        bool half = way & 4, keep = way & 2;
        dn_cuda_compile_options options = {half ? DN_CUDA_BF16 : DN_CUDA_F32, keep, way & 1 ? takes_any_sdpa : NULL};
        if (dn_cuda_compile(&compiled, plan, &options, &error) != DN_OK) {
            snprintf(problem, sizeof problem, "%.200s", error.message);
            break;
        }
        const char *wrong = find_overwritten(compiled);
        if (wrong)
            snprintf(problem, sizeof problem, "%.100s: memory is overwritten", wrong);
        for (dn_value value = 0; keep && value < plan->value_count; value++)
            if (compiled->value_slots[value] == DN_NONE)
                snprintf(problem, sizeof problem, "value %u is not kept", value);
        if (!problem[0] && !half)
            check_rows(compiled, weights, &v, way & 1 ? 1 : CHECK_ROWS, problem);
        dn_cuda_compiled_free(compiled);
    }
    cpu_values_close(&v);
    CHECK_MSG(ready, "%s: the CPU does not run it", name);
    CHECK_MSG(!problem[0], "%s: %s", name, problem);
}

#endif
