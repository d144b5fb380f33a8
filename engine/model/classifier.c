/* The classifier: a stem convolution, one pooled residual block a level, global pooling, a feature vector, logits.
 *
 * Not a diffusers class: its folder is ours, in the same form (config.json and safetensors). Pre-activation residual
 * blocks as in He et al. 2016 (Identity Mappings), with group norm for batch norm so that a row depends on itself alone. With
 * "noise_aware" it reads noised pictures and is told their time, which each block adds after its first convolution, as a U-Net's
 * resnets do: what classifier guidance needs (Dhariwal and Nichol 2021, section 4). */
#include "model/classifier.h"

#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "model/config_reader.h"

#define NAME_BYTES 64
#define FEATURES_NAME "features"
#define LEVELS_MAX 8u
#define TIME_CHANNELS 32u /* of the sinusoid */
#define TIME_MAX_PERIOD 10000.0f

typedef struct classifier_config {
    uint32_t height, width, in_channels, stem_channels, levels, feature_channels, class_count, groups;
    uint32_t channels[LEVELS_MAX];
    float epsilon;
    bool noise_aware;
} classifier_config;

static void parse_channels(dn_config_reader *reader, classifier_config *out)
{
    const cJSON *list = dn_config_item(reader, "block_out_channels");
    out->levels = cJSON_IsArray(list) ? (uint32_t)cJSON_GetArraySize(list) : 0;
    if (out->levels < 1 || out->levels > LEVELS_MAX) {
        dn_config_fail(reader, DN_INVALID, "block_out_channels", "must be a list of 1 to %u channel counts", LEVELS_MAX);
        out->levels = 0;
    }
    for (uint32_t i = 0; i < out->levels; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, (int)i);
        double value = cJSON_IsNumber(item) ? item->valuedouble : 0.0;
        if (!(value >= 1.0 && value <= DN_CHANNELS_MAX) || (uint32_t)value % out->groups)
            dn_config_fail(reader, DN_INVALID, "block_out_channels", "entry %u must be a multiple of norm_num_groups up to %u", i,
                           DN_CHANNELS_MAX);
        else
            out->channels[i] = (uint32_t)value;
    }
}

static dn_status parse(classifier_config *out, const cJSON *json, const char *path, uint32_t height, uint32_t width, dn_error *error)
{
    dn_config_reader reader;
    classifier_config config = {0};
    dn_status status = dn_config_reader_init(&reader, json, path, error);
    if (status != DN_OK)
        return status;
    config.height = height ? height : dn_config_count(&reader, "height", 0, 0, DN_IMAGE_SIDE_MAX);
    config.width = width ? width : dn_config_count(&reader, "width", 0, 0, DN_IMAGE_SIDE_MAX);
    config.in_channels = dn_config_count(&reader, "in_channels", 1, 1, DN_CHANNELS_MAX);
    config.groups = dn_config_count(&reader, "norm_num_groups", 8, 1, DN_CHANNELS_MAX);
    config.epsilon = (float)dn_config_number(&reader, "norm_eps", 1e-5, 1e-12, 1.0);
    config.stem_channels = dn_config_count(&reader, "stem_channels", 16, 1, DN_CHANNELS_MAX);
    config.feature_channels = dn_config_count(&reader, "feature_channels", 64, 1, DN_CHANNELS_MAX);
    config.class_count = dn_config_count(&reader, "num_classes", 10, 2, DN_CLASSES_MAX);
    config.noise_aware = dn_config_bool(&reader, "noise_aware", false);
    parse_channels(&reader, &config);
    if (config.stem_channels % config.groups)
        dn_config_fail(&reader, DN_INVALID, "stem_channels", "must be a multiple of norm_num_groups");
    if (config.height == 0 || config.width == 0 || config.height % (1u << config.levels) || config.width % (1u << config.levels))
        dn_config_fail(&reader, DN_INVALID, "height", "%ux%u cannot be halved %u times", config.height, config.width, config.levels);
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = config;
    return status;
}

static dn_value convolve(dn_plan_builder *plan, dn_value in, const char *module, uint32_t channels, uint32_t kernel, dn_value row_bias,
                         dn_value residual)
{
    dn_conv_options options = DN_CONV_INIT;
    options.module = module;
    options.out_channels = channels;
    options.kernel = kernel;
    options.pad_top = options.pad_left = options.pad_bottom = options.pad_right = kernel / 2;
    options.row_bias = row_bias;
    options.residual = residual;
    return dn_plan_conv(plan, in, &options);
}

static dn_value fully_connected(dn_plan_builder *plan, dn_value in, const char *module, uint32_t channels, dn_activation activation)
{
    const char *modules[] = {module};
    dn_linear_options options = DN_LINEAR_INIT;
    options.modules = modules;
    options.out_channels = channels;
    options.activation = activation;
    return dn_plan_linear(plan, in, &options);
}

