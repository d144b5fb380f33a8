/* `denoised manual`: the manual page. Its prose is server/manual.roff, which lies in the program; commands and options come from their
 * tables. */
#include <stdio.h>
#include <string.h>

#include "server/command_tables.h"
#include "server/version.h"

#define LINE_BYTES 72

__asm__(".pushsection .rodata\n"
        ".global dn_manual_text\n"
        "dn_manual_text:\n"
        ".incbin \"server/manual.roff\"\n"
        ".byte 0\n"
        ".popsection\n");
extern const char dn_manual_text[];

/* A word as roff has it: hyphens that are typed, backslashes, a place to break after each bar. Returns the bytes printed. */
static size_t print_word(const char *word, size_t bytes)
{
    size_t printed = 0;
    for (size_t i = 0; i < bytes; i++) {
        const char one[2] = {word[i], '\0'};
        printed += (size_t)printf("%s", one[0] == '-' ? "\\-" : one[0] == '\\' ? "\\e" : one[0] == '|' ? "|\\:" : one);
    }
    return printed;
}

/* Text in lines that are not long, none of which looks like a request. */
static void print_roff(const char *text)
{
    size_t column = 0;
    while (*text != '\0') {
        const size_t bytes = strcspn(text, " \n");
        if (column + bytes + 1 > LINE_BYTES) {
            printf("\n");
            column = 0;
        }
        if (column == 0 && (text[0] == '.' || text[0] == '\''))
            printf("\\&");
        if (column > 0)
            column += (size_t)printf(" ");
        column += print_word(text, bytes);
        text += bytes;
        text += strspn(text, " \n");
    }
}

static void print_option(const dn_option *option)
{
    printf(".TP\n.B ");
    if (option->letter)
        printf("\\-%c\\fR, \\fB", option->letter);
    printf("\\-\\-");
    print_roff(option->name);
    if (option->value != NULL && option->kind == DN_OPTION_SWITCH)
        printf("\\fR[=true|false]");
    else if (option->value != NULL) {
        printf(" \\fI");
        print_roff(option->value);
        printf("\\fR");
    }
    printf("\n");
    print_roff(option->help);
    printf("%s\n", option->required ? " (required)" : "");
}

static void print_command(const dn_command *command, const dn_command_line *line, void *payload)
{
    (void)payload;
    printf(".SS denoised %s\n", command->name);
    print_roff(line->summary);
    printf("\n.PP\n.B denoised %s\n[\\fIOPTION\\fR...]", command->name);
    if (line->operands[0] != '\0') {
        printf(" \\fI");
        print_roff(line->operands);
        printf("\\fR");
    }
    printf("\n");
    for (size_t i = 0; i < line->option_count; i++)
        print_option(&line->options[i]);
}

int dn_command_manual(int argc, char **argv)
{
    static const char version[] = "@VERSION@", options[] = "@OPTIONS@\n";
    const dn_command_line line = {
        .command = "manual", .operands = "", .summary = "Prints the manual page, as roff.", .footer = "  denoised manual | man -l -"};
    int status = dn_options_parse(&line, argc, argv, NULL, NULL);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    const char *at = dn_manual_text, *mark = strstr(at, version);
    if (mark != NULL) {
        printf("%.*s%s", (int)(mark - at), at, DN_VERSION);
        at = mark + sizeof version - 1;
    }
    mark = strstr(at, options);
    if (mark != NULL) {
        printf("%.*s", (int)(mark - at), at);
        command_tables_each(print_command, NULL);
        at = mark + sizeof options - 1;
    }
    printf("%s", at);
    return fflush(stdout) == 0 ? DN_EXIT_OK : DN_EXIT_IO;
}
