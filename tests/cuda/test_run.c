/* Networks and runs of the CUDA back end, over the emulated GPU: every architecture against the CPU's back end, and what a row's bytes
 * may not depend on. */
#include "tests/cuda/back_ends.h"

#include "backend/cuda/state.h"
#include "tests/cuda/emulator/emulator.h"

#define FP32_ERROR_MAX 1e-5
#define BF16_ERROR_MAX 2.5e-2 /* up to seventy layers of random weights, each of which rounds what it computes to 2^-9 */

typedef struct golden {
    const char *name;
    bool encoder;
} golden;

static const golden goldens[] = {
    {"unet_adm", 0},
    {"unet_cifarlike", 0},
    {"unet_default", 0},
    {"unet_gelu_tsclass", 0},
    {"unet_learned_time", 0},
    {"unet_ncsnpp", 0},
    {"unet_noattn", 0},
    {"unet_oddsize", 0},
    {"unet_relu", 0},
    {"unet_resample", 0},
    {"unet_resnetblk", 0},
    {"unet_scaleshift", 0},
    {"dit_default", 0},
    {"dit_nosigma", 0},
    {"dit_original", 0},
    {"dit_variant", 0},
    {"sit_original", 0},
    {"edm_adm", 0},
    {"edm_ddpmpp", 0},
    {"edm_ncsnpp", 0},
    {"edm_skip", 0},
    {"edm_residual_box", 0},
    {"guided_diffusion_legacy", 0},
    {"guided_diffusion_new", 0},
    {"vae_4lvl", 0},
    {"vae_default", 0},
    {"vae_default", 1},
    {"vae_variant", 0},
    {"vae_variant", 1},
};
#define GOLDENS (sizeof goldens / sizeof goldens[0])

/* Weights that bfloat16 holds: what is left of the two back ends' difference is what is rounded on the way. */
static void round_weights(dn_model *model)
{
    for (uint32_t w = 0; w < model->plan->weight_count; w++) {
        for (uint64_t i = 0; i < model->plan->weights[w].count; i++) {
            uint32_t bits;
            memcpy(&bits, &model->weights->data[w][i], sizeof bits);
            bits = (bits + 0x7FFFu + (bits >> 16 & 1u)) & 0xFFFF0000u;
            memcpy(&model->weights->data[w][i], &bits, sizeof bits);
        }
    }
}

/* Two rows of a golden through both back ends. */
static dn_status compare_golden(const golden *g, dn_precision precision, double *largest, double *mean)
{
    pair p = {0};
    const dn_workspace_options options = {.rows_max = 2};
    dn_status status = open_golden(&p.model, g->name, g->encoder);
    if (status == DN_OK && precision == DN_PRECISION_BF16)
        round_weights(p.model);
    if (status == DN_OK)
        status = pair_open(&p, precision, &options);
    float *got = status == DN_OK ? calloc(4 * p.out_count, sizeof *got) : NULL;
    if (status == DN_OK)
        status = side_run(&p.cpu, p.model->plan, 0, 2, got + 2 * p.out_count);
    if (status == DN_OK)
        status = side_run(&p.gpu, p.model->plan, 0, 2, got);
    if (status == DN_OK) {
        *largest = largest_error(got, got + 2 * p.out_count, 2 * p.out_count);
        *mean = mean_error(got, got + 2 * p.out_count, 2 * p.out_count);
    }
    free(got);
    pair_close(&p);
    return status;
}

static void check_goldens(dn_precision precision, double bound)
{
    double worst = 0.0, worst_mean = 0.0;
    for (size_t i = 0; i < GOLDENS; i++) {
        double largest = 0.0, mean = 0.0;
        dn_status status = compare_golden(&goldens[i], precision, &largest, &mean);
        CHECK_MSG(status == DN_OK, "%s: %s", goldens[i].name, error.message);
        CHECK_MSG(largest <= bound && mean <= bound, "%s%s is off by %.2e, on average %.2e", goldens[i].name,
                  goldens[i].encoder ? " (encoder)" : "", largest, mean);
        worst = fmax(worst, largest);
        worst_mean = fmax(worst_mean, mean);
    }
    printf("%s: of %zu networks the worst is off by %.2e in one element, the worst by %.2e over all of them\n",
           dn_precision_name(precision), GOLDENS, worst, worst_mean);
}

