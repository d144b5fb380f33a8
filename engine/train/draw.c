/* Shuffled epochs, choices and noise from philox words; see draw.h. */
#include "train/draw.h"

#include <stdlib.h>

#include "base/philox.h"

#define CHOICE_SALT 0x63686f696365u
#define SHUFFLE_SALT 0x73687566666c65u

dn_status dn_draw_create(dn_draw **out, const dn_dataset *dataset, uint64_t seed, dn_error *error)
{
    dn_draw *draw = calloc(1, sizeof *draw);
    uint32_t *permutation = calloc(dataset->count ? dataset->count : 1, sizeof *permutation);
    if (!draw || !permutation) {
        free(draw);
        free(permutation);
        return dn_fail(error, DN_NO_MEMORY, "no memory for the order of %u pictures", dataset->count);
    }
    *draw = (dn_draw){.dataset = dataset, .seed = seed, .epoch = UINT64_MAX, .permutation = permutation};
    *out = draw;
    return DN_OK;
}

void dn_draw_free(dn_draw *draw)
{
    if (draw) {
        free(draw->permutation);
        free(draw);
    }
}

/* Fisher-Yates with one word a swap; the bias of word * n >> 32 is below n / 2^32. */
static void shuffle(dn_draw *draw, uint64_t epoch)
{
    uint32_t count = draw->dataset->count;
    for (uint32_t i = 0; i < count; i++) {
        draw->permutation[i] = i;
    }
    for (uint32_t i = count; i > 1; i--) {
        uint32_t word = dn_noise_word(draw->seed ^ SHUFFLE_SALT, DN_STREAM_TRAIN, (uint32_t)epoch, i);
        uint32_t j = (uint32_t)((uint64_t)word * i >> 32), kept = draw->permutation[i - 1];
        draw->permutation[i - 1] = draw->permutation[j];
        draw->permutation[j] = kept;
    }
    draw->epoch = epoch;
}

void dn_draw_order(dn_draw *draw, uint64_t first, uint32_t count, uint32_t *order)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t epoch = (first + i) / draw->dataset->count;
        if (epoch != draw->epoch) {
            shuffle(draw, epoch);
        }
        order[i] = draw->permutation[(first + i) % draw->dataset->count];
    }
}

double dn_draw_choice(uint64_t seed, uint64_t g, dn_choice choice)
{
    return dn_noise_word(seed ^ CHOICE_SALT, DN_STREAM_TRAIN, (uint32_t)g, (uint64_t)choice) / 4294967296.0;
}

void dn_draw_noise(float *out, size_t count, uint64_t seed, uint64_t g)
{
    dn_noise_normal(out, count, 0, seed, DN_STREAM_TRAIN, (uint32_t)g);
}

void dn_draw_picture(float *out, const dn_dataset *dataset, uint32_t index, bool mirrored)
{
    uint32_t h = dataset->height, w = dataset->width, channels = dataset->channels;
    const uint8_t *pixels = dataset->pixels + (size_t)index * h * w * channels;
    for (uint32_t c = 0; c < channels; c++) {
        for (uint32_t y = 0; y < h; y++) {
            for (uint32_t x = 0; x < w; x++) {
                uint32_t from = mirrored ? w - 1 - x : x;
                *out++ = (float)pixels[((size_t)y * w + from) * channels + c] / 127.5f - 1.0f;
            }
        }
    }
}
