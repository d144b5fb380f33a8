/* `denoised version`: what this build is. */
#include <stdio.h>

#include "batch/loaded_engine.h"
#include "server/commands.h"
#include "server/options.h"
#include "server/version.h"

int dn_command_version(int argc, char **argv)
{
    const dn_command_line line = {.command = "version", .operands = "", .summary = "Prints the version and the build."};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    printf("denoised %s (%s), numerics %d, noise %s\n", DN_VERSION, DN_COMMIT, DN_NUMERICS_VERSION, DN_NOISE_NAME);
    return DN_EXIT_OK;
}
