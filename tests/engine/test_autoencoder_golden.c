/* AutoencoderKL against diffusers: both parts' answers in both precisions, every module's output that a node has, and refusals. */
#include "tests/engine/network_golden.h"

#include "format/json.h"
#include "model/autoencoder_kl.h"
#include "tests/engine/made_weights.h"

#define OUTPUT_ERROR_MAX 1e-5
#define ACTIVATION_ERROR_MAX 2e-5

/* One part of a golden folder at the size of its case. */
static dn_status open_part(dn_model **model, dn_safetensors **file, const char *name, const char *part, const char *input, dn_error *error)
{
    char folder[128], path[192];
    snprintf(folder, sizeof folder, "tests/golden/%s", name);
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    dn_status status = dn_safetensors_open(file, path, error);
    const dn_tensor_info *info = status == DN_OK ? dn_safetensors_find(*file, input) : NULL;
    if (info == NULL)
        return dn_fail(error, DN_INVALID, "%s: no %s", path, input);
    return dn_model_open_part(model, folder, part, (uint32_t)info->dims[2], (uint32_t)info->dims[3], error);
}

/* The opened decoder against the case's answers; takes both. */
static void compare_decoder(const char *name, dn_model *model, dn_safetensors *file, unsigned activations_min)
{
    dn_error error = {DN_OK, ""};
    size_t count = 0;
    float *latents = golden_tensor(file, "latent", NULL), *expected = golden_tensor(file, "decoded", &count);
    float *precise = golden_tensor(file, "decoded_f64", NULL);
    CHECK(latents != NULL && expected != NULL && precise != NULL);
    trace seen = {.file = file, .plan = model->plan, .prefix = "decoder"};
    dn_forward_rows in = {(uint32_t)dn_safetensors_find(file, "latent")->dims[0], latents, NULL, NULL};
    float *answers = run_network(model, &in, &seen, &error);
    CHECK_MSG(answers != NULL, "%s", error.message);
    double difference = relative_error(answers, expected, count), exact = relative_error(answers, precise, count);
    CHECK_MSG(seen.worst <= ACTIVATION_ERROR_MAX, "%s: %s is off by %.2e", name, seen.worst_name, seen.worst);
    CHECK_MSG(difference <= OUTPUT_ERROR_MAX && exact <= OUTPUT_ERROR_MAX, "%s: off by %.2e, by %.2e in double", name, difference, exact);
    CHECK_MSG(seen.compared >= activations_min, "%s: only %u modules were compared", name, seen.compared);
    CHECK(fabs(model->scaling_factor - 0.18215) < 1e-12 && model->shift_factor == 0.0 && model->out_channels == 3);
    free(answers);
    free(precise);
    free(expected);
    free(latents);
    dn_safetensors_close(file);
    dn_model_free(model);
}

static void check_decoder(const char *name, unsigned activations_min)
{
    dn_model *model = NULL;
    dn_safetensors *file = NULL;
    dn_error error = {DN_OK, ""};
    CHECK_OK(open_part(&model, &file, name, NULL, "latent", &error), error);
    compare_decoder(name, model, file, activations_min);
}

