/* The plan builder: shapes, names, last uses, weights, costs; and that it refuses what does not fit. */
#include "tests/test.h"

#include "plan/plan.h"

static dn_plan_builder builder;
static dn_error error;

static dn_value begin(uint32_t h, uint32_t w, uint32_t c)
{
    dn_plan_begin(&builder, (dn_shape){h, w, c}, &error);
    return builder.plan->input;
}

static dn_value conv(dn_value in, const char *module, uint32_t channels, uint32_t kernel, uint32_t stride, uint32_t pad)
{
    dn_conv_options o = DN_CONV_INIT;
    o.module = module;
    o.out_channels = channels;
    o.kernel = kernel;
    o.stride = stride;
    o.pad_top = o.pad_left = o.pad_bottom = o.pad_right = pad;
    return dn_plan_conv(&builder, in, &o);
}

static void a_small_network(void)
{
    dn_value x = begin(9, 7, 3);
    dn_value a = conv(x, "conv_in", 8, 3, 1, 1);
    dn_value n = dn_plan_group_norm(&builder, a, "norm", "norm+silu", 4, 1e-5f, DN_NONE, DN_ACT_SILU);
    dn_value b = conv(n, "down", 12, 3, 2, 1);
    const char *qkv[] = {"to_q", "to_k", "to_v"};
    dn_linear_options linear = DN_LINEAR_INIT;
    linear.modules = qkv;
    linear.module_count = 3;
    linear.out_channels = 36;
    linear.name = "qkv";
    dn_value q = dn_plan_linear(&builder, b, &linear);
    dn_value attended = dn_plan_attention(&builder, q, "attention", 3);
    dn_value joined = dn_plan_concat(&builder, b, attended, "cat");
    dn_value pooled = dn_plan_global_pool(&builder, joined, "pool", DN_ACT_NONE);
    dn_shape s = dn_plan_shape(&builder, b);
    CHECK(s.h == 5 && s.w == 4 && s.c == 12);
    dn_plan *plan = NULL;
    CHECK_OK(dn_plan_end(&plan, &builder, pooled, &error), error);
    CHECK(plan->node_count == 7 && plan->value_count == 8);
    CHECK(strcmp(plan->nodes[1].name, "norm+silu") == 0 && strcmp(plan->nodes[0].name, "conv_in") == 0);
    CHECK(plan->values[x].last_use == 0 && plan->values[b].last_use == 5 && plan->values[pooled].last_use == 7);
    CHECK(plan->values[x].producer == DN_NONE && plan->values[q].producer == 3);
    const dn_weight_info *w = &plan->weights[plan->nodes[3].weight];
    CHECK(w->part_count == 3 && strcmp(w->parts[1], "to_k.weight") == 0 && w->dims[0] == 36 && w->dims[1] == 12 && w->count == 36 * 12);
    double flops = 2.0 * 63 * 8 * 27 + 2.0 * 20 * 12 * 72 + 2.0 * 20 * 36 * 12 + 4.0 * 20 * 20 * 12;
    CHECK(dn_plan_flops(plan) == flops);
    CHECK(dn_plan_parameters(plan) == 8 * 27 + 8 + 8 + 8 + 12 * 72 + 12 + 36 * 12 + 36);
    dn_plan_free(plan);
}

static void weights_follow_the_plan(void)
{
    dn_value x = begin(4, 4, 2);
    dn_value y = conv(conv(x, "first", 3, 3, 1, 1), "second", 5, 1, 1, 0);
    dn_plan *plan = NULL;
    CHECK_OK(dn_plan_end(&plan, &builder, y, &error), error);
    dn_weights *weights = NULL;
    CHECK_OK(dn_weights_create(&weights, plan, &error), error);
    CHECK(weights->count == 4 && weights->total == 54 + 3 + 15 + 5);
    for (uint32_t w = 0; w < weights->count; w++) {
        for (uint64_t i = 0; i < plan->weights[w].count; i++)
            CHECK(weights->data[w][i] == 0.0f);
    }
    dn_weights_free(weights);
    dn_plan_free(plan);
}

