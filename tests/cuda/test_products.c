/* The emulated products against plain double loops over the formulas of libraries.h, on shapes and pitches by chance; what they refuse;
 * and a row's bytes in any batch. These are what every test of the CUDA back end multiplies with. */
#include <cuda_runtime_api.h>
#include <stdint.h>

#include "backend/cuda/spec.h"
#include "base/half.h"
#include "tests/test.h"

static uint64_t state = 1;
static uint32_t chance(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % below);
}

static size_t item_bytes(dn_cuda_type type)
{
    return type == DN_CUDA_F32 ? sizeof(float) : sizeof(uint16_t);
}

static double value_at(dn_cuda_type type, const void *values, uint64_t i)
{
    return type == DN_CUDA_F32 ? (double)((const float *)values)[i] : (double)dn_bf16_to_f32(((const uint16_t *)values)[i]);
}

/* Random values of the type on the emulated device, which this process can read and whose ends are watched. */
static void *random_values(dn_cuda_type type, uint64_t count)
{
    void *values = NULL;
    if (cudaMalloc(&values, count * item_bytes(type)))
        abort();
    for (uint64_t i = 0; i < count; i++) {
        float value = (float)chance(20001) / 10000.0f - 1.0f;
        if (type == DN_CUDA_F32)
            ((float *)values)[i] = value;
        else
            ((uint16_t *)values)[i] = dn_f32_to_bf16(value);
    }
    return values;
}

typedef struct operation {
    dn_cuda_product_spec spec;
    uint32_t rows;
    uint64_t in_pitch, out_pitch, out_pixels;
    void *in, *weight, *bias, *residual, *out, *workspace;
} operation;

static void operation_make(operation *op)
{
    const dn_cuda_product_spec *s = &op->spec;
    bool sdpa = s->kind == DN_CUDA_SDPA, conv = s->kind == DN_CUDA_CONV;
    uint32_t n = sdpa ? s->heads * s->head_dim : s->n, kernel = conv ? s->kernel : 1;
    op->out_pixels = conv ? (uint64_t)s->out_h * s->out_w : (uint64_t)s->h * s->w;
    op->in_pitch = s->in_row_pitch ? s->in_row_pitch : (uint64_t)s->h * s->w * (sdpa ? s->in_pitch : s->k);
    op->out_pitch = s->out_row_pitch ? s->out_row_pitch : op->out_pixels * n;
    op->in = random_values(s->type, op->rows * op->in_pitch);
    op->weight = sdpa ? NULL : random_values(s->type, (uint64_t)n * kernel * kernel * s->k);
    op->bias = s->bias ? random_values(s->type, n) : NULL;
    op->residual = s->residual ? random_values(s->type, op->rows * op->out_pitch) : NULL;
    op->out = random_values(s->type, op->rows * op->out_pitch);
    op->workspace = random_values(DN_CUDA_F32, (uint64_t)op->rows * 64);
}

static void operation_free(operation *op)
{
    cudaFree(op->in);
    cudaFree(op->weight);
    cudaFree(op->bias);
    cudaFree(op->residual);
    cudaFree(op->out);
    cudaFree(op->workspace);
}

static dn_status operation_run(operation *op, dn_error *error)
{
    dn_cuda_libraries *libraries = NULL;
    dn_cuda_product *product = NULL;
    uint32_t buckets[] = {op->rows + 3, op->rows};
    dn_status status = dn_cuda_libraries_open(&libraries, &(dn_cuda_libraries_options){0}, error);
    if (!status)
        status = dn_cuda_product_create(&product, libraries, &op->spec, buckets, 2, error);
    dn_cuda_operands operands = {
        .in = op->in, .weight = op->weight, .bias = op->bias, .residual = op->residual, .out = op->out, .workspace = op->workspace};
    if (!status)
        status = dn_cuda_product_run(product, 1, &operands, NULL, error);
    if (!status && cudaDeviceSynchronize())
        status = dn_fail(error, DN_INTERNAL, "the emulated GPU is broken");
    dn_cuda_product_free(product);
    dn_cuda_libraries_close(libraries);
    return status;
}

