/* The nodes of convolutional networks on random odd shapes, by node_check.h. */
#include "tests/engine/node_check.h"

static dn_value conv(dn_plan_builder *b, dn_value in, const char *module, uint32_t channels, uint32_t kernel, uint32_t pad)
{
    dn_conv_options o = DN_CONV_INIT;
    o.module = module;
    o.out_channels = channels;
    o.kernel = kernel;
    o.pad_top = o.pad_left = o.pad_bottom = o.pad_right = pad;
    return dn_plan_conv(b, in, &o);
}

static dn_value build_conv(dn_plan_builder *b, dn_value in)
{
    dn_conv_options o = DN_CONV_INIT;
    o.module = "conv";
    o.out_channels = draw(1, 70);
    o.kernel = draw(1, 3);
    o.stride = draw(1, 2);
    o.pad_top = draw(0, 1);
    o.pad_left = draw(0, 1);
    o.pad_bottom = draw(0, 2);
    o.pad_right = draw(0, 1);
    o.no_bias = draw(0, 1);
    return dn_plan_conv(b, in, &o);
}

static dn_value build_full_conv(dn_plan_builder *b, dn_value in)
{
    dn_conv_options o = DN_CONV_INIT;
    uint32_t kernel = 2 * draw(0, 1) + 1;
    o.module = "full";
    o.out_channels = draw(1, 70);
    o.kernel = kernel;
    o.pad_top = o.pad_left = o.pad_bottom = o.pad_right = kernel / 2;
    o.row_bias = dn_plan_class_embedding(b, "class", 11, o.out_channels);
    o.residual = conv(b, in, "shortcut", o.out_channels, 1, 0);
    o.scale = 0.7f;
    return dn_plan_conv(b, in, &o);
}

/* A large image in one task's reach and past it: several blocks of lines, wide lines, many panels. */
static dn_value build_large_conv(dn_plan_builder *b, dn_value in)
{
    return conv(b, conv(b, in, "first", 65, 3, 1), "second", 33, 3, 1);
}

/* Shapes that Winograd's form takes, odd sides among them, with everything that can be added. */
static dn_value build_winograd(dn_plan_builder *b, dn_value in)
{
    dn_conv_options o = DN_CONV_INIT;
    dn_value x = conv(b, in, "widen", 16 * draw(2, 5), 1, 0);
    o.module = "winograd";
    o.out_channels = 16 * draw(2, 5);
    o.scale = 0.7f;
    if (draw(0, 1))
        o.row_bias = dn_plan_class_embedding(b, "class", 11, o.out_channels);
    if (draw(0, 1))
        o.residual = conv(b, in, "shortcut", o.out_channels, 1, 0);
    return dn_plan_conv(b, x, &o);
}

static dn_value build_linear(dn_plan_builder *b, dn_value in)
{
    static const dn_activation activations[] = {DN_ACT_NONE, DN_ACT_SILU, DN_ACT_GELU, DN_ACT_GELU_TANH, DN_ACT_RELU, DN_ACT_MISH};
    const char *modules[] = {"a", "b"}, *shortcut[] = {"shortcut"};
    dn_linear_options first = DN_LINEAR_INIT, o = DN_LINEAR_INIT;
    first.modules = shortcut;
    first.out_channels = o.out_channels = 2 * draw(1, 50);
    o.modules = modules;
    o.module_count = 2;
    o.residual = dn_plan_linear(b, in, &first);
    o.scale = 1.5f;
    o.activation = activations[draw(0, 5)];
    o.no_bias = draw(0, 1);
    return dn_plan_linear(b, in, &o);
}

static dn_value build_norm(dn_plan_builder *b, dn_value in)
{
    uint32_t groups = draw(1, 4), channels = groups * draw(1, 20);
    dn_value x = conv(b, in, "conv", channels, 1, 0);
    dn_value modulation = draw(0, 1) ? dn_plan_class_embedding(b, "class", 5, 2 * channels) : DN_NONE;
    return dn_plan_group_norm(b, x, "norm", NULL, groups, 1e-5f, modulation, draw(0, 1) ? DN_ACT_SILU : DN_ACT_NONE);
}

static dn_value build_attention(dn_plan_builder *b, dn_value in)
{
    uint32_t heads = draw(1, 4);
    dn_linear_options o = DN_LINEAR_INIT;
    const char *modules[] = {"q", "k", "v"};
    o.modules = modules;
    o.module_count = 3;
    o.out_channels = 3 * heads * draw(1, 20);
    return dn_plan_attention(b, dn_plan_linear(b, in, &o), "attention", heads);
}

/* The nodes that move elements, and every activation. */
static dn_value build_moves(dn_plan_builder *b, dn_value in)
{
    dn_value x = dn_plan_affine(b, in, "affine", 3.0f, -1.0f);
    x = dn_plan_activation(b, x, "act", (dn_activation)draw(1, 5));
    x = dn_plan_concat(b, x, in, "cat");
    x = dn_plan_upsample_nearest2(b, x, "up");
    x = dn_plan_average_pool2(b, x, "down");
    return dn_plan_global_pool(b, x, "pool", DN_ACT_SILU);
}

static dn_value build_embeddings(dn_plan_builder *b, dn_value in)
{
    (void)in;
    uint32_t dim = 2 * draw(2, 40);
    dn_value t = dn_plan_time_embedding(b, "time", dim, (float)draw(0, 1), draw(0, 1), 10000.0f);
    return dn_plan_concat(b, t, dn_plan_class_embedding(b, "class", 7, dim), "both");
}

static void conv_matches(void)
{
    check_kind(build_conv, (dn_shape){2, 2, 1}, (dn_shape){19, 23, 40}, 3e-6);
}

static void conv_with_everything_matches(void)
{
    check_kind(build_full_conv, (dn_shape){1, 1, 1}, (dn_shape){17, 17, 50}, 3e-6);
}

static void large_conv_matches(void)
{
    check_kind(build_large_conv, (dn_shape){20, 50, 1}, (dn_shape){40, 130, 3}, 3e-6);
}

static void winograd_matches(void)
{
    check_kind(build_winograd, (dn_shape){1, 1, 1}, (dn_shape){33, 33, 5}, 3e-6);
}

static void linear_matches(void)
{
    check_kind(build_linear, (dn_shape){1, 1, 1}, (dn_shape){9, 15, 90}, 3e-6);
}

static void group_norm_matches(void)
{
    check_kind(build_norm, (dn_shape){1, 2, 1}, (dn_shape){20, 20, 8}, 1e-5);
}

static void attention_matches(void)
{
    check_kind(build_attention, (dn_shape){1, 1, 1}, (dn_shape){9, 13, 20}, 5e-6);
}

static void moves_match(void)
{
    check_kind(build_moves, (dn_shape){2, 2, 1}, (dn_shape){11, 13, 21}, 3e-6);
}

static void embeddings_match(void)
{
    check_kind(build_embeddings, (dn_shape){1, 1, 1}, (dn_shape){1, 1, 1}, 2e-7);
}

int main(void)
{
    RUN(every_instruction_set_is_compiled);
    RUN(every_instruction_set_is_here);
    RUN(conv_matches);
    RUN(conv_with_everything_matches);
    RUN(large_conv_matches);
    RUN(winograd_matches);
    RUN(linear_matches);
    RUN(group_norm_matches);
    RUN(attention_matches);
    RUN(moves_match);
    RUN(embeddings_match);
    return test_end();
}
