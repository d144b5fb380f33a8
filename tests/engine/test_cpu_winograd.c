/* Winograd's forms of 3x3 convolution: which one a shape gets, each against the plain reference in double on odd shapes, and the
 * bytes of a row in every company, for tiles are cut into groups of four where a weight is transformed in registers. */
#include "tests/engine/node_check.h"

#include "backend/cpu/winograd.h"

#define COMPANY_MAX 9

static dn_value add_conv(dn_plan_builder *b, dn_value in, const char *module, uint32_t channels, uint32_t kernel)
{
    dn_conv_options o = DN_CONV_INIT;
    o.module = module;
    o.out_channels = channels;
    o.kernel = kernel;
    o.pad_top = o.pad_left = o.pad_bottom = o.pad_right = kernel / 2;
    return dn_plan_conv(b, in, &o);
}

/* A convolution of `from` to `to` channels with everything that can be added to it. */
static dn_value add_winograd(dn_plan_builder *b, dn_value in, uint32_t from, uint32_t to)
{
    dn_conv_options o = DN_CONV_INIT;
    dn_value x = add_conv(b, in, "widen", from, 1);
    o.module = "winograd";
    o.out_channels = to;
    o.scale = 0.7f;
    if (draw(0, 1))
        o.row_bias = dn_plan_class_embedding(b, "class", 11, to);
    if (draw(0, 1))
        o.residual = add_conv(b, in, "shortcut", to, 1);
    return dn_plan_conv(b, x, &o);
}

static dn_value build_small_weight(dn_plan_builder *b, dn_value in)
{
    return add_winograd(b, in, 16 * draw(2, 9), 16 * draw(2, 9));
}

static dn_value build_large_weight(dn_plan_builder *b, dn_value in)
{
    return add_winograd(b, in, 16 * draw(10, 14), 16 * draw(10, 14));
}

static void tiny_images_match(void)
{
    check_kind(build_small_weight, (dn_shape){1, 1, 1}, (dn_shape){4, 4, 5}, 3e-6);
}

static void kept_weights_match(void)
{
    check_kind(build_small_weight, (dn_shape){3, 6, 1}, (dn_shape){21, 19, 5}, 5e-6);
}

static void weights_transformed_in_registers_match(void)
{
    check_kind(build_large_weight, (dn_shape){1, 1, 1}, (dn_shape){8, 8, 5}, 5e-6);
}

/* The form of a convolution by itself. */
static dn_winograd_form form_of(dn_shape in, uint32_t channels, uint32_t kernel)
{
    dn_plan_builder b;
    dn_plan *plan = NULL;
    dn_winograd_form form = {0};
    if (dn_plan_begin(&b, in, &error) == DN_OK &&
        dn_plan_end(&plan, &b, add_conv(&b, b.plan->input, "conv", channels, kernel), &error) == DN_OK)
        form = dn_cpu_winograd_form(plan, &plan->nodes[plan->node_count - 1]);
    dn_plan_free(plan);
    return form;
}

static void forms_follow_the_table(void)
{
    static const struct {
        dn_shape in;
        uint32_t channels, kernel;
        size_t side;
        bool kept;
    } cases[] = {
        {{32, 32, 64}, 64, 3, 4, true},  {{64, 64, 512}, 512, 3, 4, true}, {{8, 8, 96}, 96, 3, 4, true},   {{8, 8, 256}, 256, 3, 4, false},
        {{4, 4, 64}, 64, 3, 2, true},    {{4, 4, 512}, 512, 3, 4, false},  {{32, 32, 3}, 64, 3, 0, false}, {{32, 32, 64}, 3, 3, 0, false},
        {{32, 32, 64}, 72, 3, 0, false}, {{32, 32, 64}, 64, 1, 0, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_winograd_form form = form_of(cases[i].in, cases[i].channels, cases[i].kernel);
        CHECK_MSG(form.side == cases[i].side && form.kept == cases[i].kept, "case %zu: side %zu, kept %d", i, form.side, (int)form.kept);
    }
}

/* Runs `count` rows from the first on and leaves their outputs in `got`. */
static void run_company(harness *h, float *got, uint32_t first, uint32_t count)
{
    dn_workspace *workspace = NULL;
    dn_workspace_options options = {.rows_max = count, .keep_values = count % 2};
    dn_row rows[COMPANY_MAX];
    CHECK_OK(h->backend->workspace_create(&workspace, h->network, &options, &error), error);
    for (uint32_t r = 0; r < count; r++)
        rows[r] = harness_row(h, first + r);
    memset(got, 0xFF, COMPANY_MAX * h->out_count * sizeof *got);
    h->backend->buffer_write(h->out, 0, got, COMPANY_MAX * h->out_count, NULL);
    CHECK_OK(h->backend->run(h->network, workspace, rows, count, &error), error);
    h->backend->buffer_read(h->out, 0, got, COMPANY_MAX * h->out_count, NULL);
    h->backend->workspace_free(workspace);
}

static void check_company(const dn_plan *plan, const dn_weights *weights, const char *isa, unsigned threads)
{
    harness h;
    CHECK_MSG(harness_open(&h, isa, threads, plan, weights), "%s does not open", isa);
    float *samples = draw_floats(COMPANY_MAX * h.in_count);
    float *alone = malloc(COMPANY_MAX * h.out_count * sizeof *alone), *together = malloc(COMPANY_MAX * h.out_count * sizeof *together);
    h.backend->buffer_write(h.in, 0, samples, COMPANY_MAX * h.in_count, NULL);
    for (uint32_t row = 0; row < COMPANY_MAX && !test_failed; row += 3) {
        run_company(&h, alone, row, 1);
        for (uint32_t count = 2; row + count <= COMPANY_MAX && !test_failed; count++) {
            run_company(&h, together, row, count);
            CHECK_MSG(memcmp(alone + row * h.out_count, together + row * h.out_count, h.out_count * sizeof *alone) == 0,
                      "%s, %u threads: row %u differs among %u", isa, threads, row, count);
        }
    }
    free(alone);
    free(together);
    free(samples);
    harness_close(&h);
}

/* One, two, four and six tiles an image, so that a group of four ends anywhere; and more pixels, whose transform is kept and whose tasks
 * end inside images. */
static void rows_keep_their_bytes(void)
{
    static const dn_shape shapes[] = {{3, 4, 3}, {4, 6, 3}, {8, 5, 3}, {6, 10, 3}, {2, 3, 3}, {9, 10, 3}, {17, 6, 3}};
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        dn_plan_builder b;
        dn_plan *plan = NULL;
        CHECK_OK(dn_plan_begin(&b, shapes[s], &error), error);
        dn_value out = s < 4 ? build_large_weight(&b, b.plan->input) : build_small_weight(&b, b.plan->input);
        CHECK_OK(dn_plan_end(&plan, &b, out, &error), error);
        dn_weights *weights = draw_weights(plan);
        for (size_t i = 0; i < HARNESS_ISAS && !test_failed; i++) {
            for (unsigned threads = 1; threads <= 3 && harness_has(harness_isas[i]) && !test_failed; threads++)
                check_company(plan, weights, harness_isas[i], threads);
        }
        dn_weights_free(weights);
        dn_plan_free(plan);
    }
}

int main(void)
{
    RUN(every_instruction_set_is_compiled);
    RUN(every_instruction_set_is_here);
    RUN(forms_follow_the_table);
    RUN(tiny_images_match);
    RUN(kept_weights_match);
    RUN(weights_transformed_in_registers_match);
    RUN(rows_keep_their_bytes);
    return test_end();
}
