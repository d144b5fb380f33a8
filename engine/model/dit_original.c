/* DiT, SiT and REPA as their authors store them: names, the packed qkv, and what their numbers mean.
 *
 * The plan is dit.c's, with diffusers' names; a naming says where each part lies. Differences that are no names: time
 * frequencies over half (diffusers: half - 1), every norm's epsilon 1e-6, guidance on the first three channels (REPA: all),
 * and for SiT and REPA a velocity for an answer, at times in [0, 1] that enter the sinusoid unscaled.
 * Sources: facebookresearch/DiT models.py, willisma/SiT models.py, sihyun-yu/REPA models/sit.py. Pure; any thread. */
#include "model/dit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUIDED_CHANNELS 3u /* "for exact reproducibility reasons" of forward_with_cfg: the first three of the latents */

/* Names outside the blocks, diffusers' and the original. */
static const struct {
    const char *part, *source;
} outer[] = {
    {"pos_embed.proj.", "x_embedder.proj."},
    {"transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.", "t_embedder.mlp.0."},
    {"transformer_blocks.0.norm1.emb.timestep_embedder.linear_2.", "t_embedder.mlp.2."},
    {"transformer_blocks.0.norm1.emb.class_embedder.", "y_embedder."},
    {"proj_out_1.", "final_layer.adaLN_modulation.1."},
    {"proj_out_2.", "final_layer.linear."},
};

/* Names inside block i. count 3: one of the three stacked in the source. */
static const struct {
    const char *part, *source;
    uint32_t index, count;
} inner[] = {
    {"norm1.linear.", "adaLN_modulation.1.", 0, 1},
    {"attn1.to_q.", "attn.qkv.", 0, 3},
    {"attn1.to_k.", "attn.qkv.", 1, 3},
    {"attn1.to_v.", "attn.qkv.", 2, 3},
    {"attn1.to_out.0.", "attn.proj.", 0, 1},
    {"ff.net.0.proj.", "mlp.fc1.", 0, 1},
    {"ff.net.2.", "mlp.fc2.", 0, 1},
};

static bool name_outer(const char *part, dn_source *out)
{
    for (size_t i = 0; i < sizeof outer / sizeof outer[0]; i++) {
        size_t length = strlen(outer[i].part);
        if (strncmp(part, outer[i].part, length) != 0)
            continue;
        *out = (dn_source){.layout = DN_LAYOUT_PLAIN, .count = 1};
        snprintf(out->name, sizeof out->name, "%s%s", outer[i].source, part + length);
        return true;
    }
    return false;
}

static bool name_part(const dn_model *model, const char *part, dn_source *out)
{
    (void)model;
    char *rest = NULL;
    if (name_outer(part, out))
        return true;
    if (strncmp(part, "transformer_blocks.", 19) != 0)
        return false;
    unsigned long block = strtoul(part + 19, &rest, 10);
    for (size_t i = 0; i < sizeof inner / sizeof inner[0] && *rest == '.'; i++) {
        size_t length = strlen(inner[i].part);
        if (strncmp(rest + 1, inner[i].part, length) != 0)
            continue;
        *out =
            (dn_source){.layout = inner[i].count > 1 ? DN_LAYOUT_ROWS : DN_LAYOUT_PLAIN, .index = inner[i].index, .count = inner[i].count};
        snprintf(out->name, sizeof out->name, "blocks.%lu.%s%s", block, inner[i].source, rest + 1 + length);
        return true;
    }
    return false;
}

/* The stored position table (checked against the computed one), and REPA's projectors, which only its training reads. */
static bool is_leftover(const dn_model *model, const char *tensor)
{
    return strcmp(tensor, "pos_embed") == 0 || (model->convention == DN_CONVENTION_REPA && strncmp(tensor, "projectors.", 11) == 0);
}

static uint32_t count_blocks(const dn_tensors *tensors)
{
    char name[DN_TENSOR_NAME_BYTES_MAX];
    uint32_t depth = 0;
    do
        snprintf(name, sizeof name, "blocks.%u.attn.qkv.weight", depth);
    while (dn_tensors_find(tensors, name) != NULL && depth++ < DN_DIT_DEPTH_MAX);
    return depth;
}

static const dn_tensor_info *find_ranked(const dn_tensors *tensors, const char *name, uint32_t rank)
{
    const dn_tensor_info *info = dn_tensors_find(tensors, name);
    return info != NULL && info->rank == rank && info->count > 0 ? info : NULL;
}

