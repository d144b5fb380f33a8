/* Measures the engine's kernels beside the multiply-add peak of the same core in the same run.
 *
 *     bench_engine_kernels [SECONDS_PER_ROW]
 *
 * One-core rows count the thread's own CPU time, best of many rounds, so that a busy neighbour disturbs little; rows on
 * the pool count wall time and mean something on a quiet machine only. Rates of convolutions count the direct form's
 * operations, so that Winograd's form can pass the peak. The probe runs between the rows and its best is the peak. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cpu/state.h"
#include "model/model.h"
#include "tests/bench/bench_rows.h"

/* ---- The matrix product alone. */
typedef struct product {
    const dn_cpu_kernels *kernels;
    dn_gemm gemm;
} product;

static void run_product(void *payload)
{
    product *p = payload;
    p->kernels->gemm(&p->gemm, 0, dn_cpu_panels(p->kernels, p->gemm.n));
}

static void bench_product(const dn_cpu_kernels *kernels, size_t m, size_t k, size_t n)
{
    float *a = randoms(m * k), *b = randoms(dn_cpu_packed_count(kernels, k, n)), *out = randoms(m * n), *bias = randoms(n);
    product p = {kernels,
                 {.a = a,
                  .a_row = k,
                  .b = b,
                  .out = out,
                  .out_row = n,
                  .bias = bias,
                  .scale = 1.0f,
                  .lines = 1,
                  .rows = m,
                  .segments = 1,
                  .k = k,
                  .n = n}};
    char name[64];
    snprintf(name, sizeof name, "gemm [%zu,%zu]x[%zu,%zu]", m, k, k, n);
    probe_peak(kernels->lanes);
    print_flops(name, best_time(run_product, &p, thread_seconds), 2.0 * (double)m * (double)k * (double)n);
    free(a);
    free(b);
    free(out);
    free(bias);
}

/* ---- Plans: a network of one node, or a whole U-Net, over random rows. */
typedef struct runner {
    const dn_backend *backend;
    dn_network *network;
    dn_workspace *workspace;
    dn_buffer *in, *out;
    dn_row rows[16];
    uint32_t row_count;
} runner;

static void run_rows(void *payload)
{
    runner *r = payload;
    dn_error error;
    check(r->backend->run(r->network, r->workspace, r->rows, r->row_count, &error), &error);
}

static void fill_rows(runner *r, const dn_plan *plan, dn_device *device, uint32_t row_count)
{
    size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    dn_error error;
    check(r->backend->buffer_create(&r->in, device, in * row_count, &error), &error);
    check(r->backend->buffer_create(&r->out, device, out * row_count, &error), &error);
    float *values = randoms(in * row_count);
    check(r->backend->buffer_write(r->in, 0, values, in * row_count, &error), &error);
    free(values);
    for (uint32_t i = 0; i < row_count; i++) {
        dn_row *row = &r->rows[i];
        *row = (dn_row){.in = r->in, .in_offset = in * i, .in_scale = 1.0f, .time = 500.0f, .out = r->out, .out_offset = out * i};
        if (plan->class_rows)
            row->condition = (dn_condition){.count = 1, .classes = {i % plan->class_rows}, .weights = {1.0f}};
    }
    r->row_count = row_count;
}

/* Best seconds of a plan's run. */
static double time_plan(const dn_plan *plan, const dn_weights *weights, dn_device *device, uint32_t row_count, bool inline_threads)
{
    runner r = {.backend = dn_backend_cpu()};
    dn_error error;
    dn_network_options network = {.plan = plan, .weights = weights};
    dn_workspace_options workspace = {.rows_max = row_count, .inline_threads = inline_threads};
    check(r.backend->network_create(&r.network, device, &network, &error), &error);
    check(r.backend->workspace_create(&r.workspace, r.network, &workspace, &error), &error);
    fill_rows(&r, plan, device, row_count);
    double best = best_time(run_rows, &r, inline_threads ? thread_seconds : dn_now_seconds);
    r.backend->buffer_free(r.in);
    r.backend->buffer_free(r.out);
    r.backend->workspace_free(r.workspace);
    r.backend->network_free(r.network);
    return best;
}

static dn_weights *random_weights(const dn_plan *plan)
{
    dn_weights *weights = NULL;
    dn_error error;
    check(dn_weights_create(&weights, plan, &error), &error);
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        float *values = randoms((size_t)plan->weights[w].count);
        double fan = plan->weights[w].rank > 1 ? (double)plan->weights[w].count / plan->weights[w].dims[0] : 1.0;
        for (uint64_t i = 0; i < plan->weights[w].count; i++)
            weights->data[w][i] = values[i] / (float)fan;
        free(values);
    }
    return weights;
}

