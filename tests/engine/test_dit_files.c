/* Checkpoints of diffusion transformers in every format: the original one is made by permuting a diffusers one, and must give the
 * same answers; embedders are shared where they are equal; what a file cannot tell is asked for.
 *
 * The weights are the golden dit_default's, but with block 0's embedders in every block, as trained checkpoints have them. Files are
 * written to two temporary folders, which are removed at the end. */
#include "tests/engine/network_golden.h"

#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "model/dit.h"

#define BASE "tests/golden/dit_default"
#define WEIGHTS "diffusion_pytorch_model.safetensors"

static char folder[64], diffusers_folder[64];
static dn_error error;

static dn_status write_text(const char *where, const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", where, name);
    return dn_file_write(path, text, strlen(text), false, &error);
}

static void remove_file(const char *where, const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", where, name);
    unlink(path);
}

static dn_status save(dn_safetensors_writer *writer, const char *where)
{
    char path[160];
    snprintf(path, sizeof path, "%s/" WEIGHTS, where);
    dn_status status = dn_safetensors_writer_save(writer, path, false, &error);
    dn_safetensors_writer_free(writer);
    return status;
}

/* ---- The diffusers format, with equal embedders. */

/* touched_class: block 1's row of this class differs in one number; 1001: none does. */
static dn_status write_diffusers(uint32_t touched_class)
{
    static const char block1[] = "transformer_blocks.1.norm1.emb.";
    dn_safetensors *file = NULL;
    dn_safetensors_writer *writer = NULL;
    unsigned char *config = NULL;
    size_t bytes = 0;
    char path[160];
    snprintf(path, sizeof path, "%s/config.json", diffusers_folder);
    dn_status status = dn_make_folder(diffusers_folder, &error);
    if (status == DN_OK)
        status = dn_file_read(&config, &bytes, BASE "/config.json", 1 << 20, &error);
    if (status == DN_OK)
        status = dn_file_write(path, config, bytes, false, &error);
    if (status == DN_OK)
        status = dn_safetensors_open(&file, BASE "/" WEIGHTS, &error);
    if (status == DN_OK)
        status = dn_safetensors_writer_create(&writer, &error);
    for (size_t i = 0; status == DN_OK && i < dn_safetensors_count(file); i++) {
        const dn_tensor_info *info = dn_safetensors_at(file, i);
        snprintf(path, sizeof path, "%s", info->name);
        const bool embedder = strncmp(path, block1, strlen(block1)) == 0;
        path[19] = embedder ? '0' : path[19];
        float *values = golden_tensor(file, path, NULL);
        if (embedder && touched_class < 1001 && info->dims[0] == 1001)
            values[touched_class * 24 + 3] += 1.0f;
        status = dn_safetensors_writer_add_f32(writer, info->name, DN_F32, info->rank, info->dims, values, &error);
        free(values);
    }
    dn_safetensors_close(file);
    free(config);
    return status == DN_OK ? save(writer, diffusers_folder) : status;
}

/* ---- The original format, from the diffusers one. */

static dn_status add_copy(dn_safetensors_writer *writer, const dn_safetensors *file, const char *from, const char *to)
{
    const dn_tensor_info *info = dn_safetensors_find(file, from);
    float *values = golden_tensor(file, from, NULL);
    if (values == NULL)
        return dn_fail(&error, DN_INVALID, "%s is missing", from);
    dn_status status = dn_safetensors_writer_add_f32(writer, to, DN_F32, info->rank, info->dims, values, &error);
    free(values);
    return status;
}

/* qkv: the rows of to_q, to_k, to_v after each other. */
static dn_status add_qkv(dn_safetensors_writer *writer, const dn_safetensors *file, const char *prefix, unsigned block, const char *suffix)
{
    char name[160];
    float values[3 * 24 * 24];
    size_t count = 0;
    const dn_tensor_info *info = NULL;
    for (size_t i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "transformer_blocks.%u.attn1.to_%c.%s", block, "qkv"[i], suffix);
        info = dn_safetensors_find(file, name);
        float *part = golden_tensor(file, name, &count);
        if (part == NULL)
            return dn_fail(&error, DN_INVALID, "%s is missing", name);
        memcpy(values + i * count, part, count * sizeof *values);
        free(part);
    }
    snprintf(name, sizeof name, "%sblocks.%u.attn.qkv.%s", prefix, block, suffix);
    return dn_safetensors_writer_add_f32(writer, name, DN_F32, info->rank, (uint64_t[]){72, 24}, values, &error);
}

