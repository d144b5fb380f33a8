/* See verification.h. */
#include "api/verification.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/base64.h"
#include "api/json_fields.h"
#include "api/json_walk.h"
#include "api/text.h"
#include "api/view_parts.h"
#include "base/limits.h"
#include "base/philox.h"
#include "batch/loaded_engine.h"
#include "format/json.h"

#define RECIPE_BYTES_MAX 131072 /* twice a request's */

/* ---- Reading */

static bool read_hash(const cJSON *root, const char *key, char out[65])
{
    return api_read_text(root, key, out, 65) && strspn(out, "0123456789abcdef") == 64;
}

static bool read_facts(const cJSON *root, api_recipe *out)
{
    double width, height, channels, numerics;
    if (!read_hash(root, "weights_sha256", out->weights_sha256) || !read_hash(root, "pixels_sha256", out->pixels_sha256) ||
        !api_read_text(root, "noise", out->noise, sizeof out->noise) || !api_read_text(root, "device", out->device, sizeof out->device) ||
        !api_read_text(root, "build", out->build, sizeof out->build) || !api_read_whole(root, "numerics", 0, 1000000, &numerics) ||
        !api_read_whole(root, "width", 1, DN_IMAGE_SIDE_MAX, &width) || !api_read_whole(root, "height", 1, DN_IMAGE_SIDE_MAX, &height) ||
        !api_read_whole(root, "channels", 1, 3, &channels)) {
        return false;
    }
    if ((cJSON_HasObjectItem(root, "gpu") && !api_read_text(root, "gpu", out->gpu, sizeof out->gpu)) ||
        (cJSON_HasObjectItem(root, "plan") && !cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(root, "plan")) &&
         !api_read_text(root, "plan", out->plan, sizeof out->plan))) {
        return false;
    }
    out->width = (uint32_t)width;
    out->height = (uint32_t)height;
    out->channels = (uint32_t)channels;
    out->numerics = (int)numerics;
    return true;
}

/* A member's text as it stands: cJSON would round its numbers. */
static bool raw_member(const cJSON *root, api_raw json, const char *name, api_raw *out)
{
    api_walk walk;
    api_walk_begin(&walk, json);
    for (const cJSON *member = root->child; member != NULL && api_walk_next(&walk, out); member = member->next) {
        if (strcmp(member->string, name) == 0) {
            return true;
        }
    }
    return false;
}

