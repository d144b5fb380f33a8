/* What large networks become: launches a block of DiT-XL/2, no separate row biases in a U-Net, memory near the least that there can be; and
 * the rules that name what must not be fused, one small plan each. */
#include "tests/cuda/compile_check.h"

#include <cjson/cJSON.h>

#include "model/model.h"

#define MEMORY_OVER_LEAST 1.15

static const char dit_xl[] = "{\"_class_name\": \"DiTTransformer2DModel\", \"sample_size\": 32, \"in_channels\": 4, \"out_channels\": 8,"
                             "\"num_layers\": 28, \"num_attention_heads\": 16, \"attention_head_dim\": 72, \"patch_size\": 2,"
                             "\"num_embeds_ada_norm\": 1000, \"activation_fn\": \"gelu-approximate\"}";
static const char unet_large[] =
    "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 64, \"in_channels\": 4, \"out_channels\": 4, \"num_class_embeds\": 1001,"
    "\"block_out_channels\": [320, 640, 1280, 1280], \"layers_per_block\": 2, \"attention_head_dim\": 40, \"norm_num_groups\": 32,"
    "\"down_block_types\": [\"AttnDownBlock2D\", \"AttnDownBlock2D\", \"AttnDownBlock2D\", \"DownBlock2D\"],"
    "\"up_block_types\": [\"UpBlock2D\", \"AttnUpBlock2D\", \"AttnUpBlock2D\", \"AttnUpBlock2D\"]}";
static const char autoencoder[] =
    "{\"_class_name\": \"AutoencoderKL\", \"sample_size\": 256, \"in_channels\": 3, \"out_channels\": 3, \"latent_channels\": 4,"
    "\"block_out_channels\": [128, 256, 512, 512], \"layers_per_block\": 2, \"norm_num_groups\": 32,"
    "\"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\"],"
    "\"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\"]}";

static const char song[] =
    "{\"_class_name\": \"SongUNet\", \"img_resolution\": 32, \"in_channels\": 3, \"out_channels\": 3, \"label_dim\": 10,"
    "\"augment_dim\": 9, \"model_channels\": 128, \"channel_mult\": [2, 2, 2], \"channel_mult_emb\": 4,"
    "\"num_blocks\": 4, \"attn_resolutions\": [16], \"embedding_type\": \"positional\", \"channel_mult_noise\": 1,"
    "\"encoder_type\": \"standard\", \"decoder_type\": \"standard\", \"resample_filter\": [1, 1]}";

typedef struct network {
    dn_model *model;
    dn_cuda_compiled *compiled; /* in bfloat16 */
    uint32_t kinds[DN_CUDA_STEP_KINDS];
    uint32_t products[3]; /* steps, by dn_cuda_product_kind */
    uint32_t row_biases, gates; /* that norms have taken */
    uint32_t stacked, widest_stack; /* values that are views of stacks; of one of them */
} network;

static void count_steps(network *n)
{
    const dn_cuda_compiled *c = n->compiled;
    for (uint32_t s = 0; s < c->step_count; s++) {
        const dn_cuda_step *step = &c->steps[s];
        n->kinds[step->kind]++;
        if (step->kind == DN_CUDA_STEP_PRODUCT)
            n->products[c->products[step->product].kind]++;
        n->row_biases += step->kind == DN_CUDA_STEP_GROUP_NORM && step->in[2] != DN_NONE;
        n->gates += step->kind == DN_CUDA_STEP_LAYER_NORM && step->out[1] != DN_NONE;
    }
    for (dn_cuda_slot base = 0; base < c->slot_count; base++) {
        uint32_t views = 0;
        for (dn_cuda_slot s = 0; s < c->slot_count; s++)
            views += s != base && c->slots[s].base == base && c->slots[s].value != DN_NONE;
        n->stacked += views;
        n->widest_stack = views > n->widest_stack ? views : n->widest_stack;
    }
}

static dn_status network_open(network *n, const char *config, dn_error *error)
{
    memset(n, 0, sizeof *n);
    cJSON *json = cJSON_Parse(config);
    dn_cuda_compile_options options = {.type = DN_CUDA_BF16, .takes_sdpa = takes_any_sdpa};
    dn_status status = dn_model_from_config(&n->model, json, "config.json", error);
    cJSON_Delete(json);
    if (status == DN_OK)
        status = dn_cuda_compile(&n->compiled, n->model->plan, &options, error);
    if (status == DN_OK)
        count_steps(n);
    return status;
}

static void network_close(network *n)
{
    dn_cuda_compiled_free(n->compiled);
    dn_model_free(n->model);
}

