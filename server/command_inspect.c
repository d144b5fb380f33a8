/* `denoised inspect MODEL`: what a model is, what its folder says of sampling, and what it costs to run here. A model that
 * cannot be loaded is refused with the exact reason and exit status 78, as serve would refuse it. */
#include <inttypes.h>
#include <stdio.h>

#include "engine.h"
#include "server/commands.h"
#include "server/options.h"

#define CLASSES_SHOWN_MAX 12u
#define ROWS_OF_A_BATCH 16u

static const char *prediction_name(dn_prediction prediction)
{
    switch (prediction) {
    case DN_PREDICT_EPSILON:
        return "epsilon";
    case DN_PREDICT_SAMPLE:
        return "sample";
    case DN_PREDICT_V:
        return "v_prediction";
    case DN_PREDICT_FLOW:
        return "flow_prediction";
    }
    return "?";
}

static void print_classes(const dn_engine *engine)
{
    const dn_model_folder *folder = engine->folder;
    printf("classes       %u", engine->class_count);
    if (engine->null_class != DN_NONE)
        printf(", null class in row %u", engine->null_class);
    for (uint32_t i = 0; i < folder->class_count && i < CLASSES_SHOWN_MAX; i++)
        printf("%s%s", i ? "; " : ": ", folder->class_names[i]);
    printf("%s\n", folder->class_count > CLASSES_SHOWN_MAX ? "; ..." : "");
}

static double mib(size_t bytes)
{
    return (double)bytes / (1024.0 * 1024.0);
}

static void print_costs(const dn_engine *engine)
{
    const dn_backend *backend = engine->backend;
    char device[128];
    backend->device_describe(engine->device, device, sizeof device);
    size_t one = backend->workspace_bytes(engine->network, 1, false),
           many = backend->workspace_bytes(engine->network, ROWS_OF_A_BATCH, false);
    printf("device        %s\n", device);
    printf("work          %.4g GFLOP a row\n", dn_plan_flops(engine->model->plan) * 1e-9);
    printf("memory        %.2f MiB of packed weights, %.2f MiB a lane, %.2f MiB for one row, %.2f MiB for %u rows\n",
           mib(backend->network_bytes(engine->network)), mib(dn_engine_lane_bytes(engine)), mib(one), mib(many), ROWS_OF_A_BATCH);
}

static void print_model(const dn_engine *engine)
{
    const dn_model *model = engine->model;
    printf("model         %s\n", engine->folder->path);
    printf("architecture  %s%s%s\n", model->architecture, engine->folder->pipeline_class ? ", in a " : ", a bare component",
           engine->folder->pipeline_class ? engine->folder->pipeline_class : "");
    printf("sample        %u x %u pixels, %u channels; answers %u channels\n", model->width, model->height, model->channels,
           model->out_channels);
    printf("parameters    %" PRIu64 " in %u weights of %u nodes\n", dn_plan_parameters(model->plan), model->plan->weight_count,
           model->plan->node_count);
    printf("sha256        %s\n", model->weights_sha256);
    print_classes(engine);
    printf("training      %u timesteps, predicts %s\n", engine->training->timesteps, prediction_name(engine->training->prediction));
    printf("scheduler     %s\n", engine->scheduler.class_name);
    printf("defaults      sampler %s, %u steps, guidance scale %g\n", engine->default_sampler, engine->default_steps,
           engine->default_guidance);
    print_costs(engine);
}

int dn_command_inspect(int argc, char **argv)
{
    uint64_t threads = 0;
    const dn_option options[] = {
        DN_COUNT_OPTION("threads", threads, 0, DN_THREADS_MAX, "0, the default: all available"),
    };
    const dn_command_line line = {.command = "inspect",
                                  .operands = "MODEL",
                                  .summary = "Says what the model in folder MODEL is, and what it costs to run.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_min = 1,
                                  .operand_max = 1};
    char **operands = NULL;
    int status = dn_options_parse(&line, argc, argv, &operands, NULL);
    if (status != DN_OPTIONS_GO_ON)
        return status;

    dn_engine *engine = NULL;
    dn_error error = {DN_OK, ""};
    dn_engine_options engine_options = {.threads = (unsigned)threads};
    if (dn_engine_open(&engine, operands[0], &engine_options, &error) != DN_OK) {
        fprintf(stderr, "denoised inspect: %s\n", error.message);
        return DN_EXIT_CONFIG;
    }
    print_model(engine);
    dn_engine_close(engine);
    return DN_EXIT_OK;
}
