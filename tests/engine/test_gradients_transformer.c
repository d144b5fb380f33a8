/* Gradients of the nodes of transformers, of NCSN++ and of all embeddings, by gradient_check.h. */
#include "tests/engine/gradient_check.h"

static dn_value linear_of(dn_plan_builder *b, dn_value in, const char *module, uint32_t channels)
{
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = &module;
    o.out_channels = channels;
    return dn_plan_linear(b, in, &o);
}

/* A DiT-like block: modulated norms with and without weights, gates with and without an activation, in odd widths. */
static dn_value build_gated(dn_plan_builder *b, dn_value in)
{
    static const dn_activation kinds[] = {DN_ACT_NONE, DN_ACT_GELU_TANH, DN_ACT_SILU};
    static const char *const norms[] = {NULL, "n1", NULL}, *const names[] = {"a", "b", "c"};
    uint32_t channels = dn_plan_shape(b, in).c;
    dn_value modulation = dn_plan_class_embedding(b, "class", 3, 4 * channels), x = dn_plan_position(b, in, "position", 1.5f);
    for (uint32_t i = 0; i < 3; i++) {
        dn_value n = dn_plan_layer_norm(b, x, norms[i], "norm", 1e-6f, i < 2 ? modulation : DN_NONE, i, 2 * channels + i);
        dn_linear_options o = DN_LINEAR_INIT;
        o.modules = &names[i];
        o.out_channels = channels;
        o.activation = kinds[i];
        o.residual = x;
        o.gate = modulation;
        o.gate_offset = channels + i;
        x = dn_plan_linear(b, n, &o);
    }
    return x;
}

static dn_value build_patches(dn_plan_builder *b, dn_value in)
{
    dn_value x = dn_plan_unpatchify(b, in, "patches", 2);
    x = dn_plan_downsample_fir2(b, dn_plan_fir2(b, x, "wide", true, 3, 2), "down");
    x = dn_plan_upsample_fir2(b, dn_plan_fir2(b, x, "narrow", false, 0, 2), "up");
    return dn_plan_divide_by_time(b, x, "divided");
}

/* The embeddings have no values to flow into: their weights and what follows them are checked. */
static dn_value build_embeddings(dn_plan_builder *b, dn_value in)
{
    dn_value t = dn_plan_fourier_embedding(b, "frequencies", "fourier", 12, true, false);
    t = dn_plan_concat(b, t, dn_plan_fourier_embedding(b, "flipped", "flipped", 8, true, true), "cat");
    t = dn_plan_concat(b, t, dn_plan_time_table(b, "times", 640, 7), "cat2");
    t = dn_plan_concat(b, t, dn_plan_class_sinusoid(b, "classes", 3, 10, 0.0f, true, 10000.0f), "cat3");
    dn_value row = linear_of(b, dn_plan_activation(b, t, "act", DN_ACT_SILU), "mix", dn_plan_shape(b, in).c);
    dn_conv_options o = DN_CONV_INIT;
    o.module = "conv";
    o.out_channels = dn_plan_shape(b, in).c;
    o.row_bias = row;
    return dn_plan_conv(b, in, &o);
}

static void gated_blocks(void)
{
    check_plan(build_gated, (dn_shape){2, 3, 20}, 300);
}

static void gated_blocks_aligned(void)
{
    check_plan(build_gated, (dn_shape){3, 2, 32}, 200);
}

static void patches_and_filters(void)
{
    check_plan(build_patches, (dn_shape){3, 5, 12}, 400);
}

static void embeddings(void)
{
    check_plan(build_embeddings, (dn_shape){2, 2, 5}, 5000);
}

int main(void)
{
    RUN(gated_blocks);
    RUN(gated_blocks_aligned);
    RUN(patches_and_filters);
    RUN(embeddings);
    return test_end();
}