static uint32_t count_nodes(const dn_plan *plan, const char *suffix)
{
    uint32_t count = 0;
    for (uint32_t n = 0; n < plan->node_count; n++) {
        size_t length = strlen(plan->nodes[n].name), tail = strlen(suffix);
        count += length >= tail && strcmp(plan->nodes[n].name + length - tail, suffix) == 0;
    }
    return count;
}

/* Bytes a row, and that they are few. */
static void check_memory(const char *name, const network *n)
{
    const char *wrong = find_overwritten(n->compiled);
    uint64_t least = most_alive(n->compiled);
    double over = (double)n->compiled->row_bytes / (double)least;
    printf("%s: %.2f MB a row, %.3f of the most that is alive at once; %u steps\n", name, (double)n->compiled->row_bytes / 1e6, over,
           n->compiled->step_count);
    CHECK_MSG(wrong == NULL, "%s: memory is overwritten at %s", name, wrong);
    CHECK_MSG(over >= 1.0 && over <= MEMORY_OVER_LEAST, "%s: %.3f times the least", name, over);
}

/* A block is: QKV, attention, its projection, gate and residual and norm, two layers, gate and residual and the next block's norm. */
static void seven_launches_a_block_of_dit_xl(void)
{
    network n;
    dn_error error = {DN_OK, ""};
    CHECK_OK(network_open(&n, dit_xl, &error), error);
    CHECK_MSG(n.gates == 56 && n.kinds[DN_CUDA_STEP_LAYER_NORM] == 57, "%u gates in %u norms", n.gates, n.kinds[DN_CUDA_STEP_LAYER_NORM]);
    CHECK(n.products[DN_CUDA_SDPA] == 28 && n.kinds[DN_CUDA_STEP_ATTENTION] == 0 && n.products[DN_CUDA_CONV] == 1);
    /* Four a block; two of the embedding, one for all modulations, one at the end. */
    CHECK_MSG(n.products[DN_CUDA_GEMM] == 4 * 28 + 4, "%u matrix products", n.products[DN_CUDA_GEMM]);
    CHECK_MSG(n.widest_stack == 29 && n.stacked == 29, "a stack of %u", n.widest_stack);
    CHECK(n.kinds[DN_CUDA_STEP_FINISH] == 2); /* SiLU of the embedding's layers */
    CHECK_MSG(n.compiled->step_count == 7 * 28 + 14, "%u steps", n.compiled->step_count);
    CHECK_MSG(n.compiled->product_count == 10, "%u products", n.compiled->product_count);
    check_memory("DiT-XL/2", &n);
    network_close(&n);
}

static void no_separate_row_biases_in_a_u_net(void)
{
    network n;
    dn_error error = {DN_OK, ""};
    CHECK_OK(network_open(&n, unet_large, &error), error);
    uint32_t resnets = count_nodes(n.model->plan, ".conv1+time");
    CHECK_MSG(resnets == 22 && n.row_biases == resnets && n.widest_stack == resnets, "%u resnets, %u biases in norms, %u in a stack",
              resnets, n.row_biases, n.widest_stack);
    /* Only activations of the time's two layers are left. */
    CHECK_MSG(n.kinds[DN_CUDA_STEP_FINISH] == 2 && n.kinds[DN_CUDA_STEP_ATTENTION] == 0, "%u finishes", n.kinds[DN_CUDA_STEP_FINISH]);
    check_memory("U-Net", &n);
    network_close(&n);
}

/* Every block of Song's halves the power of what it adds: in the products, behind their residuals. */
static void no_separate_scales_in_edm_s_u_net(void)
{
    network n;
    dn_error error = {DN_OK, ""};
    CHECK_OK(network_open(&n, song, &error), error);
    uint32_t scaled = 0, in_products = 0;
    for (uint32_t i = 0; i < n.model->plan->node_count; i++)
        scaled += n.model->plan->nodes[i].kind != DN_NODE_AFFINE && n.model->plan->nodes[i].scale != 1.0f;
    for (uint32_t s = 0; s < n.compiled->step_count; s++)
        in_products +=
            n.compiled->steps[s].kind == DN_CUDA_STEP_PRODUCT && n.compiled->products[n.compiled->steps[s].product].scale != 0.0f;
    CHECK_MSG(scaled > 30 && in_products == scaled, "%u of %u scales", in_products, scaled);
    CHECK_MSG(n.kinds[DN_CUDA_STEP_FINISH] == 2, "%u finishes", n.kinds[DN_CUDA_STEP_FINISH]);
    check_memory("EDM's U-Net", &n);
    network_close(&n);
}