typedef dn_value build_function(dn_plan_builder *builder, dn_value in, uint32_t parameter);

static dn_value build_conv(dn_plan_builder *builder, dn_value in, uint32_t channels)
{
    dn_conv_options options = DN_CONV_INIT;
    options.module = "conv";
    options.out_channels = channels;
    return dn_plan_conv(builder, in, &options);
}

static dn_value build_norm(dn_plan_builder *builder, dn_value in, uint32_t groups)
{
    return dn_plan_group_norm(builder, in, "norm", NULL, groups, 1e-5f, DN_NONE, DN_ACT_SILU);
}

static dn_value build_attention(dn_plan_builder *builder, dn_value in, uint32_t heads)
{
    return dn_plan_attention(builder, in, "attention", heads);
}

static dn_value build_linear(dn_plan_builder *builder, dn_value in, const char *module, uint32_t channels, dn_linear_options options)
{
    options.modules = &module;
    options.out_channels = channels;
    return dn_plan_linear(builder, in, &options);
}

static dn_value build_gelu(dn_plan_builder *builder, dn_value in, uint32_t channels)
{
    dn_linear_options options = DN_LINEAR_INIT;
    options.activation = DN_ACT_GELU_TANH;
    return build_linear(builder, in, "linear", channels, options);
}

static dn_value build_gated(dn_plan_builder *builder, dn_value in, uint32_t channels)
{
    dn_linear_options options = DN_LINEAR_INIT;
    options.residual = build_linear(builder, in, "residual", channels, options);
    options.gate = dn_plan_class_embedding(builder, "class", 2, channels);
    return build_linear(builder, in, "linear", channels, options);
}

static dn_value build_layer_norm(dn_plan_builder *builder, dn_value in, uint32_t channels)
{
    dn_value modulation = dn_plan_class_embedding(builder, "class", 2, 2 * channels);
    return dn_plan_layer_norm(builder, in, NULL, "norm", 1e-6f, modulation, 0, channels);
}

/* A node's own function over rows that already lie in its workspace: no gathering, no scattering. */
typedef struct lone_node {
    dn_cpu_run run;
    void (*function)(const dn_cpu_run *);
} lone_node;

static void run_lone_node(void *payload)
{
    const lone_node *lone = payload;
    lone->function(&lone->run);
}

/* The plan's last node over `row_count` rows; its inputs are random. */
static double time_node(dn_device *device, const dn_plan *plan, const dn_weights *weights, void (*function)(const dn_cpu_run *),
                        uint32_t row_count)
{
    dn_network *network = NULL;
    dn_workspace *workspace = NULL;
    dn_error error;
    dn_network_options options = {.plan = plan, .weights = weights};
    dn_workspace_options space = {.rows_max = row_count, .keep_values = true, .inline_threads = true};
    check(dn_cpu_network_create(&network, device, &options, &error), &error);
    check(dn_cpu_workspace_create(&workspace, network, &space, &error), &error);
    workspace->row_count = row_count;
    float *values = randoms(workspace->region_floats);
    memcpy(workspace->arena, values, workspace->region_floats * sizeof *values);
    free(values);
    lone_node lone = {.function = function,
                      .run = {.workspace = workspace,
                              .row_count = row_count,
                              .rows = workspace->rows,
                              .region = workspace->arena,
                              .offsets = workspace->offsets,
                              .plan = plan,
                              .node = &plan->nodes[plan->node_count - 1],
                              .compiled = &network->nodes[plan->node_count - 1],
                              .kernels = device->kernels}};
    double best = best_time(run_lone_node, &lone, thread_seconds);
    dn_cpu_workspace_free(workspace);
    dn_cpu_network_free(network);
    return best;
}

typedef struct node_case {
    const char *name;
    build_function *build; /* the node to be measured comes last */
    void (*function)(const dn_cpu_run *);
    dn_shape shape;
    uint32_t parameter, rows;
} node_case;

