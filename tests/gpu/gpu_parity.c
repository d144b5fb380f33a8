/* Whether a GPU computes what the CPU does: one forward pass of each network with random weights, beside the CPU's in float.
 *
 *     gpu_parity [--device cuda:0] [--rows 2] [--fp32 1e-4] [--bf16 2e-2] [--cache FOLDER] CONFIG.json[@SIDE] ...
 *
 * A network passes in fp32 and in bf16 when the root mean square of its differences, over the reference's, is within that precision's bound.
 * bfloat16's own rounding, 2^-9 at every value that is stored, comes to 0.6 to 1.4 % over the emulated GPU. Where fp32 fails, every value of
 * the pass is kept on both sides and those that first differ are named. */
#include "tests/gpu/gpu.h"

#define NAMED_MAX 4

/* The first values, in the order of computation, that differ by more than `bound`. */
static void name_first(gpu_rig *gpu, gpu_rig *cpu, const dn_model *model, double bound)
{
    dn_error error = {DN_OK, ""};
    const dn_plan *plan = model->plan;
    size_t largest = 1;
    for (uint32_t v = 0; v < plan->value_count; v++)
        largest = dn_shape_count(plan->values[v].shape) > largest ? dn_shape_count(plan->values[v].shape) : largest;
    float *got = malloc(largest * sizeof *got), *want = malloc(largest * sizeof *want);
    gpu_unload(gpu);
    gpu_unload(cpu);
    int named = 0;
    bool ran = got != NULL && want != NULL && gpu_load(gpu, model, DN_PRECISION_FP32, 1, true, &error) == DN_OK &&
               gpu_load(cpu, model, DN_PRECISION_FP32, 1, true, &error) == DN_OK && gpu_run(gpu, 0, 1, 0, got, &error) == DN_OK &&
               gpu_run(cpu, 0, 1, 0, want, &error) == DN_OK;
    for (uint32_t n = 0; ran && n < plan->node_count && named < NAMED_MAX; n++) {
        const dn_value value = plan->nodes[n].out;
        if (gpu->backend->read_value(gpu->network, gpu->workspace, value, 0, got, &error) != DN_OK ||
            cpu->backend->read_value(cpu->network, cpu->workspace, value, 0, want, &error) != DN_OK)
            break;
        const gpu_distance d = gpu_compare(got, want, dn_shape_count(plan->values[value].shape));
        if (d.finite && d.rms <= bound)
            continue;
        named++;
        cJSON *line = gpu_figure("first difference", d.rms, "of the root mean square");
        cJSON_AddStringToObject(line, "node", plan->nodes[n].name);
        cJSON_AddNumberToObject(line, "kind", plan->nodes[n].kind);
        cJSON_AddNumberToObject(line, "index", n);
        gpu_print(line);
    }
    if (!ran)
        gpu_note(error.message[0] != '\0' ? error.message : "no memory for the values");
    free(want);
    free(got);
}

/* Rows whose distance decides. */
static dn_status compared(gpu_rig *gpu, const char *name, const dn_model *model, dn_precision precision, uint32_t rows, const float *want,
                          double bound, bool *fine, dn_error *error)
{
    float *got = NULL;
    dn_status status = gpu_load(gpu, model, precision, rows, false, error);
    if (status == DN_OK && (got = calloc(rows * gpu->out_count, sizeof *got)) == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "no memory for %u rows", rows);
    if (status == DN_OK)
        status = gpu_run(gpu, 0, rows, 0, got, error);
    if (status == DN_OK) {
        const gpu_distance d = gpu_compare(got, want, rows * gpu->out_count);
        char check[160], figure[160];
        snprintf(figure, sizeof figure, "%s %s beside the CPU", name, dn_precision_name(precision));
        gpu_print(gpu_figure(figure, d.finite ? d.rms : 1e9, "rms"));
        snprintf(check, sizeof check, "%s/%s", name, dn_precision_name(precision));
        *fine = gpu_check(check, d.finite && d.rms <= bound, "%.2e of the root mean square, %.2e of the largest; bound %.0e%s", d.rms,
                          d.largest, bound, d.finite ? "" : "; not finite");
    }
    free(got);
    gpu_unload(gpu);
    return status;
}

static dn_status of_model(gpu_rig *gpu, gpu_rig *cpu, const char *spec, uint32_t rows, double fp32, double bf16, dn_error *error)
{
    dn_model *model = NULL;
    float *want = NULL;
    bool fine = true;
    char name[96];
    snprintf(name, sizeof name, "%s", gpu_model_name(spec));
    dn_status status = gpu_model(&model, spec, error);
    if (status == DN_OK)
        status = gpu_load(cpu, model, DN_PRECISION_FP32, rows, false, error);
    if (status == DN_OK && (want = calloc(rows * cpu->out_count, sizeof *want)) == NULL)
        status = dn_fail(error, DN_NO_MEMORY, "no memory for %u rows", rows);
    if (status == DN_OK)
        status = gpu_run(cpu, 0, rows, 0, want, error);
    gpu_unload(cpu);
    if (status == DN_OK)
        status = compared(gpu, name, model, DN_PRECISION_BF16, rows, want, bf16, &fine, error);
    if (status == DN_OK)
        status = compared(gpu, name, model, DN_PRECISION_FP32, rows, want, fp32, &fine, error);
    if (status == DN_OK && !fine)
        name_first(gpu, cpu, model, fp32);
    gpu_unload(gpu);
    gpu_unload(cpu);
    free(want);
    if (model != NULL)
        dn_model_free(model);
    return status;
}

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    gpu_rig gpu, cpu;
    const int asked = atoi(gpu_option(argc, argv, "--rows", "2"));
    const uint32_t rows = asked < 1 || asked > 8 ? 2 : (uint32_t)asked;
    const double fp32 = atof(gpu_option(argc, argv, "--fp32", "1e-4")), bf16 = atof(gpu_option(argc, argv, "--bf16", "2e-2"));
    dn_status status = gpu_open(&gpu, gpu_option(argc, argv, "--device", "cuda:0"), gpu_option(argc, argv, "--cache", NULL), &error);
    if (status == DN_UNSUPPORTED) {
        gpu_skip(error.message);
        return 0;
    }
    if (status == DN_OK)
        status = gpu_open(&cpu, "cpu", NULL, &error);
    if (status != DN_OK)
        gpu_check("parity", false, "%s", error.message);
    for (int i = 1; status == DN_OK && i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0) {
            i++;
        } else if (of_model(&gpu, &cpu, argv[i], rows, fp32, bf16, &error) != DN_OK) { /* the others may do */
            gpu_check(gpu_model_name(argv[i]), false, "%s", error.message);
            if (error.status == DN_DEVICE_LOST)
                break;
        }
    }
    gpu_close(&cpu);
    gpu_close(&gpu);
    return gpu_failed > 0;
}