static void a_decoder_is_its_nodes(void)
{
    network n;
    dn_error error = {DN_OK, ""};
    CHECK_OK(network_open(&n, autoencoder, &error), error);
    CHECK(n.kinds[DN_CUDA_STEP_FINISH] == 0 && n.compiled->step_count == n.model->plan->node_count + 2);
    check_memory("VAE decoder", &n);
    network_close(&n);
}

/* Packed weights lie apart, at multiples of the unit, and hold every weight once: nothing here is used in two layouts. */
static void packed_weights_lie_apart(void)
{
    network n;
    dn_error error = {DN_OK, ""};
    CHECK_OK(network_open(&n, unet_large, &error), error);
    const dn_cuda_compiled *c = n.compiled;
    uint64_t end = 0, parameters = 0;
    for (dn_cuda_pack p = 0; p < c->pack_count; p++) {
        const dn_cuda_pack_info *pack = &c->packs[p];
        CHECK_MSG(pack->offset % MEMORY_UNIT == 0 && pack->offset >= end && pack->bytes > 0, "pack %u", p);
        end = pack->offset + pack->bytes;
        parameters += pack->weight_count ? pack->count : 0;
        for (uint32_t k = 0; k < pack->weight_count; k++)
            CHECK(pack->weights[k] < c->plan->weight_count);
    }
    CHECK(end <= c->packed_bytes && parameters == dn_plan_parameters(c->plan));
    network_close(&n);
}

/* ---- Rules, each on a plan of a few nodes. */
static dn_plan_builder builder;
static uint32_t names;

static dn_value rule_linear(dn_value in, uint32_t channels, dn_value residual, dn_value gate, dn_activation activation)
{
    char name[16];
    const char *modules[] = {name};
    snprintf(name, sizeof name, "l%u", names++);
    dn_linear_options options = DN_LINEAR_INIT;
    options.modules = modules;
    options.out_channels = channels;
    options.residual = residual;
    options.gate = gate;
    options.activation = activation;
    return dn_plan_linear(&builder, in, &options);
}

static dn_value rule_conv(dn_value in, uint32_t channels, dn_value row_bias, dn_value residual, float scale)
{
    char name[16];
    snprintf(name, sizeof name, "c%u", names++);
    dn_conv_options options = DN_CONV_INIT;
    options.module = name;
    options.out_channels = channels;
    options.row_bias = row_bias;
    options.residual = residual;
    options.scale = scale;
    return dn_plan_conv(&builder, in, &options);
}

static dn_value rule_vector(uint32_t channels)
{
    return dn_plan_time_embedding(&builder, "time", channels, 0.0f, true, 10000.0f);
}

static dn_value rule_begin(uint32_t side, uint32_t channels)
{
    names = 0;
    dn_plan_begin(&builder, (dn_shape){side, side, channels}, NULL);
    return builder.plan->input;
}

/* Ends the plan, checks its numbers, and counts what was fused. */
static void rule_end(const char *name, dn_value output, uint32_t row_biases, uint32_t gates, uint32_t stacked)
{
    network n = {0};
    dn_plan *plan = NULL;
    dn_error error = {DN_OK, ""};
    dn_cuda_compile_options options = {.type = DN_CUDA_BF16};
    CHECK_OK(dn_plan_end(&plan, &builder, output, &error), error);
    dn_weights *weights = draw_weights(plan);
    check_plan(name, plan, weights, ANSWER_ERROR_MAX);
    dn_weights_free(weights);
    dn_status status = dn_cuda_compile(&n.compiled, plan, &options, &error);
    if (status == DN_OK)
        count_steps(&n);
    dn_cuda_compiled_free(n.compiled);
    dn_plan_free(plan);
    if (test_failed)
        return;
    CHECK_OK(status, error);
    CHECK_MSG(n.row_biases == row_biases && n.gates == gates && n.stacked == stacked, "%s: %u row biases, %u gates, %u stacked", name,
              n.row_biases, n.gates, n.stacked);
}

