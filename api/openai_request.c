/* See openai_request.h. Members that are the native request's own are copied as they stand in the body, so that numbers stay exact. */
#include "api/openai_request.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/class_match.h"
#include "api/json_walk.h"
#include "api/text.h"
#include "format/json.h"

typedef struct reader {
    api_openai_request *out;
    api_problem *problem;
    api_text native;
    const char *model, *prompt, *size, *negative; /* NULL: not sent */
    bool has_class; /* class_label or class_mixture */
    bool has_steps; /* under its native name */
} reader;

typedef bool read_member(reader *r, const char *name, const cJSON *value, api_raw raw);

static bool refuse(reader *r, const char *name, const char *rule)
{
    return api_refuse(r->problem, API_INVALID_FIELD, name, "%s %s", name, rule);
}

static bool copy(reader *r, const char *native_name, api_raw raw)
{
    api_text_add(&r->native, r->native.length > 1 ? "," : "");
    api_text_string(&r->native, native_name);
    api_text_add(&r->native, ":");
    api_text_bytes(&r->native, raw.at, raw.bytes);
    return true;
}

/* ---- One function a kind of member; null has been left out before */

static bool read_native(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    (void)value;
    r->has_class |= strcmp(name, "class_label") == 0 || strcmp(name, "class_mixture") == 0;
    r->has_steps |= strcmp(name, "steps") == 0;
    return copy(r, name, raw);
}

static bool read_model(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    if (!cJSON_IsString(value)) {
        return refuse(r, name, "must be a string: one of GET /v1/models");
    }
    r->model = value->valuestring;
    return copy(r, "model", raw);
}

static bool read_prompt(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    (void)raw;
    if (!cJSON_IsString(value)) {
        return refuse(r, name, "must be a string");
    }
    if (strlen(value->valuestring) > API_PROMPT_BYTES_MAX) {
        return api_refuse(r->problem, API_INVALID_FIELD, name, "%s must have at most %d bytes", name, API_PROMPT_BYTES_MAX);
    }
    *(strcmp(name, "prompt") == 0 ? &r->prompt : &r->negative) = value->valuestring;
    return true;
}

static bool read_steps(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    (void)name;
    (void)value;
    r->out->renamed_steps = true;
    return copy(r, "steps", raw);
}

static bool read_size(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    (void)raw;
    if (!cJSON_IsString(value)) {
        return refuse(r, name, "must be a string: \"auto\" or WIDTHxHEIGHT");
    }
    r->size = strcmp(value->valuestring, "auto") == 0 ? NULL : value->valuestring;
    return true;
}

static bool read_response_format(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    const char *text = cJSON_IsString(value) ? value->valuestring : "";
    (void)raw;
    r->out->as_url = strcmp(text, "url") == 0;
    return r->out->as_url || strcmp(text, "b64_json") == 0 || refuse(r, name, "must be \"b64_json\" or \"url\"");
}

static bool read_output_format(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    (void)raw;
    if (cJSON_IsString(value) && strcmp(value->valuestring, "png") == 0) {
        return true;
    }
    return api_refuse(r->problem, API_UNSUPPORTED_OPTION, name, "output_format must be \"png\": every picture is a PNG");
}

static bool read_stream(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    (void)raw;
    r->out->stream = cJSON_IsTrue(value);
    return cJSON_IsBool(value) || refuse(r, name, "must be true or false");
}

static bool whole_within(const cJSON *value, api_raw raw, double most)
{
    return cJSON_IsNumber(value) && api_raw_is_integer(raw) && value->valuedouble >= 0 && value->valuedouble <= most;
}

static bool read_partial_images(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    if (!whole_within(value, raw, API_OPENAI_PARTIAL_IMAGES_MAX)) {
        return refuse(r, name, "must be an integer from 0 to 3");
    }
    r->out->partial_images = (unsigned)value->valuedouble;
    return true;
}

static bool read_compression(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    return whole_within(value, raw, 100) || refuse(r, name, "must be an integer from 0 to 100; a PNG has no other use for it");
}

static bool read_text(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    (void)raw;
    return cJSON_IsString(value) || refuse(r, name, "must be a string");
}

