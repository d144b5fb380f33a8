/* What networks and workspaces of the CUDA back end take and give back: bytes as they say before, nothing left behind whatever fails, and
 * two streams at once. Over the emulated GPU. */
#include "tests/cuda/back_ends.h"

#include "backend/cuda/state.h"

/* A plan of every kind of step that libraries and kernels run, small enough to fail hundreds of times. */
static dn_plan *small_plan(void)
{
    dn_plan_builder builder;
    dn_plan *plan = NULL;
    if (dn_plan_begin(&builder, (dn_shape){4, 4, 3}, &error) != DN_OK)
        abort();
    dn_value time = dn_plan_time_embedding(&builder, "time", 8, 0.0f, true, 10000.0f);
    dn_value label = dn_plan_class_embedding(&builder, "class", 3, 8);
    dn_linear_options row = DN_LINEAR_INIT;
    row.modules = (const char *const[]){"row"};
    row.out_channels = 8;
    row.residual = label;
    dn_value bias = dn_plan_linear(&builder, time, &row);
    dn_conv_options in = DN_CONV_INIT, out = DN_CONV_INIT;
    in.module = "in";
    in.out_channels = 8;
    in.row_bias = bias;
    dn_value x = dn_plan_conv(&builder, 0, &in);
    x = dn_plan_group_norm(&builder, x, "norm", NULL, 2, 1e-5f, DN_NONE, DN_ACT_SILU);
    out.module = "out";
    out.out_channels = 3;
    x = dn_plan_conv(&builder, x, &out);
    if (dn_plan_end(&plan, &builder, x, &error) != DN_OK)
        abort();
    return plan;
}

static dn_weights *small_weights(const dn_plan *plan)
{
    dn_weights *weights = NULL;
    if (dn_weights_create(&weights, plan, &error) != DN_OK)
        abort();
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        for (uint64_t i = 0; i < plan->weights[w].count; i++)
            weights->data[w][i] = (float)(made_bits(w + 99, i) >> 8) / 16777216.0f - 0.5f;
    }
    return weights;
}

static bool nothing_lives(void)
{
    dn_emulator_counts counts;
    dn_emulator_count(&counts);
    return counts.device_allocations == 0 && counts.device_bytes == 0 && counts.pinned_allocations == 0 && counts.streams == 0 &&
           counts.events == 0 && counts.graphs == 0 && counts.executables == 0;
}

static size_t bytes_on_device(void)
{
    dn_emulator_counts counts;
    dn_emulator_count(&counts);
    return counts.device_bytes;
}

/* A device, a network, three kinds of workspace and their runs: all that calls CUDA. */
static dn_status whole_life(const dn_plan *plan, const dn_weights *weights, float *answers)
{
    const dn_workspace_options main = {.rows_max = 3}, background = {.rows_max = 2, .background = true},
                               kept = {.rows_max = 2, .keep_values = true};
    dn_workspace *second = NULL, *third = NULL;
    side s = {0};
    dn_status status = side_open(&s, dn_backend_cuda(), plan, weights, DN_PRECISION_BF16, &main);
    if (status == DN_OK)
        status = side_fill(&s, plan);
    if (status == DN_OK)
        status = s.backend->workspace_create(&second, s.network, &background, &error);
    if (status == DN_OK)
        status = s.backend->workspace_create(&third, s.network, &kept, &error);
    for (uint32_t run = 0; run < 3 && status == DN_OK; run++)
        status = side_run(&s, plan, 0, 3, answers);
    dn_workspace *first = s.workspace;
    for (uint32_t run = 0; run < 3 && status == DN_OK; run++) {
        s.workspace = run == 2 ? third : second;
        status = side_run(&s, plan, 3, 2, NULL);
    }
    s.workspace = first;
    if (third)
        s.backend->workspace_free(third);
    if (second)
        s.backend->workspace_free(second);
    side_close(&s);
    return status;
}

static char last_failure[sizeof error.message];

