/* Command line options: values, checks, complaints that name the option, and exit statuses. */
#include "tests/test.h"

#include <fcntl.h>
#include <unistd.h>

#include "server/options.h"

typedef struct values {
    const char *text, *word;
    uint64_t count;
    double number;
    bool flag;
    dn_option_list list;
    char **operands;
    int operand_count;
    char complaint[512];
} values;

/* Parses with everything that is printed kept in out->complaint. */
static int parse(values *out, int argc, const char *const *words)
{
    char *argv[16];
    *out = (values){.text = "standard", .count = 7, .number = 0.5};
    for (int i = 0; i < argc; i++)
        argv[i] = (char *)(uintptr_t)words[i];
    const dn_option options[] = {
        DN_TEXT_OPTION("text", "FILE", out->text, "a text"),
        DN_COUNT_OPTION("count", out->count, 1, UINT64_MAX, "a count"),
        DN_NUMBER_OPTION("number", out->number, -1.0, 1.0, "a number"),
        DN_FLAG_OPTION("flag", out->flag, "a flag"),
        DN_LIST_OPTION("list", "NAME=DIR", out->list, "several"),
        {.name = "switch", .kind = DN_OPTION_SWITCH, .value = "X", .target = &out->word, .help = "on or off", .hidden = true},
        {.name = "small", .letter = 'n', .kind = DN_OPTION_COUNT, .value = "N", .target = &out->count, .count_high = 9, .help = "small"},
    };
    const dn_command_line line = {"try", "MODEL", "Tries.", options, sizeof options / sizeof options[0], 0, 1, "The end.", NULL};
    char path[] = "/tmp/denoised-options-XXXXXX";
    int file = mkstemp(path), output = dup(1), errors = dup(2);
    fflush(stdout);
    dup2(file, 1);
    dup2(file, 2);
    int status = dn_options_parse(&line, argc, argv, &out->operands, &out->operand_count);
    fflush(stdout);
    dup2(output, 1);
    dup2(errors, 2);
    ssize_t length = pread(file, out->complaint, sizeof out->complaint - 1, 0);
    out->complaint[length > 0 ? length : 0] = '\0';
    close(file);
    close(output);
    close(errors);
    unlink(path);
    return status;
}

#define PARSE(out, ...) parse(out, (int)(sizeof(const char *[]){__VA_ARGS__} / sizeof(char *)), (const char *[]){__VA_ARGS__})

static void values_arrive(void)
{
    values v;
    CHECK(PARSE(&v, "try", "--text", "a b", "--count=18446744073709551615", "--number", "-0.25", "--flag", "--list", "x=1", "--list=y=2",
                "here") == DN_OPTIONS_GO_ON);
    CHECK(strcmp(v.text, "a b") == 0 && v.count == UINT64_MAX && v.number == -0.25 && v.flag);
    CHECK(v.list.count == 2 && strcmp(v.list.values[1], "y=2") == 0);
    CHECK(v.operand_count == 1 && strcmp(v.operands[0], "here") == 0);
}

static void defaults_stay(void)
{
    values v;
    CHECK(PARSE(&v, "try") == DN_OPTIONS_GO_ON);
    CHECK(strcmp(v.text, "standard") == 0 && v.count == 7 && v.number == 0.5 && !v.flag && v.list.count == 0 && v.operand_count == 0);
}

static void letters_and_the_end_of_options(void)
{
    values v;
    CHECK(PARSE(&v, "try", "-n", "3", "--", "--flag") == DN_OPTIONS_GO_ON);
    CHECK(v.count == 3 && !v.flag && v.operand_count == 1 && strcmp(v.operands[0], "--flag") == 0);
}

/* Bare, with a word behind it, or with one after '='; any other word is an operand. */
static void switches_take_a_word_or_none(void)
{
    values v;
    CHECK(PARSE(&v, "try") == DN_OPTIONS_GO_ON && !v.word);
    CHECK(PARSE(&v, "try", "--switch") == DN_OPTIONS_GO_ON && strcmp(v.word, "true") == 0);
    CHECK(PARSE(&v, "try", "--switch", "false", "here") == DN_OPTIONS_GO_ON && strcmp(v.word, "false") == 0 && v.operand_count == 1);
    CHECK(PARSE(&v, "try", "--switch=true") == DN_OPTIONS_GO_ON && strcmp(v.word, "true") == 0);
    CHECK(PARSE(&v, "try", "--switch", "--flag") == DN_OPTIONS_GO_ON && strcmp(v.word, "true") == 0 && v.flag);
    CHECK(PARSE(&v, "try", "--switch", "here") == DN_OPTIONS_GO_ON && strcmp(v.word, "true") == 0 && v.operand_count == 1);
}

static void complaints_name_the_option(void)
{
    static const char *const cases[][3] = {
        {"--unknown", NULL, "--unknown: unknown option"},
        {"--text", NULL, "--text: needs a value"},
        {"--switch=yes", NULL, "--switch=yes: must be true or false"},
        {"--flag=1", NULL, "--flag=1: takes no value"},
        {"--count", "0", "--count: must be a whole number"},
        {"--count", "-1", "--count: must be a whole number"},
        {"--count", "1e3", "--count: must be a whole number"},
        {"--count", "18446744073709551616", "--count: must be a whole number"},
        {"--number", "nan", "--number: must be a number from -1 to 1"},
        {"--number", "inf", "--number: must be a number"},
        {"--number", "1.01", "--number: must be a number"},
        {"--number", "1x", "--number: must be a number"},
        {"-n", "10", "-n: must be a whole number from 0 to 9"},
        {"-nn", NULL, "-nn: unknown option"},
        {"one", "two", "two: unexpected argument"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        values v;
        const char *words[] = {"try", cases[i][0], cases[i][1]};
        int status = parse(&v, cases[i][1] ? 3 : 2, words);
        CHECK_MSG(status == DN_EXIT_USAGE && strstr(v.complaint, cases[i][2]), "%s: status %d, %s", cases[i][0], status, v.complaint);
    }
}

static void help_is_printed(void)
{
    values v;
    CHECK(PARSE(&v, "try", "--help") == DN_EXIT_OK);
    CHECK(strstr(v.complaint, "usage: denoised try [OPTION...] MODEL") && strstr(v.complaint, "-n, --small N"));
    CHECK(!strstr(v.complaint, "--switch") && strstr(v.complaint, "--help-all") && strstr(v.complaint, "\nThe end.\n"));
    CHECK(PARSE(&v, "try", "--help-all") == DN_EXIT_OK && strstr(v.complaint, "--switch X"));
}

static void failures_have_exit_statuses(void)
{
    dn_error error = {DN_INVALID, "wrong"};
    CHECK(dn_command_failed("try", &error) == DN_EXIT_DATA);
    error.status = DN_IO;
    CHECK(dn_command_failed("try", &error) == DN_EXIT_IO);
    error.status = DN_INTERNAL;
    CHECK(dn_command_failed("try", &error) == DN_EXIT_SOFTWARE);
}

int main(void)
{
    RUN(values_arrive);
    RUN(defaults_stay);
    RUN(letters_and_the_end_of_options);
    RUN(switches_take_a_word_or_none);
    RUN(complaints_name_the_option);
    RUN(help_is_printed);
    RUN(failures_have_exit_statuses);
    return test_end();
}
