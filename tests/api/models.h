/* Four models for the tests of requests: fashion (10 classes, guided), birds (synonyms, one shared), plain (no classes) and bare
 * (classes without a null class). */
#ifndef TESTS_API_MODELS_H
#define TESTS_API_MODELS_H

#include <string.h>

#include "api/generate_request.h"

static char *fashion_names[] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"};
static char *bird_names[] = {"tench, Tinca tinca", "crane", "goldfish, Carassius auratus", "crane, lifting gear", "7", "\xC3\xA9toile", "a,,  b ,"};

static const api_model fashion = {.name = "fashion-mnist",
                                  .architecture = "UNet2DModel",
                                  .width = 32,
                                  .height = 32,
                                  .channels = 1,
                                  .guidance = true,
                                  .class_count = 10,
                                  .class_names = fashion_names,
                                  .default_sampler = "dpmpp_2m",
                                  .default_steps = 20,
                                  .default_guidance = 2,
                                  .weights_sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                                  .device = "cpu",
                                  .build = "fedcba9876543210"};
static const api_model birds = {.name = "birds",
                                .architecture = "UNet2DModel",
                                .width = 64,
                                .height = 48,
                                .channels = 3,
                                .guidance = true,
                                .class_count = 7,
                                .class_names = bird_names,
                                .default_sampler = "model",
                                .default_steps = 50,
                                .default_guidance = 1,
                                .device = "cpu"};
static const api_model plain = {.name = "plain",
                                .architecture = "UNet2DModel",
                                .width = 16,
                                .height = 16,
                                .channels = 3,
                                .default_sampler = "ddim",
                                .default_steps = 10,
                                .default_guidance = 1};
static const api_model bare = {.name = "bare",
                               .architecture = "UNet2DModel",
                               .width = 16,
                               .height = 16,
                               .channels = 1,
                               .class_count = 10,
                               .class_names = fashion_names,
                               .default_sampler = "ddim",
                               .default_steps = 10,
                               .default_guidance = 1};

static inline const api_model *find_model(void *payload, const char *name)
{
    const api_model *const all[] = {&fashion, &birds, &plain, &bare};
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
