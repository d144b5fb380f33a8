/* config.json -> dn_dit_config for both formats: every key that shapes the network, its default, and its rule.
 *
 * Keys and defaults are those of diffusers 0.31's DiTTransformer2DModel and of facebookresearch/DiT's constructor. Pure; any thread. */
#include "model/dit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/config_reader.h"

#define POSITION_ERROR_MAX 1e-4
#define MLP_FACTOR 4u

/* The sample's size: the caller's, else a square of the given side; both must be whole patches in the table's proportion. */
static void settle_size(dn_config_reader *reader, dn_dit_config *out, const dn_build_input *input, const char *key)
{
    out->height = input->height ? input->height : out->base_side;
    out->width = input->height ? input->width : out->base_side;
    if (out->height > DN_IMAGE_SIDE_MAX || out->width > DN_IMAGE_SIDE_MAX)
        dn_config_fail(reader, DN_INVALID, key, "%ux%u is larger than %u a side", out->height, out->width, DN_IMAGE_SIDE_MAX);
    else if (out->height % out->patch || out->width % out->patch || out->height == 0 || out->width == 0)
        dn_config_fail(reader, DN_INVALID, key, "%ux%u is not made of whole %ux%u patches", out->height, out->width, out->patch,
                       out->patch);
    else if (out->height != out->width)
        dn_config_fail(reader, DN_UNSUPPORTED, key, "%ux%u is no square, for which the positions are made", out->height, out->width);
}

static void check_widths(dn_config_reader *reader, const dn_dit_config *config, const char *width_key)
{
    if (config->hidden > DN_CHANNELS_MAX || config->hidden % 4)
        dn_config_fail(reader, DN_INVALID, width_key, "a width of %u is no multiple of 4 up to %u", config->hidden, DN_CHANNELS_MAX);
    else if (config->mlp_hidden == 0 || config->mlp_hidden > DN_CHANNELS_MAX)
        dn_config_fail(reader, DN_INVALID, width_key, "a feed-forward width of %u is beyond %u", config->mlp_hidden, DN_CHANNELS_MAX);
    else if ((uint64_t)config->patch * config->patch * config->out_channels > DN_CHANNELS_MAX)
        dn_config_fail(reader, DN_INVALID, "patch_size", "a patch of %ux%u with %u channels is beyond %u numbers", config->patch,
                       config->patch, config->out_channels, DN_CHANNELS_MAX);
}

static dn_activation parse_activation(dn_config_reader *reader)
{
    const char *name = dn_config_text(reader, "activation_fn", "gelu-approximate");
    if (strcmp(name, "gelu") == 0)
        return DN_ACT_GELU;
    if (strcmp(name, "gelu-approximate") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "activation_fn", "\"%.60s\" is not supported (gelu-approximate and gelu are)", name);
    return DN_ACT_GELU_TANH;
}

/* What Transformer2DModel can be besides a DiT. */
static void refuse_other_transformers(dn_config_reader *reader)
{
    static const char *const absent[] = {"cross_attention_dim", "num_vector_embeds", "caption_channels"};
    static const char *const off[] = {"only_cross_attention", "double_self_attention"};
    const char *class_name = dn_config_text(reader, "_class_name", "");
    const char *norm = dn_config_text(reader, "norm_type", strcmp(class_name, "Transformer2DModel") == 0 ? "layer_norm" : "ada_norm_zero");
    if (strcmp(norm, "ada_norm_zero") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "norm_type", "\"%.60s\" is not supported (ada_norm_zero is: DiT)", norm);
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++)
        if (!dn_config_is_null(reader, absent[i]))
            dn_config_fail(reader, DN_UNSUPPORTED, absent[i], "is not supported (a DiT has none)");
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++)
        if (dn_config_bool(reader, off[i], false))
            dn_config_fail(reader, DN_UNSUPPORTED, off[i], "is not supported");
    if (strcmp(dn_config_text(reader, "attention_type", "default"), "default") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "attention_type", "only default is supported");
}

dn_status dn_dit_config_parse(dn_dit_config *out, const dn_build_input *input, dn_error *error)
{
    dn_config_reader reader;
    dn_dit_config config = {.freq_shift = 1.0f};
    dn_status status = dn_config_reader_init(&reader, input->config, input->config_path, error);
    if (status != DN_OK)
        return status;
    refuse_other_transformers(&reader);
    config.heads = dn_config_count(&reader, "num_attention_heads", 16, 1, DN_CHANNELS_MAX);
    config.hidden = config.heads * dn_config_count(&reader, "attention_head_dim", 72, 1, DN_CHANNELS_MAX);
    config.mlp_hidden = config.hidden <= DN_CHANNELS_MAX ? MLP_FACTOR * config.hidden : 0;
    config.in_channels = dn_config_count(&reader, "in_channels", 4, 1, DN_CHANNELS_MAX);
    config.out_channels =
        dn_config_is_null(&reader, "out_channels") ? config.in_channels : dn_config_count(&reader, "out_channels", 0, 1, DN_CHANNELS_MAX);
    config.depth = dn_config_count(&reader, "num_layers", 28, 1, DN_DIT_DEPTH_MAX);
    config.patch = dn_config_count(&reader, "patch_size", 2, 1, 63);
    config.base_side = dn_config_count(&reader, "sample_size", 32, 1, DN_IMAGE_SIDE_MAX);
    config.class_rows = 1 + dn_config_count(&reader, "num_embeds_ada_norm", 1000, 1, DN_CLASSES_MAX - 1);
    config.attention_bias = dn_config_bool(&reader, "attention_bias", true);
    config.mlp_norm_affine = dn_config_bool(&reader, "norm_elementwise_affine", false);
    config.mlp_epsilon = (float)dn_config_number(&reader, "norm_eps", 1e-5, 1e-12, 1.0);
    config.activation = parse_activation(&reader);
    settle_size(&reader, &config, input, "sample_size");
    check_widths(&reader, &config, "attention_head_dim");
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = config;
    return status;
}

