/* U-Nets in their authors' own formats, against their authors' own code in float64: EDM's networks and guided-diffusion's; and
 * that the order of q, k and v, and the names, are all that tells guided-diffusion's file from diffusers'. */
#include "tests/test.h"

#include "model/forward.h"
#include "tests/engine/made_weights.h"

#define OUTPUT_ERROR_MAX 1e-5
#define ROWS 3

static char folder[64];

/* Writes `text` as the folder's config.json with one key replaced. */
static dn_status change_config(const char *key, const char *value, dn_error *error)
{
    char path[128];
    cJSON *config = NULL;
    snprintf(path, sizeof path, "%s/config.json", folder);
    dn_status status = dn_json_read_file(&config, path, 1 << 20, error);
    if (status != DN_OK)
        return status;
    cJSON_DeleteItemFromObjectCaseSensitive(config, key);
    cJSON_AddItemToObject(config, key, cJSON_Parse(value));
    char *text = cJSON_PrintUnformatted(config);
    status = dn_file_write(path, text, strlen(text), false, error);
    cJSON_free(text);
    cJSON_Delete(config);
    return status;
}

/* The largest difference of a row from `expected`, relative to the row's largest value; -1 on failure. */
static double run_rows(const dn_model *model, const char *case_path, const char *expectation, dn_error *error)
{
    dn_safetensors *file = NULL;
    dn_forward *forward = NULL;
    double worst = -1.0;
    float *samples = NULL, *answers = NULL, *expected = NULL, times[ROWS] = {0};
    int64_t labels[ROWS] = {0};
    uint32_t classes[ROWS] = {0};
    dn_status status = dn_safetensors_open(&file, case_path, error);
    if (status != DN_OK)
        return -1.0;
    const dn_tensor_info *in = dn_safetensors_find(file, "sample"), *out = dn_safetensors_find(file, expectation);
    const dn_tensor_info *given = dn_safetensors_find(file, "class_labels");
    samples = malloc(in->count * sizeof *samples);
    answers = malloc(out->count * sizeof *answers);
    expected = malloc(out->count * sizeof *expected);
    status = dn_safetensors_read_f32(file, in, samples, error);
    if (status == DN_OK)
        status = dn_safetensors_read_f32(file, dn_safetensors_find(file, "timestep"), times, error);
    if (status == DN_OK)
        status = dn_safetensors_read_f32(file, out, expected, error);
    if (status == DN_OK && given != NULL)
        status = dn_safetensors_read_i64(file, given, labels, error);
    for (int i = 0; i < ROWS; i++)
        classes[i] = (uint32_t)labels[i];
    if (status == DN_OK)
        status = dn_forward_open(&forward, model, &(dn_forward_options){.threads = 2, .rows_max = ROWS}, error);
    if (status == DN_OK)
        status = dn_forward_run(forward, &(dn_forward_rows){ROWS, samples, times, model->class_rows ? classes : NULL}, answers, NULL, NULL,
                                error);
    for (uint64_t r = 0, row = out->count / ROWS; r < ROWS && status == DN_OK; r++) {
        double largest = 0.0, difference = 0.0;
        for (uint64_t i = r * row; i < (r + 1) * row; i++) {
            largest = fmax(largest, fabs((double)expected[i]));
            difference = fmax(difference, fabs((double)answers[i] - (double)expected[i]));
        }
        worst = fmax(worst, difference / largest);
    }
    dn_forward_close(forward);
    dn_safetensors_close(file);
    free(samples);
    free(answers);
    free(expected);
    return worst;
}

static void check_golden(const char *name, dn_convention convention, uint32_t class_rows, uint32_t null_rows)
{
    char from[96], path[128];
    dn_error error = {DN_OK, ""};
    dn_model *model = NULL;
    snprintf(from, sizeof from, "tests/golden/%s", name);
    snprintf(path, sizeof path, "%s/case.safetensors", from);
    CHECK_OK(made_folder(folder, from, &error), error);
    CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
    double worst = run_rows(model, path, "output", &error);
    bool means = model->convention == convention && model->class_rows == class_rows && model->null_rows == null_rows;
    bool sigma = convention != DN_CONVENTION_EDM || model->sigma_data == 0.5;
    dn_model_free(model);
    CHECK_MSG(worst >= 0.0 && worst <= OUTPUT_ERROR_MAX, "%s is off by %.2e %s", name, worst, error.message);
    CHECK(means);
    CHECK(sigma);
}

