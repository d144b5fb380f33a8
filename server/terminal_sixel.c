/* Sixel (terminal.h): bands of six rows, one pass a colour, repeated columns counted. The picture's size and square pixels are declared. */
#include <stdlib.h>
#include <string.h>

#include "server/terminal.h"

#define BAND 6

static void add_run(api_text *out, char sixel, uint32_t count)
{
    if (count > 3)
        api_text_format(out, "!%u%c", count, sixel);
    else
        for (uint32_t i = 0; i < count; i++)
            api_text_bytes(out, &sixel, 1);
}

/* The columns of one colour in a band; blank ones at its end are left out. */
static void add_pass(api_text *out, const uint8_t *indices, uint32_t width, uint32_t rows, uint8_t colour)
{
    char last = 0;
    uint32_t run = 0;
    api_text_format(out, "#%u", colour);
    for (uint32_t x = 0; x < width; x++) {
        char bits = 0;
        for (uint32_t y = 0; y < rows; y++)
            if (indices[(size_t)y * width + x] == colour)
                bits = (char)(bits | 1 << y);
        if (run > 0 && bits != last) {
            add_run(out, (char)('?' + last), run);
            run = 0;
        }
        last = bits;
        run++;
    }
    if (last != 0)
        add_run(out, (char)('?' + last), run);
}

static void add_band(api_text *out, const uint8_t *indices, uint32_t width, uint32_t rows)
{
    bool used[TERMINAL_PALETTE_MAX] = {false}, first = true;
    for (size_t i = 0; i < (size_t)width * rows; i++)
        used[indices[i]] = true;
    for (uint32_t colour = 0; colour < TERMINAL_PALETTE_MAX; colour++) {
        if (!used[colour])
            continue;
        if (!first)
            api_text_add(out, "$");
        first = false;
        add_pass(out, indices, width, rows, (uint8_t)colour);
    }
}

bool terminal_sixel(api_text *out, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels)
{
    terminal_palette palette;
    uint8_t *indices = NULL;
    if (!terminal_palette_of(&palette, pixels, (size_t)width * height, channels) ||
        !terminal_palette_map(&indices, &palette, pixels, width, height, channels))
        return false;
    api_text_format(out, "\033P0;1;0q\"1;1;%u;%u", width, height);
    for (uint32_t i = 0; i < palette.count; i++)
        api_text_format(out, "#%u;2;%u;%u;%u", i, palette.colours[i][0], palette.colours[i][1], palette.colours[i][2]);
    for (uint32_t y = 0; y < height; y += BAND) {
        if (y > 0)
            api_text_add(out, "-");
        add_band(out, indices + (size_t)y * width, width, height - y < BAND ? height - y : BAND);
    }
    api_text_add(out, "\033\\");
    free(indices);
    return true;
}