static double table_entry(uint32_t token, uint32_t side, uint32_t width, uint32_t c)
{
    uint32_t quarter = width / 4, inside = c % (width / 2);
    double angle = (c < width / 2 ? token % side : token / side) * pow(10000.0, -(double)(inside % quarter) / quarter);
    return inside < quarter ? sin(angle) : cos(angle);
}

static dn_status add_positions(dn_safetensors_writer *writer, const char *name, uint32_t side, uint32_t width, float offset)
{
    float values[16 * 64];
    for (uint32_t i = 0; i < side * side * width; i++)
        values[i] = (float)table_entry(i / width, side, width, i % width);
    values[5] += offset;
    return dn_safetensors_writer_add_f32(writer, name, DN_F32, 3, (uint64_t[]){1, side * side, width}, values, &error);
}

/* The original's name of a diffusers tensor, written from facebookresearch/DiT's modules; false where it has none of its own. */
static bool original_name(char out[160], const char *name)
{
    static const char *const outer[][2] = {{"pos_embed.proj.", "x_embedder.proj."},
                                           {"transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.", "t_embedder.mlp.0."},
                                           {"transformer_blocks.0.norm1.emb.timestep_embedder.linear_2.", "t_embedder.mlp.2."},
                                           {"transformer_blocks.0.norm1.emb.class_embedder.", "y_embedder."},
                                           {"proj_out_1.", "final_layer.adaLN_modulation.1."},
                                           {"proj_out_2.", "final_layer.linear."}};
    static const char *const inner[][2] = {{"norm1.linear.", "adaLN_modulation.1."},
                                           {"attn1.to_out.0.", "attn.proj."},
                                           {"ff.net.0.proj.", "mlp.fc1."},
                                           {"ff.net.2.", "mlp.fc2."}};
    for (size_t i = 0; i < 6; i++)
        if (strncmp(name, outer[i][0], strlen(outer[i][0])) == 0)
            return snprintf(out, 160, "%s%s", outer[i][1], name + strlen(outer[i][0])) > 0;
    for (size_t i = 0; i < 4 && strncmp(name, "transformer_blocks.", 19) == 0; i++)
        if (strncmp(name + 21, inner[i][0], strlen(inner[i][0])) == 0)
            return snprintf(out, 160, "blocks.%c.%s%s", name[19], inner[i][1], name + 21 + strlen(inner[i][0])) > 0;
    return false;
}

/* dit_default as facebookresearch/DiT would have stored it, in a folder with this config.json (NULL: none). */
static dn_status write_original(const char *config, const char *prefix, float position_offset)
{
    dn_safetensors *file = NULL;
    dn_safetensors_writer *writer = NULL;
    char original[160], to[200];
    dn_status status = dn_make_folder(folder, &error);
    remove_file(folder, "config.json");
    if (status == DN_OK && config != NULL)
        status = write_text(folder, "config.json", config);
    if (status == DN_OK)
        status = dn_safetensors_open(&file, BASE "/" WEIGHTS, &error);
    if (status == DN_OK)
        status = dn_safetensors_writer_create(&writer, &error);
    for (size_t i = 0; status == DN_OK && i < dn_safetensors_count(file); i++) {
        const char *name = dn_safetensors_at(file, i)->name;
        if (original_name(original, name)) {
            snprintf(to, sizeof to, "%s%s", prefix, original);
            status = add_copy(writer, file, name, to);
        }
    }
    for (unsigned i = 0; status == DN_OK && i < 4; i++)
        status = add_qkv(writer, file, prefix, i / 2, i % 2 ? "weight" : "bias");
    snprintf(to, sizeof to, "%spos_embed", prefix);
    if (status == DN_OK)
        status = add_positions(writer, to, 4, 24, position_offset);
    dn_safetensors_close(file);
    return status == DN_OK ? save(writer, folder) : status;
}

/* ---- Runs of the golden's inputs. */

typedef struct inputs {
    dn_safetensors *file;
    float *samples, *output;
    float times[2];
    uint32_t classes[2];
    size_t count; /* of the output */
} inputs;

