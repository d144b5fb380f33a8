/* Whole networks, forward, with random weights made in memory: milliseconds a row beside the multiply-add peak of the same threads,
 * probed before and after each. Rows share one time, as the rows of one guided image do; then each has another.
 *
 *     bench_engine_models [--precision NAME] [CONFIG.json ...]        the default: fp32, every one of tests/bench/models
 *
 * A percentage counts the multiply-adds of the plain definition, so a convolution by Winograd may pass 100. Of several runs the
 * fastest counts: neighbours only ever add time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "format/json.h"
#include "model/model.h"
#include "tests/bench/fma_probe.h"

#define PROBE_SECONDS 0.2
#define ROUND_SECONDS 2.0 /* of each model and number of rows, at least */
#define ROUNDS_MIN 3
#define TABLE_COUNT 65536u /* normals that all weights are made of */

typedef struct bench {
    const dn_backend *backend;
    dn_device *device;
    size_t lanes;
    unsigned threads;
    dn_precision precision;
    float *table;
} bench;

static void fail(const char *what, const dn_error *error)
{
    fprintf(stderr, "bench_engine_models: %s: %s\n", what, error->message);
    exit(1);
}

/* Every output has the variance of its inputs; vectors are near one, as norm gains are. */
static void fill_weights(const bench *b, dn_weights *weights, const dn_plan *plan)
{
    for (uint32_t w = 0; w < plan->weight_count; w++) {
        const dn_weight_info *info = &plan->weights[w];
        const float scale = info->rank > 1 ? 1.0f / sqrtf((float)info->count / (float)info->dims[0]) : 0.1f;
        const float mean = info->rank > 1 ? 0.0f : 0.5f;
        for (uint64_t i = 0; i < info->count; i++)
            weights->data[w][i] = mean + scale * b->table[(i + 7919u * w) % TABLE_COUNT];
    }
}

typedef struct rig {
    dn_network *network;
    dn_workspace *workspace;
    dn_buffer *in, *out;
    dn_row rows[8];
} rig;

static dn_status build_rig(rig *r, const bench *b, const dn_model *model, uint32_t count, dn_error *error)
{
    const dn_plan *plan = model->plan;
    const size_t in = dn_shape_count(plan->values[plan->input].shape), out = dn_shape_count(plan->values[plan->output].shape);
    const dn_workspace_options workspace = {.rows_max = count};
    dn_status status = b->backend->workspace_create(&r->workspace, r->network, &workspace, error);
    if (status == DN_OK)
        status = b->backend->buffer_create(&r->in, b->device, in * count, error);
    if (status == DN_OK)
        status = b->backend->buffer_create(&r->out, b->device, out * count, error);
    for (uint32_t i = 0; status == DN_OK && i < count; i++) {
        r->rows[i] = (dn_row){.in = r->in, .in_offset = i * in, .in_scale = 1.0f, .time = 500.0f, .out = r->out, .out_offset = i * out};
        r->rows[i].condition = (dn_condition){model->class_rows > 0, {1}, {1.0f}};
        for (size_t done = 0; status == DN_OK && done < in; done += TABLE_COUNT)
            status = b->backend->buffer_write(r->in, i * in + done, b->table, in - done < TABLE_COUNT ? in - done : TABLE_COUNT, error);
    }
    return status;
}

static void free_rig(rig *r, const bench *b)
{
    b->backend->buffer_free(r->out);
    b->backend->buffer_free(r->in);
    b->backend->workspace_free(r->workspace);
}

/* Seconds of the fastest pass over `count` rows; fresh: at times that no pass had before, another for every row. */
static double time_rows(rig *r, const bench *b, uint32_t count, bool fresh)
{
    dn_error error = {DN_OK, ""};
    double best = 1e30, total = 0.0;
    for (int round = 0; round <= ROUNDS_MIN || total < ROUND_SECONDS; round++) {
        for (uint32_t i = 0; fresh && i < count; i++)
            r->rows[i].time = 1.0f + (float)i + 8.0f * (float)round;
        const double began = dn_now_seconds();
        if (b->backend->run(r->network, r->workspace, r->rows, count, &error) != DN_OK)
            fail("run", &error);
        const double took = dn_now_seconds() - began;
        total += took;
        if (round > 0 && took < best) /* the first warms up */
            best = took;
    }
    return best;
}

