/* What AUTOMATIC1111's clients ask for when they start, and png-info. What webui has and this program has not is an empty list. */
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "api/base64.h"
#include "api/infotext.h"
#include "api/negotiate.h"
#include "api/sdapi_options.h"
#include "api/sdapi_views.h"
#include "format/json.h"
#include "format/png_image.h"
#include "server/sdapi.h"

bool sdapi_read_object(http_request *request, cJSON **root)
{
    const dn_json_limits limits = {.bytes_max = API_BODY_IMAGE_BYTES_MAX, .tokens_max = API_JSON_TOKENS_MAX};
    api_problem problem = {0};
    dn_error error = {0};
    size_t offset = 0;
    if (!api_is_json(http_header(request, "Content-Type"))) {
        http_refuse(request, API_UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json");
        return false;
    }
    dn_status status = dn_json_parse(root, request->body != NULL ? request->body : "", request->body_bytes, &limits, &offset, &error);
    if (status == DN_OK && cJSON_IsObject(*root)) {
        return true;
    }
    if (status == DN_NO_MEMORY) {
        api_refuse(&problem, API_INTERNAL, "", "out of memory");
    } else if (status != DN_OK) {
        api_refuse(&problem, API_MALFORMED_JSON, "", "the body is not JSON: %.200s", error.message);
        problem.has_offset = true;
        problem.offset = offset;
    } else {
        api_refuse(&problem, API_INVALID_FIELD, "", "the body must be an object");
    }
    cJSON_Delete(*root);
    http_problem(request, &problem);
    return false;
}

/* ---- Lists */

static void answer_text(http_request *request, const char *json)
{
    http_answer_constant(request, 200, "application/json", json, strlen(json));
}

void route_sdapi_samplers(http_request *request)
{
    service *s = request->application;
    http_answer_json(request, 200, api_sdapi_samplers_body(models_lookup(s->models, sdapi_model_of(request))));
}

void route_sdapi_schedulers(http_request *request)
{
    http_answer_json(request, 200, api_sdapi_schedulers_body());
}

void route_sdapi_models(http_request *request)
{
    service *s = request->application;
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "[");
    for (size_t i = 0; i < models_count(s->models); i++) {
        const char *name = models_name(s->models, i);
        api_text_add(&text, i > 0 ? "," : "");
        api_sdapi_add_model(&text, name, models_lookup(s->models, name));
    }
    api_text_add(&text, "]");
    http_answer_json(request, 200, api_text_take(&text));
}

void route_sdapi_none(http_request *request)
{
    answer_text(request, "[]");
}

void route_sdapi_embeddings(http_request *request)
{
    answer_text(request, "{\"loaded\":{},\"skipped\":{}}");
}

void route_sdapi_scripts(http_request *request)
{
    answer_text(request, "{\"txt2img\":[],\"img2img\":[]}");
}

/* Models are looked at when they are asked for; there is nothing to be refreshed. */
void route_sdapi_refresh(http_request *request)
{
    answer_text(request, "null");
}

void route_sdapi_flags(http_request *request)
{
    service *s = request->application;
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"api\":true,\"nowebui\":true,\"api_server_stop\":false,\"subpath\":");
    api_text_string(&text, s->base_path[0] == '/' ? s->base_path + 1 : NULL);
    api_text_add(&text, ",\"ckpt\":");
    api_text_string(&text, models_name(s->models, 0));
    api_text_add(&text, "}");
    http_answer_json(request, 200, api_text_take(&text));
}

/* Of the machine. The daemon itself holds no weights, and does not speak to devices. */
void route_sdapi_memory(http_request *request)
{
    struct sysinfo info;
    api_text text = API_TEXT_INIT;
    if (sysinfo(&info) != 0) {
        http_refuse(request, API_INTERNAL, "the system does not say how much memory it has");
        return;
    }
    const unsigned long long unit = info.mem_unit, total = info.totalram * unit, left = (info.freeram + info.bufferram) * unit;
    api_text_format(&text, "{\"ram\":{\"free\":%llu,\"used\":%llu,\"total\":%llu},\"cuda\":{\"error\":\"unavailable\"}}", left,
                    total - left, total);
    http_answer_json(request, 200, api_text_take(&text));
}

/* ---- Options */

