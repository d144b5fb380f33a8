/* `denoised completions SHELL`: what bash, zsh and fish complete, from the tables of options. */
#include <stdio.h>
#include <string.h>

#include "server/command_tables.h"

/* ---- bash */

static void bash_words(const dn_command *command, const dn_command_line *line, void *payload)
{
    (void)payload;
    printf("    %s)\n        options='", command->name);
    for (size_t i = 0; i < line->option_count; i++)
        printf("--%s ", line->options[i].name);
    printf("--help --help-all'\n");
    if (command_operand_words(line)[0] != '\0')
        printf("        operands='%s'\n", command_operand_words(line));
    if (command_operand_is_file(line))
        printf("        operands=FILE\n");
    printf("        ;;\n");
}

static void bash_values(const dn_command *command, const dn_command_line *line, void *payload)
{
    (void)payload;
    for (size_t i = 0; i < line->option_count; i++) {
        const dn_option *option = &line->options[i];
        const char *words;
        const command_value value = command_value_of(option, &words);
        if (value == COMMAND_VALUE_NONE)
            continue;
        printf("    '%s --%s'", command->name, option->name);
        if (option->letter)
            printf(" | '%s -%c'", command->name, option->letter);
        printf(") values='%s' ;;\n", value == COMMAND_VALUE_FILE ? "FILE" : value == COMMAND_VALUE_WORDS ? words : "NONE");
    }
}

static void print_bash(void)
{
    const dn_command *command;
    printf("# bash completion for denoised, printed by `denoised completions bash`\n_denoised()\n{\n"
           "    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} options='' operands='' values=''\n"
           "    COMPREPLY=()\n    if ((COMP_CWORD == 1)); then\n        mapfile -t COMPREPLY < <(compgen -W '");
    for (size_t i = 0; (command = dn_command_at(i)) != NULL; i++)
        printf("%s ", command->name);
    printf("help' -- \"$current\")\n        return\n    fi\n    case \"${COMP_WORDS[1]} $before\" in\n");
    command_tables_each(bash_values, NULL);
    printf("    esac\n    case \"${COMP_WORDS[1]}\" in\n");
    command_tables_each(bash_words, NULL);
    printf("    esac\n"
           "    if [[ -z $values && $current == -* ]]; then\n        values=$options\n"
           "    elif [[ -z $values ]]; then\n        values=$operands\n    fi\n"
           "    if [[ $values == FILE ]]; then\n        compopt -o filenames 2>/dev/null\n"
           "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
           "    elif [[ -n $values && $values != NONE ]]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$current\")\n    fi\n}\ncomplete -F _denoised denoised\n");
}

/* ---- zsh */

/* Within single quotes; `escaped` characters with a backslash before them. */
static void print_quoted(const char *text, const char *escaped)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            printf("'\\''");
        else if (strchr(escaped, *text) != NULL)
            printf("\\%c", *text);
        else
            putchar(*text);
    }
}

static void zsh_option(const dn_option *option)
{
    const char *words;
    const command_value value = command_value_of(option, &words);
    const bool repeats = option->kind == DN_OPTION_LIST;
    printf(" \\\n            ");
    if (option->letter)
        printf("'(-%c --%s)'{-%c,--%s%s}'", option->letter, option->name, option->letter, option->name,
               value != COMMAND_VALUE_NONE ? "=" : "");
    else
        printf("'%s--%s%s", repeats ? "*" : "", option->name, value != COMMAND_VALUE_NONE ? "=" : "");
    printf("[");
    print_quoted(option->help, "[]:\\");
    printf("]");
    if (value != COMMAND_VALUE_NONE) {
        printf(":");
        print_quoted(option->value, ":[]\\");
        if (value == COMMAND_VALUE_FILE)
            printf(":_files");
        else if (value == COMMAND_VALUE_WORDS)
            printf(":(%s)", words);
        else
            printf(": ");
    }
    printf("'");
}

static void zsh_command(const dn_command *command, const dn_command_line *line, void *payload)
{
    (void)payload;
    printf("    %s)\n        _arguments", command->name);
    for (size_t i = 0; i < line->option_count; i++)
        zsh_option(&line->options[i]);
    printf(" \\\n            '--help[print this]' '--help-all[print every option]'");
    if (command_operand_words(line)[0] != '\0')
        printf(" \\\n            '1:word:(%s)'", command_operand_words(line));
    if (command_operand_is_file(line))
        printf(" \\\n            '*:file:_files'");
    printf("\n        ;;\n");
}

