/* Each kernel of each instruction set by itself against plain sums in double: random odd shapes and strides, everything that is not to
 * be read a NaN, everything that is not to be written a pattern that must be there afterwards. The attention kernel, Winograd's
 * transforms and the 16-bit products have tests of their own. */
#include "tests/engine/cpu_harness.h"

#include "backend/cpu/reference.h"

#define ROUNDS 150
#define MARGIN 40 /* floats around every output */
#define POISON 0x7FC0BEEFu

static const dn_cpu_kernels *kernels;

static float poison(void)
{
    const uint32_t bits = POISON;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float *poisoned(size_t count)
{
    float *x = malloc((count + 2 * MARGIN) * sizeof *x);
    if (!x)
        abort();
    for (size_t i = 0; i < count + 2 * MARGIN; i++)
        x[i] = poison();
    return x + MARGIN;
}

static void release(float *x)
{
    if (x)
        free(x - MARGIN);
}

static bool is_poison(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits == POISON;
}

/* Marks what may be written, then everything else must be as it was. */
static bool is_untouched(const float *x, size_t count, const bool *written)
{
    for (size_t i = 0; i < count + 2 * MARGIN; i++) {
        bool inside = i >= MARGIN && i < count + MARGIN;
        if (!(inside && written[i - MARGIN]) && !is_poison((x - MARGIN)[i]))
            return false;
    }
    return true;
}

/* Values where nothing is yet. */
static void put(float *x)
{
    if (is_poison(*x))
        *x = draw_float();
}

static dn_activation draw_activation(void)
{
    static const dn_activation kinds[] = {DN_ACT_NONE, DN_ACT_NONE, DN_ACT_SILU, DN_ACT_GELU, DN_ACT_RELU, DN_ACT_GELU_TANH, DN_ACT_MISH};
    return kinds[draw(0, 6)];
}

/* ---- The matrix product */

typedef struct product {
    dn_gemm gemm;
    float *a, *matrix, *packed, *out, *residual, *bias, *row_bias, *gate;
    bool *written;
    size_t out_count;
} product;

static float *vector(size_t n, bool wanted)
{
    float *x = wanted ? poisoned(n) : NULL;
    for (size_t i = 0; x && i < n; i++)
        put(&x[i]);
    return x;
}

/* Rows may overlap, as a convolution's do; lines and segments too. */
static void draw_strides(product *p)
{
    dn_gemm *g = &p->gemm;
    g->a_row = draw(1, (uint32_t)g->k + 9);
    g->a_segment = draw(1, 2 * (uint32_t)g->k + 9);
    g->a_line = draw(1, (uint32_t)(g->rows * g->a_row) + 9);
    g->out_row = g->n + draw(0, 5);
    g->out_line = g->rows * g->out_row + draw(0, 5);
    g->residual_row = g->n + draw(0, 5);
    g->residual_line = g->rows * g->residual_row + draw(0, 5);
}

static void fill_operands(product *p)
{
    dn_gemm *g = &p->gemm;
    p->a = poisoned(g->lines * g->a_line + g->rows * g->a_row + g->segments * g->a_segment + g->k);
    for (size_t l = 0; l < g->lines; l++)
        for (size_t i = 0; i < g->rows; i++)
            for (size_t s = 0; s < g->segments; s++)
                for (size_t k = 0; k < g->k; k++)
                    put(&p->a[l * g->a_line + i * g->a_row + s * g->a_segment + k]);
    size_t depth = g->segments * g->k;
    p->matrix = vector(depth * g->n, true);
    p->packed = poisoned(dn_cpu_packed_count(kernels, depth, g->n));
    dn_pack pack = {.src = p->matrix, .depth_stride = g->n, .column_stride = 1, .depth = depth, .n = g->n, .count = depth};
    dn_cpu_pack(p->packed, kernels, &pack);
}

static void draw_product(product *p)
{
    bool gated = draw(0, 2) == 0;
    *p = (product){.gemm = {.lines = draw(1, 3),
                            .rows = draw(1, 33),
                            .segments = draw(1, 3),
                            .k = draw(1, 37),
                            .n = draw(1, 3 * (uint32_t)kernels->panel + 5),
                            .scale = gated || draw(0, 1) ? 1.0f : 0.7f,
                            .activation = draw_activation()}};
    dn_gemm *g = &p->gemm;
    draw_strides(p);
    fill_operands(p);
    p->bias = vector(g->n, draw(0, 1));
    p->row_bias = vector(g->n, !gated && draw(0, 1));
    p->gate = vector(g->n, gated);
    size_t residual_count = g->lines * g->residual_line;
    p->residual = gated || draw(0, 1) ? poisoned(residual_count) : NULL;
    p->out_count = g->lines * g->out_line;
    p->out = poisoned(p->out_count);
    p->written = calloc(p->out_count, 1);
    for (size_t l = 0; l < g->lines; l++)
        for (size_t i = 0; i < g->rows; i++)
            for (size_t j = 0; j < g->n; j++) {
                p->written[l * g->out_line + i * g->out_row + j] = true;
                if (p->residual)
                    put(&p->residual[l * g->residual_line + i * g->residual_row + j]);
            }
    g->a = p->a, g->b = p->packed, g->out = p->out, g->residual = p->residual;
    g->bias = p->bias, g->row_bias = p->row_bias, g->gate = p->gate;
}

static void done_product(product *p)
{
    float *all[] = {p->a, p->matrix, p->packed, p->out, p->residual, p->bias, p->row_bias, p->gate};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        release(all[i]);
    free(p->written);
}

/* One output in double; *size: how large its terms are, which rounding errors are relative to. */
static double expected_output(const product *p, size_t line, size_t row, size_t column, double *size)
{
    const dn_gemm *g = &p->gemm;
    double sum = g->bias ? (double)g->bias[column] : 0.0;
    *size = fabs(sum) + 1.0;
    for (size_t s = 0; s < g->segments; s++)
        for (size_t k = 0; k < g->k; k++) {
            double a = (double)g->a[line * g->a_line + row * g->a_row + s * g->a_segment + k];
            double term = a * (double)p->matrix[(s * g->k + k) * g->n + column];
            sum += term;
            *size += fabs(term);
        }
    double residual = g->residual ? (double)g->residual[line * g->residual_line + row * g->residual_row + column] : 0.0;
    *size += fabs(residual);
    if (g->gate)
        return residual + (double)g->gate[column] * dn_reference_activation(g->activation, sum);
    sum += (g->row_bias ? (double)g->row_bias[column] : 0.0) + residual;
    return dn_reference_activation(g->activation, sum * (double)g->scale);
}

static void check_product(const product *p)
{
    const dn_gemm *g = &p->gemm;
    for (size_t l = 0; l < g->lines; l++)
        for (size_t i = 0; i < g->rows; i++)
            for (size_t j = 0; j < g->n; j++) {
                double size, expected = expected_output(p, l, i, j, &size), got = (double)g->out[l * g->out_line + i * g->out_row + j];
                CHECK_MSG(fabs(got - expected) <= 2e-6 * size,
                          "%s: %zu lines of %zu rows, %zu x %zu, %zu columns, activation %d%s: [%zu][%zu][%zu] is %g, not %g", kernels->isa,
                          g->lines, g->rows, g->segments, g->k, g->n, (int)g->activation, g->gate ? ", gated" : "", l, i, j, got, expected);
            }
    CHECK_MSG(is_untouched(p->out, p->out_count, p->written), "%s: a product of %zu columns writes past them", kernels->isa, g->n);
}

static void products(void)
{
    for (int round = 0; round < test_rounds(ROUNDS) && !test_failed; round++) {
        product p;
        draw_product(&p);
        size_t panels = dn_cpu_panels(kernels, p.gemm.n), cut = draw(0, (uint32_t)panels);
        kernels->gemm(&p.gemm, cut, panels);
        kernels->gemm(&p.gemm, 0, cut);
        check_product(&p);
        done_product(&p);
    }
}

/* ---- Images [pixels][stride], of which the first channels count */

typedef struct image {
    size_t pixels, stride, channels;
    float *x, *out, *mean, *gain, *offset;
    bool *written;
} image;

static void draw_image(image *m)
{
    *m = (image){.pixels = draw(1, 200), .channels = draw(1, 70)};
    m->stride = m->channels + draw(0, 7);
    m->x = poisoned(m->pixels * m->stride);
    m->out = poisoned(m->pixels * m->stride);
    m->written = calloc(m->pixels * m->stride, 1);
    for (size_t p = 0; p < m->pixels; p++)
        for (size_t c = 0; c < m->channels; c++) {
            put(&m->x[p * m->stride + c]);
            m->written[p * m->stride + c] = true;
        }
    m->mean = vector(m->channels, true);
    m->gain = vector(m->channels, true);
    m->offset = vector(m->channels, true);
}

static void done_image(image *m)
{
    float *all[] = {m->x, m->out, m->mean, m->gain, m->offset};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        release(all[i]);
    free(m->written);
}

static void channel_sums(void)
{
    for (int round = 0; round < test_rounds(ROUNDS) && !test_failed; round++) {
        image m;
        draw_image(&m);
        const float *mean = draw(0, 1) ? m.mean : NULL;
        int power = (int)draw(1, 2);
        double sums[80];
        for (size_t i = 0; i < 80; i++)
            sums[i] = 12345.0;
        kernels->channel_sums(sums, m.x, m.pixels, m.stride, m.channels, mean, power);
        for (size_t c = 0; c < m.channels; c++) {
            double sum = 0.0, size = 1.0;
            for (size_t p = 0; p < m.pixels; p++) {
                double d = (double)m.x[p * m.stride + c] - (mean ? (double)mean[c] : 0.0), term = power == 2 ? d * d : d;
                sum += term;
                size += fabs(term);
            }
            CHECK_MSG(fabs(sums[c] - sum) <= 1e-6 * size, "%s: channel %zu of %zu, %zu pixels, power %d: %g, not %g", kernels->isa, c,
                      m.channels, m.pixels, power, sums[c], sum);
        }
        CHECK_MSG(sums[m.channels] == 12345.0, "%s: a sum too many", kernels->isa);
        done_image(&m);
    }
}

static void normalize(void)
{
    for (int round = 0; round < test_rounds(ROUNDS) && !test_failed; round++) {
        image m;
        draw_image(&m);
        dn_activation activation = draw_activation();
        kernels->normalize(m.out, m.x, m.pixels, m.stride, m.channels, m.mean, m.gain, m.offset, activation);
        for (size_t p = 0; p < m.pixels; p++)
            for (size_t c = 0; c < m.channels; c++) {
                double y = ((double)m.x[p * m.stride + c] - (double)m.mean[c]) * (double)m.gain[c] + (double)m.offset[c];
                double expected = dn_reference_activation(activation, y), got = (double)m.out[p * m.stride + c];
                CHECK_MSG(fabs(got - expected) <= 2e-6, "%s: %zu pixels of %zu channels, activation %d: %g, not %g", kernels->isa, m.pixels,
                          m.channels, (int)activation, got, expected);
            }
        CHECK_MSG(is_untouched(m.out, m.pixels * m.stride, m.written), "%s: %zu channels in rows of %zu: written past them", kernels->isa,
                  m.channels, m.stride);
        done_image(&m);
    }
}

/* What a pixel's norm is in double. */
static double norm_of(const image *m, const float *x, size_t c, double epsilon, bool scaled)
{
    double mean = 0.0, variance = 0.0;
    for (size_t i = 0; i < m->channels; i++)
        mean += (double)x[i] / (double)m->channels;
    for (size_t i = 0; i < m->channels; i++)
        variance += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)m->channels;
    double y = ((double)x[c] - mean) / sqrt(variance + epsilon);
    return scaled ? y * (double)m->gain[c] + (double)m->offset[c] : y;
}