/* The Nth call of a kind fails, for every N there is (past the tenth, for one in `step`): the failure is told, and nothing is left behind. */
static void check_faults(const char *kind, const char *what, unsigned step, dn_status expected)
{
    dn_plan *plan = small_plan();
    dn_weights *weights = small_weights(plan);
    size_t floats = 3 * dn_shape_count(plan->values[plan->output].shape);
    float *good = calloc(floats, sizeof *good), *got = calloc(floats, sizeof *got);
    CHECK(dn_emulator_configure(""));
    CHECK_OK(whole_life(plan, weights, good), error);
    CHECK(nothing_lives());
    unsigned failures = 0;
    for (unsigned n = 1; n < 4000; n += n < 10 ? 1 : step) {
        char settings[64];
        snprintf(settings, sizeof settings, "fault=%s:%u:%s", kind, n, what);
        CHECK(dn_emulator_configure(settings));
        error = (dn_error){0};
        dn_status status = whole_life(plan, weights, got);
        CHECK_MSG(nothing_lives(), "%s: something lives after \"%s\"", settings, error.message);
        if (status == DN_OK) {
            CHECK_MSG(memcmp(good, got, floats * sizeof *got) == 0, "%s: other bytes", settings);
            break;
        }
        CHECK_MSG(status == expected && error.status == status && strlen(error.message) > 10, "%s: %s, \"%s\"", settings,
                  dn_status_name(status), error.message);
        snprintf(last_failure, sizeof last_failure, "%s", error.message);
        failures++;
    }
    CHECK_MSG(failures > 0, "no %s ever failed", kind);
    CHECK(dn_emulator_configure(""));
    free(good);
    free(got);
    dn_weights_free(weights);
    dn_plan_free(plan);
}

static void no_memory_at_any_allocation_leaks_nothing(void)
{
    check_faults("malloc", "oom", 1, DN_NO_MEMORY);
    if (!test_failed)
        check_faults("pinned", "oom", 1, DN_NO_MEMORY);
}

static void no_resources_at_any_launch_or_record_leak_nothing(void)
{
    check_faults("graph", "oom", 1, DN_NO_MEMORY);
    if (!test_failed)
        check_faults("launch", "oom", 7, DN_NO_MEMORY);
    if (!test_failed)
        check_faults("capture", "unsupported", 1, DN_UNSUPPORTED);
    if (!test_failed && !strstr(last_failure, "DENOISED_CUDA_GRAPHS=0"))
        CHECK_MSG(false, "%s", last_failure);
    if (!test_failed)
        check_faults("stream", "oom", 1, DN_NO_MEMORY);
    if (!test_failed)
        check_faults("event", "oom", 3, DN_NO_MEMORY);
}

static void a_lost_device_is_told_as_such(void)
{
    check_faults("launch", "illegal", 7, DN_DEVICE_LOST);
    if (!test_failed)
        check_faults("copy", "lost", 5, DN_DEVICE_LOST);
    if (!test_failed)
        check_faults("sync", "lost", 5, DN_DEVICE_LOST);
    if (!test_failed)
        check_faults("capture", "lost", 1, DN_DEVICE_LOST);
}

static void no_memory_says_for_what_and_what_is_free(void)
{
    side s = {.backend = dn_backend_cuda()};
    dn_network_options network = {.weights = NULL, .precision = DN_PRECISION_BF16};
    char settings[64];
    dn_plan *plan = small_plan();
    dn_weights *weights = small_weights(plan);
    network.plan = plan;
    network.weights = weights;
    CHECK_OK(s.backend->device_open(&s.device, NULL, &error), error);
    snprintf(settings, sizeof settings, "memory=%zu", bytes_on_device());
    CHECK(dn_emulator_configure(settings));
    CHECK(s.backend->network_create(&s.network, s.device, &network, &error) == DN_NO_MEMORY);
    CHECK_MSG(strstr(error.message, "weights of") && strstr(error.message, "MB are free"), "%s", error.message);
    CHECK(dn_emulator_configure(""));
    CHECK_OK(s.backend->network_create(&s.network, s.device, &network, &error), error);
    snprintf(settings, sizeof settings, "memory=%zu", bytes_on_device() + 4096);
    CHECK(dn_emulator_configure(settings));
    CHECK(s.backend->workspace_create(&s.workspace, s.network, &(dn_workspace_options){.rows_max = 128}, &error) == DN_NO_MEMORY);
    CHECK_MSG(strstr(error.message, "128 rows") && strstr(error.message, "MB are free"), "%s", error.message);
    side_close(&s);
    CHECK(nothing_lives());
    CHECK(dn_emulator_configure(""));
    dn_weights_free(weights);
    dn_plan_free(plan);
}