bool api_recipe_read(api_recipe *out, const char *json, size_t bytes, bool *no_memory)
{
    const dn_json_limits limits = {.bytes_max = RECIPE_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    cJSON *root = NULL;
    api_raw request = {NULL, 0};
    dn_status status = dn_json_parse(&root, json, bytes, &limits, NULL, NULL);
    *out = (api_recipe){.numerics = 0};
    if (status == DN_OK) {
        bool found = cJSON_IsObject(root) && read_facts(root, out) && raw_member(root, (api_raw){json, bytes}, "request", &request);
        status = found ? api_request_read(&out->request, request.at, request.bytes) : DN_INVALID;
    }
    *no_memory = status == DN_NO_MEMORY;
    cJSON_Delete(root);
    return status == DN_OK;
}

bool api_recipe_has_inputs(const api_recipe *recipe)
{
    return recipe->request.init_image.sha256[0] != '\0' || recipe->request.mask_image.sha256[0] != '\0';
}

/* ---- Asking again */

/* The members of a request as it is shown that a client may send. */
static bool is_sent(const char *name)
{
    static const char *const left_out[] = {"class_name", "negative_class_name", "class_mixture", "init_image", "mask_image"};
    for (size_t i = 0; i < sizeof left_out / sizeof left_out[0]; i++) {
        if (strcmp(name, left_out[i]) == 0) {
            return false;
        }
    }
    return true;
}

static void add_members(api_text *text, const cJSON *root, api_raw json, bool mixture)
{
    api_walk walk;
    api_raw value;
    api_walk_begin(&walk, json);
    for (const cJSON *member = root->child; member != NULL && api_walk_next(&walk, &value); member = member->next) {
        if (is_sent(member->string) && !(mixture && strcmp(member->string, "class_label") == 0)) {
            api_text_format(text, "%s\"%s\":", text->length > 1 ? "," : "", member->string);
            api_text_bytes(text, value.at, value.bytes);
        }
    }
}

static void add_mixture(api_text *text, const api_request *request)
{
    for (uint32_t i = 0; i < request->mixture_count; i++) {
        api_text_format(text, "%s{\"class_label\":%" PRIu32 ",\"weight\":", i > 0 ? "," : ",\"class_mixture\":[",
                        request->mixture[i].label.index);
        api_text_number(text, request->mixture[i].weight);
        api_text_add(text, i + 1 < request->mixture_count ? "}" : "}]");
    }
}

static void add_picture(api_text *text, const char *name, const char *base64)
{
    if (base64 != NULL) {
        api_text_format(text, ",\"%s\":", name);
        api_text_string(text, base64);
    }
}

char *api_recipe_body(const api_recipe *recipe, const char *model, const char *init_image, const char *mask_image)
{
    api_request request = recipe->request;
    snprintf(request.model, sizeof request.model, "%s", model);
    request.n = 1;
    request.priority = 0;
    request.deadline_ms = 0;
    request.webhook[0] = '\0';
    char *shown = api_request_json(&request);
    cJSON *root = shown != NULL ? cJSON_Parse(shown) : NULL;
    api_text text = API_TEXT_INIT;
    text.failed = root == NULL;
    api_text_add(&text, "{");
    if (root != NULL) {
        add_members(&text, root, (api_raw){shown, strlen(shown)}, request.mixture_count > 0);
        add_mixture(&text, &request);
        add_picture(&text, "init_image", init_image);
        add_picture(&text, "mask_image", mask_image);
    }
    api_text_add(&text, "}");
    cJSON_Delete(root);
    free(shown);
    return api_text_take(&text);
}

static bool take_copy(char **out, const cJSON *root, const char *name, api_problem *problem)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, name);
    char field[32];
    snprintf(field, sizeof field, "/%s", name);
    if (item == NULL) {
        return true;
    }
    if (!cJSON_IsString(item)) {
        return api_refuse(problem, API_INVALID_FIELD, field, "%s must be a PNG in base64", name);
    }
    *out = strdup(item->valuestring);
    return *out != NULL || api_refuse(problem, API_INTERNAL, "", "out of memory");
}

static bool read_members(api_verify_request *out, const cJSON *root, api_problem *problem)
{
    const cJSON *image = cJSON_GetObjectItemCaseSensitive(root, "image"), *member;
    if (!cJSON_IsObject(root)) {
        return api_refuse(problem, API_INVALID_FIELD, "", "the body must be an object with the picture as image");
    }
    cJSON_ArrayForEach(member, root)
    {
        if (strcmp(member->string, "image") != 0 && strcmp(member->string, "init_image") != 0 &&
            strcmp(member->string, "mask_image") != 0) {
            return api_refuse(problem, API_INVALID_FIELD, "", "a field is not one of image, init_image and mask_image");
        }
    }
    size_t length = cJSON_IsString(image) ? strlen(image->valuestring) : 0;
    out->png = malloc(length / 4 * 3 + 3);
    if (out->png == NULL) {
        return api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    if (length == 0 || !api_base64_decode(out->png, &out->png_bytes, image->valuestring, length)) {
        return api_refuse(problem, API_INVALID_FIELD, "/image",
                          "image must be a PNG in base64, padded and without line ends or a data: prefix");
    }
    return take_copy(&out->init_image, root, "init_image", problem) && take_copy(&out->mask_image, root, "mask_image", problem);
}

bool api_parse_verify(api_verify_request *out, const char *body, size_t bytes, api_problem *problem)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_IMAGE_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    cJSON *root = NULL;
    dn_error error;
    size_t offset = 0;
    *out = (api_verify_request){.png = NULL};
    dn_status status = dn_json_parse(&root, body, bytes, &limits, &offset, &error);
    if (status == DN_NO_MEMORY) {
        return api_refuse(problem, API_INTERNAL, "", "out of memory");
    }
    if (status != DN_OK) {
        api_refuse(problem, API_MALFORMED_JSON, "", "the body is not JSON: %.200s", error.message);
        problem->has_offset = true;
        problem->offset = offset;
        return false;
    }
    bool fine = read_members(out, root, problem);
    cJSON_Delete(root);
    return fine;
}

