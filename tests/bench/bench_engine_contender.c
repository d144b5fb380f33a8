/* The engine as a contender of tests/bench/peers: works.py says what the works are, contender.py what is asked and answered.
 *
 *     bench_engine_contender FOLDER WORK THREADS PRECISION                     WORK: attention, train, builtin, or probe
 *     bench_engine_contender FOLDER WORK THREADS PRECISION MODEL PART ROWS     FOLDER/models/MODEL; "" for PART: all of it
 *
 * The probe answers "go N" with the GF/s of N milliseconds, by the wall's clock and, of one thread, by its own.
 *
 * Models and inputs are the files that the peers open, so that the answers of one pass can be held against each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/backend.h"
#include "backend/cpu/state.h"
#include "base/clock.h"
#include "base/file.h"
#include "engine.h"
#include "model/forward.h"
#include "tests/bench/fma_probe.h"
#include "tests/bench/made_pictures.h"
#include "train/train.h"

#define PATH_BYTES 4096
#define WARM_SECONDS 1.0
#define WARM_PASSES 3
#define TIME 500.0f
#define CLASSES 10u
#define TOKENS 1024u
#define HEADS 8u
#define HEAD_DIM 40u
#define BUILTIN "models/fashion-mnist"
#define RECIPE BUILTIN "/recipe.json"
#define PICTURES_STEPS 20u
#define PICTURES_BATCH 16u
#define EXAMPLES 2048u /* of the training set that is made up */

typedef struct contender {
    const char *folder, *work;
    unsigned threads;
    dn_precision precision;
    uint32_t rows;
    dn_model *model;
    dn_forward *forward;
    dn_engine *engine;
    float *in, *times, *out;
    uint32_t *classes;
    size_t out_count; /* of all rows */
    void (*pass)(struct contender *c, uint64_t count);
} contender;

static void check(dn_status status, const dn_error *error)
{
    if (status == DN_OK)
        return;
    fprintf(stderr, "bench_engine_contender: %s\n", error->message);
    exit(1);
}

static void *claim(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL)
        abort();
    return memory;
}

static double process_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void save(contender *c, const char *path)
{
    c->pass(c, 1);
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(c->out, sizeof(float), c->out_count, file) != c->out_count || fclose(file) != 0) {
        fprintf(stderr, "bench_engine_contender: cannot write %s\n", path);
        exit(1);
    }
}

/* ---- Taking turns. */

typedef struct turn {
    double wall, cpu; /* at its start, then seconds of it */
} turn;

static turn turn_begin(void)
{
    return (turn){dn_now_seconds(), process_seconds()};
}

static void turn_end(const turn *t)
{
    printf("{\"wall\": %.9f, \"cpu\": %.9f}\n", dn_now_seconds() - t->wall, process_seconds() - t->cpu);
    fflush(stdout);
}

/* The next count of passes that is asked for; the end of input ends the program. */
static uint64_t next_go(contender *c)
{
    char line[PATH_BYTES], path[PATH_BYTES];
    unsigned long long count = 0;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "go %llu", &count) == 1)
            return count;
        if (c != NULL && sscanf(line, "save %4095s", path) == 1) {
            save(c, path);
            printf("{}\n");
            fflush(stdout);
        }
    }
    exit(0);
}

/* flops: of one pass, in the direct form of convolutions. */
static void ready(const contender *c, const char *about, double flops)
{
    printf("{\"version\": \"%s %s\", \"gflop\": %.6f}\n", about, dn_precision_name(c->precision), 1e-9 * flops);
    fflush(stdout);
}

static void serve(contender *c, double flops)
{
    const double began = dn_now_seconds();
    for (int i = 0; i < WARM_PASSES || dn_now_seconds() - began < WARM_SECONDS; i++)
        c->pass(c, 1);
    ready(c, "", flops);
    for (;;) {
        const uint64_t count = next_go(c);
        const turn t = turn_begin();
        c->pass(c, count);
        turn_end(&t);
    }
}

/* ---- The probe. */

/* GF/s of one thread, the caller's, by both clocks. */
static void probe_here(size_t lanes, double seconds, double *wall, double *cpu)
{
    const turn t = turn_begin();
    double flops = 0.0;
    while (process_seconds() - t.cpu < seconds)
        flops += fma_probe_once(lanes);
    *wall = 1e-9 * flops / (dn_now_seconds() - t.wall);
    *cpu = 1e-9 * flops / (process_seconds() - t.cpu);
}

