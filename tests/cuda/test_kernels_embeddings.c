/* Vectors of a row's time and condition: in float the CPU's bits, in bfloat16 those rounded. */
#include "tests/cuda/kernels_check.h"

#include "base/math64.h"

#define ROWS 4 /* of which the last is one that nobody wants */
#define TABLE_ROWS 7

static const struct {
    float time;
    uint32_t count, classes[3];
    float weights[3];
} wanted[ROWS - 1] = {{999.0f, 1, {6}, {1.0f}}, {0.03125f, 3, {0, 5, 2}, {0.25f, -0.5f, 1.25f}}, {3.0f, 0, {0}, {0.0f}}};

typedef enum embedding_kind { TIME_EMBEDDING, CLASS_SINUSOID, FOURIER_EMBEDDING, TIME_TABLE, CLASS_EMBEDDING, KINDS } embedding_kind;

typedef struct embedding_case {
    embedding_kind kind;
    bool flip, log_time;
    double *frequencies;
    float *weight, *table;
    tensor out;
    unsigned char *block;
} embedding_case;

/* Rows from `first` on; what nobody wants stays 0xFF. */
static const dn_cuda_block *write_block(embedding_case *e, uint32_t first)
{
    free(e->block);
    e->block = need(sizeof(dn_cuda_block) + 16 + ROWS * sizeof(dn_cuda_row));
    dn_cuda_block *block = (dn_cuda_block *)(void *)e->block;
    *block = (dn_cuda_block){.rows_max = ROWS, .rows_at = (sizeof(dn_cuda_block) + 15) / 16 * 16};
    for (uint32_t r = first; r < ROWS - 1; r++) {
        dn_cuda_row *row = &DN_CUDA_BLOCK_PART(dn_cuda_row, block, block->rows_at)[block->row_count++];
        /* A table of seven lines has no line 999. */
        row->time = e->kind == TIME_TABLE && wanted[r].time > 6.0f ? 6.0f : e->kind == TIME_TABLE ? floorf(wanted[r].time) : wanted[r].time;
        row->class_count = wanted[r].count;
        memcpy(row->classes, wanted[r].classes, sizeof wanted[r].classes);
        memcpy(row->weights, wanted[r].weights, sizeof wanted[r].weights);
    }
    return block;
}

static int run_embedding(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    embedding_case *e = what;
    const dn_cuda_block *block = write_block(e, first);
    dn_cuda_view out = view_from(&e->out, first);
    switch (e->kind) {
    case TIME_EMBEDDING:
        return dn_cuda_time_embedding(launch, block, e->frequencies, e->flip, out);
    case CLASS_SINUSOID:
        return dn_cuda_class_sinusoid(launch, block, e->frequencies, e->flip, out);
    case FOURIER_EMBEDDING:
        return dn_cuda_fourier_embedding(launch, block, e->weight, e->log_time, e->flip, out);
    case TIME_TABLE:
        return dn_cuda_time_table(launch, block, e->table, TABLE_ROWS, out);
    default:
        return dn_cuda_class_embedding(launch, block, e->table, TABLE_ROWS, out);
    }
}

/* Wave i of row r, as base/math64.h computes it. */
static void want_wave(const embedding_case *e, uint32_t r, uint32_t i, double *sine, double *cosine)
{
    double time = r < ROWS - 1 ? (double)wanted[r].time : 1.0;
    if (e->kind == TIME_EMBEDDING)
        dn_sine_cosine(time * e->frequencies[i], sine, cosine);
    if (e->kind == FOURIER_EMBEDDING)
        dn_sine_cosine(6.28318530717958647693 * (e->log_time ? dn_log(time) : time) * (double)e->weight[i], sine, cosine);
    for (uint32_t k = 0; e->kind == CLASS_SINUSOID && r < ROWS - 1 && k < wanted[r].count; k++) {
        double s, c;
        dn_sine_cosine((double)wanted[r].classes[k] * e->frequencies[i], &s, &c);
        *sine += (double)wanted[r].weights[k] * s;
        *cosine += (double)wanted[r].weights[k] * c;
    }
}

static float want_line(const embedding_case *e, uint32_t r, uint32_t c)
{
    static const uint32_t lines[ROWS] = {6, 0, 3, 0};
    uint32_t width = e->out.view.c;
    if (e->kind == TIME_TABLE || r == ROWS - 1)
        return e->table[lines[r] * width + c];
    float sum = 0.0f;
    for (uint32_t k = 0; k < wanted[r].count; k++)
        sum += wanted[r].weights[k] * e->table[wanted[r].classes[k] * width + c];
    return sum;
}

