/* Milliseconds of a forward pass over so many rows on a GPU, as the engine asks for it: the call comes back when the answers are there, so
 * that the launch of the graph and the wait count too. The median of `--runs`, after warming up; each run has times that none had before.
 *
 *     gpu_speed [--device cuda:0] [--precision auto] [--rows 1,2,4,...] [--runs 50] [--seconds 20] [--cache FOLDER] CONFIG.json[@SIDE] ...
 *
 * A figure a line: "MODEL rows N", ms, with quantiles, FLOPs of a row, the share of processor time, bytes of weights and workspace. When
 * `--seconds` are over no further one begins. */
#include <time.h>

#include "tests/gpu/gpu.h"

#define RUNS_MAX 1000
#define WARM_RUNS 3

typedef struct asked {
    const char *rows, *cache;
    int runs;
    double until; /* dn_now_seconds */
    dn_precision precision;
} asked;

static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static dn_status timed(gpu_rig *rig, uint32_t count, int runs, double *took, double *processor, dn_error *error)
{
    static int round;
    dn_row rows[GPU_ROWS_MAX];
    dn_status status = DN_OK;
    for (uint32_t i = 0; i < count; i++)
        rows[i] = gpu_row(rig, i, i);
    for (int i = -WARM_RUNS; status == DN_OK && i < runs; i++) {
        round++;
        for (uint32_t r = 0; r < count && rig->model->plan->time_rows == 0; r++)
            rows[r].time = 1.0f + 0.25f * (float)(round % 3990);
        if (i == 0)
            *processor = processor_seconds();
        const double began = dn_now_seconds();
        status = rig->backend->run(rig->network, rig->workspace, rows, count, error);
        if (i >= 0)
            took[i] = dn_now_seconds() - began;
    }
    *processor = processor_seconds() - *processor;
    qsort(took, (size_t)runs, sizeof *took, ascending);
    return status;
}

static dn_status of_rows(gpu_rig *rig, const char *name, uint32_t count, const asked *a, dn_error *error)
{
    double took[RUNS_MAX], processor = 0.0, total = 0.0;
    dn_status status = timed(rig, count, a->runs, took, &processor, error);
    if (status != DN_OK)
        return status;
    for (int i = 0; i < a->runs; i++)
        total += took[i];
    char what[128];
    snprintf(what, sizeof what, "%s rows %u", name, count);
    cJSON *line = gpu_figure(what, 1e3 * took[a->runs / 2], "ms");
    cJSON_AddStringToObject(line, "model", name);
    cJSON_AddNumberToObject(line, "rows", count);
    cJSON_AddNumberToObject(line, "runs", a->runs);
    cJSON_AddNumberToObject(line, "p10_ms", 1e3 * took[a->runs / 10]);
    cJSON_AddNumberToObject(line, "p90_ms", 1e3 * took[9 * a->runs / 10]);
    cJSON_AddNumberToObject(line, "flops", dn_plan_flops(rig->model->plan) * count);
    cJSON_AddNumberToObject(line, "weight_bytes", (double)rig->backend->network_bytes(rig->network));
    cJSON_AddNumberToObject(line, "workspace_bytes", (double)rig->backend->workspace_bytes(rig->network, count, false));
    cJSON_AddNumberToObject(line, "processor_share", total > 0.0 ? processor / total : 0.0);
    cJSON_AddStringToObject(line, "precision", dn_precision_name(a->precision));
    gpu_print(line);
    return DN_OK;
}

static dn_status of_model(gpu_rig *rig, const char *spec, const asked *a, dn_error *error)
{
    dn_model *model = NULL;
    char name[96];
    uint32_t most = 1;
    snprintf(name, sizeof name, "%s", gpu_model_name(spec));
    for (const char *at = a->rows; at != NULL && *at != '\0'; at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL)
        most = (uint32_t)atoi(at) > most && atoi(at) <= (int)GPU_ROWS_MAX ? (uint32_t)atoi(at) : most;
    double began = dn_now_seconds();
    dn_status status = gpu_model(&model, spec, error);
    const double drawn = dn_now_seconds() - began;
    began = dn_now_seconds();
    if (status == DN_OK)
        status = gpu_load(rig, model, a->precision, most, false, error);
    for (uint32_t r = 0; status == DN_OK && r < most; r++)
        status = gpu_write_sample(rig, r, r, error);
    if (status == DN_OK) {
        char what[128];
        snprintf(what, sizeof what, "%s load", name);
        cJSON *line = gpu_figure(what, dn_now_seconds() - began, "s");
        cJSON_AddNumberToObject(line, "drawing_the_weights_s", drawn);
        gpu_print(line);
    }
    for (const char *at = a->rows; status == DN_OK && at != NULL && *at != '\0';
         at = strchr(at, ',') != NULL ? strchr(at, ',') + 1 : NULL) {
        const int count = atoi(at);
        if (dn_now_seconds() > a->until)
            gpu_note("the time was over before all batch sizes were measured");
        if (count < 1 || count > (int)most || dn_now_seconds() > a->until)
            break;
        status = of_rows(rig, name, (uint32_t)count, a, error);
    }
    gpu_unload(rig);
    if (model != NULL)
        dn_model_free(model);
    return status;
}

int main(int argc, char **argv)
{
    dn_error error = {DN_OK, ""};
    gpu_rig rig;
    asked a = {.rows = gpu_option(argc, argv, "--rows", "1,2,4,8,16,32,64,128"), .cache = gpu_option(argc, argv, "--cache", NULL)};
    a.runs = atoi(gpu_option(argc, argv, "--runs", "50"));
    a.runs = a.runs < 1 ? 1 : a.runs > RUNS_MAX ? RUNS_MAX : a.runs;
    a.until = dn_now_seconds() + atof(gpu_option(argc, argv, "--seconds", "20"));
    dn_status status = gpu_open(&rig, gpu_option(argc, argv, "--device", "cuda:0"), a.cache, &error);
    if (status == DN_UNSUPPORTED) {
        gpu_skip(error.message);
        return 0;
    }
    if (status == DN_OK)
        status = dn_precision_parse(&a.precision, gpu_option(argc, argv, "--precision", "auto"), &error);
    if (status == DN_OK && a.precision == DN_PRECISION_AUTO)
        a.precision = rig.backend->precision;
    for (int i = 1; status == DN_OK && i < argc; i++) {
        if (strncmp(argv[i], "--", 2) == 0)
            i++;
        else if (dn_now_seconds() < a.until)
            status = of_model(&rig, argv[i], &a, &error);
    }
    if (status != DN_OK)
        gpu_check("speed", false, "%s", error.message);
    gpu_close(&rig);
    return gpu_failed > 0;
}