void api_verify_request_done(api_verify_request *request)
{
    free(request->png);
    free(request->init_image);
    free(request->mask_image);
    *request = (api_verify_request){.png = NULL};
}

/* ---- Judging */

const char *api_verdict_name(api_verdict verdict)
{
    static const char *const names[] = {NULL, "same-bytes", "same-pixels", "different", "cannot"};
    return names[verdict];
}

const char *api_verify_code_name(api_verify_code code)
{
    static const char *const names[] = {
#define X(name, text) [API_VERIFY_##name] = (text),
        API_VERIFY_CODES(X)
#undef X
    };
    return names[code];
}

void api_verify_reason(api_verification *v, api_verify_code code, const char *format, ...)
{
    va_list arguments;
    if (v->reason_count == API_VERIFY_REASONS_MAX) {
        return;
    }
    va_start(arguments, format);
    vsnprintf(v->reasons[v->reason_count].detail, sizeof v->reasons[0].detail, format, arguments);
    va_end(arguments);
    v->reasons[v->reason_count++].code = code;
}

/* What the file says of its making that is not so here. */
static void add_differences(api_verification *v)
{
    const api_recipe *claimed = v->claimed;
    if (claimed->numerics != DN_NUMERICS_VERSION || strcmp(claimed->noise, DN_NOISE_NAME) != 0) {
        api_verify_reason(v, API_VERIFY_OTHER_NUMERICS, "made by numerics %d and noise %s; here they are %d and %s", claimed->numerics,
                          claimed->noise, DN_NUMERICS_VERSION, DN_NOISE_NAME);
    }
    if (strcmp(claimed->build, v->found_build) != 0 || strcmp(claimed->device, v->found_device) != 0) {
        bool other = strcmp(claimed->gpu, v->found_gpu) != 0;
        api_verify_reason(v, API_VERIFY_OTHER_BUILD, "made by build %.16s on %s%s%.80s%s; here it is build %.16s on %s%s%.80s%s",
                          claimed->build, claimed->device, other && claimed->gpu[0] ? " (" : "", other ? claimed->gpu : "",
                          other && claimed->gpu[0] ? ")" : "", v->found_build, v->found_device, other && v->found_gpu[0] ? " (" : "",
                          other ? v->found_gpu : "", other && v->found_gpu[0] ? ")" : "");
    }
    if (strcmp(claimed->request.model, v->model) != 0) {
        api_verify_reason(v, API_VERIFY_OTHER_NAME, "the file calls the model %s; here the same weights are called %s",
                          claimed->request.model, v->model);
    }
}

void api_verify_judge(api_verification *v)
{
    const bool same_pixels = strcmp(v->pixels_sha256, v->found_pixels_sha256) == 0;
    if (strcmp(v->sha256, v->found_sha256) == 0) {
        v->verdict = API_VERDICT_SAME_BYTES;
        memcpy(v->pixels_sha256, v->found_pixels_sha256, sizeof v->pixels_sha256);
        return;
    }
    v->verdict = same_pixels ? API_VERDICT_SAME_PIXELS : API_VERDICT_DIFFERENT;
    if (v->pixels_sha256[0] == '\0') {
        api_verify_reason(v, API_VERIFY_UNREADABLE, "the file's pixels cannot be decoded as a picture of %u x %u", v->claimed->width,
                          v->claimed->height);
    } else if (strcmp(v->pixels_sha256, v->claimed->pixels_sha256) != 0) {
        api_verify_reason(v, API_VERIFY_EDITED_PIXELS, "the file's pixels are not those that its metadata names%s",
                          strcmp(v->claimed->pixels_sha256, v->found_pixels_sha256) == 0 ? "; made again, the picture has them" : "");
    }
    add_differences(v);
    if (v->reason_count == 0) {
        api_verify_reason(v, API_VERIFY_EDITED_FILE,
                          same_pixels ? "the pixels agree, but the file's text or compression is not what denoised writes"
                                      : "the file's pixels are those that it names, but its request makes another picture");
    }
}

