/* Models out of every kind of file: the same weights, bit for bit, whichever lies in the folder; and which one is taken. */
#include "tests/test.h"

#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"
#include "model/model.h"
#include "tests/engine/torch_writer.h"

#define BASE "tests/golden/unet_default"
#define PLAIN "diffusion_pytorch_model.safetensors"
#define TENSORS_MAX 200

static char folder[64];

static const char *at(const char *name)
{
    static char path[4][200];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* Everything that a test may leave in the folder. */
static void clear_folder(void)
{
    static const char *const names[] = {PLAIN,
                                        "config.json",
                                        "diffusion_pytorch_model.fp16.safetensors",
                                        PLAIN ".index.json",
                                        "diffusion_pytorch_model.bin",
                                        "diffusion_pytorch_model.bin.index.json",
                                        "model.safetensors",
                                        "one.safetensors",
                                        "two.safetensors",
                                        "one.bin",
                                        "two.bin",
                                        "weights.pt",
                                        "weights.pth",
                                        "weights.ckpt",
                                        "notes.txt",
                                        ".hidden.pt"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(at(names[i]));
}

static void write_file(const char *name, const void *bytes, size_t count)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(dn_file_write(at(name), bytes, count, false, &error), error);
}

static void copy_config(void)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    dn_error error = {DN_OK, ""};
    CHECK_OK(dn_file_read(&bytes, &count, BASE "/config.json", 1 << 20, &error), error);
    write_file("config.json", bytes, count);
    free(bytes);
}

/* The golden folder's tensors, or those of them whose number is `which` modulo 2 (2: all), as safetensors or as a torch file. */
static void write_weights(const char *name, int which, bool torch)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    dn_safetensors_writer *writer = NULL;
    static zip_maker zip;
    bytes_maker pickle = {0};
    float *storages[TENSORS_MAX] = {NULL};
    size_t counts[TENSORS_MAX], used = 0;
    CHECK_OK(dn_tensors_open(&tensors, BASE "/" PLAIN, &error), error);
    CHECK_OK(dn_safetensors_writer_create(&writer, &error), error);
    begin_pickle(&pickle);
    for (size_t i = 0; i < dn_tensors_count(tensors); i++) {
        const dn_tensor_info *info = dn_tensors_at(tensors, i);
        if (which != 2 && i % 2 != (size_t)which)
            continue;
        int64_t dims[DN_TENSOR_RANK_MAX], strides[DN_TENSOR_RANK_MAX], stride = 1;
        for (uint32_t d = info->rank; d-- > 0; stride *= dims[d]) {
            dims[d] = (int64_t)info->dims[d];
            strides[d] = stride;
        }
        char key[24];
        snprintf(key, sizeof key, "%zu", used);
        CHECK(used < TENSORS_MAX);
        counts[used] = info->count;
        storages[used] = malloc(info->count * sizeof(float));
        CHECK_OK(dn_tensors_read_f32(tensors, info, storages[used], &error), error);
        CHECK_OK(dn_safetensors_writer_add_f32(writer, info->name, DN_F32, info->rank, info->dims, storages[used], &error), error);
        put_text(&pickle, info->name);
        put_tensor(&pickle, key, (int64_t)info->count, 0, info->rank, dims, strides);
        put_op(&pickle, 's');
        used++;
    }
    put_op(&pickle, '.');
    if (torch) {
        make_torch_file(&zip, &pickle, (const float *const *)storages, counts, used);
        write_file(name, zip.out.bytes, zip.out.used);
    } else {
        CHECK_OK(dn_safetensors_writer_save(writer, at(name), false, &error), error);
    }
    for (size_t i = 0; i < used; i++)
        free(storages[i]);
    free(pickle.bytes);
    free(zip.out.bytes);
    zip.out = (bytes_maker){0};
    dn_safetensors_writer_free(writer);
    dn_tensors_close(tensors);
}