static void every_architecture_answers_as_on_the_cpu_in_fp32(void)
{
    check_goldens(DN_PRECISION_FP32, FP32_ERROR_MAX);
}

static void every_architecture_answers_nearly_so_in_bf16(void)
{
    check_goldens(DN_PRECISION_BF16, BF16_ERROR_MAX);
}

static void kept_values_are_the_cpus(void)
{
    static const golden kept[] = {{"unet_default", 0}, {"dit_variant", 0}, {"vae_variant", 0}};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        pair p = {0};
        const dn_workspace_options options = {.rows_max = 3, .keep_values = true};
        CHECK_OK(open_golden(&p.model, kept[i].name, false), error);
        CHECK_OK(pair_open(&p, DN_PRECISION_FP32, &options), error);
        const dn_plan *plan = p.model->plan;
        CHECK_OK(side_run(&p.cpu, plan, 0, 3, NULL), error);
        CHECK_OK(side_run(&p.gpu, plan, 0, 3, NULL), error);
        for (dn_value v = 0; v < plan->value_count; v++) {
            size_t count = dn_shape_count(plan->values[v].shape);
            float *values = calloc(2 * count, sizeof *values);
            for (uint32_t r = 0; r < 3; r++) {
                CHECK_OK(p.cpu.backend->read_value(p.cpu.network, p.cpu.workspace, v, r, values, &error), error);
                CHECK_OK(p.gpu.backend->read_value(p.gpu.network, p.gpu.workspace, v, r, values + count, &error), error);
                double off = largest_error(values + count, values, count);
                CHECK_MSG(off <= FP32_ERROR_MAX, "%s: value %u of row %u is off by %.2e", kept[i].name, v, r, off);
            }
            free(values);
        }
        CHECK(p.gpu.backend->read_value(p.gpu.network, p.gpu.workspace, plan->value_count, 0, NULL, &error) == DN_INTERNAL);
        CHECK(p.gpu.backend->read_value(p.gpu.network, p.gpu.workspace, 0, 3, NULL, &error) == DN_INTERNAL);
        pair_close(&p);
    }
}

/* The answers of rows 0 .. ROWS_MAX - 1 of a network, each run alone: what every other way must equal. */
typedef struct reference {
    pair p;
    float *alone, *got;
} reference;

static dn_status reference_open(reference *ref, const char *name, dn_precision precision, uint32_t rows_max)
{
    const dn_workspace_options options = {.rows_max = rows_max};
    dn_status status = open_golden(&ref->p.model, name, false);
    if (status == DN_OK)
        status = pair_open(&ref->p, precision, &options);
    size_t count = ref->p.out_count;
    ref->alone = calloc(ROWS_MAX * count, sizeof *ref->alone);
    ref->got = calloc(ROWS_MAX * count, sizeof *ref->got);
    for (uint32_t r = 0; r < ROWS_MAX && status == DN_OK; r++)
        status = side_run(&ref->p.gpu, ref->p.model->plan, r, 1, ref->alone + r * count);
    return status;
}

static void reference_close(reference *ref)
{
    pair_close(&ref->p);
    free(ref->alone);
    free(ref->got);
    *ref = (reference){0};
}

static bool as_alone(const reference *ref, uint32_t first, uint32_t count)
{
    size_t floats = ref->p.out_count;
    return memcmp(ref->got, ref->alone + first * floats, count * floats * sizeof(float)) == 0;
}

/* Of 1 to 9 rows from several firsts: so every bucket up to 16, full and not, and every slot. */
static void check_company(const char *name, dn_precision precision)
{
    reference ref = {0};
    CHECK_OK(reference_open(&ref, name, precision, ROWS_MAX), error);
    for (uint32_t count = 1; count <= 9; count++) {
        for (uint32_t first = 0; first < 8; first += 3) {
            CHECK_OK(side_run(&ref.p.gpu, ref.p.model->plan, first, count, ref.got), error);
            CHECK_MSG(as_alone(&ref, first, count), "%s: rows %u to %u are not what each is alone", name, first, first + count - 1);
        }
    }
    reference_close(&ref);
}

