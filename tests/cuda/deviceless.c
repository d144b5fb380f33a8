/* Every convolution and attention of the models that this project serves, planned by cuDNN for an H200 where none is: each must have one
 * configuration that serves all batch sizes (nvidia/choose.c), without code that is compiled when a convolution is planned, with a bounded
 * workspace. The GPU's properties are a guess written down (h200.json): what is planned is real, the order of preference may differ.
 * Nothing is run. Plans of attention are compiled on the spot, so libcuda.so.1 must be loadable: deviceless_test.sh brings one.
 *
 * Usage: deviceless PROPERTIES.json MODELS.json [all]. Without "all": the models marked "usual", and attention at two batch sizes. */
#include <cjson/cJSON.h>
#include <stdint.h>

#include "backend/cuda/compile.h"
#include "backend/cuda/nvidia/private.h"
#include "base/file.h"
#include "model/model.h"
#include "tests/test.h"

#define SPECS_MAX 1024
#define WORKSPACE_BF16_MAX ((size_t)4096) /* NHWC needs no copies: counters alone */

static const uint32_t buckets[] = {1, 2, 4, 8, 16, 32, 64, 128};
#define BUCKETS (sizeof buckets / sizeof *buckets)

static dn_cuda_libraries *libraries;
static const cJSON *models;
static bool all;
static dn_cuda_product_spec seen[SPECS_MAX];
static unsigned seen_count;
static struct {
    unsigned convs, attentions, gemms, plans;
    size_t workspace; /* the largest */
} totals;

static bool is_new(const dn_cuda_product_spec *spec)
{
    for (unsigned i = 0; i < seen_count; i++) {
        if (!memcmp(&seen[i], spec, sizeof *spec))
            return false;
    }
    if (seen_count < SPECS_MAX)
        seen[seen_count++] = *spec;
    return true;
}

/* Batch sizes that 32-bit indices allow; of attention without "all" the first and the last of them: each takes a second to compile. */
static uint32_t choose_buckets(const dn_cuda_product_spec *spec, uint32_t *out)
{
    uint32_t count = 0, most = dn_cuda_product_rows_max(spec);
    while (count < BUCKETS && buckets[count] <= most) {
        out[count] = buckets[count];
        count++;
    }
    if (spec->kind == DN_CUDA_SDPA && !all && count > 2) {
        out[1] = out[count - 1];
        count = 2;
    }
    return count;
}

static bool plan_spec(const dn_cuda_product_spec *spec, char *why, size_t why_bytes)
{
    char name[DN_CUDA_SPEC_TEXT];
    uint32_t wanted[BUCKETS], count = choose_buckets(spec, wanted);
    dn_cuda_product *product = NULL;
    dn_error error = {0};
    dn_cuda_product_name(spec, name);
    if (dn_cuda_product_create(&product, libraries, spec, wanted, count, &error)) {
        snprintf(why, why_bytes, "%s: %s", name, error.message);
        return false;
    }
    bool bounded = true;
    for (uint32_t i = 0; i < count; i++) {
        size_t workspace = dn_cuda_product_workspace(product, i);
        totals.workspace = workspace > totals.workspace ? workspace : totals.workspace;
        bounded = bounded && (spec->type != DN_CUDA_BF16 || workspace <= WORKSPACE_BF16_MAX);
    }
    if (!bounded)
        snprintf(why, why_bytes, "%s: needs a workspace", dn_cuda_product_describe(product));
    totals.plans += count;
    totals.convs += spec->kind == DN_CUDA_CONV;
    totals.attentions += spec->kind == DN_CUDA_SDPA;
    dn_cuda_product_free(product);
    return bounded;
}