static void layer_norm(void)
{
    for (int round = 0; round < test_rounds(ROUNDS / 3) && !test_failed; round++) {
        image m;
        draw_image(&m);
        bool scaled = draw(0, 1);
        for (size_t i = 0; i < m.pixels * m.stride; i++)
            put(&m.x[i]); /* pixels follow one another without a gap */
        kernels->layer_norm(m.out, m.x, m.pixels, m.channels, scaled ? m.gain : NULL, scaled ? m.offset : NULL, 1e-2f);
        for (size_t p = 0; p < m.pixels; p++)
            for (size_t c = 0; c < m.channels; c++) {
                double expected = norm_of(&m, m.x + p * m.channels, c, 1e-2, scaled), got = (double)m.out[p * m.channels + c];
                CHECK_MSG(fabs(got - expected) <= 5e-6, "%s: %zu channels: %g, not %g", kernels->isa, m.channels, got, expected);
            }
        memset(m.written, 0, m.pixels * m.stride);
        memset(m.written, 1, m.pixels * m.channels);
        CHECK_MSG(is_untouched(m.out, m.pixels * m.stride, m.written), "%s: the norm of %zu channels writes past them", kernels->isa,
                  m.channels);
        done_image(&m);
    }
}

/* How accurate they are stands in test_cpu_transformer_nodes; here, that a run of any length is its own. */
static void activations_end_where_they_should(void)
{
    for (uint32_t count = 1; count < 70 && !test_failed; count++) {
        float *x = vector(count, true), *out = poisoned(count);
        bool written[70];
        memset(written, 1, sizeof written);
        kernels->activate(out, x, count, DN_ACT_SILU);
        for (uint32_t i = 0; i < count; i++)
            CHECK_MSG(fabs((double)out[i] - dn_reference_activation(DN_ACT_SILU, (double)x[i])) < 1e-6, "%s: %u of %u", kernels->isa, i,
                      count);
        CHECK_MSG(is_untouched(out, count, written), "%s: %u are more", kernels->isa, count);
        release(x);
        release(out);
    }
}

int main(void)
{
    static const struct {
        const char *name;
        test_function *test;
    } tests[] = {{"products", products},
                 {"channel_sums", channel_sums},
                 {"normalize", normalize},
                 {"layer_norm", layer_norm},
                 {"activations_end_where_they_should", activations_end_where_they_should}};
    RUN(every_instruction_set_is_compiled);
    RUN(every_instruction_set_is_here);
    for (size_t i = 0; i < HARNESS_ISAS; i++) {
        kernels = harness_kernels(harness_isas[i]);
        for (size_t t = 0; harness_has(harness_isas[i]) && t < sizeof tests / sizeof tests[0]; t++) {
            char label[96];
            snprintf(label, sizeof label, "%s_%s", tests[t].name, harness_isas[i]);
            test_run(label, tests[t].test);
        }
    }
    return test_end();
}