static void a_rows_bytes_are_its_own_in_any_company(void)
{
    check_company("unet_gelu_tsclass", DN_PRECISION_BF16);
    if (!test_failed)
        check_company("dit_nosigma", DN_PRECISION_FP32);
}

/* 128 rows by every packing that some table of times asks for. */
static void a_rows_bytes_do_not_depend_on_the_packing(void)
{
    reference ref = {0};
    CHECK_OK(reference_open(&ref, "dit_nosigma", DN_PRECISION_BF16, ROWS_MAX), error);
    static const float tables[][5] = {{1, 1, 1, 1, 1}, {1, 2, 4, 8, 16}, {1, 9, 9, 2, 90}, {9, 9, 1, 1, 90}, {1, 1, 1, 90, 90}};
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++) {
        dn_cuda_buckets_measured(&ref.p.gpu.workspace->buckets, tables[t], 5);
        for (uint32_t count = 1; count <= 13; count += 4) {
            CHECK_OK(side_run(&ref.p.gpu, ref.p.model->plan, 1, count, ref.got), error);
            CHECK_MSG(as_alone(&ref, 1, count), "table %zu: %u rows are not what each is alone", t, count);
        }
    }
    reference_close(&ref);
}

/* Each way of running that may not show: a pass step by step, measured at the start, in the background. */
static void graphs_give_the_bytes_of_single_steps(void)
{
    reference ref = {0};
    CHECK_OK(reference_open(&ref, "unet_scaleshift", DN_PRECISION_BF16, 4), error);
    const dn_plan *plan = ref.p.model->plan;
    side *gpu = &ref.p.gpu;
    static const char *const settings[][2] = {
        {"DENOISED_CUDA_GRAPHS", "0"}, {"DENOISED_CUDA_GRAPHS", "1"}, {"DENOISED_CUDA_MEASURE_MS", "1000"}};
    for (int way = 0; way < 4; way++) {
        const dn_workspace_options options = {.rows_max = 4, .background = way == 3};
        gpu->backend->workspace_free(gpu->workspace);
        if (way < 3)
            setenv(settings[way][0], settings[way][1], 1);
        dn_status status = gpu->backend->workspace_create(&gpu->workspace, gpu->network, &options, &error);
        if (way < 3)
            unsetenv(settings[way][0]);
        CHECK_OK(status, error);
        CHECK(gpu->workspace->graphs == (way != 0));
        dn_cuda_buckets_measured(&gpu->workspace->buckets, (const float[]){1, 1, 1}, 3); /* three rows are one pass */
        for (uint32_t run = 0; run < 3; run++) { /* warming, recording, replaying */
            CHECK_OK(side_run(gpu, plan, 2, 3, ref.got), error);
            CHECK_MSG(as_alone(&ref, 2, 3), "way %d, run %u: other bytes", way, run);
        }
        CHECK((gpu->workspace->seats[2].graph != NULL) == (way != 0));
        CHECK((gpu->workspace->seats[0].graph != NULL) == (way == 2));
    }
    CHECK(gpu->network->measured.count == 3);
    reference_close(&ref);
}