static bool read_background(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    const char *text = cJSON_IsString(value) ? value->valuestring : "";
    (void)raw;
    if (strcmp(text, "transparent") == 0) {
        return api_refuse(r->problem, API_UNSUPPORTED_OPTION, name, "background cannot be \"transparent\": pictures have no alpha channel");
    }
    return strcmp(text, "opaque") == 0 || strcmp(text, "auto") == 0 || refuse(r, name, "must be \"opaque\" or \"auto\"");
}

static bool one_of(const cJSON *value, const char *words)
{
    const char *text = cJSON_IsString(value) ? value->valuestring : "";
    const size_t bytes = strlen(text);
    const char *at = bytes > 0 ? strstr(words, text) : NULL;
    while (at != NULL && ((at != words && at[-1] != ' ') || (at[bytes] != ' ' && at[bytes] != '\0'))) {
        at = strstr(at + 1, text);
    }
    return at != NULL && strchr(text, ' ') == NULL;
}

/* What a model of classes has no use for, and clients send all the same. */
static bool read_harmless(reader *r, const char *name, const cJSON *value, api_raw raw)
{
    static const struct {
        const char *name, *words;
    } rows[] = {{"quality", "auto low medium high xhigh max standard hd"},
                {"style", "vivid natural"},
                {"moderation", "auto low"},
                {"complexity", "low medium high"}};
    (void)raw;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].name, name) == 0 && !one_of(value, rows[i].words)) {
            return api_refuse(r->problem, API_INVALID_FIELD, name, "%s must be one of: %s", name, rows[i].words);
        }
    }
    return true;
}

static const struct {
    const char *name;
    read_member *read;
} MEMBERS[] = {
    {"model", read_model},
    {"prompt", read_prompt},
    {"n", read_native},
    {"size", read_size},
    {"response_format", read_response_format},
    {"output_format", read_output_format},
    {"stream", read_stream},
    {"partial_images", read_partial_images},
    {"output_compression", read_compression},
    {"user", read_text},
    {"safety_identifier", read_text},
    {"background", read_background},
    {"quality", read_harmless},
    {"style", read_harmless},
    {"moderation", read_harmless},
    {"complexity", read_harmless},
    {"num_inference_steps", read_steps},
    {"guidance_scale", read_native},
    {"seed", read_native},
    {"negative_prompt", read_prompt},
};

static bool read_one(reader *r, const cJSON *value, api_raw raw)
{
    for (size_t i = 0; i < sizeof MEMBERS / sizeof MEMBERS[0]; i++) {
        if (strcmp(MEMBERS[i].name, value->string) == 0) {
            return cJSON_IsNull(value) || MEMBERS[i].read(r, MEMBERS[i].name, value, raw);
        }
    }
    return read_native(r, value->string, value, raw);
}

/* ---- What the members say together */

static bool check_size(reader *r, const api_model *model)
{
    char own[32];
    snprintf(own, sizeof own, "%ux%u", model->width, model->height);
    if (r->size == NULL || strcmp(r->size, own) == 0) {
        return true;
    }
    return api_refuse(r->problem, API_INVALID_FIELD, "size", "size must be \"auto\" or \"%s\": all pictures of the model %s have that size",
                      own, model->name);
}

static void add_class(reader *r, const char *native_name, uint32_t index)
{
    char digits[16];
    const int count = snprintf(digits, sizeof digits, "%u", index);
    copy(r, native_name, (api_raw){digits, (size_t)count});
}

static bool add_classes(reader *r, const api_model *model)
{
    uint32_t index;
    if (!r->has_class) {
        if (r->prompt == NULL) {
            return refuse(r, "prompt", "is required: words that name a class of the model");
        }
        if (!api_match_class(&index, model, r->prompt, "prompt", r->problem)) {
            return false;
        }
        add_class(r, "class_label", index);
    }
    if (r->negative != NULL && !api_prompt_is_blank(r->negative)) {
        if (!api_match_class(&index, model, r->negative, "negative_prompt", r->problem)) {
            return false;
        }
        r->out->renamed_negative = true;
        add_class(r, "negative_class", index);
    }
    return true;
}

