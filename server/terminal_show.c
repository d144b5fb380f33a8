/* Draws a picture in whatever way the terminal has (terminal.h): how large, where, and by whom. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "format/png_image.h"
#include "server/terminal.h"

#define SIDE_PIXELS 256 /* what a small picture is brought up to, by whole factors */
#define SIDE_BLOCKS 64
#define LINES_KEPT 2 /* for the prompt and what is said of the picture */

typedef struct size {
    uint32_t width, height;
} size;

/* The window, in pixels of this way. */
static size room_of(const terminal *t)
{
    const uint32_t lines = t->rows > LINES_KEPT + 1 ? t->rows - LINES_KEPT : 1;
    if (t->way != TERMINAL_BLOCKS)
        return (size){t->columns * t->cell_width, lines * t->cell_height};
    const bool halves = t->utf8 || t->colours == TERMINAL_ASCII;
    return halves ? (size){t->columns, 2 * lines} : (size){t->columns / 2, lines};
}

static void choose_scale(const terminal *t, uint32_t width, uint32_t height, uint32_t *up, uint32_t *down)
{
    const size room = room_of(t);
    const uint32_t side = t->way == TERMINAL_BLOCKS ? SIDE_BLOCKS : SIDE_PIXELS;
    *up = *down = 1;
    while (width * (*up + 1) <= room.width && height * (*up + 1) <= room.height && width * (*up + 1) <= side && height * (*up + 1) <= side)
        ++*up;
    while (*up == 1 && ((width + *down - 1) / *down > room.width || (height + *down - 1) / *down > room.height) && *down < width)
        ++*down;
}

/* Makes room for so many lines, so that nothing scrolls while a picture is drawn, draws, and goes below it. */
static void place(api_text *out, const api_text *code, uint32_t lines)
{
    for (uint32_t i = 0; i < lines; i++)
        api_text_add(out, "\n");
    api_text_format(out, "\033[%uA\0337", lines);
    api_text_bytes(out, code->data, code->length);
    api_text_format(out, "\0338\033[%uB\r", lines);
}

static bool add_graphics(api_text *out, const terminal *t, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels,
                         uint32_t *lines)
{
    api_text code = API_TEXT_INIT;
    unsigned char *png = NULL;
    size_t bytes = 0;
    const uint32_t columns = (width + t->cell_width - 1) / t->cell_width;
    bool made = true;
    *lines = (height + t->cell_height - 1) / t->cell_height;
    if (t->way == TERMINAL_SIXEL)
        made = terminal_sixel(&code, pixels, width, height, channels);
    else
        made = dn_png_encode(&png, &bytes, pixels, width, height, channels, NULL, 0, NULL) == DN_OK;
    if (made && t->way == TERMINAL_KITTY)
        terminal_kitty(&code, png, bytes, t->tmux);
    if (made && t->way == TERMINAL_ITERM)
        terminal_iterm(&code, png, bytes, columns, *lines, t->tmux);
    free(png);
    made = made && !code.failed;
    if (made)
        place(out, &code, *lines);
    free(api_text_take(&code));
    return made;
}

static bool write_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t wrote = write(fd, bytes, count);
        if (wrote < 0 && errno != EINTR)
            return false;
        bytes += wrote > 0 ? wrote : 0;
        count -= wrote > 0 ? (size_t)wrote : 0;
    }
    return true;
}

bool terminal_show(const terminal *t, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels, uint32_t again,
                   uint32_t *lines)
{
    api_text out = API_TEXT_INIT;
    uint8_t *scaled = NULL;
    uint32_t up, down, wide, high;
    *lines = 0;
    if (t->way == TERMINAL_NONE)
        return true;
    choose_scale(t, width, height, &up, &down);
    if (!terminal_scale(&scaled, &wide, &high, pixels, width, height, channels, up, down))
        return false;
    if (again > 0)
        api_text_format(&out, "\033[%uA\r", again);
    bool made = true;
    if (t->way == TERMINAL_BLOCKS)
        *lines = terminal_blocks(&out, t, scaled, wide, high, channels);
    else
        made = add_graphics(&out, t, scaled, wide, high, channels, lines);
    free(scaled);
    const size_t bytes = out.length;
    char *text = api_text_take(&out);
    made = made && text != NULL && write_all(t->fd, text, bytes);
    free(text);
    return made;
}