/* Once a bucket's graph is recorded, a run takes no memory and records nothing. */
static void a_recorded_pass_asks_for_no_memory(void)
{
    reference ref = {0};
    dn_emulator_counts before, after;
    CHECK_OK(reference_open(&ref, "unet_scaleshift", DN_PRECISION_BF16, 4), error);
    for (uint32_t run = 0; run < 2; run++) { /* warming, recording: of whatever buckets four rows are packed into */
        CHECK_OK(side_run(&ref.p.gpu, ref.p.model->plan, 0, 4, ref.got), error);
    }
    dn_emulator_count(&before);
    CHECK_OK(side_run(&ref.p.gpu, ref.p.model->plan, 0, 4, ref.got), error);
    dn_emulator_count(&after);
    CHECK(as_alone(&ref, 0, 4));
    CHECK(before.calls[DN_EMULATOR_MALLOC] > 0 && after.calls[DN_EMULATOR_MALLOC] == before.calls[DN_EMULATOR_MALLOC]);
    CHECK(before.calls[DN_EMULATOR_PINNED] > 0 && after.calls[DN_EMULATOR_PINNED] == before.calls[DN_EMULATOR_PINNED]);
    CHECK(before.calls[DN_EMULATOR_CAPTURE] > 0 && after.calls[DN_EMULATOR_CAPTURE] == before.calls[DN_EMULATOR_CAPTURE]);
    reference_close(&ref);
}

/* Loading code, which the first launch does, takes nothing from the time for measuring. */
static void buckets_are_measured_however_long_code_is_loaded(void)
{
    reference ref = {0};
    CHECK_OK(reference_open(&ref, "dit_default", DN_PRECISION_BF16, 4), error);
    side *gpu = &ref.p.gpu;
    gpu->backend->workspace_free(gpu->workspace);
    gpu->workspace = NULL;
    setenv("DENOISED_CUDA_MEASURE_MS", "2000", 1);
    CHECK(dn_emulator_configure("slow=first:3000000"));
    dn_status status = gpu->backend->workspace_create(&gpu->workspace, gpu->network, &(dn_workspace_options){.rows_max = 4}, &error);
    unsetenv("DENOISED_CUDA_MEASURE_MS");
    CHECK(dn_emulator_configure(NULL));
    CHECK_OK(status, error);
    const dn_cuda_seat *seats = gpu->workspace->seats;
    CHECK(seats[0].graph && seats[1].graph && seats[2].graph);
    CHECK_MSG(gpu->workspace->buckets.ms[0] < 2000.0f, "%g ms", (double)gpu->workspace->buckets.ms[0]);
    reference_close(&ref);
}

static void a_row_of_nan_is_flagged_alone(void)
{
    reference ref = {0};
    CHECK_OK(reference_open(&ref, "unet_default", DN_PRECISION_BF16, 8), error);
    side *gpu = &ref.p.gpu;
    const float bad[] = {NAN, INFINITY};
    dn_row rows[5];
    for (int which = 0; which < 2; which++) {
        CHECK_OK(gpu->backend->buffer_write(gpu->in, 2 * ref.p.in_count + 3, &bad[which], 1, &error), error);
        for (uint32_t r = 0; r < 5; r++)
            rows[r] = row_of(gpu, ref.p.model->plan, r);
        CHECK_OK(gpu->backend->run(gpu->network, gpu->workspace, rows, 5, &error), error);
        for (uint32_t r = 0; r < 5; r++)
            CHECK_MSG(rows[r].finite == (r != 2), "row %u", r);
        CHECK_OK(gpu->backend->buffer_read(gpu->out, 0, ref.got, 5 * ref.p.out_count, &error), error);
        CHECK(as_alone(&ref, 0, 2));
        memmove(ref.got, ref.got + 3 * ref.p.out_count, 2 * ref.p.out_count * sizeof(float));
        CHECK(as_alone(&ref, 3, 2));
    }
    reference_close(&ref);
}

static void rows_may_overwrite_their_inputs(void)
{
    reference ref = {0};
    CHECK_OK(reference_open(&ref, "unet_default", DN_PRECISION_FP32, 8), error);
    side *gpu = &ref.p.gpu;
    CHECK(ref.p.in_count == ref.p.out_count);
    dn_row rows[6];
    for (uint32_t r = 0; r < 6; r++) {
        rows[r] = row_of(gpu, ref.p.model->plan, r);
        rows[r].out = gpu->in;
    }
    CHECK_OK(gpu->backend->run(gpu->network, gpu->workspace, rows, 6, &error), error);
    CHECK_OK(gpu->backend->buffer_read(gpu->in, 0, ref.got, 6 * ref.p.out_count, &error), error);
    CHECK(as_alone(&ref, 0, 6));
    reference_close(&ref);
}

