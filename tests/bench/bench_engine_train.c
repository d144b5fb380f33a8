/* Measures what training is made of beside the multiply-add peak of the same run: nodes backward on one core, and whole steps of a recipe.
 *
 *     bench_engine_train RECIPE.json FOLDER [SECONDS_PER_ROW]        FOLDER: receives what dn_train leaves, and must not have it yet
 *
 * Nodes count the thread's own CPU time, best of many rounds; steps the process's own on one thread, and wall time on all of them, of a few
 * the fastest. A node's gradients are twice its multiply-adds, those of values and those of weights; a step is three times the forward
 * pass of its pictures; both in the direct form of convolutions. Pictures are made up. */
#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "model/model.h"
#include "tests/bench/bench_rows.h"
#include "tests/bench/made_pictures.h"
#include "train/backward.h"
#include "train/train.h"

#define PICTURES 2048u
#define CLASSES 10u
#define STEPS_MIN 5u
#define STEP_SECONDS 4.0
#define PATH_BYTES 4096

/* ---- One node backward. */

typedef dn_value build_function(dn_plan_builder *builder, dn_value in, uint32_t parameter);

static dn_value build_conv(dn_plan_builder *builder, dn_value in, uint32_t channels)
{
    dn_conv_options options = DN_CONV_INIT;
    options.module = "conv";
    options.out_channels = channels;
    return dn_plan_conv(builder, in, &options);
}

static dn_value build_linear(dn_plan_builder *builder, dn_value in, uint32_t channels)
{
    static const char *const module = "linear";
    dn_linear_options options = DN_LINEAR_INIT;
    options.modules = &module;
    options.out_channels = channels;
    return dn_plan_linear(builder, in, &options);
}

static dn_value build_norm(dn_plan_builder *builder, dn_value in, uint32_t groups)
{
    return dn_plan_group_norm(builder, in, "norm", NULL, groups, 1e-5f, DN_NONE, DN_ACT_SILU);
}

static dn_value build_attention(dn_plan_builder *builder, dn_value in, uint32_t heads)
{
    return dn_plan_attention(builder, in, "attention", heads);
}

typedef struct node_case {
    const char *name;
    build_function *build;
    dn_shape shape;
    uint32_t parameter;
} node_case;

/* A plan's backward run over the rows that go through a node together, all memory its own. */
typedef struct backward_job {
    const dn_backward_table_f32 *table;
    dn_backward_f32 runs[DN_BACKWARD_ROWS];
} backward_job;

static void run_backward(void *payload)
{
    const backward_job *job = payload;
    job->table->rows(job->runs, DN_BACKWARD_ROWS);
}

static float **random_values(const dn_plan *plan)
{
    float **values = calloc(plan->value_count, sizeof *values);
    if (values == NULL)
        abort();
    for (uint32_t v = 0; v < plan->value_count; v++)
        values[v] = randoms(dn_shape_count(plan->values[v].shape));
    return values;
}

static void free_values(const dn_plan *plan, void *values)
{
    float **each = values;
    for (uint32_t v = 0; v < plan->value_count; v++)
        free(each[v]);
    free(each);
}

/* Best seconds of a plan's backward run. */
static double time_backward(const dn_plan *plan, const char *isa)
{
    dn_packing *packing = NULL;
    dn_error error;
    check(dn_packing_create(&packing, plan, &error), &error);
    float *packed = randoms(packing->total), *gradient = randoms(packing->total), *scratch = randoms(packing->scratch);
    backward_job job = {.table = dn_backward_find_f32(isa)};
    for (uint32_t r = 0; r < DN_BACKWARD_ROWS; r++)
        job.runs[r] = (dn_backward_f32){.packing = packing,
                                        .packed = packed,
                                        .packed_gradient = gradient,
                                        .values = (const float *const *)random_values(plan),
                                        .gradients = random_values(plan),
                                        .scratch = scratch,
                                        .input_gradient = true};
    const double best = best_time(run_backward, &job, thread_seconds);
    for (uint32_t r = 0; r < DN_BACKWARD_ROWS; r++) {
        free_values(plan, (void *)(uintptr_t)job.runs[r].values);
        free_values(plan, (void *)(uintptr_t)job.runs[r].gradients);
    }
    free(packed);
    free(gradient);
    free(scratch);
    dn_packing_free(packing);
    return best;
}

static void bench_node(const char *isa, const node_case *c)
{
    dn_plan_builder builder;
    dn_plan *plan = NULL;
    dn_error error;
    check(dn_plan_begin(&builder, c->shape, &error), &error);
    const dn_value out = c->build(&builder, builder.plan->input, c->parameter);
    check(dn_plan_end(&plan, &builder, out, &error), &error);
    char text[96];
    snprintf(text, sizeof text, "%s backward %ux%ux%ux%u -> %u", c->name, DN_BACKWARD_ROWS, c->shape.h, c->shape.w, c->shape.c,
             c->parameter);
    probe_peak(fma_probe_lanes(isa));
    const double seconds = time_backward(plan, isa), flops = 2.0 * DN_BACKWARD_ROWS * dn_plan_flops(plan);
    if (flops > 0.0)
        print_flops(text, seconds, flops);
    else /* reads x and the gradient of what it became, writes the gradient of x */
        printf("%-46s %9.4f ms %8.1f GB/s read and written\n", text, seconds * 1e3,
               12e-9 * DN_BACKWARD_ROWS * (double)dn_shape_count(c->shape) / seconds);
    dn_plan_free(plan);
}

