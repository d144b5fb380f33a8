/* The commands of the program: each is one file, server/command_NAME.c, and one row of the table in commands.c. argv[0]
 * is the command's word; the value returned is the exit status (server/options.h). */
#ifndef DN_SERVER_COMMANDS_H
#define DN_SERVER_COMMANDS_H

#include <stddef.h>

typedef struct dn_command {
    const char *name;
    int (*function)(int argc, char **argv);
    const char *help; /* a few words */
} dn_command;

const dn_command *dn_command_at(size_t index); /* NULL behind the last */
const dn_command *dn_command_named(const char *name); /* NULL: none */

int dn_command_backup(int argc, char **argv);
int dn_command_cancel(int argc, char **argv);
int dn_command_check(int argc, char **argv);
int dn_command_completions(int argc, char **argv);
int dn_command_evaluate(int argc, char **argv);
int dn_command_forward(int argc, char **argv);
int dn_command_generate(int argc, char **argv);
int dn_command_get(int argc, char **argv);
int dn_command_health(int argc, char **argv);
int dn_command_inspect(int argc, char **argv);
int dn_command_jobs(int argc, char **argv);
int dn_command_key(int argc, char **argv);
int dn_command_manual(int argc, char **argv);
int dn_command_serve(int argc, char **argv);
int dn_command_submit(int argc, char **argv);
int dn_command_train(int argc, char **argv);
int dn_command_verify(int argc, char **argv);
int dn_command_version(int argc, char **argv);
int dn_command_watch(int argc, char **argv);
int dn_command_worker(int argc, char **argv);

#endif