static void measure(const bench *b, const char *name, const dn_model *model, rig *r, uint32_t count)
{
    dn_error error = {DN_OK, ""};
    if (build_rig(r, b, model, count, &error) != DN_OK)
        fail(name, &error);
    const double before = fma_probe_all(b->lanes, b->threads, PROBE_SECONDS), seconds = time_rows(r, b, count, false),
                 fresh = time_rows(r, b, count, true);
    const double after = fma_probe_all(b->lanes, b->threads, PROBE_SECONDS), flops = dn_plan_flops(model->plan) * count;
    const double peak = before > after ? before : after;
    printf("%-14s %7.1f M  %u rows  %9.2f ms/row (%.2f at times met first)  %8.2f GFLOP/row  %7.1f GF/s  %5.1f %% of %.0f  weights %.0f MB "
           " workspace %.0f MB%s\n",
           name, (double)dn_plan_parameters(model->plan) * 1e-6, count, 1e3 * seconds / count, 1e3 * fresh / count, flops * 1e-9 / count,
           flops * 1e-9 / seconds, 100.0 * flops / seconds / peak, peak * 1e-9, (double)b->backend->network_bytes(r->network) * 1e-6,
           (double)b->backend->workspace_bytes(r->network, count, false) * 1e-6, r->rows[0].finite ? "" : "  NOT FINITE");
    fflush(stdout);
    free_rig(r, b);
}

static void bench_model(const bench *b, const char *path)
{
    dn_error error = {DN_OK, ""};
    cJSON *config = NULL;
    dn_model *model = NULL;
    rig r = {0};
    char name[64];
    const char *last = strrchr(path, '/');
    snprintf(name, sizeof name, "%s", last != NULL ? last + 1 : path);
    name[strcspn(name, ".")] = '\0';
    if (dn_json_read_file(&config, path, DN_CONFIG_BYTES_MAX, &error) != DN_OK ||
        dn_model_from_config(&model, config, path, &error) != DN_OK || dn_weights_create(&model->weights, model->plan, &error) != DN_OK)
        fail(path, &error);
    fill_weights(b, model->weights, model->plan);
    const dn_network_options network = {.plan = model->plan, .weights = model->weights, .precision = b->precision};
    if (b->backend->network_create(&r.network, b->device, &network, &error) != DN_OK)
        fail(path, &error);
    dn_weights_free(model->weights);
    model->weights = NULL;
    measure(b, name, model, &r, 1);
    measure(b, name, model, &r, 2);
    if (dn_plan_flops(model->plan) < 3e10) /* what is small is served in batches */
        measure(b, name, model, &r, 8);
    b->backend->network_free(r.network);
    dn_model_free(model);
    cJSON_Delete(config);
}

int main(int argc, char **argv)
{
    static const char *const all[] = {"tests/bench/models/unet_15m.json", "tests/bench/models/dit_s_2.json",
                                      "tests/bench/models/dit_xl_2.json", "tests/bench/models/sd_vae.json"};
    dn_error error = {DN_OK, ""};
    bench b = {.backend = dn_backend_cpu(), .threads = dn_available_cpus(), .table = malloc(TABLE_COUNT * sizeof(float))};
    if (b.table == NULL || b.backend->device_open(&b.device, &(dn_device_options){.threads = b.threads}, &error) != DN_OK)
        fail("device", &error);
    const char *isa = b.backend->device_isa(b.device);
    b.lanes = fma_probe_lanes(isa);
    int first = argc > 2 && strcmp(argv[1], "--precision") == 0 ? 3 : 1;
    if (first == 3 && dn_precision_parse(&b.precision, argv[2], &error) != DN_OK)
        fail("--precision", &error);
    printf("%s %s, %u threads\n", isa, dn_precision_name(b.precision), b.threads);
    dn_noise_normal(b.table, TABLE_COUNT, 0, 1, DN_STREAM_TRAIN, 0);
    for (int i = first; i < argc; i++)
        bench_model(&b, argv[i]);
    for (size_t i = 0; argc <= first && i < sizeof all / sizeof all[0]; i++)
        bench_model(&b, all[i]);
    b.backend->device_close(b.device);
    free(b.table);
    return 0;
}