static void bench_nodes(const char *isa)
{
    static const node_case cases[] = {
        {"conv 3x3", build_conv, {32, 32, 1}, 32}, /* the built-in model's */
        {"conv 3x3", build_conv, {32, 32, 32}, 32},
        {"conv 3x3", build_conv, {16, 16, 64}, 64},
        {"conv 3x3", build_conv, {8, 8, 96}, 96},
        {"conv 3x3", build_conv, {8, 8, 192}, 96},
        {"conv 3x3", build_conv, {7, 7, 96}, 96}, /* odd: the direct form */
        {"group norm, groups", build_norm, {32, 32, 32}, 8},
        {"attention, heads", build_attention, {8, 8, 288}, 3},
        {"linear", build_linear, {8, 8, 96}, 288},
        {"linear", build_linear, {16, 16, 384}, 1536}, /* DiT-S/2 */
        {"attention, heads", build_attention, {16, 16, 1152}, 6},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        bench_node(isa, &cases[i]);
}

/* ---- Steps. */

static double process_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct stepping {
    double (*clock_of)(void);
    double before, best; /* when the last step ended; of the fastest */
    double end; /* by the wall's clock */
    volatile sig_atomic_t stop;
} stepping;

/* The first step warms up; the last one also writes files. */
static void after_step(void *payload, const dn_train_progress *progress)
{
    stepping *s = payload;
    const double now = s->clock_of();
    if (progress->step > 1 && !progress->saved)
        s->best = fmin(s->best, now - s->before);
    s->before = now;
    s->stop = progress->step >= STEPS_MIN && dn_now_seconds() > s->end;
}

/* Seconds of the fastest step. */
static double time_step(const dn_recipe *recipe, const dn_dataset *data, const char *folder, unsigned threads)
{
    dn_error error;
    char output[PATH_BYTES];
    snprintf(output, sizeof output, "%s/%u", folder, threads);
    stepping s = {.clock_of = threads == 1 ? process_seconds : dn_now_seconds, .best = INFINITY, .end = dn_now_seconds() + STEP_SECONDS};
    const dn_train_options options = {
        .recipe = recipe, .dataset = data, .output = output, .threads = threads, .cancel = &s.stop, .progress = after_step, .payload = &s};
    const dn_status status = dn_train(&options, &error);
    if (status != DN_CANCELLED)
        check(status, &error);
    return s.best;
}

static void bench_steps(const char *isa, const char *recipe_path, const char *folder)
{
    dn_error error;
    dn_recipe *recipe = NULL;
    dn_model *model = NULL;
    check(dn_recipe_read(&recipe, recipe_path, &error), &error);
    check(dn_model_from_config(&model, recipe->unet, recipe_path, &error), &error);
    recipe->images = UINT64_C(1) << 40;
    recipe->save_every_images = recipe->sample_every_images = 0;
    const dn_dataset data = made_pictures(PICTURES, model->width, CLASSES);
    const double flops = 3.0 * recipe->batch * dn_plan_flops(model->plan);
    const unsigned all = dn_available_cpus();
    char text[96];
    snprintf(text, sizeof text, "step of %u pictures, one core", recipe->batch);
    probe_peak(fma_probe_lanes(isa));
    const double alone = time_step(recipe, &data, folder, 1);
    probe_peak(fma_probe_lanes(isa));
    print_flops(text, alone, flops);
    if (all > 1) {
        snprintf(text, sizeof text, "step of %u pictures, %u threads", recipe->batch, all);
        peak = fma_probe_all(fma_probe_lanes(isa), all, seconds_per_row);
        const double together = time_step(recipe, &data, folder, all);
        peak = fmax(peak, fma_probe_all(fma_probe_lanes(isa), all, seconds_per_row));
        print_flops(text, together, flops);
        printf("multiply-add peak of %u threads together, by the wall: %.1f GF/s\n", all, peak * 1e-9);
    }
    dn_model_free(model);
    dn_recipe_free(recipe);
}

int main(int argc, char **argv)
{
    dn_device *device = NULL;
    dn_error error;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_engine_train RECIPE.json FOLDER [SECONDS_PER_ROW]\n");
        return 64;
    }
    if (argc > 3)
        seconds_per_row = atof(argv[3]);
    check(dn_backend_cpu()->device_open(&device, &(dn_device_options){.threads = 1}, &error), &error);
    const char *isa = dn_backend_cpu()->device_isa(device);
    for (int i = 0; i < 20; i++)
        probe_peak(fma_probe_lanes(isa));
    printf("%s, multiply-add peak of one core %.1f GF/s\n", isa, peak * 1e-9);
    bench_nodes(isa);
    bench_steps(isa, argv[1], argv[2]);
    dn_backend_cpu()->device_close(device);
    return 0;
}
