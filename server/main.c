/* The program: the first word of the command line chooses a command. Owns the table of commands and nothing else. */
#include <stdio.h>
#include <string.h>

#include "server/commands.h"
#include "server/options.h"

static const struct command {
    const char *name;
    int (*function)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"serve", dn_command_serve, "serve models over HTTP"},
    {"backup", dn_command_backup, "copy a data directory, in use or not"},
    {"check", dn_command_check, "look for damage in a data directory, in use or not"},
    {"key", dn_command_key, "make, list and revoke API keys"},
    {"health", dn_command_health, "ask a running daemon how it is"},
    {"generate", dn_command_generate, "make pictures"},
    {"inspect", dn_command_inspect, "say what a model is, and what it costs to run"},
    {"forward", dn_command_forward, "run a network on tensors of a file"},
    {"train", dn_command_train, "train a network from a recipe and labelled pictures"},
    {"evaluate", dn_command_evaluate, "judge a model's pictures by a classifier trained on real ones"},
    {"worker", dn_command_worker, "compute for a daemon (started by serve)"},
    {"version", dn_command_version, "print the version and the build"},
};

static void print_help(void)
{
    printf("usage: denoised COMMAND [OPTION...]\nServes, trains and runs class-conditional diffusion models.\n\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    printf("  %-10s %s\n\ndenoised COMMAND --help says more.\n", "help", "print this");
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help();
        return DN_EXIT_OK;
    }
    if (strcmp(word, "--version") == 0)
        word = "version";
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(word, commands[i].name) == 0)
            return commands[i].function(argc - 1, argv + 1);
    fprintf(stderr, "denoised: %s%s (see denoised help)\n", word[0] ? "no such command: " : "a command is missing", word);
    return DN_EXIT_USAGE;
}
