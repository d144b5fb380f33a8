/* UNet2DModel as a plan: conv_in, down blocks, mid block, up blocks with skip connections, conv_out.
 *
 * Structure and module names follow diffusers 0.31 (models/unets/unet_2d.py, unet_2d_blocks.py); the parts are in
 * unet2d_blocks.c. Beside the blocks of DDPM and ADM stand those of NCSN++ (Song et al. 2021, "Skip" blocks), which carry the
 * picture itself beside the features: halved at each level into the down path, summed up from each level of the up path.
 * Shapes are [H,W,C] per row. Pure; any thread. */
#include "model/unet2d.h"

#include <string.h>

#include "model/unet2d_blocks.h"

#define SKIPS_MAX (1 + DN_BLOCKS_MAX * (DN_LAYERS_MAX + 1))
#define TIME_MAX_PERIOD 10000.0f
#define SQRT2 1.41421356237309505f
#define SKIP_ATTENTION_GROUPS 32 /* whatever norm_num_groups says */
#define PICTURE_CHANNELS 3 /* of the picture beside the features */

typedef struct network {
    dn_unet unet;
    dn_value skips[SKIPS_MAX]; /* outputs of the down path, a stack */
    uint32_t skip_count;
    dn_value picture; /* skip blocks: beside the features; DN_NONE: none (yet) */
} network;

uint32_t dn_unet2d_groups(uint32_t channels)
{
    return channels / 4 < 32 ? channels / 4 : 32;
}

uint32_t dn_unet2d_heads(const dn_unet2d_config *config, uint32_t channels, bool up)
{
    uint32_t count = up ? config->up_head_count : config->head_count;
    return count ? count : config->head_dim ? channels / config->head_dim : 1;
}

static uint32_t channels_of(const network *n, dn_value value)
{
    return dn_plan_shape(n->unet.plan, value).c;
}

/* linear_1, SiLU, linear_2: TimestepEmbedding. Its own activation is SiLU whatever act_fn says. */
static dn_value timestep_embedding(dn_unet *u, dn_value wave, const char *module, const char *name, dn_activation activation,
                                   dn_value residual)
{
    uint32_t dim = u->config->time_embedding_dim;
    dn_value hidden = dn_plan_dense(u->plan, wave, dn_module_named("%s.linear_1", module), dim, dn_module_named("%s.linear_1+silu", module),
                                    DN_ACT_SILU, DN_NONE);
    return dn_plan_dense(u->plan, hidden, dn_module_named("%s.linear_2", module), dim, dn_module_named("%s", name), activation, residual);
}

static dn_value embed_class(dn_unet *u)
{
    const dn_unet2d_config *c = u->config;
    if (c->class_rows == 0)
        return DN_NONE;
    if (!c->class_sinusoid)
        return dn_plan_class_embedding(u->plan, "class_embedding", c->class_rows, c->time_embedding_dim);
    dn_value wave = dn_plan_class_sinusoid(u->plan, "class_embedding+time_proj", c->class_rows, c->time_channels, c->freq_shift,
                                           c->flip_sin_to_cos, TIME_MAX_PERIOD);
    return timestep_embedding(u, wave, "class_embedding", "class_embedding", DN_ACT_NONE, DN_NONE);
}

static dn_value project_time(dn_unet *u)
{
    const dn_unet2d_config *c = u->config;
    switch (c->time) {
    case DN_UNET2D_FOURIER:
        return dn_plan_fourier_embedding(u->plan, "time_proj.weight", "time_proj", 2 * c->time_channels, true, false);
    case DN_UNET2D_LEARNED:
        return dn_plan_time_table(u->plan, "time_proj", c->time_rows, c->time_channels);
    case DN_UNET2D_POSITIONAL:
        break;
    }
    return dn_plan_time_embedding(u->plan, "time_proj", c->time_channels, c->freq_shift, c->flip_sin_to_cos, TIME_MAX_PERIOD);
}

