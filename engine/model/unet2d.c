/* UNet2DModel as a plan: conv_in, down blocks, mid block, up blocks with skip connections, conv_out.
 *
 * Structure and module names follow diffusers 0.31 (models/unets/unet_2d.py, unet_2d_blocks.py). Where several modules
 * become one node, the node carries the name of the module whose output it equals ("R" for conv2 + residual of resnet R),
 * or "MODULE+what" when no module's output equals it. Shapes are [H,W,C] per row. Pure; any thread. */
#include "model/unet2d.h"

#include <stdarg.h>
#include <stdio.h>

#include "plan/plan.h"

#define MODULE_BYTES 128
#define SKIPS_MAX (1 + DN_BLOCKS_MAX * (DN_LAYERS_MAX + 1))
#define TIME_MAX_PERIOD 10000.0f

typedef struct module_name {
    char text[MODULE_BYTES];
} module_name;

typedef struct unet {
    const dn_unet2d_config *config;
    dn_plan_builder *plan;
    dn_value time; /* act_fn(time + class embedding), vector of time_embedding_dim; every resnet projects it */
    dn_value skips[SKIPS_MAX]; /* outputs of the down path, a stack */
    uint32_t skip_count;
} unet;

typedef enum resample { RESAMPLE_NONE, RESAMPLE_DOWN, RESAMPLE_UP } resample;

static module_name named(const char *format, ...) __attribute__((format(printf, 1, 2)));
static module_name named(const char *format, ...)
{
    module_name name;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    return name;
}

static uint32_t channels_of(const unet *u, dn_value value)
{
    return dn_plan_shape(u->plan, value).c;
}

static dn_value linear(unet *u, dn_value in, module_name module, uint32_t out_channels, module_name name, dn_activation activation,
                       dn_value residual)
{
    const char *modules[] = {module.text};
    dn_linear_options options = DN_LINEAR_INIT;
    options.modules = modules;
    options.name = name.text;
    options.out_channels = out_channels;
    options.activation = activation;
    options.residual = residual;
    return dn_plan_linear(u->plan, in, &options);
}

/* time_proj -> linear_1 -> SiLU -> linear_2, plus the class row, then the activation that opens every resnet's
 * time_emb_proj: it is the same everywhere, so it is taken once. The embedding's own activation is SiLU whatever act_fn says. */
static void embed_time(unet *u)
{
    const dn_unet2d_config *c = u->config;
    dn_value class_row = DN_NONE;
    if (c->class_rows)
        class_row = dn_plan_class_embedding(u->plan, "class_embedding", c->class_rows, c->time_embedding_dim);
    dn_value wave = dn_plan_time_embedding(u->plan, "time_proj", c->channels[0], c->freq_shift, c->flip_sin_to_cos, TIME_MAX_PERIOD);
    dn_value hidden = linear(u, wave, named("time_embedding.linear_1"), c->time_embedding_dim, named("time_embedding.linear_1+silu"),
                             DN_ACT_SILU, DN_NONE);
    u->time = linear(u, hidden, named("time_embedding.linear_2"), c->time_embedding_dim,
                     named(c->class_rows ? "time_embedding+class_embedding+act" : "time_embedding+act"), c->activation, class_row);
}

static dn_value resampled(unet *u, dn_value in, resample how, module_name name)
{
    switch (how) {
    case RESAMPLE_DOWN:
        return dn_plan_average_pool2(u->plan, in, name.text);
    case RESAMPLE_UP:
        return dn_plan_upsample_nearest2(u->plan, in, name.text);
    case RESAMPLE_NONE:
        break;
    }
    return in;
}

/* ResnetBlock2D: norm1, act, [resample], conv1, time, norm2, act, conv2, + shortcut, / output_scale_factor. Time enters as a
 * bias per row after conv1, or as scale and shift of norm2. The name of the last convolution is the block's. */
