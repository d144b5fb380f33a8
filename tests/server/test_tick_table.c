/* The table of tick durations: what it says between and beyond its entries, which batch it chooses, how it follows a machine that
 * becomes slower, and that it survives the trip between the processes. */
#include "server/tick_table.h"

#include "tests/test.h"

/* A machine on which a tick takes `base` and each row `row`, up to `width` rows at once for the price of one. */
static double tick_of(uint32_t rows, double base, double row)
{
    return base + row * rows;
}

static tick_table measured(double base, double row, uint32_t up_to)
{
    tick_table table = {.recent_count = 0};
    for (uint32_t rows = 1; rows <= up_to; rows *= 2)
        tick_table_measured(&table, rows, tick_of(rows, base, row));
    return table;
}

static bool near(double a, double b, double share)
{
    return fabs(a - b) <= share * fabs(b);
}

static void lines_between_entries(void)
{
    const tick_table none = {.recent_count = 0}, table = measured(1e-3, 2e-3, 16);
    CHECK(tick_table_seconds(&none, 4) == 0 && tick_table_seen(&none) == 0 && tick_table_seen(&table) == 16);
    for (uint32_t rows = 1; rows <= 16; rows++)
        CHECK_MSG(near(tick_table_seconds(&table, rows), tick_of(rows, 1e-3, 2e-3), 1e-9), "%u rows", rows);
    CHECK(near(tick_table_seconds(&table, 2.5), 6e-3, 1e-9));
    CHECK(near(tick_table_seconds(&table, 32), 2 * tick_of(16, 1e-3, 2e-3), 1e-9));
    CHECK(tick_table_seconds(&table, 0.5) == tick_table_seconds(&table, 1));
}

static void batch_grows_while_it_pays(void)
{
    /* Rows that cost alike: a batch of two is as good as any. With a fixed cost of four rows, up to 32 still pays 2 %. */
    const tick_table flat = measured(0, 0.3, 32), fixed = measured(1.2, 0.3, 32), slow = measured(0.1, 0.6, 2), one = measured(0, 0.9, 1);
    CHECK_MSG(tick_table_rows_max(&flat, 32, 50) == 2, "%u", tick_table_rows_max(&flat, 32, 50));
    CHECK(tick_table_rows_max(&fixed, 32, 50) == 32);
    CHECK(tick_table_rows_max(&fixed, 24, 50) == 24);
    /* Two seconds a tick. */
    CHECK_MSG(tick_table_rows_max(&slow, 32, 2) == 3, "%u", tick_table_rows_max(&slow, 32, 2));
    CHECK(tick_table_rows_max(&one, 32, 2) == 2 && tick_table_rows_max(&one, 32, 100) == 32);
    /* A dip on the way does not end the growth; a plateau does. */
    tick_table dip = measured(0, 0.3, 4);
    tick_table_measured(&dip, 4, 1.5);
    tick_table_measured(&dip, 8, 1.8);
    tick_table_measured(&dip, 16, 3.585);
    CHECK_MSG(tick_table_rows_max(&dip, 16, 50) == 8, "%u", tick_table_rows_max(&dip, 16, 50));
    /* Sizes nobody has seen yet are tried, and those of long ago again. */
    const tick_table young = measured(0.1, 0.1, 4);
    CHECK(tick_table_rows_max(&young, 16, 2) == 16);
    tick_table_forget_above(&dip, 8);
    CHECK(tick_table_seen(&dip) == 8 && tick_table_rows_max(&dip, 16, 50) == 16);
    /* Eight rows there may be where they take a quarter of a second or less, but no more for that. */
    const tick_table quick = measured(0, 1e-2, 32), brisk = measured(0, 5e-2, 32);
    CHECK_MSG(tick_table_rows_max(&quick, 32, 2) == 8, "%u", tick_table_rows_max(&quick, 32, 2));
    CHECK_MSG(tick_table_rows_max(&brisk, 32, 2) == 5, "%u", tick_table_rows_max(&brisk, 32, 2));
    const tick_table none = {.recent_count = 0};
    CHECK(tick_table_rows_max(&none, 32, 2) == 32);
}

/* Twice as slow from one tick to the next: within some 15 ticks of one size the others are known to be slower too. */
static void machine_that_slows_is_noticed(void)
{
    tick_table table = measured(1e-3, 2e-3, 32);
    bool drifted = false;
    int ticks = 0;
    for (; ticks < 40 && !drifted; ticks++)
        drifted = tick_table_observe(&table, 8, 2 * tick_of(8, 1e-3, 2e-3));
    CHECK_MSG(drifted && ticks <= 20, "%d ticks", ticks);
    CHECK_MSG(near(tick_table_seconds(&table, 8), 2 * tick_of(8, 1e-3, 2e-3), 0.25) &&
                  near(tick_table_seconds(&table, 32), 2 * tick_of(32, 1e-3, 2e-3), 0.4),
              "%g and %g s", tick_table_seconds(&table, 8), tick_table_seconds(&table, 32));
    for (int i = 0; i < 200; i++)
        tick_table_observe(&table, 8, tick_of(8, 1e-3, 2e-3));
    CHECK(near(tick_table_seconds(&table, 8), tick_of(8, 1e-3, 2e-3), 0.05));
}

/* One stalled tick in ten moves no entry far. */
static void single_stalls_are_not_believed(void)
{
    tick_table table = measured(1e-3, 2e-3, 32);
    for (int i = 0; i < 300; i++)
        CHECK(!tick_table_observe(&table, 16, (i % 10 == 9 ? 10 : 1) * tick_of(16, 1e-3, 2e-3)));
    CHECK_MSG(near(tick_table_seconds(&table, 16), tick_of(16, 1e-3, 2e-3), 0.25), "%g", tick_table_seconds(&table, 16));
    CHECK(!tick_table_observe(&table, 16, -1) && !tick_table_observe(&table, 0, 1) && !tick_table_observe(&table, 129, 1));
    CHECK(!tick_table_observe(&table, 16, NAN) && tick_table_seconds(&table, 16) > 0);
}

static void table_makes_the_trip(void)
{
    tick_table table = measured(1e-3, 2e-3, 128), again;
    unsigned char packed[DN_BATCH_ROWS_MAX * TICK_TABLE_PACKED_BYTES];
    tick_table_observe(&table, 77, 0.1);
    const size_t count = tick_table_pack(&table, packed);
    CHECK(count == 9 * TICK_TABLE_PACKED_BYTES && tick_table_unpack(&again, packed, count));
    for (uint32_t rows = 1; rows <= 128; rows++)
        CHECK(fabs(table.seconds[rows] - again.seconds[rows]) <= 1e-9);
    CHECK(!tick_table_unpack(&again, packed, count - 1));
    packed[0] = 129;
    CHECK(!tick_table_unpack(&again, packed, count));
    packed[0] = 0;
    CHECK(!tick_table_unpack(&again, packed, count));
    CHECK(tick_table_unpack(&again, packed, 0) && tick_table_seen(&again) == 0);
}

int main(void)
{
    RUN(lines_between_entries);
    RUN(batch_grows_while_it_pays);
    RUN(machine_that_slows_is_noticed);
    RUN(single_stalls_are_not_believed);
    RUN(table_makes_the_trip);
    return test_end();
}
