/* Pictures on a terminal: by the Kitty graphics protocol, iTerm2's inline images, sixel, or half-block characters.
 *
 * terminal_look finds out what the terminal can do, by the environment and, where that is safe, by asking it; terminal_show draws.
 * Pixels are [H][W][C] bytes, C 1 (grey) or 3 (RGB). One thread. */
#ifndef DN_SERVER_TERMINAL_H
#define DN_SERVER_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/text.h"

#define TERMINAL_WAYS "auto|kitty|iterm|sixel|blocks|none" /* what --show takes */

typedef enum terminal_way { TERMINAL_AUTO, TERMINAL_KITTY, TERMINAL_ITERM, TERMINAL_SIXEL, TERMINAL_BLOCKS, TERMINAL_NONE } terminal_way;

/* What blocks are made of. TERMINAL_ASCII has no escape code at all. */
typedef enum terminal_colours { TERMINAL_ASCII, TERMINAL_256, TERMINAL_TRUE } terminal_colours;

typedef struct terminal {
    int fd; /* where pictures go */
    terminal_way way; /* never TERMINAL_AUTO */
    terminal_colours colours;
    bool utf8; /* half blocks can be drawn; else a pixel is two blanks on its colour */
    bool tmux; /* graphics need its passthrough */
    bool moves; /* the cursor can be moved: what was drawn can be drawn over */
    uint32_t columns, rows; /* of the window, in cells */
    uint32_t cell_width, cell_height; /* pixels; a guess where the terminal does not tell */
} terminal;

/* One of TERMINAL_WAYS; false: none of them. */
bool terminal_way_parse(const char *text, terminal_way *out);
const char *terminal_way_name(terminal_way way);

/* What the terminal at fd can do. TERMINAL_AUTO draws nothing where fd is no terminal; any other `asked` is taken at its word. May ask
 * the terminal and wait a second for its answer (terminal_query). */
void terminal_look(terminal *out, int fd, terminal_way asked);

/* What somebody should know who asked for this way here (tmux's passthrough); NULL: nothing. */
const char *terminal_warning(const terminal *t, terminal_way asked);

/* Draws below the cursor's line, which is taken to be at its left edge, and leaves the cursor at the left edge below the picture.
 * *lines: how many lines that took; with `again` > 0 it draws over a picture that took so many lines just before. False: no memory, or the
 * terminal is gone. TERMINAL_NONE: draws nothing, 0 lines. */
bool terminal_show(const terminal *t, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels, uint32_t again,
                   uint32_t *lines);

/* ---- Parts (terminal_NAME.c) */

/* What a terminal answered. */
typedef struct terminal_answers {
    bool heard; /* it answered at all */
    bool kitty, sixel;
    uint32_t cell_width, cell_height; /* 0: not told */
} terminal_answers;

/* Asks for Kitty's graphics, the size of a cell and the primary device attributes, and reads until the last has come or a second
 * is over ($DENOISED_TERMINAL_WAIT: other seconds, 0: nothing is asked).
 * Asks nothing where that could do harm: a terminal that is not ours, or not in the foreground, or one at which something has been typed. */
terminal_answers terminal_query(int fd);
/* Answers in the bytes read so far; true: the last one is there. */
bool terminal_query_parse(terminal_answers *out, const char *bytes, size_t count);

/* Each pixel `up` times in both directions; or, with up 1, the mean of down x down ones. *out is malloc'd; false: no memory. */
bool terminal_scale(uint8_t **out, uint32_t *out_width, uint32_t *out_height, const uint8_t *pixels, uint32_t width, uint32_t height,
                    uint32_t channels, uint32_t up, uint32_t down);

/* Escape codes of a PNG; tmux: wrapped for its passthrough. The cursor stays where it is (Kitty), or is anywhere. */
void terminal_kitty(api_text *out, const unsigned char *png, size_t bytes, bool tmux);
void terminal_iterm(api_text *out, const unsigned char *png, size_t bytes, uint32_t columns, uint32_t rows, bool tmux);

#define TERMINAL_PALETTE_MAX 256

/* Colours in percent, the only unit that sixel has. */
typedef struct terminal_palette {
    uint32_t count;
    uint8_t colours[TERMINAL_PALETTE_MAX][3]; /* 0..100 */
    bool exact; /* every pixel's colour, as near as percents come, is among them */
} terminal_palette;

/* The colours of a picture: all of them where they are few enough, else those that lie nearest in the mean. False: no memory. */
bool terminal_palette_of(terminal_palette *out, const uint8_t *pixels, size_t pixel_count, uint32_t channels);
/* The colour of each pixel, one byte each: the nearest, or, where the palette is not exact, so that the error is spread (Floyd and
 * Steinberg). *out is malloc'd; false: no memory. */
bool terminal_palette_map(uint8_t **out, const terminal_palette *palette, const uint8_t *pixels, uint32_t width, uint32_t height,
                          uint32_t channels);
uint8_t terminal_percent(uint8_t value); /* 0..255 to 0..100 */

/* False: no memory. */
bool terminal_sixel(api_text *out, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels);

/* Lines of blocks, each ended by a newline; returns how many. */
uint32_t terminal_blocks(api_text *out, const terminal *t, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t channels);

#endif
