/* The body of POST /generate from a command line (client.h). Words are judged by the daemon, which knows the model; here only by their
 * kind, since a body of JSON has numbers where numbers belong. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/limits.h"
#include "base/file.h"
#include "server/client.h"
#include "server/generation.h"

#define PICTURE_BYTES_MAX (API_BODY_IMAGE_BYTES_MAX / 4 * 3)

static void add_name(api_text *out, const char *name)
{
    if (out->length > 1)
        api_text_add(out, ",");
    api_text_string(out, name);
    api_text_add(out, ":");
}

static void add_text(api_text *out, const char *name, const char *value)
{
    if (value == NULL)
        return;
    add_name(out, name);
    api_text_string(out, value);
}

static bool is_digits(const char *text)
{
    return text[0] != '\0' && strlen(text) <= 9 && strspn(text, "0123456789") == strlen(text);
}

/* A class: digits are its index, as a number; all else its name. */
static void add_class(api_text *out, const char *text)
{
    if (is_digits(text))
        api_text_format(out, "%lu", strtoul(text, NULL, 10));
    else
        api_text_string(out, text);
}

/* "2:0.5,Bag:0.5" */
static bool add_mixture(api_text *out, const char *text)
{
    char copy[1024];
    char *rest = NULL;
    if (strlen(text) >= sizeof copy)
        return false;
    snprintf(copy, sizeof copy, "%s", text);
    add_name(out, "class_mixture");
    api_text_add(out, "[");
    for (char *part = strtok_r(copy, ",", &rest), *first = part; part != NULL; part = strtok_r(NULL, ",", &rest)) {
        char *colon = strrchr(part, ':'), *end = NULL;
        const double weight = colon != NULL ? strtod(colon + 1, &end) : 0.0;
        if (colon == NULL || end == colon + 1 || *end != '\0' || !isfinite(weight))
            return false;
        *colon = '\0';
        api_text_add(out, part == first ? "{\"class_label\":" : ",{\"class_label\":");
        add_class(out, part);
        api_text_add(out, ",\"weight\":");
        api_text_number(out, weight);
        api_text_add(out, "}");
    }
    api_text_add(out, "]");
    return true;
}

static dn_status add_picture(api_text *out, const char *name, const char *path, dn_error *error)
{
    unsigned char *bytes = NULL;
    size_t count = 0;
    if (path == NULL)
        return DN_OK;
    dn_status status = dn_file_read(&bytes, &count, path, PICTURE_BYTES_MAX, error);
    if (status != DN_OK)
        return status;
    add_name(out, name);
    api_text_add(out, "\"");
    api_text_base64(out, bytes, count);
    api_text_add(out, "\"");
    free(bytes);
    return DN_OK;
}

static bool whole_number(const char *text, long low, long high, long *out)
{
    char *end = NULL;
    errno = 0;
    *out = strtol(text, &end, 10);
    return end != text && *end == '\0' && errno == 0 && *out >= low && *out <= high;
}

/* What is wrong with the command line; NULL: nothing. */
static const char *add_options(api_text *out, const client_request *r)
{
    static char wrong[64];
    long priority = 0;
    if (r->priority != NULL) {
        if (!whole_number(r->priority, -API_PRIORITY_MAX, API_PRIORITY_MAX, &priority))
            return "--priority: must be a whole number from -10 to 10";
        add_name(out, "priority");
        api_text_format(out, "%ld", priority);
    }
    if (r->mixture != NULL && !add_mixture(out, r->mixture))
        return "--mixture: must be CLASS:WEIGHT,CLASS:WEIGHT,...";
    for (uint32_t i = 0; i < DN_OPT_COUNT; i++) {
        api_text member = API_TEXT_INIT;
        if (r->option_text[i] == NULL)
            continue;
        const bool good = generation_option_json(&member, (dn_option_id)i, r->option_text[i]);
        char *text = api_text_take(&member);
        if (good && text != NULL) {
            api_text_add(out, out->length > 1 ? "," : "");
            api_text_add(out, text);
        }
        free(text);
        if (good)
            continue;
        snprintf(wrong, sizeof wrong, "%s is none of its values", dn_option_info_of((dn_option_id)i)->name);
        return wrong;
    }
    return NULL;
}

static void add_numbers(api_text *out, const client_request *r)
{
    if (!isnan(r->guidance_scale)) {
        add_name(out, "guidance_scale");
        api_text_number(out, r->guidance_scale);
    }
    if (r->steps > 0) {
        add_name(out, "steps");
        api_text_format(out, "%llu", (unsigned long long)r->steps);
    }
    if (r->n > 0) {
        add_name(out, "n");
        api_text_format(out, "%llu", (unsigned long long)r->n);
    }
    if (r->deadline > 0) {
        add_name(out, "deadline_ms");
        api_text_format(out, "%.0f", ceil(r->deadline * 1000.0));
    }
}

char *client_body(const client *c, const client_request *r, int *status)
{
    api_text out = API_TEXT_INIT;
    dn_error error;
    *status = DN_OPTIONS_GO_ON;
    api_text_add(&out, "{");
    add_text(&out, "model", r->model);
    if (r->class_text != NULL) {
        add_name(&out, "class_label");
        add_class(&out, r->class_text);
    }
    if (r->negative != NULL) {
        add_name(&out, "negative_class");
        add_class(&out, r->negative);
    }
    add_numbers(&out, r);
    add_text(&out, "sampler", r->sampler);
    add_text(&out, "seed", r->seed);
    add_text(&out, "variation_seed", r->variation);
    add_text(&out, "webhook", r->webhook);
    const char *wrong = add_options(&out, r);
    if (wrong != NULL) {
        error = (dn_error){DN_INVALID, ""};
        snprintf(error.message, sizeof error.message, "%s", wrong);
        generation_name_flag(&error);
        *status = dn_command_failed(c->command, &error);
    } else if (add_picture(&out, "init_image", r->init_path, &error) != DN_OK ||
               add_picture(&out, "mask_image", r->mask_path, &error) != DN_OK) {
        *status = dn_command_failed(c->command, &error);
    }
    api_text_add(&out, "}");
    char *body = api_text_take(&out);
    if (*status == DN_OPTIONS_GO_ON && body == NULL) {
        fprintf(stderr, "denoised %s: out of memory\n", c->command);
        *status = DN_EXIT_TEMPORARY;
    }
    if (*status == DN_OPTIONS_GO_ON)
        return body;
    free(body);
    return NULL;
}
