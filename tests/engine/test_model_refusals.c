/* Weight files and configurations that lie: each is refused with a sentence that names file, tensor or key, and rule. */
#include "tests/test.h"

#include <stdbool.h>
#include <unistd.h>

#include "base/file.h"
#include "format/json.h"
#include "format/safetensors.h"
#include "model/model.h"

#define BASE "tests/golden/unet_default"
#define VICTIM "down_blocks.1.resnets.0.conv_shortcut.weight"

static char folder[64];

typedef enum lie { LIE_NONE, LIE_MISSING, LIE_EXTRA, LIE_SHAPE, LIE_INTEGER, LIE_NAN, LIE_INFINITE } lie;

static dn_status add_tensor(dn_safetensors_writer *writer, const dn_safetensors *file, const dn_tensor_info *info, lie kind,
                            dn_error *error)
{
    bool victim = strcmp(info->name, VICTIM) == 0;
    if (victim && kind == LIE_MISSING)
        return DN_OK;
    uint64_t dims[DN_TENSOR_RANK_MAX];
    memcpy(dims, info->dims, sizeof dims);
    float *values = malloc(info->count * sizeof *values);
    dn_status status = dn_safetensors_read_f32(file, info, values, error);
    if (victim && kind == LIE_SHAPE) {
        dims[0] = info->dims[1];
        dims[1] = info->dims[0];
    }
    if (victim && (kind == LIE_NAN || kind == LIE_INFINITE))
        values[5] = kind == LIE_NAN ? NAN : INFINITY;
    if (status == DN_OK && victim && kind == LIE_INTEGER)
        status = dn_safetensors_writer_add_raw(writer, info->name, DN_I32, info->rank, dims, values, error);
    else if (status == DN_OK)
        status = dn_safetensors_writer_add_f32(writer, info->name, DN_F32, info->rank, dims, values, error);
    free(values);
    return status;
}

/* A copy of the golden folder whose weight file tells one lie. */
static dn_status write_folder(lie kind, dn_error *error)
{
    unsigned char *config = NULL;
    size_t bytes = 0;
    dn_safetensors *file = NULL;
    dn_safetensors_writer *writer = NULL;
    char path[160];
    snprintf(path, sizeof path, "%s/config.json", folder);
    dn_status status = dn_make_folder(folder, error);
    if (status == DN_OK)
        status = dn_file_read(&config, &bytes, BASE "/config.json", 1 << 20, error);
    if (status == DN_OK)
        status = dn_file_write(path, config, bytes, false, error);
    if (status == DN_OK)
        status = dn_safetensors_open(&file, BASE "/diffusion_pytorch_model.safetensors", error);
    if (status == DN_OK)
        status = dn_safetensors_writer_create(&writer, error);
    for (size_t i = 0; status == DN_OK && i < dn_safetensors_count(file); i++)
        status = add_tensor(writer, file, dn_safetensors_at(file, i), kind, error);
    if (status == DN_OK && kind == LIE_EXTRA)
        status = dn_safetensors_writer_add_f32(writer, "optimizer.step", DN_F32, 1, (uint64_t[]){1}, (float[]){1.0f}, error);
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, path, false, error);
    dn_safetensors_writer_free(writer);
    dn_safetensors_close(file);
    free(config);
    return status;
}

static void remove_file(const char *name)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

static void check_lie(lie kind, dn_status expected, const char *tensor, const char *rule)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(write_folder(kind, &error), error);
    dn_model *model = NULL;
    dn_status status = dn_model_open(&model, folder, 0, 0, &error);
    dn_model_free(model);
    CHECK_MSG(status == expected, "status %s, message: %s", dn_status_name(status), error.message);
    CHECK_MSG(strstr(error.message, "diffusion_pytorch_model.safetensors") && strstr(error.message, tensor) && strstr(error.message, rule),
              "%s", error.message);
}

static void an_honest_copy_opens(void)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(write_folder(LIE_NONE, &error), error);
    dn_model *model = NULL;
    CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
    bool right = model->class_rows == 11 && model->channels == 3 && model->height == 8 && strlen(model->weights_sha256) == 64;
    dn_model_free(model);
    CHECK(right);
}

static void a_missing_tensor(void)
{
    check_lie(LIE_MISSING, DN_INVALID, VICTIM, "missing");
}

static void an_extra_tensor(void)
{
    check_lie(LIE_EXTRA, DN_INVALID, "optimizer.step", "no such tensor");
}

static void a_wrong_shape(void)
{
    check_lie(LIE_SHAPE, DN_INVALID, VICTIM, "[16,8,1,1]");
}

static void a_wrong_type(void)
{
    check_lie(LIE_INTEGER, DN_INVALID, VICTIM, "I32");
}

static void a_nan_weight(void)
{
    check_lie(LIE_NAN, DN_NUMERIC, VICTIM, "NaN");
}

static void an_infinite_weight(void)
{
    check_lie(LIE_INFINITE, DN_NUMERIC, VICTIM, "infinite");
}

