/* Softmax attention of some queries of one head, a block of keys at a time, so that scores never leave the first cache.
 *
 * Queries lie across the vectors' lanes: a tile of scores is keys x queries and a tile of the answer is depth x queries, so no
 * depth is padded and no softmax sums across lanes. Softmax is the running one: sums and answers so far are multiplied by
 * e^(old maximum - new maximum) when a block of keys has a larger score (Milakov and Gimelshein 2018; Dao et al. 2022,
 * FlashAttention, algorithm 1), in powers of two: log2(e) is multiplied into the queries with the scale.
 * Invariant: blocks of keys are cut by their number alone and each query has its own lane, so its answer does not depend on
 * the queries beside it. Any thread. The including file defines DN_LANES and DN_TILE_ROWS. */
#include "backend/cpu/tile.inc.h"

#define LOG2_E 1.44269504088896341f

/* The part of an answer that one vector or two of queries have in common. Each array is [rows][vectors * DN_LANES]. */
typedef struct query_block {
    const dn_attend *a;
    size_t first, count; /* queries */
    float *queries, *scores, *out; /* depth, DN_ATTEND_KEYS and depth rows */
    vec top[2], sum[2], factor[2]; /* of the scores so far: largest, sum of powers; what is left of earlier answers */
} query_block;

/* Rows to columns: halves of ever smaller squares change places. */
INLINE void transpose(vec rows[DN_LANES])
{
#pragma GCC unroll 4
    for (int step = DN_LANES / 2; step > 0; step /= 2) {
        ivec low = {0}, high = {0};
#pragma GCC unroll 16
        for (int i = 0; i < DN_LANES; i++) {
            low[i] = i & step ? i - step + DN_LANES : i;
            high[i] = i & step ? i + DN_LANES : i + step;
        }
#pragma GCC unroll 16
        for (int i = 0; i < DN_LANES; i++) {
            if (!(i & step)) {
                const vec a = rows[i], b = rows[i + step];
                rows[i] = __builtin_shuffle(a, b, low);
                rows[i + step] = __builtin_shuffle(a, b, high);
            }
        }
    }
}

/* One square of queries to columns, scaled: `lanes` of their channels from d on. A lane without a query repeats the last one. */
INLINE void turn_square(const query_block *b, const size_t vectors, size_t j, size_t d, const size_t lanes)
{
    const dn_attend *a = b->a;
    const float scale = a->scale * LOG2_E;
    vec rows[DN_LANES];
#pragma GCC unroll 16
    for (size_t i = 0; i < DN_LANES; i++) {
        const size_t query = j * DN_LANES + i < b->count ? j * DN_LANES + i : b->count - 1;
        rows[i] = load_some(a->queries + (b->first + query) * a->query_row + d, lanes) * scale;
    }
    transpose(rows);
#pragma GCC unroll 16
    for (size_t i = 0; i < DN_LANES; i++) {
        if (i < lanes)
            store(b->queries + ((d + i) * vectors + j) * DN_LANES, rows[i]);
    }
}

/* One square of answers, divided by their sums, to where they belong. */
INLINE void return_square(const query_block *b, const size_t vectors, size_t j, size_t d, const size_t lanes)
{
    const dn_attend *a = b->a;
    const vec share = 1.0f / b->sum[j];
    vec rows[DN_LANES];
#pragma GCC unroll 16
    for (size_t i = 0; i < DN_LANES; i++)
        rows[i] = load(b->out + ((d + (i < lanes ? i : 0)) * vectors + j) * DN_LANES) * share;
    transpose(rows);
#pragma GCC unroll 16
    for (size_t i = 0; i < DN_LANES; i++) {
        const size_t query = j * DN_LANES + i;
        if (query < b->count)
            store_some(a->out + (b->first + query) * a->out_row + d, rows[i], lanes);
    }
}

/* Every square, whole ones and halves by code of their own: `square` is inlined with a constant. */
#define EACH_SQUARE(square, b, vectors)                                                                                                    \
    for (size_t j = 0; j < (vectors); j++) {                                                                                               \
        size_t d = 0;                                                                                                                      \
        for (; d + DN_LANES <= (b)->a->depth; d += DN_LANES)                                                                               \
            square(b, vectors, j, d, DN_LANES);                                                                                            \
        if ((b)->a->depth - d == DN_LANES / 2)                                                                                             \
            square(b, vectors, j, d, DN_LANES / 2);                                                                                        \
        else if (d < (b)->a->depth)                                                                                                        \
            square(b, vectors, j, d, (b)->a->depth - d);                                                                                   \
    }

