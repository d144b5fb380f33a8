/* The progress bar: label, bar, share, time left. Owns nothing. */
#include "server/progress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define BAR_CELLS 24
#define DRAW_INTERVAL_SECONDS 0.1

void dn_progress_begin(dn_progress_bar *bar, const char *label, double total)
{
    bar->label = label;
    bar->total = total > 0.0 ? total : 1.0;
    bar->started = dn_now_seconds();
    bar->drawn = 0.0;
    const char *term = getenv("TERM");
    bar->terminal = isatty(STDERR_FILENO) != 0 && term != NULL && term[0] != '\0' && strcmp(term, "dumb") != 0;
    bar->width = 0;
}

/* Blanks wipe what a longer line left: no escape code is needed, whatever the terminal. */
static void draw(dn_progress_bar *bar, const char *line, int width)
{
    fprintf(stderr, "\r%s%*s", line, bar->width > width ? bar->width - width : 0, "");
    bar->width = width;
}

void dn_progress_update(dn_progress_bar *bar, double done, const char *note)
{
    const double share = fmin(done / bar->total, 1.0), spent = dn_now_seconds() - bar->started;
    dn_progress_update_left(bar, done, share > 0.0 ? spent * (1.0 - share) / share : 0.0, note);
}

void dn_progress_update_left(dn_progress_bar *bar, double done, double left_seconds, const char *note)
{
    double now = dn_now_seconds();
    if (!bar->terminal || now - bar->drawn < DRAW_INTERVAL_SECONDS)
        return;
    bar->drawn = now;
    double share = fmin(done / bar->total, 1.0);
    char cells[BAR_CELLS + 1], left[32] = "";
    for (int i = 0; i < BAR_CELLS; i++)
        cells[i] = i < (int)(share * BAR_CELLS) ? '#' : '.';
    cells[BAR_CELLS] = '\0';
    if (left_seconds >= 0.0 && left_seconds < 1e6)
        snprintf(left, sizeof left, ", %d:%02d left", (int)left_seconds / 60, (int)left_seconds % 60);
    char line[160];
    int width = snprintf(line, sizeof line, "%s [%s] %3.0f %%%s%s%s", bar->label, cells, 100.0 * share, left, note[0] ? ", " : "", note);
    draw(bar, line, width < (int)sizeof line ? width : (int)sizeof line - 1);
}

void dn_progress_end(dn_progress_bar *bar)
{
    if (bar->terminal && bar->width > 0)
        fprintf(stderr, "\r%*s\r", bar->width, "");
    bar->width = 0;
}