/* Time plus class, then the activation that opens every resnet's time_emb_proj: it is the same everywhere, so it is taken once. */
static void embed_condition(dn_unet *u)
{
    const dn_unet2d_config *c = u->config;
    dn_value class_row = embed_class(u);
    u->time = timestep_embedding(u, project_time(u), "time_embedding",
                                 c->class_rows ? "time_embedding+class_embedding+act" : "time_embedding+act", c->activation, class_row);
}

static dn_resnet_shape plain_shape(const network *n, uint32_t out_channels, dn_resample resample)
{
    uint32_t groups = n->unet.config->groups;
    return (dn_resnet_shape){out_channels, groups, groups, 1.0f, resample, false, false};
}

static dn_value resampler(network *n, dn_value in, dn_module_name module, const dn_unet2d_block *block, dn_resample how)
{
    dn_resnet_shape shape = plain_shape(n, channels_of(n, in), how);
    if (block->resnet_resampler)
        return dn_unet_resnet(&n->unet, in, module, &shape);
    return dn_unet_conv_resampler(&n->unet, in, module, how);
}

static void push_skip(network *n, dn_value value)
{
    n->skips[n->skip_count++] = value;
}

static dn_value pop_skip(network *n)
{
    return n->skips[--n->skip_count];
}

static dn_value attend(network *n, dn_value h, dn_module_name module, bool up, uint32_t groups, float output_scale)
{
    return dn_unet_attention(&n->unet, h, module, groups, dn_unet2d_heads(n->unet.config, channels_of(n, h), up), output_scale);
}

/* A resampling resnet of a skip block: through the filter, and with a convolution on its shortcut. */
static dn_value fir_resnet(network *n, dn_value in, dn_module_name module, dn_resample how)
{
    uint32_t channels = channels_of(n, in), groups = dn_unet2d_groups(channels);
    return dn_unet_resnet(&n->unet, in, module, &(dn_resnet_shape){channels, groups, groups, SQRT2, how, true, true});
}

/* The end of a skip down block: features and picture are halved apart, and the picture is added to the features. */
static dn_value skip_downsample(network *n, dn_value h, uint32_t b)
{
    dn_unet *u = &n->unet;
    h = fir_resnet(n, h, dn_module_named("down_blocks.%u.resnet_down", b), DN_RESAMPLE_DOWN);
    n->picture = dn_unet_resample(u, n->picture, DN_RESAMPLE_DOWN, true, dn_module_named("down_blocks.%u.downsamplers.0", b).text);
    return dn_plan_pointwise(u->plan, n->picture, dn_module_named("down_blocks.%u.skip_conv", b).text,
                             dn_module_named("down_blocks.%u.skip_conv+resnet_down", b).text, channels_of(n, h), h);
}

static dn_value down_resnet(network *n, dn_value h, uint32_t b, uint32_t l)
{
    const dn_unet2d_config *c = n->unet.config;
    dn_resnet_shape shape = plain_shape(n, c->channels[b], DN_RESAMPLE_NONE);
    if (c->down[b].skip) {
        shape.groups_in = dn_unet2d_groups(channels_of(n, h));
        shape.groups_out = dn_unet2d_groups(shape.out_channels);
        shape.output_scale = SQRT2;
    }
    h = dn_unet_resnet(&n->unet, h, dn_module_named("down_blocks.%u.resnets.%u", b, l), &shape);
    if (c->down[b].attention)
        h = attend(n, h, dn_module_named("down_blocks.%u.attentions.%u", b, l), false, c->down[b].skip ? SKIP_ATTENTION_GROUPS : c->groups,
                   shape.output_scale);
    return h;
}

static dn_value down_path(network *n, dn_value h)
{
    const dn_unet2d_config *c = n->unet.config;
    push_skip(n, h);
    for (uint32_t b = 0; b < c->levels; b++) {
        for (uint32_t l = 0; l < c->layers_per_block; l++) {
            h = down_resnet(n, h, b, l);
            push_skip(n, h);
        }
        if (b + 1 == c->levels)
            break;
        if (c->down[b].skip)
            h = skip_downsample(n, h, b);
        else
            h = resampler(n, h, dn_module_named("down_blocks.%u.downsamplers.0", b), &c->down[b], DN_RESAMPLE_DOWN);
        push_skip(n, h);
    }
    return h;
}

