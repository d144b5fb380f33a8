/* Parts of a weight out of tensors of other layouts: each row must be the one that the layout's definition says. */
#include "tests/test.h"

#include <stdbool.h>
#include <unistd.h>

#include "model/weights.h"

#define HEADS 2u
#define D 3u /* of a head */
#define C (HEADS * D)
#define WIDTH 5u

static char path[64];
static dn_layout layout;
static float scale;
static uint32_t heads = HEADS;

/* The plan's parts are "q", "k", "v"; all lie in "stored". */
static bool name_part(const dn_model *model, const char *part, dn_source *out)
{
    (void)model;
    *out = (dn_source){.name = "stored", .layout = layout, .count = 3, .heads = heads, .scale = scale};
    out->index = part[0] == 'q' ? 0 : part[0] == 'k' ? 1 : 2;
    return part[0] != 'x';
}

static void write_stored(dn_dtype dtype, uint32_t rank, const uint64_t *dims, const float *values)
{
    dn_error error = {DN_OK, ""};
    dn_safetensors_writer *writer = NULL;
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    CHECK_OK(dn_safetensors_writer_add_f32(writer, "stored", dtype, rank, dims, values, &error), error);
    CHECK_OK(dn_safetensors_writer_save(writer, path, false, &error), error);
    dn_safetensors_writer_free(writer);
}

static dn_status read_weights(dn_weights **weights, const dn_weight_info *info, dn_error *error)
{
    dn_weight_info infos[1] = {*info};
    dn_plan plan = {.weights = infos, .weight_count = 1};
    dn_model model = {.plan = &plan, .naming = name_part};
    dn_tensors *tensors = NULL;
    dn_status status = dn_tensors_open(&tensors, path, error);
    if (status == DN_OK)
        status = dn_weights_read(weights, &model, tensors, error);
    dn_tensors_close(tensors);
    return status;
}

/* The stored row that holds row (head, i) of projection n, by the layouts' definitions. */
static uint32_t expected_row(uint32_t n, uint32_t head, uint32_t i)
{
    if (layout == DN_LAYOUT_ROWS) /* [n][head][i] */
        return (n * HEADS + head) * D + i;
    if (layout == DN_LAYOUT_HEADS_ROWS) /* [head][n][i] */
        return (head * 3 + n) * D + i;
    return (head * D + i) * 3 + n; /* [head][i][n] */
}

static void check_projections(bool bias, dn_dtype dtype)
{
    float stored[3 * C * WIDTH];
    uint32_t width = bias ? 1 : WIDTH;
    dn_error error = {DN_OK, ""};
    dn_weights *weights = NULL;
    for (uint32_t i = 0; i < 3 * C * width; i++)
        stored[i] = (float)i;
    write_stored(dtype, bias ? 1 : 3, bias ? (uint64_t[]){3 * C} : (uint64_t[]){3 * C, WIDTH, 1}, stored);
    dn_weight_info info = {.part_count = 3,
                           .parts = {"q.weight", "k.weight", "v.weight"},
                           .rank = bias ? 1 : 2,
                           .dims = {3 * C, WIDTH},
                           .count = (uint64_t)3 * C * width};
    CHECK_OK(read_weights(&weights, &info, &error), error);
    for (uint32_t n = 0; n < 3; n++)
        for (uint32_t row = 0; row < C; row++)
            for (uint32_t x = 0; x < width; x++) {
                float want = stored[expected_row(n, row / D, row % D) * width + x] * (scale != 0.0f ? scale : 1.0f);
                float got = weights->data[0][(n * C + row) * width + x];
                CHECK_MSG(got == want, "layout %d, part %u, row %u: %g, not %g", (int)layout, n, row, (double)got, (double)want);
            }
    dn_weights_free(weights);
}