static double expected_attention(const operation *op, uint32_t row, uint64_t pixel, uint32_t channel)
{
    const dn_cuda_product_spec *s = &op->spec;
    uint32_t positions = s->h * s->w, width = s->heads * s->head_dim, head = channel / s->head_dim * s->head_dim;
    uint64_t base = row * op->in_pitch;
    double scores[256], top = -1e300, total = 0.0, sum = 0.0;
    for (uint32_t j = 0; j < positions; j++) {
        double dot = 0.0;
        for (uint32_t i = 0; i < s->head_dim; i++)
            dot += value_at(s->type, op->in, base + pixel * s->in_pitch + head + i) *
                   value_at(s->type, op->in, base + (uint64_t)j * s->in_pitch + width + head + i);
        scores[j] = dot / sqrt((double)s->head_dim);
        top = scores[j] > top ? scores[j] : top;
    }
    for (uint32_t j = 0; j < positions; j++) {
        double weight = exp(scores[j] - top);
        total += weight;
        sum += weight * value_at(s->type, op->in, base + (uint64_t)j * s->in_pitch + 2 * (uint64_t)width + channel);
    }
    return sum / total;
}

static double expected_weighted(const operation *op, uint32_t row, uint64_t pixel, uint32_t channel)
{
    const dn_cuda_product_spec *s = &op->spec;
    bool conv = s->kind == DN_CUDA_CONV;
    uint32_t kernel = conv ? s->kernel : 1, stride = conv ? s->stride : 1, out_w = conv ? s->out_w : s->w;
    double sum = 0.0;
    for (uint32_t i = 0; i < kernel; i++) {
        for (uint32_t j = 0; j < kernel; j++) {
            int64_t y = (int64_t)(pixel / out_w) * stride + i - s->pad_top, x = (int64_t)(pixel % out_w) * stride + j - s->pad_left;
            for (uint32_t c = 0; c < s->k && y >= 0 && x >= 0 && y < s->h && x < s->w; c++)
                sum += value_at(s->type, op->in, row * op->in_pitch + (uint64_t)(y * s->w + x) * s->k + c) *
                       value_at(s->type, op->weight, (((uint64_t)channel * kernel + i) * kernel + j) * s->k + c);
        }
    }
    if (s->residual)
        sum += value_at(s->type, op->residual, row * op->out_pitch + pixel * s->n + channel);
    sum *= s->scale != 0.0f ? (double)s->scale : 1.0;
    if (s->bias)
        sum += value_at(s->type, op->bias, channel);
    return s->gelu_tanh ? 0.5 * sum * (1.0 + tanh(0.79788456080286536 * (sum + 0.044715 * sum * sum * sum))) : sum;
}

/* The largest difference from the double loops, in units of what rounding may do to values of about 1. */
static double operation_error(const operation *op)
{
    const dn_cuda_product_spec *s = &op->spec;
    uint32_t n = s->kind == DN_CUDA_SDPA ? s->heads * s->head_dim : s->n;
    double worst = 0.0;
    for (uint32_t row = 0; row < op->rows; row++) {
        for (uint64_t pixel = 0; pixel < op->out_pixels; pixel++) {
            for (uint32_t c = 0; c < n; c++) {
                double want = s->kind == DN_CUDA_SDPA ? expected_attention(op, row, pixel, c) : expected_weighted(op, row, pixel, c);
                double got = value_at(s->type, op->out, row * op->out_pitch + pixel * n + c);
                double bound = s->type == DN_CUDA_F32 ? 2e-6 * (1.0 + sqrt((double)s->k)) : 1.0 / 256.0;
                double off = fabs(got - want) / (bound * (1.0 + fabs(want)));
                worst = off > worst || off != off ? off : worst;
            }
        }
    }
    return worst;
}

static dn_cuda_product_spec random_spec(int round)
{
    dn_cuda_product_spec s = {.kind = (dn_cuda_product_kind)(round % 3), .h = 1 + chance(9), .w = 1 + chance(9)};
    s.type = chance(2) && s.kind != DN_CUDA_SDPA ? DN_CUDA_F32 : DN_CUDA_BF16;
    if (s.kind == DN_CUDA_SDPA) {
        s.heads = 1 + chance(3);
        s.head_dim = 8 * (1 + chance(6));
        s.in_pitch = 3 * s.heads * s.head_dim + 8 * chance(2);
        return s;
    }
    s.k = 8 * (1 + chance(5));
    s.n = 8 * (1 + chance(6));
    s.bias = chance(2);
    s.residual = chance(2);
    if (chance(2) && (s.residual || s.kind == DN_CUDA_GEMM))
        s.scale = 0.7f;
    if (s.kind == DN_CUDA_CONV) {
        s.kernel = 1 + chance(4);
        s.stride = 1 + chance(2);
        s.pad_top = chance(s.kernel);
        s.pad_left = chance(s.kernel);
        s.pad_bottom = s.kernel + chance(2);
        s.pad_right = s.kernel + chance(2);
        s.out_h = (s.h + s.pad_top + s.pad_bottom - s.kernel) / s.stride + 1;
        s.out_w = (s.w + s.pad_left + s.pad_right - s.kernel) / s.stride + 1;
    } else {
        s.gelu_tanh = chance(2);
        if (chance(2)) {
            s.h = s.w = 1;
            s.in_row_pitch = s.k + 8 * chance(3);
            s.out_row_pitch = s.n + 8 * chance(3);
        }
    }
    return s;
}

