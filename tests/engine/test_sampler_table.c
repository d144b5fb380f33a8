/* The README's table of samplers says what the program's says.
 *
 *     test_sampler_table --rows      prints the rows that the README should have */
#include <stdio.h>
#include <string.h>

#include "tests/test.h"

#include "diffusion/sampler.h"

#define README "engine/diffusion/README.md"

static void append(char *row, size_t bytes, const char *text)
{
    size_t used = strlen(row);
    snprintf(row + used, bytes - used, "%s", text);
}

/* | `name` | evaluations a step | order | stochastic | families | options | source | */
static void row_of(const dn_sampler *sampler, char *row, size_t bytes)
{
    static const char *const families[] = {"VP", "EDM", "flow", "VE"};
    snprintf(row, bytes, "| `%s` %s | %s%u | %u | %s |", sampler->name, sampler->title, sampler->adaptive ? "adaptive, " : "",
             sampler->evaluations_per_step, sampler->order, sampler->stochastic ? "yes" : "no");
    for (int family = 0; family < 4 && sampler->families != DN_FAMILIES_ALL; family++)
        if (sampler->families >> family & 1u) {
            append(row, bytes, " ");
            append(row, bytes, families[family]);
        }
    append(row, bytes, sampler->families == DN_FAMILIES_ALL ? " all |" : " |");
    for (uint32_t i = 0; i < sampler->field_count; i++) {
        append(row, bytes, i == 0 ? " " : ", ");
        append(row, bytes, dn_option_info_of(sampler->fields[i].id)->name);
    }
    append(row, bytes, " | ");
    append(row, bytes, sampler->source);
    append(row, bytes, " |");
}

static char *read_readme(void)
{
    static char text[65536];
    FILE *file = fopen(README, "r");
    size_t count = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file != NULL)
        fclose(file);
    text[count] = '\0';
    return text;
}

static void the_readme_lists_the_table(void)
{
    const char *text = read_readme();
    uint32_t count = 0, listed = 0;
    for (; dn_sampler_at(count) != NULL; count++) {
        char row[1024];
        row_of(dn_sampler_at(count), row, sizeof row);
        CHECK_MSG(strstr(text, row) != NULL, README " lacks: %.600s", row);
    }
    for (const char *at = text; (at = strstr(at, "\n| `")) != NULL; at++)
        listed++;
    CHECK_MSG(listed == count, README " lists %u samplers, not %u", listed, count);
}

static int print_rows(void)
{
    char row[1024];
    for (uint32_t s = 0; dn_sampler_at(s) != NULL; s++) {
        row_of(dn_sampler_at(s), row, sizeof row);
        printf("%s\n", row);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--rows") == 0)
        return print_rows();
    RUN(the_readme_lists_the_table);
    return test_end();
}