/* Heads are in no tensor's shape: the published widths are known, all others must say. */
static uint32_t heads_of_width(uint32_t hidden)
{
    static const struct {
        uint32_t hidden, heads;
    } table[] = {{384, 6}, {768, 12}, {1024, 16}, {1152, 16}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (table[i].hidden == hidden)
            return table[i].heads;
    return hidden % 64 == 0 ? hidden / 64 : 0;
}

static void parse_original_heads(dn_config_reader *reader, dn_dit_config *config)
{
    config->heads = dn_config_count(reader, "num_heads", heads_of_width(config->hidden), 1, DN_CHANNELS_MAX);
    if (config->heads == 0)
        dn_config_fail(reader, DN_INVALID, "num_heads", "is not given, and a width of %u is none of the published ones", config->hidden);
    else if (config->hidden % config->heads)
        dn_config_fail(reader, DN_INVALID, "num_heads", "%u does not divide a width of %u", config->heads, config->hidden);
}

dn_status dn_dit_original_config_parse(dn_dit_config *out, const cJSON *json, const dn_build_input *input, dn_error *error)
{
    dn_config_reader reader;
    dn_dit_config config = {.mlp_epsilon = 1e-6f, .attention_bias = true, .activation = DN_ACT_GELU_TANH};
    dn_status status = dn_config_reader_init(&reader, json, input->config_path, error);
    if (status != DN_OK)
        return status;
    const char *path = dn_config_text(&reader, "path_type", "linear");
    if (strcmp(path, "linear") != 0)
        dn_config_fail(&reader, DN_UNSUPPORTED, "path_type", "\"%.60s\" is not supported (linear is)", path);
    if (dn_config_bool(&reader, "qk_norm", false))
        dn_config_fail(&reader, DN_UNSUPPORTED, "qk_norm", "norms of queries and keys are not supported");
    config.hidden = dn_config_count(&reader, "hidden_size", 1152, 1, DN_CHANNELS_MAX);
    /* A ratio that was taken from a shape may miss its whole number by a rounding. */
    config.mlp_hidden = (uint32_t)(config.hidden * dn_config_number(&reader, "mlp_ratio", MLP_FACTOR, 0.01, 16.0) + 1e-6);
    parse_original_heads(&reader, &config);
    config.depth = dn_config_count(&reader, "depth", 28, 1, DN_DIT_DEPTH_MAX);
    config.patch = dn_config_count(&reader, "patch_size", 2, 1, 63);
    config.in_channels = dn_config_count(&reader, "in_channels", 4, 1, DN_CHANNELS_MAX);
    bool repa = strcmp(dn_config_text(&reader, "_class_name", ""), "REPA") == 0;
    config.out_channels = config.in_channels * (dn_config_bool(&reader, "learn_sigma", !repa) ? 2 : 1);
    config.base_side = dn_config_count(&reader, "input_size", 32, 1, DN_IMAGE_SIDE_MAX);
    bool null_class = dn_config_number(&reader, "class_dropout_prob", 0.1, 0.0, 1.0) > 0.0;
    config.class_rows = dn_config_count(&reader, "num_classes", 1000, 1, DN_CLASSES_MAX - 1) + (null_class ? 1 : 0);
    settle_size(&reader, &config, input, "input_size");
    check_widths(&reader, &config, "hidden_size");
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK) {
        memset(config.shared, true, sizeof config.shared);
        *out = config;
    }
    return status;
}

/* Element (y, x, c) of the table: first half of the channels from the column, second from the row, each [sin, cos]. */
static double position(uint32_t hidden, uint32_t y, uint32_t x, uint32_t c)
{
    uint32_t half = hidden / 2, quarter = hidden / 4, inside = c % half;
    double angle = (c < half ? x : y) * pow(10000.0, -(double)(inside % quarter) / quarter);
    return inside < quarter ? sin(angle) : cos(angle);
}

dn_status dn_dit_check_positions(const dn_dit_config *config, const dn_build_input *input, const char *tensor, dn_error *error)
{
    const dn_tensor_info *info = input->tensors ? dn_tensors_find(input->tensors, tensor) : NULL;
    if (info == NULL)
        return DN_OK;
    uint32_t side = config->base_side / config->patch;
    if (info->count != (uint64_t)side * side * config->hidden)
        return dn_fail(error, DN_INVALID, "%s: %s: %llu numbers are no table of %ux%u positions of width %u",
                       dn_tensors_path(input->tensors), tensor, (unsigned long long)info->count, side, side, config->hidden);
    float *stored = malloc(info->count * sizeof *stored);
    if (stored == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", dn_tensors_path(input->tensors));
    dn_status status = dn_tensors_read_f32(input->tensors, info, stored, error);
    for (uint64_t i = 0; i < info->count && status == DN_OK; i++) {
        uint32_t c = (uint32_t)(i % config->hidden), token = (uint32_t)(i / config->hidden);
        /* F16 and BF16 keep fewer digits of numbers up to one. */
        double bound = info->dtype == DN_BF16 ? 4e-3 : info->dtype == DN_F16 ? 5e-4 : POSITION_ERROR_MAX;
        if (!(fabs((double)stored[i] - position(config->hidden, token / side, token % side, c)) <= bound))
            status = dn_fail(error, DN_UNSUPPORTED, "%s: %s: element %llu is not that of the sincos table, which is all that is supported",
                             dn_tensors_path(input->tensors), tensor, (unsigned long long)i);
    }
    free(stored);
    return status;
}
