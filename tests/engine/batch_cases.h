/* Eight unlike images of the tiny golden network, and how to make one alone: what the batch's tests compare with. */
#ifndef DN_TESTS_BATCH_CASES_H
#define DN_TESTS_BATCH_CASES_H

#include "tests/test.h"

#include <unistd.h>

#include "base/file.h"
#include "engine.h"

#define PIPELINE "tests/golden/pipe_unet_ddim10_cfg3"
#define CASES 10
#define ELEMENTS (3 * 8 * 8)

static dn_error error;

typedef struct picture {
    float floats[ELEMENTS];
    uint8_t pixels[ELEMENTS];
} picture;

static inline dn_lane_spec case_spec(uint32_t index)
{
    static const struct {
        const char *sampler;
        uint32_t steps;
        double scale;
        int label; /* negative: unconditional */
        const char *option;
        double value;
    } rows[CASES] = {
        {"dpmpp_2m", 7, 2.0, 3, NULL, 0.0},   {"ddim", 5, 1.0, 9, "eta", 0.7},           {"heun", 4, 3.0, 0, "sigma_schedule", DN_SIGMAS_KARRAS},
        {"euler", 6, 0.0, 4, "s_churn", 3.0}, {"euler_ancestral", 8, 1.5, 1, NULL, 0.0}, {"ddpm", 9, 1.0, -1, NULL, 0.0},
        {"model", 6, 2.5, 7, NULL, 0.0},      {"dpmpp_2m", 16, 1.0, 2, "sigma_schedule", DN_SIGMAS_KARRAS},   {"heun", 5, 1.0, -1, NULL, 0.0},
        {"ddim", 1, 2.0, 5, NULL, 0.0},
    };
    dn_lane_spec spec = {.seed = 42 + index,
                         .has_class = rows[index].label >= 0,
                         .class_index = rows[index].label >= 0 ? (uint32_t)rows[index].label : 0,
                         .guidance_scale = rows[index].scale,
                         .steps = rows[index].steps};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", rows[index].sampler);
    if (rows[index].option != NULL) {
        dn_option_id id;
        if (dn_option_find(rows[index].option, &id))
            dn_option_set(&spec.options, id, rows[index].value);
    }
    return spec;
}

static inline dn_engine *open_engine(unsigned threads)
{
    dn_engine *engine = NULL;
    dn_engine_options options = {.threads = threads};
    if (dn_engine_open(&engine, PIPELINE, &options, &error) != DN_OK) {
        printf("FAIL open: %s\n", error.message);
        exit(1);
    }
    return engine;
}

/* A bare folder made of a golden network and a scheduler beside it, opened and removed again. NULL: `error` says why. */
static inline dn_engine *open_with_scheduler(const char *network, const char *scheduler)
{
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"};
    char folder[] = "/tmp/denoised-batch-XXXXXX", here[512], path[1024], target[1024];
    dn_engine *engine = NULL;
    dn_engine_options options = {.threads = 1};
    if (mkdtemp(folder) == NULL || getcwd(here, sizeof here) == NULL)
        abort();
    for (int i = 0; i < 2; i++) {
        snprintf(target, sizeof target, "%s/tests/golden/%s/%s", here, network, files[i]);
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        if (symlink(target, path) != 0)
            abort();
    }
    snprintf(path, sizeof path, "%s/%s", folder, files[2]);
    if (dn_file_write(path, scheduler, strlen(scheduler), false, &error) != DN_OK ||
        dn_engine_open(&engine, folder, &options, &error) != DN_OK)
        engine = NULL;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
    return engine;
}

static inline void read_picture(picture *out, dn_batch *batch, dn_lane_id id)
{
    if (dn_batch_read_floats(batch, id, out->floats, &error) != DN_OK || dn_batch_read_pixels(batch, id, out->pixels, &error) != DN_OK)
        abort();
}

/* Ticks until lane `id` is done; false when it failed. */
static inline bool finish(dn_batch *batch, dn_lane_id id)
{
    static dn_tick_report report;
    for (uint32_t tick = 0; tick < 10000; tick++) {
        if (dn_batch_tick(batch, &report, &error) != DN_OK)
            return false;
        for (uint32_t i = 0; i < report.lane_count; i++)
            if (report.lanes[i].id == id && report.lanes[i].state != DN_LANE_RUNNING)
                return report.lanes[i].state == DN_LANE_DONE;
    }
    return false;
}

static inline void make_alone(picture *out, dn_engine *engine, uint32_t index)
{
    dn_lane_spec spec = case_spec(index);
    if (dn_generate(engine, &spec, 1, out->pixels, out->floats, NULL, NULL, &error) != DN_OK) {
        printf("FAIL alone %u: %s\n", index, error.message);
        exit(1);
    }
}

static inline bool same_picture(const picture *a, const picture *b)
{
    return memcmp(a->floats, b->floats, sizeof a->floats) == 0 && memcmp(a->pixels, b->pixels, sizeof a->pixels) == 0;
}

#endif
