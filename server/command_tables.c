/* Reads the tables of all commands (command_tables.h): each is run with a reader in the parser's place. */
#include "server/command_tables.h"

#include <stdio.h>
#include <string.h>

#include "engine.h"

typedef struct pass {
    command_tables_reader *function;
    const dn_command *command;
    void *payload;
} pass;

static void on_line(const dn_command_line *line, void *payload)
{
    pass *p = payload;
    p->function(p->command, line, p->payload);
}

void command_tables_each(command_tables_reader *function, void *payload)
{
    pass p = {.function = function, .payload = payload};
    for (size_t i = 0; (p.command = dn_command_at(i)) != NULL; i++) {
        char word[32];
        char *argv[] = {word, NULL};
        snprintf(word, sizeof word, "%s", p.command->name);
        dn_options_read_instead(on_line, &p);
        p.command->function(1, argv);
        dn_options_read_instead(NULL, NULL);
    }
}

static const char *sampler_words(void)
{
    static char words[1024];
    size_t used = (size_t)snprintf(words, sizeof words, "model");
    const dn_sampler *sampler;
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL && used < sizeof words; i++)
        used += (size_t)snprintf(words + used, sizeof words - used, " %s", sampler->name);
    return words;
}

/* "auto|kitty" as "auto kitty"; false: it is no list of words. */
static bool split_words(const char *value, char *out, size_t room)
{
    if (strchr(value, '|') == NULL || strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_| ") != strlen(value) || strlen(value) >= room)
        return false;
    for (size_t i = 0; i <= strlen(value); i++)
        out[i] = value[i] == '|' ? ' ' : value[i];
    return true;
}

command_value command_value_of(const dn_option *option, const char **words)
{
    static char split[512];
    static const char *const files[] = {"FILE", "DIR", "PNG", "PATH", "DIR|FILE"};
    *words = "";
    if (option->kind == DN_OPTION_FLAG || option->kind == DN_OPTION_SWITCH || option->value == NULL)
        return COMMAND_VALUE_NONE;
    if (strcmp(option->name, "sampler") == 0) {
        *words = sampler_words();
        return COMMAND_VALUE_WORDS;
    }
    if (strcmp(option->name, "device") == 0 || strcmp(option->name, "precision") == 0) {
        *words = option->name[0] == 'd' ? "auto cpu cuda" : "auto fp32 bf16 fp16";
        return COMMAND_VALUE_WORDS;
    }
    if (strcmp(option->name, "device-fallback") == 0) {
        *words = option->value; /* the one that there is */
        return COMMAND_VALUE_WORDS;
    }
    if (split_words(option->value, split, sizeof split)) {
        *words = split;
        return COMMAND_VALUE_WORDS;
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        if (strcmp(option->value, files[i]) == 0)
            return COMMAND_VALUE_FILE;
    return COMMAND_VALUE_ANY;
}

/* The first word of each of the operands' alternatives: "add NAME | list | revoke KEY". */
const char *command_operand_words(const dn_command_line *line)
{
    static char words[128];
    words[0] = '\0';
    for (const char *at = line->operands; *at != '\0';) {
        at += strspn(at, " |");
        const size_t bytes = strspn(at, "abcdefghijklmnopqrstuvwxyz");
        if (bytes > 0 && strlen(words) + bytes + 2 < sizeof words)
            snprintf(words + strlen(words), sizeof words - strlen(words), "%s%.*s", words[0] ? " " : "", (int)bytes, at);
        at += strcspn(at, "|");
    }
    return words;
}

bool command_operand_is_file(const dn_command_line *line)
{
    return strncmp(line->operands, "MODEL", 5) == 0 || strncmp(line->operands, "FILE", 4) == 0 ||
           strcmp(line->operands, "DESTINATION") == 0;
}