static void edm_ddpmpp(void)
{
    check_golden("edm_ddpmpp", DN_CONVENTION_EDM, 11, 1);
}

static void edm_ncsnpp(void)
{
    check_golden("edm_ncsnpp", DN_CONVENTION_EDM, 0, 0);
}

static void edm_skip(void)
{
    check_golden("edm_skip", DN_CONVENTION_EDM, 5, 1);
}

static void edm_residual_box(void)
{
    check_golden("edm_residual_box", DN_CONVENTION_EDM, 0, 0);
}

static void edm_adm(void)
{
    check_golden("edm_adm", DN_CONVENTION_EDM, 8, 1);
}

static void guided_diffusion_legacy(void)
{
    check_golden("guided_diffusion_legacy", DN_CONVENTION_GUIDED_DIFFUSION, 5, DN_NULL_ROWS_NONE);
}

static void guided_diffusion_new(void)
{
    check_golden("guided_diffusion_new", DN_CONVENTION_GUIDED_DIFFUSION, 0, DN_NULL_ROWS_NONE);
}

/* One key of a good configuration changed: the refusal names the key. */
static void check_refusals(const char *from, const char *const (*cases)[2], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        CHECK_OK(made_folder(folder, from, &error), error);
        CHECK_OK(change_config(cases[i][0], cases[i][1], &error), error);
        dn_status status = dn_model_open(&model, folder, 0, 0, &error);
        dn_model_free(model);
        CHECK_MSG(status != DN_OK && strstr(error.message, cases[i][0]), "%s = %s: status %s, %s", cases[i][0], cases[i][1],
                  dn_status_name(status), error.message);
    }
}

static void keys_of_edm(void)
{
    static const char *const cases[][2] = {
        {"precond", "\"vp\""},          {"embedding_type", "\"learned\""}, {"encoder_type", "\"dense\""}, {"decoder_type", "\"residual\""},
        {"resample_filter", "[1,2,1]"}, {"resample_filter", "[1,3,3,1]"},  {"sigma_data", "0"},           {"channel_mult", "[]"},
        {"img_resolution", "17"},       {"model_channels", "15"},          {"label_dim", "-1"},           {"attn_resolutions", "\"16\""},
    };
    check_refusals("tests/golden/edm_ddpmpp", cases, sizeof cases / sizeof cases[0]);
}

static void keys_of_guided_diffusion(void)
{
    static const char *const cases[][2] = {
        {"noise_schedule", "\"sqrt\""},    {"diffusion_steps", "4000"}, {"predict_xstart", "true"},
        {"num_head_channels", "24"},       {"channel_mult", "\"\""},    {"channel_mult", "\"1;2\""},
        {"attention_resolutions", "true"}, {"image_size", "15"},        {"num_channels", "33"},
    };
    check_refusals("tests/golden/guided_diffusion_legacy", cases, sizeof cases / sizeof cases[0]);
}