#define MULTIPLY_KEY(i, p, o)                                                                                                              \
    if (mr > i) {                                                                                                                          \
        const float x = p[(o)*stride];                                                                                                     \
        low##i += x * b_low;                                                                                                               \
        if (nv > 1)                                                                                                                        \
            high##i += x * b_high;                                                                                                         \
    }

/* sums[mr keys][nv vectors of queries] */
INLINE void score_tile(float *sums, const float *keys, size_t stride, const float *queries, size_t depth, const int mr, const int nv)
{
    EACH_ROW(DECLARE_SUMS)
    const size_t sums_row = (size_t)nv * DN_LANES;
    const float *p0 = keys, *p3 = keys + 3 * stride, *p6 = keys + 6 * stride, *p9 = keys + 9 * stride, *p12 = keys + 12 * stride;
    for (size_t k = depth; k > 0; k--) {
        const vec b_low = load(queries);
        const vec b_high = nv > 1 ? load(queries + DN_LANES) : b_low;
        EACH_ROW(MULTIPLY_KEY)
        queries += nv * DN_LANES;
        p0++, p3++, p6++, p9++, p12++;
    }
    EACH_ROW(STORE_SUMS)
}

#define LOAD_SUMS(i, p, o)                                                                                                                 \
    if (mr > i) {                                                                                                                          \
        low##i = load(sums + (i)*sums_row) * factor[0];                                                                                    \
        if (nv > 1)                                                                                                                        \
            high##i = load(sums + (i)*sums_row + DN_LANES) * factor[1];                                                                    \
    }
#define MULTIPLY_VALUE(i, p, o)                                                                                                            \
    if (mr > i) {                                                                                                                          \
        const float x = values[i];                                                                                                         \
        low##i += x * b_low;                                                                                                               \
        if (nv > 1)                                                                                                                        \
            high##i += x * b_high;                                                                                                         \
    }

/* sums[mr channels of the values][nv vectors of queries]: what is left of them, unless factor is NULL, and `count` more keys. */
INLINE void answer_tile(float *sums, const vec *factor, const float *values, size_t stride, const float *scores, size_t count, const int mr,
                        const int nv)
{
    EACH_ROW(DECLARE_SUMS)
    const size_t sums_row = (size_t)nv * DN_LANES;
    if (factor) {
        EACH_ROW(LOAD_SUMS)
    }
    for (; count > 0; count--) {
        const vec b_low = load(scores);
        const vec b_high = nv > 1 ? load(scores + DN_LANES) : b_low;
        EACH_ROW(MULTIPLY_VALUE)
        scores += nv * DN_LANES;
        values += stride;
    }
    EACH_ROW(STORE_SUMS)
}

typedef void score_function(float *sums, const float *keys, size_t stride, const float *queries, size_t depth);
typedef void answer_function(float *sums, const vec *factor, const float *values, size_t stride, const float *scores, size_t count);
#define DEFINE_TILES(i, p, o)                                                                                                              \
    static void score_##i##_wide(float *sums, const float *keys, size_t stride, const float *queries, size_t depth)                        \
    {                                                                                                                                      \
        score_tile(sums, keys, stride, queries, depth, i + 1, 2);                                                                          \
    }                                                                                                                                      \
    static void score_##i##_narrow(float *sums, const float *keys, size_t stride, const float *queries, size_t depth)                      \
    {                                                                                                                                      \
        score_tile(sums, keys, stride, queries, depth, i + 1, 1);                                                                          \
    }                                                                                                                                      \
    static void answer_##i##_wide(float *sums, const vec *factor, const float *values, size_t stride, const float *scores, size_t count)   \
    {                                                                                                                                      \
        answer_tile(sums, factor, values, stride, scores, count, i + 1, 2);                                                                \
    }                                                                                                                                      \
    static void answer_##i##_narrow(float *sums, const vec *factor, const float *values, size_t stride, const float *scores, size_t count) \
    {                                                                                                                                      \
        answer_tile(sums, factor, values, stride, scores, count, i + 1, 1);                                                                \
    }
