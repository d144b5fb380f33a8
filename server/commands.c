/* The table of commands (commands.h). */
#include "server/commands.h"

#include <string.h>

static const dn_command commands[] = {
    {"serve", dn_command_serve, "serve models over HTTP"},
    {"generate", dn_command_generate, "make pictures here, without a daemon"},
    {"verify", dn_command_verify, "make a picture again from its own file, and compare"},
    {"submit", dn_command_submit, "send a job to a daemon"},
    {"watch", dn_command_watch, "follow a job of a daemon: progress and previews"},
    {"get", dn_command_get, "fetch a job's pictures from a daemon"},
    {"jobs", dn_command_jobs, "list the jobs of a daemon"},
    {"cancel", dn_command_cancel, "cancel a job of a daemon"},
    {"health", dn_command_health, "ask a running daemon how it is"},
    {"key", dn_command_key, "make, list and revoke API keys"},
    {"backup", dn_command_backup, "copy a data directory, in use or not"},
    {"check", dn_command_check, "look for damage in a data directory, in use or not"},
    {"inspect", dn_command_inspect, "say what a model is, and what it costs to run"},
    {"forward", dn_command_forward, "run a network on tensors of a file"},
    {"train", dn_command_train, "train a network from a recipe and labelled pictures"},
    {"evaluate", dn_command_evaluate, "judge a model's pictures by a classifier trained on real ones"},
    {"worker", dn_command_worker, "compute for a daemon (started by serve)"},
    {"completions", dn_command_completions, "print completions for bash, zsh or fish"},
    {"manual", dn_command_manual, "print the manual page"},
    {"version", dn_command_version, "print the version and the build"},
};

const dn_command *dn_command_at(size_t index)
{
    return index < sizeof commands / sizeof commands[0] ? &commands[index] : NULL;
}

const dn_command *dn_command_named(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    return NULL;
}
