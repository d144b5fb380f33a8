/* UNet2DModel against diffusers: outputs, scalar and fractional timesteps, and every module's output that a node has. */
#include "tests/test.h"

#include <ctype.h>

#include "format/safetensors.h"
#include "model/forward.h"
#include "tests/engine/made_weights.h"

#define OUTPUT_ERROR_MAX 1e-5
#define ACTIVATION_ERROR_MAX 2e-5
#define ROWS_MAX 8

typedef struct golden {
    dn_model *model;
    dn_safetensors *tensors;
    dn_forward *forward;
    uint32_t rows;
    float *samples, *answers, *expected;
    float times[ROWS_MAX];
    uint32_t classes[ROWS_MAX];
    double worst_activation;
    char worst_name[128];
    unsigned compared;
} golden;

static double relative_error(const float *got, const float *expected, size_t count)
{
    double largest = 0.0, difference = 0.0;
    for (size_t i = 0; i < count; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        difference = fmax(difference, fabs((double)got[i] - (double)expected[i]));
    }
    return difference / fmax(largest, 1e-30);
}

/* The last node whose output is that module's: its own name, or the last inside a block. */
static dn_value find_value(const dn_plan *plan, const char *module)
{
    size_t length = strlen(module);
    dn_value inside = DN_NONE;
    bool block = length > 1 && (isdigit((unsigned char)module[length - 1]) || strcmp(module, "mid_block") == 0) &&
                 strchr(module, '.') == strrchr(module, '.');
    for (uint32_t n = 0; n < plan->node_count; n++) {
        const char *name = plan->nodes[n].name;
        if (strcmp(name, module) == 0)
            return plan->nodes[n].out;
        if (block && strncmp(name, module, length) == 0 && name[length] == '.')
            inside = plan->nodes[n].out;
    }
    return inside;
}

static dn_status compare_activations(void *payload, dn_forward *forward, uint32_t first, uint32_t count, dn_error *error)
{
    golden *g = payload;
    for (size_t t = 0; t < dn_safetensors_count(g->tensors); t++) {
        const dn_tensor_info *info = dn_safetensors_at(g->tensors, t);
        dn_value value = strncmp(info->name, "act/", 4) == 0 ? find_value(g->model->plan, info->name + 4) : DN_NONE;
        if (value == DN_NONE)
            continue;
        size_t elements = dn_shape_count(g->model->plan->values[value].shape);
        if (elements * g->rows != info->count)
            return dn_fail(error, DN_INVALID, "%s: another shape", info->name);
        float *expected = malloc(info->count * sizeof *expected), *got = malloc(info->count * sizeof *got);
        dn_status status = dn_safetensors_read_f32(g->tensors, info, expected, error);
        for (uint32_t r = 0; r < count && status == DN_OK; r++)
            status = dn_forward_value(forward, value, r, got + (first + r) * elements, error);
        double difference = status == DN_OK ? relative_error(got, expected, info->count) : 0.0;
        free(expected);
        free(got);
        if (status != DN_OK)
            return status;
        g->compared++;
        if (difference >= g->worst_activation) {
            g->worst_activation = difference;
            snprintf(g->worst_name, sizeof g->worst_name, "%s", info->name);
        }
    }
    return DN_OK;
}

static void golden_close(golden *g)
{
    dn_forward_close(g->forward);
    dn_model_free(g->model);
    dn_safetensors_close(g->tensors);
    free(g->samples);
    free(g->answers);
    free(g->expected);
}

/* A folder without stored weights is opened as a copy that has made ones. */
static dn_status open_model(dn_model **out, const char *folder, dn_error *error)
{
    char path[300], copy[64];
    snprintf(path, sizeof path, "%s/tensors.json", folder);
    if (access(path, R_OK) != 0)
        return dn_model_open(out, folder, 0, 0, error);
    snprintf(copy, sizeof copy, "/tmp/denoised-golden-%ld", (long)getpid());
    dn_status status = made_folder(copy, folder, error);
    if (status == DN_OK)
        status = dn_model_open(out, copy, 0, 0, error);
    made_folder_remove(copy);
    return status;
}

static dn_status golden_open(golden *g, const char *name, uint32_t rows_max, dn_error *error)
{
    memset(g, 0, sizeof *g);
    char folder[256], path[300];
    snprintf(folder, sizeof folder, "tests/golden/%s", name);
    snprintf(path, sizeof path, "%s/case.safetensors", folder);
    dn_status status = open_model(&g->model, folder, error);
    if (status == DN_OK)
        status = dn_safetensors_open(&g->tensors, path, error);
    dn_forward_options options = {.threads = 2, .rows_max = rows_max, .keep_values = true};
    if (status == DN_OK)
        status = dn_forward_open(&g->forward, g->model, &options, error);
    if (status != DN_OK)
        return status;
    const dn_tensor_info *sample = dn_safetensors_find(g->tensors, "sample"), *times = dn_safetensors_find(g->tensors, "timestep");
    const dn_tensor_info *labels = dn_safetensors_find(g->tensors, "class_labels"), *output = dn_safetensors_find(g->tensors, "output");
    g->rows = (uint32_t)sample->dims[0];
    g->samples = calloc(sample->count, sizeof *g->samples);
    g->answers = calloc(output->count, sizeof *g->answers);
    g->expected = calloc(output->count, sizeof *g->expected);
    int64_t classes[ROWS_MAX] = {0};
    status = dn_safetensors_read_f32(g->tensors, sample, g->samples, error);
    if (status == DN_OK)
        status = dn_safetensors_read_f32(g->tensors, times, g->times, error);
    if (status == DN_OK && labels != NULL)
        status = dn_safetensors_read_i64(g->tensors, labels, classes, error);
    for (uint32_t i = 0; i < g->rows; i++)
        g->classes[i] = (uint32_t)classes[i];
    return status;
}

