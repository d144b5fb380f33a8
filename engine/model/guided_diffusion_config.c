/* guided-diffusion's configuration: the arguments of its scripts, and what a checkpoint's shapes tell of them.
 *
 * Keys and defaults are those of model_and_diffusion_defaults (guided_diffusion/script_util.py); attention_resolutions and
 * channel_mult are the original's text ("32,16,8") or lists. What training alone reads is ignored. Pure; any thread. */
#include "model/guided_diffusion.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/config_reader.h"

#define IMAGENET_CLASSES 1000u
#define TRAIN_STEPS 1000u
#define GROUPS 32u /* GroupNorm32, everywhere */
#define EPSILON 1e-5f /* torch's default */
#define ATTENTIONS_MAX 16u

/* A published network, known by its channel multipliers: what its shapes do not say (the original's README). */
typedef struct published {
    uint32_t image_size, levels;
    double channel_mult[8];
    uint32_t num_heads; /* 0: heads of 64 channels */
    bool new_attention_order, cosine;
} published;

static const published networks[] = {
    {64, 4, {1, 2, 3, 4}, 0, true, true},
    {128, 5, {1, 1, 2, 3, 4}, 4, false, false},
    {256, 6, {1, 1, 2, 2, 4, 4}, 0, false, false},
    {512, 7, {0.5, 1, 1, 2, 2, 4, 4}, 0, false, false},
};

static const published *published_size(uint32_t image_size)
{
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++)
        if (networks[i].image_size == image_size)
            return &networks[i];
    return NULL;
}

/* Numbers of a list or of text with commas; how many there are, 0 when there are none. */
static uint32_t parse_numbers(dn_config_reader *reader, const char *key, double *out, uint32_t most)
{
    const cJSON *item = dn_config_item(reader, key);
    uint32_t count = 0;
    bool wrong = item != NULL && !cJSON_IsNull(item) && !cJSON_IsArray(item) && !cJSON_IsString(item);
    if (cJSON_IsString(item)) {
        for (const char *at = item->valuestring; *at != '\0' && !wrong;) {
            char *end = NULL;
            double value = strtod(at, &end);
            wrong = end == at || (*end != ',' && *end != '\0') || count == most;
            if (!wrong)
                out[count++] = value;
            at = *end == ',' ? end + 1 : end;
        }
    } else if (cJSON_IsArray(item)) {
        const cJSON *entry = NULL;
        cJSON_ArrayForEach(entry, item)
        {
            wrong = wrong || !cJSON_IsNumber(entry) || count == most;
            if (!wrong)
                out[count++] = entry->valuedouble;
        }
    }
    if (wrong)
        dn_config_fail(reader, DN_INVALID, key, "must be at most %u numbers, as a list or as text with commas", most);
    return count;
}

/* Counts for which the original says -1 where they are not given: 0 then. */
static uint32_t optional_count(dn_config_reader *reader, const char *key, uint32_t fallback)
{
    const cJSON *item = dn_config_item(reader, key);
    if (cJSON_IsNumber(item) && item->valuedouble == -1.0)
        return 0;
    return dn_config_count(reader, key, fallback, 1, DN_CHANNELS_MAX);
}

static void parse_levels(dn_config_reader *reader, dn_unet2d_config *out, uint32_t image_size)
{
    double multipliers[DN_BLOCKS_MAX];
    uint32_t width = dn_config_count(reader, "num_channels", 128, 2, DN_CHANNELS_MAX);
    out->levels = parse_numbers(reader, "channel_mult", multipliers, DN_BLOCKS_MAX);
    const published *known = published_size(image_size);
    if (out->levels == 0 && known != NULL) {
        out->levels = known->levels;
        memcpy(multipliers, known->channel_mult, known->levels * sizeof *multipliers);
    } else if (out->levels == 0) {
        dn_config_fail(reader, DN_INVALID, "channel_mult", "must be given for an image_size of %u (64, 128, 256 and 512 have a default)",
                       image_size);
    }
    for (uint32_t i = 0; i < out->levels; i++) {
        double channels = floor(multipliers[i] * width);
        if (!(channels >= 1.0 && channels <= DN_CHANNELS_MAX)) {
            dn_config_fail(reader, DN_INVALID, "channel_mult", "%g times %u channels is out of range", multipliers[i], width);
            return;
        }
        out->channels[i] = (uint32_t)channels;
    }
    out->time_channels = width;
    out->time_embedding_dim = 4 * width;
    if (width % 2)
        dn_config_fail(reader, DN_UNSUPPORTED, "num_channels", "%u is also the sinusoid's size and must be even", width);
}