static void row_biases_that_stay(void)
{
    dn_value in = rule_begin(5, 6), time = rule_vector(10), h = rule_conv(in, 10, time, DN_NONE, 1.0f);
    rule_end("read by a norm alone", dn_plan_group_norm(&builder, h, "n", NULL, 5, 1e-5f, DN_NONE, DN_ACT_SILU), 1, 0, 0);
    in = rule_begin(5, 6), time = rule_vector(10), h = rule_conv(in, 10, time, DN_NONE, 1.0f);
    dn_plan_group_norm(&builder, h, "n", NULL, 5, 1e-5f, DN_NONE, DN_ACT_SILU);
    rule_end("the answer", h, 0, 0, 0);
    in = rule_begin(5, 6), time = rule_vector(10), h = rule_conv(in, 10, time, DN_NONE, 1.0f);
    dn_value y = dn_plan_group_norm(&builder, h, "n", NULL, 5, 1e-5f, DN_NONE, DN_ACT_NONE);
    rule_end("read twice", dn_plan_concat(&builder, y, h, "both"), 0, 0, 0);
    in = rule_begin(5, 6), time = rule_vector(6), h = rule_conv(in, 6, time, in, 0.5f);
    rule_end("scaled", dn_plan_group_norm(&builder, h, "n", NULL, 3, 1e-5f, DN_NONE, DN_ACT_SILU), 0, 0, 0);
    in = rule_begin(5, 6), time = rule_vector(6), h = rule_conv(in, 6, time, in, 1.0f);
    rule_end("with a residual", dn_plan_group_norm(&builder, h, "n", NULL, 3, 1e-5f, DN_NONE, DN_ACT_SILU), 1, 0, 0);
}

static dn_value rule_norm(dn_value in, dn_value modulation)
{
    char name[16];
    snprintf(name, sizeof name, "m%u", names++);
    return dn_plan_layer_norm(&builder, in, name, NULL, 1e-3f, modulation, 0, 0);
}

static void gates_that_stay(void)
{
    dn_value in = rule_begin(3, 12), gate = rule_vector(12), h = rule_linear(in, 12, in, gate, DN_ACT_GELU_TANH);
    rule_end("read by a norm first", dn_plan_concat(&builder, rule_norm(h, DN_NONE), h, "both"), 0, 1, 0);
    in = rule_begin(3, 12), gate = rule_vector(12), h = rule_linear(in, 12, in, gate, DN_ACT_NONE);
    rule_norm(h, DN_NONE);
    rule_end("the answer is the sum", h, 0, 1, 0);
    in = rule_begin(3, 12), gate = rule_vector(12), h = rule_linear(in, 12, in, gate, DN_ACT_NONE);
    dn_value before = dn_plan_affine(&builder, h, "before", 2.0f, 1.0f);
    rule_end("read before the norm", dn_plan_concat(&builder, rule_norm(h, DN_NONE), before, "both"), 0, 0, 0);
    in = rule_begin(3, 12), gate = rule_vector(12), h = rule_linear(in, 12, in, gate, DN_ACT_MISH);
    rule_end("behind an activation", rule_norm(h, DN_NONE), 0, 0, 0);
    rule_begin(3, 12);
    gate = rule_vector(12), h = rule_linear(gate, 12, gate, gate, DN_ACT_NONE);
    rule_end("a norm that it also modulates", rule_norm(h, h), 0, 0, 0);
    in = rule_begin(3, 12), gate = rule_vector(12), h = rule_linear(gate, 12, gate, gate, DN_ACT_NONE);
    rule_end("a norm that it only modulates", rule_norm(in, h), 0, 0, 0);
}

static void stacks_that_stay_apart(void)
{
    rule_begin(2, 3);
    dn_value time = rule_vector(24), a = rule_linear(time, 16, DN_NONE, DN_NONE, DN_ACT_NONE),
             b = rule_linear(time, 8, DN_NONE, DN_NONE, DN_ACT_NONE), c = rule_linear(time, 12, DN_NONE, DN_NONE, DN_ACT_NONE),
             d = rule_linear(time, 8, DN_NONE, DN_NONE, DN_ACT_SILU), e = rule_linear(time, 16, DN_NONE, DN_NONE, DN_ACT_SILU);
    a = rule_linear(a, 9, DN_NONE, DN_NONE, DN_ACT_NONE), b = rule_linear(b, 9, a, DN_NONE, DN_ACT_NONE);
    c = rule_linear(c, 9, b, DN_NONE, DN_ACT_NONE), d = rule_linear(d, 9, c, DN_NONE, DN_ACT_NONE);
    rule_end("by activation and whole units", rule_linear(e, 9, d, DN_NONE, DN_ACT_NONE), 0, 0, 4);
    rule_begin(2, 3);
    time = rule_vector(24), a = rule_linear(time, 8, DN_NONE, DN_NONE, DN_ACT_NONE),
    b = rule_linear(time, 8, DN_NONE, DN_NONE, DN_ACT_NONE);
    rule_end("read by what takes no view", dn_plan_concat(&builder, a, b, "both"), 0, 0, 0);
    dn_value in = rule_begin(3, 5);
    time = rule_vector(24), a = rule_linear(time, 8, DN_NONE, DN_NONE, DN_ACT_NONE),
    b = rule_linear(time, 16, DN_NONE, DN_NONE, DN_ACT_NONE);
    dn_value h = rule_conv(in, 8, a, DN_NONE, 1.0f);
    rule_end("two parts of one norm", dn_plan_group_norm(&builder, h, "n", NULL, 4, 1e-5f, b, DN_ACT_SILU), 1, 0, 2);
}

