/* `denoised backup DESTINATION`: a copy of a data directory, taken while the daemon runs or not. One thread. */
#include <stdio.h>

#include "server/commands.h"
#include "server/options.h"
#include "server/store/store.h"

int dn_command_backup(int argc, char **argv)
{
    const char *data = "./data";
    const dn_option options[] = {DN_TEXT_OPTION("data", "DIR", data, "the data directory to copy (default ./data)")};
    const dn_command_line line = {.command = "backup",
                                  .operands = "DESTINATION",
                                  .summary = "Copies the database and its images into a new folder, which can serve as a data directory.",
                                  .options = options,
                                  .option_count = sizeof options / sizeof options[0],
                                  .operand_min = 1,
                                  .operand_max = 1};
    char **operands;
    int operand_count;
    int exit_status = dn_options_parse(&line, argc, argv, &operands, &operand_count);
    if (exit_status != DN_OPTIONS_GO_ON) {
        return exit_status;
    }
    dn_error error;
    size_t images = 0, missing = 0;
    if (store_backup(data, operands[0], &images, &missing, &error) != DN_OK) {
        return dn_command_failed("backup", &error);
    }
    printf("%s: the database and %zu images", operands[0], images);
    if (missing) {
        printf(" (%zu more had expired meanwhile)", missing);
    }
    printf("\n");
    return DN_EXIT_OK;
}