/* attention_resolutions are sides of the picture; level i has the side image_size / 2^i. */
static void parse_blocks(dn_config_reader *reader, dn_unet2d_config *out, uint32_t image_size)
{
    double sides[ATTENTIONS_MAX] = {16, 8};
    uint32_t count =
        dn_config_item(reader, "attention_resolutions") == NULL ? 2 : parse_numbers(reader, "attention_resolutions", sides, ATTENTIONS_MAX);
    bool resnets = dn_config_bool(reader, "resblock_updown", false);
    for (uint32_t i = 0; i < out->levels; i++) {
        bool attends = false;
        for (uint32_t s = 0; s < count; s++)
            attends = attends || (sides[s] >= 1.0 && floor(image_size / sides[s]) == (double)(1u << i));
        out->down[i] = (dn_unet2d_block){attends, resnets, false};
        out->up[out->levels - 1 - i] = out->down[i];
    }
}

static void parse_heads(dn_config_reader *reader, dn_unet2d_config *out)
{
    out->head_dim = optional_count(reader, "num_head_channels", 0);
    if (dn_config_item(reader, "num_head_channels") == NULL)
        out->head_dim = 0;
    if (out->head_dim == 0) {
        uint32_t heads = dn_config_count(reader, "num_heads", 4, 1, DN_CHANNELS_MAX);
        uint32_t up = dn_config_item(reader, "num_heads_upsample") == NULL ? 0 : optional_count(reader, "num_heads_upsample", 0);
        out->head_count = heads;
        out->up_head_count = up ? up : heads;
    }
    for (uint32_t i = 0; i < out->levels; i++) {
        if (!out->down[i].attention && i + 1 < out->levels)
            continue;
        uint32_t channels = out->channels[i];
        bool splits = out->head_dim ? channels % out->head_dim == 0 : channels % out->head_count == 0 && channels % out->up_head_count == 0;
        if (!splits)
            dn_config_fail(reader, DN_UNSUPPORTED, out->head_dim ? "num_head_channels" : "num_heads",
                           "the %u channels of level %u do not split into such heads", channels, i);
    }
}

static void parse_size(dn_config_reader *reader, dn_unet2d_config *out, const dn_build_input *input, uint32_t image_size)
{
    out->height = input->height ? input->height : image_size;
    out->width = input->width ? input->width : image_size;
    uint32_t step = 1u << (out->levels ? out->levels - 1 : 0);
    if (out->height > DN_IMAGE_SIDE_MAX || out->width > DN_IMAGE_SIDE_MAX || out->height % step || out->width % step)
        dn_config_fail(reader, DN_INVALID, "image_size", "%ux%u must be multiples of %u, up to %u", out->height, out->width, step,
                       DN_IMAGE_SIDE_MAX);
}

/* What would change the meaning of times and answers beyond what the engine knows of this format. */
static void parse_diffusion(dn_config_reader *reader, dn_guided_diffusion_config *out)
{
    const char *schedule = dn_config_text(reader, "noise_schedule", "linear");
    out->cosine_schedule = strcmp(schedule, "cosine") == 0;
    if (!out->cosine_schedule && strcmp(schedule, "linear") != 0)
        dn_config_fail(reader, DN_UNSUPPORTED, "noise_schedule", "\"%.60s\" is not supported (linear and cosine are)", schedule);
    uint32_t steps = dn_config_count(reader, "diffusion_steps", TRAIN_STEPS, 1, DN_TRAIN_TIMESTEPS_MAX);
    if (steps != TRAIN_STEPS)
        dn_config_fail(reader, DN_UNSUPPORTED, "diffusion_steps", "%u is not supported (%u is)", steps, TRAIN_STEPS);
    if (dn_config_bool(reader, "predict_xstart", false))
        dn_config_fail(reader, DN_UNSUPPORTED, "predict_xstart", "true is not supported: the network must answer the noise");
}