static bool inputs_open(inputs *in)
{
    int64_t labels[2] = {0};
    memset(in, 0, sizeof *in);
    if (dn_safetensors_open(&in->file, BASE "/case.safetensors", &error) != DN_OK ||
        dn_safetensors_read_i64(in->file, dn_safetensors_find(in->file, "class_labels"), labels, &error) != DN_OK ||
        dn_safetensors_read_f32(in->file, dn_safetensors_find(in->file, "timestep"), in->times, &error) != DN_OK)
        return false;
    in->classes[0] = (uint32_t)labels[0];
    in->classes[1] = (uint32_t)labels[1];
    in->samples = golden_tensor(in->file, "hidden_states", NULL);
    in->output = golden_tensor(in->file, "output", &in->count);
    return in->samples != NULL && in->output != NULL;
}

static void inputs_close(inputs *in)
{
    free(in->samples);
    free(in->output);
    dn_safetensors_close(in->file);
}

static float *answer(const dn_model *model, const inputs *in)
{
    return run_network(model, &(dn_forward_rows){2, in->samples, in->times, in->classes}, NULL, &error);
}

/* The same weights under a plan of the other format's numbers. Owned by the caller, but for the weights. */
static dn_status with_numbers(dn_model *out, const dn_model *model, float freq_shift, float mlp_epsilon)
{
    cJSON *json = NULL;
    dn_dit_config config;
    dn_status status = dn_json_read_file(&json, BASE "/config.json", 1 << 20, &error);
    dn_build_input input = {.config = json, .config_path = "config.json"};
    if (status == DN_OK)
        status = dn_dit_config_parse(&config, &input, &error);
    cJSON_Delete(json);
    if (status != DN_OK)
        return status;
    memset(config.shared, true, sizeof config.shared);
    config.freq_shift = freq_shift;
    config.mlp_epsilon = mlp_epsilon;
    memset(out, 0, sizeof *out);
    status = dn_dit_build_plan(out, &config, "config.json", &error);
    out->weights = model->weights;
    return status;
}

/* The permuted network equals the diffusers one under the same numbers, both ways. */
static void the_original_format_is_the_same_network(void)
{
    inputs in;
    dn_model *diffusers = NULL, *original = NULL, as_original, as_diffusers;
    CHECK_MSG(inputs_open(&in), "%s", error.message);
    CHECK_OK(write_original("{\"_class_name\":\"DiT\",\"num_heads\":3}", "", 0.0f), error);
    CHECK_OK(write_diffusers(1001), error);
    CHECK_OK(dn_model_open(&diffusers, diffusers_folder, 0, 0, &error), error);
    CHECK_OK(dn_model_open(&original, folder, 0, 0, &error), error);
    CHECK(original->convention == DN_CONVENTION_GUIDED_DIFFUSION && original->guided_channels == 3 && original->null_rows == 1);
    CHECK(original->out_channels == 8 && original->channels == 4 && original->height == 8 && original->class_rows == 1001);
    CHECK(diffusers->convention == DN_CONVENTION_DIFFUSERS && diffusers->guided_channels == 0);
    CHECK_OK(with_numbers(&as_original, diffusers, 0.0f, 1e-6f), error);
    CHECK_OK(with_numbers(&as_diffusers, original, 1.0f, 1e-5f), error);
    float *a = answer(original, &in), *b = answer(&as_original, &in), *c = answer(&as_diffusers, &in), *d = answer(diffusers, &in);
    CHECK(a != NULL && b != NULL && c != NULL && d != NULL);
    const size_t bytes = in.count * sizeof *a;
    CHECK(memcmp(a, b, bytes) == 0 && memcmp(c, d, bytes) == 0 && memcmp(a, c, bytes) != 0);
    free(a);
    free(b);
    free(c);
    free(d);
    dn_plan_free(as_original.plan);
    dn_plan_free(as_diffusers.plan);
    dn_model_free(original);
    dn_model_free(diffusers);
    inputs_close(&in);
}