/* Settings that contradict the tensors are found by the tensors. */
static void tensors_that_do_not_fit(void)
{
    static const struct {
        const char *from, *key, *value, *tensor;
    } cases[] = {
        {"tests/golden/edm_ddpmpp", "attn_resolutions", "[16]", "block0"},
        {"tests/golden/edm_ddpmpp", "label_dim", "9", "map_label"},
        {"tests/golden/edm_ddpmpp", "label_dim", "0", "map_label"},
        {"tests/golden/guided_diffusion_legacy", "use_scale_shift_norm", "false", "emb_layers"},
        {"tests/golden/guided_diffusion_legacy", "resblock_updown", "false", "input_blocks.2.0.op"},
        {"tests/golden/guided_diffusion_legacy", "class_cond", "false", "label_emb"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        CHECK_OK(made_folder(folder, cases[i].from, &error), error);
        CHECK_OK(change_config(cases[i].key, cases[i].value, &error), error);
        dn_status status = dn_model_open(&model, folder, 0, 0, &error);
        dn_model_free(model);
        CHECK_MSG(status == DN_INVALID && strstr(error.message, cases[i].tensor), "%s = %s: status %s, %s", cases[i].key, cases[i].value,
                  dn_status_name(status), error.message);
    }
}

/* diffusers' names in tests/golden/unet_adm and guided-diffusion's, written down by hand. */
static const char *const places[][2] = {
    {"conv_in.", "input_blocks.0.0."},
    {"time_embedding.linear_1.", "time_embed.0."},
    {"time_embedding.linear_2.", "time_embed.2."},
    {"class_embedding.", "label_emb."},
    {"down_blocks.0.resnets.0.", "input_blocks.1.0."},
    {"down_blocks.0.downsamplers.0.", "input_blocks.2.0."},
    {"down_blocks.1.resnets.0.", "input_blocks.3.0."},
    {"down_blocks.1.attentions.0.", "input_blocks.3.1."},
    {"mid_block.resnets.0.", "middle_block.0."},
    {"mid_block.attentions.0.", "middle_block.1."},
    {"mid_block.resnets.1.", "middle_block.2."},
    {"up_blocks.0.resnets.0.", "output_blocks.0.0."},
    {"up_blocks.0.attentions.0.", "output_blocks.0.1."},
    {"up_blocks.0.resnets.1.", "output_blocks.1.0."},
    {"up_blocks.0.attentions.1.", "output_blocks.1.1."},
    {"up_blocks.0.upsamplers.0.", "output_blocks.1.2."},
    {"up_blocks.1.resnets.0.", "output_blocks.2.0."},
    {"up_blocks.1.resnets.1.", "output_blocks.3.0."},
    {"conv_norm_out.", "out.0."},
    {"conv_out.", "out.2."},
    {"norm1.", "in_layers.0."},
    {"conv1.", "in_layers.2."},
    {"time_emb_proj.", "emb_layers.1."},
    {"norm2.", "out_layers.0."},
    {"conv2.", "out_layers.3."},
    {"conv_shortcut.", "skip_connection."},
    {"group_norm.", "norm."},
    {"to_out.0.", "proj_out."},
};

/* Renames prefix by prefix. */
static void original_name(char out[256], const char *name)
{
    size_t used = 0;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        size_t length = strlen(places[i][0]);
        if (strncmp(name, places[i][0], length) != 0)
            continue;
        used += (size_t)snprintf(out + used, 256 - used, "%s", places[i][1]);
        name += length;
    }
    snprintf(out + used, 256 - used, "%s", name);
}

#define HEADS 2u /* 16 channels by 8 a head */

/* One of the three projections' rows to their place in the stacked tensor. */
static uint64_t stacked_row(uint64_t index, uint64_t row, uint64_t rows, bool new_order)
{
    uint64_t d = rows / HEADS;
    return new_order ? index * rows + row : (row / d * 3 + index) * d + row % d;
}

static dn_status add_stacked(dn_safetensors_writer *writer, const dn_safetensors *file, const dn_tensor_info *q, bool new_order,
                             dn_error *error)
{
    char name[256], part[256];
    uint64_t rows = q->dims[0], width = q->count / rows, dims[3] = {3 * rows, width, 1};
    float *stacked = malloc(3 * q->count * sizeof *stacked), *one = malloc(q->count * sizeof *one);
    dn_status status = DN_OK;
    snprintf(part, sizeof part, "%s", q->name);
    for (uint64_t index = 0; index < 3 && status == DN_OK; index++) {
        strstr(part, ".to_")[4] = "qkv"[index];
        status = dn_safetensors_read_f32(file, dn_safetensors_find(file, part), one, error);
        for (uint64_t row = 0; row < rows && status == DN_OK; row++)
            memcpy(stacked + stacked_row(index, row, rows, new_order) * width, one + row * width, width * sizeof *one);
    }
    original_name(name, q->name);
    char *at = strstr(name, "to_q.");
    memmove(at + 4, at + 5, strlen(at + 5) + 1);
    memcpy(at, "qkv.", 4);
    if (status == DN_OK)
        status = dn_safetensors_writer_add_f32(writer, name, DN_F32, q->rank == 2 ? 3 : 1, dims, stacked, error);
    free(stacked);
    free(one);
    return status;
}

static dn_status add_plain(dn_safetensors_writer *writer, const dn_safetensors *file, const dn_tensor_info *info, dn_error *error)
{
    char name[256];
    uint64_t dims[4] = {info->dims[0], info->dims[1], info->dims[2], info->dims[3]};
    uint32_t rank = info->rank;
    original_name(name, info->name);
    /* The original's projections are convolutions over a line of pixels. */
    if (strstr(name, ".proj_out.weight") != NULL)
        dims[rank++] = 1;
    float *values = malloc(info->count * sizeof *values);
    dn_status status = dn_safetensors_read_f32(file, info, values, error);
    if (status == DN_OK)
        status = dn_safetensors_writer_add_f32(writer, name, DN_F32, rank, dims, values, error);
    free(values);
    return status;
}