static void products_are_their_formulas(void)
{
    for (int round = 0; round < test_rounds(120); round++) {
        operation op = {.spec = random_spec(round), .rows = 1 + chance(3)};
        dn_error error = {0};
        operation_make(&op);
        dn_status status = operation_run(&op, &error);
        double worst = status ? 0.0 : operation_error(&op);
        operation_free(&op);
        CHECK_MSG(!status, "round %d: %s", round, error.message);
        CHECK_MSG(worst <= 1.0, "round %d, kind %d: %.2f of the bound", round, (int)op.spec.kind, worst);
    }
}

/* The last row alone gives the bytes that it had among the others, and a residual may be the output. */
static void rows_do_not_see_each_other(void)
{
    for (int round = 0; round < test_rounds(60); round++) {
        operation op = {.spec = random_spec(round), .rows = 4};
        dn_error error = {0};
        operation_make(&op);
        CHECK_OK(operation_run(&op, &error), error);
        size_t item = item_bytes(op.spec.type), pixels = op.out_pixels,
               n = op.spec.kind == DN_CUDA_SDPA ? op.spec.heads * op.spec.head_dim : op.spec.n;
        operation one = op;
        one.rows = 1;
        one.in = random_values(op.spec.type, op.in_pitch);
        memcpy(one.in, (char *)op.in + 3 * op.in_pitch * item, op.in_pitch * item);
        one.out = random_values(op.spec.type, op.out_pitch);
        if (op.spec.residual) {
            memcpy(one.out, (char *)op.residual + 3 * op.out_pitch * item, op.out_pitch * item);
            one.residual = one.out;
        }
        CHECK_OK(operation_run(&one, &error), error);
        int differs = memcmp(one.out, (char *)op.out + 3 * op.out_pitch * item, pixels * n * item);
        cudaFree(one.in);
        cudaFree(one.out);
        operation_free(&op);
        CHECK_MSG(!differs, "round %d, kind %d", round, (int)op.spec.kind);
    }
}

static dn_status refused(dn_cuda_product_spec spec, uint32_t rows)
{
    operation op = {.spec = spec, .rows = rows};
    return operation_run(&op, NULL);
}

static void what_does_not_fit_is_refused(void)
{
    dn_cuda_product_spec gemm = {.kind = DN_CUDA_GEMM, .type = DN_CUDA_BF16, .h = 1, .w = 1, .k = 16, .n = 16}, bad = gemm;
    bad.k = 12;
    CHECK(refused(bad, 1) == DN_INVALID);
    bad = gemm;
    bad.in_row_pitch = 8;
    CHECK(refused(bad, 1) == DN_INVALID);
    bad = gemm;
    bad.in_row_pitch = 16;
    bad.h = 2;
    CHECK(refused(bad, 1) == DN_INVALID);
    CHECK(refused(gemm, 200000000) == DN_INVALID);
    CHECK(dn_cuda_product_rows_max(&gemm) == 134217727);
    dn_cuda_product_spec conv = {.kind = DN_CUDA_CONV,
                                 .type = DN_CUDA_BF16,
                                 .h = 4,
                                 .w = 4,
                                 .k = 8,
                                 .n = 8,
                                 .out_h = 4,
                                 .out_w = 3,
                                 .kernel = 3,
                                 .stride = 1,
                                 .pad_top = 1,
                                 .pad_left = 1,
                                 .pad_bottom = 1,
                                 .pad_right = 1};
    CHECK(refused(conv, 1) == DN_INVALID);
    conv.out_w = 4;
    conv.scale = 0.5f; /* without a residual */
    CHECK(refused(conv, 1) == DN_INVALID);
    bad = gemm;
    bad.scale = NAN;
    CHECK(refused(bad, 1) == DN_INVALID);
    dn_cuda_product_spec sdpa = {.kind = DN_CUDA_SDPA, .type = DN_CUDA_F32, .h = 4, .w = 4, .heads = 2, .head_dim = 8, .in_pitch = 48};
    CHECK(refused(sdpa, 1) == DN_UNSUPPORTED && !dn_cuda_takes_sdpa(&sdpa));
    sdpa.type = DN_CUDA_BF16;
    CHECK(dn_cuda_takes_sdpa(&sdpa));
    sdpa.head_dim = 4;
    CHECK(refused(sdpa, 1) == DN_UNSUPPORTED);
}

