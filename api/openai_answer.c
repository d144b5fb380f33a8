/* See openai_answer.h. */
#include "api/openai_answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/views.h"

#define USAGE                                                                                                                              \
    "\"usage\":{\"input_tokens\":0,\"input_tokens_details\":{\"image_tokens\":0,\"text_tokens\":0},\"output_tokens\":0,"                   \
    "\"total_tokens\":0}"

/* ---- Errors */

static char *error_body(const char *message, const char *type, const char *param, const char *code)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"error\":{\"message\":");
    api_text_string(&text, message);
    api_text_format(&text, ",\"type\":\"%s\",\"param\":", type);
    api_text_string(&text, param);
    api_text_add(&text, ",\"code\":");
    api_text_string(&text, code);
    api_text_add(&text, "}}");
    return api_text_take(&text);
}

static const char *type_of(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

char *api_openai_error(const api_problem *problem, int *status)
{
    char code[32];
    const bool at_model = strcmp(problem->field, "/model") == 0;
    const char *param = problem->field + (problem->field[0] == '/');
    *status = api_problem_status(problem->code);
    snprintf(code, sizeof code, "%s", api_problem_code(problem->code));
    for (char *c = strchr(code, '-'); c != NULL; c = strchr(c, '-')) {
        *c = '_';
    }
    if (at_model && (problem->code == API_INVALID_FIELD || problem->code == API_NOT_FOUND)) {
        *status = 404;
        snprintf(code, sizeof code, "model_not_found");
    } else if (*status == 422) {
        *status = 400;
    } else if (*status == 401) {
        snprintf(code, sizeof code, "invalid_api_key");
    } else if (*status == 429) {
        snprintf(code, sizeof code, "rate_limit_exceeded");
    }
    return error_body(problem->detail, type_of(*status), param[0] != '\0' ? param : NULL, code);
}

char *api_openai_error_of(const char *type, const char *code, const char *message)
{
    return error_body(message, type, NULL, code);
}

/* ---- Models */

static void add_model(api_text *text, const char *name)
{
    api_text_add(text, "{\"id\":");
    api_text_string(text, name);
    api_text_add(text, ",\"object\":\"model\",\"created\":0,\"owned_by\":\"denoised\"}");
}

char *api_openai_model(const char *name)
{
    api_text text = API_TEXT_INIT;
    add_model(&text, name);
    return api_text_take(&text);
}

char *api_openai_models(const char *const *names, size_t count)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < count; i++) {
        api_text_add(&text, i > 0 ? "," : "");
        add_model(&text, names[i]);
    }
    api_text_add(&text, "]}");
    return api_text_take(&text);
}

/* ---- Pictures */

static void add_picture(api_text *text, const api_openai_image *image)
{
    if (image->png != NULL) {
        api_text_add(text, "\"b64_json\":\"");
        api_text_base64(text, image->png, image->png_bytes);
        api_text_add(text, "\"");
    } else {
        api_text_add(text, "\"url\":");
        api_text_string(text, image->url);
    }
}

static void add_recipe(api_text *text, const api_openai_image *image)
{
    if (image->class_name != NULL && image->class_name[0] != '\0') {
        api_text_add(text, ",\"revised_prompt\":");
        api_text_string(text, image->class_name);
    }
    api_text_format(text, ",\"seed\":\"%llu\"", (unsigned long long)image->seed);
}

void api_openai_images_begin(api_text *text, int64_t created_seconds, uint32_t width, uint32_t height)
{
    api_text_format(text, "{\"created\":%lld,\"background\":\"opaque\",\"output_format\":\"png\",\"size\":\"%ux%u\"," USAGE ",\"data\":[",
                    (long long)created_seconds, width, height);
}

void api_openai_images_add(api_text *text, size_t count, const api_openai_image *image)
{
    api_text_add(text, count > 0 ? ",{" : "{");
    add_picture(text, image);
    add_recipe(text, image);
    api_text_add(text, "}");
}

void api_openai_images_end(api_text *text)
{
    api_text_add(text, "]}");
}

/* ---- Events */

static void begin_event(api_text *text, const char *type, const api_openai_image *image, int64_t created_seconds)
{
    api_text_format(text, "{\"type\":\"%s\",", type);
    add_picture(text, image);
    api_text_format(text,
                    ",\"created_at\":%lld,\"size\":\"%ux%u\",\"quality\":\"auto\",\"background\":\"opaque\",\"output_format\":\"png\","
                    "\"index\":%u",
                    (long long)created_seconds, image->width, image->height, image->index);
}

/* Takes the event's data. */
static char *whole_event(const char *name, api_text *data)
{
    char *json = api_text_take(data);
    char *event = json != NULL ? api_sse(-1, name, json) : NULL;
    free(json);
    return event;
}

char *api_openai_partial_event(const api_openai_image *image, unsigned partial_index, int64_t created_seconds)
{
    api_text text = API_TEXT_INIT;
    begin_event(&text, "image_generation.partial_image", image, created_seconds);
    api_text_format(&text, ",\"partial_image_index\":%u}", partial_index);
    return whole_event("image_generation.partial_image", &text);
}

char *api_openai_completed_event(const api_openai_image *image, int64_t created_seconds)
{
    api_text text = API_TEXT_INIT;
    begin_event(&text, "image_generation.completed", image, created_seconds);
    add_recipe(&text, image);
    api_text_add(&text, "," USAGE "}");
    return whole_event("image_generation.completed", &text);
}

char *api_openai_error_event(const char *error)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"type\":\"error\",");
    api_text_add(&text, error + 1);
    return whole_event("error", &text);
}