/* A weight named twice is one weight; with another shape it is a fault. */
static void weights_are_shared_by_name(void)
{
    dn_value x = begin(4, 4, 3);
    dn_value y = conv(conv(x, "same", 3, 3, 1, 1), "same", 3, 3, 1, 1);
    dn_plan *plan = NULL;
    CHECK_OK(dn_plan_end(&plan, &builder, y, &error), error);
    CHECK(plan->weight_count == 2 && plan->nodes[0].weight == plan->nodes[1].weight);
    dn_plan_free(plan);
    x = begin(4, 4, 3);
    y = conv(conv(x, "same", 3, 3, 1, 1), "same", 3, 1, 1, 0);
    CHECK(y == DN_NONE);
    CHECK(dn_plan_end(&plan, &builder, y, &error) == DN_INTERNAL && strstr(error.message, "same.weight"));
}

static void grows_past_its_first_arrays(void)
{
    dn_value x = begin(2, 2, 4);
    char name[32];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "layer.%d", i);
        x = conv(x, name, 4, 1, 1, 0);
    }
    dn_plan *plan = NULL;
    CHECK_OK(dn_plan_end(&plan, &builder, x, &error), error);
    CHECK(plan->node_count == 200 && plan->weight_count == 400);
    CHECK(strcmp(plan->weights[plan->nodes[199].weight].parts[0], "layer.199.weight") == 0);
    dn_plan_free(plan);
}

static int refused(dn_value last, const char *words)
{
    dn_plan *plan = NULL;
    dn_status status = dn_plan_end(&plan, &builder, last, &error);
    return status != DN_OK && plan == NULL && strstr(error.message, words) != NULL;
}

static void refuses_what_does_not_fit(void)
{
    dn_value x = begin(8, 8, 6);
    CHECK(refused(dn_plan_group_norm(&builder, x, "norm", NULL, 4, 1e-5f, DN_NONE, DN_ACT_NONE), "norm: 6 channels"));
    x = begin(8, 8, 6);
    CHECK(refused(dn_plan_attention(&builder, x, "attention", 4), "4 heads"));
    x = begin(8, 8, 6);
    CHECK(refused(dn_plan_concat(&builder, x, dn_plan_average_pool2(&builder, x, "half"), "cat"), "cat: 8x8"));
    x = begin(1, 1, 6);
    CHECK(refused(conv(x, "big", 4, 3, 1, 0), "too small"));
    x = begin(4, 4, 6);
    dn_conv_options o = DN_CONV_INIT;
    o.module = "wide";
    o.out_channels = 4;
    o.residual = x;
    CHECK(refused(dn_plan_conv(&builder, x, &o), "wide: the residual is 4x4x6, not 4x4x4"));
    begin(4, 4, 6);
    CHECK(refused(dn_plan_time_embedding(&builder, "time", 7, 0.0f, true, 10000.0f), "time"));
    x = begin(4, 4, 6);
    CHECK(refused(x, "output"));
    x = begin(4, 4, 6);
    CHECK(refused(dn_plan_affine(&builder, 77, "ghost", 1.0f, 0.0f), "ghost"));
    CHECK(dn_plan_begin(&builder, (dn_shape){0, 4, 1}, &error) == DN_INVALID);
}

static void transformers_nodes_have_their_shapes(void)
{
    dn_value x = begin(6, 5, 8), m = dn_plan_class_embedding(&builder, "class", 3, 40);
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = (const char *[]){"gated"};
    o.out_channels = 8;
    o.residual = x;
    o.gate = m;
    o.gate_offset = 32;
    dn_value n = dn_plan_layer_norm(&builder, dn_plan_position(&builder, x, "place", 1.0f), NULL, NULL, 1e-6f, m, 0, 8);
    dn_value u = dn_plan_unpatchify(&builder, dn_plan_linear(&builder, n, &o), "patches", 2);
    dn_shape s = dn_plan_shape(&builder, u);
    CHECK(s.h == 12 && s.w == 10 && s.c == 2);
    s = dn_plan_shape(&builder, dn_plan_upsample_fir2(&builder, x, "double"));
    CHECK(s.h == 12 && s.w == 10 && s.c == 8);
    s = dn_plan_shape(&builder, dn_plan_downsample_fir2(&builder, x, "halve"));
    CHECK(s.h == 3 && s.w == 2 && s.c == 8);
    s = dn_plan_shape(&builder, dn_plan_fir2(&builder, x, "wide", true, 3, 2));
    CHECK(s.h == 14 && s.w == 12 && s.c == 8);
    dn_value t = dn_plan_time_table(&builder, "times", 77, 4);
    CHECK(dn_plan_shape(&builder, t).c == 4);
    dn_plan *plan = NULL;
    CHECK_OK(dn_plan_end(&plan, &builder, u, &error), error);
    CHECK(plan->time_rows == 77 && plan->class_rows == 3 && plan->values[m].last_use == 3);
    dn_plan_free(plan);
}

