/* Shared by the tests of the CUDA back end's host side: an emulated GPU beside the CPU, the same programs on both, and what lives compared.
 *
 * Everything is drawn from one small generator, so a failure repeats. */
#ifndef DN_TESTS_CUDA_DEVICE_CHECK_H
#define DN_TESTS_CUDA_DEVICE_CHECK_H

#include "tests/test.h"

#include "backend/cuda/device.h"
#include "tests/cuda/emulator/emulator.h"

/* For tests that one thread does alone: ThreadSanitizer takes minutes for the fibers of their kernels, and could find nothing. */
#ifdef __SANITIZE_THREAD__
#define ONE_THREAD() SKIP("one thread alone; ThreadSanitizer makes its kernels' fibers slow")
#else
#define ONE_THREAD() ((void)0)
#endif

static uint64_t chance_state = 1;

static inline uint32_t chance(uint32_t low, uint32_t high)
{
    chance_state = chance_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return low + (uint32_t)((chance_state >> 33) % (high - low + 1));
}

/* In [-1, 1]. */
static inline float chance_float(void)
{
    return (float)chance(0, 2000000) / 1000000.0f - 1.0f;
}

static inline float *chance_floats(size_t count)
{
    float *x = malloc((count ? count : 1) * sizeof *x);
    for (size_t i = 0; x && i < count; i++)
        x[i] = 3.0f * chance_float();
    return x;
}

/* One buffer on each device, with the same floats. */
typedef struct pair {
    dn_buffer *gpu, *cpu;
    size_t count;
} pair;

typedef struct devices {
    dn_device *gpu, *cpu;
    const dn_backend *reference;
} devices;

static inline bool devices_open(devices *d)
{
    dn_device_options one = {.threads = 1};
    *d = (devices){.reference = dn_backend_cpu()};
    return dn_cuda_device_open(&d->gpu, NULL, NULL) == DN_OK && d->reference->device_open(&d->cpu, &one, NULL) == DN_OK;
}

static inline void devices_close(devices *d)
{
    dn_cuda_device_close(d->gpu);
    d->reference->device_close(d->cpu);
}

static inline bool pair_make(pair *p, const devices *d, const float *values, size_t count)
{
    *p = (pair){.count = count};
    return dn_cuda_buffer_create(&p->gpu, d->gpu, count, NULL) == DN_OK &&
           d->reference->buffer_create(&p->cpu, d->cpu, count, NULL) == DN_OK &&
           dn_cuda_buffer_write(p->gpu, 0, values, count, NULL) == DN_OK &&
           d->reference->buffer_write(p->cpu, 0, values, count, NULL) == DN_OK;
}

static inline void pair_free(pair *p, const devices *d)
{
    dn_cuda_buffer_free(p->gpu);
    d->reference->buffer_free(p->cpu);
}

/* The same program on both. Scalars, where it has any: [0] the GPU's, [1] the CPU's. */
static inline bool pair_execute(const pair *p, const devices *d, const dn_op *ops, uint32_t count, size_t elements, double *scalars[2])
{
    dn_program gpu = {.registers = p->gpu, .elements = elements, .ops = ops, .op_count = count, .scalars = scalars ? scalars[0] : NULL};
    dn_program cpu = gpu;
    cpu.registers = p->cpu;
    cpu.scalars = scalars ? scalars[1] : NULL;
    return dn_cuda_execute(d->gpu, &gpu, 1, NULL) == DN_OK && d->reference->execute(d->cpu, &cpu, 1, NULL) == DN_OK;
}

static inline bool same_bits(float a, float b)
{
    uint32_t x = 0, y = 0;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return x == y || (isnan(a) && isnan(b));
}

/* How far the two are from each other: 0 where every bit is the same; else the largest difference over the size of the reference's values
 * (of the element itself, but at least a thousandth of the largest). Infinite where one is finite and the other is not. */
static inline double pair_distance(const pair *p, const devices *d)
{
    float *a = malloc((p->count + 1) * sizeof *a), *b = malloc((p->count + 1) * sizeof *b);
    bool read = a && b && dn_cuda_buffer_read(p->gpu, 0, a, p->count, NULL) == DN_OK &&
                d->reference->buffer_read(p->cpu, 0, b, p->count, NULL) == DN_OK;
    double worst = read ? 0.0 : (double)INFINITY, largest = 0.0;
    for (size_t i = 0; read && i < p->count; i++)
        if (isfinite(b[i]) && fabs((double)b[i]) > largest)
            largest = fabs((double)b[i]);
    for (size_t i = 0; read && i < p->count; i++) {
        if (same_bits(a[i], b[i]))
            continue;
        double size = fmax(fabs((double)b[i]), largest * 1e-3), far = fabs((double)a[i] - (double)b[i]) / size;
        worst = isfinite(a[i]) && isfinite(b[i]) ? fmax(worst, fmax(far, 1e-30)) : (double)INFINITY;
    }
    free(a);
    free(b);
    return worst;
}

/* Nothing that a device had is left. */
static inline bool nothing_lives(void)
{
    dn_emulator_counts counts;
    dn_emulator_count(&counts);
    return counts.device_allocations + counts.pinned_allocations + counts.streams + counts.events + counts.graphs + counts.executables == 0;
}

#endif
