/* UNet2DModel's config.json -> dn_unet2d_config: every key that shapes the network, its default, and its rule.
 *
 * Keys and defaults are those of diffusers 0.31's UNet2DModel. Owns nothing; pure; any thread. */
#include "model/unet2d.h"

#include <string.h>

#include "model/config_reader.h"

/* Missing key and null mean different things in diffusers: missing takes the constructor's default, null is None. */
static bool given_null(const dn_config_reader *reader, const char *key)
{
    return cJSON_IsNull(dn_config_item(reader, key));
}

static void parse_sample_size(dn_config_reader *reader, dn_unet2d_config *out, uint32_t height, uint32_t width)
{
    const cJSON *size = dn_config_item(reader, "sample_size");
    if (height == 0 && cJSON_IsArray(size)) {
        const cJSON *h = cJSON_GetArrayItem(size, 0), *w = cJSON_GetArrayItem(size, 1);
        if (cJSON_GetArraySize(size) != 2 || !cJSON_IsNumber(h) || !cJSON_IsNumber(w) || h->valuedouble != h->valueint ||
            w->valuedouble != w->valueint || h->valueint < 1 || w->valueint < 1) {
            dn_config_fail(reader, DN_INVALID, "sample_size", "must be a side or [height, width]");
            return;
        }
        height = (uint32_t)h->valueint;
        width = (uint32_t)w->valueint;
    } else if (height == 0) {
        if (dn_config_is_null(reader, "sample_size"))
            dn_config_fail(reader, DN_INVALID, "sample_size", "is not given, so the size of the sample is unknown");
        height = width = dn_config_count(reader, "sample_size", 1, 1, DN_IMAGE_SIDE_MAX);
    }
    out->height = height;
    out->width = width;
    uint32_t step = 1u << (out->levels - 1);
    if (height > DN_IMAGE_SIDE_MAX || width > DN_IMAGE_SIDE_MAX)
        dn_config_fail(reader, DN_INVALID, "sample_size", "%ux%u is larger than %u a side", height, width, DN_IMAGE_SIDE_MAX);
    else if (height % step || width % step)
        dn_config_fail(reader, DN_INVALID, "sample_size", "%ux%u cannot be halved %u times, as the network's %u levels need", height, width,
                       out->levels - 1, out->levels);
}

static void parse_channels(dn_config_reader *reader, dn_unet2d_config *out)
{
    static const uint32_t defaults[] = {224, 448, 672, 896};
    const cJSON *list = dn_config_item(reader, "block_out_channels");
    if (list == NULL) {
        out->levels = 4;
        memcpy(out->channels, defaults, sizeof defaults);
        return;
    }
    int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (count < 1 || count > (int)DN_BLOCKS_MAX) {
        dn_config_fail(reader, DN_INVALID, "block_out_channels", "must be a list of 1 to %u channel counts", DN_BLOCKS_MAX);
        return;
    }
    out->levels = (uint32_t)count;
    for (int i = 0; i < count; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, i);
        if (!cJSON_IsNumber(item) || item->valuedouble != item->valueint || item->valueint < 1 || item->valueint > (int)DN_CHANNELS_MAX) {
            dn_config_fail(reader, DN_INVALID, "block_out_channels", "entry %d must be a whole number from 1 to %u", i, DN_CHANNELS_MAX);
            return;
        }
        out->channels[i] = (uint32_t)item->valueint;
    }
}

/* One entry of down_block_types or up_block_types. Plain blocks resample by a convolution whatever resample_type says. */
static bool parse_block(dn_unet2d_block *out, const char *type, const char *direction, bool resnet_resampler)
{
    static const char *const prefixes[] = {"", "Attn", "Resnet"};
    static const char *const suffixes[] = {"Block2D", "Block2D", "sampleBlock2D"};
    if (strncmp(type, "UNetRes", 7) == 0)
        type += 7;
    for (int kind = 0; kind < 3; kind++) {
        size_t prefix = strlen(prefixes[kind]), middle = strlen(direction);
        if (strncmp(type, prefixes[kind], prefix) != 0 || strncmp(type + prefix, direction, middle) != 0 ||
            strcmp(type + prefix + middle, suffixes[kind]) != 0)
            continue;
        out->attention = kind == 1;
        out->resnet_resampler = kind == 2 || (kind == 1 && resnet_resampler);
        return true;
    }
    return false;
}

