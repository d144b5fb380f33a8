/* guided-diffusion's U-Net: UNet2DModel's plan, and where each of its parts lies in the original's file.
 *
 * The original numbers everything that makes a skip connection in one list (input_blocks: conv_in, then per level its residual
 * blocks and its downsampler) and everything that takes one in another (output_blocks, the upsampler inside the last of a
 * level). Source: openai/guided-diffusion, guided_diffusion/unet.py; the mapping is that of diffusers'
 * convert_consistency_to_diffusers.py, which is right for the new attention order only. Pure; any thread. */
#include "model/guided_diffusion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX_BYTES 64

typedef struct renaming {
    const char *part, *source;
} renaming;

static const renaming outer[] = {
    {"conv_in.", "input_blocks.0.0."},
    {"time_embedding.linear_1.", "time_embed.0."},
    {"time_embedding.linear_2.", "time_embed.2."},
    {"class_embedding.", "label_emb."},
    {"conv_norm_out.", "out.0."},
    {"conv_out.", "out.2."},
};

/* Inside a residual block, an attention, and a resampler that is a convolution. */
static const renaming resnet[] = {
    {"norm1.", "in_layers.0."},  {"conv1.", "in_layers.2."},  {"time_emb_proj.", "emb_layers.1."},
    {"norm2.", "out_layers.0."}, {"conv2.", "out_layers.3."}, {"conv_shortcut.", "skip_connection."},
};
static const renaming attention[] = {
    {"group_norm.", "norm."}, {"to_q.", "qkv."}, {"to_k.", "qkv."}, {"to_v.", "qkv."}, {"to_out.0.", "proj_out."},
};
static const renaming downsampler[] = {{"conv.", "op."}};
static const renaming upsampler[] = {{"conv.", "conv."}};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

/* A block of the network: its name in the file, and the part's name inside it. */
typedef struct place {
    char prefix[PREFIX_BYTES];
    const char *rest;
    uint32_t channels; /* of the block */
    bool up;
} place;

static const renaming *find(const renaming *table, size_t count, const char *part)
{
    for (size_t i = 0; i < count; i++)
        if (strncmp(part, table[i].part, strlen(table[i].part)) == 0)
            return &table[i];
    return NULL;
}

static bool place_down(const dn_unet2d_config *c, const char *part, place *out)
{
    unsigned b = 0, l = 0, layers = c->layers_per_block;
    int resnets = 0, attentions = 0, resampler = 0;
    sscanf(part, "down_blocks.%u.resnets.%u.%n", &b, &l, &resnets);
    if (resnets == 0)
        sscanf(part, "down_blocks.%u.attentions.%u.%n", &b, &l, &attentions);
    if (resnets == 0 && attentions == 0)
        sscanf(part, "down_blocks.%u.downsamplers.0.%n", &b, &resampler);
    if (resampler)
        l = layers;
    if ((resnets | attentions | resampler) == 0 || b >= c->levels)
        return false;
    snprintf(out->prefix, sizeof out->prefix, "input_blocks.%u.%d.", 1 + b * (layers + 1) + l, attentions ? 1 : 0);
    out->rest = part + (resnets | attentions | resampler);
    out->channels = c->channels[b];
    return true;
}

static bool place_up(const dn_unet2d_config *c, const char *part, place *out)
{
    unsigned b = 0, l = 0, layers = c->layers_per_block;
    int resnets = 0, attentions = 0, resampler = 0;
    sscanf(part, "up_blocks.%u.resnets.%u.%n", &b, &l, &resnets);
    if (resnets == 0)
        sscanf(part, "up_blocks.%u.attentions.%u.%n", &b, &l, &attentions);
    if (resnets == 0 && attentions == 0)
        sscanf(part, "up_blocks.%u.upsamplers.0.%n", &b, &resampler);
    if (resampler)
        l = layers;
    if ((resnets | attentions | resampler) == 0 || b >= c->levels)
        return false;
    /* The upsampler stands behind the residual block and the attention, where there is one. */
    int inside = attentions ? 1 : resampler ? (c->up[b].attention ? 2 : 1) : 0;
    snprintf(out->prefix, sizeof out->prefix, "output_blocks.%u.%d.", b * (layers + 1) + l, inside);
    out->rest = part + (resnets | attentions | resampler);
    out->channels = c->channels[c->levels - 1 - b];
    out->up = true;
    return true;
}

static bool place_middle(const dn_unet2d_config *c, const char *part, place *out)
{
    static const renaming middle[] = {
        {"mid_block.resnets.0.", "middle_block.0."},
        {"mid_block.attentions.0.", "middle_block.1."},
        {"mid_block.resnets.1.", "middle_block.2."},
    };
    const renaming *found = find(middle, COUNT(middle), part);
    if (found == NULL)
        return false;
    snprintf(out->prefix, sizeof out->prefix, "%s", found->source);
    out->rest = part + strlen(found->part);
    out->channels = c->channels[c->levels - 1];
    return true;
}

/* to_q, to_k and to_v are thirds of one tensor. */
static void name_attention(const dn_guided_diffusion_config *config, const place *at, dn_source *out)
{
    static const char letters[] = "qkv";
    const char *letter = strncmp(at->rest, "to_", 3) == 0 ? strchr(letters, at->rest[3]) : NULL;
    if (letter == NULL)
        return;
    out->layout = config->new_attention_order ? DN_LAYOUT_ROWS : DN_LAYOUT_HEADS_ROWS;
    out->index = (uint32_t)(letter - letters);
    out->count = 3;
    out->heads = dn_unet2d_heads(&config->unet, at->channels, at->up);
}

static bool name_part(const dn_model *model, const char *part, dn_source *out)
{
    const dn_guided_diffusion_config *config = model->private_config;
    place at = {.rest = NULL};
    *out = (dn_source){.layout = DN_LAYOUT_PLAIN, .count = 1};
    const renaming *found = find(outer, COUNT(outer), part);
    if (found != NULL) {
        snprintf(out->name, sizeof out->name, "%s%s", found->source, part + strlen(found->part));
        return true;
    }
    if (!place_down(&config->unet, part, &at) && !place_up(&config->unet, part, &at) && !place_middle(&config->unet, part, &at))
        return false;
    found = find(resnet, COUNT(resnet), at.rest);
    if (found == NULL)
        found = find(attention, COUNT(attention), at.rest);
    if (found == NULL)
        found = at.up ? find(upsampler, COUNT(upsampler), at.rest) : find(downsampler, COUNT(downsampler), at.rest);
    if (found == NULL)
        return false;
    snprintf(out->name, sizeof out->name, "%s%s%s", at.prefix, found->source, at.rest + strlen(found->part));
    name_attention(config, &at, out);
    return true;
}

dn_status dn_guided_diffusion_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    dn_guided_diffusion_config *config = malloc(sizeof *config);
    if (config == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", input->config_path);
    dn_status status = dn_guided_diffusion_config_parse(config, input, error);
    if (status == DN_OK)
        status = dn_unet2d_plan(out, &config->unet, input->config_path, error);
    if (status != DN_OK) {
        free(config);
        return status;
    }
    out->private_config = config;
    out->naming = name_part;
    out->convention = DN_CONVENTION_GUIDED_DIFFUSION;
    out->cosine_schedule = config->cosine_schedule;
    out->clips_sample = true;
    out->null_rows = DN_NULL_ROWS_NONE;
    return DN_OK;
}
