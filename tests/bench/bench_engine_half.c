/* Measures the matrix product in 16 bits beside the one in float, on DiT's shapes, each against the peak of its own instruction in the
 * same run: one core, the thread's own CPU time, best of many rounds.
 *
 *     bench_engine_half [SECONDS_PER_ROW]
 *
 * Prints nothing where the CPU has no bf16 product that pays. */
#include <stdio.h>
#include <stdlib.h>

#include "backend/cpu/half.h"
#include "tests/bench/bench_rows.h"
#include "tests/bench/half_probe.h"

/* One shape's operands in both forms. */
typedef struct product {
    const dn_cpu_kernels *kernels;
    const dn_cpu_half *half;
    dn_gemm plain, gemm;
    float *a, *slots;
} product;

static void run_plain(product *p)
{
    p->kernels->gemm(&p->plain, 0, dn_cpu_panels(p->kernels, p->plain.n));
}

static void run_half(product *p)
{
    p->half->gemm(&p->gemm, 0, p->gemm.n / p->half->panel);
}

static void run_conversion(product *p)
{
    p->half->convert(p->slots, p->gemm.a_row, p->a, p->gemm.rows, p->plain.k);
}

typedef struct timing {
    void (*work)(product *);
    double best; /* seconds */
} timing;

/* FLOP/s of both probes, best of a few. */
static void probe(double *plain, double *half)
{
    for (int round = 0; round < 3; round++) {
        double start = thread_seconds(), flops = fma_probe_once(16), rate = flops / (thread_seconds() - start);
        *plain = rate > *plain ? rate : *plain;
        start = thread_seconds();
        flops = half_probe_once();
        rate = flops / (thread_seconds() - start);
        *half = rate > *half ? rate : *half;
    }
}

/* The contenders take turns, so that a neighbour disturbs all of them. */
static void measure(product *p, timing *timings, size_t count, double *plain, double *half)
{
    for (double end = dn_now_seconds() + seconds_per_row; dn_now_seconds() < end;) {
        probe(plain, half);
        for (size_t i = 0; i < count; i++) {
            double start = thread_seconds();
            timings[i].work(p);
            double took = thread_seconds() - start;
            timings[i].best = took < timings[i].best ? took : timings[i].best;
        }
    }
}

static void bench(const dn_device *device, const dn_cpu_half *half, size_t m, size_t k, size_t n)
{
    const size_t row = dn_cpu_half_row_slots(half, k);
    product p = {.kernels = device->kernels, .half = half, .a = randoms(m * k), .slots = randoms(m * row)};
    float *weight = randoms(n * k), *out = randoms(m * n), *bias = randoms(n);
    float *packed = randoms(dn_cpu_packed_count(p.kernels, k, n)), *packed_half = randoms(dn_cpu_half_packed_count(half, k, n));
    double plain_peak = 0.0, half_peak = 0.0, flops = 2.0 * (double)m * (double)k * (double)n;
    p.plain = (dn_gemm){.a = p.a, .a_row = k, .b = packed, .out = out, .out_row = n, .bias = bias, .scale = 1.0f, .lines = 1, .rows = m};
    p.plain.segments = 1;
    p.plain.k = k;
    p.plain.n = n;
    p.gemm = p.plain;
    p.gemm.a = p.slots;
    p.gemm.a_row = row;
    p.gemm.b = packed_half;
    p.gemm.k = dn_cpu_half_steps(half, k);
    dn_cpu_half_pack(packed_half, half, weight, k, n);
    run_conversion(&p);
    timing t[] = {{run_plain, 1e30}, {run_half, 1e30}, {run_conversion, 1e30}};
    measure(&p, t, sizeof t / sizeof t[0], &plain_peak, &half_peak);
    printf("[%4zu,%4zu]x[%4zu,%4zu]  fp32 %7.1f GF/s %5.1f %% of %.0f   %s %7.1f GF/s %5.1f %% of %.0f, %.2f times as fast; conversion "
           "%.1f %%\n",
           m, k, k, n, flops / t[0].best * 1e-9, 100.0 * flops / t[0].best / plain_peak, plain_peak * 1e-9,
           dn_precision_name(half->precision), flops / t[1].best * 1e-9, 100.0 * flops / t[1].best / half_peak, half_peak * 1e-9,
           t[0].best / t[1].best, 100.0 * t[2].best / t[1].best);
    fflush(stdout);
    free(p.a);
    free(p.slots);
    free(weight);
    free(out);
    free(bias);
    free(packed);
    free(packed_half);
}

int main(int argc, char **argv)
{
    /* DiT-S/2's, DiT-L/2's and DiT-XL/2's products of one image. */
    static const size_t shapes[][3] = {{256, 384, 1152},  {256, 384, 384},   {256, 384, 1536},  {256, 1536, 384},  {256, 1024, 4096},
                                       {256, 4096, 1024}, {256, 1152, 3456}, {256, 1152, 1152}, {256, 1152, 4608}, {256, 4608, 1152}};
    const dn_backend *backend = dn_backend_cpu();
    dn_device *device = NULL;
    dn_error error;
    if (argc > 1)
        seconds_per_row = atof(argv[1]);
    check(backend->device_open(&device, &(dn_device_options){.threads = 1}, &error), &error);
    const dn_cpu_half *half = dn_cpu_half_of(device, DN_PRECISION_BF16);
    for (size_t i = 0; half && i < sizeof shapes / sizeof shapes[0]; i++)
        bench(device, half, shapes[i][0], shapes[i][1], shapes[i][2]);
    if (half)
        printf("multiply-add peak of one core by the wall: %.1f GF/s\n", fma_probe_all(16, 1, seconds_per_row) * 1e-9);
    backend->device_close(device);
    return 0;
}
