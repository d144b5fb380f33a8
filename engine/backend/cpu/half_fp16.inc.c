/* Products in binary16: a microkernel of 12 rows by 64 columns whose sums of up to 64 products live in 16-bit registers and then go to
 * float.
 *
 * Nothing can overflow, whatever the numbers: a row is multiplied by the power of two that brings its largest number into [128, 256),
 * a column of the weight by the one that brings its largest into [1, 2), so 64 products stay below 64 * 256 * 2 = 2^15. Powers of
 * two round nothing, and both go out of the sum again in float. A row with a NaN or an infinity is not scaled, and answers with
 * either. A row's scale depends on that row alone.
 * Any thread. Written with GCC's vectors of _Float16, so that it also runs, slowly, where the compiler has to emulate them. The
 * including file defines DN_LANES 16, DN_TILE_ROWS (12; 3 where it is emulated), DN_GEMM_NAME and DN_HALF_NAME. */
#include "backend/cpu/half.h"
#include "backend/cpu/vector.inc.h"

#define PANEL (4 * DN_LANES)
#define PANEL_FLOATS (2 * DN_LANES)
#define PANEL_EXTRA PANEL
#define LINE_FLOATS 16u
#define CHUNK 64u /* products whose sum stays in 16 bits: the more, the faster and the coarser */
#define ROW_TOP 7 /* a row's largest number is in [2^7, 2^8) */
#define EXPONENT_BIAS 127
#define EXPONENT_LEAST 20 /* biased; smaller largest numbers are scaled as this one: their powers stay normal */
#define EXPONENT_NOT_FINITE 255

__extension__ typedef _Float16 half;
typedef half half_vec __attribute__((vector_size(VEC_BYTES)));
typedef half half_lanes __attribute__((vector_size(VEC_BYTES / 2))); /* DN_LANES of them */

#define EACH_ROW_3(X) X(0, p0, 0) X(1, p0, 1) X(2, p0, 2)
#define EACH_ROW_12(X)                                                                                                                     \
    EACH_ROW_3(X) X(3, p3, 0) X(4, p3, 1) X(5, p3, 2) X(6, p6, 0) X(7, p6, 1) X(8, p6, 2) X(9, p9, 0) X(10, p9, 1) X(11, p9, 2)
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define EACH_ROW JOIN(EACH_ROW_, DN_TILE_ROWS)
#define DECLARE_SUMS(i, p, o) half_vec low##i = {0}, high##i = {0};
#define MULTIPLY_ADD(i, p, o)                                                                                                              \
    if (mr > i) {                                                                                                                          \
        const half_vec x = spread(p + (o)*stride);                                                                                         \
        low##i += x * b_low;                                                                                                               \
        high##i += x * b_high;                                                                                                             \
    }