/* A network for two rows at most runs five all the same, cut into pieces. */
static void more_rows_than_a_network_was_made_for_are_cut(void)
{
    reference ref = {0};
    CHECK_OK(reference_open(&ref, "unet_default", DN_PRECISION_BF16, 8), error);
    side *gpu = &ref.p.gpu;
    const dn_plan *plan = ref.p.model->plan;
    gpu->backend->workspace_free(gpu->workspace);
    gpu->workspace = NULL;
    gpu->backend->network_free(gpu->network);
    const dn_network_options network = {.plan = plan, .weights = ref.p.model->weights, .precision = DN_PRECISION_BF16, .rows_max = 2};
    const dn_workspace_options options = {.rows_max = 8}, kept = {.rows_max = 3, .keep_values = true};
    CHECK_OK(gpu->backend->network_create(&gpu->network, gpu->device, &network, &error), error);
    CHECK(gpu->backend->workspace_create(&gpu->workspace, gpu->network, &kept, &error) == DN_UNSUPPORTED);
    CHECK_OK(gpu->backend->workspace_create(&gpu->workspace, gpu->network, &options, &error), error);
    CHECK(gpu->workspace->buckets.count == 2);
    CHECK_OK(side_run(gpu, plan, 1, 5, ref.got), error);
    CHECK(as_alone(&ref, 1, 5));
    reference_close(&ref);
}

/* What the CPU refuses, with its words. */
static void refusals_are_the_cpus(void)
{
    pair p = {0};
    const dn_workspace_options options = {.rows_max = 2};
    CHECK_OK(open_golden(&p.model, "unet_learned_time", false), error);
    CHECK_OK(pair_open(&p, DN_PRECISION_FP32, &options), error);
    const dn_plan *plan = p.model->plan;
    for (int which = 0; which < 6; which++) {
        char messages[2][sizeof error.message];
        for (int s = 0; s < 2; s++) {
            side *one = s == 0 ? &p.cpu : &p.gpu;
            dn_row rows[3] = {row_of(one, plan, 0), row_of(one, plan, 1), row_of(one, plan, 2)};
            uint32_t count = which == 5 ? 3 : 2;
            if (which == 0)
                rows[1].in_offset = ROWS_MAX * p.in_count - 1;
            else if (which == 1)
                rows[1].out_offset = ROWS_MAX * p.out_count + 1;
            else if (which == 2)
                rows[1].time = 0.5f;
            else if (which == 3)
                rows[1].time = (float)plan->time_rows;
            else if (which == 4)
                rows[1].condition = (dn_condition){.count = plan->class_rows ? 0 : 1};
            CHECK(one->backend->run(one->network, one->workspace, rows, count, &error) != DN_OK);
            snprintf(messages[s], sizeof messages[s], "%s", error.message);
        }
        CHECK_MSG(strcmp(messages[0], messages[1]) == 0, "\"%.200s\" and \"%.200s\"", messages[0], messages[1]);
    }
    CHECK(p.gpu.backend->network_update(p.gpu.network, p.model->weights, &error) == DN_UNSUPPORTED);
    CHECK(p.gpu.backend->precision_check(p.gpu.device, DN_PRECISION_FP16, &error) == DN_UNSUPPORTED);
    pair_close(&p);
}

int main(void)
{
    RUN(every_architecture_answers_as_on_the_cpu_in_fp32);
    RUN(every_architecture_answers_nearly_so_in_bf16);
    RUN(kept_values_are_the_cpus);
    RUN(a_rows_bytes_are_its_own_in_any_company);
    RUN(a_rows_bytes_do_not_depend_on_the_packing);
    RUN(graphs_give_the_bytes_of_single_steps);
    RUN(a_recorded_pass_asks_for_no_memory);
    RUN(buckets_are_measured_however_long_code_is_loaded);
    RUN(a_row_of_nan_is_flagged_alone);
    RUN(rows_may_overwrite_their_inputs);
    RUN(more_rows_than_a_network_was_made_for_are_cut);
    RUN(refusals_are_the_cpus);
    return test_end();
}
