/* The help text of a command: its options in two columns, wrapped to a terminal of 80. Owns nothing; prints to standard output. */
#include <stdio.h>
#include <string.h>

#include "server/options.h"

#define COLUMNS 80u
#define LEFT_BYTES 160
#define LEFT_MAX 25 /* a longer option stands on a line of its own */

bool dn_option_is_brief(const dn_command_line *line, const dn_option *option)
{
    bool found = line->brief == NULL;
    for (size_t i = 0; !found && line->brief[i] != NULL; i++)
        found = strcmp(line->brief[i], option->name) == 0;
    return found && !option->hidden;
}

static size_t left_text(char out[LEFT_BYTES], const dn_option *option, bool letters)
{
    char letter[8] = "";
    if (letters)
        snprintf(letter, sizeof letter, option->letter ? "-%c, " : "    ", option->letter);
    snprintf(out, LEFT_BYTES, "%s--%s%s%s", letter, option->name, option->value ? " " : "", option->value ? option->value : "");
    return strlen(out);
}

/* Words of the text, from the column that the cursor stands in on. */
static void print_wrapped(const char *text, size_t indent)
{
    size_t column = indent;
    while (*text != '\0') {
        size_t bytes = strcspn(text, " ");
        if (column > indent && column + 1 + bytes > COLUMNS) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        }
        printf("%s%.*s", column > indent ? " " : "", (int)bytes, text);
        column += bytes + (column > indent ? 1 : 0);
        text += bytes;
        text += strspn(text, " ");
    }
    printf("\n");
}

static void print_option(const dn_option *option, bool letters, size_t left)
{
    char text[LEFT_BYTES], help[512];
    size_t bytes = left_text(text, option, letters);
    snprintf(help, sizeof help, "%s%s", option->help, option->required ? " (required)" : "");
    if (bytes + 2 > COLUMNS) { /* too many words to choose from: they go to the right */
        dn_option shorter = *option;
        size_t used = strlen(help);
        shorter.value = "WORD";
        bytes = left_text(text, &shorter, letters);
        for (const char *at = option->value; *at != '\0'; at += strcspn(at, "|"), at += *at == '|')
            used += (size_t)snprintf(help + used, used < sizeof help ? sizeof help - used : 0, "%s%.*s", at == option->value ? ": " : ", ",
                                     (int)strcspn(at, "|"), at);
    }
    if (bytes > left)
        printf("  %s\n%*s", text, (int)left + 4, "");
    else
        printf("  %-*s  ", (int)left, text);
    print_wrapped(help, left + 4);
}

/* Its lines as they are, but for those that are too long. */
static void print_footer(const char *footer)
{
    char text[512];
    printf("\n");
    while (*footer != '\0') {
        const size_t bytes = strcspn(footer, "\n");
        snprintf(text, sizeof text, "%.*s", (int)bytes, footer);
        if (bytes > COLUMNS)
            print_wrapped(text, 0);
        else
            printf("%s\n", text);
        footer += bytes + (footer[bytes] == '\n');
    }
}

void dn_options_print_help(const dn_command_line *line, bool all)
{
    const dn_option help = {.name = "help", .help = "print this"};
    const dn_option help_all = {.name = "help-all", .help = "print every option"};
    size_t left = sizeof "--help-all" - 1, shown = 0;
    bool letters = false;
    char text[LEFT_BYTES];
    for (size_t i = 0; i < line->option_count; i++)
        letters |= line->options[i].letter != 0;
    for (size_t i = 0; i < line->option_count; i++) {
        if (!all && !dn_option_is_brief(line, &line->options[i]))
            continue;
        size_t bytes = left_text(text, &line->options[i], letters);
        left = bytes > left && bytes <= LEFT_MAX ? bytes : left;
        shown++;
    }
    printf("usage: denoised %s [OPTION...]%s%s\n", line->command, line->operands[0] ? " " : "", line->operands);
    print_wrapped(line->summary, 0);
    printf("\n");
    for (size_t i = 0; i < line->option_count; i++)
        if (all || dn_option_is_brief(line, &line->options[i]))
            print_option(&line->options[i], letters, left);
    if (shown < line->option_count)
        print_option(&help_all, letters, left);
    print_option(&help, letters, left);
    if (line->footer)
        print_footer(line->footer);
}
