/* The networks that random mixes run on: made ones of random weights, wide enough for the kernels that real ones take (Winograd's, a
 * matrix product in several panels), the tiny golden one with its guide and classifier, and the built-in model. Each is opened twice:
 * on one thread and on two. One thread. */
#ifndef DN_TESTS_MIX_NETWORKS_H
#define DN_TESTS_MIX_NETWORKS_H

#include "batch_cases.h"

#include "backend/cpu/isa.h"
#include "format/json.h"

typedef struct mix_network {
    const char *name;
    const char *config; /* of a made network; NULL: not made */
    const char *scheduler; /* beside a made network */
    const char *isa; /* NULL: the best */
    dn_precision precision;
    const char *folder; /* NULL: made, or batch_cases.h's where that has no configuration either */
    uint32_t share; /* of 500 mixes */
    uint32_t steps_max;
    dn_engine *engines[2]; /* of one thread and of two */
    float *init, *mask; /* a given picture [C*H*W] and what of it is painted anew [H*W] */
} mix_network;

#define MIX_UNET                                                                                                                           \
    "{\"_class_name\":\"UNet2DModel\",\"sample_size\":8,\"in_channels\":3,\"out_channels\":3,\"block_out_channels\":[32,48],"              \
    "\"down_block_types\":[\"DownBlock2D\",\"AttnDownBlock2D\"],\"up_block_types\":[\"AttnUpBlock2D\",\"UpBlock2D\"],"                     \
    "\"layers_per_block\":1,\"norm_num_groups\":8,\"attention_head_dim\":16,\"num_class_embeds\":11}"
#define MIX_DIT                                                                                                                            \
    "{\"_class_name\":\"DiTTransformer2DModel\",\"activation_fn\":\"gelu-approximate\",\"attention_bias\":true,"                           \
    "\"attention_head_dim\":32,\"in_channels\":4,\"norm_elementwise_affine\":false,\"norm_eps\":1e-06,\"num_attention_heads\":4,"          \
    "\"num_embeds_ada_norm\":10,\"num_layers\":2,\"out_channels\":8,\"patch_size\":2,\"sample_size\":8}"

#define VP "{\"_class_name\":\"DDIMScheduler\"}"
#define EDM "{\"_class_name\":\"EDMEulerScheduler\"}"
#define CONSISTENCY "{\"_class_name\":\"CMStochasticIterativeScheduler\"}"
#define SCORE "{\"_class_name\":\"ScoreSdeVeScheduler\"}"
#define FLOW "{\"_class_name\":\"FlowMatchEulerDiscreteScheduler\"}"

static mix_network mix_networks[] = {
    {.name = "the golden U-Net with guide and classifier", .share = 150, .steps_max = 8},
    {.name = "a U-Net in avx2", .config = MIX_UNET, .scheduler = VP, .isa = "avx2", .share = 20, .steps_max = 5},
    {.name = "a U-Net in sse2", .config = MIX_UNET, .scheduler = VP, .isa = "sse2", .share = 10, .steps_max = 4},
    {.name = "a U-Net", .config = MIX_UNET, .scheduler = VP, .share = 60, .steps_max = 7},
    {.name = "a DiT in avx2", .config = MIX_DIT, .scheduler = VP, .isa = "avx2", .share = 20, .steps_max = 5},
    {.name = "a DiT in bf16", .config = MIX_DIT, .scheduler = VP, .precision = DN_PRECISION_BF16, .share = 30, .steps_max = 5},
    {.name = "a DiT in fp16", .config = MIX_DIT, .scheduler = VP, .precision = DN_PRECISION_FP16, .share = 20, .steps_max = 5},
    {.name = "a DiT", .config = MIX_DIT, .scheduler = VP, .share = 50, .steps_max = 5},
    {.name = "an EDM U-Net", .config = MIX_UNET, .scheduler = EDM, .share = 40, .steps_max = 5},
    {.name = "a consistency model", .config = MIX_UNET, .scheduler = CONSISTENCY, .share = 30, .steps_max = 5},
    {.name = "a score U-Net", .config = MIX_UNET, .scheduler = SCORE, .share = 30, .steps_max = 5},
    {.name = "a flow DiT", .config = MIX_DIT, .scheduler = FLOW, .share = 30, .steps_max = 5},
    {.name = "the built-in model", .folder = "models/fashion-mnist", .share = 10, .steps_max = 2},
};
#define MIX_NETWORKS ((uint32_t)(sizeof mix_networks / sizeof mix_networks[0]))