static void serve_probe(const contender *c)
{
    dn_device *device = NULL;
    dn_error error;
    check(dn_backend_cpu()->device_open(&device, &(dn_device_options){.threads = 1}, &error), &error);
    const char *isa = dn_backend_cpu()->device_isa(device);
    ready(c, isa, 0.0);
    for (;;) {
        const double seconds = 1e-3 * (double)next_go(NULL);
        double wall, cpu;
        if (c->threads == 1)
            probe_here(fma_probe_lanes(isa), seconds, &wall, &cpu);
        else
            wall = cpu = 1e-9 * fma_probe_all(fma_probe_lanes(isa), c->threads, seconds);
        printf("{\"wall\": %.3f, \"cpu\": %.3f}\n", wall, cpu);
        fflush(stdout);
    }
}

/* ---- Whole networks. */

static void read_input(contender *c, size_t count)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/inputs/%s.f32", c->folder, c->work);
    c->in = claim(count, sizeof(float));
    FILE *file = fopen(path, "rb");
    if (file == NULL || fread(c->in, sizeof(float), count, file) != count || fclose(file) != 0) {
        fprintf(stderr, "bench_engine_contender: cannot read %zu floats of %s\n", count, path);
        exit(1);
    }
}

static void pass_forward(contender *c, uint64_t count)
{
    const dn_forward_rows rows = {
        .count = c->rows, .samples = c->in, .times = c->times, .classes = c->model->class_rows ? c->classes : NULL};
    dn_error error;
    for (uint64_t i = 0; i < count; i++)
        check(dn_forward_run(c->forward, &rows, c->out, NULL, NULL, &error), &error);
}

static void open_forward(contender *c)
{
    dn_error error;
    const dn_shape out = c->model->plan->values[c->model->plan->output].shape;
    const dn_forward_options options = {.threads = c->threads, .rows_max = c->rows, .precision = c->precision};
    check(dn_forward_open(&c->forward, c->model, &options, &error), &error);
    c->out_count = c->rows * dn_shape_count(out);
    c->out = claim(c->out_count, sizeof(float));
    c->times = claim(c->rows, sizeof(float));
    c->classes = claim(c->rows, sizeof(uint32_t));
    for (uint32_t i = 0; i < c->rows; i++) {
        c->times[i] = TIME;
        c->classes[i] = i % CLASSES;
    }
    c->pass = pass_forward;
}

static void serve_model(contender *c, const char *name, const char *part)
{
    char path[PATH_BYTES];
    dn_error error;
    snprintf(path, sizeof path, "%s/models/%s", c->folder, name);
    if (part[0] != '\0')
        check(dn_model_open_part(&c->model, path, part, 0, 0, &error), &error);
    else
        check(dn_model_open(&c->model, path, 0, 0, &error), &error);
    read_input(c, (size_t)c->rows * c->model->channels * c->model->height * c->model->width);
    open_forward(c);
    dn_weights_free(c->model->weights); /* packed by now */
    c->model->weights = NULL;
    serve(c, dn_plan_flops(c->model->plan) * c->rows);
}

/* ---- Attention alone: the node's own function where its input lies, since no network gathers and scatters around it. */

static dn_cpu_run attention_run; /* of the only row */

static void pass_attention(contender *c, uint64_t count)
{
    (void)c;
    for (uint64_t i = 0; i < count; i++)
        dn_cpu_attention(&attention_run);
}

static dn_plan *attention_plan(void)
{
    dn_plan_builder builder;
    dn_plan *plan = NULL;
    dn_error error;
    check(dn_plan_begin(&builder, (dn_shape){32, TOKENS / 32, 3u * HEADS * HEAD_DIM}, &error), &error);
    const dn_value out = dn_plan_attention(&builder, builder.plan->input, "attention", HEADS);
    check(dn_plan_end(&plan, &builder, out, &error), &error);
    return plan;
}

