/* `denoised inspect MODEL`: what a model is, what it can do, and what it costs to run here. A model that cannot be loaded is refused
 * with the exact reason and exit status 78, as serve would refuse it. */
#include <stdio.h>
#include <stdlib.h>

#include "server/commands.h"
#include "server/inspect.h"
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

int dn_command_inspect(int argc, char **argv)
{
    uint64_t threads = 0;
    const char *precision = NULL;
    bool quick = false, json = false;
    const dn_option options[] = {
        DN_FLAG_OPTION("quick", quick, "read configurations and headers alone; pack and measure nothing"),
        DN_FLAG_OPTION("json", json, "one JSON object; {\"error\":...} where it cannot be loaded"),
        DN_TEXT_OPTION("precision", "NAME", precision, DN_PRECISION_HELP),
        DN_COUNT_OPTION("threads", threads, 0, DN_THREADS_MAX, "0, the default: all available"),
    };
    const dn_command_line line = {
        .command = "inspect",
        .operands = "MODEL",
        .summary = "Says what the model in folder (or file) MODEL is, what it can do, and what it costs to run here; or why it "
                   "cannot be loaded.",
        .options = options,
        .option_count = sizeof options / sizeof options[0],
        .operand_min = 1,
        .operand_max = 1};
    char **operands = NULL;
    int status = dn_options_parse(&line, argc, argv, &operands, NULL);
    if (status != DN_OPTIONS_GO_ON)
        return status;

    inspect_facts facts = {.engine = NULL};
    dn_error error = {DN_OK, ""};
    dn_engine_options wanted = {.threads = (unsigned)threads, .describe_only = quick};
    if (dn_precision_parse(&wanted.precision, precision, &error) != DN_OK ||
        inspect_gather(&facts, operands[0], &wanted, &error) != DN_OK) {
        fprintf(stderr, "denoised inspect: %s\n", error.message);
        if (json)
            print_json(inspect_error_json(&error));
        status = DN_EXIT_CONFIG;
    } else if (json) {
        status = print_json(inspect_json(&facts));
    } else {
        inspect_print_text(&facts);
        status = DN_EXIT_OK;
    }
    inspect_done(&facts);
    return status;
}
