/* Four models for the tests of requests: fashion (10 classes, guided), birds (synonyms, one shared; latents; every guidance method),
 * plain (no classes) and bare (classes without a null class, a scheduler unknown here, no sampler but ddim and euler). */
#ifndef TESTS_API_MODELS_H
#define TESTS_API_MODELS_H

#include <stdlib.h>
#include <string.h>

#include "api/generate_request.h"

static char *fashion_names[] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};
static char *bird_names[] = {"tench, Tinca tinca", "crane",   "goldfish, Carassius auratus", "crane, lifting gear", "7",
                             "\xC3\xA9toile",      "a,,  b ,"};

#define CONDITIONING_FIELDS                                                                                                                \
    {DN_OPT_STRENGTH, 0, 1, 0.75}, {DN_OPT_RESAMPLE, 1, 32, 1},                                                                            \
    {                                                                                                                                      \
        DN_OPT_VARIATION_STRENGTH, 0, 1, 0                                                                                                 \
    }
#define GUIDANCE_FIELDS                                                                                                                    \
    {DN_OPT_GUIDANCE_SIGMA_MIN, 0, 1e9, 0}, {DN_OPT_GUIDANCE_SIGMA_MAX, 0, 1e9, 1e9}, {DN_OPT_GUIDANCE_RESCALE, 0, 1, 0},                  \
        {DN_OPT_GUIDANCE_CHANNELS, 0, 4, 0}, {DN_OPT_APG_ETA, -10, 10, 1}, {DN_OPT_APG_NORM, 0, 1e6, 0},                                   \
    {                                                                                                                                      \
        DN_OPT_APG_MOMENTUM, -1, 1, 0                                                                                                      \
    }
#define NULL_METHODS (1u << DN_GUIDE_CFG | 1u << DN_GUIDE_CFG_PP | 1u << DN_GUIDE_APG)

static api_model fashion = {
    .name = "fashion-mnist",
    .architecture = "UNet2DModel",
    .width = 32,
    .height = 32,
    .channels = 1,
    .guidance = true,
    .unconditional = true,
    .null_class = 10,
    .guidance_methods = NULL_METHODS,
    .field_count = 11,
    .fields = {{DN_OPT_GUIDANCE_METHOD, DN_GUIDE_CFG, DN_GUIDE_CLASSIFIER, DN_GUIDE_CFG}, GUIDANCE_FIELDS, CONDITIONING_FIELDS},
    .samplers = UINT64_MAX,
    .model_sampler = "ddim",
    .class_count = 10,
    .class_names = fashion_names,
    .default_sampler = "dpmpp_2m",
    .default_steps = 20,
    .default_guidance = 2,
    .weights_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    .device = "cpu",
    .precision = "fp32",
    .build = "fedcba9876543210"};
static const api_model birds = {.name = "birds",
                                .architecture = "UNet2DModel",
                                .width = 64,
                                .height = 48,
                                .channels = 3,
                                .latent = true,
                                .latent_width = 8,
                                .latent_height = 6,
                                .latent_channels = 4,
                                .guidance = true,
                                .unconditional = true,
                                .null_class = 7,
                                .guidance_methods = 31,
                                .field_count = 12,
                                .fields = {{DN_OPT_GUIDANCE_METHOD, DN_GUIDE_CFG, DN_GUIDE_CLASSIFIER, DN_GUIDE_CFG},
                                           GUIDANCE_FIELDS,
                                           {DN_OPT_CLASSIFIER_SCALE, 0, 1000, 1},
                                           CONDITIONING_FIELDS},
                                .samplers = UINT64_MAX,
                                .model_sampler = "euler",
                                .class_count = 7,
                                .class_names = bird_names,
                                .default_sampler = "model",
                                .default_steps = 50,
                                .default_guidance = 1,
                                .device = "cpu",
                                .precision = "fp32"};
static const api_model plain = {.name = "plain",
                                .architecture = "UNet2DModel",
                                .width = 16,
                                .height = 16,
                                .channels = 3,
                                .field_count = 3,
                                .fields = {CONDITIONING_FIELDS},
                                .unconditional = true,
                                .samplers = UINT64_MAX,
                                .model_sampler = "ddpm",
                                .default_sampler = "ddim",
                                .default_steps = 10,
                                .default_guidance = 1,
                                .precision = "fp32"};
static api_model bare = {.name = "bare",
                         .architecture = "UNet2DModel",
                         .width = 16,
                         .height = 16,
                         .channels = 1,
                         .class_count = 10,
                         .class_names = fashion_names,
                         .default_sampler = "ddim",
                         .default_steps = 10,
                         .default_guidance = 2,
                         .precision = "fp32"};

/* A sampler's bit in api_model.samplers, wherever it stands in the table. */
static inline uint64_t sampler_bit(const char *name)
{
    uint32_t i = 0;
    while (strcmp(dn_sampler_at(i)->name, name) != 0) {
        i++;
    }
    return UINT64_C(1) << i;
}

/* As a pipeline with diffusers' DDIM scheduler and all its defaults. */
static inline void train_fashion(void)
{
    const dn_sampler *sampler;
    if (fashion.training) {
        return;
    }
    cJSON *scheduler = cJSON_Parse("{\"_class_name\":\"DDIMScheduler\"}");
    if (!scheduler || api_model_set_training(&fashion, scheduler, 0, 0, false, NULL) != DN_OK) {
        abort();
    }
    cJSON_Delete(scheduler);
    fashion.samplers = 0;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        fashion.samplers |= (uint64_t)(sampler->families >> DN_FAMILY_VP & 1u) << i;
    }
}

static inline const api_model *find_model(void *payload, const char *name)
{
    const api_model *const all[] = {&fashion, &birds, &plain, &bare};
    bare.samplers = sampler_bit("ddim") | sampler_bit("euler");
    train_fashion();
    if (!name) {
        return payload ? NULL : &fashion; /* any payload: a daemon whose models have never been loaded */
    }
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            return all[i];
        }
    }
    return NULL;
}

#endif