/* One node on one core. */
static void bench_node(dn_device *device, const node_case *c)
{
    dn_plan_builder builder;
    dn_plan *plan = NULL;
    dn_error error;
    check(dn_plan_begin(&builder, c->shape, &error), &error);
    dn_value out = c->build(&builder, builder.plan->input, c->parameter);
    check(dn_plan_end(&plan, &builder, out, &error), &error);
    dn_weights *weights = random_weights(plan);
    char text[96];
    snprintf(text, sizeof text, "%s %ux%ux%ux%u -> %u", c->name, c->rows, c->shape.h, c->shape.w, c->shape.c, c->parameter);
    probe_peak(device->kernels->lanes);
    double best = time_node(device, plan, weights, c->function, c->rows);
    double bytes = 8.0 * c->rows * (double)dn_shape_count(c->shape), flops = c->rows * dn_plan_node_flops(plan, plan->node_count - 1);
    if (flops > 0.0)
        print_flops(text, best, flops);
    else
        printf("%-46s %9.4f ms %8.1f GB/s read and written\n", text, best * 1e3, bytes / best * 1e-9);
    dn_weights_free(weights);
    dn_plan_free(plan);
}

static void bench_nodes(dn_device *device)
{
    static const node_case cases[] = {
        {"conv 3x3", build_conv, dn_cpu_conv, {32, 32, 1}, 32, 8},
        {"conv 3x3", build_conv, dn_cpu_conv, {32, 32, 32}, 32, 8},
        {"conv 3x3", build_conv, dn_cpu_conv, {32, 32, 96}, 32, 8},
        {"conv 3x3", build_conv, dn_cpu_conv, {32, 32, 32}, 1, 8},
        {"conv 3x3", build_conv, dn_cpu_conv, {16, 16, 64}, 64, 8},
        {"conv 3x3", build_conv, dn_cpu_conv, {8, 8, 96}, 96, 8},
        {"conv 3x3", build_conv, dn_cpu_conv, {8, 8, 192}, 96, 8},
        {"conv 3x3", build_conv, dn_cpu_conv, {32, 32, 512}, 512, 1}, /* from here on AutoencoderKL's */
        {"conv 3x3", build_conv, dn_cpu_conv, {64, 64, 512}, 512, 1},
        {"conv 3x3", build_conv, dn_cpu_conv, {128, 128, 256}, 256, 1},
        {"conv 3x3", build_conv, dn_cpu_conv, {256, 256, 128}, 128, 1},
        {"conv 3x3", build_conv, dn_cpu_conv, {256, 256, 128}, 3, 1},
        {"conv 3x3", build_conv, dn_cpu_conv, {32, 32, 4}, 512, 1},
        {"group norm, groups", build_norm, dn_cpu_group_norm, {32, 32, 32}, 8, 8},
        {"group norm, groups", build_norm, dn_cpu_group_norm, {16, 16, 64}, 8, 8},
        {"group norm, groups", build_norm, dn_cpu_group_norm, {8, 8, 96}, 8, 8},
        {"group norm, groups", build_norm, dn_cpu_group_norm, {256, 256, 128}, 32, 1},
        {"attention, heads", build_attention, dn_cpu_attention, {8, 8, 288}, 12, 8},
        {"attention, heads", build_attention, dn_cpu_attention, {16, 16, 1152}, 6, 8},
        {"attention, heads", build_attention, dn_cpu_attention, {16, 16, 3456}, 16, 1}, /* DiT-XL/2 */
        {"attention, heads", build_attention, dn_cpu_attention, {32, 32, 1536}, 1, 1}, /* AutoencoderKL */
        {"attention, heads", build_attention, dn_cpu_attention, {32, 32, 960}, 8, 1}, /* Stable Diffusion's first levels */
        {"attention, heads", build_attention, dn_cpu_attention, {64, 64, 960}, 8, 1},
        {"attention, heads", build_attention, dn_cpu_attention, {8, 8, 768}, 4, 8},
        {"attention, heads", build_attention, dn_cpu_attention, {7, 7, 192}, 8, 8},
        {"layer norm", build_layer_norm, dn_cpu_layer_norm, {16, 16, 384}, 384, 8},
        {"layer norm", build_layer_norm, dn_cpu_layer_norm, {16, 16, 1152}, 1152, 8},
        {"linear gated (DiT-S/2)", build_gated, dn_cpu_linear, {16, 16, 384}, 384, 1},
        {"linear gated (DiT-S/2)", build_gated, dn_cpu_linear, {16, 16, 1536}, 384, 1},
        {"linear gated (DiT-XL/2)", build_gated, dn_cpu_linear, {16, 16, 1152}, 1152, 1},
        {"linear gated (DiT-XL/2)", build_gated, dn_cpu_linear, {16, 16, 4608}, 1152, 1},
        {"linear gelu (DiT-XL/2)", build_gelu, dn_cpu_linear, {16, 16, 1152}, 4608, 1},
        {"linear gelu (DiT-XL/2)", build_gelu, dn_cpu_linear, {16, 16, 1152}, 4608, 4},
        {"linear of vectors (adaLN)", build_gelu, dn_cpu_linear, {1, 1, 1152}, 6912, 2},
        {"linear of vectors (adaLN)", build_gelu, dn_cpu_linear, {1, 1, 1152}, 6912, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        bench_node(device, &cases[i]);
}

typedef struct updater {
    dn_network *network;
    const dn_weights *weights;
} updater;

static void run_update(void *payload)
{
    updater *u = payload;
    dn_error error;
    check(dn_cpu_network_update(u->network, u->weights, &error), &error);
}

/* What a training step pays to give the network its new weights. */
static void bench_update(dn_device *device, const dn_plan *plan, const dn_weights *weights)
{
    updater u = {.weights = weights};
    dn_network_options options = {.plan = plan, .weights = weights};
    dn_error error;
    check(dn_cpu_network_create(&u.network, device, &options, &error), &error);
    printf("%-46s %9.4f ms, %.1f MB packed\n", "unet weights packed anew, pool", best_time(run_update, &u, dn_now_seconds) * 1e3,
           (double)u.network->bytes * 1e-6);
    dn_cpu_network_free(u.network);
}

static const char unet_config[] =
    "{\"_class_name\":\"UNet2DModel\",\"sample_size\":32,\"in_channels\":1,\"out_channels\":1,\"block_out_channels\":[32,64,96],"
    "\"layers_per_block\":1,\"down_block_types\":[\"DownBlock2D\",\"DownBlock2D\",\"AttnDownBlock2D\"],"
    "\"up_block_types\":[\"AttnUpBlock2D\",\"UpBlock2D\",\"UpBlock2D\"],\"norm_num_groups\":8,\"num_class_embeds\":11}";

static void bench_unet(dn_device *device)
{
    static const uint32_t row_counts[] = {1, 2, 8, 16};
    dn_model *model = NULL;
    dn_error error;
    cJSON *config = cJSON_Parse(unet_config);
    check(dn_model_from_config(&model, config, "bench", &error), &error);
    cJSON_Delete(config);
    dn_weights *weights = random_weights(model->plan);
    double flops = dn_plan_flops(model->plan);
    printf("unet (32,64,96) 32x32x1: %.3f GFLOP an image, %.2f M parameters\n", flops * 1e-9,
           (double)dn_plan_parameters(model->plan) * 1e-6);
    for (int pooled = 0; pooled < 2; pooled++) {
        for (size_t i = 0; i < sizeof row_counts / sizeof row_counts[0]; i++) {
            char name[64];
            snprintf(name, sizeof name, "unet forward, %u rows, %s (per image)", row_counts[i], pooled ? "pool" : "one core");
            probe_peak(device->kernels->lanes);
            print_flops(name, time_plan(model->plan, weights, device, row_counts[i], !pooled) / row_counts[i], flops);
        }
    }
    bench_update(device, model->plan, weights);
    dn_weights_free(weights);
    dn_model_free(model);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        seconds_per_row = atof(argv[1]);
    const dn_backend *backend = dn_backend_cpu();
    dn_device *device = NULL;
    dn_error error;
    check(backend->device_open(&device, NULL, &error), &error);
    const dn_cpu_kernels *kernels = device->kernels;
    char text[128];
    backend->device_describe(device, text, sizeof text);
    for (int i = 0; i < 20; i++)
        probe_peak(kernels->lanes);
    printf("%s, multiply-add peak of one core %.1f GF/s\n", text, peak * 1e-9);
    bench_product(kernels, 1024, 576, 64);
    bench_product(kernels, 1024, 288, 32);
    bench_product(kernels, 256, 1152, 1152);
    bench_product(kernels, 64, 864, 96);
    bench_product(kernels, 8, 128, 384);
    bench_nodes(device);
    bench_unet(device);
    printf("multiply-add peak of one core, best of the run: %.1f GF/s; of %u threads together, by the wall: %.1f GF/s\n", peak * 1e-9,
           dn_pool_size(device->pool), fma_probe_all(device->kernels->lanes, dn_pool_size(device->pool), seconds_per_row) * 1e-9);
    backend->device_close(device);
    return 0;
}
