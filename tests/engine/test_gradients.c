/* Gradients of the nodes of convolutional networks by gradient_check.h, then of a whole small U-Net-like network. */
#include "tests/engine/gradient_check.h"

static dn_value build_conv(dn_plan_builder *b, dn_value in)
{
    dn_conv_options first = DN_CONV_INIT, second = DN_CONV_INIT;
    dn_value row = dn_plan_class_embedding(b, "class", 3, 20);
    first.module = "first";
    first.out_channels = 20;
    first.row_bias = row;
    dn_value x = dn_plan_conv(b, in, &first);
    second.module = "second";
    second.out_channels = 20;
    second.residual = x;
    second.scale = 0.7f;
    return dn_plan_conv(b, x, &second);
}

/* Whole vectors of channels: through Winograd's transform where sides are even. */
static dn_value build_whole_channels(dn_plan_builder *b, dn_value in)
{
    dn_conv_options first = DN_CONV_INIT, second = DN_CONV_INIT;
    first.module = "first";
    first.out_channels = 48;
    first.row_bias = dn_plan_class_embedding(b, "class", 3, 48);
    dn_value x = dn_plan_conv(b, in, &first);
    second.module = "second";
    second.out_channels = 16;
    second.residual = in;
    second.scale = 0.7f;
    return dn_plan_conv(b, x, &second);
}

static dn_value build_strided(dn_plan_builder *b, dn_value in)
{
    dn_conv_options first = DN_CONV_INIT, second = DN_CONV_INIT, third = DN_CONV_INIT;
    first.module = "first";
    first.out_channels = 17;
    first.stride = 2;
    dn_value x = dn_plan_conv(b, in, &first);
    second.module = "second";
    second.out_channels = 48;
    second.stride = 2;
    second.pad_top = second.pad_left = 0;
    second.no_bias = true;
    x = dn_plan_conv(b, x, &second);
    third.module = "third";
    third.out_channels = 3;
    third.kernel = 1;
    third.pad_top = third.pad_left = third.pad_bottom = third.pad_right = 0;
    return dn_plan_conv(b, x, &third);
}

static dn_value build_linear(dn_plan_builder *b, dn_value in)
{
    static const dn_activation kinds[] = {DN_ACT_SILU, DN_ACT_GELU, DN_ACT_GELU_TANH, DN_ACT_RELU, DN_ACT_MISH, DN_ACT_NONE};
    static const char *const names[] = {"a", "b", "c", "d", "e", "f"};
    static const char *const stacked[] = {"q", "k", "v"};
    dn_value x = in;
    for (int i = 0; i < 6; i++) {
        dn_linear_options o = DN_LINEAR_INIT;
        o.modules = &names[i];
        o.out_channels = i == 2 ? 32 : 21;
        o.activation = kinds[i];
        o.residual = i == 1 ? x : DN_NONE;
        o.scale = i % 2 ? 0.6f : 1.0f;
        o.no_bias = i == 3;
        x = dn_plan_linear(b, x, &o);
    }
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = stacked;
    o.module_count = 3;
    o.out_channels = 24;
    return dn_plan_linear(b, x, &o);
}

static dn_value build_norm(dn_plan_builder *b, dn_value in)
{
    static const dn_activation kinds[] = {DN_ACT_SILU, DN_ACT_GELU, DN_ACT_MISH, DN_ACT_NONE, DN_ACT_RELU};
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    dn_value x = in, modulation = dn_plan_class_embedding(b, "class", 3, 2 * b->plan->values[in].shape.c);
    for (int i = 0; i < 5; i++) {
        x = dn_plan_group_norm(b, x, names[i], NULL, i % 2 ? 3 : 4, 1e-5f, i % 2 ? modulation : DN_NONE, kinds[i]);
    }
    return x;
}

static dn_value build_attention(dn_plan_builder *b, dn_value in)
{
    return dn_plan_attention(b, in, "attention", 3);
}

static dn_value build_shapes(dn_plan_builder *b, dn_value in)
{
    dn_value x = dn_plan_affine(b, in, "centre", 2.0f, -1.0f);
    dn_value small = dn_plan_average_pool2(b, x, "pool");
    dn_value big = dn_plan_upsample_nearest2(b, small, "up");
    x = dn_plan_concat(b, big, dn_plan_activation(b, x, "act", DN_ACT_SILU), "cat");
    return dn_plan_global_pool(b, x, "mean", DN_ACT_GELU);
}