/* Any cut of the weight file is refused, never read past its end. */
static void a_truncated_file(void)
{
    dn_error error = {DN_OK, ""};
    CHECK_OK(write_folder(LIE_NONE, &error), error);
    char path[160];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    static const off_t lengths[] = {190000, 100000, 20000, 9000, 8, 3, 0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        CHECK(truncate(path, lengths[i]) == 0);
        dn_model *model = NULL;
        dn_status status = dn_model_open(&model, folder, 0, 0, &error);
        dn_model_free(model);
        CHECK_MSG(status != DN_OK && strstr(error.message, "diffusion_pytorch_model.safetensors"), "%ld bytes: %s", (long)lengths[i],
                  error.message);
    }
}

/* A configuration may claim a terabyte of weights: the file beside it says otherwise before any memory is taken. */
static void a_boastful_configuration(void)
{
    static const int widths[] = {16384, 16384};
    dn_error error = {DN_OK, ""};
    cJSON *config = NULL;
    dn_model *model = NULL;
    char path[160];
    CHECK_OK(write_folder(LIE_NONE, &error), error);
    snprintf(path, sizeof path, "%s/config.json", folder);
    CHECK_OK(dn_json_read_file(&config, path, 1 << 20, &error), error);
    cJSON_ReplaceItemInObjectCaseSensitive(config, "block_out_channels", cJSON_CreateIntArray(widths, 2));
    cJSON_ReplaceItemInObjectCaseSensitive(config, "layers_per_block", cJSON_CreateNumber(16));
    char *text = cJSON_PrintUnformatted(config);
    dn_status status = dn_file_write(path, text, strlen(text), false, &error);
    cJSON_free(text);
    cJSON_Delete(config);
    CHECK_OK(status, error);
    CHECK_MSG(dn_model_open(&model, folder, 0, 0, &error) == DN_INVALID && strstr(error.message, "shape must be ["), "%s", error.message);
}

static void what_stands_in_place_of_the_weights(void)
{
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    CHECK_OK(write_folder(LIE_NONE, &error), error);
    remove_file("diffusion_pytorch_model.safetensors");
    CHECK(dn_model_open(&model, folder, 0, 0, &error) == DN_INVALID && strstr(error.message, "there is no"));
    char path[160];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors.index.json", folder);
    CHECK_OK(dn_file_write(path, "{}", 2, false, &error), error);
    CHECK(dn_model_open(&model, folder, 0, 0, &error) == DN_INVALID && strstr(error.message, "index.json: weight_map"));
    remove_file("diffusion_pytorch_model.safetensors.index.json");
}

