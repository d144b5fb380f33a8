/* UNet2DModel's parts as plan nodes, after diffusers 0.31 (models/resnet.py, attention_processor.py, upsampling.py, downsampling.py).
 *
 * Where several modules become one node, the node carries the name of the module whose output it equals ("R" for conv2 + residual
 * of resnet R), or "MODULE+what" when no module's output equals it. Shapes are [H,W,C] per row. Pure; any thread. */
#include "model/unet2d_blocks.h"

static uint32_t channels_of(const dn_unet *u, dn_value value)
{
    return dn_plan_shape(u->plan, value).c;
}

dn_value dn_unet_resample(dn_unet *u, dn_value in, dn_resample how, bool fir, const char *name)
{
    switch (how) {
    case DN_RESAMPLE_DOWN:
        return fir ? dn_plan_downsample_fir2(u->plan, in, name) : dn_plan_average_pool2(u->plan, in, name);
    case DN_RESAMPLE_UP:
        return fir ? dn_plan_upsample_fir2(u->plan, in, name) : dn_plan_upsample_nearest2(u->plan, in, name);
    case DN_RESAMPLE_NONE:
        break;
    }
    return in;
}

/* ResnetBlock2D: norm1, act, [resample], conv1, time, norm2, act, conv2, + shortcut, / output_scale_factor. Time enters as a
 * bias per row after conv1, or as scale and shift of norm2. The name of the last convolution is the block's. */
dn_value dn_unet_resnet(dn_unet *u, dn_value in, dn_module_name module, const dn_resnet_shape *shape)
{
    const dn_unet2d_config *c = u->config;
    const char *m = module.text;
    uint32_t out_channels = shape->out_channels;
    dn_value time =
        dn_plan_dense(u->plan, u->time, dn_module_named("%s.time_emb_proj", m), c->scale_shift ? 2 * out_channels : out_channels,
                      dn_module_named("%s.time_emb_proj", m), DN_ACT_NONE, DN_NONE);

    dn_value h = dn_plan_group_norm(u->plan, in, dn_module_named("%s.norm1", m).text, dn_module_named("%s.norm1+act", m).text,
                                    shape->groups_in, c->epsilon, DN_NONE, c->activation);
    h = dn_unet_resample(u, h, shape->resample, shape->fir, dn_module_named("%s.norm1+act+resample", m).text);
    dn_value x = dn_unet_resample(u, in, shape->resample, shape->fir, dn_module_named("%s.input+resample", m).text);

    dn_module_name conv1 = dn_module_named("%s.conv1", m), conv1_name = dn_module_named(c->scale_shift ? "%s.conv1" : "%s.conv1+time", m);
    dn_conv_options first = DN_CONV_INIT;
    first.module = conv1.text;
    first.name = conv1_name.text;
    first.out_channels = out_channels;
    first.row_bias = c->scale_shift ? DN_NONE : time;
    h = dn_plan_conv(u->plan, h, &first);
    h = dn_plan_group_norm(u->plan, h, dn_module_named("%s.norm2", m).text, dn_module_named("%s.norm2+act", m).text, shape->groups_out,
                           c->epsilon, c->scale_shift ? time : DN_NONE, c->activation);

    if (shape->shortcut || channels_of(u, x) != out_channels)
        x = dn_plan_pointwise(u->plan, x, dn_module_named("%s.conv_shortcut", m).text, NULL, out_channels, DN_NONE);
    dn_module_name conv2 = dn_module_named("%s.conv2", m);
    dn_conv_options second = DN_CONV_INIT;
    second.module = conv2.text;
    second.name = m;
    second.out_channels = out_channels;
    second.residual = x;
    second.scale = 1.0f / shape->output_scale;
    return dn_plan_conv(u->plan, h, &second);
}

/* Self-attention over the pixels: [group norm], q k v, softmax, to_out, + input, / rescale_output_factor. */
dn_value dn_unet_attention(dn_unet *u, dn_value in, dn_module_name module, uint32_t groups, uint32_t heads, float output_scale)
{
    const char *m = module.text;
    uint32_t channels = channels_of(u, in);
    dn_value h = in;
    if (groups)
        h = dn_plan_group_norm(u->plan, in, dn_module_named("%s.group_norm", m).text, NULL, groups, u->config->epsilon, DN_NONE,
                               DN_ACT_NONE);

    h = dn_plan_self_attention(u->plan, h, m, heads, false);

    dn_module_name to_out = dn_module_named("%s.to_out.0", m);
    const char *last[] = {to_out.text};
    dn_linear_options out = DN_LINEAR_INIT;
    out.modules = last;
    out.name = m;
    out.out_channels = channels;
    out.residual = in;
    out.scale = 1.0f / output_scale;
    return dn_plan_linear(u->plan, h, &out);
}

/* They keep the channels; their module is MODULE.conv. */
dn_value dn_unet_conv_resampler(dn_unet *u, dn_value in, dn_module_name module, dn_resample how)
{
    dn_module_name conv = dn_module_named("%s.conv", module.text);
    dn_conv_options options = DN_CONV_INIT;
    options.module = conv.text;
    options.name = module.text;
    options.out_channels = channels_of(u, in);
    if (how == DN_RESAMPLE_UP) {
        in = dn_plan_upsample_nearest2(u->plan, in, dn_module_named("%s+nearest", module.text).text);
    } else {
        options.stride = 2;
        options.pad_top = options.pad_left = u->config->downsample_padding;
    }
    return dn_plan_conv(u->plan, in, &options);
}
