/* What a terminal can do (terminal.h): by the environment first, since a terminal that names itself need not be asked. */
#include <string.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "server/terminal.h"

#define CELL_WIDTH 10 /* pixels, where nobody tells */
#define CELL_HEIGHT 20
#define COLUMNS 80
#define ROWS 24

static const char *const way_names[] = {"auto", "kitty", "iterm", "sixel", "blocks", "none"};

bool terminal_way_parse(const char *text, terminal_way *out)
{
    for (size_t i = 0; i < sizeof way_names / sizeof way_names[0]; i++)
        if (strcmp(text, way_names[i]) == 0) {
            *out = (terminal_way)i;
            return true;
        }
    return false;
}

const char *terminal_way_name(terminal_way way)
{
    return way_names[way];
}

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value != NULL ? value : "";
}

static bool is(const char *name, const char *value)
{
    return strcmp(environment(name), value) == 0;
}

static bool has(const char *name, const char *part)
{
    return strstr(environment(name), part) != NULL;
}

static bool is_set(const char *name)
{
    return environment(name)[0] != '\0';
}

/* Without a name in TERM nothing is known of it; a dumb one has no escape codes. */
static bool is_dumb(void)
{
    return !is_set("TERM") || is("TERM", "dumb") || is("TERM", "unknown");
}

static bool has_utf8(void)
{
    const char *names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < 3; i++)
        if (is_set(names[i]))
            return has(names[i], "UTF-8") || has(names[i], "utf8") || has(names[i], "utf-8") || has(names[i], "UTF8");
    return false;
}

static terminal_colours colours_of(terminal_way by_name)
{
    if (is_set("NO_COLOR") || is_dumb())
        return TERMINAL_ASCII;
    if (is("COLORTERM", "truecolor") || is("COLORTERM", "24bit") || has("TERM", "direct") || by_name == TERMINAL_KITTY ||
        by_name == TERMINAL_ITERM)
        return TERMINAL_TRUE;
    if (has("TERM", "256") || has("TERM", "xterm") || has("TERM", "screen") || has("TERM", "tmux"))
        return TERMINAL_256;
    return TERMINAL_ASCII;
}

/* Terminals that say who they are, and are known to draw pictures. Within tmux or screen their names are inherited and mean nothing. */
static terminal_way way_by_name(void)
{
    if (is_set("TMUX") || is_set("STY") || has("TERM", "screen") || has("TERM", "tmux"))
        return TERMINAL_AUTO;
    if (is_set("KITTY_WINDOW_ID") || is("TERM", "xterm-kitty") || is("TERM", "xterm-ghostty") || is("TERM_PROGRAM", "ghostty"))
        return TERMINAL_KITTY;
    if (is("TERM_PROGRAM", "iTerm.app") || is("LC_TERMINAL", "iTerm2") || is("TERM_PROGRAM", "WezTerm"))
        return TERMINAL_ITERM;
    if (is("TERM", "linux") || is("TERM_PROGRAM", "Apple_Terminal"))
        return TERMINAL_BLOCKS; /* the former prints what it does not know */
    return TERMINAL_AUTO;
}

static void measure(terminal *t)
{
    struct winsize size = {0};
    if (ioctl(t->fd, TIOCGWINSZ, &size) != 0)
        return;
    t->columns = size.ws_col > 0 ? size.ws_col : t->columns;
    t->rows = size.ws_row > 0 ? size.ws_row : t->rows;
    if (size.ws_col > 0 && size.ws_row > 0 && size.ws_xpixel >= size.ws_col && size.ws_ypixel >= size.ws_row) {
        t->cell_width = size.ws_xpixel / size.ws_col;
        t->cell_height = size.ws_ypixel / size.ws_row;
    }
}

void terminal_look(terminal *out, int fd, terminal_way asked)
{
    const terminal_way by_name = way_by_name();
    *out = (terminal){.fd = fd,
                      .way = asked,
                      .colours = colours_of(by_name),
                      .utf8 = has_utf8(),
                      .tmux = is_set("TMUX"),
                      .moves = isatty(fd) && !is_dumb(),
                      .columns = COLUMNS,
                      .rows = ROWS};
    measure(out);
    if (asked == TERMINAL_AUTO && (!isatty(fd) || by_name != TERMINAL_AUTO || out->colours == TERMINAL_ASCII))
        out->way = !isatty(fd) ? TERMINAL_NONE : out->colours == TERMINAL_ASCII ? TERMINAL_BLOCKS : by_name;
    if (out->way == TERMINAL_AUTO || (out->way == TERMINAL_SIXEL && out->cell_width == 0)) {
        const terminal_answers answers = terminal_query(fd);
        if (out->cell_width == 0 && answers.cell_width > 0) {
            out->cell_width = answers.cell_width;
            out->cell_height = answers.cell_height;
        }
        if (out->way == TERMINAL_AUTO)
            out->way = answers.kitty ? TERMINAL_KITTY : answers.sixel ? TERMINAL_SIXEL : TERMINAL_BLOCKS;
    }
    if (out->way == TERMINAL_BLOCKS && out->colours == TERMINAL_ASCII)
        out->moves = false;
    if (out->cell_width == 0) {
        out->cell_width = CELL_WIDTH;
        out->cell_height = CELL_HEIGHT;
    }
}

const char *terminal_warning(const terminal *t, terminal_way asked)
{
    if (t->tmux && (asked == TERMINAL_KITTY || asked == TERMINAL_ITERM))
        return "tmux passes pictures on only after `tmux set -p allow-passthrough on` (3.3 or newer), does not know of them, and wipes or "
               "keeps them as it likes; --show blocks always works";
    if (is_set("STY") && (asked == TERMINAL_KITTY || asked == TERMINAL_ITERM || asked == TERMINAL_SIXEL))
        return "screen shows no pictures; --show blocks always works";
    return NULL;
}