dn_status dn_guided_diffusion_config_parse(dn_guided_diffusion_config *out, const dn_build_input *input, dn_error *error)
{
    dn_config_reader reader;
    dn_status status = dn_config_reader_init(&reader, input->config, input->config_path, error);
    if (status != DN_OK)
        return status;
    dn_guided_diffusion_config config = {.unet = {.mid_block = true, .mid_attention = true, .mid_scale = 1.0f, .downsample_padding = 1}};
    dn_unet2d_config *unet = &config.unet;
    uint32_t image_size = dn_config_count(&reader, "image_size", 64, 1, DN_IMAGE_SIDE_MAX);
    parse_levels(&reader, unet, image_size);
    parse_blocks(&reader, unet, image_size);
    parse_heads(&reader, unet);
    parse_size(&reader, unet, input, image_size);
    unet->flip_sin_to_cos = true;
    unet->activation = DN_ACT_SILU;
    unet->epsilon = EPSILON;
    /* Not a key of the original's, whose norms always have 32 groups. */
    unet->groups = unet->mid_attention_groups = dn_config_count(&reader, "norm_num_groups", GROUPS, 1, DN_CHANNELS_MAX);
    unet->layers_per_block = dn_config_count(&reader, "num_res_blocks", 2, 1, DN_LAYERS_MAX);
    unet->scale_shift = dn_config_bool(&reader, "use_scale_shift_norm", true);
    unet->in_channels = dn_config_count(&reader, "in_channels", 3, 1, DN_CHANNELS_MAX);
    unet->out_channels = dn_config_bool(&reader, "learn_sigma", false) ? 2 * unet->in_channels : unet->in_channels;
    if (dn_config_bool(&reader, "class_cond", false))
        unet->class_rows = dn_config_count(&reader, "num_classes", IMAGENET_CLASSES, 1, DN_CLASSES_MAX + 1);
    config.new_attention_order = dn_config_bool(&reader, "use_new_attention_order", false);
    parse_diffusion(&reader, &config);
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = config;
    return status;
}

static const dn_tensor_info *find_tensor(const dn_tensors *tensors, uint32_t rank, const char *name)
{
    const dn_tensor_info *info = dn_tensors_find(tensors, name);
    return info != NULL && info->rank >= rank && info->count > 0 ? info : NULL;
}

/* Tensor WHERE.N.INSIDE. */
static const dn_tensor_info *find_block(const dn_tensors *tensors, uint32_t rank, const char *where, uint32_t n, const char *inside)
{
    char name[DN_TENSOR_NAME_BYTES_MAX];
    snprintf(name, sizeof name, "%s.%u.%s", where, n, inside);
    return find_tensor(tensors, rank, name);
}

/* Output blocks, and the place of the first that ends with an upsampler: one level has so many, num_res_blocks + 1. */
static uint32_t count_outputs(const dn_tensors *tensors, uint32_t *per_level)
{
    static const char *const ends[] = {"1.in_layers.0.weight", "2.in_layers.0.weight", "1.conv.weight", "2.conv.weight"};
    uint32_t count = 0;
    *per_level = 0;
    while (count < DN_BLOCKS_MAX * (DN_LAYERS_MAX + 1) && find_block(tensors, 1, "output_blocks", count, "0.in_layers.0.weight") != NULL) {
        for (size_t i = 0; i < 4 && *per_level == 0; i++)
            if (find_block(tensors, 1, "output_blocks", count, ends[i]) != NULL)
                *per_level = count + 1;
        count++;
    }
    if (*per_level == 0)
        *per_level = count;
    return count;
}