static dn_value mid_block(network *n, dn_value h)
{
    const dn_unet2d_config *c = n->unet.config;
    if (!c->mid_block)
        return h;
    uint32_t channels = channels_of(n, h), groups = c->groups ? c->groups : dn_unet2d_groups(channels);
    dn_resnet_shape shape = {channels, groups, groups, c->mid_scale, DN_RESAMPLE_NONE, false, false};
    h = dn_unet_resnet(&n->unet, h, dn_module_named("mid_block.resnets.0"), &shape);
    if (c->mid_attention)
        h = attend(n, h, dn_module_named("mid_block.attentions.0"), false, c->mid_attention_groups, c->mid_scale);
    return dn_unet_resnet(&n->unet, h, dn_module_named("mid_block.resnets.1"), &shape);
}

/* The end of a skip up block: the picture so far is doubled, this level's share (norm, SiLU, convolution to three channels) is
 * added, and the features are doubled. The finest block only doubles the picture. */
static dn_value skip_upsample(network *n, dn_value h, uint32_t b, bool last)
{
    dn_unet *u = &n->unet;
    if (n->picture != DN_NONE)
        n->picture = dn_unet_resample(u, n->picture, DN_RESAMPLE_UP, true, dn_module_named("up_blocks.%u.upsampler", b).text);
    if (last)
        return h;
    dn_value share = dn_plan_group_norm(u->plan, h, dn_module_named("up_blocks.%u.skip_norm", b).text,
                                        dn_module_named("up_blocks.%u.skip_norm+silu", b).text, dn_unet2d_groups(channels_of(n, h)),
                                        u->config->epsilon, DN_NONE, DN_ACT_SILU);
    dn_module_name module = dn_module_named("up_blocks.%u.skip_conv", b), name = dn_module_named("up_blocks.%u.skip_conv+upsampler", b);
    dn_conv_options options = DN_CONV_INIT;
    options.module = module.text;
    options.name = name.text;
    options.out_channels = PICTURE_CHANNELS;
    options.residual = n->picture;
    n->picture = dn_plan_conv(u->plan, share, &options);
    return fir_resnet(n, h, dn_module_named("up_blocks.%u.resnet_up", b), DN_RESAMPLE_UP);
}

/* norm1's groups over [h, skip] in a skip up block. With attention diffusers divides only the skip's channels by four
 * (AttnSkipUpBlock2D); its checkpoints were trained with what that gives. */
static uint32_t skip_groups(const dn_unet2d_block *block, uint32_t channels, uint32_t skip_channels)
{
    uint32_t groups = block->attention ? channels + skip_channels / 4 : (channels + skip_channels) / 4;
    return groups < 32 ? groups : 32;
}

static dn_value up_resnet(network *n, dn_value h, uint32_t b, uint32_t l)
{
    const dn_unet2d_config *c = n->unet.config;
    dn_module_name name = dn_module_named("up_blocks.%u.resnets.%u", b, l);
    dn_value skip = pop_skip(n);
    dn_resnet_shape shape = plain_shape(n, c->channels[c->levels - 1 - b], DN_RESAMPLE_NONE);
    if (c->up[b].skip) {
        shape.groups_in = skip_groups(&c->up[b], channels_of(n, h), channels_of(n, skip));
        shape.groups_out = dn_unet2d_groups(shape.out_channels);
        shape.output_scale = SQRT2;
    }
    h = dn_plan_concat(n->unet.plan, h, skip, dn_module_named("%s+concat", name.text).text);
    return dn_unet_resnet(&n->unet, h, name, &shape);
}