static dn_status write_permuted(bool new_order, dn_error *error)
{
    char path[128];
    dn_safetensors *file = NULL;
    dn_safetensors_writer *writer = NULL;
    char config[512];
    int length = snprintf(config, sizeof config,
                          "{\"_class_name\": \"GuidedDiffusionUNet\", \"image_size\": 8, \"num_channels\": 8, \"channel_mult\": \"1,2\","
                          "\"num_res_blocks\": 1, \"attention_resolutions\": \"4\", \"num_head_channels\": 8, \"class_cond\": true,"
                          "\"num_classes\": 10, \"learn_sigma\": true, \"resblock_updown\": true, \"norm_num_groups\": 4,"
                          "\"use_new_attention_order\": %s}",
                          new_order ? "true" : "false");
    dn_status status = dn_make_folder(folder, error);
    snprintf(path, sizeof path, "%s/config.json", folder);
    if (status == DN_OK)
        status = dn_file_write(path, config, (size_t)length, false, error);
    if (status == DN_OK)
        status = dn_safetensors_open(&file, "tests/golden/unet_adm/diffusion_pytorch_model.safetensors", error);
    if (status == DN_OK)
        status = dn_safetensors_writer_create(&writer, error);
    for (size_t i = 0; status == DN_OK && i < dn_safetensors_count(file); i++) {
        const dn_tensor_info *info = dn_safetensors_at(file, i);
        if (strstr(info->name, ".to_q.") != NULL)
            status = add_stacked(writer, file, info, new_order, error);
        else if (strstr(info->name, ".to_k.") == NULL && strstr(info->name, ".to_v.") == NULL)
            status = add_plain(writer, file, info, error);
    }
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", folder);
    if (status == DN_OK)
        status = dn_safetensors_writer_save(writer, path, false, error);
    dn_safetensors_writer_free(writer);
    dn_safetensors_close(file);
    return status;
}

static void diffusers_network_in_guided_diffusions_names(void)
{
    for (int new_order = 0; new_order < 2; new_order++) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        CHECK_OK(write_permuted(new_order, &error), error);
        CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
        double right = run_rows(model, "tests/golden/unet_adm/case.safetensors", "output_f64", &error);
        dn_model_free(model);
        CHECK_OK(change_config("use_new_attention_order", new_order ? "false" : "true", &error), error);
        CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
        double wrong = run_rows(model, "tests/golden/unet_adm/case.safetensors", "output_f64", &error);
        dn_model_free(model);
        CHECK_MSG(right >= 0.0 && right <= OUTPUT_ERROR_MAX, "order %d: off by %.2e %s", new_order, right, error.message);
        CHECK_MSG(wrong > 1e-3, "order %d taken for the other is off by no more than %.2e", new_order, wrong);
    }
}

/* ---- A published checkpoint without config.json is known by its shapes: the header alone is real, the rest is a hole. */

static size_t add_header_entry(char *out, size_t room, const char *name, const uint64_t *dims, uint32_t rank, uint64_t *offset)
{
    uint64_t bytes = 2;
    int used = snprintf(out, room, ",\"%s\":{\"dtype\":\"F16\",\"shape\":[", name);
    for (uint32_t d = 0; d < rank; d++) {
        used += snprintf(out + used, room - (size_t)used, "%s%llu", d ? "," : "", (unsigned long long)dims[d]);
        bytes *= dims[d];
    }
    used += snprintf(out + used, room - (size_t)used, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*offset,
                     (unsigned long long)(*offset + bytes));
    *offset += bytes;
    return (size_t)used;
}

static uint64_t write_header(char *out, size_t room, const dn_model *model, uint64_t *data)
{
    size_t used = (size_t)snprintf(out, room, "{\"__metadata__\":{}");
    for (uint32_t w = 0; w < model->plan->weight_count; w++) {
        const dn_weight_info *weight = &model->plan->weights[w];
        for (uint32_t p = 0; p < weight->part_count; p++) {
            dn_source source;
            uint64_t dims[4] = {weight->dims[0], weight->dims[1], weight->dims[2], weight->dims[3]};
            if (!model->naming(model, weight->parts[p], &source) || source.index != 0)
                continue;
            dims[0] = dims[0] / weight->part_count * source.count;
            used += add_header_entry(out + used, room - used, source.name, dims, weight->rank, data);
        }
    }
    used += (size_t)snprintf(out + used, room - used, "}");
    return used;
}