#define ADD_SUMS(i, p, o)                                                                                                                  \
    if (mr > i) {                                                                                                                          \
        add_wide(sums + (i)*sums_row, low##i, first);                                                                                      \
        add_wide(sums + (i)*sums_row + 2 * DN_LANES, high##i, first);                                                                      \
    }

typedef struct fetch {
    const float *at;
    size_t step;
} fetch;

/* A slot in every lane: its bits, which are no float's. */
INLINE half_vec spread(const float *slot)
{
    int32_t bits;
    memcpy(&bits, slot, sizeof bits);
    return (half_vec)((ivec){0} + bits);
}

/* sums[32] += x, or = x. */
INLINE void add_wide(float *sums, half_vec x, bool first)
{
    half_lanes part[2];
    memcpy(part, &x, sizeof part);
    for (int i = 0; i < 2; i++) {
        const vec wide = __builtin_convertvector(part[i], vec);
        store(sums + i * DN_LANES, first ? wide : load(sums + i * DN_LANES) + wide);
    }
}

/* `steps` of the sum, in 16 bits, then added to sums. */
INLINE void multiply_chunk(float *sums, size_t sums_row, const float *a, size_t stride, const float *b, size_t steps, bool first,
                           fetch *ahead, const int mr)
{
    EACH_ROW(DECLARE_SUMS)
    const float *p0 = a, *p3 = a + 3 * stride, *p6 = a + 6 * stride, *p9 = a + 9 * stride;
    for (size_t k = steps; k > 0; k--) {
        __builtin_prefetch(ahead->at, 0, 2);
        const half_vec b_low = (half_vec)load(b), b_high = (half_vec)load(b + DN_LANES);
        EACH_ROW(MULTIPLY_ADD)
        b += PANEL_FLOATS;
        p0++, p3++, p6++, p9++, ahead->at += ahead->step;
    }
    EACH_ROW(ADD_SUMS)
}

/* sums[mr][64]; the scales of rows and columns go out of them at the end. */
INLINE void multiply(float *sums, size_t sums_row, const dn_gemm *g, const float *a, const float *b, fetch ahead, const int mr)
{
    const size_t stride = g->a_row, k = g->k;
    for (size_t at = 0; at < k; at += CHUNK) {
        const size_t steps = k - at < CHUNK ? k - at : CHUNK;
        multiply_chunk(sums, sums_row, a + at, stride, b + at * PANEL_FLOATS, steps, at == 0, &ahead, mr);
    }
    const float *scales = b + k * PANEL_FLOATS;
    for (int i = 0; i < mr; i++) {
        const float row_scale = a[(size_t)i * stride + k];
        for (size_t j = 0; j < PANEL; j += DN_LANES) {
            float *at = sums + (size_t)i * sums_row + j;
            store(at, load(at) * (row_scale * load(scales + j)));
        }
    }
}

typedef void multiply_function(float *sums, size_t sums_row, const dn_gemm *g, const float *a, const float *b, fetch ahead);

#define DEFINE_MULTIPLY(i, p, o)                                                                                                           \
    static void multiply_##i(float *sums, size_t sums_row, const dn_gemm *g, const float *a, const float *b, fetch ahead)                  \
    {                                                                                                                                      \
        multiply(sums, sums_row, g, a, b, ahead, i + 1);                                                                                   \
    }
EACH_ROW(DEFINE_MULTIPLY)
#define NAME_MULTIPLY(i, p, o) multiply_##i,
static multiply_function *const multiply_wide[] = {EACH_ROW(NAME_MULTIPLY)};
#define multiply_narrow multiply_wide
#include "backend/cpu/gemm_tiles.inc.c"

static float power_of_two(int exponent)
{
    const uint32_t bits = (uint32_t)(exponent + EXPONENT_BIAS) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* The exponent e of the largest of count numbers, 2^e <= |x| < 2^(e + 1); 0 where one is not finite. */
static int largest_exponent(const float *x, size_t count)
{
    ivec most = {0};
    for (size_t i = 0; i < count; i += DN_LANES) {
        const ivec magnitude = (ivec)load_some(x + i, count - i) & 0x7FFFFFFF;
        const ivec larger_mask = magnitude > most;
        most = (magnitude & larger_mask) | (most & ~larger_mask);
    }
    int32_t top = EXPONENT_LEAST << 23;
    for (int i = 0; i < DN_LANES; i++)
        top = most[i] > top ? most[i] : top;
    return top >> 23 == EXPONENT_NOT_FINITE ? 0 : (top >> 23) - EXPONENT_BIAS;
}

static void convert(float *to, size_t row_slots, const float *from, size_t rows, size_t depth)
{
    for (size_t r = 0; r < rows; r++, to += row_slots, from += depth) {
        const int exponent = largest_exponent(from, depth);
        const float scale = power_of_two(ROW_TOP - exponent);
        for (size_t d = 0; d < depth; d += DN_LANES) {
            const half_lanes narrow = __builtin_convertvector(load_some(from + d, depth - d) * scale, half_lanes);
            uint16_t bits[DN_LANES];
            uint32_t slots[DN_LANES];
            memcpy(bits, &narrow, sizeof bits);
            for (int i = 0; i < DN_LANES; i++)
                slots[i] = bits[i] * 0x10001u;
            memcpy(to + d, slots, (depth - d < DN_LANES ? depth - d : DN_LANES) * sizeof *slots);
        }
        to[depth] = power_of_two(exponent - ROW_TOP);
    }
}

static void pack(float *to, const float *weight, size_t depth)
{
    for (size_t j = 0; j < PANEL; j++, weight += depth) {
        const int exponent = largest_exponent(weight, depth);
        const float scale = power_of_two(1 - exponent); /* twice what is wanted: half of it may be no normal number */
        for (size_t d = 0; d < depth; d++) {
            const half narrow = (half)(weight[d] * scale * 0.5f);
            memcpy((char *)(to + d * PANEL_FLOATS) + j * sizeof narrow, &narrow, sizeof narrow);
        }
        to[depth * PANEL_FLOATS + j] = power_of_two(exponent);
    }
}

const dn_cpu_half DN_HALF_NAME = {
    .precision = DN_PRECISION_FP16,
    .slot_depth = 1,
    .tile_rows = DN_TILE_ROWS,
    .panel = PANEL,
    .panel_slots = PANEL_FLOATS,
    .panel_extra = PANEL_EXTRA,
    .row_extra = 1,
    .gemm = DN_GEMM_NAME,
    .convert = convert,
    .pack = pack,
};