/* Up blocks have one resnet more than down blocks and run from the coarsest level; each resnet reads [h, skip]. */
static dn_value up_path(network *n, dn_value h)
{
    const dn_unet2d_config *c = n->unet.config;
    n->picture = DN_NONE;
    for (uint32_t b = 0; b < c->levels; b++) {
        bool skip = c->up[b].skip, last = b + 1 == c->levels;
        for (uint32_t l = 0; l <= c->layers_per_block; l++) {
            h = up_resnet(n, h, b, l);
            if (c->up[b].attention && !skip)
                h = attend(n, h, dn_module_named("up_blocks.%u.attentions.%u", b, l), true, c->groups, 1.0f);
        }
        if (skip && c->up[b].attention)
            h = attend(n, h, dn_module_named("up_blocks.%u.attentions.0", b), true, SKIP_ATTENTION_GROUPS, SQRT2);
        if (skip)
            h = skip_upsample(n, h, b, last);
        else if (!last)
            h = resampler(n, h, dn_module_named("up_blocks.%u.upsamplers.0", b), &c->up[b], DN_RESAMPLE_UP);
    }
    return h;
}

static dn_value end_conv(network *n, dn_value in, const char *module, const char *name, uint32_t out_channels, dn_value residual)
{
    dn_conv_options options = DN_CONV_INIT;
    options.module = module;
    options.name = name;
    options.out_channels = out_channels;
    options.residual = residual;
    return dn_plan_conv(n->unet.plan, in, &options);
}

/* The whole network; answers its output. */
static dn_value build_network(dn_plan_builder *builder, const dn_unet2d_config *c)
{
    network n = {.unet = {.config = c, .plan = builder, .time = DN_NONE}, .picture = DN_NONE};
    dn_value h = builder->plan->input;
    if (c->center_input_sample)
        h = dn_plan_affine(builder, h, "center_input_sample", 2.0f, -1.0f);
    n.picture = h;
    embed_condition(&n.unet);
    h = end_conv(&n, h, "conv_in", NULL, c->channels[0], DN_NONE);
    h = up_path(&n, mid_block(&n, down_path(&n, h)));
    /* The last activation is SiLU whatever act_fn says (UNet2DModel.conv_act). */
    h = dn_plan_group_norm(builder, h, "conv_norm_out", "conv_norm_out+silu", c->groups ? c->groups : dn_unet2d_groups(c->channels[0]),
                           c->epsilon, DN_NONE, DN_ACT_SILU);
    h = end_conv(&n, h, "conv_out", n.picture == DN_NONE ? "conv_out" : "conv_out+skip_sample", c->out_channels, n.picture);
    if (c->time == DN_UNET2D_FOURIER)
        h = dn_plan_divide_by_time(builder, h, "sample/timestep");
    return h;
}

dn_status dn_unet2d_plan(dn_model *out, const dn_unet2d_config *config, const char *path, dn_error *error)
{
    dn_plan_builder builder;
    dn_status status = dn_plan_begin(&builder, (dn_shape){config->height, config->width, config->in_channels}, error);
    if (status != DN_OK)
        return status;
    status = dn_plan_finish(&out->plan, &builder, build_network(&builder, config), path, error);
    if (status != DN_OK)
        return status;
    out->height = config->height;
    out->width = config->width;
    out->channels = config->in_channels;
    out->out_channels = config->out_channels;
    out->class_rows = config->class_rows;
    return DN_OK;
}

/* Old releases stored the random frequencies under two names. */
static bool is_leftover(const dn_model *model, const char *tensor)
{
    (void)model;
    return strcmp(tensor, "time_proj.W") == 0;
}

dn_status dn_unet2d_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    dn_unet2d_config config;
    dn_status status = dn_unet2d_config_parse(&config, input->config, input->config_path, input->height, input->width, error);
    if (status != DN_OK)
        return status;
    if (config.time == DN_UNET2D_FOURIER)
        out->leftover = is_leftover;
    return dn_unet2d_plan(out, &config, input->config_path, error);
}