static dn_value gated(dn_value in, uint32_t gate_offset, float scale, bool residual)
{
    dn_linear_options o = DN_LINEAR_INIT;
    o.modules = (const char *[]){"gated"};
    o.out_channels = 6;
    o.residual = residual ? in : DN_NONE;
    o.gate = dn_plan_class_embedding(&builder, "class", 3, 8);
    o.gate_offset = gate_offset;
    o.scale = scale;
    return dn_plan_linear(&builder, in, &o);
}

static void refuses_what_transformers_cannot_use(void)
{
    dn_value x = begin(4, 4, 6);
    CHECK(refused(gated(x, 3, 1.0f, true), "no gate of 6 at 3"));
    x = begin(4, 4, 6);
    CHECK(refused(gated(x, 2, 0.5f, true), "a scale of 1"));
    x = begin(4, 4, 6);
    CHECK(refused(gated(x, 2, 1.0f, false), "needs a residual"));
    x = begin(4, 4, 6);
    CHECK(refused(dn_plan_layer_norm(&builder, x, NULL, "norm", 1e-6f, x, 0, 0), "norm: no shift"));
    x = begin(4, 4, 6);
    CHECK(refused(dn_plan_position(&builder, x, "place", 1.0f), "place: 6 channels"));
    x = begin(4, 4, 6);
    CHECK(refused(dn_plan_unpatchify(&builder, x, "patches", 2), "patches of 2"));
    x = begin(4, 1, 6);
    CHECK(refused(dn_plan_downsample_fir2(&builder, x, "halve"), "out of range"));
    x = begin(4, 4, 6);
    CHECK(refused(dn_plan_fir2(&builder, x, "padded", true, 4, 0), "padded by 4"));
    begin(4, 4, 6);
    dn_plan_time_table(&builder, "times", 10, 4);
    CHECK(refused(dn_plan_time_table(&builder, "others", 11, 4), "others: a time table"));
    begin(4, 4, 6);
    dn_plan_class_embedding(&builder, "class", 10, 4);
    CHECK(refused(dn_plan_class_sinusoid(&builder, "number", 11, 4, 0.0f, true, 10000.0f), "number: a class table"));
    begin(4, 4, 6);
    CHECK(refused(dn_plan_fourier_embedding(&builder, "w", "fourier", 5, true, false), "fourier"));
}

/* After the first failure a builder keeps its message, whatever is asked of it. */
static void remembers_the_first_failure(void)
{
    dn_value x = begin(4, 4, 6);
    dn_value bad = dn_plan_attention(&builder, x, "first fault", 5);
    dn_value worse = dn_plan_affine(&builder, bad, "second fault", 1.0f, 0.0f);
    CHECK(bad == DN_NONE && worse == DN_NONE && dn_plan_shape(&builder, bad).c == 0);
    CHECK(conv(worse, "third", 4, 3, 1, 1) == DN_NONE);
    CHECK(refused(worse, "first fault"));
}

int main(void)
{
    RUN(a_small_network);
    RUN(weights_follow_the_plan);
    RUN(weights_are_shared_by_name);
    RUN(grows_past_its_first_arrays);
    RUN(refuses_what_does_not_fit);
    RUN(transformers_nodes_have_their_shapes);
    RUN(refuses_what_transformers_cannot_use);
    RUN(remembers_the_first_failure);
    return test_end();
}
