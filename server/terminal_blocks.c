/* Pictures of characters (terminal.h): two pixels a cell by the upper half block, its own colour above and the ground's below. Without
 * UTF-8 a pixel is two blanks on its colour; without colour a cell is a character as dense as its two pixels are light. */
#include <stdlib.h>

#include "server/terminal.h"

static const char ramp[] = " .:-=+*#%@"; /* for light characters on a dark ground */

typedef struct rgb {
    uint8_t r, g, b;
} rgb;

static rgb pixel(const uint8_t *pixels, uint32_t width, uint32_t channels, uint32_t x, uint32_t y)
{
    const uint8_t *at = pixels + ((size_t)y * width + x) * channels;
    return channels == 1 ? (rgb){at[0], at[0], at[0]} : (rgb){at[0], at[1], at[2]};
}

static int distance(rgb a, int r, int g, int b)
{
    return (a.r - r) * (a.r - r) + (a.g - g) * (a.g - g) + (a.b - b) * (a.b - b);
}

/* The nearest of the 6x6x6 cube (16 to 231) and the 24 greys (232 to 255), which every terminal of 256 colours has alike. */
static unsigned colour_256(rgb p)
{
    static const int levels[] = {0, 95, 135, 175, 215, 255};
    int near[3] = {0, 0, 0};
    const int wanted[3] = {p.r, p.g, p.b};
    for (int k = 0; k < 3; k++)
        for (int i = 1; i < 6; i++)
            if (abs(levels[i] - wanted[k]) < abs(levels[near[k]] - wanted[k]))
                near[k] = i;
    int grey = ((p.r + p.g + p.b) / 3 - 8 + 5) / 10;
    grey = grey < 0 ? 0 : grey > 23 ? 23 : grey;
    const int value = 8 + 10 * grey;
    return distance(p, value, value, value) < distance(p, levels[near[0]], levels[near[1]], levels[near[2]])
               ? 232u + (unsigned)grey
               : 16u + 36u * (unsigned)near[0] + 6u * (unsigned)near[1] + (unsigned)near[2];
}

static void add_colour(api_text *out, const terminal *t, unsigned ground, rgb p)
{
    if (t->colours == TERMINAL_TRUE)
        api_text_format(out, "\033[%u;2;%u;%u;%um", ground, p.r, p.g, p.b);
    else
        api_text_format(out, "\033[%u;5;%um", ground, colour_256(p));
}

static void add_ascii_row(api_text *out, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels, uint32_t y)
{
    char line[2] = "";
    size_t blanks = 0;
    for (uint32_t x = 0; x < width; x++) {
        const rgb above = pixel(pixels, width, channels, x, y), below = y + 1 < height ? pixel(pixels, width, channels, x, y + 1) : above;
        const unsigned light = (299u * (above.r + below.r) + 587u * (above.g + below.g) + 114u * (above.b + below.b)) / 2000u;
        line[0] = ramp[light * (sizeof ramp - 2) / 255];
        blanks += line[0] == ' ';
        for (; line[0] != ' ' && blanks > 0; blanks--)
            api_text_add(out, " ");
        if (line[0] != ' ')
            api_text_add(out, line);
    }
}

static bool same(rgb a, rgb b)
{
    return a.r == b.r && a.g == b.g && a.b == b.b;
}

static void add_half_row(api_text *out, const terminal *t, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels,
                         uint32_t y)
{
    rgb above = {0, 0, 0}, below = {0, 0, 0};
    for (uint32_t x = 0; x < width; x++) {
        const rgb upper = pixel(pixels, width, channels, x, y);
        if (x == 0 || !same(upper, above))
            add_colour(out, t, 38, upper);
        above = upper;
        if (y + 1 < height) {
            const rgb lower = pixel(pixels, width, channels, x, y + 1);
            if (x == 0 || !same(lower, below))
                add_colour(out, t, 48, lower);
            below = lower;
        }
        api_text_add(out, "\xe2\x96\x80");
    }
    api_text_add(out, "\033[0m");
}

static void add_blank_row(api_text *out, const terminal *t, const uint8_t *pixels, uint32_t width, uint32_t channels, uint32_t y)
{
    for (uint32_t x = 0; x < width; x++) {
        add_colour(out, t, 48, pixel(pixels, width, channels, x, y));
        api_text_add(out, "  ");
    }
    api_text_add(out, "\033[0m");
}

uint32_t terminal_blocks(api_text *out, const terminal *t, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels)
{
    const uint32_t step = t->utf8 || t->colours == TERMINAL_ASCII ? 2 : 1;
    uint32_t lines = 0;
    for (uint32_t y = 0; y < height; y += step, lines++) {
        if (t->colours == TERMINAL_ASCII)
            add_ascii_row(out, pixels, width, height, channels, y);
        else if (t->utf8)
            add_half_row(out, t, pixels, width, height, channels, y);
        else
            add_blank_row(out, t, pixels, width, channels, y);
        api_text_add(out, "\n");
    }
    return lines;
}
