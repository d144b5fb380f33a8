/* The nodes of transformers, of NCSN++ and of all embeddings on random odd shapes, by node_check.h; and attention over many
 * positions and wide heads. */
#include "tests/engine/node_check.h"

#include "backend/cpu/kernels.h"

static dn_value linear(dn_plan_builder *b, dn_value in, const char *module, uint32_t channels)
{
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = &module;
    o.out_channels = channels;
    return dn_plan_linear(b, in, &o);
}

/* With and without weights, with and without modulation whose parts lie anywhere in the vector. */
static dn_value build_layer_norm(dn_plan_builder *b, dn_value in)
{
    uint32_t channels = draw(1, 150);
    dn_value x = linear(b, in, "widen", channels);
    dn_value modulation = draw(0, 3) ? dn_plan_class_embedding(b, "class", 5, 4 * channels + 3) : DN_NONE;
    return dn_plan_layer_norm(b, x, draw(0, 1) ? "norm" : NULL, "norm", 1e-6f, modulation, draw(0, channels), 2 * channels + draw(0, 3));
}

static dn_value build_gated(dn_plan_builder *b, dn_value in)
{
    static const dn_activation activations[] = {DN_ACT_NONE, DN_ACT_SILU, DN_ACT_GELU, DN_ACT_GELU_TANH};
    uint32_t channels = draw(1, 100);
    const char *modules[] = {"gated"};
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = modules;
    o.out_channels = channels;
    o.residual = linear(b, in, "shortcut", channels);
    o.gate = dn_plan_class_embedding(b, "class", 7, 2 * channels);
    o.gate_offset = draw(0, channels);
    o.activation = activations[draw(0, 3)];
    o.no_bias = draw(0, 1);
    return dn_plan_linear(b, in, &o);
}

/* adaLN: vectors of all rows through wide layers. */
static dn_value build_vectors(dn_plan_builder *b, dn_value in)
{
    dn_value t = dn_plan_time_embedding(b, "time", 2 * draw(2, 60), 1.0f, true, 10000.0f);
    const char *modules[] = {"first"};
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = modules;
    o.out_channels = draw(1, 90);
    o.activation = DN_ACT_SILU;
    dn_value v = linear(b, dn_plan_linear(b, t, &o), "second", draw(1, 600));
    return dn_plan_concat(b, v, dn_plan_global_pool(b, in, "pool", DN_ACT_NONE), "cat");
}

static dn_value build_filters(dn_plan_builder *b, dn_value in)
{
    dn_value x = dn_plan_fir2(b, dn_plan_upsample_fir2(b, in, "double"), "widen", true, draw(0, 3), draw(0, 3));
    x = dn_plan_fir2(b, dn_plan_downsample_fir2(b, x, "halve"), "narrow", false, draw(0, 3), draw(0, 3));
    return dn_plan_concat(b, x, x, "cat");
}

static dn_value build_patches(dn_plan_builder *b, dn_value in)
{
    uint32_t patch = draw(1, 4), channels = draw(1, 9);
    dn_value x = dn_plan_position(b, linear(b, in, "widen", 4 * draw(1, 20)), "position", draw(0, 1) ? 1.0f : 2.5f);
    x = dn_plan_unpatchify(b, linear(b, x, "out", patch * patch * channels), "patches", patch);
    return dn_plan_divide_by_time(b, x, "divided");
}

static dn_value build_embeddings(dn_plan_builder *b, dn_value in)
{
    uint32_t dim = 2 * draw(2, 40);
    dn_value t = dn_plan_class_sinusoid(b, "classes", 1000, dim, (float)draw(0, 1), draw(0, 1), 10000.0f);
    t = dn_plan_concat(b, t, dn_plan_fourier_embedding(b, "time_proj.weight", "fourier", dim, draw(0, 1), draw(0, 1)), "cat");
    return dn_plan_concat(b, t, dn_plan_global_pool(b, in, "pool", DN_ACT_NONE), "cat2");
}

