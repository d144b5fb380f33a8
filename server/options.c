/* The parser of command line options. Owns nothing but who reads tables in its place; prints to standard error. */
#include "server/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int complain(const dn_command_line *line, const char *name, const char *what)
{
    fprintf(stderr, "denoised %s: %s%s%s (see denoised %s --help)\n", line->command, name, name[0] ? ": " : "", what, line->command);
    return DN_EXIT_USAGE;
}

static dn_options_reader *reader;
static void *reader_payload;

void dn_options_read_instead(dn_options_reader *function, void *payload)
{
    reader = function;
    reader_payload = payload;
}

static const dn_option *find_long(const dn_command_line *line, const char *name, size_t length)
{
    for (size_t i = 0; i < line->option_count; i++)
        if (strlen(line->options[i].name) == length && strncmp(line->options[i].name, name, length) == 0)
            return &line->options[i];
    return NULL;
}

static const dn_option *find_letter(const dn_command_line *line, char letter)
{
    for (size_t i = 0; i < line->option_count; i++)
        if (line->options[i].letter == letter)
            return &line->options[i];
    return NULL;
}

static int store_count(const dn_command_line *line, const dn_option *option, const char *given, const char *text)
{
    char *end = NULL, reason[96];
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    bool digits = text[0] >= '0' && text[0] <= '9';
    if (!digits || *end != '\0' || errno != 0 || value < option->count_low || value > option->count_high) {
        snprintf(reason, sizeof reason, "must be a whole number from %llu to %llu", (unsigned long long)option->count_low,
                 (unsigned long long)option->count_high);
        return complain(line, given, reason);
    }
    *(uint64_t *)option->target = value;
    return DN_OPTIONS_GO_ON;
}

static int store_number(const dn_command_line *line, const dn_option *option, const char *given, const char *text)
{
    char *end = NULL, reason[96];
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < option->low || value > option->high) {
        snprintf(reason, sizeof reason, "must be a number from %g to %g", option->low, option->high);
        return complain(line, given, reason);
    }
    *(double *)option->target = value;
    return DN_OPTIONS_GO_ON;
}

static int store(const dn_command_line *line, const dn_option *option, const char *given, const char *text)
{
    dn_option_list *list = option->target;
    switch (option->kind) {
    case DN_OPTION_FLAG:
        *(bool *)option->target = true;
        return DN_OPTIONS_GO_ON;
    case DN_OPTION_SWITCH:
        if (text != NULL && strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return complain(line, given, "must be true or false");
        *(const char **)option->target = text != NULL ? text : "true";
        return DN_OPTIONS_GO_ON;
    case DN_OPTION_TEXT:
        *(const char **)option->target = text;
        return DN_OPTIONS_GO_ON;
    case DN_OPTION_COUNT:
        return store_count(line, option, given, text);
    case DN_OPTION_NUMBER:
        return store_number(line, option, given, text);
    case DN_OPTION_LIST:
        if (list->count == DN_OPTION_LIST_MAX)
            return complain(line, given, "is given too often");
        list->values[list->count++] = text;
        return DN_OPTIONS_GO_ON;
    }
    return DN_EXIT_SOFTWARE;
}

/* One argument that starts with a dash; *at moves past a value taken from the next one. */
static int parse_one(const dn_command_line *line, int argc, char **argv, int *at, bool *seen)
{
    const char *given = argv[*at], *value = NULL;
    const dn_option *option;
    if (given[1] == '-') {
        const char *equals = strchr(given, '=');
        option = find_long(line, given + 2, equals ? (size_t)(equals - given - 2) : strlen(given + 2));
        value = equals ? equals + 1 : NULL;
    } else {
        option = given[2] == '\0' ? find_letter(line, given[1]) : NULL;
    }
    if (option == NULL)
        return complain(line, given, "unknown option");
    if (option->kind == DN_OPTION_FLAG && value != NULL)
        return complain(line, given, "takes no value");
    bool word =
        option->kind == DN_OPTION_SWITCH && *at + 1 < argc && (strcmp(argv[*at + 1], "true") == 0 || strcmp(argv[*at + 1], "false") == 0);
    if (word && value == NULL)
        value = argv[++*at];
    if (option->kind != DN_OPTION_FLAG && option->kind != DN_OPTION_SWITCH && value == NULL) {
        if (*at + 1 >= argc)
            return complain(line, given, "needs a value");
        value = argv[++*at];
    }
    seen[option - line->options] = true;
    return store(line, option, given, value);
}

static int check_complete(const dn_command_line *line, const bool *seen, int operand_count, char **operands)
{
    char name[80];
    for (size_t i = 0; i < line->option_count; i++) {
        if (line->options[i].required && !seen[i]) {
            snprintf(name, sizeof name, "--%s", line->options[i].name);
            return complain(line, name, "is required");
        }
    }
    if (operand_count > line->operand_max)
        return complain(line, operands[line->operand_max], "unexpected argument");
    if (operand_count < line->operand_min)
        return complain(line, line->operands, "is required");
    return DN_OPTIONS_GO_ON;
}

int dn_options_parse(const dn_command_line *line, int argc, char **argv, char ***operands, int *operand_count)
{
    if (reader != NULL) {
        reader(line, reader_payload);
        return DN_EXIT_OK;
    }
    bool *seen = calloc(line->option_count + 1, sizeof *seen);
    if (seen == NULL)
        return complain(line, "", "out of memory");
    int count = 0, status = DN_OPTIONS_GO_ON;
    bool only_operands = false;
    for (int i = 1; i < argc && status == DN_OPTIONS_GO_ON; i++) {
        char *argument = argv[i];
        if (only_operands || argument[0] != '-' || argument[1] == '\0') {
            argv[count++] = argument;
        } else if (strcmp(argument, "--") == 0) {
            only_operands = true;
        } else if (strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0) {
            dn_options_print_help(line, false);
            status = DN_EXIT_OK;
        } else if (strcmp(argument, "--help-all") == 0) {
            dn_options_print_help(line, true);
            status = DN_EXIT_OK;
        } else {
            status = parse_one(line, argc, argv, &i, seen);
        }
    }
    if (status == DN_OPTIONS_GO_ON)
        status = check_complete(line, seen, count, argv);
    free(seen);
    if (operands != NULL)
        *operands = argv;
    if (operand_count != NULL)
        *operand_count = count;
    return status;
}

int dn_command_failed(const char *command, const dn_error *error)
{
    fprintf(stderr, "denoised %s: %s\n", command, error->message);
    return dn_exit_status(error->status);
}

int dn_exit_status(dn_status status)
{
    switch (status) {
    case DN_OK:
        return DN_EXIT_OK;
    case DN_INVALID:
    case DN_NUMERIC:
        return DN_EXIT_DATA;
    case DN_IO:
        return DN_EXIT_IO;
    case DN_NO_MEMORY:
        return DN_EXIT_TEMPORARY;
    case DN_UNSUPPORTED:
        return DN_EXIT_UNAVAILABLE;
    case DN_CANCELLED:
        return DN_EXIT_INTERRUPTED;
    case DN_DEVICE_LOST:
        return DN_EXIT_TEMPORARY;
    case DN_INTERNAL:
        break;
    }
    return DN_EXIT_SOFTWARE;
}