/* What is planned by is what is taken. */
static void bytes_are_told_before_they_are_taken(void)
{
    const dn_backend *cuda = dn_backend_cuda();
    dn_model *model = NULL;
    dn_device *device = NULL;
    CHECK_OK(open_golden(&model, "dit_nosigma", false), error);
    CHECK_OK(cuda->device_open(&device, &(dn_device_options){0}, &error), error);
    for (dn_precision precision = DN_PRECISION_FP32; precision <= DN_PRECISION_BF16; precision += 2) {
        dn_network *network = NULL;
        dn_network_options options = {.plan = model->plan, .weights = model->weights, .precision = precision};
        size_t packed = cuda->packed_bytes(device, model->plan, precision), before = bytes_on_device();
        CHECK_OK(cuda->network_create(&network, device, &options, &error), error);
        CHECK_MSG(packed > 0 && cuda->network_bytes(network) == packed && bytes_on_device() == before + packed, "%zu, %zu, %zu", packed,
                  cuda->network_bytes(network), bytes_on_device() - before);
        CHECK(strlen(cuda->network_identity(network)) == 16);
        for (int kept = 0; kept < 2; kept++) {
            for (uint32_t rows = 1; rows <= 64; rows = rows * 3 + 1) {
                dn_workspace *workspace = NULL;
                const dn_workspace_options wanted = {.rows_max = rows, .keep_values = kept};
                size_t told = cuda->workspace_bytes(network, rows, kept);
                before = bytes_on_device();
                CHECK_OK(cuda->workspace_create(&workspace, network, &wanted, &error), error);
                CHECK_MSG(bytes_on_device() == before + told, "%u rows: %zu told, %zu taken", rows, told, bytes_on_device() - before);
                cuda->workspace_free(workspace);
                CHECK(bytes_on_device() == before);
            }
        }
        cuda->network_free(network);
    }
    cuda->device_close(device);
    dn_model_free(model);
    CHECK(nothing_lives());
}

/* Weights that are spent are gone, and the network is the same. */
static void spent_weights_make_the_same_network(void)
{
    const dn_backend *cuda = dn_backend_cuda();
    const dn_workspace_options options = {.rows_max = 2};
    pair p = {0};
    CHECK_OK(open_golden(&p.model, "unet_resample", false), error);
    const dn_plan *plan = p.model->plan;
    CHECK_OK(pair_open(&p, DN_PRECISION_BF16, &options), error);
    float *answers = calloc(4 * p.out_count, sizeof *answers);
    CHECK_OK(side_run(&p.gpu, plan, 0, 2, answers), error);
    cuda->workspace_free(p.gpu.workspace);
    cuda->network_free(p.gpu.network);
    p.gpu.workspace = NULL;
    p.gpu.network = NULL;
    dn_network_options spending = {.plan = plan, .spent = p.model->weights, .precision = DN_PRECISION_BF16};
    CHECK_OK(cuda->network_create(&p.gpu.network, p.gpu.device, &spending, &error), error);
    CHECK_OK(cuda->workspace_create(&p.gpu.workspace, p.gpu.network, &options, &error), error);
    CHECK_OK(side_run(&p.gpu, plan, 0, 2, answers + 2 * p.out_count), error);
    CHECK(memcmp(answers, answers + 2 * p.out_count, 2 * p.out_count * sizeof *answers) == 0);
    free(answers);
    pair_close(&p);
}

typedef struct worker {
    side *shared;
    const dn_plan *plan;
    dn_workspace *workspace;
    uint32_t first; /* of its three rows */
    const float *expected;
    dn_status status;
    bool same;
} worker;

/* A thread: its own rows, over and over, in its own workspace. */
static void *run_rows(void *payload)
{
    worker *w = payload;
    side own = *w->shared;
    size_t floats = dn_shape_count(w->plan->values[w->plan->output].shape);
    float *got = calloc(3 * floats, sizeof *got);
    dn_error mine = {0};
    own.workspace = w->workspace;
    w->same = true;
    for (int run = 0; run < 20 && w->status == DN_OK; run++) {
        dn_row rows[3];
        for (uint32_t r = 0; r < 3; r++)
            rows[r] = row_of(&own, w->plan, w->first + r);
        w->status = own.backend->run(own.network, own.workspace, rows, 3, &mine);
        if (w->status == DN_OK)
            w->status = own.backend->buffer_read(own.out, w->first * floats, got, 3 * floats, &mine);
        w->same &= memcmp(got, w->expected, 3 * floats * sizeof *got) == 0;
    }
    free(got);
    return NULL;
}

