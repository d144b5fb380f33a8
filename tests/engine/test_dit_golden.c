/* The diffusion transformer against diffusers: outputs in both precisions, and every module's output that a node has. */
#include "tests/engine/network_golden.h"

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

int main(void)
{
    RUN(golden_dit_default);
    RUN(golden_dit_nosigma);
    return test_end();
}
