/* EDM's networks as a plan. Names of nodes and weights are the module's own ("enc.16x16_block0.conv0").
 *
 * Both networks are a list of blocks in an encoder and a decoder; each block is norm0, SiLU, [resample], conv0, the embedding,
 * norm1, SiLU, conv1, plus the (resampled, projected) input, times skip_scale, then an attention of its own. Song's takes the
 * embedding as a bias and has skip_scale sqrt(1/2); Dhariwal's takes it as scale and shift. NCSN++ (encoder "residual", or
 * "skip" on either side) carries the picture beside the features. Source: Karras et al. 2022, and NVlabs/edm,
 * training/networks.py. Shapes are [H,W,C] per row. Pure; any thread. */
#include "model/edm_unet.h"

#include <stdlib.h>

#include "model/unet2d_blocks.h"
#include "plan/plan.h"

#define SQRT2 1.41421356237309505f
#define SQRT_HALF 0.70710678118654752f
#define MAX_PERIOD 10000.0f
#define CHANNELS_PER_HEAD 64u
#define SKIPS_MAX (DN_BLOCKS_MAX * (DN_LAYERS_MAX + 1))

typedef struct edm {
    const dn_edm_config *config;
    dn_unet unet; /* the plan */
    dn_value embedding; /* after its last SiLU: every block projects it */
    dn_value skips[SKIPS_MAX];
    uint32_t skip_count;
    dn_value picture; /* NCSN++: beside the features; DN_NONE: none (yet) */
} edm;

uint32_t dn_edm_heads(const dn_edm_config *config, uint32_t channels)
{
    return config->dhariwal ? channels / CHANNELS_PER_HEAD : 1;
}

static uint32_t channels_of(const edm *e, dn_value value)
{
    return dn_plan_shape(e->unet.plan, value).c;
}

static uint32_t level_channels(const edm *e, uint32_t level)
{
    return e->config->model_channels * e->config->multipliers[level];
}

/* Groups of at least four channels, at most 32 of them. Fewer than four channels make no group, which the plan refuses. */
static dn_value norm(edm *e, dn_value in, const char *block, const char *which, dn_value modulation, dn_activation activation)
{
    uint32_t channels = channels_of(e, in), groups = channels / 4 < 32 ? channels / 4 : 32;
    float epsilon = e->config->dhariwal ? 1e-5f : 1e-6f;
    dn_module_name module = dn_module_named("%s%s", block, which);
    dn_module_name name = dn_module_named(activation == DN_ACT_NONE ? "%s" : "%s+silu", module.text);
    return dn_plan_group_norm(e->unet.plan, in, module.text, name.text, groups, epsilon, modulation, activation);
}

static dn_value linear(edm *e, dn_value in, const char *module, uint32_t out_channels, bool no_bias, dn_value residual,
                       dn_activation activation)
{
    const char *modules[] = {module};
    dn_module_name name = dn_module_named(residual == DN_NONE && activation == DN_ACT_NONE ? "%s" : "%s+", module);
    dn_linear_options options = DN_LINEAR_INIT;
    options.modules = modules;
    options.name = name.text;
    options.out_channels = out_channels;
    options.no_bias = no_bias;
    options.residual = residual;
    options.activation = activation;
    return dn_plan_linear(e->unet.plan, in, &options);
}

/* Noise level and class. Song adds the class to the sinusoid before the first layer, which is linear, so each passes it apart;
 * Dhariwal adds it after the second. */