static void two_streams_run_at_once(void)
{
    dn_plan *plan = small_plan();
    dn_weights *weights = small_weights(plan);
    size_t floats = dn_shape_count(plan->values[plan->output].shape);
    side s = {0};
    CHECK_OK(side_open(&s, dn_backend_cuda(), plan, weights, DN_PRECISION_BF16, &(dn_workspace_options){.rows_max = 3}), error);
    CHECK_OK(side_fill(&s, plan), error);
    float *expected = calloc(6 * floats, sizeof *expected);
    CHECK_OK(side_run(&s, plan, 0, 3, expected), error);
    CHECK_OK(side_run(&s, plan, 3, 3, expected + 3 * floats), error);
    dn_workspace *background = NULL;
    CHECK_OK(s.backend->workspace_create(&background, s.network, &(dn_workspace_options){.rows_max = 3, .background = true}, &error),
             error);
    worker workers[2] = {{&s, plan, s.workspace, 0, expected, DN_OK, false},
                         {&s, plan, background, 3, expected + 3 * floats, DN_OK, false}};
    pthread_t threads[2];
    for (int t = 0; t < 2; t++)
        CHECK(pthread_create(&threads[t], NULL, run_rows, &workers[t]) == 0);
    for (int t = 0; t < 2; t++)
        pthread_join(threads[t], NULL);
    for (int t = 0; t < 2; t++)
        CHECK_MSG(workers[t].status == DN_OK && workers[t].same, "thread %d: %s", t, dn_status_name(workers[t].status));
    s.backend->workspace_free(background);
    side_close(&s);
    free(expected);
    dn_weights_free(weights);
    dn_plan_free(plan);
    CHECK(nothing_lives());
}

static void mark(void *payload)
{
    *(bool *)payload = true;
}

/* Pictures and registers that a run has left are read beside what the main stream does next; what was enqueued for a buffer is waited for. */
static void what_a_run_left_is_read_beside_the_next_pass(void)
{
    dn_plan *plan = small_plan();
    dn_weights *weights = small_weights(plan);
    const size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    for (int background = 0; background < 2; background++) {
        side s = {0};
        float *answers = calloc(2 * out + in, sizeof *answers);
        uint8_t *pixels = calloc(out, 1);
        bool passed = false;
        CHECK_OK(side_open(&s, dn_backend_cuda(), plan, weights, DN_PRECISION_FP32,
                           &(dn_workspace_options){.rows_max = 1, .background = background}),
                 error);
        CHECK_OK(side_fill(&s, plan), error);
        CHECK_OK(side_run(&s, plan, 0, 1, answers), error);
        CHECK(dn_emulator_launch(s.device->main, mark, &passed) == 0);
        CHECK_OK(s.backend->buffer_read(s.out, 0, answers + out, out, &error), error);
        CHECK_OK(s.backend->buffer_read_pixels(s.out, 0, 1, out, true, pixels, &error), error);
        CHECK_MSG(!passed && memcmp(answers, answers + out, out * sizeof *answers) == 0, "background %d", background);
        CHECK_OK(s.backend->buffer_write(s.out, 0, answers, 1, &error), error);
        CHECK_OK(s.backend->buffer_read(s.out, 0, answers + out, 1, &error), error);
        CHECK_MSG(passed && answers[out] == answers[0], "background %d: what was written", background);
        dn_program program = {
            .registers = s.out, .elements = out, .ops = &(dn_op){.kind = DN_OP_CLIP, .low = 7.0f, .high = 7.0f}, .op_count = 1};
        CHECK_OK(side_run(&s, plan, 0, 1, NULL), error);
        CHECK_OK(s.backend->execute(s.device, &program, 1, &error), error);
        CHECK_OK(s.backend->buffer_read(s.out, 0, answers + out, out, &error), error);
        CHECK_MSG(answers[out] == 7.0f && answers[2 * out - 1] == 7.0f, "background %d: a program", background);
        side_close(&s);
        free(answers);
        free(pixels);
    }
    dn_weights_free(weights);
    dn_plan_free(plan);
    CHECK(nothing_lives());
}