/* One bias behind two scales, a scale of nothing, and one that has no residual to ride with. */
static void scales_of_every_kind(void)
{
    dn_value in = rule_begin(4, 10), h = rule_conv(in, 10, DN_NONE, in, 0.5f);
    names = 0;
    h = rule_conv(h, 10, DN_NONE, h, 0.25f);
    dn_value none = rule_conv(in, 10, DN_NONE, h, 0.0f);
    rule_end("scales", rule_conv(h, 10, DN_NONE, none, 1.0f), 0, 0, 0);
    in = rule_begin(4, 10), h = rule_conv(in, 10, DN_NONE, DN_NONE, 0.5f);
    rule_end("without a residual", h, 0, 0, 0);
}

/* A weight of two nodes, in each layout; a table of two nodes; and what only looks the same. */
static void what_is_asked_for_twice_is_packed_once(void)
{
    rule_begin(2, 3);
    dn_value wave = rule_vector(8), again = rule_vector(8), other = dn_plan_time_embedding(&builder, "other", 8, 0.0f, true, 100.0f);
    dn_value row = dn_plan_class_embedding(&builder, "l0", 9, 8);
    dn_value sum = DN_NONE, inputs[] = {wave, again, other, row};
    for (int i = 0; i < 4; i++) {
        names = 0;
        sum = rule_linear(inputs[i], 9, sum, DN_NONE, DN_ACT_NONE);
    }
    dn_plan *plan = NULL;
    dn_error error = {DN_OK, ""};
    dn_cuda_compiled *compiled = NULL;
    dn_cuda_compile_options options = {.type = DN_CUDA_BF16};
    CHECK_OK(dn_plan_end(&plan, &builder, sum, &error), error);
    CHECK_OK(dn_cuda_compile(&compiled, plan, &options, &error), error);
    uint32_t kinds[DN_CUDA_PACK_POSITIONS + 1] = {0};
    for (dn_cuda_pack p = 0; p < compiled->pack_count; p++)
        kinds[compiled->packs[p].kind]++;
    CHECK_MSG(kinds[DN_CUDA_PACK_FREQUENCIES] == 2 && kinds[DN_CUDA_PACK_FILTER] == 1 && kinds[DN_CUDA_PACK_VECTOR] == 1 &&
                  kinds[DN_CUDA_PACK_FLOATS] == 1,
              "%u packs", compiled->pack_count);
    CHECK(compiled->product_count == 2); /* with a residual and without */
    dn_cuda_compiled_free(compiled);
    dn_weights *weights = draw_weights(plan);
    check_plan("shared weights", plan, weights, ANSWER_ERROR_MAX);
    dn_weights_free(weights);
    dn_plan_free(plan);
}

/* Neither the library nor our own kernel takes such heads. */
static void heads_that_nothing_takes(void)
{
    dn_value in = rule_begin(2, 3 * 520);
    dn_plan *plan = NULL;
    dn_error error = {DN_OK, ""};
    dn_cuda_compiled *compiled = NULL;
    dn_cuda_compile_options options = {.type = DN_CUDA_BF16};
    CHECK_OK(dn_plan_end(&plan, &builder, dn_plan_attention(&builder, in, "wide", 1), &error), error);
    CHECK(dn_cuda_compile(&compiled, plan, &options, &error) == DN_UNSUPPORTED && compiled == NULL);
    CHECK_MSG(strstr(error.message, "wide") && strstr(error.message, "520"), "%s", error.message);
    options.takes_sdpa = takes_any_sdpa;
    CHECK_OK(dn_cuda_compile(&compiled, plan, &options, &error), error);
    CHECK(compiled->step_count == 3 && compiled->product_count == 1);
    dn_cuda_compiled_free(compiled);
    dn_plan_free(plan);
}

int main(void)
{
    RUN(seven_launches_a_block_of_dit_xl);
    RUN(no_separate_row_biases_in_a_u_net);
    RUN(no_separate_scales_in_edm_s_u_net);
    RUN(a_decoder_is_its_nodes);
    RUN(packed_weights_lie_apart);
    RUN(row_biases_that_stay);
    RUN(gates_that_stay);
    RUN(stacks_that_stay_apart);
    RUN(scales_of_every_kind);
    RUN(what_is_asked_for_twice_is_packed_once);
    RUN(heads_that_nothing_takes);
    return test_end();
}