/* TO/config.json, TO/diffusion_pytorch_model.safetensors and TO/scheduler_config.json. */
static inline dn_status mix_save(const mix_network *network, const char *to)
{
    char path[300];
    dn_model *model = NULL;
    cJSON *config = cJSON_Parse(network->config);
    dn_status status = dn_model_from_config(&model, config, network->name, &error);
    if (status == DN_OK)
        status = dn_weights_create(&model->weights, model->plan, &error);
    if (status == DN_OK) {
        dn_initialise(model->plan, model->weights, 11, false);
        status = dn_model_save(model, config, to, DN_F32, &error);
    }
    snprintf(path, sizeof path, "%s/scheduler_config.json", to);
    if (status == DN_OK)
        status = dn_file_write(path, network->scheduler, strlen(network->scheduler), false, &error);
    dn_model_free(model);
    cJSON_Delete(config);
    return status;
}

static inline void mix_remove(const char *folder)
{
    static const char *const files[] = {"config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"};
    char path[300];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(folder);
}

static inline dn_status mix_open_engines(mix_network *network)
{
    char made[] = "/tmp/denoised-mix-XXXXXX";
    const char *folder = network->folder;
    dn_status status = DN_OK;
    if (folder == NULL && network->config == NULL) {
        network->engines[0] = open_engine(1);
        network->engines[1] = open_engine(2);
        return DN_OK;
    }
    if (network->config != NULL) {
        folder = mkdtemp(made);
        status = folder != NULL ? mix_save(network, folder) : dn_fail(&error, DN_IO, "mkdtemp failed");
    }
    for (unsigned threads = 1; status == DN_OK && threads <= 2; threads++) {
        dn_engine_options options = {.threads = threads, .isa = network->isa, .precision = network->precision};
        status = dn_engine_open(&network->engines[threads - 1], folder, &options, &error);
    }
    if (network->config != NULL && folder != NULL)
        mix_remove(folder);
    return status;
}

/* Whether this CPU has not got what the network asks for, or the program is for another kind of machine; nothing else that goes wrong. */
static inline bool is_lacking(const mix_network *network, dn_status status)
{
    size_t count = 0;
    const dn_cpu_isa *isas = dn_cpu_isas(&count);
    bool compiled = network->isa == NULL;
    for (size_t i = 0; i < count; i++)
        compiled = compiled || strcmp(network->isa, isas[i].kernels->isa) == 0;
    return status == (compiled ? DN_UNSUPPORTED : DN_INVALID) && (network->isa != NULL || network->precision != DN_PRECISION_FP32);
}

/* DN_UNSUPPORTED: this CPU has not got what it asks for. */
static inline dn_status mix_open(mix_network *network)
{
    dn_status status = mix_open_engines(network);
    if (status != DN_OK)
        return is_lacking(network, status) ? DN_UNSUPPORTED : status;
    size_t elements = dn_engine_elements(network->engines[0]), plane = elements / network->engines[0]->model->channels;
    network->init = malloc(elements * sizeof *network->init);
    network->mask = malloc(plane * sizeof *network->mask);
    if (network->init == NULL || network->mask == NULL)
        return dn_fail(&error, DN_NO_MEMORY, "no memory for a given picture");
    for (size_t i = 0; i < elements; i++)
        network->init[i] = (float)((double)(i * 37 % 101) / 50.0 - 1.0);
    for (size_t i = 0; i < plane; i++)
        network->mask[i] = i % 8 < 3 ? 0.0f : i < plane / 4 ? 0.5f : 1.0f;
    return DN_OK;
}

static inline void mix_close(mix_network *network)
{
    dn_engine_close(network->engines[0]);
    dn_engine_close(network->engines[1]);
    free(network->init);
    free(network->mask);
    network->engines[0] = network->engines[1] = NULL;
    network->init = network->mask = NULL;
}

#endif