/* The weight_map of two shards that write_weights made. */
static void write_index(const char *name, const char *even, const char *odd)
{
    dn_error error = {DN_OK, ""};
    dn_tensors *tensors = NULL;
    bytes_maker text = {0};
    CHECK_OK(dn_tensors_open(&tensors, BASE "/" PLAIN, &error), error);
    put_bytes(&text, "{\"weight_map\":{", 15);
    for (size_t i = 0; i < dn_tensors_count(tensors); i++) {
        char line[DN_TENSOR_NAME_BYTES_MAX + 64];
        int bytes = snprintf(line, sizeof line, "%s\"%s\":\"%s\"", i ? "," : "", dn_tensors_at(tensors, i)->name, i % 2 ? odd : even);
        put_bytes(&text, line, (size_t)bytes);
    }
    put_bytes(&text, "}}", 2);
    write_file(name, text.bytes, text.used);
    free(text.bytes);
    dn_tensors_close(tensors);
}

/* Opens the folder (or the file) and compares it with the golden one; "" when all is the same. */
static const char *compare(const char *path)
{
    static char said[600];
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL, *base = NULL, *described = NULL;
    said[0] = '\0';
    if (dn_model_open(&base, BASE, 0, 0, &error) != DN_OK || dn_model_open(&model, path, 0, 0, &error) != DN_OK ||
        dn_model_describe(&described, path, 0, 0, &error) != DN_OK)
        snprintf(said, sizeof said, "%s", error.message);
    else if (model->weights->total != base->weights->total ||
             memcmp(model->weights->storage, base->weights->storage, base->weights->total * sizeof(float)) != 0)
        snprintf(said, sizeof said, "%s: other weights", path);
    else if (described->weights != NULL || described->weights_sha256[0] != '\0' || described->class_rows != base->class_rows)
        snprintf(said, sizeof said, "%s: its description differs", path);
    else if (strlen(model->weights_sha256) != 64)
        snprintf(said, sizeof said, "%s: no hash", path);
    dn_model_free(model);
    dn_model_free(base);
    dn_model_free(described);
    return said;
}

static void every_form_holds_the_same_weights(void)
{
    static const char *const forms[] = {PLAIN,
                                        "diffusion_pytorch_model.fp16.safetensors",
                                        "diffusion_pytorch_model.bin",
                                        "weights.pt",
                                        "weights.pth",
                                        "weights.ckpt",
                                        "one.bin",
                                        "model.safetensors",
                                        "one.safetensors"};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0] && !test_failed; i++) {
        clear_folder();
        copy_config();
        write_file("notes.txt", "no weights", 10);
        write_file(".hidden.pt", "no weights", 10);
        write_weights(forms[i], 2, strstr(forms[i], ".safetensors") == NULL);
        if (test_failed)
            return;
        const char *said = compare(folder);
        CHECK_MSG(said[0] == '\0', "%s: %s", forms[i], said);
    }
}

/* A file that is named itself, out of several. */
static void a_file_instead_of_a_folder(void)
{
    clear_folder();
    copy_config();
    write_weights("one.safetensors", 2, false);
    write_weights("weights.pt", 2, true);
    if (test_failed)
        return;
    const char *said = compare(at("weights.pt"));
    CHECK_MSG(said[0] == '\0', "%s", said);
    said = compare(at("one.safetensors"));
    CHECK_MSG(said[0] == '\0', "%s", said);
}

static void shards_hold_the_same_weights(void)
{
    for (int form = 0; form < 3 && !test_failed; form++) {
        const char *even = form == 0 ? "one.safetensors" : "one.bin", *odd = form == 1 ? "two.bin" : "two.safetensors";
        clear_folder();
        copy_config();
        write_weights(even, 0, form != 0);
        write_weights(odd, 1, form == 1);
        write_index(form == 1 ? "diffusion_pytorch_model.bin.index.json" : PLAIN ".index.json", even, odd);
        if (test_failed)
            return;
        const char *said = compare(folder);
        CHECK_MSG(said[0] == '\0', "form %d: %s", form, said);
    }
}

/* Each file in its turn is the one that is opened: rubbish stands in all that come after it. */
static void the_order_of_choice(void)
{
    static const char *const order[] = {PLAIN,
                                        "diffusion_pytorch_model.fp16.safetensors",
                                        PLAIN ".index.json",
                                        "diffusion_pytorch_model.bin",
                                        "diffusion_pytorch_model.bin.index.json",
                                        "model.safetensors",
                                        "weights.pt"};
    size_t count = sizeof order / sizeof order[0];
    for (size_t first = 0; first < count; first++) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        clear_folder();
        copy_config();
        for (size_t i = first; i < count; i++)
            write_file(order[i], "rubbish", 7);
        CHECK(dn_model_open(&model, folder, 0, 0, &error) == DN_INVALID);
        CHECK_MSG(strstr(error.message, at(order[first])), "%s: %s", order[first], error.message);
    }
}

