/* The arithmetic of fp16 products on any machine: the kernel's own source, compiled here so that the compiler emulates binary16, against
 * double. Machines with AVX512-FP16 run the real one through test_cpu_half as well; e2e/precision_test.py says what it is compiled to. */
#include "tests/test.h"

#pragma GCC diagnostic ignored "-Wpsabi" /* vectors of 64 bytes stay inside this file */

#define DN_LANES 16
#define DN_TILE_ROWS 3
#define DN_GEMM_NAME emulated_gemm
#define DN_HALF_NAME emulated_half
#include "backend/cpu/half.h"
void emulated_gemm(const dn_gemm *g, size_t panel_first, size_t panel_end);
extern const dn_cpu_half emulated_half;
#include "backend/cpu/half_fp16.inc.c"

#define OUTPUTS 128u
#define CANARIES 64u

static uint32_t state = 7;

static uint32_t draw(uint32_t low, uint32_t high)
{
    state = state * 1664525u + 1013904223u;
    return low + (state >> 8) % (high - low + 1);
}

static float draw_float(void)
{
    return (float)draw(0, 2000000) / 1000000.0f - 1.0f;
}

typedef struct product {
    size_t rows, depth;
    float *a, *weight, *slots, *packed, *out;
} product;

static void free_product(product *p)
{
    free(p->a);
    free(p->weight);
    free(p->slots);
    free(p->packed);
    free(p->out);
}

static float *poisoned(size_t count)
{
    float *x = aligned_alloc(64, (count + 15) / 16 * 64);
    for (size_t i = 0; x && i < (count + 15) / 16 * 16; i++)
        x[i] = NAN;
    return x;
}

static product draw_product(size_t rows, size_t depth)
{
    product p = {
        .rows = rows, .depth = depth, .a = malloc(rows * depth * sizeof(float)), .weight = malloc(OUTPUTS * depth * sizeof(float))};
    p.slots = poisoned(rows * dn_cpu_half_row_slots(&emulated_half, depth));
    p.packed = poisoned(dn_cpu_half_packed_count(&emulated_half, depth, OUTPUTS));
    p.out = poisoned(rows * OUTPUTS + CANARIES);
    for (size_t i = 0; i < rows * depth; i++)
        p.a[i] = draw_float();
    for (size_t i = 0; i < OUTPUTS * depth; i++)
        p.weight[i] = draw_float();
    return p;
}

static void multiply_product(const product *p)
{
    const size_t row_slots = dn_cpu_half_row_slots(&emulated_half, p->depth), panel = emulated_half.panel;
    const size_t panel_slots = dn_cpu_half_packed_count(&emulated_half, p->depth, panel);
    for (size_t i = 0; i < OUTPUTS / panel; i++)
        emulated_half.pack(p->packed + i * panel_slots, p->weight + i * panel * p->depth, p->depth);
    emulated_half.convert(p->slots, row_slots, p->a, p->rows, p->depth);
    const dn_gemm gemm = {.a = p->slots,
                          .a_row = row_slots,
                          .b = p->packed,
                          .out = p->out,
                          .out_row = OUTPUTS,
                          .scale = 1.0f,
                          .lines = 1,
                          .rows = p->rows,
                          .segments = 1,
                          .k = p->depth,
                          .n = OUTPUTS};
    emulated_half.gemm(&gemm, 0, OUTPUTS / panel);
}

/* The relative RMS error of each row by itself, the worst of them: rows may be of very different sizes. */
static double worst_row_error(const product *p)
{
    double worst = 0.0;
    for (size_t r = 0; r < p->rows; r++) {
        double error_squares = 0.0, squares = 0.0;
        for (size_t j = 0; j < OUTPUTS; j++) {
            double expected = 0.0;
            for (size_t k = 0; k < p->depth; k++)
                expected += (double)p->a[r * p->depth + k] * (double)p->weight[j * p->depth + k];
            const double off = (double)p->out[r * OUTPUTS + j] - expected;
            error_squares += off * off;
            squares += expected * expected;
        }
        const double error = sqrt(error_squares / squares);
        worst = error <= worst ? worst : error; /* NaN is taken */
    }
    for (size_t i = p->rows * OUTPUTS; i < p->rows * OUTPUTS + CANARIES; i++)
        worst = isnan(p->out[i]) ? worst : 1.0;
    return worst;
}

/* Depths below, at and past a chunk, and rows of every size of tile. */
static void products_match_double(void)
{
    for (int round = 0; round < 40; round++) {
        product p = draw_product(draw(1, 30), round < 6 ? 62 + (size_t)round : draw(1, 400));
        multiply_product(&p);
        const double off = worst_row_error(&p);
        const size_t rows = p.rows, depth = p.depth;
        free_product(&p);
        CHECK_MSG(off <= 4e-3, "%zu rows, depth %zu: relative error %g", rows, depth, off);
        CHECK_MSG(depth < 8 || off > 1e-6, "%zu rows, depth %zu: error %g: not in 16 bits", rows, depth, off);
    }
}

