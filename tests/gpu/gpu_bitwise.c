/* What must be equal to the last bit on a GPU: a row alone, in batches of every size, in every slot, run again and again, with graphs and
 * step by step, beside a row that is not finite; noise and register programs beside the CPU's. And which GELU a product applies.
 *
 *     gpu_bitwise [--device cuda:0] [--rows 128] [--precision bf16] [--cache FOLDER] CONFIG.json[@SIDE] ...
 *
 * Checks are named MODEL/PRECISION/what. */
#include "tests/gpu/gpu.h"

static const uint32_t sizes[] = {2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32, 33, 48, 64, 96, 128};
#define SIZES (sizeof sizes / sizeof sizes[0])

static uint32_t differing(const float *got, const float *want, uint32_t rows, size_t count)
{
    uint32_t wrong = 0;
    for (uint32_t r = 0; r < rows; r++)
        wrong += memcmp(got + r * count, want + r * count, count * sizeof *got) != 0;
    return wrong;
}

static bool finite_rows(const float *x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Every batch size up to `rows`; what each gave stays as alone's. */
static dn_status batches(gpu_rig *rig, const char *name, uint32_t rows, const float *alone, float *got, dn_error *error)
{
    char text[300] = "";
    uint32_t wrong = 0, tried = 0;
    for (size_t s = 0; s < SIZES && sizes[s] <= rows; s++) {
        dn_status status = gpu_run(rig, 0, sizes[s], 0, got, error);
        if (status != DN_OK)
            return status;
        const uint32_t bad = differing(got, alone, sizes[s], rig->out_count);
        if (bad > 0)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%u of %u rows; ", bad, sizes[s]);
        wrong += bad;
        tried++;
    }
    char check[160];
    snprintf(check, sizeof check, "%s/batches", name);
    gpu_check(check, wrong == 0 && tried > 0, "%u batch sizes up to %u beside each row alone: %s", tried, rows, wrong ? text : "equal");
    return DN_OK;
}

static dn_status slots(gpu_rig *rig, const char *name, uint32_t rows, const float *alone, float *got, dn_error *error)
{
    const uint32_t count = rows < 8 ? rows : 8;
    uint32_t wrong = 0;
    for (uint32_t shift = 1; shift < count; shift++) {
        dn_status status = gpu_run(rig, 0, count, shift, got, error);
        if (status != DN_OK)
            return status;
        wrong += differing(got, alone, count, rig->out_count);
    }
    char check[160];
    snprintf(check, sizeof check, "%s/slots", name);
    gpu_check(check, wrong == 0, "%u rows in every slot of %u: %u differ", count, count, wrong);
    return DN_OK;
}

/* The first run of a batch size may be eager, later ones replay its graph. */
static dn_status again(gpu_rig *rig, const char *name, const float *alone, float *got, dn_error *error)
{
    uint32_t wrong = 0;
    for (int round = 0; round < 4; round++) {
        dn_status status = gpu_run(rig, 0, 1, 0, got, error);
        if (status != DN_OK)
            return status;
        wrong += differing(got, alone, 1, rig->out_count);
    }
    char check[160];
    snprintf(check, sizeof check, "%s/replays", name);
    gpu_check(check, wrong == 0, "four more runs of one row: %u differ", wrong);
    return DN_OK;
}

/* The same rows step by step, without a graph. */
static dn_status eagerly(gpu_rig *rig, const char *name, uint32_t rows, const float *alone, float *got, dn_error *error)
{
    const uint32_t count = rows < 4 ? rows : 4;
    const dn_workspace_options options = {.rows_max = count};
    dn_workspace *replayed = rig->workspace;
    rig->workspace = NULL;
    setenv("DENOISED_CUDA_GRAPHS", "0", 1);
    dn_status status = rig->backend->workspace_create(&rig->workspace, rig->network, &options, error);
    unsetenv("DENOISED_CUDA_GRAPHS");
    uint32_t wrong = 0;
    for (int round = 0; status == DN_OK && round < 2; round++) {
        status = gpu_run(rig, 0, count, 0, got, error);
        wrong += status == DN_OK ? differing(got, alone, count, rig->out_count) : 0;
    }
    if (rig->workspace != NULL)
        rig->backend->workspace_free(rig->workspace);
    rig->workspace = replayed;
    if (status != DN_OK)
        return status;
    char check[160];
    snprintf(check, sizeof check, "%s/graphs", name);
    gpu_check(check, wrong == 0, "%u rows twice without a graph: %u differ from replays", count, wrong);
    return DN_OK;
}

/* A row whose sample is infinite is told, and changes no other. */
static dn_status company(gpu_rig *rig, const char *name, const float *alone, float *got, dn_error *error)
{
    float *bad = malloc(rig->in_count * sizeof *bad);
    dn_row rows[3];
    for (size_t i = 0; bad != NULL && i < rig->in_count; i++)
        bad[i] = INFINITY;
    dn_status status = bad == NULL ? dn_fail(error, DN_NO_MEMORY, "no memory for a sample") : DN_OK;
    for (uint32_t i = 0; status == DN_OK && i < 3; i++) {
        status =
            i == 1 ? rig->backend->buffer_write(rig->in, i * rig->in_count, bad, rig->in_count, error) : gpu_write_sample(rig, i, i, error);
        rows[i] = gpu_row(rig, i, i);
    }
    if (status == DN_OK)
        status = rig->backend->run(rig->network, rig->workspace, rows, 3, error);
    if (status == DN_OK)
        status = rig->backend->buffer_read(rig->out, 0, got, 3 * rig->out_count, error);
    free(bad);
    if (status != DN_OK)
        return status;
    const uint32_t wrong =
        differing(got, alone, 1, rig->out_count) + differing(got + 2 * rig->out_count, alone + 2 * rig->out_count, 1, rig->out_count);
    char check[160];
    snprintf(check, sizeof check, "%s/company", name);
    gpu_check(check, wrong == 0 && rows[0].finite && !rows[1].finite && rows[2].finite,
              "beside an infinite row %u of two differ; finite: %d %d %d", wrong, rows[0].finite, rows[1].finite, rows[2].finite);
    return DN_OK;
}

static dn_status of_model(gpu_rig *rig, const char *spec, dn_precision precision, uint32_t rows, dn_error *error)
{
    dn_model *model = NULL;
    float *alone = NULL, *got = NULL;
    char name[128];
    snprintf(name, sizeof name, "%s/%s", gpu_model_name(spec), dn_precision_name(precision));
    dn_status status = gpu_model(&model, spec, error);
    if (status == DN_OK)
        status = gpu_load(rig, model, precision, rows, false, error);
    if (status == DN_OK) {
        alone = calloc(rows * rig->out_count, sizeof *alone);
        got = calloc(rows * rig->out_count, sizeof *got);
        if (alone == NULL || got == NULL)
            status = dn_fail(error, DN_NO_MEMORY, "no memory for %u rows", rows);
    }
    for (uint32_t r = 0; status == DN_OK && r < rows; r++)
        status = gpu_run(rig, r, 1, 0, alone + r * rig->out_count, error);
    if (status == DN_OK) {
        char check[160];
        snprintf(check, sizeof check, "%s/finite", name);
        gpu_check(check, finite_rows(alone, rows * rig->out_count), "%u rows alone", rows);
        status = batches(rig, name, rows, alone, got, error);
    }
    if (status == DN_OK)
        status = slots(rig, name, rows, alone, got, error);
    if (status == DN_OK)
        status = again(rig, name, alone, got, error);
    if (status == DN_OK)
        status = eagerly(rig, name, rows, alone, got, error);
    if (status == DN_OK && rows >= 3)
        status = company(rig, name, alone, got, error);
    free(got);
    free(alone);
    gpu_unload(rig);
    if (model != NULL)
        dn_model_free(model);
    return status;
}

/* ---- Register programs, of sizes that fill no block. */
#define REGISTERS 4u

static dn_status program_on(gpu_rig *rig, size_t elements, const float *start, float *out, dn_error *error)
{
    const dn_op ops[] = {
        {.kind = DN_OP_NOISE, .dst = 1, .seed = 0x123456789abcdefu, .stream = DN_STREAM_STEP, .draw = 7},
        {.kind = DN_OP_LINEAR, .dst = 2, .terms = 3, .src = {0, 1, 0}, .coefficient = {0.7f, -1.3f, 0.1f}},
        {.kind = DN_OP_CLIP, .dst = 3, .terms = 1, .src = {2}, .low = -1.0f, .high = 1.5f},
        {.kind = DN_OP_SELECT, .dst = 0, .terms = 2, .src = {3, 1}, .split = elements / 3},
        {.kind = DN_OP_EXP_SCALE, .dst = 3, .terms = 2, .src = {0, 1}, .low = -0.5f, .ratio = 0.75f},
        {.kind = DN_OP_BLEND, .dst = 2, .terms = 3, .src = {0, 1, 3}},
    };
    dn_buffer *registers = NULL;
    dn_status status = rig->backend->buffer_create(&registers, rig->device, REGISTERS * elements, error);
    if (status == DN_OK)
        status = rig->backend->buffer_write(registers, 0, start, REGISTERS * elements, error);
    const dn_program program = {.registers = registers, .elements = elements, .ops = ops, .op_count = sizeof ops / sizeof ops[0]};
    if (status == DN_OK)
        status = rig->backend->execute(rig->device, &program, 1, error);
    if (status == DN_OK)
        status = rig->backend->buffer_read(registers, 0, out, REGISTERS * elements, error);
    if (registers != NULL)
        rig->backend->buffer_free(registers);
    return status;
}

static dn_status programs(gpu_rig *rig, gpu_rig *cpu, dn_error *error)
{
    static const size_t counts[] = {1, 3, 63, 1000, 4097, 270337};
    dn_status status = DN_OK;
    for (size_t c = 0; status == DN_OK && c < sizeof counts / sizeof counts[0]; c++) {
        const size_t all = REGISTERS * counts[c];
        float *start = malloc(all * sizeof *start), *got = malloc(all * sizeof *got), *want = malloc(all * sizeof *want);
        if (start == NULL || got == NULL || want == NULL)
            abort();
        dn_noise_normal(start, all, 0, 5, DN_STREAM_START, 1);
        status = program_on(cpu, counts[c], start, want, error);
        if (status == DN_OK)
            status = program_on(rig, counts[c], start, got, error);
        if (status == DN_OK) {
            size_t noise = 0, rest = 0;
            for (size_t i = 0; i < all; i++) {
                const bool differs = memcmp(&got[i], &want[i], sizeof got[i]) != 0;
                noise += differs && i / counts[c] == 1;
                rest += differs && i / counts[c] != 1;
            }
            char check[64];
            snprintf(check, sizeof check, "programs/%zu", counts[c]);
            gpu_check(check, noise + rest == 0, "of %zu floats beside the CPU's: %zu of noise differ, %zu of the rest", all, noise, rest);
        }
        free(want);
        free(got);
        free(start);
    }
    return status;
}

/* ---- GELU. A layer with the tanh form on the device, beside the CPU's tanh and erf forms: how much of the difference between the two
 * the device shows. 0: it computes tanh; 1: erf. Rounding goes either way, and is small where GELU is negative: only there is it
 * looked at. An activation of its own sees inputs that are rounded already, which moves the figure a little. */
static dn_status gelu_plan(dn_model *model, dn_activation activation, dn_error *error)
{
    dn_plan_builder builder;
    static const char *const modules[] = {"fc"};
    dn_status status = dn_plan_begin(&builder, (dn_shape){16, 16, 64}, error);
    if (status != DN_OK)
        return status;
    dn_linear_options linear = DN_LINEAR_INIT;
    linear.modules = modules;
    linear.out_channels = 256;
    linear.activation = activation;
    const dn_value out = dn_plan_linear(&builder, 0, &linear);
    status = dn_plan_end(&model->plan, &builder, out, error);
    if (status == DN_OK && (status = dn_weights_create(&model->weights, model->plan, error)) == DN_OK)
        gpu_fill_weights(model->weights, model->plan);
    return status;
}

static void gelu_free(dn_model *model)
{
    dn_weights_free(model->weights);
    if (model->plan != NULL)
        dn_plan_free(model->plan);
}

static dn_status gelu_of(gpu_rig *rig, dn_activation activation, dn_precision precision, float *out, dn_error *error)
{
    dn_model model = {0};
    dn_status status = gelu_plan(&model, activation, error);
    if (status == DN_OK)
        status = gpu_load(rig, &model, precision, 1, false, error);
    if (status == DN_OK)
        status = gpu_run(rig, 0, 1, 0, out, error);
    gpu_unload(rig);
    gelu_free(&model);
    return status;
}

static dn_status gelu(gpu_rig *rig, gpu_rig *cpu, dn_precision precision, dn_error *error)
{
    enum { COUNT = 16 * 16 * 256 };
    float *got = calloc(COUNT, sizeof *got), *tanh_form = calloc(COUNT, sizeof *got), *erf_form = calloc(COUNT, sizeof *got);
    if (got == NULL || tanh_form == NULL || erf_form == NULL)
        abort();
    dn_status status = gelu_of(cpu, DN_ACT_GELU_TANH, DN_PRECISION_FP32, tanh_form, error);
    if (status == DN_OK)
        status = gelu_of(cpu, DN_ACT_GELU, DN_PRECISION_FP32, erf_form, error);
    for (int which = 0; status == DN_OK && which < 2; which++) {
        status = gelu_of(rig, which ? DN_ACT_GELU : DN_ACT_GELU_TANH, precision, got, error);
        double along = 0.0, whole = 0.0;
        for (size_t i = 0; i < COUNT; i++) {
            if (tanh_form[i] >= 0.0f)
                continue;
            const double between = (double)erf_form[i] - (double)tanh_form[i];
            along += ((double)got[i] - (double)tanh_form[i]) * between;
            whole += between * between;
        }
        char check[64];
        snprintf(check, sizeof check, "gelu/%s/%s", which ? "erf" : "tanh", dn_precision_name(precision));
        if (status == DN_OK)
            gpu_check(check, fabs(along / whole - which) < 0.5, "0 is tanh, 1 is erf: %.3f", along / whole);
    }
    free(erf_form);
    free(tanh_form);
    free(got);
    return status;
}

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    gpu_rig rig, cpu;
    dn_precision precision = DN_PRECISION_AUTO;
    const int asked = atoi(gpu_option(argc, argv, "--rows", "128"));
    const uint32_t rows = asked < 1 || asked > (int)GPU_ROWS_MAX ? GPU_ROWS_MAX : (uint32_t)asked;
    dn_status status = gpu_open(&rig, gpu_option(argc, argv, "--device", "cuda:0"), gpu_option(argc, argv, "--cache", NULL), &error);
    if (status == DN_UNSUPPORTED) {
        gpu_skip(error.message);
        return 0;
    }
    if (status == DN_OK)
        status = gpu_open(&cpu, "cpu", NULL, &error);
    if (status == DN_OK)
        status = dn_precision_parse(&precision, gpu_option(argc, argv, "--precision", "auto"), &error);
    if (precision == DN_PRECISION_AUTO && status == DN_OK)
        precision = rig.backend->precision;
    if (status == DN_OK)
        status = programs(&rig, &cpu, &error);
    if (status == DN_OK)
        status = gelu(&rig, &cpu, precision, &error);
    for (int i = 1; status == DN_OK && i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0)
            i++;
        else
            status = of_model(&rig, argv[i], precision, rows, &error);
    }
    if (status != DN_OK)
        gpu_check("bitwise", false, "%s", error.message);
    gpu_close(&cpu);
    gpu_close(&rig);
    return gpu_failed > 0;
}