static void several_files_are_refused_by_name(void)
{
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    clear_folder();
    copy_config();
    write_weights("one.safetensors", 2, false);
    write_weights("weights.pt", 2, true);
    CHECK(dn_model_open(&model, folder, 0, 0, &error) == DN_INVALID);
    CHECK_MSG(strstr(error.message, "one.safetensors") && strstr(error.message, "weights.pt"), "%s", error.message);
    clear_folder();
    copy_config();
    CHECK(dn_model_open(&model, folder, 0, 0, &error) == DN_INVALID && strstr(error.message, "there is no " PLAIN));
    CHECK(dn_model_describe(&model, folder, 0, 0, &error) == DN_INVALID && strstr(error.message, "there is no " PLAIN));
}

/* Nor is the next one taken for a link that leads nowhere, or a guess for the configuration that it should lead to. */
static void links_to_nowhere_are_named(void)
{
    static const char *const names[] = {PLAIN, "config.json"};
    for (size_t i = 0; i < 2; i++) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        clear_folder();
        copy_config();
        write_weights("diffusion_pytorch_model.bin", 2, true);
        unlink(at(names[i]));
        CHECK(symlink("../blobs/nowhere", at(names[i])) == 0);
        CHECK_MSG(dn_model_open(&model, folder, 0, 0, &error) == DN_IO && strstr(error.message, at(names[i])), "%s", error.message);
    }
}

/* A configuration that cannot be built is the reason that is told, whether there are weights or not. */
static void a_bad_configuration_without_weights(void)
{
    static const char config[] = "{\"_class_name\": \"UNet2DModel\", \"sample_size\": 8, \"act_fn\": \"tanh\"}";
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    clear_folder();
    write_file("config.json", config, sizeof config - 1);
    CHECK_MSG(dn_model_open(&model, folder, 0, 0, &error) == DN_UNSUPPORTED && strstr(error.message, "act_fn"), "%s", error.message);
    write_file("config.json", "{\"_class_name\": \"UNet3DModel\"}", 30);
    CHECK_MSG(dn_model_open(&model, folder, 0, 0, &error) == DN_UNSUPPORTED && strstr(error.message, "UNet3DModel"), "%s", error.message);
    write_file("config.json", config, sizeof config - 1);
    write_file(PLAIN, "rubbish", 7);
    CHECK_MSG(dn_model_describe(&model, folder, 0, 0, &error) == DN_UNSUPPORTED && strstr(error.message, "act_fn"), "%s", error.message);
}

/* A description reads no weights: NaN passes it and not the opening; a missing tensor fails both. */
static void a_description_reads_headers_alone(void)
{
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    unsigned char *bytes = NULL;
    size_t count = 0;
    clear_folder();
    copy_config();
    CHECK_OK(dn_file_read(&bytes, &count, BASE "/" PLAIN, 1 << 24, &error), error);
    memset(bytes + count - 4, 0xFF, 4);
    write_file(PLAIN, bytes, count);
    free(bytes);
    CHECK(dn_model_open(&model, folder, 0, 0, &error) == DN_NUMERIC && strstr(error.message, "NaN"));
    CHECK_OK(dn_model_describe(&model, folder, 0, 0, &error), error);
    CHECK(model->weights == NULL && model->plan != NULL && model->height == 8);
    dn_model_free(model);
    model = NULL;
    write_weights(PLAIN, 0, false);
    CHECK(dn_model_describe(&model, folder, 0, 0, &error) == DN_INVALID && strstr(error.message, "missing") && !model);
}

static void damage_to_a_torch_file_is_found_before_it_is_a_weight(void)
{
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    unsigned char *bytes = NULL;
    size_t count = 0;
    clear_folder();
    copy_config();
    write_weights("weights.pt", 2, true);
    CHECK_OK(dn_file_read(&bytes, &count, at("weights.pt"), 1 << 24, &error), error);
    bytes[count / 2] ^= 0x10; /* in the middle of the largest part: numbers */
    write_file("weights.pt", bytes, count);
    free(bytes);
    CHECK_MSG(dn_model_open(&model, folder, 0, 0, &error) == DN_INVALID && strstr(error.message, "checksum"), "%s", error.message);
}