static void serve_attention(contender *c)
{
    dn_plan *plan = attention_plan();
    dn_device *device = NULL;
    dn_network *network = NULL;
    dn_workspace *workspace = NULL;
    dn_weights *weights = NULL;
    dn_error error;
    check(dn_weights_create(&weights, plan, &error), &error);
    const dn_network_options options = {.plan = plan, .weights = weights};
    const dn_workspace_options space = {.rows_max = 1, .keep_values = true};
    check(dn_backend_cpu()->device_open(&device, &(dn_device_options){.threads = c->threads}, &error), &error);
    check(dn_cpu_network_create(&network, device, &options, &error), &error);
    check(dn_cpu_workspace_create(&workspace, network, &space, &error), &error);
    workspace->row_count = 1;
    attention_run = (dn_cpu_run){.workspace = workspace,
                                 .pool = c->threads > 1 ? device->pool : NULL,
                                 .row_count = 1,
                                 .region = workspace->arena,
                                 .offsets = workspace->offsets,
                                 .plan = plan,
                                 .node = &plan->nodes[plan->node_count - 1],
                                 .compiled = &network->nodes[plan->node_count - 1],
                                 .kernels = device->kernels};
    const size_t in = dn_shape_count(plan->values[plan->input].shape);
    read_input(c, in);
    memcpy(dn_cpu_rows_of(&attention_run, plan->input), c->in, in * sizeof(float));
    c->out = dn_cpu_out(&attention_run);
    c->out_count = dn_shape_count(plan->values[plan->output].shape);
    c->pass = pass_attention;
    serve(c, dn_plan_flops(plan));
}

/* ---- Training: dn_train itself, which is asked after each step whether there shall be another. */

typedef struct training {
    const contender *contender;
    turn turn;
    uint64_t left, warm;
} training;

static void after_step(void *payload, const dn_train_progress *progress)
{
    training *t = payload;
    (void)progress;
    if (t->warm > 0) {
        if (--t->warm > 0)
            return;
        ready(t->contender, "", 0.0);
    } else if (--t->left > 0) {
        return;
    } else {
        turn_end(&t->turn);
    }
    t->left = next_go(NULL);
    t->turn = turn_begin();
}

static void serve_training(const contender *c)
{
    dn_error error;
    dn_recipe *recipe = NULL;
    char output[PATH_BYTES];
    snprintf(output, sizeof output, "%s/train", c->folder);
    check(dn_recipe_read(&recipe, RECIPE, &error), &error);
    recipe->images = UINT64_C(1) << 40;
    recipe->save_every_images = 0;
    const dn_dataset data = made_pictures(EXAMPLES, 32, CLASSES);
    training t = {.contender = c, .warm = WARM_PASSES};
    const dn_train_options options = {
        .recipe = recipe, .dataset = &data, .output = output, .threads = c->threads, .progress = after_step, .payload = &t};
    check(dn_train(&options, &error), &error);
}

/* ---- The built-in model's pictures, as clients ask for them. */

static void pass_pictures(contender *c, uint64_t count)
{
    dn_lane_spec specs[PICTURES_BATCH];
    dn_error error;
    for (uint32_t i = 0; i < PICTURES_BATCH; i++) {
        specs[i] = (dn_lane_spec){.seed = i, .has_class = true, .class_index = i % CLASSES, .guidance_scale = 2.0, .steps = PICTURES_STEPS};
        snprintf(specs[i].sampler, sizeof specs[i].sampler, "%s", c->engine->default_sampler);
    }
    for (uint64_t i = 0; i < count; i++)
        check(dn_generate(c->engine, specs, PICTURES_BATCH, NULL, c->out, NULL, NULL, &error), &error);
}

static void serve_pictures(contender *c)
{
    dn_error error;
    const dn_engine_options options = {.threads = c->threads, .precision = c->precision};
    check(dn_engine_open(&c->engine, BUILTIN, &options, &error), &error);
    const dn_plan *plan = c->engine->model->plan;
    c->out_count = PICTURES_BATCH * dn_shape_count(plan->values[plan->input].shape);
    c->out = claim(c->out_count, sizeof(float));
    c->pass = pass_pictures;
    serve(c, dn_plan_flops(plan) * 2.0 * PICTURES_STEPS * PICTURES_BATCH);
}

int main(int argc, char **argv)
{
    dn_error error;
    if (argc != 5 && argc != 8) {
        fprintf(stderr, "usage: bench_engine_contender FOLDER WORK THREADS PRECISION [MODEL PART ROWS]\n");
        return 64;
    }
    contender c = {.folder = argv[1], .work = argv[2], .threads = (unsigned)strtoul(argv[3], NULL, 10), .rows = 1};
    check(dn_precision_parse(&c.precision, argv[4], &error), &error);
    if (argc == 8) {
        c.rows = (uint32_t)strtoul(argv[7], NULL, 10);
        serve_model(&c, argv[5], argv[6]);
    } else if (strcmp(c.work, "probe") == 0) {
        serve_probe(&c);
    } else if (strcmp(c.work, "attention") == 0) {
        serve_attention(&c);
    } else if (strcmp(c.work, "train") == 0) {
        serve_training(&c);
    } else if (strcmp(c.work, "builtin") == 0) {
        serve_pictures(&c);
    }
    return 64;
}
