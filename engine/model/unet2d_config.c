/* UNet2DModel's config.json -> dn_unet2d_config: every key that shapes the network, its default, and its rule.
 *
 * Keys and defaults are those of diffusers 0.31's UNet2DModel. Owns nothing; pure; any thread. */
#include "model/unet2d.h"

#include <string.h>

#include "model/config_reader.h"

#define DEFAULT_CLASSES 1000u

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

/* One entry of down_block_types or up_block_types; DIRECTION stands where a name says Down or Up. */
static const struct {
    const char *before, *after; /* the direction */
    dn_unet2d_block block;
} block_types[] = {
    {"", "Block2D", {false, false, false}},
    {"Attn", "Block2D", {true, false, false}},
    {"Resnet", "sampleBlock2D", {false, true, false}},
    {"Skip", "Block2D", {false, false, true}},
    {"AttnSkip", "Block2D", {true, false, true}},
};

/* Plain blocks resample by a convolution whatever downsample_type and upsample_type say; only Attn blocks listen to it. */
static bool parse_block(dn_unet2d_block *out, const char *type, const char *direction, bool resnet_resampler)
{
    if (strncmp(type, "UNetRes", 7) == 0)
        type += 7;
    size_t middle = strlen(direction);
    for (size_t i = 0; i < sizeof block_types / sizeof block_types[0]; i++) {
        size_t before = strlen(block_types[i].before);
        if (strncmp(type, block_types[i].before, before) != 0 || strncmp(type + before, direction, middle) != 0 ||
            strcmp(type + before + middle, block_types[i].after) != 0)
            continue;
        *out = block_types[i].block;
        if (out->attention && !out->skip)
            out->resnet_resampler = resnet_resampler;
        return true;
    }
    return false;
}

/* What is known of a block type that is not supported. */
static const char *why_not(const char *type)
{
    if (strstr(type, "CrossAttn") != NULL)
        return ": cross-attention reads tokens, and this network is given classes";
    if (type[0] == 'K')
        return ": it belongs to the k-upscaler";
    return "";
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
            dn_config_fail(reader, DN_UNSUPPORTED, key, "block type \"%.60s\" is not supported%s", type, why_not(type));
    }
}

static bool parse_resampler(dn_config_reader *reader, const char *key)
{
    const char *type = given_null(reader, key) ? "conv" : dn_config_text(reader, key, "conv");
    bool resnet = strcmp(type, "resnet") == 0;
    if (!resnet && strcmp(type, "conv") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, key, "\"%.60s\" is not supported (conv and resnet are)", type);
    return resnet;
}

static void parse_time(dn_config_reader *reader, dn_unet2d_config *out)
{
    const char *type = dn_config_text(reader, "time_embedding_type", "positional");
    out->time_channels = out->channels[0];
    if (strcmp(type, "fourier") == 0) {
        out->time = DN_UNET2D_FOURIER;
    } else if (strcmp(type, "learned") == 0) {
        out->time = DN_UNET2D_LEARNED;
        if (dn_config_is_null(reader, "num_train_timesteps"))
            dn_config_fail(reader, DN_INVALID, "num_train_timesteps", "must say how many rows the learned table of times has");
        else
            out->time_rows = dn_config_count(reader, "num_train_timesteps", 1, 1, DN_TRAIN_TIMESTEPS_MAX);
    } else if (strcmp(type, "positional") != 0) {
        dn_config_fail(reader, DN_UNSUPPORTED, "time_embedding_type", "\"%.60s\" is not supported (positional, fourier and learned are)",
                       type);
    } else if (out->channels[0] % 2) {
        dn_config_fail(reader, DN_UNSUPPORTED, "block_out_channels", "the first entry is also the sinusoid's size and must be even");
    }
    out->time_embedding_dim = dn_config_is_null(reader, "time_embedding_dim")
                                  ? 4 * out->channels[0]
                                  : dn_config_count(reader, "time_embedding_dim", 1, 1, 4 * DN_CHANNELS_MAX);
    out->freq_shift = (float)dn_config_number(reader, "freq_shift", 0.0, 0.0, 1.0);
    out->flip_sin_to_cos = dn_config_bool(reader, "flip_sin_to_cos", true);
    if (out->time == DN_UNET2D_POSITIONAL && out->freq_shift >= (float)(out->channels[0] / 2))
        dn_config_fail(reader, DN_INVALID, "freq_shift", "leaves no frequency for %u channels", out->channels[0]);
}

/* With "timestep" the class number goes through the time's sinusoid and an embedding of its own. Any number would do; how many
 * classes there are is said by num_class_embeds, which diffusers ignores then, or taken as DEFAULT_CLASSES. */
