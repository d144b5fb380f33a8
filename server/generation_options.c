/* The flags of `denoised generate` that the engine's table of options makes: --sigma-schedule for sigma_schedule and so on, their
 * values, and the two help texts that list them. One thread. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/generation.h"

/* Options before this one belong to samplers, the others to guidance and conditioning. */
#define SAMPLER_OPTIONS_END DN_OPT_GUIDANCE_METHOD
#define NAME_BYTES 40
#define CHOICES_BYTES 96

/* "sigma-schedule" of "sigma_schedule". */
static const char *flag_of(dn_option_id id)
{
    static char flags[DN_OPT_COUNT][NAME_BYTES];
    char *flag = flags[id];
    if (flag[0] == '\0') {
        snprintf(flag, NAME_BYTES, "%s", dn_option_info_of(id)->name);
        for (char *at = flag; *at != '\0'; at++)
            if (*at == '_')
                *at = '-';
    }
    return flag;
}

/* "model|karras|..." */
static const char *value_of_choices(dn_option_id id)
{
    static char values[DN_OPT_COUNT][CHOICES_BYTES];
    const dn_option_info *info = dn_option_info_of(id);
    char *value = values[id];
    size_t used = 0;
    value[0] = '\0';
    for (uint32_t i = (uint32_t)info->minimum; i <= (uint32_t)info->maximum && used < CHOICES_BYTES; i++)
        used += (size_t)snprintf(value + used, CHOICES_BYTES - used, "%s%s", used > 0 ? "|" : "", info->choices[i]);
    return value;
}

void generation_add_options(dn_option out[DN_OPT_COUNT], const char *text[DN_OPT_COUNT])
{
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        const dn_option_info *info = dn_option_info_of((dn_option_id)i);
        out[i] = (dn_option){.name = flag_of((dn_option_id)i),
                             .kind = info->type == DN_TYPE_BOOLEAN ? DN_OPTION_SWITCH : DN_OPTION_TEXT,
                             .value = info->type == DN_TYPE_CHOICE ? value_of_choices((dn_option_id)i) : "X",
                             .target = &text[i],
                             .help = info->help,
                             .hidden = true};
    }
}

/* ---- Values */

static double value_of(dn_option_id id, const char *text)
{
    const dn_option_info *info = dn_option_info_of(id);
    double value = (double)NAN;
    char *end = NULL;
    if (info->type == DN_TYPE_BOOLEAN)
        return strcmp(text, "true") == 0;
    if (info->type == DN_TYPE_CHOICE)
        return dn_option_choice(id, text, &value) ? value : (double)NAN;
    value = strtod(text, &end);
    return end != text && *end == '\0' ? value : (double)NAN;
}

dn_status generation_read_options(generation *g, dn_error *error)
{
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        dn_option_id id = (dn_option_id)i;
        const dn_option_info *info = dn_option_info_of(id);
        const dn_option_field widest = {id, info->minimum, info->maximum, (double)NAN};
        if (g->option_text[i] == NULL)
            continue;
        double value = value_of(id, g->option_text[i]);
        dn_status status = dn_option_check(&widest, value, error);
        if (status != DN_OK)
            return status;
        dn_option_set(&g->options, id, value);
    }
    return DN_OK;
}

bool generation_option_json(api_text *out, dn_option_id id, const char *text)
{
    const dn_option_info *info = dn_option_info_of(id);
    const double value = value_of(id, text);
    if (isnan(value))
        return false;
    api_text_string(out, info->name);
    api_text_add(out, ":");
    if (info->type == DN_TYPE_CHOICE)
        api_text_string(out, text);
    else if (info->type == DN_TYPE_BOOLEAN)
        api_text_bool(out, value > 0.0);
    else
        api_text_number(out, value);
    return true;
}

/* ---- Errors name the flag */

/* Fields of a request whose flags are not called like them. */
static const char *const OTHER_NAMES[][2] = {
    {"class_label", "class"},
    {"class_mixture", "mixture"},
    {"negative_class", "negative-class"},
    {"guidance_scale", "guidance-scale"},
    {"steps", "steps"},
    {"sampler", "sampler"},
    {"init_image", "init-image"},
    {"mask_image", "mask-image"},
    {"variation_seed", "variation-seed"},
};