/* vae_default as releases before 0.15 stored it: attention under its first names, as 1x1 convolutions. */
static dn_status write_old(const char *folder, dn_error *error)
{
    static const char *const names[][2] = {
        {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
    char path[300];
    unsigned char *config = NULL;
    size_t bytes = 0;
    dn_safetensors *file = NULL;
    dn_safetensors_writer *writer = NULL;
    dn_status status = dn_make_folder(folder, error);
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (status == DN_OK)
        status = dn_file_read(&config, &bytes, "tests/golden/vae_default/config.json", 1 << 20, error);
    if (status == DN_OK)
        status = dn_file_write(path, config, bytes, false, error);
    if (status == DN_OK)
        status = dn_safetensors_open(&file, "tests/golden/vae_default/diffusion_pytorch_model.safetensors", error);
    if (status == DN_OK)
        status = dn_safetensors_writer_create(&writer, error);
    for (size_t i = 0; status == DN_OK && i < dn_safetensors_count(file); i++) {
        const dn_tensor_info *info = dn_safetensors_at(file, i);
        uint64_t dims[DN_TENSOR_RANK_MAX];
        uint32_t rank = info->rank;
        memcpy(dims, info->dims, sizeof dims);
        snprintf(path, sizeof path, "%s", info->name);
        for (size_t n = 0; n < 4; n++) {
            const char *at = strstr(info->name, names[n][0]);
            if (at == NULL)
                continue;
            snprintf(path, sizeof path, "%.*s%s%s", (int)(at - info->name), info->name, names[n][1], at + strlen(names[n][0]));
            dims[2] = dims[3] = 1;
            rank = rank == 2 ? 4 : rank;
        }
        float *values = golden_tensor(file, info->name, NULL);
        status = dn_safetensors_writer_add_f32(writer, path, DN_F32, rank, dims, values, error);
        free(values);
    }
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, path, false, error);
    dn_safetensors_writer_free(writer);
    dn_safetensors_close(file);
    free(config);
    return status;
}

static void old_names_decode_alike(void)
{
    char folder[128];
    dn_model *model = NULL;
    dn_safetensors *file = NULL;
    dn_error error = {DN_OK, ""};
    snprintf(folder, sizeof folder, "/tmp/denoised-vae-old-%ld", (long)getpid());
    dn_status status = write_old(folder, &error);
    if (status == DN_OK)
        status = dn_model_open(&model, folder, 5, 7, &error);
    made_folder_remove(folder);
    CHECK_OK(status, error);
    CHECK_OK(dn_safetensors_open(&file, "tests/golden/vae_default/case.safetensors", &error), error);
    compare_decoder("vae_default", model, file, 5);
}

static void check_encoder(const char *name, unsigned activations_min)
{
    dn_model *model = NULL;
    dn_safetensors *file = NULL;
    dn_error error = {DN_OK, ""};
    CHECK_OK(open_part(&model, &file, name, DN_AUTOENCODER_ENCODER, "image", &error), error);
    size_t count = 0;
    float *image = golden_tensor(file, "image", NULL), *mean = golden_tensor(file, "enc_mean", &count);
    float *log_variance = golden_tensor(file, "enc_logvar", NULL);
    CHECK(image != NULL && mean != NULL && log_variance != NULL);
    trace seen = {.file = file, .plan = model->plan, .prefix = "encoder"};
    dn_forward_rows in = {1, image, NULL, NULL};
    float *answers = run_network(model, &in, &seen, &error);
    CHECK_MSG(answers != NULL, "%s", error.message);
    double difference = relative_error(answers, mean, count), spread = relative_error(answers + count, log_variance, count);
    CHECK_MSG(seen.worst <= ACTIVATION_ERROR_MAX, "%s: %s is off by %.2e", name, seen.worst_name, seen.worst);
    CHECK_MSG(difference <= OUTPUT_ERROR_MAX && spread <= OUTPUT_ERROR_MAX, "%s: mean is off by %.2e, log-variance by %.2e", name,
              difference, spread);
    CHECK_MSG(seen.compared >= activations_min, "%s: only %u modules were compared", name, seen.compared);
    free(answers);
    free(log_variance);
    free(mean);
    free(image);
    dn_safetensors_close(file);
    dn_model_free(model);
}

static void decode_vae_default(void)
{
    check_decoder("vae_default", 5);
}

static void decode_vae_4lvl(void)
{
    check_decoder("vae_4lvl", 7);
}

static void encode_vae_default(void)
{
    check_encoder("vae_default", 3);
}

static void encode_vae_4lvl(void)
{
    check_encoder("vae_4lvl", 3);
}

/* One part of an autoencoder with made weights against the tensors that its answer is made of, in order. */
static void check_made(const char *part, const char *input, const char *first, const char *second)
{
    char folder[128];
    dn_model *model = NULL;
    dn_safetensors *file = NULL;
    dn_error error = {DN_OK, ""};
    snprintf(folder, sizeof folder, "/tmp/denoised-vae-%ld", (long)getpid());
    CHECK_OK(dn_safetensors_open(&file, "tests/golden/vae_variant/case.safetensors", &error), error);
    const dn_tensor_info *info = dn_safetensors_find(file, input);
    dn_status status = made_folder(folder, "tests/golden/vae_variant", &error);
    if (status == DN_OK)
        status = dn_model_open_part(&model, folder, part, (uint32_t)info->dims[2], (uint32_t)info->dims[3], &error);
    made_folder_remove(folder);
    CHECK_OK(status, error);
    size_t count = 0;
    float *samples = golden_tensor(file, input, NULL), *expected = golden_tensor(file, first, &count);
    float *more = second != NULL ? golden_tensor(file, second, NULL) : NULL;
    float *answers = run_network(model, &(dn_forward_rows){1, samples, NULL, NULL}, NULL, &error);
    CHECK_MSG(answers != NULL, "%s", error.message);
    double off = relative_error(answers, expected, count), off_more = more != NULL ? relative_error(answers + count, more, count) : 0.0;
    CHECK_MSG(off <= OUTPUT_ERROR_MAX && off_more <= OUTPUT_ERROR_MAX, "%s is off by %.2e, %.2e", part, off, off_more);
    CHECK(fabs(model->scaling_factor - 0.3611) < 1e-12 && fabs(model->shift_factor - 0.1159) < 1e-12);
    free(answers);
    free(more);
    free(expected);
    free(samples);
    dn_model_free(model);
    dn_safetensors_close(file);
}

/* No quantising convolutions, no attention, another activation, three levels, six latent channels. */
static void golden_vae_variant(void)
{
    check_made(DN_AUTOENCODER_DECODER, "latent", "decoded", NULL);
    if (!test_failed)
        check_made(DN_AUTOENCODER_ENCODER, "image", "enc_mean", "enc_logvar");
}

/* The plan of a configuration, as text with single quotes; its refusal must say `rule`. */
static dn_status build(const char *text, const char *part, dn_error *error)
{
    char json[1024];
    cJSON *config = NULL;
    dn_model model = {0};
    snprintf(json, sizeof json, "%s", text);
    for (char *at = json; *at != '\0'; at++)
        *at = *at == '\'' ? '"' : *at;
    dn_status status = dn_json_parse(&config, json, strlen(json), &(dn_json_limits){.bytes_max = sizeof json}, NULL, error);
    dn_build_input input = {.config = config, .config_path = "config.json", .part = part};
    if (status == DN_OK)
        status = dn_autoencoder_kl_build(&model, &input, error);
    dn_plan_free(model.plan);
    free(model.private_config);
    cJSON_Delete(config);
    return status;
}

static void configurations_are_checked(void)
{
    static const struct {
        const char *config, *part, *rule;
    } cases[] = {
        {"{'act_fn':'softplus'}", NULL, "act_fn"},
        {"{'block_out_channels':[32,48]}", NULL, "block_out_channels"},
        {"{'block_out_channels':[32,64]}", NULL, "down_block_types"},
        {"{'down_block_types':['AttnDownEncoderBlock2D']}", NULL, "AttnDownEncoderBlock2D"},
        {"{'up_block_types':['UpBlock2D']}", NULL, "UpBlock2D"},
        {"{'latents_mean':[0,0,0,0]}", NULL, "latents_mean"},
        {"{'latents_std':[1,1,1,1]}", NULL, "latents_std"},
        {"{'scaling_factor':0}", NULL, "scaling_factor"},
        {"{'sample_size':0}", NULL, "sample_size"},
        {"{'norm_num_groups':24}", NULL, "norm_num_groups"},
        {"{}", "middle", "middle"},
        {"{'block_out_channels':[32,32],'down_block_types':['DownEncoderBlock2D','DownEncoderBlock2D'],"
         "'up_block_types':['UpDecoderBlock2D','UpDecoderBlock2D'],'sample_size':33}",
         "encoder", "multiple of 2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_status status = build(cases[i].config, cases[i].part, &error);
        CHECK_MSG(status != DN_OK && strstr(error.message, cases[i].rule), "%s: \"%s\"", cases[i].config, error.message);
    }
    dn_error error = {DN_OK, ""};
    CHECK_OK(
        build("{'use_quant_conv':false,'use_post_quant_conv':false,'mid_block_add_attention':false,'shift_factor':0.1}", "encoder", &error),
        error);
}

int main(void)
{
    RUN(decode_vae_default);
    RUN(decode_vae_4lvl);
    RUN(encode_vae_default);
    RUN(encode_vae_4lvl);
    RUN(old_names_decode_alike);
    RUN(golden_vae_variant);
    RUN(configurations_are_checked);
    return test_end();
}