static dn_value resnet(unet *u, dn_value in, module_name module, uint32_t out_channels, float output_scale, resample how)
{
    const dn_unet2d_config *c = u->config;
    const char *m = module.text;
    dn_value time = linear(u, u->time, named("%s.time_emb_proj", m), c->scale_shift ? 2 * out_channels : out_channels,
                           named("%s.time_emb_proj", m), DN_ACT_NONE, DN_NONE);

    dn_value h = dn_plan_group_norm(u->plan, in, named("%s.norm1", m).text, named("%s.norm1+act", m).text, c->groups, c->epsilon, DN_NONE,
                                    c->activation);
    h = resampled(u, h, how, named("%s.norm1+act+resample", m));
    dn_value x = resampled(u, in, how, named("%s.input+resample", m));

    module_name conv1 = named("%s.conv1", m), conv1_name = named(c->scale_shift ? "%s.conv1" : "%s.conv1+time", m);
    dn_conv_options first = DN_CONV_INIT;
    first.module = conv1.text;
    first.name = conv1_name.text;
    first.out_channels = out_channels;
    first.row_bias = c->scale_shift ? DN_NONE : time;
    h = dn_plan_conv(u->plan, h, &first);
    h = dn_plan_group_norm(u->plan, h, named("%s.norm2", m).text, named("%s.norm2+act", m).text, c->groups, c->epsilon,
                           c->scale_shift ? time : DN_NONE, c->activation);

    if (channels_of(u, x) != out_channels) {
        module_name shortcut = named("%s.conv_shortcut", m);
        dn_conv_options pointwise = {.module = shortcut.text,
                                     .out_channels = out_channels,
                                     .kernel = 1,
                                     .stride = 1,
                                     .row_bias = DN_NONE,
                                     .residual = DN_NONE,
                                     .scale = 1.0f};
        x = dn_plan_conv(u->plan, x, &pointwise);
    }
    module_name conv2 = named("%s.conv2", m);
    dn_conv_options second = DN_CONV_INIT;
    second.module = conv2.text;
    second.name = m;
    second.out_channels = out_channels;
    second.residual = x;
    second.scale = 1.0f / output_scale;
    return dn_plan_conv(u->plan, h, &second);
}

/* Self-attention over the pixels: [group norm], q k v, softmax, to_out, + input, / rescale_output_factor. groups 0: no norm. */
static dn_value attention(unet *u, dn_value in, module_name module, uint32_t groups, float output_scale)
{
    const dn_unet2d_config *c = u->config;
    const char *m = module.text;
    uint32_t channels = channels_of(u, in), heads = c->head_dim ? channels / c->head_dim : 1;
    dn_value h = in;
    if (groups)
        h = dn_plan_group_norm(u->plan, in, named("%s.group_norm", m).text, NULL, groups, c->epsilon, DN_NONE, DN_ACT_NONE);

    module_name q = named("%s.to_q", m), k = named("%s.to_k", m), v = named("%s.to_v", m), qkv = named("%s.to_q+to_k+to_v", m);
    const char *stacked[] = {q.text, k.text, v.text};
    dn_linear_options project = DN_LINEAR_INIT;
    project.modules = stacked;
    project.module_count = 3;
    project.name = qkv.text;
    project.out_channels = 3 * channels;
    h = dn_plan_linear(u->plan, h, &project);
    h = dn_plan_attention(u->plan, h, named("%s.attention", m).text, heads);

    module_name to_out = named("%s.to_out.0", m);
    const char *last[] = {to_out.text};
    dn_linear_options out = DN_LINEAR_INIT;
    out.modules = last;
    out.name = m;
    out.out_channels = channels;
    out.residual = in;
    out.scale = 1.0f / output_scale;
    return dn_plan_linear(u->plan, h, &out);
}

/* Downsample2D and Upsample2D keep the channels; their module is MODULE.conv. */
static dn_value conv_resampler(unet *u, dn_value in, module_name module, resample how)
{
    module_name conv = named("%s.conv", module.text);
    dn_conv_options options = DN_CONV_INIT;
    options.module = conv.text;
    options.name = module.text;
    options.out_channels = channels_of(u, in);
    if (how == RESAMPLE_UP) {
        in = dn_plan_upsample_nearest2(u->plan, in, named("%s+nearest", module.text).text);
    } else {
        options.stride = 2;
        options.pad_top = options.pad_left = u->config->downsample_padding;
    }
    return dn_plan_conv(u->plan, in, &options);
}

static dn_value resampler(unet *u, dn_value in, module_name module, const dn_unet2d_block *block, resample how)
{
    if (block->resnet_resampler)
        return resnet(u, in, module, channels_of(u, in), 1.0f, how);
    return conv_resampler(u, in, module, how);
}

static void push_skip(unet *u, dn_value value)
{
    u->skips[u->skip_count++] = value;
}

static dn_value pop_skip(unet *u)
{
    return u->skips[--u->skip_count];
}

