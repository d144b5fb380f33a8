/* Command line options: a table of long options with their help text, value checks and targets.
 *
 * Parsing prints what is wrong in one line and returns the exit status; commands return what it returns. The table and
 * argv are borrowed; targets point into the caller's variables, which hold the defaults beforehand. One thread. */
#ifndef DN_SERVER_OPTIONS_H
#define DN_SERVER_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Exit statuses, after sysexits.h: service managers act on them (78 must not be restarted). */
enum {
    DN_EXIT_OK = 0,
    DN_EXIT_FAILED = 1, /* the thing asked about is not so (health) */
    DN_EXIT_USAGE = 64,
    DN_EXIT_DATA = 65, /* the user's input file is wrong */
    DN_EXIT_UNAVAILABLE = 69,
    DN_EXIT_SOFTWARE = 70, /* a bug */
    DN_EXIT_IO = 74,
    DN_EXIT_TEMPORARY = 75, /* another try may do: port in use, locked data directory */
    DN_EXIT_PROTOCOL = 76, /* what answers is no daemon of ours */
    DN_EXIT_NOT_PERMITTED = 77, /* the key is missing, wrong, or lacks a scope */
    DN_EXIT_CONFIG = 78, /* model, configuration or database cannot be used */
    DN_EXIT_INTERRUPTED = 130
};

typedef enum dn_option_kind {
    DN_OPTION_FLAG, /* bool *                       --name */
    DN_OPTION_TEXT, /* const char **                --name VALUE or --name=VALUE */
    DN_OPTION_COUNT, /* uint64_t *, low..high */
    DN_OPTION_NUMBER, /* double *, low..high, finite */
    DN_OPTION_LIST, /* dn_option_list *, may be given several times */
    DN_OPTION_SWITCH /* const char **               --name, --name true, --name=false: the text, "true" when bare */
} dn_option_kind;

#define DN_OPTION_LIST_MAX 64

typedef struct dn_option_list {
    uint32_t count;
    const char *values[DN_OPTION_LIST_MAX];
} dn_option_list;

typedef struct dn_option {
    const char *name; /* without dashes */
    char letter; /* 'n' for -n, 0: none */
    dn_option_kind kind;
    void *target;
    const char *value; /* what help calls the value: "DIR"; NULL for flags */
    const char *help; /* one line, with the default where there is one */
    uint64_t count_low, count_high;
    double low, high;
    bool required;
    bool hidden; /* from --help, which would not fit a screen otherwise: --help-all shows it */
} dn_option;

/* Rows of an option table. */
#define DN_TEXT_OPTION(NAME, VALUE, VARIABLE, HELP)                                                                                        \
    {                                                                                                                                      \
        .name = NAME, .kind = DN_OPTION_TEXT, .value = VALUE, .target = &(VARIABLE), .help = HELP                                          \
    }
#define DN_NEEDED_OPTION(NAME, VALUE, VARIABLE, HELP)                                                                                      \
    {                                                                                                                                      \
        .name = NAME, .kind = DN_OPTION_TEXT, .value = VALUE, .target = &(VARIABLE), .help = HELP, .required = true                        \
    }
#define DN_LIST_OPTION(NAME, VALUE, VARIABLE, HELP)                                                                                        \
    {                                                                                                                                      \
        .name = NAME, .kind = DN_OPTION_LIST, .value = VALUE, .target = &(VARIABLE), .help = HELP                                          \
    }
#define DN_FLAG_OPTION(NAME, VARIABLE, HELP)                                                                                               \
    {                                                                                                                                      \
        .name = NAME, .kind = DN_OPTION_FLAG, .target = &(VARIABLE), .help = HELP                                                          \
    }
#define DN_COUNT_OPTION(NAME, VARIABLE, LOW, HIGH, HELP)                                                                                   \
    {                                                                                                                                      \
        .name = NAME, .kind = DN_OPTION_COUNT, .value = "N", .target = &(VARIABLE), .count_low = LOW, .count_high = HIGH, .help = HELP     \
    }
#define DN_NUMBER_OPTION(NAME, VARIABLE, LOW, HIGH, HELP)                                                                                  \
    {                                                                                                                                      \
        .name = NAME, .kind = DN_OPTION_NUMBER, .value = "X", .target = &(VARIABLE), .low = LOW, .high = HIGH, .help = HELP                \
    }

typedef struct dn_command_line {
    const char *command; /* "forward" */
    const char *operands; /* "MODEL", or "" for none: for the usage line */
    const char *summary; /* one sentence */
    const dn_option *options;
    size_t option_count;
    int operand_min, operand_max;
    const char *footer; /* the last lines of --help; NULL: none */
    const char *const *brief; /* names of the options that --help shows, NULL after the last; NULL: all that are not hidden */
} dn_command_line;

#define DN_OPTIONS_GO_ON (-1)

/* argv[0] is the command's word. DN_OPTIONS_GO_ON: all is well, *operands are argv's own strings (moved to its front).
 * Otherwise an exit status: --help was printed, or a complaint. */
int dn_options_parse(const dn_command_line *line, int argc, char **argv, char ***operands, int *operand_count);

/* Help on standard output, no line over 80 columns: what a screen has room for (--help), or every option (--help-all). */
void dn_options_print_help(const dn_command_line *line, bool all);
bool dn_option_is_brief(const dn_command_line *line, const dn_option *option); /* whether --help shows it */

/* From now on every dn_options_parse hands its table to `reader` and returns DN_EXIT_OK: completions and the manual are made of the
 * tables that the commands parse with. NULL: parse again. The line lives as long as the call. */
typedef void dn_options_reader(const dn_command_line *line, void *payload);
void dn_options_read_instead(dn_options_reader *reader, void *payload);

/* Prints "denoised COMMAND: message" to standard error and returns the exit status for a failure of this kind. */
int dn_command_failed(const char *command, const dn_error *error);
int dn_exit_status(dn_status status); /* the same, of a command that has said by itself why it failed */

#endif