/* Whatever step of a run failed, eager, recorded or replayed: the next one is whole. */
static void a_run_that_failed_leaves_the_next_whole(void)
{
    static const char *const faults[] = {"launch:3:oom",          "launch:1:oom",          "copy:1:oom",  "copy:2:oom",
                                         "capture:1:unsupported", "capture:2:unsupported", "graph:1:oom", "event:1:oom"};
    dn_plan *plan = small_plan();
    dn_weights *weights = small_weights(plan);
    size_t floats = 3 * dn_shape_count(plan->values[plan->output].shape);
    float *good = calloc(floats, sizeof *good), *got = calloc(floats, sizeof *got);
    for (size_t f = 0; f < sizeof faults / sizeof faults[0]; f++) {
        for (uint32_t before = 0; before < 3; before++) { /* runs: the fault meets the warming, the recording, the replay */
            side s = {0};
            char settings[64];
            CHECK(dn_emulator_configure(""));
            CHECK_OK(side_open(&s, dn_backend_cuda(), plan, weights, DN_PRECISION_BF16, &(dn_workspace_options){.rows_max = 3}), error);
            CHECK_OK(side_fill(&s, plan), error);
            for (uint32_t run = 0; run < before; run++)
                CHECK_OK(side_run(&s, plan, 0, 3, NULL), error);
            snprintf(settings, sizeof settings, "fault=%s", faults[f]);
            CHECK(dn_emulator_configure(settings));
            (void)side_run(&s, plan, 0, 3, NULL);
            CHECK(dn_emulator_configure(""));
            for (uint32_t run = 0; run < 3; run++) {
                CHECK_MSG(side_run(&s, plan, 0, 3, got) == DN_OK, "%s after %u runs: %s", faults[f], before, error.message);
                CHECK_MSG((f == 0 && before == 0 && run == 0) || memcmp(good, got, floats * sizeof *got) == 0,
                          "%s after %u runs: other bytes", faults[f], before);
                memcpy(good, got, floats * sizeof *got);
            }
            side_close(&s);
            CHECK(nothing_lives());
        }
    }
    free(good);
    free(got);
    dn_weights_free(weights);
    dn_plan_free(plan);
}

/* A program that waits runs before a row that reads its registers, whichever stream that is on, and before what reads them. */
static void programs_that_wait_run_before_rows_are_read(void)
{
    dn_plan *plan = small_plan();
    dn_weights *weights = small_weights(plan);
    size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    float *answers = calloc(2 * out, sizeof *answers), *samples = calloc(in, sizeof *samples);
    for (int background = 0; background < 2; background++) {
        side s = {0};
        dn_workspace_options options = {.rows_max = 1, .background = background};
        CHECK_OK(side_open(&s, dn_backend_cuda(), plan, weights, DN_PRECISION_FP32, &options), error);
        for (uint32_t run = 0; run < 3; run++) {
            dn_op ops[2] = {{.kind = DN_OP_LINEAR, .dst = 1, .terms = 1, .src = {0}, .coefficient = {2.0f}},
                            {.kind = DN_OP_LINEAR, .dst = 0, .terms = 2, .src = {1, 0}, .coefficient = {1.0f, 0.5f}}};
            dn_program program = {.registers = s.in, .elements = in, .ops = ops, .op_count = 2};
            fill_samples(samples, in, run);
            CHECK_OK(s.backend->buffer_write(s.in, 0, samples, in, &error), error);
            CHECK_OK(s.backend->execute(s.device, &program, 1, &error), error);
            CHECK_OK(side_run(&s, plan, 0, 1, answers), error);
            for (size_t i = 0; i < in; i++)
                samples[i] = 1.0f * (2.0f * samples[i]) + 0.5f * samples[i];
            CHECK_OK(s.backend->buffer_write(s.in, 0, samples, in, &error), error);
            CHECK_OK(side_run(&s, plan, 0, 1, answers + out), error);
            CHECK_MSG(memcmp(answers, answers + out, out * sizeof *answers) == 0, "background %d, run %u", background, run);
        }
        side_close(&s);
    }
    free(answers);
    free(samples);
    dn_weights_free(weights);
    dn_plan_free(plan);
}

int main(void)
{
    RUN(bytes_are_told_before_they_are_taken);
    RUN(spent_weights_make_the_same_network);
    RUN(programs_that_wait_run_before_rows_are_read);
    RUN(a_run_that_failed_leaves_the_next_whole);
    RUN(two_streams_run_at_once);
    RUN(what_a_run_left_is_read_beside_the_next_pass);
    RUN(no_memory_says_for_what_and_what_is_free);
    RUN(no_memory_at_any_allocation_leaks_nothing);
    RUN(no_resources_at_any_launch_or_record_leak_nothing);
    RUN(a_lost_device_is_told_as_such);
    return test_end();
}
