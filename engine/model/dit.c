/* The diffusion transformer as a plan: patches, blocks of attention and feed-forward under adaLN-Zero, unpatchify.
 *
 * Structure and module names follow diffusers 0.31 (DiTTransformer2DModel). A node that equals a module's output carries that
 * module's name; gates and residuals ride in the projection before them, so "attn1" and "ff" have no node of their own.
 * Values are [h, w, C] with h, w counting patches. Pure; any thread. Source: Peebles & Xie 2022, section 3.2. */
#include "model/dit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/plan_tools.h"

#define MAX_PERIOD 10000.0f
#define EPSILON 1e-6f

/* Chunks of a block's modulation vector, each `hidden` long. */
enum { SHIFT_ATTENTION, SCALE_ATTENTION, GATE_ATTENTION, SHIFT_MLP, SCALE_MLP, GATE_MLP, BLOCK_CHUNKS };

typedef struct dit {
    const dn_dit_config *config;
    dn_plan_builder *plan;
    dn_value condition; /* SiLU(time + class embedding) of block 0's embedders */
} dit;

/* CombinedTimestepLabelEmbeddings of one block, and the SiLU that opens every projection of its answer. */
static dn_value embed(const dit *d, uint32_t block)
{
    const dn_dit_config *c = d->config;
    dn_module_name emb = dn_module_named("transformer_blocks.%u.norm1.emb", block),
                   time = dn_module_named("%s.timestep_embedder", emb.text);
    dn_value class_row =
        dn_plan_class_embedding(d->plan, dn_module_named("%s.class_embedder.embedding_table", emb.text).text, c->class_rows, c->hidden);
    dn_value wave = dn_plan_time_embedding(d->plan, dn_module_named("%s.time_proj", emb.text).text, DN_DIT_FREQUENCIES, c->freq_shift, true,
                                           MAX_PERIOD);
    dn_value h = dn_plan_dense(d->plan, wave, dn_module_named("%s.linear_1", time.text), c->hidden,
                               dn_module_named("%s.linear_1+silu", time.text), DN_ACT_SILU, DN_NONE);
    return dn_plan_dense(d->plan, h, dn_module_named("%s.linear_2", time.text), c->hidden, dn_module_named("%s+silu", emb.text),
                         DN_ACT_SILU, class_row);
}

/* residual + gate * MODULE(in): the end of a branch. */
static dn_value gated(const dit *d, dn_value in, dn_module_name module, dn_module_name name, dn_value residual, dn_value modulation,
                      uint32_t chunk)
{
    const char *modules[] = {module.text};
    dn_linear_options options = DN_LINEAR_INIT;
    options.modules = modules;
    options.name = name.text;
    options.out_channels = d->config->hidden;
    options.residual = residual;
    options.gate = modulation;
    options.gate_offset = chunk * d->config->hidden;
    return dn_plan_linear(d->plan, in, &options);
}

static dn_value attention(const dit *d, dn_value x, dn_module_name block, dn_value modulation)
{
    const dn_dit_config *c = d->config;
    const char *b = block.text;
    dn_value h = dn_plan_layer_norm(d->plan, x, NULL, dn_module_named("%s.norm1", b).text, EPSILON, modulation, SHIFT_ATTENTION * c->hidden,
                                    SCALE_ATTENTION * c->hidden);
    h = dn_plan_self_attention(d->plan, h, dn_module_named("%s.attn1", b).text, c->heads, !c->attention_bias);
    return gated(d, h, dn_module_named("%s.attn1.to_out.0", b), dn_module_named("%s.attn1+gate+residual", b), x, modulation,
                 GATE_ATTENTION);
}

static dn_value feed_forward(const dit *d, dn_value x, dn_module_name block, dn_value modulation)
{
    const dn_dit_config *c = d->config;
    const char *b = block.text;
    dn_module_name norm = dn_module_named("%s.norm3", b);
    dn_value h = dn_plan_layer_norm(d->plan, x, c->mlp_norm_affine ? norm.text : NULL, dn_module_named("%s.norm3+modulation", b).text,
                                    c->mlp_epsilon, modulation, SHIFT_MLP * c->hidden, SCALE_MLP * c->hidden);
    h = dn_plan_dense(d->plan, h, dn_module_named("%s.ff.net.0.proj", b), c->mlp_hidden, dn_module_named("%s.ff.net.0", b), c->activation,
                      DN_NONE);
    return gated(d, h, dn_module_named("%s.ff.net.2", b), block, x, modulation, GATE_MLP);
}

static dn_value block(const dit *d, dn_value x, uint32_t index)
{
    const dn_dit_config *c = d->config;
    dn_value condition = index == 0 || c->shared[index] ? d->condition : embed(d, index);
    dn_module_name name = dn_module_named("transformer_blocks.%u", index), project = dn_module_named("%s.norm1.linear", name.text);
    dn_value modulation = dn_plan_dense(d->plan, condition, project, BLOCK_CHUNKS * c->hidden, project, DN_ACT_NONE, DN_NONE);
    return feed_forward(d, attention(d, x, name, modulation), name, modulation);
}

static dn_value patches(const dit *d)
{
    const dn_dit_config *c = d->config;
    dn_conv_options options = {.module = "pos_embed.proj",
                               .out_channels = c->hidden,
                               .kernel = c->patch,
                               .stride = c->patch,
                               .row_bias = DN_NONE,
                               .residual = DN_NONE,
                               .scale = 1.0f};
    dn_value x = dn_plan_conv(d->plan, d->plan->plan->input, &options);
    return dn_plan_position(d->plan, x, "pos_embed", (float)c->height / (float)c->base_side);
}

