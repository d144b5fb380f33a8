/* Buckets of the CUDA back end: sizes, times, and the packing of rows against every other choice. No device. */
#include "tests/test.h"

#include "backend/cuda/buckets.h"
#include "base/philox.h"

static double ms_of(const dn_cuda_buckets *buckets, const uint32_t *packed, uint32_t count)
{
    double ms = 0.0;
    for (uint32_t i = count; i-- > 0;)
        ms += (double)buckets->ms[packed[i]];
    return ms;
}

/* The rows that a packing puts into passes, or 0 where an index comes twice, out of order or out of range. */
static uint32_t rows_of(const dn_cuda_buckets *buckets, const uint32_t *packed, uint32_t count)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (packed[i] >= buckets->count || (i > 0 && packed[i] >= packed[i - 1]))
            return 0;
        rows += buckets->rows[packed[i]];
    }
    return rows;
}

static void sizes_are_powers_of_two_up_to_the_first_that_holds_all(void)
{
    static const struct {
        uint32_t rows, limit, count, largest;
    } cases[] = {{1, 128, 1, 1},     {2, 128, 2, 2},     {3, 128, 3, 4},    {8, 128, 4, 8}, {9, 128, 5, 16},
                 {100, 128, 8, 128}, {128, 128, 8, 128}, {128, 100, 7, 64}, {128, 1, 1, 1}, {16, 0, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_cuda_buckets buckets;
        dn_cuda_buckets_make(&buckets, cases[i].rows, cases[i].limit);
        CHECK_MSG(buckets.count == cases[i].count, "%u rows: %u buckets", cases[i].rows, buckets.count);
        for (uint32_t b = 0; b < buckets.count; b++)
            CHECK(buckets.rows[b] == 1u << b && buckets.ms[b] > 0.0f);
        CHECK(buckets.rows[buckets.count - 1] == cases[i].largest);
    }
}

static void twenty_rows_go_as_the_times_say(void)
{
    dn_cuda_buckets buckets;
    uint32_t packed[DN_CUDA_BUCKETS_MAX];
    dn_cuda_buckets_make(&buckets, 128, 128);
    dn_cuda_buckets_measured(&buckets, (const float[]){1, 1, 1.5f, 2, 4, 8, 16, 32}, 8);
    CHECK(dn_cuda_buckets_pack(&buckets, 20, packed) == 2);
    CHECK(buckets.rows[packed[0]] == 16 && buckets.rows[packed[1]] == 4);
    dn_cuda_buckets_measured(&buckets, (const float[]){1, 1, 1.5f, 2, 4, 5, 16, 32}, 8);
    CHECK(dn_cuda_buckets_pack(&buckets, 20, packed) == 1 && buckets.rows[packed[0]] == 32);
    CHECK(dn_cuda_buckets_pack(&buckets, 2, packed) == 1 && buckets.rows[packed[0]] == 2); /* as fast as 1 alone, and one pass */
}

static void times_not_measured_go_on_in_proportion(void)
{
    dn_cuda_buckets buckets;
    dn_cuda_buckets_make(&buckets, 128, 128);
    dn_cuda_buckets_measured(&buckets, (const float[]){3, 4, 6}, 3);
    for (uint32_t b = 2; b < buckets.count; b++)
        CHECK(buckets.ms[b] == 6.0f * (float)buckets.rows[b] / 4.0f);
    CHECK(buckets.ms[0] == 3.0f && buckets.ms[1] == 4.0f);
    dn_cuda_buckets before = buckets;
    dn_cuda_buckets_measured(&buckets, NULL, 0);
    CHECK(memcmp(&before, &buckets, sizeof buckets) == 0);
}

/* The least time of any set of buckets that holds the rows. */
static double least_ms(const dn_cuda_buckets *buckets, uint32_t rows)
{
    double least = (double)INFINITY;
    for (uint32_t mask = 1; mask < 1u << buckets->count; mask++) {
        double ms = 0.0;
        uint32_t held = 0;
        for (uint32_t b = 0; b < buckets->count; b++) {
            ms += mask >> b & 1u ? (double)buckets->ms[b] : 0.0;
            held += mask >> b & 1u ? buckets->rows[b] : 0;
        }
        if (held >= rows && ms < least)
            least = ms;
    }
    return least;
}

static void every_packing_takes_the_least_time(void)
{
    uint32_t packed[DN_CUDA_BUCKETS_MAX], again[DN_CUDA_BUCKETS_MAX];
    for (uint32_t round = 0; round < 40; round++) {
        dn_cuda_buckets buckets;
        float ms[DN_CUDA_BUCKETS_MAX];
        dn_cuda_buckets_make(&buckets, 128, 128);
        for (uint32_t b = 0; b < buckets.count; b++) {
            uint32_t random[4];
            dn_philox4x32(random, (const uint32_t[4]){round, b, 0, 0}, (const uint32_t[2]){7, 0});
            ms[b] = 1.0f + (float)(random[0] >> 16) / 65536.0f * (float)(round % 2 ? buckets.rows[b] : 8);
        }
        if (round > 0)
            dn_cuda_buckets_measured(&buckets, ms, buckets.count);
        for (uint32_t rows = 1; rows <= 128; rows++) {
            uint32_t count = dn_cuda_buckets_pack(&buckets, rows, packed);
            uint32_t held = rows_of(&buckets, packed, count);
            CHECK_MSG(held >= rows && held - buckets.rows[packed[count - 1]] < rows, "%u rows in %u", rows, held);
            CHECK_MSG(ms_of(&buckets, packed, count) == least_ms(&buckets, rows), "round %u: %u rows take too long", round, rows);
            CHECK(dn_cuda_buckets_pack(&buckets, rows, again) == count && memcmp(packed, again, count * sizeof *packed) == 0);
        }
    }
}

static void too_many_rows_have_no_packing(void)
{
    dn_cuda_buckets buckets;
    uint32_t packed[DN_CUDA_BUCKETS_MAX];
    dn_cuda_buckets_make(&buckets, 8, 128);
    CHECK(dn_cuda_buckets_pack(&buckets, 0, packed) == 0);
    CHECK(dn_cuda_buckets_pack(&buckets, 15, packed) == 4);
    CHECK(dn_cuda_buckets_pack(&buckets, 16, packed) == 0);
}

int main(void)
{
    RUN(sizes_are_powers_of_two_up_to_the_first_that_holds_all);
    RUN(twenty_rows_go_as_the_times_say);
    RUN(times_not_measured_go_on_in_proportion);
    RUN(every_packing_takes_the_least_time);
    RUN(too_many_rows_have_no_packing);
    return test_end();
}