static void embed(edm *e)
{
    const dn_edm_config *c = e->config;
    dn_plan_builder *plan = e->unet.plan;
    uint32_t rows = c->label_dim + 1;
    dn_value class_row = DN_NONE, first = DN_NONE;
    if (c->label_dim)
        class_row = dn_plan_class_embedding(plan, "map_label", rows, c->dhariwal ? c->emb_channels : c->noise_channels);
    dn_value wave = c->fourier
                        ? dn_plan_fourier_embedding(plan, "map_noise.freqs", "map_noise", c->noise_channels, false, false)
                        : dn_plan_time_embedding(plan, "map_noise", c->noise_channels, c->dhariwal ? 0.0f : 1.0f, c->dhariwal, MAX_PERIOD);
    if (!c->dhariwal && class_row != DN_NONE)
        first = linear(e, class_row, "map_layer0", c->emb_channels, false, DN_NONE, DN_ACT_NONE);
    dn_value hidden = linear(e, wave, "map_layer0", c->emb_channels, first != DN_NONE, first, DN_ACT_SILU);
    e->embedding = linear(e, hidden, "map_layer1", c->emb_channels, false, c->dhariwal ? class_row : DN_NONE, DN_ACT_SILU);
}

/* norm2, qkv, attention, proj, + input, times skip_scale. */
static dn_value attend(edm *e, dn_value in, const char *block, float scale)
{
    uint32_t channels = channels_of(e, in), heads = dn_edm_heads(e->config, channels);
    if (heads == 0)
        return in;
    dn_value h = norm(e, in, block, ".norm2", DN_NONE, DN_ACT_NONE);
    dn_module_name q = dn_module_named("%s.qkv.q", block), k = dn_module_named("%s.qkv.k", block), v = dn_module_named("%s.qkv.v", block);
    dn_module_name qkv = dn_module_named("%s.qkv", block), proj = dn_module_named("%s.proj", block);
    const char *stacked[] = {q.text, k.text, v.text}, *last[] = {proj.text};
    dn_linear_options project = DN_LINEAR_INIT, out = DN_LINEAR_INIT;
    project.modules = stacked;
    project.module_count = 3;
    project.name = qkv.text;
    project.out_channels = 3 * channels;
    h = dn_plan_linear(e->unet.plan, h, &project);
    h = dn_plan_attention(e->unet.plan, h, dn_module_named("%s.attention", block).text, heads);
    out.modules = last;
    out.name = block;
    out.out_channels = channels;
    out.residual = in;
    out.scale = scale;
    return dn_plan_linear(e->unet.plan, h, &out);
}

typedef struct block_shape {
    uint32_t out_channels;
    dn_resample resample;
    bool attention;
    dn_value beside; /* NCSN++'s residual, times sqrt(2): added to the block's answer, and the sum is scaled once more */
} block_shape;

static dn_value block(edm *e, dn_value in, dn_module_name module, const block_shape *shape)
{
    const dn_edm_config *c = e->config;
    const char *m = module.text;
    uint32_t out_channels = shape->out_channels;
    float scale = c->dhariwal ? 1.0f : SQRT_HALF;
    dn_value params = linear(e, e->embedding, dn_module_named("%s.affine", m).text, c->dhariwal ? 2 * out_channels : out_channels, false,
                             DN_NONE, DN_ACT_NONE);
    dn_value h = norm(e, in, m, ".norm0", DN_NONE, DN_ACT_SILU);
    h = dn_unet_resample(&e->unet, h, shape->resample, c->fir, dn_module_named("%s.norm0+silu+resample", m).text);
    dn_value x = dn_unet_resample(&e->unet, in, shape->resample, c->fir, dn_module_named("%s.input+resample", m).text);

    dn_module_name conv0 = dn_module_named("%s.conv0", m), conv1 = dn_module_named("%s.conv1", m), skip = dn_module_named("%s.skip", m);
    dn_conv_options first = DN_CONV_INIT, second = DN_CONV_INIT;
    first.module = conv0.text;
    first.out_channels = out_channels;
    first.row_bias = c->dhariwal ? DN_NONE : params;
    h = dn_plan_conv(e->unet.plan, h, &first);
    h = norm(e, h, m, ".norm1", c->dhariwal ? params : DN_NONE, DN_ACT_SILU);

    /* Song projects whatever was resampled; Dhariwal only where the channels differ. */
    if (channels_of(e, in) != out_channels || (!c->dhariwal && shape->resample != DN_RESAMPLE_NONE))
        x = dn_plan_pointwise(e->unet.plan, x, skip.text, NULL, out_channels, shape->beside);
    second.module = conv1.text;
    second.name = m;
    second.out_channels = out_channels;
    second.residual = x;
    second.scale = shape->beside == DN_NONE ? scale : scale * SQRT_HALF;
    h = dn_plan_conv(e->unet.plan, h, &second);
    return shape->attention ? attend(e, h, m, scale) : h;
}