/* The named expectation of `rows` rows, compared with a fresh run. NAN where the file has no such tensor; -1 on failure. */
static double run_case(golden *g, const char *expectation, uint32_t rows, float time, dn_forward_observer *observer, dn_error *error)
{
    const dn_tensor_info *info = dn_safetensors_find(g->tensors, expectation);
    if (info == NULL)
        return NAN;
    float times[ROWS_MAX];
    for (uint32_t i = 0; i < rows; i++)
        times[i] = time >= 0.0f ? time : g->times[i];
    dn_forward_rows in = {rows, g->samples, times, g->model->class_rows ? g->classes : NULL};
    if (dn_safetensors_read_f32(g->tensors, info, g->expected, error) != DN_OK ||
        dn_forward_run(g->forward, &in, g->answers, observer, g, error) != DN_OK)
        return -1.0;
    return relative_error(g->answers, g->expected, info->count);
}

static void check_golden(const char *name, unsigned activations_min)
{
    static const struct {
        const char *expectation;
        bool single;
        float time;
    } cases[] = {
        {"output", false, -1.0f}, {"output_f64", false, -1.0f}, {"output_t500_b1", true, 500.0f}, {"output_t123_456_b1", true, 123.456f}};
    golden g;
    dn_error error = {DN_OK, ""};
    dn_status status = golden_open(&g, name, ROWS_MAX, &error);
    double difference = 0.0;
    const char *failed = "opening";
    for (size_t i = 0; i < 4 && status == DN_OK && difference >= 0.0 && difference <= OUTPUT_ERROR_MAX; i++) {
        failed = cases[i].expectation;
        difference = run_case(&g, failed, cases[i].single ? 1 : g.rows, cases[i].time, i == 0 ? compare_activations : NULL, &error);
        difference = isnan(difference) ? 0.0 : difference;
    }
    double activation = g.worst_activation;
    unsigned compared = g.compared;
    golden_close(&g);
    CHECK_MSG(status == DN_OK && difference >= 0.0, "%s: %s: %s", name, failed, error.message);
    CHECK_MSG(activation <= ACTIVATION_ERROR_MAX, "%s: %s is off by %.2e", name, g.worst_name, activation);
    CHECK_MSG(difference <= OUTPUT_ERROR_MAX, "%s: %s is off by %.2e", name, failed, difference);
    CHECK_MSG(compared >= activations_min, "%s: only %u modules were compared", name, compared);
}

#define GOLDEN(name, activations_min)                                                                                                      \
    static void golden_##name(void)                                                                                                        \
    {                                                                                                                                      \
        check_golden(#name, activations_min);                                                                                              \
    }

GOLDEN(unet_default, 13)
GOLDEN(unet_noattn, 13)
GOLDEN(unet_oddsize, 13)
GOLDEN(unet_scaleshift, 13)
GOLDEN(unet_default_f16, 0)
GOLDEN(unet_default_bf16, 0)
GOLDEN(unet_default_oldnames, 13)
GOLDEN(unet_cifarlike, 13)
GOLDEN(unet_resample, 13)
GOLDEN(unet_resnetblk, 13)
GOLDEN(unet_gelu_tsclass, 13)
GOLDEN(unet_adm, 13)
GOLDEN(unet_learned_time, 13)
GOLDEN(unet_relu, 13)
GOLDEN(unet_ncsnpp, 13)

/* A row's answer is the same bytes alone and beside others. */
static void rows_do_not_depend_on_company(void)
{
    golden together, alone;
    dn_error error = {DN_OK, ""};
    dn_status status = golden_open(&together, "unet_default", ROWS_MAX, &error);
    if (status == DN_OK)
        status = golden_open(&alone, "unet_default", 1, &error);
    CHECK_OK(status, error);
    size_t bytes = together.rows * 3 * 8 * 8 * sizeof(float);
    double a = run_case(&together, "output", together.rows, -1.0f, NULL, &error),
           b = run_case(&alone, "output", alone.rows, -1.0f, NULL, &error);
    bool same = memcmp(together.answers, alone.answers, bytes) == 0;
    golden_close(&together);
    golden_close(&alone);
    CHECK_MSG(a >= 0.0 && b >= 0.0, "%s", error.message);
    CHECK(same);
}

int main(void)
{
    RUN(golden_unet_default);
    RUN(golden_unet_noattn);
    RUN(golden_unet_oddsize);
    RUN(golden_unet_scaleshift);
    RUN(golden_unet_default_f16);
    RUN(golden_unet_default_bf16);
    RUN(golden_unet_default_oldnames);
    RUN(golden_unet_cifarlike);
    RUN(golden_unet_resample);
    RUN(golden_unet_resnetblk);
    RUN(golden_unet_gelu_tsclass);
    RUN(golden_unet_adm);
    RUN(golden_unet_learned_time);
    RUN(golden_unet_relu);
    RUN(golden_unet_ncsnpp);
    RUN(rows_do_not_depend_on_company);
    return test_end();
}
