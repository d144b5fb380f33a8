/* Refusals as FastAPI and webui write them, and native fields under the dialect's names (sdapi_request.h). Pure; any thread. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/sdapi_request.h"

/* Where the two have different names. */
static const struct {
    const char *native, *pointer, *name;
} RENAMED[] = {
    {"class_label", "/prompt", "prompt"},
    {"negative_class", "/negative_prompt", "negative_prompt"},
    {"guidance_scale", "/cfg_scale", "cfg_scale"},
    {"sampler", "/sampler_name", "sampler_name"},
    {"sigma_schedule", "/scheduler", "scheduler"},
    {"timestep_spacing", "/scheduler", "scheduler"},
    {"init_image", "/init_images/0", "init_images"},
    {"mask_image", "/mask", "mask"},
    {"strength", "/denoising_strength", "denoising_strength"},
    {"variation_seed", "/subseed", "subseed"},
    {"variation_strength", "/subseed_strength", "subseed_strength"},
    {"n", "/batch_size", "batch_size"},
    {"model", "/override_settings/sd_model_checkpoint", "sd_model_checkpoint"},
};

static bool in_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

/* Native words of a sentence to the dialect's: the one it begins with, and those that mean nothing but the field. */
static void rename_words(api_problem *problem)
{
    api_text text = API_TEXT_INIT;
    for (const char *at = problem->detail; *at;) {
        size_t bytes = 0;
        while (in_word(at[bytes])) {
            bytes++;
        }
        const char *name = NULL;
        for (size_t i = 0; bytes && !name && i < sizeof RENAMED / sizeof RENAMED[0]; i++) {
            const bool same = strlen(RENAMED[i].native) == bytes && strncmp(RENAMED[i].native, at, bytes) == 0;
            name = same && (at == problem->detail || memchr(at, '_', bytes)) ? RENAMED[i].name : NULL;
        }
        if (strcmp(problem->field, "/sigma_schedule") == 0 && bytes == 5 && strncmp(at, "model", 5) == 0) {
            name = "automatic"; /* how that schedule is called there */
        }
        api_text_bytes(&text, name ? name : at, name ? strlen(name) : bytes ? bytes : 1);
        at += bytes ? bytes : 1;
    }
    char *renamed = api_text_take(&text);
    if (renamed) {
        snprintf(problem->detail, sizeof problem->detail, "%s", renamed);
    }
    free(renamed);
}

void api_sdapi_rename(api_problem *problem, bool img2img)
{
    const char *field = problem->field[0] == '/' ? problem->field + 1 : problem->field;
    rename_words(problem);
    for (size_t i = 0; i < sizeof RENAMED / sizeof RENAMED[0]; i++) {
        if (strcmp(field, RENAMED[i].native) == 0) {
            const bool outside = !img2img && strncmp(RENAMED[i].pointer, "/init_images", 12) == 0; /* txt2img has no such field */
            snprintf(problem->field, sizeof problem->field, "%s", outside ? "/sampler_name" : RENAMED[i].pointer);
            return;
        }
    }
}

/* A JSON Pointer as `loc`: names, and numbers for the places of a list; the bare name of a query's parameter. */
static void add_place(api_text *text, const api_problem *problem)
{
    char part[sizeof problem->field];
    if (problem->field[0] && problem->field[0] != '/') {
        api_text_add(text, "[\"query\",");
        api_text_string(text, problem->field);
        api_text_add(text, "]");
        return;
    }
    api_text_add(text, "[\"body\"");
    if (problem->has_offset) {
        api_text_format(text, ",%zu", problem->offset);
    }
    for (const char *at = problem->field; *at == '/';) {
        const size_t bytes = strcspn(++at, "/");
        snprintf(part, sizeof part, "%.*s", (int)bytes, at);
        api_text_add(text, ",");
        if (bytes && strspn(part, "0123456789") == bytes) {
            api_text_add(text, part);
        } else {
            api_text_string(text, part);
        }
        at += bytes;
    }
    api_text_add(text, "]");
}

char *api_sdapi_refusal_json(const api_problem *problem, const char *kind, int *status)
{
    api_text text = API_TEXT_INIT;
    *status = api_problem_status(problem->code);
    switch (problem->code) {
    case API_MALFORMED_JSON:
        *status = 422;
        kind = "value_error.jsondecode"; /* fall through */
    case API_INVALID_FIELD:
    case API_UNSUPPORTED_OPTION:
        api_text_add(&text, "{\"detail\":[{\"loc\":");
        add_place(&text, problem);
        api_text_add(&text, ",\"msg\":");
        api_text_string(&text, problem->detail);
        api_text_add(&text, ",\"type\":");
        api_text_string(&text, kind ? kind : "value_error");
        api_text_add(&text, "}]}");
        break;
    case API_NOT_FOUND:
        api_text_add(&text, "{\"detail\":\"Not Found\"}");
        break;
    case API_METHOD_NOT_ALLOWED:
        api_text_add(&text, "{\"detail\":\"Method Not Allowed\"}");
        break;
    default:
        api_text_add(&text, "{\"error\":");
        api_text_string(&text, api_problem_code(problem->code));
        api_text_add(&text, ",\"detail\":");
        api_text_string(&text, problem->detail);
        api_text_add(&text, ",\"body\":\"\",\"errors\":");
        api_text_string(&text, problem->detail);
        api_text_add(&text, "}");
        break;
    }
    return api_text_take(&text);
}