static void parse_blocks(dn_config_reader *reader, dn_unet2d_config *config, dn_unet2d_block *out, const char *key, const char *direction,
                         const char *const defaults[4], bool resnet_resampler)
{
    const cJSON *list = dn_config_item(reader, key);
    uint32_t count = list == NULL ? 4 : cJSON_IsArray(list) ? (uint32_t)cJSON_GetArraySize(list) : 0;
    if (count != config->levels) {
        dn_config_fail(reader, DN_INVALID, key, "must have as many entries as block_out_channels (%u)", config->levels);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, (int)i);
        const char *type = list == NULL ? defaults[i] : cJSON_IsString(item) ? item->valuestring : "";
        if (!parse_block(&out[i], type, direction, resnet_resampler))
            dn_config_fail(reader, DN_UNSUPPORTED, key, "block type \"%.60s\" is not supported", type);
    }
}

static bool parse_resampler(dn_config_reader *reader, const char *key)
{
    const char *type = dn_config_text(reader, key, "conv");
    bool resnet = strcmp(type, "resnet") == 0;
    if (!resnet && strcmp(type, "conv") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, key, "\"%.60s\" is not supported (conv and resnet are)", type);
    return resnet;
}

static dn_activation parse_activation(dn_config_reader *reader)
{
    static const struct {
        const char *name;
        dn_activation activation;
    } table[] = {{"silu", DN_ACT_SILU}, {"swish", DN_ACT_SILU}, {"gelu", DN_ACT_GELU}, {"relu", DN_ACT_RELU}, {"mish", DN_ACT_MISH}};
    const char *name = dn_config_text(reader, "act_fn", "silu");
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(name, table[i].name) == 0)
            return table[i].activation;
    dn_config_fail(reader, DN_UNSUPPORTED, "act_fn", "\"%.60s\" is not supported", name);
    return DN_ACT_SILU;
}

static void parse_embeddings(dn_config_reader *reader, dn_unet2d_config *out)
{
    const char *type = dn_config_text(reader, "time_embedding_type", "positional");
    if (strcmp(type, "positional") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "time_embedding_type", "\"%.60s\" is not supported (positional is)", type);
    if (out->channels[0] % 2)
        dn_config_fail(reader, DN_UNSUPPORTED, "block_out_channels", "the first entry is also the sinusoid's size and must be even");
    out->time_embedding_dim = dn_config_is_null(reader, "time_embedding_dim")
                                  ? 4 * out->channels[0]
                                  : dn_config_count(reader, "time_embedding_dim", 1, 1, 4 * DN_CHANNELS_MAX);
    out->freq_shift = (float)dn_config_number(reader, "freq_shift", 0.0, 0.0, 1.0);
    out->flip_sin_to_cos = dn_config_bool(reader, "flip_sin_to_cos", true);
    if (out->freq_shift >= (float)(out->channels[0] / 2))
        dn_config_fail(reader, DN_INVALID, "freq_shift", "leaves no frequency for %u channels", out->channels[0]);

    if (!dn_config_is_null(reader, "class_embed_type")) {
        const char *class_type = dn_config_text(reader, "class_embed_type", "");
        dn_config_fail(reader, DN_UNSUPPORTED, "class_embed_type", "\"%.60s\" is not supported (null, a table of classes, is)", class_type);
    }
    if (!dn_config_is_null(reader, "num_class_embeds"))
        out->class_rows = dn_config_count(reader, "num_class_embeds", 0, 1, DN_CLASSES_MAX + 1);
}

