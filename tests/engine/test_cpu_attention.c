/* The attention kernel by itself, under every instruction set, on odd shapes: against double, with NaN in all it may not read or
 * must overwrite; the same bytes however queries are cut; NaN that stays with its query. Single-threaded. */
#include "tests/engine/cpu_harness.h"

#include "backend/cpu/kernels.h"

#define ROUNDS 60
#define ERROR_MAX 2e-6 /* of the largest value */
#define GUARD 5u /* floats of NaN after each row of a head */

/* One head: rows of depth floats and a guard. Each array's place is its own allocation, so that a sanitizer sees its ends. */
typedef struct head {
    size_t count, positions, depth, row;
    float scale, *queries, *keys, *values, *out;
} head;

static float *guarded(size_t rows, size_t depth, float factor)
{
    float *x = malloc(rows * (depth + GUARD) * sizeof *x);
    for (size_t i = 0; x && i < rows * (depth + GUARD); i++)
        x[i] = i % (depth + GUARD) < depth ? factor * draw_float() : NAN;
    return x;
}

static head draw_head(size_t count, size_t positions, size_t depth, float factor)
{
    return (head){.count = count,
                  .positions = positions,
                  .depth = depth,
                  .row = depth + GUARD,
                  .scale = (float)(1.0 / sqrt((double)depth)),
                  .queries = guarded(count, depth, factor),
                  .keys = guarded(positions, depth, factor),
                  .values = guarded(positions, depth, 1.0f),
                  .out = guarded(count, depth, 1.0f)};
}

static void free_head(head *h)
{
    free(h->queries);
    free(h->keys);
    free(h->values);
    free(h->out);
}

/* Queries first .. first + count - 1, with scratch of NaN that ends where it must. */
static void attend(const dn_cpu_kernels *kernels, const head *h, float *out, size_t first, size_t count)
{
    size_t room = dn_cpu_attend_scratch(kernels, h->depth);
    float *scratch = malloc(room * sizeof *scratch);
    for (size_t i = 0; i < room; i++)
        scratch[i] = NAN;
    kernels->attend(&(dn_attend){.queries = h->queries + first * h->row,
                                 .keys = h->keys,
                                 .values = h->values,
                                 .out = out + first * h->row,
                                 .query_row = h->row,
                                 .key_row = h->row,
                                 .out_row = h->row,
                                 .count = count,
                                 .positions = h->positions,
                                 .depth = h->depth,
                                 .scale = h->scale,
                                 .scratch = scratch});
    free(scratch);
}

/* One query's answer in double. */
static void answer(double *out, const head *h, size_t query)
{
    double *weight = malloc(h->positions * sizeof *weight), top = -INFINITY, sum = 0.0;
    for (size_t j = 0; j < h->positions; j++) {
        weight[j] = 0.0;
        for (size_t d = 0; d < h->depth; d++)
            weight[j] += (double)h->queries[query * h->row + d] * (double)h->keys[j * h->row + d];
        weight[j] *= (double)h->scale;
        top = fmax(top, weight[j]);
    }
    for (size_t j = 0; j < h->positions; j++)
        sum += weight[j] = exp(weight[j] - top);
    for (size_t d = 0; d < h->depth; d++) {
        out[d] = 0.0;
        for (size_t j = 0; j < h->positions; j++)
            out[d] += weight[j] / sum * (double)h->values[j * h->row + d];
    }
    free(weight);
}

/* Largest difference from double; NaN when an answer is NaN or a guard was written. */
static double worst_of(const head *h)
{
    double *expected = malloc(h->depth * sizeof *expected), worst = 0.0;
    for (size_t i = 0; i < h->count; i++) {
        answer(expected, h, i);
        for (size_t d = 0; d < h->row; d++) {
            double got = (double)h->out[i * h->row + d];
            if (d >= h->depth && !isnan(got))
                worst = NAN;
            if (d < h->depth && !(fabs(got - expected[d]) <= worst))
                worst = fabs(got - expected[d]);
        }
    }
    free(expected);
    return worst;
}

/* Scores near each other, then so far apart that one key wins and powers of the others fall to nothing. */
static void odd_shapes_match(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        size_t positions = draw(1, round % 3 ? 70 : 400), depth = draw(1, round % 5 ? 50 : 170), count = draw(1, 75);
        float factor = round % 4 == 3 ? 6.0f : 1.0f;
        head h = draw_head(count, positions, depth, factor);
        for (size_t i = 0; i < HARNESS_ISAS && !test_failed; i++) {
            if (!harness_has(harness_isas[i]))
                continue;
            for (size_t e = 0; e < count * h.row; e++)
                h.out[e] = NAN;
            attend(harness_kernels(harness_isas[i]), &h, h.out, 0, count);
            double worst = worst_of(&h), limit = ERROR_MAX * (double)(factor * factor);
            CHECK_MSG(worst <= limit, "%s, %zu queries of %zu, depth %zu: error %g over %g", harness_isas[i], count, positions, depth,
                      worst, limit);
        }
        free_head(&h);
    }
}

/* A query's bytes do not depend on where a call begins and how many it has. */
static void cuts_do_not_show(void)
{
    for (int round = 0; round < test_rounds(ROUNDS); round++) {
        size_t positions = draw(1, 300), depth = draw(1, 90), count = draw(2, 90);
        head h = draw_head(count, positions, depth, 2.0f);
        float *cut = guarded(count, depth, 1.0f);
        for (size_t i = 0; i < HARNESS_ISAS; i++) {
            if (!harness_has(harness_isas[i]))
                continue;
            attend(harness_kernels(harness_isas[i]), &h, h.out, 0, count);
            for (size_t first = 0; first < count;) {
                size_t some = draw(1, (uint32_t)(count - first));
                attend(harness_kernels(harness_isas[i]), &h, cut, first, some);
                first += some;
            }
            for (size_t q = 0; q < count; q++)
                CHECK_MSG(memcmp(h.out + q * h.row, cut + q * h.row, depth * sizeof *cut) == 0, "%s: query %zu of %zu differs",
                          harness_isas[i], q, count);
        }
        free(cut);
        free_head(&h);
    }
}

/* A NaN of any payload or an infinity among a query's channels ends in its own answer and nowhere else. */
static void bad_query_stays_alone(void)
{
    static const uint32_t bad[] = {0x7FC00000u, 0xFFC00001u, 0x7F812345u, 0x7F800000u};
    head h = draw_head(40, 150, 24, 1.0f);
    for (size_t i = 0; i < HARNESS_ISAS; i++) {
        for (size_t b = 0; b < sizeof bad / sizeof bad[0] && harness_has(harness_isas[i]); b++) {
            size_t victim = draw(0, 39);
            float *x = h.queries + victim * h.row + draw(0, 23), before = *x;
            memcpy(x, &bad[b], sizeof *x);
            attend(harness_kernels(harness_isas[i]), &h, h.out, 0, h.count);
            *x = before;
            for (size_t q = 0; q < h.count; q++) {
                for (size_t d = 0; d < h.depth; d++)
                    CHECK_MSG(isfinite(h.out[q * h.row + d]) == (q != victim), "%s: query %zu, victim %zu", harness_isas[i], q, victim);
            }
        }
    }
    free_head(&h);
}

int main(void)
{
    RUN(every_instruction_set_is_compiled);
    RUN(every_instruction_set_is_here);
    RUN(odd_shapes_match);
    RUN(cuts_do_not_show);
    RUN(bad_query_stays_alone);
    return test_end();
}