/* One file, three meanings: config.json says which. All answer alike to the same time. */
static void sit_and_dit_differ_in_meaning_alone(void)
{
    static const struct {
        const char *config, *prefix;
        dn_convention convention;
        uint32_t guided;
    } cases[] = {
        {"{\"_class_name\":\"DiT\",\"num_heads\":3}", "", DN_CONVENTION_GUIDED_DIFFUSION, 3},
        {"{\"_class_name\":\"SiT\",\"num_heads\":3}", "", DN_CONVENTION_SIT, 3},
        {"{\"_class_name\":\"SiT\",\"num_heads\":3,\"hidden_size\":24,\"depth\":2,\"input_size\":8}", "ema.", DN_CONVENTION_SIT, 3},
    };
    inputs in;
    float *first = NULL;
    CHECK_MSG(inputs_open(&in), "%s", error.message);
    in.times[0] = 0.25f; /* flow times enter unscaled */
    for (size_t i = 0; i < 3; i++) {
        dn_model *model = NULL;
        CHECK_OK(write_original(cases[i].config, cases[i].prefix, 0.0f), error);
        CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
        CHECK(model->convention == cases[i].convention && model->guided_channels == cases[i].guided && model->out_channels == 8);
        float *got = answer(model, &in);
        CHECK_MSG(got != NULL && (first == NULL || memcmp(first, got, in.count * sizeof *got) == 0), "case %zu: %s", i, error.message);
        if (first == NULL)
            first = got;
        else
            free(got);
        dn_model_free(model);
    }
    free(first);
    inputs_close(&in);
}

/* ---- Checkpoints that say nothing but their shapes. */

typedef struct tiny {
    uint32_t hidden, out_channels, positions;
    bool projectors;
} tiny;

static dn_status add_random(dn_safetensors_writer *writer, const char *name, uint32_t rank, const uint64_t *dims)
{
    uint64_t count = 1;
    for (uint32_t i = 0; i < rank; i++)
        count *= dims[i];
    float *values = malloc(count * sizeof *values);
    dn_noise_normal(values, count, 0, strlen(name), DN_STREAM_TRAIN, 0);
    for (uint64_t i = 0; i < count; i++)
        values[i] *= 0.05f;
    dn_status status = dn_safetensors_writer_add_f32(writer, name, DN_F32, rank, dims, values, &error);
    free(values);
    return status;
}

/* One block, patches of 2, four channels, ten classes. */
static dn_status write_tiny(const tiny *t)
{
    const uint64_t d = t->hidden;
    const struct {
        const char *module;
        uint64_t rows, columns;
    } linears[] = {{"t_embedder.mlp.0", d, 256},
                   {"t_embedder.mlp.2", d, d},
                   {"blocks.0.attn.qkv", 3 * d, d},
                   {"blocks.0.attn.proj", d, d},
                   {"blocks.0.mlp.fc1", 4 * d, d},
                   {"blocks.0.mlp.fc2", d, 4 * d},
                   {"blocks.0.adaLN_modulation.1", 6 * d, d},
                   {"final_layer.adaLN_modulation.1", 2 * d, d},
                   {"final_layer.linear", 4 * t->out_channels, d},
                   {"projectors.0.0", 5, d}};
    dn_safetensors_writer *writer = NULL;
    char name[160];
    dn_status status = dn_make_folder(folder, &error);
    remove_file(folder, "config.json");
    if (status == DN_OK)
        status = dn_safetensors_writer_create(&writer, &error);
    for (size_t i = 0; i < (t->projectors ? 10 : 9) && status == DN_OK; i++) {
        snprintf(name, sizeof name, "%s.weight", linears[i].module);
        status = add_random(writer, name, 2, (uint64_t[]){linears[i].rows, linears[i].columns});
        snprintf(name, sizeof name, "%s.bias", linears[i].module);
        if (status == DN_OK)
            status = add_random(writer, name, 1, &linears[i].rows);
    }
    if (status == DN_OK)
        status = add_random(writer, "x_embedder.proj.weight", 4, (uint64_t[]){d, 4, 2, 2});
    if (status == DN_OK)
        status = add_random(writer, "x_embedder.proj.bias", 1, &d);
    if (status == DN_OK)
        status = add_random(writer, "y_embedder.embedding_table.weight", 2, (uint64_t[]){11, d});
    if (status == DN_OK && t->positions > 0)
        status = add_positions(writer, "pos_embed", t->positions, t->hidden, 0.0f);
    return status == DN_OK ? save(writer, folder) : status;
}

static uint32_t heads_of(const dn_plan *plan)
{
    for (uint32_t n = 0; n < plan->node_count; n++)
        if (plan->nodes[n].kind == DN_NODE_ATTENTION)
            return plan->nodes[n].heads;
    return 0;
}