/* ---- The answer */

static void add_claimed(api_text *text, const api_recipe *claimed)
{
    if (claimed == NULL) {
        api_text_add(text, "null");
        return;
    }
    char *request = api_request_json(&claimed->request);
    text->failed |= request == NULL;
    api_text_format(text, "{\"request\":%s,\"width\":%" PRIu32 ",\"height\":%" PRIu32 ",\"channels\":%" PRIu32 ",\"weights_sha256\":",
                    request != NULL ? request : "null", claimed->width, claimed->height, claimed->channels);
    free(request);
    api_text_string(text, claimed->weights_sha256);
    api_text_add(text, ",\"noise\":");
    api_text_string(text, claimed->noise);
    api_text_format(text, ",\"numerics\":%d,\"device\":", claimed->numerics);
    api_text_string(text, claimed->device);
    api_text_add(text, ",\"build\":");
    api_text_string(text, claimed->build);
    api_add_gpu(text, claimed->gpu, claimed->plan);
    api_text_add(text, ",\"pixels_sha256\":");
    api_text_string(text, claimed->pixels_sha256);
    api_text_add(text, "}");
}

static void add_found(api_text *text, const api_verification *v)
{
    if (!v->made) {
        api_text_add(text, "null");
        return;
    }
    api_text_add(text, "{\"model\":");
    api_text_string(text, v->model);
    api_text_format(text, ",\"bytes\":%" PRIu64 ",\"sha256\":", v->found_bytes);
    api_text_string(text, v->found_sha256);
    api_text_add(text, ",\"pixels_sha256\":");
    api_text_string(text, v->found_pixels_sha256);
    api_text_format(text, ",\"noise\":\"%s\",\"numerics\":%d,\"device\":", DN_NOISE_NAME, DN_NUMERICS_VERSION);
    api_text_string(text, v->found_device);
    api_text_add(text, ",\"build\":");
    api_text_string(text, v->found_build);
    api_add_gpu(text, v->found_gpu, v->found_plan);
    api_text_add(text, "}");
}

char *api_verification_body(const api_verification *v)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"verdict\":");
    api_text_string(&text, api_verdict_name(v->verdict));
    api_text_add(&text, ",\"reasons\":[");
    for (uint32_t i = 0; i < v->reason_count; i++) {
        api_text_format(&text, "%s{\"code\":\"%s\",\"detail\":", i > 0 ? "," : "", api_verify_code_name(v->reasons[i].code));
        api_text_string(&text, v->reasons[i].detail);
        api_text_add(&text, "}");
    }
    api_text_add(&text, "],\"claimed\":");
    add_claimed(&text, v->claimed);
    api_text_format(&text, ",\"file\":{\"bytes\":%" PRIu64 ",\"sha256\":", v->bytes);
    api_text_string(&text, v->sha256);
    api_text_add(&text, ",\"pixels_sha256\":");
    api_text_string(&text, v->pixels_sha256[0] != '\0' ? v->pixels_sha256 : NULL);
    api_text_add(&text, "},\"found\":");
    add_found(&text, v);
    api_text_add(&text, ",\"job\":");
    api_text_add(&text, v->job_json != NULL ? v->job_json : "null");
    api_text_add(&text, "}");
    return api_text_take(&text);
}