static dn_value resnet(dn_plan_builder *b, dn_value x, dn_value time, const char *name, uint32_t channels)
{
    char text[4][64];
    static const char *const suffix[] = {"norm1", "conv1", "norm2", "conv2"};
    for (int i = 0; i < 4; i++) {
        snprintf(text[i], sizeof text[i], "%s.%s", name, suffix[i]);
    }
    dn_conv_options one = DN_CONV_INIT, two = DN_CONV_INIT;
    one.module = text[1];
    one.out_channels = channels;
    one.row_bias = time;
    dn_value h = dn_plan_group_norm(b, x, text[0], NULL, 4, 1e-5f, DN_NONE, DN_ACT_SILU);
    h = dn_plan_conv(b, h, &one);
    h = dn_plan_group_norm(b, h, text[2], NULL, 4, 1e-5f, DN_NONE, DN_ACT_SILU);
    two.module = text[3];
    two.out_channels = channels;
    two.residual = dn_plan_shape(b, x).c == channels ? x : DN_NONE;
    return dn_plan_conv(b, h, &two);
}

static dn_value build_unet(dn_plan_builder *b, dn_value in)
{
    static const char *const one[] = {"time"}, *const qkv[] = {"to_q", "to_k", "to_v"};
    dn_conv_options enter = DN_CONV_INIT, leave = DN_CONV_INIT, down = DN_CONV_INIT;
    dn_linear_options o = DN_LINEAR_INIT, stacked = DN_LINEAR_INIT;
    dn_value time = dn_plan_time_embedding(b, "sinusoid", 12, 0.0f, true, 10000.0f);
    o.modules = one;
    o.out_channels = 16;
    o.activation = DN_ACT_SILU;
    time = dn_plan_linear(b, time, &o);
    enter.module = "conv_in";
    enter.out_channels = 16;
    dn_value skip = resnet(b, dn_plan_conv(b, in, &enter), time, "r0", 16);
    down.module = "down";
    down.out_channels = 16;
    down.stride = 2;
    dn_value x = dn_plan_conv(b, skip, &down);
    stacked.modules = qkv;
    stacked.module_count = 3;
    stacked.out_channels = 48;
    x = dn_plan_attention(b, dn_plan_linear(b, x, &stacked), "attention", 2);
    x = dn_plan_concat(b, dn_plan_upsample_nearest2(b, x, "up"), skip, "cat");
    x = resnet(b, x, time, "r1", 16);
    leave.module = "conv_out";
    leave.out_channels = 1;
    return dn_plan_conv(b, x, &leave);
}

static void convolution(void)
{
    check_plan(build_conv, (dn_shape){5, 7, 3}, 200);
}

static void convolution_strided(void)
{
    check_plan(build_strided, (dn_shape){12, 8, 16}, 200);
}

static void convolution_aligned(void)
{
    check_plan(build_conv, (dn_shape){4, 18, 32}, 100);
}

/* One tile, some lines of them with a shorter last block, lines longer than a block; and the same in odd sizes, which go directly. */
static void convolution_winograd(void)
{
    static const dn_shape shapes[] = {{2, 2, 16}, {20, 32, 16}, {4, 136, 16}, {3, 6, 16}, {6, 3, 16}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0] && !test_failed; i++) {
        dn_plan_builder builder;
        dn_plan *plan = NULL;
        dn_packing *packing = NULL;
        dn_error error;
        CHECK_OK(dn_plan_begin(&builder, shapes[i], &error), error);
        CHECK_OK(dn_plan_end(&plan, &builder, build_whole_channels(&builder, builder.plan->input), &error), error);
        CHECK_OK(dn_packing_create(&packing, plan, &error), error);
        uint32_t found = 0;
        for (uint32_t w = 0; w < plan->weight_count; w++)
            found += packing->weights[w].winograd;
        dn_packing_free(packing);
        dn_plan_free(plan);
        CHECK_MSG(found == (i < 3 ? 2u : 0u), "%u weights of shape %zu", found, i);
        check_plan(build_whole_channels, shapes[i], dn_shape_count(shapes[i]) > 1000 ? 16 : 100); /* a look costs four runs of all of it */
    }
}

static void linear(void)
{
    check_plan(build_linear, (dn_shape){2, 3, 13}, 200);
}

static void group_norm(void)
{
    check_plan(build_norm, (dn_shape){3, 2, 12}, 200);
    check_plan(build_norm, (dn_shape){2, 3, 60}, 60); /* whole blocks of channels, and what is left */
}

static void attention(void)
{
    check_plan(build_attention, (dn_shape){3, 5, 36}, 600);
}

static void shapes(void)
{
    check_plan(build_shapes, (dn_shape){6, 4, 5}, 600);
}

static void whole_network(void)
{
    check_plan(build_unet, (dn_shape){8, 8, 1}, 40);
}

int main(void)
{
    RUN(convolution);
    RUN(convolution_strided);
    RUN(convolution_aligned);
    RUN(convolution_winograd);
    RUN(linear);
    RUN(group_norm);
    RUN(attention);
    RUN(shapes);
    RUN(whole_network);
    return test_end();
}