/* What every block projects the time from; DN_NONE for a classifier that is told none. */
static dn_value embed_time(dn_plan_builder *plan, const classifier_config *config)
{
    if (!config->noise_aware)
        return DN_NONE;
    dn_value wave = dn_plan_time_embedding(plan, "time_proj", TIME_CHANNELS, 0.0f, true, TIME_MAX_PERIOD);
    wave = fully_connected(plan, wave, "time_embedding.linear_1", 2 * TIME_CHANNELS, DN_ACT_SILU);
    return fully_connected(plan, wave, "time_embedding.linear_2", 2 * TIME_CHANNELS, DN_ACT_SILU);
}

/* Halve, then norm, SiLU, conv, norm, SiLU, conv, plus a 1x1 shortcut. */
static dn_value block(dn_plan_builder *plan, dn_value in, dn_value time, uint32_t index, const classifier_config *config)
{
    static const char *const parts[] = {"pool", "norm1", "conv1", "norm2", "conv2", "shortcut", "time_emb_proj"};
    char name[7][NAME_BYTES];
    for (int i = 0; i < 7; i++)
        snprintf(name[i], sizeof name[i], "blocks.%u.%s", index, parts[i]);
    uint32_t channels = config->channels[index];
    dn_value x = dn_plan_average_pool2(plan, in, name[0]);
    dn_value h = dn_plan_group_norm(plan, x, name[1], NULL, config->groups, config->epsilon, DN_NONE, DN_ACT_SILU);
    dn_value shift = time == DN_NONE ? DN_NONE : fully_connected(plan, time, name[6], channels, DN_ACT_NONE);
    h = convolve(plan, h, name[2], channels, 3, shift, DN_NONE);
    h = dn_plan_group_norm(plan, h, name[3], NULL, config->groups, config->epsilon, DN_NONE, DN_ACT_SILU);
    if (dn_plan_shape(plan, x).c != channels)
        x = convolve(plan, x, name[5], channels, 1, DN_NONE, DN_NONE);
    return convolve(plan, h, name[4], channels, 3, DN_NONE, x);
}

dn_status dn_classifier_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    classifier_config config;
    dn_plan_builder builder;
    dn_plan *plan = NULL;
    dn_status status = parse(&config, input->config, input->config_path, input->height, input->width, error);
    if (status == DN_OK)
        status = dn_plan_begin(&builder, (dn_shape){config.height, config.width, config.in_channels}, error);
    if (status != DN_OK)
        return status;
    dn_value h = convolve(&builder, builder.plan->input, "stem", config.stem_channels, 3, DN_NONE, DN_NONE);
    dn_value time = embed_time(&builder, &config);
    for (uint32_t i = 0; i < config.levels; i++)
        h = block(&builder, h, time, i, &config);
    h = dn_plan_group_norm(&builder, h, "norm_out", NULL, config.groups, config.epsilon, DN_NONE, DN_ACT_SILU);
    h = dn_plan_global_pool(&builder, h, "pool", DN_ACT_NONE);
    h = fully_connected(&builder, h, FEATURES_NAME, config.feature_channels, DN_ACT_SILU);
    h = fully_connected(&builder, h, "logits", config.class_count, DN_ACT_NONE);
    status = dn_plan_end(&plan, &builder, h, error);
    if (status != DN_OK)
        return status;
    out->plan = plan;
    out->height = config.height;
    out->width = config.width;
    out->channels = config.in_channels;
    out->out_channels = config.class_count;
    return DN_OK;
}

dn_value dn_classifier_features(const dn_plan *plan)
{
    for (uint32_t n = 0; n < plan->node_count; n++)
        if (strcmp(plan->nodes[n].name, FEATURES_NAME) == 0)
            return plan->nodes[n].out;
    return DN_NONE;
}

bool dn_classifier_knows_noise(const dn_plan *plan)
{
    for (uint32_t n = 0; n < plan->node_count; n++)
        if (plan->nodes[n].kind == DN_NODE_TIME_EMBEDDING)
            return true;
    return false;
}

cJSON *dn_classifier_config(uint32_t height, uint32_t width, uint32_t channels, uint32_t class_count)
{
    static const int widths[] = {32, 64, 128};
    cJSON *config = cJSON_CreateObject();
    bool added = config != NULL && cJSON_AddStringToObject(config, "_class_name", DN_CLASSIFIER_CLASS) &&
                 cJSON_AddNumberToObject(config, "height", height) && cJSON_AddNumberToObject(config, "width", width) &&
                 cJSON_AddNumberToObject(config, "in_channels", channels) && cJSON_AddNumberToObject(config, "num_classes", class_count) &&
                 cJSON_AddNumberToObject(config, "stem_channels", 16) && cJSON_AddNumberToObject(config, "feature_channels", 64) &&
                 cJSON_AddNumberToObject(config, "norm_num_groups", 8) &&
                 cJSON_AddItemToObject(config, "block_out_channels", cJSON_CreateIntArray(widths, 3));
    if (!added) {
        cJSON_Delete(config);
        return NULL;
    }
    return config;
}
