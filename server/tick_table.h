/* What a tick of so many rows takes here and now, per model: measured at load, refined by every tick, scaled when the machine has become
 * slower or faster as a whole. It says how many rows a batch should have, and how long work will take; it never influences bytes.
 *
 * A value type without pointers; the functions are pure but for the table they are given. */
#ifndef SERVER_TICK_TABLE_H
#define SERVER_TICK_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

#define TICK_TABLE_RECENT 15u /* ticks whose median tells that the machine has changed */
#define TICK_TABLE_DRIFT 1.25 /* ... by this factor, either way */
#define TICK_TABLE_GROWTH 1.02 /* a larger batch must give so many times the rows a second of a smaller one */
#define TICK_TABLE_LEAST_ROWS 8u /* a batch may always have, whatever the table says ... */
#define TICK_TABLE_SHORT_SECONDS 0.25 /* ... as long as its tick stays so short: what is measured on a busy machine may be wrong */
#define TICK_TABLE_PACKED_BYTES 12u /* of one entry: u32 rows, u64 nanoseconds, little-endian */

typedef struct tick_table {
    double seconds[DN_BATCH_ROWS_MAX + 1]; /* by rows; 0: never seen */
    double recent[TICK_TABLE_RECENT]; /* seconds over expected seconds, of the last ticks */
    uint32_t recent_count;
} tick_table;

/* A measurement of its own, as at load: replaces what was known of this row count. */
void tick_table_measured(tick_table *table, uint32_t rows, double seconds);
/* A tick that ran. True: it was the one that showed that the whole table has drifted, and it has been scaled. */
bool tick_table_observe(tick_table *table, uint32_t rows, double seconds);
/* Between entries straight lines; past the last in proportion. 0: nothing is known. */
double tick_table_seconds(const tick_table *table, double rows);
/* The largest row count seen; 0: none. */
uint32_t tick_table_seen(const tick_table *table);
/* Rows a batch should have, 2 to `limit`: the fewest of 1, 2, 4, ... limit that give as many rows a second as any, within
 * TICK_TABLE_GROWTH, or TICK_TABLE_LEAST_ROWS where that is a short tick; at most what `tick_seconds` allow. Sizes above all that were
 * ever seen count as worth trying. */
uint32_t tick_table_rows_max(const tick_table *table, uint32_t limit, double tick_seconds);

/* Larger ticks have not been run for long: what they took then is no reason any more not to try them. */
void tick_table_forget_above(tick_table *table, uint32_t rows);

/* The entries as bytes, and back. out: (DN_BATCH_ROWS_MAX * TICK_TABLE_PACKED_BYTES); returns the count of bytes. Unpacking replaces the
 * table; false: not a table. */
size_t tick_table_pack(const tick_table *table, unsigned char *out);
bool tick_table_unpack(tick_table *table, const unsigned char *bytes, size_t count);

#endif
