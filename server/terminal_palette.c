/* At most 256 colours for a picture, and each pixel's (terminal.h).
 *
 * Too many colours are divided by their variance: the box of colours that is worst represented by its mean is cut at that mean, across the
 * axis on which it is widest, until there are 256. */
#include <stdlib.h>
#include <string.h>

#include "server/terminal.h"

typedef struct box {
    size_t first, count; /* of the sorted pixels */
    double error; /* sum of squared distances from the mean, on the widest axis */
    double mean[3];
    int axis;
} box;

typedef struct colour {
    uint8_t c[3];
} colour;

uint8_t terminal_percent(uint8_t value)
{
    return (uint8_t)((value * 100 + 127) / 255);
}

static colour colour_at(const uint8_t *pixels, size_t i, uint32_t channels)
{
    const uint8_t *at = pixels + i * channels;
    return channels == 1 ? (colour){{at[0], at[0], at[0]}} : (colour){{at[0], at[1], at[2]}};
}

static uint32_t packed(colour p)
{
    return (uint32_t)terminal_percent(p.c[0]) << 16 | (uint32_t)terminal_percent(p.c[1]) << 8 | terminal_percent(p.c[2]);
}

static int compare_packed(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Takes all colours if there are at most 256. */
static bool take_all(terminal_palette *out, uint32_t *values, size_t count)
{
    size_t distinct = 0;
    qsort(values, count, sizeof *values, compare_packed);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || values[i] != values[i - 1]) {
            if (distinct == TERMINAL_PALETTE_MAX)
                return false;
            out->colours[distinct][0] = (uint8_t)(values[i] >> 16);
            out->colours[distinct][1] = (uint8_t)(values[i] >> 8 & 255);
            out->colours[distinct++][2] = (uint8_t)(values[i] & 255);
        }
    out->count = (uint32_t)distinct;
    return true;
}

static box box_of(const colour *pixels, size_t first, size_t count)
{
    box b = {.first = first, .count = count};
    for (int k = 0; k < 3; k++) {
        double sum = 0.0, squares = 0.0;
        for (size_t i = first; i < first + count; i++) {
            sum += pixels[i].c[k];
            squares += (double)pixels[i].c[k] * pixels[i].c[k];
        }
        b.mean[k] = sum / (double)count;
        const double error = squares - sum * b.mean[k];
        if (k == 0 || error > b.error) {
            b.error = error;
            b.axis = k;
        }
    }
    return b;
}

/* Puts pixels up to the mean before those above it; how many those are. */
static size_t cut(colour *pixels, const box *b)
{
    size_t low = 0;
    for (size_t i = 0; i < b->count; i++) {
        colour *here = &pixels[b->first + i], *there = &pixels[b->first + low];
        if ((double)here->c[b->axis] <= b->mean[b->axis]) {
            const colour kept = *here;
            *here = *there;
            *there = kept;
            low++;
        }
    }
    return low;
}

static void divide(terminal_palette *out, colour *pixels, size_t count)
{
    box boxes[TERMINAL_PALETTE_MAX];
    uint32_t made = 1;
    boxes[0] = box_of(pixels, 0, count);
    while (made < TERMINAL_PALETTE_MAX) {
        box *worst = &boxes[0];
        for (uint32_t i = 1; i < made; i++)
            worst = boxes[i].error > worst->error ? &boxes[i] : worst;
        const size_t low = worst->error > 0.0 ? cut(pixels, worst) : worst->count;
        if (low == 0 || low == worst->count)
            break; /* every box is one colour */
        boxes[made++] = box_of(pixels, worst->first + low, worst->count - low);
        *worst = box_of(pixels, worst->first, low);
    }
    for (uint32_t i = 0; i < made; i++)
        for (int k = 0; k < 3; k++)
            out->colours[i][k] = terminal_percent((uint8_t)(boxes[i].mean[k] + 0.5));
    out->count = made;
}

bool terminal_palette_of(terminal_palette *out, const uint8_t *pixels, size_t pixel_count, uint32_t channels)
{
    colour *copy = malloc(pixel_count * sizeof *copy);
    uint32_t *values = malloc(pixel_count * sizeof *values);
    if (copy != NULL && values != NULL) {
        for (size_t i = 0; i < pixel_count; i++) {
            copy[i] = colour_at(pixels, i, channels);
            values[i] = packed(copy[i]);
        }
        out->exact = take_all(out, values, pixel_count);
        if (!out->exact)
            divide(out, copy, pixel_count);
    }
    const bool made = copy != NULL && values != NULL;
    free(copy);
    free(values);
    return made;
}

static uint8_t nearest(const terminal_palette *palette, const float wanted[3])
{
    uint8_t best = 0;
    float least = 0.0f;
    for (uint32_t i = 0; i < palette->count; i++) {
        float distance = 0.0f;
        for (int k = 0; k < 3; k++) {
            const float d = wanted[k] - (float)palette->colours[i][k];
            distance += d * d;
        }
        if (i == 0 || distance < least) {
            least = distance;
            best = (uint8_t)i;
        }
    }
    return best;
}

/* One row, alternately from the left and from the right; errors go to `here` and `below`, in percents, one pixel of room at either end. */
static void map_row(uint8_t *out, const terminal_palette *palette, const uint8_t *row, uint32_t width, uint32_t channels, bool leftward,
                    float (*here)[3], float (*below)[3])
{
    const int step = leftward ? -1 : 1;
    uint32_t x = leftward ? width - 1 : 0;
    for (uint32_t i = 0; i < width; i++, x = (uint32_t)((int)x + step)) {
        const colour given = colour_at(row, x, channels);
        float wanted[3];
        for (int k = 0; k < 3; k++) {
            const float value = palette->exact ? (float)terminal_percent(given.c[k]) : (float)given.c[k] * 100.0f / 255.0f + here[x + 1][k];
            wanted[k] = value < 0.0f ? 0.0f : value > 100.0f ? 100.0f : value;
        }
        out[x] = nearest(palette, wanted);
        for (int k = 0; k < 3; k++) {
            const float error = wanted[k] - (float)palette->colours[out[x]][k];
            here[(int)x + 1 + step][k] += error * 7.0f / 16.0f;
            below[(int)x + 1 - step][k] += error * 3.0f / 16.0f;
            below[x + 1][k] += error * 5.0f / 16.0f;
            below[(int)x + 1 + step][k] += error * 1.0f / 16.0f;
        }
    }
}

bool terminal_palette_map(uint8_t **out, const terminal_palette *palette, const uint8_t *pixels, uint32_t width, uint32_t height,
                          uint32_t channels)
{
    uint8_t *indices = malloc((size_t)width * height);
    float(*errors)[3] = calloc(2 * ((size_t)width + 2), sizeof *errors);
    if (indices == NULL || errors == NULL) {
        free(indices);
        free(errors);
        return false;
    }
    for (uint32_t y = 0; y < height; y++) {
        float(*here)[3] = errors + (y % 2) * (width + 2), (*below)[3] = errors + (1 - y % 2) * (width + 2);
        memset(below, 0, (width + 2) * sizeof *below);
        map_row(indices + (size_t)y * width, palette, pixels + (size_t)y * width * channels, width, channels, y % 2 == 1, here, below);
    }
    free(errors);
    *out = indices;
    return true;
}