/* The side of the sample, from the number of positions; 0 where they are no square or not there. */
static uint32_t input_side(const dn_tensors *tensors, uint64_t patch)
{
    const dn_tensor_info *positions = find_ranked(tensors, "pos_embed", 3);
    for (uint64_t side = 1; positions != NULL && side * patch <= DN_IMAGE_SIDE_MAX; side++)
        if (side * side == positions->dims[1])
            return (uint32_t)(side * patch);
    return 0;
}

static bool add_number(cJSON *json, const char *key, double value)
{
    return cJSON_AddNumberToObject(json, key, value) != NULL;
}

/* The constructor's arguments that shapes tell: everything but the heads. */
cJSON *dn_dit_original_recognise(const dn_tensors *tensors)
{
    const dn_tensor_info *patch = find_ranked(tensors, "x_embedder.proj.weight", 4);
    const dn_tensor_info *table = find_ranked(tensors, "y_embedder.embedding_table.weight", 2);
    const dn_tensor_info *mlp = find_ranked(tensors, "blocks.0.mlp.fc1.weight", 2);
    const dn_tensor_info *last = find_ranked(tensors, "final_layer.linear.weight", 2);
    uint32_t depth = count_blocks(tensors);
    if (patch == NULL || table == NULL || mlp == NULL || last == NULL || depth == 0 ||
        dn_tensors_find(tensors, "t_embedder.mlp.0.weight") == NULL)
        return NULL;
    const bool repa = dn_tensors_find(tensors, "projectors.0.0.weight") != NULL;
    const uint32_t side = input_side(tensors, patch->dims[2]);
    cJSON *json = cJSON_CreateObject();
    bool ok = json != NULL && cJSON_AddStringToObject(json, "_class_name", repa ? "REPA" : "DiT") != NULL;
    ok = ok && add_number(json, "hidden_size", (double)patch->dims[0]) && add_number(json, "in_channels", (double)patch->dims[1]);
    ok = ok && add_number(json, "patch_size", (double)patch->dims[2]) && add_number(json, "depth", depth);
    ok = ok && add_number(json, "mlp_ratio", (double)mlp->dims[0] / (double)patch->dims[0]);
    ok = ok && add_number(json, "num_classes", (double)table->dims[0] - 1.0) && add_number(json, "input_size", side);
    ok = ok && cJSON_AddBoolToObject(json, "learn_sigma", last->dims[0] == 2 * patch->count / patch->dims[0]) != NULL;
    if (ok)
        return json;
    cJSON_Delete(json);
    return NULL;
}

/* What config.json says, over what the tensors' shapes say. NULL: out of memory. */
static cJSON *merged_config(const dn_build_input *input)
{
    cJSON *merged = input->tensors ? dn_dit_original_recognise(input->tensors) : NULL;
    if (merged == NULL)
        return cJSON_Duplicate(input->config, true);
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, input->config)
    {
        cJSON *copy = cJSON_Duplicate(item, true);
        cJSON_DeleteItemFromObjectCaseSensitive(merged, item->string);
        if (copy == NULL || !cJSON_AddItemToObject(merged, item->string, copy)) {
            cJSON_Delete(copy);
            cJSON_Delete(merged);
            return NULL;
        }
    }
    return merged;
}

static void settle_meaning(dn_model *out, const dn_dit_config *config, const cJSON *json)
{
    static const struct {
        const char *class_name;
        dn_convention convention;
        uint32_t guided_channels;
    } table[] = {{"DiT", DN_CONVENTION_GUIDED_DIFFUSION, GUIDED_CHANNELS},
                 {"SiT", DN_CONVENTION_SIT, GUIDED_CHANNELS},
                 {"REPA", DN_CONVENTION_REPA, 0}};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "_class_name"));
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (name != NULL && strcmp(name, table[i].class_name) == 0) {
            out->convention = table[i].convention;
            out->guided_channels = table[i].guided_channels < config->in_channels ? table[i].guided_channels : 0;
        }
    }
    const cJSON *dropout = cJSON_GetObjectItemCaseSensitive(json, "class_dropout_prob");
    out->null_rows = cJSON_IsNumber(dropout) && dropout->valuedouble == 0.0 ? 0 : 1;
    out->naming = name_part;
    out->leftover = is_leftover;
}

dn_status dn_dit_original_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    dn_dit_config config;
    cJSON *json = merged_config(input);
    if (json == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", input->config_path);
    dn_status status = dn_dit_original_config_parse(&config, json, input, error);
    if (status == DN_OK)
        status = dn_dit_check_positions(&config, input, "pos_embed", error);
    if (status == DN_OK) {
        settle_meaning(out, &config, json);
        status = dn_dit_build_plan(out, &config, input->config_path, error);
    }
    cJSON_Delete(json);
    return status;
}