/* Every pointer has to lie at 16 bytes, on the device, with room for all rows. */
static void pointers_are_looked_at(void)
{
    operation op = {.spec = {.kind = DN_CUDA_GEMM, .type = DN_CUDA_F32, .h = 1, .w = 1, .k = 16, .n = 16, .bias = true}, .rows = 2};
    dn_error error;
    float host[32] = {0};
    operation_make(&op);
    void *const in = op.in, *const weight = op.weight, *const bias = op.bias;
    op.in = (float *)in + 1;
    CHECK(operation_run(&op, &error) == DN_INTERNAL && strstr(error.message, "input"));
    op.in = (float *)in + 4; /* aligned, but the second row ends behind it */
    CHECK(operation_run(&op, &error) == DN_INTERNAL && strstr(error.message, "input"));
    op.in = in;
    op.weight = NULL;
    CHECK(operation_run(&op, &error) == DN_INTERNAL && strstr(error.message, "weight"));
    op.weight = weight;
    op.bias = host;
    CHECK(operation_run(&op, &error) == DN_INTERNAL && strstr(error.message, "bias"));
    op.bias = bias;
    CHECK_OK(operation_run(&op, &error), error);
    operation_free(&op);
}

/* What one configuration's workspaces look like when it cuts sums at some batch sizes, and when it does not. */
static void workspaces_tell_of_cut_sums(void)
{
    const uint32_t rows[] = {1, 2, 4, 8};
    const size_t counters[] = {0, 131, 0, 131}, copies[] = {1000000, 1500000, 2500000, 4500000}, parts[] = {1048771, 1048771, 131, 131};
    const size_t uneven[] = {1000000, 1500000, 2500000, 4500004};
    CHECK(dn_cuda_workspace_steady(rows, counters, 4));
    CHECK(dn_cuda_workspace_steady(rows, copies, 4));
    CHECK(!dn_cuda_workspace_steady(rows, parts, 4));
    CHECK(!dn_cuda_workspace_steady(rows, uneven, 4));
    CHECK(dn_cuda_workspace_steady(rows, parts, 1));
}

/* Few pixels: a large batch; many: a small one; vectors and attention: the largest. */
static void a_middle_batch_has_some_thousands_of_pixels(void)
{
    const uint32_t rows[] = {1, 2, 4, 8, 16, 32, 64, 128};
    static const struct {
        dn_cuda_product_kind kind;
        uint32_t h, w, out_h, out_w, first, end, rows;
    } of[] = {{DN_CUDA_GEMM, 16, 16, 0, 0, 0, 8, 8},  {DN_CUDA_GEMM, 32, 32, 0, 0, 0, 8, 2},   {DN_CUDA_GEMM, 64, 64, 0, 0, 0, 8, 1},
              {DN_CUDA_GEMM, 2, 2, 0, 0, 0, 8, 128},  {DN_CUDA_GEMM, 1, 1, 0, 0, 0, 8, 128},   {DN_CUDA_GEMM, 16, 16, 0, 0, 0, 2, 2},
              {DN_CUDA_GEMM, 16, 16, 0, 0, 6, 7, 64}, {DN_CUDA_CONV, 32, 32, 16, 16, 0, 8, 8}, {DN_CUDA_CONV, 8, 8, 8, 8, 0, 8, 32},
              {DN_CUDA_SDPA, 64, 64, 0, 0, 0, 8, 128}};
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        const dn_cuda_product_spec spec = {.kind = of[i].kind, .h = of[i].h, .w = of[i].w, .out_h = of[i].out_h, .out_w = of[i].out_w};
        uint32_t bucket = dn_cuda_middle_bucket(&spec, rows, of[i].first, of[i].end);
        CHECK_MSG(bucket >= of[i].first && bucket < of[i].end && rows[bucket] == of[i].rows, "case %zu: number %u", i, bucket);
    }
}

int main(void)
{
    RUN(products_are_their_formulas);
    RUN(rows_do_not_see_each_other);
    RUN(what_does_not_fit_is_refused);
    RUN(pointers_are_looked_at);
    RUN(workspaces_tell_of_cut_sums);
    RUN(a_middle_batch_has_some_thousands_of_pixels);
    return test_end();
}