EACH_ROW(DEFINE_TILES)
#define NAME_SCORE_WIDE(i, p, o) score_##i##_wide,
#define NAME_SCORE_NARROW(i, p, o) score_##i##_narrow,
#define NAME_ANSWER_WIDE(i, p, o) answer_##i##_wide,
#define NAME_ANSWER_NARROW(i, p, o) answer_##i##_narrow,
static score_function *const score_tiles[2][DN_TILE_ROWS] = {{EACH_ROW(NAME_SCORE_NARROW)}, {EACH_ROW(NAME_SCORE_WIDE)}};
static answer_function *const answer_tiles[2][DN_TILE_ROWS] = {{EACH_ROW(NAME_ANSWER_NARROW)}, {EACH_ROW(NAME_ANSWER_WIDE)}};

/* Scores <- powers of two of their distance from the largest; sums and what is left of earlier ones follow. */
INLINE void weigh(query_block *b, size_t keys, bool fresh, const size_t vectors)
{
    const size_t row = vectors * DN_LANES;
    vec top[2], sum[2];
#pragma GCC unroll 2
    for (size_t j = 0; j < vectors; j++) {
        const float *score = b->scores + j * DN_LANES;
        vec other = load(score);
        top[j] = fresh ? other : b->top[j];
        for (size_t k = 0; k + 1 < keys; k += 2) {
            top[j] = larger(load(score + k * row), top[j]);
            other = larger(load(score + (k + 1) * row), other);
        }
        top[j] = larger(other, larger(load(score + (keys - 1) * row), top[j]));
        sum[j] = splat(0.0f);
    }
    for (size_t k = 0; k < keys; k++) {
#pragma GCC unroll 2
        for (size_t j = 0; j < vectors; j++) {
            float *score = b->scores + k * row + j * DN_LANES;
            const vec e = exp2_of_negative(load(score) - top[j]);
            store(score, e);
            sum[j] += e;
        }
    }
#pragma GCC unroll 2
    for (size_t j = 0; j < vectors; j++) {
        b->factor[j] = fresh ? splat(0.0f) : exp2_of_negative(b->top[j] - top[j]);
        b->sum[j] = fresh ? sum[j] : b->sum[j] * b->factor[j] + sum[j];
        b->top[j] = top[j];
    }
}

/* Keys first .. end - 1. */
INLINE void attend_keys(query_block *b, size_t first, size_t end, const size_t vectors)
{
    const dn_attend *a = b->a;
    const size_t keys = end - first, row = vectors * DN_LANES;
    const size_t score_count = (keys + DN_TILE_ROWS - 1) / DN_TILE_ROWS, answer_count = (a->depth + DN_TILE_ROWS - 1) / DN_TILE_ROWS;
    for (size_t t = 0; t < score_count; t++) {
        const size_t from = t * keys / score_count, rows = (t + 1) * keys / score_count - from;
        score_tiles[vectors - 1][rows - 1](b->scores + from * row, a->keys + (first + from) * a->key_row, a->key_row, b->queries, a->depth);
    }
    weigh(b, keys, first == 0, vectors);
    for (size_t t = 0; t < answer_count; t++) {
        const size_t from = t * a->depth / answer_count, rows = (t + 1) * a->depth / answer_count - from;
        answer_tiles[vectors - 1][rows - 1](b->out + from * row, first == 0 ? NULL : b->factor, a->values + first * a->key_row + from,
                                            a->key_row, b->scores, keys);
    }
}

INLINE void attend_block(query_block *b, const size_t vectors)
{
    const size_t positions = b->a->positions, chunks = (positions + DN_ATTEND_KEYS - 1) / DN_ATTEND_KEYS;
    EACH_SQUARE(turn_square, b, vectors)
    for (size_t c = 0; c < chunks; c++)
        attend_keys(b, c * positions / chunks, (c + 1) * positions / chunks, vectors);
    EACH_SQUARE(return_square, b, vectors)
}

static void attend(const dn_attend *a)
{
    for (size_t first = 0; first < a->count; first += PANEL) {
        query_block b = {.a = a, .first = first, .count = a->count - first < PANEL ? a->count - first : PANEL};
        b.queries = a->scratch;
        b.scores = b.queries + a->depth * PANEL;
        b.out = b.scores + DN_ATTEND_KEYS * PANEL;
        if (b.count > DN_LANES)
            attend_block(&b, 2);
        else
            attend_block(&b, 1);
    }
}