static dn_value down_path(unet *u, dn_value h)
{
    const dn_unet2d_config *c = u->config;
    push_skip(u, h);
    for (uint32_t b = 0; b < c->levels; b++) {
        for (uint32_t l = 0; l < c->layers_per_block; l++) {
            h = resnet(u, h, named("down_blocks.%u.resnets.%u", b, l), c->channels[b], 1.0f, RESAMPLE_NONE);
            if (c->down[b].attention)
                h = attention(u, h, named("down_blocks.%u.attentions.%u", b, l), c->groups, 1.0f);
            push_skip(u, h);
        }
        if (b + 1 == c->levels)
            break;
        h = resampler(u, h, named("down_blocks.%u.downsamplers.0", b), &c->down[b], RESAMPLE_DOWN);
        push_skip(u, h);
    }
    return h;
}

static dn_value mid_block(unet *u, dn_value h)
{
    const dn_unet2d_config *c = u->config;
    if (!c->mid_block)
        return h;
    h = resnet(u, h, named("mid_block.resnets.0"), channels_of(u, h), c->mid_scale, RESAMPLE_NONE);
    if (c->mid_attention)
        h = attention(u, h, named("mid_block.attentions.0"), c->mid_attention_groups, c->mid_scale);
    return resnet(u, h, named("mid_block.resnets.1"), channels_of(u, h), c->mid_scale, RESAMPLE_NONE);
}

/* Up blocks have one resnet more than down blocks and run from the coarsest level; each resnet reads [h, skip]. */
static dn_value up_path(unet *u, dn_value h)
{
    const dn_unet2d_config *c = u->config;
    for (uint32_t b = 0; b < c->levels; b++) {
        uint32_t channels = c->channels[c->levels - 1 - b];
        for (uint32_t l = 0; l <= c->layers_per_block; l++) {
            module_name name = named("up_blocks.%u.resnets.%u", b, l);
            h = dn_plan_concat(u->plan, h, pop_skip(u), named("%s+concat", name.text).text);
            h = resnet(u, h, name, channels, 1.0f, RESAMPLE_NONE);
            if (c->up[b].attention)
                h = attention(u, h, named("up_blocks.%u.attentions.%u", b, l), c->groups, 1.0f);
        }
        if (b + 1 < c->levels)
            h = resampler(u, h, named("up_blocks.%u.upsamplers.0", b), &c->up[b], RESAMPLE_UP);
    }
    return h;
}

static dn_value end_conv(unet *u, dn_value in, const char *module, uint32_t out_channels)
{
    dn_conv_options options = DN_CONV_INIT;
    options.module = module;
    options.out_channels = out_channels;
    return dn_plan_conv(u->plan, in, &options);
}

dn_status dn_unet2d_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    dn_unet2d_config config;
    dn_status status = dn_unet2d_config_parse(&config, input->config, input->config_path, input->height, input->width, error);
    if (status != DN_OK)
        return status;

    dn_plan_builder builder;
    status = dn_plan_begin(&builder, (dn_shape){config.height, config.width, config.in_channels}, error);
    if (status != DN_OK)
        return status;
    unet u = {.config = &config, .plan = &builder, .time = DN_NONE};
    dn_value h = builder.plan->input;
    if (config.center_input_sample)
        h = dn_plan_affine(&builder, h, "center_input_sample", 2.0f, -1.0f);
    embed_time(&u);
    h = end_conv(&u, h, "conv_in", config.channels[0]);
    h = up_path(&u, mid_block(&u, down_path(&u, h)));
    /* The last activation is SiLU whatever act_fn says (UNet2DModel.conv_act). */
    h = dn_plan_group_norm(&builder, h, "conv_norm_out", "conv_norm_out+silu", config.groups, config.epsilon, DN_NONE, DN_ACT_SILU);
    h = end_conv(&u, h, "conv_out", config.out_channels);

    dn_plan *plan = NULL;
    dn_error reason = {DN_OK, ""};
    status = dn_plan_end(&plan, &builder, h, &reason);
    if (status != DN_OK)
        return dn_fail(error, status, "%s: %.400s", input->config_path, reason.message);
    out->plan = plan;
    out->height = config.height;
    out->width = config.width;
    out->channels = config.in_channels;
    out->out_channels = config.out_channels;
    out->class_rows = config.class_rows;
    return DN_OK;
}