static void parse_class(dn_config_reader *reader, dn_unet2d_config *out)
{
    const char *type = dn_config_is_null(reader, "class_embed_type") ? "" : dn_config_text(reader, "class_embed_type", "");
    out->class_sinusoid = strcmp(type, "timestep") == 0;
    if (!dn_config_is_null(reader, "num_class_embeds"))
        out->class_rows = dn_config_count(reader, "num_class_embeds", 0, 1, DN_CLASSES_MAX + 1);
    else if (out->class_sinusoid)
        out->class_rows = DEFAULT_CLASSES;
    if (strcmp(type, "identity") == 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "class_embed_type",
                       "\"identity\" is not supported: the caller would give the embedding itself");
    else if (type[0] != '\0' && !out->class_sinusoid)
        dn_config_fail(reader, DN_UNSUPPORTED, "class_embed_type", "\"%.60s\" is not supported (null and timestep are)", type);
    else if (out->class_sinusoid && out->time != DN_UNET2D_POSITIONAL)
        dn_config_fail(reader, DN_UNSUPPORTED, "class_embed_type",
                       "\"timestep\" goes with time_embedding_type \"positional\" only: class 0 has no logarithm, and no row of times");
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
        out->mid_attention_groups = out->scale_shift ? 0 : out->groups ? out->groups : dn_unet2d_groups(out->channels[out->levels - 1]);
}

/* norm_num_groups null: groups by the channels. Only skip blocks can do that; the others hand null to torch, which refuses. */
static void parse_groups(dn_config_reader *reader, dn_unet2d_config *out)
{
    bool all_skip = true;
    for (uint32_t i = 0; i < out->levels; i++)
        all_skip = all_skip && out->down[i].skip && out->up[i].skip;
    if (given_null(reader, "norm_num_groups")) {
        if (!all_skip)
            dn_config_fail(reader, DN_INVALID, "norm_num_groups", "null goes with skip blocks only");
        return;
    }
    out->groups = dn_config_count(reader, "norm_num_groups", 32, 1, DN_CHANNELS_MAX);
    for (uint32_t i = 0; i < out->levels; i++) {
        bool read = !out->down[i].skip || !out->up[out->levels - 1 - i].skip || i == 0 || i + 1 == out->levels;
        if (read && out->groups && out->channels[i] % out->groups)
            dn_config_fail(reader, DN_INVALID, "norm_num_groups", "%u does not divide the %u channels of level %u", out->groups,
                           out->channels[i], i);
    }
}

static void parse_norms(dn_config_reader *reader, dn_unet2d_config *out)
{
    parse_groups(reader, out);
    out->epsilon = (float)dn_config_number(reader, "norm_eps", 1e-5, 1e-12, 1.0);
    const char *shift = dn_config_text(reader, "resnet_time_scale_shift", "default");
    out->scale_shift = strcmp(shift, "scale_shift") == 0;
    if (strcmp(shift, "spatial") == 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "resnet_time_scale_shift",
                       "\"spatial\" is not supported: it norms by a feature map that this network is not given");
    else if (!out->scale_shift && strcmp(shift, "default") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "resnet_time_scale_shift", "\"%.60s\" is not supported (default and scale_shift are)",
                       shift);
}

/* The picture beside the features has three channels, and must be halved (doubled) together with them: once another kind of
 * block has resampled the features alone, the two no longer fit. */
static void check_skip_blocks(dn_config_reader *reader, const dn_unet2d_config *config)
{
    bool halved_alone = false, begun = false;
    for (uint32_t i = 0; i < config->levels; i++) {
        bool down = config->down[i].skip && i + 1 < config->levels;
        if (down && config->in_channels != 3)
            dn_config_fail(reader, DN_INVALID, "in_channels", "must be 3 with skip blocks, not %u", config->in_channels);
        if (down && halved_alone)
            dn_config_fail(reader, DN_UNSUPPORTED, "down_block_types", "a skip block follows a block that halves the features alone");
        halved_alone = halved_alone || !config->down[i].skip;
        if (begun && !config->up[i].skip)
            dn_config_fail(reader, DN_UNSUPPORTED, "up_block_types", "a block that doubles the features alone follows a skip block");
        begun = begun || (config->up[i].skip && i + 1 < config->levels);
    }
    if (begun && config->out_channels != 3)
        dn_config_fail(reader, DN_INVALID, "out_channels", "must be 3 with skip blocks, not %u", config->out_channels);
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
    config.activation = dn_config_activation(&reader);
    config.head_dim = given_null(&reader, "attention_head_dim") ? 0 : dn_config_count(&reader, "attention_head_dim", 8, 1, DN_CHANNELS_MAX);
    parse_time(&reader, &config);
    parse_class(&reader, &config);
    parse_norms(&reader, &config);
    parse_mid_block(&reader, &config);
    check_heads(&reader, &config);
    check_skip_blocks(&reader, &config);

    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = config;
    return status;
}
