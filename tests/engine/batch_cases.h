/* Unlike images of the tiny golden network, one of each sampler, each method of guidance and each way of conditioning, and how to
 * make one alone: what the batch's tests compare with. The network has a guide (another golden network of its shape) and a
 * classifier (random weights) beside it. */
#ifndef DN_TESTS_BATCH_CASES_H
#define DN_TESTS_BATCH_CASES_H

#include "tests/test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "engine.h"
#include "format/safetensors.h"
#include "model/classifier.h"
#include "train/train.h"

#define PIPELINE "tests/golden/pipe_unet_ddim10_cfg3"
#define GUIDE "tests/golden/unet_scaleshift"
#define ELEMENTS (3 * 8 * 8)
#define PLANE (8 * 8)
#define CASES_MAX 128
#define RUNS 3 /* networks that run rows in a tick */

static dn_error error;
static const dn_backend *case_backend; /* of engines opened here; NULL: the CPU's */

typedef struct picture {
    float floats[ELEMENTS];
    uint8_t pixels[ELEMENTS];
} picture;

/* A case: a sampler, and up to three options "name=value" (value a number or a choice's word). */
typedef struct case_row {
    const char *sampler;
    uint32_t steps;
    double scale;
    int label; /* negative: unconditional */
    const char *options[3];
    bool mixture, negative, variation, init, mask;
} case_row;

static const case_row case_rows[] = {
    {"dpmpp_2m", 7, 2.0, 3, .options = {0}},
    {"ddim", 5, 1.0, 9, .options = {"eta=0.7"}},
    {"heun", 4, 3.0, 0, .options = {"sigma_schedule=karras"}},
    {"euler", 6, 0.0, 4, .options = {"s_churn=3"}},
    {"euler_ancestral", 8, 1.5, 1, .options = {0}},
    {"ddpm", 9, 1.0, -1, .options = {0}},
    {"model", 6, 2.5, 7, .options = {0}},
    {"dpmpp_2m", 16, 1.0, 2, .options = {"sigma_schedule=karras"}},
    {"heun", 5, 1.0, -1, .options = {0}},
    {"ddim", 1, 2.0, 5, .options = {0}},
    /* guidance */
    {"dpmpp_2m", 5, 2.0, 3, .options = {"guidance_sigma_min=0.3", "guidance_sigma_max=5"}},
    {"euler", 5, 4.0, 3, .options = {"guidance_rescale=0.7", "guidance_channels=2"}},
    {"ddim", 5, 0.6, 3, .options = {"guidance_method=cfg_pp"}},
    {"euler_ancestral", 5, 0.4, 8, .options = {"guidance_method=cfg_pp"}},
    {"heun", 4, 3.0, 3, .options = {"guidance_method=apg", "apg_momentum=-0.5", "apg_eta=0.2"}},
    {"dpmpp_2m", 5, 3.0, 3, .options = {"guidance_method=apg", "apg_norm_threshold=2", "guidance_rescale=0.5"}},
    {"ddim", 5, 2.0, 3, .options = {"guidance_method=autoguidance"}},
    {"euler", 4, 1.7, -1, .options = {"guidance_method=autoguidance", "guidance_sigma_max=3"}},
    {"ddim", 5, 0.0, 3, .options = {"guidance_method=classifier", "classifier_scale=4"}},
    {"dpmpp_2m", 5, 2.0, 6, .options = {"guidance_method=classifier"}},
    /* conditioning */
    {"ddim", 5, 2.0, 3, .mixture = true},
    {"dpmpp_2m", 5, 2.0, 3, .negative = true},
    {"ddim", 5, 1.0, 3, .options = {"variation_strength=0.3"}, .variation = true},
    {"dpmpp_2m", 7, 2.0, 3, .options = {"strength=0.6"}, .init = true},
    {"euler", 7, 1.0, 3, .init = true},
    {"heun", 6, 1.0, 3, .options = {"strength=0.4"}, .init = true, .variation = true},
    {"ddim", 5, 2.0, 3, .init = true, .mask = true},
    {"dpmpp_2m", 6, 1.0, 3, .options = {"strength=0.7"}, .init = true, .mask = true},
    {"ddpm", 4, 1.0, 3, .options = {"resample=3"}, .init = true, .mask = true},
    {"euler_ancestral", 4, 2.0, 3, .options = {"resample=2", "strength=0.8"}, .init = true, .mask = true},
    {"dpmpp_2m", 5, 2.0, 3, .options = {"strength=0"}, .init = true},
};
#define CASE_ROWS ((uint32_t)(sizeof case_rows / sizeof case_rows[0]))

static inline void set_option(dn_options *options, const char *text)
{
    char name[64];
    dn_option_id id;
    double value = 0.0;
    const char *word = strchr(text, '=') + 1;
    snprintf(name, sizeof name, "%.*s", (int)(word - 1 - text), text);
    if (!dn_option_find(name, &id)) {
        printf("FAIL no option %s\n", name);
        exit(1);
    }
    if (!dn_option_choice(id, word, &value))
        value = strtod(word, NULL);
    dn_option_set(options, id, value);
}