static dn_value build_time_table(dn_plan_builder *b, dn_value in)
{
    dn_value t = dn_plan_time_table(b, "times", draw(1, 300), draw(1, 40));
    return dn_plan_concat(b, t, dn_plan_global_pool(b, in, "pool", DN_ACT_NONE), "cat");
}

static uint32_t attention_heads, attention_depth;

static dn_value build_attention(dn_plan_builder *b, dn_value in)
{
    dn_linear_options o = DN_LINEAR_INIT;
    const char *modules[] = {"q", "k", "v"};
    o.modules = modules;
    o.module_count = 3;
    o.out_channels = 3 * attention_heads * attention_depth;
    return dn_plan_attention(b, dn_plan_linear(b, in, &o), "attention", attention_heads);
}

static void layer_norm_matches(void)
{
    check_kind(build_layer_norm, (dn_shape){1, 1, 1}, (dn_shape){9, 15, 60}, 3e-6);
}

static void gated_linear_matches(void)
{
    check_kind(build_gated, (dn_shape){1, 1, 1}, (dn_shape){9, 17, 90}, 3e-6);
}

static void vectors_match(void)
{
    check_kind(build_vectors, (dn_shape){1, 1, 1}, (dn_shape){3, 3, 5}, 3e-6);
}

static void filters_match(void)
{
    check_kind(build_filters, (dn_shape){3, 3, 1}, (dn_shape){11, 9, 35}, 2e-6);
}

static void patches_match(void)
{
    check_kind(build_patches, (dn_shape){1, 1, 1}, (dn_shape){9, 7, 30}, 3e-6);
}

static void embeddings_match(void)
{
    check_kind(build_embeddings, (dn_shape){1, 1, 1}, (dn_shape){1, 1, 1}, 2e-7);
}

static void time_tables_match(void)
{
    check_kind(build_time_table, (dn_shape){1, 1, 1}, (dn_shape){1, 1, 1}, 2e-7);
}

/* The shapes of DiT (head widths 64 and 72), of an autoencoder (one head of 512), and more positions than a block of them. */
static void long_attention_matches(void)
{
    static const uint32_t cases[][4] = {{16, 16, 3, 72}, {17, 15, 2, 64}, {9, 11, 1, 512}, {34, 37, 1, 40}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !test_failed; i++) {
        attention_heads = cases[i][2];
        attention_depth = cases[i][3];
        check_kind_rounds(build_attention, (dn_shape){cases[i][0], cases[i][1], 8}, (dn_shape){cases[i][0], cases[i][1], 8}, 5e-6, 1);
    }
}

/* Every activation of every instruction set on a grid, against the C library in double. */
static void activations_are_accurate(void)
{
    static const dn_activation kinds[] = {DN_ACT_SILU, DN_ACT_GELU, DN_ACT_GELU_TANH, DN_ACT_MISH, DN_ACT_RELU};
    enum { COUNT = 40001 };
    static float x[COUNT], y[COUNT];
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)(i - COUNT / 2) * 1e-3f;
    for (size_t t = 0; t < HARNESS_ISAS; t++) {
        const dn_cpu_kernels *kernels = harness_kernels(harness_isas[t]);
        for (size_t k = 0; k < sizeof kinds / sizeof kinds[0] && harness_has(harness_isas[t]); k++) {
            kernels->activate(y, x, COUNT, kinds[k]);
            for (int i = 0; i < COUNT; i++) {
                double expected = dn_reference_activation(kinds[k], (double)x[i]), off = fabs((double)y[i] - expected);
                CHECK_MSG(off <= 4e-7 * (1.0 + fabs(expected)), "%s activation %d of %g: off by %g", harness_isas[t], (int)kinds[k],
                          (double)x[i], off);
            }
        }
    }
}

int main(void)
{
    RUN(every_instruction_set_is_compiled);
    RUN(every_instruction_set_is_here);
    RUN(activations_are_accurate);
    RUN(layer_norm_matches);
    RUN(gated_linear_matches);
    RUN(vectors_match);
    RUN(filters_match);
    RUN(patches_match);
    RUN(embeddings_match);
    RUN(time_tables_match);
    RUN(long_attention_matches);
    return test_end();
}
