/* Our own attention against its formula in double: head sizes of every kind, few positions and more than a tile of keys, scores that grow. */
#include "tests/cuda/kernels_check.h"

#define ROWS 2

typedef struct attention_case {
    tensor qkv, out;
    uint32_t heads;
} attention_case;

static int run_attention(void *what, const dn_cuda_launch *launch, uint32_t first)
{
    attention_case *a = what;
    return dn_cuda_attention(launch, view_from(&a->qkv, first), view_from(&a->out, first), a->heads);
}

/* One query of one head. */
static void attend(const attention_case *a, uint32_t row, size_t query, uint32_t head, double *chances)
{
    uint32_t c = a->out.view.c, dim = c / a->heads;
    size_t positions = (size_t)a->out.view.h * a->out.view.w;
    const double *q = exact_at(&a->qkv, row, query) + (size_t)head * dim;
    double *out = exact_at(&a->out, row, query) + (size_t)head * dim, top = -INFINITY, total = 0.0;
    for (size_t k = 0; k < positions; k++) {
        const double *key = exact_at(&a->qkv, row, k) + c + (size_t)head * dim;
        chances[k] = 0.0;
        for (uint32_t d = 0; d < dim; d++)
            chances[k] += q[d] * key[d] / sqrt((double)dim);
        top = fmax(top, chances[k]);
    }
    for (size_t k = 0; k < positions; k++) {
        chances[k] = exp(chances[k] - top);
        total += chances[k];
    }
    for (uint32_t d = 0; d < dim; d++) {
        out[d] = 0.0;
        for (size_t k = 0; k < positions; k++)
            out[d] += chances[k] / total * exact_at(&a->qkv, row, k)[2 * c + head * dim + d];
    }
}

static const char *try_attention(dn_cuda_type type, uint32_t h, uint32_t w, uint32_t heads, uint32_t dim, float spread, bool odd)
{
    attention_case a = {.heads = heads};
    size_t positions = (size_t)h * w;
    double *chances = malloc(positions * sizeof *chances);
    a.qkv = tensor_make(type, ROWS, h, w, 3 * heads * dim, odd);
    a.out = tensor_make(type, ROWS, h, w, heads * dim, odd);
    tensor_fill(&a.qkv, 0.0f, spread);
    for (uint32_t r = 0; chances && r < ROWS; r++) {
        for (size_t q = 0; q < positions; q++) {
            for (uint32_t head = 0; head < heads; head++)
                attend(&a, r, q, head, chances);
        }
    }
    trial t = {.type = type, .rows = ROWS, .run = run_attention, .what = &a, .out = {&a.out}};
    t.tolerance = tolerance_of(type) * fmax(1.0, (double)spread);
    const char *why = chances ? check_trial(&t) : "no memory";
    tensor_free(&a.qkv);
    tensor_free(&a.out);
    free(chances);
    return why;
}

static void heads_of_every_size(void)
{
    /* Height, width, heads, channels of a head. */
    static const uint32_t shapes[][4] = {{1, 1, 1, 1},  {3, 5, 3, 5},   {2, 16, 2, 8},  {3, 11, 5, 13},  {1, 7, 1, 64},  {4, 9, 2, 65},
                                         {5, 5, 1, 72}, {2, 3, 1, 127}, {3, 3, 1, 160}, {1, 33, 1, 257}, {2, 2, 1, 512}, {5, 7, 2, 32}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const uint32_t *shape = shapes[s];
        const char *why = try_attention(s % 2 ? DN_CUDA_BF16 : DN_CUDA_F32, shape[0], shape[1], shape[2], shape[3], 1.5f, s % 3 == 1);
        CHECK_MSG(!why, "%ux%u, %u heads of %u: %s", shape[0], shape[1], shape[2], shape[3], why);
        why = try_attention(s % 2 ? DN_CUDA_F32 : DN_CUDA_BF16, shape[0], shape[1], shape[2], shape[3], 1.5f, false);
        CHECK_MSG(!why, "%ux%u, %u heads of %u: %s", shape[0], shape[1], shape[2], shape[3], why);
    }
}

/* Chances that are all but one zero, and maxima that the last key may still move. */
static void scores_of_any_size(void)
{
    static const float spreads[] = {0.0f, 0.01f, 6.0f, 20.0f};
    for (size_t s = 0; s < sizeof spreads / sizeof spreads[0]; s++) {
        const char *why = try_attention(DN_CUDA_F32, 8, 9, 1, 24, spreads[s], false);
        CHECK_MSG(!why, "spread %g: %s", (double)spreads[s], why);
    }
}

static void heads_that_cannot_be_are_refused(void)
{
    dn_cuda_launch launch = {.type = DN_CUDA_F32, .rows = 1};
    dn_cuda_view view = {.data = &launch, .h = 1, .w = 1, .c = 513, .pitch = 520, .row_pitch = 520};
    CHECK(dn_cuda_attention(&launch, view, view, 1) != DN_CUDA_LAUNCH_OK);
    CHECK(dn_cuda_attention(&launch, view, view, 2) != DN_CUDA_LAUNCH_OK);
    CHECK(dn_cuda_attention(&launch, view, view, 0) != DN_CUDA_LAUNCH_OK);
}

int main(void)
{
    RUN(heads_of_every_size);
    RUN(scores_of_any_size);
    RUN(heads_that_cannot_be_are_refused);
    return test_end();
}