static bool plan_products(const dn_plan *plan, dn_cuda_type type, char *why, size_t why_bytes)
{
    dn_cuda_compile_options options = {.type = type, .takes_sdpa = dn_cuda_takes_sdpa};
    dn_cuda_compiled *compiled = NULL;
    dn_error error = {0};
    if (dn_cuda_compile(&compiled, plan, &options, &error)) {
        snprintf(why, why_bytes, "%s", error.message);
        return false;
    }
    bool planned = true;
    for (uint32_t i = 0; planned && i < compiled->product_count; i++) {
        const dn_cuda_product_spec *spec = &compiled->products[i];
        if (spec->kind == DN_CUDA_GEMM)
            totals.gemms++;
        else if (is_new(spec))
            planned = plan_spec(spec, why, why_bytes);
    }
    dn_cuda_compiled_free(compiled);
    return planned;
}

static char *read_text(const char *path)
{
    char *text = calloc(1, 1 << 16);
    FILE *file = text ? fopen(path, "r") : NULL;
    size_t bytes = file ? fread(text, 1, (1 << 16) - 1, file) : 0;
    if (file)
        fclose(file);
    if (!bytes)
        printf("FAIL deviceless: %s cannot be read\n", path);
    return text;
}

/* A configuration as it stands in the list, or the file that it names. */
static cJSON *read_config(const cJSON *config)
{
    if (!cJSON_IsString(config))
        return cJSON_Duplicate(config, true);
    char *text = read_text(config->valuestring);
    cJSON *read = text ? cJSON_Parse(text) : NULL;
    free(text);
    return read;
}

static bool plan_model(const cJSON *item, char *why, size_t why_bytes)
{
    cJSON *config = read_config(cJSON_GetObjectItem(item, "config"));
    const cJSON *side = cJSON_GetObjectItem(item, "side"), *part = cJSON_GetObjectItem(item, "part");
    const char *class_name = cJSON_GetStringValue(cJSON_GetObjectItem(config, "_class_name"));
    const dn_architecture *architecture = class_name ? dn_architecture_find(class_name) : NULL;
    uint32_t length = cJSON_IsNumber(side) ? (uint32_t)side->valueint : 0;
    dn_build_input input = {.config = config, .config_path = "a configuration", .height = length, .width = length};
    input.part = cJSON_GetStringValue(part);
    dn_model *model = calloc(1, sizeof *model);
    dn_error error = {0};
    bool planned = false;
    if (!model || !architecture)
        snprintf(why, why_bytes, "no such architecture");
    else if (architecture->build(model, &input, &error))
        snprintf(why, why_bytes, "%s", error.message);
    else
        planned = plan_products(model->plan, DN_CUDA_BF16, why, why_bytes) && plan_products(model->plan, DN_CUDA_F32, why, why_bytes);
    dn_model_free(model);
    cJSON_Delete(config);
    return planned;
}

static void every_model_has_pinned_plans(void)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, models)
    {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(item, "name"));
        char why[700] = "";
        if (!all && !cJSON_IsTrue(cJSON_GetObjectItem(item, "usual")))
            continue;
        unsigned before = seen_count;
        CHECK_MSG(plan_model(item, why, sizeof why), "%s: %s", name, why);
        printf("%s: %u shapes that were not met before\n", name, seen_count - before);
        fflush(stdout);
    }
    printf("%u convolutions and %u attentions, %u plans, the largest workspace %zu bytes; %u matrix products left to a GPU\n", totals.convs,
           totals.attentions, totals.plans, totals.workspace, totals.gemms);
    CHECK(totals.convs > 50 && totals.attentions > 2);
}