/* ---- A training checkpoint of the original DiT, of width 64, without a config.json. */
#define WIDTH 64
#define CLASSES 10
#define TOKENS 16

static float *filled[2 * TENSORS_MAX];
static size_t filled_count[2 * TENSORS_MAX], filled_used;

/* A tensor of numbers that depend on its name and on the dictionary it is in. */
static void put_filled(bytes_maker *pickle, const char *name, size_t rank, const int64_t *dims, float base)
{
    int64_t strides[4], count = 1;
    for (size_t d = rank; d-- > 0;) {
        strides[d] = count;
        count *= dims[d];
    }
    char key[24];
    snprintf(key, sizeof key, "%zu", filled_used);
    float *numbers = malloc((size_t)count * sizeof *numbers);
    for (int64_t i = 0; i < count; i++)
        numbers[i] = base + (float)i / 1024.0f;
    if (strcmp(name, "pos_embed") == 0)
        for (int64_t i = 0; i < count; i++) { /* sines and cosines of the column, then of the row, of 4x4 positions */
            int64_t token = i / WIDTH, c = i % WIDTH, inside = c % (WIDTH / 2), quarter = WIDTH / 4;
            double angle = (double)(c < WIDTH / 2 ? token % 4 : token / 4) * pow(10000.0, -(double)(inside % quarter) / (double)quarter);
            numbers[i] = (float)(inside < quarter ? sin(angle) : cos(angle));
        }
    filled[filled_used] = numbers;
    filled_count[filled_used++] = (size_t)count;
    put_text(pickle, name);
    put_tensor(pickle, key, count, 0, rank, dims, strides);
    put_op(pickle, 's');
}

static void put_network(bytes_maker *pickle, float base)
{
    static const struct {
        const char *name;
        size_t rank;
        int64_t dims[4];
    } tensors[] = {
        {"pos_embed", 3, {1, TOKENS, WIDTH}},
        {"x_embedder.proj.weight", 4, {WIDTH, 4, 2, 2}},
        {"x_embedder.proj.bias", 1, {WIDTH}},
        {"t_embedder.mlp.0.weight", 2, {WIDTH, 256}},
        {"t_embedder.mlp.0.bias", 1, {WIDTH}},
        {"t_embedder.mlp.2.weight", 2, {WIDTH, WIDTH}},
        {"t_embedder.mlp.2.bias", 1, {WIDTH}},
        {"y_embedder.embedding_table.weight", 2, {CLASSES + 1, WIDTH}},
        {"blocks.0.attn.qkv.weight", 2, {3 * WIDTH, WIDTH}},
        {"blocks.0.attn.qkv.bias", 1, {3 * WIDTH}},
        {"blocks.0.attn.proj.weight", 2, {WIDTH, WIDTH}},
        {"blocks.0.attn.proj.bias", 1, {WIDTH}},
        {"blocks.0.mlp.fc1.weight", 2, {4 * WIDTH, WIDTH}},
        {"blocks.0.mlp.fc1.bias", 1, {4 * WIDTH}},
        {"blocks.0.mlp.fc2.weight", 2, {WIDTH, 4 * WIDTH}},
        {"blocks.0.mlp.fc2.bias", 1, {WIDTH}},
        {"blocks.0.adaLN_modulation.1.weight", 2, {6 * WIDTH, WIDTH}},
        {"blocks.0.adaLN_modulation.1.bias", 1, {6 * WIDTH}},
        {"final_layer.linear.weight", 2, {32, WIDTH}},
        {"final_layer.linear.bias", 1, {32}},
        {"final_layer.adaLN_modulation.1.weight", 2, {2 * WIDTH, WIDTH}},
        {"final_layer.adaLN_modulation.1.bias", 1, {2 * WIDTH}},
    };
    put_op(pickle, '}');
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; i++)
        put_filled(pickle, tensors[i].name, tensors[i].rank, tensors[i].dims, base + (float)i);
    put_op(pickle, 's');
}