static void reference(embedding_case *e)
{
    uint32_t half = e->out.view.c / 2;
    for (uint32_t r = 0; r < ROWS; r++) {
        double *out = exact_at(&e->out, r, 0);
        memset(out, 0, e->out.view.c * sizeof *out);
        for (uint32_t i = 0; i < half && e->kind < TIME_TABLE; i++) {
            double sine = 0.0, cosine = 0.0;
            want_wave(e, r, i, &sine, &cosine);
            out[e->flip ? half + i : i] = (double)(float)sine;
            out[e->flip ? i : half + i] = (double)(float)cosine;
        }
        for (uint32_t c = 0; c < e->out.view.c && e->kind >= TIME_TABLE; c++)
            out[c] = (double)want_line(e, r, c);
    }
}

/* width even but for tables. */
static const char *try_embedding(embedding_kind kind, dn_cuda_type type, uint32_t width, bool flip, bool log_time, bool odd)
{
    embedding_case e = {.kind = kind, .flip = flip, .log_time = log_time};
    e.frequencies = need((width / 2 + 1) * sizeof *e.frequencies);
    e.weight = need((width / 2 + 1) * sizeof *e.weight);
    e.table = need(TABLE_ROWS * width * sizeof *e.table);
    for (uint32_t i = 0; i < width / 2; i++) {
        e.frequencies[i] = dn_exp(-(double)i / width);
        e.weight[i] = 16.0f * draw_float();
    }
    for (uint32_t i = 0; i < TABLE_ROWS * width; i++)
        e.table[i] = draw_float();
    e.out = tensor_make(type, ROWS, 1, 1, width, odd);
    reference(&e);
    trial t = {.type = type, .rows = ROWS, .run = run_embedding, .what = &e, .out = {&e.out}};
    t.tolerance = type == DN_CUDA_F32 ? 0.0 : 4e-3;
    const char *why = check_trial(&t);
    tensor_free(&e.out);
    free(e.block);
    free(e.frequencies);
    free(e.weight);
    free(e.table);
    return why;
}

static void try_all(embedding_kind kind, const char **why)
{
    static const uint32_t widths[] = {2, 6, 32, 256, 1152, 520};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0] && !*why; i++) {
        uint32_t width = widths[i] - (kind >= TIME_TABLE && i % 2 ? 1 : 0);
        *why = try_embedding(kind, DN_CUDA_F32, width, i % 2, i % 3 == 1, i == 3);
        *why = *why ? *why : try_embedding(kind, DN_CUDA_BF16, width, i % 3 == 0, i % 2, i == 1);
    }
}

static void times_are_waves(void)
{
    const char *why = NULL;
    try_all(TIME_EMBEDDING, &why);
    CHECK_MSG(!why, "%s", why);
}

static void classes_are_waves(void)
{
    const char *why = NULL;
    try_all(CLASS_SINUSOID, &why);
    CHECK_MSG(!why, "%s", why);
}

static void times_are_turns_of_given_frequencies(void)
{
    const char *why = NULL;
    try_all(FOURIER_EMBEDDING, &why);
    CHECK_MSG(!why, "%s", why);
}

static void times_have_lines(void)
{
    const char *why = NULL;
    try_all(TIME_TABLE, &why);
    CHECK_MSG(!why, "%s", why);
}

static void conditions_are_sums_of_lines(void)
{
    const char *why = NULL;
    try_all(CLASS_EMBEDDING, &why);
    CHECK_MSG(!why, "%s", why);
}

/* A row of a time without a logarithm is NaN, and its neighbour is not. */
static void times_without_logarithms_say_so(void)
{
    float weight[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    embedding_case e = {.kind = FOURIER_EMBEDDING, .out = tensor_make(DN_CUDA_F32, 2, 1, 1, 8, false)};
    dn_cuda_launch launch = {.type = DN_CUDA_F32, .rows = 2};
    e.weight = memcpy(need(sizeof weight), weight, sizeof weight);
    dn_cuda_block *block = (dn_cuda_block *)(uintptr_t)write_block(&e, 0);
    DN_CUDA_BLOCK_PART(dn_cuda_row, block, block->rows_at)[0].time = -1.0f;
    bool good = dn_cuda_fourier_embedding(&launch, block, e.weight, true, false, e.out.view) == 0 && cudaDeviceSynchronize() == cudaSuccess;
    good = good && isnan(tensor_get(&e.out, 0, 0, 0)) && isnan(tensor_get(&e.out, 0, 0, 7)) && isfinite(tensor_get(&e.out, 1, 0, 0));
    tensor_free(&e.out);
    free(e.block);
    free(e.weight);
    CHECK(good);
}

int main(void)
{
    RUN(times_are_waves);
    RUN(classes_are_waves);
    RUN(times_are_turns_of_given_frequencies);
    RUN(times_have_lines);
    RUN(conditions_are_sums_of_lines);
    RUN(times_without_logarithms_say_so);
    return test_end();
}
