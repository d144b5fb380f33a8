/* A progress bar on standard error: drawn only on a terminal that is not dumb, without escape codes, at most ten times a second.
 * One thread. */
#ifndef DN_SERVER_PROGRESS_H
#define DN_SERVER_PROGRESS_H

#include <stdbool.h>

typedef struct dn_progress_bar {
    const char *label; /* borrowed */
    double total;
    double started, drawn; /* monotonic seconds */
    bool terminal;
    int width; /* of the line that stands there */
} dn_progress_bar;

void dn_progress_begin(dn_progress_bar *bar, const char *label, double total);
/* note: a few words after the bar ("loss 0.041"), or "". */
void dn_progress_update(dn_progress_bar *bar, double done, const char *note);
/* The same with the seconds that are left, by somebody who knows better than the rate so far; < 0: not known. */
void dn_progress_update_left(dn_progress_bar *bar, double done, double left_seconds, const char *note);
void dn_progress_end(dn_progress_bar *bar); /* wipes the line */

#endif
