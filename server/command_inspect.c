/* `denoised inspect MODEL`: what a model is, what it can do, and what it costs to run here; `--cpu`, `--gpu`: what "here" is. A model
 * that cannot be loaded is refused with the exact reason and exit status 78, as serve would refuse it. */
#include <stdio.h>
#include <stdlib.h>

#include "server/commands.h"
#include "server/device_option.h"
#include "server/inspect.h"
#include "server/inspect_cpu.h"
#include "server/inspect_gpu.h"
#include "server/options.h"

static int print_json(char *json)
{
    if (json == NULL) {
        fprintf(stderr, "denoised inspect: out of memory\n");
        return DN_EXIT_TEMPORARY;
    }
    puts(json);
    free(json);
    return DN_EXIT_OK;
}

static int inspect_model(const char *path, const dn_engine_options *wanted, bool json, dn_error *error)
{
    inspect_facts facts = {.engine = NULL};
    int status = DN_EXIT_CONFIG;
    if (inspect_gather(&facts, path, wanted, error) == DN_OK) {
        status = DN_EXIT_OK;
        if (json)
            status = print_json(inspect_json(&facts));
        else
            inspect_print_text(&facts);
    }
    inspect_done(&facts);
    return status;
}

int dn_command_inspect(int argc, char **argv)
{
    uint64_t threads = 0;
    device_option device = {.device = NULL};
    bool quick = false, json = false, cpu = false, gpu = false;
    const dn_option options[] = {
        DN_FLAG_OPTION("cpu", cpu, "instead: the processor, its kernels, and its peaks, in a second"),
        DN_FLAG_OPTION("gpu", gpu, "instead: driver, cards, CUDA library, and what is missing if they cannot be used"),
        DN_FLAG_OPTION("quick", quick, "read configurations and headers alone; pack and measure nothing"),
        DN_FLAG_OPTION("json", json, "one JSON object; {\"error\":...} where it cannot be loaded"),
        DN_DEVICE_OPTIONS(device, "auto"),
        DN_COUNT_OPTION("threads", threads, 0, DN_THREADS_MAX, "0, the default: all available"),
    };
    const dn_command_line line = {.command = "inspect",
                                  .operands = "MODEL | --cpu | --gpu",
                                  .summary = "Says what a model is, what it can do and costs here, or why it cannot be loaded.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_max = 1};
    char **operands = NULL;
    int operand_count = 0, status = dn_options_parse(&line, argc, argv, &operands, &operand_count);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    if (operand_count + cpu + gpu != 1) {
        fprintf(stderr, "denoised inspect: %s (see denoised inspect --help)\n",
                operand_count + cpu + gpu > 1 ? "only one of MODEL, --cpu and --gpu" : "MODEL is required");
        return DN_EXIT_USAGE;
    }

    dn_error error = {DN_OK, ""};
    dn_engine_options wanted = {.threads = (unsigned)threads, .describe_only = quick};
    if (cpu)
        status = inspect_cpu((unsigned)threads, json, &error) == DN_OK ? DN_EXIT_OK : DN_EXIT_CONFIG;
    else if (gpu)
        status = inspect_gpu(json, &error) == DN_OK ? DN_EXIT_OK : DN_EXIT_CONFIG;
    else if (device_option_settle(&device, &wanted, "inspect", "auto", &error) != DN_OK)
        status = DN_EXIT_CONFIG;
    else
        status = inspect_model(operands[0], &wanted, json, &error);
    if (error.status != DN_OK) {
        fprintf(stderr, "denoised inspect: %s\n", error.message);
        if (json)
            print_json(inspect_error_json(&error));
    }
    return status;
}
