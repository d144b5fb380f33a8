/* Every architecture's plans compiled for the GPU, and their steps interpreted, against the CPU back end: the golden models, the built-in
 * ones, original formats, both parts of autoencoders, and configurations that no golden has. */
#include "tests/cuda/compile_check.h"

#include "model/classifier.h"
#include "model/model.h"
#include "tests/engine/made_weights.h"

/* A folder whose weights are not stored is opened as a copy that has made ones. */
static dn_status open_model(dn_model **out, const char *folder, const char *part, dn_error *error)
{
    char path[300], copy[64];
    snprintf(path, sizeof path, "%s/tensors.json", folder);
    if (access(path, R_OK) != 0)
        return dn_model_open_part(out, folder, part, 0, 0, error);
    snprintf(copy, sizeof copy, "/tmp/denoised-compile-%ld", (long)getpid());
    dn_status status = made_folder(copy, folder, error);
    if (status == DN_OK)
        status = dn_model_open_part(out, copy, part, 0, 0, error);
    made_folder_remove(copy);
    return status;
}

static void check_folder(const char *folder, const char *part)
{
    dn_model *model = NULL;
    dn_error error = {DN_OK, ""};
    CHECK_MSG(open_model(&model, folder, part, &error) == DN_OK, "%s: %s", folder, error.message);
    check_plan(folder, model->plan, model->weights, ANSWER_ERROR_MAX);
    dn_model_free(model);
}

