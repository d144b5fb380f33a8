/* The program: the first word of the command line chooses a command (commands.c). */
#include <stdio.h>
#include <string.h>

#include "server/commands.h"
#include "server/options.h"

static void print_help(void)
{
    const dn_command *command;
    printf("usage: denoised COMMAND [OPTION...]        denoised COMMAND --help says more\n"
           "Serves, trains and runs class-conditional diffusion models.\n\n");
    for (size_t i = 0; (command = dn_command_at(i)) != NULL; i++)
        printf("  %-12s %s\n", command->name, command->help);
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help();
        return DN_EXIT_OK;
    }
    const dn_command *command = dn_command_named(strcmp(word, "--version") == 0 ? "version" : word);
    if (command != NULL)
        return command->function(argc - 1, argv + 1);
    fprintf(stderr, "denoised: %s%s (see denoised help)\n", word[0] ? "no such command: " : "a command is missing", word);
    return DN_EXIT_USAGE;
}
