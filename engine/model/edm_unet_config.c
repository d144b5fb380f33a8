/* EDM's configurations, and where the parts of its plans lie in a checkpoint.
 *
 * Keys and defaults are the constructors' of NVlabs/edm, training/networks.py; what training alone reads is ignored. The
 * checkpoint is the module's state, with or without the "model." of its preconditioner before each name. Pure; any thread. */
#include "model/edm_unet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/config_reader.h"

#define SIGMA_DATA 0.5
#define NUMBERS_MAX 32u

/* A list of whole numbers from 1; the default's where it is missing. How many there are. */
static uint32_t parse_list(dn_config_reader *reader, const char *key, uint32_t *out, const uint32_t *fallback, uint32_t fallback_count)
{
    const cJSON *list = dn_config_item(reader, key), *item = NULL;
    uint32_t count = 0;
    if (list == NULL) {
        memcpy(out, fallback, fallback_count * sizeof *out);
        return fallback_count;
    }
    bool wrong = !cJSON_IsArray(list);
    cJSON_ArrayForEach(item, list)
    {
        wrong = wrong || count == NUMBERS_MAX || !cJSON_IsNumber(item) || item->valuedouble != item->valueint || item->valueint < 1 ||
                item->valueint > (int)DN_CHANNELS_MAX;
        if (!wrong)
            out[count++] = (uint32_t)item->valueint;
    }
    if (wrong)
        dn_config_fail(reader, DN_INVALID, key, "must be a list of up to %u whole numbers from 1 to %u", NUMBERS_MAX, DN_CHANNELS_MAX);
    return wrong ? 0 : count;
}

/* One of the names, its index; 0 and a failure when it is none of them. */
static unsigned parse_choice(dn_config_reader *reader, const char *key, const char *const *names, unsigned count)
{
    const char *text = dn_config_text(reader, key, names[0]);
    for (unsigned i = 0; i < count; i++)
        if (strcmp(text, names[i]) == 0)
            return i;
    dn_config_fail(reader, DN_UNSUPPORTED, key, "\"%.60s\" is not supported", text);
    return 0;
}

static void parse_levels(dn_config_reader *reader, dn_edm_config *out)
{
    static const uint32_t song[] = {1, 2, 2, 2}, dhariwal[] = {1, 2, 3, 4}, song_sides[] = {16}, dhariwal_sides[] = {32, 16, 8};
    uint32_t numbers[NUMBERS_MAX];
    out->levels = parse_list(reader, "channel_mult", numbers, out->dhariwal ? dhariwal : song, 4);
    if (out->levels < 1 || out->levels > DN_BLOCKS_MAX) {
        dn_config_fail(reader, DN_INVALID, "channel_mult", "must have 1 to %u entries", DN_BLOCKS_MAX);
        out->levels = 1;
        return;
    }
    memcpy(out->multipliers, numbers, out->levels * sizeof *numbers);
    for (uint32_t i = 0; i < out->levels; i++)
        if ((uint64_t)out->model_channels * out->multipliers[i] > DN_CHANNELS_MAX)
            dn_config_fail(reader, DN_INVALID, "channel_mult", "%u times %u channels are more than %u", out->multipliers[i],
                           out->model_channels, DN_CHANNELS_MAX);
    uint32_t sides = parse_list(reader, "attn_resolutions", numbers, out->dhariwal ? dhariwal_sides : song_sides, out->dhariwal ? 3 : 1);
    for (uint32_t i = 0; i < out->levels; i++)
        for (uint32_t s = 0; s < sides; s++)
            out->attention[i] = out->attention[i] || numbers[s] == out->resolution >> i;
}

static void parse_size(dn_config_reader *reader, dn_edm_config *out, const dn_build_input *input)
{
    uint32_t step = 1u << (out->levels - 1);
    out->height = input->height ? input->height : out->resolution;
    out->width = input->width ? input->width : out->resolution;
    if (out->resolution % step || out->height % step || out->width % step || out->height > DN_IMAGE_SIDE_MAX ||
        out->width > DN_IMAGE_SIDE_MAX)
        dn_config_fail(reader, DN_INVALID, "img_resolution", "%u and a sample of %ux%u must be multiples of %u, up to %u", out->resolution,
                       out->height, out->width, step, DN_IMAGE_SIDE_MAX);
}