static void shapes_are_recognised(void)
{
    static const struct {
        tiny file;
        dn_convention convention;
        uint32_t guided;
    } cases[] = {{{64, 8, 4, false}, DN_CONVENTION_GUIDED_DIFFUSION, 3},
                 {{64, 4, 2, false}, DN_CONVENTION_GUIDED_DIFFUSION, 3},
                 {{64, 4, 4, true}, DN_CONVENTION_REPA, 0}};
    for (size_t i = 0; i < 3; i++) {
        dn_model *model = NULL;
        CHECK_OK(write_tiny(&cases[i].file), error);
        CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
        CHECK(model->convention == cases[i].convention && model->guided_channels == cases[i].guided && model->null_rows == 1);
        CHECK(model->height == 2 * cases[i].file.positions && model->out_channels == cases[i].file.out_channels);
        CHECK(model->class_rows == 11 && heads_of(model->plan) == 1 && model->weights != NULL);
        dn_model_free(model);
    }
}

static void check_refusal(const char *rule)
{
    dn_model *model = NULL;
    dn_status status = dn_model_open(&model, folder, 0, 0, &error);
    dn_model_free(model);
    CHECK_MSG(status != DN_OK && strstr(error.message, rule) != NULL, "\"%s\" should say %s", error.message, rule);
}

static void what_a_file_cannot_tell_is_asked_for(void)
{
    CHECK_OK(write_original(NULL, "", 0.0f), error);
    check_refusal("num_heads");
    if (test_failed)
        return;
    CHECK_OK(write_tiny(&(tiny){64, 8, 0, false}), error);
    check_refusal("input_size");
    if (test_failed)
        return;
    CHECK_OK(write_original("{\"_class_name\":\"DiT\",\"num_heads\":3}", "", 0.01f), error);
    check_refusal("pos_embed: element 5");
    if (test_failed)
        return;
    CHECK_OK(write_tiny(&(tiny){64, 4, 4, true}), error);
    CHECK_OK(write_text(folder, "config.json", "{\"_class_name\":\"SiT\"}"), error);
    check_refusal("projectors.0.0");
}

/* ---- Shared embedders. */

/* Equal embedders are computed once; one number that differs, in a class that no row has, gives each block its own, and the same
 * answers. */
static void embedders_are_shared_where_equal(void)
{
    inputs in;
    dn_model *golden = NULL, *shared = NULL, *own = NULL;
    CHECK_MSG(inputs_open(&in), "%s", error.message);
    CHECK_OK(dn_model_open(&golden, BASE, 0, 0, &error), error);
    CHECK_OK(write_diffusers(1001), error);
    CHECK_OK(dn_model_open(&shared, diffusers_folder, 0, 0, &error), error);
    in.classes[0] = 4;
    in.classes[1] = 1000;
    CHECK_OK(write_diffusers(5), error);
    CHECK_OK(dn_model_open(&own, diffusers_folder, 0, 0, &error), error);
    CHECK(own->plan->weight_count == shared->plan->weight_count + 5 && own->plan->weight_count == golden->plan->weight_count);
    float *a = answer(shared, &in), *b = answer(own, &in), *c = answer(golden, &in);
    CHECK(a != NULL && b != NULL && c != NULL);
    CHECK(memcmp(a, b, in.count * sizeof *a) == 0 && memcmp(a, c, in.count * sizeof *a) != 0);
    free(a);
    free(b);
    free(c);
    in.classes[0] = 5;
    a = answer(shared, &in);
    b = answer(own, &in);
    CHECK(a != NULL && b != NULL && memcmp(a, b, in.count / 2 * sizeof *a) != 0);
    CHECK(memcmp(a + in.count / 2, b + in.count / 2, in.count / 2 * sizeof *a) == 0);
    free(a);
    free(b);
    dn_model_free(own);
    dn_model_free(shared);
    dn_model_free(golden);
    inputs_close(&in);
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-dit-%ld", (long)getpid());
    snprintf(diffusers_folder, sizeof diffusers_folder, "/tmp/denoised-dit-%ld-diffusers", (long)getpid());
    RUN(the_original_format_is_the_same_network);
    RUN(sit_and_dit_differ_in_meaning_alone);
    RUN(shapes_are_recognised);
    RUN(what_a_file_cannot_tell_is_asked_for);
    RUN(embedders_are_shared_where_equal);
    const char *const folders[] = {folder, diffusers_folder};
    for (size_t i = 0; i < 2; i++) {
        remove_file(folders[i], "config.json");
        remove_file(folders[i], WEIGHTS);
        rmdir(folders[i]);
    }
    return test_end();
}
