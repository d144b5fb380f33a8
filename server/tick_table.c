/* The table of tick durations (tick_table.h). Owns nothing; no clock, no thread.
 *
 * Invariant: every entry is 0 or positive and finite. One tick moves all entries by a little (the machine is busier) and its own by a
 * little more (this size was measured badly); a stalled tick counts for no more than twice what was expected. */
#include "server/tick_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SHARE_OF_ALL 0.04 /* of a tick's surprise that goes to every entry */
#define SHARE_OF_OWN 0.08 /* ... and to its own beside */
#define SURPRISE_MAX 2.0 /* a factor, either way */

uint32_t tick_table_seen(const tick_table *table)
{
    uint32_t rows = DN_BATCH_ROWS_MAX;
    while (rows > 0 && table->seconds[rows] <= 0)
        rows--;
    return rows;
}

double tick_table_seconds(const tick_table *table, double rows)
{
    uint32_t below = 0, above = 0;
    for (uint32_t i = 1; i <= DN_BATCH_ROWS_MAX && !above; i++) {
        if (table->seconds[i] <= 0)
            continue;
        if (i <= rows)
            below = i;
        else
            above = i;
    }
    if (!below)
        return table->seconds[above];
    if (!above)
        return table->seconds[below] * rows / below;
    const double share = (rows - below) / (above - below);
    return table->seconds[below] + share * (table->seconds[above] - table->seconds[below]);
}

void tick_table_measured(tick_table *table, uint32_t rows, double seconds)
{
    if (rows >= 1 && rows <= DN_BATCH_ROWS_MAX && isfinite(seconds) && seconds > 0)
        table->seconds[rows] = seconds;
}

static void scale(tick_table *table, double factor)
{
    for (uint32_t i = 1; i <= DN_BATCH_ROWS_MAX; i++)
        table->seconds[i] *= factor;
}

static int by_size(const void *a, const void *b)
{
    const double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

/* The median of the last ticks over what was expected of them; 1 until there are enough of them. */
static double drift(const tick_table *table)
{
    double sorted[TICK_TABLE_RECENT];
    if (table->recent_count < TICK_TABLE_RECENT)
        return 1;
    memcpy(sorted, table->recent, sizeof sorted);
    qsort(sorted, TICK_TABLE_RECENT, sizeof sorted[0], by_size);
    return sorted[TICK_TABLE_RECENT / 2];
}

bool tick_table_observe(tick_table *table, uint32_t rows, double seconds)
{
    if (rows < 1 || rows > DN_BATCH_ROWS_MAX || !isfinite(seconds) || seconds <= 0)
        return false;
    const double expected = tick_table_seconds(table, rows), surprise = expected > 0 ? seconds / expected : 1;
    if (expected <= 0) {
        table->seconds[rows] = seconds;
        return false;
    }
    if (table->recent_count == TICK_TABLE_RECENT)
        memmove(&table->recent[0], &table->recent[1], --table->recent_count * sizeof table->recent[0]);
    table->recent[table->recent_count++] = surprise;
    const double median = drift(table);
    if (median > TICK_TABLE_DRIFT || median < 1 / TICK_TABLE_DRIFT) {
        scale(table, median);
        table->recent_count = 0;
        return true;
    }
    const double bounded = fmin(fmax(surprise, 1 / SURPRISE_MAX), SURPRISE_MAX);
    const double own = table->seconds[rows] > 0 ? SHARE_OF_OWN : 0.5;
    table->seconds[rows] = expected * (1 + own * (bounded - 1));
    scale(table, 1 + SHARE_OF_ALL * (bounded - 1));
    return false;
}

static uint32_t next_size(uint32_t rows, uint32_t limit)
{
    return 2 * rows < limit ? 2 * rows : limit;
}

/* Rows a second, by size. */
static double rate_of(const tick_table *table, uint32_t rows)
{
    return rows / tick_table_seconds(table, rows);
}

/* The fewest rows of 1, 2, 4, ... limit that are as good as any; where that is the last size seen, all of them. */
static uint32_t rows_that_pay(const tick_table *table, uint32_t limit)
{
    const uint32_t seen = tick_table_seen(table), last = seen < limit ? seen : limit;
    double best = 0;
    for (uint32_t rows = 1;; rows = next_size(rows, limit)) {
        if (rows <= last)
            best = fmax(best, rate_of(table, rows));
        if (rows >= last)
            break;
    }
    uint32_t rows = 1;
    while (rows < last && TICK_TABLE_GROWTH * rate_of(table, rows) < best)
        rows = next_size(rows, limit);
    return next_size(rows, limit) > seen ? limit : rows;
}

uint32_t tick_table_rows_max(const tick_table *table, uint32_t limit, double tick_seconds)
{
    if (tick_table_seen(table) == 0)
        return limit < 2 ? 2 : limit;
    uint32_t rows = rows_that_pay(table, limit);
    while (rows < limit && rows < TICK_TABLE_LEAST_ROWS && tick_table_seconds(table, rows + 1) <= TICK_TABLE_SHORT_SECONDS)
        rows++;
    while (rows > 2 && tick_table_seconds(table, rows) > tick_seconds)
        rows--;
    return rows < 2 ? 2 : rows;
}

void tick_table_forget_above(tick_table *table, uint32_t rows)
{
    for (uint32_t i = rows + 1; i <= DN_BATCH_ROWS_MAX; i++)
        table->seconds[i] = 0;
}

size_t tick_table_pack(const tick_table *table, unsigned char *out)
{
    unsigned char *to = out;
    for (uint32_t rows = 1; rows <= DN_BATCH_ROWS_MAX; rows++) {
        const uint64_t nanoseconds = (uint64_t)(table->seconds[rows] * 1e9 + 0.5);
        if (!nanoseconds)
            continue;
        for (int i = 0; i < 4; i++)
            *to++ = (unsigned char)(rows >> 8 * i);
        for (int i = 0; i < 8; i++)
            *to++ = (unsigned char)(nanoseconds >> 8 * i);
    }
    return (size_t)(to - out);
}

bool tick_table_unpack(tick_table *table, const unsigned char *bytes, size_t count)
{
    *table = (tick_table){.recent_count = 0};
    for (; count >= TICK_TABLE_PACKED_BYTES; count -= TICK_TABLE_PACKED_BYTES, bytes += TICK_TABLE_PACKED_BYTES) {
        uint32_t rows = 0;
        uint64_t nanoseconds = 0;
        for (int i = 0; i < 4; i++)
            rows |= (uint32_t)bytes[i] << 8 * i;
        for (int i = 0; i < 8; i++)
            nanoseconds |= (uint64_t)bytes[4 + i] << 8 * i;
        if (rows < 1 || rows > DN_BATCH_ROWS_MAX)
            return false;
        table->seconds[rows] = (double)nanoseconds * 1e-9;
    }
    return count == 0;
}
