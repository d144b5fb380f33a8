/* AutoencoderKL's decoder and encoder as plans: convolutions in levels, residual blocks without a time, one attention between.
 *
 * Structure and module names follow diffusers 0.31 (autoencoders/vae.py, unet_2d_blocks.py); the name of a residual block's or an
 * attention's last node is the block's. Values are [H,W,C] per row. Every group norm's epsilon is 1e-6. Pure; any thread. */
#include "model/autoencoder_kl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/plan_tools.h"

#define EPSILON 1e-6f

typedef struct autoencoder {
    const dn_autoencoder_kl_config *config;
    dn_plan_builder *plan;
} autoencoder;

static dn_value conv3(const autoencoder *a, dn_value in, dn_module_name module, uint32_t out_channels, dn_value residual, const char *name)
{
    dn_conv_options options = DN_CONV_INIT;
    options.module = module.text;
    options.name = name;
    options.out_channels = out_channels;
    options.residual = residual;
    return dn_plan_conv(a->plan, in, &options);
}

static dn_value norm(const autoencoder *a, dn_value in, dn_module_name module, const char *suffix, dn_activation activation)
{
    return dn_plan_group_norm(a->plan, in, module.text, dn_module_named("%s%s", module.text, suffix).text, a->config->groups, EPSILON,
                              DN_NONE, activation);
}

static dn_value resnet(const autoencoder *a, dn_value in, dn_module_name module, uint32_t out_channels)
{
    const char *m = module.text;
    dn_value h = norm(a, in, dn_module_named("%s.norm1", m), "+act", a->config->activation);
    h = conv3(a, h, dn_module_named("%s.conv1", m), out_channels, DN_NONE, NULL);
    h = norm(a, h, dn_module_named("%s.norm2", m), "+act", a->config->activation);
    dn_value x = in;
    if (dn_plan_shape(a->plan, in).c != out_channels)
        x = dn_plan_pointwise(a->plan, in, dn_module_named("%s.conv_shortcut", m).text, NULL, out_channels, DN_NONE);
    return conv3(a, h, dn_module_named("%s.conv2", m), out_channels, x, m);
}

/* One head over all pixels. */
static dn_value attention(const autoencoder *a, dn_value in, dn_module_name module)
{
    const char *m = module.text;
    uint32_t channels = dn_plan_shape(a->plan, in).c;
    dn_value h = norm(a, in, dn_module_named("%s.group_norm", m), "", DN_ACT_NONE);
    h = dn_plan_self_attention(a->plan, h, m, 1, false);
    dn_module_name to_out = dn_module_named("%s.to_out.0", m);
    const char *last[] = {to_out.text};
    dn_linear_options out = DN_LINEAR_INIT;
    out.modules = last;
    out.name = m;
    out.out_channels = channels;
    out.residual = in;
    return dn_plan_linear(a->plan, h, &out);
}

static dn_value mid_block(const autoencoder *a, dn_value h, const char *part)
{
    uint32_t channels = a->config->channels[a->config->levels - 1];
    h = resnet(a, h, dn_module_named("%s.mid_block.resnets.0", part), channels);
    if (a->config->mid_attention)
        h = attention(a, h, dn_module_named("%s.mid_block.attentions.0", part));
    return resnet(a, h, dn_module_named("%s.mid_block.resnets.1", part), channels);
}

/* conv_norm_out, SiLU whatever act_fn says, conv_out. */
static dn_value end(const autoencoder *a, dn_value h, const char *part, uint32_t out_channels)
{
    h = norm(a, h, dn_module_named("%s.conv_norm_out", part), "+silu", DN_ACT_SILU);
    return conv3(a, h, dn_module_named("%s.conv_out", part), out_channels, DN_NONE, NULL);
}

static dn_value decoder(const autoencoder *a, dn_value h)
{
    const dn_autoencoder_kl_config *c = a->config;
    if (c->post_quant_conv)
        h = dn_plan_pointwise(a->plan, h, dn_module_named("post_quant_conv").text, NULL, c->latent_channels, DN_NONE);
    h = conv3(a, h, dn_module_named("decoder.conv_in"), c->channels[c->levels - 1], DN_NONE, NULL);
    h = mid_block(a, h, "decoder");
    for (uint32_t b = 0; b < c->levels; b++) {
        for (uint32_t l = 0; l <= c->layers_per_block; l++)
            h = resnet(a, h, dn_module_named("decoder.up_blocks.%u.resnets.%u", b, l), c->channels[c->levels - 1 - b]);
        if (b + 1 == c->levels)
            break;
        dn_module_name up = dn_module_named("decoder.up_blocks.%u.upsamplers.0", b);
        h = dn_plan_upsample_nearest2(a->plan, h, dn_module_named("%s+nearest", up.text).text);
        h = conv3(a, h, dn_module_named("%s.conv", up.text), c->channels[c->levels - 1 - b], DN_NONE, up.text);
    }
    return end(a, h, "decoder", c->out_channels);
}