static const char *flag_of_field(const char *field)
{
    dn_option_id id;
    for (size_t i = 0; i < sizeof OTHER_NAMES / sizeof OTHER_NAMES[0]; i++)
        if (strcmp(OTHER_NAMES[i][0], field) == 0)
            return OTHER_NAMES[i][1];
    return dn_option_find(field, &id) ? flag_of(id) : NULL;
}

void generation_name_flag(dn_error *error)
{
    char message[sizeof error->message] = "";
    size_t used = 0;
    for (const char *at = error->message; *at != '\0' && used + 1 < sizeof message;) {
        char word[NAME_BYTES] = "";
        size_t bytes = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
        if (bytes > 0 && bytes < sizeof word)
            memcpy(word, at, bytes);
        bool first = at == error->message;
        const char *flag = word[0] != '\0' && (first || strchr(word, '_') != NULL) ? flag_of_field(word) : NULL;
        bytes = bytes > 0 ? bytes : 1;
        int wrote = flag != NULL ? snprintf(message + used, sizeof message - used, "--%s", flag)
                                 : snprintf(message + used, sizeof message - used, "%.*s", (int)bytes, at);
        used += wrote > 0 ? (size_t)wrote : 0;
        at += bytes;
    }
    message[sizeof message - 1] = '\0';
    memcpy(error->message, message, sizeof error->message);
}

/* ---- Help */

static void print_range(const dn_option_field *field)
{
    const dn_option_info *info = dn_option_info_of(field->id);
    if (info->type == DN_TYPE_BOOLEAN)
        printf("true|false");
    for (uint32_t i = (uint32_t)field->minimum; info->type == DN_TYPE_CHOICE && i <= (uint32_t)field->maximum; i++)
        printf("%s%s", i > (uint32_t)field->minimum ? "|" : "", info->choices[i]);
    if (info->type == DN_TYPE_NUMBER || info->type == DN_TYPE_INTEGER)
        printf("%s %g to %g", info->type == DN_TYPE_INTEGER ? "whole," : "number,", field->minimum, field->maximum);
}

static void print_standard(const dn_option_field *field)
{
    const dn_option_info *info = dn_option_info_of(field->id);
    if (isnan(field->standard))
        printf(" (the model's)");
    else if (info->type == DN_TYPE_BOOLEAN)
        printf(" (%s)", field->standard > 0.0 ? "true" : "false");
    else if (info->type == DN_TYPE_CHOICE)
        printf(" (%s)", info->choices[(uint32_t)field->standard]);
    else
        printf(" (%g)", field->standard);
}

void generation_print_options(void)
{
    printf("Options of sampling, guidance and conditioning. Which sampler takes which, and what they are when they are not given, says\n"
           "denoised generate --list-samplers; what a model takes of the others, denoised inspect MODEL.\n");
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        const dn_option_info *info = dn_option_info_of((dn_option_id)i);
        const dn_option_field widest = {(dn_option_id)i, info->minimum, info->maximum, (double)NAN};
        if (i == 0 || i == SAMPLER_OPTIONS_END || i == DN_OPT_STRENGTH)
            printf("\n%s\n", i == 0 ? "Samplers" : i == SAMPLER_OPTIONS_END ? "Guidance" : "Pictures and seeds");
        printf("  --%-28s %s: ", flag_of((dn_option_id)i), info->help);
        print_range(&widest);
        printf("\n");
    }
}

void generation_print_samplers(void)
{
    const dn_sampler *sampler;
    printf("Samplers: order, evaluations of the network a step, options with their ranges and (what they are when not given).\n");
    for (uint32_t i = 0; (sampler = dn_sampler_at(i)) != NULL; i++) {
        printf("\n%s: %s; order %u, %u evaluation%s a step%s%s%s\n", sampler->name, sampler->title, sampler->order,
               sampler->evaluations_per_step, sampler->evaluations_per_step == 1 ? "" : "s", sampler->stochastic ? ", stochastic" : "",
               sampler->adaptive ? ", adaptive" : "", sampler->inverts ? ", needs --init-image" : "");
        for (uint32_t f = 0; f < sampler->field_count; f++) {
            printf("  --%-28s ", flag_of(sampler->fields[f].id));
            print_range(&sampler->fields[f]);
            print_standard(&sampler->fields[f]);
            printf("\n");
        }
    }
}