static dn_status write_hollow(const char *path, const char *config_text, dn_error *error)
{
    enum { ROOM = 1 << 19 };
    cJSON *config = cJSON_Parse(config_text);
    dn_model *model = NULL;
    char *text = malloc(ROOM);
    uint64_t data = 0;
    dn_status status = dn_model_from_config(&model, config, "config.json", error);
    cJSON_Delete(config);
    if (status != DN_OK) {
        free(text);
        return status;
    }
    uint64_t length = write_header(text + 8, ROOM - 8, model, &data);
    memcpy(text, &length, 8);
    status = dn_file_write(path, text, (size_t)length + 8, false, error);
    if (status == DN_OK && truncate(path, (off_t)(length + 8 + data)) != 0)
        status = dn_fail(error, DN_IO, "%s: cannot grow", path);
    free(text);
    dn_model_free(model);
    return status;
}

static void published_networks_are_recognised(void)
{
    static const struct {
        const char *config;
        uint32_t side, class_rows;
        bool cosine;
        dn_layout layout;
        uint32_t heads; /* of the coarsest level */
        double millions; /* of parameters, as published (Dhariwal & Nichol 2021; without classes a million less) */
    } cases[] = {
        {"{\"_class_name\":\"GuidedDiffusionUNet\",\"image_size\":64,\"num_channels\":192,\"num_res_blocks\":3,\"num_head_channels\":64,"
         "\"attention_resolutions\":\"32,16,8\",\"resblock_updown\":true,\"class_cond\":true,\"learn_sigma\":true}",
         64, 1000, true, DN_LAYOUT_ROWS, 12, 296},
        {"{\"_class_name\":\"GuidedDiffusionUNet\",\"image_size\":128,\"num_channels\":256,\"num_heads\":4,\"resblock_updown\":true,"
         "\"attention_resolutions\":\"32,16,8\",\"class_cond\":true,\"learn_sigma\":true}",
         128, 1000, false, DN_LAYOUT_HEADS_ROWS, 4, 422},
        {"{\"_class_name\":\"GuidedDiffusionUNet\",\"image_size\":256,\"num_channels\":256,\"num_head_channels\":64,"
         "\"attention_resolutions\":\"32,16,8\",\"resblock_updown\":true,\"learn_sigma\":true}",
         256, 0, false, DN_LAYOUT_HEADS_ROWS, 16, 553},
        {"{\"_class_name\":\"GuidedDiffusionUNet\",\"image_size\":512,\"num_channels\":256,\"num_head_channels\":64,"
         "\"attention_resolutions\":\"32,16,8\",\"resblock_updown\":true,\"class_cond\":true,\"learn_sigma\":true}",
         512, 1000, false, DN_LAYOUT_HEADS_ROWS, 16, 559},
    };
    char path[128];
    snprintf(path, sizeof path, "%s.safetensors", folder);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_model *model = NULL;
        dn_source source = {.heads = 0};
        CHECK_OK(write_hollow(path, cases[i].config, &error), error);
        dn_status status = dn_model_describe(&model, path, 0, 0, &error);
        unlink(path);
        CHECK_MSG(status == DN_OK, "%u pixels: %s", cases[i].side, error.message);
        bool right = model->width == cases[i].side && model->height == cases[i].side && model->class_rows == cases[i].class_rows &&
                     model->cosine_schedule == cases[i].cosine && model->out_channels == 6 &&
                     model->naming(model, "mid_block.attentions.0.to_k.weight", &source);
        double millions = (double)dn_plan_parameters(model->plan) / 1e6;
        bool attends = source.layout == cases[i].layout && source.heads == cases[i].heads && source.index == 1;
        dn_model_free(model);
        CHECK_MSG(right && attends, "%u pixels", cases[i].side);
        CHECK_MSG(fabs(millions - cases[i].millions) < 0.6, "%u pixels: %.1f million parameters", cases[i].side, millions);
    }
}

int main(void)
{
    snprintf(folder, sizeof folder, "/tmp/denoised-originals-%ld", (long)getpid());
    RUN(edm_ddpmpp);
    RUN(edm_ncsnpp);
    RUN(edm_skip);
    RUN(edm_residual_box);
    RUN(edm_adm);
    RUN(guided_diffusion_legacy);
    RUN(guided_diffusion_new);
    RUN(keys_of_edm);
    RUN(keys_of_guided_diffusion);
    RUN(tensors_that_do_not_fit);
    RUN(diffusers_network_in_guided_diffusions_names);
    RUN(published_networks_are_recognised);
    made_folder_remove(folder);
    return test_end();
}