static dn_value encoder(const autoencoder *a, dn_value h)
{
    const dn_autoencoder_kl_config *c = a->config;
    h = conv3(a, h, dn_module_named("encoder.conv_in"), c->channels[0], DN_NONE, NULL);
    for (uint32_t b = 0; b < c->levels; b++) {
        for (uint32_t l = 0; l < c->layers_per_block; l++)
            h = resnet(a, h, dn_module_named("encoder.down_blocks.%u.resnets.%u", b, l), c->channels[b]);
        if (b + 1 == c->levels)
            break;
        /* Zeros at the bottom and right alone: F.pad(0, 1, 0, 1) before a convolution without padding. */
        dn_module_name down = dn_module_named("encoder.down_blocks.%u.downsamplers.0", b), conv = dn_module_named("%s.conv", down.text);
        dn_conv_options halve = DN_CONV_INIT;
        halve.module = conv.text;
        halve.name = down.text;
        halve.out_channels = c->channels[b];
        halve.stride = 2;
        halve.pad_top = halve.pad_left = 0;
        h = dn_plan_conv(a->plan, h, &halve);
    }
    h = end(a, mid_block(a, h, "encoder"), "encoder", 2 * c->latent_channels);
    return c->quant_conv ? dn_plan_pointwise(a->plan, h, dn_module_named("quant_conv").text, NULL, 2 * c->latent_channels, DN_NONE) : h;
}

static bool begins_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_encoders(const dn_model *model, const char *tensor)
{
    (void)model;
    return begins_with(tensor, "encoder.") || begins_with(tensor, "quant_conv.");
}

static bool is_decoders(const dn_model *model, const char *tensor)
{
    (void)model;
    return begins_with(tensor, "decoder.") || begins_with(tensor, "post_quant_conv.");
}

/* Sides of the part's input; the encoder's must be halved once a level. */
static dn_status settle_size(dn_model *out, const dn_autoencoder_kl_config *config, const dn_build_input *input, bool encodes,
                             dn_error *error)
{
    const uint32_t factor = 1u << (config->levels - 1), side = encodes ? config->sample_size : config->sample_size / factor;
    out->height = input->height ? input->height : side;
    out->width = input->height ? input->width : side;
    const uint32_t largest = encodes ? DN_IMAGE_SIDE_MAX : DN_IMAGE_SIDE_MAX / factor;
    if (out->height == 0 || out->width == 0 || out->height > largest || out->width > largest)
        return dn_fail(error, DN_INVALID, "%s: sample_size: %ux%u is not from 1 to %u a side", input->config_path, out->height, out->width,
                       largest);
    if (encodes && (out->height % factor || out->width % factor))
        return dn_fail(error, DN_INVALID, "%s: sample_size: %ux%u is no multiple of %u, the pixels of a latent", input->config_path,
                       out->height, out->width, factor);
    return DN_OK;
}

/* Builds the plan of one part; the sizes are settled. */
static dn_status build_plan(dn_model *out, const dn_autoencoder_kl_config *config, bool encodes, const char *path, dn_error *error)
{
    dn_plan_builder builder;
    const uint32_t in_channels = encodes ? config->in_channels : config->latent_channels;
    dn_status status = dn_plan_begin(&builder, (dn_shape){out->height, out->width, in_channels}, error);
    if (status != DN_OK)
        return status;
    const autoencoder a = {.config = config, .plan = &builder};
    dn_value answer = encodes ? encoder(&a, builder.plan->input) : decoder(&a, builder.plan->input);
    status = dn_plan_finish(&out->plan, &builder, answer, path, error);
    if (status != DN_OK)
        return status;
    out->channels = in_channels;
    out->out_channels = encodes ? 2 * config->latent_channels : config->out_channels;
    out->scaling_factor = config->scaling_factor;
    out->shift_factor = config->shift_factor;
    out->leftover = encodes ? is_decoders : is_encoders;
    return DN_OK;
}

dn_status dn_autoencoder_kl_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    const char *part = input->part ? input->part : DN_AUTOENCODER_DECODER;
    const bool encodes = strcmp(part, DN_AUTOENCODER_ENCODER) == 0;
    if (!encodes && strcmp(part, DN_AUTOENCODER_DECODER) != 0)
        return dn_fail(error, DN_INVALID, "%s: an AutoencoderKL has no part \"%.40s\"", input->config_path, part);
    dn_autoencoder_kl_config *config = calloc(1, sizeof *config);
    if (config == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", input->config_path);
    out->private_config = config;
    dn_status status = dn_autoencoder_kl_config_parse(config, input->config, input->config_path, error);
    if (status == DN_OK)
        status = settle_size(out, config, input, encodes, error);
    return status == DN_OK ? build_plan(out, config, encodes, input->config_path, error) : status;
}

dn_status dn_autoencoder_kl_resize(dn_model **out, const dn_model *model, uint32_t height, uint32_t width, dn_error *error)
{
    dn_model *resized = calloc(1, sizeof *resized);
    dn_autoencoder_kl_config *config = malloc(sizeof *config);
    if (resized == NULL || config == NULL) {
        free(resized);
        free(config);
        return dn_fail(error, DN_NO_MEMORY, "no memory for an autoencoder of another size");
    }
    *config = *(const dn_autoencoder_kl_config *)model->private_config;
    resized->architecture = model->architecture;
    resized->private_config = config;
    const dn_build_input input = {.config_path = model->architecture, .height = height, .width = width};
    const bool encodes = model->leftover == is_decoders;
    dn_status status = settle_size(resized, config, &input, encodes, error);
    if (status == DN_OK)
        status = build_plan(resized, config, encodes, input.config_path, error);
    if (status == DN_OK)
        *out = resized;
    else
        dn_model_free(resized);
    return status;
}