static void projections_in_every_order(void)
{
    static const dn_layout layouts[] = {DN_LAYOUT_ROWS, DN_LAYOUT_HEADS_ROWS, DN_LAYOUT_HEADS_INNER};
    for (size_t i = 0; i < 3 && !test_failed; i++) {
        layout = layouts[i];
        scale = i == 1 ? 0.5f : 0.0f;
        check_projections(false, DN_F32);
        if (!test_failed)
            check_projections(true, DN_F16);
    }
    scale = 0.0f;
}

/* A linear layer over one-hot classes becomes a table; its null class, which the layer lacks, is a row of zeros. */
static void a_layer_over_classes_is_a_table(void)
{
    dn_error error = {DN_OK, ""};
    dn_weights *weights = NULL;
    float stored[C * 4];
    for (uint32_t i = 0; i < C * 4; i++)
        stored[i] = 1.0f + (float)i;
    layout = DN_LAYOUT_TRANSPOSED;
    scale = 2.0f;
    write_stored(DN_F32, 2, (uint64_t[]){C, 4}, stored);
    dn_weight_info info = {.part_count = 1, .parts = {"q.weight"}, .rank = 2, .dims = {5, C}, .count = 5 * C};
    CHECK_OK(read_weights(&weights, &info, &error), error);
    for (uint32_t k = 0; k < 5; k++)
        for (uint32_t i = 0; i < C; i++)
            CHECK(weights->data[0][k * C + i] == (k < 4 ? 2.0f * stored[i * 4 + k] : 0.0f));
    dn_weights_free(weights);
    scale = 0.0f;

    info.dims[0] = 3; /* more columns than the table has rows */
    info.count = 3 * C;
    weights = NULL;
    CHECK(read_weights(&weights, &info, &error) == DN_INVALID && strstr(error.message, "shape must be [6,3]") && !weights);
}

static void layouts_that_do_not_fit(void)
{
    dn_error error = {DN_OK, ""};
    dn_weights *weights = NULL;
    float stored[3 * C * WIDTH] = {0};
    write_stored(DN_F32, 2, (uint64_t[]){3 * C, WIDTH}, stored);
    dn_weight_info info = {.part_count = 1, .parts = {"q.weight"}, .rank = 2, .dims = {C, WIDTH}, .count = C * WIDTH};
    layout = DN_LAYOUT_HEADS_ROWS;
    for (heads = 0; heads < 5; heads += 4) /* none, and 4 heads of 6 rows */
        CHECK(read_weights(&weights, &info, &error) == DN_INTERNAL && !weights);
    heads = HEADS;
    layout = DN_LAYOUT_PLAIN;
    CHECK(read_weights(&weights, &info, &error) == DN_INVALID && strstr(error.message, "shape must be [6,5]"));
    info.parts[0] = "x.weight";
    CHECK(read_weights(&weights, &info, &error) == DN_INVALID && strstr(error.message, "x.weight: the tensor is missing"));
}

static void numbers_must_be_finite_in_every_layout(void)
{
    static const dn_layout layouts[] = {DN_LAYOUT_ROWS, DN_LAYOUT_HEADS_ROWS, DN_LAYOUT_HEADS_INNER};
    float stored[3 * C] = {0};
    stored[C + 1] = NAN;
    dn_weight_info info = {
        .part_count = 3, .parts = {"q.weight", "k.weight", "v.weight"}, .rank = 1, .dims = {3 * C}, .count = (uint64_t)3 * C};
    write_stored(DN_F32, 1, (uint64_t[]){3 * C}, stored);
    for (size_t i = 0; i < 3; i++) {
        dn_error error = {DN_OK, ""};
        dn_weights *weights = NULL;
        layout = layouts[i];
        CHECK(read_weights(&weights, &info, &error) == DN_NUMERIC && strstr(error.message, "NaN") && !weights);
    }
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/denoised-layouts-%ld.safetensors", (long)getpid());
    RUN(projections_in_every_order);
    RUN(a_layer_over_classes_is_a_table);
    RUN(layouts_that_do_not_fit);
    RUN(numbers_must_be_finite_in_every_layout);
    unlink(path);
    return test_end();
}