void route_sdapi_options_get(http_request *request)
{
    service *s = request->application;
    const char *name = sdapi_model_of(request);
    http_answer_json(request, 200, api_sdapi_options_body(name, models_lookup(s->models, name)));
}

static bool set_options(http_request *request, const cJSON *root, api_sdapi_refusal *refusal)
{
    service *s = request->application;
    const cJSON *wanted = cJSON_GetObjectItemCaseSensitive(root, "sd_model_checkpoint");
    refusal->kind = "value_error";
    for (const cJSON *item = root->child; item != NULL; item = item->next) {
        if (!api_sdapi_option_accepted(item, "", refusal)) {
            return false;
        }
    }
    if (!cJSON_IsString(wanted)) {
        return true;
    }
    const char *name = sdapi_find_model(s, wanted->valuestring);
    if (name == NULL) {
        return api_refuse(&refusal->problem, API_INVALID_FIELD, "/sd_model_checkpoint",
                          "sd_model_checkpoint is not one of GET /sdapi/v1/sd-models");
    }
    sdapi_calls_choose(s->sdapi, request->client, name);
    return true;
}

void route_sdapi_options_set(http_request *request)
{
    api_sdapi_refusal refusal = {.kind = NULL};
    cJSON *root = NULL;
    if (!sdapi_read_object(request, &root)) {
        return;
    }
    if (set_options(request, root, &refusal)) {
        answer_text(request, "null");
    } else {
        sdapi_refuse(request, &refusal);
    }
    cJSON_Delete(root);
}

/* ---- png-info */

/* The texts that programs are known to put into pictures, besides `parameters`. */
static const char *const ITEMS[] = {"denoised", "Title", "Author", "Description", "Software", "Comment", "prompt", "workflow"};
enum { ITEM_COUNT = sizeof ITEMS / sizeof ITEMS[0] };

static void answer_png_info(http_request *request, const unsigned char *png, size_t bytes)
{
    char *infotext = NULL, *texts[ITEM_COUNT] = {NULL};
    const char *items[ITEM_COUNT][2];
    size_t count = 0;
    dn_error error;
    if (dn_png_read_text(&infotext, png, bytes, "parameters", &error) != DN_OK) {
        infotext = NULL;
    }
    for (size_t i = 0; i < ITEM_COUNT; i++) {
        if (dn_png_read_text(&texts[count], png, bytes, ITEMS[i], &error) == DN_OK) {
            items[count][0] = ITEMS[i];
            items[count][1] = texts[count];
            if (i == 0 && infotext == NULL) {
                infotext = api_infotext_of_recipe(texts[count]);
            }
            count++;
        }
    }
    http_answer_json(request, 200, api_sdapi_png_info_body(infotext, (const char *const(*)[2])items, count));
    free(infotext);
    for (size_t i = 0; i < count; i++) {
        free(texts[i]);
    }
}

void route_sdapi_png_info(http_request *request)
{
    api_sdapi_refusal refusal = {.kind = "value_error"};
    cJSON *root = NULL;
    uint32_t width, height;
    size_t bytes = 0;
    if (!sdapi_read_object(request, &root)) {
        return;
    }
    const cJSON *image = cJSON_GetObjectItemCaseSensitive(root, "image");
    const char *text = cJSON_IsString(image) ? image->valuestring : "";
    text += strspn(text, " \t\r\n");
    const char *comma = strncmp(text, "data:", 5) == 0 ? strchr(text, ',') : NULL;
    text = comma != NULL ? comma + 1 : text;
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r\n", text[length - 1]) != NULL) {
        length--;
    }
    unsigned char *png = malloc(length / 4 * 3 + 3);
    if (png == NULL) {
        http_refuse(request, API_INTERNAL, "out of memory");
    } else if (image == NULL) {
        refusal.kind = "value_error.missing";
        api_refuse(&refusal.problem, API_INVALID_FIELD, "/image", "image is required");
        sdapi_refuse(request, &refusal);
    } else if (!api_base64_decode(png, &bytes, text, length) || !dn_png_size(&width, &height, png, bytes)) {
        api_refuse(&refusal.problem, API_INVALID_FIELD, "/image", "image must be a PNG in base64");
        sdapi_refuse(request, &refusal);
    } else {
        answer_png_info(request, png, bytes);
    }
    free(png);
    cJSON_Delete(root);
}