static bool read_members(reader *r, const cJSON *root, api_raw raw)
{
    api_walk walk;
    api_raw value;
    api_walk_begin(&walk, raw);
    for (const cJSON *child = root->child; child != NULL; child = child->next) {
        if (!api_walk_next(&walk, &value)) {
            return api_refuse(r->problem, API_INTERNAL, "", "the body could not be walked");
        }
        if (!read_one(r, child, value)) {
            return false;
        }
    }
    if (r->out->renamed_steps && r->has_steps) {
        return refuse(r, "num_inference_steps", "is what steps says too: send one of them");
    }
    return !(r->out->stream && r->out->as_url) || refuse(r, "response_format", "must be \"b64_json\" with stream");
}

/* ---- The body */

static bool parse(cJSON **root, const char *body, size_t bytes, api_problem *problem)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_IMAGE_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    dn_error error = {0};
    size_t offset = 0;
    const dn_status status = dn_json_parse(root, body, bytes, &limits, &offset, &error);
    if (status == DN_NO_MEMORY) {
        return api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    if (status != DN_OK) {
        api_refuse(problem, API_MALFORMED_JSON, "", "the body is not JSON: %.200s (byte %zu)", error.message, offset);
        return false;
    }
    if (!cJSON_IsObject(*root)) {
        return api_refuse(problem, API_INVALID_FIELD, "", "the body must be an object");
    }
    const bool pictures =
        cJSON_GetObjectItemCaseSensitive(*root, "init_image") != NULL || cJSON_GetObjectItemCaseSensitive(*root, "mask_image") != NULL;
    return bytes <= API_BODY_BYTES_MAX || pictures ||
           api_refuse(problem, API_TOO_LARGE, "", "the body is larger than %d bytes", API_BODY_BYTES_MAX);
}

bool api_openai_translate(api_openai_request *out, char **native, const char *body, size_t bytes, api_model_lookup *lookup, void *payload,
                          api_problem *problem)
{
    cJSON *root = NULL;
    reader r = {.out = out, .problem = problem, .native = API_TEXT_INIT};
    *out = (api_openai_request){.stream = false};
    *problem = (api_problem){.code = API_NONE};
    bool fine = parse(&root, body, bytes, problem);
    api_text_add(&r.native, "{");
    if (fine) {
        fine = read_members(&r, root, (api_raw){body, bytes});
    }
    const api_model *model = fine ? lookup(payload, r.model) : NULL;
    out->resolved = model != NULL;
    if (model != NULL) {
        fine = check_size(&r, model) && add_classes(&r, model);
    }
    api_text_add(&r.native, "}");
    *native = api_text_take(&r.native);
    if (fine && *native == NULL) {
        fine = api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    if (!fine) {
        free(*native);
        *native = NULL;
    }
    cJSON_Delete(root);
    return fine;
}

/* ---- Names and times */

static void rename_field(api_problem *problem, const char *native, const char *own)
{
    char detail[sizeof problem->detail];
    const size_t bytes = strlen(native);
    if (problem->field[0] != '/' || strcmp(problem->field + 1, native) != 0) {
        return;
    }
    snprintf(problem->field, sizeof problem->field, "%s", own);
    if (strncmp(problem->detail, native, bytes) == 0 && problem->detail[bytes] == ' ') {
        snprintf(detail, sizeof detail, "%s%s", own, problem->detail + bytes);
        memcpy(problem->detail, detail, sizeof detail);
    }
}

void api_openai_rename(const api_openai_request *request, api_problem *problem)
{
    if (request->renamed_steps) {
        rename_field(problem, "steps", "num_inference_steps");
    }
    if (request->renamed_negative) {
        rename_field(problem, "negative_class", "negative_prompt");
    }
    if (strcmp(problem->field, "/model") == 0 && strcmp(problem->detail, "model is not one of GET /models") == 0) {
        snprintf(problem->detail, sizeof problem->detail, "model is not one of GET /v1/models; left out, it is the default");
    }
}

double api_openai_wait_seconds(const char *read_timeout, double most)
{
    char *end = NULL;
    const double told = read_timeout != NULL ? strtod(read_timeout, &end) : 0;
    if (read_timeout == NULL || end == read_timeout || *end != '\0' || !(told > 0)) {
        return most;
    }
    return fmin(most, told - fmin(told / 4, 5));
}