static void write_training_checkpoint(const char *name)
{
    static zip_maker zip;
    bytes_maker pickle = {0};
    begin_pickle(&pickle);
    put_text(&pickle, "model");
    put_network(&pickle, 100.0f);
    put_text(&pickle, "ema");
    put_network(&pickle, 200.0f);
    put_text(&pickle, "args");
    put_global(&pickle, "argparse", "Namespace");
    put_bytes(&pickle, ")\x81}", 3);
    put_text(&pickle, "lr");
    put_bytes(&pickle, "G\x3f\x1a\x36\xe2\xeb\x1c\x43\x2dsbs.", 13);
    make_torch_file(&zip, &pickle, (const float *const *)filled, filled_count, filled_used);
    write_file(name, zip.out.bytes, zip.out.used);
    for (size_t i = 0; i < filled_used; i++)
        free(filled[i]);
    filled_used = 0;
    free(pickle.bytes);
    free(zip.out.bytes);
    zip.out = (bytes_maker){0};
}

/* The first float of a part of the plan's weights; NaN when the plan has none of that name. */
static float first_of(const dn_model *model, const char *part)
{
    for (uint32_t w = 0; w < model->plan->weight_count; w++) {
        const dn_weight_info *weight = &model->plan->weights[w];
        for (uint32_t p = 0; p < weight->part_count; p++)
            if (strcmp(weight->parts[p], part) == 0)
                return model->weights->data[w][p * (weight->count / weight->part_count)];
    }
    return NAN;
}

static void check_average(const char *path, const char *class_name)
{
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    CHECK_OK(dn_model_open(&model, path, 0, 0, &error), error);
    CHECK_MSG(strcmp(model->architecture, class_name) == 0 && model->class_rows == CLASSES + 1 && model->height == 8 &&
                  model->channels == 4 && model->out_channels == 8,
              "%s of %ux%u", model->architecture, model->height, model->width);
    CHECK(first_of(model, "pos_embed.proj.weight") == 201.0f);
    CHECK(first_of(model, "transformer_blocks.0.attn1.to_q.weight") == 208.0f);
    CHECK(first_of(model, "transformer_blocks.0.attn1.to_k.weight") == 208.0f + (float)(WIDTH * WIDTH) / 1024.0f);
    CHECK(first_of(model, "transformer_blocks.0.attn1.to_v.bias") == 209.0f + (float)(2 * WIDTH) / 1024.0f);
    dn_model_free(model);
}

static void a_training_checkpoint_without_configuration(void)
{
    clear_folder();
    write_training_checkpoint("weights.pt");
    check_average(folder, "DiT");
    if (!test_failed)
        check_average(at("weights.pt"), "DiT");
}

static void a_training_checkpoint_with_a_class_name(void)
{
    static const char config[] = "{\"_class_name\": \"SiT\", \"num_heads\": 4}";
    clear_folder();
    write_training_checkpoint("weights.ckpt");
    write_file("config.json", config, sizeof config - 1);
    check_average(folder, "SiT");
    if (!test_failed)
        check_average(at("weights.ckpt"), "SiT");
}

static void tensors_of_no_known_network(void)
{
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    CHECK(dn_model_open(&model, "tests/golden/torch/training.pt", 0, 0, &error) == DN_UNSUPPORTED);
    CHECK_MSG(strstr(error.message, "no network known here") && strstr(error.message, "training.pt"), "%s", error.message);
    CHECK(dn_model_open(&model, "tests/golden/none", 0, 0, &error) == DN_IO && !model);
}

int main(void)
{
    dn_error error;
    snprintf(folder, sizeof folder, "/tmp/denoised-files-%ld", (long)getpid());
    if (dn_make_folder(folder, &error) != DN_OK)
        return 1;
    RUN(every_form_holds_the_same_weights);
    RUN(a_file_instead_of_a_folder);
    RUN(shards_hold_the_same_weights);
    RUN(the_order_of_choice);
    RUN(several_files_are_refused_by_name);
    RUN(links_to_nowhere_are_named);
    RUN(a_bad_configuration_without_weights);
    RUN(a_description_reads_headers_alone);
    RUN(damage_to_a_torch_file_is_found_before_it_is_a_weight);
    RUN(a_training_checkpoint_without_configuration);
    RUN(a_training_checkpoint_with_a_class_name);
    RUN(tensors_of_no_known_network);
    clear_folder();
    rmdir(folder);
    return test_end();
}
