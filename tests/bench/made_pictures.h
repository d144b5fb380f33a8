/* A training set that is made up, for benches: what a step costs does not depend on what it is shown. */
#ifndef TESTS_BENCH_MADE_PICTURES_H
#define TESTS_BENCH_MADE_PICTURES_H

#include <stdlib.h>

#include "format/idx.h"

/* Square grey pictures of noise, classes in turn; pixels and labels are never freed. */
static inline dn_dataset made_pictures(uint32_t count, uint32_t side, uint32_t classes)
{
    const size_t pixels = (size_t)count * side * side;
    dn_dataset data = {.count = count, .width = side, .height = side, .channels = 1, .class_count = classes};
    data.pixels = malloc(pixels);
    data.labels = malloc(count);
    if (data.pixels == NULL || data.labels == NULL)
        abort();
    uint32_t state = 1;
    for (size_t i = 0; i < pixels; i++)
        data.pixels[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
    for (uint32_t i = 0; i < count; i++)
        data.labels[i] = (uint8_t)(i % classes);
    return data;
}

#endif