/* One key of a good configuration changed: the refusal names the key. */
static void keys_of_the_configuration(void)
{
    static const struct {
        const char *key, *value;
        dn_status status;
    } cases[] = {
        {"_class_name", "\"UNet3DModel\"", DN_UNSUPPORTED},
        {"_class_name", "7", DN_INVALID},
        {"sample_size", "9", DN_INVALID},
        {"sample_size", "null", DN_INVALID},
        {"sample_size", "[8]", DN_INVALID},
        {"sample_size", "100000", DN_INVALID},
        {"in_channels", "0", DN_INVALID},
        {"in_channels", "2.5", DN_INVALID},
        {"out_channels", "\"3\"", DN_INVALID},
        {"block_out_channels", "[]", DN_INVALID},
        {"block_out_channels", "[8,-16]", DN_INVALID},
        {"block_out_channels", "[8,18]", DN_INVALID},
        {"down_block_types", "[\"DownBlock2D\"]", DN_INVALID},
        {"down_block_types", "[\"DownBlock2D\",\"KDownBlock2D\"]", DN_UNSUPPORTED},
        {"up_block_types", "[\"UpBlock2D\",\"DownBlock2D\"]", DN_UNSUPPORTED},
        {"up_block_types", "7", DN_INVALID},
        {"layers_per_block", "0", DN_INVALID},
        {"layers_per_block", "1000", DN_INVALID},
        {"downsample_padding", "2", DN_INVALID},
        {"downsample_type", "\"fir\"", DN_UNSUPPORTED},
        {"act_fn", "\"tanh\"", DN_UNSUPPORTED},
        {"attention_head_dim", "7", DN_UNSUPPORTED},
        {"norm_num_groups", "3", DN_INVALID},
        {"norm_eps", "-1", DN_INVALID},
        {"resnet_time_scale_shift", "\"spatial\"", DN_UNSUPPORTED},
        {"resnet_time_scale_shift", "\"ada\"", DN_UNSUPPORTED},
        {"time_embedding_type", "\"wavelet\"", DN_UNSUPPORTED},
        {"class_embed_type", "\"identity\"", DN_UNSUPPORTED},
        {"class_embed_type", "\"projection\"", DN_UNSUPPORTED},
        {"down_block_types", "[\"CrossAttnDownBlock2D\",\"DownBlock2D\"]", DN_UNSUPPORTED},
        {"down_block_types", "[\"DownBlock2D\",\"AttnSkipBlock2D\"]", DN_UNSUPPORTED},
        {"up_block_types", "[\"SkipUpBlock2D\",\"UpBlock2D\"]", DN_UNSUPPORTED},
        {"norm_num_groups", "null", DN_INVALID},
        {"num_class_embeds", "0", DN_INVALID},
        {"num_class_embeds", "1e9", DN_INVALID},
        {"flip_sin_to_cos", "1", DN_INVALID},
        {"mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", DN_UNSUPPORTED},
        {"mid_block_scale_factor", "0", DN_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        cJSON *config = NULL;
        CHECK_OK(dn_json_read_file(&config, BASE "/config.json", 1 << 20, &error), error);
        cJSON_DeleteItemFromObjectCaseSensitive(config, cases[i].key);
        cJSON_AddItemToObject(config, cases[i].key, cJSON_Parse(cases[i].value));
        dn_model *model = NULL;
        dn_status status = dn_model_from_config(&model, config, "some/config.json", &error);
        cJSON_Delete(config);
        dn_model_free(model);
        CHECK_MSG(status == cases[i].status, "%s = %s: status %s, %s", cases[i].key, cases[i].value, dn_status_name(status), error.message);
        bool named = strstr(error.message, "some/config.json") != NULL;
        bool keyed = strstr(error.message, cases[i].key) != NULL || strcmp(cases[i].key, "block_out_channels") == 0;
        CHECK_MSG(named && keyed, "%s = %s: %s", cases[i].key, cases[i].value, error.message);
    }
}

/* Rules between keys: each refusal names one of them. */
static void keys_that_contradict_each_other(void)
{
    static const struct {
        const char *first, *first_value, *second, *second_value, *named;
    } cases[] = {
        {"time_embedding_type", "\"learned\"", "num_train_timesteps", "null", "num_train_timesteps"},
        {"time_embedding_type", "\"fourier\"", "class_embed_type", "\"timestep\"", "class_embed_type"},
        {"down_block_types", "[\"SkipDownBlock2D\",\"DownBlock2D\"]", "in_channels", "1", "in_channels"},
        {"up_block_types", "[\"SkipUpBlock2D\",\"SkipUpBlock2D\"]", "out_channels", "1", "out_channels"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        cJSON *config = NULL;
        CHECK_OK(dn_json_read_file(&config, BASE "/config.json", 1 << 20, &error), error);
        cJSON_DeleteItemFromObjectCaseSensitive(config, cases[i].first);
        cJSON_DeleteItemFromObjectCaseSensitive(config, cases[i].second);
        cJSON_AddItemToObject(config, cases[i].first, cJSON_Parse(cases[i].first_value));
        cJSON_AddItemToObject(config, cases[i].second, cJSON_Parse(cases[i].second_value));
        dn_model *model = NULL;
        dn_status status = dn_model_from_config(&model, config, "some/config.json", &error);
        cJSON_Delete(config);
        dn_model_free(model);
        CHECK_MSG(status != DN_OK && strstr(error.message, cases[i].named), "%s = %s: status %s, %s", cases[i].first, cases[i].first_value,
                  dn_status_name(status), error.message);
    }
}

/* What dn_model_save wrote opens again with the same weights: exactly in F32, rounded in F16. */
static void saving_and_opening_again(void)
{
    dn_error error = {DN_OK, ""};
    cJSON *config = NULL;
    dn_model *model = NULL, *again = NULL;
    CHECK_OK(dn_json_read_file(&config, BASE "/config.json", 1 << 20, &error), error);
    CHECK_OK(dn_model_open(&model, BASE, 0, 0, &error), error);
    for (int pass = 0; pass < 2; pass++) {
        CHECK_OK(dn_model_save(model, config, folder, pass == 0 ? DN_F32 : DN_F16, &error), error);
        CHECK_OK(dn_model_open(&again, folder, 0, 0, &error), error);
        double difference = 0.0;
        for (uint64_t i = 0; i < model->weights->total; i++)
            difference = fmax(difference, fabs((double)model->weights->storage[i] - (double)again->weights->storage[i]));
        CHECK(model->weights->total == again->weights->total);
        CHECK_MSG(pass == 0 ? difference == 0.0 : difference > 0.0 && difference < 2e-3, "difference %g", difference);
        dn_model_free(again);
        again = NULL;
    }
    model->weights->data[0][0] = NAN;
    CHECK(dn_model_save(model, config, folder, DN_F32, &error) == DN_NUMERIC);
    dn_model_free(model);
    cJSON_Delete(config);
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-refusals-%ld", (long)getpid());
    RUN(an_honest_copy_opens);
    RUN(a_missing_tensor);
    RUN(an_extra_tensor);
    RUN(a_wrong_shape);
    RUN(a_wrong_type);
    RUN(a_nan_weight);
    RUN(an_infinite_weight);
    RUN(a_truncated_file);
    RUN(a_boastful_configuration);
    RUN(what_stands_in_place_of_the_weights);
    RUN(keys_of_the_configuration);
    RUN(keys_that_contradict_each_other);
    RUN(saving_and_opening_again);
    remove_file("diffusion_pytorch_model.safetensors");
    remove_file("config.json");
    rmdir(folder);
    return test_end();
}