static void a_deep_product_is_as_near(void)
{
    product p = draw_product(13, 1152);
    multiply_product(&p);
    const double off = worst_row_error(&p);
    free_product(&p);
    CHECK_MSG(off <= 3e-3, "relative error %g", off);
}

/* Rows and columns far beyond binary16's range on either side, all of one sign so that sums are as large as they can be. */
static void nothing_overflows(void)
{
    static const float sizes[] = {1e-36f, 1e-20f, 1e-6f, 1.0f, 7e4f, 1e9f, 1e18f};
    const size_t count = sizeof sizes / sizeof sizes[0];
    for (size_t w = 0; w < 5; w++) {
        product p = draw_product(count, 200);
        for (size_t i = 0; i < count * 200; i++)
            p.a[i] = (1.0f - 0.01f * fabsf(p.a[i])) * sizes[i / 200];
        for (size_t i = 0; i < OUTPUTS * 200; i++)
            p.weight[i] = (1.0f - 0.01f * fabsf(p.weight[i])) * (w ? sizes[w] : 1.0f);
        if (w == 1) /* 1e-36 * 1e-20 is no float any more */
            memcpy(p.a, p.a + 200 * 3, 200 * sizeof *p.a);
        multiply_product(&p);
        const double off = worst_row_error(&p);
        free_product(&p);
        CHECK_MSG(off <= 4e-3, "weights of %g: relative error %g", (double)sizes[w], off);
    }
}

static void the_largest_weights_are_none_too_large(void)
{
    product p = draw_product(3, 70);
    for (size_t i = 0; i < 3 * 70; i++)
        p.a[i] = (1.0f - 0.01f * fabsf(p.a[i])) * 1e-6f;
    for (size_t i = 0; i < OUTPUTS * 70; i++)
        p.weight[i] = 3e38f * (1.0f - 0.01f * fabsf(p.weight[i]));
    multiply_product(&p);
    const double off = worst_row_error(&p);
    free_product(&p);
    CHECK_MSG(off <= 4e-3, "relative error %g", off);
}

/* One number a thousand times the others: these lose nothing that counts. */
static void an_outlier_is_borne(void)
{
    product p = draw_product(5, 300);
    for (size_t r = 0; r < p.rows; r++)
        p.a[r * 300 + 17 * r] = 1000.0f;
    multiply_product(&p);
    const double off = worst_row_error(&p);
    free_product(&p);
    CHECK_MSG(off <= 4e-3, "relative error %g", off);
}

static void what_is_not_finite_stays_so(void)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        product p = draw_product(3, 100);
        p.a[100 + 70] = bad[i];
        multiply_product(&p);
        bool right = true;
        for (size_t j = 0; j < OUTPUTS; j++)
            right = right && isfinite(p.out[j]) && !isfinite(p.out[OUTPUTS + j]) && isfinite(p.out[2 * OUTPUTS + j]);
        free_product(&p);
        CHECK_MSG(right, "%g", (double)bad[i]);
    }
}

static void rows_of_zeros_and_of_the_smallest_numbers(void)
{
    product p = draw_product(2, 90);
    for (size_t k = 0; k < 90; k++) {
        p.a[k] = 0.0f;
        p.a[90 + k] = 1e-41f;
    }
    multiply_product(&p);
    bool right = true;
    for (size_t j = 0; j < OUTPUTS; j++)
        right = right && p.out[j] == 0.0f && fabsf(p.out[OUTPUTS + j]) <= 1e-38f;
    free_product(&p);
    CHECK(right);
}

/* The same rows in tiles of other sizes. */
static void a_row_has_the_same_bytes_in_any_tile(void)
{
    product p = draw_product(29, 130);
    float *alone = malloc(OUTPUTS * sizeof *alone);
    multiply_product(&p);
    for (size_t r = 0; r < 29; r++) {
        product one = {.rows = 1, .depth = 130, .a = p.a + r * 130, .weight = p.weight, .slots = p.slots, .packed = p.packed, .out = alone};
        multiply_product(&one);
        const bool same = memcmp(alone, p.out + r * OUTPUTS, OUTPUTS * sizeof *alone) == 0;
        if (!same) {
            free(alone);
            free_product(&p);
        }
        CHECK_MSG(same, "row %zu", r);
    }
    free(alone);
    free_product(&p);
}

int main(void)
{
    RUN(products_match_double);
    RUN(a_deep_product_is_as_near);
    RUN(nothing_overflows);
    RUN(the_largest_weights_are_none_too_large);
    RUN(an_outlier_is_borne);
    RUN(what_is_not_finite_stays_so);
    RUN(rows_of_zeros_and_of_the_smallest_numbers);
    RUN(a_row_has_the_same_bytes_in_any_tile);
    return test_end();
}