static void parse_mid_block(dn_config_reader *reader, dn_unet2d_config *out)
{
    out->mid_block = !given_null(reader, "mid_block_type");
    const char *type = out->mid_block ? dn_config_text(reader, "mid_block_type", "UNetMidBlock2D") : "";
    if (out->mid_block && strcmp(type, "UNetMidBlock2D") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "mid_block_type", "\"%.60s\" is not supported", type);
    out->mid_attention = dn_config_bool(reader, "add_attention", true);
    out->mid_scale = (float)dn_config_number(reader, "mid_block_scale_factor", 1.0, 1e-3, 1e3);
    /* The mid block's attention is without a norm when the resnets are modulated and no group count is named. */
    if (!dn_config_is_null(reader, "attn_norm_num_groups"))
        out->mid_attention_groups = dn_config_count(reader, "attn_norm_num_groups", 32, 1, DN_CHANNELS_MAX);
    else
        out->mid_attention_groups = out->scale_shift ? 0 : out->groups;
}

static void parse_norms(dn_config_reader *reader, dn_unet2d_config *out)
{
    out->groups = dn_config_count(reader, "norm_num_groups", 32, 1, DN_CHANNELS_MAX);
    out->epsilon = (float)dn_config_number(reader, "norm_eps", 1e-5, 1e-12, 1.0);
    const char *shift = dn_config_text(reader, "resnet_time_scale_shift", "default");
    out->scale_shift = strcmp(shift, "scale_shift") == 0;
    if (!out->scale_shift && strcmp(shift, "default") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "resnet_time_scale_shift", "\"%.60s\" is not supported (default and scale_shift are)",
                       shift);
    for (uint32_t i = 0; i < out->levels; i++)
        if (out->channels[i] % out->groups)
            dn_config_fail(reader, DN_INVALID, "norm_num_groups", "%u does not divide the %u channels of level %u", out->groups,
                           out->channels[i], i);
}

static void check_heads(dn_config_reader *reader, const dn_unet2d_config *config)
{
    if (config->head_dim == 0)
        return;
    for (uint32_t i = 0; i < config->levels; i++) {
        bool attends = config->down[i].attention || config->up[config->levels - 1 - i].attention ||
                       (i + 1 == config->levels && config->mid_block && config->mid_attention);
        if (attends && config->channels[i] % config->head_dim)
            dn_config_fail(reader, DN_UNSUPPORTED, "attention_head_dim", "%u does not divide the %u channels of level %u", config->head_dim,
                           config->channels[i], i);
    }
}

dn_status dn_unet2d_config_parse(dn_unet2d_config *out, const cJSON *json, const char *path, uint32_t height, uint32_t width,
                                 dn_error *error)
{
    static const char *const down_defaults[4] = {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"};
    static const char *const up_defaults[4] = {"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"};
    dn_config_reader reader;
    dn_status status = dn_config_reader_init(&reader, json, path, error);
    if (status != DN_OK)
        return status;

    dn_unet2d_config config = {.levels = 1, .channels = {2}};
    parse_channels(&reader, &config);
    parse_blocks(&reader, &config, config.down, "down_block_types", "Down", down_defaults, parse_resampler(&reader, "downsample_type"));
    parse_blocks(&reader, &config, config.up, "up_block_types", "Up", up_defaults, parse_resampler(&reader, "upsample_type"));
    parse_sample_size(&reader, &config, height, width);
    config.in_channels = dn_config_count(&reader, "in_channels", 3, 1, DN_CHANNELS_MAX);
    config.out_channels = dn_config_count(&reader, "out_channels", 3, 1, DN_CHANNELS_MAX);
    config.center_input_sample = dn_config_bool(&reader, "center_input_sample", false);
    config.layers_per_block = dn_config_count(&reader, "layers_per_block", 2, 1, DN_LAYERS_MAX);
    config.downsample_padding = dn_config_count(&reader, "downsample_padding", 1, 0, 1);
    config.activation = parse_activation(&reader);
    config.head_dim = given_null(&reader, "attention_head_dim") ? 0 : dn_config_count(&reader, "attention_head_dim", 8, 1, DN_CHANNELS_MAX);
    parse_embeddings(&reader, &config);
    parse_norms(&reader, &config);
    parse_mid_block(&reader, &config);
    check_heads(&reader, &config);

    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = config;
    return status;
}