/* What SongUNet alone can choose. */
static void parse_song(dn_config_reader *reader, dn_edm_config *out)
{
    static const char *const embeddings[] = {"positional", "fourier"};
    static const char *const encoders[] = {"standard", "skip", "residual"}; /* in the order of dn_edm_encoder */
    static const uint32_t box[] = {1, 1};
    uint32_t filter[NUMBERS_MAX];
    out->fourier = parse_choice(reader, "embedding_type", embeddings, 2) == 1;
    out->encoder = (dn_edm_encoder)parse_choice(reader, "encoder_type", encoders, 3);
    out->decoder_skip = parse_choice(reader, "decoder_type", encoders, 2) == 1;
    out->noise_channels = out->model_channels * dn_config_count(reader, "channel_mult_noise", 1, 1, 16);
    uint32_t taps = parse_list(reader, "resample_filter", filter, box, 2);
    out->fir = taps == 4 && filter[0] == 1 && filter[1] == 3 && filter[2] == 3 && filter[3] == 1;
    if (!out->fir && !(taps == 2 && filter[0] == 1 && filter[1] == 1))
        dn_config_fail(reader, DN_UNSUPPORTED, "resample_filter", "must be [1,1] or [1,3,3,1]");
}

static void parse_widths(dn_config_reader *reader, dn_edm_config *out)
{
    out->resolution = dn_config_count(reader, "img_resolution", out->dhariwal ? 64 : 32, 1, DN_IMAGE_SIDE_MAX);
    uint32_t channels = dn_config_count(reader, "img_channels", 3, 1, DN_CHANNELS_MAX);
    out->in_channels = dn_config_count(reader, "in_channels", channels, 1, DN_CHANNELS_MAX);
    out->out_channels = dn_config_count(reader, "out_channels", channels, 1, DN_CHANNELS_MAX);
    out->label_dim = dn_config_count(reader, "label_dim", 0, 0, DN_CLASSES_MAX);
    out->model_channels = dn_config_count(reader, "model_channels", out->dhariwal ? 192 : 128, 1, DN_CHANNELS_MAX);
    out->noise_channels = out->model_channels;
    out->emb_channels = out->model_channels * dn_config_count(reader, "channel_mult_emb", 4, 1, 16);
    out->num_blocks = dn_config_count(reader, "num_blocks", out->dhariwal ? 3 : 4, 1, DN_LAYERS_MAX);
}

/* What the plan's shapes would not notice: each filter is stored beside the convolution it precedes, and must be the
 * configuration's; and the class layer must have a column for each class, no more. */
static void check_tensors(dn_config_reader *reader, const dn_edm_config *config, const dn_tensors *tensors)
{
    char name[DN_TENSOR_NAME_BYTES_MAX];
    uint32_t side = config->resolution >> 1;
    snprintf(name, sizeof name, "%senc.%ux%u_down.conv0.resample_filter", config->prefix, side, side);
    const dn_tensor_info *info = dn_tensors_find(tensors, name);
    if (info != NULL && (info->rank != 4 || info->dims[2] != (config->fir ? 4 : 2)))
        dn_config_fail(reader, DN_INVALID, "resample_filter", "is not the filter that %s is", name);
    snprintf(name, sizeof name, "%smap_label.weight", config->prefix);
    info = dn_tensors_find(tensors, name);
    if (info != NULL && info->rank == 2 && info->dims[1] != config->label_dim)
        dn_config_fail(reader, DN_INVALID, "label_dim", "%u is not the %llu classes of %s", config->label_dim,
                       (unsigned long long)info->dims[1], name);
}

