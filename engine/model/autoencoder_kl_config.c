/* AutoencoderKL's config.json -> dn_autoencoder_kl_config: every key that shapes the networks, its default, and its rule. Pure;
 * any thread. */
#include "model/autoencoder_kl.h"

#include <string.h>

#include "model/config_reader.h"

static void parse_channels(dn_config_reader *reader, dn_autoencoder_kl_config *out)
{
    const cJSON *list = dn_config_item(reader, "block_out_channels");
    int count = list == NULL ? 1 : cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    out->levels = 1;
    out->channels[0] = 64;
    if (count < 1 || count > (int)DN_BLOCKS_MAX) {
        dn_config_fail(reader, DN_INVALID, "block_out_channels", "must be a list of 1 to %u channel counts", DN_BLOCKS_MAX);
        return;
    }
    for (int i = 0; list != NULL && i < count; i++) {
        const cJSON *item = cJSON_GetArrayItem(list, i);
        double value = cJSON_IsNumber(item) ? item->valuedouble : 0.0;
        if (!(value >= 1.0 && value <= DN_CHANNELS_MAX) || (uint32_t)value % out->groups || value != (double)(uint32_t)value) {
            dn_config_fail(reader, DN_INVALID, "block_out_channels", "entry %d must be a multiple of norm_num_groups (%u) up to %u", i,
                           out->groups, DN_CHANNELS_MAX);
            return;
        }
        out->channels[i] = (uint32_t)value;
    }
    out->levels = (uint32_t)count;
    if (out->channels[0] % out->groups)
        dn_config_fail(reader, DN_INVALID, "block_out_channels", "%u is no multiple of norm_num_groups (%u)", out->channels[0],
                       out->groups);
}

static void check_blocks(dn_config_reader *reader, const char *key, const char *expected, uint32_t levels)
{
    const cJSON *list = dn_config_item(reader, key), *item = NULL;
    uint32_t count = list == NULL ? 1 : cJSON_IsArray(list) ? (uint32_t)cJSON_GetArraySize(list) : 0;
    if (count != levels)
        dn_config_fail(reader, DN_INVALID, key, "must have as many entries as block_out_channels (%u)", levels);
    cJSON_ArrayForEach(item, list)
    {
        const char *type = cJSON_IsString(item) ? item->valuestring : "";
        if (strcmp(type, expected) != 0)
            dn_config_fail(reader, DN_UNSUPPORTED, key, "block type \"%.60s\" is not supported (%s is)", type, expected);
    }
}

/* A side, or [side, side] of which diffusers takes the first. */
static uint32_t parse_sample_size(dn_config_reader *reader)
{
    const cJSON *first = cJSON_GetArrayItem(dn_config_item(reader, "sample_size"), 0);
    if (first == NULL)
        return dn_config_count(reader, "sample_size", 32, 1, DN_IMAGE_SIDE_MAX);
    if (cJSON_IsNumber(first) && first->valuedouble >= 1.0 && first->valuedouble <= DN_IMAGE_SIDE_MAX)
        return (uint32_t)first->valuedouble;
    dn_config_fail(reader, DN_INVALID, "sample_size", "must be a side from 1 to %u", DN_IMAGE_SIDE_MAX);
    return 1;
}

dn_status dn_autoencoder_kl_config_parse(dn_autoencoder_kl_config *out, const cJSON *json, const char *path, dn_error *error)
{
    dn_config_reader reader;
    dn_autoencoder_kl_config config = {0};
    dn_status status = dn_config_reader_init(&reader, json, path, error);
    if (status != DN_OK)
        return status;
    config.in_channels = dn_config_count(&reader, "in_channels", 3, 1, DN_CHANNELS_MAX);
    config.out_channels = dn_config_count(&reader, "out_channels", 3, 1, DN_CHANNELS_MAX);
    config.latent_channels = dn_config_count(&reader, "latent_channels", 4, 1, DN_CHANNELS_MAX / 2);
    config.groups = dn_config_count(&reader, "norm_num_groups", 32, 1, DN_CHANNELS_MAX);
    config.layers_per_block = dn_config_count(&reader, "layers_per_block", 1, 1, DN_LAYERS_MAX - 1);
    config.sample_size = parse_sample_size(&reader);
    config.activation = dn_config_activation(&reader);
    config.quant_conv = dn_config_bool(&reader, "use_quant_conv", true);
    config.post_quant_conv = dn_config_bool(&reader, "use_post_quant_conv", true);
    config.mid_attention = dn_config_bool(&reader, "mid_block_add_attention", true);
    config.scaling_factor = dn_config_number(&reader, "scaling_factor", 0.18215, 1e-6, 1e6);
    if (!dn_config_is_null(&reader, "shift_factor"))
        config.shift_factor = dn_config_number(&reader, "shift_factor", 0.0, -1e6, 1e6);
    parse_channels(&reader, &config);
    check_blocks(&reader, "down_block_types", "DownEncoderBlock2D", config.levels);
    check_blocks(&reader, "up_block_types", "UpDecoderBlock2D", config.levels);
    static const char *const refused[] = {"latents_mean", "latents_std"};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if (!dn_config_is_null(&reader, refused[i]))
            dn_config_fail(&reader, DN_UNSUPPORTED, refused[i], "a scale of each channel is not supported (scaling_factor is)");
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = config;
    return status;
}