static dn_value last_layer(const dit *d, dn_value x)
{
    const dn_dit_config *c = d->config;
    dn_module_name first = dn_module_named("proj_out_1"), second = dn_module_named("proj_out_2");
    dn_value modulation = dn_plan_dense(d->plan, d->condition, first, 2 * c->hidden, first, DN_ACT_NONE, DN_NONE);
    x = dn_plan_layer_norm(d->plan, x, NULL, "norm_out+modulation", EPSILON, modulation, 0, c->hidden);
    x = dn_plan_dense(d->plan, x, second, c->patch * c->patch * c->out_channels, second, DN_ACT_NONE, DN_NONE);
    return dn_plan_unpatchify(d->plan, x, "unpatchify", c->patch);
}

dn_status dn_dit_build_plan(dn_model *out, const dn_dit_config *config, const char *config_path, dn_error *error)
{
    dn_plan_builder builder;
    dn_status status = dn_plan_begin(&builder, (dn_shape){config->height, config->width, config->in_channels}, error);
    if (status != DN_OK)
        return status;
    dit d = {.config = config, .plan = &builder};
    d.condition = embed(&d, 0);
    dn_value x = patches(&d);
    for (uint32_t i = 0; i < config->depth; i++)
        x = block(&d, x, i);
    x = last_layer(&d, x);

    status = dn_plan_finish(&out->plan, &builder, x, config_path, error);
    if (status != DN_OK)
        return status;
    out->height = config->height;
    out->width = config->width;
    out->channels = config->in_channels;
    out->out_channels = config->out_channels;
    out->class_rows = config->class_rows;
    return DN_OK;
}

/* Whether two blocks' copies of one embedder tensor hold the same bytes. A block without a copy reads block 0's. */
static dn_status same_tensor(const dn_tensors *tensors, uint32_t index, const char *suffix, bool *same, dn_error *error)
{
    dn_module_name first = dn_module_named(DN_DIT_EMBEDDER "%s", 0u, suffix), other = dn_module_named(DN_DIT_EMBEDDER "%s", index, suffix);
    const dn_tensor_info *a = dn_tensors_find(tensors, first.text), *b = dn_tensors_find(tensors, other.text);
    *same = true;
    return a == NULL || b == NULL ? DN_OK : dn_tensors_equal(tensors, a, b, same, error);
}

/* Checkpoints store the embedders once a block (28 times in DiT-XL/2): equal ones are computed once. */
static dn_status find_shared(dn_dit_config *config, const dn_tensors *tensors, dn_error *error)
{
    static const char *const suffixes[] = {"timestep_embedder.linear_1.bias", "timestep_embedder.linear_2.bias",
                                           "timestep_embedder.linear_1.weight", "timestep_embedder.linear_2.weight",
                                           "class_embedder.embedding_table.weight"};
    dn_status status = DN_OK;
    for (uint32_t i = 0; i < config->depth && status == DN_OK; i++) {
        bool same = true;
        for (size_t s = 0; tensors != NULL && same && status == DN_OK && s < sizeof suffixes / sizeof suffixes[0]; s++)
            status = same_tensor(tensors, i, suffixes[s], &same, error);
        config->shared[i] = same;
    }
    return status;
}

/* What the model keeps of its configuration. */
typedef struct embedders {
    uint32_t depth;
    bool shared[DN_DIT_DEPTH_MAX]; /* block i reads block 0's */
} embedders;

/* Later blocks' embedders: the plan that shares block 0's does not ask for them. */
static bool is_shared_embedder(const dn_model *model, const char *tensor)
{
    const embedders *kept = model->private_config;
    char *end = NULL;
    if (strncmp(tensor, "transformer_blocks.", 19) != 0)
        return false;
    unsigned long index = strtoul(tensor + 19, &end, 10);
    return index > 0 && index < kept->depth &&
           (strncmp(end, ".norm1.emb.timestep_embedder.", 29) == 0 || strncmp(end, ".norm1.emb.class_embedder.", 26) == 0);
}

/* diffusers asks for the embedders of every block. */
static bool copy_embedder(const dn_model *model, const char *part, uint32_t index, char out[DN_TENSOR_NAME_BYTES_MAX])
{
    const embedders *kept = model->private_config;
    dn_module_name first = dn_module_named(DN_DIT_EMBEDDER, 0u);
    size_t bytes = strlen(first.text);
    if (strncmp(part, first.text, bytes) != 0)
        return false;
    for (uint32_t block = 1; block < kept->depth; block++) {
        if (kept->shared[block] && index-- == 0) {
            snprintf(out, DN_TENSOR_NAME_BYTES_MAX, DN_DIT_EMBEDDER "%s", block, part + bytes);
            return true;
        }
    }
    return false;
}

dn_status dn_dit_build(dn_model *out, const dn_build_input *input, dn_error *error)
{
    dn_dit_config config;
    dn_status status = dn_dit_config_parse(&config, input, error);
    if (status == DN_OK)
        status = find_shared(&config, input->tensors, error);
    if (status == DN_OK)
        status = dn_dit_check_positions(&config, input, "pos_embed.pos_embed", error);
    if (status != DN_OK)
        return status;
    embedders *kept = malloc(sizeof *kept);
    if (kept == NULL)
        return dn_fail(error, DN_NO_MEMORY, "%s: out of memory", input->config_path);
    kept->depth = config.depth;
    memcpy(kept->shared, config.shared, sizeof kept->shared);
    out->private_config = kept;
    out->leftover = is_shared_embedder;
    out->copies = copy_embedder;
    return dn_dit_build_plan(out, &config, input->config_path, error);
}