/* The published network whose multipliers these levels have. */
static const published *recognise_levels(const dn_tensors *tensors, uint32_t levels, uint32_t per_level, uint64_t width)
{
    for (size_t i = 0; i < sizeof networks / sizeof networks[0]; i++) {
        bool same = networks[i].levels == levels;
        for (uint32_t l = 0; l < levels && same; l++) {
            const dn_tensor_info *conv = find_block(tensors, 4, "input_blocks", 1 + l * per_level, "0.out_layers.3.weight");
            same = conv != NULL && (double)conv->dims[0] == floor(networks[i].channel_mult[l] * (double)width);
        }
        if (same)
            return &networks[i];
    }
    return NULL;
}

static cJSON *describe(const dn_tensors *tensors, const published *known, uint32_t per_level, uint64_t width)
{
    const dn_tensor_info *classes = find_tensor(tensors, 2, "label_emb.weight"), *in = find_tensor(tensors, 4, "input_blocks.0.0.weight");
    const dn_tensor_info *out = find_tensor(tensors, 4, "out.2.weight");
    const dn_tensor_info *project = find_block(tensors, 2, "input_blocks", 1, "0.emb_layers.1.weight");
    const dn_tensor_info *conv = find_block(tensors, 4, "input_blocks", 1, "0.out_layers.3.weight");
    cJSON *json = cJSON_CreateObject(), *sides = cJSON_AddArrayToObject(json, "attention_resolutions");
    if (sides == NULL || in == NULL || out == NULL || project == NULL || conv == NULL) {
        cJSON_Delete(json);
        return NULL;
    }
    for (uint32_t l = 0; l < known->levels; l++)
        if (find_block(tensors, 2, "input_blocks", 1 + l * per_level, "1.qkv.weight") != NULL)
            cJSON_AddItemToArray(sides, cJSON_CreateNumber(known->image_size >> l));
    bool complete = cJSON_AddStringToObject(json, "_class_name", DN_GUIDED_DIFFUSION_CLASS) != NULL &&
                    cJSON_AddNumberToObject(json, "image_size", known->image_size) != NULL &&
                    cJSON_AddNumberToObject(json, "num_channels", (double)width) != NULL &&
                    cJSON_AddNumberToObject(json, "num_res_blocks", per_level - 1) != NULL &&
                    cJSON_AddNumberToObject(json, "in_channels", (double)in->dims[1]) != NULL &&
                    cJSON_AddBoolToObject(json, "learn_sigma", out->dims[0] == 2 * in->dims[1]) != NULL &&
                    cJSON_AddBoolToObject(json, "class_cond", classes != NULL) != NULL &&
                    cJSON_AddNumberToObject(json, "num_classes", classes ? (double)classes->dims[0] : 1.0) != NULL &&
                    cJSON_AddBoolToObject(json, "use_scale_shift_norm", project->dims[0] == 2 * conv->dims[0]) != NULL &&
                    cJSON_AddBoolToObject(json, "resblock_updown",
                                          find_block(tensors, 1, "input_blocks", per_level, "0.in_layers.0.weight") != NULL) != NULL &&
                    cJSON_AddBoolToObject(json, "use_new_attention_order", known->new_attention_order) != NULL &&
                    cJSON_AddNumberToObject(json, known->num_heads ? "num_heads" : "num_head_channels",
                                            known->num_heads ? known->num_heads : 64) != NULL &&
                    cJSON_AddStringToObject(json, "noise_schedule", known->cosine ? "cosine" : "linear") != NULL;
    if (complete)
        return json;
    cJSON_Delete(json);
    return NULL;
}

cJSON *dn_guided_diffusion_recognise(const dn_tensors *tensors)
{
    uint32_t per_level = 0, outputs = count_outputs(tensors, &per_level);
    const dn_tensor_info *time = find_tensor(tensors, 2, "time_embed.0.weight"), *in = find_tensor(tensors, 4, "input_blocks.0.0.weight");
    if (outputs == 0 || outputs % per_level || time == NULL || in == NULL || in->dims[1] != 3 || per_level < 2)
        return NULL;
    const published *known = recognise_levels(tensors, outputs / per_level, per_level, time->dims[1]);
    return known == NULL ? NULL : describe(tensors, known, per_level, time->dims[1]);
}
