/* What every command takes, read from the tables that they parse with: for completions and the manual, which cannot differ from the
 * program so. One thread. */
#ifndef DN_SERVER_COMMAND_TABLES_H
#define DN_SERVER_COMMAND_TABLES_H

#include "server/commands.h"
#include "server/options.h"

/* Calls `function` with each command in the table's order. `line` lives as long as the call. */
typedef void command_tables_reader(const dn_command *command, const dn_command_line *line, void *payload);
void command_tables_each(command_tables_reader *function, void *payload);

typedef enum command_value {
    COMMAND_VALUE_NONE, /* a flag */
    COMMAND_VALUE_ANY, /* nobody can guess it */
    COMMAND_VALUE_FILE, /* a file or a folder */
    COMMAND_VALUE_WORDS /* one of some words */
} command_value;

/* What an option's value is; *words: of COMMAND_VALUE_WORDS, separated by blanks, good until the next call. */
command_value command_value_of(const dn_option *option, const char **words);
/* The words that a command's operand may be ("add list revoke"); "" where it is no word. Good until the next call. */
const char *command_operand_words(const dn_command_line *line);
bool command_operand_is_file(const dn_command_line *line);

#endif