static void push(edm *e, dn_value value)
{
    e->skips[e->skip_count++] = value;
}

static dn_value conv3(edm *e, dn_value in, dn_module_name module, uint32_t out_channels, dn_value residual)
{
    dn_conv_options options = DN_CONV_INIT;
    options.module = module.text;
    options.out_channels = out_channels;
    options.residual = residual;
    return dn_plan_conv(e->unet.plan, in, &options);
}

/* The picture through a convolution and half the size, as one filter: the convolution reaches two pixels over the edge, and the
 * filter then none. Its bias passes the filter unchanged. */
static dn_value residual_down(edm *e, dn_value in, uint32_t side, uint32_t out_channels)
{
    dn_module_name module = dn_module_named("enc.%ux%u_aux_residual", side, side);
    dn_module_name name = dn_module_named("%s.conv*sqrt2", module.text), halved = dn_module_named("%s*sqrt2", module.text);
    dn_conv_options options = DN_CONV_INIT;
    options.module = module.text;
    options.name = name.text;
    options.out_channels = out_channels;
    options.scale = SQRT2;
    if (e->config->fir)
        options.pad_top = options.pad_left = options.pad_bottom = options.pad_right = 2;
    dn_value h = dn_plan_conv(e->unet.plan, in, &options);
    return e->config->fir ? dn_plan_fir2(e->unet.plan, h, halved.text, false, 0, 0) : dn_plan_average_pool2(e->unet.plan, h, halved.text);
}

static dn_value encode_level_down(edm *e, dn_value h, uint32_t side)
{
    const dn_edm_config *c = e->config;
    block_shape shape = {channels_of(e, h), DN_RESAMPLE_DOWN, false, DN_NONE};
    dn_module_name name = dn_module_named("enc.%ux%u_down", side, side);
    if (c->encoder == DN_EDM_RESIDUAL)
        shape.beside = residual_down(e, e->picture, side, shape.out_channels);
    h = block(e, h, name, &shape);
    if (c->encoder == DN_EDM_RESIDUAL)
        e->picture = h;
    if (c->encoder == DN_EDM_SKIP) {
        dn_module_name down = dn_module_named("enc.%ux%u_aux_down", side, side), skip = dn_module_named("enc.%ux%u_aux_skip", side, side);
        e->picture = dn_unet_resample(&e->unet, e->picture, DN_RESAMPLE_DOWN, c->fir, down.text);
        h = dn_plan_pointwise(e->unet.plan, e->picture, skip.text, NULL, shape.out_channels, h);
    }
    return h;
}

static dn_value encode(edm *e, dn_value h)
{
    const dn_edm_config *c = e->config;
    e->picture = h;
    for (uint32_t level = 0; level < c->levels; level++) {
        uint32_t side = c->resolution >> level;
        if (level == 0)
            h = conv3(e, h, dn_module_named("enc.%ux%u_conv", side, side), c->dhariwal ? level_channels(e, 0) : c->model_channels, DN_NONE);
        else
            h = encode_level_down(e, h, side);
        push(e, h);
        for (uint32_t i = 0; i < c->num_blocks; i++) {
            block_shape shape = {level_channels(e, level), DN_RESAMPLE_NONE, c->attention[level], DN_NONE};
            h = block(e, h, dn_module_named("enc.%ux%u_block%u", side, side, i), &shape);
            push(e, h);
        }
    }
    return h;
}