/* What was chosen is kept; a pin that cuts sums, or that cuDNN does not know, is not taken, wherever it comes from. */
static void pins_are_checked(void)
{
    const dn_cuda_product_spec conv = {.kind = DN_CUDA_CONV,
                                       .type = DN_CUDA_BF16,
                                       .h = 8,
                                       .w = 8,
                                       .k = 1280,
                                       .n = 1280,
                                       .out_h = 8,
                                       .out_w = 8,
                                       .kernel = 3,
                                       .stride = 1,
                                       .pad_top = 1,
                                       .pad_left = 1,
                                       .pad_bottom = 1,
                                       .pad_right = 1,
                                       .bias = true};
    dn_cuda_product *first = NULL, *again = NULL;
    dn_error error = {0};
    dn_cuda_pin pin, bad = {.engine = 41, .knob_count = 1, .knobs = {{.type = CUDNN_KNOB_TYPE_SPLIT_K_SLC, .value = 8}}};
    char name[DN_CUDA_PIN_NAME];
    CHECK_OK(dn_cuda_product_create(&first, libraries, &conv, buckets, BUCKETS, &error), error);
    dn_cuda_pin_name(first, DN_CUDA_ALL_BUCKETS, name);
    CHECK(dn_cuda_pins_find(libraries->pins, name, &pin) && !memcmp(&pin, &first->pins[0], sizeof pin));
    const dn_cuda_pin worthless[] = {bad, {.engine = 999999}, {.is_algo = true}, {.engine = 41, .knob_count = 1, .knobs = {{900, 1}}}};
    for (size_t i = 0; i < sizeof worthless / sizeof *worthless; i++) {
        dn_cuda_pins_put(libraries->pins, name, &worthless[i]);
        CHECK_OK(dn_cuda_product_create(&again, libraries, &conv, buckets, BUCKETS, &error), error);
        int differs = strcmp(dn_cuda_product_describe(again), dn_cuda_product_describe(first));
        dn_cuda_product_free(again);
        CHECK_MSG(!differs, "pin %zu was taken", i);
    }
    dn_cuda_product_free(first);
}

static void what_needs_a_gpu_says_so(void)
{
    const dn_cuda_product_spec gemm = {.kind = DN_CUDA_GEMM, .type = DN_CUDA_BF16, .h = 16, .w = 16, .k = 64, .n = 64};
    dn_cuda_product_spec conv = {
        .kind = DN_CUDA_CONV, .type = DN_CUDA_F32, .h = 8, .w = 8, .k = 8, .n = 8, .out_h = 8, .out_w = 8, .kernel = 1, .stride = 1};
    dn_cuda_product *product = NULL;
    dn_error error = {0};
    CHECK(dn_cuda_product_create(&product, libraries, &gemm, buckets, 1, &error) == DN_UNSUPPORTED && !product);
    CHECK_OK(dn_cuda_product_create(&product, libraries, &conv, buckets, 1, &error), error);
    dn_status status = dn_cuda_product_run(product, 0, &(dn_cuda_operands){0}, NULL, &error);
    dn_cuda_product_free(product);
    CHECK(status == DN_UNSUPPORTED);
    dn_cuda_libraries *none = NULL;
    CHECK(dn_cuda_libraries_open_deviceless(&none, "{\"warpSize\": 32}", false, NULL, &error) == DN_UNSUPPORTED && !none);
}

int main(int argc, char **argv)
{
    char *properties = read_text(argc > 1 ? argv[1] : "tests/cuda/h200.json");
    char *text = read_text(argc > 2 ? argv[2] : "tests/cuda/deviceless_models.json");
    cJSON *root = text ? cJSON_Parse(text) : NULL;
    dn_error error = {0};
    models = root;
    all = argc > 3 && !strcmp(argv[3], "all");
    if (!properties || !root || dn_cuda_libraries_open_deviceless(&libraries, properties, false, NULL, &error)) {
        printf("FAIL deviceless: %s\n", error.message);
        return 1;
    }
    printf("%s, for an H200 as h200.json has it\n", dn_cuda_libraries_describe(libraries));
    RUN(every_model_has_pinned_plans);
    RUN(pins_are_checked);
    RUN(what_needs_a_gpu_says_so);
    dn_cuda_libraries_close(libraries);
    cJSON_Delete(root);
    free(properties);
    free(text);
    return test_end();
}