static void print_zsh(void)
{
    const dn_command *command;
    printf("#compdef denoised\n# printed by `denoised completions zsh`\n_denoised()\n{\n    local -a commands\n    commands=(\n");
    for (size_t i = 0; (command = dn_command_at(i)) != NULL; i++) {
        printf("        '%s:", command->name);
        print_quoted(command->help, "");
        printf("'\n");
    }
    printf("        'help:print the commands'\n    )\n    if ((CURRENT == 2)); then\n        _describe command commands\n        return\n  "
           "  fi\n"
           "    local command=$words[2]\n    shift words\n    ((CURRENT--))\n    case $command in\n");
    command_tables_each(zsh_command, NULL);
    printf("    esac\n}\nif [[ $funcstack[1] == _denoised ]]; then\n    _denoised \"$@\"\nelse\n    compdef _denoised denoised\nfi\n");
}

/* ---- fish */

static void fish_quoted(const char *text)
{
    for (; *text != '\0'; text++)
        printf(*text == '\'' || *text == '\\' ? "\\%c" : "%c", *text);
}

static void fish_command(const dn_command *command, const dn_command_line *line, void *payload)
{
    (void)payload;
    char condition[96];
    snprintf(condition, sizeof condition, "complete -c denoised -n '__fish_seen_subcommand_from %s'", command->name);
    printf("complete -c denoised -n __fish_use_subcommand -a %s -d '", command->name);
    fish_quoted(command->help);
    printf("'\n");
    for (size_t i = 0; i < line->option_count; i++) {
        const dn_option *option = &line->options[i];
        const char *words;
        const command_value value = command_value_of(option, &words);
        printf("%s -l %s", condition, option->name);
        if (option->letter)
            printf(" -s %c", option->letter);
        if (value == COMMAND_VALUE_FILE)
            printf(" -r -F");
        else if (value == COMMAND_VALUE_WORDS)
            printf(" -x -a '%s'", words);
        else if (value == COMMAND_VALUE_ANY)
            printf(" -x");
        printf(" -d '");
        fish_quoted(option->help);
        printf("'\n");
    }
    printf("%s -l help -d 'print this'\n%s -l help-all -d 'print every option'\n", condition, condition);
    if (command_operand_words(line)[0] != '\0')
        printf("%s -a '%s'\n", condition, command_operand_words(line));
    if (command_operand_is_file(line))
        printf("%s -F\n", condition);
}

static void print_fish(void)
{
    printf("# fish completion for denoised, printed by `denoised completions fish`\ncomplete -c denoised -f\n"
           "complete -c denoised -n __fish_use_subcommand -a help -d 'print the commands'\n");
    command_tables_each(fish_command, NULL);
}

int dn_command_completions(int argc, char **argv)
{
    static const struct shell {
        const char *name;
        void (*print)(void);
    } shells[] = {{"bash", print_bash}, {"zsh", print_zsh}, {"fish", print_fish}};
    char **operands = NULL;
    int count = 0;
    const dn_command_line line = {.command = "completions",
                                  .operands = "bash | zsh | fish",
                                  .summary = "Prints completions for a shell, made of the program's own options.",
                                  .operand_min = 1,
                                  .operand_max = 1,
                                  .footer = "  bash: source <(denoised completions bash)\n"
                                            "  zsh:  source <(denoised completions zsh)      after compinit\n"
                                            "  fish: denoised completions fish | source\n"
                                            "`make install` puts them where shells look for them."};
    int status = dn_options_parse(&line, argc, argv, &operands, &count);
    if (status != DN_OPTIONS_GO_ON)
        return status;
    for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++)
        if (strcmp(shells[i].name, operands[0]) == 0) {
            shells[i].print();
            return fflush(stdout) == 0 ? DN_EXIT_OK : DN_EXIT_IO;
        }
    fprintf(stderr, "denoised completions: shells are bash, zsh and fish\n");
    return DN_EXIT_USAGE;
}
