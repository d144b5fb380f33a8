/* Images a second of the bare engine: dn_generate on a model folder, beside the multiply-add peak probed before and after.
 *
 *     bench_engine_generate MODEL-FOLDER IMAGES STEPS GUIDANCE [SAMPLER [THREADS]]
 *
 * Specs are those that bench_serving.py asks the daemon for: class i mod classes, seed i. Prints one line of JSON, for it to read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/kernels.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "engine.h"
#include "tests/bench/fma_probe.h"

#define PROBE_SECONDS 0.25

static size_t lanes_of(const dn_engine *engine)
{
    const char *isa = engine->backend->device_isa(engine->device);
    return fma_probe_lanes(isa);
}

static void fill_specs(dn_lane_spec *specs, uint32_t n, const dn_engine *engine, char **argv, const char *sampler)
{
    for (uint32_t i = 0; i < n; i++) {
        specs[i] = (dn_lane_spec){.seed = i,
                                  .has_class = engine->class_count > 0,
                                  .class_index = engine->class_count > 0 ? i % engine->class_count : 0,
                                  .guidance_scale = atof(argv[4]),
                                  .steps = (uint32_t)atoi(argv[3])};
        snprintf(specs[i].sampler, sizeof specs[i].sampler, "%s", sampler);
    }
}

/* Of all threads. */
static double process_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    dn_engine *engine = NULL;
    dn_lane_spec *specs = NULL;
    uint8_t *pixels = NULL;
    if (argc < 5 || atoi(argv[2]) < 1) {
        fprintf(stderr, "usage: bench_engine_generate MODEL-FOLDER IMAGES STEPS GUIDANCE [SAMPLER [THREADS]]\n");
        return 64;
    }
    const uint32_t n = (uint32_t)atoi(argv[2]);
    const unsigned threads = argc > 6 ? (unsigned)atoi(argv[6]) : 0;
    const dn_engine_options options = {.threads = threads};
    dn_status status = dn_engine_open(&engine, argv[1], &options, &error);
    if (status == DN_OK) {
        const size_t lanes = lanes_of(engine);
        const unsigned cores = threads > 0 ? threads : dn_available_cpus();
        specs = calloc(n, sizeof *specs);
        pixels = malloc((size_t)n * engine->image_width * engine->image_height * engine->image_channels);
        if (!specs || !pixels)
            abort();
        fill_specs(specs, n, engine, argv, argc > 5 ? argv[5] : engine->default_sampler);
        status = dn_generate(engine, specs, n < 8 ? n : 8, pixels, NULL, NULL, NULL, &error); /* warms up */
        double before = fma_probe_all(lanes, cores, PROBE_SECONDS), cpu = process_seconds(), began = dn_now_seconds();
        if (status == DN_OK)
            status = dn_generate(engine, specs, n, pixels, NULL, NULL, NULL, &error);
        double took = dn_now_seconds() - began;
        cpu = process_seconds() - cpu;
        double after = fma_probe_all(lanes, cores, PROBE_SECONDS);
        if (status == DN_OK)
            printf("{\"images_per_second\": %.4f, \"cpu_seconds\": %.4f, \"evaluations\": %u, \"row_gflop\": %.6f, \"threads\": %u, "
                   "\"peak_before_gflops\": %.1f, \"peak_after_gflops\": %.1f, \"device\": \"%s\"}\n",
                   n / took, cpu, dn_lane_spec_evaluations(engine, &specs[0]), dn_plan_flops(engine->model->plan) * 1e-9, cores,
                   before * 1e-9, after * 1e-9, engine->device_text);
    }
    if (status != DN_OK)
        fprintf(stderr, "bench_engine_generate: %s\n", error.message);
    free(specs);
    free(pixels);
    dn_engine_close(engine);
    return status == DN_OK ? 0 : 1;
}