dn_status dn_edm_config_parse(dn_edm_config *out, const dn_build_input *input, dn_error *error)
{
    static const char *const preconditioners[] = {"edm"};
    dn_config_reader reader;
    dn_status status = dn_config_reader_init(&reader, input->config, input->config_path, error);
    if (status != DN_OK)
        return status;
    dn_edm_config config = {.dhariwal = strcmp(dn_config_text(&reader, "_class_name", ""), DN_EDM_DHARIWAL_CLASS) == 0};
    parse_widths(&reader, &config);
    parse_levels(&reader, &config);
    parse_size(&reader, &config, input);
    if (!config.dhariwal)
        parse_song(&reader, &config);
    if (config.noise_channels % 2)
        dn_config_fail(&reader, DN_UNSUPPORTED, "model_channels", "%u is also the sinusoid's size and must be even", config.noise_channels);
    if (config.emb_channels > 4 * DN_CHANNELS_MAX)
        dn_config_fail(&reader, DN_INVALID, "channel_mult_emb", "makes an embedding of %u channels", config.emb_channels);
    (void)parse_choice(&reader, "precond", preconditioners, 1);
    config.sigma_data = dn_config_number(&reader, "sigma_data", SIGMA_DATA, 1e-6, 1e6);
    if (input->tensors != NULL && dn_tensors_find(input->tensors, "model.map_layer0.weight") != NULL)
        memcpy(config.prefix, "model.", sizeof "model.");
    if (input->tensors != NULL)
        check_tensors(&reader, &config, input->tensors);
    status = dn_config_reader_end(&reader, error);
    if (status == DN_OK)
        *out = config;
    return status;
}

/* The channels of the block that a part belongs to, by the side in its name ("enc.16x16_block0.qkv.q.weight"). */
static uint32_t block_channels(const dn_edm_config *config, const char *part)
{
    unsigned side = 0;
    if (sscanf(part, "%*3[a-z].%ux", &side) == 1)
        for (uint32_t i = 0; i < config->levels; i++)
            if (config->resolution >> i == side)
                return config->model_channels * config->multipliers[i];
    return config->model_channels;
}

/* q, k and v are every third row of one tensor; the class layer's columns are the table's rows, and SongUNet gives it
 * one-hot vectors of length sqrt(label_dim), and a bias. */
bool dn_edm_name_part(const dn_model *model, const char *part, dn_source *out)
{
    static const char letters[] = "qkv";
    const dn_edm_config *config = model->private_config;
    const char *stacked = strstr(part, ".qkv.");
    *out = (dn_source){.layout = DN_LAYOUT_PLAIN, .count = 1};
    if (stacked != NULL) {
        const char *letter = strchr(letters, stacked[5]);
        if (letter == NULL || *letter == '\0')
            return false;
        snprintf(out->name, sizeof out->name, "%s%.*s.qkv%s", config->prefix, (int)(stacked - part), part, stacked + 6);
        out->layout = DN_LAYOUT_HEADS_INNER;
        out->index = (uint32_t)(letter - letters);
        out->count = 3;
        out->heads = dn_edm_heads(config, block_channels(config, part));
        return true;
    }
    snprintf(out->name, sizeof out->name, "%s%s", config->prefix, part);
    if (strcmp(part, "map_label.weight") == 0) {
        out->layout = DN_LAYOUT_TRANSPOSED;
        if (!config->dhariwal) {
            out->scale = (float)sqrt((double)config->label_dim);
            snprintf(out->bias, sizeof out->bias, "%smap_label.bias", config->prefix);
        }
    }
    return true;
}

/* The filters, the augmentation of training (its labels are zeros in use), and the class layer's bias, which the table takes in. */
bool dn_edm_is_leftover(const dn_model *model, const char *tensor)
{
    static const char filter[] = ".resample_filter";
    const dn_edm_config *config = model->private_config;
    size_t prefix = strlen(config->prefix), length = strlen(tensor), end = sizeof filter - 1;
    if (strncmp(tensor, config->prefix, prefix) != 0)
        return false;
    return (length > end && strcmp(tensor + length - end, filter) == 0) || strcmp(tensor + prefix, "map_augment.weight") == 0 ||
           (!config->dhariwal && strcmp(tensor + prefix, "map_label.bias") == 0);
}
