/* A validated request as it is stored and shown, and back; its options and its cost. Pure; any thread. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/generate_request.h"
#include "api/json_fields.h"
#include "api/text.h"
#include "format/json.h"

#define REQUEST_JSON_BYTES_MAX 8192

/* The options a request may carry, by the name they have on the wire. */
static const struct {
    const char *name;
    size_t offset;
} OPTIONS[] = {
    {"eta", offsetof(api_request, eta)},       {"s_churn", offsetof(api_request, s_churn)}, {"s_noise", offsetof(api_request, s_noise)},
    {"s_tmin", offsetof(api_request, s_tmin)}, {"s_tmax", offsetof(api_request, s_tmax)},
};
#define OPTION_COUNT (sizeof OPTIONS / sizeof OPTIONS[0])

static double option_of(const api_request *request, size_t i)
{
    double value;
    memcpy(&value, (const char *)request + OPTIONS[i].offset, sizeof value);
    return value;
}

char *api_request_json(const api_request *request)
{
    api_text text = API_TEXT_INIT;
    api_text_add(&text, "{\"model\":");
    api_text_string(&text, request->model);
    if (request->has_class) {
        api_text_format(&text, ",\"class_label\":%" PRIu32 ",\"class_name\":", request->class_index);
        api_text_string(&text, request->class_name);
    } else {
        api_text_add(&text, ",\"class_label\":null,\"class_name\":null");
    }
    api_text_add(&text, ",\"guidance_scale\":");
    api_text_real(&text, request->guidance_scale);
    api_text_format(&text, ",\"steps\":%" PRIu32 ",\"sampler\":", request->steps);
    api_text_string(&text, request->sampler);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        double value = option_of(request, i);
        if (!isnan(value)) {
            api_text_format(&text, ",\"%s\":", OPTIONS[i].name);
            api_text_number(&text, value);
        }
    }
    if (request->karras >= 0) {
        api_text_format(&text, ",\"karras\":%s", request->karras ? "true" : "false");
    }
    api_text_format(&text, ",\"seed\":\"%" PRIu64 "\",\"n\":%" PRIu32 ",\"priority\":%d}", request->seed, request->n, request->priority);
    return api_text_take(&text);
}

static bool read_class(const cJSON *root, api_request *out)
{
    double index;
    const cJSON *label = cJSON_GetObjectItemCaseSensitive(root, "class_label");
    if (cJSON_IsNull(label)) {
        return true;
    }
    out->has_class = true;
    if (!api_read_whole(root, "class_label", 0, UINT32_MAX, &index) ||
        !api_read_text(root, "class_name", out->class_name, sizeof out->class_name)) {
        return false;
    }
    out->class_index = (uint32_t)index;
    return true;
}

static bool read_options(const cJSON *root, api_request *out)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(root, OPTIONS[i].name);
        double number = cJSON_IsNumber(value) ? value->valuedouble : (double)NAN;
        if (value && !cJSON_IsNumber(value)) {
            return false;
        }
        memcpy((char *)out + OPTIONS[i].offset, &number, sizeof number);
    }
    const cJSON *karras = cJSON_GetObjectItemCaseSensitive(root, "karras");
    out->karras = karras ? cJSON_IsTrue(karras) : -1;
    return !karras || cJSON_IsBool(karras);
}

static bool read_seed(const cJSON *root, api_request *out)
{
    char digits[24];
    if (!api_read_text(root, "seed", digits, sizeof digits) || !digits[0] || digits[strspn(digits, "0123456789")]) {
        return false;
    }
    char again[24];
    out->seed = strtoull(digits, NULL, 10);
    out->has_seed = true;
    snprintf(again, sizeof again, "%" PRIu64, out->seed);
    return strcmp(again, digits) == 0; /* refuses what strtoull saturated */
}

bool api_request_from_json(api_request *out, const char *json, size_t bytes)
{
    const dn_json_limits limits = {.bytes_max = REQUEST_JSON_BYTES_MAX};
    api_request request = {.model = ""};
    cJSON *root = NULL;
    double steps = 0, n = 0, priority = 0;
    bool ok = false;
    if (dn_json_parse(&root, json, bytes, &limits, NULL, NULL) != DN_OK || !cJSON_IsObject(root)) {
        goto done;
    }
    const cJSON *guidance = cJSON_GetObjectItemCaseSensitive(root, "guidance_scale");
    ok = cJSON_IsNumber(guidance) && api_read_text(root, "model", request.model, sizeof request.model) && read_class(root, &request) &&
         api_read_text(root, "sampler", request.sampler, sizeof request.sampler) && read_options(root, &request) &&
         read_seed(root, &request) && api_read_whole(root, "steps", 1, API_STEPS_MAX, &steps) &&
         api_read_whole(root, "n", 1, API_N_MAX, &n) && api_read_whole(root, "priority", -API_PRIORITY_MAX, API_PRIORITY_MAX, &priority);
    if (ok) {
        request.guidance_scale = guidance->valuedouble;
        request.steps = (uint32_t)steps;
        request.n = (uint32_t)n;
        request.priority = (int)priority;
        *out = request;
    }
done:
    cJSON_Delete(root);
    return ok;
}

dn_sampler_options api_request_options(const api_request *request)
{
    return (dn_sampler_options){
        .eta = request->eta,
        .s_churn = request->s_churn,
        .s_noise = request->s_noise,
        .s_tmin = request->s_tmin,
        .s_tmax = request->s_tmax,
        .karras = request->karras,
    };
}

uint64_t api_request_cost(const api_request *request)
{
    const dn_sampler *sampler = dn_sampler_find(request->sampler);
    bool two_rows = request->has_class && request->guidance_scale != 1 && request->guidance_scale != 0;
    uint64_t evaluations = sampler ? sampler->evaluations_per_step : 1;
    return (uint64_t)request->n * request->steps * evaluations * (two_rows ? 2 : 1);
}
