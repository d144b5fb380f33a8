/* The diffusion transformer against diffusers: outputs in both precisions, and every module's output that a node has; and the
 * configurations that are refused. */
#include "tests/engine/network_golden.h"

#include "format/json.h"
#include "model/dit.h"
#include "tests/engine/made_weights.h"

#define OUTPUT_ERROR_MAX 1e-5
#define ACTIVATION_ERROR_MAX 2e-5

static uint32_t read_inputs(const dn_safetensors *file, float times[NETWORK_GOLDEN_ROWS_MAX], uint32_t classes[NETWORK_GOLDEN_ROWS_MAX])
{
    int64_t labels[NETWORK_GOLDEN_ROWS_MAX] = {0};
    const dn_tensor_info *info = dn_safetensors_find(file, "class_labels");
    if (info == NULL || info->count > NETWORK_GOLDEN_ROWS_MAX || dn_safetensors_read_i64(file, info, labels, NULL) != DN_OK ||
        dn_safetensors_read_f32(file, dn_safetensors_find(file, "timestep"), times, NULL) != DN_OK)
        return 0;
    for (uint64_t i = 0; i < info->count; i++)
        classes[i] = (uint32_t)labels[i];
    return (uint32_t)info->count;
}

static void check_golden(const char *name, uint32_t class_rows, unsigned activations_min)
{
    char folder[128], path[192];
    float times[NETWORK_GOLDEN_ROWS_MAX];
    uint32_t classes[NETWORK_GOLDEN_ROWS_MAX];
    dn_model *model = NULL;
    dn_safetensors *file = NULL;
    dn_error error = {DN_OK, ""};
    snprintf(folder, sizeof folder, "tests/golden/%s", name);
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    CHECK_OK(dn_model_open(&model, folder, 0, 0, &error), error);
    CHECK_OK(dn_safetensors_open(&file, path, &error), error);
    const uint32_t rows = read_inputs(file, times, classes);
    size_t count = 0;
    float *samples = golden_tensor(file, "hidden_states", NULL), *expected = golden_tensor(file, "output", &count);
    float *precise = golden_tensor(file, "output_f64", NULL);
    CHECK(rows > 0 && samples != NULL && expected != NULL && precise != NULL);
    trace seen = {.file = file, .plan = model->plan, .prefix = ""};
    dn_forward_rows in = {rows, samples, times, classes};
    float *answers = run_network(model, &in, &seen, &error);
    CHECK_MSG(answers != NULL, "%s: %s", name, error.message);
    CHECK(model->class_rows == class_rows);
    double difference = relative_error(answers, expected, count), exact = relative_error(answers, precise, count);
    CHECK_MSG(seen.worst <= ACTIVATION_ERROR_MAX, "%s: %s is off by %.2e", name, seen.worst_name, seen.worst);
    CHECK_MSG(difference <= OUTPUT_ERROR_MAX, "%s: output is off by %.2e", name, difference);
    CHECK_MSG(exact <= OUTPUT_ERROR_MAX, "%s: output_f64 is off by %.2e", name, exact);
    CHECK_MSG(seen.compared >= activations_min, "%s: only %u modules were compared", name, seen.compared);
    free(answers);
    free(precise);
    free(expected);
    free(samples);
    dn_safetensors_close(file);
    dn_model_free(model);
}

static void golden_dit_default(void)
{
    check_golden("dit_default", 1001, 8);
}

static void golden_dit_nosigma(void)
{
    check_golden("dit_nosigma", 11, 8);
}