#define GOLDEN(name)                                                                                                                       \
    static void golden_##name(void)                                                                                                        \
    {                                                                                                                                      \
        check_folder("tests/golden/" #name, NULL);                                                                                         \
    }

GOLDEN(unet_default)
GOLDEN(unet_noattn)
GOLDEN(unet_oddsize)
GOLDEN(unet_scaleshift)
GOLDEN(unet_default_oldnames)
GOLDEN(unet_cifarlike)
GOLDEN(unet_resample)
GOLDEN(unet_resnetblk)
GOLDEN(unet_gelu_tsclass)
GOLDEN(unet_adm)
GOLDEN(unet_learned_time)
GOLDEN(unet_relu)
GOLDEN(unet_ncsnpp)
GOLDEN(dit_default)
GOLDEN(dit_nosigma)
GOLDEN(dit_original)
GOLDEN(dit_variant)
GOLDEN(sit_original)
GOLDEN(edm_adm)
GOLDEN(edm_ddpmpp)
GOLDEN(edm_ncsnpp)
GOLDEN(edm_residual_box)
GOLDEN(edm_skip)
GOLDEN(guided_diffusion_legacy)
GOLDEN(guided_diffusion_new)

/* Decoders and encoders. */
#define AUTOENCODER(name)                                                                                                                  \
    static void golden_##name(void)                                                                                                        \
    {                                                                                                                                      \
        check_folder("tests/golden/" #name, "decoder");                                                                                    \
        if (!test_failed)                                                                                                                  \
            check_folder("tests/golden/" #name, "encoder");                                                                                \
    }

AUTOENCODER(vae_4lvl)
AUTOENCODER(vae_default)
AUTOENCODER(vae_variant)

static void golden_pipelines(void)
{
    static const char *const folders[] = {
        "pipe_dit_ddpm10_cfg4/transformer", "pipe_dit_ddpm10_cfg4/vae", "pipe_dit_euler8_cfg2.5/transformer",
        "pipe_unet_ddim10_cfg3/unet",       "pipe_unet_ddpm20/unet",    "pipe_unet_eulera10_cfg2/unet"};
    char path[128];
    for (size_t i = 0; i < sizeof folders / sizeof folders[0] && !test_failed; i++) {
        snprintf(path, sizeof path, "tests/golden/%s", folders[i]);
        check_folder(path, NULL);
    }
}

static void the_tiny_model(void)
{
    check_folder("tests/golden/tiny/unet", NULL);
}

static void the_built_in_models(void)
{
    check_folder("models/fashion-mnist/unet", NULL);
    if (!test_failed)
        check_folder("models/fashion-mnist/guide", NULL);
    if (!test_failed)
        check_folder("models/fashion-mnist/classifier", NULL);
}

/* A configuration without a checkpoint, with weights by chance. */
static void check_config(const char *name, cJSON *config)
{
    dn_model *model = NULL;
    dn_error error = {DN_OK, ""};
    dn_status status = dn_model_from_config(&model, config, name, &error);
    cJSON_Delete(config);
    CHECK_OK(status, error);
    dn_weights *weights = draw_weights(model->plan);
    check_plan(name, model->plan, weights, ANSWER_ERROR_MAX);
    dn_weights_free(weights);
    dn_model_free(model);
}

static void a_classifier_that_knows_noise(void)
{
    cJSON *config = dn_classifier_config(16, 16, 3, 10);
    CHECK(config != NULL);
    cJSON_DeleteItemFromObjectCaseSensitive(config, "noise_aware");
    cJSON_AddItemToObject(config, "noise_aware", cJSON_CreateTrue());
    check_config("a classifier", config);
}

/* Centred samples, random frequencies, classes by sinusoid, a scaled mid block, channels that are no whole units. */
static void configurations_that_no_golden_has(void)
{
    static const char *const configs[] = {
        "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 8, \"in_channels\": 3, \"out_channels\": 5, \"center_input_sample\": true,"
        "\"time_embedding_type\": \"fourier\", \"block_out_channels\": [12, 20], \"norm_num_groups\": 4, \"layers_per_block\": 1,"
        "\"mid_block_scale_factor\": 1.5, \"act_fn\": \"mish\", \"attention_head_dim\": 4,"
        "\"down_block_types\": [\"DownBlock2D\", \"AttnDownBlock2D\"], \"up_block_types\": [\"AttnUpBlock2D\", \"UpBlock2D\"]}",
        "{\"_class_name\": \"UNet2DModel\", \"sample_size\": [8, 12], \"in_channels\": 1, \"out_channels\": 1, \"class_embed_type\": "
        "\"timestep\","
        "\"num_class_embeds\": 7, \"block_out_channels\": [16, 16], \"norm_num_groups\": 8, \"resnet_time_scale_shift\": \"scale_shift\","
        "\"downsample_padding\": 0, \"attention_head_dim\": null, \"layers_per_block\": 1,"
        "\"down_block_types\": [\"AttnDownBlock2D\", \"ResnetDownsampleBlock2D\"],"
        "\"up_block_types\": [\"ResnetUpsampleBlock2D\", \"AttnUpBlock2D\"]}",
        "{\"_class_name\": \"DiTTransformer2DModel\", \"sample_size\": 8, \"in_channels\": 4, \"out_channels\": 8, \"num_layers\": 2,"
        "\"num_attention_heads\": 3, \"attention_head_dim\": 12, \"patch_size\": 2, \"num_embeds_ada_norm\": 9,"
        "\"activation_fn\": \"gelu-approximate\"}",
    };
    for (size_t i = 0; i < sizeof configs / sizeof configs[0] && !test_failed; i++) {
        char name[32];
        snprintf(name, sizeof name, "configuration %zu", i);
        check_config(name, cJSON_Parse(configs[i]));
    }
}

int main(void)
{
    RUN(golden_unet_default);
    RUN(golden_unet_noattn);
    RUN(golden_unet_oddsize);
    RUN(golden_unet_scaleshift);
    RUN(golden_unet_default_oldnames);
    RUN(golden_unet_cifarlike);
    RUN(golden_unet_resample);
    RUN(golden_unet_resnetblk);
    RUN(golden_unet_gelu_tsclass);
    RUN(golden_unet_adm);
    RUN(golden_unet_learned_time);
    RUN(golden_unet_relu);
    RUN(golden_unet_ncsnpp);
    RUN(golden_dit_default);
    RUN(golden_dit_nosigma);
    RUN(golden_dit_original);
    RUN(golden_dit_variant);
    RUN(golden_sit_original);
    RUN(golden_edm_adm);
    RUN(golden_edm_ddpmpp);
    RUN(golden_edm_ncsnpp);
    RUN(golden_edm_residual_box);
    RUN(golden_edm_skip);
    RUN(golden_guided_diffusion_legacy);
    RUN(golden_guided_diffusion_new);
    RUN(golden_vae_4lvl);
    RUN(golden_vae_default);
    RUN(golden_vae_variant);
    RUN(golden_pipelines);
    RUN(the_tiny_model);
    RUN(the_built_in_models);
    RUN(a_classifier_that_knows_noise);
    RUN(configurations_that_no_golden_has);
    return test_end();
}