/* A given picture and its mask, the same for every case. */
static inline const float *case_init(void)
{
    static float init[ELEMENTS];
    for (int i = 0; i < ELEMENTS; i++)
        init[i] = (float)((i * 37 % 101) / 50.0 - 1.0);
    return init;
}

static inline const float *case_mask(void)
{
    static float mask[PLANE];
    for (int i = 0; i < PLANE; i++)
        mask[i] = i % 8 < 3 ? 0.0f : i < 16 ? 0.5f : 1.0f;
    return mask;
}

static inline dn_lane_spec spec_of_row(const case_row *row, uint64_t seed)
{
    dn_lane_spec spec = {.seed = seed,
                         .has_class = row->label >= 0,
                         .class_index = row->label >= 0 ? (uint32_t)row->label : 0,
                         .guidance_scale = row->scale,
                         .steps = row->steps,
                         .has_negative = row->negative,
                         .negative_class = 8,
                         .has_variation = row->variation,
                         .variation_seed = 77,
                         .init = row->init ? case_init() : NULL,
                         .mask = row->mask ? case_mask() : NULL};
    if (row->mixture)
        spec.mixture = (dn_condition){.count = 3, .classes = {2, 9, 4}, .weights = {0.5f, 0.75f, -0.25f}};
    snprintf(spec.sampler, sizeof spec.sampler, "%s", row->sampler);
    for (int i = 0; i < 3 && row->options[i] != NULL; i++)
        set_option(&spec.options, row->options[i]);
    return spec;
}

/* The index-th of the samplers that serve the network, in the table's order; NULL past them. */
static inline const dn_sampler *case_sampler(uint32_t index)
{
    const dn_sampler *sampler = NULL;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++)
        if ((sampler->families >> DN_FAMILY_VP & 1u) && index-- == 0)
            return sampler;
    return NULL;
}

static inline uint32_t case_samplers(void)
{
    uint32_t count = 0;
    while (case_sampler(count) != NULL)
        count++;
    return count;
}

/* The rows, every sampler from noise, and every sampler from a given picture (those that take none: from noise again). */
static inline uint32_t case_count(void)
{
    return CASE_ROWS + 2 * case_samplers();
}

static inline dn_lane_spec case_spec(uint32_t index)
{
    if (index < CASE_ROWS)
        return spec_of_row(&case_rows[index], 42 + index);
    uint32_t samplers = case_samplers(), which = index - CASE_ROWS;
    const dn_sampler *sampler = case_sampler(which % samplers);
    case_row row = {sampler->name, 6, 2.0, (int)(index % 10), .init = sampler->inverts};
    if (sampler->adaptive) {
        row.options[0] = "rtol=0.2";
        row.options[1] = "atol=0.2";
    } else if (which >= samplers && !sampler->inverts) {
        row.options[0] = "strength=0.6";
        row.init = true;
    }
    return spec_of_row(&row, 42 + index);
}

/* What the opened folder is made of: links, but for the classifier. */
static inline void save_classifier(const char *folder)
{
    dn_model *model = NULL;
    cJSON *config = dn_classifier_config(8, 8, 3, 10);
    cJSON_AddTrueToObject(config, "noise_aware");
    if (dn_model_from_config(&model, config, "the classifier", &error) != DN_OK ||
        dn_weights_create(&model->weights, model->plan, &error) != DN_OK)
        abort();
    dn_initialise(model->plan, model->weights, 5, false);
    if (dn_model_save(model, config, folder, DN_F32, &error) != DN_OK)
        abort();
    cJSON_Delete(config);
    dn_model_free(model);
}

static inline dn_engine *open_engine(unsigned threads)
{
    static const char *const links[][2] = {{PIPELINE "/model_index.json", "model_index.json"},
                                           {PIPELINE "/scheduler", "scheduler"},
                                           {PIPELINE "/unet", "unet"},
                                           {GUIDE, "guide"}};
    static const char *const saved[] = {"classifier/config.json", "classifier/diffusion_pytorch_model.safetensors"};
    char folder[] = "/tmp/denoised-cases-XXXXXX", here[512], path[1024], target[1024];
    dn_engine *engine = NULL;
    dn_engine_options options = {.threads = threads, .backend = case_backend};
    if (mkdtemp(folder) == NULL || getcwd(here, sizeof here) == NULL)
        abort();
    for (int i = 0; i < 4; i++) {
        snprintf(target, sizeof target, "%s/%s", here, links[i][0]);
        snprintf(path, sizeof path, "%s/%s", folder, links[i][1]);
        if (symlink(target, path) != 0)
            abort();
    }
    snprintf(path, sizeof path, "%s/classifier", folder);
    save_classifier(path);
    dn_status status = dn_engine_open(&engine, folder, &options, &error);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, links[i][1]);
        (void)unlink(path);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, saved[i]);
        (void)unlink(path);
    }
    snprintf(path, sizeof path, "%s/classifier", folder);
    (void)rmdir(path);
    (void)rmdir(folder);
    if (status != DN_OK) {
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