/* A network with made weights, at a side (0: its own): the stored output is that of the answer's first channels. */
static void check_made(const char *name, uint32_t side, const char *samples_name, const char *output_name)
{
    char folder[128], path[192];
    float times[NETWORK_GOLDEN_ROWS_MAX];
    uint32_t classes[NETWORK_GOLDEN_ROWS_MAX];
    dn_model *model = NULL;
    dn_safetensors *file = NULL;
    dn_error error = {DN_OK, ""};
    snprintf(folder, sizeof folder, "/tmp/denoised-%s-%ld", name, (long)getpid());
    snprintf(path, sizeof path, "tests/golden/%s", name);
    dn_status status = made_folder(folder, path, &error);
    if (status == DN_OK)
        status = dn_model_open(&model, folder, side, side, &error);
    made_folder_remove(folder);
    CHECK_OK(status, error);
    snprintf(path, sizeof path, "tests/golden/%s/case.safetensors", name);
    CHECK_OK(dn_safetensors_open(&file, path, &error), error);
    const uint32_t rows = read_inputs(file, times, classes);
    size_t count = 0;
    float *samples = golden_tensor(file, samples_name, NULL), *expected = golden_tensor(file, output_name, &count);
    CHECK(rows > 0 && samples != NULL && expected != NULL);
    float *answers = run_network(model, &(dn_forward_rows){rows, samples, times, classes}, NULL, &error);
    CHECK_MSG(answers != NULL, "%s: %s", name, error.message);
    const size_t row = count / rows, own = (size_t)model->out_channels * model->height * model->width;
    double worst = 0.0;
    CHECK(row == own || 2 * row == own);
    for (uint32_t r = 0; r < rows; r++)
        worst = fmax(worst, relative_error(answers + r * own, expected + r * row, row));
    CHECK_MSG(worst <= OUTPUT_ERROR_MAX, "%s: %s is off by %.2e", name, output_name, worst);
    free(answers);
    free(expected);
    free(samples);
    dn_safetensors_close(file);
    dn_model_free(model);
}

/* Other patches, width, activation, biases, an affine norm with an epsilon that shows; and twice the side, which stretches positions. */
static void golden_dit_variant(void)
{
    check_made("dit_variant", 0, "sample", "output");
    if (!test_failed)
        check_made("dit_variant", 32, "sample_large", "output_large");
}

/* The originals by their own code. */
static void golden_dit_original(void)
{
    check_made("dit_original", 0, "sample", "output");
}

static void golden_sit_original(void)
{
    check_made("sit_original", 0, "sample", "output");
}

static dn_status parse(const char *text, bool original, uint32_t side, dn_error *error)
{
    char json[512];
    cJSON *config = NULL;
    dn_dit_config out;
    snprintf(json, sizeof json, "%s", text);
    for (char *at = json; *at != '\0'; at++)
        *at = *at == '\'' ? '"' : *at;
    dn_status status = dn_json_parse(&config, json, strlen(json), &(dn_json_limits){.bytes_max = sizeof json}, NULL, error);
    dn_build_input input = {.config = config, .config_path = "config.json", .height = side, .width = side};
    if (status == DN_OK)
        status = original ? dn_dit_original_config_parse(&out, config, &input, error) : dn_dit_config_parse(&out, &input, error);
    cJSON_Delete(config);
    return status;
}

static void configurations_are_checked(void)
{
    static const struct {
        const char *config, *rule;
        bool original;
    } cases[] = {
        {"{'norm_type':'ada_norm_single'}", "ada_norm_single", false},
        {"{'_class_name':'Transformer2DModel'}", "norm_type", false},
        {"{'activation_fn':'geglu'}", "activation_fn", false},
        {"{'cross_attention_dim':768}", "cross_attention_dim", false},
        {"{'num_vector_embeds':16}", "num_vector_embeds", false},
        {"{'attention_type':'gated'}", "attention_type", false},
        {"{'double_self_attention':true}", "double_self_attention", false},
        {"{'sample_size':9}", "sample_size", false},
        {"{'num_layers':0}", "num_layers", false},
        {"{'num_attention_heads':3,'attention_head_dim':3}", "multiple of 4", false},
        {"{'num_attention_heads':1000}", "attention_head_dim", false},
        {"{'hidden_size':40}", "num_heads", true},
        {"{'num_heads':7}", "num_heads", true},
        {"{'path_type':'cosine'}", "path_type", true},
        {"{'qk_norm':true}", "qk_norm", true},
        {"{'input_size':33}", "input_size", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        dn_error error = {DN_OK, ""};
        dn_status status = parse(cases[i].config, cases[i].original, 0, &error);
        CHECK_MSG(status != DN_OK && strstr(error.message, cases[i].rule), "%s: \"%s\"", cases[i].config, error.message);
    }
    dn_error error = {DN_OK, ""};
    CHECK_OK(parse("{}", false, 0, &error), error);
    CHECK_OK(parse("{'activation_fn':'gelu','norm_elementwise_affine':true,'attention_bias':false,'out_channels':8}", false, 64, &error),
             error);
    CHECK_OK(parse("{}", true, 0, &error), error);
    CHECK(parse("{}", false, 31, &error) != DN_OK);
}

int main(void)
{
    RUN(golden_dit_default);
    RUN(golden_dit_nosigma);
    RUN(golden_dit_variant);
    RUN(golden_dit_original);
    RUN(golden_sit_original);
    RUN(configurations_are_checked);
    return test_end();
}
