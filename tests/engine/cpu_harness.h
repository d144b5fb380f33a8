/* Shared by the CPU back end's tests: random plans, weights and rows, and runs of them under any instruction set.
 *
 * Everything is drawn from one small generator, so a failure repeats. Single-threaded. */
#ifndef DN_TESTS_CPU_HARNESS_H
#define DN_TESTS_CPU_HARNESS_H

#include "tests/test.h"

#include "backend/backend.h"
#include "backend/cpu/isa.h"

#define HARNESS_ROWS_MAX 16

/* Every instruction set that there are kernels for, on whatever machine. */
static const char *const harness_isas[] = {"sse2", "avx2", "avx512", "neon", "generic"};
#define HARNESS_ISAS (sizeof harness_isas / sizeof harness_isas[0])

static uint32_t harness_state = 12345;
static dn_precision harness_precision; /* of the networks that harness_open makes */

static inline uint32_t draw(uint32_t low, uint32_t high)
{
    harness_state = harness_state * 1664525u + 1013904223u;
    return low + (harness_state >> 8) % (high - low + 1);
}

static inline float draw_float(void)
{
    return (float)draw(0, 2000000) / 1000000.0f - 1.0f;
}

static inline float *draw_floats(size_t count)
{
    float *x = malloc((count ? count : 1) * sizeof *x);
    for (size_t i = 0; x && i < count; i++)
        x[i] = draw_float();
    return x;
}

/* Weights of a size that keeps activations near one. */
static inline dn_weights *draw_weights(const dn_plan *plan)
{
    dn_weights *weights = NULL;
    if (dn_weights_create(&weights, plan, NULL) != DN_OK)
        return NULL;
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        const dn_weight_info *info = &plan->weights[w];
        float factor = info->rank > 1 ? 1.7f / sqrtf((float)info->count / (float)info->dims[0]) : 1.0f;
        for (uint64_t i = 0; i < info->count; i++)
            weights->data[w][i] = draw_float() * factor;
    }
    return weights;
}

/* One engine on one instruction set, with buffers for HARNESS_ROWS_MAX rows. */
typedef struct harness {
    const dn_backend *backend;
    const dn_plan *plan;
    dn_device *device;
    dn_network *network;
    dn_buffer *in, *out;
    size_t in_count, out_count;
} harness;

/* The kernels of an instruction set; NULL: none were compiled for this machine. */
static inline const dn_cpu_kernels *harness_kernels(const char *isa)
{
    size_t count = 0;
    const dn_cpu_isa *isas = dn_cpu_isas(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(isas[i].kernels->isa, isa) == 0)
            return isas[i].kernels;
    return NULL;
}

/* Whether this machine has the instruction set: asked of the compiler's own test, not of the back end that is being tested. */
static inline bool harness_has(const char *isa)
{
    if (harness_kernels(isa) == NULL)
        return false;
#if defined(__x86_64__)
    if (strcmp(isa, "avx512") == 0)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
    if (strcmp(isa, "avx2") == 0)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return true;
}

/* Every set for this kind of machine was compiled: a whole family, by its best member's name. */
static inline void every_instruction_set_is_compiled(void)
{
    bool x86 = harness_kernels("sse2") && harness_kernels("avx2") && harness_kernels("avx512");
    bool alone = (harness_kernels("neon") != NULL) != (harness_kernels("generic") != NULL);
    CHECK(x86 != alone);
}

/* A set that cannot be tried here is said so. Sets of other kinds of machines are not missed. */
static inline void every_instruction_set_is_here(void)
{
    for (size_t i = 0; i < HARNESS_ISAS; i++)
        if (harness_kernels(harness_isas[i]) && !harness_has(harness_isas[i]))
            SKIP("this CPU has no %s", harness_isas[i]);
}

/* False is a failure: ask harness_has first. */
static inline bool harness_open(harness *h, const char *isa, unsigned threads, const dn_plan *plan, const dn_weights *weights)
{
    *h = (harness){.backend = dn_backend_cpu(), .plan = plan};
    h->in_count = dn_shape_count(plan->values[plan->input].shape);
    h->out_count = dn_shape_count(plan->values[plan->output].shape);
    dn_device_options device = {.threads = threads, .isa = isa};
    if (h->backend->device_open(&h->device, &device, NULL) != DN_OK)
        return false;
    dn_network_options network = {.plan = plan, .weights = weights, .precision = harness_precision};
    return h->backend->network_create(&h->network, h->device, &network, NULL) == DN_OK &&
           h->backend->buffer_create(&h->in, h->device, h->in_count * HARNESS_ROWS_MAX, NULL) == DN_OK &&
           h->backend->buffer_create(&h->out, h->device, h->out_count * HARNESS_ROWS_MAX, NULL) == DN_OK;
}

static inline void harness_close(harness *h)
{
    h->backend->buffer_free(h->in);
    h->backend->buffer_free(h->out);
    h->backend->network_free(h->network);
    h->backend->device_close(h->device);
}

/* Row r of the test: sample r of the input buffer, a time and a condition of its own. */
static inline dn_row harness_row(const harness *h, uint32_t r)
{
    dn_row row = {.in = h->in, .in_offset = r * h->in_count, .in_scale = 1.0f - 0.05f * (float)r, .out = h->out};
    row.out_offset = r * h->out_count;
    row.time = 37.25f * (float)(r + 1);
    if (h->plan->time_rows)
        row.time = (float)((37 * r + 5) % h->plan->time_rows);
    if (h->plan->class_rows) {
        row.condition.count = 1 + r % 2;
        for (uint32_t i = 0; i < row.condition.count; i++) {
            row.condition.classes[i] = (r * 3 + i) % h->plan->class_rows;
            row.condition.weights[i] = i ? 0.25f : 0.75f;
        }
    }
    return row;
}

#endif