/* This level's share of the picture: norm, SiLU, convolution, plus the doubled picture so far. */
static void decode_picture(edm *e, dn_value h, uint32_t side)
{
    const dn_edm_config *c = e->config;
    if (e->picture != DN_NONE)
        e->picture = dn_unet_resample(&e->unet, e->picture, DN_RESAMPLE_UP, c->fir, dn_module_named("dec.%ux%u_aux_up", side, side).text);
    h = norm(e, h, dn_module_named("dec.%ux%u", side, side).text, "_aux_norm", DN_NONE, DN_ACT_SILU);
    e->picture = conv3(e, h, dn_module_named("dec.%ux%u_aux_conv", side, side), c->out_channels, e->picture);
}

static dn_value decode(edm *e, dn_value h)
{
    const dn_edm_config *c = e->config;
    e->picture = DN_NONE;
    for (uint32_t level = c->levels; level-- > 0;) {
        uint32_t side = c->resolution >> level;
        block_shape same = {channels_of(e, h), DN_RESAMPLE_NONE, true, DN_NONE};
        if (level + 1 == c->levels) {
            h = block(e, h, dn_module_named("dec.%ux%u_in0", side, side), &same);
            same.attention = false;
            h = block(e, h, dn_module_named("dec.%ux%u_in1", side, side), &same);
        } else {
            same.attention = false;
            same.resample = DN_RESAMPLE_UP;
            h = block(e, h, dn_module_named("dec.%ux%u_up", side, side), &same);
        }
        for (uint32_t i = 0; i <= c->num_blocks; i++) {
            bool attends = c->attention[level] && (c->dhariwal || i == c->num_blocks);
            block_shape shape = {level_channels(e, level), DN_RESAMPLE_NONE, attends, DN_NONE};
            dn_module_name name = dn_module_named("dec.%ux%u_block%u", side, side, i);
            h = dn_plan_concat(e->unet.plan, h, e->skips[--e->skip_count], dn_module_named("%s+concat", name.text).text);
            h = block(e, h, name, &shape);
        }
        if (!c->dhariwal && (c->decoder_skip || level == 0))
            decode_picture(e, h, side);
    }
    if (!c->dhariwal)
        return e->picture;
    h = norm(e, h, "out_norm", "", DN_NONE, DN_ACT_SILU);
    return conv3(e, h, dn_module_named("out_conv"), c->out_channels, DN_NONE);
}

static dn_status build_plan(dn_model *out, const dn_edm_config *config, const char *path, dn_error *error)
{
    dn_plan_builder builder;
    dn_status status = dn_plan_begin(&builder, (dn_shape){config->height, config->width, config->in_channels}, error);
    if (status != DN_OK)
        return status;
    edm e = {.config = config, .unet = {.plan = &builder}, .embedding = DN_NONE, .picture = DN_NONE};
    embed(&e);
    dn_value output = decode(&e, encode(&e, builder.plan->input));
    return dn_plan_finish(&out->plan, &builder, output, path, error);
}

dn_status dn_edm_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    dn_edm_config *config = malloc(sizeof *config);
    if (config == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", input->config_path);
    dn_status status = dn_edm_config_parse(config, input, error);
    if (status == DN_OK)
        status = build_plan(out, config, input->config_path, error);
    if (status != DN_OK) {
        free(config);
        return status;
    }
    out->private_config = config;
    out->height = config->height;
    out->width = config->width;
    out->channels = config->in_channels;
    out->out_channels = config->out_channels;
    out->class_rows = config->label_dim ? config->label_dim + 1 : 0;
    out->null_rows = config->label_dim ? 1 : 0;
    out->naming = dn_edm_name_part;
    out->leftover = dn_edm_is_leftover;
    out->convention = DN_CONVENTION_EDM;
    out->sigma_data = config->sigma_data;
    return DN_OK;
}
